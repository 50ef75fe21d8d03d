#!/bin/bash
# A second model beside the live one: a script at serve.route sends a share of the users there, each
# always to the same side; what both do and how they are liked is told apart; and whoever is sent
# there is answered while it is withdrawn, set again and promoted.
set -u
fail() {
    echo "FAIL: $*"
    tail -n 5 "$SCRATCH/server.log"
    exit 1
}
# has WHAT FILE: this very line
has() { grep -qxF -- "$1" "$2" || fail "no line $1 in: $(grep "^${1%%\{*}" "$2")"; }

state=$SCRATCH/state
cp -r examples/model "$SCRATCH/other"
# Another model, as good: the last bit of its last weight.
printf '\1' | dd of="$SCRATCH/other/model.safetensors" bs=1 conv=notrunc status=none \
    seek=$(($(stat -c %s "$SCRATCH/other/model.safetensors") - 4)) || fail dd
cmp -s examples/model/model.safetensors "$SCRATCH/other/model.safetensors" && fail "not another"

cat >"$SCRATCH/trial.lua" <<'END'
plugin {name = "trial", version = "1.0", summary = "two in five users try the canary"}
on("serve.route", function(route)
  if route.bucket < 40 then return route.aliases[2] end
end)
END
cat >"$SCRATCH/hone.yaml" <<END
model: $PWD/examples/model
name: support
listen: 127.0.0.1:0
state_dir: state
canary: true
device: cpu
plugins: [{path: trial.lua, pinned: false}]
END

key=$("$HONE" key create --name me --role admin --state "$state" --json | jq -r .key)
other=$("$HONE" registry add "$SCRATCH/other" --state "$state") || fail "add"
"$HONE" registry add examples/nothing --state "$state" 2>"$SCRATCH/err" && fail "adds nothing"
grep -qF 'examples/nothing: cannot find' "$SCRATCH/err" || fail "says: $(cat "$SCRATCH/err")"
"$HONE" registry canary "$other" --state "$state" >/dev/null || fail "canary"

"$HONE" serve "$SCRATCH/hone.yaml" 2>"$SCRATCH/server.log" &
server=$! askers=
trap 'kill $server $askers 2>/dev/null' EXIT

get() { curl -sS --max-time 60 "$url$1" -H "Authorization: Bearer $key" "${@:2}"; }
post() { get "$1" -H 'Content-Type: application/json' -d "$2"; }
# The models that are served, as "support:DIGEST support-canary:DIGEST"
models() {
    get /v1/models 2>/dev/null | jq -r '[.data[]? | "\(.id):\(.model_digest)"] | join(" ")'
}
wait_for() {
    for _ in $(seq 600); do
        [ "$(models)" != "$1" ] || return
        kill -0 $server 2>/dev/null || fail "the server ended"
        sleep 0.1
    done
    fail "'$(models)' is served, not '$1'"
}
for _ in $(seq 600); do
    url=$(grep -o 'http://[0-9.:]*' "$SCRATCH/server.log" | head -n 1)
    [ -z "$url" ] || break
    kill -0 $server 2>/dev/null || fail "the server ended"
    sleep 0.1
done
for _ in $(seq 600); do
    live=$(models)
    [[ $live != *support-canary:* ]] || break
    sleep 0.1
done
live=${live#support:} live=${live%% *}
both="support:$live support-canary:$other"
wait_for "$both"

# ---- shares, figures and thumbs ----

ask() { # USER [SEED]
    post /v1/chat/completions "{\"user\": \"$1\", \"max_tokens\": 4, \"seed\": ${2:-1},
        \"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}"
}
declare -A side
here=0 there=0
for user in u{1..20}; do
    ask $user >"$SCRATCH/answer"
    side[$user]=$(jq -r .model "$SCRATCH/answer")
    case ${side[$user]} in
    support) here=$((here + 1)) rating=down ;;
    support-canary) there=$((there + 1)) rating=up ;;
    *) fail "answers: $(cat "$SCRATCH/answer")" ;;
    esac
    post /v1/feedback "{\"response_id\": $(jq .id "$SCRATCH/answer"), \"rating\": \"$rating\"}" |
        jq -e .id >/dev/null || fail "feedback"
done
[ $here -ge 5 ] && [ $there -ge 5 ] || fail "$here of 20 users here, $there there"
for user in u1 u7 u20; do
    [ "$(ask $user | jq -r .model)" = "${side[$user]}" ] || fail "$user changes sides"
    [ "${side[$user]}" = support ] && here=$((here + 1)) || there=$((there + 1))
done

# Each model has been asked one question more, before anybody else.
labels() { echo "model=\"$1\",digest=\"${2:0:12}\",adapter=\"\""; }
check_metrics() { # LABELS REQUESTS
    has "hone_requests_admitted_total{$1} $2" "$SCRATCH/metrics"
    has "hone_requests_finished_total{$1} $2" "$SCRATCH/metrics"
    has "hone_requests_failed_total{$1} 0" "$SCRATCH/metrics"
    has "hone_time_to_first_token_seconds_count{$1} $2" "$SCRATCH/metrics"
    has "hone_e2e_request_latency_seconds_count{$1} $2" "$SCRATCH/metrics"
    grep -qE "^hone_prompt_tokens_total\{$1\} [1-9]" "$SCRATCH/metrics" || fail "no tokens of $1"
    grep -qE "^hone_generation_tokens_total\{$1\} [1-9]" "$SCRATCH/metrics" || fail "none of $1"
}
get /metrics >"$SCRATCH/metrics"
check_metrics "$(labels support "$live")" $((here + 1))
check_metrics "$(labels support-canary "$other")" $((there + 1))
has "hone_model_info{$(labels support-canary "$other"),role=\"canary\"} 1" "$SCRATCH/metrics"
ups=$(printf '%s\n' "${side[@]}" | grep -c canary)
has "hone_feedback_total{$(labels support-canary "$other"),rating=\"up\"} $ups" "$SCRATCH/metrics"
has "hone_feedback_total{$(labels support "$live"),rating=\"down\"} $((20 - ups))" \
    "$SCRATCH/metrics"

"$HONE" feedback compare --state "$state" --json >"$SCRATCH/compare" || fail "compare"
jq -e --arg live "$live" --arg other "$other" --argjson ups "$ups" '
    .canary_less_live.value == 1 and .canary_less_live.low > 0 and (.models | length == 2 and
    any(.[]; .model_digest == $live and .served_as == "live" and .down == 20 - $ups) and
    any(.[]; .model_digest == $other and .served_as == "canary" and .up == $ups))' \
    "$SCRATCH/compare" >/dev/null || fail "compare says: $(cat "$SCRATCH/compare")"
"$HONE" feedback compare --state "$state" | tail -n 1 | grep -q 'like the canary better' ||
    fail "compare: $("$HONE" feedback compare --state "$state")"

# ---- it comes and goes while requests run ----

for user in u{1..20}; do
    [ "${side[$user]}" != support-canary ] || break
done
touch "$SCRATCH/go"
for i in 1 2 3; do
    while [ -e "$SCRATCH/go" ]; do
        ask $user $((RANDOM + 1)) | jq -r '.model // tostring'
    done >"$SCRATCH/asked.$i" 2>&1 &
    askers="$askers $!"
done
# Each step is seen by answers that began after it.
seen() { # MODEL: until each asker has been answered by it once more
    for i in 1 2 3; do
        local from
        from=$(($(wc -l <"$SCRATCH/asked.$i") + 2)) # what runs now may have begun before
        for _ in $(seq 600); do
            [ "$(tail -n +$from "$SCRATCH/asked.$i" | grep -cx "$1")" -eq 0 ] || break
            sleep 0.1
        done
        [ "$(tail -n +$from "$SCRATCH/asked.$i" | grep -cx "$1")" -gt 0 ] ||
            fail "$user is not answered by $1: $(tail -n 2 "$SCRATCH/asked.$i")"
    done
}
seen support-canary
"$HONE" registry canary off --state "$state" >/dev/null || fail "off"
wait_for "support:$live"
seen support
"$HONE" registry canary "$other" --state "$state" >/dev/null || fail "on again"
wait_for "$both"
seen support-canary
"$HONE" registry promote "$other" --state "$state" >/dev/null || fail "promote"
wait_for "support:$other"
seen support
rm "$SCRATCH/go"
wait $askers
askers=
sort -u "$SCRATCH"/asked.? >"$SCRATCH/said"
printf 'support\nsupport-canary\n' | cmp -s - "$SCRATCH/said" ||
    fail "the askers heard: $(cat "$SCRATCH/said")"
post /v1/completions '{"model": "support-canary", "prompt": "hello"}' >"$SCRATCH/answer"
grep -q model_not_found "$SCRATCH/answer" || fail "its name says: $(cat "$SCRATCH/answer")"
get /metrics >"$SCRATCH/metrics"
has "hone_model_info{$(labels support "$other"),role=\"live\"} 1" "$SCRATCH/metrics"
grep -q 'role="canary"' "$SCRATCH/metrics" && fail "a canary that is live"
grep '^hone_requests_failed_total' "$SCRATCH/metrics" | grep -v ' 0$' && fail "requests failed"
"$HONE" feedback compare --state "$state" | tail -n 1 | grep -q '^no canary is set' ||
    fail "compare: $("$HONE" feedback compare --state "$state")"

kill -TERM $server
wait $server || fail "the server did not end in order"
"$HONE" audit verify --state "$state" >/dev/null || fail "the audit log"
