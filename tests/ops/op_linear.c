/* Groups of linear layers, with low-rank terms, and the weights they use. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ops/op.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

typedef struct linear_case {
    int64_t n, in;
    int parts;
    int64_t out[KERN_MAX_PARTS];
    int64_t r[KERN_MAX_PARTS]; /* 0: no low-rank term */
    bool bias, add, dw, dense;
    float dropout;
    kern_dtype w; /* dtype of the weight's source */
} linear_case;

/* clang-format off */
static const linear_case cases[] = {
    {.n = 3, .in = 17, .parts = 1, .out = {5}, .w = KERN_F32},
    {.n = 1, .in = 64, .parts = 3, .out = {64, 16, 16}, .r = {8, 8, 8}, .w = KERN_BF16},
    {.n = 1, .in = 100, .parts = 2, .out = {33, 70}, .bias = true, .add = true, .w = KERN_F16},
    {.n = 17, .in = 48, .parts = 3, .out = {40, 24, 8}, .r = {16, 0, 4}, .bias = true, .w = KERN_F32},
    {.n = 17, .in = 50, .parts = 2, .out = {30, 34}, .r = {1, 8}, .add = true, .dw = true, .w = KERN_BF16},
    {.n = 33, .in = 64, .parts = 2, .out = {65, 31}, .r = {8, 3}, .dropout = 0.25F, .w = KERN_F32},
    {.n = 31, .in = 30, .parts = 1, .out = {40}, .r = {16}, .dropout = 0.5F, .bias = true, .dw = true, .w = KERN_F32},
    {.n = 129, .in = 130, .parts = 1, .out = {150}, .r = {16}, .add = true, .w = KERN_BF16},
    {.n = 4, .in = 320, .parts = 2, .out = {200, 136}, .r = {16, 16}, .w = KERN_BF16},
    {.n = 8, .in = 96, .parts = 4, .out = {16, 32, 48, 64}, .r = {0, 64, 0, 2}, .add = true, .dw = true, .w = KERN_F32},
    {.n = 2, .in = 576, .parts = 1, .out = {576}, .w = KERN_BF16},
    {.n = 260, .in = 96, .parts = 2, .out = {112, 112}, .r = {32, 32}, .dropout = 0.1F, .w = KERN_F32},
    {.n = 19, .in = 96, .parts = 2, .out = {24, 8}, .r = {8, 4}, .dropout = 0.25F, .dense = true, .w = KERN_BF16},
    {.n = 40, .in = 70, .parts = 2, .out = {150, 64}, .r = {8, 8}, .bias = true, .dw = true, .dense = true, .w = KERN_F32},
    {.n = 1100, .in = 20, .parts = 1, .out = {24}, .dw = true, .dense = true, .w = KERN_BF16},
    {.n = 100, .in = 640, .parts = 1, .out = {336}, .add = true, .dense = true, .w = KERN_BF16},
    {.n = 8, .in = 136, .parts = 1, .out = {40}, .r = {8}, .add = true, .dense = true, .w = KERN_BF16},
    {.n = 5, .in = 4104, .parts = 2, .out = {20, 13}, .r = {4, 0}, .bias = true, .w = KERN_BF16},
    {.n = 70, .in = 1, .parts = 1, .out = {1}, .r = {1}, .bias = true, .dw = true, .w = KERN_F32},
    {.n = 9, .in = 36, .parts = 2, .out = {20, 12}, .r = {520, 24}, .w = KERN_BF16},
    {.n = 131, .in = 1100, .parts = 2, .out = {72, 57}, .r = {40, 16}, .dropout = 0.2F, .w = KERN_BF16},
};

/* Large enough to be cut by columns, or along the sum, for some numbers of threads. */
static const linear_case large[] = {
    {.n = 64, .in = 400, .parts = 1, .out = {700}, .dw = true, .dense = true, .w = KERN_F32},
    {.n = 100, .in = 1300, .parts = 1, .out = {260}, .dw = true, .dense = true, .w = KERN_BF16},
    {.n = 200, .in = 320, .parts = 3, .out = {320, 64, 64}, .r = {16, 16, 16}, .dense = true, .w = KERN_BF16},
};

/* Few enough elements for a difference by each. */
static const linear_case grads[] = {
    {.n = 1, .in = 8, .parts = 1, .out = {8}, .dw = true, .w = KERN_F32},
    {.n = 7, .in = 9, .parts = 3, .out = {12, 4, 4}, .r = {4, 2, 1}, .bias = true, .dw = true, .w = KERN_F32},
    {.n = 9, .in = 16, .parts = 2, .out = {7, 18}, .r = {3, 8}, .add = true, .w = KERN_BF16},
    {.n = 12, .in = 10, .parts = 2, .out = {11, 5}, .r = {2, 2}, .dropout = 0.3F, .dw = true, .w = KERN_F32},
    {.n = 20, .in = 12, .parts = 4, .out = {3, 4, 5, 6}, .r = {0, 5, 0, 1}, .add = true, .dw = true, .w = KERN_F16},
    {.n = 33, .in = 17, .parts = 1, .out = {9}, .r = {16}, .dropout = 0.5F, .bias = true, .dw = true, .w = KERN_F32},
    {.n = 16, .in = 16, .parts = 2, .out = {16, 16}, .r = {8, 8}, .dw = true, .dense = true, .w = KERN_BF16},
};
/* clang-format on */

typedef struct linear_state {
    const linear_case *k;
    op_array *w[KERN_MAX_PARTS], *bias[KERN_MAX_PARTS], *a[KERN_MAX_PARTS], *b[KERN_MAX_PARTS];
    op_array *x, *y0, *dy;
    kern_lora lora[KERN_MAX_PARTS];
    op_array *da[KERN_MAX_PARTS], *db[KERN_MAX_PARTS];
    kern_linear f;
    int64_t out, ranks;
    double *y, *xa;               /* reference results */
    double *mask[KERN_MAX_PARTS]; /* [n, in] */
} linear_state;

enum { SEED = 11, OFFSET = 5 };

static double mask_at(const linear_state *s, int p, int64_t row, int64_t col)
{
    uint64_t i = (OFFSET + (uint64_t)row) * (uint64_t)s->k->in + (uint64_t)col;
    uint32_t w[4];
    rng_philox(w, SEED, s->lora[p].stream, i / 4);
    bool keep = (double)(w[i % 4] >> 8) / 16777216.0 >= (double)s->k->dropout;
    return keep ? 1 / (1 - (double)s->k->dropout) : 0;
}

static void ref_part(linear_state *s, int p, int64_t i, int64_t o0, int64_t r0)
{
    const linear_case *k = s->k;
    const double *x = s->x->v + i * k->in, *mask = s->mask[p] + (k->r[p] > 0 ? i * k->in : 0);
    double *xa = s->xa + i * s->ranks + r0;
    for (int64_t r = 0; r < k->r[p]; r++) {
        xa[r] = 0;
        for (int64_t c = 0; c < k->in; c++)
            xa[r] += s->a[p]->v[r * k->in + c] * x[c] * mask[c];
    }
    for (int64_t o = 0; o < k->out[p]; o++) {
        double y = k->bias ? s->bias[p]->v[o] : 0;
        for (int64_t c = 0; c < k->in; c++)
            y += s->w[p]->v[o * k->in + c] * x[c];
        for (int64_t r = 0; r < k->r[p]; r++)
            y += (double)s->lora[p].scale * s->b[p]->v[o * k->r[p] + r] * xa[r];
        s->y[i * s->out + o0 + o] = y;
    }
}

static double reference(void *arg)
{
    linear_state *s = arg;
    const linear_case *k = s->k;
    double loss = 0;
    for (int64_t i = 0; i < k->n; i++) {
        int64_t o0 = 0, r0 = 0;
        for (int p = 0; p < k->parts; p++) {
            ref_part(s, p, i, o0, r0);
            o0 += k->out[p];
            r0 += k->r[p];
        }
    }
    for (int64_t i = 0; i < k->n * s->out; i++)
        loss += s->dy->v[i] * s->y[i];
    return loss;
}

/* The weight takes what the compute dtype holds of it, so that is what the reference must see. */
static op_array *weight_part(op_ctx *c, kern_dtype t, int64_t rows, int64_t cols)
{
    op_array *w = op_in(c, c->t == KERN_BF16 ? KERN_BF16 : t, rows, cols, 1 / sqrt((double)cols));
    op_array *src = op_from(c, t, rows, cols, w->v);
    memcpy(src->v, w->v, (size_t)(rows * cols) * sizeof(double));
    return src;
}

static void lora_part(op_ctx *c, linear_state *s, int p)
{
    const linear_case *k = s->k;
    int64_t r = k->r[p];
    if (r == 0)
        return;
    s->a[p] = op_in(c, KERN_F32, r, k->in, 1 / sqrt((double)k->in));
    s->b[p] = op_in(c, KERN_F32, k->out[p], r, 0.5);
    s->da[p] = op_in(c, KERN_F32, r, k->in, 1);
    s->db[p] = op_in(c, KERN_F32, k->out[p], r, 1);
    s->lora[p] = (kern_lora){.A = s->a[p]->t,
                             .B = s->b[p]->t,
                             .dA = s->da[p]->t,
                             .dB = s->db[p]->t,
                             .scale = 0.75F,
                             .dropout = k->dropout,
                             .stream = (uint64_t)p * 77};
    s->f.lora[p] = &s->lora[p];
    s->mask[p] = op_block(c, (size_t)(k->n * k->in) * sizeof(double));
    for (int64_t i = 0; i < k->n * k->in; i++)
        s->mask[p][i] = k->dropout > 0 ? mask_at(s, p, i / k->in, i % k->in) : 1;
}

static kern_weight *weight_of(op_ctx *c, linear_state *s, bool trainable)
{
    const linear_case *k = s->k;
    kern_weight_desc desc = {
        .n_parts = k->parts, .compute = c->t, .need_dx = true, .trainable = trainable};
    for (int p = 0; p < k->parts; p++) {
        desc.part[p] = op_host(c, s->w[p]);
        if (k->bias)
            desc.bias[p] = op_host(c, s->bias[p]);
    }
    kern_weight *w = NULL;
    kern_weight_new_args a = {&desc, &w};
    op_ok(c, kern_do(c->d, weight_new, &a));
    return w;
}

static void build(op_ctx *c, linear_state *s, const linear_case *k)
{
    *s = (linear_state){.k = k};
    c->dense = k->dense;
    for (int p = 0; p < k->parts; p++) {
        s->w[p] = weight_part(c, k->w, k->out[p], k->in);
        if (k->bias)
            s->bias[p] = op_in(c, KERN_F32, 1, k->out[p], 1);
        lora_part(c, s, p);
        s->out += k->out[p];
        s->ranks += k->r[p];
    }
    s->x = op_in(c, c->t, k->n, k->in, 1);
    s->dy = op_in(c, c->t, k->n, s->out, 1);
    s->y0 = op_in(c, c->t, k->n, s->out, 1);
    s->y = op_block(c, (size_t)(k->n * s->out) * sizeof(double));
    s->xa = op_block(c, (size_t)(k->n * s->ranks) * sizeof(double));
    s->f.x = s->x->t;
    s->f.training = true;
    const uint64_t key[2] = {SEED, OFFSET};
    s->f.rng = op_send(c, key, sizeof key);
}

static void forward(op_ctx *c, linear_state *s)
{
    const linear_case *k = s->k;
    op_array *y = k->add ? s->y0 : op_out(c, c->t, k->n, s->out);
    op_array *xa = op_out(c, KERN_F32, k->n, s->ranks);
    s->f.y = y->t;
    s->f.xa = xa->t;
    s->f.add_to_y = k->add;
    if (c->mode != OP_BITS)
        (void)reference(s);
    if (!op_call(c, linear, &s->f, 2.0 * (double)(k->n * k->in * s->out)))
        return;
    double *want = op_block(c, (size_t)(k->n * s->out) * sizeof(double));
    for (int64_t i = 0; i < k->n * s->out; i++)
        want[i] = s->y[i] + (k->add ? s->y0->v[i] : 0);
    op_equal(c, "y", y, want);
    if (s->ranks > 0)
        op_equal(c, "xa", xa, s->xa);
}

static void backward(op_ctx *c, linear_state *s)
{
    const linear_case *k = s->k;
    op_array *dx = k->add ? op_in(c, c->t, k->n, k->in, 1) : op_out(c, c->t, k->n, k->in);
    op_array *dw[KERN_MAX_PARTS] = {0}, *dbias[KERN_MAX_PARTS] = {0};
    kern_linear_grad g = {.f = s->f, .dy = s->dy->t, .dx = dx->t, .add_to_dx = k->add};
    for (int p = 0; p < k->parts && k->dw; p++) {
        dw[p] = op_in(c, KERN_F32, k->out[p], k->in, 1);
        g.dw[p] = dw[p]->t;
        if (k->bias) {
            dbias[p] = op_in(c, KERN_F32, 1, k->out[p], 1);
            g.db[p] = dbias[p]->t;
        }
    }
    if (k->n * k->in * s->out > 300000)
        c->samples = c->directions = 1;
    if (!op_call(c, linear_grad, &g, (k->dw ? 4.0 : 2.0) * (double)(k->n * k->in * s->out)))
        return;
    op_grad(c, "dx", s->x, dx, k->add, reference, s);
    for (int p = 0; p < k->parts; p++) {
        if (k->r[p] > 0) {
            op_grad(c, "dA", s->a[p], s->da[p], true, reference, s);
            op_grad(c, "dB", s->b[p], s->db[p], true, reference, s);
        }
        if (k->dw)
            op_grad(c, "dw", s->w[p], dw[p], true, reference, s);
        if (k->dw && k->bias)
            op_grad(c, "db", s->bias[p], dbias[p], true, reference, s);
    }
}

static void run_case(op_ctx *c, const linear_case *k)
{
    linear_state s;
    build(c, &s, k);
    kern_weight *w = weight_of(c, &s, k->dw);
    s.f.w = w;
    if (w != NULL) {
        forward(c, &s);
        backward(c, &s);
    }
    kern_do(c->d, weight_free, w);
}

static void run(op_ctx *c, int i)
{
    run_case(c, &cases[i]);
}

static void run_grad(op_ctx *c, int i)
{
    run_case(c, &grads[i]);
}

static void run_large(op_ctx *c, int i)
{
    run_case(c, &large[i]);
}

const op_test op_linear = {.name = "linear",
                           .n_cases = COUNT(cases),
                           .run = run,
                           .n_grads = COUNT(grads),
                           .grad = run_grad,
                           .n_large = COUNT(large),
                           .large = run_large};

/* ---- weight_update --------------------------------------------------------------------------- */

static void run_update(op_ctx *c, int i)
{
    static const linear_case two = {
        .n = 5, .in = 40, .parts = 2, .out = {24, 70}, .bias = true, .w = KERN_F32};
    linear_state s;
    build(c, &s, &two);
    kern_weight *w = weight_of(c, &s, true);
    s.f.w = w;
    s.w[i] = weight_part(c, KERN_F32, two.out[i], two.in);
    s.bias[i] = op_in(c, KERN_F32, 1, two.out[i], 1);
    kern_weight_update_args a = {.w = w, .part = i, .src = s.w[i]->t, .bias = s.bias[i]->t};
    if (op_call(c, weight_update, &a, 0)) {
        forward(c, &s);
        backward(c, &s);
    }
    kern_do(c->d, weight_free, w);
}

const op_test op_update = {.name = "update", .n_cases = 2, .run = run_update};
