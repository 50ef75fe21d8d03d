"""Makes the golden files of adapters/: PEFT directories as PEFT writes them beside the checkpoint
tests/golden/model/llama, with the logits that transformers + PEFT compute in f32.

    python gen_adapters.py tests/golden/model/llama OUT_DIR
    python gen_adapters.py --check tests/golden/model/llama ADAPTER_DIR GOLDEN

The second form loads an adapter that hone wrote and compares its logits with a golden file.
"""
import os
import shutil
import sys

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

IDS = [3, 17, 5, 60, 22, 9, 41, 8, 33, 2, 11]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "plain": dict(r=3, lora_alpha=5, target_modules=LINEAR),
    "rslora": dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj"]),
    "patterns": dict(r=2, lora_alpha=4, target_modules=LINEAR, rank_pattern={"q_proj": 5},
                     alpha_pattern={"layers.0.mlp.down_proj": 7}),
    "regex": dict(r=2, lora_alpha=2, target_modules=r".*layers\.1\.self_attn\.(k|o)_proj"),
}


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS])).logits[0].float()


def base(path):
    return transformers.AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32)


def make(path, out):
    for name, settings in CASES.items():
        gen = torch.Generator().manual_seed(len(name))
        model = get_peft_model(base(path), LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for key, p in model.named_parameters():
                if "lora_" in key:
                    p.copy_(0.3 * torch.randn(p.shape, generator=gen))
        model.eval()
        where = os.path.join(out, name)
        shutil.rmtree(where, ignore_errors=True)
        model.save_pretrained(where)
        os.remove(os.path.join(where, "README.md"))
        save_file({"ids": torch.tensor(IDS, dtype=torch.int32), "logits": logits(model)},
                  os.path.join(where, "golden.st"))


def check(path, adapter, golden):
    model = PeftModel.from_pretrained(base(path), adapter).eval()
    diff = (logits(model) - load_file(golden)["logits"]).abs().max().item()
    print(f"largest difference {diff:.3g}")
    sys.exit(0 if diff < 1e-4 else 1)


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        check(*sys.argv[2:5])
    make(sys.argv[1], sys.argv[2])
