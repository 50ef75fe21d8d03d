#!/bin/bash
# Makes everything under examples/ that a program made: examples/rebuild.sh [data|model] BUILD
#   data   examples/support/{train,holdout,holdout_intents}.jsonl, in a second
#   model  examples/model: corpus, tokenizer, pretraining; see README.md for how long it takes
# Run it after `make`. The data are the same bytes everywhere. The weights are the same bytes on
# machines that compute alike; the corpus and the tokenizer are the same everywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-data}
build=${2:-build}
gen=$build/examples/gen
work=$build/embedded

data() {
    local out=${1:-examples/support}
    mkdir -p "$out"
    {
        "$gen" --seed 7 --unique examples/support.gr answers 600
        "$gen" --seed 7 --unique examples/support.gr intents 600
    } >"$out/train.jsonl"
    "$gen" --seed 8 --unique examples/support.gr held_answers 200 >"$out/holdout.jsonl"
    "$gen" --seed 8 --unique examples/support.gr held_intents 200 >"$out/holdout_intents.jsonl"
}

model() {
    mkdir -p "$work"
    "$gen" --seed 1 examples/corpus.gr text 30M >"$work/text.jsonl"
    "$gen" --seed 1 examples/corpus.gr chat 40M >"$work/chat.jsonl"
    "$gen" --seed 1 --plain examples/corpus.gr chat 8M >"$work/words.txt"
    "$gen" --seed 1 --plain examples/corpus.gr text 8M >>"$work/words.txt"
    "$build/hone" tokenizer train --vocab-size 2048 --out "$work/tokenizer" \
        --pad '<|pad|>' --eos '<|end|>' --special '<|pad|>' --special '<|end|>' \
        --special '<|system|>' --special '<|user|>' --special '<|assistant|>' "$work/words.txt"
    "$build/hone" train examples/pretrain.yaml
    cp "$work/model/model.safetensors" "$work/tokenizer/"*.json examples/model/
}

case $what in
data) data "${3:-examples/support}" ;;
model) model ;;
*)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
