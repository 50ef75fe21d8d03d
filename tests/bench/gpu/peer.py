"""transformers and PEFT on the shapes of tests/bench/aid_shapes.c, random weights: what a user would
otherwise run. One JSON line.

    peer.py train llama-3.2-1b --batch 8 --seq 2048 [--checkpointing] [--compile]
    peer.py decode llama-3.2-1b --batch 1 [--static]
"""
import argparse
import json
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

KINDS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
# kind, hidden, inter, layers, heads, kv heads, head dim, vocab, rope theta, tied
SHAPES = {
    "tiny": ("llama", 64, 160, 2, 4, 2, 16, 500, 1e4, True),
    "smollm2-135m": ("llama", 576, 1536, 30, 9, 3, 64, 49152, 1e4, True),
    "qwen2.5-0.5b": ("qwen2", 896, 4864, 24, 14, 2, 64, 151936, 1e6, True),
    "qwen3-0.6b": ("qwen3", 1024, 3072, 28, 16, 8, 128, 151936, 1e6, True),
    "llama-3.2-1b": ("llama", 2048, 8192, 16, 32, 8, 64, 128256, 5e5, True),
    "llama-3.1-8b": ("llama", 4096, 14336, 32, 32, 8, 128, 128256, 5e5, False),
}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make(name, device):
    kind, h, i, n, q, kv, d, vocab, theta, tied = SHAPES[name]
    config = KINDS[kind](
        hidden_size=h, intermediate_size=i, num_hidden_layers=n, num_attention_heads=q,
        num_key_value_heads=kv, head_dim=d, vocab_size=vocab, rope_theta=theta,
        tie_word_embeddings=tied, max_position_embeddings=32768)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    return model, vocab


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def train(a):
    from peft import LoraConfig, get_peft_model

    model, vocab = make(a.shape, a.device)
    model.config.use_cache = False
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=LINEARS,
                                             lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"))
    if a.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=a.device == "cuda")
    run = torch.compile(model) if a.compile else model
    times = []
    for step in range(a.warmup + a.steps):
        ids = torch.randint(0, vocab, (a.batch, a.seq), device=a.device)
        wait(a.device)
        start = time.perf_counter()
        loss = run(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait(a.device)
        if step >= a.warmup:
            times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    return {"tok_s": a.batch * a.seq / seconds, "ms": seconds * 1e3, "loss": loss.item()}


def decode(a):
    model, vocab = make(a.shape, a.device)
    model.eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    ids = torch.randint(0, vocab, (a.batch, a.context), device=a.device)
    how = {"cache_implementation": "static"} if a.static else {}

    @torch.inference_mode()
    def seconds(new):
        best = 1e9
        for _ in range(3):
            wait(a.device)
            start = time.perf_counter()
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new,
                           min_new_tokens=new, do_sample=False, **how)
            wait(a.device)
            best = min(best, time.perf_counter() - start)
        return best

    first, all_of_them = seconds(1), seconds(a.new)
    rate = a.batch * (a.new - 1) / (all_of_them - first)
    return {"tok_s": rate, "prefill_tok_s": a.batch * a.context / first}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["train", "decode"])
    p.add_argument("shape", choices=list(SHAPES))
    p.add_argument("--device", default="cuda")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--seq", type=int, default=2048)
    p.add_argument("--context", type=int, default=1024)
    p.add_argument("--new", type=int, default=64)
    p.add_argument("--steps", type=int, default=12)
    p.add_argument("--warmup", type=int, default=4)
    p.add_argument("--checkpointing", action="store_true")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--static", action="store_true")
    a = p.parse_args()
    out = {"peer": "transformers+peft", "what": a.what, "shape": a.shape, "batch": a.batch,
           "seq": a.seq, "context": a.context, "torch": torch.__version__}
    out.update(train(a) if a.what == "train" else decode(a))
    if a.device == "cuda":
        out["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(out))


main()
