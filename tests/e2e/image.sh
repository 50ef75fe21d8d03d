#!/bin/bash
# What the image does, without an engine: the installed program with the image's own settings, as
# the first process of a namespace where that can be made. Nothing but the state is written; probes,
# signals and a second start are those of README.md.
set -u
fail() {
    echo "FAIL: $*"
    cat "$SCRATCH"/*.log 2>/dev/null
    exit 1
}
make -s NVCC= B="$BUILD" install DESTDIR="$SCRATCH/out" >"$SCRATCH/install.log" 2>&1 ||
    fail "make install"
hone=$SCRATCH/out$(sed -n 's/^ENTRYPOINT \["\(.*\)"\]/\1/p' docker/Dockerfile)
[ -x "$hone" ] || fail "the entry point $hone is not installed"
mkdir -p "$SCRATCH/home" "$SCRATCH/work"
state=$SCRATCH/state log=$SCRATCH/serve.log
export HOME=$SCRATCH/home XDG_CACHE_HOME=$state/cache
settings=(docker/hone.yaml model=examples/model state_dir="$state" device=cpu)
server= wrapper=
trap 'kill -KILL $server $wrapper 2>/dev/null' EXIT

as_first=(unshare --user --map-root-user --pid --fork --kill-child)
"${as_first[@]}" true 2>/dev/null || as_first=()
[ ${#as_first[@]} -gt 0 ] || echo "no namespaces here: not as the first process"

# The port that the log names; it listens before the model is loaded.
port() { sed -n "s/.*msg=\"$1\([0-9]*\)\"/\1/p" "$log" | head -n 1; }
start() {
    : >"$log"
    "${as_first[@]}" "$hone" serve "${settings[@]}" listen=:0 health_listen=127.0.0.1:0 \
        2>"$log" &
    wrapper=$!
    for _ in $(seq 600); do
        probes=$(port 'for probes: port ')
        [ -z "$probes" ] || break
        kill -0 $wrapper 2>/dev/null || fail "the server ended"
        sleep 0.1
    done
    url=http://127.0.0.1:$(port 'listening on http:..0.0.0.0:')
    server=$wrapper
    [ ${#as_first[@]} -eq 0 ] || server=$(pgrep -P $wrapper)
    for _ in $(seq 600); do
        health && return
        sleep 0.1
    done
    fail "never ready: $(cat "$SCRATCH/health")"
}
health() {
    "$hone" health "${settings[@]}" health_listen="127.0.0.1:$probes" >"$SCRATCH/health" 2>&1
}
ends_with() {
    local rc=0
    for _ in $(seq 600); do
        kill -0 "$wrapper" 2>/dev/null || break
        sleep 0.1
    done
    kill -0 "$wrapper" 2>/dev/null && fail "it does not end"
    wait "$wrapper" || rc=$?
    [ $rc -eq "$1" ] || fail "the server ended with status $rc, not $1"
    server= wrapper=
}
ask() {
    curl -sS --fail-with-body --max-time 60 -H "Authorization: Bearer $key" \
        -H 'Content-Type: application/json' "$url$1" "${@:2}"
}

# The port of the image is open to others, so there must be a key first.
out=$("$hone" serve "${settings[@]}" listen=:0 2>&1) && fail "serves without a key"
[[ $out == *"make one with 'hone key create'"* ]] || fail "without a key it says: $out"
key=$("$hone" key create --name me --role admin --state "$state" --json | jq -r .key)

start
grep -q '"status":"ok"' "$SCRATCH/health" || fail "health says: $(cat "$SCRATCH/health")"
id=$(ask /v1/chat/completions -d '{"messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 8}' | jq -r .id)
ask /v1/feedback -d "{\"response_id\": \"$id\", \"rating\": \"up\"}" >/dev/null || fail "feedback"
kill -TERM "$server"
ends_with 0
health && fail "a server that is gone is said to be ready"
grep -q 'Connection refused' "$SCRATCH/health" || fail "health says: $(cat "$SCRATCH/health")"

start
[ "$(ask /v1/feedback | jq -r '.data[].response_id')" = "$id" ] || fail "the feedback is gone"
# Both are there when the server looks: the first asks it to finish, the second to end at once.
kill -STOP "$server"
kill -TERM "$server"
kill -INT "$server"
kill -CONT "$server"
ends_with 143

# Other commands hear signals too when they are the first process.
mkfifo "$SCRATCH/fifo"
exec 3<>"$SCRATCH/fifo"
"${as_first[@]}" "$hone" tokenize --model examples/model <"$SCRATCH/fifo" >"$SCRATCH/ids" &
wrapper=$!
for _ in $(seq 600); do # before its first line it does not hear, and the kernel drops it
    kill -0 $wrapper 2>/dev/null || break
    server=$wrapper
    [ ${#as_first[@]} -eq 0 ] || server=$(pgrep -P $wrapper)
    [ -z "$server" ] || kill -TERM "$server" 2>/dev/null
    sleep 0.1
done
ends_with 143

[ -z "$(find "$SCRATCH/home" "$SCRATCH/work" -type f)" ] || fail "writes outside of its state"
