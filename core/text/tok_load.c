/* tokenizer.json into a tokenizer. A field that could change ids is either understood or refused;
 * `truncation` and `padding` are not read, because they belong to whoever asks for a batch and
 * transformers clears them too. */
#include "core/text/tok_int.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

const char *tok_type(const json_t *o)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    return type != NULL ? type : "?";
}

int tok_refuse(const char *what, const json_t *o, hone_err *e)
{
    if (!json_is_object(o))
        return hone_fail(e, HONE_EFORMAT, "%s is not an object", what);
    return hone_fail(e, HONE_EUNSUPPORTED, "%s '%.60s' is not supported", what, tok_type(o));
}

/* ---- pieces ---- */

static int check_id(const json_t *v, const char *piece, int64_t *max, hone_err *e)
{
    json_int_t id = json_integer_value(v);
    if (!json_is_integer(v) || id < 0 || id > TOK_MAX_ID)
        return hone_fail(e, HONE_EFORMAT, "piece '%.60s' has an id that is not 0 to %d", piece,
                         TOK_MAX_ID);
    if (id > *max)
        *max = id;
    return 0;
}

/* The highest id and the number of pieces of everything that will be added. */
static int measure(const json_t *vocab, const json_t *added, const json_t *more, int64_t *max,
                   size_t *count, hone_err *e)
{
    const char *key;
    json_t *v;
    size_t i;
    int rc = 0;
    *max = -1;
    json_object_foreach ((json_t *)vocab, key, v) {
        if ((rc = check_id(v, key, max, e)) != 0)
            return rc;
    }
    json_array_foreach (added, i, v) {
        const char *content = json_string_value(json_object_get(v, "content"));
        rc = check_id(json_object_get(v, "id"), content ? content : "?", max, e);
        if (rc != 0)
            return rc;
    }
    json_object_foreach ((json_t *)more, key, v) {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (*key == '\0' || *end != '\0' || id < 0 || id > TOK_MAX_ID)
            return hone_fail(e, HONE_EFORMAT, "added_tokens_decoder: '%.60s' is not an id", key);
        *max = id > *max ? id : *max;
    }
    *count = json_object_size(vocab) + json_array_size(added) + json_object_size(more);
    return 0;
}

static int load_vocab(tok *t, const json_t *vocab, hone_err *e)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)vocab, key, v) {
        int rc = tok_vocab_add(&t->vocab, key, strlen(key), json_integer_value(v), PIECE_MODEL, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* The text that an added token is searched as: normalised when it asks for that. */
static int add_to_trie(tok *t, const char *s, size_t len, tok_added added, hone_err *e)
{
    if (!added.normalized)
        return tok_trie_add(&t->raw, s, len, added, e);
    if (t->norm.n == 0)
        return tok_trie_add(&t->norm_trie, s, len, added, e);
    tok_view view = {s, len, NULL, 0};
    tok_work *w = tok_work_new(t);
    int rc = tok_norm_run(&t->norm, w, &view, e);
    if (rc == 0 && view.len > 0) /* one that normalises to nothing is never found */
        rc = tok_trie_add(&t->norm_trie, view.p, view.len, added, e);
    tok_work_free(w);
    return rc;
}

static int load_added(tok *t, const json_t *o, int64_t id, hone_err *e)
{
    static const char *const keys[] = {"id",         "content", "single_word", "lstrip", "rstrip",
                                       "normalized", "special", "__type",      NULL};
    const json_t *content = json_object_get(o, "content");
    tok_added added = {.id = (int32_t)id};
    if (!json_is_string(content))
        return hone_fail(e, HONE_EFORMAT, "field 'content' is not a string");
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_opt_bool(o, "single_word", &added.single_word, e);
    if (rc == 0)
        rc = js_opt_bool(o, "lstrip", &added.lstrip, e);
    if (rc == 0)
        rc = js_opt_bool(o, "rstrip", &added.rstrip, e);
    if (rc == 0)
        rc = js_opt_bool(o, "special", &added.special, e);
    added.normalized = !added.special;
    if (rc == 0)
        rc = js_opt_bool(o, "normalized", &added.normalized, e);
    if (rc != 0)
        return rc;
    const char *s = json_string_value(content);
    size_t len = json_string_length(content);
    uint32_t flags = PIECE_ADDED | (added.special ? PIECE_SPECIAL : 0U);
    rc = tok_vocab_add(&t->vocab, s, len, id, flags, e);
    return rc == 0 ? add_to_trie(t, s, len, added, e) : rc;
}

static int load_all_added(tok *t, const json_t *added, const json_t *more, hone_err *e)
{
    size_t i;
    json_t *v;
    const char *key;
    if (json_array_size(added) + json_object_size(more) > TOK_MAX_ADDED)
        return hone_fail(e, HONE_ELIMIT, "more than %d added tokens", TOK_MAX_ADDED);
    json_array_foreach (added, i, v) {
        int rc = load_added(t, v, json_integer_value(json_object_get(v, "id")), e);
        if (rc != 0)
            return hone_fail_at(e, "added token %zu", i);
    }
    json_object_foreach ((json_t *)more, key, v) {
        int64_t id = strtoll(key, NULL, 10);
        if (tok_is_added(t, (int32_t)id) &&
            strcmp(tok_piece(t, (int32_t)id, NULL),
                   json_string_value(json_object_get(v, "content"))
                       ? json_string_value(json_object_get(v, "content"))
                       : "") == 0)
            continue;
        int rc = load_added(t, v, id, e);
        if (rc != 0)
            return hone_fail_at(e, "tokenizer_config.json: added_tokens_decoder: %s", key);
    }
    return 0;
}

/* ---- model ---- */

/* A merge is "left right" or [left, right]. */
static int merge_parts(const json_t *m, const char **left, size_t *n_left, const char **right,
                       size_t *n_right)
{
    if (json_is_array(m) && json_array_size(m) == 2) {
        const json_t *a = json_array_get(m, 0), *b = json_array_get(m, 1);
        *left = json_string_value(a);
        *right = json_string_value(b);
        *n_left = json_string_length(a);
        *n_right = json_string_length(b);
        return *left != NULL && *right != NULL ? 0 : -1;
    }
    const char *s = json_string_value(m);
    const char *space = s == NULL ? NULL : strchr(s, ' ');
    if (space == NULL || strchr(space + 1, ' ') != NULL)
        return -1;
    *left = s;
    *n_left = (size_t)(space - s);
    *right = space + 1;
    *n_right = json_string_length(m) - *n_left - 1;
    return 0;
}

static int find_model_piece(const tok *t, const char *s, size_t len, int32_t *id, hone_err *e)
{
    *id = tok_vocab_find(&t->vocab, s, len);
    if (*id < 0 || (t->vocab.entry[*id].flags & PIECE_MODEL) == 0)
        return hone_fail(e, HONE_EFORMAT, "piece '%.*s' is not in the vocabulary",
                         (int)(len < 60 ? len : 60), s);
    return 0;
}

static int load_merge(tok *t, const json_t *m, size_t rank, buf *joined, hone_err *e)
{
    const char *left, *right;
    size_t n_left, n_right;
    int32_t l = -1, r = -1, made = -1;
    if (merge_parts(m, &left, &n_left, &right, &n_right) != 0)
        return hone_fail(e, HONE_EFORMAT, "it is not a pair of pieces");
    buf_reset(joined);
    buf_add(joined, left, n_left);
    buf_add(joined, right, n_right);
    int rc = buf_check(joined, "piece", e);
    if (rc == 0)
        rc = find_model_piece(t, left, n_left, &l, e);
    if (rc == 0)
        rc = find_model_piece(t, right, n_right, &r, e);
    if (rc == 0)
        rc = find_model_piece(t, joined->data, joined->len, &made, e);
    if (rc != 0)
        return rc;
    if (tok_is_special(t, made)) /* text could forge it: it is found by tok_added.c or not at all */
        return 0;
    tok_bpe_add(&t->bpe, l, r, (uint32_t)rank, made);
    tok_bpe_join(&t->bpe, left, n_left, right, n_right);
    return 0;
}

static int load_merges(tok *t, const json_t *merges, hone_err *e)
{
    size_t i, rank = 0;
    json_t *m;
    buf joined;
    int rc = tok_bpe_init(&t->bpe, json_array_size(merges), e);
    if (rc != 0)
        return rc;
    buf_init(&joined, 2 * (size_t)TOK_MAX_PIECE);
    json_array_foreach (merges, i, m) {
        const char *s = json_string_value(m);
        if (s != NULL && strncmp(s, "#version", 8) == 0)
            continue;
        rc = load_merge(t, m, rank++, &joined, e);
        if (rc != 0) {
            hone_fail_at(e, "merge %zu", i);
            break;
        }
    }
    buf_free(&joined);
    return rc;
}

static void load_units(tok *t)
{
    tok_bpe *b = &t->bpe;
    for (unsigned c = 0; c < 256; c++) {
        buf piece;
        char name[8];
        int32_t id = -1;
        buf_init(&piece, 8);
        buf_utf8(&piece, b->byte_level ? tok_byte_char(c) : c);
        if (b->byte_level || c < 128)
            id = b->space_is_meta && c == ' ' ? tok_vocab_find(&t->vocab, b->meta, b->meta_len)
                                              : tok_vocab_find(&t->vocab, piece.data, piece.len);
        if (id >= 0 && (t->vocab.entry[id].flags & PIECE_MODEL) != 0)
            b->unit[c] = id;
        snprintf(name, sizeof name, "<0x%02X>", c);
        id = tok_vocab_find(&t->vocab, name, 6);
        if (id >= 0 && (t->vocab.entry[id].flags & PIECE_MODEL) != 0)
            b->fallback[c] = id;
        buf_free(&piece);
    }
}

static bool is_fallback(const tok *t, int32_t id)
{
    const tok_entry *p = &t->vocab.entry[id];
    return p->len == 6 && memcmp(p->s, "<0x", 3) == 0 && p->s[5] == '>';
}

static int load_flags(tok *t, const json_t *m, hone_err *e)
{
    tok_bpe *b = &t->bpe;
    const char *prefix = "", *suffix = "", *unk = NULL;
    double dropout = 0;
    int rc = js_opt_bool(m, "byte_fallback", &b->byte_fallback, e);
    if (rc == 0)
        rc = js_opt_bool(m, "fuse_unk", &b->fuse_unk, e);
    if (rc == 0)
        rc = js_opt_bool(m, "ignore_merges", &b->ignore_merges, e);
    if (rc == 0)
        rc = js_opt_num(m, "dropout", &dropout, e);
    if (rc == 0)
        rc = js_opt_str(m, "continuing_subword_prefix", &prefix, e);
    if (rc == 0)
        rc = js_opt_str(m, "end_of_word_suffix", &suffix, e);
    if (rc == 0)
        rc = js_opt_str(m, "unk_token", &unk, e);
    if (rc != 0)
        return rc;
    if (dropout > 0 || dropout < 0)
        return hone_fail(e, HONE_EUNSUPPORTED, "dropout %g is not supported", dropout);
    if (*prefix != '\0')
        return hone_fail(e, HONE_EUNSUPPORTED, "continuing_subword_prefix '%.20s' is not supported",
                         prefix);
    if (*suffix != '\0')
        return hone_fail(e, HONE_EUNSUPPORTED, "end_of_word_suffix '%.20s' is not supported",
                         suffix);
    if (unk != NULL) {
        int32_t id = tok_vocab_find(&t->vocab, unk, strlen(unk));
        b->unk = id >= 0 && (t->vocab.entry[id].flags & PIECE_MODEL) != 0 ? id : -1;
    }
    return 0;
}

/* SentencePiece models replace spaces with the meta character and cut nothing. Where nothing else
 * would see the replaced text the model does that itself, word by word, and long texts are not
 * copied. */
static void defer_replace(tok *t)
{
    static const char meta[] = "\xE2\x96\x81";
    const tok_norm *last = t->norm.n > 0 ? &t->norm.op[t->norm.n - 1] : NULL;
    t->bpe.meta = mem_strdup(t->pre.meta != NULL ? t->pre.meta : meta);
    t->bpe.meta_len = strlen(t->bpe.meta);
    t->bpe.space_is_meta = t->pre.meta != NULL;
    if (last == NULL || t->pre.n > 0 || t->pre.byte_level || t->pre.meta != NULL ||
        t->norm_trie.n_added > 0 || last->match.literal == NULL ||
        strcmp(last->match.literal, " ") != 0 || strcmp(last->text, meta) != 0)
        return;
    tok_match_free(&t->norm.op[t->norm.n - 1].match);
    free(t->norm.op[t->norm.n - 1].text);
    t->norm.op[--t->norm.n] = (tok_norm){0};
    t->bpe.space_is_meta = true;
}

/* Whether words may be cut where no merge joins. Not when a whole word may be a piece, nor where
 * unknown characters are fused across the cut, nor where the pieces of byte fallback take part in
 * merges as if they were text. */
static void plan_cuts(tok *t)
{
    tok_bpe *b = &t->bpe;
    bool all_bytes = b->byte_fallback, any_byte = false;
    for (size_t c = 0; c < 256; c++) {
        all_bytes = all_bytes && b->fallback[c] >= 0;
        any_byte = any_byte || b->fallback[c] >= 0;
    }
    for (size_t i = 0; any_byte && i <= b->mask; i++) {
        uint64_t key = b->pair[i].key;
        if (key != UINT64_MAX &&
            (is_fallback(t, (int32_t)(key >> 24)) || is_fallback(t, (int32_t)(key & TOK_MAX_ID))))
            return;
    }
    b->cut = !b->byte_level && !b->ignore_merges && (all_bytes || !b->fuse_unk || b->unk < 0);
}

static int load_model(tok *t, const json_t *m, hone_err *e)
{
    static const char *const keys[] = {"type",
                                       "dropout",
                                       "unk_token",
                                       "continuing_subword_prefix",
                                       "end_of_word_suffix",
                                       "fuse_unk",
                                       "byte_fallback",
                                       "ignore_merges",
                                       "vocab",
                                       "merges",
                                       NULL};
    tok_bpe *b = &t->bpe;
    json_t *merges = NULL;
    int rc = js_only_keys(m, keys, e);
    if (rc == 0)
        rc = js_get_array(m, "merges", &merges, e);
    if (rc != 0)
        return rc;
    defer_replace(t);
    b->byte_level = t->pre.byte_level;
    rc = load_merges(t, merges, e);
    if (rc == 0)
        rc = load_flags(t, m, e);
    load_units(t);
    plan_cuts(t);
    return rc;
}

/* ---- post-processor ---- */

static int push_special(tok *t, const json_t *special, const json_t *part, hone_err *e)
{
    const char *name = NULL;
    json_t *ids = NULL, *v;
    size_t i;
    int rc = js_get_str(part, "id", &name, e);
    if (rc == 0)
        rc = js_get_array(json_object_get(special, name), "ids", &ids, e);
    if (rc != 0)
        return hone_fail_at(e, "special token '%.60s'", name != NULL ? name : "?");
    json_array_foreach (ids, i, v) {
        int64_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id > TOK_MAX_ID || tok_piece(t, (int32_t)id, NULL) == NULL)
            return hone_fail(e, HONE_EFORMAT, "special token '%.60s' has no piece", name);
        int32_t **list = t->n_seq == 0 ? &t->before : &t->after;
        size_t *n = t->n_seq == 0 ? &t->n_before : &t->n_after;
        *list = mem_resize(*list, (*n + 1) * sizeof **list);
        (*list)[(*n)++] = (int32_t)id;
    }
    return 0;
}

/* The single-text template: special tokens, the text once, special tokens. */
static int load_template(tok *t, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "single", "pair", "special_tokens", NULL};
    json_t *single = NULL, *part;
    size_t i;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_get_array(o, "single", &single, e);
    if (rc == 0 && t->n_seq > 0)
        rc = hone_fail(e, HONE_EUNSUPPORTED, "a second template is not supported");
    if (rc != 0)
        return rc;
    json_array_foreach (single, i, part) {
        const json_t *seq = json_object_get(part, "Sequence");
        const json_t *tok_part = json_object_get(part, "SpecialToken");
        const char *which = json_string_value(json_object_get(seq, "id"));
        if (tok_part != NULL)
            rc = push_special(t, json_object_get(o, "special_tokens"), tok_part, e);
        else if (which == NULL || strcmp(which, "A") != 0 || t->n_seq > 0)
            rc = hone_fail(e, HONE_EUNSUPPORTED, "part %zu of 'single' is not supported", i);
        else
            t->n_seq++;
        if (rc != 0)
            return rc;
    }
    if (t->n_seq == 0)
        return hone_fail(e, HONE_EUNSUPPORTED, "'single' without the text is not supported");
    return 0;
}

static int load_post(tok *t, const json_t *o, hone_err *e)
{
    if (o == NULL || json_is_null(o) || strcmp(tok_type(o), "ByteLevel") == 0) /* offsets only */
        return 0;
    if (strcmp(tok_type(o), "TemplateProcessing") == 0) {
        int rc = load_template(t, o, e);
        return rc == 0 ? 0 : hone_fail_at(e, "post_processor 'TemplateProcessing'");
    }
    if (strcmp(tok_type(o), "Sequence") != 0)
        return tok_refuse("post_processor", o, e);
    json_t *parts = NULL;
    int rc = js_get_array(o, "processors", &parts, e);
    for (size_t i = 0; rc == 0 && i < json_array_size(parts); i++)
        rc = load_post(t, json_array_get(parts, i), e);
    return rc;
}

/* ---- the whole ---- */

static int load_pieces(tok *t, const json_t *root, const json_t *model, const json_t *more,
                       hone_err *e)
{
    const json_t *vocab = json_object_get(model, "vocab");
    const json_t *added = json_object_get(root, "added_tokens");
    int64_t max = -1;
    size_t count = 0;
    if (!json_is_object(vocab))
        return hone_fail(e, HONE_EFORMAT, "model: field 'vocab' is not an object");
    if (added != NULL && !json_is_null(added) && !json_is_array(added))
        return hone_fail(e, HONE_EFORMAT, "field 'added_tokens' is not an array");
    int rc = measure(vocab, added, more, &max, &count, e);
    if (rc == 0 && max < 0)
        rc = hone_fail(e, HONE_EFORMAT, "the vocabulary is empty");
    if (rc == 0)
        rc = tok_vocab_init(&t->vocab, (int32_t)max + 1, count, e);
    if (rc == 0)
        rc = load_vocab(t, vocab, e);
    return rc == 0 ? load_all_added(t, added, more, e) : rc;
}

int tok_load(tok *t, const json_t *root, const json_t *more_added, hone_err *e)
{
    static const char *const keys[] = {
        "version",       "truncation",     "padding", "added_tokens", "normalizer",
        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    if (!json_is_object(root))
        return hone_fail(e, HONE_EFORMAT, "it is not a JSON object");
    const json_t *model = json_object_get(root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!json_is_object(model))
        return hone_fail(e, HONE_EFORMAT, "field 'model' is missing");
    /* files older than the field are BPE when they have merges */
    if (type != NULL ? strcmp(type, "BPE") != 0 : json_object_get(model, "merges") == NULL)
        return tok_refuse("model", model, e);
    int rc = js_only_keys(root, keys, e);
    if (rc == 0)
        rc = tok_norm_load(&t->norm, json_object_get(root, "normalizer"), e);
    if (rc == 0)
        rc = tok_pre_load(&t->pre, json_object_get(root, "pre_tokenizer"), e);
    if (rc == 0)
        rc = tok_dec_load(&t->dec, json_object_get(root, "decoder"), e);
    if (rc == 0)
        rc = load_pieces(t, root, model, more_added, e);
    if (rc == 0) {
        rc = load_model(t, model, e);
        if (rc != 0)
            hone_fail_at(e, "model");
    }
    return rc == 0 ? load_post(t, json_object_get(root, "post_processor"), e) : rc;
}
