#!/bin/bash
# Exit statuses and where things are said: 0 done, 1 failed, 2 wrong usage; results to standard
# output, complaints to standard error.
set -u
fail() {
    echo "FAIL: $*"
    exit 1
}
# expect STATUS ARG...: runs hone, keeps $out and $err.
expect() {
    local want=$1
    shift
    out=$("$HONE" "$@" 2>"$SCRATCH/err" </dev/null)
    local rc=$?
    err=$(cat "$SCRATCH/err")
    [ $rc -eq "$want" ] || fail "hone $*: status $rc, not $want: $err"
}

expect 2
[ -z "$out" ] && [[ $err == usage:* ]] || fail "no command: help goes to standard error"
expect 0 --help
[ -z "$err" ] && [[ $out == usage:* ]] || fail "--help: help goes to standard output"
help=$out
expect 0 --version
[[ $out =~ ^hone\ [0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "--version says: $out"
expect 0 help
[ "$out" = "$help" ] || fail "help and --help differ"
expect 2 dance
[[ $err == "hone: no command 'dance'; 'hone --help' lists them" ]] || fail "says: $err"

commands=$(sed -n 's/^  \([a-z]*\) .*/\1/p' <<<"$help")
[ -n "$commands" ] || fail "no commands"
for command in $commands; do
    expect 0 "$command" --help
    [ -z "$err" ] && [[ $out == *"hone $command"* ]] || fail "hone $command --help shows no example"
    expect 2 "$command" --no-such-option
    [ -z "$out" ] && [ -n "$err" ] || fail "hone $command --no-such-option says nothing"
done
word=$(head -n 1 <<<"$commands")
expect 2 "${word}x"
[[ $err == *"(did you mean '$word'?)"* ]] || fail "hone ${word}x: no nearest name: $err"
echo "$(wc -w <<<"$commands") commands"

# A number that is none is refused, not taken for 0.
expect 2 merge --model a --adapter b --out c --max-diff abc
[[ $err == "hone merge: --max-diff: 'abc' is not a number;"* ]] || fail "says: $err"
expect 2 merge --model a --adapter b --out c --threads 2x
[[ $err == "hone merge: --threads: '2x' is not a whole number;"* ]] || fail "says: $err"
expect 1 eval --model a --data b --limit x
[[ $err == "hone: --limit: 'x' is not a whole number" ]] || fail "says: $err"
