#!/bin/bash
# The whole loop on the embedded model: examples/demo.sh [PROGRAM]
# Fine-tune, evaluate before and after, merge, serve, chat, take corrections, retrain, judge,
# promote while serving, roll back. Everything printed is computed in this run; a promise that is
# not kept ends it with status 1. Files go to $DEMO_DIR (demo-state), which is made anew.
set -euo pipefail
cd "$(dirname "$0")/.."
hone=${1:-build/hone}
work=${DEMO_DIR:-demo-state}
support=examples/support
began=$SECONDS
server= asker=

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

say() {
    printf '\n=== %s  (%d s)\n' "$*" $((SECONDS - began))
}

cleanup() {
    local pid
    for pid in $server $asker; do
        kill "$pid" 2>/dev/null || true
    done
}
trap cleanup EXIT

# number REPORT FILTER TEST: prints a figure of a report and fails unless the jq test holds.
number() {
    jq -e "$2 | select($3)" "$1" >/dev/null || fail "$2 is $(jq "$2" "$1"), wanted: $3"
}

# ---- HTTP ----

# post ROUTE BODY
post() {
    curl -sS --fail-with-body --max-time 60 "$url$1" -H "Authorization: Bearer $key" \
        -H 'Content-Type: application/json' -d "$2"
}

# ask QUESTION-LINE: the whole response to a line of new_questions.jsonl
ask() {
    post /v1/chat/completions "$(jq -c '{model: "tarnbeck", messages: .messages[:2],
        temperature: 0, max_tokens: 60}' <<<"$1")"
}

live_digest() {
    curl -sS --fail-with-body "$url/v1/models" -H "Authorization: Bearer $key" |
        jq -r '.data[0].model_digest'
}

# within_a_minute COMMAND...: again and again until it holds, while the server runs
within_a_minute() {
    for _ in $(seq 600); do
        "$@" && return
        kill -0 $server 2>/dev/null || fail "the server ended: $(tail -n 1 "$work/server.log")"
        sleep 0.1
    done
    fail "not within a minute: $*; the server says: $(tail -n 1 "$work/server.log")"
}

serves_another_than() {
    [ "$(live_digest)" != "$1" ]
}

listens() {
    url=$(grep -os 'http://[0-9.:]*' "$work/server.log" | head -n 1)
}

is_ready() { # it listens while it loads
    curl -fs "$url/health/ready" >/dev/null
}

# check_questions: asks the questions that are kept for the end, in other words than were taught
check_questions() {
    local line answer
    right=0 asked=0
    while read -r line; do
        answer=$(ask "$line" | jq -r '.choices[0].message.content')
        asked=$((asked + 1))
        if grep -qF -- "$(jq -r .key <<<"$line")" <<<"$answer"; then
            right=$((right + 1))
        fi
        [ -n "${1:-}" ] || printf '  %s\n    -> %s\n' \
            "$(jq -r '.messages[1].content' <<<"$line")" "$answer"
    done < <(jq -c 'select(.use == "check")' "$support/new_questions.jsonl")
    echo "$right of $asked right"
}

# ---- the loop ----

rm -rf "$work"
mkdir -p "$work"

say "1. what the base model knows of the domain: nothing"
"$hone" eval --model examples/model --data "$support/holdout_intents.jsonl" --metrics accuracy \
    --max-tokens 8 --json >"$work/before.json"
number "$work/before.json" .report.metrics.accuracy.value '. < 0.3'
echo "intent accuracy $(jq '.report.metrics.accuracy.value * 100' "$work/before.json") %"

say "2. fine-tuning: a LoRA adapter on the support of a line of coffee machines"
"$hone" train examples/finetune.yaml output_dir="$work/adapter"

say "3. before and after, on questions in other words"
"$hone" eval --model examples/model --adapter "$work/adapter" --before --max-tokens 8 \
    --data "$support/holdout_intents.jsonl" --metrics accuracy,stops --json >"$work/intents.json"
number "$work/intents.json" .compare.metrics.accuracy.after '. > 0.9'
jq -r '.compare.metrics | to_entries[] |
       "\(.key): \(.value.before * 100) % before, \(.value.after * 100) % after"' \
    "$work/intents.json"
"$hone" eval --model examples/model --adapter "$work/adapter" --before \
    --data "$support/holdout.jsonl" --metrics perplexity --plugins examples/metrics.yaml \
    --out "$work/answers.json"

say "4. merge, with its proof; signed with the key of the appliance"
"$hone" merge --model examples/model --adapter "$work/adapter" --out "$work/model" \
    --state "$work/state"

say "5. serve behind a fresh key"
settings=(model="$work/model" state_dir="$work/state" require_signature=true)
key=$("$hone" key create --name demo --role admin --state "$work/state" --json | jq -r .key)
"$hone" serve examples/hone.yaml "${settings[@]}" 2>"$work/server.log" &
server=$!
within_a_minute listens
within_a_minute is_ready
echo "$url"
[ "$(curl -s -o "$work/refused.json" -w '%{http_code}' "$url/v1/models")" = 401 ] ||
    fail "answers without a key"
echo "without the key: $(jq -r .error.message "$work/refused.json")"

say "6. a streamed answer"
curl -sSN --max-time 60 "$url/v1/chat/completions" -H "Authorization: Bearer $key" \
    -H 'Content-Type: application/json' -d '{"model": "tarnbeck", "stream": true,
     "temperature": 0, "max_tokens": 60, "messages": [
     {"role": "system", "content": "You answer the customers of Tarnbeck coffee machines."},
     {"role": "user", "content": "How long is the warranty of the Duo?"}]}' |
    tee "$work/stream.txt" | sed -un 's/^data: \({.*\)/\1/p' |
    jq --unbuffered -rj '.choices[0].delta.content // empty'
echo
grep -qx 'data: \[DONE\]' <(tr -d '\r' <"$work/stream.txt") || fail "the stream does not end"

say "7. new facts: the model cannot know them"
check_questions
[ "$right" -lt $((asked / 2)) ] || fail "nothing to teach"

say "8. feedback: each wrong answer gets its correction"
taught=0
while read -r line; do
    id=$(ask "$line" | jq -r .id)
    post /v1/feedback "$(jq -c --arg id "$id" '{response_id: $id, rating: "down",
        correction: .messages[2].content}' <<<"$line")" >/dev/null
    taught=$((taught + 1))
done < <(jq -c 'select(.use == "teach")' "$support/new_questions.jsonl")
echo "$taught corrections"
"$hone" feedback list --state "$work/state" | head -n 4

say "9. retrain, judge, promote; the server goes on answering"
old=$(live_digest)
first=$(jq -c 'select(.use == "check")' "$support/new_questions.jsonl" | head -n 1)
(while :; do ask "$first" >/dev/null || echo failed; sleep 0.2; done) >"$work/meanwhile.txt" 2>&1 &
asker=$!
"$hone" retrain examples/hone.yaml "${settings[@]}" --json >"$work/retrain.json"
number "$work/retrain.json" .status '. == "promoted"'
within_a_minute serves_another_than "$old"
kill $asker
wait $asker 2>/dev/null || true
asker=
[ ! -s "$work/meanwhile.txt" ] || fail "requests failed meanwhile: $(cat "$work/meanwhile.txt")"
jq -r '"examples: \(.examples | tojson)", (.reasons[] | "  " + .), "status: " + .status' \
    "$work/retrain.json"

say "10. the same questions, in other words"
check_questions
[ "$right" -ge $((asked * 5 / 6)) ] || fail "only $right of $asked"

say "11. rollback, one command"
old=$(live_digest)
"$hone" registry rollback --state "$work/state" --reason "demo"
within_a_minute serves_another_than "$old"
check_questions quiet
[ "$right" -lt $((asked / 2)) ] || fail "the old model is not back"

kill -TERM $server
wait $server || fail "the server did not end in order"
server=
say "done"
