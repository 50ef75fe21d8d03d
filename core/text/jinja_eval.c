/* Walks the tree: a function a kind of node, in two tables. Scopes are those of Jinja: for, macro,
 * call, with, set blocks and filter blocks have one of their own, if has none. */
#include "core/text/jinja_int.h"

#include <string.h>

/* ---- scopes ---- */

int jeval_frame(jrt *r, jframe *up, jframe **out)
{
    int rc = jrt_alloc(r, sizeof **out, out);
    if (rc == 0)
        (*out)->up = up;
    return rc;
}

int jeval_set(jrt *r, jframe *f, int name, jval v)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->v[i].name == name) {
            f->v[i].val = v;
            return 0;
        }
    if (f->n == f->cap) {
        jvar *wider;
        size_t cap = f->cap == 0 ? 4 : f->cap * 2;
        int rc = jrt_array(r, cap, sizeof *wider, &wider);
        if (rc != 0)
            return rc;
        if (f->n > 0)
            memcpy(wider, f->v, f->n * sizeof *wider);
        f->v = wider;
        f->cap = cap;
    }
    f->v[f->n++] = (jvar){name, v};
    return 0;
}

int jeval_get(jrt *r, int name, jval *out)
{
    for (const jframe *f = r->frame; f != NULL; f = f->up)
        for (size_t i = 0; i < f->n; i++)
            if (f->v[i].name == name) {
                *out = f->v[i].val;
                return 0;
            }
    const jname *n = &r->t->names[name];
    if (n->global != NULL)
        return jval_func(r, n->global, J_NIL, out);
    return jval_undef(r, NULL, jval_str(n->text), out);
}

static int unpack(jrt *r, const jblock *targets, jval v)
{
    jval *items;
    size_t n;
    int rc = jiter_all(r, v, &items, &n);
    if (rc == 0 && n != targets->n)
        rc = n > targets->n ? jrt_fail(r, "too many values to unpack (expected %zu)", targets->n)
                            : jrt_fail(r, "not enough values to unpack (expected %zu, got %zu)",
                                       targets->n, n);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = jeval_assign(r, targets->v[i], items[i]);
    return rc;
}

int jeval_assign(jrt *r, const jnode *target, jval v)
{
    if (target->kind == N_NAME)
        return jeval_set(r, r->frame, target->name, v);
    if (target->kind == N_TUPLE)
        return unpack(r, &target->list, v);
    jval ns;
    int rc = jeval_get(r, target->name, &ns);
    if (rc != 0)
        return rc;
    if (ns.kind != J_NS)
        return jrt_fail(r, "cannot assign attribute on non-namespace object");
    if (target->val.s->p[0] == '_')
        return jrt_fail(r, "a namespace cannot have an attribute that begins with '_': %s",
                        target->val.s->p);
    return jdict_put(r, ns.dict, target->val, v);
}

/* Runs a block into `b`, in a scope of its own. */
static int run_into(jrt *r, const jblock *block, jbuf *b)
{
    jframe *outer = r->frame;
    jbuf *out = r->out;
    int rc = jeval_frame(r, outer, &r->frame);
    r->out = b;
    if (rc == 0)
        rc = jeval_block(r, block);
    r->out = out;
    r->frame = outer;
    return rc;
}

int jeval_capture(jrt *r, const jblock *b, jval *out)
{
    jbuf own = {0};
    int rc = run_into(r, b, &own);
    return rc == 0 ? jbuf_done(r, &own, out) : rc;
}

/* ---- statements ---- */

typedef int exec_fn(jrt *r, const jnode *n);

static int x_TEXT(jrt *r, const jnode *n)
{
    return jbuf_add(r, r->out, n->val.s->p, n->val.s->n, (jtag){0});
}

static int x_PRINT(jrt *r, const jnode *n)
{
    jval v;
    int rc = jeval(r, n->a, &v);
    r->line = n->line;
    return rc == 0 ? jbuf_value(r, r->out, v) : rc;
}

static int x_IF(jrt *r, const jnode *n)
{
    for (;;) {
        jval v;
        int rc = jeval(r, n->a, &v);
        if (rc != 0)
            return rc;
        if (jval_true(v))
            return jeval_block(r, &n->body);
        if (!n->flag)
            return jeval_block(r, &n->other);
        n = n->other.v[0];
    }
}

static int x_FOR(jrt *r, const jnode *n)
{
    return jloop_run(r, n);
}

static int x_SET(jrt *r, const jnode *n)
{
    jval v;
    int rc = jeval(r, n->b, &v);
    r->line = n->line;
    return rc == 0 ? jeval_assign(r, n->a, v) : rc;
}

/* The block's text through the filters, when there are any. */
static int filtered(jrt *r, const jnode *n, jval *out)
{
    jval outer = r->captured;
    int rc = jeval_capture(r, &n->body, out);
    if (rc != 0 || n->b == NULL)
        return rc;
    r->captured = *out;
    rc = jeval(r, n->b, out);
    r->captured = outer;
    return rc;
}

static int x_SET_BLOCK(jrt *r, const jnode *n)
{
    jval v;
    int rc = filtered(r, n, &v);
    return rc == 0 ? jeval_assign(r, n->a, v) : rc;
}

static int x_FILTER_BLOCK(jrt *r, const jnode *n)
{
    jval v;
    int rc = filtered(r, n, &v);
    return rc == 0 ? jbuf_value(r, r->out, v) : rc;
}

static int x_WITH(jrt *r, const jnode *n)
{
    jframe *outer = r->frame, *inner;
    int rc = jeval_frame(r, outer, &inner);
    for (size_t i = 0; rc == 0 && i < n->list.n; i += 2) {
        jval v;
        rc = jeval(r, n->list.v[i + 1], &v);
        r->frame = inner;
        if (rc == 0)
            rc = jeval_assign(r, n->list.v[i], v);
        r->frame = outer;
    }
    r->frame = inner;
    if (rc == 0)
        rc = jeval_block(r, &n->body);
    r->frame = outer;
    return rc;
}

static int make_macro(jrt *r, const jmacro *m, jval *out)
{
    for (jframe *f = r->frame; f != NULL && !f->kept; f = f->up)
        f->kept = true;
    int rc = jval_func(r, NULL, J_NIL, out);
    if (rc == 0) {
        out->func->macro = m;
        out->func->closure = r->frame;
    }
    return rc;
}

static int x_MACRO(jrt *r, const jnode *n)
{
    jval v;
    int rc = make_macro(r, n->macro, &v);
    return rc == 0 ? jeval_set(r, r->frame, n->name, v) : rc;
}

static int x_CALL_BLOCK(jrt *r, const jnode *n)
{
    jval caller, v;
    int rc = make_macro(r, n->macro, &caller);
    if (rc == 0)
        rc = jcall_node(r, n->a, &caller, &v);
    return rc == 0 ? jbuf_value(r, r->out, v) : rc;
}

static int x_GENERATION(jrt *r, const jnode *n)
{
    jbuf own = {0};
    jval v;
    int32_t number = ++r->n_gen;
    int rc = run_into(r, &n->body, &own);
    for (size_t i = 0; i < own.n_run; i++)
        if (own.run[i].tag.gen == 0)
            own.run[i].tag.gen = number;
    if (rc == 0)
        rc = jbuf_done(r, &own, &v);
    return rc == 0 ? jbuf_str(r, r->out, v.s, 0, v.s->n) : rc;
}

static int x_BREAK(jrt *r, const jnode *n)
{
    (void)r;
    (void)n;
    return JINJA_BREAK;
}

static int x_CONTINUE(jrt *r, const jnode *n)
{
    (void)r;
    (void)n;
    return JINJA_CONTINUE;
}

static exec_fn *const statements[N_KINDS] = {
#define JINJA_EXEC_ROW(name) [N_##name] = x_##name,
    JINJA_STATEMENTS(JINJA_EXEC_ROW)
#undef JINJA_EXEC_ROW
};

static int deeper(jrt *r)
{
    if (++r->depth > r->max_depth)
        return jrt_fail_code(r, HONE_ELIMIT, "evaluation nests deeper than %d", r->max_depth);
    return jrt_steps(r, 1);
}

int jeval_block(jrt *r, const jblock *b)
{
    int rc = deeper(r);
    for (size_t i = 0; rc == 0 && i < b->n; i++) {
        r->line = b->v[i]->line;
        rc = jrt_steps(r, 1);
        if (rc == 0)
            rc = statements[b->v[i]->kind](r, b->v[i]);
    }
    r->depth--;
    return rc;
}

/* ---- expressions ---- */

typedef int eval_fn(jrt *r, const jnode *n, jval *out);

static int e_CONST(jrt *r, const jnode *n, jval *out)
{
    (void)r;
    *out = n->val;
    return 0;
}

static int e_NAME(jrt *r, const jnode *n, jval *out)
{
    return jeval_get(r, n->name, out);
}

static int e_NSREF(jrt *r, const jnode *n, jval *out)
{
    (void)n;
    (void)out;
    return jrt_fail_code(r, HONE_EINTERNAL, "a namespace target was evaluated");
}

static int e_LIST(jrt *r, const jnode *n, jval *out)
{
    int rc = jval_seq(r, n->kind == N_TUPLE ? J_TUPLE : J_LIST, n->list.n, out);
    for (size_t i = 0; rc == 0 && i < n->list.n; i++)
        rc = jeval(r, n->list.v[i], &out->seq->v[i]);
    return rc;
}
#define e_TUPLE e_LIST

static int e_DICT(jrt *r, const jnode *n, jval *out)
{
    *out = (jval){.kind = J_DICT};
    int rc = jdict_new(r, n->list.n / 2, &out->dict);
    for (size_t i = 0; rc == 0 && i < n->list.n; i += 2) {
        jval key, val;
        rc = jeval(r, n->list.v[i], &key);
        if (rc == 0)
            rc = jeval(r, n->list.v[i + 1], &val);
        if (rc == 0)
            rc = jdict_put(r, out->dict, key, val);
    }
    return rc;
}

static int e_GETATTR(jrt *r, const jnode *n, jval *out)
{
    jval obj;
    int rc = jeval(r, n->a, &obj);
    r->line = n->line;
    return rc == 0 ? jget_attr(r, obj, n->val.s, out) : rc;
}

static int e_GETITEM(jrt *r, const jnode *n, jval *out)
{
    jval obj, key;
    int rc = jeval(r, n->a, &obj);
    if (rc == 0)
        rc = jeval(r, n->b, &key);
    r->line = n->line;
    return rc == 0 ? jget_item(r, obj, key, out) : rc;
}

static int e_SLICE(jrt *r, const jnode *n, jval *out)
{
    jslice *s;
    int rc = jrt_alloc(r, sizeof *s, &s);
    if (rc != 0)
        return rc;
    const jnode *from[] = {n->a, n->b, n->c};
    jval *to[] = {&s->start, &s->stop, &s->step};
    for (size_t i = 0; rc == 0 && i < 3; i++) {
        *to[i] = J_NIL;
        if (from[i] != NULL)
            rc = jeval(r, from[i], to[i]);
    }
    *out = (jval){.kind = J_SLICE, .slice = s};
    return rc;
}

static int e_CALL(jrt *r, const jnode *n, jval *out)
{
    return jcall_node(r, n, NULL, out);
}

static int e_FILTER(jrt *r, const jnode *n, jval *out)
{
    jval v;
    jcall c;
    int rc = jeval(r, n->a, &v);
    if (rc == 0)
        rc = jcall_args(r, n->args, &c);
    r->line = n->line;
    return rc == 0 ? jcall_builtin(r, n->fn, v, &c, out) : rc;
}
#define e_TEST e_FILTER

static int e_CAPTURED(jrt *r, const jnode *n, jval *out)
{
    (void)n;
    *out = r->captured;
    return 0;
}

static int e_NOT(jrt *r, const jnode *n, jval *out)
{
    jval v;
    int rc = jeval(r, n->a, &v);
    if (rc == 0)
        *out = jval_bool(!jval_true(v));
    return rc;
}

static int e_NEG(jrt *r, const jnode *n, jval *out)
{
    jval v;
    int rc = jeval(r, n->a, &v);
    return rc == 0 ? jop_negate(r, v, out) : rc;
}

static int e_POS(jrt *r, const jnode *n, jval *out)
{
    jval v;
    int rc = jeval(r, n->a, &v);
    return rc == 0 ? jop_plus(r, v, out) : rc;
}

static int e_BINARY(jrt *r, const jnode *n, jval *out)
{
    jval a, b;
    int rc = jeval(r, n->a, &a);
    if (rc == 0)
        rc = jeval(r, n->b, &b);
    r->line = n->line;
    return rc == 0 ? jop_binary(r, (jop)n->op, a, b, out) : rc;
}

static int e_CONCAT(jrt *r, const jnode *n, jval *out)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n->list.n; i++) {
        jval v;
        rc = jeval(r, n->list.v[i], &v);
        if (rc == 0)
            rc = jprint_str(r, v, &v);
        if (rc == 0 && i > 0)
            rc = jstr_concat(r, out->s, v.s, out);
        else if (rc == 0)
            *out = v;
    }
    return rc;
}

static int e_COMPARE(jrt *r, const jnode *n, jval *out)
{
    jval left, right;
    bool yes = true;
    int rc = jeval(r, n->a, &left);
    for (size_t i = 0; rc == 0 && yes && i < n->list.n; i++) {
        const jnode *o = n->list.v[i];
        rc = jeval(r, o->a, &right);
        r->line = n->line;
        if (rc == 0)
            rc = jop_compare(r, (jop)o->op, left, right, &yes);
        left = right;
    }
    *out = jval_bool(yes);
    return rc;
}

static int e_OPERAND(jrt *r, const jnode *n, jval *out)
{
    return jeval(r, n->a, out);
}

static int e_AND(jrt *r, const jnode *n, jval *out)
{
    int rc = jeval(r, n->a, out);
    return rc == 0 && jval_true(*out) ? jeval(r, n->b, out) : rc;
}

static int e_OR(jrt *r, const jnode *n, jval *out)
{
    int rc = jeval(r, n->a, out);
    return rc == 0 && !jval_true(*out) ? jeval(r, n->b, out) : rc;
}

static int e_COND(jrt *r, const jnode *n, jval *out)
{
    jval test;
    int rc = jeval(r, n->a, &test);
    if (rc != 0)
        return rc;
    if (jval_true(test))
        return jeval(r, n->b, out);
    if (n->c != NULL)
        return jeval(r, n->c, out);
    return jval_undef_hint(r, "the inline if-expression evaluated to false and has no else", out);
}

static eval_fn *const expressions[N_KINDS] = {
#define JINJA_EVAL_ROW(name) [N_##name] = e_##name,
    JINJA_EXPRESSIONS(JINJA_EVAL_ROW)
#undef JINJA_EVAL_ROW
};

int jeval(jrt *r, const jnode *n, jval *out)
{
    r->line = n->line;
    int rc = deeper(r);
    if (rc == 0)
        rc = expressions[n->kind](r, n, out);
    r->depth--;
    return rc;
}
