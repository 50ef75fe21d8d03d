/* Ops that treat each row by itself: copies, embedding, norms, gated activations; and the
 * optimizer. */
#include <math.h>
#include <string.h>

#include "tests/ops/op.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

/* ---- copy and add ---------------------------------------------------------------------------- */

static const struct {
    kern_dtype from, to;
    int64_t rows, cols;
    double scale;
} copies[] = {
    {KERN_F32, KERN_F32, 3, 17, 1},     {KERN_F32, KERN_BF16, 5, 33, 1},
    {KERN_BF16, KERN_F32, 1, 100, 1},   {KERN_F32, KERN_F16, 4, 19, 1},
    {KERN_F16, KERN_F32, 2, 31, 1},     {KERN_F16, KERN_BF16, 2, 9, 1},
    {KERN_F32, KERN_F16, 4, 64, 1e-5},  {KERN_F16, KERN_F32, 4, 64, 1e-5},
    {KERN_BF16, KERN_BF16, 7, 16, 100}, {KERN_F32, KERN_BF16, 3, 30000, 1},
};

static void run_copy(op_ctx *c, int i)
{
    op_array *src = op_in(c, copies[i].from, copies[i].rows, copies[i].cols, copies[i].scale);
    op_array *dst = op_out(c, copies[i].to, src->rows, src->cols);
    /* What the target holds of each value. */
    op_array *want = op_from(c, copies[i].to, src->rows, src->cols, src->v);
    if (op_ok(c, kern_do(c->d, copy, &src->t, &dst->t)))
        op_equal(c, "copy", dst, want->v);
    op_array *sum = op_in(c, copies[i].to, src->rows, src->cols, copies[i].scale);
    for (int64_t j = 0; j < src->rows * src->cols; j++)
        want->v[j] = sum->v[j] + src->v[j];
    want = op_from(c, copies[i].to, src->rows, src->cols, want->v);
    if (op_ok(c, kern_do(c->d, add, &src->t, &sum->t)))
        op_equal(c, "add", sum, want->v);
}

const op_test op_copy = {
    .name = "copy", .n_cases = COUNT(copies), .run = run_copy, .one_dtype = true};

/* ---- embedding ------------------------------------------------------------------------------- */

static const struct {
    int64_t n, vocab, h;
    kern_dtype table;
    bool dense;
} embeds[] = {
    {1, 3, 7, KERN_F32, false},       {17, 10, 48, KERN_BF16, false},
    {129, 5, 33, KERN_F16, false},    {3, 50, 64, KERN_F32, false},
    {40, 9, 1032, KERN_BF16, true},   {1500, 300, 16, KERN_F16, true},
    {1030, 70000, 8, KERN_F32, true}, {700, 40, 200, KERN_F32, false},
};

static void run_embed(op_ctx *c, int i)
{
    int64_t n = embeds[i].n, vocab = embeds[i].vocab, h = embeds[i].h;
    c->dense = embeds[i].dense;
    op_array *table = op_in(c, embeds[i].table, vocab, h, 1), *x = op_out(c, c->t, n, h);
    int32_t *ids = op_ints(c, n, 0, (int32_t)vocab);
    double *want = op_block(c, (size_t)(n * h) * sizeof *want);
    for (int64_t r = 0; r < n; r++)
        memcpy(want + r * h, table->v + ids[r] * h, (size_t)h * sizeof *want);
    const int32_t *sent = op_send(c, ids, (size_t)n * sizeof *ids);
    kern_embed a = {.table = table->t, .ids = sent, .n = n, .x = x->t};
    if (op_call(c, embed, &a, 0))
        op_equal(c, "x", x, want);
    op_array *dx = op_in(c, c->t, n, h, 1), *dt = op_in(c, KERN_F32, vocab, h, 1);
    want = op_block(c, (size_t)(vocab * h) * sizeof *want);
    memcpy(want, dt->v, (size_t)(vocab * h) * sizeof *want);
    for (int64_t r = 0; r < n; r++)
        for (int64_t j = 0; j < h; j++)
            want[ids[r] * h + j] += dx->v[r * h + j];
    kern_embed_grad g = {.ids = sent, .n = n, .dx = dx->t, .dtable = dt->t};
    if (op_call(c, embed_grad, &g, 0))
        op_equal(c, "dtable", dt, want);
}

const op_test op_embed = {.name = "embed", .n_cases = COUNT(embeds), .run = run_embed};

/* ---- norm ------------------------------------------------------------------------------------ */

typedef struct norm_case {
    int64_t n, h;
    bool add, in_place, dres, dweight;
    float offset;
    bool dense; /* rows without gaps: those that a vector can be read from */
} norm_case;

static const norm_case norms[] = {
    {1, 8, false, false, false, false, 0, false},  {3, 17, true, false, true, true, 0, false},
    {17, 64, true, true, true, true, 1, false},    {129, 96, false, false, false, true, 0, false},
    {40, 576, true, true, true, false, 0, false},  {2, 5, true, false, false, true, 1, false},
    {260, 33, false, false, true, true, 0, false}, {37, 64, true, true, true, true, 1, true},
    {5, 1288, true, false, true, false, 0, true},  {33, 1288, false, false, true, true, 0, true},
    {2, 33000, false, false, true, true, 0, true},
};

static const norm_case norm_grads[] = {
    {1, 8, false, false, false, true, 0, false}, {3, 17, true, false, true, true, 1, false},
    {9, 5, true, true, true, true, 0, false},    {20, 12, false, false, true, true, 0, false},
    {7, 33, true, false, false, true, 1, false}, {40, 3, false, false, false, false, 0, false},
    {5, 16, true, true, true, true, 1, true},
};

typedef struct norm_state {
    const norm_case *k;
    op_array *x, *add, *w, *dy, *dres;
    double *y, *res, *rstd;
} norm_state;

enum { EPS_INVERSE = 100000 };

static double norm_reference(void *arg)
{
    norm_state *s = arg;
    int64_t h = s->k->h;
    double loss = 0;
    for (int64_t r = 0; r < s->k->n; r++) {
        double ss = 0;
        for (int64_t i = r * h; i < (r + 1) * h; i++) {
            s->res[i] = s->x->v[i] + (s->k->add ? s->add->v[i] : 0);
            ss += s->res[i] * s->res[i];
        }
        s->rstd[r] = 1 / sqrt(ss / (double)h + 1.0 / EPS_INVERSE);
        for (int64_t i = r * h; i < (r + 1) * h; i++) {
            s->y[i] = s->res[i] * s->rstd[r] * (s->w->v[i - r * h] + (double)s->k->offset);
            loss += s->dy->v[i] * s->y[i] + (s->k->dres ? s->dres->v[i] * s->res[i] : 0);
        }
    }
    return loss;
}

static void norm_backward(op_ctx *c, norm_state *s, const kern_norm *f)
{
    const norm_case *k = s->k;
    op_array *dx = k->in_place ? s->dres : op_out(c, c->t, k->n, k->h);
    op_array *dw = op_in(c, KERN_F32, 1, k->h, 1);
    kern_norm_grad g = {.dy = s->dy->t,
                        .res = f->res,
                        .weight = f->weight,
                        .rstd = f->rstd,
                        .weight_offset = k->offset,
                        .dx = dx->t};
    if (k->dres)
        g.dres = s->dres->t;
    if (k->dweight)
        g.dweight = dw->t;
    if (!op_call(c, norm_grad, &g, 0))
        return;
    op_grad(c, "dx", s->x, dx, false, norm_reference, s);
    if (k->dweight)
        op_grad(c, "dweight", s->w, dw, true, norm_reference, s);
}

static void run_norm_case(op_ctx *c, const norm_case *k)
{
    size_t bytes = (size_t)(k->n * k->h) * sizeof(double);
    c->dense = k->dense;
    norm_state s = {.k = k,
                    .x = op_in(c, c->t, k->n, k->h, 1),
                    .add = op_in(c, c->t, k->n, k->h, 1),
                    .w = op_in(c, c->t == KERN_BF16 ? KERN_BF16 : KERN_F32, 1, k->h, 1),
                    .dy = op_in(c, c->t, k->n, k->h, 1),
                    .dres = op_in(c, c->t, k->n, k->h, 1),
                    .y = op_block(c, bytes),
                    .res = op_block(c, bytes),
                    .rstd = op_block(c, bytes)};
    op_array *weight = op_from(c, KERN_F32, 1, k->h, s.w->v);
    op_array *res = k->in_place ? s.x : op_out(c, c->t, k->n, k->h);
    op_array *y = op_out(c, c->t, k->n, k->h), *rstd = op_out(c, KERN_F32, k->n, 1);
    kern_norm a = {.x = s.x->t,
                   .weight = weight->t,
                   .eps = 1.0F / EPS_INVERSE,
                   .weight_offset = k->offset,
                   .res = res->t,
                   .y = y->t,
                   .rstd = rstd->t};
    if (k->add)
        a.add = s.add->t;
    (void)norm_reference(&s);
    if (!op_call(c, norm, &a, 0))
        return;
    op_equal(c, "y", y, s.y);
    op_equal(c, "res", res, s.res);
    op_equal(c, "rstd", rstd, s.rstd);
    norm_backward(c, &s, &a);
}

static void run_norm(op_ctx *c, int i)
{
    run_norm_case(c, &norms[i]);
}

static void run_norm_grad(op_ctx *c, int i)
{
    run_norm_case(c, &norm_grads[i]);
}

const op_test op_norm = {.name = "norm",
                         .n_cases = COUNT(norms),
                         .run = run_norm,
                         .n_grads = COUNT(norm_grads),
                         .grad = run_norm_grad};

/* ---- gated activation ------------------------------------------------------------------------ */

typedef struct act_case {
    kern_act_kind kind;
    int64_t n, i;
    bool in_place, again;
    double scale;
    bool dense;
} act_case;

static const act_case acts[] = {
    {KERN_SILU, 1, 5, false, false, 1, false},       {KERN_SILU, 17, 48, true, true, 1, false},
    {KERN_SILU, 129, 33, true, false, 3, false},     {KERN_GELU_TANH, 3, 17, false, true, 2, false},
    {KERN_GELU_TANH, 20, 64, true, false, 3, false}, {KERN_GELU, 3, 17, false, true, 2, false},
    {KERN_GELU, 20, 64, true, false, 3, false},      {KERN_SILU, 4, 40, false, false, 60, false},
    {KERN_SILU, 5, 1040, true, true, 3, true},       {KERN_GELU_TANH, 3, 64, false, true, 2, true},
    {KERN_GELU, 3, 64, true, false, 2, true},
};

static const act_case act_grads[] = {
    {KERN_SILU, 1, 5, false, false, 1, false},      {KERN_SILU, 9, 33, true, true, 3, false},
    {KERN_SILU, 4, 16, false, false, 60, false},    {KERN_GELU_TANH, 3, 17, false, true, 2, false},
    {KERN_GELU_TANH, 5, 40, true, false, 3, false}, {KERN_GELU, 3, 17, false, true, 2, false},
    {KERN_GELU, 20, 12, true, false, 3, false},
};

typedef struct act_state {
    const act_case *k;
    op_array *gu, *dh;
    double *h;
} act_state;

static double act_of(kern_act_kind kind, double g)
{
    if (kind == KERN_SILU)
        return g / (1 + exp(-g));
    if (kind == KERN_GELU)
        return 0.5 * g * (1 + erf(g / sqrt(2)));
    return 0.5 * g * (1 + tanh(sqrt(2 / 3.14159265358979) * (g + 0.044715 * g * g * g)));
}

static double act_reference(void *arg)
{
    act_state *s = arg;
    int64_t m = s->k->i;
    double loss = 0;
    for (int64_t r = 0; r < s->k->n; r++) {
        for (int64_t j = 0; j < m; j++) {
            const double *gu = s->gu->v + r * 2 * m;
            double h = act_of(s->k->kind, gu[j]) * gu[m + j];
            s->h[r * m + j] = h;
            loss += s->dh->v[r * m + j] * h;
        }
    }
    return loss;
}

static void run_act_case(op_ctx *c, const act_case *k)
{
    c->dense = k->dense;
    act_state s = {.k = k,
                   .gu = op_in(c, c->t, k->n, 2 * k->i, k->scale),
                   .dh = op_in(c, c->t, k->n, k->i, 1),
                   .h = op_block(c, (size_t)(k->n * k->i) * sizeof(double))};
    op_array *h = op_out(c, c->t, k->n, k->i);
    kern_act a = {.kind = k->kind, .gu = s.gu->t, .h = h->t};
    (void)act_reference(&s);
    if (op_call(c, act, &a, 0))
        op_equal(c, "h", h, s.h);
    op_array *dgu = k->in_place ? s.gu : op_out(c, c->t, k->n, 2 * k->i);
    op_array *again = op_out(c, c->t, k->n, k->i);
    kern_act_grad g = {.f = a, .dh = s.dh->t, .dgu = dgu->t};
    g.f.h = k->again ? again->t : (kern_tensor){0};
    if (!op_call(c, act_grad, &g, 0))
        return;
    op_grad(c, "dgu", s.gu, dgu, false, act_reference, &s);
    (void)act_reference(&s);
    if (k->again)
        op_equal(c, "h again", again, s.h);
}

static void run_act(op_ctx *c, int i)
{
    run_act_case(c, &acts[i]);
}

static void run_act_grad(op_ctx *c, int i)
{
    run_act_case(c, &act_grads[i]);
}

const op_test op_act = {.name = "act",
                        .n_cases = COUNT(acts),
                        .run = run_act,
                        .n_grads = COUNT(act_grads),
                        .grad = run_act_grad};

/* ---- optimizer ------------------------------------------------------------------------------- */

/* The range begins at element `from`, so that it may not be aligned. */
static const struct {
    int64_t from, n, step;
    float decay, scale;
} steps[] = {{0, 1, 1, 0, 1},          {0, 37, 2, 0.1F, 0.5F},
             {0, 40000, 10, 0.01F, 1}, {3, 300, 2, 0.1F, 1},
             {0, 1030, 3, 0.1F, NAN},  {1, 300, 3, 0.1F, NAN}}; /* NAN: no step */

static void run_adamw(op_ctx *c, int i)
{
    int64_t from = steps[i].from, n = from + steps[i].n;
    float scale = steps[i].scale;
    op_array *p = op_in(c, KERN_F32, 1, n, 1), *g = op_in(c, KERN_F32, 1, n, 1);
    op_array *m = op_in(c, KERN_F32, 1, n, 1), *v = op_in(c, KERN_F32, 1, n, 1);
    for (int64_t j = 0; j < n; j++)
        v->v[j] = fabs(v->v[j]);
    v = op_from(c, KERN_F32, 1, n, v->v);
    kern_adamw a = {.n = n - from,
                    .p = (float *)p->t.data + from,
                    .m = (float *)m->t.data + from,
                    .v = (float *)v->t.data + from,
                    .g = (const float *)g->t.data + from,
                    .lr = 0.01F,
                    .beta1 = 0.9F,
                    .beta2 = 0.999F,
                    .eps = 1e-8F,
                    .weight_decay = steps[i].decay,
                    .scale = steps[i].scale == 1 ? NULL : op_send(c, &scale, sizeof scale),
                    .step = steps[i].step};
    double lr = (double)a.lr, b1 = (double)a.beta1, b2 = (double)a.beta2;
    if (!op_call(c, adamw, &a, 0))
        return;
    for (int64_t j = from; j < n && !isnan(scale); j++) {
        double gj = g->v[j] * (double)scale;
        m->v[j] = b1 * m->v[j] + (1 - b1) * gj;
        v->v[j] = b2 * v->v[j] + (1 - b2) * gj * gj;
        double mh = m->v[j] / (1 - pow(b1, (double)a.step)),
               vh = v->v[j] / (1 - pow(b2, (double)a.step));
        p->v[j] -= lr * (double)a.weight_decay * p->v[j];
        p->v[j] -= lr * mh / (sqrt(vh) + (double)a.eps);
    }
    op_equal(c, "p", p, p->v);
    op_equal(c, "m", m, m->v);
    op_equal(c, "v", v, v->v);
}

const op_test op_adamw = {
    .name = "adamw", .n_cases = COUNT(steps), .run = run_adamw, .one_dtype = true};

static void run_sumsq(op_ctx *c, int i)
{
    static const int64_t lengths[] = {0, 1, 13, 100001, 5002};
    int64_t from = i == 4 ? 1 : 0;
    double want = 0, got = -1, *sum = (double *)(uintptr_t)op_send(c, &got, sizeof got);
    op_array *g = op_in(c, KERN_F32, 1, lengths[i], 1);
    for (int64_t j = from; j < lengths[i]; j++)
        want += g->v[j] * g->v[j];
    kern_sumsq a = {(const float *)g->t.data + from, lengths[i] - from, sum};
    if (op_call(c, sumsq, &a, 0) && op_ok(c, kern_do(c->d, read, &got, sum, sizeof got)))
        op_numbers(c, "sum", &got, &want, 1, false);
}

const op_test op_sumsq = {.name = "sumsq", .n_cases = 5, .run = run_sumsq, .one_dtype = true};

/* A failed step stays one: the third case begins with no number. */
static const struct {
    double sum[2];
    int n;
    double max_norm;
    float before, want;
} clips[] = {
    {{4, 0}, 1, 1, 1, (float)(1 / (2 + 1e-6))}, /* too long */
    {{4, 9}, 2, 3, 0.25F, 1},                   /* short enough */
    {{4, 0}, 1, 1, NAN, NAN},
    {{4, INFINITY}, 2, 1, 1, NAN},
    {{NAN, 0}, 1, 1, 1, NAN},
    {{1e300, 0}, 2, 0, 1, 1}, /* no limit */
};

static void run_clip(op_ctx *c, int i)
{
    const double *sum = op_send(c, clips[i].sum, sizeof clips[i].sum);
    float *scale = (float *)(uintptr_t)op_send(c, &clips[i].before, sizeof(float)), got = -1;
    kern_clip a = {sum, clips[i].n, clips[i].max_norm, scale};
    if (!op_call(c, clip, &a, 0) || !op_ok(c, kern_do(c->d, read, &got, scale, sizeof got)))
        return;
    /* Not a number is what is wanted, which a comparison of numbers does not take. */
    double seen[2] = {isnan(got), isnan(got) ? 0 : (double)got};
    double want[2] = {isnan(clips[i].want), isnan(clips[i].want) ? 0 : (double)clips[i].want};
    op_numbers(c, "scale", seen, want, 2, true);
}

const op_test op_clip = {
    .name = "clip", .n_cases = COUNT(clips), .run = run_clip, .one_dtype = true};

/* Reads that are waited for in another order than they began in, while what they read is written
 * anew; one is not wanted. */
static void run_read(op_ctx *c, int i)
{
    enum { N = 3 };
    const int64_t n = i == 0 ? 1 : 5000;
    op_array *x[N];
    kern_read *r[N] = {NULL};
    for (int k = 0; k < N; k++) {
        c->dense = true;
        x[k] = op_in(c, KERN_F32, 1, n, 1);
        size_t bytes = (size_t)n * sizeof(float);
        if (!op_ok(c, kern_do(c->d, read_begin, x[k]->t.data, bytes, &r[k])) ||
            !op_ok(c, kern_do(c->d, zero, x[k]->t.data, bytes)))
            return;
    }
    float *host = op_block(c, (size_t)n * sizeof *host);
    double *got = op_block(c, (size_t)n * sizeof *got);
    (void)op_ok(c, kern_do(c->d, read_end, r[1], NULL));
    for (int k = N - 1; k >= 0; k -= 2) {
        if (!op_ok(c, kern_do(c->d, read_end, r[k], host)))
            return;
        for (int64_t j = 0; j < n; j++)
            got[j] = (double)host[j];
        op_numbers(c, "read", got, x[k]->v, n, true);
    }
}

const op_test op_read = {.name = "read", .n_cases = 2, .run = run_read, .one_dtype = true};
