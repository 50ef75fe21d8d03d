/* Values as text: Python's str() and repr(), and json.dumps(). Text made from the words of one
 * message belongs to it as a whole, brackets and quotes included. */
#include "core/base/utf8.h"
#include "core/text/jinja_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int text(jrt *r, jbuf *b, const char *s, jtag tag)
{
    return jbuf_add(r, b, s, strlen(s), tag);
}

static int deeper(jrt *r)
{
    if (++r->depth > r->max_depth)
        return jrt_fail_code(r, HONE_ELIMIT, "values nest deeper than %d", r->max_depth);
    return jrt_steps(r, 1);
}

/* ---- repr ---- */

/* Shortest digits that read back as f; *exponent as in d.ddd * 10^exponent. */
static void shortest(double f, char digits[20], int *exponent)
{
    char s[40];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(s, sizeof s, "%.*e", precision, f);
        if (strtod(s, NULL) == f)
            break;
    }
    char *e = strchr(s, 'e');
    *exponent = (int)strtol(e + 1, NULL, 10);
    size_t n = 0;
    for (char *c = s; c < e; c++)
        if (*c >= '0' && *c <= '9')
            digits[n++] = *c;
    digits[n] = '\0';
}

size_t jprint_float(char *dst, size_t cap, double f)
{
    char d[20];
    int e, n;
    if (!isfinite(f))
        return (size_t)snprintf(dst, cap, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
    shortest(fabs(f), d, &e);
    const char *sign = signbit(f) ? "-" : "";
    int len = (int)strlen(d);
    if (e < -4 || e >= 16)
        n = snprintf(dst, cap, "%s%c%s%se%c%02d", sign, d[0], len > 1 ? "." : "", d + 1,
                     e < 0 ? '-' : '+', abs(e));
    else if (e < 0)
        n = snprintf(dst, cap, "%s0.%.*s%s", sign, -e - 1, "000", d);
    else if (len <= e + 1)
        n = snprintf(dst, cap, "%s%s%.*s.0", sign, d, e + 1 - len, "0000000000000000");
    else
        n = snprintf(dst, cap, "%s%.*s.%s", sign, e + 1, d, d + e + 1);
    return (size_t)n;
}

static int repr_char(jrt *r, jbuf *b, uint32_t c, const char *p, size_t n, char quote, jtag tag)
{
    static const char named[] = "\nn\rr\tt\\\\";
    char s[16];
    for (const char *k = named; *k != '\0'; k += 2)
        if (c == (unsigned char)k[0]) {
            snprintf(s, sizeof s, "\\%c", k[1]);
            return text(r, b, s, tag);
        }
    if (c == (unsigned char)quote)
        snprintf(s, sizeof s, "\\%c", quote);
    else if (jchar_printable(c))
        return jbuf_add(r, b, p, n, tag);
    else
        snprintf(s, sizeof s, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    return text(r, b, s, tag);
}

static int repr_str(jrt *r, jbuf *b, const jstr *s)
{
    jtag tag = jstr_tag(s);
    bool single = memchr(s->p, '\'', s->n) != NULL,
         both = single && memchr(s->p, '"', s->n) != NULL;
    char quote = single && !both ? '"' : '\'';
    int rc = s->safe ? text(r, b, "Markup(", tag) : 0;
    if (rc == 0)
        rc = jbuf_add(r, b, &quote, 1, tag);
    for (size_t i = 0; rc == 0 && i < s->n;) {
        uint32_t c = 0;
        size_t n = utf8_next(s->p + i, s->n - i, &c);
        rc = repr_char(r, b, c, s->p + i, n, quote, tag);
        i += n;
    }
    if (rc == 0)
        rc = jbuf_add(r, b, &quote, 1, tag);
    return rc == 0 && s->safe ? text(r, b, ")", tag) : rc;
}

static int repr_seq(jrt *r, jbuf *b, jval v)
{
    jtag tag = {.msg = v.msg};
    bool tuple = v.kind == J_TUPLE;
    int rc = text(r, b, tuple ? "(" : "[", tag);
    for (size_t i = 0; rc == 0 && i < v.seq->n; i++) {
        if (i > 0)
            rc = text(r, b, ", ", tag);
        if (rc == 0)
            rc = jprint_repr(r, b, v.seq->v[i]);
    }
    if (rc == 0)
        rc = text(r, b, !tuple ? "]" : v.seq->n == 1 ? ",)" : ")", tag);
    return rc;
}

static int repr_dict(jrt *r, jbuf *b, jval v)
{
    jtag tag = {.msg = v.msg};
    int rc = text(r, b, "{", tag);
    for (size_t i = 0; rc == 0 && i < v.dict->n; i++) {
        if (i > 0)
            rc = text(r, b, ", ", tag);
        if (rc == 0)
            rc = jprint_repr(r, b, v.dict->e[i].key);
        if (rc == 0)
            rc = text(r, b, ": ", tag);
        if (rc == 0)
            rc = jprint_repr(r, b, v.dict->e[i].val);
    }
    return rc == 0 ? text(r, b, "}", tag) : rc;
}

static int repr_view(jrt *r, jbuf *b, jval v)
{
    jval items;
    size_t n;
    int rc = jval_seq(r, J_LIST, 0, &items);
    if (rc == 0)
        rc = jiter_all(r, v, &items.seq->v, &n);
    if (rc == 0)
        rc = text(r, b, jval_type(v), (jtag){0});
    if (rc == 0)
        rc = text(r, b, "(", (jtag){0});
    items.seq->n = rc == 0 ? n : 0;
    if (rc == 0)
        rc = jprint_repr(r, b, items);
    return rc == 0 ? text(r, b, ")", (jtag){0}) : rc;
}

static int repr_object(jrt *r, jbuf *b, jval v)
{
    jtag none = {0};
    char s[120];
    if (v.kind == J_RANGE) {
        const jrange *g = v.range;
        snprintf(s, sizeof s, g->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
                 (long long)g->start, (long long)g->stop, (long long)g->step);
        return text(r, b, s, none);
    }
    if (v.kind == J_NS) {
        int rc = text(r, b, "<Namespace ", none);
        v.kind = J_DICT;
        if (rc == 0)
            rc = jprint_repr(r, b, v);
        return rc == 0 ? text(r, b, ">", none) : rc;
    }
    if (v.kind == J_FUNC && v.func->macro != NULL) {
        int rc = text(r, b, "<Macro ", none);
        if (rc == 0)
            rc = repr_str(r, b, v.func->macro->name);
        return rc == 0 ? text(r, b, ">", none) : rc;
    }
    return jrt_fail_code(r, HONE_EUNSUPPORTED, "a %s has no text%s", jval_type(v),
                         v.kind == J_ITER ? "; use |list or |join" : "");
}

int jprint_repr(jrt *r, jbuf *b, jval v)
{
    jtag tag = {.msg = v.msg};
    char s[40];
    int rc = deeper(r);
    if (rc != 0)
        return rc;
    switch (v.kind) {
    case J_UNDEF:
        rc = text(r, b, "Undefined", tag);
        break;
    case J_NONE:
        rc = text(r, b, "None", tag);
        break;
    case J_BOOL:
        rc = text(r, b, v.b ? "True" : "False", tag);
        break;
    case J_INT:
        snprintf(s, sizeof s, "%lld", (long long)v.i);
        rc = text(r, b, s, tag);
        break;
    case J_FLOAT:
        rc = jbuf_add(r, b, s, jprint_float(s, sizeof s, v.f), tag);
        break;
    case J_STR:
        rc = repr_str(r, b, v.s);
        break;
    case J_LIST:
    case J_TUPLE:
        rc = repr_seq(r, b, v);
        break;
    case J_DICT:
        rc = repr_dict(r, b, v);
        break;
    case J_VIEW:
        rc = repr_view(r, b, v);
        break;
    default:
        rc = repr_object(r, b, v);
        break;
    }
    r->depth--;
    return rc;
}

int jprint_str(jrt *r, jval v, jval *out)
{
    if (v.kind == J_STR) {
        *out = v;
        return 0;
    }
    if (v.kind == J_UNDEF)
        return jstr_text(r, "", out);
    jbuf b = {0};
    int rc = jprint_repr(r, &b, v);
    if (rc != 0)
        return rc;
    jbuf_retag(&b);
    return jbuf_done(r, &b, out);
}

/* ---- JSON ---- */

static int json_escape(jrt *r, jbuf *b, uint32_t c, jtag tag)
{
    static const char named[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    char s[16];
    for (const char *k = named; *k != '\0'; k += 2)
        if (c == (unsigned char)k[0]) {
            snprintf(s, sizeof s, "\\%c", k[1]);
            return text(r, b, s, tag);
        }
    if (c < 0x10000)
        snprintf(s, sizeof s, "\\u%04x", c);
    else
        snprintf(s, sizeof s, "\\u%04x\\u%04x", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
    return text(r, b, s, tag);
}

static int json_str(jrt *r, jbuf *b, const jstr *s, bool ascii)
{
    jtag tag = jstr_tag(s);
    size_t done = 0;
    int rc = text(r, b, "\"", tag);
    for (size_t i = 0; rc == 0 && i < s->n;) {
        unsigned char byte = (unsigned char)s->p[i];
        if (byte >= 0x20 && byte != '"' && byte != '\\' && (byte < 0x80 || !ascii)) {
            i++;
            continue;
        }
        uint32_t c = 0;
        size_t n = utf8_next(s->p + i, s->n - i, &c);
        rc = jbuf_add(r, b, s->p + done, i - done, tag);
        if (rc == 0)
            rc = json_escape(r, b, c, tag);
        i += n;
        done = i;
    }
    if (rc == 0)
        rc = jbuf_add(r, b, s->p + done, s->n - done, tag);
    return rc == 0 ? text(r, b, "\"", tag) : rc;
}

static int json_scalar(jrt *r, jbuf *b, jval v)
{
    jtag tag = {.msg = v.msg};
    if (v.kind == J_NONE)
        return text(r, b, "null", tag);
    if (v.kind == J_BOOL)
        return text(r, b, v.b ? "true" : "false", tag);
    if (v.kind == J_FLOAT && !isfinite(v.f))
        return text(r, b, isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity", tag);
    return jprint_repr(r, b, v);
}

typedef struct json_out {
    jrt *r;
    jbuf *b;
    const jjson_style *style;
    size_t level;
} json_out;

static int json_value(json_out *o, jval v);

static int new_line(json_out *o, jtag tag)
{
    int rc = o->style->lines ? text(o->r, o->b, "\n", tag) : 0;
    for (size_t i = 0; rc == 0 && o->style->lines && i < o->level; i++)
        rc = jbuf_add(o->r, o->b, o->style->indent, o->style->n_indent, tag);
    return rc;
}

/* What stands before item i of a container. */
static int json_between(json_out *o, size_t i, jtag tag)
{
    int rc = i > 0 ? jbuf_add(o->r, o->b, o->style->item->p, o->style->item->n, tag) : 0;
    return rc == 0 ? new_line(o, tag) : rc;
}

static int json_list(json_out *o, jval v)
{
    jtag tag = {.msg = v.msg};
    if (v.seq->n == 0)
        return text(o->r, o->b, "[]", tag);
    int rc = text(o->r, o->b, "[", tag);
    o->level++;
    for (size_t i = 0; rc == 0 && i < v.seq->n; i++) {
        rc = json_between(o, i, tag);
        if (rc == 0)
            rc = json_value(o, v.seq->v[i]);
    }
    o->level--;
    if (rc == 0)
        rc = new_line(o, tag);
    return rc == 0 ? text(o->r, o->b, "]", tag) : rc;
}

static int json_key(json_out *o, jval key)
{
    if (key.kind == J_STR)
        return json_str(o->r, o->b, key.s, o->style->ascii);
    if (key.kind != J_NONE && !jval_is_num(key))
        return jrt_fail(o->r, "keys must be str, int, float, bool or None, not %s", jval_type(key));
    jtag tag = {.msg = key.msg};
    int rc = text(o->r, o->b, "\"", tag);
    if (rc == 0)
        rc = json_scalar(o->r, o->b, key);
    return rc == 0 ? text(o->r, o->b, "\"", tag) : rc;
}

static int sorted_keys(jrt *r, const jdict *d, jval **out)
{
    int rc = jrt_array(r, d->n, sizeof **out, out);
    for (size_t i = 0; rc == 0 && i < d->n; i++)
        (*out)[i] = d->e[i].key;
    return rc == 0 ? jsort(r, *out, *out, d->n, false) : rc;
}

static int json_dict(json_out *o, jval v)
{
    jtag tag = {.msg = v.msg};
    jval *keys = NULL;
    if (v.dict->n == 0)
        return text(o->r, o->b, "{}", tag);
    int rc = o->style->sort ? sorted_keys(o->r, v.dict, &keys) : 0;
    if (rc == 0)
        rc = text(o->r, o->b, "{", tag);
    o->level++;
    for (size_t i = 0; rc == 0 && i < v.dict->n; i++) {
        jval key = keys != NULL ? keys[i] : v.dict->e[i].key, *val = &v.dict->e[i].val;
        if (keys != NULL)
            rc = jdict_get(o->r, v.dict, key, &val);
        if (rc == 0)
            rc = json_between(o, i, tag);
        if (rc == 0)
            rc = json_key(o, key);
        if (rc == 0)
            rc = jbuf_add(o->r, o->b, o->style->key->p, o->style->key->n, tag);
        if (rc == 0)
            rc = json_value(o, *val);
    }
    o->level--;
    if (rc == 0)
        rc = new_line(o, tag);
    return rc == 0 ? text(o->r, o->b, "}", tag) : rc;
}

static int json_value(json_out *o, jval v)
{
    int rc = deeper(o->r);
    if (rc != 0)
        return rc;
    if (v.kind == J_STR)
        rc = json_str(o->r, o->b, v.s, o->style->ascii);
    else if (v.kind == J_NONE || jval_is_num(v))
        rc = json_scalar(o->r, o->b, v);
    else if (v.kind == J_LIST || v.kind == J_TUPLE)
        rc = json_list(o, v);
    else if (v.kind == J_DICT)
        rc = json_dict(o, v);
    else
        rc = jrt_fail(o->r, "Object of type %s is not JSON serializable", jval_type(v));
    o->r->depth--;
    return rc;
}

int jprint_json(jrt *r, jbuf *b, jval v, const jjson_style *style)
{
    json_out o = {r, b, style, 0};
    return json_value(&o, v);
}
