/* Attention inside the segments of a packed batch, forward. */
#include "kernels/cpu/attn.h"

#include <math.h>
#include <string.h>

int cpu_attn_check(kern_dev *d, const kern_attn *a)
{
    int64_t n = a->q.rows;
    kern_dtype t = a->q.dtype;
    if (a->d < 1 || a->n_q < 1 || a->n_kv < 1 || a->n_q % a->n_kv != 0 || a->window < 0)
        return cpu_fail(d, KERN_EINVAL, "attn: %d query and %d key heads of %d, window %lld",
                        a->n_q, a->n_kv, a->d, (long long)a->window);
    int rc = cpu_activation(d, "attn: q", &a->q);
    if (rc == 0)
        rc = cpu_shape(d, "attn: q", &a->q, n, (int64_t)a->n_q * a->d);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn: k", &a->k, t, n, (int64_t)a->n_kv * a->d);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn: v", &a->v, t, n, (int64_t)a->n_kv * a->d);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn: out", &a->out, t, n, a->q.cols);
    if (rc == 0 && a->lse.data != NULL)
        rc = cpu_shape_of(d, "attn: lse", &a->lse, KERN_F32, n, a->n_q);
    for (int s = 0; s < a->n_seg && rc == 0; s++) {
        int64_t len = (int64_t)a->cu[s + 1] - a->cu[s];
        if (len < 0 || len > a->max_len)
            rc = cpu_fail(d, KERN_EINVAL, "attn: segment %d has %lld rows, max_len is %lld", s,
                          (long long)len, (long long)a->max_len);
    }
    if (rc == 0 && (a->n_seg < 0 || a->cu[0] != 0 || a->cu[a->n_seg] != n))
        rc = cpu_fail(d, KERN_EINVAL, "attn: segments cover rows %d to %d of %lld", a->cu[0],
                      a->cu[a->n_seg], (long long)n);
    return rc;
}

/* One query row of one head against keys [k0, r]. */
static void forward_row(kern_dev *d, const kern_attn *a, int64_t k0, int64_t r, int h, float *mem)
{
    const cpu_vec *v = cpu_of(d)->vec;
    int64_t kh = (int64_t)(h / (a->n_q / a->n_kv)) * a->d, n = r - k0 + 1;
    float *q = mem, *x = q + a->d, *o = x + a->d, *s = o + a->d;
    v->to_f32(a->q.dtype, cpu_at(&a->q, r, (int64_t)h * a->d), q, a->d);
    for (int64_t j = 0; j < n; j++) {
        v->to_f32(a->k.dtype, cpu_at(&a->k, k0 + j, kh), x, a->d);
        s[j] = v->dot(q, x, a->d) * a->scale;
    }
    float max = v->max(s, n), sum = v->exp_sum(s, max, n);
    memset(o, 0, (size_t)a->d * 4);
    for (int64_t j = 0; j < n; j++) {
        v->to_f32(a->v.dtype, cpu_at(&a->v, k0 + j, kh), x, a->d);
        v->axpy(s[j] / sum, x, o, a->d);
    }
    v->from_f32(a->out.dtype, o, cpu_at(&a->out, r, (int64_t)h * a->d), a->d);
    if (a->lse.data != NULL)
        *(float *)cpu_at(&a->lse, r, h) = max + logf(sum);
}

int cpu_attn(kern_dev *d, const kern_attn *a)
{
    void *mem;
    int64_t need = a->max_len + 3 * (int64_t)a->d + 16;
    int rc = cpu_attn_check(d, a);
    if (rc == 0)
        rc = cpu_scratch(d, 0, (size_t)(d->threads * need) * 4, &mem);
    if (rc != 0)
        return rc;
    float *f = mem;
    for (int s = 0; s < a->n_seg; s++) {
        int64_t c0 = a->cu[s];
#pragma omp parallel for num_threads(d->threads) schedule(dynamic) collapse(2)
        for (int64_t r = c0; r < a->cu[s + 1]; r++) {
            for (int h = 0; h < a->n_q; h++) {
                int64_t k0 = a->window > 0 && r - c0 >= a->window ? r - a->window + 1 : c0;
                forward_row(d, a, k0, r, h, f + cpu_thread() * need);
            }
        }
    }
    return 0;
}
