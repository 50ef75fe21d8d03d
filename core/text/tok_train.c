/* The words of the corpus, each once with its count, lie one after the other as a linked list of
 * symbols. A pair knows where it occurs, so that a merge touches only those places and long words
 * cost no more than short ones. The heap holds the count that a pair had when it was pushed; one
 * that has changed is pushed again when it comes up. */
#include "core/text/tok_train.h"

#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/utf8.h"
#include "core/text/tok_int.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
enum { MAX_TEXT = 1 << 30 }; /* bytes of all different words */

typedef struct word {
    uint64_t count;
    uint32_t at, len; /* in tok_train.text */
} word;

typedef struct piece {
    char *s;
    size_t len;
} piece;

typedef struct pair {
    uint32_t left, right;
    int64_t count;
    uint32_t *at; /* symbols that may begin this pair; stale ones are seen when they are visited */
    size_t n, cap;
    bool touched; /* pushed on the list of pairs that the current merge made */
} pair;

typedef struct entry {
    int64_t count;
    uint32_t pair;
} entry;

struct tok_train {
    const tok_train_opts *opts;
    tok_scan *scan;
    char *text;
    size_t text_len, text_cap;
    word *words;
    size_t n_words, cap_words;
    uint32_t *word_slot;
    size_t word_mask;

    piece *pieces; /* by id */
    size_t n_pieces, cap_pieces;
    uint32_t *piece_slot; /* fixed: room for vocab_size */
    size_t piece_mask;
    uint32_t *merges; /* left, right, left, right, ... */
    size_t n_merges, cap_merges;

    /* while learning */
    uint32_t *sym, *prev, *next, *in_word; /* by symbol; sym is NONE for one that was merged away */
    pair *pairs;
    size_t n_pairs, cap_pairs;
    uint32_t *pair_slot;
    size_t pair_mask;
    entry *heap;
    size_t n_heap, cap_heap;
    uint32_t *touched;
    size_t n_touched, cap_touched;
};

/* ---- set up ---- */

static int check_named(const tok_train_opts *o, const char *what, const char *name, hone_err *e)
{
    if (name == NULL)
        return 0;
    for (size_t i = 0; i < o->n_special; i++)
        if (strcmp(o->special[i], name) == 0)
            return 0;
    return hone_fail(e, HONE_EINVAL, "%s '%s' is not one of the special tokens", what, name);
}

static int check_opts(const tok_train_opts *o, hone_err *e)
{
    if (o->n_special > TOK_TRAIN_MAX_SPECIAL)
        return hone_fail(e, HONE_ELIMIT, "%zu special tokens, at most %d are allowed", o->n_special,
                         TOK_TRAIN_MAX_SPECIAL);
    if (o->vocab_size < o->n_special + 256 || o->vocab_size > TOK_TRAIN_MAX_VOCAB)
        return hone_fail(e, HONE_EINVAL,
                         "vocabulary of %zu, allowed are %zu (256 bytes and the special tokens) "
                         "to %d",
                         o->vocab_size, o->n_special + 256, TOK_TRAIN_MAX_VOCAB);
    for (size_t i = 0; i < o->n_special; i++) {
        size_t len = strlen(o->special[i]);
        if (len == 0 || utf8_valid(o->special[i], len) != len)
            return hone_fail(e, HONE_EINVAL, "special token %zu is empty or not UTF-8", i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(o->special[i], o->special[k]) == 0)
                return hone_fail(e, HONE_EINVAL, "special token '%s' is given twice",
                                 o->special[i]);
    }
    if (o->add_bos && o->bos == NULL)
        return hone_fail(e, HONE_EINVAL, "adding bos needs a bos token");
    int rc = check_named(o, "bos", o->bos, e);
    if (rc == 0)
        rc = check_named(o, "eos", o->eos, e);
    return rc == 0 ? check_named(o, "pad", o->pad, e) : rc;
}

static const char *pattern_of(const char *name)
{
    static const struct {
        const char *name, *pattern;
    } known[] = {
        {"gpt2", tok_pattern_gpt2}, {"llama3", tok_pattern_llama3}, {"qwen2", tok_pattern_qwen2}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].pattern;
    return NULL;
}

static uint32_t *new_slots(size_t n, size_t *mask)
{
    size_t slots = 1024;
    while (slots < 2 * n)
        slots *= 2;
    uint32_t *p = mem_try_array(slots, sizeof *p);
    if (p != NULL)
        memset(p, 0xFF, slots * sizeof *p);
    *mask = slots - 1;
    return p;
}

static uint32_t *piece_slot(const tok_train *t, const char *s, size_t len)
{
    size_t i = tok_hash(s, len) & t->piece_mask;
    for (; t->piece_slot[i] != NONE; i = (i + 1) & t->piece_mask) {
        const piece *p = &t->pieces[t->piece_slot[i]];
        if (p->len == len && memcmp(p->s, s, len) == 0)
            break;
    }
    return &t->piece_slot[i];
}

static uint32_t add_piece(tok_train *t, const char *s, size_t len)
{
    uint32_t *slot = piece_slot(t, s, len);
    if (*slot != NONE)
        return *slot;
    t->pieces = mem_grow(t->pieces, &t->cap_pieces, t->n_pieces + 1, sizeof *t->pieces);
    t->pieces[t->n_pieces] = (piece){mem_strndup(s, len), len};
    return *slot = (uint32_t)t->n_pieces++;
}

/* Special tokens first, then the 256 bytes in the order of the characters that stand for them. */
static void add_alphabet(tok_train *t)
{
    for (size_t i = 0; i < t->opts->n_special; i++)
        add_piece(t, t->opts->special[i], strlen(t->opts->special[i]));
    for (uint32_t cp = 0; cp < 0x144; cp++) {
        buf one;
        if (tok_char_byte(cp) < 0)
            continue;
        buf_init(&one, 4);
        buf_utf8(&one, cp);
        add_piece(t, one.data, one.len);
        buf_free(&one);
    }
}

int tok_train_new(tok_train **out, const tok_train_opts *opts, hone_err *e)
{
    *out = NULL;
    int rc = check_opts(opts, e);
    if (rc != 0)
        return rc;
    const char *pattern = pattern_of(opts->pattern);
    if (pattern == NULL)
        return hone_fail(e, HONE_EINVAL, "pattern '%s' is not gpt2, llama3 or qwen2",
                         opts->pattern);
    tok_train *t = mem_alloc(sizeof *t);
    t->opts = opts;
    t->scan = tok_scan_find(pattern);
    t->word_slot = new_slots(1 << 16, &t->word_mask);
    t->piece_slot = new_slots(opts->vocab_size, &t->piece_mask);
    if (t->word_slot == NULL || t->piece_slot == NULL) {
        tok_train_free(t);
        return hone_fail(e, HONE_ENOMEM, "no memory for a vocabulary of %zu", opts->vocab_size);
    }
    add_alphabet(t);
    *out = t;
    return 0;
}

static void free_work(tok_train *t)
{
    void *all[] = {t->sym, t->prev, t->next, t->in_word, t->pair_slot, t->heap, t->touched};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    for (size_t i = 0; i < t->n_pairs; i++)
        free(t->pairs[i].at);
    free(t->pairs);
    t->sym = t->prev = t->next = t->in_word = t->pair_slot = t->touched = NULL;
    t->heap = NULL;
    t->pairs = NULL;
    t->n_pairs = t->cap_pairs = t->n_heap = t->cap_heap = t->n_touched = t->cap_touched = 0;
}

void tok_train_free(tok_train *t)
{
    if (t == NULL)
        return;
    free_work(t);
    for (size_t i = 0; i < t->n_pieces; i++)
        free(t->pieces[i].s);
    free(t->pieces);
    free(t->piece_slot);
    free(t->merges);
    free(t->text);
    free(t->words);
    free(t->word_slot);
    free(t);
}

/* ---- counting words ---- */

static uint32_t *word_slot(const tok_train *t, const char *s, size_t len)
{
    size_t i = tok_hash(s, len) & t->word_mask;
    for (; t->word_slot[i] != NONE; i = (i + 1) & t->word_mask) {
        const word *w = &t->words[t->word_slot[i]];
        if (w->len == len && memcmp(t->text + w->at, s, len) == 0)
            break;
    }
    return &t->word_slot[i];
}

static int grow_word_slots(tok_train *t, hone_err *e)
{
    if (t->n_words * 2 < t->word_mask)
        return 0;
    size_t mask;
    uint32_t *bigger = new_slots((t->word_mask + 1) * 2, &mask);
    if (bigger == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for %zu words", t->n_words);
    free(t->word_slot);
    t->word_slot = bigger;
    t->word_mask = mask;
    for (size_t i = 0; i < t->n_words; i++)
        *word_slot(t, t->text + t->words[i].at, t->words[i].len) = (uint32_t)i;
    return 0;
}

static int count_word(tok_train *t, const char *s, size_t len, hone_err *e)
{
    uint32_t *slot = word_slot(t, s, len);
    if (*slot != NONE) {
        t->words[*slot].count++;
        return 0;
    }
    if (len > MAX_TEXT - t->text_len)
        return hone_fail(e, HONE_ELIMIT, "the different words take more than %d bytes", MAX_TEXT);
    int rc = tok_grow(&t->text, &t->text_cap, t->text_len + len, 1, e);
    if (rc == 0)
        rc = tok_grow(&t->words, &t->cap_words, t->n_words + 1, sizeof *t->words, e);
    if (rc != 0)
        return rc;
    memcpy(t->text + t->text_len, s, len);
    t->words[t->n_words] = (word){1, (uint32_t)t->text_len, (uint32_t)len};
    t->text_len += len;
    *slot = (uint32_t)t->n_words++;
    return grow_word_slots(t, e);
}

int tok_train_add(tok_train *t, const char *text, size_t len, hone_err *e)
{
    size_t valid = utf8_valid(text, len);
    if (valid != len)
        return hone_fail(e, HONE_EFORMAT, "the text is not UTF-8 at byte %zu", valid);
    for (size_t i = 0, k; i < len; i += k) {
        k = t->scan(text + i, len - i);
        int rc = count_word(t, text + i, k, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* ---- pairs ---- */

static size_t pair_hash(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15U;
    return (size_t)(h ^ h >> 32);
}

static uint32_t *pair_slot(const tok_train *t, uint32_t left, uint32_t right)
{
    size_t i = pair_hash(left, right) & t->pair_mask;
    for (; t->pair_slot[i] != NONE; i = (i + 1) & t->pair_mask) {
        const pair *p = &t->pairs[t->pair_slot[i]];
        if (p->left == left && p->right == right)
            break;
    }
    return &t->pair_slot[i];
}

static int grow_pair_slots(tok_train *t, hone_err *e)
{
    if (t->n_pairs * 2 < t->pair_mask)
        return 0;
    size_t mask;
    uint32_t *bigger = new_slots((t->pair_mask + 1) * 2, &mask);
    if (bigger == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for %zu pairs", t->n_pairs);
    free(t->pair_slot);
    t->pair_slot = bigger;
    t->pair_mask = mask;
    for (size_t i = 0; i < t->n_pairs; i++)
        *pair_slot(t, t->pairs[i].left, t->pairs[i].right) = (uint32_t)i;
    return 0;
}

/* Adds `count` occurrences (or takes them away) of the pair that begins at symbol `at`. */
static int count_pair(tok_train *t, uint32_t left, uint32_t right, int64_t count, uint32_t at,
                      hone_err *e)
{
    uint32_t *slot = pair_slot(t, left, right), k = *slot;
    int rc;
    if (k == NONE) {
        rc = tok_grow(&t->pairs, &t->cap_pairs, t->n_pairs + 1, sizeof *t->pairs, e);
        if (rc != 0)
            return rc;
        t->pairs[t->n_pairs] = (pair){.left = left, .right = right};
        *slot = k = (uint32_t)t->n_pairs++;
        rc = grow_pair_slots(t, e);
        if (rc != 0)
            return rc;
    }
    pair *p = &t->pairs[k];
    p->count += count;
    if (count < 0)
        return 0;
    rc = p->n < p->cap ? 0 : tok_grow(&p->at, &p->cap, p->n + 1, sizeof *p->at, e);
    if (rc != 0)
        return rc;
    p->at[p->n++] = at;
    if (p->touched)
        return 0;
    p->touched = true;
    rc = tok_grow(&t->touched, &t->cap_touched, t->n_touched + 1, sizeof *t->touched, e);
    if (rc == 0)
        t->touched[t->n_touched++] = k;
    return rc;
}

/* The more frequent pair first, of equals the one of lower ids. */
static bool before(const tok_train *t, entry a, entry b)
{
    if (a.count != b.count)
        return a.count > b.count;
    const pair *p = &t->pairs[a.pair], *q = &t->pairs[b.pair];
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static int heap_push(tok_train *t, uint32_t k, hone_err *e)
{
    entry x = {t->pairs[k].count, k};
    int rc = tok_grow(&t->heap, &t->cap_heap, t->n_heap + 1, sizeof *t->heap, e);
    if (rc != 0 || x.count <= 0)
        return rc;
    size_t i = t->n_heap++;
    for (; i > 0 && before(t, x, t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = x;
    return 0;
}

static entry heap_pop(tok_train *t)
{
    entry top = t->heap[0], x = t->heap[--t->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < t->n_heap; i = k) {
        k += k + 1 < t->n_heap && before(t, t->heap[k + 1], t->heap[k]);
        if (!before(t, t->heap[k], x))
            break;
        t->heap[i] = t->heap[k];
    }
    t->heap[i] = x;
    return top;
}

/* Pushes the pairs that have new occurrences. */
static int push_touched(tok_train *t, hone_err *e)
{
    int rc = 0;
    for (size_t i = 0; i < t->n_touched; i++) {
        t->pairs[t->touched[i]].touched = false;
        if (rc == 0)
            rc = heap_push(t, t->touched[i], e);
    }
    t->n_touched = 0;
    return rc;
}

/* ---- learning ---- */

static int lay_out_words(tok_train *t, hone_err *e)
{
    size_t n = t->text_len;
    uint32_t byte_id[256];
    for (unsigned c = 0; c < 256; c++) {
        buf one;
        buf_init(&one, 4);
        buf_utf8(&one, tok_byte_char(c));
        byte_id[c] = *piece_slot(t, one.data, one.len);
        buf_free(&one);
    }
    t->sym = mem_try_array(n, sizeof *t->sym);
    t->prev = mem_try_array(n, sizeof *t->prev);
    t->next = mem_try_array(n, sizeof *t->next);
    t->in_word = mem_try_array(n, sizeof *t->in_word);
    t->pair_slot = new_slots(1 << 16, &t->pair_mask);
    if (t->sym == NULL || t->prev == NULL || t->next == NULL || t->in_word == NULL ||
        t->pair_slot == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for %zu symbols", n);
    for (size_t k = 0; k < t->n_words; k++) {
        const word *w = &t->words[k];
        for (uint32_t i = w->at; i < w->at + w->len; i++) {
            t->sym[i] = byte_id[(unsigned char)t->text[i]];
            t->prev[i] = i > w->at ? i - 1 : NONE;
            t->next[i] = i + 1 < w->at + w->len ? i + 1 : NONE;
            t->in_word[i] = (uint32_t)k;
        }
        for (uint32_t i = w->at; i + 1 < w->at + w->len; i++) {
            int rc = count_pair(t, t->sym[i], t->sym[i + 1], (int64_t)w->count, i, e);
            if (rc != 0)
                return rc;
        }
    }
    return push_touched(t, e);
}

/* Merges the pair that begins at symbol i into `made`, if it still stands there. */
static int merge_at(tok_train *t, uint32_t i, uint32_t left, uint32_t right, uint32_t made,
                    hone_err *e)
{
    uint32_t k = t->next[i];
    if (t->sym[i] != left || k == NONE || t->sym[k] != right)
        return 0;
    int64_t count = (int64_t)t->words[t->in_word[i]].count;
    uint32_t before_i = t->prev[i], after = t->next[k];
    int rc = 0;
    t->sym[i] = made;
    t->sym[k] = NONE;
    t->next[i] = after;
    if (before_i != NONE) {
        rc = count_pair(t, t->sym[before_i], left, -count, before_i, e);
        if (rc == 0)
            rc = count_pair(t, t->sym[before_i], made, count, before_i, e);
    }
    if (after != NONE) {
        t->prev[after] = i;
        if (rc == 0)
            rc = count_pair(t, right, t->sym[after], -count, k, e);
        if (rc == 0)
            rc = count_pair(t, made, t->sym[after], count, i, e);
    }
    return rc;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int merge_pair(tok_train *t, uint32_t k, uint32_t made, hone_err *e)
{
    pair p = t->pairs[k]; /* the array may move; the places are ours from here on */
    int rc = 0;
    t->pairs[k].at = NULL;
    t->pairs[k].n = t->pairs[k].cap = 0;
    qsort(p.at, p.n, sizeof *p.at, by_value); /* "aaa" is merged from the left */
    for (size_t i = 0; rc == 0 && i < p.n; i++)
        rc = merge_at(t, p.at[i], p.left, p.right, made, e);
    free(p.at);
    return rc == 0 ? push_touched(t, e) : rc;
}

/* The id of left and right joined, new or not; NONE when it is a special token, which text must not
 * be able to make. */
static uint32_t join_pieces(tok_train *t, uint32_t left, uint32_t right)
{
    const piece *a = &t->pieces[left], *b = &t->pieces[right];
    char *s = mem_alloc(a->len + b->len + 1);
    memcpy(s, a->s, a->len);
    memcpy(s + a->len, b->s, b->len);
    uint32_t id = add_piece(t, s, a->len + b->len);
    free(s);
    return id < t->opts->n_special ? NONE : id;
}

static int learn(tok_train *t, hone_err *e)
{
    int rc = 0;
    while (rc == 0 && t->n_pieces < t->opts->vocab_size && t->n_heap > 0) {
        entry top = heap_pop(t);
        const pair *p = &t->pairs[top.pair];
        if (p->n == 0)
            continue;
        if (p->count != top.count) {
            rc = heap_push(t, top.pair, e);
            continue;
        }
        if ((uint64_t)top.count < t->opts->min_frequency)
            break;
        uint32_t left = p->left, right = p->right, made = join_pieces(t, left, right);
        if (made == NONE)
            continue;
        t->merges = mem_grow(t->merges, &t->cap_merges, t->n_merges + 2, sizeof *t->merges);
        t->merges[t->n_merges++] = left;
        t->merges[t->n_merges++] = right;
        rc = merge_pair(t, top.pair, made, e);
    }
    return rc;
}

int tok_train_run(tok_train *t, hone_err *e)
{
    if (t->n_words == 0)
        return hone_fail(e, HONE_EINVAL, "there is no text to learn from");
    if (t->n_merges > 0)
        return hone_fail(e, HONE_EINVAL, "the merges are learned already");
    int rc = lay_out_words(t, e);
    if (rc == 0)
        rc = learn(t, e);
    free_work(t);
    return rc;
}

size_t tok_train_n_vocab(const tok_train *t)
{
    return t->n_pieces;
}

size_t tok_train_n_words(const tok_train *t)
{
    return t->n_words;
}

/* ---- writing ---- */

static json_t *byte_level(bool use_regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 0, "use_regex", use_regex);
}

static json_t *pre_tokenizer(const tok_train_opts *o)
{
    const char *pattern = pattern_of(o->pattern);
    if (pattern == tok_pattern_gpt2)
        return byte_level(true);
    json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                              pattern, "behavior", "Isolated", "invert", 0);
    return json_pack("{s:s, s:[o, o]}", "type", "Sequence", "pretokenizers", split,
                     byte_level(false));
}

static int id_of(const tok_train *t, const char *special)
{
    return (int)*piece_slot(t, special, strlen(special));
}

static json_t *post_processor(const tok_train *t)
{
    const char *bos = t->opts->bos;
    if (!t->opts->add_bos)
        return byte_level(true);
    json_t *single = json_pack("[{s:{s:s, s:i}}, {s:{s:s, s:i}}]", "SpecialToken", "id", bos,
                               "type_id", 0, "Sequence", "id", "A", "type_id", 0);
    json_t *two = json_pack("[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}]", "SpecialToken",
                            "id", bos, "type_id", 0, "Sequence", "id", "A", "type_id", 0,
                            "Sequence", "id", "B", "type_id", 1);
    return json_pack("{s:s, s:o, s:o, s:{s:{s:s, s:[i], s:[s]}}}", "type", "TemplateProcessing",
                     "single", single, "pair", two, "special_tokens", bos, "id", bos, "ids",
                     id_of(t, bos), "tokens", bos);
}

static json_t *added_tokens(const tok_train *t)
{
    json_t *list = json_array();
    for (size_t i = 0; i < t->opts->n_special; i++)
        json_array_append_new(list,
                              json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)i,
                                        "content", t->opts->special[i], "single_word", 0, "lstrip",
                                        0, "rstrip", 0, "normalized", 0, "special", 1));
    return list;
}

static json_t *model(const tok_train *t)
{
    json_t *vocab = json_object(), *merges = json_array();
    for (size_t i = 0; i < t->n_pieces; i++)
        json_object_set_new(vocab, t->pieces[i].s, json_integer((json_int_t)i));
    for (size_t i = 0; i < t->n_merges; i += 2) {
        char *both = mem_printf("%s %s", t->pieces[t->merges[i]].s, t->pieces[t->merges[i + 1]].s);
        json_array_append_new(merges, json_string(both));
        free(both);
    }
    return json_pack("{s:s, s:n, s:n, s:s, s:s, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                     "unk_token", "continuing_subword_prefix", "", "end_of_word_suffix", "",
                     "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab,
                     "merges", merges);
}

static json_t *config(const tok_train_opts *o)
{
    json_t *c = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                          "clean_up_tokenization_spaces", 0);
    if (o->bos != NULL) {
        json_object_set_new(c, "bos_token", json_string(o->bos));
        json_object_set_new(c, "add_bos_token", json_boolean(o->add_bos));
    }
    if (o->eos != NULL)
        json_object_set_new(c, "eos_token", json_string(o->eos));
    if (o->pad != NULL)
        json_object_set_new(c, "pad_token", json_string(o->pad));
    return c;
}

static int save(json_t *v, const char *dir, const char *name, hone_err *e)
{
    char *path = path_join(dir, name);
    int rc =
        v == NULL ? hone_fail(e, HONE_ENOMEM, "no memory for %s", path) : js_save(v, path, true, e);
    json_decref(v);
    free(path);
    return rc;
}

int tok_train_save(const tok_train *t, const char *dir, hone_err *e)
{
    int rc = dir_make(dir, e);
    if (rc != 0)
        return rc;
    json_t *root = json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:o, s:o, s:o}", "version", "1.0",
                             "truncation", "padding", "added_tokens", added_tokens(t), "normalizer",
                             "pre_tokenizer", pre_tokenizer(t->opts), "post_processor",
                             post_processor(t), "decoder", byte_level(true), "model", model(t));
    rc = save(root, dir, "tokenizer.json", e);
    return rc == 0 ? save(config(t->opts), dir, "tokenizer_config.json", e) : rc;
}
