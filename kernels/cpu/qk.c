/* Per-head norm and rotary embedding on q and k, and their way into the paged cache. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { MAX_D = 1024 };

static int check(kern_dev *d, const kern_qk *a)
{
    int64_t n = a->q.rows;
    kern_dtype t = a->q.dtype;
    if (a->d < 2 || a->d % 2 != 0 || a->d > MAX_D || a->n_q < 1 || a->n_kv < 1)
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

/* What the norm of one head needs in both directions. */
static float head_rstd(const float *x, int d, float eps)
{
    float s = 0;
    for (int i = 0; i < d; i++)
        s += x[i] * x[i];
    return 1.0F / sqrtf(s / (float)d + eps);
}

static void round_row(const cpu_vec *v, kern_dtype t, float *x, int d)
{
    uint16_t tmp[MAX_D];
    if (t == KERN_F32)
        return;
    v->from_f32(t, x, tmp, d);
    v->to_f32(t, tmp, x, d);
}

static void norm_head(const cpu_vec *v, kern_dtype t, float *x, const float *w, int d, float eps)
{
    float rstd = head_rstd(x, d, eps);
    for (int i = 0; i < d; i++)
        x[i] *= rstd;
    round_row(v, t, x, d);
    float wr[MAX_D];
    memcpy(wr, w, (size_t)d * 4);
    round_row(v, t, wr, d);
    for (int i = 0; i < d; i++)
        x[i] *= wr[i];
    round_row(v, t, x, d);
}

/* Half-split rotation by the angle, or back by it when sign is -1. */
static void rotate(float *x, const float *cs, const float *sn, int half, float sign)
{
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[half + i], s = sign * sn[i];
        x[i] = a * cs[i] - b * s;
        x[half + i] = b * cs[i] + a * s;
    }
}

static void forward_heads(kern_dev *d, const kern_qk *a, int64_t r, const kern_tensor *src,
                          const kern_tensor *dst, const kern_tensor *norm, int heads)
{
    const cpu_vec *v = cpu_of(d)->vec;
    const float *cs = cpu_at(&a->cos, a->pos[r], 0), *sn = cpu_at(&a->sin, a->pos[r], 0);
    float x[MAX_D];
    for (int h = 0; h < heads; h++) {
        int64_t c = (int64_t)h * a->d;
        v->to_f32(src->dtype, cpu_at(src, r, c), x, a->d);
        if (norm->data != NULL)
            norm_head(v, src->dtype, x, norm->data, a->d, a->eps);
        rotate(x, cs, sn, a->d / 2, 1.0F);
        v->from_f32(dst->dtype, x, cpu_at(dst, r, c), a->d);
    }
}

static void cache_row(kern_dev *d, const kern_qk *a, int64_t r)
{
    const cpu_vec *v = cpu_of(d)->vec;
    const kern_tensor *src[2] = {&a->k_out, &a->v};
    float x[MAX_D];
    for (int which = 0; which < 2; which++) {
        for (int h = 0; h < a->n_kv; h++) {
            v->to_f32(src[which]->dtype, cpu_at(src[which], r, (int64_t)h * a->d), x, a->d);
            v->from_f32(a->kv->dtype, x, cpu_kv_at(a->kv, a->layer, which, a->slot[r], h), a->d);
        }
    }
}

typedef struct forward_job {
    kern_dev *d;
    const kern_qk *a;
} forward_job;

static void forward_rows(void *arg, int64_t r0, int64_t r1, int thread)
{
    const forward_job *j = arg;
    const kern_qk *a = j->a;
    (void)thread;
    for (int64_t r = r0; r < r1; r++) {
        forward_heads(j->d, a, r, &a->q, &a->q_out, &a->q_norm, a->n_q);
        forward_heads(j->d, a, r, &a->k, &a->k_out, &a->k_norm, a->n_kv);
        if (a->kv != NULL)
            cache_row(j->d, a, r);
    }
}

int cpu_qk(kern_dev *d, const kern_qk *a)
{
    forward_job j = {d, a};
    int rc = check_forward(d, a);
    if (rc == 0)
        cpu_rows(d, a->q.rows, a->q.cols + a->k.cols, forward_rows, &j);
    return rc;
}

/* ---- backward -------------------------------------------------------------------------------- */

/* g: gradient of the normed head on entry, of x on return. */
static void norm_head_grad(const cpu_vec *v, kern_dtype t, float *g, const float *x, const float *w,
                           float *dw, int d, float eps)
{
    float rstd = head_rstd(x, d, eps), dot = 0, wr[MAX_D];
    memcpy(wr, w, (size_t)d * 4);
    round_row(v, t, wr, d);
    for (int i = 0; i < d; i++) {
        if (dw != NULL)
            dw[i] += g[i] * x[i] * rstd;
        g[i] *= wr[i];
        dot += g[i] * x[i];
    }
    float c = dot * rstd * rstd / (float)d;
    for (int i = 0; i < d; i++)
        g[i] = (g[i] - x[i] * c) * rstd;
}

static void grad_heads(kern_dev *d, const kern_qk *a, int64_t r, const kern_tensor *x,
                       const kern_tensor *dx, const kern_tensor *norm, float *dw, int heads)
{
    const cpu_vec *v = cpu_of(d)->vec;
    const float *cs = cpu_at(&a->cos, a->pos[r], 0), *sn = cpu_at(&a->sin, a->pos[r], 0);
    float g[MAX_D], xf[MAX_D];
    for (int h = 0; h < heads; h++) {
        int64_t c = (int64_t)h * a->d;
        v->to_f32(dx->dtype, cpu_at(dx, r, c), g, a->d);
        rotate(g, cs, sn, a->d / 2, -1.0F);
        if (norm->data != NULL) {
            v->to_f32(x->dtype, cpu_at(x, r, c), xf, a->d);
            norm_head_grad(v, x->dtype, g, xf, norm->data, dw, a->d, a->eps);
        }
        v->from_f32(dx->dtype, g, cpu_at(dx, r, c), a->d);
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
    kern_dev *d;
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
        grad_heads(j->d, f, r, &f->q, &j->a->dq, &f->q_norm, mine, f->n_q);
        grad_heads(j->d, f, r, &f->k, &j->a->dk, &f->k_norm, mine + f->d, f->n_kv);
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
    grad_job j = {d, a, mem};
    cpu_run(d, f->q.rows * (f->q.cols + f->k.cols), SHARES, grad_share, &j);
    const cpu_vec *v = cpu_of(d)->vec;
    for (int s = 0; s < SHARES; s++) {
        float *mine = j.sums + (int64_t)s * 2 * f->d;
        if (a->dq_norm.data != NULL)
            v->axpy(1.0F, mine, a->dq_norm.data, f->d);
        if (a->dk_norm.data != NULL)
            v->axpy(1.0F, mine + f->d, a->dk_norm.data, f->d);
    }
    return 0;
}
