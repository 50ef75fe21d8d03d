/* Products of a few rows, as in decoding: every weight is read once, front to back, by all threads
 * together. */
#include <string.h>

#include "kernels/cpu/compact.h"

/* Columns of a piece: a whole panel, as half of one would be read with holes, at half the speed. */
enum { COLS = VEC_MV_COLS, UNIT = 16 };

typedef struct job {
    const cpu_vec *v;
    const cpu_mul *m;
    const char *x; /* rows of the matrix's dtype, padded (panels), or of F32 (rows) */
    int64_t ldx;
} job;

/* y for columns [c0, c0 + n) of row i. */
static void finish(const job *j, int64_t i, int64_t c0, int64_t n, float *c)
{
    const kern_tensor *y = j->m->y;
    void *yi = cpu_at(y, i, c0);
    if (j->m->bias != NULL)
        j->v->axpy(1.0F, j->m->bias + c0, c, n);
    if (j->m->add) {
        float old[VEC_MV_COLS];
        j->v->to_f32(y->dtype, yi, old, n);
        j->v->axpy(1.0F, old, c, n);
    }
    j->v->from_f32(y->dtype, c, yi, n);
}

/* All columns of panel p, for all rows of x. */
static void panel(const job *j, int64_t p)
{
    const cpu_matrix *b = j->m->b;
    size_t e = kern_dtype_size(b->dtype);
    cpu_compact_panel compact = {0};
    if (b->compact != NULL)
        compact = cpu_compact_at(b, p);
    float c[VEC_MV_ROWS * VEC_MV_COLS];
    int64_t first = p * b->l.width,
            cols = b->l.cols - first < b->l.width ? b->l.cols - first : b->l.width;
    for (int64_t i = 0; i < j->m->x->rows; i += VEC_MV_ROWS) {
        int64_t left = j->m->x->rows - i;
        vec_mv a = {.rows = left < VEC_MV_ROWS ? (int)left : VEC_MV_ROWS,
                    .steps = b->l.depth_pad / b->l.group,
                    .ldx = j->ldx,
                    .x = j->x + (size_t)(i * j->ldx) * e,
                    .panel = (const char *)b->data + (size_t)(first * b->l.depth_pad) * e,
                    .width = b->l.width,
                    .cols = b->l.width,
                    .y = c};
        if (b->compact != NULL)
            cpu_compact_mv(&a, &compact);
        else
            b->dtype == KERN_F32 ? j->v->mv_f32(&a) : j->v->mv_bf16(&a);
        for (int64_t r = 0; r < a.rows; r++)
            finish(j, i + r, first, cols, c + r * VEC_MV_COLS);
    }
}

/* Outputs [c0, c0 + n), n <= UNIT, of a matrix in rows. */
static void row_unit(const job *j, int64_t c0, int64_t n)
{
    const cpu_matrix *b = j->m->b;
    int64_t depth = b->l.depth;
    for (int64_t i = 0; i < j->m->x->rows; i += VEC_MV_ROWS) {
        int64_t left = j->m->x->rows - i;
        const float *x = (const float *)(const void *)j->x + i * j->ldx;
        int rows = left < VEC_MV_ROWS ? (int)left : VEC_MV_ROWS;
        float c[VEC_MV_ROWS * UNIT], y[VEC_MV_ROWS];
        for (int64_t k = 0; k < n; k++) {
            size_t at = (size_t)((c0 + k) * depth) * kern_dtype_size(b->dtype);
            j->v->dots(b->dtype, (const char *)b->data + at, x, j->ldx, rows, depth, y);
            for (int64_t r = 0; r < rows; r++)
                c[r * UNIT + k] = y[r];
        }
        for (int64_t r = 0; r < rows; r++)
            finish(j, i + r, c0, n, c + r * UNIT);
    }
}

static void some_columns(void *arg, int64_t i, int thread)
{
    const job *j = arg;
    const cpu_layout *l = &j->m->b->l;
    int64_t cols = l->width > 0 ? l->width : COLS;
    cpu_block b = {0, j->m->x->rows, i * cols, (i + 1) * cols};
    b.c1 = b.c1 < l->cols ? b.c1 : l->cols;
    if (l->width > 0)
        panel(j, i);
    for (int64_t c = b.c0; c < b.c1 && l->width == 0; c += UNIT)
        row_unit(j, c, b.c1 - c < UNIT ? b.c1 - c : UNIT);
    if (j->m->after != NULL)
        j->m->after(j->m->arg, &b, thread);
}

int cpu_product_small(kern_dev *d, const cpu_mul *m)
{
    const cpu_layout *l = &m->b->l;
    const cpu_vec *v = cpu_of(d)->vec;
    bool wide = l->width == 0;
    int64_t ldx = wide ? l->depth : l->depth_pad, rows = m->x->rows;
    size_t e = wide ? 4 : kern_dtype_size(m->b->dtype);
    void *x;
    int rc = cpu_scratch(d, CPU_SLOT_X, (size_t)(rows * ldx) * e, &x);
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
    job j = {v, m, x, ldx};
    int64_t cols = wide ? COLS : l->width;
    cpu_run(d, l->cols * l->depth / 16, (l->cols + cols - 1) / cols, some_columns, &j);
    return 0;
}
