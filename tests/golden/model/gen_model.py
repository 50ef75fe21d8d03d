"""Makes the golden files of core/model: a tiny random checkpoint per architecture, written by
transformers, and what transformers and PEFT compute with it in f32.

    python gen_model.py OUT_DIR

OUT_DIR/<case>/      config.json and safetensors, as save_pretrained writes them
OUT_DIR/<case>/golden.st  ids, cu (segments), coef, logits, logp, and of the gradient of
                     sum(coef * -logp) for every weight: "n:<name>" its norm, "s:<name>" every
                     STRIDE-th element; the same with a random LoRA pair beside every linear layer:
                     "a:<site>", "b:<site>", "da:<site>", "db:<site>", "lora_logits"; and
                     "bf16": how far transformers itself is off in bf16 (largest difference of a
                     log-probability, largest relative difference of the gradient of a LoRA matrix)
Sequences are run one at a time; the test runs them packed.
"""
import copy
import os
import shutil
import sys

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

STRIDE = 7
LENGTHS = [17, 1, 11]
SCALE = dict(r=3, lora_alpha=5)

COMMON = dict(
    vocab_size=67, hidden_size=48, intermediate_size=53, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=32)

CASES = {
    # Llama 3: its rope scaling, untied head, f32.
    "llama": ("Llama", torch.float32, "1GB", dict(rope_parameters=LLAMA3)),
    # Linear rope scaling, tied head, every bias, f16, one head.
    "llama_bias": ("Llama", torch.float16, "1GB", dict(
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.5),
        tie_word_embeddings=True, attention_bias=True, mlp_bias=True, num_key_value_heads=1)),
    # A window shorter than the sequences, a head_dim of its own, bf16 in shards.
    "mistral": ("Mistral", torch.bfloat16, "30KB", dict(sliding_window=5, head_dim=16)),
    # q, k and v biases, tied head, a window on the second layer only, bf16.
    "qwen2": ("Qwen2", torch.bfloat16, "1GB", dict(
        tie_word_embeddings=True, use_sliding_window=True, sliding_window=6, max_window_layers=1)),
    # Norms on q and k, a head_dim of its own, f16.
    "qwen3": ("Qwen3", torch.float16, "1GB", dict(head_dim=20, rope_parameters=dict(
        rope_type="default", rope_theta=1000000.0))),
}


def randomise(model, dtype, gen):
    """Weights large enough that every part matters, and exact in the stored dtype."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            w = torch.randn(p.shape, generator=gen)
            if "norm" in name:
                w = 1 + 0.2 * w
            elif p.dim() == 1:
                w = 0.1 * w
            else:
                w = w * (0.6 if "embed" in name else 1.2 / p.shape[1] ** 0.5)
            p.copy_(w.to(dtype).float())


def run(model, seqs, coefs):
    """Logits and log-probabilities of all sequences, and the gradients in the parameters."""
    logits, logps = [], []
    model.zero_grad()
    at = 0
    for ids in seqs:
        out = model(input_ids=ids[None]).logits[0].float()
        logp = torch.zeros(len(ids))
        if len(ids) > 1:
            rows = torch.log_softmax(out[:-1], dim=-1)
            logp = torch.cat([rows.gather(1, ids[1:, None])[:, 0], torch.zeros(1)])
            if coefs is not None:
                (-(logp * coefs[at:at + len(ids)]).sum()).backward()
        at += len(ids)
        logits.append(out.detach())
        logps.append(logp.detach())
    return torch.cat(logits), torch.cat(logps)


def halves(peft):
    """Every LoRA matrix with its key in the golden file."""
    for name, p in peft.named_parameters():
        if "lora_" in name:
            site = name.removeprefix("base_model.model.").split(".lora_")[0]
            yield ("a" if "lora_A" in name else "b") + ":" + site, p


def bf16_error(peft, golden, seqs, coefs):
    model = copy.deepcopy(peft).to(torch.bfloat16)
    model.base_model.model.model.rotary_emb = peft.base_model.model.model.rotary_emb
    for key, p in halves(model):
        p.data = golden[key].clone()
    with model.disable_adapter(), torch.no_grad():
        logp = run(model, seqs, None)[1]
    run(model, seqs, coefs)
    worst = max(((p.grad - golden["d" + key]).norm() / golden["d" + key].norm()).item()
                for key, p in halves(model))
    return torch.tensor([(logp - golden["logp"]).abs().max().item(), worst])


def make(case, out):
    family, dtype, shard, options = CASES[case]
    gen = torch.Generator().manual_seed(sum(map(ord, case)))
    config = getattr(transformers, family + "Config")(**{**COMMON, **options})
    config._attn_implementation = "eager"
    model = getattr(transformers, family + "ForCausalLM")(config).float().eval()
    randomise(model, dtype, gen)
    path = os.path.join(out, case)
    shutil.rmtree(path, ignore_errors=True)
    # A copy: the conversion would round rope's buffers too.
    copy.deepcopy(model).to(dtype).save_pretrained(path, max_shard_size=shard)
    os.remove(os.path.join(path, "generation_config.json"))

    seqs = [torch.randint(0, config.vocab_size, (n,), generator=gen) for n in LENGTHS]
    coefs = torch.rand(sum(LENGTHS), generator=gen) + 0.25
    golden = {
        "ids": torch.cat(seqs).int(),
        "cu": torch.tensor([0] + LENGTHS).cumsum(0).int(),
        "coef": coefs,
    }
    golden["logits"], golden["logp"] = run(model, seqs, coefs)
    for name, p in model.named_parameters():
        golden["n:" + name] = p.grad.double().norm().float()
        golden["s:" + name] = p.grad.flatten()[::STRIDE].clone()

    peft = get_peft_model(model, LoraConfig(target_modules="all-linear", lora_dropout=0.0, **SCALE))
    for _, p in halves(peft):
        p.data = 0.2 * torch.randn(p.shape, generator=gen)
    golden["lora_logits"], _ = run(peft, seqs, coefs)
    for key, p in halves(peft):
        golden[key] = p.detach().clone()
        golden["d" + key] = p.grad.clone()
    golden["bf16"] = bf16_error(peft, golden, seqs, coefs)
    golden["lora_scale"] = torch.tensor([SCALE["lora_alpha"] / SCALE["r"]])
    save_file({k: v.contiguous() for k, v in golden.items()}, os.path.join(path, "golden.st"))


def main():
    torch.set_num_threads(2)
    for case in CASES:
        make(case, sys.argv[1])
        print(case, {f: os.path.getsize(os.path.join(sys.argv[1], case, f))
                     for f in sorted(os.listdir(os.path.join(sys.argv[1], case)))})


main()
