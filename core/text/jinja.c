/* Compiling, rendering within limits, and the spans of a rendering. */
#include "core/text/jinja.h"

#include "core/base/mem.h"
#include "core/base/utf8.h"
#include "core/text/jinja_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_MEMORY = 16 << 20 }; /* room for the context, however little may be written */

int jrt_fail_code(jrt *r, int code, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return hone_fail(r->e, code, "template: line %d: %s", r->line, text);
}

int jrt_fail(jrt *r, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return hone_fail(r->e, HONE_EFORMAT, "template: line %d: %s", r->line, text);
}

int jrt_steps(jrt *r, size_t n)
{
    if (n > r->steps)
        return jrt_fail_code(r, HONE_ELIMIT, "the template takes too many steps");
    r->steps -= n;
    return 0;
}

int jrt_alloc(jrt *r, size_t n, void *out)
{
    if (n > r->max_mem || arena_used(r->mem) > r->max_mem - n)
        return jrt_fail_code(r, HONE_ELIMIT, "the template needs more than %zu bytes of memory",
                             r->max_mem);
    int rc = jrt_steps(r, n / 64);
    if (rc != 0)
        return rc;
    void *p = arena_alloc(r->mem, n);
    memcpy(out, &p, sizeof p);
    return 0;
}

int jrt_array(jrt *r, size_t n, size_t size, void *out)
{
    if (n > SIZE_MAX / size / 2)
        return jrt_alloc(r, SIZE_MAX / 2, out);
    return jrt_alloc(r, n * size, out);
}

int jinja_compile(jinja **out, const char *src, size_t len, hone_err *e)
{
    *out = NULL;
    if (len > JINJA_MAX_SOURCE)
        return hone_fail(e, HONE_ELIMIT, "template: %zu bytes, at most %d are read", len,
                         JINJA_MAX_SOURCE);
    size_t valid = utf8_valid(src, len);
    if (valid != len)
        return hone_fail(e, HONE_EFORMAT, "template: byte %zu is not UTF-8", valid);
    jinja *t = mem_alloc(sizeof *t);
    jtoken *tok;
    size_t n;
    t->mem = arena_new();
    int rc = jlex(t->mem, src, len, &tok, &n, e);
    if (rc == 0)
        rc = jparse(t, tok, e);
    if (rc != 0) {
        jinja_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void jinja_free(jinja *t)
{
    if (t == NULL)
        return;
    arena_free(t->mem);
    free(t->names);
    free(t);
}

bool jinja_has_generation(const jinja *t)
{
    return t->generation;
}

void jinja_spans_free(jinja_spans *s)
{
    free(s->v);
    *s = (jinja_spans){0};
}

/* ---- rendering ---- */

/* Only what the template mentions is converted. */
static int load_context(jrt *r, const json_t *context)
{
    for (size_t i = 0; i < r->t->n_names; i++) {
        const char *name = r->t->names[i].text->p;
        const json_t *j = json_object_get(context, name);
        jval v;
        if (j == NULL || r->t->names[i].late)
            continue;
        int rc =
            strcmp(name, "messages") == 0 ? jval_messages(r, j, &v) : jval_from_json(r, j, 0, &v);
        if (rc == 0)
            rc = jeval_set(r, r->frame, (int)i, v);
        if (rc != 0)
            return rc;
    }
    const json_t *now = json_object_get(context, "__now");
    r->has_now = json_is_integer(now);
    r->now = json_integer_value(now);
    return 0;
}

static void add_span(jinja_spans *s, jinja_span v)
{
    s->v = mem_grow(s->v, &s->cap, s->n + 1, sizeof *s->v);
    s->v[s->n++] = v;
}

static void message_spans(const jbuf *b, jinja_spans *s)
{
    jinja_span *last = NULL;
    size_t start = 0;
    for (size_t i = 0; i < b->n_run; start = b->run[i++].end) {
        int origin = b->run[i].tag.msg - 1;
        size_t end = b->run[i].end;
        if (origin < 0)
            continue;
        if (last != NULL && last->origin == origin) {
            last->end = last->said = end;
            continue;
        }
        add_span(s, (jinja_span){.start = start, .end = end, .said = end, .origin = origin});
        last = &s->v[s->n - 1];
    }
}

static void generation_spans(const jbuf *b, jinja_spans *s)
{
    int32_t number = 0;
    size_t start = 0;
    for (size_t i = 0; i < b->n_run; start = b->run[i++].end) {
        jtag tag = b->run[i].tag;
        size_t end = b->run[i].end;
        if (tag.gen == 0) {
            number = 0;
            continue;
        }
        if (tag.gen != number)
            add_span(s,
                     (jinja_span){.start = start, .said = start, .origin = -1, .generation = true});
        number = tag.gen;
        jinja_span *last = &s->v[s->n - 1];
        last->end = end;
        if (tag.msg != 0) {
            last->said = end;
            if (last->origin < 0)
                last->origin = tag.msg - 1;
        }
    }
}

int jinja_render(const jinja *t, const json_t *context, const jinja_limits *lim, buf *out,
                 jinja_spans *spans, hone_err *e)
{
    static const jinja_limits none = {0};
    hone_err dropped = {0};
    const jinja_limits *l = lim == NULL ? &none : lim;
    jbuf text = {0};
    jframe outer = {0}, root = {.up = &outer};
    jrt r = {.t = t, .e = e == NULL ? &dropped : e, .frame = &outer, .out = &text, .line = 1};
    r.max_output = l->max_output != 0 ? l->max_output : 8 << 20;
    r.max_mem = r.max_output > SIZE_MAX / 32 ? SIZE_MAX / 2 : r.max_output * 16;
    if (r.max_mem < MIN_MEMORY)
        r.max_mem = MIN_MEMORY;
    r.steps = l->max_steps != 0 ? l->max_steps : 10000000;
    r.max_calls = l->max_depth != 0 ? l->max_depth : 200;
    r.max_depth = r.max_calls > 1000 ? 10000 : r.max_calls * 10;
    r.mem = arena_new();
    int rc = load_context(&r, context);
    r.frame = &root;
    if (rc == 0)
        rc = jeval_block(&r, &t->body);
    if (rc == 0) {
        size_t before = out->len;
        buf_add(out, text.p == NULL ? "" : text.p, text.n);
        rc = buf_check(out, "rendered template", r.e);
        if (rc != 0)
            out->len = before;
    }
    if (rc == 0 && spans != NULL) {
        spans->n = 0;
        message_spans(&text, spans);
        generation_spans(&text, spans);
    }
    arena_free(r.mem);
    return rc;
}
