/* Per-head norm and rotation of q and k, the way of k and v into the paged cache in the same
 * launch, and the gradient. Heads that vectors can be read from take the kernels where a thread
 * holds N elements of the first half of a head and the N that rotate with them; others the plain
 * ones, where a warp runs along a head. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/tune.h"

enum { THREADS = 128, MAX_HEAD = 1024 };

template <typename T> struct qk_args {
    const T *q, *k, *v;
    T *qo, *ko; /* backward: dq and dk, in place */
    int64_t ldq, ldk, ldv, ldqo, ldko;
    const float *wq, *wk, *cos, *sin;
    int64_t ldcos, ldsin, n;
    const int32_t *pos, *slot;
    char *keys, *values; /* of this layer; NULL: no cache */
    int block_tokens;
    bool f32_cache;
    int n_q, n_kv, d;
    float eps;
    int group, passes; /* threads a head; heads that a thread takes in turn */
    float *sums;       /* [shares, 2, d] for the gradients of the norms */
};

/* ---- one head -------------------------------------------------------------------------------- */

/* Where head h of row r stands: q's heads, then k's, then v's. */
template <typename T> struct head_at {
    const T *x;
    T *y;           /* NULL for v */
    const float *w; /* NULL: no norm */
    char *cache;    /* NULL: not kept */
    int64_t at;     /* of the head in the cache, in elements */
};

template <typename T>
static __device__ __forceinline__ head_at<T> find_head(const qk_args<T> &a, int64_t r, int h)
{
    head_at<T> o = {a.q + r * a.ldq + (int64_t)h * a.d, a.qo + r * a.ldqo + (int64_t)h * a.d, a.wq,
                    NULL, 0};
    if (h < a.n_q)
        return o;
    int kh = h - a.n_q;
    bool value = kh >= a.n_kv;
    kh -= value ? a.n_kv : 0;
    o.x = (value ? a.v + r * a.ldv : a.k + r * a.ldk) + (int64_t)kh * a.d;
    o.y = value ? NULL : a.ko + r * a.ldko + (int64_t)kh * a.d;
    o.w = value ? NULL : a.wk;
    if (a.keys != NULL) {
        int slot = a.slot[r];
        int64_t block = slot / a.block_tokens, token = slot % a.block_tokens;
        o.cache = value ? a.values : a.keys;
        o.at = ((block * a.n_kv + kh) * a.block_tokens + token) * a.d;
    }
    return o;
}

/* N elements, as T rounds them, into the cache. */
template <int N, typename T>
static __device__ __forceinline__ void cache_part(char *cache, bool f32, int64_t at,
                                                  const vec16<T> &v)
{
    if (f32 == (sizeof(T) == 4)) {
        store_part<N>(reinterpret_cast<T *>(cache) + at, v);
        return;
    }
    for (int k = 0; k < N; k++) {
        float x = rounded<T>(v.v[k]);
        if (f32)
            reinterpret_cast<float *>(cache)[at + k] = x;
        else
            reinterpret_cast<bf16 *>(cache)[at + k] = from_f32<bf16>(x);
    }
}

/* Over the `group` threads of a head, a power of two; all lanes of the warp take part. */
static __device__ __forceinline__ float group_sum(float x, int group)
{
    for (int i = group >> 1; i > 0; i >>= 1)
        x += __shfl_xor_sync(0xFFFFFFFFU, x, i);
    return x;
}

template <int N> struct angles {
    float c[N], s[N];
};
template <int N>
static __device__ __forceinline__ void load_angles(angles<N> *o, const float *cos, const float *sin)
{
    for (int q = 0; q < N; q += 4) {
        float4 c = *reinterpret_cast<const float4 *>(cos + q);
        float4 s = *reinterpret_cast<const float4 *>(sin + q);
        o->c[q] = c.x, o->c[q + 1] = c.y, o->c[q + 2] = c.z, o->c[q + 3] = c.w;
        o->s[q] = s.x, o->s[q + 1] = s.y, o->s[q + 2] = s.z, o->s[q + 3] = s.w;
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

/* x becomes its norm: each product is rounded as the activations are. */
template <typename T> static __device__ __forceinline__ float normed(float x, float rstd, float w)
{
    return rounded<T>(rounded<T>(x * rstd) * rounded<T>(w));
}

/* q [n, n_q d], k and v [n, n_kv d]: row blockIdx.x, THREADS / group heads at a time, `passes`
 * times. Moves 2 n (n_q + n_kv) d elements, with a cache 3 n_kv d a row more. Not run on a card
 * yet. */
template <typename T> static __global__ void qk_kernel(qk_args<T> a)
{
    const int N = vec16<T>::N;
    int groups = THREADS / a.group, i = (int)threadIdx.x % a.group * N, half = a.d / 2;
    int heads = a.n_q + (a.keys != NULL ? 2 : 1) * a.n_kv;
    int64_t r = blockIdx.x;
    angles<N> t;
    if (i < half) {
        int64_t pos = a.pos[r];
        load_angles<N>(&t, a.cos + pos * a.ldcos + i, a.sin + pos * a.ldsin + i);
    }
    for (int p = 0; p < a.passes; p++) {
        int h = ((int)blockIdx.y * a.passes + p) * groups + (int)threadIdx.x / a.group;
        bool mine = h < heads && i < half;
        head_at<T> o = find_head(a, r, mine ? h : 0);
        vec16<T> lo = {}, hi = {};
        if (mine) {
            load16(lo, o.x + i);
            load16(hi, o.x + half + i);
        }
        if (a.wq != NULL || a.wk != NULL) {
            float ss = 0;
            for (int k = 0; k < N; k++)
                ss += lo.v[k] * lo.v[k] + hi.v[k] * hi.v[k];
            float rstd = 1.0F / sqrtf(group_sum(ss, a.group) / (float)a.d + a.eps);
            for (int k = 0; k < N && mine && o.w != NULL; k++) {
                lo.v[k] = normed<T>(lo.v[k], rstd, o.w[i + k]);
                hi.v[k] = normed<T>(hi.v[k], rstd, o.w[half + i + k]);
            }
        }
        if (!mine)
            continue;
        if (o.y != NULL) {
            for (int k = 0; k < N; k++) {
                float x = lo.v[k], y = hi.v[k];
                lo.v[k] = x * t.c[k] - y * t.s[k];
                hi.v[k] = y * t.c[k] + x * t.s[k];
            }
            store16(o.y + i, lo);
            store16(o.y + half + i, hi);
        }
        if (o.cache != NULL) {
            cache_part<N>(o.cache, a.f32_cache, o.at + i, lo);
            cache_part<N>(o.cache, a.f32_cache, o.at + half + i, hi);
        }
    }
}

/* The same for one head, (row, head) = (blockIdx.x, blockIdx.y), by one warp; lane l has the pairs
 * l, l + 32 ... and looks at them twice. */
template <typename T> static __global__ void qk_plain_kernel(qk_args<T> a)
{
    int64_t r = blockIdx.x;
    int half = a.d / 2, lane = (int)threadIdx.x;
    const float *cos = a.cos + a.pos[r] * a.ldcos, *sin = a.sin + a.pos[r] * a.ldsin;
    head_at<T> o = find_head(a, r, (int)blockIdx.y);
    float ss = 0;
    for (int i = lane; i < a.d; i += 32)
        ss += to_f32(o.x[i]) * to_f32(o.x[i]);
    float rstd = 1.0F / sqrtf(warp_sum(ss) / (float)a.d + a.eps);
    for (int i = lane; i < half; i += 32) {
        vec16<T> lo, hi;
        float x = to_f32(o.x[i]), y = to_f32(o.x[half + i]);
        if (o.w != NULL) {
            x = normed<T>(x, rstd, o.w[i]);
            y = normed<T>(y, rstd, o.w[half + i]);
        }
        lo.v[0] = o.y == NULL ? x : x * cos[i] - y * sin[i];
        hi.v[0] = o.y == NULL ? y : y * cos[i] + x * sin[i];
        if (o.y != NULL) {
            o.y[i] = from_f32<T>(lo.v[0]);
            o.y[half + i] = from_f32<T>(hi.v[0]);
        }
        if (o.cache != NULL) {
            cache_part<1>(o.cache, a.f32_cache, o.at + i, lo);
            cache_part<1>(o.cache, a.f32_cache, o.at + half + i, hi);
        }
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

/* Heads [h0, h1) of row r, a head by a group of threads. What the norms' weights get is added to
 * slo and shi when SUMS. */
template <typename T, bool SUMS>
static __device__ __forceinline__ void grad_row(const qk_args<T> &a, int64_t r, int h0, int h1,
                                                float *slo, float *shi)
{
    const int N = vec16<T>::N;
    int groups = THREADS / a.group, i = (int)threadIdx.x % a.group * N, half = a.d / 2;
    angles<N> t;
    if (i < half) {
        int64_t pos = a.pos[r];
        load_angles<N>(&t, a.cos + pos * a.ldcos + i, a.sin + pos * a.ldsin + i);
    }
    for (int at = h0; at < h1; at += groups) {
        int h = at + (int)threadIdx.x / a.group;
        bool mine = h < h1 && i < half;
        head_at<T> o = find_head(a, r, mine ? h : h0);
        vec16<T> lo = {}, hi = {}, xlo = {}, xhi = {};
        if (mine) {
            load16(lo, o.y + i);
            load16(hi, o.y + half + i);
            for (int k = 0; k < N; k++) {
                float x = lo.v[k], y = hi.v[k];
                lo.v[k] = x * t.c[k] + y * t.s[k];
                hi.v[k] = y * t.c[k] - x * t.s[k];
            }
        }
        if (a.wq != NULL || a.wk != NULL) {
            float ss = 0, dot = 0;
            bool norm = mine && o.w != NULL;
            if (norm) {
                load16(xlo, o.x + i);
                load16(xhi, o.x + half + i);
            }
            for (int k = 0; k < N; k++)
                ss += xlo.v[k] * xlo.v[k] + xhi.v[k] * xhi.v[k];
            float rstd = 1.0F / sqrtf(group_sum(ss, a.group) / (float)a.d + a.eps);
            for (int k = 0; k < N && norm; k++) {
                if (SUMS) {
                    slo[k] += lo.v[k] * xlo.v[k] * rstd;
                    shi[k] += hi.v[k] * xhi.v[k] * rstd;
                }
                lo.v[k] *= rounded<T>(o.w[i + k]);
                hi.v[k] *= rounded<T>(o.w[half + i + k]);
                dot += lo.v[k] * xlo.v[k] + hi.v[k] * xhi.v[k];
            }
            float c = group_sum(dot, a.group) * rstd * rstd / (float)a.d;
            for (int k = 0; k < N && norm; k++) {
                lo.v[k] = (lo.v[k] - xlo.v[k] * c) * rstd;
                hi.v[k] = (hi.v[k] - xhi.v[k] * c) * rstd;
            }
        }
        if (mine) {
            store16(o.y + i, lo);
            store16(o.y + half + i, hi);
        }
    }
}

/* Threads as in qk_kernel, row blockIdx.x. Moves 2 n (n_q + n_kv) d elements, 3 with norms. Not run
 * on a card yet. */
template <typename T> static __global__ void qk_grad_kernel(qk_args<T> a)
{
    int each = a.passes * (THREADS / a.group), h0 = (int)blockIdx.y * each, heads = a.n_q + a.n_kv;
    grad_row<T, false>(a, blockIdx.x, h0, min(h0 + each, heads), NULL, NULL);
}

/* With the sums for the norms' weights: share blockIdx.x of the rows, heads of q (blockIdx.y 0) or
 * of k (1). A thread keeps its elements' sums, and the groups of the block are added in order. */
template <typename T> static __global__ void qk_grad_sums_kernel(qk_args<T> a)
{
    const int N = vec16<T>::N;
    __shared__ float part[THREADS * 2 * N];
    float slo[N] = {}, shi[N] = {};
    int h0 = blockIdx.y == 0 ? 0 : a.n_q, h1 = blockIdx.y == 0 ? a.n_q : a.n_q + a.n_kv;
    int64_t end = a.n * (blockIdx.x + 1) / gridDim.x;
    for (int64_t r = a.n * blockIdx.x / gridDim.x; r < end; r++)
        grad_row<T, true>(a, r, h0, h1, slo, shi);
    int i = (int)threadIdx.x % a.group * N, g = (int)threadIdx.x / a.group, half = a.d / 2;
    for (int k = 0; k < N && i < half; k++) {
        part[g * a.d + i + k] = slo[k];
        part[g * a.d + half + i + k] = shi[k];
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < a.d; c += THREADS) {
        float s = 0;
        for (int j = 0; j < THREADS / a.group; j++)
            s += part[j * a.d + c];
        a.sums[((int64_t)blockIdx.x * 2 + blockIdx.y) * a.d + c] = s;
    }
}

/* One head of the plain gradient; sums [d] of this warp alone, or NULL. */
template <typename T>
static __device__ void grad_plain(const qk_args<T> &a, int64_t r, int h, float *sums)
{
    int half = a.d / 2, lane = (int)threadIdx.x;
    const float *cos = a.cos + a.pos[r] * a.ldcos, *sin = a.sin + a.pos[r] * a.ldsin;
    head_at<T> o = find_head(a, r, h);
    float ss = 0, dot = 0;
    for (int i = lane; i < a.d && o.w != NULL; i += 32)
        ss += to_f32(o.x[i]) * to_f32(o.x[i]);
    float rstd = 1.0F / sqrtf(warp_sum(ss) / (float)a.d + a.eps);
    for (int i = lane; i < half && o.w != NULL; i += 32) {
        float gx = to_f32(o.y[i]), gy = to_f32(o.y[half + i]);
        float lo = gx * cos[i] + gy * sin[i], hi = gy * cos[i] - gx * sin[i];
        float x = to_f32(o.x[i]), y = to_f32(o.x[half + i]);
        if (sums != NULL) {
            sums[i] += lo * x * rstd;
            sums[half + i] += hi * y * rstd;
        }
        dot += lo * rounded<T>(o.w[i]) * x + hi * rounded<T>(o.w[half + i]) * y;
    }
    float c = warp_sum(dot) * rstd * rstd / (float)a.d;
    for (int i = lane; i < half; i += 32) {
        float gx = to_f32(o.y[i]), gy = to_f32(o.y[half + i]);
        float lo = gx * cos[i] + gy * sin[i], hi = gy * cos[i] - gx * sin[i];
        if (o.w != NULL) {
            lo = (lo * rounded<T>(o.w[i]) - to_f32(o.x[i]) * c) * rstd;
            hi = (hi * rounded<T>(o.w[half + i]) - to_f32(o.x[half + i]) * c) * rstd;
        }
        o.y[i] = from_f32<T>(lo);
        o.y[half + i] = from_f32<T>(hi);
    }
}

/* A warp for one share of the rows, heads of q (blockIdx.y 0) or of k (1). */
template <typename T> static __global__ void qk_grad_plain_kernel(qk_args<T> a)
{
    int h0 = blockIdx.y == 0 ? 0 : a.n_q, h1 = blockIdx.y == 0 ? a.n_q : a.n_q + a.n_kv;
    int64_t end = a.n * (blockIdx.x + 1) / gridDim.x;
    float *sums = NULL;
    if (a.sums != NULL) {
        sums = a.sums + ((int64_t)blockIdx.x * 2 + blockIdx.y) * a.d;
        for (int i = (int)threadIdx.x; i < a.d / 2; i += 32)
            sums[i] = sums[a.d / 2 + i] = 0;
    }
    for (int64_t r = a.n * blockIdx.x / gridDim.x; r < end; r++)
        for (int h = h0; h < h1; h++)
            grad_plain(a, r, h, sums);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static int check(kern_dev *d, const kern_qk *a)
{
    int64_t n = a->q.rows;
    kern_dtype t = a->q.dtype;
    if (a->d < 2 || a->d % 2 != 0 || a->d > MAX_HEAD || a->n_q < 1 || a->n_kv < 1)
        return cu_fail(d, KERN_EINVAL, "qk: %d and %d heads of %d", a->n_q, a->n_kv, a->d);
    int rc = cu_activation(d, "qk: q", &a->q);
    if (rc == 0)
        rc = cu_shape(d, "qk: q", &a->q, n, (int64_t)a->n_q * a->d);
    if (rc == 0)
        rc = cu_shape_of(d, "qk: k", &a->k, t, n, (int64_t)a->n_kv * a->d);
    if (rc == 0 && a->q_norm.data != NULL)
        rc = cu_shape_of(d, "qk: q_norm", &a->q_norm, KERN_F32, 1, a->d);
    if (rc == 0 && a->k_norm.data != NULL)
        rc = cu_shape_of(d, "qk: k_norm", &a->k_norm, KERN_F32, 1, a->d);
    if (rc == 0)
        rc = cu_shape_of(d, "qk: cos", &a->cos, KERN_F32, a->cos.rows, a->d / 2);
    return rc != 0 ? rc : cu_shape_of(d, "qk: sin", &a->sin, KERN_F32, a->cos.rows, a->d / 2);
}

static int check_cache(kern_dev *d, const kern_qk *a)
{
    int rc = cu_shape_of(d, "qk: v", &a->v, a->q.dtype, a->q.rows, a->k.cols);
    if (rc == 0 && (a->kv->n_kv != a->n_kv || a->kv->d != a->d))
        rc = cu_fail(d, KERN_EINVAL, "qk: the cache has %d heads of %d, k has %d of %d",
                     a->kv->n_kv, a->kv->d, a->n_kv, a->d);
    if (rc == 0 && (a->layer < 0 || a->layer >= a->kv->n_layers))
        rc = cu_fail(d, KERN_EINVAL, "qk: layer %d, the cache has %d", a->layer, a->kv->n_layers);
    if (rc == 0 && a->kv->dtype != KERN_F32 && a->kv->dtype != KERN_BF16)
        rc = cu_fail(d, KERN_EUNSUPPORTED, "qk: a cache of %s; the card has f32 and bf16",
                     kern_dtype_name(a->kv->dtype));
    return rc;
}

static int check_forward(kern_dev *d, const kern_qk *a)
{
    int64_t n = a->q.rows;
    kern_dtype t = a->q.dtype;
    int rc = check(d, a);
    if (rc == 0)
        rc = cu_shape_of(d, "qk: q_out", &a->q_out, t, n, a->q.cols);
    if (rc == 0)
        rc = cu_shape_of(d, "qk: k_out", &a->k_out, t, n, a->k.cols);
    return rc != 0 || a->kv == NULL ? rc : check_cache(d, a);
}

static int check_grad(kern_dev *d, const kern_qk_grad *a)
{
    const kern_qk *f = &a->f;
    int rc = check(d, f);
    if (rc == 0)
        rc = cu_shape_of(d, "qk_grad: dq", &a->dq, f->q.dtype, f->q.rows, f->q.cols);
    if (rc == 0)
        rc = cu_shape_of(d, "qk_grad: dk", &a->dk, f->q.dtype, f->q.rows, f->k.cols);
    if (rc == 0 && a->dq_norm.data != NULL)
        rc = cu_shape_of(d, "qk_grad: dq_norm", &a->dq_norm, KERN_F32, 1, f->d);
    if (rc == 0 && a->dk_norm.data != NULL)
        rc = cu_shape_of(d, "qk_grad: dk_norm", &a->dk_norm, KERN_F32, 1, f->d);
    return rc;
}

/* ---- launchers ------------------------------------------------------------------------------- */

/* y and z: what is written for q and k. */
template <typename T>
static qk_args<T> args_of(const kern_qk *a, const kern_tensor *y, const kern_tensor *z)
{
    qk_args<T> k = {};
    k.q = (const T *)a->q.data, k.ldq = a->q.ld;
    k.k = (const T *)a->k.data, k.ldk = a->k.ld;
    k.qo = (T *)y->data, k.ldqo = y->ld;
    k.ko = (T *)z->data, k.ldko = z->ld;
    k.wq = (const float *)a->q_norm.data;
    k.wk = (const float *)a->k_norm.data;
    k.cos = (const float *)a->cos.data, k.ldcos = a->cos.ld;
    k.sin = (const float *)a->sin.data, k.ldsin = a->sin.ld;
    k.n = a->q.rows;
    k.pos = a->pos;
    k.n_q = a->n_q, k.n_kv = a->n_kv, k.d = a->d;
    k.eps = a->eps;
    tune_heads t = tune_qk(a->d, vec16<T>::N, k.n);
    k.group = t.group, k.passes = t.passes;
    bool wide = cu_aligned16(&a->q) && cu_aligned16(&a->k) && cu_aligned16(y) && cu_aligned16(z) &&
                cu_aligned16(&a->cos) && cu_aligned16(&a->sin);
    if (!wide)
        k.group = 0;
    return k;
}

template <typename T> static int run_qk(kern_dev *d, const kern_qk *a)
{
    qk_args<T> k = args_of<T>(a, &a->q_out, &a->k_out);
    int heads = a->n_q + a->n_kv;
    if (a->kv != NULL) {
        size_t half = (size_t)cu_kv_half(a->kv) * kern_dtype_size(a->kv->dtype);
        k.keys = a->kv->data + (size_t)a->layer * 2 * half;
        k.values = k.keys + half;
        k.block_tokens = a->kv->block_tokens;
        k.f32_cache = a->kv->dtype == KERN_F32;
        k.slot = a->slot;
        k.v = (const T *)a->v.data, k.ldv = a->v.ld;
        heads += a->n_kv;
        if (!cu_aligned16(&a->v))
            k.group = 0;
    }
    if (k.group == 0)
        return cu_launch(d, "qk plain", qk_plain_kernel<T>, dim3((unsigned)k.n, (unsigned)heads),
                         32, k);
    dim3 grid((unsigned)k.n, cu_blocks(heads, k.passes * (THREADS / k.group)));
    return cu_launch(d, "qk", qk_kernel<T>, grid, THREADS, k);
}

int cu_op_qk(kern_dev *d, const kern_qk *a)
{
    int rc = check_forward(d, a);
    if (rc != 0 || a->q.rows == 0)
        return rc;
    return a->q.dtype == KERN_BF16 ? run_qk<bf16>(d, a) : run_qk<float>(d, a);
}

template <typename T> static int launch_grad(kern_dev *d, const qk_args<T> &k, int shares)
{
    if (k.group == 0)
        return cu_launch(d, "qk_grad plain", qk_grad_plain_kernel<T>,
                         dim3((unsigned)(k.sums != NULL ? shares : k.n), 2), 32, k);
    if (k.sums != NULL)
        return cu_launch(d, "qk_grad with norms", qk_grad_sums_kernel<T>, dim3((unsigned)shares, 2),
                         THREADS, k);
    dim3 grid((unsigned)k.n, cu_blocks(k.n_q + k.n_kv, k.passes * (THREADS / k.group)));
    return cu_launch(d, "qk_grad", qk_grad_kernel<T>, grid, THREADS, k);
}

template <typename T> static int run_qk_grad(kern_dev *d, const kern_qk_grad *a)
{
    qk_args<T> k = args_of<T>(&a->f, &a->dq, &a->dk);
    const kern_tensor *to[2] = {&a->dq_norm, &a->dk_norm};
    int shares = tune_shares(k.n), rc = 0;
    void *sums = NULL;
    if (to[0]->data != NULL || to[1]->data != NULL)
        rc = cu_scratch(d, CU_SLOT_A, (size_t)shares * 2 * (size_t)k.d * 4, &sums);
    k.sums = (float *)sums;
    if (rc == 0)
        rc = launch_grad(d, k, shares);
    for (int i = 0; i < 2 && rc == 0; i++)
        if (to[i]->data != NULL)
            rc = cu_add_rows(d, "qk_grad: norms", k.sums + (int64_t)i * k.d, shares, k.d,
                             2 * (int64_t)k.d, (float *)to[i]->data);
    return rc;
}

int cu_op_qk_grad(kern_dev *d, const kern_qk_grad *a)
{
    int rc = check_grad(d, a);
    if (rc != 0 || a->f.q.rows == 0)
        return rc;
    return a->f.q.dtype == KERN_BF16 ? run_qk_grad<bf16>(d, a) : run_qk_grad<float>(d, a);
}
