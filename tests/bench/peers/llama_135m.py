#!/usr/bin/env python3
"""Prefill and decode of a model in the shape of SmolLM2-135M with random weights: hone beside
llama.cpp on the same CPU, in one run.

    python tests/bench/peers/llama_135m.py --bench build/tests/bench/bench_model
        [--dtype bf16|f32|f16] [--threads 2] [--rounds 3] [--runs 5]

Needs the packages llama-cpp-python (which builds llama.cpp for this machine), gguf and numpy. A
prompt of 512 tokens at once, and 32 tokens one by one from a context of 256. The sides take turns,
each round in a process of its own, so that a noisy machine is noisy for both; every round counts
the best of its runs, as both sides' own benches do. f16 is llama.cpp's usual form of such a model:
hone then computes in bf16. Prints tokens/s of each round, the ratios of the medians, and the load
of the machine.
"""
import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

PROMPT, CONTEXT, DECODED = 512, 256, 32
LAYERS, HIDDEN, INTER, HEADS, KV_HEADS, VOCAB, DIM = 30, 576, 1536, 9, 3, 49152, 64


def write_model(path, dtype):
    """Random weights in the places where llama.cpp looks for a Llama; no tokenizer."""
    import gguf
    import numpy as np
    kind = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
            "bf16": gguf.LlamaFileType.MOSTLY_BF16}[dtype]
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(2048)
    w.add_embedding_length(HIDDEN)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(INTER)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(DIM)
    w.add_rope_freq_base(100000.0)
    w.add_vocab_size(VOCAB)
    w.add_tokenizer_model("no_vocab")
    w.add_file_type(kind)
    random = np.random.default_rng(1)

    def matrix(name, rows, cols):
        x = random.standard_normal((rows, cols), dtype=np.float32) * 0.02
        if dtype == "f16":
            w.add_tensor(name, x.astype(np.float16))
        elif dtype == "f32":
            w.add_tensor(name, x)
        else:
            kind = gguf.GGMLQuantizationType.BF16
            w.add_tensor(name, gguf.quantize(x, kind), raw_dtype=kind)

    def ones(name):
        w.add_tensor(name, np.ones(HIDDEN, np.float32))

    matrix("token_embd.weight", VOCAB, HIDDEN)
    ones("output_norm.weight")
    for i in range(LAYERS):
        ones(f"blk.{i}.attn_norm.weight")
        ones(f"blk.{i}.ffn_norm.weight")
        for name, rows, cols in (("attn_q", HEADS * DIM, HIDDEN), ("attn_k", KV_HEADS * DIM, HIDDEN),
                                 ("attn_v", KV_HEADS * DIM, HIDDEN),
                                 ("attn_output", HIDDEN, HEADS * DIM), ("ffn_gate", INTER, HIDDEN),
                                 ("ffn_up", INTER, HIDDEN), ("ffn_down", HIDDEN, INTER)):
            matrix(f"blk.{i}.{name}.weight", rows, cols)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def peer(args):
    """One round of llama.cpp, in a process of its own; prints one JSON line."""
    import llama_cpp as l
    import numpy as np
    quiet = l.llama_log_callback(lambda level, text, user: None)
    l.llama_log_set(quiet, ctypes.c_void_p(0))
    l.llama_backend_init()
    model = l.llama_model_load_from_file(args.model.encode(), l.llama_model_default_params())
    p = l.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch = 1024, PROMPT, PROMPT
    p.n_threads = p.n_threads_batch = args.threads
    context = l.llama_init_from_model(model, p)
    if not model or not context:
        sys.exit("llama.cpp does not open the model")
    ids = np.random.default_rng(2).integers(0, VOCAB, PROMPT).astype(np.int32)

    def feed(tokens):
        array = (l.llama_token * len(tokens))(*[int(t) for t in tokens])
        if l.llama_decode(context, l.llama_batch_get_one(array, len(tokens))) != 0:
            sys.exit("llama_decode failed")
        l.llama_synchronize(context)

    def timed(prepare, run):
        best = 1e9
        for _ in range(args.runs + 1):  # the first one warms up
            l.llama_memory_clear(l.llama_get_memory(context), True)
            prepare()
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
        return best

    prefill = timed(lambda: None, lambda: feed(ids))
    decode = timed(lambda: feed(ids[:CONTEXT]),
                   lambda: [feed(ids[i:i + 1]) for i in range(DECODED)])
    print(json.dumps(dict(prefill=PROMPT / prefill, decode=DECODED / decode)))


def run_peer(args, path):
    out = subprocess.run([sys.executable, __file__, "--peer", "--model", path, "--threads",
                          str(args.threads), "--runs", str(args.runs), "--bench", "-"],
                         capture_output=True, text=True, check=True)
    return json.loads(out.stdout.strip().splitlines()[-1])


def run_hone(args):
    dtype = "f32" if args.dtype == "f32" else "bf16"
    out = subprocess.run([args.bench, "--shape", "smollm2-135m", "--dtype", dtype, "--threads",
                          str(args.threads), "--do", "prefill,decode", "--seq", str(PROMPT),
                          "--tokens", str(PROMPT), "--context", str(CONTEXT), "--json"],
                         capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
    return {row["hone"]: row["tok_s"] for row in rows}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bench", required=True)
    p.add_argument("--dtype", default="bf16", choices=["bf16", "f16", "f32"])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--peer", action="store_true")
    p.add_argument("--model")
    args = p.parse_args()
    if args.peer:
        return peer(args)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as work:
        path = work + "/model.gguf"
        write_model(path, args.dtype)
        for _ in range(args.rounds):
            ours.append(run_hone(args))
            theirs.append(run_peer(args, path))
    for what in ("prefill", "decode"):
        a, b = [r[what] for r in ours], [r[what] for r in theirs]
        print(f"{what} {args.dtype}, tokens/s   hone {' '.join(f'{x:.0f}' for x in a)}   "
              f"llama.cpp {' '.join(f'{x:.0f}' for x in b)}   "
              f"ratio of medians {statistics.median(a) / statistics.median(b):.2f}")
    print("load of the machine (1, 5, 15 minutes): %.1f %.1f %.1f on %d cores" %
          (*os.getloadavg(), os.cpu_count()))


if __name__ == "__main__":
    main()
