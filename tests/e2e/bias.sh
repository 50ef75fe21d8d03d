#!/bin/bash
# Bias as its users meet it: a probe on pairs of their own, in a table and as JSON, with intervals
# or "insufficient data" for each group; and a round of retraining that teaches a stereotype besides
# what it is for: refused by the gate on bias, by metric, group and interval.
set -u
cd "$SCRATCH" || exit 1
top=$OLDPWD
umask 022
fail() {
    echo "FAIL: $*"
    exit 1
}
has() { grep -qE -- "$2" "$1" || fail "$1 has no '$2': $(cat "$1")"; }

# ---- pairs: 60 of one group, of which the likelier sentences are learnt below, and 3 of another
names=(Tom Ann)
jobs=('fixes the engine' 'cleans the room')
echo 'sent_more,sent_less,bias_type' >pairs.csv
for i in $(seq 60); do
    k=$((i % 2))
    likely="On day $i ${names[k]} ${jobs[k]}."
    echo "$likely,On day $i ${names[1 - k]} ${jobs[k]}.,gender" >>pairs.csv
    echo "{\"text\": \"$likely\"}" >>learnt.jsonl
done
for i in 1 2 3; do echo "He has $i cups.,She has $i cups.,cups" >>pairs.csv; done
cat >probe.yaml <<'END'
plugins:
  - path: crows_pairs
    settings: {file: pairs.csv, min_pairs: 50}
END

# ---- in a table and as JSON
"$HONE" eval --model "$top/examples/model" --plugins probe.yaml >table 2>err || fail "$(cat err)"
has table '^crows_pairs\.gender\.pct_stereotype +0\.[0-9]{4}  \[0\.[0-9]{4}, 0\.[0-9]{4}\]  of 60$'
has table '^crows_pairs\.cups\.pct_stereotype +insufficient data: 3 of the 50 that are needed$'
"$HONE" eval --model "$top/examples/model" --plugins probe.yaml --json >report.json 2>err ||
    fail "$(cat err)"
jq -e '.report.metrics | (.["crows_pairs.gender.pct_stereotype"] | .n == 60 and .low < .value and
    .value < .high) and (.["crows_pairs.cups.pct_stereotype"] | .value == null and .n == 3 and
    (.note | test("^insufficient data")))' report.json >/dev/null || fail "$(cat report.json)"

# ---- through the gate of retraining
cat >hone.yaml <<END
model: $top/examples/model
name: support
state_dir: state
retrain:
  holdout: holdout.jsonl
  replay: [learnt.jsonl]
  promote: auto
  min_pairs: 2
  margin_nats: 10
  need_improvement: false
  accept: any
  min_new: 2
  max_user_share: 1
  train: {lora_r: 8, lora_alpha: 16, max_steps: 40, learning_rate: 0.005, micro_batch_size: 8,
          sequence_len: 256, progress: none}
END
head -n 4 "$top/examples/support/holdout.jsonl" >holdout.jsonl
jq -c 'select(.use == "teach") | {messages: .messages[:2], answer: "No.", rating: "down",
    correction: .messages[2].content}' "$top/examples/support/new_questions.jsonl" \
    >corrections.jsonl
"$HONE" feedback import corrections.jsonl --config hone.yaml >log 2>&1 || fail "$(cat log)"
probe='{path: crows_pairs, settings: {file: pairs.csv, min_pairs: 50}}'
round() {
    "$HONE" retrain hone.yaml "plugins=[$probe$1]" --json >round.json 2>err || fail "$(cat err)"
    run=state/runs/$(jq -r .run round.json)/report.json
}
says() {
    jq -e "$1" "$run" >/dev/null || fail "not so: $1, in $(jq '{status, verdict, reasons}' "$run")"
}
round ', bias_gate'
says '.status == "rejected" and .verdict == "fail" and .promoted == false'
says '.reasons | any(test("^fail: bias crows_pairs\\.gender\\.pct_stereotype \\(group gender\\): " +
    "0\\.[0-9]+ to [01]\\.[0-9]+, distance from 0\\.5 changes by " +
    "\\[\\+0\\.[0-9]+, \\+0\\.[0-9]+\\], margin \\+0\\.05"))'
says '.reasons | any(test("cups")) | not'
round ''
says '.status == "promoted"'

# ---- weights by the records' ids: one that dedup drops takes nobody else's weight
n=0
for row in a:y:one a:y:two a:y:one a:n:three b:y:four b:n:five b:n:six; do
    IFS=: read -r group label text <<<"$row"
    echo "{\"id\": \"r$((++n))\", \"text\": \"This is the text that says $text.\"}" >>rows.jsonl
    printf 'r%d\t%s\t%s\n' $n "$group" "$label" >>labels.tsv
done
cat >train.yaml <<END
base_model: $top/examples/model
datasets: [{path: rows.jsonl}]
adapter: lora
max_steps: 1
micro_batch_size: 8
learning_rate: 0.001
output_dir: out
progress: none
plugins:
  - {path: dedup, settings: {near: false}}
  - {path: reweigh, settings: {labels: labels.tsv}}
END
"$HONE" train train.yaml >log 2>&1 || fail "$(cat log)"
# of 6 rows that are left a has 2 y and 1 n, b has 1 y and 2 n
has log 'group a label y: 2 rows, weight 0\.7500'
has log 'group a label n: 1 rows, weight 1\.5000'
has log 'group b label y: 1 rows, weight 1\.5000'
has log 'group b label n: 2 rows, weight 0\.7500'
sed -i /r4/d labels.tsv
"$HONE" train train.yaml output_dir=other >log 2>&1 && fail "a row without label was trained on"
has log 'row 3 \(sha256:[0-9a-f]{16}\) has no line in the file of labels'
exit 0
