/* The output head with loss, plain logits, and sampling. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ops/op.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

/* ---- head ------------------------------------------------------------------------------------ */

typedef struct head_case {
    int64_t n, h, vocab;
    int targets; /* one row in so many has one; 0: none */
    bool dx, dw;
} head_case;

static const head_case heads[] = {
    {1, 8, 11, 1, true, false},     {17, 48, 100, 2, true, true},   {33, 64, 257, 1, true, false},
    {5, 17, 33, 0, true, true},     {129, 32, 130, 3, false, true}, {40, 96, 1000, 5, false, false},
    {300, 16, 512, 1, true, false}, {3, 20, 4501, 1, true, true},   {8300, 3, 5, 2, true, true},
};

static const head_case head_grads[] = {
    {1, 5, 7, 1, true, true},  {6, 8, 20, 1, true, true},  {9, 7, 33, 2, true, true},
    {5, 17, 9, 0, true, true}, {20, 3, 40, 3, true, true}, {33, 4, 5, 1, true, true},
};

typedef struct head_state {
    const head_case *k;
    op_array *x, *w;
    int32_t *target, *row;
    int64_t n_rows;
    float *coef;
    double *logp, *l;
} head_state;

static double head_reference(void *arg)
{
    head_state *s = arg;
    int64_t h = s->k->h, vocab = s->k->vocab;
    double loss = 0;
    for (int64_t r = 0; r < s->k->n; r++) {
        double max = -INFINITY, sum = 0;
        s->logp[r] = 0;
        if (s->target[r] < 0)
            continue;
        for (int64_t o = 0; o < vocab; o++) {
            s->l[o] = 0;
            for (int64_t i = 0; i < h; i++)
                s->l[o] += s->w->v[o * h + i] * s->x->v[r * h + i];
            max = fmax(max, s->l[o]);
        }
        for (int64_t o = 0; o < vocab; o++)
            sum += exp(s->l[o] - max);
        s->logp[r] = s->l[s->target[r]] - max - log(sum);
        loss += (double)s->coef[r] * -s->logp[r];
    }
    return loss;
}

static void head_build(op_ctx *c, head_state *s, const head_case *k)
{
    *s = (head_state){.k = k};
    s->x = op_in(c, c->t, k->n, k->h, 1);
    s->w = op_in(c, c->t, k->vocab, k->h, 2 / sqrt((double)k->h));
    s->target = op_ints(c, k->n, 0, (int32_t)k->vocab);
    s->row = op_block(c, (size_t)k->n * sizeof *s->row);
    s->coef = op_block(c, (size_t)k->n * sizeof(float));
    s->logp = op_block(c, (size_t)k->n * sizeof(double));
    s->l = op_block(c, (size_t)k->vocab * sizeof(double));
    for (int64_t r = 0; r < k->n; r++) {
        s->coef[r] = (float)(r % 3) - 0.7F;
        if (k->targets == 0 || r % k->targets != 0)
            s->target[r] = -100;
        else
            s->row[s->n_rows++] = (int32_t)r;
    }
}

static kern_weight *head_weight(op_ctx *c, op_array *w, bool grad)
{
    kern_weight *out = NULL;
    kern_weight_desc desc = {
        .n_parts = 1, .part = {op_host(c, w)}, .compute = c->t, .need_dx = grad, .trainable = grad};
    kern_weight_new_args a = {&desc, &out};
    op_ok(c, kern_do(c->d, weight_new, &a));
    return out;
}

static void head_run(op_ctx *c, head_state *s, kern_weight *w)
{
    const head_case *k = s->k;
    op_array *dx = op_out(c, c->t, k->n, k->h), *dw = op_in(c, KERN_F32, k->vocab, k->h, 1);
    op_array *logp = op_out(c, KERN_F32, 1, k->n);
    kern_head a = {.w = w,
                   .x = s->x->t,
                   .n_rows = s->n_rows,
                   .row = op_send(c, s->row, (size_t)k->n * sizeof *s->row),
                   .target = op_send(c, s->target, (size_t)k->n * sizeof *s->target),
                   .coef =
                       k->dx || k->dw ? op_send(c, s->coef, (size_t)k->n * sizeof *s->coef) : NULL,
                   .logp = logp->t.data};
    if (k->dx)
        a.dx = dx->t;
    if (k->dw)
        a.dw = dw->t;
    (void)head_reference(s);
    if (!op_call(c, head, &a, (k->dx ? 4.0 : 2.0) * (double)(k->n * k->h * k->vocab)))
        return;
    op_equal(c, "logp", logp, s->logp);
    if (k->n * k->h * k->vocab > 300000)
        c->samples = c->directions = 1;
    if (k->dx)
        op_grad(c, "dx", s->x, dx, false, head_reference, s);
    if (k->dw)
        op_grad(c, "dw", s->w, dw, true, head_reference, s);
}

static void run_head_case(op_ctx *c, const head_case *k)
{
    head_state s;
    head_build(c, &s, k);
    kern_weight *w = head_weight(c, s.w, true);
    if (w != NULL)
        head_run(c, &s, w);
    kern_do(c->d, weight_free, w);
}

static void run_head(op_ctx *c, int i)
{
    run_head_case(c, &heads[i]);
}

static void run_head_grad(op_ctx *c, int i)
{
    run_head_case(c, &head_grads[i]);
}

const op_test op_head = {.name = "head",
                         .n_cases = COUNT(heads),
                         .run = run_head,
                         .n_grads = COUNT(head_grads),
                         .grad = run_head_grad};

/* ---- logits ---------------------------------------------------------------------------------- */

static const struct {
    int64_t n, h, vocab, rows; /* rows 0: all in order */
} logit_cases[] = {
    {1, 8, 11, 0}, {17, 48, 100, 3}, {5, 64, 257, 0}, {9, 33, 130, 20}, {3, 4104, 40, 2}};

static void run_logits(op_ctx *c, int i)
{
    int64_t n = logit_cases[i].n, h = logit_cases[i].h, vocab = logit_cases[i].vocab;
    int64_t rows = logit_cases[i].rows > 0 ? logit_cases[i].rows : n;
    op_array *x = op_in(c, c->t, n, h, 1), *w = op_in(c, c->t, vocab, h, 1);
    op_array *l = op_out(c, KERN_F32, rows, vocab);
    int32_t *row = op_ints(c, rows, 0, (int32_t)n);
    double *want = op_block(c, (size_t)(rows * vocab) * sizeof *want);
    for (int64_t r = 0; r < rows; r++) {
        const double *xr = x->v + (logit_cases[i].rows > 0 ? row[r] : r) * h;
        for (int64_t o = 0; o < vocab; o++)
            for (int64_t j = 0; j < h; j++)
                want[r * vocab + o] += xr[j] * w->v[o * h + j];
    }
    kern_weight *kw = head_weight(c, w, false);
    kern_logits a = {.w = kw,
                     .x = x->t,
                     .row = logit_cases[i].rows > 0 ? op_send(c, row, (size_t)rows * sizeof *row)
                                                    : NULL,
                     .n_rows = rows,
                     .logits = l->t};
    if (kw != NULL && op_call(c, logits, &a, 2.0 * (double)(rows * h * vocab)))
        op_equal(c, "logits", l, want);
    kern_do(c->d, weight_free, kw);
}

const op_test op_logits = {.name = "logits", .n_cases = COUNT(logit_cases), .run = run_logits};

/* ---- sampling -------------------------------------------------------------------------------- */

typedef struct sample_case {
    int64_t vocab;
    float temperature, top_p, min_p;
    int32_t top_k;
    float repetition, presence, frequency;
    bool bias;
    int ties; /* logits are 1: whole numbers, 2: all the same */
    int32_t n_top;
    int rows; /* 0: DRAWS */
} sample_case;

static const sample_case samples[] = {
    {50, 0, 1, 0, 0, 1, 0, 0, false, 0, 0, 0},
    {50, 0, 1, 0, 0, 1, 0, 0, false, 1, 5, 0},
    {200, 1, 1, 0, 0, 1, 0, 0, false, 0, 20, 0},
    {200, 0.7F, 0.9F, 0, 0, 1, 0, 0, false, 0, 3, 0},
    {200, 1, 1, 0, 5, 1, 0, 0, false, 1, 0, 0},
    {200, 1.5F, 0.6F, 0, 30, 1, 0, 0, false, 0, 1, 0},
    {200, 1, 1, 0.2F, 0, 1, 0, 0, false, 0, 0, 0},
    {200, 0.8F, 0.95F, 0.05F, 40, 1.3F, 0.5F, 0.25F, true, 0, 4, 0},
    {200, 0, 1, 0, 0, 2, 0, 0, true, 0, 2, 0},
    {200, 1, 0, 0, 0, 1, 0, 0, false, 0, 0, 0},
    {7, 1, 0.5F, 0, 100, 1, 0, 0, false, 0, 20, 0},
    {300, 1, 1, 0, 1, 1, 1, 1, false, 0, 0, 0},
    /* Vocabularies of more than one piece, and distributions so flat that very many may be drawn.
     */
    {9000, 0, 1, 0, 0, 1.5F, 0.5F, 1, true, 0, 20, 4},
    {9000, 0.7F, 0.9F, 0, 0, 1, 0, 0, true, 0, 20, 4},
    {9000, 1.5F, 1, 0.01F, 0, 1, 0, 0, false, 0, 1, 4},
    {9000, 0.5F, 1, 0, 0, 1, 0, 0, false, 0, 0, 4},
    {4500, 4, 0.999F, 0, 0, 1, 0, 0, false, 0, 0, 2},
    {4500, 4, 1, 0, 4300, 1, 0, 0, false, 0, 0, 2},
    {4500, 3, 0.95F, 0, 4400, 1, 0, 0, false, 1, 0, 2},
    {4500, 6, 0.999F, 0.4F, 0, 1.2F, 0, 0, false, 0, 2, 2},
    {70000, 1, 0.9999F, 0, 0, 1, 0, 0, false, 0, 0, 1},
    {70000, 2, 1, 0, 60000, 1, 0, 0, false, 0, 0, 1},
    {9000, 2000, 0.9F, 0, 0, 1, 0, 0, false, 1, 0, 2},
    {4500, 1, 0.97F, 0, 0, 1, 0, 0, false, 2, 0, 4},
    {4500, 1, 0.5F, 0, 4200, 1.5F, 0, 0, false, 2, 0, 4},
};

enum { DRAWS = 40, CONTEXT = 30, ANSWER = 20, BIASES = 3 };

static int draws_of(const sample_case *k)
{
    return k->rows > 0 ? k->rows : DRAWS;
}

typedef struct ranked {
    double l;
    int32_t id;
} ranked;

static int falling(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->l != y->l)
        return x->l < y->l ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

static void penalise(const sample_case *k, const kern_sample_row *r, double *l)
{
    for (int64_t i = 0; i < r->n_bias; i++)
        l[r->bias_id[i]] += (double)r->bias[i];
    for (int32_t id = 0; id < k->vocab; id++) {
        int in_context = 0, in_answer = 0;
        for (int64_t i = 0; i < r->n_context; i++)
            in_context += r->context[i] == id;
        for (int64_t i = 0; i < r->n_answer; i++)
            in_answer += r->answer[i] == id;
        if (in_context > 0)
            l[id] = l[id] > 0 ? l[id] / (double)k->repetition : l[id] * (double)k->repetition;
        l[id] -= in_answer * (double)k->frequency + (in_answer > 0 ? (double)k->presence : 0);
    }
}

/* The candidates that stay, with their weights; returns how many. Sorted by weight where top-k or
 * top-p asks for an order, else by id: that is the order in which u runs through them. */
static int64_t candidates(const sample_case *k, const double *l, ranked *c)
{
    int64_t n = k->vocab;
    double max = -INFINITY, total = 0, sum = 0;
    for (int64_t i = 0; i < n; i++)
        max = fmax(max, l[i] / (double)k->temperature);
    for (int64_t i = 0; i < n; i++)
        c[i] = (ranked){exp(l[i] / (double)k->temperature - max), (int32_t)i};
    if (k->top_k > 0 || k->top_p < 1)
        qsort(c, (size_t)n, sizeof *c, falling);
    if (k->top_k > 0 && k->top_k < n)
        n = k->top_k;
    for (int64_t i = 0; i < n; i++)
        total += c[i].l;
    int64_t m = 0;
    while (m < n && (k->top_p >= 1 || m == 0 || sum < (double)k->top_p * total))
        sum += c[m++].l;
    int64_t kept = 0;
    for (int64_t i = 0; i < m; i++)
        if (c[i].l >= (double)k->min_p)
            c[kept++] = c[i];
    return kept;
}

static int32_t sample_reference(const sample_case *k, const kern_sample_row *r,
                                const double *logits, double *l, ranked *c)
{
    memcpy(l, logits, (size_t)k->vocab * sizeof *l);
    penalise(k, r, l);
    if (k->temperature == 0) {
        int32_t best = 0;
        for (int32_t i = 1; i < k->vocab; i++)
            best = l[i] > l[best] ? i : best;
        return best;
    }
    int64_t n = candidates(k, l, c);
    double total = 0, sum = 0;
    for (int64_t i = 0; i < n; i++)
        total += c[i].l;
    for (int64_t i = 0; i < n; i++) {
        sum += c[i].l;
        if ((double)r->u * total < sum)
            return c[i].id;
    }
    return c[n - 1].id;
}

static void sample_rows(op_ctx *c, const sample_case *k, kern_sample_row *rows)
{
    int n = draws_of(k);
    float *bias = op_block(c, BIASES * sizeof *bias);
    for (int i = 0; i < BIASES; i++)
        bias[i] = (float)i - 0.5F;
    for (int i = 0; i < n; i++)
        rows[i] = (kern_sample_row){.temperature = k->temperature,
                                    .top_p = k->top_p,
                                    .min_p = k->min_p,
                                    .top_k = k->top_k,
                                    .repetition = k->repetition,
                                    .presence = k->presence,
                                    .frequency = k->frequency,
                                    .n_context = CONTEXT,
                                    .context = op_ints(c, CONTEXT, 0, (int32_t)k->vocab),
                                    .n_answer = ANSWER,
                                    .n_bias = k->bias ? BIASES : 0,
                                    .bias_id = op_ints(c, 1, 0, 4),
                                    .bias = bias,
                                    .u = rng_uniform(&c->r),
                                    .n_top = k->n_top};
    for (int i = 0; i < n; i++) {
        rows[i].answer = rows[i].context + (CONTEXT - ANSWER);
        rows[i].bias_id = rows[(i + 1) % n].context;
    }
}

static void sample_compare(op_ctx *c, const sample_case *k, const kern_sample_row *rows,
                           const op_array *l)
{
    int per = 2 * KERN_MAX_TOP + 3, n = draws_of(k);
    double *got = op_block(c, (size_t)(n * per) * sizeof *got),
           *want = op_block(c, (size_t)(n * per) * sizeof *want);
    double *work = op_block(c, (size_t)k->vocab * sizeof *work);
    ranked *rank = op_block(c, (size_t)k->vocab * sizeof *rank);
    for (int i = 0; i < n; i++) {
        const double *logits = l->v + i * k->vocab;
        double sum = 0, *g = got + i * per, *w = want + i * per;
        for (int64_t j = 0; j < k->vocab; j++)
            sum += exp(logits[j]);
        g[0] = rows[i].id;
        g[1] = (double)rows[i].logp;
        w[0] = sample_reference(k, &rows[i], logits, work, rank);
        w[1] = logits[(int)w[0]] - log(sum);
        for (int64_t j = 0; j < k->vocab; j++)
            rank[j] = (ranked){logits[j], (int32_t)j};
        qsort(rank, (size_t)k->vocab, sizeof *rank, falling);
        w[2] = k->n_top < k->vocab ? k->n_top : (double)k->vocab;
        g[2] = rows[i].n_top;
        for (int j = 0; j < (int)w[2]; j++) {
            g[3 + j] = rows[i].top_id[j];
            g[23 + j] = (double)rows[i].top_logp[j];
            w[3 + j] = rank[j].id;
            w[23 + j] = rank[j].l - log(sum);
        }
    }
    op_numbers(c, "ids and log-probabilities", got, want, n * per, false);
}

static void run_sample(op_ctx *c, int i)
{
    const sample_case *k = &samples[i];
    int n = draws_of(k);
    op_array *l = op_in(c, KERN_F32, n, k->vocab, 2);
    if (k->ties > 0) {
        for (int64_t j = 0; j < n * k->vocab; j++)
            l->v[j] = k->ties == 1 ? round(l->v[j]) : -0.75;
        l = op_from(c, KERN_F32, n, k->vocab, l->v);
    }
    kern_sample_row *rows = op_block(c, (size_t)n * sizeof *rows);
    sample_rows(c, k, rows);
    kern_sample a = {.logits = l->t, .row = rows};
    if (op_call(c, sample, &a, 0))
        sample_compare(c, k, rows, l);
}

const op_test op_sample = {
    .name = "sample", .n_cases = COUNT(samples), .run = run_sample, .one_dtype = true};
