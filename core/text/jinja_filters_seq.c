/* Filters on sequences. map, select and their kin give a generator, as in Jinja: always true, and
 * empty once taken. Its items are made at once, but an error in making them shows only where Python
 * would meet it, when the items before it have been taken. */
#include "core/text/jinja_int.h"

#include <string.h>

/* The items that came before status rc, as a generator. */
static int to_gen(jrt *r, int rc, jval *v, size_t n, jval *out)
{
    if (rc != 0 && rc != HONE_EFORMAT)
        return rc;
    char *error = NULL;
    if (rc != 0) {
        size_t len = strlen(r->e->msg);
        rc = jrt_alloc(r, len + 1, &error);
        if (rc == 0)
            memcpy(error, r->e->msg, len);
        *r->e = (hone_err){0};
    }
    if (rc == 0)
        rc = jval_gen(r, v, n, "generator", out);
    if (rc == 0)
        out->gen->error = error;
    return rc;
}

static int lower_key(jrt *r, bool case_sensitive, jval *v)
{
    return case_sensitive || v->kind != J_STR ? 0 : jchar_text(r, v->s, JTEXT_LOWER, v);
}

/* ---- sorting ---- */

/* Merges the sorted halves [lo, mid) and [mid, hi) of `order`. */
static int merge(jrt *r, const jval *keys, size_t *order, size_t *tmp, size_t lo, size_t mid,
                 size_t hi, bool reverse)
{
    size_t a = lo, b = mid, k = lo;
    while (a < mid && b < hi) {
        bool second;
        jval x = keys[order[a]], y = keys[order[b]];
        int rc = jval_less(r, reverse ? x : y, reverse ? y : x, "<", &second);
        if (rc != 0)
            return rc;
        tmp[k++] = second ? order[b++] : order[a++];
    }
    while (a < mid)
        tmp[k++] = order[a++];
    while (b < hi)
        tmp[k++] = order[b++];
    memcpy(order + lo, tmp + lo, (hi - lo) * sizeof *order);
    return 0;
}

int jsort(jrt *r, jval *v, const jval *keys, size_t n, bool reverse)
{
    size_t *order, *tmp;
    jval *sorted;
    int rc = jrt_array(r, n, sizeof *order, &order);
    if (rc == 0)
        rc = jrt_array(r, n, sizeof *tmp, &tmp);
    if (rc == 0)
        rc = jrt_array(r, n, sizeof *sorted, &sorted);
    for (size_t i = 0; rc == 0 && i < n; i++)
        order[i] = i;
    for (size_t width = 1; rc == 0 && width < n; width *= 2)
        for (size_t lo = 0; rc == 0 && lo + width < n; lo += 2 * width) {
            size_t hi = lo + 2 * width < n ? lo + 2 * width : n;
            rc = merge(r, keys, order, tmp, lo, lo + width, hi, reverse);
        }
    if (rc != 0 || n == 0)
        return rc;
    for (size_t i = 0; i < n; i++)
        sorted[i] = v[order[i]];
    memcpy(v, sorted, n * sizeof *v);
    return 0;
}

/* The list of an item's attributes "a.b,c", as sort compares them. */
static int sort_key(jrt *r, jval item, jval attribute, bool case_sensitive, jval *out)
{
    static const jstr comma = {.p = ",", .n = 1, .chars = 1};
    jval paths;
    if (attribute.kind == J_STR) {
        int rc = jtext_split(r, attribute.s, &comma, -1, false, &paths);
        if (rc != 0)
            return rc;
    } else {
        int rc = jval_seq(r, J_LIST, 1, &paths);
        if (rc != 0)
            return rc;
        paths.seq->v[0] = attribute;
    }
    int rc = jval_seq(r, J_LIST, paths.seq->n, out);
    for (size_t i = 0; rc == 0 && i < paths.seq->n; i++) {
        rc = jget_path(r, item, paths.seq->v[i], &out->seq->v[i]);
        if (rc == 0)
            rc = lower_key(r, case_sensitive, &out->seq->v[i]);
    }
    return rc;
}

static int f_sort(jrt *r, jval self, const jcall *c, jval *out)
{
    jval *v, *keys;
    size_t n;
    int rc = jiter_all(r, self, &v, &n);
    if (rc == 0)
        rc = jrt_array(r, n, sizeof *keys, &keys);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = sort_key(r, v[i], c->v[2], jval_true(c->v[1]), &keys[i]);
    if (rc == 0)
        rc = jsort(r, v, keys, n, jval_true(c->v[0]));
    if (rc == 0)
        rc = jval_seq(r, J_LIST, 0, out);
    if (rc == 0)
        *out->seq = (jseq){.v = v, .n = n};
    return rc;
}

static int f_dictsort(jrt *r, jval self, const jcall *c, jval *out)
{
    bool case_sensitive = jval_true(c->v[0]), by_value = false;
    if (self.kind == J_UNDEF)
        return jval_undef_fail(r, self);
    if (self.kind != J_DICT)
        return jrt_fail(r, "'%s' object has no attribute 'items'", jval_type(self));
    if (c->v[1].kind != J_MISSING) {
        by_value = c->v[1].kind == J_STR && jstr_is(c->v[1].s, "value");
        if (!by_value && (c->v[1].kind != J_STR || !jstr_is(c->v[1].s, "key")))
            return jrt_fail(r, "You can only sort by either \"key\" or \"value\"");
    }
    size_t n = self.dict->n;
    jval *keys;
    int rc = jval_seq(r, J_LIST, n, out);
    if (rc == 0)
        rc = jrt_array(r, n, sizeof *keys, &keys);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = jval_seq(r, J_TUPLE, 2, &out->seq->v[i]);
        if (rc != 0)
            break;
        out->seq->v[i].seq->v[0] = self.dict->e[i].key;
        out->seq->v[i].seq->v[1] = self.dict->e[i].val;
        keys[i] = by_value ? self.dict->e[i].val : self.dict->e[i].key;
        rc = lower_key(r, case_sensitive, &keys[i]);
    }
    return rc == 0 ? jsort(r, out->seq->v, keys, n, jval_true(c->v[2])) : rc;
}

static int min_or_max(jrt *r, jval self, const jcall *c, bool max, jval *out)
{
    jiter it;
    jval item, key, best_key = {0};
    int rc = jiter_open(r, self, &it);
    while (rc == 0 && (rc = jiter_next(r, &it, &item)) == 1) {
        bool better = best_key.kind == J_MISSING;
        rc = jget_path(r, item, c->v[1], &key);
        if (rc == 0)
            rc = lower_key(r, jval_true(c->v[0]), &key);
        if (rc == 0 && !better)
            rc = jval_less(r, max ? best_key : key, max ? key : best_key, max ? ">" : "<", &better);
        if (rc == 0 && better) {
            *out = item;
            best_key = key;
        }
    }
    if (rc == 0 && best_key.kind == J_MISSING)
        return jval_undef_hint(r, "No aggregated item, sequence was empty.", out);
    return rc;
}

static int f_min(jrt *r, jval self, const jcall *c, jval *out)
{
    return min_or_max(r, self, c, false, out);
}

static int f_max(jrt *r, jval self, const jcall *c, jval *out)
{
    return min_or_max(r, self, c, true, out);
}

/* (grouper, list) of v[0..n), whose keys are `key`. */
static int make_group(jrt *r, jval *v, size_t n, jval key, const jcall *c, jval *out)
{
    jval own = key;
    bool exact = jval_true(c->v[2]);
    int rc = exact ? 0 : jget_path(r, v[0], c->v[0], &own); /* the first item's own spelling */
    if (rc == 0)
        rc = jval_seq(r, J_TUPLE, 2, out);
    if (rc == 0)
        rc = jval_seq(r, J_LIST, 0, &out->seq->v[1]);
    if (rc != 0)
        return rc;
    out->seq->group = true;
    out->seq->v[0] = own.kind == J_UNDEF ? key : own;
    *out->seq->v[1].seq = (jseq){.v = v, .n = n};
    return 0;
}

static int group_key(jrt *r, jval item, const jcall *c, jval *out)
{
    int rc = jget_path(r, item, c->v[0], out);
    if (rc == 0 && out->kind == J_UNDEF && c->v[1].kind != J_MISSING && c->v[1].kind != J_NONE)
        *out = c->v[1];
    return rc == 0 ? lower_key(r, jval_true(c->v[2]), out) : rc;
}

static int f_groupby(jrt *r, jval self, const jcall *c, jval *out)
{
    jval *v, *keys;
    size_t n, groups = 0, end;
    int rc = jiter_all(r, self, &v, &n);
    if (rc == 0)
        rc = jrt_array(r, n, sizeof *keys, &keys);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = group_key(r, v[i], c, &keys[i]);
    if (rc == 0)
        rc = jsort(r, v, keys, n, false);
    if (rc == 0)
        rc = jsort(r, keys, keys, n, false);
    if (rc == 0)
        rc = jval_seq(r, J_LIST, n, out);
    for (size_t i = 0; rc == 0 && i < n; i = end) {
        bool same = true;
        for (end = i + 1; rc == 0 && end < n; end++) {
            rc = jval_eq(r, keys[i], keys[end], &same);
            if (!same)
                break;
        }
        if (rc == 0)
            rc = make_group(r, v + i, end - i, keys[i], c, &out->seq->v[groups++]);
    }
    if (rc == 0)
        out->seq->n = groups;
    return rc;
}

/* ---- picking ---- */

static int f_first(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    jiter it;
    int rc = jiter_open(r, self, &it);
    if (rc == 0)
        rc = jiter_next(r, &it, out);
    else
        return rc;
    if (rc == 0)
        return jval_undef_hint(r, "No first item, sequence was empty.", out);
    return rc == 1 ? 0 : rc;
}

static int f_last(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    jval *v;
    size_t n;
    if (self.kind == J_ITER || self.kind == J_NS)
        return jrt_fail(r, "'%s' object is not reversible", jval_type(self));
    if (self.kind == J_STR && self.s->n > 0)
        return jget_item(r, self, jval_int(-1), out);
    int rc = jiter_all(r, self, &v, &n);
    if (rc == 0 && n == 0)
        return jval_undef_hint(r, "No last item, sequence was empty.", out);
    if (rc == 0)
        *out = v[n - 1];
    return rc;
}

static int f_list(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    int rc = jval_seq(r, J_LIST, 0, out);
    return rc == 0 ? jiter_all(r, self, &out->seq->v, &out->seq->n) : rc;
}

static int f_items(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    jview view = {.dict = self.dict, .what = JVIEW_ITEMS};
    jval *v = NULL;
    size_t n = 0;
    int rc = 0;
    if (self.kind != J_DICT && self.kind != J_UNDEF)
        rc = jrt_fail(r, "Can only get item pairs from a mapping.");
    else if (self.kind == J_DICT)
        rc = jiter_all(r, (jval){.kind = J_VIEW, .view = &view}, &v, &n);
    return to_gen(r, rc, v, n, out);
}

static int f_reverse(jrt *r, jval self, const jcall *c, jval *out)
{
    static const jslice backwards = {{.kind = J_NONE}, {.kind = J_NONE}, {.kind = J_INT, .i = -1}};
    (void)c;
    jval *v;
    size_t n;
    if (self.kind == J_STR)
        return jget_item(r, self, (jval){.kind = J_SLICE, .slice = &backwards}, out);
    int rc = jiter_all(r, self, &v, &n);
    for (size_t i = 0; rc == 0 && i < n / 2; i++) {
        jval tmp = v[i];
        v[i] = v[n - 1 - i];
        v[n - 1 - i] = tmp;
    }
    if (rc == 0 && self.kind != J_ITER)
        return jval_gen(r, v, n, "list_reverseiterator", out);
    if (rc == 0)
        rc = jval_seq(r, J_LIST, 0, out);
    if (rc == 0)
        *out->seq = (jseq){.v = v, .n = n};
    return rc;
}

static int f_unique(jrt *r, jval self, const jcall *c, jval *out)
{
    jval *v, key, *seen;
    jdict *d;
    size_t n, kept = 0;
    int rc = jiter_all(r, self, &v, &n);
    if (rc == 0)
        rc = jdict_new(r, n, &d);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = jget_path(r, v[i], c->v[1], &key);
        if (rc == 0)
            rc = lower_key(r, jval_true(c->v[0]), &key);
        if (rc == 0)
            rc = jdict_get(r, d, key, &seen);
        if (rc != 0 || seen != NULL)
            continue;
        v[kept++] = v[i];
        rc = jdict_put(r, d, key, J_NIL);
    }
    return to_gen(r, rc, v, kept, out);
}

/* ---- lists of lists ---- */

static int part(jrt *r, const jval *v, size_t n, size_t fill, jval with, jval *out)
{
    int rc = jval_seq(r, J_LIST, n + fill, out);
    if (rc != 0)
        return rc;
    if (n > 0)
        memcpy(out->seq->v, v, n * sizeof *v);
    for (size_t i = 0; i < fill; i++)
        out->seq->v[n + i] = with;
    return 0;
}

static bool filled(jval with)
{
    return with.kind != J_MISSING && with.kind != J_NONE;
}

static int count_of(jrt *r, jval v, const char *what, size_t *out)
{
    int64_t n = 0;
    int rc = jval_to_int(r, v, what, &n);
    if (rc == 0 && (n <= 0 || n > JINJA_MAX_RANGE))
        rc = jrt_fail(r, "%s must be from 1 to %d", what, JINJA_MAX_RANGE);
    *out = (size_t)n;
    return rc;
}

static int f_batch(jrt *r, jval self, const jcall *c, jval *out)
{
    jval *v, *rows = NULL;
    size_t n, width, made = 0;
    int rc = jiter_all(r, self, &v, &n);
    if (rc == 0)
        rc = count_of(r, c->v[0], "linecount", &width);
    if (rc == 0)
        rc = jrt_array(r, n / width + 1, sizeof *rows, &rows);
    for (size_t i = 0; rc == 0 && i < n; i += width) {
        size_t have = n - i < width ? n - i : width;
        rc = part(r, v + i, have, filled(c->v[1]) ? width - have : 0, c->v[1], &rows[made++]);
    }
    return to_gen(r, rc, rows, rc == 0 ? made : 0, out);
}

static int f_slice(jrt *r, jval self, const jcall *c, jval *out)
{
    jval *v, *rows = NULL;
    size_t n, at = 0, count = 0;
    int rc = jiter_all(r, self, &v, &n);
    if (rc == 0)
        rc = count_of(r, c->v[0], "slices", &count);
    if (rc == 0)
        rc = jrt_array(r, count, sizeof *rows, &rows);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        size_t extra = n % count, have = n / count + (i < extra);
        rc = part(r, v + at, have, filled(c->v[1]) && i >= extra, c->v[1], &rows[i]);
        at += have;
    }
    return to_gen(r, rc, rows, rc == 0 ? count : 0, out);
}

/* ---- joining ---- */

static int map_path(jrt *r, jval *v, size_t n, jval path)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = jget_path(r, v[i], path, &v[i]);
    return rc;
}

static int f_join(jrt *r, jval self, const jcall *c, jval *out)
{
    jval *v, sep = c->v[0], *copy;
    size_t n;
    int rc = sep.kind == J_MISSING ? jstr_text(r, "", &sep) : jprint_str(r, sep, &sep);
    if (rc == 0)
        rc = jiter_all(r, self, &v, &n);
    if (rc == 0)
        rc = jrt_array(r, n, sizeof *copy, &copy);
    if (rc == 0 && n > 0)
        memcpy(copy, v, n * sizeof *v);
    if (rc == 0)
        rc = map_path(r, copy, n, c->v[1]);
    return rc == 0 ? jtext_join(r, sep.s, copy, n, out) : rc;
}

static int f_sum(jrt *r, jval self, const jcall *c, jval *out)
{
    jiter it;
    jval item;
    jval total = c->v[1].kind == J_MISSING ? jval_int(0) : c->v[1];
    int rc = total.kind == J_STR ? jrt_fail(r, "sum() can't sum strings [use ''.join(seq) instead]")
                                 : jiter_open(r, self, &it);
    while (rc == 0 && (rc = jiter_next(r, &it, &item)) == 1) {
        rc = jget_path(r, item, c->v[0], &item);
        if (rc == 0)
            rc = jop_binary(r, OP_ADD, total, item, &total);
    }
    *out = total;
    return rc;
}

/* ---- map and select ---- */

/* The arguments of map(attribute=..., default=...). */
static int map_arguments(jrt *r, const jcall *c, jval *path, jval *fallback)
{
    *path = *fallback = J_NIL;
    for (size_t i = 0; i < c->n_kw; i++) {
        if (jstr_is(c->kw[i].name, "attribute"))
            *path = c->kw[i].val;
        else if (jstr_is(c->kw[i].name, "default"))
            *fallback = c->kw[i].val;
        else
            return jrt_fail(r, "Unexpected keyword argument '%.*s'", (int)c->kw[i].name->n,
                            c->kw[i].name->p);
    }
    return 0;
}

/* The row named by an argument, and what follows it as the arguments of the row. */
static int named_row(jrt *r, const jcall *c, size_t at, const char *what, const jbuiltin **row,
                     jcall *rest)
{
    jval name = c->pos[at];
    *row = NULL;
    if (name.kind == J_STR)
        *row = *what == 'f' ? jfilter_find(name.s->p, name.s->n)
                            : jbuiltin_find(jinja_tests, name.s->p, name.s->n);
    if (*row == NULL || (*row)->fn == NULL)
        return jrt_fail_code(r, HONE_EUNSUPPORTED, "there is no %s '%.*s'", what,
                             name.kind == J_STR ? (int)name.s->n : 1,
                             name.kind == J_STR ? name.s->p : "?");
    *rest =
        (jcall){.pos = c->pos + at + 1, .n_pos = c->n_pos - at - 1, .kw = c->kw, .n_kw = c->n_kw};
    return 0;
}

static bool has_kw(const jcall *c, const char *name)
{
    for (size_t i = 0; i < c->n_kw; i++)
        if (jstr_is(c->kw[i].name, name))
            return true;
    return false;
}

/* A copy of the items, so that a list of the template is not changed. */
static int items_of(jrt *r, jval self, jval **out, size_t *n)
{
    *n = 0;
    *out = NULL;
    return jval_true(self) ? jiter_all(r, self, out, n) : 0;
}

static int f_map(jrt *r, jval self, const jcall *c, jval *out)
{
    jval *v, path, fallback;
    size_t n, made = 0;
    const jbuiltin *row = NULL;
    jcall rest;
    int rc = items_of(r, self, &v, &n);
    if (rc == 0 && n > 0 && c->n_pos > 0)
        rc = named_row(r, c, 0, "filter", &row, &rest);
    else if (rc == 0 && n > 0)
        rc = has_kw(c, "attribute") ? map_arguments(r, c, &path, &fallback)
                                    : jrt_fail(r, "map requires a filter argument");
    for (size_t i = 0; rc == 0 && i < n; i++) {
        jval item = v[i];
        rc = row != NULL ? jcall_builtin(r, row, item, &rest, &v[i])
                         : jget_path(r, item, path, &v[i]);
        if (row == NULL && v[i].kind == J_UNDEF && fallback.kind != J_NONE)
            v[i] = fallback;
        made += rc == 0;
    }
    return to_gen(r, rc, v, made, out);
}

static int choose(jrt *r, jval self, const jcall *c, bool by_attribute, bool wanted, jval *out)
{
    jval *v, tested;
    size_t n, kept = 0, at = by_attribute;
    const jbuiltin *row = NULL;
    jcall rest;
    int rc = items_of(r, self, &v, &n);
    if (rc == 0 && n > 0 && by_attribute && c->n_pos == 0)
        rc = jrt_fail(r, "Missing parameter for attribute name");
    if (rc == 0 && n > 0 && c->n_pos > at)
        rc = named_row(r, c, at, "test", &row, &rest);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = jget_path(r, v[i], by_attribute ? c->pos[0] : J_NIL, &tested);
        if (rc == 0 && row != NULL)
            rc = jcall_builtin(r, row, tested, &rest, &tested);
        if (rc == 0 && jval_true(tested) == wanted)
            v[kept++] = v[i];
    }
    return to_gen(r, rc, v, kept, out);
}

static int f_select(jrt *r, jval self, const jcall *c, jval *out)
{
    return choose(r, self, c, false, true, out);
}

static int f_reject(jrt *r, jval self, const jcall *c, jval *out)
{
    return choose(r, self, c, false, false, out);
}

static int f_selectattr(jrt *r, jval self, const jcall *c, jval *out)
{
    return choose(r, self, c, true, true, out);
}

static int f_rejectattr(jrt *r, jval self, const jcall *c, jval *out)
{
    return choose(r, self, c, true, false, out);
}

/* clang-format off */
const jbuiltin jinja_seq_filters[] = {
    {"batch",      f_batch,      1, "linecount fill_with"},
    {"dictsort",   f_dictsort,   0, "case_sensitive by reverse"},
    {"first",      f_first,      0, ""},
    {"groupby",    f_groupby,    1, "attribute default case_sensitive"},
    {"items",      f_items,      0, ""},
    {"join",       f_join,       0, "d attribute"},
    {"last",       f_last,       0, ""},
    {"list",       f_list,       0, ""},
    {"map",        f_map,        0, NULL},
    {"max",        f_max,        0, "case_sensitive attribute"},
    {"min",        f_min,        0, "case_sensitive attribute"},
    {"reject",     f_reject,     0, NULL},
    {"rejectattr", f_rejectattr, 0, NULL},
    {"reverse",    f_reverse,    0, ""},
    {"select",     f_select,     0, NULL},
    {"selectattr", f_selectattr, 0, NULL},
    {"slice",      f_slice,      1, "slices fill_with"},
    {"sort",       f_sort,       0, "reverse case_sensitive attribute"},
    {"sum",        f_sum,        0, "attribute start"},
    {"unique",     f_unique,     0, "case_sensitive attribute"},
    {0},
};
/* clang-format on */
