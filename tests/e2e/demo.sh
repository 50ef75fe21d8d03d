#!/bin/bash
# The demo keeps its promises (it fails by itself where one is broken), and says what it did.
set -u
DEMO_DIR=$SCRATCH/demo examples/demo.sh "$HONE" >"$SCRATCH/out" 2>"$SCRATCH/err" || {
    cat "$SCRATCH/out"
    tail -n 20 "$SCRATCH/err"
    exit 1
}
rc=0
# In this order.
last=0
while read -r want; do
    at=$(tail -n +$((last + 1)) "$SCRATCH/out" | grep -nm1 -e "$want" | cut -d: -f1)
    if [ -z "$at" ]; then
        echo "FAIL: no line '$want' after line $last"
        rc=1
    else
        last=$((last + at))
    fi
done <<'E2'
^intent accuracy [0-9.]* %$
^finished after [0-9]* steps
^plugin *clean data.normalize: [0-9]* calls
^accuracy: [0-9.]* % before, 9[0-9.]* % after$
^perplexity .*better$
^bits_per_byte .*better
^proof over [0-9]* positions
^signed by key [0-9a-f]*$
^without the key: no API key
warranty of three years
^[0-5] of 12 right$
^24 corrections$
^  pass: holdout perplexity
^  pass: feedback perplexity
^  pass: gate: [0-9]* figures keep the rules$
^status: promoted$
^1[0-2] of 12 right$
^live -> [0-9a-f]* (was [0-9a-f]*)$
^[0-5] of 12 right$
E2
[ $rc -eq 0 ] || cat "$SCRATCH/out"
# What it left is whole: the audit log, and a second start on the same state.
"$HONE" audit verify --state "$SCRATCH/demo/state" >"$SCRATCH/audit" 2>&1 || {
    echo "FAIL: $(cat "$SCRATCH/audit")"
    rc=1
}
# Both models are what was registered, and signed.
"$HONE" registry verify --state "$SCRATCH/demo/state" >"$SCRATCH/verified" 2>&1
[ "$(grep -c 'ok, signed by key' "$SCRATCH/verified")" = 2 ] || {
    echo "FAIL: registry verify: $(cat "$SCRATCH/verified")"
    rc=1
}
exit $rc
