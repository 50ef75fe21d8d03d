/* The for statement and its `loop`. Items are taken one by one and the filter is asked when the
 * item's turn comes, as in Python, so a filter may look at what the body has set. */
#include "core/text/jinja_int.h"

#include <string.h>

/* Whether the filter lets this item through; the filter sees the target in a scope of its own. An
 * item that it unpacks goes on as the tuple of the target's names, as in Jinja. */
static int passes(jrt *r, const jloop *l, jval *item, bool *out)
{
    jframe *outer = r->frame;
    jval v;
    *out = true;
    if (l->node->c == NULL)
        return 0;
    int rc = jeval_frame(r, l->frame, &r->frame);
    if (rc == 0)
        rc = jeval_assign(r, l->node->a, *item);
    if (rc == 0)
        rc = jeval(r, l->node->c, &v);
    if (rc == 0 && l->node->a->kind == N_TUPLE)
        rc = jeval(r, l->node->a, item);
    r->frame = outer;
    if (rc == 0)
        *out = jval_true(v);
    return rc;
}

/* 1: an item; 0: the end. */
static int fetch(jrt *r, jloop *l, jval *out)
{
    bool ok = false;
    while (!ok) {
        int rc = jiter_next(r, &l->it, out);
        if (rc != 1)
            return rc;
        rc = passes(r, l, out, &ok);
        if (rc != 0)
            return rc;
    }
    return 1;
}

static int peek(jrt *r, jloop *l)
{
    if (l->after.kind != J_MISSING)
        return 1;
    int rc = fetch(r, l, &l->after);
    if (rc != 1)
        l->after = (jval){0};
    return rc;
}

static int next(jrt *r, jloop *l)
{
    jval item;
    int rc = 1;
    if (l->after.kind != J_MISSING) {
        item = l->after;
        l->after = (jval){0};
    } else {
        rc = fetch(r, l, &item);
    }
    if (rc != 1)
        return rc;
    l->index0++;
    l->before = l->current;
    l->current = item;
    return 1;
}

static int run_body(jrt *r, jloop *l, jframe **spare)
{
    const jnode *n = l->node;
    int rc = 0;
    if (*spare == NULL || (*spare)->kept)
        rc = jeval_frame(r, l->frame, spare);
    if (rc != 0)
        return rc;
    (*spare)->n = 0;
    r->frame = *spare;
    if (n->flag)
        rc = jeval_set(r, r->frame, n->name, (jval){.kind = J_LOOP, .loop = l});
    if (rc == 0)
        rc = jeval_assign(r, n->a, l->current);
    if (rc == 0)
        rc = jeval_block(r, &n->body);
    return rc;
}

static int run_else(jrt *r, const jnode *n)
{
    int rc = jeval_frame(r, r->frame, &r->frame);
    return rc == 0 ? jeval_block(r, &n->other) : rc;
}

int jloop_run(jrt *r, const jnode *n)
{
    jloop *l;
    jval v;
    jframe *outer = r->frame, *spare = NULL;
    int rc = jeval(r, n->b, &v);
    if (rc == 0)
        rc = jrt_alloc(r, sizeof *l, &l);
    r->line = n->line;
    if (rc != 0)
        return rc;
    *l = (jloop){.node = n, .frame = outer, .index0 = -1};
    rc = jiter_open(r, v, &l->it);
    bool finished = false, left = false; /* a body reached its end; a break was met */
    while (rc == 0 && !left && (rc = next(r, l)) == 1) {
        rc = run_body(r, l, &spare);
        r->frame = outer;
        finished |= rc == 0;
        left = rc == JINJA_BREAK;
        if (rc > 0)
            rc = 0;
    }
    if (rc == 0 && !finished &&
        n->other.n > 0) /* also after a break in the first round, as in Jinja */
        rc = run_else(r, n);
    r->frame = outer;
    return rc;
}

/* ---- loop.something ---- */

static int length(jrt *r, jloop *l, int64_t *out)
{
    if (!l->sized) {
        bool known = l->node->c == NULL && l->it.v.kind != J_ITER;
        int rc = known ? jval_len(r, l->it.v, out) : 0;
        if (known && rc != 0)
            return rc;
        if (!known) { /* take all that is left, and give it back as a list */
            jval *v = NULL, item;
            size_t n = 0, cap = 0;
            while ((rc = fetch(r, l, &item)) == 1) {
                if (n == cap) {
                    jval *wider;
                    rc = jrt_array(r, cap = cap * 2 + 8, sizeof *wider, &wider);
                    if (rc != 0)
                        return rc;
                    if (n > 0)
                        memcpy(wider, v, n * sizeof *v);
                    v = wider;
                }
                v[n++] = item;
            }
            jval rest;
            if (rc == 0)
                rc = jval_gen(r, v, n, "generator", &rest);
            if (rc == 0)
                rc = jiter_open(r, rest, &l->it);
            if (rc != 0)
                return rc;
            *out = (int64_t)n + l->index0 + 1 + (l->after.kind != J_MISSING);
        }
        l->sized = true;
        l->length = (size_t)*out;
    }
    *out = (int64_t)l->length;
    return 0;
}

typedef int attr_fn(jrt *r, jloop *l, jval *out);

static int a_index(jrt *r, jloop *l, jval *out)
{
    (void)r;
    *out = jval_int(l->index0 + 1);
    return 0;
}

static int a_index0(jrt *r, jloop *l, jval *out)
{
    (void)r;
    *out = jval_int(l->index0);
    return 0;
}

static int a_length(jrt *r, jloop *l, jval *out)
{
    int64_t n = 0;
    int rc = length(r, l, &n);
    *out = jval_int(n);
    return rc;
}

static int a_revindex(jrt *r, jloop *l, jval *out)
{
    int64_t n = 0;
    int rc = length(r, l, &n);
    *out = jval_int(n - l->index0);
    return rc;
}

static int a_revindex0(jrt *r, jloop *l, jval *out)
{
    int64_t n = 0;
    int rc = length(r, l, &n);
    *out = jval_int(n - l->index0 - 1);
    return rc;
}

static int a_first(jrt *r, jloop *l, jval *out)
{
    (void)r;
    *out = jval_bool(l->index0 == 0);
    return 0;
}

static int a_last(jrt *r, jloop *l, jval *out)
{
    int rc = peek(r, l);
    *out = jval_bool(rc == 0);
    return rc == 1 ? 0 : rc;
}

static int a_depth(jrt *r, jloop *l, jval *out)
{
    (void)r;
    (void)l;
    *out = jval_int(1);
    return 0;
}

static int a_depth0(jrt *r, jloop *l, jval *out)
{
    (void)r;
    (void)l;
    *out = jval_int(0);
    return 0;
}

static int a_previtem(jrt *r, jloop *l, jval *out)
{
    *out = l->before;
    return l->index0 == 0 ? jval_undef_hint(r, "there is no previous item", out) : 0;
}

static int a_nextitem(jrt *r, jloop *l, jval *out)
{
    int rc = peek(r, l);
    *out = l->after;
    if (rc == 0)
        return jval_undef_hint(r, "there is no next item", out);
    return rc == 1 ? 0 : rc;
}

static const struct {
    const char *name;
    attr_fn *fn;
} attrs[] = {
    {"index", a_index},       {"index0", a_index0},       {"revindex", a_revindex},
    {"length", a_length},     {"revindex0", a_revindex0}, {"first", a_first},
    {"last", a_last},         {"depth", a_depth},         {"depth0", a_depth0},
    {"previtem", a_previtem}, {"nextitem", a_nextitem},
};

int jloop_attr(jrt *r, jloop *l, const jstr *name, jval *out, bool *found)
{
    *found = true;
    for (size_t i = 0; i < sizeof attrs / sizeof *attrs; i++)
        if (jstr_is(name, attrs[i].name))
            return attrs[i].fn(r, l, out);
    *found = false;
    return 0;
}

static int m_cycle(jrt *r, jval self, const jcall *c, jval *out)
{
    if (c->n_pos == 0)
        return jrt_fail(r, "no items for cycling given");
    *out = c->pos[(size_t)self.loop->index0 % c->n_pos];
    return 0;
}

static int m_changed(jrt *r, jval self, const jcall *c, jval *out)
{
    jval now;
    bool same = false;
    int rc = jval_seq(r, J_TUPLE, c->n_pos, &now);
    if (rc == 0 && c->n_pos > 0)
        memcpy(now.seq->v, c->pos, c->n_pos * sizeof(jval));
    if (rc == 0)
        rc = jval_eq(r, self.loop->changed, now, &same);
    self.loop->changed = now;
    *out = jval_bool(!same);
    return rc;
}

const jbuiltin jinja_loop_methods[] = {
    {"cycle", m_cycle, 0, NULL},
    {"changed", m_changed, 0, NULL},
    {0},
};
