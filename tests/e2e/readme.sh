#!/bin/bash
# What the README shows works: every ```sh block after a line "<!-- test -->" is run, in order, in
# one copy of the tree; a command that fails, fails the test. And its table of commands is what
# hone --help says.
set -u
copy=$SCRATCH/hone
mkdir "$copy"
git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - | tar -C "$copy" -xf -
cp -a "$BUILD" "$copy/build" # nothing has changed, so make has nothing to do

awk '
    /^<!-- test -->$/ { marked = 1; next }
    /^```sh$/ && marked { inside = 1; next }
    /^```/ { inside = 0; marked = 0; next }
    inside { print }' README.md >"$SCRATCH/commands"
if [ -s "$SCRATCH/commands" ]; then
    echo "running:"
    sed 's/^/    /' "$SCRATCH/commands"
    (cd "$copy" && env -u BUILD -u HONE -u SCRATCH bash -euo pipefail ../commands) || {
        echo "FAIL: the README's commands stop with status $?"
        exit 1
    }
fi
rc=0
while read -r row; do
    grep -qxF "$row" README.md || {
        echo "FAIL: the README has no line: $row"
        rc=1
    }
done < <("$HONE" --help | sed -n 's/^  \([a-z]*\)  *\(.*\)/| `hone \1` | \2 |/p')
exit $rc
