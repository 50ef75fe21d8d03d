/* Rope with per-head norm, attention in a packed batch, and attention over the paged cache. */
#include <math.h>
#include <string.h>

#include "tests/ops/op.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

/* ---- qk -------------------------------------------------------------------------------------- */

typedef struct qk_case {
    int64_t n;
    int n_q, n_kv, d;
    bool norm, in_place, dense; /* dense: rows that a vector can be read from */
} qk_case;

static const qk_case qks[] = {
    {1, 1, 1, 2, false, true, false},   {3, 4, 2, 8, true, false, false},
    {17, 9, 3, 64, false, true, true},  {5, 2, 1, 80, true, false, true},
    {4, 2, 2, 96, false, false, true},  {129, 3, 1, 24, true, false, false},
    {2, 2, 1, 256, true, false, true},  {33, 6, 2, 128, false, false, false},
    {37, 7, 1, 128, true, false, true}, {1030, 2, 1, 16, true, false, true},
    {6, 20, 4, 96, false, true, true},  {2, 1, 1, 1024, true, false, true},
};

static const qk_case qk_grads[] = {
    {1, 1, 1, 2, false, true, false},   {5, 2, 1, 6, true, false, false},
    {7, 3, 3, 4, true, false, false},   {9, 4, 2, 16, true, false, false},
    {6, 2, 2, 24, false, false, false}, {12, 2, 1, 10, false, true, false},
    {5, 3, 1, 48, true, false, true},   {20, 1, 1, 16, true, false, true},
};

enum { MAX_POS = 50, LAYERS = 2, BLOCK = 4 };

typedef struct qk_state {
    const qk_case *k;
    op_array *x[2], *w[2], *dy[2], *cos, *sin; /* q and k */
    const int32_t *pos;
    double *y[2];
} qk_state;

/* One head: norm, then rotation. */
static void qk_head(const qk_state *s, int which, const double *x, double *y, int32_t pos)
{
    int d = s->k->d, half = d / 2;
    double z[1024], ss = 0;
    for (int i = 0; i < d; i++)
        ss += x[i] * x[i];
    double rstd = s->k->norm ? 1 / sqrt(ss / d + 1e-6) : 1;
    for (int i = 0; i < d; i++)
        z[i] = x[i] * rstd * (s->k->norm ? s->w[which]->v[i] : 1);
    for (int i = 0; i < half; i++) {
        double c = s->cos->v[pos * half + i], sn = s->sin->v[pos * half + i];
        y[i] = z[i] * c - z[half + i] * sn;
        y[half + i] = z[half + i] * c + z[i] * sn;
    }
}

static double qk_reference(void *arg)
{
    qk_state *s = arg;
    double loss = 0;
    for (int which = 0; which < 2; which++) {
        int64_t heads = which == 0 ? s->k->n_q : s->k->n_kv, d = s->k->d;
        for (int64_t i = 0; i < s->k->n * heads; i++)
            qk_head(s, which, s->x[which]->v + i * d, s->y[which] + i * d, s->pos[i / heads]);
        for (int64_t i = 0; i < s->k->n * heads * d; i++)
            loss += s->dy[which]->v[i] * s->y[which][i];
    }
    return loss;
}

static void qk_build(op_ctx *c, qk_state *s, const qk_case *k)
{
    *s = (qk_state){.k = k};
    c->dense = k->dense;
    kern_dtype wt = c->t == KERN_BF16 ? KERN_BF16 : KERN_F32;
    for (int which = 0; which < 2; which++) {
        int64_t cols = (int64_t)(which == 0 ? k->n_q : k->n_kv) * k->d;
        s->x[which] = op_in(c, c->t, k->n, cols, 1);
        s->dy[which] = op_in(c, c->t, k->n, cols, 1);
        op_array *w = op_in(c, wt, 1, k->d, 1);
        s->w[which] = op_from(c, KERN_F32, 1, k->d, w->v);
        s->y[which] = op_block(c, (size_t)(k->n * cols) * sizeof(double));
    }
    s->pos = op_ints(c, k->n, 0, MAX_POS);
    s->cos = op_in(c, KERN_F32, MAX_POS, k->d / 2, 1);
    s->sin = op_in(c, KERN_F32, MAX_POS, k->d / 2, 1);
}

static void qk_backward(op_ctx *c, qk_state *s, const kern_qk *f)
{
    op_array *dw[2] = {op_in(c, KERN_F32, 1, s->k->d, 1), op_in(c, KERN_F32, 1, s->k->d, 1)};
    kern_qk_grad g = {.f = *f, .dq = s->dy[0]->t, .dk = s->dy[1]->t};
    if (s->k->norm) {
        g.dq_norm = dw[0]->t;
        g.dk_norm = dw[1]->t;
    }
    if (!op_call(c, qk_grad, &g, 0))
        return;
    for (int which = 0; which < 2; which++) {
        op_grad(c, "dx", s->x[which], s->dy[which], false, qk_reference, s);
        if (s->k->norm)
            op_grad(c, "dnorm", s->w[which], dw[which], true, qk_reference, s);
    }
}

/* What was written to the cache is seen through attention over it: see run_paged. */
static void run_qk_case(op_ctx *c, const qk_case *k)
{
    qk_state s;
    qk_build(c, &s, k);
    op_array *qo = k->in_place ? s.x[0] : op_out(c, c->t, k->n, (int64_t)k->n_q * k->d);
    op_array *ko = k->in_place ? s.x[1] : op_out(c, c->t, k->n, (int64_t)k->n_kv * k->d);
    kern_qk a = {.q = s.x[0]->t,
                 .k = s.x[1]->t,
                 .n_q = k->n_q,
                 .n_kv = k->n_kv,
                 .d = k->d,
                 .eps = 1e-6F,
                 .pos = op_send(c, s.pos, (size_t)k->n * sizeof *s.pos),
                 .cos = s.cos->t,
                 .sin = s.sin->t,
                 .q_out = qo->t,
                 .k_out = ko->t};
    if (k->norm) {
        a.q_norm = s.w[0]->t;
        a.k_norm = s.w[1]->t;
    }
    (void)qk_reference(&s);
    if (!op_call(c, qk, &a, 0))
        return;
    op_equal(c, "q", qo, s.y[0]);
    op_equal(c, "k", ko, s.y[1]);
    qk_backward(c, &s, &a);
}

static void run_qk(op_ctx *c, int i)
{
    run_qk_case(c, &qks[i]);
}

static void run_qk_grad(op_ctx *c, int i)
{
    run_qk_case(c, &qk_grads[i]);
}

const op_test op_qk = {.name = "qk",
                       .n_cases = COUNT(qks),
                       .run = run_qk,
                       .n_grads = COUNT(qk_grads),
                       .grad = run_qk_grad};

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct attn_case {
    int n_q, n_kv, d;
    int64_t window;
    int n_seg;
    int32_t len[6];
    bool even; /* rows that may be read 16 bytes at a time */
} attn_case;

/* Tiles of a backend have 16 to 128 rows: segments shorter and longer than one, ends inside them.
 */
static const attn_case attns[] = {
    {1, 1, 8, 0, 1, {1}, false},
    {2, 1, 16, 0, 3, {1, 17, 3}, false},
    {9, 3, 64, 0, 2, {33, 20}, false},
    {4, 4, 80, 5, 2, {30, 4}, false},
    {4, 2, 96, 0, 4, {1, 1, 40, 1}, false},
    {2, 2, 128, 16, 1, {70}, false},
    {3, 1, 256, 0, 2, {9, 18}, false},
    {2, 1, 16, 0, 1, {260}, false},
    {2, 1, 24, 37, 2, {150, 66}, false},
    {6, 2, 8, 1, 2, {5, 0}, false},
    {2, 2, 24, 0, 2, {65, 64}, false},
    {1, 1, 8, 0, 1, {1}, true},
    {2, 1, 64, 0, 6, {3, 0, 120, 1, 64, 0}, true},
    {2, 1, 64, 40, 2, {150, 31}, true},
    {2, 2, 72, 0, 2, {70, 63}, true},
    {4, 2, 80, 7, 3, {33, 32, 31}, true},
    {2, 1, 96, 0, 2, {70, 20}, true},
    {1, 1, 128, 0, 2, {129, 20}, true},
    {1, 1, 128, 2, 2, {65, 2}, true},
    {1, 1, 120, 100, 1, {150}, true},
    {1, 1, 256, 0, 3, {66, 1, 20}, true},
    {1, 1, 160, 20, 2, {66, 17}, true},
    {7, 1, 32, 0, 4, {0, 47, 0, 81}, true},
    {2, 1, 8, 0, 1, {600}, false},
};

static const attn_case attn_grads[] = {
    {1, 1, 8, 0, 1, {5}, false},    {2, 1, 4, 0, 3, {1, 7, 3}, false},
    {3, 3, 6, 4, 2, {9, 4}, false}, {4, 2, 8, 0, 2, {6, 5}, false},
    {6, 2, 3, 1, 2, {5, 0}, false}, {2, 2, 16, 3, 1, {12}, false},
    {9, 3, 4, 0, 1, {10}, false},   {2, 1, 2, 16, 2, {20, 2}, false},
};

typedef struct attn_state {
    const attn_case *k;
    op_array *q, *kk, *v, *dout;
    int32_t cu[8];
    int64_t n, max_len;
    double scale, *out, *lse, *p;
} attn_state;

/* One query row and head; keys [k0, r]. */
static void attn_row(attn_state *s, int64_t r, int64_t k0, int h)
{
    int64_t d = s->k->d, qw = s->k->n_q * d, kw = s->k->n_kv * d, kh = h / (s->k->n_q / s->k->n_kv);
    const double *q = s->q->v + r * qw + h * d;
    double max = -INFINITY, sum = 0, *o = s->out + r * qw + h * d;
    for (int64_t j = k0; j <= r; j++) {
        double dot = 0;
        for (int64_t i = 0; i < d; i++)
            dot += q[i] * s->kk->v[j * kw + kh * d + i];
        s->p[j - k0] = dot * s->scale;
        max = fmax(max, s->p[j - k0]);
    }
    for (int64_t j = k0; j <= r; j++)
        sum += s->p[j - k0] = exp(s->p[j - k0] - max);
    memset(o, 0, (size_t)d * sizeof *o);
    for (int64_t j = k0; j <= r; j++)
        for (int64_t i = 0; i < d; i++)
            o[i] += s->p[j - k0] / sum * s->v->v[j * kw + kh * d + i];
    s->lse[r * s->k->n_q + h] = max + log(sum);
}

static double attn_reference(void *arg)
{
    attn_state *s = arg;
    double loss = 0;
    for (int g = 0; g < s->k->n_seg; g++)
        for (int64_t r = s->cu[g]; r < s->cu[g + 1]; r++)
            for (int h = 0; h < s->k->n_q; h++) {
                bool cut = s->k->window > 0 && r - s->cu[g] >= s->k->window;
                attn_row(s, r, cut ? r - s->k->window + 1 : s->cu[g], h);
            }
    for (int64_t i = 0; i < s->n * s->k->n_q * s->k->d; i++)
        loss += s->dout->v[i] * s->out[i];
    return loss;
}

static void attn_build(op_ctx *c, attn_state *s, const attn_case *k)
{
    *s = (attn_state){.k = k, .scale = (double)(float)(1 / sqrt((double)k->d))};
    c->even = k->even;
    for (int g = 0; g < k->n_seg; g++) {
        s->cu[g + 1] = s->cu[g] + k->len[g];
        s->max_len = k->len[g] > s->max_len ? k->len[g] : s->max_len;
    }
    s->n = s->cu[k->n_seg];
    int64_t qw = (int64_t)k->n_q * k->d, kw = (int64_t)k->n_kv * k->d;
    s->q = op_in(c, c->t, s->n, qw, 1.5);
    s->kk = op_in(c, c->t, s->n, kw, 1.5);
    s->v = op_in(c, c->t, s->n, kw, 1);
    s->dout = op_in(c, c->t, s->n, qw, 1);
    s->out = op_block(c, (size_t)(s->n * qw) * sizeof(double));
    s->lse = op_block(c, (size_t)(s->n * k->n_q) * sizeof(double));
    s->p = op_block(c, (size_t)(s->n + 1) * sizeof(double));
}

static kern_attn attn_args(op_ctx *c, const attn_state *s, const op_array *out, const op_array *lse)
{
    const attn_case *k = s->k;
    return (kern_attn){.q = s->q->t,
                       .k = s->kk->t,
                       .v = s->v->t,
                       .n_q = k->n_q,
                       .n_kv = k->n_kv,
                       .d = k->d,
                       .cu = op_send(c, s->cu, ((size_t)k->n_seg + 1) * sizeof *s->cu),
                       .n_seg = k->n_seg,
                       .max_len = s->max_len,
                       .scale = (float)s->scale,
                       .window = k->window,
                       .out = out->t,
                       .lse = lse->t};
}

static void run_attn_case(op_ctx *c, const attn_case *k)
{
    attn_state s;
    attn_build(c, &s, k);
    op_array *out = op_out(c, c->t, s.n, s.q->cols), *lse = op_out(c, KERN_F32, s.n, k->n_q);
    kern_attn a = attn_args(c, &s, out, lse);
    if (c->mode != OP_BITS)
        (void)attn_reference(&s);
    double pairs = (double)(s.n * s.max_len / 2 * k->n_q * k->d);
    if (!op_call(c, attn, &a, 4 * pairs))
        return;
    op_equal(c, "out", out, s.out);
    op_equal(c, "lse", lse, s.lse);
    op_array *dq = op_out(c, c->t, s.n, s.q->cols), *dk = op_out(c, c->t, s.n, s.kk->cols);
    op_array *dv = op_out(c, c->t, s.n, s.kk->cols);
    kern_attn_grad g = {.f = a, .dout = s.dout->t, .dq = dq->t, .dk = dk->t, .dv = dv->t};
    if (s.n * s.max_len * k->n_q * k->d > 1000000)
        c->samples = c->directions = 1;
    if (!op_call(c, attn_grad, &g, 10 * pairs))
        return;
    op_grad(c, "dq", s.q, dq, false, attn_reference, &s);
    op_grad(c, "dk", s.kk, dk, false, attn_reference, &s);
    op_grad(c, "dv", s.v, dv, false, attn_reference, &s);
}

/* Recorded with one division of the rows, run with another. */
static const attn_case divisions[][2] = {
    {{1, 1, 64, 0, 4, {129, 0, 20, 3}, true}, {1, 1, 64, 0, 4, {0, 9, 79, 64}, true}},
    {{2, 2, 24, 9, 3, {30, 1, 9}, false}, {2, 2, 24, 9, 3, {2, 38, 0}, false}},
};

/* Both passes at once, or recorded when g is not NULL. */
static bool run_passes(op_ctx *c, const kern_attn_grad *a, kern_graph **g)
{
    bool ok = g == NULL || op_ok(c, kern_do(c->d, capture_begin));
    ok = ok && op_ok(c, kern_do(c->d, attn, &a->f));
    ok = ok && op_ok(c, kern_do(c->d, attn_grad, a));
    return ok && (g == NULL || op_ok(c, kern_do(c->d, capture_end, g)));
}

static void run_attn_again(op_ctx *c, const attn_case k[2])
{
    attn_state s;
    kern_graph *g = NULL;
    attn_build(c, &s, &k[0]);
    s.max_len = s.n;
    op_array *out = op_out(c, c->t, s.n, s.q->cols), *lse = op_out(c, KERN_F32, s.n, k->n_q);
    op_array *dq = op_out(c, c->t, s.n, s.q->cols), *dk = op_out(c, c->t, s.n, s.kk->cols);
    op_array *dv = op_out(c, c->t, s.n, s.kk->cols);
    kern_attn_grad a = {attn_args(c, &s, out, lse), s.dout->t, dq->t, dk->t, dv->t};
    if (!run_passes(c, &a, NULL) || !run_passes(c, &a, &g))
        return;
    for (int i = 0; i < k->n_seg; i++)
        s.cu[i + 1] = s.cu[i] + k[1].len[i];
    bool ok = op_ok(c, kern_do(c->d, write, (void *)(uintptr_t)a.f.cu, s.cu,
                               ((size_t)k->n_seg + 1) * sizeof *s.cu));
    /* A device that records nothing has run them at once. */
    ok = ok && (g != NULL ? op_ok(c, kern_do(c->d, graph_run, g)) : run_passes(c, &a, NULL));
    kern_do(c->d, graph_free, g);
    if (!ok)
        return;
    if (c->mode != OP_BITS)
        (void)attn_reference(&s);
    op_equal(c, "out", out, s.out);
    op_equal(c, "lse", lse, s.lse);
    op_grad(c, "dq", s.q, dq, false, attn_reference, &s);
    op_grad(c, "dk", s.kk, dk, false, attn_reference, &s);
    op_grad(c, "dv", s.v, dv, false, attn_reference, &s);
}

static void run_attn(op_ctx *c, int i)
{
    if (i < COUNT(attns))
        run_attn_case(c, &attns[i]);
    else
        run_attn_again(c, divisions[i - COUNT(attns)]);
}

static void run_attn_grad(op_ctx *c, int i)
{
    run_attn_case(c, &attn_grads[i]);
}

const op_test op_attn = {.name = "attn",
                         .n_cases = COUNT(attns) + COUNT(divisions),
                         .run = run_attn,
                         .n_grads = COUNT(attn_grads),
                         .grad = run_attn_grad};

/* ---- paged ----------------------------------------------------------------------------------- */

typedef struct paged_case {
    int n_q, n_kv, d;
    int64_t window;
    int n_seq;
    int32_t before[4], now[4]; /* tokens already in the cache, tokens of this step */
    bool f32_cache;            /* else of the activations' dtype */
    bool even;                 /* rows that may be read 16 bytes at a time */
} paged_case;

/* One row a sequence, rows of several, sequences without any; more query heads on a key head than a
 * product of a backend has rows; a cache long enough to be cut. */
static const paged_case pageds[] = {
    {1, 1, 8, 0, 1, {0}, {1}, false, false},
    {9, 3, 64, 0, 3, {5, 0, 40}, {1, 7, 1}, false, false},
    {4, 2, 80, 6, 2, {11, 3}, {1, 9}, true, false},
    {4, 1, 128, 0, 2, {0, 99}, {33, 1}, false, false},
    {2, 2, 96, 16, 4, {1, 2, 3, 50}, {1, 1, 1, 20}, false, false},
    {2, 1, 256, 0, 1, {70}, {1}, false, false},
    {1, 1, 64, 0, 1, {0}, {1}, false, true},
    {8, 2, 64, 0, 3, {5, 130, 40}, {1, 1, 1}, false, true},
    {7, 1, 128, 20, 2, {99, 3}, {1, 1}, false, true},
    {2, 1, 64, 50, 1, {520}, {1}, false, true},
    {4, 2, 80, 0, 2, {20, 70}, {1, 1}, false, true},
    {2, 1, 256, 0, 2, {40, 0}, {1, 1}, false, true},
    {17, 1, 64, 0, 2, {9, 70}, {1, 1}, false, true},
    {4, 2, 64, 0, 4, {10, 20, 0, 5}, {2, 0, 1, 1}, false, true},
    {2, 1, 96, 0, 2, {30, 70}, {1, 1}, true, true},
    {3, 1, 96, 0, 2, {9, 0}, {40, 33}, false, true},
    {4, 1, 64, 0, 4, {100, 0, 9, 7}, {1, 70, 0, 30}, false, true},
    {2, 2, 128, 50, 2, {64, 10}, {80, 1}, false, true},
    {20, 1, 40, 0, 2, {3, 9}, {5, 1}, false, true},
    {1, 1, 64, 0, 1, {60}, {150}, false, true},
    {2, 1, 256, 30, 1, {20}, {60}, false, true},
};

/* All tokens of all sequences as one packed batch, and where each stands in the pool. */
typedef struct paged_state {
    attn_state a;
    attn_case k;
    int32_t *blocks, *slot, *pos;
    int64_t max_blocks, n_blocks;
} paged_state;

static void paged_build(op_ctx *c, paged_state *s, const paged_case *k)
{
    s->k = (attn_case){k->n_q, k->n_kv, k->d, k->window, k->n_seq, {0}, k->even};
    for (int i = 0; i < k->n_seq; i++)
        s->k.len[i] = k->before[i] + k->now[i];
    attn_build(c, &s->a, &s->k);
    s->max_blocks = (s->a.max_len + BLOCK - 1) / BLOCK + 1;
    s->n_blocks = s->max_blocks * k->n_seq;
    s->blocks = op_block(c, (size_t)s->n_blocks * sizeof *s->blocks);
    s->slot = op_block(c, (size_t)s->a.n * sizeof *s->slot);
    s->pos = op_block(c, (size_t)s->a.n * sizeof *s->pos);
    for (int32_t i = 0; i < s->n_blocks; i++) /* interleaved, last first */
        s->blocks[(i % k->n_seq) * s->max_blocks + i / k->n_seq] = (int32_t)s->n_blocks - 1 - i;
    for (int g = 0; g < k->n_seq; g++)
        for (int32_t i = 0; i < s->k.len[g]; i++)
            s->slot[s->a.cu[g] + i] = s->blocks[g * s->max_blocks + i / BLOCK] * BLOCK + i % BLOCK;
}

/* Keys and values of every token go into layer 1; with cos 1 and sin 0 rope changes nothing. */
static bool paged_fill(op_ctx *c, paged_state *s, kern_kv *kv)
{
    int half = s->k.d / 2;
    double *one = op_block(c, (size_t)half * sizeof *one);
    for (int i = 0; i < half; i++)
        one[i] = 1;
    op_array *cs = op_from(c, KERN_F32, 1, half, one), *sn = op_in(c, KERN_F32, 1, half, 0);
    op_array *qo = op_out(c, c->t, s->a.n, s->a.q->cols),
             *ko = op_out(c, c->t, s->a.n, s->a.kk->cols);
    kern_qk a = {.q = s->a.q->t,
                 .k = s->a.kk->t,
                 .v = s->a.v->t,
                 .n_q = s->k.n_q,
                 .n_kv = s->k.n_kv,
                 .d = s->k.d,
                 .pos = op_send(c, s->pos, (size_t)s->a.n * sizeof *s->pos),
                 .cos = cs->t,
                 .sin = sn->t,
                 .q_out = qo->t,
                 .k_out = ko->t,
                 .kv = kv,
                 .layer = 1,
                 .slot = op_send(c, s->slot, (size_t)s->a.n * sizeof *s->slot)};
    return op_ok(c, kern_do(c->d, qk, &a));
}

/* Only the tokens of this step ask: their rows are gathered from the packed reference. */
static void paged_run(op_ctx *c, paged_state *s, const paged_case *k, kern_kv *kv)
{
    int32_t start[5] = {0}, len[4];
    int64_t w = s->a.q->cols;
    for (int g = 0; g < k->n_seq; g++) {
        start[g + 1] = start[g] + k->now[g];
        len[g] = s->k.len[g];
    }
    int64_t n = start[k->n_seq];
    double *q = op_block(c, (size_t)(n * w) * sizeof *q),
           *want = op_block(c, (size_t)(n * w) * sizeof *q);
    for (int g = 0; g < k->n_seq; g++) {
        int64_t from = (s->a.cu[g] + k->before[g]) * w, size = k->now[g] * w;
        memcpy(q + start[g] * w, s->a.q->v + from, (size_t)size * sizeof *q);
        memcpy(want + start[g] * w, s->a.out + from, (size_t)size * sizeof *q);
    }
    op_array *qa = op_from(c, c->t, n, w, q), *out = op_out(c, c->t, n, w);
    kern_paged a = {.q = qa->t,
                    .n_q = k->n_q,
                    .n_kv = k->n_kv,
                    .d = k->d,
                    .kv = kv,
                    .layer = 1,
                    .n_seq = k->n_seq,
                    .q_start = op_send(c, start, ((size_t)k->n_seq + 1) * sizeof *start),
                    .kv_len = op_send(c, len, (size_t)k->n_seq * sizeof *len),
                    .blocks = op_send(c, s->blocks, (size_t)s->n_blocks * sizeof *s->blocks),
                    .max_blocks = s->max_blocks,
                    .scale = (float)s->a.scale,
                    .window = k->window,
                    .out = out->t};
    if (op_call(c, paged, &a, 0))
        op_equal(c, "out", out, want);
}

static void run_paged(op_ctx *c, int i)
{
    const paged_case *k = &pageds[i];
    paged_state s;
    kern_kv *kv = NULL;
    paged_build(c, &s, k);
    kern_kv_new_args a = {.n_layers = LAYERS,
                          .n_kv = k->n_kv,
                          .d = k->d,
                          .block_tokens = BLOCK,
                          .n_blocks = s.n_blocks,
                          .dtype = k->f32_cache ? KERN_F32 : c->t,
                          .out = &kv};
    if (c->mode != OP_BITS)
        (void)attn_reference(&s.a);
    if (op_ok(c, kern_do(c->d, kv_new, &a)) && paged_fill(c, &s, kv))
        paged_run(c, &s, k, kv);
    kern_do(c->d, kv_free, kv);
}

const op_test op_paged = {.name = "paged", .n_cases = COUNT(pageds), .run = run_paged};
