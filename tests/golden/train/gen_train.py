"""Makes the golden files of training: a tiny Llama with a tokenizer of its own, chat data, LoRA
pairs as PEFT writes them, and the losses and gradient norms of torch + transformers + PEFT in f32,
step by step.

    python gen_train.py OUT_DIR
    python gen_train.py OUT_DIR WIKISQL_DIR STORIES_DIR

OUT_DIR/model/          checkpoint with tokenizer and chat template
OUT_DIR/chat.jsonl      conversations; chat_rows.json holds the ids and masks that training must see
OUT_DIR/lora/ rslora/   PEFT directories with fixed A and B (B is not zero), where runs begin
OUT_DIR/runs.json       per run: losses (mean over the step's supervised tokens) and gradient norms
                        (before clipping)
OUT_DIR/wikisql/        a LoRA start for stories260k, and its losses on WikiSQL
Every sequence is run alone: packing and batching must not change anything.
"""
import json
import os
import random
import shutil
import sys

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = ("{% for m in messages %}" + START + "{{ m['role'] }}\n{{ m['content'] }}" + END +
            "\n{% endfor %}{% if add_generation_prompt %}" + START + "assistant\n{% endif %}")
WORDS = ("the cat dog bird sees finds likes a red green small ball house tree on in under and "
         "today it is not where who what yes no").split()

# name: base, settings as in the test's YAML, steps
COMMON = dict(lr=5e-3, decay=0.1, clip=1.0, warmup=5, micro=4, accumulate=1, packed=0)
RUNS = {
    "plain": dict(start="lora", steps=50),
    "accumulated": dict(start="lora", steps=50, micro=3, accumulate=3),
    "packed": dict(start="lora", steps=50, micro=2, packed=96),
    "rslora_plus": dict(start="rslora", steps=20, plus=4.0),
    "full": dict(start=None, steps=20, lr=1e-3),
}


def text(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def make_data(path):
    rng = random.Random(5)
    rows = []
    for i in range(23):
        turns = [dict(role="system", content=text(rng, 3))] if i % 4 == 0 else []
        for _ in range(1 + i % 3):
            turns.append(dict(role="user", content=text(rng, rng.randint(2, 9))))
            turns.append(dict(role="assistant", content=text(rng, rng.randint(1, 12))))
        rows.append(dict(messages=turns))
    with open(path, "w") as f:
        for r in rows:
            f.write(json.dumps(r) + "\n")
    return rows


def make_model(path, rows):
    tk = Tokenizer(models.BPE())
    tk.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tk.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=[START, END], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tk.train_from_iterator([m["content"] for r in rows for m in r["messages"]], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tk, eos_token=END)
    fast.chat_template = TEMPLATE
    torch.manual_seed(3)
    cfg = transformers.LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=160,
        rms_norm_eps=1e-5, tie_word_embeddings=True, initializer_range=0.1,
        eos_token_id=fast.eos_token_id, bos_token_id=None)
    model = transformers.LlamaForCausalLM(cfg).float()
    model.save_pretrained(path)
    fast.save_pretrained(path)
    return fast


def encode(fast, rows):
    """Ids and mask: the assistants' words and the stop token after them."""
    out = []
    for r in rows:
        full, spans = "", []
        for m in r["messages"]:
            full += START + m["role"] + "\n"
            begin = len(full)
            full += m["content"] + END
            if m["role"] == "assistant":
                spans.append((begin, len(full)))
            full += "\n"
        assert full == fast.apply_chat_template(r["messages"], tokenize=False)
        enc = fast(full, add_special_tokens=False, return_offsets_mapping=True)
        mask = [int(any(a < e and b > s for a, b in spans))
                for s, e in enc["offset_mapping"]]
        out.append((enc["input_ids"], mask))
    return out


def batches(samples, micro, packed):
    """Micro-batches of one epoch in file order; packed: first fit decreasing into micro * packed
    tokens."""
    if not packed:
        return [samples[i:i + micro] for i in range(0, len(samples), micro)]
    bins = []
    for s in sorted(samples, key=lambda s: -len(s[0])):
        for b in bins:
            if sum(len(x[0]) for x in b) + len(s[0]) <= micro * packed:
                b.append(s)
                break
        else:
            bins.append([s])
    return bins


def nll(model, ids, mask):
    x = torch.tensor([ids])
    logp = torch.log_softmax(model(input_ids=x).logits[0, :-1].float(), dim=-1)
    rows = logp.gather(1, x[0, 1:, None])[:, 0]
    return -(rows * torch.tensor(mask[1:], dtype=torch.float32)).sum()


def groups(model, decay, lr, plus):
    out = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        out.append(dict(params=[p], weight_decay=0.0 if "norm" in name else decay,
                        lr=lr * (plus if plus and "lora_B" in name else 1)))
    return out


def train(model, samples, steps, lr, decay, clip, warmup, micro, accumulate, packed, plus=0.0,
          start=None):
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(groups(model, decay, lr, plus), lr=lr, eps=1e-8)
    sched = transformers.get_cosine_schedule_with_warmup(opt, warmup, steps)
    losses, norms = [], []
    while len(losses) < steps:
        epoch = batches(samples, micro, packed)
        for at in range(0, len(epoch), accumulate):
            if len(losses) == steps:
                break
            window = [s for b in epoch[at:at + accumulate] for s in b]
            targets = sum(sum(m[1:]) for _, m in window)
            opt.zero_grad()
            loss = 0.0
            for ids, mask in window:
                one = nll(model, ids, mask) / targets
                one.backward()
                loss += one.item()
            norms.append(torch.nn.utils.clip_grad_norm_(params, clip).item())
            losses.append(loss)
            opt.step()
            sched.step()
    return dict(losses=losses, norms=norms)


def make_adapter(base, path, gen, b_scale, **settings):
    model = get_peft_model(load(base, None), LoraConfig(
        task_type="CAUSAL_LM", target_modules=LINEAR, **settings))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_A" in name:
                p.copy_((2 * torch.rand(p.shape, generator=gen) - 1) / p.shape[1] ** 0.5)
            elif "lora_B" in name:
                p.copy_(b_scale * torch.randn(p.shape, generator=gen))
    model.save_pretrained(path)
    os.remove(os.path.join(path, "README.md"))
    config = os.path.join(path, "adapter_config.json")
    with open(config) as f:
        c = json.load(f)
    c["base_model_name_or_path"] = "model"  # not where this script ran
    with open(config, "w") as f:
        json.dump(c, f, indent=2, sort_keys=True)


def load(base, adapter):
    model = transformers.AutoModelForCausalLM.from_pretrained(base, torch_dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter, is_trainable=True) if adapter else model


def make(out):
    rows = make_data(os.path.join(out, "chat.jsonl"))
    base = os.path.join(out, "model")
    shutil.rmtree(base, ignore_errors=True)
    fast = make_model(base, rows)
    samples = encode(fast, rows)
    with open(os.path.join(out, "chat_rows.json"), "w") as f:
        json.dump([dict(ids=i, mask=m) for i, m in samples], f)
    gen = torch.Generator().manual_seed(11)
    make_adapter(base, os.path.join(out, "lora"), gen, 0.05, r=4, lora_alpha=8)
    make_adapter(base, os.path.join(out, "rslora"), gen, 0.05, r=4, lora_alpha=8, use_rslora=True)
    runs = {}
    for name, own in RUNS.items():
        s = dict(COMMON, **own)
        adapter = os.path.join(out, s["start"]) if s["start"] else None
        runs[name] = dict(train(load(base, adapter), samples, **s), settings=s)
        r = runs[name]
        print(name, r["losses"][0], r["losses"][-1], min(r["norms"]), max(r["norms"]))
    with open(os.path.join(out, "runs.json"), "w") as f:
        json.dump(runs, f, indent=1)


def make_wikisql(out, data, stories):
    """One epoch of the first 400 rows in file order, 16 a step; held-out loss before and after."""
    where = os.path.join(out, "wikisql")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=os.path.join(stories, "tokenizer.json"))
    gen = torch.Generator().manual_seed(12)
    make_adapter(stories, where, gen, 0.0, r=4, lora_alpha=8)

    def rows(name, n):
        with open(os.path.join(data, name)) as f:
            for line in list(f)[:n]:
                text = json.loads(line)["text"]
                ids = [1] + fast(text, add_special_tokens=False)["input_ids"] + [2]
                yield ids, [1] * len(ids)

    train_rows, held = list(rows("train.jsonl", 400)), list(rows("valid.jsonl", 60))
    model = load(stories, where)

    def held_loss():
        model.eval()
        with torch.no_grad():
            total = sum(nll(model, i, m).item() for i, m in held)
        return total / sum(len(i) - 1 for i, _ in held)

    before = held_loss()
    r = train(model, train_rows, steps=25, lr=5e-3, decay=0.0, clip=1.0, warmup=5, micro=16,
              accumulate=1, packed=0)
    r.update(before=before, after=held_loss(), tokens=sum(len(i) for i, _ in train_rows))
    print("wikisql", before, r["after"], r["losses"][0], r["losses"][-1])
    with open(os.path.join(where, "run.json"), "w") as f:
        json.dump(r, f, indent=1)


if __name__ == "__main__":
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    if len(sys.argv) > 3:
        make_wikisql(sys.argv[1], sys.argv[2], sys.argv[3])
    else:
        make(sys.argv[1])
