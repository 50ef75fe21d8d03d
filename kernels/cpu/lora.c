/* Low-rank terms: all in f32, whatever the activations are. */
#include <string.h>

#include "kernels/cpu/weight.h"

/* ---- dropout
 * -------------------------------------------------------------------------------------------------
 */

/* Philox4x32-10 (Salmon et al., SC 2011): four words for a counter. */
static void philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53U * c0, p1 = (uint64_t)0xCD9E8D57U * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* x[c] *= mask of row r, for all columns. */
static void drop_row(const kern_linear *f, const kern_lora *l, int64_t r, float *x, int64_t in)
{
    uint64_t at = (f->offset + (uint64_t)r) * (uint64_t)in;
    float keep = 1.0F / (1.0F - l->dropout);
    uint32_t w[4];
    for (int64_t c = 0; c < in; c++, at++) {
        if (c == 0 || at % 4 == 0)
            philox(w, f->seed, l->stream, at / 4);
        x[c] *= (float)(w[at % 4] >> 8) * 0x1p-24F >= l->dropout ? keep : 0.0F;
    }
}

static bool drops(const kern_linear *f, const kern_lora *l)
{
    return f->training && l->dropout > 0;
}

/* ---- forward
 * -------------------------------------------------------------------------------------------------
 */

typedef struct term {
    const kern_lora *l;
    int64_t r, r0;     /* rank, first column in xa */
    int64_t out, out0; /* outputs, first column in y */
} term;

/* The terms of a group; returns how many. */
static int terms_of(const kern_linear *f, term t[KERN_MAX_PARTS])
{
    int n = 0;
    int64_t r0 = 0;
    for (int p = 0; p < f->w->n_parts; p++) {
        const kern_lora *l = f->lora[p];
        if (l == NULL)
            continue;
        t[n++] = (term){l, l->A.rows, r0, f->w->at[p + 1] - f->w->at[p], f->w->at[p]};
        r0 += l->A.rows;
    }
    return n;
}

enum { ROWS = 32 };

static void transpose(const kern_tensor *m, float *t)
{
    for (int64_t r = 0; r < m->rows; r++) {
        const float *s = cpu_at(m, r, 0);
        for (int64_t c = 0; c < m->cols; c++)
            t[c * m->rows + r] = s[c];
    }
}

/* x of rows [r0, r0 + n) in f32, dropped as the term says. */
static void load_x(kern_dev *d, const kern_linear *f, const term *t, int64_t r0, int64_t n,
                   float *x)
{
    int64_t in = f->w->in;
    for (int64_t i = 0; i < n; i++) {
        cpu_of(d)->vec->to_f32(f->x.dtype, cpu_at(&f->x, r0 + i, 0), x + i * in, in);
        if (drops(f, t->l))
            drop_row(f, t->l, r0 + i, x + i * in, in);
    }
}

/* One block of rows of one term: xa, then y. */
static void forward_block(kern_dev *d, const kern_linear *f, const term *t, const float *at,
                          const float *bt, int64_t r0, float *tmp)
{
    const cpu_vec *v = cpu_of(d)->vec;
    int64_t n = f->x.rows - r0 < ROWS ? f->x.rows - r0 : ROWS, in = f->w->in;
    load_x(d, f, t, r0, n, tmp);
    float *xa = cpu_at(&f->xa, r0, t->r0);
    vec_mm a = {.m = n,
                .n = t->r,
                .steps = in,
                .a = tmp,
                .ars = in,
                .aks = 1,
                .b = at,
                .ldb = t->r,
                .c = xa,
                .ldc = f->xa.ld,
                .alpha = 1.0F};
    v->mm(&a);
    for (int64_t i = 0; i < n; i++)
        v->to_f32(f->y.dtype, cpu_at(&f->y, r0 + i, t->out0), tmp + i * t->out, t->out);
    vec_mm b = {.m = n,
                .n = t->out,
                .steps = t->r,
                .a = xa,
                .ars = f->xa.ld,
                .aks = 1,
                .b = bt,
                .ldb = t->out,
                .c = tmp,
                .ldc = t->out,
                .alpha = t->l->scale,
                .add = true};
    v->mm(&b);
    for (int64_t i = 0; i < n; i++)
        v->from_f32(f->y.dtype, tmp + i * t->out, cpu_at(&f->y, r0 + i, t->out0), t->out);
}

int cpu_lora_forward(kern_dev *d, const kern_linear *f)
{
    term ts[KERN_MAX_PARTS];
    int n = terms_of(f, ts);
    int nt = d->threads;
    int64_t in = f->w->in;
    for (int k = 0; k < n; k++) {
        const term *t = &ts[k];
        int64_t wide = in > t->out ? in : t->out;
        void *pa, *pt;
        int rc = cpu_scratch(d, 0, (size_t)(t->r * (in + t->out)) * 4, &pa);
        if (rc == 0)
            rc = cpu_scratch(d, 1, (size_t)(nt * ROWS * wide) * 4, &pt);
        if (rc != 0)
            return rc;
        float *at = pa, *bt = at + t->r * in, *tmp = pt;
        transpose(&t->l->A, at);
        transpose(&t->l->B, bt);
#pragma omp parallel for num_threads(nt) schedule(static)
        for (int64_t r = 0; r < f->x.rows; r += ROWS)
            forward_block(d, f, t, at, bt, r, tmp + cpu_thread() * ROWS * wide);
    }
    return 0;
}

/* ---- backward
 * ------------------------------------------------------------------------------------------------
 */

typedef struct grad_mem {
    float *x, *dy, *dxa; /* [n, in] dropped, [n, out], [n, r] with the scale in */
} grad_mem;

static int grad_take(kern_dev *d, const kern_linear_grad *a, const term *t, grad_mem *m)
{
    void *x, *dy, *dxa;
    size_t n = (size_t)a->f.x.rows * 4;
    int rc = cpu_scratch(d, 0, n * (size_t)a->f.w->in, &x);
    if (rc == 0)
        rc = cpu_scratch(d, 1, n * (size_t)t->out, &dy);
    if (rc == 0)
        rc = cpu_scratch(d, 2, n * (size_t)t->r, &dxa);
    if (rc == 0)
        *m = (grad_mem){x, dy, dxa};
    return rc;
}

/* dxa = scale dy B and, when wanted, dx += mask (dxa A), for a block of rows. */
static void dx_block(kern_dev *d, const kern_linear_grad *a, const term *t, const grad_mem *m,
                     int64_t r0)
{
    const cpu_vec *v = cpu_of(d)->vec;
    const kern_linear *f = &a->f;
    int64_t in = f->w->in, n = f->x.rows - r0 < ROWS ? f->x.rows - r0 : ROWS;
    for (int64_t i = 0; i < n; i++)
        v->to_f32(a->dy.dtype, cpu_at(&a->dy, r0 + i, t->out0), m->dy + (r0 + i) * t->out, t->out);
    float *dxa = m->dxa + r0 * t->r, *x = m->x + r0 * in;
    vec_mm s = {.m = n,
                .n = t->r,
                .steps = t->out,
                .a = m->dy + r0 * t->out,
                .ars = t->out,
                .aks = 1,
                .b = t->l->B.data,
                .ldb = t->l->B.ld,
                .c = dxa,
                .ldc = t->r,
                .alpha = t->l->scale};
    v->mm(&s);
    if (a->dx.data != NULL) {
        vec_mm e = {.m = n,
                    .n = in,
                    .steps = t->r,
                    .a = dxa,
                    .ars = t->r,
                    .aks = 1,
                    .b = t->l->A.data,
                    .ldb = t->l->A.ld,
                    .c = x,
                    .ldc = in,
                    .alpha = 1.0F};
        v->mm(&e);
        for (int64_t i = 0; i < n; i++) {
            if (drops(f, t->l))
                drop_row(f, t->l, r0 + i, x + i * in, in);
            void *dx = cpu_at(&a->dx, r0 + i, 0);
            v->add_to(a->dx.dtype, x + i * in, dx, in);
        }
    }
    load_x(d, f, t, r0, n, x);
}

static void dab(kern_dev *d, const kern_linear_grad *a, const term *t, const grad_mem *m)
{
    const cpu_vec *v = cpu_of(d)->vec;
    int64_t n = a->f.x.rows, in = a->f.w->in;
    const kern_tensor *da = &t->l->dA, *db = &t->l->dB;
    enum { STEP = 48 };
    int nt = cpu_threads(d, n * in);
    if (da->data != NULL) {
#pragma omp parallel for num_threads(nt) schedule(static)
        for (int64_t c = 0; c < in; c += STEP) {
            vec_mm s = {.m = t->r,
                        .n = in - c < STEP ? in - c : STEP,
                        .steps = n,
                        .a = m->dxa,
                        .ars = 1,
                        .aks = t->r,
                        .b = m->x + c,
                        .ldb = in,
                        .c = cpu_at(da, 0, c),
                        .ldc = da->ld,
                        .alpha = 1.0F,
                        .add = true};
            v->mm(&s);
        }
    }
    if (db->data != NULL) {
#pragma omp parallel for num_threads(nt) schedule(static)
        for (int64_t o = 0; o < t->out; o += STEP) {
            vec_mm s = {.m = t->out - o < STEP ? t->out - o : STEP,
                        .n = t->r,
                        .steps = n,
                        .a = m->dy + o,
                        .ars = 1,
                        .aks = t->out,
                        .b = cpu_at(&a->f.xa, 0, t->r0),
                        .ldb = a->f.xa.ld,
                        .c = cpu_at(db, o, 0),
                        .ldc = db->ld,
                        .alpha = t->l->scale,
                        .add = true};
            v->mm(&s);
        }
    }
}

int cpu_lora_grad(kern_dev *d, const kern_linear_grad *a)
{
    term ts[KERN_MAX_PARTS];
    int n = terms_of(&a->f, ts);
    int nt = d->threads;
    for (int k = 0; k < n; k++) {
        grad_mem m;
        int rc = grad_take(d, a, &ts[k], &m);
        if (rc != 0)
            return rc;
#pragma omp parallel for num_threads(nt) schedule(static)
        for (int64_t r = 0; r < a->f.x.rows; r += ROWS)
            dx_block(d, a, &ts[k], &m, r);
        dab(d, a, &ts[k], &m);
    }
    return 0;
}
