/* Per-head norm and rotary embedding on q and k, and their way into the paged cache. */
#include <string.h>

#include "kernels/cpu/cpu.h"

static int check(kern_dev *d, const kern_qk *a)
{
    int64_t n = a->q.rows;
    kern_dtype t = a->q.dtype;
    if (a->d < 2 || a->d % 2 != 0 || a->d > VEC_MAX_HEAD || a->n_q < 1 || a->n_kv < 1)
        return cpu_fail(d, KERN_EINVAL, "qk: %d and %d heads of %d", a->n_q, a->n_kv, a->d);
    int rc = cpu_activation(d, "qk: q", &a->q);
    if (rc == 0)
        rc = cpu_shape(d, "qk: q", &a->q, n, (int64_t)a->n_q * a->d);
    if (rc == 0)
        rc = cpu_shape_of(d, "qk: k", &a->k, t, n, (int64_t)a->n_kv * a->d);
    if (rc == 0 && a->q_norm.data != NULL)
        rc = cpu_shape_of(d, "qk: q_norm", &a->q_norm, KERN_F32, 1, a->d);
    if (rc == 0 && a->k_norm.data != NULL)
        rc = cpu_shape_of(d, "qk: k_norm", &a->k_norm, KERN_F32, 1, a->d);
    if (rc == 0)
        rc = cpu_shape_of(d, "qk: cos", &a->cos, KERN_F32, a->cos.rows, a->d / 2);
    if (rc == 0)
        rc = cpu_shape_of(d, "qk: sin", &a->sin, KERN_F32, a->cos.rows, a->d / 2);
    for (int64_t i = 0; i < n && rc == 0; i++)
        if (a->pos[i] < 0 || a->pos[i] >= a->cos.rows)
            rc = cpu_fail(d, KERN_EINVAL, "qk: position %d of row %lld, the table has %lld",
                          a->pos[i], (long long)i, (long long)a->cos.rows);
    return rc;
}

static int check_forward(kern_dev *d, const kern_qk *a)
{
    int64_t n = a->q.rows;
    kern_dtype t = a->q.dtype;
    int rc = check(d, a);
    if (rc == 0)
        rc = cpu_shape_of(d, "qk: q_out", &a->q_out, t, n, a->q.cols);
    if (rc == 0)
        rc = cpu_shape_of(d, "qk: k_out", &a->k_out, t, n, a->k.cols);
    if (rc != 0 || a->kv == NULL)
        return rc;
    rc = cpu_shape_of(d, "qk: v", &a->v, t, n, a->k.cols);
    if (rc == 0 && (a->kv->n_kv != a->n_kv || a->kv->d != a->d))
        rc = cpu_fail(d, KERN_EINVAL, "qk: the cache has %d heads of %d, k has %d of %d",
                      a->kv->n_kv, a->kv->d, a->n_kv, a->d);
    if (rc == 0 && (a->layer < 0 || a->layer >= a->kv->n_layers))
        rc = cpu_fail(d, KERN_EINVAL, "qk: layer %d, the cache has %d", a->layer, a->kv->n_layers);
    int64_t slots = a->kv->n_blocks * a->kv->block_tokens;
    for (int64_t i = 0; i < n && rc == 0; i++)
        if (a->slot[i] < 0 || a->slot[i] >= slots)
            rc = cpu_fail(d, KERN_EINVAL, "qk: slot %d of row %lld, the cache has %lld", a->slot[i],
                          (long long)i, (long long)slots);
    return rc;
}

static vec_head head_of(const kern_qk *a, const kern_tensor *x, const kern_tensor *norm, int64_t r,
                        int h)
{
    return (vec_head){.d = a->d,
                      .t = x->dtype,
                      .x = cpu_at(x, r, (int64_t)h * a->d),
                      .weight = norm->data,
                      .eps = a->eps,
                      .cos = cpu_at(&a->cos, a->pos[r], 0),
                      .sin = cpu_at(&a->sin, a->pos[r], 0)};
}

static void forward_heads(const cpu_vec *v, const kern_qk *a, int64_t r, const kern_tensor *src,
                          const kern_tensor *dst, const kern_tensor *norm, int heads)
{
    for (int h = 0; h < heads; h++) {
        vec_head head = head_of(a, src, norm, r, h);
        head.y = cpu_at(dst, r, (int64_t)h * a->d);
        v->head(&head);
    }
}

static void cache_row(const cpu_vec *v, const kern_qk *a, int64_t r)
{
    const kern_tensor *src[2] = {&a->k_out, &a->v};
    size_t bytes = (size_t)a->d * kern_dtype_size(a->kv->dtype);
    float x[VEC_MAX_HEAD];
    for (int which = 0; which < 2; which++) {
        for (int h = 0; h < a->n_kv; h++) {
            const void *from = cpu_at(src[which], r, (int64_t)h * a->d);
            void *to = cpu_kv_at(a->kv, a->layer, which, a->slot[r], h);
            if (src[which]->dtype == a->kv->dtype) {
                memcpy(to, from, bytes);
                continue;
            }
            v->to_f32(src[which]->dtype, from, x, a->d);
            v->from_f32(a->kv->dtype, x, to, a->d);
        }
    }
}

typedef struct forward_job {
    const cpu_vec *v;
    const kern_qk *a;
} forward_job;

static void forward_rows(void *arg, int64_t r0, int64_t r1, int thread)
{
    const forward_job *j = arg;
    const kern_qk *a = j->a;
    (void)thread;
    for (int64_t r = r0; r < r1; r++) {
        forward_heads(j->v, a, r, &a->q, &a->q_out, &a->q_norm, a->n_q);
        forward_heads(j->v, a, r, &a->k, &a->k_out, &a->k_norm, a->n_kv);
        if (a->kv != NULL)
            cache_row(j->v, a, r);
    }
}

int cpu_qk(kern_dev *d, const kern_qk *a)
{
    forward_job j = {cpu_of(d)->vec, a};
    int rc = check_forward(d, a);
    if (rc == 0)
        cpu_rows(d, a->q.rows, (a->q.cols + a->k.cols) / 2, forward_rows, &j);
    return rc;
}

/* ---- backward -------------------------------------------------------------------------------- */

static void grad_heads(const cpu_vec *v, const kern_qk *a, int64_t r, const kern_tensor *x,
                       const kern_tensor *dx, const kern_tensor *norm, float *dw, int heads)
{
    for (int h = 0; h < heads; h++) {
        vec_head head = head_of(a, x, norm, r, h);
        head.y = cpu_at(dx, r, (int64_t)h * a->d);
        head.dweight = dw;
        v->head_grad(&head);
    }
}

static int check_grad(kern_dev *d, const kern_qk_grad *a)
{
    const kern_qk *f = &a->f;
    int rc = check(d, f);
    if (rc == 0)
        rc = cpu_shape_of(d, "qk_grad: dq", &a->dq, f->q.dtype, f->q.rows, f->q.cols);
    if (rc == 0)
        rc = cpu_shape_of(d, "qk_grad: dk", &a->dk, f->q.dtype, f->q.rows, f->k.cols);
    if (rc == 0 && a->dq_norm.data != NULL)
        rc = cpu_shape_of(d, "qk_grad: dq_norm", &a->dq_norm, KERN_F32, 1, f->d);
    if (rc == 0 && a->dk_norm.data != NULL)
        rc = cpu_shape_of(d, "qk_grad: dk_norm", &a->dk_norm, KERN_F32, 1, f->d);
    return rc;
}

/* Sums for dq_norm and dk_norm are kept for each share of the rows, and added in order. */
enum { SHARES = 16 };

typedef struct grad_job {
    const cpu_vec *v;
    const kern_qk_grad *a;
    float *sums; /* [SHARES, 2, d] */
} grad_job;

static void grad_share(void *arg, int64_t share, int thread)
{
    const grad_job *j = arg;
    const kern_qk *f = &j->a->f;
    int64_t n = f->q.rows;
    float *mine = j->sums + share * 2 * f->d;
    (void)thread;
    for (int64_t r = n * share / SHARES; r < n * (share + 1) / SHARES; r++) {
        grad_heads(j->v, f, r, &f->q, &j->a->dq, &f->q_norm, mine, f->n_q);
        grad_heads(j->v, f, r, &f->k, &j->a->dk, &f->k_norm, mine + f->d, f->n_kv);
    }
}

int cpu_qk_grad(kern_dev *d, const kern_qk_grad *a)
{
    const kern_qk *f = &a->f;
    void *mem;
    int rc = check_grad(d, a);
    size_t bytes = (size_t)(SHARES * 2 * f->d) * 4;
    if (rc == 0)
        rc = cpu_scratch(d, CPU_SLOT_A, bytes, &mem);
    if (rc != 0)
        return rc;
    memset(mem, 0, bytes);
    grad_job j = {cpu_of(d)->vec, a, mem};
    cpu_run(d, f->q.rows * (f->q.cols + f->k.cols), SHARES, grad_share, &j);
    for (int s = 0; s < SHARES; s++) {
        float *mine = j.sums + (int64_t)s * 2 * f->d;
        if (a->dq_norm.data != NULL)
            j.v->axpy(1.0F, mine, a->dq_norm.data, f->d);
        if (a->dk_norm.data != NULL)
            j.v->axpy(1.0F, mine + f->d, a->dk_norm.data, f->d);
    }
    return 0;
}
