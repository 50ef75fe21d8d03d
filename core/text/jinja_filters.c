/* Filters on one value: text, numbers, JSON, defaults. A filter is a row here and a function above.
 */
#include "core/base/utf8.h"
#include "core/text/jinja_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool given(jval v)
{
    return v.kind != J_MISSING && v.kind != J_NONE;
}

/* ---- any value ---- */

static int f_default(jrt *r, jval self, const jcall *c, jval *out)
{
    bool use = self.kind == J_UNDEF || (jval_true(c->v[1]) && !jval_true(self));
    *out = use ? c->v[0] : self;
    return use && c->v[0].kind == J_MISSING ? jstr_text(r, "", out) : 0;
}

static int f_string(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return jprint_str(r, self, out);
}

static int f_length(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    int64_t n = 0;
    int rc = jval_len(r, self, &n);
    *out = jval_int(n);
    return rc;
}

/* The fields of tojson: indent is a number of blanks or text, separators a pair. */
static int json_style(jrt *r, const jcall *c, jjson_style *style)
{
    static const jstr comma = {.p = ", ", .n = 2, .chars = 2},
                      short_comma = {.p = ",", .n = 1, .chars = 1},
                      colon = {.p = ": ", .n = 2, .chars = 2};
    jval indent = c->v[1], separators = c->v[2];
    style->ascii = jval_true(c->v[0]);
    style->sort = jval_true(c->v[3]);
    style->lines = given(indent);
    if (indent.kind == J_STR) {
        style->indent = indent.s->p;
        style->n_indent = indent.s->n;
    } else if (style->lines) {
        int64_t n;
        char *blanks;
        int rc = jval_to_int(r, indent, "indent", &n);
        if (rc == 0)
            rc = n > 1000 ? jrt_fail_code(r, HONE_ELIMIT, "an indent of more than 1000")
                          : jrt_alloc(r, n > 0 ? (size_t)n : 0, &blanks);
        if (rc != 0)
            return rc;
        style->n_indent = n > 0 ? (size_t)n : 0;
        memset(blanks, ' ', style->n_indent);
        style->indent = blanks;
    }
    style->item = style->lines ? &short_comma : &comma;
    style->key = &colon;
    if (!given(separators))
        return 0;
    if ((separators.kind != J_TUPLE && separators.kind != J_LIST) || separators.seq->n != 2 ||
        separators.seq->v[0].kind != J_STR || separators.seq->v[1].kind != J_STR)
        return jrt_fail(r, "separators must be two strings");
    style->item = separators.seq->v[0].s;
    style->key = separators.seq->v[1].s;
    return 0;
}

static int f_tojson(jrt *r, jval self, const jcall *c, jval *out)
{
    jjson_style style = {0};
    jbuf b = {0};
    int rc = json_style(r, c, &style);
    if (rc == 0)
        rc = jprint_json(r, &b, self, &style);
    if (rc != 0)
        return rc;
    jbuf_retag(&b);
    return jbuf_done(r, &b, out);
}

/* ---- text ---- */

static int text_case(jrt *r, jval self, jtext_case how, jval *out)
{
    jval s;
    int rc = jprint_str(r, self, &s);
    return rc == 0 ? jchar_text(r, s.s, how, out) : rc;
}

static int f_upper(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return text_case(r, self, JTEXT_UPPER, out);
}

static int f_lower(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return text_case(r, self, JTEXT_LOWER, out);
}

static int f_capitalize(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return text_case(r, self, JTEXT_CAPITALIZE, out);
}

static bool starts_word(uint32_t c)
{
    return jchar_space(c) || (c < 0x80 && c != 0 && strchr("-({[<", (int)c) != NULL);
}

/* Unlike str.title: words begin after white space and one of -({[<, with a capital. */
static int f_title(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    jval s, piece;
    jbuf b = {0};
    int rc = jprint_str(r, self, &s);
    for (size_t i = 0; rc == 0 && i < s.s->n;) {
        uint32_t cp = 0;
        size_t first = utf8_next(s.s->p + i, s.s->n - i, &cp), end = i + first;
        bool mark = starts_word(cp);
        while (end < s.s->n) {
            size_t n = utf8_next(s.s->p + end, s.s->n - end, &cp);
            if (starts_word(cp) != mark)
                break;
            end += n;
        }
        for (int part = 0; rc == 0 && part < 2; part++) {
            rc = jstr_slice(r, s.s, part == 0 ? i : i + first, part == 0 ? i + first : end, &piece);
            if (rc == 0)
                rc = jchar_text(r, piece.s, part == 0 ? JTEXT_UPPER : JTEXT_LOWER, &piece);
            if (rc == 0)
                rc = jbuf_str(r, &b, piece.s, 0, piece.s->n);
        }
        i = end;
    }
    if (rc != 0)
        return rc;
    jbuf_retag(&b);
    return jbuf_done(r, &b, out);
}

static int f_trim(jrt *r, jval self, const jcall *c, jval *out)
{
    jval s;
    int rc = jprint_str(r, self, &s);
    if (rc == 0 && given(c->v[0]) && c->v[0].kind != J_STR)
        rc = jrt_fail(r, "strip arg must be None or str, not %s", jval_type(c->v[0]));
    if (rc != 0)
        return rc;
    return jtext_strip(r, s.s, given(c->v[0]) ? c->v[0].s : NULL, JSIDE_LEFT | JSIDE_RIGHT, out);
}

static int f_replace(jrt *r, jval self, const jcall *c, jval *out)
{
    jval s, old, with;
    int64_t max = -1;
    int rc = jprint_str(r, self, &s);
    if (rc == 0)
        rc = jprint_str(r, c->v[0], &old);
    if (rc == 0)
        rc = jprint_str(r, c->v[1], &with);
    if (rc == 0 && given(c->v[2]))
        rc = jval_to_int(r, c->v[2], "count", &max);
    return rc == 0 ? jtext_replace(r, s.s, old.s, with.s, max, out) : rc;
}

static int f_safe(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    jval s;
    int rc = jprint_str(r, self, &s);
    if (rc == 0)
        rc = jstr_slice(r, s.s, 0, s.s->n, out);
    if (rc == 0)
        out->s->safe = true;
    return rc;
}

static int f_escape(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    jval s;
    int rc = jprint_str(r, self, &s);
    return rc == 0 ? jstr_escape(r, s.s, out) : rc;
}

static int f_forceescape(jrt *r, jval self, const jcall *c, jval *out)
{
    int rc = f_safe(r, self, c, out);
    if (rc != 0)
        return rc;
    out->s->safe = false;
    return jstr_escape(r, out->s, out);
}

static int indention(jrt *r, jval width, jval *out)
{
    static const jstr blank = {.p = " ", .n = 1, .chars = 1}, empty = {.p = "", .n = 0, .chars = 0};
    int64_t n = 4;
    if (width.kind == J_STR) {
        *out = width;
        return 0;
    }
    int rc = width.kind == J_MISSING ? 0 : jval_to_int(r, width, "width", &n);
    return rc == 0 ? jtext_pad(r, &empty, n > 0 ? (size_t)n : 0, 0, &blank, out) : rc;
}

/* Each line break becomes a newline that keeps the break's origin. */
static int indent_lines(jrt *r, const jseq *lines, const jseq *kept, const jcall *c,
                        const jstr *indent, jbuf *b)
{
    bool first = jval_true(c->v[1]), blank = jval_true(c->v[2]);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < lines->n; i++) {
        const jstr *line = lines->v[i].s;
        jval mark;
        if (i > 0) {
            const jstr *before = kept->v[i - 1].s;
            rc = jstr_slice(r, before, before->n - 1, before->n, &mark);
            if (rc == 0)
                rc = jbuf_add(r, b, "\n", 1, jstr_tag(mark.s));
        }
        if (rc == 0 && (i > 0 ? blank || line->n > 0 : first))
            rc = jbuf_str(r, b, indent, 0, indent->n);
        if (rc == 0)
            rc = jbuf_str(r, b, line, 0, line->n);
    }
    return rc;
}

static int f_indent(jrt *r, jval self, const jcall *c, jval *out)
{
    jval indent, lines, kept, newline, s;
    jbuf b = {0};
    int rc = jstr_text(r, "\n", &newline);
    if (rc == 0)
        rc = indention(r, c->v[0], &indent);
    if (rc == 0) /* a newline at the end, so that an empty last line counts */
        rc = jop_binary(r, OP_ADD, self, newline, &s);
    if (rc == 0)
        rc = jtext_lines(r, s.s, false, &lines);
    if (rc == 0)
        rc = jtext_lines(r, s.s, true, &kept);
    if (rc == 0)
        rc = indent_lines(r, lines.seq, kept.seq, c, indent.s, &b);
    if (rc == 0)
        rc = jbuf_done(r, &b, out);
    if (rc == 0)
        out->s->safe = s.s->safe;
    return rc;
}

static int f_center(jrt *r, jval self, const jcall *c, jval *out)
{
    static const jstr blank = {.p = " ", .n = 1, .chars = 1};
    jval s;
    int64_t width = 80;
    int rc = jprint_str(r, self, &s);
    if (rc == 0 && c->v[0].kind != J_MISSING)
        rc = jval_to_int(r, c->v[0], "width", &width);
    if (rc != 0)
        return rc;
    int64_t room = width - (int64_t)jstr_chars(s.s);
    size_t pad = room > 0 ? (size_t)room : 0, left = pad / 2 + (pad & (size_t)width & 1);
    return jtext_pad(r, s.s, left, pad - left, &blank, out);
}

static int f_truncate(jrt *r, jval self, const jcall *c, jval *out)
{
    int64_t length = 255, leeway = 5, n;
    jval end = c->v[2], cut;
    int rc = end.kind == J_MISSING ? jstr_text(r, "...", &end) : 0;
    if (rc == 0 && c->v[0].kind != J_MISSING)
        rc = jval_to_int(r, c->v[0], "length", &length);
    if (rc == 0 && given(c->v[3]))
        rc = jval_to_int(r, c->v[3], "leeway", &leeway);
    if (rc == 0)
        rc = jval_len(r, self, &n);
    if (rc == 0 && end.kind != J_STR)
        rc = jrt_fail(r, "truncate needs text as its end");
    if (rc != 0)
        return rc;
    int64_t keep = length - (int64_t)jstr_chars(end.s);
    if (keep < 0 || leeway < 0)
        return jrt_fail(r, "truncate: the length is shorter than its end");
    if (n <= length || n - length <= leeway) {
        *out = self;
        return 0;
    }
    if (self.kind != J_STR)
        return jrt_fail(r, "truncate needs text, not %s", jval_type(self));
    size_t to = jstr_offset(self.s, (size_t)keep);
    if (!jval_true(c->v[1])) {
        const char *space = memrchr(self.s->p, ' ', to);
        to = space == NULL ? to : (size_t)(space - self.s->p);
    }
    rc = jstr_slice(r, self.s, 0, to, &cut);
    return rc == 0 ? jstr_concat(r, cut.s, end.s, out) : rc;
}

static int f_wordcount(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    jval s;
    int64_t n = 0;
    bool inside = false;
    int rc = jprint_str(r, self, &s);
    for (size_t i = 0; rc == 0 && i < s.s->n;) {
        uint32_t cp = 0;
        i += utf8_next(s.s->p + i, s.s->n - i, &cp);
        bool now = cp == '_' || jchar_alnum(cp);
        n += now && !inside;
        inside = now;
    }
    *out = jval_int(n);
    return rc;
}

static int f_format(jrt *r, jval self, const jcall *c, jval *out)
{
    jval s;
    int rc = jprint_str(r, self, &s);
    if (rc == 0 && c->n_pos > 0 && c->n_kw > 0)
        rc = jrt_fail(r, "can't handle positional and keyword arguments at the same time");
    if (rc == 0 && s.s->safe)
        rc = jrt_fail_code(r, HONE_EUNSUPPORTED, "format on a |safe string is not supported");
    return rc == 0 ? jformat_percent(r, s.s, c, J_NIL, out) : rc;
}

/* ---- numbers ---- */

static int whole(jrt *r, double f, int32_t msg, jval *out)
{
    if (fabs(f) >= 9223372036854775808.0)
        return jrt_fail_code(r, HONE_ELIMIT, "integer beyond 64 bits");
    *out = (jval){.kind = J_INT, .msg = msg, .i = (int64_t)f};
    return 0;
}

static int f_int(jrt *r, jval self, const jcall *c, jval *out)
{
    int64_t base = 10, i;
    double f;
    int rc = c->v[1].kind == J_MISSING ? 0 : jval_to_int(r, c->v[1], "base", &base);
    if (rc != 0 || self.kind == J_UNDEF)
        return rc != 0 ? rc : jval_undef_fail(r, self);
    *out = c->v[0].kind == J_MISSING ? jval_int(0) : c->v[0];
    if (self.kind == J_STR) {
        int32_t msg = jstr_tag(self.s).msg;
        rc = jtext_int(self.s->p, self.s->n, base >= 0 && base <= 36 ? (int)base : 10, &i);
        if (rc == 1)
            return jrt_fail_code(r, HONE_ELIMIT, "integer beyond 64 bits");
        if (rc == 0)
            *out = (jval){.kind = J_INT, .msg = msg, .i = i};
        else if (jtext_float(self.s->p, self.s->n, &f) == 0 && isfinite(f))
            return whole(r, f, msg, out);
        return 0;
    }
    if (self.kind == J_FLOAT && isinf(self.f))
        return jrt_fail(r, "cannot convert float infinity to integer");
    if (!jval_is_num(self) || (self.kind == J_FLOAT && isnan(self.f)))
        return 0;
    return self.kind == J_FLOAT ? whole(r, self.f, self.msg, out)
                                : (*out = (jval){.kind = J_INT,
                                                 .msg = self.msg,
                                                 .i = self.kind == J_INT ? self.i : self.b},
                                   0);
}

static int f_float(jrt *r, jval self, const jcall *c, jval *out)
{
    double f;
    if (self.kind == J_UNDEF)
        return jval_undef_fail(r, self);
    *out = c->v[0].kind == J_MISSING ? jval_float(0) : c->v[0];
    if (self.kind == J_STR && jtext_float(self.s->p, self.s->n, &f) == 0)
        *out = (jval){.kind = J_FLOAT, .msg = jstr_tag(self.s).msg, .f = f};
    else if (jval_is_num(self))
        *out = (jval){.kind = J_FLOAT, .msg = self.msg, .f = jval_num(self)};
    return 0;
}

static int f_abs(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    if (!jval_is_num(self))
        return jrt_fail(r, "bad operand type for abs(): '%s'", jval_type(self));
    if (self.kind == J_FLOAT) {
        *out = self;
        out->f = fabs(self.f);
        return 0;
    }
    return (self.kind == J_INT && self.i < 0 ? jop_negate : jop_plus)(r, self, out);
}

/* round(f, digits) as Python: correctly rounded, ties to even. */
static double round_to(double f, int digits)
{
    char text[512];
    if (!isfinite(f))
        return f;
    snprintf(text, sizeof text, "%.*f", digits, f);
    return strtod(text, NULL);
}

static int f_round(jrt *r, jval self, const jcall *c, jval *out)
{
    int64_t digits = 0;
    jval method = c->v[1];
    int rc = c->v[0].kind == J_MISSING ? 0 : jval_to_int(r, c->v[0], "precision", &digits);
    if (rc != 0)
        return rc;
    if (!jval_is_num(self))
        return jrt_fail(r, "type %s doesn't define __round__ method", jval_type(self));
    if (digits < 0 || digits > 100)
        return jrt_fail_code(r, HONE_EUNSUPPORTED, "round to %lld digits is not supported",
                             (long long)digits);
    bool common = method.kind == J_MISSING || (method.kind == J_STR && jstr_is(method.s, "common"));
    bool up = !common && method.kind == J_STR && jstr_is(method.s, "ceil");
    if (!common && !up && (method.kind != J_STR || !jstr_is(method.s, "floor")))
        return jrt_fail(r, "method must be common, ceil or floor");
    if (common && self.kind != J_FLOAT)
        return jop_plus(r, self, out);
    double scale = pow(10, (double)digits), f = jval_num(self);
    *out = (jval){.kind = J_FLOAT, .msg = self.msg};
    out->f = common ? round_to(f, (int)digits) : (up ? ceil(f * scale) : floor(f * scale)) / scale;
    return 0;
}

/* ---- the table ---- */

/* clang-format off */
const jbuiltin jinja_text_filters[] = {
    {"abs",            f_abs,         0, ""},
    {"capitalize",     f_capitalize,  0, ""},
    {"center",         f_center,      0, "width"},
    {"count",          f_length,      0, ""},
    {"d",              f_default,     0, "default_value boolean"},
    {"default",        f_default,     0, "default_value boolean"},
    {"e",              f_escape,      0, ""},
    {"escape",         f_escape,      0, ""},
    {"float",          f_float,       0, "default"},
    {"forceescape",    f_forceescape, 0, ""},
    {"format",         f_format,      0, NULL},
    {"indent",         f_indent,      0, "width first blank"},
    {"int",            f_int,         0, "default base"},
    {"length",         f_length,      0, ""},
    {"lower",          f_lower,       0, ""},
    {"replace",        f_replace,     2, "old new count"},
    {"round",          f_round,       0, "precision method"},
    {"safe",           f_safe,        0, ""},
    {"string",         f_string,      0, ""},
    {"title",          f_title,       0, ""},
    {"tojson",         f_tojson,      0, "ensure_ascii indent separators sort_keys"},
    {"trim",           f_trim,        0, "chars"},
    {"truncate",       f_truncate,    0, "length killwords end leeway"},
    {"upper",          f_upper,       0, ""},
    {"wordcount",      f_wordcount,   0, ""},
    {"attr",           NULL,          0, JINJA_REFUSED},
    {"filesizeformat", NULL,          0, JINJA_REFUSED},
    {"pprint",         NULL,          0, JINJA_REFUSED},
    {"random",         NULL,          0, JINJA_REFUSED},
    {"striptags",      NULL,          0, JINJA_REFUSED},
    {"urlencode",      NULL,          0, JINJA_REFUSED},
    {"urlize",         NULL,          0, JINJA_REFUSED},
    {"wordwrap",       NULL,          0, JINJA_REFUSED},
    {"xmlattr",        NULL,          0, JINJA_REFUSED},
    {0},
};
/* clang-format on */

const jbuiltin *jbuiltin_find(const jbuiltin *table, const char *name, size_t n)
{
    for (; table->name != NULL; table++)
        if (strlen(table->name) == n && memcmp(table->name, name, n) == 0)
            return table;
    return NULL;
}

const jbuiltin *jfilter_find(const char *name, size_t n)
{
    const jbuiltin *b = jbuiltin_find(jinja_text_filters, name, n);
    return b != NULL ? b : jbuiltin_find(jinja_seq_filters, name, n);
}
