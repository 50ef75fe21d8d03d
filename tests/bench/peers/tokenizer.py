"""Side by side with Hugging Face tokenizers: tokenizer.py BENCH_TOK TEXT TOKENIZER.json ...

BENCH_TOK is build/tests/bench/bench_tok. Both sides use one thread and encode the same documents of
about 10 kB cut at line ends. Times are CPU seconds, which other work on the machine disturbs less.
The ids are compared by count and sum. Needs: pip install tokenizers.
"""
import os
import re
import subprocess
import sys
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402

DOC_BYTES = 10000


def documents(data):
    docs, i = [], 0
    while i < len(data):
        end = len(data)
        if len(data) - i > DOC_BYTES:
            nl = data.find(b"\n", i + DOC_BYTES)
            end = len(data) if nl < 0 else nl + 1
        docs.append(data[i:end].decode())
        i = end
    return docs


def theirs(path, docs):
    tok, n, total = tokenizers.Tokenizer.from_file(path), 0, 0
    start = time.process_time()
    for i in range(0, len(docs), 64):  # an answer for all of them would fill the memory
        for x in tok.encode_batch_fast(docs[i:i + 64], add_special_tokens=False):
            ids = x.ids
            n += len(ids)
            total += sum(ids)
    return time.process_time() - start, n, total


def ours(bench, text, path):
    line = subprocess.run([bench, text, path], capture_output=True, text=True, check=True).stdout
    m = re.search(r"(\d+) tokens\s+([\d.]+) s .* sum (\d+)", line)
    return float(m[2]), int(m[1]), int(m[3])


def main():
    bench, text, paths = sys.argv[1], sys.argv[2], sys.argv[3:]
    data = open(text, "rb").read()
    docs, mb = documents(data), len(data) / 1e6
    print(f"tokenizers {tokenizers.__version__}, {mb:.1f} MB, {len(docs)} documents")
    for path in paths:
        a, b = ours(bench, text, path), theirs(path, docs)
        same = "same ids" if a[1:] == b[1:] else f"IDS DIFFER {a[1:]} {b[1:]}"
        name = os.path.basename(path)
        print(f"{name:16} ours {mb / a[0]:7.1f} MB/s  theirs {mb / b[0]:6.1f} MB/s  "
              f"{b[0] / a[0]:5.1f}x  {same}", flush=True)


if __name__ == "__main__":
    main()
