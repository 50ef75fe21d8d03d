/* The tokenizer's handle: opening, the questions about ids, and the order of the encode steps. */
#include "core/text/tok_int.h"

#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { KEEP_SYMBOLS = 1 << 16, KEEP_BYTES = 1 << 20 };

/* ---- growing what may not fit ---- */

int tok_grow(void *pp, size_t *cap, size_t need, size_t size, hone_err *e)
{
    void *p;
    size_t n = *cap != 0 ? *cap : 64;
    while (n < need)
        n *= 2;
    memcpy(&p, pp, sizeof p);
    if (n <= *cap && p != NULL)
        return 0;
    p = n > SIZE_MAX / size ? NULL : realloc(p, n * size);
    if (p == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for %zu x %zu bytes of tokens", n, size);
    memcpy(pp, &p, sizeof p);
    *cap = n;
    return 0;
}

int tok_ids_reserve(tok_ids *ids, size_t more, hone_err *e)
{
    if (more <= ids->cap - ids->n)
        return 0;
    size_t need = ids->n + more, cap = ids->cap, same;
    int rc = tok_grow(&ids->id, &cap, need, sizeof *ids->id, e);
    if (rc == 0)
        rc = tok_grow(&ids->start, (same = ids->cap, &same), need, sizeof *ids->start, e);
    if (rc == 0)
        rc = tok_grow(&ids->end, (same = ids->cap, &same), need, sizeof *ids->end, e);
    if (rc == 0)
        ids->cap = cap;
    return rc;
}

int tok_ids_push(tok_ids *ids, int32_t id, size_t start, size_t end, hone_err *e)
{
    int rc = tok_ids_reserve(ids, 1, e);
    if (rc != 0)
        return rc;
    ids->id[ids->n] = id;
    ids->start[ids->n] = (uint32_t)start;
    ids->end[ids->n++] = (uint32_t)end;
    return 0;
}

void tok_ids_free(tok_ids *ids)
{
    free(ids->id);
    free(ids->start);
    free(ids->end);
    *ids = (tok_ids){0};
}

/* ---- scratch ---- */

tok_work *tok_work_new(const tok *t)
{
    tok_work *w = mem_alloc(sizeof *w);
    w->t = t;
    w->words = mem_array(WORD_SLOTS, sizeof *w->words);
    w->cap_cps = 64;
    w->cps = mem_array(w->cap_cps, sizeof *w->cps);
    w->match = pcre2_match_data_create(1, NULL);
    buf_init(&w->piece, 4 * (size_t)TOK_MAX_PIECE);
    return w;
}

static void symbols_free(tok_work *w)
{
    void *arrays[] = {w->id, w->made, w->end, w->rank, w->prev, w->next, w->heap};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]);
    w->id = w->made = NULL;
    w->end = w->rank = w->prev = w->next = NULL;
    w->heap = NULL;
    w->cap = w->cap_heap = 0;
}

static void text_free(tok_text *x)
{
    buf_free(&x->bytes);
    free(x->map.edit);
    x->map.edit = NULL;
    x->map.n = x->map.cap = 0;
}

void tok_work_free(tok_work *w)
{
    if (w == NULL)
        return;
    symbols_free(w);
    for (size_t i = 0; i < TOK_MAX_OPS; i++) {
        text_free(&w->norm[i]);
        text_free(&w->pre[i]);
    }
    buf_free(&w->piece);
    free(w->cps);
    free(w->words);
    pcre2_match_data_free(w->match);
    free(w);
}

static tok_work *work_take(const tok *t)
{
    for (size_t i = 0; i < TOK_POOL; i++) {
        if (atomic_load_explicit(&t->pool->slot[i], memory_order_relaxed) == NULL)
            continue;
        tok_work *w = atomic_exchange(&t->pool->slot[i], NULL);
        if (w != NULL)
            return w;
    }
    return tok_work_new(t);
}

/* What an unusually long text needed is not kept. */
static void work_give(const tok *t, tok_work *w)
{
    if (w->cap > KEEP_SYMBOLS)
        symbols_free(w);
    for (size_t i = 0; i < TOK_MAX_OPS; i++) {
        if (w->norm[i].bytes.cap + w->norm[i].map.cap * sizeof(tok_edit) > KEEP_BYTES)
            text_free(&w->norm[i]);
        if (w->pre[i].bytes.cap + w->pre[i].map.cap * sizeof(tok_edit) > KEEP_BYTES)
            text_free(&w->pre[i]);
    }
    for (size_t i = 0; i < TOK_POOL; i++) {
        tok_work *none = NULL;
        if (atomic_compare_exchange_strong(&t->pool->slot[i], &none, w))
            return;
    }
    tok_work_free(w);
}

/* ---- open and close ---- */

static tok *tok_new(void)
{
    tok *t = mem_alloc(sizeof *t);
    t->bos = t->eos = t->pad = -1;
    t->pool = mem_alloc(sizeof *t->pool);
    return t;
}

void tok_close(tok *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < TOK_POOL; i++)
        tok_work_free(atomic_load(&t->pool->slot[i]));
    free(t->pool);
    tok_vocab_free(&t->vocab);
    tok_norm_free(&t->norm);
    tok_trie_free(&t->raw);
    tok_trie_free(&t->norm_trie);
    tok_pre_free(&t->pre);
    tok_bpe_free(&t->bpe);
    tok_dec_free(&t->dec);
    free(t->before);
    free(t->after);
    free(t->stop);
    free(t);
}

static int open_json(tok *t, const char *json, size_t len, const json_t *more, hone_err *e)
{
    json_t *root;
    if (len > TOK_MAX_FILE)
        return hone_fail(e, HONE_ELIMIT, "%zu bytes, at most %d are read", len, TOK_MAX_FILE);
    bytes_sha256(t->digest, json, len);
    int rc = js_parse(&root, json, len, e);
    if (rc != 0)
        return rc;
    rc = tok_load(t, root, more, e);
    json_decref(root);
    return rc;
}

int tok_open_json(tok **out, const char *json, size_t len, hone_err *e)
{
    tok *t = tok_new();
    *out = NULL;
    int rc = open_json(t, json, len, NULL, e);
    if (rc != 0) {
        tok_close(t);
        return hone_fail_at(e, "tokenizer.json");
    }
    *out = t;
    return 0;
}

int tok_open(tok **out, const char *dir, hone_err *e)
{
    tok *t = tok_new();
    json_t *config = NULL;
    char *json = NULL, *path = path_join(dir, "tokenizer.json");
    size_t len = 0;
    *out = NULL;
    int rc = file_read(&json, &len, path, TOK_MAX_FILE, e);
    if (rc == 0)
        rc = tok_conf_read(&config, dir, e);
    if (rc == 0) {
        rc = open_json(t, json, len, json_object_get(config, "added_tokens_decoder"), e);
        if (rc != 0)
            hone_fail_at(e, "%s", path);
    }
    if (rc == 0 && (rc = tok_conf_apply(t, config, dir, e)) != 0)
        hone_fail_at(e, "%s", dir);
    free(json);
    free(path);
    json_decref(config);
    if (rc != 0) {
        tok_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

/* ---- encode ---- */

/* Text between added tokens, normalised: the added tokens that are looked for there are cut out
 * next. */
static int encode_normalised(tok_work *w, const tok_view *view, hone_err *e)
{
    return tok_pre_run(w, 0, view, e);
}

static int encode_text(tok_work *w, const tok_view *view, hone_err *e)
{
    tok_view v = *view;
    int rc = tok_norm_run(&w->t->norm, w, &v, e);
    return rc == 0 ? tok_trie_split(&w->t->norm_trie, w, &v, encode_normalised, e) : rc;
}

static int check_utf8(const char *s, size_t len, hone_err *e)
{
    size_t i = 0;
    uint32_t cp;
    while (i < len) {
        uint64_t x;
        while (len - i >= 8 && (memcpy(&x, s + i, 8), (x & 0x8080808080808080U) == 0))
            i += 8;
        if (i == len)
            break;
        size_t k = utf8_next(s + i, len - i, &cp);
        if (k == 0)
            return hone_fail(e, HONE_EFORMAT, "the text is not UTF-8 at byte %zu", i);
        i += k;
    }
    return 0;
}

int tok_encode(const tok *t, const char *text, size_t len, unsigned flags, tok_ids *out,
               hone_err *e)
{
    size_t n = out->n;
    if (len > TOK_MAX_TEXT)
        return hone_fail(e, HONE_ELIMIT, "text of %zu bytes, at most %d are allowed", len,
                         TOK_MAX_TEXT);
    int rc = check_utf8(text, len, e);
    if (rc != 0)
        return rc;
    tok_work *w = work_take(t);
    tok_view all = {text, len, NULL, 0};
    w->flags = flags;
    w->out = out;
    bool special = (flags & TOK_ADD_SPECIAL) != 0;
    for (size_t i = 0; special && rc == 0 && i < t->n_before; i++)
        rc = tok_ids_push(out, t->before[i], 0, 0, e);
    if (rc == 0)
        rc = tok_trie_split(&t->raw, w, &all, encode_text, e);
    for (size_t i = 0; special && rc == 0 && i < t->n_after; i++)
        rc = tok_ids_push(out, t->after[i], len, len, e);
    work_give(t, w);
    if (rc != 0)
        out->n = n;
    return rc;
}

/* ---- questions ---- */

int32_t tok_n_vocab(const tok *t)
{
    return t->vocab.n;
}

int32_t tok_find(const tok *t, const char *piece)
{
    return tok_vocab_find(&t->vocab, piece, strlen(piece));
}

const char *tok_piece(const tok *t, int32_t id, size_t *len)
{
    if (id < 0 || id >= t->vocab.n || t->vocab.entry[id].s == NULL)
        return NULL;
    if (len != NULL)
        *len = t->vocab.entry[id].len;
    return t->vocab.entry[id].s;
}

static bool has_flag(const tok *t, int32_t id, uint32_t flag)
{
    return id >= 0 && id < t->vocab.n && (t->vocab.entry[id].flags & flag) != 0;
}

bool tok_is_special(const tok *t, int32_t id)
{
    return has_flag(t, id, PIECE_SPECIAL);
}

bool tok_is_added(const tok *t, int32_t id)
{
    return has_flag(t, id, PIECE_ADDED);
}

int32_t tok_bos(const tok *t)
{
    return t->bos;
}

int32_t tok_eos(const tok *t)
{
    return t->eos;
}

int32_t tok_pad(const tok *t)
{
    return t->pad;
}

size_t tok_stop_ids(const tok *t, const int32_t **ids)
{
    *ids = t->stop;
    return t->n_stop;
}

bool tok_adds_bos(const tok *t)
{
    return t->bos >= 0 && t->n_before > 0 && t->before[0] == t->bos;
}

const char *tok_digest(const tok *t)
{
    return t->digest;
}
