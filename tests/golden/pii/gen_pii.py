"""Makes labelled.txt: a line a text, what is personal in it between <kind> and </kind>. All values
are made up here; cards and IBANs get the check digits that their standards want, and near misses
get wrong ones."""
import random

LENGTHS = {"DE": 22, "GB": 22, "FR": 27, "NL": 18, "ES": 24, "IT": 27, "CH": 21, "AT": 20, "BE": 16, "PL": 28,
           "NO": 15, "SE": 24, "MT": 31, "SA": 24, "BR": 29}
FORMS = {"GB": "AAAANNNNNNNNNNNNNN", "NL": "AAAANNNNNNNNNN", "IT": "ANNNNNNNNNNNNNNNNNNNNNN", "MT": "AAAA" + "N" * 23,
         "BR": "N" * 23 + "AN"}
TEMPLATES = ["Reach me at {}.", "{}", "My new one is {}, please update the file.", "({})", "old: {} / new: soon",
             "Am Freitag habe ich {} notiert.", "The record says \"{}\" and nothing else.", "連絡先は{}です。"]


def luhn(digits):
    total = 0
    for i, d in enumerate(reversed([int(c) for c in digits] + [0])):
        total += d if i % 2 == 0 else d * 2 - (9 if d > 4 else 0)
    return str((10 - total % 10) % 10)


def card(rng, prefix, n):
    body = prefix + "".join(rng.choice("0123456789") for _ in range(n - 1 - len(prefix)))
    return body + luhn(body)


def iban(rng, country):
    form = FORMS.get(country, "N" * (LENGTHS[country] - 4))
    bban = "".join(rng.choice("0123456789" if c == "N" else "ABCDEFGHKLMX") for c in form)
    digits = "".join(str(int(c, 36)) for c in bban + country + "00")
    return "%s%02d%s" % (country, 98 - int(digits) % 97, bban)


def fours(s):
    return " ".join(s[i:i + 4] for i in range(0, len(s), 4))


EMAILS = """ann@example.org a.b-c_d+tag@mail.example.co.uk 12345678@uni-musterstadt.de x@y.io j.o'neil@firma.example
first.last@sub.domain.museum ANN@EXAMPLE.ORG user%2b@example.com kontakt@xn--bcher-kva.example no-reply@a-b.travel""".split()
PHONES = """+49 30 1234567|+1 (202) 555-0143|+12025550143|+44 20 7946 0958|+33 1 23 45 67 89|(202) 555-0143|202-555-0143
202.555.0143|1-800-555-0199|020 7946 0958|01 23 45 67 89|030/1234567|+81-3-1234-5678|+86 138 0013 8000|0171-2345678
+91 98765 43210|0800 123 4567""".replace("\n", "|").split("|")
CONTEXT_PHONES = ["Phone: {}", "call me on {} after six", "Tel. {}", "WhatsApp {} works too", "mobile {}", "Fax: {}",
                  "Telefon: {}", "mon téléphone: {}", "teléfono {}"]
BARE = ["2312322334", "5550143", "01712345678", "61234567", "555 0143 22", "912 345 678", "98765432"]
IPS = """8.8.8.8 1.1.1.1 93.184.216.34 200.17.5.255 2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450:4001:81b::200e
2a02:26f0:0:0:0:0:1:2 2607:f8b0:4004:c07::93.184.216.34""".split()
NOTHING = """The meeting is at 12:30:45 on 2024-05-17.
Version 8.8.8.8 fixes it; upgrade from version 1.2.3.4 soon.
Section 1.2.3.4.5 of the manual.
ping 192.168.0.12, 10.41.21.72, 127.0.0.1 and 172.16.3.4 inside the network
fe80::1, ::1 and 2001:db8::7 are not anybody's.
std::vector<int> a::b; Foo::Bar and ab::cd in the code
ISBN 978-3-16-148410-0 and ISBN 0-306-40615-2
doi 10.1000/182 and 10.1038/s41586-020-2649-2
The order number is 2025550143 and the ticket 123456789.
timestamps: 1700000000000 and 1700000000123
card 4929-3813-3266-4296 has a wrong digit
0000 0000 0000 0000 and 4444444444444444
123456789012345678901234567890 is long
49293813326642954929381332664295
ids A1B2C3 and DE89 3704 are short
DE88 3704 0044 0532 0130 00 fails its check
GB29NWBK60161331926818 has another country's end
logo@2x.png and @home and user@ and a@b
foo@bar without a top level, @mention, 5 @ 3.50
C:\\dir\\10.1.2.3 and 3.14159265358979
1,234,567.89 and 1.234.567,89 EUR, $1234567
x = 1234567; y = 7654321 + 1111111;
The years 1999-2004 and pages 123-456.
2024-05-17 2023-11-30 12/31/2024 31.12.2024 17.05.2024
00:1A:2B:3C:4D:5E is a MAC address
rows 100 200 300 400, 1 2 3 4 5 6 7 8 9 10 11
He scored 100 200 3000 points.
SHA 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
1/2 + 3/4 = 5/4; 12 x 12 = 144; 48/2 = 24
7-11 stores, 24/7, 911, 112 and 555
call 911 or dial 112 now
Natalia sold 48 + 24 = 72 clips altogether in April and May.
part 30-1234-567 of the kit, sku 020 7946 0958
300.300.300.300 and 256.1.1.1 and 01.02.03.04
12345.67890.12345 and 1.2.3 and 10.0.0""".split("\n")


# What a reader of real texts would have marked, and what it would not; after the lines above, which stay as they are.
MORE = """Write to <email>jürgen.groß@bücher.example</email> or <email>łukasz@example.pl</email>.
请联系<email>ann@example.org</email>谢谢
Ring <phone>+49(0)30/1234567</phone> or <phone>+1(202)555-0143</phone>.
IBAN:<iban>DE89-3704-0044-0532-0130-00</iban>, as typed: <iban>de89370400440532013000</iban>
fax <phone>912 345 678</phone>, call <phone>555.0143</phone> in 2019
Please call 2024-05-17 at noon, or call on 12.05.2024.
The call took place 1914-1918, in 2021/2022 and 2001.12.24.
Each phone costs $3000 / 200 phones = <<3000/200=15>>15, and 2400/200 more.
call option strike 1234.5678; the ring weighs 12 345 678 tons
Call 10.0.19041.388 the newest; release 4.18.0.193 and Section 3.2.1.4
De89370400440532013000 and DE89-3704 0044-0532 0130-00 mix""".split("\n")


def tag(kind, value):
    return "<%s>%s</%s>" % (kind, value, kind)


def main():
    rng = random.Random(7)
    lines = list(NOTHING)
    for v in EMAILS:
        lines.append(rng.choice(TEMPLATES).format(tag("email", v)))
    for v in PHONES:
        lines.append(rng.choice(TEMPLATES).format(tag("phone", v)))
    for t in CONTEXT_PHONES:
        lines.append(t.format(tag("phone", rng.choice(BARE))))
    for v in IPS:
        lines.append(rng.choice(TEMPLATES).format(tag("ip", v)))
    for prefix, n in [("4", 16), ("4", 13), ("51", 16), ("2221", 16), ("2720", 16), ("34", 15), ("37", 15), ("6011", 16),
                      ("36", 14), ("3530", 16), ("62", 19), ("62", 16), ("6759", 18), ("2202", 16), ("4", 19)]:
        v = card(rng, prefix, n)
        lines.append(rng.choice(TEMPLATES).format(tag("card", v)))
        if n == 16:
            lines.append(rng.choice(TEMPLATES).format(tag("card", rng.choice([fours(v), fours(v).replace(" ", "-")]))))
        if n == 15:
            lines.append(rng.choice(TEMPLATES).format(tag("card", v[:4] + " " + v[4:10] + " " + v[10:])))
    for c in LENGTHS:
        v = iban(rng, c)
        lines.append(rng.choice(TEMPLATES).format(tag("iban", v)))
        lines.append(rng.choice(TEMPLATES).format(tag("iban", fours(v))))
    lines.append("Ann (%s) and Bob (%s), both %s, %s." % (tag("email", "ann@example.org"), tag("email", "bob@example.org"),
                 tag("phone", "+49 30 1234567"), tag("ip", "8.8.4.4")))
    lines.append("Card %s 12/27 123, then %s" % (tag("card", fours(card(rng, "4", 16))), tag("email", "a@b.example")))
    rng.shuffle(lines)
    lines += MORE
    with open("labelled.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


main()
