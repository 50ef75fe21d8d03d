#!/bin/bash
# What comes with the program passes `hone plugin check`, with the settings it needs. Not reweigh:
# it weighs only rows that it has counted before, and the check shows a batch without its data.
set -u
cd "$SCRATCH" || exit 1
top=$OLDPWD
umask 022
bad=0
check() {
    "$HONE" plugin check "$@" >log 2>&1 && return
    echo "FAIL: hone plugin check $*"
    cat log
    bad=1
}

printf '%s\n' 'sent_more,sent_less,bias_type' 'He fixes it.,She fixes it.,gender' >pairs.csv
echo '1 [The cook] met the nurse when [he] came.' >pro.txt
echo '1 [The cook] met the nurse when [she] came.' >anti.txt
echo '{"prompt": "He said that"}' >prompts.jsonl
echo '{"text": "one two three four five six seven eight nine ten eleven twelve thirteen"}' \
    >set.jsonl
declare -A settings=(
    [bbq]="file=$top/tests/golden/bias/bbq.jsonl"
    [counterfactual]="file=prompts.jsonl"
    [crows_pairs]="file=pairs.csv"
    [decontam]="sets={text: set.jsonl}"
)
for plugin in "$BUILD"/plugins/*.so; do
    name=$(basename "$plugin" .so)
    args=()
    case $name in
    reweigh) continue ;;
    winobias) args=(--set pro_type1=pro.txt --set anti_type1=anti.txt) ;;
    *) [ -n "${settings[$name]:-}" ] && args=(--set "${settings[$name]}") ;;
    esac
    check "$plugin" "${args[@]}"
done
for script in "$top"/lua/bundled/*.lua; do
    check "$script"
done
exit $bad
