#!/bin/bash
# The committed data of examples/support are what its grammar makes, and a question of the holdout
# is no question of the training set.
set -eu
fail() {
    echo "FAIL: $*"
    exit 1
}
examples/rebuild.sh data "$BUILD" "$SCRATCH/support"
for name in train holdout holdout_intents; do
    cmp "$SCRATCH/support/$name.jsonl" "examples/support/$name.jsonl" ||
        fail "examples/support/$name.jsonl is not what examples/support.gr makes"
done
questions() { sed 's/.*"role":"user","content":"//; s/"},{.*//' "$@" | sort -u; }
cd examples/support
both=$(comm -12 <(questions train.jsonl) <(questions holdout.jsonl holdout_intents.jsonl))
[ -z "$both" ] || fail "in the training set and in the holdout: $both"
both=$(comm -12 <(questions train.jsonl) <(questions new_questions.jsonl))
[ -z "$both" ] || fail "in the training set and new: $both"
"$BUILD/examples/gen" nowhere.gr x 1 2>"$SCRATCH/err" && fail "a missing grammar was taken"
grep -q '^gen: nowhere.gr: ' "$SCRATCH/err" || fail "$(cat "$SCRATCH/err")"
[ "$(wc -c *.jsonl | awk 'END { print $1 }')" -lt 400000 ] || fail "the domain set is over 400 kB"
