#!/bin/bash
# Plugins as their users meet them: begun, refused until they are approved, at work in preview,
# training, evaluation, merge and serving, and named in what was made.
set -u
cd "$SCRATCH" || exit 1
top=$OLDPWD
fail() {
    echo "FAIL: $*"
    exit 1
}
has() { grep -qF -- "$2" "$1" || fail "$1 has no '$2': $(cat "$1")"; }
umask 022

# ---- a plugin in C and a script, each with one command
"$HONE" plugin new short || fail "new"
make -s -C short test HONE="$HONE" >log 2>&1 || fail "the C template: $(cat log)"
"$HONE" plugin new brief --lang lua || fail "new lua"
make -s -C brief test HONE="$HONE" >log 2>&1 || fail "the Lua template: $(cat log)"
"$HONE" plugin new short 2>err && fail "made twice"
has err "exists already"
"$HONE" plugin new 'No!' 2>err && fail "a bad name was taken"

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

# ---- the reference
"$HONE" plugin hooks --json >hooks.json || fail "hooks"
grep -c '"name": "' hooks.json | grep -qx 30 || fail "not every hook is in the reference"
"$HONE" plugin hooks --markdown | grep -q '^| `data.pii` ' || fail "no page"
"$HONE" plugin hooks --lua | grep -q "fun(point: 'serve.chunk'" || fail "no stubs"
"$HONE" plugin hooks data.filtre 2>err && fail "a hook that is none"
has err "did you mean 'data.filter'?"
echo "plugins: all well"
