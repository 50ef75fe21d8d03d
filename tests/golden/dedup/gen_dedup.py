"""Makes pairs.jsonl: pairs of texts with the Jaccard similarity of their 5-word shingles, by plain
sets of strings. The words are those that plugins/bundled/dedup.c describes."""
import json
import random
import re
import unicodedata

WORDS = ("machine water boiler valve pressure warranty filter clean morning espresso grinder the a of "
         "when under before never twice Duo naïve café Über señor filter 25 3.5 100 bar °C e\u0301lan "
         "Ελλάδα привет ﬁne co\u00adop").split(" ")


def words(text):
    out = []
    text = "".join(c for c in unicodedata.normalize("NFD", text) if
                   not unicodedata.category(c).startswith("M") and unicodedata.category(c) != "Cf")
    for part in re.findall(r"\w+", text.replace("_", " ").lower()):
        part = re.sub(r"\d+", "0", part)
        out += re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\u3040-\u30ff\u3400-\u9fff]+", part)
    return out


def shingles(text):
    w = words(text)
    return {tuple(w[i:i + 5]) for i in range(max(1, len(w) - 4))}


def jaccard(a, b):
    a, b = shingles(a), shingles(b)
    return len(a & b) / len(a | b)


def change(rng, w, n):
    w = list(w)
    for _ in range(n):
        w[rng.randrange(len(w))] = rng.choice(WORDS) + rng.choice(["", ".", "!", " -", "'s"])
    return w


def main():
    rng = random.Random(4)
    rows = []
    for i in range(40):
        a = [rng.choice(WORDS) + rng.choice(["", "", "", ",", ".", "\n"]) + str(i)[:i % 2]
             for _ in range(rng.choice([8, 30, 60, 120]))]
        b = change(rng, a, rng.randrange(0, 1 + len(a) // 20))
        rows.append((" ".join(a), "  ".join(b).upper() if i % 3 == 0 else " ".join(b)))
    rows.append(("機械の水を毎朝かえてください。", "機械の水を毎晩かえてください!"))
    rows.append(("The pump costs 25.50 EUR today, less than before.",
                 "the PUMP costs 199.00 eur today; less than before"))
    with open("pairs.jsonl", "w", encoding="utf-8") as f:
        for a, b in rows:
            print(json.dumps({"a": a, "b": b, "jaccard": round(jaccard(a, b), 6)}), file=f)


main()
