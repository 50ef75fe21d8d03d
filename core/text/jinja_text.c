/* The string algorithms that filters and methods share. Every piece of the result keeps its origin.
 */
#include "core/base/utf8.h"
#include "core/text/jinja_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- strip ---- */

static bool has_char(const jstr *set, const char *p, size_t n)
{
    for (size_t i = 0; i + n <= set->n; i++)
        if (((unsigned char)set->p[i] & 0xC0) != 0x80 && memcmp(set->p + i, p, n) == 0)
            return true;
    return false;
}

int jtext_strip(jrt *r, const jstr *s, const jstr *chars, int sides, jval *out)
{
    size_t from = 0, to = s->n;
    uint32_t c;
    if (chars == NULL) {
        if ((sides & JSIDE_LEFT) != 0)
            from = jchar_skip_space(s->p, s->n);
        if ((sides & JSIDE_RIGHT) != 0)
            to -= jchar_space_before(s->p + from, s->n - from);
        return jstr_slice(r, s, from, to, out);
    }
    while ((sides & JSIDE_LEFT) != 0 && from < to) {
        size_t n = utf8_next(s->p + from, to - from, &c);
        if (!has_char(chars, s->p + from, n))
            break;
        from += n;
    }
    while ((sides & JSIDE_RIGHT) != 0 && from < to) {
        size_t n = 1;
        while (n < to - from && (s->p[to - n] & 0xC0) == 0x80)
            n++;
        if (!has_char(chars, s->p + to - n, n))
            break;
        to -= n;
    }
    int rc = jrt_steps(r, (s->n - (to - from)) * (chars->n + 1) / 64);
    return rc == 0 ? jstr_slice(r, s, from, to, out) : rc;
}

/* ---- split and join ---- */

typedef struct list {
    jval *v;
    size_t n, cap;
} list;

static int push(jrt *r, list *l, const jstr *s, size_t from, size_t to)
{
    if (l->n == l->cap) {
        jval *wider;
        size_t cap = l->cap == 0 ? 8 : l->cap * 2;
        int rc = jrt_array(r, cap, sizeof *wider, &wider);
        if (rc != 0)
            return rc;
        if (l->n > 0)
            memcpy(wider, l->v, l->n * sizeof *wider);
        l->v = wider;
        l->cap = cap;
    }
    return jstr_slice(r, s, from, to, &l->v[l->n++]);
}

static int done(jrt *r, const list *l, bool reversed, jval *out)
{
    int rc = jval_seq(r, J_LIST, l->n, out);
    for (size_t i = 0; rc == 0 && i < l->n; i++)
        out->seq->v[i] = l->v[reversed ? l->n - 1 - i : i];
    return rc;
}

static int split_space(jrt *r, const jstr *s, int64_t max, list *l)
{
    size_t i = jchar_skip_space(s->p, s->n);
    int rc = 0;
    while (rc == 0 && i < s->n) {
        if (max >= 0 && (int64_t)l->n == max)
            return push(r, l, s, i, s->n);
        size_t end = i;
        while (end < s->n) {
            uint32_t c = 0;
            size_t n = utf8_next(s->p + end, s->n - end, &c);
            if (jchar_space(c))
                break;
            end += n;
        }
        rc = push(r, l, s, i, end);
        i = end + jchar_skip_space(s->p + end, s->n - end);
    }
    return rc;
}

/* From the right: pieces come last first. */
static int rsplit_space(jrt *r, const jstr *s, int64_t max, list *l)
{
    size_t end = s->n - jchar_space_before(s->p, s->n);
    int rc = 0;
    while (rc == 0 && end > 0) {
        if (max >= 0 && (int64_t)l->n == max)
            return push(r, l, s, 0, end);
        size_t i = end;
        while (i > 0 && jchar_space_before(s->p, i) == 0)
            do
                i--;
            while (i > 0 && (s->p[i] & 0xC0) == 0x80);
        rc = push(r, l, s, i, end);
        end = i - jchar_space_before(s->p, i);
    }
    return rc;
}

static int split_at(jrt *r, const jstr *s, const jstr *sep, int64_t max, list *l)
{
    size_t i = 0, at = 0;
    int rc = 0;
    while (rc == 0 && (max < 0 || (int64_t)l->n < max)) {
        rc = jstr_find(r, s, sep->p, sep->n, i, &at);
        if (rc != 0 || at == SIZE_MAX)
            break;
        rc = push(r, l, s, i, at);
        i = at + sep->n;
    }
    return rc == 0 ? push(r, l, s, i, s->n) : rc;
}

static int rsplit_at(jrt *r, const jstr *s, const jstr *sep, int64_t max, list *l)
{
    size_t end = s->n, at = end;
    int rc = jrt_steps(r, s->n / 8);
    while (rc == 0 && at >= sep->n && (max < 0 || (int64_t)l->n < max)) {
        if (memcmp(s->p + at - sep->n, sep->p, sep->n) != 0) {
            at--;
            continue;
        }
        rc = push(r, l, s, at, end);
        at = end = at - sep->n;
    }
    return rc == 0 ? push(r, l, s, 0, end) : rc;
}

int jtext_split(jrt *r, const jstr *s, const jstr *sep, int64_t max, bool right, jval *out)
{
    list l = {0};
    int rc;
    if (sep != NULL && sep->n == 0)
        return jrt_fail(r, "empty separator");
    if (sep == NULL)
        rc = right ? rsplit_space(r, s, max, &l) : split_space(r, s, max, &l);
    else
        rc = right ? rsplit_at(r, s, sep, max, &l) : split_at(r, s, sep, max, &l);
    return rc == 0 ? done(r, &l, right, out) : rc;
}

int jtext_lines(jrt *r, const jstr *s, bool keep, jval *out)
{
    list l = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->n;) {
        size_t end = i, mark = 0;
        uint32_t c = 0;
        while (end < s->n) {
            mark = utf8_next(s->p + end, s->n - end, &c);
            if (jchar_linebreak(c))
                break;
            end += mark;
        }
        if (end >= s->n)
            mark = 0;
        else if (c == '\r' && end + 1 < s->n && s->p[end + 1] == '\n')
            mark = 2;
        rc = push(r, &l, s, i, keep ? end + mark : end);
        i = end + mark;
    }
    return rc == 0 ? done(r, &l, false, out) : rc;
}

int jtext_join(jrt *r, const jstr *sep, const jval *v, size_t n, jval *out)
{
    jbuf b = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (i > 0)
            rc = jbuf_str(r, &b, sep, 0, sep->n);
        if (rc == 0)
            rc = jbuf_value(r, &b, v[i]);
    }
    return rc == 0 ? jbuf_done(r, &b, out) : rc;
}

/* "" is found before every character and at the end. */
static int replace_empty(jrt *r, const jstr *s, const jstr *with, int64_t max, jbuf *b)
{
    size_t i = 0;
    int rc = 0;
    while (rc == 0 && (max < 0 || max-- > 0)) {
        rc = jbuf_str(r, b, with, 0, with->n);
        if (i >= s->n)
            return rc;
        size_t n = 1;
        while (i + n < s->n && (s->p[i + n] & 0xC0) == 0x80)
            n++;
        if (rc == 0)
            rc = jbuf_str(r, b, s, i, i + n);
        i += n;
    }
    return rc == 0 ? jbuf_str(r, b, s, i, s->n) : rc;
}

int jtext_replace(jrt *r, const jstr *s, const jstr *old, const jstr *with, int64_t max, jval *out)
{
    jbuf b = {0};
    size_t i = 0, at = 0;
    int rc = 0;
    if (old->n == 0) {
        rc = replace_empty(r, s, with, max, &b);
        return rc == 0 ? jbuf_done(r, &b, out) : rc;
    }
    while (rc == 0 && (max < 0 || max-- > 0)) {
        rc = jstr_find(r, s, old->p, old->n, i, &at);
        if (rc != 0 || at == SIZE_MAX)
            break;
        rc = jbuf_str(r, &b, s, i, at);
        if (rc == 0)
            rc = jbuf_str(r, &b, with, 0, with->n);
        i = at + old->n;
    }
    if (rc == 0)
        rc = jbuf_str(r, &b, s, i, s->n);
    return rc == 0 ? jbuf_done(r, &b, out) : rc;
}

int jtext_pad(jrt *r, const jstr *s, size_t left, size_t right, const jstr *fill, jval *out)
{
    jbuf b = {0};
    int rc = 0;
    if (left > r->max_output || right > r->max_output)
        return jrt_fail_code(r, HONE_ELIMIT, "text longer than %zu bytes", r->max_output);
    for (; rc == 0 && left > 0; left--)
        rc = jbuf_str(r, &b, fill, 0, fill->n);
    if (rc == 0)
        rc = jbuf_str(r, &b, s, 0, s->n);
    for (; rc == 0 && right > 0; right--)
        rc = jbuf_str(r, &b, fill, 0, fill->n);
    return rc == 0 ? jbuf_done(r, &b, out) : rc;
}

/* ---- numbers ---- */

static void strip_ends(const char **p, size_t *n)
{
    size_t skip = jchar_skip_space(*p, *n);
    *p += skip;
    *n -= skip;
    *n -= jchar_space_before(*p, *n);
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

int jtext_int(const char *p, size_t n, int base, int64_t *out)
{
    static const struct {
        char c;
        int base;
    } prefixes[] = {{'x', 16}, {'o', 8}, {'b', 2}};
    bool negative = false, gap = true, over = false;
    int64_t v = 0;
    strip_ends(&p, &n);
    if (n > 0 && (*p == '+' || *p == '-')) {
        negative = *p++ == '-';
        n--;
    }
    for (size_t i = 0; i < 3 && n > 2 && p[0] == '0'; i++)
        if ((p[1] | 32) == prefixes[i].c && (base == 0 || base == prefixes[i].base)) {
            base = prefixes[i].base;
            p += 2;
            n -= 2;
            gap = *p != '_';
            break;
        }
    if (base == 0)
        base = 10;
    if (n == 0 || *p == '_')
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '_' && !gap) {
            gap = true;
            continue;
        }
        int d = digit_of(p[i]);
        if (d >= base)
            return -1;
        gap = false;
        over |= __builtin_mul_overflow(v, (int64_t)base, &v);
        over |= __builtin_add_overflow(v, (int64_t)d, &v);
    }
    *out = negative ? -v : v;
    return gap ? -1 : over ? 1 : 0;
}

int jtext_float(const char *p, size_t n, double *out)
{
    char text[400];
    size_t len = 0;
    strip_ends(&p, &n);
    if (n == 0 || n >= sizeof text)
        return -1;
    for (size_t i = 0; i < n; i++) {
        bool digits = i > 0 && i + 1 < n && digit_of(p[i - 1]) < 10 && digit_of(p[i + 1]) < 10;
        if (p[i] == '_' && digits)
            continue;
        if ((p[i] | 32) == 'x' || p[i] == '(' ||
            p[i] == '_') /* strtod knows hexadecimal and nan() */
            return -1;
        text[len++] = p[i];
    }
    text[len] = '\0';
    char *end;
    *out = strtod(text, &end);
    return end == text + len && text[0] != ' ' ? 0 : -1;
}
