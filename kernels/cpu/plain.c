/* Matrix products without a library: for machines and dtypes that oneDNN has no fast case for, and
 * to hold its results against. Blocks of W are widened to f32 panels that stay in the first-level
 * cache. */
#include <string.h>

#include "kernels/cpu/weight.h"

enum { ROWS = 128, COLS = 48, DEPTH = 256 };

/* One thread's panels. */
typedef struct panels {
    float b[DEPTH * COLS];
    float c[ROWS * COLS];
    float row[DEPTH];
} panels;

typedef struct product {
    kern_dev *d;
    const kern_weight *w;
    const float *a; /* [n, depth] */
    int64_t n, cols, depth;
    bool transposed; /* B is W^T (forward), else W (gradient) */
    const float *bias;
    const kern_tensor *y;
    bool add;
} product;

static const void *weight_at(const kern_weight *w, int64_t o, int64_t i)
{
    return (const char *)w->rows + (size_t)(o * w->in + i) * kern_dtype_size(w->compute);
}

static void fill_b(const product *g, panels *p, int64_t j0, int64_t nj, int64_t k0, int64_t nk)
{
    const cpu_vec *v = cpu_of(g->d)->vec;
    if (!g->transposed) {
        for (int64_t k = 0; k < nk; k++)
            v->to_f32(g->w->compute, weight_at(g->w, k0 + k, j0), p->b + k * COLS, nj);
        return;
    }
    for (int64_t j = 0; j < nj; j++) {
        v->to_f32(g->w->compute, weight_at(g->w, j0 + j, k0), p->row, nk);
        for (int64_t k = 0; k < nk; k++)
            p->b[k * COLS + j] = p->row[k];
    }
}

static void finish(const product *g, panels *p, int64_t i0, int64_t ni, int64_t j0, int64_t nj)
{
    const cpu_vec *v = cpu_of(g->d)->vec;
    for (int64_t i = 0; i < ni; i++) {
        float *c = p->c + i * COLS;
        void *y = cpu_at(g->y, i0 + i, j0);
        if (g->bias != NULL)
            v->axpy(1.0F, g->bias + j0, c, nj);
        if (g->add) {
            v->to_f32(g->y->dtype, y, p->row, nj);
            v->axpy(1.0F, p->row, c, nj);
        }
        v->from_f32(g->y->dtype, c, y, nj);
    }
}

static void block(const product *g, panels *p, int64_t i0, int64_t j0)
{
    int64_t ni = g->n - i0 < ROWS ? g->n - i0 : ROWS;
    int64_t nj = g->cols - j0 < COLS ? g->cols - j0 : COLS;
    for (int64_t k0 = 0; k0 < g->depth; k0 += DEPTH) {
        int64_t nk = g->depth - k0 < DEPTH ? g->depth - k0 : DEPTH;
        fill_b(g, p, j0, nj, k0, nk);
        vec_mm mm = {.m = ni,
                     .n = nj,
                     .k = nk,
                     .a = g->a + i0 * g->depth + k0,
                     .ars = g->depth,
                     .aks = 1,
                     .b = p->b,
                     .ldb = COLS,
                     .c = p->c,
                     .ldc = COLS,
                     .alpha = 1.0F,
                     .add = k0 > 0};
        cpu_of(g->d)->vec->mm(&mm);
    }
    finish(g, p, i0, ni, j0, nj);
}

static int run(product *g, const kern_tensor *a)
{
    kern_dev *d = g->d;
    void *wide, *mem;
    int nt = cpu_threads(d, g->n * g->cols * g->depth / 64);
    int rc = cpu_scratch(d, 0, (size_t)(g->n * g->depth) * 4, &wide);
    if (rc == 0)
        rc = cpu_scratch(d, 1, (size_t)nt * sizeof(panels), &mem);
    if (rc != 0)
        return rc;
    float *f = wide;
    panels *p = mem;
    for (int64_t i = 0; i < g->n; i++)
        cpu_of(d)->vec->to_f32(a->dtype, cpu_at(a, i, 0), f + i * g->depth, g->depth);
    g->a = f;
    int64_t nb = (g->cols + COLS - 1) / COLS;
#pragma omp parallel for num_threads(nt) schedule(static)
    for (int64_t b = 0; b < nb; b++)
        for (int64_t i = 0; i < g->n; i += ROWS)
            block(g, &p[cpu_thread()], i, b * COLS);
    return 0;
}

int cpu_product(kern_dev *d, const kern_weight *w, const kern_tensor *x, const kern_tensor *y,
                bool add)
{
    product g = {.d = d,
                 .w = w,
                 .n = x->rows,
                 .cols = w->out,
                 .depth = w->in,
                 .transposed = true,
                 .bias = w->bias,
                 .y = y,
                 .add = add};
    return run(&g, x);
}

int cpu_product_dx(kern_dev *d, const kern_weight *w, const kern_tensor *dy, const kern_tensor *dx,
                   bool add)
{
    product g = {
        .d = d, .w = w, .n = dy->rows, .cols = w->in, .depth = w->out, .y = dx, .add = add};
    return run(&g, dy);
}

int cpu_product_dw(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw)
{
    void *p0, *p1;
    int64_t n = dy->rows, out = dw->rows, in = dw->cols;
    int rc = cpu_scratch(d, 0, (size_t)(n * in) * 4, &p0);
    if (rc == 0)
        rc = cpu_scratch(d, 1, (size_t)(n * out) * 4, &p1);
    if (rc != 0)
        return rc;
    const cpu_vec *v = cpu_of(d)->vec;
    float *xf = p0, *df = p1;
    for (int64_t i = 0; i < n; i++) {
        v->to_f32(x->dtype, cpu_at(x, i, 0), xf + i * in, in);
        v->to_f32(dy->dtype, cpu_at(dy, i, 0), df + i * out, out);
    }
    int nt = cpu_threads(d, n * in * out / 64);
#pragma omp parallel for num_threads(nt) schedule(static)
    for (int64_t o = 0; o < out; o += 8) {
        vec_mm mm = {.m = out - o < 8 ? out - o : 8,
                     .n = in,
                     .k = n,
                     .a = df + o,
                     .ars = 1,
                     .aks = out,
                     .b = xf,
                     .ldb = in,
                     .c = cpu_at(dw, o, 0),
                     .ldc = dw->ld,
                     .alpha = 1.0F,
                     .add = true};
        v->mm(&mm);
    }
    return 0;
}
