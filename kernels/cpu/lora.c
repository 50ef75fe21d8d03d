#include "kernels/cpu/lora.h"

#include <string.h>

/* Rows of a piece, steps of a sum at once, columns of a piece of a gradient, its rows at once. */
enum { ROWS = 32, DEPTH = 480, COLS = 64, TALL = 256 };
/* Rows of a widened piece lie so far apart that they do not fall into the same lines of the cache.
 */
enum { PITCH = DEPTH + 16 };
/* Floats of one thread: a widened piece of x, y or dy, and a result before it is added. */
enum { THREAD_FLOATS = TALL * COLS + 16 * COLS };

_Static_assert(ROWS *PITCH <= TALL * COLS, "a piece of rows fits where a piece of columns does");

const lora_way *lora_start(lora *s, kern_dev *d, const kern_linear *f, const kern_linear_grad *g)
{
    bool fits = true;
    *s = (lora){.d = d, .v = cpu_of(d)->vec, .f = f, .g = g};
    for (int p = 0; p < f->w->n_parts; p++) {
        const kern_lora *l = f->lora[p];
        if (l == NULL)
            continue;
        int64_t out0 = f->w->at[p], r = l->A.rows, q = (r + 15) / 16 * 16;
        s->t[s->n++] = (lora_term){.l = l,
                                   .r = r,
                                   .r0 = s->ranks,
                                   .q = q,
                                   .q0 = s->wide,
                                   .out = f->w->at[p + 1] - out0,
                                   .out0 = out0};
        s->ranks += r;
        s->wide += q;
        s->drops |= f->training && l->dropout > 0;
        fits &= r <= LORA_MAX_RANK;
    }
    bool pairs = f->x.dtype == KERN_BF16 && s->v->mm_pairs != NULL && fits;
    return pairs ? &lora_pairs : &lora_f32;
}

int lora_take(lora *s, size_t each, size_t bytes, void **shared)
{
    void *mem;
    s->each = (each + 63) / 64 * 64;
    size_t threads = (size_t)s->d->threads * s->each;
    int rc = cpu_scratch(s->d, CPU_SLOT_LORA, threads + bytes, &mem);
    s->mem = mem;
    *shared = (char *)mem + threads;
    return rc;
}

bool lora_drops(const lora *s, const lora_term *t)
{
    return s->f->training && t->l->dropout > 0;
}

void lora_drop(const lora *s, const lora_term *t, int64_t r, int64_t c0, int64_t n, float *x)
{
    uint64_t at = (s->f->rng[1] + (uint64_t)r) * (uint64_t)s->f->w->in + (uint64_t)c0;
    vec_drop a = {s->f->rng[0], t->l->stream, at, t->l->dropout, x, n};
    s->v->drop(&a);
}

/* ---- in f32 ---------------------------------------------------------------------------------- */

static int take(lora *s, int64_t floats)
{
    void *shared;
    int rc = lora_take(s, THREAD_FLOATS * sizeof(float), (size_t)floats * 4, &shared);
    s->at = shared;
    return rc;
}

static float *mine(const lora *s, int thread)
{
    return (float *)(void *)(s->mem + (size_t)thread * s->each);
}

/* ---- packing --------------------------------------------------------------------------------- */

/* dst[c, r] = src[r, c], dst with leading dimension ldd. */
static void transpose(const cpu_vec *v, const kern_tensor *src, float *dst, int64_t ldd)
{
    int64_t rows = src->rows / 16 * 16, cols = src->cols / 16 * 16;
    const float *p = src->data;
    if (rows > 0 && cols > 0)
        v->transpose(p, src->ld, (int)rows, (int)cols, dst, ldd);
    for (int64_t r = 0; r < src->rows; r++)
        for (int64_t c = r < rows ? cols : 0; c < src->cols; c++)
            dst[c * ldd + r] = p[r * src->ld + c];
}

/* The columns [c0, c0 + 256) of A and B of each term. */
static void pack_piece(void *arg, int64_t i, int thread)
{
    const lora *s = arg;
    const lora_term *t = &s->t[i % s->n];
    int64_t step = i / s->n * TALL, in = s->f->w->in;
    (void)thread;
    if (step < in) {
        kern_tensor a = kern_cols(&t->l->A, step, in - step < TALL ? in - step : TALL);
        transpose(s->v, &a, s->at + step * s->ranks + t->r0, s->ranks);
    }
    if (step < t->out) {
        kern_tensor b = kern_rows(&t->l->B, step, t->out - step < TALL ? t->out - step : TALL);
        transpose(s->v, &b, s->bt + t->out0 * s->ranks + step, t->out);
    }
}

static int64_t widest(const lora *s)
{
    int64_t n = s->f->w->in;
    for (int i = 0; i < s->n; i++)
        n = s->t[i].out > n ? s->t[i].out : n;
    return n;
}

/* ---- shrink ---------------------------------------------------------------------------------- */

/* out [rows, n] = big [rows, depth] b, the rows of big widened by pieces. */
typedef struct shrink {
    kern_tensor big;
    const lora_term *drop; /* the mask that big goes through; NULL: none */
    int64_t r0;            /* its first row in the batch */
    const float *b;
    int64_t ldb, n;
    float *out;
    int64_t ldo;
    float alpha;
} shrink;

static void shrink_rows(const lora *s, const shrink *k, float *tmp)
{
    int64_t rows = k->big.rows, depth = k->big.cols;
    for (int64_t k0 = 0; k0 < depth; k0 += DEPTH) {
        int64_t n = depth - k0 < DEPTH ? depth - k0 : DEPTH;
        for (int64_t r = 0; r < rows; r++) {
            s->v->to_f32(k->big.dtype, cpu_at(&k->big, r, k0), tmp + r * PITCH, n);
            if (k->drop != NULL)
                lora_drop(s, k->drop, k->r0 + r, k0, n, tmp + r * PITCH);
        }
        vec_mm g = {.m = rows,
                    .n = k->n,
                    .steps = n,
                    .a = tmp,
                    .ars = PITCH,
                    .aks = 1,
                    .b = k->b + k0 * k->ldb,
                    .ldb = k->ldb,
                    .c = k->out,
                    .ldc = k->ldo,
                    .alpha = k->alpha,
                    .add = k0 > 0};
        s->v->mm(&g);
    }
}

static void xa_piece(void *arg, int64_t i, int thread)
{
    const lora *s = arg;
    const kern_linear *f = s->f;
    int64_t r0 = i * ROWS, n = f->x.rows - r0 < ROWS ? f->x.rows - r0 : ROWS;
    shrink k = {.big = kern_rows(&f->x, r0, n),
                .r0 = r0,
                .b = s->at,
                .ldb = s->ranks,
                .n = s->ranks,
                .out = cpu_at(&f->xa, r0, 0),
                .ldo = f->xa.ld,
                .alpha = 1.0F};
    if (!s->drops) {
        shrink_rows(s, &k, mine(s, thread));
        return;
    }
    for (int p = 0; p < s->n; p++) {
        k.drop = lora_drops(s, &s->t[p]) ? &s->t[p] : NULL;
        k.b = s->at + s->t[p].r0;
        k.n = s->t[p].r;
        k.out = cpu_at(&f->xa, r0, s->t[p].r0);
        shrink_rows(s, &k, mine(s, thread));
    }
}

static void dxa_piece(void *arg, int64_t i, int thread)
{
    const lora *s = arg;
    const kern_tensor *dy = &s->g->dy;
    int64_t r0 = i * ROWS, n = dy->rows - r0 < ROWS ? dy->rows - r0 : ROWS;
    for (int p = 0; p < s->n; p++) {
        const lora_term *t = &s->t[p];
        kern_tensor part = kern_cols(dy, t->out0, t->out);
        shrink k = {.big = kern_rows(&part, r0, n),
                    .b = t->l->B.data,
                    .ldb = t->l->B.ld,
                    .n = t->r,
                    .out = s->dxa + r0 * s->ranks + t->r0,
                    .ldo = s->ranks,
                    .alpha = t->l->scale};
        shrink_rows(s, &k, mine(s, thread));
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

static int forward(lora *s)
{
    const kern_linear *f = s->f;
    int rc = take(s, s->ranks * (f->w->in + f->w->out));
    if (rc != 0)
        return rc;
    s->bt = s->at + s->ranks * f->w->in;
    int64_t pieces = (widest(s) + TALL - 1) / TALL * s->n, n = f->x.rows;
    cpu_run(s->d, s->ranks * (f->w->in + f->w->out) / 4, pieces, pack_piece, s);
    cpu_run(s->d, n * s->ranks * f->w->in / 16, (n + ROWS - 1) / ROWS, xa_piece, s);
    return 0;
}

static void expand_y(void *arg, const cpu_block *b, int thread)
{
    const lora *s = arg;
    const kern_linear *f = s->f;
    (void)thread;
    for (int p = 0; p < s->n; p++) {
        const lora_term *t = &s->t[p];
        int64_t c0 = b->c0 > t->out0 ? b->c0 : t->out0;
        int64_t c1 = b->c1 < t->out0 + t->out ? b->c1 : t->out0 + t->out;
        if (c0 >= c1)
            continue;
        vec_mm g = {.m = b->r1 - b->r0,
                    .n = c1 - c0,
                    .steps = t->r,
                    .a = cpu_at(&f->xa, b->r0, t->r0),
                    .ars = f->xa.ld,
                    .aks = 1,
                    .b = s->bt + t->out0 * s->ranks + (c0 - t->out0),
                    .ldb = t->out,
                    .c = cpu_at(&f->y, b->r0, c0),
                    .ldc = f->y.ld,
                    .alpha = t->l->scale,
                    .add = true,
                    .c_bf16 = f->y.dtype == KERN_BF16};
        s->v->mm(&g);
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

static int backward(lora *s)
{
    const kern_linear *f = s->f;
    int64_t n = f->x.rows, in = f->w->in;
    int rc = take(s, s->ranks * (in + n));
    if (rc != 0)
        return rc;
    s->dxa = s->at + s->ranks * in;
    for (int p = 0; p < s->n; p++)
        for (int64_t r = 0; r < s->t[p].r; r++)
            memcpy(s->at + (s->t[p].r0 + r) * in, cpu_at(&s->t[p].l->A, r, 0), (size_t)in * 4);
    cpu_run(s->d, n * s->ranks * f->w->out / 32, (n + ROWS - 1) / ROWS, dxa_piece, s);
    return 0;
}

/* Rows [r0, r0 + n) of the block through the mask of term t; at most ROWS rows, COLS columns. */
static void expand_dropped(const lora *s, const lora_term *t, const cpu_block *b, float *tmp)
{
    const kern_tensor *dx = &s->g->dx;
    int64_t n = b->c1 - b->c0, in = s->f->w->in;
    vec_mm g = {.m = b->r1 - b->r0,
                .n = n,
                .steps = t->r,
                .a = s->dxa + b->r0 * s->ranks + t->r0,
                .ars = s->ranks,
                .aks = 1,
                .b = s->at + t->r0 * in + b->c0,
                .ldb = in,
                .c = tmp,
                .ldc = COLS,
                .alpha = 1.0F};
    s->v->mm(&g);
    for (int64_t r = b->r0; r < b->r1; r++) {
        float *x = tmp + (r - b->r0) * COLS;
        if (lora_drops(s, t))
            lora_drop(s, t, r, b->c0, n, x);
        s->v->add_to(dx->dtype, x, cpu_at(dx, r, b->c0), n);
    }
}

static void expand_dx(void *arg, const cpu_block *b, int thread)
{
    const lora *s = arg;
    const kern_tensor *dx = &s->g->dx;
    int64_t in = s->f->w->in;
    vec_mm g = {.m = b->r1 - b->r0,
                .n = b->c1 - b->c0,
                .steps = s->ranks,
                .a = s->dxa + b->r0 * s->ranks,
                .ars = s->ranks,
                .aks = 1,
                .b = s->at + b->c0,
                .ldb = in,
                .c = cpu_at(dx, b->r0, b->c0),
                .ldc = dx->ld,
                .alpha = 1.0F,
                .add = true,
                .c_bf16 = dx->dtype == KERN_BF16};
    if (!s->drops) {
        s->v->mm(&g);
        return;
    }
    for (int p = 0; p < s->n; p++)
        for (int64_t r = b->r0; r < b->r1; r += ROWS)
            for (int64_t c = b->c0; c < b->c1; c += COLS) {
                cpu_block part = {r, r + ROWS < b->r1 ? r + ROWS : b->r1, c,
                                  c + COLS < b->c1 ? c + COLS : b->c1};
                expand_dropped(s, &s->t[p], &part, mine(s, thread));
            }
}

/* ---- gradients of A and B -------------------------------------------------------------------- */

/* c [r, cols] += alpha small^T big, over all rows; t: the mask that big goes through. */
typedef struct outer {
    const float *small;
    int64_t lds, r;
    kern_tensor big;
    int64_t c0; /* big's first column in the batch's rows, for the mask */
    const lora_term *t;
    float *c;
    int64_t ldc;
    float alpha;
} outer;

static void outer_rows(const lora *s, const outer *o, float *tmp)
{
    for (int64_t r0 = 0; r0 < o->big.rows; r0 += TALL) {
        int64_t n = o->big.rows - r0 < TALL ? o->big.rows - r0 : TALL;
        for (int64_t r = 0; r < n; r++) {
            s->v->to_f32(o->big.dtype, cpu_at(&o->big, r0 + r, 0), tmp + r * COLS, o->big.cols);
            if (o->t != NULL)
                lora_drop(s, o->t, r0 + r, o->c0, o->big.cols, tmp + r * COLS);
        }
        vec_mm g = {.m = o->r,
                    .n = o->big.cols,
                    .steps = n,
                    .a = o->small + r0 * o->lds,
                    .ars = 1,
                    .aks = o->lds,
                    .b = tmp,
                    .ldb = COLS,
                    .c = o->c,
                    .ldc = o->ldc,
                    .alpha = o->alpha,
                    .add = true};
        s->v->mm(&g);
    }
}

static void da_piece(const lora *s, const lora_term *t, int64_t c0, float *tmp)
{
    int64_t in = s->f->w->in;
    if (t->l->dA.data == NULL || c0 >= in)
        return;
    outer o = {.small = s->dxa + t->r0,
               .lds = s->ranks,
               .r = t->r,
               .big = kern_cols(&s->f->x, c0, in - c0 < COLS ? in - c0 : COLS),
               .c0 = c0,
               .t = lora_drops(s, t) ? t : NULL,
               .c = cpu_at(&t->l->dA, 0, c0),
               .ldc = t->l->dA.ld,
               .alpha = 1.0F};
    outer_rows(s, &o, tmp);
}

/* Sums dB transposed, 16 ranks at a time, then adds it. */
static void db_piece(const lora *s, const lora_term *t, int64_t c0, float *tmp)
{
    if (t->l->dB.data == NULL || c0 >= t->out)
        return;
    float *sum = tmp + (int64_t)TALL * COLS;
    int64_t n = t->out - c0 < COLS ? t->out - c0 : COLS;
    for (int64_t r0 = 0; r0 < t->r; r0 += 16) {
        int64_t r = t->r - r0 < 16 ? t->r - r0 : 16;
        memset(sum, 0, sizeof(float) * 16 * COLS);
        outer o = {.small = cpu_at(&s->f->xa, 0, t->r0 + r0),
                   .lds = s->f->xa.ld,
                   .r = r,
                   .big = kern_cols(&s->g->dy, t->out0 + c0, n),
                   .c = sum,
                   .ldc = COLS,
                   .alpha = t->l->scale};
        outer_rows(s, &o, tmp);
        for (int64_t j = 0; j < n; j++) {
            float *db = cpu_at(&t->l->dB, c0 + j, r0);
            for (int64_t k = 0; k < r; k++)
                db[k] += sum[k * COLS + j];
        }
    }
}

static void outer_piece(void *arg, int64_t i, int thread)
{
    const lora *s = arg;
    const lora_term *t = &s->t[i / 2 % s->n];
    int64_t c0 = i / 2 / s->n * COLS;
    if (i % 2 == 0)
        da_piece(s, t, c0, mine(s, thread));
    else
        db_piece(s, t, c0, mine(s, thread));
}

static void outer_all(lora *s)
{
    int64_t n = s->f->x.rows, wide = s->f->w->in + s->f->w->out;
    cpu_run(s->d, n * s->ranks * wide / 32, (widest(s) + COLS - 1) / COLS * s->n * 2, outer_piece,
            s);
}

const lora_way lora_f32 = {forward, backward, expand_y, expand_dx, outer_all};
