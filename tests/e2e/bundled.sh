#!/bin/bash
# What comes with the program passes `hone plugin check`, with the settings it needs.
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
given=$top/tests/golden/reweigh
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
    reweigh) args=(--set "labels=$given/labels.tsv" --cases "$given/cases.jsonl") ;;
    winobias) args=(--set pro_type1=pro.txt --set anti_type1=anti.txt) ;;
    *) [ -n "${settings[$name]:-}" ] && args=(--set "${settings[$name]}") ;;
    esac
    check "$plugin" "${args[@]}"
done
for script in "$top"/lua/bundled/*.lua; do
    check "$script"
done
# A case that does not come true is a failure.
sed 's/0.75\]/0.8]/' "$given/cases.jsonl" >wrong.jsonl
"$HONE" plugin check "$BUILD/plugins/reweigh.so" --set "labels=$given/labels.tsv" \
    --cases wrong.jsonl >log 2>&1 && bad=1
grep -q '^FAIL case .* case 8: it made \[1.5,0.5,0.75\]' log || bad=1
exit $bad
