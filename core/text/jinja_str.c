/* Strings that know where their bytes come from, and the buffers that they are built in.
 *
 * A template that collects text (ns.out = ns.out + piece) would copy it all at every step; so a
 * string that ends where its buffer ends is extended in place. Older strings in the same buffer see
 * only their own n bytes. */
#include "core/text/jinja_int.h"

#include <string.h>

jtag jtag_join(jtag a, jtag b)
{
    if (a.msg == 0)
        a.msg = b.msg;
    else if (b.msg != 0 && b.msg != a.msg)
        a.msg = 0;
    if (a.gen == 0)
        a.gen = b.gen;
    return a;
}

static bool tag_is(jtag a, jtag b)
{
    return a.msg == b.msg && a.gen == b.gen;
}

int jstr_view(jrt *r, const char *p, size_t n, jtag tag, jval *out)
{
    *out = (jval){.kind = J_STR};
    int rc = jrt_alloc(r, sizeof *out->s, &out->s);
    if (rc == 0)
        *out->s = (jstr){.p = p, .n = n, .tag = tag, .chars = SIZE_MAX};
    return rc;
}

int jstr_new(jrt *r, const char *p, size_t n, jtag tag, jval *out)
{
    char *copy;
    int rc = jrt_alloc(r, n + 1, &copy);
    if (rc != 0)
        return rc;
    memcpy(copy, p, n);
    return jstr_view(r, copy, n, tag, out);
}

int jstr_text(jrt *r, const char *s, jval *out)
{
    return jstr_view(r, s, strlen(s), (jtag){0}, out);
}

jstr *jstr_const(arena *mem, const char *p, size_t n)
{
    jstr *s = arena_alloc(mem, sizeof *s);
    *s = (jstr){.p = arena_strndup(mem, p, n), .n = n, .chars = SIZE_MAX};
    jstr_chars(s);
    s->hash = jstr_hash(s);
    return s;
}

size_t jstr_chars(jstr *s)
{
    if (s->chars == SIZE_MAX) {
        s->chars = 0;
        for (size_t i = 0; i < s->n; i++)
            s->chars += (s->p[i] & 0xC0) != 0x80;
    }
    return s->chars;
}

size_t jstr_offset(jstr *s, size_t chars)
{
    if (jstr_chars(s) == s->n)
        return chars < s->n ? chars : s->n;
    size_t i = 0;
    for (; i < s->n; i++)
        if ((s->p[i] & 0xC0) != 0x80 && chars-- == 0)
            break;
    return i;
}

bool jstr_same(const jstr *a, const jstr *b)
{
    return a->n == b->n && (a->p == b->p || memcmp(a->p, b->p, a->n) == 0);
}

bool jstr_is(const jstr *s, const char *text)
{
    return strlen(text) == s->n && memcmp(s->p, text, s->n) == 0;
}

uint32_t jstr_hash(const jstr *s)
{
    if (s->hash != 0)
        return s->hash;
    uint32_t h = 2166136261U;
    for (size_t i = 0; i < s->n; i++)
        h = (h ^ (unsigned char)s->p[i]) * 16777619U;
    return h == 0 ? 1 : h;
}

/* The runs of a string, whatever its form; *tmp holds the one run of a plain string. */
static const jrun *runs(const jstr *s, jrun *tmp, size_t *n)
{
    if (s->run != NULL) {
        *n = s->n_run;
        return s->run;
    }
    *tmp = (jrun){s->n, s->tag};
    *n = 1;
    return tmp;
}

jtag jstr_tag(const jstr *s)
{
    jtag tag = s->tag;
    if (s->run == NULL)
        return tag;
    tag = (jtag){0};
    for (size_t i = 0; i < s->n_run; i++) {
        if (tag.msg != 0 && s->run[i].tag.msg != 0 && s->run[i].tag.msg != tag.msg)
            return (jtag){.gen = tag.gen};
        tag = jtag_join(tag, s->run[i].tag);
    }
    return tag;
}

/* Index of the run that holds byte `at`. */
static size_t run_at(const jrun *run, size_t n, size_t at)
{
    size_t lo = 0, hi = n - 1;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (run[mid].end > at)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

int jstr_slice(jrt *r, const jstr *s, size_t from, size_t to, jval *out)
{
    if (to > s->n)
        to = s->n;
    if (from > to)
        from = to;
    int rc = jstr_view(r, s->p + from, to - from, s->tag, out);
    if (rc != 0)
        return rc;
    out->s->safe = s->safe;
    if (s->run == NULL)
        return 0;
    size_t first = run_at(s->run, s->n_run, from);
    size_t last = to > from ? run_at(s->run, s->n_run, to - 1) : first;
    if (first == last) {
        out->s->tag = s->run[first].tag;
        return 0;
    }
    jrun *v;
    rc = jrt_array(r, last - first + 1, sizeof *v, &v);
    if (rc != 0)
        return rc;
    for (size_t i = first; i <= last; i++)
        v[i - first] = (jrun){s->run[i].end - from, s->run[i].tag};
    out->s->run = v;
    out->s->n_run = last - first + 1;
    return 0;
}

int jstr_find(jrt *r, const jstr *s, const char *p, size_t n, size_t from, size_t *out)
{
    *out = SIZE_MAX;
    if (from > s->n)
        return 0;
    const char *at = n == 0 ? s->p + from : memmem(s->p + from, s->n - from, p, n);
    size_t seen = at == NULL ? s->n - from : (size_t)(at - s->p) - from;
    if (at != NULL)
        *out = (size_t)(at - s->p);
    return jrt_steps(r, 1 + seen / 64);
}

/* ---- buffers ---- */

static int grow(jrt *r, jbuf *b, size_t n)
{
    if (n > r->max_output || b->n > r->max_output - n)
        return jrt_fail_code(r, HONE_ELIMIT, "text longer than %zu bytes", r->max_output);
    if (b->n + n <= b->cap)
        return 0;
    size_t cap = b->cap == 0 ? n : b->cap * 2;
    if (cap < b->n + n)
        cap = b->n + n;
    char *p;
    int rc = jrt_alloc(r, cap, &p);
    if (rc != 0)
        return rc;
    if (b->n > 0)
        memcpy(p, b->p, b->n);
    b->p = p;
    b->cap = cap;
    return 0;
}

int jbuf_add(jrt *r, jbuf *b, const char *p, size_t n, jtag tag)
{
    if (n == 0)
        return 0;
    int rc = grow(r, b, n);
    if (rc != 0)
        return rc;
    memcpy(b->p + b->n, p, n);
    b->n += n;
    if (b->n_run > 0 && tag_is(b->run[b->n_run - 1].tag, tag)) {
        b->run[b->n_run - 1].end = b->n;
        return 0;
    }
    if (b->n_run == b->cap_run) {
        size_t cap = b->cap_run == 0 ? 2 : b->cap_run * 2;
        jrun *v;
        rc = jrt_array(r, cap, sizeof *v, &v);
        if (rc != 0)
            return rc;
        if (b->n_run > 0)
            memcpy(v, b->run, b->n_run * sizeof *v);
        b->run = v;
        b->cap_run = cap;
    }
    b->run[b->n_run++] = (jrun){b->n, tag};
    return 0;
}

int jbuf_str(jrt *r, jbuf *b, const jstr *s, size_t from, size_t to)
{
    if (from >= to)
        return 0;
    jrun tmp;
    size_t n;
    const jrun *v = runs(s, &tmp, &n);
    int rc = jrt_steps(r, 1 + (to - from) / 64);
    for (size_t i = run_at(v, n, from); rc == 0 && from < to; i++) {
        size_t end = v[i].end < to ? v[i].end : to;
        rc = jbuf_add(r, b, s->p + from, end - from, v[i].tag);
        from = end;
    }
    return rc;
}

int jbuf_value(jrt *r, jbuf *b, jval v)
{
    int rc = v.kind == J_STR ? 0 : jprint_str(r, v, &v);
    return rc != 0 ? rc : jbuf_str(r, b, v.s, 0, v.s->n);
}

void jbuf_retag(jbuf *b)
{
    jtag tag = {0};
    for (size_t i = 0; i < b->n_run; i++) {
        jtag t = b->run[i].tag;
        if (tag.msg != 0 && t.msg != 0 && t.msg != tag.msg)
            return; /* several messages: each keeps its bytes */
        tag = jtag_join(tag, t);
    }
    if (b->n_run > 0) {
        b->run[0] = (jrun){b->n, tag};
        b->n_run = 1;
    }
}

int jbuf_done(jrt *r, jbuf *b, jval *out)
{
    int rc = jstr_view(r, b->p == NULL ? "" : b->p, b->n, (jtag){0}, out);
    if (rc == 0 && b->n_run == 1) {
        out->s->tag = b->run[0].tag;
    } else if (rc == 0 && b->n_run > 1) {
        out->s->run = b->run;
        out->s->n_run = b->n_run;
    }
    return rc;
}

/* A new buffer that holds `a` and has room for `more` bytes. */
static int own_buffer(jrt *r, const jstr *a, size_t more, jbuf **out)
{
    int rc = jrt_alloc(r, sizeof **out, out);
    if (rc == 0)
        rc = grow(r, *out, a->n + more);
    return rc != 0 ? rc : jbuf_str(r, *out, a, 0, a->n);
}

int jstr_concat(jrt *r, const jstr *a, const jstr *b, jval *out)
{
    jbuf *own = a->own;
    int rc = 0;
    if (own == NULL || own->p != a->p || own->n != a->n)
        rc = own_buffer(r, a, b->n, &own);
    if (rc == 0)
        rc = jbuf_str(r, own, b, 0, b->n);
    if (rc == 0)
        rc = jbuf_done(r, own, out);
    if (rc == 0)
        out->s->own = own;
    return rc;
}

int jstr_escape(jrt *r, const jstr *s, jval *out)
{
    static const struct {
        char c;
        const char *text;
    } map[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
    jbuf b = {0};
    int rc = 0;
    size_t done = 0;
    for (size_t i = 0; rc == 0 && !s->safe && i < s->n; i++)
        for (size_t k = 0; rc == 0 && k < sizeof map / sizeof *map; k++)
            if (s->p[i] == map[k].c) {
                jrun tmp;
                size_t n;
                const jrun *v = runs(s, &tmp, &n);
                rc = jbuf_str(r, &b, s, done, i);
                if (rc == 0)
                    rc = jbuf_add(r, &b, map[k].text, strlen(map[k].text), v[run_at(v, n, i)].tag);
                done = i + 1;
            }
    if (rc == 0)
        rc = jbuf_str(r, &b, s, done, s->n);
    if (rc == 0)
        rc = jbuf_done(r, &b, out);
    if (rc == 0)
        out->s->safe = true;
    return rc;
}
