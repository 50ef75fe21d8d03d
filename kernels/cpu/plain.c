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
    const cpu_vec *v;
    const cpu_mul *m;
    float *a; /* [n, depth] */
    int64_t n, cols, depth;
    char *mem;
    size_t each;
} product;

static const void *row_at(const cpu_matrix *b, int64_t row, int64_t col, int64_t width)
{
    return (const char *)b->data + (size_t)(row * width + col) * kern_dtype_size(b->dtype);
}

static void fill_b(const product *g, panels *p, int64_t j0, int64_t nj, int64_t k0, int64_t nk)
{
    const cpu_matrix *b = g->m->b;
    if (!b->l.transposed) {
        for (int64_t k = 0; k < nk; k++)
            g->v->to_f32(b->dtype, row_at(b, k0 + k, j0, g->cols), p->b + k * COLS, nj);
        return;
    }
    for (int64_t j = 0; j < nj; j++) {
        g->v->to_f32(b->dtype, row_at(b, j0 + j, k0, g->depth), p->row, nk);
        for (int64_t k = 0; k < nk; k++)
            p->b[k * COLS + j] = p->row[k];
    }
}

static void finish(const product *g, panels *p, const cpu_block *b)
{
    const kern_tensor *y = g->m->y;
    int64_t n = b->c1 - b->c0;
    for (int64_t i = b->r0; i < b->r1; i++) {
        float *c = p->c + (i - b->r0) * COLS;
        void *yi = cpu_at(y, i, b->c0);
        if (g->m->bias != NULL)
            g->v->axpy(1.0F, g->m->bias + b->c0, c, n);
        if (g->m->add) {
            g->v->to_f32(y->dtype, yi, p->row, n);
            g->v->axpy(1.0F, p->row, c, n);
        }
        g->v->from_f32(y->dtype, c, yi, n);
    }
}

static void block(const product *g, panels *p, const cpu_block *b)
{
    for (int64_t k0 = 0; k0 < g->depth; k0 += DEPTH) {
        int64_t nk = g->depth - k0 < DEPTH ? g->depth - k0 : DEPTH;
        fill_b(g, p, b->c0, b->c1 - b->c0, k0, nk);
        vec_mm mm = {.m = b->r1 - b->r0,
                     .n = b->c1 - b->c0,
                     .steps = nk,
                     .a = g->a + b->r0 * g->depth + k0,
                     .ars = g->depth,
                     .aks = 1,
                     .b = p->b,
                     .ldb = COLS,
                     .c = p->c,
                     .ldc = COLS,
                     .alpha = 1.0F,
                     .add = k0 > 0};
        g->v->mm(&mm);
    }
    finish(g, p, b);
}

static void columns(void *arg, int64_t i, int thread)
{
    const product *g = arg;
    panels *p = (panels *)(void *)(g->mem + (size_t)thread * g->each);
    cpu_block b = {.c0 = i * COLS};
    b.c1 = b.c0 + COLS < g->cols ? b.c0 + COLS : g->cols;
    for (b.r0 = 0; b.r0 < g->n; b.r0 += ROWS) {
        b.r1 = b.r0 + ROWS < g->n ? b.r0 + ROWS : g->n;
        block(g, p, &b);
        if (g->m->after != NULL)
            g->m->after(g->m->arg, &b, thread);
    }
}

static void widen(void *arg, int64_t r0, int64_t r1, int thread)
{
    const product *g = arg;
    (void)thread;
    for (int64_t r = r0; r < r1; r++)
        g->v->to_f32(g->m->x->dtype, cpu_at(g->m->x, r, 0), g->a + r * g->depth, g->depth);
}

int cpu_product_plain(kern_dev *d, const cpu_mul *m)
{
    product g = {
        .v = cpu_of(d)->vec, .m = m, .n = m->x->rows, .cols = m->b->l.cols, .depth = m->b->l.depth};
    void *a, *mem;
    int rc = cpu_scratch(d, CPU_SLOT_X, (size_t)(g.n * g.depth) * 4, &a);
    if (rc == 0)
        rc = cpu_thread_mem(d, sizeof(panels), &mem, &g.each);
    if (rc != 0)
        return rc;
    g.a = a;
    g.mem = mem;
    cpu_rows(d, g.n, g.depth / 4, widen, &g);
    cpu_run(d, g.n * g.cols * g.depth / 64, (g.cols + COLS - 1) / COLS, columns, &g);
    return 0;
}

/* ---- gradient of a weight -------------------------------------------------------------------- */

enum { OUTS = 8 };

typedef struct dw_job {
    const cpu_vec *v;
    const kern_tensor *dy, *x, *dw;
    float *xf, *df; /* x and dy in f32 */
} dw_job;

static void dw_widen(void *arg, int64_t r0, int64_t r1, int thread)
{
    const dw_job *j = arg;
    (void)thread;
    for (int64_t r = r0; r < r1; r++) {
        j->v->to_f32(j->x->dtype, cpu_at(j->x, r, 0), j->xf + r * j->x->cols, j->x->cols);
        j->v->to_f32(j->dy->dtype, cpu_at(j->dy, r, 0), j->df + r * j->dy->cols, j->dy->cols);
    }
}

static void dw_outs(void *arg, int64_t i, int thread)
{
    const dw_job *j = arg;
    int64_t o = i * OUTS, out = j->dw->rows;
    (void)thread;
    vec_mm mm = {.m = out - o < OUTS ? out - o : OUTS,
                 .n = j->x->cols,
                 .steps = j->x->rows,
                 .a = j->df + o,
                 .ars = 1,
                 .aks = out,
                 .b = j->xf,
                 .ldb = j->x->cols,
                 .c = cpu_at(j->dw, o, 0),
                 .ldc = j->dw->ld,
                 .alpha = 1.0F,
                 .add = true};
    j->v->mm(&mm);
}

int cpu_dw_plain(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw)
{
    int64_t n = dy->rows, out = dw->rows, in = dw->cols;
    void *mem;
    int rc = cpu_scratch(d, CPU_SLOT_X, (size_t)(n * (in + out)) * 4, &mem);
    if (rc != 0)
        return rc;
    dw_job j = {.v = cpu_of(d)->vec, .dy = dy, .x = x, .dw = dw, .xf = mem};
    j.df = j.xf + n * in;
    cpu_rows(d, n, (in + out) / 4, dw_widen, &j);
    cpu_run(d, n * in * out / 64, (out + OUTS - 1) / OUTS, dw_outs, &j);
    return 0;
}
