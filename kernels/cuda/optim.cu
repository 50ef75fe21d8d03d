/* AdamW, sums of squares and clipping over flat ranges. */
#include <math.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/tune.h"

enum { THREADS = 256 };

/* ---- AdamW ----------------------------------------------------------------------------------- */

typedef struct adamw_args {
    int64_t n;
    float *p, *m, *v;
    const float *g;
    const float *scale;
    float beta1, beta2, decay, step_size, inv_sqrt_c2, eps;
} adamw_args;

static __device__ __forceinline__ void adamw_one(const adamw_args &a, float *p, float *m, float *v,
                                                 float g)
{
    *m += (g - *m) * (1.0F - a.beta1);
    *v = *v * a.beta2 + g * g * (1.0F - a.beta2);
    *p = *p * a.decay - a.step_size * *m / (sqrtf(*v) * a.inv_sqrt_c2 + a.eps);
}

/* N elements a thread, the last one fewer. Moves 28 n bytes. Not run on a card yet. */
template <int N> static __global__ void adamw_kernel(adamw_args a)
{
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
    float scale = a.scale != NULL ? *a.scale : 1.0F;
    if (isnan(scale))
        return;
    if (i + N > a.n) {
        for (; i < a.n; i++)
            adamw_one(a, a.p + i, a.m + i, a.v + i, a.g[i] * scale);
        return;
    }
    vec16<float> p, m, v, g;
    load_part<N>(p, a.p + i);
    load_part<N>(m, a.m + i);
    load_part<N>(v, a.v + i);
    load_part<N>(g, a.g + i);
    for (int k = 0; k < N; k++)
        adamw_one(a, &p.v[k], &m.v[k], &v.v[k], g.v[k] * scale);
    store_part<N>(a.m + i, m);
    store_part<N>(a.v + i, v);
    store_part<N>(a.p + i, p);
}

int cu_op_adamw(kern_dev *d, const kern_adamw *a)
{
    if (a->n < 0 || a->step < 1)
        return cu_fail(d, KERN_EINVAL, "adamw: %lld elements, step %lld", (long long)a->n,
                       (long long)a->step);
    double c1 = 1.0 - pow((double)a->beta1, (double)a->step);
    double c2 = 1.0 - pow((double)a->beta2, (double)a->step);
    adamw_args k = {a->n,
                    a->p,
                    a->m,
                    a->v,
                    a->g,
                    a->scale,
                    a->beta1,
                    a->beta2,
                    (float)(1.0 - (double)a->lr * (double)a->weight_decay),
                    (float)((double)a->lr / c1),
                    (float)(1.0 / sqrt(c2)),
                    a->eps};
    uintptr_t all = (uintptr_t)a->p | (uintptr_t)a->m | (uintptr_t)a->v | (uintptr_t)a->g;
    if (a->n == 0)
        return 0;
    return all % 16 == 0
               ? cu_launch(d, "adamw", adamw_kernel<4>, cu_blocks(k.n, 4 * THREADS), THREADS, k)
               : cu_launch(d, "adamw plain", adamw_kernel<1>, cu_blocks(k.n, THREADS), THREADS, k);
}

/* ---- sum of squares -------------------------------------------------------------------------- */

/* part[blockIdx.x] = sum of squares of every gridDim.x * THREADS-th element, by N at a time. */
template <int N> static __global__ void sumsq_kernel(const float *g, int64_t n, double *part)
{
    __shared__ double share[32];
    int64_t step = (int64_t)gridDim.x * THREADS * N;
    double s = 0;
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N; i < n; i += step) {
        vec16<float> x;
        if (i + N <= n)
            load_part<N>(x, g + i);
        for (int k = 0; k < N; k++) {
            float v = i + N <= n ? x.v[k] : i + k < n ? g[i + k] : 0.0F;
            s += (double)v * (double)v;
        }
    }
    s = block_sum(s, share);
    if (threadIdx.x == 0)
        part[blockIdx.x] = s;
}

/* *out becomes the sum of n parts; one block. */
static __global__ void sumsq_end_kernel(const double *part, int n, double *out)
{
    __shared__ double share[32];
    double s = 0;
    for (int i = (int)threadIdx.x; i < n; i += THREADS)
        s += part[i];
    s = block_sum(s, share);
    if (threadIdx.x == 0)
        *out = s;
}

int cu_op_sumsq(kern_dev *d, const kern_sumsq *a)
{
    int parts = tune_sumsq(a->n);
    void *mem;
    int rc = cu_scratch(d, CU_SLOT_A, (size_t)parts * sizeof(double), &mem);
    double *part = (double *)mem;
    bool wide = (uintptr_t)a->g % 16 == 0;
    if (rc == 0)
        rc = cu_launch(d, "sumsq", wide ? sumsq_kernel<4> : sumsq_kernel<1>, (unsigned)parts,
                       THREADS, a->g, a->n, part);
    if (rc == 0)
        rc = cu_launch(d, "sumsq end", sumsq_end_kernel, 1, THREADS, part, parts, a->out);
    return rc;
}

/* ---- clipping -------------------------------------------------------------------------------- */

/* One thread: n is one or two. */
static __global__ void clip_kernel(const double *sum, int n, double max_norm, float *scale)
{
    bool finite = !isnan(*scale);
    for (int i = 0; i < n; i++)
        finite = finite && isfinite(sum[i]);
    double s = max_norm / (sqrt(sum[0]) + 1e-6);
    *scale = !finite ? NAN : max_norm > 0 && s < 1 ? (float)s : 1.0F;
}

int cu_op_clip(kern_dev *d, const kern_clip *a)
{
    if (a->n < 1)
        return cu_fail(d, KERN_EINVAL, "clip: %d sums", a->n);
    return cu_launch(d, "clip", clip_kernel, 1, 1, a->sum, a->n, a->max_norm, a->scale);
}
