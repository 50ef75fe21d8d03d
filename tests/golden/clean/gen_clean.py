"""Makes cases.jsonl: texts and what is to become of them. NFC is Python's; mojibake is made by
reading UTF-8 as CP1252 (undefined bytes as Latin-1) or as Latin-1, once or twice."""
import json
import random
import unicodedata

PHRASES = ["café", "naïve façade", "Größe: 25 °C", "l’été — c’est “fini”…", "señor, ¿qué tal?", "価格は1000円", "привет мир",
           "Ελλάδα", "smile 😀 now", "Zürich → Genève", "1–2 %", "ça va à Noël", "über 5 € für", "Łódź", "שלום עולם",
           "مرحبا", "“quoted”", "it’s", "½ cup", "déjà vu"]
SAME = ["CAFÉ…", "CAFÉ” he said", "A MANHÔ", "SÃO PAULO", "Ärger", "É", "Über", "Â", "100 % ± 5", "«été»", "naïve",
        "価格", "می‌خواهم", "क्‍ष", "👩‍💻", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "a\tb\nc", "ÀÉÎ", "Straße"]
FIXED = [("a\r\nb\rc\n", "a\nb\nc\n"), ("\ufeffa", "a"), ("a\u200bb\u2060c", "abc"), ("x\u202eevil\u202c", "xevil"),
         ("a\u0000b\u0007c\u0085d", "abcd"), ("a\u200db", "ab"), ("co\u00adop", "coop"), ("hi\U000e0041\U000e0042", "hi"),
         ("e\u0301", "é"), ("A\u030a", "Å"), ("\u1100\u1161\u11a8", "각"), ("\u212b", "Å"), ("q\u0307\u0323", "q\u0323\u0307"),
         ("\u2066x\u2069", "x")]


def cp1252(data):
    out = ""
    for b in data:
        try:
            out += bytes([b]).decode("cp1252")
        except UnicodeDecodeError:
            out += chr(b)
    return out


def main():
    rng = random.Random(3)
    rows = [(a, a) for a in SAME] + FIXED
    for p in PHRASES:
        rows += [(p, p), (cp1252(p.encode()), p), (p.encode().decode("latin-1"), p)]
        rows.append(("plain before, " + cp1252(p.encode()) + " and after", "plain before, " + p + " and after"))
    for p in PHRASES[:6]:
        rows.append((cp1252(cp1252(p.encode()).encode()), p))
    for _ in range(60):
        s = "".join(chr(rng.choice([rng.randrange(0x61, 0x7b), rng.randrange(0x300, 0x345), rng.randrange(0x391, 0x3a0),
                                    rng.randrange(0x1e00, 0x1e99), rng.randrange(0xac00, 0xd7a3), rng.randrange(0x1100, 0x1112),
                                    rng.randrange(0x1161, 0x1175)])) for _ in range(12))
        rows.append((s, unicodedata.normalize("NFC", s)))
    with open("cases.jsonl", "w", encoding="utf-8") as f:
        for a, b in rows:
            print(json.dumps([a, b]), file=f)


main()
