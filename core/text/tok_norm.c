/* Normalizers, and the maps that lead back from what they wrote. Text that a normalizer leaves
 * alone, which is nearly all text, is not copied. */
#include "core/text/tok_int.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- maps ---- */

/* Index + 1 of the last edit with n0 < p, or n0 <= p when `equal`; 0 when there is none. Requests
 * come nearly in order, so the search starts where the last one ended. */
static size_t edit_before(tok_map *m, uint32_t p, bool equal)
{
    size_t i = m->cursor;
    while (i < m->n && (m->edit[i].n0 < p || (equal && m->edit[i].n0 == p)))
        i++;
    while (i > 0 && (m->edit[i - 1].n0 > p || (!equal && m->edit[i - 1].n0 == p)))
        i--;
    m->cursor = i;
    return i;
}

static uint32_t map_start(tok_map *m, uint32_t p)
{
    size_t i = edit_before(m, p, true);
    if (i == 0)
        return m->base + p;
    const tok_edit *d = &m->edit[i - 1];
    return m->base + (p < d->n1 ? d->o0 : d->o1 + (p - d->n1));
}

static uint32_t map_end(tok_map *m, uint32_t p)
{
    size_t i = edit_before(m, p, false);
    if (i == 0)
        return m->base + p;
    const tok_edit *d = &m->edit[i - 1];
    return m->base + (p <= d->n1 ? d->o1 : d->o1 + (p - d->n1));
}

void tok_map_range(tok_map *map, uint32_t *start, uint32_t *end)
{
    for (tok_map *m = map; m != NULL; m = m->up) {
        *end = map_end(m, *end);
        *start = map_start(m, *start);
        if (*end < *start)
            *end = *start;
    }
}

void tok_text_begin(tok_text *out, const tok_view *in)
{
    if (out->bytes.max == 0)
        buf_init(&out->bytes, UINT32_MAX);
    buf_reset(&out->bytes);
    out->map.up = in->map;
    out->map.base = in->at;
    out->map.n = out->map.cursor = 0;
}

int tok_text_edit(tok_text *out, size_t n0, size_t o0, size_t o1, hone_err *e)
{
    tok_map *m = &out->map;
    int rc = m->n < m->cap ? 0 : tok_grow(&m->edit, &m->cap, m->n + 1, sizeof *m->edit, e);
    if (rc == 0)
        m->edit[m->n++] =
            (tok_edit){(uint32_t)n0, (uint32_t)out->bytes.len, (uint32_t)o0, (uint32_t)o1};
    return rc;
}

int tok_text_end(tok_text *out, tok_view *view, hone_err *e)
{
    *view = (tok_view){out->bytes.data, out->bytes.len, &out->map, 0};
    return buf_check(&out->bytes, "normalised text", e);
}

int tok_text_prefix(tok_text *out, const char *prefix, tok_view *view, hone_err *e)
{
    tok_text_begin(out, view);
    buf_str(&out->bytes, prefix);
    int rc = tok_text_edit(out, 0, 0, 0, e);
    if (rc != 0)
        return rc;
    buf_add(&out->bytes, view->p, view->len);
    return tok_text_end(out, view, e);
}

/* ---- Unicode forms ---- */

/* A chunk is what normalisation can change independently of the rest: a character and the marks
 * (and Hangul vowels and finals) after it. */
static bool continues_chunk(uint32_t cp)
{
    if (cp < 0x300)
        return false;
    if (cp >= 0x1160 && cp <= 0x11FF)
        return true;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

/* Whether this character alone is known to be unchanged by the form. */
static bool stable(uint32_t cp, int form)
{
    if (cp < 0x80)
        return true;
    bool compose = (form & UTF8PROC_COMPOSE) != 0, compat = (form & UTF8PROC_COMPAT) != 0;
    if (compose && !compat && cp < 0x300)
        return true;
    if (cp >= 0xAC00 && cp <= 0xD7A3)
        return compose;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    return p->decomp_seqindex == UINT16_MAX && p->combining_class == 0;
}

static unsigned combining_class(int32_t cp)
{
    return (unsigned)utf8proc_get_property(cp)->combining_class;
}

/* Canonical order: each run of marks sorted by class, equal classes as they stood. A bucket sort,
 * so that a long run of marks costs no more than its length. */
static int order_marks(int32_t *cp, size_t n, hone_err *e)
{
    for (size_t i = 0; i < n;) {
        size_t from = i, at[257] = {0};
        bool sorted = true;
        unsigned class;
        for (unsigned last = 0; i < n && (class = combining_class(cp[i])) != 0; i++) {
            sorted = sorted && class >= last;
            last = class;
            at[class + 1]++;
        }
        if (!sorted) {
            int32_t *copy = mem_try((i - from) * sizeof *copy);
            if (copy == NULL)
                return hone_fail(e, HONE_ENOMEM, "no memory for %zu marks in a row", i - from);
            memcpy(copy, cp + from, (i - from) * sizeof *copy);
            for (unsigned k = 1; k < 257; k++)
                at[k] += at[k - 1];
            for (size_t k = 0; k < i - from; k++)
                cp[from + at[combining_class(copy[k])]++] = copy[k];
            free(copy);
        }
        i += i < n && i == from;
    }
    return 0;
}

/* Writes the form of s[0..n), one chunk. */
static int write_chunk(tok_work *w, int form, const char *s, size_t n, buf *out, hone_err *e)
{
    size_t have = 0;
    int bound = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += tok_cp(s + i, &cp);
        for (int tries = 0; tries < 2; tries++) {
            utf8proc_ssize_t room = (utf8proc_ssize_t)(w->cap_cps - have);
            utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)cp, w->cps + have, room,
                                                         (utf8proc_option_t)form, &bound);
            if (k < 0)
                return hone_fail(e, HONE_EINTERNAL, "U+%04X has no decomposition: %s", cp,
                                 utf8proc_errmsg(k));
            if (k <= room) {
                have += (size_t)k;
                break;
            }
            int rc = tok_grow(&w->cps, &w->cap_cps, have + (size_t)k, sizeof *w->cps, e);
            if (rc != 0)
                return rc;
        }
    }
    int rc = order_marks(w->cps, have, e);
    if (rc != 0)
        return rc;
    if ((form & UTF8PROC_COMPOSE) != 0)
        have = (size_t)utf8proc_normalize_utf32(w->cps, (utf8proc_ssize_t)have,
                                                (utf8proc_option_t)form);
    for (size_t i = 0; i < have; i++)
        buf_utf8(out, (unsigned)w->cps[i]);
    return 0;
}

/* The end of the chunk that begins at s[i]; *same when it is one character that the form leaves
 * alone. */
static size_t chunk_end(const char *s, size_t n, size_t i, int form, bool *same)
{
    uint32_t cp;
    i += tok_cp(s + i, &cp);
    *same = stable(cp, form);
    while (i < n && (unsigned char)s[i] >= 0xCC) {
        size_t k = tok_cp(s + i, &cp);
        if (!continues_chunk(cp))
            break;
        *same = false;
        i += k;
    }
    return i;
}

/* Bytes at the start of s[0..n) that the form leaves alone for sure, up to a chunk border. */
static size_t plain_bytes(const char *s, size_t n, int form)
{
    bool latin = (form & UTF8PROC_COMPOSE) != 0 && (form & UTF8PROC_COMPAT) == 0;
    unsigned char limit = latin ? 0xCC : 0x80;
    size_t i = 0;
    while (i < n && (unsigned char)s[i] < limit)
        i++;
    if (i == n)
        return n;
    while (i > 0 && ((unsigned char)s[--i] & 0xC0) == 0x80) /* marks belong to the one before */
        ;
    return i;
}

static int run_form(const tok_norm *op, tok_work *w, tok_text *out, tok_view *view, hone_err *e)
{
    const char *s = view->p;
    size_t n = view->len, done = plain_bytes(s, n, op->form);
    if (done == n)
        return 0;
    tok_text_begin(out, view);
    buf_add(&out->bytes, s, done);
    while (done < n) {
        bool same;
        size_t end = chunk_end(s, n, done, op->form, &same), n0 = out->bytes.len;
        int rc = 0;
        if (same)
            buf_add(&out->bytes, s + done, end - done);
        else
            rc = write_chunk(w, op->form, s + done, end - done, &out->bytes, e);
        bool equal = out->bytes.len - n0 == end - done && !out->bytes.failed &&
                     memcmp(out->bytes.data + n0, s + done, end - done) == 0;
        if (rc == 0 && !equal)
            rc = tok_text_edit(out, n0, done, end, e);
        if (rc != 0)
            return rc;
        done = end;
    }
    if (out->map.n == 0 && !out->bytes.failed) /* it was in that form already */
        return 0;
    return tok_text_end(out, view, e);
}

/* ---- the other normalizers ---- */

static int run_prepend(const tok_norm *op, tok_work *w, tok_text *out, tok_view *view, hone_err *e)
{
    (void)w;
    return view->len == 0 ? 0 : tok_text_prefix(out, op->text, view, e);
}

static int run_replace(const tok_norm *op, tok_work *w, tok_text *out, tok_view *view, hone_err *e)
{
    size_t done = 0, a, b;
    int found = tok_match_next(&op->match, w->match, view->p, view->len, 0, &a, &b, e);
    if (found <= 0)
        return found;
    tok_text_begin(out, view);
    while (found > 0) {
        buf_add(&out->bytes, view->p + done, a - done);
        size_t n0 = out->bytes.len;
        buf_str(&out->bytes, op->text);
        int rc = tok_text_edit(out, n0, a, b, e);
        if (rc != 0)
            return rc;
        done = b;
        found = tok_match_next(&op->match, w->match, view->p, view->len, done, &a, &b, e);
    }
    if (found < 0)
        return found;
    buf_add(&out->bytes, view->p + done, view->len - done);
    return tok_text_end(out, view, e);
}

static int run_lowercase(const tok_norm *op, tok_work *w, tok_text *out, tok_view *view,
                         hone_err *e)
{
    (void)op;
    (void)w;
    tok_text_begin(out, view);
    for (size_t i = 0, k; i < view->len; i += k) {
        uint32_t cp;
        size_t n0 = out->bytes.len;
        k = tok_cp(view->p + i, &cp);
        buf_utf8(&out->bytes, (unsigned)utf8proc_tolower((utf8proc_int32_t)cp));
        if (cp == 0x130) /* the one letter whose lower case is two characters */
            buf_utf8(&out->bytes, 0x307);
        if (out->bytes.len - n0 == k)
            continue;
        int rc = tok_text_edit(out, n0, i, i + k, e);
        if (rc != 0)
            return rc;
    }
    return tok_text_end(out, view, e);
}

static int run_strip(const tok_norm *op, tok_work *w, tok_text *out, tok_view *view, hone_err *e)
{
    (void)w;
    (void)out;
    (void)e;
    uint32_t cp;
    while (op->left && view->len > 0) {
        size_t k = tok_cp(view->p, &cp);
        if (!tok_is_space(cp))
            break;
        view->p += k;
        view->len -= k;
        view->at += (uint32_t)k;
    }
    while (op->right && view->len > 0) {
        size_t k = 1;
        while (((unsigned char)view->p[view->len - k] & 0xC0) == 0x80)
            k++;
        tok_cp(view->p + view->len - k, &cp);
        if (!tok_is_space(cp))
            break;
        view->len -= k;
    }
    return 0;
}

/* ---- loading ---- */

static const char *const form_keys[] = {"type", NULL};

static int load_form(tok_norm *op, const json_t *o, hone_err *e)
{
    static const struct {
        const char *type;
        int form;
    } forms[] = {
        {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
        {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
        {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE},
        {"NFKD", UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (strcmp(forms[i].type, tok_type(o)) == 0)
            op->form = forms[i].form;
    op->run = run_form;
    return js_only_keys(o, form_keys, e);
}

static int load_lowercase(tok_norm *op, const json_t *o, hone_err *e)
{
    op->run = run_lowercase;
    return js_only_keys(o, form_keys, e);
}

static int load_prepend(tok_norm *op, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "prepend", NULL};
    const char *text = NULL;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_get_str(o, "prepend", &text, e);
    op->run = run_prepend;
    op->text = mem_strdup(text);
    return rc;
}

static int load_replace(tok_norm *op, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "pattern", "content", NULL};
    const char *text = NULL;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_get_str(o, "content", &text, e);
    if (rc == 0)
        rc = tok_match_load(&op->match, json_object_get(o, "pattern"), e);
    op->run = run_replace;
    op->text = mem_strdup(text);
    return rc;
}

static int load_strip(tok_norm *op, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "strip_left", "strip_right", NULL};
    op->left = op->right = true;
    op->run = run_strip;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_opt_bool(o, "strip_left", &op->left, e);
    return rc != 0 ? rc : js_opt_bool(o, "strip_right", &op->right, e);
}

static int load_one(tok_norms *list, const json_t *o, hone_err *e)
{
    static const struct {
        const char *type;
        int (*load)(tok_norm *op, const json_t *o, hone_err *e);
    } kinds[] = {
        {"NFC", load_form},
        {"NFD", load_form},
        {"NFKC", load_form},
        {"NFKD", load_form},
        {"Prepend", load_prepend},
        {"Replace", load_replace},
        {"Lowercase", load_lowercase},
        {"Strip", load_strip},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].type, tok_type(o)) != 0)
            continue;
        if (list->n == TOK_MAX_OPS)
            return hone_fail(e, HONE_ELIMIT, "normalizer of more than %d steps", TOK_MAX_OPS);
        int rc = kinds[i].load(&list->op[list->n++], o, e);
        return rc == 0 ? 0 : hone_fail_at(e, "normalizer '%s'", kinds[i].type);
    }
    return tok_refuse("normalizer", o, e);
}

int tok_norm_load(tok_norms *list, const json_t *o, hone_err *e)
{
    if (o == NULL || json_is_null(o))
        return 0;
    if (strcmp(tok_type(o), "Sequence") != 0)
        return load_one(list, o, e);
    json_t *parts = NULL;
    int rc = js_get_array(o, "normalizers", &parts, e);
    for (size_t i = 0; rc == 0 && i < json_array_size(parts); i++)
        rc = tok_norm_load(list, json_array_get(parts, i), e);
    return rc;
}

void tok_norm_free(tok_norms *list)
{
    for (size_t i = 0; i < list->n; i++) {
        tok_match_free(&list->op[i].match);
        free(list->op[i].text);
    }
    list->n = 0;
}

int tok_norm_run(const tok_norms *list, tok_work *w, tok_view *view, hone_err *e)
{
    for (size_t i = 0; i < list->n; i++) {
        int rc = list->op[i].run(&list->op[i], w, &w->norm[i], view, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}
