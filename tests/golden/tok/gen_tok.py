"""Goldens of the tokenizer, made by Hugging Face tokenizers: gen_tok.py [SHARED] (../shared).

cases.json   small tokenizers, each a base model with its own normalizer, pre-tokenizer, decoder and
             added tokens; per text the ids, start and end of the bytes of each, and the
             decoded text where it is not the text (skipped: without special tokens, where that
             is another)
shared.json  ids of the same texts under the real tokenizers in SHARED/data/tokenizers
train.json   merges learned from train.txt under several settings
Written with tokenizers 0.23.3.
"""
import json
import os
import random
import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

here = os.path.dirname(os.path.abspath(__file__))
shared = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../../../../shared")
META = "\u2581"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")

TEXTS = [
    "",
    "Hello, world! It's a test; they'LL see 1234567 things.",
    "  leading and trailing  \n\n  \tmixed\r\n runs   ",
    "def f(x):\n    if x > 10:\n        return x ** 2  # square\n",
    "naïve café, A\u030angstro\u0308m, e\u0301\u0323 and a\u0307\u0323",
    "中文分词和日本語のテキスト、か\u3099。한국어 \u1100\u1161\u11a8",
    "emoji 😀👨‍👩‍👧🏃‍♂️🇩🇪 ❤️!!",
    "мир — peace; שלום; العربية ٣٤٥; मराठी; ไทย",
    "a\u00a0b\u3000c\u2003d\u0085e\u180ef\u200bg",
    "don'T can'ſt WE'RE I'd've 's",
    "1 22 333 4444 55555 ²Ⅷ½ 3.14e-10",
    "<s>[INST] hi [/INST]</s><unk><|endoftext|><|im_start|>user\nx<|im_end|>",
    "\u2581meta\u2581\u2581space \u2581 <0x0A> <0xFF>",
    "ab" * 60 + " " * 70 + "x",
    "tab\tab <mask>ab<mask> ab ab<mask>,abab xy  xy,Hello  Hello",
    "ﬁne İstanbul ß ΑΣ \u212b \u1e9b\u0323 \uff21",
    "http://example.com/a?b=c&d=e#f user@mail.org $9.99 {\"k\": [1, 2]}",
    "\x00\x01\x7f \ufeff\ufffd\ue000\U0010ffff",
]
TRAIN = [t for t in TEXTS if "\x00" not in t] * 3 + [
    "the quick brown fox jumps over the lazy dog and the other quick dogs, don't they? " * 20,
    "return self.value if x is None else x\n    for i in range(10):\n" * 10]


def base(kind):
    unk = None if kind == "bytes" else "<unk>"
    tok = Tokenizer(models.BPE(unk_token=unk, byte_fallback=kind == "spm", fuse_unk=True))
    if kind == "bytes":
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        settings = dict(vocab_size=420, special_tokens=["<s>", "</s>"],
                        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    elif kind == "spm":
        tok.pre_tokenizer = pre_tokenizers.Metaspace()
        settings = dict(vocab_size=520, limit_alphabet=120, special_tokens=[
            "<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)])
    else:
        tok.pre_tokenizer = pre_tokenizers.Whitespace()
        settings = dict(vocab_size=260, limit_alphabet=90, special_tokens=["<unk>", "<s>", "</s>"])
    tok.train_from_iterator(TRAIN, trainers.BpeTrainer(show_progress=False, **settings))
    model = json.loads(tok.to_str())["model"]
    model["merges"] = [list(m) for m in model["merges"]]
    if kind == "bytes":  # both spellings of merges are read
        model["merges"] = [" ".join(m) for m in model["merges"]]
    return model


def added(content, id=None, special=True, **flags):
    token = dict(id=id, content=content, single_word=False, lstrip=False, rstrip=False,
                 normalized=not special, special=special)
    token.update(flags)
    return token


def byte_level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": False,
            "use_regex": regex}


def seq(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def metaspace(scheme, cut):
    return {"type": "Metaspace", "replacement": META, "prepend_scheme": scheme, "split": cut}


def template(*names):
    ids = {"<s>": 0, "</s>": 1}
    return {"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}} if n == "A" else
                       {"SpecialToken": {"id": n, "type_id": 0}} for n in names],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {n: {"id": n, "ids": [ids[n]], "tokens": [n]}
                               for n in names if n != "A"}}


SPM_DECODER = seq("decoders", replace(META, " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                  {"type": "Strip", "content": " ", "start": 1, "stop": 0})
PUNCT = {"type": "Punctuation", "behavior": "Isolated"}


def tokenizers(bases):
    own = {"bytes": [added("<s>", 0), added("</s>", 1)],
           "spm": [added("<unk>", 0), added("<s>", 1), added("</s>", 2)],
           "chars": [added("<unk>", 0), added("<s>", 1), added("</s>", 2)]}

    def make(name, kind, pre, norm=None, plus=(), dec=None, post=None, **model):
        if dec is None:
            dec = {"bytes": byte_level(), "spm": SPM_DECODER, "chars": {"type": "Fuse"}}[kind]
        return dict(name=name, base=kind, model=model, normalizer=norm, pre_tokenizer=pre,
                    post_processor=post, decoder=dec, added_tokens=own[kind] + list(plus))


    def more(kind, *tokens):  # a token of the vocabulary keeps its id, the others get the next ones
        vocab, free = bases[kind]["vocab"], len(bases[kind]["vocab"])
        for token in tokens:
            token["id"] = vocab.get(token["content"], free)
            free += token["id"] == free
        return sorted(tokens, key=lambda token: token["id"])

    llama3 = seq("pretokenizers", split(LLAMA3), byte_level(regex=False))
    return [
        make("gpt2", "bytes", byte_level()),
        make("gpt2 prefix", "bytes", byte_level(prefix=True)),
        make("gpt2 template", "bytes", byte_level(), post=template("<s>", "A", "</s>")),
        make("llama3", "bytes", llama3, ignore_merges=True, post=seq(
            "processors", byte_level(), template("<s>", "A"))),
        make("qwen2", "bytes", seq("pretokenizers", split(QWEN2), byte_level(regex=False)),
             norm={"type": "NFC"}),
        make("starcoder", "bytes", seq("pretokenizers", {
            "type": "Digits", "individual_digits": True}, byte_level())),
        make("deepseek", "bytes", seq(
            "pretokenizers", split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
            split(r"[一-龥]+"), {"type": "Digits", "individual_digits": True},
            byte_level(regex=False))),
        make("bytes flags", "bytes", byte_level(), plus=more(
            "bytes", added("<mask>", lstrip=True), added("Hello", special=False, rstrip=True),
            added("<|im_start|>"), added("<|im_end|>", normalized=True),
            added("  ", special=False), added("xy", lstrip=True, rstrip=True),
            added("ab", special=False, single_word=True))),
        make("bytes normalized", "bytes", byte_level(), norm={"type": "Lowercase"}, plus=more(
            "bytes", added("HELLO", special=False), added("They"), added("x"))),
        make("nfkc", "bytes", byte_level(), norm=seq("normalizers", {"type": "NFKC"}, {
            "type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True})),
        make("nfd", "bytes", byte_level(), norm={"type": "NFD"}),
        make("nfkd", "bytes", byte_level(), norm={"type": "NFKD"}),
        make("llama2", "spm", None, norm=seq(
            "normalizers", {"type": "Prepend", "prepend": META}, replace(" ", META))),
        make("llama2 normalized tokens", "spm", None, norm=replace(" ", META), plus=more(
            "spm", added("<mask>", normalized=True), added("ab", special=False))),
        make("mistral", "spm", metaspace("first", False)),
        make("metaspace always", "spm", metaspace("always", True), dec=metaspace("always", True)),
        make("metaspace never", "spm", metaspace("never", True), dec=metaspace("never", True)),
        make("gemma", "spm", split(" ", "MergedWithPrevious", kind="String"),
             norm=replace(" ", META), dec=seq("decoders", replace(META, " "), {
                 "type": "ByteFallback"}, {"type": "Fuse"})),
        make("no fallback", "spm", None, norm=replace(" ", META), byte_fallback=False),
        make("no fusing", "spm", metaspace("first", False), byte_fallback=False, fuse_unk=False),
        make("whitespace", "chars", {"type": "Whitespace"}),
        make("punctuation", "chars", seq("pretokenizers", {"type": "WhitespaceSplit"}, PUNCT)),
        make("previous", "chars", split(r"\s+", "MergedWithPrevious")),
        make("next", "chars", split(r"\w+", "MergedWithNext", True)),
        make("contiguous", "chars", split(r"\S", "Contiguous")),
        make("removed", "chars", split(LLAMA3, "Removed", True),
             norm=replace(r"\d+", "#", "Regex")),
        make("no decoder", "chars", {"type": "Digits", "individual_digits": False},
             dec="none", plus=more("chars", added("ab", special=False, lstrip=True))),
    ]


def byte_spans(text, offsets):
    at = [0]
    for ch in text:
        at.append(at[-1] + len(ch.encode()))
    return [x for a, b in offsets for x in (at[a], at[b])]


def build(spec, bases):
    root = {k: spec[k] for k in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor")}
    root["decoder"] = None if spec["decoder"] == "none" else spec["decoder"]
    root["model"] = dict(bases[spec["base"]], **spec["model"])
    root.update(version="1.0", truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps(root))


def make_cases():
    bases = {k: base(k) for k in ("bytes", "spm", "chars")}
    out = []
    for spec in tokenizers(bases):
        tok, cases = build(spec, bases), []
        for text in TEXTS:
            if "\x00" in text and spec["base"] == "bytes" and spec["normalizer"]:
                continue
            e = tok.encode(text, add_special_tokens=True)
            case = dict(text=TEXTS.index(text), ids=e.ids, spans=byte_spans(text, e.offsets))
            decoded = tok.decode(e.ids, skip_special_tokens=False)
            skipped = tok.decode(e.ids, skip_special_tokens=True)
            if spec["name"] == "bytes normalized":  # it decodes HELLO as hello; we do not
                case["decoded"] = None
            elif decoded != text:
                case["decoded"] = decoded
            if skipped != decoded:
                case["skipped"] = skipped
            cases.append(case)
        out.append(dict(spec, cases=cases))
    write("cases.json", dict(texts=TEXTS, bases=bases, tokenizers=out))


def make_shared():
    rnd, out = random.Random(1), {}
    bits = [t[i:i + 9] for t in TEXTS for i in range(0, len(t), 9)]
    texts = TEXTS + ["".join(rnd.choice(bits) for _ in range(12)) for _ in range(24)]
    for name in ("gpt2", "llama2", "mistral03", "llama3", "gpt_neox", "qwen2"):
        tok = Tokenizer.from_file(f"{shared}/data/tokenizers/{name}.json")
        out[name] = [tok.encode(t, add_special_tokens=False).ids for t in texts]
    write("shared.json", dict(texts=texts, ids=out))


def make_train():
    text, out = open(os.path.join(here, "train.txt"), newline="").read(), []
    for pattern, size, least, special in (("gpt2", 400, 0, ["<s>", "</s>"]), ("llama3", 700, 2, []),
                                          ("qwen2", 5000, 0, ["<|end|>"])):
        tok = Tokenizer(models.BPE())
        tok.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(dict(gpt2=GPT2, llama3=LLAMA3, qwen2=QWEN2)[pattern]),
                                 "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tok.train_from_iterator([text], trainers.BpeTrainer(
            vocab_size=size, min_frequency=least, show_progress=False, special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
        model = json.loads(tok.to_str())["model"]
        tok.decoder = decoders.ByteLevel()
        out.append(dict(pattern=pattern, vocab_size=size, min_frequency=least, special=special,
                        n_vocab=len(model["vocab"]),
                        merges=[" ".join(m) for m in model["merges"]],
                        ids=tok.encode(text[:2000]).ids))
    write("train.json", out)


def write(name, value):
    with open(os.path.join(here, name), "w") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    make_cases()
    make_shared()
    make_train()
