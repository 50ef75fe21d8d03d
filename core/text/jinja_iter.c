/* Walking over values, and what follows '.' and '[': Python's attribute first for '.', the item
 * first for '['. */
#include "core/base/utf8.h"
#include "core/text/jinja_int.h"

#include <stdio.h>
#include <string.h>

int jiter_open(jrt *r, jval v, jiter *it)
{
    *it = (jiter){.v = v};
    if (v.kind == J_UNDEF || v.kind == J_STR || (v.kind >= J_LIST && v.kind <= J_VIEW))
        return 0;
    return jrt_fail(r, "'%s' object is not iterable", jval_type(v));
}

static int next_char(jrt *r, jiter *it, jval *out)
{
    const jstr *s = it->v.s;
    uint32_t c;
    if (it->at >= s->n)
        return 0;
    size_t n = utf8_next(s->p + it->at, s->n - it->at, &c);
    int rc = jstr_slice(r, s, it->at, it->at + n, out);
    it->at += n;
    if (rc == 0)
        out->s->safe = false;
    return rc != 0 ? rc : 1;
}

static int next_entry(jrt *r, jiter *it, const jdict *d, jview_what what, jval *out)
{
    if (it->at >= d->n)
        return 0;
    const jentry *e = &d->e[it->at++];
    if (what != JVIEW_ITEMS) {
        *out = what == JVIEW_KEYS ? e->key : e->val;
        return 1;
    }
    int rc = jval_seq(r, J_TUPLE, 2, out);
    if (rc != 0)
        return rc;
    out->seq->v[0] = e->key;
    out->seq->v[1] = e->val;
    return 1;
}

int jiter_next(jrt *r, jiter *it, jval *out)
{
    jval v = it->v;
    int rc = jrt_steps(r, 1);
    if (rc != 0)
        return rc;
    switch (v.kind) {
    case J_STR:
        return next_char(r, it, out);
    case J_LIST:
    case J_TUPLE:
        if (it->at >= v.seq->n)
            return 0;
        *out = v.seq->v[it->at++];
        return 1;
    case J_DICT:
        return next_entry(r, it, v.dict, JVIEW_KEYS, out);
    case J_VIEW:
        return next_entry(r, it, v.view->dict, v.view->what, out);
    case J_RANGE:
        if (it->at >= v.range->n)
            return 0;
        *out = jval_int(v.range->start + (int64_t)it->at++ * v.range->step);
        return 1;
    case J_ITER:
        if (v.gen->at >= v.gen->n)
            return v.gen->error == NULL ? 0 : hone_fail(r->e, HONE_EFORMAT, "%s", v.gen->error);
        *out = v.gen->v[v.gen->at++];
        return 1;
    default:
        return 0; /* undefined: nothing in it */
    }
}

int jiter_all(jrt *r, jval v, jval **out, size_t *n)
{
    jiter it;
    size_t cap = 0;
    int rc = jiter_open(r, v, &it);
    *n = 0;
    *out = NULL;
    for (jval item; rc == 0 && (rc = jiter_next(r, &it, &item)) == 1; rc = 0) {
        if (*n == cap) {
            jval *wider;
            rc = jrt_array(r, cap = cap * 2 + 8, sizeof *wider, &wider);
            if (rc != 0)
                return rc;
            if (*n > 0)
                memcpy(wider, *out, *n * sizeof *wider);
            *out = wider;
        }
        (*out)[(*n)++] = item;
    }
    return rc;
}

/* ---- attributes ---- */

static const jbuiltin *const methods[J_KINDS] = {
    [J_STR] = jinja_str_methods,   [J_LIST] = jinja_list_methods, [J_TUPLE] = jinja_tuple_methods,
    [J_DICT] = jinja_dict_methods, [J_LOOP] = jinja_loop_methods,
};

static int unsafe(jrt *r, jval obj, const jstr *name, jval *out)
{
    jbuf b = {0};
    const char *parts[] = {"access to attribute '", NULL, "' of '", jval_type(obj),
                           "' object is unsafe."};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < 5; i++)
        rc = i == 1 ? jbuf_add(r, &b, name->p, name->n, (jtag){0})
                    : jbuf_add(r, &b, parts[i], strlen(parts[i]), (jtag){0});
    if (rc == 0)
        rc = jbuf_add(r, &b, "", 1, (jtag){0});
    return rc == 0 ? jval_undef_hint(r, b.p, out) : rc;
}

/* What Python's getattr finds. */
static int attribute(jrt *r, jval obj, const jstr *name, jval *out, bool *found)
{
    *found = true;
    if (obj.kind == J_NS) {
        jval *v;
        int rc = jdict_get(r, obj.dict, jval_str(name), &v);
        *found = v != NULL;
        if (rc == 0 && v != NULL)
            *out = *v;
        return rc;
    }
    if (obj.kind == J_TUPLE && obj.seq->group &&
        (jstr_is(name, "grouper") || jstr_is(name, "list"))) {
        *out = obj.seq->v[jstr_is(name, "list")];
        return 0;
    }
    if (obj.kind == J_LOOP) {
        int rc = jloop_attr(r, obj.loop, name, out, found);
        if (rc != 0 || *found)
            return rc;
    }
    *found = true;
    if (name->n > 2 && name->p[0] == '_' && name->p[1] == '_')
        return unsafe(r, obj, name, out);
    const jbuiltin *b = methods[obj.kind];
    if (b != NULL)
        b = jbuiltin_find(b, name->p, name->n);
    *found = b != NULL;
    if (b == NULL)
        return 0;
    if (b->fn != NULL)
        return jval_func(r, b, obj, out);
    if (strcmp(b->params, JINJA_UNSAFE) == 0)
        return unsafe(r, obj, name, out);
    return jrt_fail_code(r, HONE_EUNSUPPORTED, "%s.%s is not supported", jval_type(obj), b->name);
}

static int undefined(jrt *r, jval obj, jval name, jval *out)
{
    return jval_undef(r, obj.kind == J_NONE ? "None" : jval_type(obj), name, out);
}

static int dict_item(jrt *r, const jdict *d, jval key, jval *out, bool *found)
{
    jval *v = NULL;
    int rc = key.kind == J_LIST || key.kind == J_DICT ? 0 : jdict_get(r, d, key, &v);
    *found = rc == 0 && v != NULL;
    if (*found)
        *out = *v;
    return rc;
}

static int char_at(jrt *r, jstr *s, int64_t i, jval *out)
{
    size_t from = jstr_offset(s, (size_t)i), to = from + 1;
    while (to < s->n && (s->p[to] & 0xC0) == 0x80)
        to++;
    int rc = jrt_steps(r, jstr_chars(s) == s->n ? 1 : 1 + from / 64);
    return rc == 0 ? jstr_slice(r, s, from, to, out) : rc;
}

/* obj[key] where Python finds it; *found false where it raises a LookupError or TypeError. */
static int item(jrt *r, jval obj, jval key, jval *out, bool *found)
{
    int64_t n, i = key.kind == J_INT ? key.i : key.kind == J_BOOL ? key.b : 0;
    *found = false;
    if (obj.kind == J_DICT)
        return dict_item(r, obj.dict, key, out, found);
    if ((key.kind != J_INT && key.kind != J_BOOL) || obj.kind < J_STR || obj.kind > J_RANGE)
        return 0;
    int rc = jval_len(r, obj, &n);
    if (i < 0)
        i += n;
    if (rc != 0 || i < 0 || i >= n)
        return rc;
    *found = true;
    if (obj.kind == J_STR)
        return char_at(r, obj.s, i, out);
    *out = obj.kind == J_RANGE ? jval_int(obj.range->start + i * obj.range->step) : obj.seq->v[i];
    return 0;
}

int jget_attr(jrt *r, jval obj, const jstr *name, jval *out)
{
    bool found;
    if (obj.kind == J_UNDEF)
        return jval_undef_fail(r, obj);
    int rc = attribute(r, obj, name, out, &found);
    if (rc == 0 && !found)
        rc = item(r, obj, jval_str(name), out, &found);
    if (rc == 0 && !found)
        rc = undefined(r, obj, jval_str(name), out);
    return rc;
}

/* One bound of a slice: counted from the end when negative, held within [low, high]. */
static int slice_bound(jrt *r, jval given, int64_t n, int64_t low, int64_t high, int64_t *out)
{
    int64_t v;
    if (given.kind == J_NONE)
        return 0;
    int rc = jval_to_int(r, given, "slice indices", &v);
    if (rc == 0 && v < 0)
        v = v < -n ? low : v + n;
    if (rc == 0)
        *out = v < low ? low : v > high ? high : v;
    return rc;
}

/* Python's slice.indices: where to start, how many, how far apart. */
static int slice_bounds(jrt *r, const jslice *s, int64_t n, int64_t *start, int64_t *count,
                        int64_t *step)
{
    int rc = 0;
    *step = 1;
    if (s->step.kind != J_NONE)
        rc = jval_to_int(r, s->step, "slice indices", step);
    if (rc == 0 && *step == 0)
        rc = jrt_fail(r, "slice step cannot be zero");
    if (rc != 0)
        return rc;
    bool back = *step < 0;
    if (*step < -n - 1 || *step > n + 1) /* as far as the end */
        *step = back ? -n - 1 : n + 1;
    int64_t low = back ? -1 : 0, high = back ? n - 1 : n, stop = back ? low : high;
    *start = back ? high : low;
    rc = slice_bound(r, s->start, n, low, high, start);
    if (rc == 0)
        rc = slice_bound(r, s->stop, n, low, high, &stop);
    int64_t span = back ? *start - stop : stop - *start, by = back ? -*step : *step;
    *count = span <= 0 ? 0 : (span - 1) / by + 1;
    return rc;
}

static int slice_str(jrt *r, jstr *s, int64_t start, int64_t count, int64_t step, jval *out)
{
    if (step == 1) {
        size_t from = jstr_offset(s, (size_t)start);
        size_t to = jstr_offset(s, (size_t)(start + count));
        int rc = jrt_steps(r, to / 64);
        return rc != 0 ? rc : jstr_slice(r, s, from, count == 0 ? from : to, out);
    }
    /* Offsets of all characters once, then pick. */
    size_t n = jstr_chars(s), *at, k = 0;
    jbuf b = {0};
    int rc = jrt_array(r, n + 1, sizeof *at, &at);
    for (size_t i = 0; rc == 0 && i < s->n; i++)
        if ((s->p[i] & 0xC0) != 0x80)
            at[k++] = i;
    if (rc == 0)
        at[n] = s->n;
    for (int64_t i = start; rc == 0 && count > 0; i += step, count--)
        rc = jbuf_str(r, &b, s, at[i], at[i + 1]);
    return rc != 0 ? rc : jbuf_done(r, &b, out);
}

static int get_slice(jrt *r, jval obj, const jslice *s, jval *out)
{
    int64_t n, start, count, step;
    if (obj.kind == J_UNDEF)
        return jval_undef_fail(r, obj);
    if (obj.kind == J_DICT)
        return jrt_fail(r, "unhashable type: 'slice'");
    if (obj.kind == J_RANGE)
        return jrt_fail_code(r, HONE_EUNSUPPORTED,
                             "a slice of a range is not supported; use |list");
    if (obj.kind != J_STR && obj.kind != J_LIST && obj.kind != J_TUPLE)
        return jrt_fail(r, "'%s' object is not subscriptable", jval_type(obj));
    int rc = jval_len(r, obj, &n);
    if (rc == 0)
        rc = slice_bounds(r, s, n, &start, &count, &step);
    if (rc == 0 && obj.kind == J_STR)
        return slice_str(r, obj.s, start, count, step, out);
    if (rc == 0)
        rc = jval_seq(r, (jkind)obj.kind, (size_t)count, out);
    for (int64_t i = 0; rc == 0 && i < count; i++)
        out->seq->v[i] = obj.seq->v[start + i * step];
    out->msg = obj.msg;
    return rc;
}

int jget_item(jrt *r, jval obj, jval key, jval *out)
{
    bool found;
    if (key.kind == J_SLICE)
        return get_slice(r, obj, key.slice, out);
    if (obj.kind == J_UNDEF)
        return jval_undef_fail(r, obj);
    int rc = item(r, obj, key, out, &found);
    if (rc == 0 && !found && key.kind == J_STR)
        rc = attribute(r, obj, key.s, out, &found);
    if (rc == 0 && !found)
        rc = undefined(r, obj, key, out);
    return rc;
}

static bool all_digits(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && p[i] >= '0' && p[i] <= '9')
        i++;
    return n > 0 && i == n;
}

int jget_path(jrt *r, jval obj, jval path, jval *out)
{
    *out = obj;
    if (path.kind == J_NONE || path.kind == J_MISSING)
        return 0;
    if (path.kind != J_STR)
        return jget_item(r, obj, path, out);
    const jstr *s = path.s;
    for (size_t from = 0, to; from <= s->n; from = to + 1) {
        const char *dot = memchr(s->p + from, '.', s->n - from);
        to = dot == NULL ? s->n : (size_t)(dot - s->p);
        jval key;
        int64_t i;
        int rc = jstr_slice(r, s, from, to, &key);
        if (rc == 0 && all_digits(s->p + from, to - from) &&
            jtext_int(s->p + from, to - from, 10, &i) == 0)
            key = jval_int(i);
        if (rc == 0)
            rc = jget_item(r, *out, key, out);
        if (rc != 0)
            return rc;
    }
    return 0;
}
