#!/usr/bin/env python3
"""Makes the small tokenizer of this folder and masks.json: ids and assistant masks as transformers
makes them, from the templates and conversations of ../jinja (their {% generation %} blocks)."""
import json
import pathlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
JINJA = HERE.parent / "jinja"
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "[INST]", "[/INST]", "[TOOL_CALLS]"]
ADDED = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
TEXT = ["user assistant system Hello there, hi! The weather is 3 degrees. two and two is 4, three more is 7",
        "You are kind. You are a small and helpful assistant. Again name arguments parameters get_weather city days"]


def tokenizer():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TEXT * 4, trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    t.add_tokens(ADDED)
    t.save(str(HERE / "tokenizer.json"))
    stops = [t.token_to_id(s) for s in ("</s>", "<|im_end|>", "<|eot_id|>")]
    (HERE / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}) + "\n")
    (HERE / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}) + "\n")


def masks():
    fast = PreTrainedTokenizerFast(tokenizer_file=str(HERE / "tokenizer.json"), bos_token="<s>", eos_token="</s>")
    rows = []
    for path in sorted(JINJA.glob("*.jinja")):
        for c in json.loads((JINJA / "conversations.json").read_text()):
            context = dict(c["context"])
            try:
                out = fast.apply_chat_template(
                    context.pop("messages"), tools=context.pop("tools", None), chat_template=path.read_text(),
                    return_assistant_tokens_mask=True, return_dict=True, **context)
            except Exception:
                continue
            if sum(out["assistant_masks"]):
                rows.append({"template": path.name, "conversation": c["name"], "ids": out["input_ids"],
                             "mask": "".join(map(str, out["assistant_masks"]))})
    (HERE / "masks.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


if __name__ == "__main__":
    tokenizer()
    masks()
