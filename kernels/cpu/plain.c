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
    const cpu_mul *m;
    const float *a; /* [n, depth] */
    int64_t n, cols, depth;
} product;

static const void *row_at(const cpu_matrix *b, int64_t row, int64_t col, int64_t width)
{
    return (const char *)b->data + (size_t)(row * width + col) * kern_dtype_size(b->dtype);
}

static void fill_b(const product *g, panels *p, int64_t j0, int64_t nj, int64_t k0, int64_t nk)
{
    const cpu_vec *v = cpu_of(g->d)->vec;
    const cpu_matrix *b = g->m->b;
    if (!b->l.transposed) {
        for (int64_t k = 0; k < nk; k++)
            v->to_f32(b->dtype, row_at(b, k0 + k, j0, g->cols), p->b + k * COLS, nj);
        return;
    }
    for (int64_t j = 0; j < nj; j++) {
        v->to_f32(b->dtype, row_at(b, j0 + j, k0, g->depth), p->row, nk);
        for (int64_t k = 0; k < nk; k++)
            p->b[k * COLS + j] = p->row[k];
    }
}

static void finish(const product *g, panels *p, int64_t i0, int64_t ni, int64_t j0, int64_t nj)
{
    const cpu_vec *v = cpu_of(g->d)->vec;
    for (int64_t i = 0; i < ni; i++) {
        float *c = p->c + i * COLS;
        const kern_tensor *y = g->m->y;
        void *yi = cpu_at(y, i0 + i, j0);
        if (g->m->bias != NULL)
            v->axpy(1.0F, g->m->bias + j0, c, nj);
        if (g->m->add) {
            v->to_f32(y->dtype, yi, p->row, nj);
            v->axpy(1.0F, p->row, c, nj);
        }
        v->from_f32(y->dtype, c, yi, nj);
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
                     .steps = nk,
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

int cpu_product_plain(kern_dev *d, const cpu_mul *m)
{
    product g = {.d = d, .m = m, .n = m->x->rows, .cols = m->b->l.cols, .depth = m->b->l.depth};
    void *wide, *mem;
    int nt = cpu_threads(d, g.n * g.cols * g.depth / 64);
    int rc = cpu_scratch(d, 0, (size_t)(g.n * g.depth) * 4, &wide);
    if (rc == 0)
        rc = cpu_scratch(d, 1, (size_t)nt * sizeof(panels), &mem);
    if (rc != 0)
        return rc;
    float *f = wide;
    panels *p = mem;
    for (int64_t i = 0; i < g.n; i++)
        cpu_of(d)->vec->to_f32(m->x->dtype, cpu_at(m->x, i, 0), f + i * g.depth, g.depth);
    g.a = f;
    int64_t nb = (g.cols + COLS - 1) / COLS;
#pragma omp parallel for num_threads(nt) schedule(static)
    for (int64_t b = 0; b < nb; b++)
        for (int64_t i = 0; i < g.n; i += ROWS)
            block(&g, &p[cpu_thread()], i, b * COLS);
    return 0;
}

int cpu_dw_plain(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw)
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
                     .steps = n,
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
