"""Makes cases.json: pairs of answer and reference of our own, with what sacrebleu and rouge_score say
of each pair and of all of them. Run in an environment with `pip install sacrebleu==2.6.0
rouge_score==0.1.2`."""
import json
import random

import sacrebleu
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU

WORDS = "The pump of a machine is cleaned with water, 3.5 bar and 1,000 cups-a-day; don't! (twice) U.S. 24-7 café &amp; \"so\"".split()
FIXED = [("Two years.", "Two years."), ("", "Two years."), ("Two years.", ""), ("", ""), ("a", "b"), ("the the the the", "the cat"),
         ("It costs $1,000.50, i.e. 3-4% more.", "It costs $1000.50 i.e. 3 - 4 % more."), ("Das ist schön", "Das war schön"),
         ("機械の水を毎朝かえる", "機械の水を毎晩かえる"), ("a.b,c..d,,e", "a . b , c . . d"), ("x -\ny <skipped> z", "x y z"),
         ("line one is here\nline two is there\n\nthe end", "line two is here\nthe line one\nend of it"),
         ("one\n\n\ntwo three", "three two\none"), ("The K\u212Aelvin \u0130stanbul test", "the kkelvin istanbul i test"),
         ("a\u00a0b\u2003c", "a b c"), ("~`{}[]/@:<=>?!;%$#\"&'()*+", "~ ` { } / @"), ("5-3 a-3 3-a .5 5. ,5 a,b", "5 -3 a - 3"),
         ("Hello WORLD hello", "hello world Hello HELLO"), ("&lt;b&gt; &quot;x&quot;", "<b> \"x\"")]


def main():
    rng = random.Random(5)
    pairs = list(FIXED)
    for i in range(40):
        ref = [rng.choice(WORDS) for _ in range(rng.randrange(1, 40))]
        hyp = [w for w in ref if rng.random() > 0.2] if i % 4 else [rng.choice(WORDS) for _ in range(rng.randrange(1, 30))]
        if i % 3 == 0:
            rng.shuffle(hyp)
        sep = "\n" if i % 5 == 0 else " "
        pairs.append((sep.join(hyp), " ".join(ref) if i % 2 else sep.join(ref)))
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=False)
    rows = []
    for hyp, ref in pairs:
        r = scorer.score(ref, hyp)
        row = {"prediction": hyp, "reference": ref, "sentence_bleu": sacrebleu.sentence_bleu(hyp, [ref]).score,
               "sentence_chrf": sacrebleu.sentence_chrf(hyp, [ref]).score}
        row.update({k: 100 * v.fmeasure for k, v in r.items()})
        rows.append(row)
    hyps, refs = [p[0] for p in pairs], [[p[1] for p in pairs]]
    few = ["no match here at all", "none"], [["something else", "entirely"]]
    out = {"rows": rows, "bleu": BLEU().corpus_score(hyps, refs).score, "chrf": sacrebleu.corpus_chrf(hyps, refs).score,
           "disjoint_bleu": sacrebleu.corpus_bleu(*few).score, "disjoint_chrf": sacrebleu.corpus_chrf(*few).score}
    with open("cases.json", "w", encoding="utf-8") as f:
        json.dump(out, f, indent=0)
        f.write("\n")


main()
