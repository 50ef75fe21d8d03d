/* Attention inside the segments of a packed batch, backward: probabilities are computed again from
 * lse. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/attn.h"

/* One segment and key head: f32 copies of its rows and the sums of dk and dv. */
typedef struct group {
    kern_dev *d;
    const kern_attn_grad *a;
    int64_t c0, n;
    int kh;
    float *k, *v, *dk, *dv; /* [n, d] */
    float *q, *dout, *dq;   /* [d] */
} group;

static void group_row(const group *g, int64_t i, int h)
{
    const kern_attn *f = &g->a->f;
    const cpu_vec *v = cpu_of(g->d)->vec;
    int64_t r = g->c0 + i, c = (int64_t)h * f->d, dim = f->d;
    int64_t j0 = f->window > 0 && i >= f->window ? i - f->window + 1 : 0;
    float lse = *(const float *)cpu_at(&f->lse, r, h);
    v->to_f32(f->out.dtype, cpu_at(&f->out, r, c), g->dq, dim);
    v->to_f32(g->a->dout.dtype, cpu_at(&g->a->dout, r, c), g->dout, dim);
    v->to_f32(f->q.dtype, cpu_at(&f->q, r, c), g->q, dim);
    float delta = v->dot(g->dq, g->dout, dim);
    memset(g->dq, 0, (size_t)dim * 4);
    for (int64_t j = j0; j <= i; j++) {
        const float *k = g->k + j * dim;
        float p = expf(v->dot(g->q, k, dim) * f->scale - lse);
        float ds = p * (v->dot(g->dout, g->v + j * dim, dim) - delta) * f->scale;
        v->axpy(ds, k, g->dq, dim);
        v->axpy(ds, g->q, g->dk + j * dim, dim);
        v->axpy(p, g->dout, g->dv + j * dim, dim);
    }
    v->from_f32(g->a->dq.dtype, g->dq, cpu_at(&g->a->dq, r, c), dim);
}

static void group_run(group *g)
{
    const kern_attn *f = &g->a->f;
    const cpu_vec *v = cpu_of(g->d)->vec;
    int64_t dim = f->d, c = (int64_t)g->kh * dim;
    int per = f->n_q / f->n_kv;
    for (int64_t i = 0; i < g->n; i++) {
        v->to_f32(f->k.dtype, cpu_at(&f->k, g->c0 + i, c), g->k + i * dim, dim);
        v->to_f32(f->v.dtype, cpu_at(&f->v, g->c0 + i, c), g->v + i * dim, dim);
    }
    memset(g->dk, 0, (size_t)(g->n * dim) * 4);
    memset(g->dv, 0, (size_t)(g->n * dim) * 4);
    for (int h = g->kh * per; h < (g->kh + 1) * per; h++)
        for (int64_t i = 0; i < g->n; i++)
            group_row(g, i, h);
    for (int64_t i = 0; i < g->n; i++) {
        v->from_f32(g->a->dk.dtype, g->dk + i * dim, cpu_at(&g->a->dk, g->c0 + i, c), dim);
        v->from_f32(g->a->dv.dtype, g->dv + i * dim, cpu_at(&g->a->dv, g->c0 + i, c), dim);
    }
}

static int check(kern_dev *d, const kern_attn_grad *a)
{
    const kern_attn *f = &a->f;
    kern_dtype t = f->q.dtype;
    int64_t n = f->q.rows;
    int rc = cpu_attn_check(d, f);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: lse", &f->lse, KERN_F32, n, f->n_q);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: dout", &a->dout, t, n, f->q.cols);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: dq", &a->dq, t, n, f->q.cols);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: dk", &a->dk, t, n, f->k.cols);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: dv", &a->dv, t, n, f->k.cols);
    return rc;
}

int cpu_attn_grad(kern_dev *d, const kern_attn_grad *a)
{
    void *mem;
    int64_t dim = a->f.d, len = a->f.max_len, need = 4 * len * dim + 3 * dim;
    int rc = check(d, a);
    if (rc == 0)
        rc = cpu_scratch(d, 0, (size_t)(d->threads * need) * 4, &mem);
    if (rc != 0)
        return rc;
    float *base = mem;
#pragma omp parallel for num_threads(d->threads) schedule(dynamic) collapse(2)
    for (int s = 0; s < a->f.n_seg; s++) {
        for (int kh = 0; kh < a->f.n_kv; kh++) {
            float *m = base + cpu_thread() * need;
            group g = {.d = d,
                       .a = a,
                       .c0 = a->f.cu[s],
                       .n = a->f.cu[s + 1] - a->f.cu[s],
                       .kh = kh,
                       .k = m,
                       .v = m + len * dim,
                       .dk = m + 2 * len * dim,
                       .dv = m + 3 * len * dim,
                       .q = m + 4 * len * dim,
                       .dout = m + 4 * len * dim + dim,
                       .dq = m + 4 * len * dim + 2 * dim};
            group_run(&g);
        }
    }
    return 0;
}
