#!/bin/bash
# Every hook point in the real loop: each is heard, its data hold what `hone plugin hooks` says, no
# more and no less, and a failure there stops the work or does not, as it says. Heard by
# tests/plugins/spy.c while the embedded model is trained, evaluated, merged, served and retrained.
set -u
top=$PWD
model=$top/examples/model
. tests/e2e/aid.bash
cd "$SCRATCH" || exit 1
umask 022
chmod 755 .
"$HONE" plugin hooks --json >doc.json || fail "hooks"
cc -std=c99 -D_GNU_SOURCE -I"$top/plugins" -fPIC -shared -o spy.so "$top/tests/plugins/spy.c" ||
    fail "cc"
chmod 755 spy.so
points=$(jq -c '[.[].name]' doc.json)
at() { jq -r --arg p "$1" '.[].name | select(startswith($p))' doc.json; }
on_failure() { jq -r --arg p "$1" '.[] | select(.name == $p) | .on_failure' doc.json; }
# plugins SETTINGS: the section of a settings file; paths are relative to it
plugins() {
    echo "plugins: [pii, {path: spy.so, pinned: false,
        settings: {points: $points, out: calls.jsonl$1}}]"
}

head -n 8 "$top/examples/support/train.jsonl" >train.jsonl
echo '{"prompt": "Whom do I write to?", "completion": "Write to ann@example.org."}' >pairs.jsonl
head -n 4 "$top/examples/support/holdout.jsonl" >holdout.jsonl
run_yaml() {
    cat <<END
base_model: $model
datasets: [{path: train.jsonl}, {path: pairs.jsonl}]
output_dir: out
adapter: lora
lora_r: 4
max_steps: 2
save_steps: 1
micro_batch_size: 2
sequence_len: 256
val_set_size: 2
progress: none
$(plugins "$1")
END
}
train() {
    rm -rf out
    run_yaml "$1" >run.yaml
    "$HONE" train run.yaml >log 2>err
}
evaluate() {
    run_yaml "$1" >run.yaml
    "$HONE" eval --model "$model" --data holdout.jsonl --plugins run.yaml >log 2>err
}
merge() {
    rm -rf merged
    run_yaml "$1" >run.yaml
    "$HONE" merge --model "$model" --adapter adapter --out merged --plugins run.yaml >log 2>err
}

# ---- an appliance
hone_yaml() {
    cat <<END
model: $model
name: support
listen: 127.0.0.1:0
state_dir: state
retrain:
  base: $model
  holdout: holdout.jsonl
  accept: any
  max_user_share: 1
  train: {lora_r: 4, max_steps: 2, micro_batch_size: 2, sequence_len: 256, progress: none}
$(plugins "$1")
END
}
serve_with() {
    hone_yaml "$1" >hone.yaml
    serve hone.yaml
}
stop() {
    kill $server
    wait $server
    server=
}
post() { # ROUTE BODY: the status; the reply is in reply.json
    curl -s -o reply.json -w '%{http_code}' "$url$1" -H "Authorization: Bearer $key" \
        -H 'Content-Type: application/json' -d "$2"
}
rate() { post /v1/feedback "{\"response_id\": \"$(jq -r .id reply.json)\", \"rating\": 1}"; }
chat='"messages": [{"role": "user", "content": "How long is the warranty?"}], "max_tokens": 4'

# ---- all is heard
train "" || fail "train: $(cat err)"
cp -r out adapter
evaluate "" || fail "eval: $(cat err)"
merge "" || fail "merge: $(cat err)"
hone_yaml "" >hone.yaml
key=$("$HONE" key create --name me --role admin --config hone.yaml 2>err |
    grep -o 'hk_live_[-A-Za-z0-9_]*')
[ -n "$key" ] || fail "no key: $(cat err)"
serve_with ""
[ "$(post /v1/chat/completions "{$chat}")" = 200 ] ||
    fail "chat: $(cat reply.json) $(tail -n 4 server.log)"
id=$(jq -r .id reply.json)
[ "$(post /v1/chat/completions "{$chat, \"stream\": true, \"user\": \"ann\"}")" = 200 ] ||
    fail "stream"
[ "$(post /v1/completions '{"prompt": "Hi", "max_tokens": 4}')" = 200 ] || fail "completion"
said='"rating": "down", "correction": "Two years.", "comment": "no", "tags": ["short"]'
[ "$(post /v1/feedback "{\"response_id\": \"$id\", $said}")" = 201 ] ||
    fail "feedback: $(cat reply.json)"

# ---- and counted, in the format of Prometheus: what promtool would say
format='
  function bad(why) { print FNR ": " why ": " $0; exit 1 }
  /^# HELP / { if (help[$3]++) bad("a second HELP"); next }
  /^# TYPE / {
    if (type[$3] != "") bad("a second TYPE")
    if (!help[$3]) bad("no HELP")
    if ($4 !~ /^(counter|gauge|histogram)$/) bad("no type")
    type[$3] = $4
    now = $3
    next
  }
  {
    label = "[a-zA-Z_][a-zA-Z0-9_]*=\"([^\"\\\\]|\\\\[\\\\\"n])*\""
    if ($0 !~ "^[a-zA-Z_:][a-zA-Z0-9_:]*([{](" label ",?)*[}])? [-+0-9.eEInf]+$") bad("no sample")
  }
  {
    name = $0
    sub(/[{ ].*/, "", name)
    if (type[now] == "histogram") sub(/_(bucket|sum|count)$/, "", name)
    if (name != now) bad("away from its TYPE")
    if (type[now] == "counter" && name !~ /_total$/) bad("a counter without _total")
    key = $0
    sub(/ [^ ]*$/, "", key)
    if (seen[key]++) bad("twice")
  }'
for line in 'x 1' 'hone_plugin_out{plugin="a"b"} 1' 'hone_plugin_out{plugin="a\b"} 1' \
    '# TYPE x gauge'; do
    printf '# HELP hone_plugin_out what\n# TYPE hone_plugin_out gauge\n%s\n' "$line" |
        awk "$format" >said && fail "what is no format passed: $line"
done
curl -fs "$url/metrics" -H "Authorization: Bearer $key" >metrics || fail "metrics"
awk "$format" metrics >said || fail "/metrics: $(cat said)"
has metrics 'hone_plugin_calls_total{plugin="spy",hook="serve.request"} 3'
has metrics 'hone_plugin_counter_total{plugin="spy",name="a \"name\" with \\"}'
for row in calls vetoes modified failures late seconds; do
    has metrics "hone_plugin_${row}_total{plugin=\"spy\",hook=\"serve.chunk\"}"
done
stop
jq -c 'select(.use == "teach") | {messages: .messages[:2], answer: "No.", rating: "down",
    correction: .messages[2].content}' "$top/examples/support/new_questions.jsonl" >said.jsonl
"$HONE" feedback import said.jsonl --config hone.yaml >log 2>err || fail "import: $(cat err)"
retrain() {
    hone_yaml "$1" >hone.yaml
    "$HONE" retrain hone.yaml --json >round.json 2>err
}
retrain "" || fail "retrain: $(cat err)"

# ---- and is what the page says
jq -rn --slurpfile doc doc.json '
  def is($may): ({"string": "text", "array": "list"}[type] // type) as $is |
    any($may | rtrimstr("?") | split("|")[]; . == $is or . == "any" or
      (. == "integer" and $is == "number"));
  ($doc[0] | map({(.name): .}) | add) as $points |
  reduce inputs as $call ({}; .[$call.hook] += [$call]) | . as $heard |
  ($points[] | select($heard[.name] == null) | "\(.name) was never heard"),
  ($heard | to_entries[] | .key as $hook |
    ($points[$hook].members | map({(.name): .type}) | add // {}) as $m |
    .value[] | select(.data != null) | .data as $data |
    if ($data | type) != "object" then "\($hook) got \($data)" else
    ($data | keys[] | select($m[.] == null and $m["*"] == null) |
      "\($hook) has \(.), which no page tells"),
    ($m | to_entries[] | select(.key != "*") | . as $e |
      if $data | has($e.key) then
        (if $data[$e.key] | is($e.value) then empty
         else "\($hook): \($e.key) is no \($e.value): \($data[$e.key])" end)
      elif $e.value | endswith("?") then empty
      else "\($hook) has no \($e.key)" end) end)
' calls.jsonl | sort -u >found || fail "jq"
[ ! -s found ] || fail "$(cat found)"

# ---- a failure stops what fails closed, and nothing else
# fails POINT COMMAND: with a failure there
fails() {
    local rc=0
    "$2" ", fail: $1" || rc=$?
    if [ "$(on_failure "$1")" = closed ]; then
        [ $rc -eq 1 ] || fail "$2 went on after a failure of $1 ($rc)"
        has err "$1: spy failed: told to fail"
    else
        [ $rc -eq 0 ] || fail "$2 ended by a failure of $1: $(cat err)"
    fi
}
for p in $(at data.) $(at train.); do fails "$p" train; done
for p in $(at eval.) $(at bias.); do fails "$p" evaluate; done
for p in $(at merge.); do fails "$p" merge; done
for p in $(at feedback.to) $(at drift.) $(at promote.); do fails "$p" retrain; done
train ", veto: train.start" && fail "a run that was refused"
has err "train.start: refused by spy: told to refuse"
train ", veto: data.filter" && fail "a run without a row"
merge ", veto: merge.pre" && fail "a merge that was refused"
retrain ", veto: promote.gate" || fail "retrain: $(cat err)"
jq -e '.verdict == "fail" and any(.reasons[]; test("told to refuse"))' round.json >/dev/null ||
    fail "no refusal in $(cat round.json)"

# A plugin that keeps failing is taken out everywhere: here it is heard at one point alone.
for p in $(at serve.) feedback.ingest audit.event; do
    points=[$p]
    serve_with ", fail: $p"
    stream=false
    [ "$p" != serve.chunk ] || stream=true
    status=$(post /v1/chat/completions "{$chat, \"stream\": $stream}")
    want=200
    case $p in serve.request | serve.route | serve.prompt | serve.response) want=500 ;; esac
    [ "$status" = $want ] || fail "$p fails: $status, not $want: $(cat reply.json)"
    [ "$p" != serve.chunk ] || ! grep -q '\[DONE\]' reply.json || fail "a stream ended as if well"
    if [ "$p" = serve.log ]; then # what could not be looked at is not stored
        status=$(rate)
        [ "$status" -ge 400 ] || fail "the request was stored: $(cat reply.json)"
    fi
    if [ "$p" = feedback.ingest ]; then
        status=$(rate)
        [ "$status" = 500 ] || fail "feedback was taken: $status $(cat reply.json)"
    fi
    stop
    [ "$want" = 200 ] || has server.log "$p: spy failed: told to fail"
done
exit 0
