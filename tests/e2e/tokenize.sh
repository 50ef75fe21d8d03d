#!/bin/bash
# hone tokenizer train makes a tokenizer that hone tokenize uses: texts become ids and come back, a
# line each, and what cannot be done is said with the line.
set -u
fail() {
    echo "FAIL: $*"
    exit 1
}
tok=$SCRATCH/tok
text=tests/golden/tok/train.txt
train() {
    "$HONE" tokenizer train --out "$tok" --vocab-size 400 --special '<pad>' --bos '<s>' \
        --eos '</s>' --add-bos "$text" >"$SCRATCH/out" 2>"$SCRATCH/err" ||
        fail "train: $(cat "$SCRATCH/err")"
}
train
[ "$(cat "$SCRATCH/out")" = "$tok: 400 ids, 3 of them special" ] || fail "$(cat "$SCRATCH/out")"
cp "$tok/tokenizer.json" "$SCRATCH/first"
train
cmp "$tok/tokenizer.json" "$SCRATCH/first" || fail "a second training differs"

"$HONE" tokenize --model "$tok" <"$text" >"$SCRATCH/ids" || fail "tokenize"
[ "$(wc -l <"$SCRATCH/ids")" = "$(wc -l <"$text")" ] || fail "not an array a line"
grep -qv '^\[1\(, [0-9]*\)*\]$' "$SCRATCH/ids" && fail "a line does not begin with bos"
"$HONE" tokenize --model "$tok" --decode --no-special <"$SCRATCH/ids" | cmp - "$text" ||
    fail "ids do not come back as the text"
"$HONE" tokenize --model "$tok" --no-special <"$text" | grep -q '^\[1,' &&
    fail "--no-special has bos"

json='"two\nlines </s>"'
ids=$(printf '%s\n' "$json" | "$HONE" tokenize --model "$tok" --jsonl)
[[ $ids == "[1, "*", 2]" ]] || fail "--jsonl: $ids"
back=$(printf '%s\n' "$ids" | "$HONE" tokenize --model "$tok" --jsonl --decode)
[ "$back" = '"<s>two\nlines </s>"' ] || fail "--jsonl --decode: $back"

# says MESSAGE INPUT ARG...: the command fails and ends with this message.
says() {
    local want=$1 input=$2 rc=0
    shift 2
    printf "$input" | "$HONE" tokenize --model "$tok" "$@" >/dev/null 2>"$SCRATCH/err" || rc=$?
    [ $rc -eq 1 ] || fail "$*: status $rc"
    [ "$(cat "$SCRATCH/err")" = "hone: $want" ] || fail "$*: says $(cat "$SCRATCH/err")"
}
says 'line 2: the text is not UTF-8 at byte 1' 'a\nb\xff\n'
says 'line 1: it is not a JSON string' '7\n' --jsonl
says 'line 1: it is not a JSON array of ids' '{}\n' --decode
says 'line 1: item 1 is not an id' '[1, -1]\n' --decode
says 'line 1: id 400 is not in the vocabulary' '[400]\n' --decode
says 'line 1: the text has line ends of its own; --jsonl keeps it on one line' "$ids"'\n' --decode
