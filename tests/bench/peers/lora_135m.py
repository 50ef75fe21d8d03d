#!/usr/bin/env python3
"""LoRA training of a model in the shape of SmolLM2-135M with random weights: hone beside
transformers + PEFT on the same CPU, in one run.

    python tests/bench/peers/lora_135m.py --hone build/hone --text FILE [--dtype bf16|f32]
        [--threads 2] [--steps 6] [--rounds 2]

Same shape, rank 16 on all linear layers, sequences of 512 packed four to a step, AdamW, clipping at
1.0. FILE is any English text of a megabyte or more. The sides take turns, so that a noisy machine
is noisy for both. Prints tokens/s (median over steps after the first two) and peak resident memory
of each side, and their ratios. First both score the same sequence with the same weights: the mean
losses must agree.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

SEQ, BATCH, RANK = 512, 4, 16
SHAPE = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
             num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=2048,
             rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True)


def make_model(where):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).to(torch.bfloat16).save_pretrained(where)


def peer(args):
    """One round of transformers + PEFT; runs in a process of its own, prints one JSON line."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(args.model, torch_dtype=dtype)
    ids = torch.tensor(json.load(open(args.ids)))
    with torch.no_grad():
        first = ids[:1]
        loss = model(input_ids=first, labels=first).loss.item()
    model = get_peft_model(model, LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=1e-4)
    times = []
    for step in range(args.steps):
        batch = ids[step * BATCH % (len(ids) - BATCH):][:BATCH]
        start = time.perf_counter()
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(dict(tok_s=SEQ * BATCH / statistics.median(times[2:]), peak=peak, loss=loss)))


def run_peer(args, work):
    out = subprocess.run([sys.executable, __file__, "--peer", "--model", work + "/model", "--ids",
                          work + "/ids.json", "--dtype", args.dtype, "--threads", str(args.threads),
                          "--steps", str(args.steps), "--hone", "-", "--text", "-"],
                         capture_output=True, text=True, check=True)
    return json.loads(out.stdout.strip().splitlines()[-1])


def run_hone(args, work):
    """tokens/s between log lines; peak memory of the child."""
    out = tempfile.mkdtemp(dir=work)
    conf = work + "/train.yaml"
    with open(conf, "w") as f:
        f.write(f"""base_model: {work}/model
output_dir: {out}/run
datasets: [{{path: {work}/text.jsonl, type: completion}}]
adapter: lora
lora_r: {RANK}
lora_alpha: {2 * RANK}
lora_target_modules: all-linear
sequence_len: {SEQ}
excess_length_strategy: split
sample_packing: true
micro_batch_size: {BATCH}
max_steps: {args.steps}
learning_rate: 0.0001
max_grad_norm: 1.0
bf16: {"true" if args.dtype == "bf16" else "false"}
threads: {args.threads}
logging_steps: 1
device: cpu
""")
    proc = subprocess.Popen([args.hone, "train", conf], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    text = proc.stdout.read()
    _, status, rusage = os.wait4(proc.pid, 0)  # of this child, not of the greatest so far
    proc.returncode = os.waitstatus_to_exitcode(status)
    if proc.returncode != 0:
        sys.exit(text)
    rows = [json.loads(line) for line in open(out + "/run/trainer_log.jsonl")]
    rows = [r for r in rows if "loss" in r]
    rates = [r["throughput"] for r in rows[2:]]
    return dict(tok_s=statistics.median(rates), peak=rusage.ru_maxrss * 1024)


def prepare(args, work):
    make_model(work + "/model")
    subprocess.run([args.hone, "tokenizer", "train", "--vocab-size", "8192", "--out",
                    work + "/tok", args.text], check=True, capture_output=True)
    for name in os.listdir(work + "/tok"):
        os.rename(f"{work}/tok/{name}", f"{work}/model/{name}")
    text = open(args.text, encoding="utf-8").read()[:1_500_000]
    with open(work + "/lines.txt", "w") as f:
        f.write(json.dumps(text) + "\n")
    out = subprocess.run([args.hone, "tokenize", "--model", work + "/model", "--jsonl"],
                         stdin=open(work + "/lines.txt"), capture_output=True, text=True, check=True)
    ids = json.loads(out.stdout.splitlines()[0])
    json.dump([ids[i:i + SEQ] for i in range(0, len(ids) - SEQ, SEQ)], open(work + "/ids.json", "w"))
    with open(work + "/text.jsonl", "w") as f:
        f.write(json.dumps({"text": text}) + "\n")
    with open(work + "/score.jsonl", "w") as f:
        f.write(json.dumps({"ids": ids[:SEQ]}) + "\n")


def hone_loss(args, work):
    out = subprocess.run([args.hone, "score", "--model", work + "/model", "--dtype", args.dtype,
                          work + "/score.jsonl"], capture_output=True, text=True, check=True)
    logp = json.loads(out.stdout)["logprobs"][1:]
    return -sum(logp) / len(logp)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--hone", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--peer", action="store_true")
    p.add_argument("--model")
    p.add_argument("--ids")
    args = p.parse_args()
    if args.peer:
        return peer(args)
    with tempfile.TemporaryDirectory() as work:
        prepare(args, work)
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(run_hone(args, work))
            theirs.append(run_peer(args, work))
        loss = hone_loss(args, work)
        a, b = max(r["tok_s"] for r in ours), max(r["tok_s"] for r in theirs)
        ma, mb = max(r["peak"] for r in ours), max(r["peak"] for r in theirs)
        print(f"loss of one sequence   hone {loss:.4f}   PEFT {theirs[0]['loss']:.4f}")
        print(f"tokens/s {args.dtype}          hone {a:.0f}   PEFT {b:.0f}   ratio {a / b:.2f}")
        print(f"peak memory MiB        hone {ma / 2**20:.0f}   PEFT {mb / 2**20:.0f}   "
              f"ratio {ma / mb:.2f}")
        if abs(loss - theirs[0]["loss"]) > 0.02:
            sys.exit("the two sides do not compute the same loss")


if __name__ == "__main__":
    main()
