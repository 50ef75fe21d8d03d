#!/bin/bash
# The data plugins on public sets, through the reader of data sets and switched on as a user does:
# what is kept, dropped and changed is held to what shell tools make of the same files.
set -u
shared=${HONE_SHARED:-$PWD/../shared}/data/datasets
[ -d "$shared/gsm8k" ] || { echo "no data in $shared"; exit 77; }
shared=$(cd "$shared" && pwd)
model=$PWD/examples/model
cd "$SCRATCH" || exit 1
fail() {
    echo "FAIL: $*"
    exit 1
}
# run: settings from standard input into run.yaml
settings() {
    printf 'base_model: %s\noutput_dir: out\nsequence_len: 65536\n' "$model" >run.yaml
    cat >>run.yaml
}
# preview [OPTION...]: into log
preview() {
    "$HONE" preview run.yaml "$@" >log 2>err || fail "preview: $(cat err)"
}
has() { grep -qF -- "$1" log || fail "no '$1' in: $(tail -n 30 log)"; }
c4=$shared/llamafactory/c4_demo.jsonl
gsm8k=$shared/gsm8k/train.jsonl
questions() {
    printf -- '  - {path: %s, type: alpaca, field_instruction: question, field_output: answer}\n' \
        "$@"
}

# ---- pii: of the values that can be told by their form, all but a bare row of ten digits go
kinds='email|phone_number|ip_address|credit_card_number'
cat "$shared"/pii/{emails,phone_numbers,ip_address,card_no,multiple}.txt >people.txt
grep -oE "<($kinds)>[^<]*" people.txt | cut -d'>' -f2 >values
sed -E 's/<[^>]*>//g' people.txt | jq -Rc '{text: .}' >people.jsonl
settings <<END
datasets: [people.jsonl]
plugins:
  - path: pii
    settings: {private_ips: true}
END
preview --rows 100
has "people.jsonl (completion): $(wc -l <people.jsonl) rows used, 0 rejected"
while read -r value; do
    grep -v '^ids ' log | tr -d '[]' | grep -qF -- "$value" && echo "$value"
done <values >left
[ "$(wc -l <left)" = 1 ] && grep -Eqx '[0-9]{10}' left || fail "not replaced: $(cat left)"
for kind in EMAIL PHONE IP CARD; do
    has "<${kind}_1>"
done
[ "$(grep -c 'plugin       pii counts' log)" = 4 ] || fail "counters: $(grep counts log)"

# ---- clean: UTF-8 that was read as Latin-1 comes out as it was written
jq -c '{text}' "$c4" >c4.jsonl
iconv -f latin1 -t utf-8 c4.jsonl >broken.jsonl
ids() {
    settings <<END
datasets: [$1]
plugins: [clean]
END
    preview --json
    jq -c '.ids' log
}
ids c4.jsonl >whole.ids
ids broken.jsonl >mended.ids
[ "$(wc -l <whole.ids)" = 300 ] || fail "not every row is there"
# What holds a character of three bytes gives itself away; two bytes alone may be what they seem.
LC_ALL=C grep -nP '[\xe2-\xef]' c4.jsonl | cut -d: -f1 >telling
[ "$(wc -l <telling)" -gt 100 ] || fail "nothing to mend"
paste whole.ids mended.ids | awk -F'\t' '$1 != $2 { print NR }' | sort >differ
sort telling | comm -12 - differ >left
[ ! -s left ] || fail "not mended: lines $(tr '\n' ' ' <left)"

# ---- trim: white space goes, and then what is short
jq -c '{text: ("\t " + .text + " \n")}' "$c4" >padded.jsonl
long=$(jq -r '.text | gsub("^[ \t\r\n]+|[ \t\r\n]+$"; "") | utf8bytelength' "$c4" |
    awk '$1 >= 1000' | wc -l)
settings <<END
datasets: [padded.jsonl]
plugins: [{path: trim, settings: {min_bytes: 1000}}]
END
preview --rows 0
has "$long rows used"
[ "$long" -gt 50 ] && [ "$long" -lt 250 ] || fail "$long long rows decide nothing"

# ---- quality: nothing goes without being asked to; the limits of the recipes
for recipe in web docs; do
    settings <<END
datasets: [c4.jsonl]
plugins:
  - path: quality
    settings: {recipe: $recipe, filter: true}
END
    preview --rows 0
    grep -o '[0-9]* rows used' log
done >kept
[ "$(cat kept)" = "$(printf '%s rows used\n' 241 298)" ] || fail "kept: $(cat kept)"
settings <<END
datasets: [c4.jsonl]
plugins: [{path: quality, settings: {recipe: web}}]
END
preview --rows 0
has "300 rows used, 0 rejected"

# ---- quality: how long answers are, to choose a limit by: what sort makes of wc's counts
settings <<END
datasets:
$(questions "$gsm8k")
plugins: [quality]
END
preview --rows 0
jq -r '.answer | gsub("\\s+"; " ")' "$gsm8k" | awk '{ print NF }' | sort -n >words
at() { sed -n "$((($(wc -l <words) * $1 + 99) / 100))p" words; }
want="longest_answer of $(wc -l <words) records: median $(at 50), 95 % up to $(at 95), "
grep -qF "$want" err || fail "no '$want' in: $(grep longest_answer err)"

# ---- decontam: what shares 13 words with the first 200 problems of GSM8K
head -n 200 "$gsm8k" >holdout.jsonl
head -n 2000 "$gsm8k" >some.jsonl
settings <<END
datasets:
$(questions some.jsonl)
plugins:
  - path: decontam
    settings: {sets: {gsm8k: holdout.jsonl}}
END
"$HONE" preview run.yaml --json >rows.json 2>err || fail "$(cat err)"
jq .line rows.json | sort -n >used
# grams FILE: "LINE GRAM" of every 13 words in a row
grams() {
    jq -r '[input_line_number, .question], [input_line_number, .answer] |
        "\(.[0])\t\(.[1] | ascii_downcase | gsub("\\s+"; " "))"' "$1" |
        awk -F'\t' '{ gsub(/[[:punct:]]/, "", $2); n = split($2, w, " ")
            for (i = 1; i + 12 <= n; i++) { g = w[i]
                for (k = 1; k < 13; k++) g = g " " w[i + k]
                print $1 "\t" g } }'
}
grams holdout.jsonl | sort -u >held
# What more than ten items have is a template.
cut -f2 held | sort | uniq -c | awk '$1 <= 10 { sub(/^ *[0-9]+ /, ""); print }' >known
grams some.jsonl | awk -F'\t' 'NR == FNR { known[$0] = 1; next } $2 in known { print $1 }' known - |
    sort -nu >shares
seq 2000 | sort >all
sort used | comm -23 all - | sort >dropped
sort shares | diff - dropped >other || fail "not the same rows: $(head -n 20 other)"

# ---- dedup: copies with other spaces are the same, copies in capitals nearly
head -n 300 "$gsm8k" >a.jsonl
jq -c '{question: (.question | gsub(" "; "  ")), answer}' a.jsonl >b.jsonl
jq -c '{question: (.question | ascii_upcase), answer: (.answer | ascii_upcase)}' a.jsonl >c.jsonl
settings <<END
datasets:
$(questions a.jsonl b.jsonl c.jsonl)
plugins: [dedup]
END
preview --rows 0
used=$(sed -n 's/^source .*a\.jsonl (alpaca): \([0-9]*\) rows used.*/\1/p' log)
[ "$used" -ge 295 ] || fail "$used of 300 different problems are left"
for copy in b c; do
    has "$copy.jsonl (alpaca): 0 rows used, 300 rejected"
done
has "plugin       dedup counts exact 300"
has "plugin       dedup counts near $((300 + 300 - used))"
# Kept with a tag, a problem and its copies fall on one side of a split; without that they do not.
sides() {
    settings <<END
datasets:
$(questions a.jsonl c.jsonl)
val_set_size: 0.3
plugins: [$1]
END
    preview --json
    for copy in a c; do
        jq -r --arg file $copy.jsonl 'select(.file | endswith($file)) | [.line, .set] | @tsv' log |
            sort >$copy.sides
    done
    diff a.sides c.sides >other
}
sides '' && fail "copies fall on one side by themselves"
sides '{path: dedup, settings: {action: tag}}' || fail "a cluster on both sides: $(head -n 5 other)"
[ "$(wc -l <a.sides)" = 300 ] || fail "$(wc -l <a.sides) of 300 rows are there"
grep -c 'held out' a.sides | grep -Eqx '[6-9][0-9]|1[0-2][0-9]' ||
    fail "$(grep -c 'held out' a.sides) of 300 rows are held out"
exit 0
