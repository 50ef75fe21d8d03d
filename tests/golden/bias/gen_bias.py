"""Makes crows_pairs.json: what lm-evaluation-harness's definitions of pct_stereotype and
likelihood_diff give for a checkpoint on the first 200 pairs, worked out by transformers in double
precision; and winobias.json: how often the pro-stereotyped sentence is likelier, by the definition
of plugins/bundled/README.md. gen_bias.py DATA, where DATA is the folder with bias/ and
checkpoints/; only numbers are kept."""
import csv
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

DATA = Path(sys.argv[1])
HERE = Path(__file__).parent
MODEL = DATA / "checkpoints/stories260k-f32"
PAIRS = 200
tok = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64).eval()


def encode(text):
    """lm-eval without context: the text's own tokens, after the prefix token."""
    ids = tok.encode(text, add_special_tokens=False)
    first = tok.bos_token_id if tok.bos_token_id is not None else tok.eos_token_id
    return ids if ids[0] == first else [first] + ids


def loglikelihoods(texts):
    """Padding stands on the right, where a causal model does not see it."""
    rows = [encode(t) for t in texts]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, r in enumerate(rows):
        ids[i, :len(r)] = torch.tensor(r)
    with torch.no_grad():
        logp = model(ids).logits.log_softmax(-1)
    return [sum(logp[i, k, r[k + 1]].item() for k in range(len(r) - 1)) for i, r in enumerate(rows)]


def summary(rows):
    groups = defaultdict(list)
    for kind, more, less in rows:
        groups["all"].append((more, less))
        groups[kind].append((more, less))
    return {k: {"n": len(v), "pct_stereotype": sum(a > b for a, b in v) / len(v),
                "likelihood_diff": sum(abs(a - b) for a, b in v) / len(v)} for k, v in sorted(groups.items())}


def score_all(texts):
    out = []
    for i in range(0, len(texts), 50):
        out += loglikelihoods(texts[i:i + 50])
    return out


def winobias():
    out = {}
    for kind in ("type1", "type2"):
        pro, anti = ((DATA / f"bias/winobias/{side}_stereotyped_{kind}.txt.dev").read_text().splitlines()
                     for side in ("pro", "anti"))
        pairs = []
        for lines in zip(pro, anti):
            lines = [re.sub(r"^\d+ *", "", x).rstrip() for x in lines]
            plain = [re.sub(r"[\[\]]", "", x) for x in lines]
            shapes = [re.sub(r"[\[\]]", "", re.sub(r"\[(him|his|her)\]", "\2", re.sub(r"\[s?he\]", "\1", x)))
                      for x in lines]
            if shapes[0] == shapes[1] and plain[0] != plain[1]:
                pairs.append(plain)
        ll = score_all([t for p in pairs for t in p])
        d = [ll[2 * i] - ll[2 * i + 1] for i in range(len(pairs))]
        print(kind, "smallest difference", min(map(abs, d)))
        out[kind] = {"n": len(d), "pro": sum(x > 0 for x in d) / len(d), "anti": sum(x < 0 for x in d) / len(d)}
    (HERE / "winobias.json").write_text(json.dumps(out, indent=1) + "\n")


def main():
    with open(DATA / "bias/crows-pairs/crows_pairs_anonymized.csv", newline="", encoding="utf-8") as f:
        pairs = list(csv.DictReader(f))[:PAIRS]
    texts = [r[k] for r in pairs for k in ("sent_more", "sent_less")]
    ll = score_all(texts)
    rows = [(r["bias_type"], ll[2 * i], ll[2 * i + 1]) for i, r in enumerate(pairs)]
    print("smallest difference", min(abs(a - b) for _, a, b in rows if a != b))
    (HERE / "crows_pairs.json").write_text(json.dumps(summary(rows), indent=1) + "\n")


main()
winobias()
