/* Products of a few rows, as in decoding: every weight is read once, front to back, by all threads
 * together. */
#include <string.h>

#include "kernels/cpu/weight.h"

/* Columns are dealt out in units of 16, so that two threads get nearly the same. */
enum { UNIT = 16 };

typedef struct job {
    kern_dev *d;
    const cpu_mul *m;
    const char *x; /* rows of the matrix's dtype, padded (panels), or of F32 (rows) */
    int64_t ldx;
} job;

/* y for columns [c0, c0 + n) of row i. */
static void finish(const job *j, int64_t i, int64_t c0, int64_t n, float *c)
{
    const cpu_vec *v = cpu_of(j->d)->vec;
    const kern_tensor *y = j->m->y;
    void *yi = cpu_at(y, i, c0);
    if (j->m->bias != NULL)
        v->axpy(1.0F, j->m->bias + c0, c, n);
    if (j->m->add) {
        float old[VEC_MV_COLS];
        v->to_f32(y->dtype, yi, old, n);
        v->axpy(1.0F, old, c, n);
    }
    v->from_f32(y->dtype, c, yi, n);
}

/* Columns [c0, c0 + n) of panel p, for all rows of x. */
static void panel_part(const job *j, int64_t p, int64_t c0, int64_t n)
{
    const cpu_vec *v = cpu_of(j->d)->vec;
    const cpu_matrix *b = j->m->b;
    size_t e = kern_dtype_size(b->dtype);
    float c[VEC_MV_ROWS * VEC_MV_COLS];
    int64_t first = p * b->l.width + c0;
    for (int64_t i = 0; i < j->m->x->rows; i += VEC_MV_ROWS) {
        int64_t left = j->m->x->rows - i;
        vec_mv a = {.rows = left < VEC_MV_ROWS ? (int)left : VEC_MV_ROWS,
                    .steps = b->l.depth_pad / b->l.group,
                    .ldx = j->ldx,
                    .x = j->x + (size_t)(i * j->ldx) * e,
                    .panel = (const char *)b->data +
                             (size_t)(p * b->l.width * b->l.depth_pad + c0 * b->l.group) * e,
                    .width = b->l.width,
                    .cols = (int)n,
                    .y = c};
        b->dtype == KERN_F32 ? v->mv_f32(&a) : v->mv_bf16(&a);
        int64_t cols = b->l.cols - first < n ? b->l.cols - first : n;
        for (int64_t r = 0; r < a.rows; r++)
            finish(j, i + r, first, cols, c + r * VEC_MV_COLS);
    }
}

/* Units [u0, u1) of columns; panels are whole numbers of units. */
static void panels(const job *j, int64_t u0, int64_t u1)
{
    int64_t per = j->m->b->l.width / UNIT;
    while (u0 < u1) {
        int64_t p = u0 / per, end = (p + 1) * per < u1 ? (p + 1) * per : u1;
        panel_part(j, p, (u0 - p * per) * UNIT, (end - u0) * UNIT);
        u0 = end;
    }
}

/* Outputs [c0, c0 + n), n <= UNIT, of a matrix in rows. */
static void row_unit(const job *j, int64_t c0, int64_t n)
{
    const cpu_vec *v = cpu_of(j->d)->vec;
    const cpu_matrix *b = j->m->b;
    int64_t depth = b->l.depth;
    for (int64_t i = 0; i < j->m->x->rows; i += VEC_MV_ROWS) {
        int64_t left = j->m->x->rows - i;
        int rows = left < VEC_MV_ROWS ? (int)left : VEC_MV_ROWS;
        float c[VEC_MV_ROWS * UNIT], y[VEC_MV_ROWS];
        for (int64_t k = 0; k < n; k++) {
            const char *w =
                (const char *)b->data + (size_t)((c0 + k) * depth) * kern_dtype_size(b->dtype);
            v->dots(b->dtype, w, (const float *)(const void *)j->x + i * j->ldx, j->ldx, rows,
                    depth, y);
            for (int r = 0; r < rows; r++)
                c[r * UNIT + k] = y[r];
        }
        for (int r = 0; r < rows; r++)
            finish(j, i + r, c0, n, c + r * UNIT);
    }
}

static void some_rows(const job *j, int64_t u0, int64_t u1)
{
    int64_t cols = j->m->b->l.cols;
    for (int64_t c = u0 * UNIT; c < u1 * UNIT && c < cols; c += UNIT)
        row_unit(j, c, cols - c < UNIT ? cols - c : UNIT);
}

int cpu_product_small(kern_dev *d, const cpu_mul *m)
{
    const cpu_layout *l = &m->b->l;
    const cpu_vec *v = cpu_of(d)->vec;
    bool wide = l->width == 0;
    int64_t ldx = wide ? l->depth : l->depth_pad, rows = m->x->rows;
    size_t e = wide ? 4 : kern_dtype_size(m->b->dtype);
    void *x;
    int rc = cpu_scratch(d, 0, (size_t)(rows * ldx) * e, &x);
    if (rc != 0)
        return rc;
    for (int64_t i = 0; i < rows; i++) {
        char *to = (char *)x + (size_t)(i * ldx) * e;
        if (wide) {
            v->to_f32(m->x->dtype, cpu_at(m->x, i, 0), (float *)(void *)to, ldx);
            continue;
        }
        memcpy(to, cpu_at(m->x, i, 0), (size_t)l->depth * e);
        memset(to + (size_t)l->depth * e, 0, (size_t)(ldx - l->depth) * e);
    }
    job j = {d, m, x, ldx};
    int64_t units = (l->cols + UNIT - 1) / UNIT;
    int nt = cpu_threads(d, l->cols * l->depth / 8);
#pragma omp parallel for num_threads(nt) schedule(static)
    for (int t = 0; t < nt; t++) {
        int64_t u0 = units * t / nt, u1 = units * (t + 1) / nt;
        wide ? some_rows(&j, u0, u1) : panels(&j, u0, u1);
    }
    return 0;
}
