/* Values: making them, Python's truth, equality, order, length and membership, and JSON in with its
 * origin. */
#include "core/base/mem.h"
#include "core/text/jinja_int.h"

#include <math.h>
#include <string.h>

jval jval_bool(bool b)
{
    return (jval){.kind = J_BOOL, .b = b};
}

jval jval_int(int64_t i)
{
    return (jval){.kind = J_INT, .i = i};
}

jval jval_float(double f)
{
    return (jval){.kind = J_FLOAT, .f = f};
}

jval jval_str(const jstr *s)
{
    jval v = {.kind = J_STR};
    memcpy(&v.s, &s, sizeof s); /* values are not written through */
    return v;
}

static const char *const type_names[J_KINDS] = {
    [J_MISSING] = "missing", [J_UNDEF] = "Undefined", [J_NONE] = "NoneType",
    [J_BOOL] = "bool",       [J_INT] = "int",         [J_FLOAT] = "float",
    [J_STR] = "str",         [J_LIST] = "list",       [J_TUPLE] = "tuple",
    [J_DICT] = "dict",       [J_RANGE] = "range",     [J_ITER] = "generator",
    [J_VIEW] = "dict_items", [J_NS] = "namespace",    [J_LOOP] = "LoopContext",
    [J_FUNC] = "function",   [J_SLICE] = "slice",
};

const char *jval_type(jval v)
{
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    if (v.kind == J_VIEW)
        return views[v.view->what];
    return v.kind == J_ITER ? v.gen->type : type_names[v.kind];
}

int jval_undef(jrt *r, const char *type, jval name, jval *out)
{
    *out = (jval){.kind = J_UNDEF};
    int rc = jrt_alloc(r, sizeof *out->undef, &out->undef);
    if (rc == 0)
        *out->undef = (jundef){.type = type, .name = name};
    return rc;
}

int jval_undef_hint(jrt *r, const char *hint, jval *out)
{
    int rc = jval_undef(r, NULL, J_NIL, out);
    if (rc == 0)
        out->undef->hint = hint;
    return rc;
}

int jval_undef_fail(jrt *r, jval v)
{
    const jundef *u = v.undef;
    if (u->hint != NULL)
        return jrt_fail(r, "%s", u->hint);
    jbuf b = {0};
    int rc = jprint_repr(r, &b, u->name);
    if (rc == 0)
        rc = jbuf_add(r, &b, "", 1, (jtag){0});
    if (rc != 0)
        return rc;
    if (u->type == NULL)
        return jrt_fail(r, "%s is undefined", b.p);
    if (u->name.kind != J_STR)
        return jrt_fail(r, "%s%s has no element %s", u->type,
                        strcmp(u->type, "None") == 0 ? "" : " object", b.p);
    return jrt_fail(r, "'%s%s' has no attribute %s", u->type,
                    strcmp(u->type, "None") == 0 ? "" : " object", b.p);
}

bool jval_is_num(jval v)
{
    return v.kind == J_BOOL || v.kind == J_INT || v.kind == J_FLOAT;
}

double jval_num(jval v)
{
    return v.kind == J_FLOAT ? v.f : v.kind == J_INT ? (double)v.i : (double)v.b;
}

static size_t view_len(jval v)
{
    return v.view->dict->n;
}

bool jval_true(jval v)
{
    switch (v.kind) {
    case J_MISSING:
    case J_UNDEF:
    case J_NONE:
        return false;
    case J_BOOL:
        return v.b;
    case J_INT:
        return v.i != 0;
    case J_FLOAT:
        return v.f != 0;
    case J_STR:
        return v.s->n > 0;
    case J_LIST:
    case J_TUPLE:
        return v.seq->n > 0;
    case J_DICT:
        return v.dict->n > 0;
    case J_RANGE:
        return v.range->n > 0;
    case J_VIEW:
        return view_len(v) > 0;
    default:
        return true;
    }
}

int jval_seq(jrt *r, jkind kind, size_t n, jval *out)
{
    *out = (jval){.kind = (uint8_t)kind};
    int rc = jrt_alloc(r, sizeof *out->seq, &out->seq);
    if (rc == 0)
        rc = jrt_array(r, n, sizeof *out->seq->v, &out->seq->v);
    if (rc == 0)
        out->seq->n = n;
    return rc;
}

int jval_gen(jrt *r, jval *v, size_t n, const char *type, jval *out)
{
    *out = (jval){.kind = J_ITER};
    int rc = jrt_alloc(r, sizeof *out->gen, &out->gen);
    if (rc == 0)
        *out->gen = (jgen){.v = v, .n = n, .type = type};
    return rc;
}

int jval_func(jrt *r, const jbuiltin *fn, jval self, jval *out)
{
    *out = (jval){.kind = J_FUNC};
    int rc = jrt_alloc(r, sizeof *out->func, &out->func);
    if (rc == 0)
        *out->func = (jfunc){.fn = fn, .self = self};
    return rc;
}

int jval_to_int(jrt *r, jval v, const char *what, int64_t *out)
{
    if (v.kind == J_UNDEF)
        return jval_undef_fail(r, v);
    if (v.kind != J_INT && v.kind != J_BOOL)
        return jrt_fail(r, "%s must be an integer, not %s", what, jval_type(v));
    *out = v.kind == J_INT ? v.i : v.b;
    return 0;
}

/* ---- equality and order ---- */

static bool num_eq(jval a, jval b)
{
    if (a.kind != J_FLOAT && b.kind != J_FLOAT)
        return (a.kind == J_INT ? a.i : a.b) == (b.kind == J_INT ? b.i : b.b);
    return jval_num(a) == jval_num(b);
}

static int deeper(jrt *r)
{
    if (++r->depth > r->max_depth)
        return jrt_fail_code(r, HONE_ELIMIT, "values nest deeper than %d", r->max_depth);
    return 0;
}

static int seq_eq(jrt *r, const jseq *a, const jseq *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        int rc = jval_eq(r, a->v[i], b->v[i], out);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int dict_eq(jrt *r, const jdict *a, const jdict *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        jval *other;
        int rc = jdict_get(r, b, a->e[i].key, &other);
        if (rc == 0 && other == NULL)
            *out = false;
        else if (rc == 0)
            rc = jval_eq(r, a->e[i].val, *other, out);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static bool range_eq(const jrange *a, const jrange *b)
{
    return a->n == b->n &&
           (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

int jval_eq(jrt *r, jval a, jval b, bool *out)
{
    int rc = jrt_steps(r, 1);
    *out = false;
    if (rc != 0)
        return rc;
    if (jval_is_num(a) && jval_is_num(b)) {
        *out = num_eq(a, b);
        return 0;
    }
    if (a.kind != b.kind)
        return 0;
    switch (a.kind) {
    case J_UNDEF:
    case J_NONE:
        *out = true;
        return 0;
    case J_STR:
        *out = a.s->n == b.s->n && (a.s->p == b.s->p || memcmp(a.s->p, b.s->p, a.s->n) == 0);
        return jrt_steps(r, a.s->n == b.s->n ? a.s->n / 64 : 0);
    case J_LIST:
    case J_TUPLE:
        rc = deeper(r);
        if (rc == 0)
            rc = seq_eq(r, a.seq, b.seq, out);
        break;
    case J_DICT:
        rc = deeper(r);
        if (rc == 0)
            rc = dict_eq(r, a.dict, b.dict, out);
        break;
    case J_RANGE:
        *out = range_eq(a.range, b.range);
        return 0;
    default:
        *out = a.gen == b.gen; /* the same object */
        return 0;
    }
    r->depth--;
    return rc;
}

static int seq_less(jrt *r, const jseq *a, const jseq *b, const char *op, bool *out)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        int rc = jval_eq(r, a->v[i], b->v[i], &same);
        if (rc != 0 || !same)
            return rc != 0 ? rc : jval_less(r, a->v[i], b->v[i], op, out);
    }
    *out = a->n < b->n;
    return 0;
}

int jval_less(jrt *r, jval a, jval b, const char *op, bool *out)
{
    *out = false;
    if (a.kind == J_UNDEF || b.kind == J_UNDEF)
        return jval_undef_fail(r, a.kind == J_UNDEF ? a : b);
    if (jval_is_num(a) && jval_is_num(b)) {
        *out = a.kind == J_INT && b.kind == J_INT ? a.i < b.i : jval_num(a) < jval_num(b);
        return jrt_steps(r, 1);
    }
    if (a.kind == J_STR &&
        b.kind == J_STR) { /* the order of UTF-8 bytes is the order of code points */
        size_t n = a.s->n < b.s->n ? a.s->n : b.s->n;
        int c = n > 0 ? memcmp(a.s->p, b.s->p, n) : 0;
        *out = c < 0 || (c == 0 && a.s->n < b.s->n);
        return jrt_steps(r, 1 + n / 64);
    }
    if ((a.kind == J_LIST || a.kind == J_TUPLE) && a.kind == b.kind) {
        int rc = deeper(r);
        if (rc == 0)
            rc = seq_less(r, a.seq, b.seq, op, out);
        r->depth--;
        return rc;
    }
    return jrt_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, jval_type(a),
                    jval_type(b));
}

int jval_len(jrt *r, jval v, int64_t *out)
{
    size_t n;
    switch (v.kind) {
    case J_UNDEF:
        n = 0;
        break;
    case J_STR:
        n = jstr_chars(v.s);
        break;
    case J_LIST:
    case J_TUPLE:
        n = v.seq->n;
        break;
    case J_DICT:
        n = v.dict->n;
        break;
    case J_RANGE:
        n = v.range->n;
        break;
    case J_VIEW:
        n = view_len(v);
        break;
    default:
        return jrt_fail(r, "object of type '%s' has no len()", jval_type(v));
    }
    *out = (int64_t)n;
    return 0;
}

static int in_items(jrt *r, jval needle, jval hay, bool *out)
{
    jiter it;
    jval item;
    int rc = jiter_open(r, hay, &it);
    if (rc != 0)
        return jrt_fail(r, "argument of type '%s' is not iterable", jval_type(hay));
    while ((rc = jiter_next(r, &it, &item)) == 1) {
        rc = jval_eq(r, needle, item, out);
        if (rc != 0 || *out)
            return rc;
    }
    return rc;
}

int jval_in(jrt *r, jval needle, jval hay, bool *out)
{
    *out = false;
    if (hay.kind == J_STR) {
        if (needle.kind != J_STR)
            return jrt_fail(r, "'in <string>' requires string as left operand, not %s",
                            jval_type(needle));
        size_t at;
        int rc = jstr_find(r, hay.s, needle.s->p, needle.s->n, 0, &at);
        *out = rc == 0 && at != SIZE_MAX;
        return rc;
    }
    if (hay.kind == J_DICT || (hay.kind == J_VIEW && hay.view->what == JVIEW_KEYS)) {
        jval *found;
        int rc = jdict_get(r, hay.kind == J_DICT ? hay.dict : hay.view->dict, needle, &found);
        *out = rc == 0 && found != NULL;
        return rc;
    }
    return in_items(r, needle, hay, out);
}

/* ---- JSON in ---- */

static int from_string(jrt *r, const json_t *j, int32_t msg, jval *out)
{
    /* The caller keeps the context alive while the template renders. */
    return jstr_view(r, json_string_value(j), json_string_length(j), (jtag){.msg = msg}, out);
}

static int from_array(jrt *r, const json_t *j, int32_t msg, jval *out)
{
    int rc = jval_seq(r, J_LIST, json_array_size(j), out);
    for (size_t i = 0; rc == 0 && i < out->seq->n; i++)
        rc = jval_from_json(r, json_array_get(j, i), msg, &out->seq->v[i]);
    out->msg = msg;
    return rc;
}

/* `top`: j is messages[msg - 1] itself; its keys and its role are not the message's words. */
static int from_object(jrt *r, const json_t *j, int32_t msg, bool top, jval *out)
{
    *out = (jval){.kind = J_DICT, .msg = top ? 0 : msg};
    int rc = jdict_new(r, json_object_size(j), &out->dict);
    for (void *it = json_object_iter((json_t *)j); rc == 0 && it != NULL;
         it = json_object_iter_next((json_t *)j, it)) {
        const char *name = json_object_iter_key(it);
        jval key, val;
        rc = jstr_view(r, name, json_object_iter_key_len(it), (jtag){.msg = top ? 0 : msg}, &key);
        bool role = top && strcmp(name, "role") == 0;
        if (rc == 0)
            rc = jval_from_json(r, json_object_iter_value(it), role ? 0 : msg, &val);
        if (rc == 0)
            rc = jdict_put(r, out->dict, key, val);
    }
    return rc;
}

int jval_from_json(jrt *r, const json_t *j, int32_t msg, jval *out)
{
    int rc = deeper(r);
    if (rc != 0)
        return rc;
    *out = (jval){.kind = J_NONE, .msg = msg};
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        rc = from_object(r, j, msg, false, out);
        break;
    case JSON_ARRAY:
        rc = from_array(r, j, msg, out);
        break;
    case JSON_STRING:
        rc = from_string(r, j, msg, out);
        break;
    case JSON_INTEGER:
        *out = (jval){.kind = J_INT, .msg = msg, .i = json_integer_value(j)};
        break;
    case JSON_REAL:
        *out = (jval){.kind = J_FLOAT, .msg = msg, .f = json_real_value(j)};
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = (jval){.kind = J_BOOL, .msg = msg, .b = json_is_true(j)};
        break;
    case JSON_NULL:
        break;
    }
    r->depth--;
    return rc;
}

int jval_messages(jrt *r, const json_t *j, jval *out)
{
    if (!json_is_array(j))
        return jval_from_json(r, j, 0, out);
    int rc = jval_seq(r, J_LIST, json_array_size(j), out);
    for (size_t i = 0; rc == 0 && i < out->seq->n; i++) {
        const json_t *m = json_array_get(j, i);
        int32_t msg = (int32_t)i + 1;
        rc = json_is_object(m) ? from_object(r, m, msg, true, &out->seq->v[i])
                               : jval_from_json(r, m, msg, &out->seq->v[i]);
    }
    return rc;
}
