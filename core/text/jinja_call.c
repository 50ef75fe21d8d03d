/* Calls: arguments to parameters, macros, and the global functions. */
#include "core/base/clock.h"
#include "core/text/jinja_int.h"

#include <string.h>
#include <time.h>

enum { MAX_PARAMS = 8 }; /* of a row of a table */

/* ---- arguments ---- */

static int add_star(jrt *r, const jnode *star, jval *pos, size_t at, size_t *n, jval **out)
{
    jval v, *items;
    size_t more;
    int rc = jeval(r, star, &v);
    if (rc == 0)
        rc = jiter_all(r, v, &items, &more);
    if (rc == 0)
        rc = jrt_array(r, at + more, sizeof **out, out);
    if (rc != 0)
        return rc;
    if (at > 0)
        memcpy(*out, pos, at * sizeof *pos);
    if (more > 0)
        memcpy(*out + at, items, more * sizeof *items);
    *n = at + more;
    return 0;
}

static int add_star2(jrt *r, const jnode *star2, jkw *kw, size_t at, jcall *c)
{
    jval v;
    jkw *all;
    int rc = jeval(r, star2, &v);
    if (rc == 0 && v.kind != J_DICT)
        rc = jrt_fail(r, "argument after ** must be a mapping, not %s", jval_type(v));
    if (rc == 0)
        rc = jrt_array(r, at + v.dict->n, sizeof *all, &all);
    if (rc != 0)
        return rc;
    if (at > 0)
        memcpy(all, kw, at * sizeof *kw);
    for (size_t i = 0; i < v.dict->n; i++) {
        if (v.dict->e[i].key.kind != J_STR)
            return jrt_fail(r, "keywords must be strings");
        all[at + i] = (jkw){v.dict->e[i].key.s, v.dict->e[i].val};
    }
    c->kw = all;
    c->n_kw = at + v.dict->n;
    return 0;
}

int jcall_args(jrt *r, const jargs *a, jcall *c)
{
    *c = (jcall){0};
    if (a == NULL)
        return 0;
    jval *pos;
    jkw *kw;
    int rc = jrt_array(r, a->pos.n, sizeof *pos, &pos);
    if (rc == 0)
        rc = jrt_array(r, a->n_kw, sizeof *kw, &kw);
    for (size_t i = 0; rc == 0 && i < a->pos.n; i++)
        rc = jeval(r, a->pos.v[i], &pos[i]);
    c->n_pos = a->pos.n;
    for (size_t i = 0; rc == 0 && i < a->n_kw; i++) {
        kw[i].name = a->kw_name[i];
        rc = jeval(r, a->kw[i], &kw[i].val);
    }
    if (rc != 0)
        return rc;
    c->kw = kw;
    c->n_kw = a->n_kw;
    if (a->star != NULL)
        rc = add_star(r, a->star, pos, a->pos.n, &c->n_pos, &pos);
    c->pos = pos;
    if (rc == 0 && a->star2 != NULL)
        rc = add_star2(r, a->star2, kw, a->n_kw, c);
    return rc;
}

/* The word number i of a list of words; its length, 0 past the end. */
static size_t word(const char *words, size_t i, const char **out)
{
    const char *p = words + (*words == '/');
    for (;; i--) {
        p += strspn(p, " ");
        size_t n = strcspn(p, " ");
        *out = p;
        if (i == 0 || n == 0)
            return n;
        p += n;
    }
}

int jcall_builtin(jrt *r, const jbuiltin *b, jval self, const jcall *c, jval *out)
{
    if (b->params == NULL)
        return b->fn(r, self, c, out);
    jval v[MAX_PARAMS] = {0};
    const char *name;
    size_t n = 0;
    while (word(b->params, n, &name) > 0) {
        if (n < c->n_pos)
            v[n] = c->pos[n];
        n++;
    }
    if (c->n_pos > n)
        return jrt_fail(r, "%s takes at most %zu arguments, got %zu", b->name, n, c->n_pos);
    if (c->n_kw > 0 && *b->params == '/')
        return jrt_fail(r, "%s() takes no keyword arguments", b->name);
    for (size_t k = 0; k < c->n_kw; k++) {
        const jstr *kw = c->kw[k].name;
        size_t i = 0, len;
        while ((len = word(b->params, i, &name)) > 0 &&
               (len != kw->n || memcmp(name, kw->p, len) != 0))
            i++;
        if (len == 0)
            return jrt_fail(r, "%s has no argument '%.*s'", b->name, (int)kw->n, kw->p);
        if (v[i].kind != J_MISSING)
            return jrt_fail(r, "%s got two values for '%.*s'", b->name, (int)kw->n, kw->p);
        v[i] = c->kw[k].val;
    }
    for (size_t i = 0; i < (size_t)b->required; i++)
        if (v[i].kind == J_MISSING) {
            size_t len = word(b->params, i, &name);
            return jrt_fail(r, "%s needs the argument '%.*s'", b->name, (int)len, name);
        }
    jcall bound = *c;
    bound.v = v;
    return b->fn(r, self, &bound, out);
}

/* ---- macros ---- */

static const jval *find_kw(const jcall *c, const jstr *name)
{
    for (size_t i = 0; i < c->n_kw; i++)
        if (jstr_same(c->kw[i].name, name))
            return &c->kw[i].val;
    return NULL;
}

static bool is_param(const jrt *r, const jmacro *m, const jstr *name)
{
    for (size_t i = 0; i < m->n_param; i++)
        if (jstr_same(r->t->names[m->param[i]].text, name))
            return true;
    return false;
}

static int set_named(jrt *r, const char *name, jval v)
{
    for (size_t i = 0; i < r->t->n_names; i++)
        if (jstr_is(r->t->names[i].text, name))
            return jeval_set(r, r->frame, (int)i, v);
    return 0;
}

static int no_argument(jrt *r, const jstr *name, jval *out)
{
    jbuf b = {0};
    int rc = jbuf_add(r, &b, "parameter '", 11, (jtag){0});
    if (rc == 0)
        rc = jbuf_add(r, &b, name->p, name->n, (jtag){0});
    if (rc == 0)
        rc = jbuf_add(r, &b, "' was not provided", 19, (jtag){0});
    return rc == 0 ? jval_undef_hint(r, b.p, out) : rc;
}

static int bind_params(jrt *r, const jmacro *m, const jcall *c)
{
    for (size_t i = 0; i < m->n_param; i++) {
        const jstr *name = r->t->names[m->param[i]].text;
        const jval *kw = find_kw(c, name);
        jval v;
        int rc = 0;
        if (i < c->n_pos && kw != NULL)
            rc = jrt_fail(r, "macro '%s' got two values for '%s'", m->name->p, name->p);
        else if (i < c->n_pos)
            v = c->pos[i];
        else if (kw != NULL)
            v = *kw;
        else if (m->dflt[i] != NULL)
            rc = jeval(r, m->dflt[i], &v);
        else
            rc = no_argument(r, name, &v);
        if (rc == 0)
            rc = jeval_set(r, r->frame, m->param[i], v);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Keyword arguments that are no parameters: caller, kwargs, or a mistake. */
static int bind_keywords(jrt *r, const jmacro *m, const jcall *c)
{
    jval kwargs = {.kind = J_DICT}, v;
    bool caller = false;
    int rc = jdict_new(r, c->n_kw, &kwargs.dict);
    for (size_t i = 0; rc == 0 && i < c->n_kw; i++) {
        const jstr *name = c->kw[i].name;
        if (is_param(r, m, name))
            continue;
        if (m->caller && jstr_is(name, "caller")) {
            caller = true;
            rc = set_named(r, "caller", c->kw[i].val);
        } else if (m->kwargs) {
            rc = jdict_put(r, kwargs.dict, jval_str(name), c->kw[i].val);
        } else {
            rc = jrt_fail(r, "macro '%s' takes no keyword argument '%.*s'", m->name->p,
                          (int)name->n, name->p);
        }
    }
    if (rc == 0 && m->kwargs)
        rc = set_named(r, "kwargs", kwargs);
    if (rc != 0 || !m->caller || caller)
        return rc;
    rc = jval_undef_hint(r, "No caller defined", &v);
    return rc == 0 ? set_named(r, "caller", v) : rc;
}

/* Positional arguments past the last parameter. */
static int bind_extra(jrt *r, const jmacro *m, const jcall *c)
{
    size_t extra = c->n_pos > m->n_param ? c->n_pos - m->n_param : 0;
    jval v;
    if (extra > 0 && !m->varargs)
        return jrt_fail(r, "macro '%s' takes not more than %zu argument(s)", m->name->p,
                        m->n_param);
    if (!m->varargs)
        return 0;
    int rc = jval_seq(r, J_TUPLE, extra, &v);
    if (rc == 0 && extra > 0)
        memcpy(v.seq->v, c->pos + m->n_param, extra * sizeof(jval));
    return rc == 0 ? set_named(r, "varargs", v) : rc;
}

int jcall_macro(jrt *r, const jmacro *m, jframe *closure, const jcall *c, jval *out)
{
    jframe *outer = r->frame;
    jbuf *outer_out = r->out, own = {0};
    int line = r->line;
    if (++r->calls > r->max_calls)
        return jrt_fail_code(r, HONE_ELIMIT, "macros call each other deeper than %d", r->max_calls);
    int rc = jeval_frame(r, closure, &r->frame);
    if (rc == 0)
        rc = bind_params(r, m, c);
    if (rc == 0)
        rc = bind_keywords(r, m, c);
    if (rc == 0)
        rc = bind_extra(r, m, c);
    r->out = &own;
    if (rc == 0)
        rc = jeval_block(r, &m->body);
    if (rc == 0)
        rc = jbuf_done(r, &own, out);
    r->out = outer_out;
    r->frame = outer;
    r->calls--;
    if (rc == 0)
        r->line = line;
    return rc;
}

int jcall_value(jrt *r, jval f, const jcall *c, jval *out)
{
    if (f.kind == J_UNDEF)
        return jval_undef_fail(r, f);
    if (f.kind == J_LOOP)
        return jrt_fail(r, "The loop must have the 'recursive' marker to be called recursively.");
    if (f.kind != J_FUNC)
        return jrt_fail(r, "'%s' object is not callable", jval_type(f));
    if (f.func->macro != NULL)
        return jcall_macro(r, f.func->macro, f.func->closure, c, out);
    if (f.func->fn->fn == NULL)
        return jrt_fail_code(r, HONE_EUNSUPPORTED, "%s() is not supported", f.func->fn->name);
    return jcall_builtin(r, f.func->fn, f.func->self, c, out);
}

int jcall_node(jrt *r, const jnode *n, const jval *caller, jval *out)
{
    static const jstr caller_name = {.p = "caller", .n = 6, .chars = 6};
    jval f;
    jcall c;
    int rc = jeval(r, n->a, &f);
    if (rc == 0)
        rc = jcall_args(r, n->args, &c);
    if (rc == 0 && caller != NULL) {
        jkw *kw;
        rc = jrt_array(r, c.n_kw + 1, sizeof *kw, &kw);
        if (rc != 0)
            return rc;
        if (c.n_kw > 0)
            memcpy(kw, c.kw, c.n_kw * sizeof *kw);
        kw[c.n_kw++] = (jkw){&caller_name, *caller};
        c.kw = kw;
    }
    r->line = n->line;
    return rc == 0 ? jcall_value(r, f, &c, out) : rc;
}

/* ---- global functions ---- */

static int g_range(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)self;
    int64_t v[3] = {0, 0, 1};
    size_t given = 0;
    while (given < 3 && c->v[given].kind != J_MISSING)
        given++;
    for (size_t i = 0; i < given; i++) {
        int rc = jval_to_int(r, c->v[i], "an argument of range", &v[given == 1 ? 1 : i]);
        if (rc != 0)
            return rc;
    }
    if (v[2] == 0)
        return jrt_fail(r, "range() arg 3 must not be zero");
    /* As doubles: no overflow, and exact where it matters. */
    double span = ((double)v[1] - (double)v[0]) / (double)v[2];
    if (span > JINJA_MAX_RANGE)
        return jrt_fail_code(r, HONE_ELIMIT, "a range of more than %d items", JINJA_MAX_RANGE);
    *out = (jval){.kind = J_RANGE};
    int rc = jrt_alloc(r, sizeof *out->range, &out->range);
    if (rc != 0)
        return rc;
    *out->range = (jrange){.start = v[0], .stop = v[1], .step = v[2]};
    while (span > 0 && (double)out->range->n < span)
        out->range->n++;
    return 0;
}

static int make_dict(jrt *r, jkind kind, const jcall *c, jval *out)
{
    *out = (jval){.kind = (uint8_t)kind};
    int rc = jdict_new(r, c->n_kw, &out->dict);
    if (rc == 0 && c->n_pos > 1)
        rc = jrt_fail(r, "dict expected at most 1 argument, got %zu", c->n_pos);
    if (rc == 0 && c->n_pos == 1)
        rc = jdict_merge(r, out->dict, c->pos[0]);
    for (size_t i = 0; rc == 0 && i < c->n_kw; i++)
        rc = jdict_put(r, out->dict, jval_str(c->kw[i].name), c->kw[i].val);
    return rc;
}

static int g_dict(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)self;
    return make_dict(r, J_DICT, c, out);
}

static int g_namespace(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)self;
    int rc = make_dict(r, J_NS, c, out);
    for (size_t i = 0; rc == 0 && i < out->dict->n; i++) {
        jval key = out->dict->e[i].key;
        if (key.kind == J_STR && key.s->n > 0 && key.s->p[0] == '_')
            rc = jrt_fail(r, "a namespace cannot have an attribute that begins with '_': %.*s",
                          (int)key.s->n, key.s->p);
    }
    return rc;
}

static int g_raise_exception(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)self;
    (void)out;
    jval text;
    int rc = jprint_str(r, c->v[0], &text);
    if (rc != 0)
        return rc;
    return hone_fail(r->e, HONE_EFORMAT, "template: %.*s", (int)text.s->n, text.s->p);
}

static int g_strftime_now(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)self;
    char fmt[128], text[512] = "";
    struct tm tm;
    if (c->v[0].kind != J_STR || c->v[0].s->n >= sizeof fmt)
        return jrt_fail(r, "strftime_now needs a format of at most %zu bytes", sizeof fmt - 1);
    memcpy(fmt, c->v[0].s->p, c->v[0].s->n);
    fmt[c->v[0].s->n] = '\0';
    if (strstr(fmt, "%Z") != NULL || strstr(fmt, "%z") != NULL || strstr(fmt, "%f") != NULL)
        return jrt_fail_code(r, HONE_EUNSUPPORTED, "%%Z, %%z and %%f are not supported");
    time_t now = (time_t)(r->has_now ? r->now : clock_unix_ms() / 1000);
    if ((r->has_now ? gmtime_r(&now, &tm) : localtime_r(&now, &tm)) == NULL)
        return jrt_fail(r, "strftime_now: the time is out of range");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = fmt[0] == '\0' ? 0 : strftime(text, sizeof text, fmt, &tm);
#pragma GCC diagnostic pop
    return jstr_new(r, text, n, (jtag){0}, out);
}

/* clang-format off */
static const jbuiltin globals[] = {
    {"range",           g_range,           1, "/start stop step"},
    {"dict",            g_dict,            0, NULL},
    {"namespace",       g_namespace,       0, NULL},
    {"raise_exception", g_raise_exception, 1, "message"},
    {"strftime_now",    g_strftime_now,    1, "format"},
    {"cycler",          NULL,              0, JINJA_REFUSED},
    {"joiner",          NULL,              0, JINJA_REFUSED},
    {"lipsum",          NULL,              0, JINJA_REFUSED},
    {0},
};
/* clang-format on */

const jbuiltin *jcall_global(const char *name)
{
    return jbuiltin_find(globals, name, strlen(name));
}
