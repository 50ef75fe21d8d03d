"""Makes documents.jsonl: texts of our own with what the definitions of plugins/bundled/README.md
give for them, by a second, plain implementation."""
import json
import random
import re
from collections import Counter

WORDS = "the water of a machine and filter that must be cleaned with care every week pump valve to have coffee".split()


def ratio(a, b):
    return a / b if b else 0


def drops(s):
    words = s.split()
    bad = ["javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"]
    return (not s or s[-1] not in ".?!\"'" or s.endswith("...") or len(words) < 3 or max(map(len, words)) > 1000
            or any(b in s for b in bad))


def measure(text):
    m = {}
    words, n_chars = text.split(), len(text)
    plain = [w for w in words if any(c.isalnum() for c in w)]
    lines = [l.strip(" \t\n\r\f\v") for l in text.split("\n")]
    lines = [l for l in lines if l]
    pars = [p.strip(" \t\n\r\f\v") for p in re.split(r"\n{2,}", text)]
    pars = [p for p in pars if p]
    m["words"] = len(plain)
    m["mean_word_length"] = ratio(sum(map(len, plain)), len(plain))
    m["hash_ratio"] = ratio(text.count("#"), len(words))
    m["ellipsis_ratio"] = ratio(text.count("...") + text.count("…"), len(words))
    m["bullet_lines"] = ratio(sum(l.startswith(("•", "-")) for l in lines), len(lines))
    m["ellipsis_lines"] = ratio(sum(l.endswith(("...", "…")) for l in lines), len(lines))
    m["alpha_words"] = ratio(sum(any(c.isalpha() for c in w) for w in words), len(words))
    m["stop_words"] = len({"the", "be", "to", "of", "and", "that", "have", "with"} & set(words))
    for name, parts in (("line", lines), ("paragraph", pars)):
        seen, n, chars = set(), 0, 0
        for p in parts:
            if p in seen:
                n, chars = n + 1, chars + len(p)
            seen.add(p)
        m["dup_%ss" % name] = ratio(n, len(parts))
        m["dup_%s_chars" % name] = ratio(chars, n_chars)
        if name == "line":
            m["dup_lines_of_chars"] = ratio(chars, n_chars - text.count("\n"))
    for n in range(2, 5):
        grams = Counter(" ".join(words[i:i + n]) for i in range(len(words) - n + 1))
        top = grams.most_common(1)
        m["top_%dgram" % n] = ratio(len(top[0][0]) * top[0][1], n_chars) if top else 0
    for n in range(5, 11):
        seen, chars, i = set(), 0, 0
        while i + n <= len(words):
            g = tuple(words[i:i + n])
            if g in seen:
                chars += sum(map(len, g))
                i += n
            else:
                seen.add(g)
                i += 1
        m["dup_%dgram" % n] = ratio(chars, n_chars)
    kept = []
    for l in lines:
        l = re.sub(r"\[\d+\]|\[edit\]|\[citation needed\]", "", l.lower()).rstrip(" \t\n\r\f\v")
        m["c4_lorem_ipsum"] = max(m.get("c4_lorem_ipsum", 0), int("lorem ipsum" in l))
        if not drops(l):
            kept.append(l)
    m.setdefault("c4_lorem_ipsum", 0)
    m["c4_curly"] = int("{" in text)
    m["c4_lines_kept"] = ratio(len(kept), len(lines))
    m["c4_sentences"] = sum(len(re.findall(r"[.?!][.?!\"')\]]*(?=\s|$)", l)) for l in kept)
    m["punctuated_lines"] = ratio(sum(l.endswith((".", "!", "?", '"', "'", "”", "’", "…", "。", "！", "？")) for l in lines),
                                  len(lines))
    m["short_lines"] = ratio(sum(len(l) <= 30 for l in lines), len(lines))
    m["newlines_per_word"] = ratio(text.count("\n"), len(words))
    return {k: round(v, 6) for k, v in m.items()}


def sentence(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(3, 14))).capitalize() + rng.choice(".?!.")


def documents():
    rng = random.Random(11)
    yield ""
    yield " \n\n \n"
    yield "word"
    yield "- one\n- two\n• three\n-four"
    yield "# Title\n\nThe pump ... is to be cleaned…\nand then...\n\n## More # hashes"
    yield "All is here. [12] See the manual[3].\nThe end [edit]\nA claim was made.[citation needed]\nRead our Privacy Policy today."
    yield "Please enable JavaScript to go on.\nLorem ipsum dolor sit amet.\nint main() { return 0; }"
    yield "He said \"stop.\" Then he (the guard!) left. What?! No... \"Why?\"\nThis line ends in three dots...\nTwo words."
    yield "x" * 1001 + " is a long word.\nThis one is fine, it is."
    yield "これは日本語の文です。とても短い！\nもう一つ？"
    yield "Größe naïve café — Straße… Ünïcödé wörds ½ ² ①"
    yield "a\u00a0b\u2003c\u3000d e\tf\vg"
    yield "1 2 3 4 5 + - = / 6"
    yield "same line here.\n" * 10
    yield "one paragraph of it.\n\n" * 6
    yield "\r\n".join(["The first line.", "The second line.", "The first line."])
    yield "go to the shop " * 30
    yield "a b c d e f g h i j " * 5 + "k"
    for i in range(14):
        lines = [" ".join(sentence(rng) for _ in range(rng.randrange(1, 5))) for _ in range(rng.randrange(2, 15))]
        for _ in range(i // 3):
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        yield ("\n\n" if i % 3 == 0 else "\n").join(lines)


def main():
    with open("documents.jsonl", "w", encoding="utf-8") as f:
        for text in documents():
            print(json.dumps({"text": text, "expected": measure(text)}), file=f)


main()
