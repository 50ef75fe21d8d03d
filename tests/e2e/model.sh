#!/bin/bash
# score, generate and chat on the real checkpoint beside the tree.
set -u
shared=${HONE_SHARED:-../shared}/data/checkpoints
story=$shared/stories260k-f32
[ -d "$story" ] || { echo "$story is absent"; exit 77; }
fail() {
    echo "FAIL: $*"
    exit 1
}
# expect STATUS ARG...: runs hone on standard input, keeps $out and $err.
expect() {
    local want=$1
    shift
    out=$("$HONE" "$@" 2>"$SCRATCH/err")
    local rc=$?
    err=$(grep -v ' sys=device ' "$SCRATCH/err")
    [ $rc -eq "$want" ] || fail "hone $*: status $rc, not $want: $err"
}
# says TEXT: the complaint is exactly this.
says() {
    [ "$err" = "hone: $1" ] || fail "says '$err', not 'hone: $1'"
}

# ---- score ----
line='{"text":"Once upon a time, there was a little girl"}'
expect 0 score --model "$story" <<<"$line"
grep -q 'sys=device msg="auto takes ' "$SCRATCH/err" || fail "what auto took is not said"
expect 0 score --model "$story" --device cpu <<<"$line"
grep -q 'sys=device' "$SCRATCH/err" && fail "what was asked for is said again"
expect 0 score --model "$story" <<<"$line"
ids='[1,403,407,261,378,432,383,286,261,376,298,315,421]'
[[ $out == "{\"ids\":$ids,\"logprobs\":[null,-0.24374"* ]] || fail "score: $out"
whole=$out
printf '%s\n\n%s\n' "$line" '{"ids":[1,403,407]}' >"$SCRATCH/lines"
expect 0 score --model "$shared/stories260k-f32-sharded" "$SCRATCH/lines"
[ "$(head -n 1 <<<"$out")" = "$whole" ] || fail "shards score otherwise"
[ "$(wc -l <<<"$out")" -eq 2 ] || fail "an empty line counts"
expect 0 score --model "$story" --top 2 <<<'{"ids":[1,403]}'
[[ $out == *'"top":[[],[[403,-0.24374'*'],[385,-1.8610'*']]]}' ]] || fail "score --top: $out"
expect 1 score --model "$story" <<<'{"ids":[1,512]}'
says 'standard input:1: row 1: id 512 is outside the vocabulary of 512'
expect 1 score --model "$story" <<<'{"text":"a","ids":[1]}'
says "standard input:1: needs one of 'text', 'ids' and 'messages'"
expect 1 score --model "$story" <<<'{"txt":"a"}'
says "standard input:1: unknown field 'txt' (did you mean 'text'?)"
expect 1 score --model "$story" <<<'{"messages":[]}'
says "standard input:1: $story: the model has no chat template"
expect 2 score --top 3
expect 2 score --model "$story" --top 0 "$SCRATCH/lines"

# ---- generate ----
golden=$(cat "$shared/stories260k-reference/upstream_golden.txt")
expect 0 generate --model "$story" --temperature 0 --max-tokens 200 ""
[[ ${out# } == "${golden# }"* ]] || fail "another story: $out"
expect 0 generate --model "$story" --temperature 0 --max-tokens 200 --stop 'ball' ""
[[ $out == *'a big, red ' ]] || fail "not stopped before 'ball': $out"
expect 0 generate --model "$story" --temperature 0.9 --seed 7 --max-tokens 30 'Once'
first=$out
expect 0 generate --model "$story" --temperature 0.9 --seed 7 --max-tokens 30 --json <<<'Once'
[[ $out == "{\"text\":\"$first\",\"ids\":["*'"finish":"length","prompt_tokens":'*'"seed":7,'* ]] ||
    fail "generate --json: $out, not $first"
expect 0 generate --model "$story" --temperature 0.9 --seed 8 --max-tokens 30 'Once'
[ "$out" != "$first" ] || fail "another seed, the same text"
expect 0 generate --model "$story" --temperature 0 --max-tokens 4 --logit-bias 403=-100 ""
[[ ${out# } != Once* ]] || fail "a bias of -100 changes nothing"
expect 0 generate --model "$story" --dtype bf16 --temperature 0 --max-tokens 20 ""
[[ ${out# } == "Once upon a time, there was a little girl"* ]] || fail "bf16: $out"
expect 1 generate --model "$story" --top-p 0 x
says 'top_p is 0, above 0 to 1 is taken'
expect 1 generate --model "$story" --seed x x
says "--seed: 'x' is not a whole number"
expect 1 generate --model "$story" --dtype f64 x
says "--dtype: 'f64' is neither f32 nor bf16"
expect 2 generate --model "$story" --system x y

# ---- chat ----
mkdir "$SCRATCH/chat"
cp "$story"/* "$SCRATCH/chat"
cat >"$SCRATCH/chat/chat_template.jinja" <<'TEMPLATE'
{{ bos_token }}{% for m in messages %}{{ m.content }} {% endfor %}
TEMPLATE
expect 1 chat --model "$story" <<<'hello'
says "$story: the model has no chat template; 'hone generate' goes without"
printf 'Once upon\n\n/reset\nOnce upon\nthere\n/exit\nOnce upon\n' >"$SCRATCH/talk"
expect 0 chat --model "$SCRATCH/chat" --max-tokens 6 --temperature 0 <"$SCRATCH/talk"
[ "$(wc -l <<<"$out")" -eq 3 ] || fail "three answers: $out"
[ "$(sed -n 1p <<<"$out")" = "$(sed -n 2p <<<"$out")" ] || fail "/reset forgets nothing: $out"
expect 0 generate --model "$SCRATCH/chat" --chat --max-tokens 6 --temperature 0 'Once upon'
expect 0 score --model "$SCRATCH/chat" <<<'{"messages":[{"role":"user","content":"Once upon"}]}'
[[ $out == '{"ids":[1,403,'* ]] || fail "messages: $out"
