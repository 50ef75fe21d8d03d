#!/bin/bash
# The walk-through of examples/README.md: a metric of one's own, tried, approved, seen in an
# evaluation, in the report of a round of retraining and in its gate; changed without being approved
# again, it is refused.
set -u
fail() {
    echo "FAIL: $*"
    exit 1
}
# The script and its settings are those that the page shows.
page=examples/README.md
mkdir -p "$SCRATCH/my"
chmod 755 "$SCRATCH" "$SCRATCH/my"
# block LANGUAGE N: the Nth block of the page in this language
block() {
    awk -v lang='```'"$1" -v n="$2" \
        '$0 == lang { on = ++i == n; next } /^```/ { on = 0 } on' $page
}
block lua 1 >"$SCRATCH/my/brevity.lua"
block yaml 1 >"$SCRATCH/my/metrics.yaml"
block yaml 2 | sed "s|\.\./examples|$PWD/examples|" >"$SCRATCH/my/hone.yaml"
grep -q 'plugin {' "$SCRATCH/my/brevity.lua" || fail "$page shows no script"
chmod 644 "$SCRATCH"/my/*
cd "$SCRATCH/my" || exit 1
root=$OLDPWD
"$HONE" plugin check brevity.lua >"$SCRATCH/out" 2>&1 || fail "$(cat "$SCRATCH/out")"
data=$root/examples/support/holdout.jsonl
evaluate() {
    "$HONE" eval --model "$root/examples/model" --data "$data" --metrics perplexity \
        --plugins metrics.yaml --json >"$SCRATCH/report.json" 2>"$SCRATCH/err"
}
evaluate && fail "a script was loaded that nobody approved"
grep -q 'brevity.lua' "$SCRATCH/err" || fail "$(cat "$SCRATCH/err")"
"$HONE" plugin pin metrics.yaml >"$SCRATCH/out" 2>&1 || fail "$(cat "$SCRATCH/out")"
evaluate || fail "$(cat "$SCRATCH/err")"
jq -e '.report.metrics.brevity | .value > 0 and .value <= 1 and .n == 200' \
    "$SCRATCH/report.json" >/dev/null || fail "no metric in $(cat "$SCRATCH/report.json")"

# ---- a round of retraining, short and on a part of the holdout
head -n 12 "$data" >holdout.jsonl
jq -c 'select(.use == "teach") | {messages: .messages[:2], answer: "No.", rating: "down",
    correction: .messages[2].content}' "$root/examples/support/new_questions.jsonl" \
    >corrections.jsonl
short=(retrain.holdout=holdout.jsonl 'retrain.train={lora_r: 4,
    max_steps: 2, micro_batch_size: 2, sequence_len: 256, progress: none}')
"$HONE" plugin pin hone.yaml >"$SCRATCH/out" 2>&1 || fail "$(cat "$SCRATCH/out")"
"$HONE" feedback import corrections.jsonl --config hone.yaml >"$SCRATCH/out" 2>&1 ||
    fail "$(cat "$SCRATCH/out")"
# says REPORT FILTER: the jq test holds for the report
says() { jq -e "$2" "$1" >/dev/null || fail "not so: $2, in $(cat "$1")"; }
round() {
    "$HONE" retrain hone.yaml "${short[@]}" "$@" --json >"$SCRATCH/round.json" 2>"$SCRATCH/err" ||
        fail "$(cat "$SCRATCH/err")"
    run=state/runs/$(jq -r .run "$SCRATCH/round.json")/report.json
    says "$run" '.holdout.metrics.brevity | (.before | . > 0 and . <= 1) and
                 (.after | . > 0 and . < 1) and (.low <= .high)'
    says "$run" '.reasons | any(test("holdout brevity: change"))'
    says "$run" '.plugins[] | select(.name == "brevity") |
        .sha256 == "'"$(sha256sum brevity.lua | cut -c 1-64)"'" and
        .points["eval.metric"].calls >= 24'
}
round
above=$(jq '.holdout.metrics.brevity.after + 0.001' "$run")
# The floor just above what the candidate reaches, and one that it keeps.
round 'plugins=[brevity.lua, {path: gate, settings: {metric: brevity, least: '"$above"'}}]'
says "$run" '.verdict == "fail"'
says "$run" '.reasons | any(test("^fail: gate: holdout brevity is .*, at least "))'
round 'plugins=[brevity.lua, {path: gate, settings: {metric: brevity, least: 0.01}}]'
says "$run" '.reasons | any(test("gate: [12] figures keep the rules"))'

# ---- what nobody approved is not loaded
echo '-- another line' >>brevity.lua
evaluate && fail "a script that was changed was loaded"
exit 0
