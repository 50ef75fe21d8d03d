#!/bin/bash
# The walk-through of examples/README.md: a metric of one's own, tried, approved, seen in an
# evaluation; changed without being approved again, it is refused.
set -u
fail() {
    echo "FAIL: $*"
    exit 1
}
# The script and its settings are those that the page shows.
page=examples/README.md
mkdir -p "$SCRATCH/my"
chmod 755 "$SCRATCH" "$SCRATCH/my"
awk '/^```lua/ { on = 1; next } /^```/ { on = 0 } on' $page >"$SCRATCH/my/brevity.lua"
awk '/^```yaml/ { on = 1; next } /^```/ { on = 0 } on' $page >"$SCRATCH/my/metrics.yaml"
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
echo '-- another line' >>brevity.lua
evaluate && fail "a script that was changed was loaded"
exit 0
