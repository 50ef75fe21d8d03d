/* Python's two ways to format: "%s of %d" % values, and "{} of {}".format(values). The result
 * belongs to the message whose words are in it, when there is only one. */
#include "core/text/jinja_int.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PRECISION = 100 };

typedef struct spec {
    const char *fill; /* one character */
    size_t n_fill;
    char align; /* < > ^ = or 0: by the type */
    char sign;  /* + - or a blank */
    bool alt, comma;
    size_t width;
    int precision; /* -1: none */
    char type;
} spec;

static int pad(jrt *r, jbuf *b, const spec *s, size_t n, jtag tag)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = jbuf_add(r, b, s->fill, s->n_fill, tag);
    return rc;
}

/* `body` (chars wide) with its sign or prefix in front, padded to the width. */
static int put_padded(jrt *r, jbuf *b, const spec *s, const char *lead, const jstr *body,
                      size_t chars, char align)
{
    jtag tag = jstr_tag(body);
    size_t have = strlen(lead) + chars, room = s->width > have ? s->width - have : 0;
    size_t left = align == '>' ? room : align == '^' ? room / 2 : 0;
    int rc = room > r->max_output
                 ? jrt_fail_code(r, HONE_ELIMIT, "text longer than %zu bytes", r->max_output)
                 : jrt_steps(r, room);
    if (rc == 0)
        rc = pad(r, b, s, left, tag);
    if (rc == 0)
        rc = jbuf_add(r, b, lead, strlen(lead), tag);
    if (rc == 0 && align == '=')
        rc = pad(r, b, s, room, tag);
    if (rc == 0)
        rc = jbuf_str(r, b, body, 0, body->n);
    if (rc == 0 && (align == '<' || align == '^'))
        rc = pad(r, b, s, room - left, tag);
    return rc;
}

static int put_text(jrt *r, jbuf *b, const spec *s, jval v)
{
    int rc = jprint_str(r, v, &v);
    if (rc == 0 && s->precision >= 0)
        rc = jstr_slice(r, v.s, 0, jstr_offset(v.s, (size_t)s->precision), &v);
    if (rc != 0)
        return rc;
    return put_padded(r, b, s, "", v.s, jstr_chars(v.s), s->align ? s->align : '<');
}

/* 1234567 as 1,234,567; what is not a leading digit follows unchanged. */
static void group(char *dst, const char *digits)
{
    size_t n = strspn(digits, "0123456789");
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            *dst++ = ',';
        *dst++ = digits[i];
    }
    memcpy(dst, digits + n, strlen(digits + n) + 1);
}

static int put_number(jrt *r, jbuf *b, const spec *s, bool negative, const char *prefix,
                      const char *digits, int32_t msg)
{
    char lead[8], grouped[800];
    jval body;
    snprintf(lead, sizeof lead, "%s%s",
             negative         ? "-"
             : s->sign == '+' ? "+"
             : s->sign == ' ' ? " "
                              : "",
             prefix);
    if (s->comma) {
        group(grouped, digits);
        digits = grouped;
    }
    int rc = jstr_new(r, digits, strlen(digits), (jtag){.msg = msg}, &body);
    return rc != 0 ? rc : put_padded(r, b, s, lead, body.s, body.s->n, s->align ? s->align : '>');
}

static int put_int(jrt *r, jbuf *b, const spec *s, int64_t i, int32_t msg)
{
    char digits[80];
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    const char *prefix = "";
    if (s->type == 'x' || s->type == 'X') {
        snprintf(digits, sizeof digits, s->type == 'x' ? "%llx" : "%llX", (unsigned long long)u);
        prefix = !s->alt ? "" : s->type == 'x' ? "0x" : "0X";
    } else if (s->type == 'o') {
        snprintf(digits, sizeof digits, "%llo", (unsigned long long)u);
        prefix = s->alt ? "0o" : "";
    } else if (s->type == 'b') {
        size_t n = 0, bits = 1;
        while (bits < 64 && u >> bits != 0)
            bits++;
        for (size_t k = bits; k-- > 0;)
            digits[n++] = (char)('0' + (u >> k & 1));
        digits[n] = '\0';
        prefix = s->alt ? "0b" : "";
    } else {
        snprintf(digits, sizeof digits, "%llu", (unsigned long long)u);
    }
    return put_number(r, b, s, i < 0, prefix, digits, msg);
}

static int put_float(jrt *r, jbuf *b, const spec *s, double f, int32_t msg)
{
    char digits[512];
    bool percent = s->type == '%';
    int precision = s->precision < 0 ? 6 : s->precision;
    f = percent ? f * 100 : f;
    if (s->type == 0 && s->precision < 0) {
        digits[jprint_float(digits, sizeof digits, fabs(f))] = '\0';
    } else {
        if (s->type == 0)
            return jrt_fail_code(r, HONE_EUNSUPPORTED,
                                 "a precision without f, e or g in a format is not supported");
        size_t cap = sizeof digits - 1;
        if (s->type == 'e' || s->type == 'E')
            snprintf(digits, cap, s->type == 'e' ? "%.*e" : "%.*E", precision, fabs(f));
        else if (s->type == 'g' || s->type == 'G')
            snprintf(digits, cap, s->type == 'g' ? "%.*g" : "%.*G", precision, fabs(f));
        else
            snprintf(digits, cap, "%.*f", precision, fabs(f));
        size_t n = strlen(digits);
        digits[n] = percent ? '%' : '\0';
        digits[n + percent] = '\0';
    }
    return put_number(r, b, s, signbit(f) && !isnan(f), "", digits, msg);
}

static int put_numeric(jrt *r, jbuf *b, const spec *s, jval v)
{
    if (v.kind == J_UNDEF)
        return jval_undef_fail(r, v);
    if (!jval_is_num(v))
        return jrt_fail(r, "a format of type '%c' needs a number, not %s", s->type, jval_type(v));
    if (s->precision > MAX_PRECISION)
        return jrt_fail_code(r, HONE_ELIMIT, "a format with more than %d digits", MAX_PRECISION);
    if (strchr("fFeEgG%", s->type) != NULL && s->type != 0)
        return put_float(r, b, s, jval_num(v), v.msg);
    if (v.kind == J_FLOAT)
        return jrt_fail(r, "a format of type '%c' needs an integer, not float", s->type);
    if (s->precision >= 0)
        return jrt_fail_code(r, HONE_EUNSUPPORTED,
                             "a precision for an integer in a format is not supported");
    return put_int(r, b, s, v.kind == J_INT ? v.i : v.b, v.msg);
}

/* ---- percent ---- */

typedef struct values {
    const jval *v; /* in order */
    size_t n, next;
    const jdict *named;
    const jcall *call;        /* for keyword arguments */
    bool automatic, numbered; /* {} and {0} may not be mixed */
    bool mapping;             /* the one value after % may be left over */
} values;

static int next_value(jrt *r, values *a, jval *out)
{
    if (a->next >= a->n)
        return jrt_fail(r, "not enough arguments for format string");
    *out = a->v[a->next++];
    return 0;
}

static int named_value(jrt *r, const values *a, const char *p, size_t n, jval *out)
{
    for (size_t i = 0; a->call != NULL && i < a->call->n_kw; i++)
        if (a->call->kw[i].name->n == n && memcmp(a->call->kw[i].name->p, p, n) == 0) {
            *out = a->call->kw[i].val;
            return 0;
        }
    if (a->named != NULL) {
        jval key, *found;
        int rc = jstr_view(r, p, n, (jtag){0}, &key);
        if (rc == 0)
            rc = jdict_get(r, a->named, key, &found);
        if (rc != 0)
            return rc;
        if (found != NULL) {
            *out = *found;
            return 0;
        }
    }
    return jrt_fail(r, "a format names '%.*s', which is not given", (int)n, p);
}

/* Reads digits, or a '*' that takes the next value. */
static int percent_number(jrt *r, values *a, const jstr *f, size_t *i, size_t *out)
{
    *out = 0;
    if (*i < f->n && f->p[*i] == '*') {
        jval v;
        int64_t n = 0;
        (*i)++;
        int rc = next_value(r, a, &v);
        if (rc == 0)
            rc = jval_to_int(r, v, "a width in a format", &n);
        *out = n > 0 ? (size_t)n : 0;
        return rc;
    }
    for (; *i < f->n && isdigit((unsigned char)f->p[*i]); (*i)++)
        if (*out < r->max_output + 1)
            *out = *out * 10 + (size_t)(f->p[*i] - '0');
    return 0;
}

static void percent_flags(const jstr *f, size_t *i, spec *s)
{
    for (; *i < f->n && strchr("-+ #0", f->p[*i]) != NULL && f->p[*i] != '\0'; (*i)++) {
        char c = f->p[*i];
        if (c == '-')
            s->align = '<';
        else if (c == '0' && s->align == 0)
            s->align = '=', s->fill = "0";
        else if (c == '#')
            s->alt = true;
        else if (c == '+' || (c == ' ' && s->sign != '+'))
            s->sign = c;
    }
    if (s->align == '<')
        s->fill = " ";
}

static int percent_value(jrt *r, jbuf *b, spec *s, jval v)
{
    if (strchr("sr", s->type) != NULL) {
        if (s->align == '=' || s->align == 0)
            s->align = '>';
        s->fill = " ";
        jbuf text = {0};
        int rc = s->type == 'r' ? jprint_repr(r, &text, v) : 0;
        if (rc == 0 && s->type == 'r')
            rc = jbuf_done(r, &text, &v);
        return rc == 0 ? put_text(r, b, s, v) : rc;
    }
    if (strchr("diu", s->type) != NULL) {
        s->type = 'd';
        if (v.kind == J_FLOAT && fabs(v.f) < 9e18)
            v = (jval){.kind = J_INT, .msg = v.msg, .i = (int64_t)v.f};
    }
    return put_numeric(r, b, s, v);
}

/* One conversion; *i stands after the '%'. */
static int percent_one(jrt *r, jbuf *b, const jstr *f, size_t *i, values *a)
{
    spec s = {.fill = " ", .n_fill = 1, .precision = -1};
    jval v = J_NIL;
    bool named = *i < f->n && f->p[*i] == '(';
    int rc = 0;
    if (named) {
        const char *close = memchr(f->p + *i, ')', f->n - *i);
        if (close == NULL)
            return jrt_fail(r, "incomplete format key");
        size_t from = *i + 1, to = (size_t)(close - f->p);
        *i = to + 1;
        if (a->named == NULL && (a->call == NULL || a->call->n_kw == 0))
            return jrt_fail(r, "format requires a mapping");
        rc = named_value(r, a, f->p + from, to - from, &v);
    }
    percent_flags(f, i, &s);
    if (rc == 0)
        rc = percent_number(r, a, f, i, &s.width);
    if (rc == 0 && *i < f->n && f->p[*i] == '.') {
        size_t n;
        (*i)++;
        rc = percent_number(r, a, f, i, &n);
        s.precision = n > (size_t)MAX_PRECISION * 1000 ? MAX_PRECISION * 1000 : (int)n;
    }
    if (rc != 0)
        return rc;
    if (*i >= f->n)
        return jrt_fail(r, "incomplete format");
    s.type = f->p[(*i)++];
    if (s.type == '%')
        return jbuf_add(r, b, "%", 1, (jtag){0});
    if (strchr("srdiuxXofFeEgG", s.type) == NULL)
        return jrt_fail_code(r, HONE_EUNSUPPORTED, "the format %%%c is not supported", s.type);
    if (!named)
        rc = next_value(r, a, &v);
    return rc == 0 ? percent_value(r, b, &s, v) : rc;
}

int jformat_percent(jrt *r, const jstr *fmt, const jcall *c, jval args, jval *out)
{
    jbuf b = {0};
    values a = {.call = c};
    if (c != NULL) {
        a.v = c->pos;
        a.n = c->n_pos;
    } else if (args.kind == J_TUPLE) {
        a.v = args.seq->v;
        a.n = args.seq->n;
    } else {
        a.v = &args;
        a.n = 1;
        a.named = args.kind == J_DICT ? args.dict : NULL;
        a.mapping = args.kind == J_DICT || args.kind == J_LIST || args.kind == J_RANGE ||
                    args.kind == J_UNDEF;
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < fmt->n;) {
        const char *at = memchr(fmt->p + i, '%', fmt->n - i);
        size_t to = at == NULL ? fmt->n : (size_t)(at - fmt->p);
        rc = jbuf_str(r, &b, fmt, i, to);
        i = to;
        if (rc == 0 && at != NULL) {
            i++;
            rc = percent_one(r, &b, fmt, &i, &a);
        }
    }
    if (rc == 0 && a.next < a.n && !a.mapping)
        rc = jrt_fail(r, "not all arguments converted during string formatting");
    if (rc != 0)
        return rc;
    jbuf_retag(&b);
    return jbuf_done(r, &b, out);
}

/* ---- braces ---- */

static bool is_one_of(const char *set, const char *p, size_t i, size_t n)
{
    return i < n && p[i] != '\0' && strchr(set, p[i]) != NULL;
}

/* Digits at *i, held at `limit`. */
static size_t spec_number(const char *p, size_t *i, size_t n, size_t limit)
{
    size_t v = 0;
    for (; *i < n && isdigit((unsigned char)p[*i]); (*i)++)
        if (v <= limit)
            v = v * 10 + (size_t)(p[*i] - '0');
    return v;
}

/* [[fill]align][sign][#][0]; returns the bytes read. */
static size_t spec_head(const char *p, size_t n, spec *s)
{
    size_t i = 0, fill = 1;
    while (fill < n && (p[fill] & 0xC0) == 0x80)
        fill++;
    if (is_one_of("<>^=", p, fill, n)) {
        s->fill = p;
        s->n_fill = fill;
        s->align = p[fill];
        i = fill + 1;
    } else if (is_one_of("<>^=", p, 0, n)) {
        s->align = p[i++];
    }
    if (is_one_of("+- ", p, i, n))
        s->sign = p[i++];
    s->alt = is_one_of("#", p, i, n);
    i += s->alt;
    if (is_one_of("0", p, i, n)) {
        i++;
        if (s->align == 0) {
            s->align = '=';
            s->fill = "0";
            s->n_fill = 1;
        }
    }
    return i;
}

/* The head, then [width][,][.precision][type]. */
static int parse_spec(jrt *r, const char *p, size_t n, spec *s)
{
    size_t i = spec_head(p, n, s);
    s->width = spec_number(p, &i, n, r->max_output);
    s->comma = is_one_of(",", p, i, n);
    i += s->comma;
    if (is_one_of(".", p, i, n)) {
        i++;
        s->precision = (int)spec_number(p, &i, n, (size_t)MAX_PRECISION * 10);
    }
    if (i < n)
        s->type = p[i++];
    if (i < n || (s->type != 0 && strchr("sdxXobfFeEgG%", s->type) == NULL))
        return jrt_fail_code(r, HONE_EUNSUPPORTED, "the format '%.*s' is not supported", (int)n, p);
    return 0;
}

static int put_field(jrt *r, jbuf *b, jval v, const char *p, size_t n)
{
    spec s = {.fill = " ", .n_fill = 1, .precision = -1};
    int rc = parse_spec(r, p, n, &s);
    if (rc != 0)
        return rc;
    if (n > 0 && !jval_is_num(v) && v.kind != J_STR)
        return jrt_fail(r, "unsupported format string passed to %s.__format__", jval_type(v));
    bool number = jval_is_num(v) && (n > 0 && v.kind == J_BOOL ? s.type != 0 : v.kind != J_BOOL);
    if (number && s.type == 0 && v.kind == J_INT)
        s.type = 'd';
    if (number && s.type == 0)
        return put_float(r, b, &s, v.f, v.msg);
    if (s.type != 0 && s.type != 's')
        return put_numeric(r, b, &s, v);
    if (s.align == '=')
        return jrt_fail(r, "'=' alignment not allowed in string format specifier");
    return put_text(r, b, &s, v);
}

/* The value that "name", "0" or nothing names. */
static int field_first(jrt *r, values *a, const char *p, size_t n, jval *out)
{
    int64_t index = 0;
    bool number = n > 0 && isdigit((unsigned char)p[0]) && jtext_int(p, n, 10, &index) == 0;
    if (n > 0 && !number)
        return named_value(r, a, p, n, out);
    a->automatic |= n == 0;
    a->numbered |= number;
    if (a->automatic && a->numbered)
        return jrt_fail(r, "a format cannot mix {} and {0}");
    if (number)
        a->next = (size_t)index;
    if (a->next >= a->n)
        return jrt_fail(r, "a format asks for value %zu of %zu", a->next, a->n);
    *out = a->v[a->next++];
    return 0;
}

/* ... and where ".attr" and "[key]" parts lead from there. */
static int field_value(jrt *r, values *a, const char *p, size_t n, jval *out)
{
    size_t i = 0;
    while (i < n && p[i] != '.' && p[i] != '[')
        i++;
    int rc = field_first(r, a, p, i, out);
    while (rc == 0 && i < n) {
        bool item = p[i++] == '[';
        size_t from = i;
        int64_t index;
        while (i < n && (item ? p[i] != ']' : p[i] != '.' && p[i] != '['))
            i++;
        jval key;
        rc = jstr_view(r, p + from, i - from, (jtag){0}, &key);
        if (rc == 0 && item && jtext_int(p + from, i - from, 10, &index) == 0)
            key = jval_int(index);
        if (rc == 0)
            rc = item ? jget_item(r, *out, key, out) : jget_attr(r, *out, key.s, out);
        i += item && i < n;
    }
    return rc;
}

/* !s and !r */
static int convert(jrt *r, char how, jval *v)
{
    jbuf text = {0};
    if (how != 'r' && how != 's')
        return jrt_fail_code(r, HONE_EUNSUPPORTED,
                             "a conversion other than !r and !s in a format is "
                             "not supported");
    int rc = how == 's' ? jbuf_value(r, &text, *v) : jprint_repr(r, &text, *v);
    return rc == 0 ? jbuf_done(r, &text, v) : rc;
}

/* "{name!conversion:spec}"; *i stands after the brace. */
static int brace_field(jrt *r, jbuf *b, const jstr *f, size_t *i, values *a)
{
    size_t end = *i;
    while (end < f->n && f->p[end] != '}' && f->p[end] != '{')
        end++;
    if (end >= f->n)
        return jrt_fail(r, "expected '}' before end of string");
    if (f->p[end] == '{')
        return jrt_fail_code(r, HONE_EUNSUPPORTED,
                             "a field in a field of a format is not supported");
    const char *p = f->p + *i;
    size_t n = end - *i, at = 0;
    while (at < n && p[at] != '!' && p[at] != ':')
        at++;
    jval v;
    int rc = field_value(r, a, p, at, &v);
    *i = end + 1;
    if (rc == 0 && at < n && p[at] == '!') {
        rc = convert(r, at + 1 < n ? p[at + 1] : '?', &v);
        at = at + 2 < n ? at + 2 : n;
        if (rc == 0 && at < n && p[at] != ':')
            rc = jrt_fail(r, "expected ':' after conversion specifier");
    }
    if (rc != 0)
        return rc;
    return put_field(r, b, v, at < n ? p + at + 1 : p, at < n ? n - at - 1 : 0);
}

int jformat_braces(jrt *r, const jstr *fmt, const jcall *c, jval *out)
{
    jbuf b = {0};
    values a = {.v = c->pos, .n = c->n_pos, .call = c};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < fmt->n;) {
        size_t to = i;
        while (to < fmt->n && fmt->p[to] != '{' && fmt->p[to] != '}')
            to++;
        rc = jbuf_str(r, &b, fmt, i, to);
        i = to;
        if (rc != 0 || i >= fmt->n)
            break;
        char brace = fmt->p[i++];
        if (i < fmt->n && fmt->p[i] == brace) {
            rc = jbuf_str(r, &b, fmt, i, i + 1);
            i++;
        } else if (brace == '}') {
            rc = jrt_fail(r, "single '}' in a format");
        } else {
            rc = brace_field(r, &b, fmt, &i, &a);
        }
    }
    if (rc != 0)
        return rc;
    jbuf_retag(&b);
    return jbuf_done(r, &b, out);
}
