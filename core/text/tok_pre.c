/* Pre-tokenizers: cut a text into the words that the model merges one by one. The steps of a
 * Sequence run depth first, each handing its parts to the next, so nothing is stored for a text
 * however long. */
#include "core/text/tok_int.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

static tok_view part_of(const tok_view *v, size_t a, size_t b)
{
    return (tok_view){v->p + a, b - a, v->map, v->at + (uint32_t)a};
}

static int hand_on(tok_work *w, size_t next, const tok_view *view, size_t a, size_t b, hone_err *e)
{
    if (a >= b)
        return 0;
    tok_view part = part_of(view, a, b);
    return tok_pre_run(w, next, &part, e);
}

int tok_pre_run(tok_work *w, size_t at, const tok_view *view, hone_err *e)
{
    const tok_pres *list = &w->t->pre;
    if (view->len == 0)
        return 0;
    if (at < list->n)
        return list->op[at].run(&list->op[at], w, at + 1, view, e);
    return tok_bpe_word(w, view, e);
}

/* The usual split: a scanner whose every match is a word. */
static int run_scan(const tok_pre *op, tok_work *w, size_t next, const tok_view *view, hone_err *e)
{
    const char *p = view->p, *end = p + view->len;
    bool last = next == w->t->pre.n;
    tok_view word = *view;
    while (p < end) {
        word.p = p;
        word.len = op->match.scan(p, (size_t)(end - p));
        int rc = last ? tok_bpe_word(w, &word, e) : tok_pre_run(w, next, &word, e);
        if (rc != 0)
            return rc;
        p += word.len;
        word.at += (uint32_t)word.len;
    }
    return 0;
}

/* Parts of a split as they come, matches and what lies between; keeps back what the next part may
 * join. */
typedef struct splitter {
    const tok_pre *op;
    tok_work *w;
    const tok_view *view;
    size_t next, a, b; /* [a, b) is kept back */
    bool was_match;    /* whether the last part was a match, for the behaviours that look at it */
} splitter;

static int flush(splitter *s, hone_err *e)
{
    int rc = hand_on(s->w, s->next, s->view, s->a, s->b, e);
    s->a = s->b;
    return rc;
}

static int take(splitter *s, size_t a, size_t b, bool match, hone_err *e)
{
    bool join = false;
    match = match != s->op->invert;
    switch (s->op->behavior) {
    case SPLIT_ISOLATED:
        break;
    case SPLIT_REMOVED:
        if (match) {
            int rc = flush(s, e);
            s->a = s->b = b;
            return rc;
        }
        break;
    case SPLIT_WITH_PREVIOUS:
        join = match && !s->was_match;
        break;
    case SPLIT_WITH_NEXT:
        join = !match && s->was_match;
        break;
    case SPLIT_CONTIGUOUS:
        join = match == s->was_match;
        break;
    }
    int rc = 0;
    if (!join) {
        rc = flush(s, e);
        s->a = a;
    }
    s->b = b;
    s->was_match = match;
    return rc;
}

static int run_split(const tok_pre *op, tok_work *w, size_t next, const tok_view *view, hone_err *e)
{
    splitter s = {.op = op, .w = w, .view = view, .next = next};
    size_t done = 0, a, b;
    int found, rc = 0;
    while (rc == 0 && (found = tok_match_next(&op->match, w->match, view->p, view->len, done, &a,
                                              &b, e)) != 0) {
        if (found < 0)
            return found;
        if (a > done)
            rc = take(&s, done, a, false, e);
        if (rc == 0)
            rc = take(&s, a, b, true, e);
        done = b;
    }
    if (rc == 0 && done < view->len)
        rc = take(&s, done, view->len, false, e);
    return rc == 0 ? flush(&s, e) : rc;
}

static bool begins_with(const tok_view *v, const char *s)
{
    size_t n = strlen(s);
    return v->len >= n && memcmp(v->p, s, n) == 0;
}

/* Whether the view begins the text itself. */
static bool is_first(const tok_view *v)
{
    const tok_map *m = v->map;
    uint32_t at = v->at;
    for (; m != NULL && at == 0; m = m->up)
        at = m->base;
    return at == 0;
}

static int run_prefix(const tok_pre *op, tok_work *w, size_t next, const tok_view *view,
                      hone_err *e)
{
    tok_view v = *view;
    bool has = begins_with(view, " ") || begins_with(view, op->prefix);
    if (!has && !(op->first_only && !is_first(view))) {
        int rc = tok_text_prefix(&w->pre[next - 1], op->prefix, &v, e);
        if (rc != 0)
            return rc;
    }
    return tok_pre_run(w, next, &v, e);
}

/* Metaspace with split: every meta character, which may still be written as a space, begins a word.
 */
static int run_meta(const tok_pre *op, tok_work *w, size_t next, const tok_view *view, hone_err *e)
{
    const char *meta = w->t->pre.meta;
    size_t meta_len = strlen(meta), from = 0;
    (void)op;
    for (size_t i = 1; i < view->len; i++) {
        bool border = view->p[i] == ' ' || (view->p[i] == meta[0] && view->len - i >= meta_len &&
                                            memcmp(view->p + i, meta, meta_len) == 0);
        if (!border)
            continue;
        int rc = hand_on(w, next, view, from, i, e);
        if (rc != 0)
            return rc;
        from = i;
    }
    return hand_on(w, next, view, from, view->len, e);
}

/* ---- loading ---- */

static int add_op(tok_pres *list, tok_pre op, hone_err *e)
{
    if (list->n < TOK_MAX_OPS) {
        list->op[list->n++] = op;
        return 0;
    }
    tok_match_free(&op.match);
    free(op.prefix);
    return hone_fail(e, HONE_ELIMIT, "pre_tokenizer of more than %d steps", TOK_MAX_OPS);
}

static int add_class(tok_pres *list, bool (*in_class)(uint32_t cp), bool runs,
                     tok_behavior behavior, hone_err *e)
{
    tok_pre op = {.run = run_split, .behavior = behavior};
    op.match.in_class = in_class;
    op.match.runs = runs;
    return add_op(list, op, e);
}

static int add_prefix(tok_pres *list, const char *prefix, bool first_only, hone_err *e)
{
    tok_pre op = {.run = run_prefix, .prefix = mem_strdup(prefix), .first_only = first_only};
    return add_op(list, op, e);
}

static int get_behavior(const json_t *o, tok_behavior *out, hone_err *e)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = NULL;
    int rc = js_opt_str(o, "behavior", &name, e);
    if (rc != 0 || name == NULL)
        return rc;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (tok_behavior)i;
            return 0;
        }
    }
    return hone_fail(e, HONE_EUNSUPPORTED, "behavior '%.60s' is not supported", name);
}

static int load_byte_level(tok_pres *list, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                       NULL};
    bool prefix = true, regex = true;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_opt_bool(o, "add_prefix_space", &prefix, e);
    if (rc == 0)
        rc = js_opt_bool(o, "use_regex", &regex, e);
    if (rc == 0 && prefix)
        rc = add_prefix(list, " ", false, e);
    if (rc == 0 && regex) {
        tok_pre op = {.run = run_scan, .match.scan = tok_scan_find(tok_pattern_gpt2)};
        rc = add_op(list, op, e);
    }
    list->byte_level = true;
    return rc;
}

static int load_split(tok_pres *list, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "pattern", "behavior", "invert", NULL};
    tok_pre op = {.run = run_split};
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = get_behavior(o, &op.behavior, e);
    if (rc == 0)
        rc = js_opt_bool(o, "invert", &op.invert, e);
    if (rc == 0)
        rc = tok_match_load(&op.match, json_object_get(o, "pattern"), e);
    if (rc != 0) {
        tok_match_free(&op.match);
        return rc;
    }
    if (op.match.scan != NULL && op.behavior == SPLIT_ISOLATED)
        op.run = run_scan;
    return add_op(list, op, e);
}

static int load_digits(tok_pres *list, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "individual_digits", NULL};
    bool individual = false;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_opt_bool(o, "individual_digits", &individual, e);
    return rc != 0 ? rc : add_class(list, tok_is_number, !individual, SPLIT_ISOLATED, e);
}

static int load_punctuation(tok_pres *list, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "behavior", NULL};
    tok_behavior behavior = SPLIT_ISOLATED;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = get_behavior(o, &behavior, e);
    return rc != 0 ? rc : add_class(list, tok_is_punct, false, behavior, e);
}

static int load_whitespace_split(tok_pres *list, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", NULL};
    int rc = js_only_keys(o, keys, e);
    return rc != 0 ? rc : add_class(list, tok_is_space, false, SPLIT_REMOVED, e);
}

/* \w+|[^\w\s]+ : spaces go, then runs of word characters are parted from runs of the others. */
static int load_whitespace(tok_pres *list, const json_t *o, hone_err *e)
{
    int rc = load_whitespace_split(list, o, e);
    return rc != 0 ? rc : add_class(list, tok_is_word, true, SPLIT_ISOLATED, e);
}

int tok_metaspace(const json_t *o, const char **meta, const char **scheme, bool *split, hone_err *e)
{
    static const char *const keys[] = {
        "type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep", NULL};
    bool prefix = true;
    uint32_t cp;
    *meta = "\xE2\x96\x81";
    *scheme = "always";
    *split = true;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_get_str(o, "replacement", meta, e);
    if (rc == 0)
        rc = js_opt_bool(o, "add_prefix_space", &prefix, e);
    if (rc == 0)
        rc = js_opt_str(o, "prepend_scheme", scheme, e);
    if (rc == 0)
        rc = js_opt_bool(o, "split", split, e);
    if (rc != 0)
        return rc;
    if ((*meta)[0] == '\0' || (*meta)[0] == ' ' || (*meta)[tok_cp(*meta, &cp)] != '\0')
        return hone_fail(e, HONE_EFORMAT, "replacement '%.20s' is not one character", *meta);
    if (!prefix)
        *scheme = "never";
    if (strcmp(*scheme, "always") != 0 && strcmp(*scheme, "first") != 0 &&
        strcmp(*scheme, "never") != 0)
        return hone_fail(e, HONE_EUNSUPPORTED, "prepend_scheme '%.60s' is not supported", *scheme);
    return 0;
}

static int load_metaspace(tok_pres *list, const json_t *o, hone_err *e)
{
    const char *meta, *scheme;
    bool split;
    int rc = tok_metaspace(o, &meta, &scheme, &split, e);
    if (rc == 0 && strcmp(scheme, "never") != 0)
        rc = add_prefix(list, meta, strcmp(scheme, "first") == 0, e);
    if (rc == 0 && split)
        rc = add_op(list, (tok_pre){.run = run_meta}, e);
    if (rc == 0)
        list->meta = mem_strdup(meta);
    return rc;
}

static int load_one(tok_pres *list, const json_t *o, hone_err *e)
{
    static const struct {
        const char *type;
        int (*load)(tok_pres *list, const json_t *o, hone_err *e);
    } kinds[] = {
        {"ByteLevel", load_byte_level},
        {"Split", load_split},
        {"Metaspace", load_metaspace},
        {"Digits", load_digits},
        {"Punctuation", load_punctuation},
        {"Whitespace", load_whitespace},
        {"WhitespaceSplit", load_whitespace_split},
    };
    if (list->byte_level || list->meta != NULL)
        return hone_fail(e, HONE_EUNSUPPORTED, "pre_tokenizer '%s' after '%s' is not supported",
                         tok_type(o), list->byte_level ? "ByteLevel" : "Metaspace");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].type, tok_type(o)) != 0)
            continue;
        int rc = kinds[i].load(list, o, e);
        return rc == 0 ? 0 : hone_fail_at(e, "pre_tokenizer '%s'", kinds[i].type);
    }
    return tok_refuse("pre_tokenizer", o, e);
}

int tok_pre_load(tok_pres *list, const json_t *o, hone_err *e)
{
    if (o == NULL || json_is_null(o))
        return 0;
    if (strcmp(tok_type(o), "Sequence") != 0)
        return load_one(list, o, e);
    json_t *parts = NULL;
    int rc = js_get_array(o, "pretokenizers", &parts, e);
    for (size_t i = 0; rc == 0 && i < json_array_size(parts); i++)
        rc = tok_pre_load(list, json_array_get(parts, i), e);
    return rc;
}

void tok_pre_free(tok_pres *list)
{
    for (size_t i = 0; i < list->n; i++) {
        tok_match_free(&list->op[i].match);
        free(list->op[i].prefix);
    }
    free(list->meta);
    list->n = 0;
    list->meta = NULL;
}
