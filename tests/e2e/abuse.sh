#!/bin/bash
# A server that is short of what it needs: more connections than open files, a disk that is full and
# has room again, a port that is taken, a key that is revoked while it is used.
set -u
fail() {
    echo "FAIL: $*"
    tail -n 5 "$SCRATCH/server.log"
    exit 1
}
state=$SCRATCH/state log=$SCRATCH/server.log server=
key=$("$HONE" key create --name me --role admin --state "$state" --json | jq -r .key)
printf 'model: %s\nname: m\ndevice: cpu\nlisten: 127.0.0.1:0\nhealth_listen: 127.0.0.1:0\n' \
    "$PWD/examples/model" >"$SCRATCH/hone.yaml"
settings=("$SCRATCH/hone.yaml" state_dir="$state" max_connections_per_ip=0)
trap 'kill $server 2>/dev/null' EXIT

# until COMMAND...: within a minute, while the server runs
until_true() {
    for _ in $(seq 600); do
        ! "$@" || return 0
        kill -0 $server 2>/dev/null || fail "the server ended"
        sleep 0.1
    done
    fail "never: $*"
}
ready() { "$HONE" health "${settings[@]}" health_listen="127.0.0.1:$probes" >/dev/null 2>&1; }
# The log goes through a pipe: what limits the server's files shall not limit it.
start() { # OPEN-FILES
    : >"$log"
    (ulimit -n "$1" && exec "$HONE" serve "${settings[@]}") 2> >(exec cat >>"$log") &
    server=$!
    until_true grep -q 'for probes: port' "$log"
    port=$(sed -n 's/.*listening on http:..127.0.0.1:\([0-9]*\)"/\1/p' "$log")
    probes=$(sed -n 's/.*for probes: port \([0-9]*\)"/\1/p' "$log")
    url=http://127.0.0.1:$port
    until_true ready
}
call() { # ROUTE BODY: the status, with the reply in $SCRATCH/reply
    curl -sS --max-time 60 -o "$SCRATCH/reply" -w '%{http_code}' "$url$1" -d "$2" \
        -H "Authorization: Bearer $key" -H 'Content-Type: application/json'
}
QUESTION='{"prompt": "hello", "max_tokens": 4}'
answers() { [ "$(call /v1/completions "$QUESTION" 2>/dev/null)" = 200 ]; }
stop() {
    local rc=0
    kill -TERM $server
    wait $server || rc=$?
    [ $rc -eq 0 ] || fail "ended with status $rc"
}

# ---- too few open files ----

out=$(ulimit -n 150 && "$HONE" serve "${settings[@]}" 2>&1) && fail "starts with 150 files"
[[ $out == *"raise the limit (ulimit -n"* ]] || fail "says: $out"
start 300
grep -q 'may have 300 open files: 108 connections' "$log" || fail "does not say what it takes"
answers || fail "$(cat "$SCRATCH/reply")"
held=()
for _ in $(seq 150); do # more than it takes: the others wait for their turn
    exec {fd}<>"/dev/tcp/127.0.0.1/$port" || fail "cannot connect"
    held+=("$fd")
done
ready || fail "its probes do not answer beside full house"
"$HONE" feedback list --state "$state" >/dev/null || fail "the database"
for fd in "${held[@]}"; do exec {fd}>&-; done
until_true answers
stop

# ---- a port that is taken ----

start "$(ulimit -Hn)"
out=$("$HONE" serve "${settings[@]}" listen="127.0.0.1:$port" 2>&1) && fail "two on one port"
[[ $out == *"another program has this port (ss -ltnp)"* ]] || fail "says: $out"

# ---- a full disk ----

answers || fail "$(cat "$SCRATCH/reply")"
id=$(jq -r .id "$SCRATCH/reply")
prlimit --pid $server --fsize=4096:
rated() { call /v1/feedback "{\"response_id\": \"$id\", \"rating\": \"up\"}"; }
[ "$(rated)" = 503 ] || fail "a full disk: $(cat "$SCRATCH/reply")"
grep -q store_unavailable "$SCRATCH/reply" || fail "a full disk: $(cat "$SCRATCH/reply")"
answers || fail "does not answer with a full disk: $(cat "$SCRATCH/reply")"
until_true grep -q "are not written: .*$state/hone.db" "$log"
prlimit --pid $server --fsize=unlimited:
[ "$(rated)" = 201 ] || fail "room again: $(cat "$SCRATCH/reply")"
until_true grep -q 'written again; [0-9]* records were lost' "$log"
[ "$(grep -c 'are not written' "$log")" = 1 ] || fail "it says so more than once"

# ---- a key that is revoked while it is used ----

"$HONE" key create --name other --scopes infer --state "$state" --json >"$SCRATCH/other"
admin=$key key=$(jq -r .key "$SCRATCH/other")
answers || fail "$(cat "$SCRATCH/reply")"
"$HONE" key revoke "$(jq -r .id "$SCRATCH/other")" --state "$state" >/dev/null || fail "revoke"
[ "$(call /v1/completions "$QUESTION")" = 401 ] || fail "revoked: $(cat "$SCRATCH/reply")"
key=$admin
stop
"$HONE" audit verify --state "$state" >/dev/null || fail "the audit log is broken"
