#!/bin/bash
# The bundle runs where nothing is installed: unpacked, in an empty environment, every library that
# is not libc's comes from its own lib/; and with the libc it carries it needs nothing of the host.
set -eu
fail() {
    echo "FAIL: $*"
    exit 1
}
make -s B="${BUILD#"$PWD"/}" bundle
archive=$(ls -t dist/hone-*.tar.xz | head -n 1)
tar -C "$SCRATCH" -xf "$archive"
cd "$SCRATCH"/hone-*
clean="env -i PATH=/usr/bin:/bin"

for program in hone op_check tests/unit/test_file tests/unit/test_kern tests/bench/bench_*; do
    [ -x "$program" ] || continue
    foreign=$($clean ldd "$program" | awk -v lib="$PWD/" '
        /=>/ && index($3, lib) != 1 && index($3, "/../") == 0 { print $1 }
        /not found/ { print $0 }' |
        grep -vE '^(linux-vdso|ld-linux|lib(c|m|dl|pthread|rt|resolv|mvec)\.so)' || true)
    [ -z "$foreign" ] || fail "$program takes from outside: $foreign"
done

$clean ./hone --help >help || fail "hone does not start"
# Hide the host: a file system of its own with nothing in it but the bundle, where that is allowed.
./run-anywhere ./hone --help | cmp - help || fail "run-anywhere ./hone does not start"
if command -v unshare >/dev/null && unshare -r true 2>/dev/null; then
    cp help ../want
    unshare -r chroot . /lib/libc/ld-linux-x86-64.so.2 --library-path /lib:/lib/libc /hone --help |
        cmp - ../want || fail "hone does not start where there is nothing else"
    echo "ran alone in a file system of its own"
fi
if [ ! -e /dev/nvidia0 ]; then
    for run in run-gpu-tests run-gpu-bench run-gpu-first; do
        said=$($clean ./$run) || fail "$run fails where there is no card"
        [[ $said == "skipped: no GPU ("* ]] || fail "$run says: $said"
    done
fi
$clean tests/run . err mem buf utf8 log js yaml conf queue rng hook || fail "tests do not pass"
echo "$archive"
