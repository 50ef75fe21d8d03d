#!/bin/bash
# Plugins as their users meet them: begun, refused until they are approved, at work in preview,
# training, evaluation, merge and serving, and named in what was made.
set -u
. tests/e2e/aid.bash
cd "$SCRATCH" || exit 1
top=$OLDPWD
umask 022

# ---- a plugin in C and a script, each with one command
"$HONE" plugin new short || fail "new"
make -s -C short test HONE="$HONE" >log 2>&1 || fail "the C template: $(cat log)"
"$HONE" plugin new brief --lang lua || fail "new lua"
make -s -C brief test HONE="$HONE" >log 2>&1 || fail "the Lua template: $(cat log)"
"$HONE" plugin new short 2>err && fail "made twice"
has err "exists already"
"$HONE" plugin new 'No!' 2>err && fail "a bad name was taken"
mkdir -p far/away
cp "$HONE" far/away/hone
far/away/hone plugin new lost 2>err && fail "a plugin was begun without its header"
has err "hone_plugin.h lies neither in ../include nor in include beside"
[ ! -e lost ] || fail "a folder is left"
far/away/hone plugin new found --lang lua >log || fail "a script needs no header"

cat >words.lua <<'END'
plugin {name = 'words', version = '1.0.0', summary = 'length of answers'}
on('eval.metric', function(example)
  return {chars = {value = #(example.prediction or ''), info = true}}
end)
END

# ---- nothing is loaded that nobody approved
cat >run.yaml <<END
base_model: $top/examples/model
datasets:
  - path: data.jsonl
adapter: lora
max_steps: 2
micro_batch_size: 2
learning_rate: 0.001
output_dir: out
progress: none
plugins:
  - trim
  - path: short/short.so
    settings: {min_bytes: 12}
  - words.lua
END
printf '%s\n' '{"text": "  a text that is long enough  "}' '{"text": "too short"}' \
    '{"text": "another one of the texts"}' '{"text": "and a third of them, too"}' >data.jsonl
"$HONE" train run.yaml 2>err && fail "an unapproved plugin was loaded"
has err "plugins: entry 2: "
has err "nothing approves it"
"$HONE" plugin pin run.yaml >log || fail "pin"
has plugins.lock "  short/short.so"
sha256sum -c --quiet <(grep -v bundled plugins.lock | grep short) || fail "no sha256sum file"
chmod 666 short/short.so
"$HONE" train run.yaml 2>err && fail "a file that anyone may write was loaded"
has err "anyone may write the file (mode 0666): chmod o-w"
chmod 755 short/short.so
echo >>words.lua
"$HONE" train run.yaml 2>err && fail "a changed script was loaded"
has err 'but ./plugins.lock says'
"$HONE" plugin pin run.yaml >log || fail "pin again"
sed -i 's/min_bytes/min_byte/' run.yaml
"$HONE" train run.yaml 2>err && fail "an unknown setting was taken"
has err "plugins: entry 2: plugin short 0.1.0: unknown key 'min_byte' (did you mean 'min_bytes'?)"
sed -i 's/min_byte:/min_bytes:/' run.yaml

# ---- at work
"$HONE" plugin list run.yaml >log || fail "list"
has log "short 0.1.0"
has log "hooks: data.filter"
has log "min_bytes: 12"
"$HONE" preview run.yaml >log 2>&1 || fail "preview: $(cat log)"
has log "data.filter: refused by short: 9 bytes, at least 12 are wanted"
grep -q '\[*  a text' log && fail "trim did not trim"
"$HONE" train run.yaml >log 2>err || fail "train: $(cat err)"
has err "plugin      short 0.1.0: data.filter"
has log "plugin       short data.filter: 4 calls, 0 modified, 1 refused"
has log "plugin       short counts dropped 1"
sha=$(sha256sum short/short.so | cut -c 1-64)
has out/hone_manifest.json "\"sha256\": \"$sha\""
has out/rejects.jsonl "refused by short"

"$HONE" eval --model "$top/examples/model" --adapter out --before --limit 4 \
    --data "$top/examples/support/holdout.jsonl" --metrics exact_match --plugins run.yaml \
    --out report.json >log 2>&1 || fail "eval: $(cat log)"
grep -Eq '^chars +[0-9.]+  \[' log || fail "no interval: $(cat log)"
grep -Eq '^chars .*score' log || fail "no comparison: $(cat log)"
has report.json '"name": "words"'

# ---- one that never comes back: training goes on without it, or ends with a message
"$HONE" plugin new stuck || fail "new stuck"
cat >stuck/stuck.c <<'END'
#include <hone_plugin.h>

static volatile int for_ever = 1;

static int loop(const hone_host *h, hone_call *call, void *user)
{
    (void)h;
    (void)call;
    (void)user;
    while (for_ever)
        ;
    return HONE_CONTINUE;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    return h->on(cx, h->string(h->get(h->settings(cx), "at"), NULL), 0, loop, NULL);
}

static const hone_setting settings[] = {
    {"at", HONE_SET_STRING, 0, NULL, 0, 0, NULL, "where"},
};
static const hone_descriptor stuck = {HONE_DESCRIPTOR(HONE_F_THREADSAFE, 0), "stuck", "1.0.0",
                                      "Apache-2.0", "hangs", HONE_SETTINGS(settings), start, NULL};
HONE_PLUGIN(stuck)
END
make -s -C stuck HONE="$HONE" || fail "stuck does not build"
# hang POINT: settings with a plugin that hangs there; the others are as in run.yaml
hang() {
    sed "s/^output_dir: .*/output_dir: $1/" run.yaml
    printf '  - {path: stuck/stuck.so, pinned: false, hang_seconds: 0.1, settings: {at: %s}}\n' "$1"
}
for point in data.normalize train.step; do
    hang $point >hang.yaml
    "$HONE" train hang.yaml >log 2>err || fail "$point: $(cat err)"
    has err "$point: stuck failed: its call at $point did not come back within"
    has log "plugin       stuck $point: 1 calls, 0 modified, 0 refused, 1 failed"
    cmp -s out/adapter_model.safetensors $point/adapter_model.safetensors ||
        fail "$point: another adapter came of it"
    has $point/hone_manifest.json '"retired": "its call at '
done
hang data.filter >hang.yaml
"$HONE" train hang.yaml >log 2>err && fail "trained on what nobody has filtered"
has err "data.filter: stuck failed: its call at data.filter did not come back within"
hang eval.metric >hang.yaml
"$HONE" eval --model "$top/examples/model" --limit 2 --metrics perplexity --plugins hang.yaml \
    --data "$top/examples/support/holdout.jsonl" >log 2>&1 && fail "evaluated without its metric"
has log "eval.metric: stuck failed: its call at eval.metric did not come back within"
sed -i 's/  - words.lua/  - {path: words.lua, hang_seconds: 1}/' hang.yaml
"$HONE" train hang.yaml 2>err && fail "a limit for a script"
has err "hang_seconds is for plugins in C"

# ---- one that refuses a merge
cat >gate.lua <<'END'
plugin {name = 'gate', version = '1.0.0', summary = 'never'}
on('merge.pre', function(merge) return false, 'not on a Friday' end)
END
printf 'plugins:\n  - path: gate.lua\n    pinned: false\n' >gate.yaml
"$HONE" merge --model "$top/examples/model" --adapter out --out merged --state state \
    --plugins gate.yaml >log 2>&1 && fail "merged all the same"
has log "merge.pre: refused by gate: not on a Friday"
[ ! -e merged ] || fail "something was merged"

# ---- a server that a plugin in C and a script reach into
"$HONE" plugin new caps || fail "new caps"
cat >caps/caps.c <<'END'
#include <hone_plugin.h>

/* What the model answers, in capitals; "secret" is not asked. */
static int shout(const hone_host *h, hone_call *call, void *user)
{
    char up[4096];
    size_t n = 0;
    hone_value *choice = h->at(h->get(call->data, "choices"), 0);
    hone_value *message = h->get(choice, "message");
    const char *text = hone_get_string(h, message, "content", &n);
    (void)user;
    if (text == NULL || n > sizeof up)
        return HONE_CONTINUE;
    for (size_t i = 0; i < n; i++)
        up[i] = text[i] >= 'a' && text[i] <= 'z' ? (char)(text[i] - 32) : text[i];
    hone_set_string(h, call, message, "content", up, n);
    h->count(call->ctx, "letters \"up\"", (double)n);
    return HONE_MODIFIED;
}

static int guard(const hone_host *h, hone_call *call, void *user)
{
    const char *text = hone_get_string(h, call->data, "text", NULL);
    (void)user;
    return text != NULL && strstr(text, "secret") != NULL ? h->veto(call, "no secrets")
                                                          : HONE_CONTINUE;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    if (h->on(cx, "serve.response", 0, shout, NULL) != 0)
        return HONE_ERR;
    return h->on(cx, "serve.prompt", 0, guard, NULL);
}

static const hone_descriptor caps = {HONE_DESCRIPTOR(HONE_F_THREADSAFE, 0), "caps", "2.1.0",
                                     "Apache-2.0", "shouts", HONE_NO_SETTINGS, start, NULL};
HONE_PLUGIN(caps)
END
make -s -C caps HONE="$HONE" || fail "caps does not build"
cat >hone.yaml <<END
model: $top/examples/model
listen: 127.0.0.1:0
state_dir: state2
insecure_no_auth: true
plugins:
  - caps/caps.so
  - words2.lua
END
word() {
    printf "plugin {name = 'mark', version = '1.0.0', summary = 'marks'}\n" >words2.lua
    printf "on('serve.prompt', function(text) host.counter('seen', 1)\n" >>words2.lua
    printf "host.log('info', 'mark %s') return text end)\n" "$1" >>words2.lua
}
word one
"$HONE" serve hone.yaml 2>err && fail "served with an unapproved plugin"
has err "nothing approves it"
"$HONE" plugin pin hone.yaml >log || fail "pin"
serve hone.yaml
has server.log "caps 2.1.0: serve.prompt serve.response"
ask() {
    curl -s --max-time 60 "$url/v1/chat/completions" -H 'Content-Type: application/json' \
        -d "{\"messages\": [{\"role\": \"user\", \"content\": \"$1\"}], \"max_tokens\": 8}"
}
ask 'How long is the warranty of the Duo?' >answer.json
grep -o '"content":"[^"]*"' answer.json | cut -d: -f2 | grep -q '[A-Z]' || fail "$(cat answer.json)"
grep -o '"content":"[^"]*"' answer.json | cut -d: -f2 | grep -q '[a-z]' && fail "$(cat answer.json)"
ask 'Tell me a secret' >answer.json
has answer.json "refused by caps: no secrets"
curl -s "$url/metrics" >metrics
has metrics 'hone_plugin_calls_total{plugin="caps",hook="serve.prompt"} 2'
has metrics 'hone_plugin_vetoes_total{plugin="caps",hook="serve.prompt"} 1'
has metrics 'hone_plugin_modified_total{plugin="caps",hook="serve.response"} 1'
has metrics 'hone_plugin_counter_total{plugin="mark",name="seen"} 1'
grep counter_total metrics >counts
grep -Eq 'plugin="caps",name="letters \\"up\\""\} [1-9][0-9]*$' counts || fail "$(cat counts)"
# A script is changed while it runs; one that nobody approved is not.
wait_for() { for _ in $(seq 600); do grep -qF -- "$1" server.log && return; sleep 0.1; done
             fail "the server does not say '$1': $(tail -n 5 server.log)"; }
wait_for 'mark one'
word two
kill -HUP $server
wait_for 'words2.lua: its SHA-256 is '
"$HONE" plugin pin hone.yaml >log || fail "pin"
kill -HUP $server
wait_for 'the new version runs (sha256 '
ask 'And of the Uno?' >answer.json
wait_for 'mark two'
digest() { sha256sum "$1" | cut -c 1-64; }
two=$(digest words2.lua)
curl -s "$url/metrics" >metrics
has metrics "hone_plugin_info{plugin=\"mark\",version=\"1.0.0\",sha256=\"$two\"} 1"
caps=$(digest caps/caps.so)
has metrics "hone_plugin_info{plugin=\"caps\",version=\"2.1.0\",sha256=\"$caps\"} 1"
# A version with other hooks takes the place of the old one too.
printf "plugin {name = 'mark', version = '3.0.0', summary = 'marks'}\n" >words2.lua
printf "on('serve.request', function(body) return false, 'closed today' end)\n" >>words2.lua
"$HONE" plugin pin hone.yaml >log || fail "pin"
kill -HUP $server
three=$(digest words2.lua)
wait_for "the new version runs (sha256 $three)"
ask 'And of the Uno?' >answer.json
has answer.json "refused by mark: closed today"
curl -s "$url/metrics" >metrics
has metrics "hone_plugin_info{plugin=\"mark\",version=\"3.0.0\",sha256=\"$three\"} 1"
for _ in $(seq 600); do # the record is written after the line of the log
    "$HONE" audit export --state state2 >log || fail "audit"
    grep '"plugin.reload"' log | grep "\"was\":\"$two\"" | grep -q "$three" && break
    sleep 0.1
done
grep '"plugin.reload"' log | grep "\"was\":\"$two\"" | grep -q "$three" || fail "$(cat log)"
grep '"plugin.load"' log | grep '"caps"' | grep -q "$caps" || fail "$(cat log)"
kill -TERM $server
wait $server || fail "the server: status $?"
trap - EXIT

# ---- one that never comes back, or routes to nowhere, in a server: it goes on, and ends in order
cat >where.lua <<'END'
plugin {name = 'where', version = '1.0.0', summary = 'routes'}
on('serve.route', function(route) if route.model == 'far' then return 'away' end end)
END
cat >hone3.yaml <<END
model: $top/examples/model
listen: 127.0.0.1:0
state_dir: state3
insecure_no_auth: true
plugins:
  - {path: stuck/stuck.so, pinned: false, hang_seconds: 0.2, settings: {at: serve.response}}
  - {path: where.lua, pinned: false}
END
serve hone3.yaml
curl -s --max-time 60 "$url/v1/chat/completions" -H 'Content-Type: application/json' \
    -d '{"model": "far", "messages": [{"role": "user", "content": "Hi"}]}' >answer.json
has answer.json internal_error
has server.log "serve.route: the plugin routes to 'away', which is not served here: one of aliases"
ask 'And of the Uno?' >answer.json
has answer.json internal_error
has server.log "stuck failed: its call at serve.response did not come back within"
ask 'And of the Uno?' >answer.json
has server.log "stuck is out: its call at serve.response did not come back within"
curl -fs "$url/health/live" >/dev/null || fail "the server is gone"
curl -s "$url/metrics" >metrics
has metrics 'hone_plugin_out{plugin="stuck",hook="serve.response"} 1'
"$HONE" registry canary off --state state3 >log 2>&1 || fail "$(cat log)"
has log "canary -> "
"$HONE" registry canary 0123456789 --state state3 2>err && fail "a canary that is none"
kill -TERM $server
wait $server || fail "the server: status $?"
trap - EXIT
has server.log "plugin stuck 1.0.0: a call of it never came back: it stays in memory"

# ---- the reference
"$HONE" plugin hooks --json >hooks.json || fail "hooks"
[ "$(jq length hooks.json)" = 30 ] || fail "not every hook is in the reference"
"$HONE" plugin hooks --markdown | grep -q '^| `data.pii` ' || fail "no page"
"$HONE" plugin hooks --lua | grep -q "fun(point: 'serve.chunk'" || fail "no stubs"
"$HONE" plugin hooks data.filtre 2>err && fail "a hook that is none"
has err "did you mean 'data.filter'?"
echo "plugins: all well"
