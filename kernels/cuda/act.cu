/* Gated activations, element by element. They move memory and little else; in bf16 the exponential
 * and the quotient are the card's own approximations, whose error is far below bf16's. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 128, MAX_GRID_Y = 65535 };

/* ---- values ---------------------------------------------------------------------------------- */

template <typename T> __device__ __forceinline__ float exp_of(float x);
template <> __device__ __forceinline__ float exp_of<float>(float x)
{
    return expf(x);
}
template <> __device__ __forceinline__ float exp_of<bf16>(float x)
{
    return __expf(x);
}
/* 1 / x for x from 1 to infinity. */
template <typename T> __device__ __forceinline__ float inverse(float x);
template <> __device__ __forceinline__ float inverse<float>(float x)
{
    return 1.0F / x;
}
template <> __device__ __forceinline__ float inverse<bf16>(float x)
{
    return __fdividef(1.0F, x);
}

/* y = act(g) and its derivative dy. */
template <typename T, int KIND>
static __device__ __forceinline__ void act_of(float g, float *y, float *dy)
{
    if (KIND == KERN_SILU) {
        float s = inverse<T>(1.0F + exp_of<T>(-g));
        *y = g * s;
        *dy = s * (1.0F + g * (1.0F - s));
    } else if (KIND == KERN_GELU_TANH) {
        const float c = 0.79788456F, k = 0.044715F;
        float u = c * (g + k * g * g * g);
        float t = 2.0F * inverse<T>(1.0F + exp_of<T>(-2.0F * u)) - 1.0F;
        float du = c * (1.0F + 3.0F * k * g * g);
        *y = 0.5F * g * (1.0F + t);
        *dy = 0.5F * (1.0F + t) + 0.5F * g * (1.0F - t * t) * du;
    } else {
        float phi = 0.5F * (1.0F + erff(g * 0.70710678F));
        *y = g * phi;
        *dy = phi + g * 0.39894228F * exp_of<T>(-0.5F * g * g);
    }
}

/* ---- kernels --------------------------------------------------------------------------------- */

template <typename T> struct act_args {
    const T *gu, *dh;
    T *h, *dgu;
    int64_t ldgu, lddh, ldh, lddgu, n, i;
};

/* h = act(gate) * up: N elements a thread, rows in turn. Moves 3 n i elements. Not run on a card
 * yet. */
template <typename T, int KIND, int N> static __global__ void act_kernel(act_args<T> a)
{
    int64_t c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
    if (c >= a.i)
        return;
    for (int64_t r = blockIdx.y; r < a.n; r += gridDim.y) {
        vec16<T> g, u;
        load_part<N>(g, a.gu + r * a.ldgu + c);
        load_part<N>(u, a.gu + r * a.ldgu + a.i + c);
        for (int k = 0; k < N; k++) {
            float y, dy;
            act_of<T, KIND>(g.v[k], &y, &dy);
            u.v[k] *= rounded<T>(y);
        }
        store_part<N>(a.h + r * a.ldh + c, u);
    }
}

/* The gradient of both halves, and h again when it is wanted. dgu may be gu: a thread writes only
 * what it has read. Moves 5 or 6 n i elements. Not run on a card yet. */
template <typename T, int KIND, int N> static __global__ void act_grad_kernel(act_args<T> a)
{
    int64_t c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
    if (c >= a.i)
        return;
    for (int64_t r = blockIdx.y; r < a.n; r += gridDim.y) {
        vec16<T> g, u, d;
        load_part<N>(g, a.gu + r * a.ldgu + c);
        load_part<N>(u, a.gu + r * a.ldgu + a.i + c);
        load_part<N>(d, a.dh + r * a.lddh + c);
        for (int k = 0; k < N; k++) {
            float y, dy, dh = d.v[k], up = u.v[k];
            act_of<T, KIND>(g.v[k], &y, &dy);
            y = rounded<T>(y);
            g.v[k] = dh * up * dy;
            d.v[k] = dh * y;
            u.v[k] = y * up;
        }
        store_part<N>(a.dgu + r * a.lddgu + c, g);
        store_part<N>(a.dgu + r * a.lddgu + a.i + c, d);
        if (a.h != NULL)
            store_part<N>(a.h + r * a.ldh + c, u);
    }
}

/* ---- launchers ------------------------------------------------------------------------------- */

template <typename T, int KIND, int N>
static int launch(kern_dev *d, const act_args<T> &k, bool backward)
{
    dim3 grid(cu_blocks(k.i, (int64_t)THREADS * N),
              k.n < MAX_GRID_Y ? (unsigned)k.n : (unsigned)MAX_GRID_Y);
    return backward ? cu_launch(d, "act_grad", act_grad_kernel<T, KIND, N>, grid, THREADS, k)
                    : cu_launch(d, "act", act_kernel<T, KIND, N>, grid, THREADS, k);
}

template <typename T, int N>
static int launch_kind(kern_dev *d, kern_act_kind kind, const act_args<T> &k, bool backward)
{
    return kind == KERN_SILU        ? launch<T, KERN_SILU, N>(d, k, backward)
           : kind == KERN_GELU_TANH ? launch<T, KERN_GELU_TANH, N>(d, k, backward)
                                    : launch<T, KERN_GELU, N>(d, k, backward);
}

/* dh and dgu have data in the gradient only. */
template <typename T>
static int run(kern_dev *d, const kern_act *f, const kern_tensor *dh, const kern_tensor *dgu)
{
    act_args<T> k = {(const T *)f->gu.data,
                     (const T *)dh->data,
                     (T *)f->h.data,
                     (T *)dgu->data,
                     f->gu.ld,
                     dh->ld,
                     f->h.ld,
                     dgu->ld,
                     f->gu.rows,
                     f->gu.cols / 2};
    if (k.n == 0 || k.i == 0)
        return 0;
    bool wide = k.i % vec16<T>::N == 0 && cu_aligned16(&f->gu) && cu_aligned16(&f->h) &&
                cu_aligned16(dh) && cu_aligned16(dgu);
    return wide ? launch_kind<T, vec16<T>::N>(d, f->kind, k, dgu->data != NULL)
                : launch_kind<T, 1>(d, f->kind, k, dgu->data != NULL);
}

static int check(kern_dev *d, const kern_act *a)
{
    if (a->kind != KERN_SILU && a->kind != KERN_GELU_TANH && a->kind != KERN_GELU)
        return cu_fail(d, KERN_EUNSUPPORTED, "act: kind %d", (int)a->kind);
    if (a->gu.cols % 2 != 0)
        return cu_fail(d, KERN_EINVAL, "act: gu has %lld columns", (long long)a->gu.cols);
    int rc = cu_activation(d, "act: gu", &a->gu);
    return rc != 0 ? rc : cu_shape(d, "act: gu", &a->gu, a->gu.rows, a->gu.cols);
}

int cu_op_act(kern_dev *d, const kern_act *a)
{
    int rc = check(d, a);
    if (rc == 0)
        rc = cu_shape_of(d, "act: h", &a->h, a->gu.dtype, a->gu.rows, a->gu.cols / 2);
    if (rc != 0)
        return rc;
    kern_tensor none = {a->gu.dtype, 0, 0, 0, NULL};
    return a->gu.dtype == KERN_BF16 ? run<bf16>(d, a, &none, &none)
                                    : run<float>(d, a, &none, &none);
}

int cu_op_act_grad(kern_dev *d, const kern_act_grad *a)
{
    const kern_tensor *gu = &a->f.gu, *h = &a->f.h;
    int64_t n = gu->rows, i = gu->cols / 2;
    int rc = check(d, &a->f);
    if (rc == 0)
        rc = cu_shape_of(d, "act_grad: dh", &a->dh, gu->dtype, n, i);
    if (rc == 0)
        rc = cu_shape_of(d, "act_grad: dgu", &a->dgu, gu->dtype, n, 2 * i);
    if (rc == 0 && h->data != NULL)
        rc = cu_shape_of(d, "act_grad: h", h, gu->dtype, n, i);
    if (rc != 0)
        return rc;
    return gu->dtype == KERN_BF16 ? run<bf16>(d, &a->f, &a->dh, &a->dgu)
                                  : run<float>(d, &a->f, &a->dh, &a->dgu);
}
