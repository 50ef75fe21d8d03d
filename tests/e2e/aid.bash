# What several end-to-end tests share; they source it from the root of the tree.
fail() {
    echo "FAIL: $*"
    exit 1
}
# has FILE TEXT
has() { grep -qF -- "$2" "$1" || fail "$1 has no '$2': $(cat "$1")"; }
# serve CONFIG: in the background, as $server; its messages go to server.log. Returns when it is
# ready, at $url.
server=
serve() {
    rm -f server.log # the port of the one before
    "$HONE" serve "$1" 2>server.log &
    server=$!
    trap '[ -z "$server" ] || kill $server 2>/dev/null' EXIT
    for _ in $(seq 600); do
        url=$(grep -os 'http://[0-9.:]*' server.log | head -n 1)
        [ -n "$url" ] && curl -fs "$url/health/ready" >/dev/null && return
        kill -0 $server 2>/dev/null || fail "the server ended: $(tail -n 1 server.log)"
        sleep 0.1
    done
    fail "the server is not ready within a minute: $(tail -n 1 server.log)"
}
