/* RMSNorm with its residual, and its gradient. Both only move memory: a row stands in registers
 * between the two times that it is looked at, and every element is read and written once. Rows that
 * cannot be read in 16 bytes, or are too long, take a plain path that looks at memory twice. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/tune.h"

enum { VECS = TUNE_ROW_VECS, PLAIN_THREADS = 256 };

/* Over the threads of one row: a warp, or the whole block. */
static __device__ __forceinline__ float row_sum(float x, float *share)
{
    return blockDim.x == 32 ? warp_sum(x) : block_sum(x, share);
}

/* ---- forward --------------------------------------------------------------------------------- */

template <typename T> struct norm_args {
    const T *x, *add;
    T *res, *y;
    const float *w;
    float *rstd;
    int64_t ldx, ldadd, ldres, ldy, ldrstd, n, h;
    float eps, offset;
};

/* y = round(v * rstd) * round(w + offset), rounded to T when stored. */
template <typename T>
static __device__ __forceinline__ float scaled(float v, float rstd, float w, float offset)
{
    return rounded<T>(v * rstd) * rounded<T>(w + offset);
}

/* [n, h]; a row by blockDim.x threads, blockDim.y rows a block, VECS vectors a thread. Moves 2 to 4
 * n h elements. Not run on a card yet. */
template <typename T>
static __global__ void __launch_bounds__(TUNE_ROW_THREADS) norm_kernel(norm_args<T> a)
{
    __shared__ float share[32];
    const int N = vec16<T>::N;
    int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (r >= a.n)
        return;
    vec16<T> v[VECS];
    float ss = 0;
#pragma unroll
    for (int j = 0; j < VECS; j++) {
        int64_t i = (int64_t)(j * (int)blockDim.x + (int)threadIdx.x) * N;
        if (i >= a.h)
            break;
        load16(v[j], a.x + r * a.ldx + i);
        if (a.add != NULL) {
            vec16<T> t;
            load16(t, a.add + r * a.ldadd + i);
            for (int k = 0; k < N; k++)
                v[j].v[k] = rounded<T>(v[j].v[k] + t.v[k]);
        }
        if (a.res != NULL)
            store16(a.res + r * a.ldres + i, v[j]);
        for (int k = 0; k < N; k++)
            ss += v[j].v[k] * v[j].v[k];
    }
    float rstd = 1.0F / sqrtf(row_sum(ss, share) / (float)a.h + a.eps);
#pragma unroll
    for (int j = 0; j < VECS; j++) {
        int64_t i = (int64_t)(j * (int)blockDim.x + (int)threadIdx.x) * N;
        if (i >= a.h)
            break;
        for (int q = 0; q < N; q += 4) {
            float4 w = *reinterpret_cast<const float4 *>(a.w + i + q);
            v[j].v[q] = scaled<T>(v[j].v[q], rstd, w.x, a.offset);
            v[j].v[q + 1] = scaled<T>(v[j].v[q + 1], rstd, w.y, a.offset);
            v[j].v[q + 2] = scaled<T>(v[j].v[q + 2], rstd, w.z, a.offset);
            v[j].v[q + 3] = scaled<T>(v[j].v[q + 3], rstd, w.w, a.offset);
        }
        store16(a.y + r * a.ldy + i, v[j]);
    }
    if (a.rstd != NULL && threadIdx.x == 0)
        a.rstd[r * a.ldrstd] = rstd;
}

/* The same, a row a block; what the second pass reads again is this thread's own. */
template <typename T> static __global__ void norm_plain_kernel(norm_args<T> a)
{
    __shared__ float share[32];
    int64_t r = blockIdx.x;
    const T *x = a.x + r * a.ldx, *add = a.add != NULL ? a.add + r * a.ldadd : NULL;
    T *res = a.res != NULL ? a.res + r * a.ldres : NULL, *y = a.y + r * a.ldy;
    float ss = 0;
    for (int64_t i = threadIdx.x; i < a.h; i += blockDim.x) {
        float v = to_f32(x[i]);
        if (add != NULL)
            v = rounded<T>(v + to_f32(add[i]));
        if (res != NULL)
            res[i] = from_f32<T>(v);
        ss += v * v;
    }
    float rstd = 1.0F / sqrtf(block_sum(ss, share) / (float)a.h + a.eps);
    const T *again = res != NULL ? res : x;
    for (int64_t i = threadIdx.x; i < a.h; i += blockDim.x)
        y[i] = from_f32<T>(scaled<T>(to_f32(again[i]), rstd, a.w[i], a.offset));
    if (a.rstd != NULL && threadIdx.x == 0)
        a.rstd[r * a.ldrstd] = rstd;
}

static int check_norm(kern_dev *d, const kern_norm *a)
{
    int64_t n = a->x.rows, h = a->x.cols;
    kern_dtype t = a->x.dtype;
    int rc = cu_activation(d, "norm: x", &a->x);
    if (rc == 0)
        rc = cu_shape(d, "norm: x", &a->x, n, h);
    if (rc == 0 && a->add.data != NULL)
        rc = cu_shape_of(d, "norm: add", &a->add, t, n, h);
    if (rc == 0 && a->add.data != NULL && a->res.data == NULL)
        rc = cu_fail(d, KERN_EINVAL, "norm: add without res");
    if (rc == 0 && a->res.data != NULL)
        rc = cu_shape_of(d, "norm: res", &a->res, t, n, h);
    if (rc == 0)
        rc = cu_shape_of(d, "norm: weight", &a->weight, KERN_F32, 1, h);
    if (rc == 0)
        rc = cu_shape_of(d, "norm: y", &a->y, t, n, h);
    if (rc == 0 && a->rstd.data != NULL)
        rc = cu_shape_of(d, "norm: rstd", &a->rstd, KERN_F32, n, 1);
    return rc;
}

template <typename T> static int run_norm(kern_dev *d, const kern_norm *a)
{
    norm_args<T> k = {(const T *)a->x.data,
                      (const T *)a->add.data,
                      (T *)a->res.data,
                      (T *)a->y.data,
                      (const float *)a->weight.data,
                      (float *)a->rstd.data,
                      a->x.ld,
                      a->add.ld,
                      a->res.ld,
                      a->y.ld,
                      a->rstd.ld,
                      a->x.rows,
                      a->x.cols,
                      a->eps,
                      a->weight_offset};
    tune_row t = tune_norm(k.h, vec16<T>::N);
    bool wide = cu_aligned16(&a->x) && cu_aligned16(&a->add) && cu_aligned16(&a->res) &&
                cu_aligned16(&a->y) && cu_aligned16(&a->weight);
    if (wide && t.threads > 0)
        return cu_launch(d, "norm", norm_kernel<T>, cu_blocks(k.n, t.rows),
                         dim3((unsigned)t.threads, (unsigned)t.rows), k);
    return cu_launch(d, "norm plain", norm_plain_kernel<T>, (unsigned)k.n, PLAIN_THREADS, k);
}

int cu_op_norm(kern_dev *d, const kern_norm *a)
{
    int rc = check_norm(d, a);
    if (rc != 0 || a->x.rows == 0 || a->x.cols == 0)
        return rc;
    return a->x.dtype == KERN_BF16 ? run_norm<bf16>(d, a) : run_norm<float>(d, a);
}

/* ---- backward -------------------------------------------------------------------------------- */

template <typename T> struct grad_args {
    const T *dy, *res, *dres;
    T *dx;
    const float *w, *rstd;
    float *sums; /* [blocks, h]: this block's share of dweight */
    int64_t lddy, ldres, lddres, lddx, ldrstd, n, h;
    float offset;
};

/* dx = (dy w - res c) rstd + dres with c = rstd^2 mean(dy w res): threads as in norm_kernel. With
 * SUMS a block takes one share of the rows and keeps dweight of its columns in registers; without,
 * blockDim.y rows. Moves 3 or 4 n h elements. Not run on a card yet. */
template <typename T, bool SUMS>
static __global__ void __launch_bounds__(TUNE_ROW_THREADS) norm_grad_kernel(grad_args<T> a)
{
    __shared__ float share[32];
    const int N = vec16<T>::N;
    int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y, end = r + 1;
    if (SUMS) {
        r = a.n * blockIdx.x / gridDim.x;
        end = a.n * (blockIdx.x + 1) / gridDim.x;
    } else if (r >= a.n) {
        return;
    }
    vec16<T> x[VECS], g[VECS], sum[VECS] = {};
    for (; r < end; r++) {
        float rstd = a.rstd[r * a.ldrstd], dot = 0;
#pragma unroll
        for (int j = 0; j < VECS; j++) {
            int64_t i = (int64_t)(j * (int)blockDim.x + (int)threadIdx.x) * N;
            if (i >= a.h)
                break;
            load16(x[j], a.res + r * a.ldres + i);
            load16(g[j], a.dy + r * a.lddy + i);
            for (int q = 0; q < N; q += 4) {
                float4 f = *reinterpret_cast<const float4 *>(a.w + i + q);
                float w[4] = {f.x, f.y, f.z, f.w};
                for (int k = 0; k < 4; k++) {
                    if (SUMS)
                        sum[j].v[q + k] += g[j].v[q + k] * x[j].v[q + k] * rstd;
                    g[j].v[q + k] *= rounded<T>(w[k] + a.offset);
                    dot += g[j].v[q + k] * x[j].v[q + k];
                }
            }
        }
        float c = row_sum(dot, share) * rstd * rstd / (float)a.h;
#pragma unroll
        for (int j = 0; j < VECS; j++) {
            int64_t i = (int64_t)(j * (int)blockDim.x + (int)threadIdx.x) * N;
            if (i >= a.h)
                break;
            for (int k = 0; k < N; k++)
                g[j].v[k] = (g[j].v[k] - x[j].v[k] * c) * rstd;
            if (a.dres != NULL) {
                load16(x[j], a.dres + r * a.lddres + i);
                for (int k = 0; k < N; k++)
                    g[j].v[k] += x[j].v[k];
            }
            store16(a.dx + r * a.lddx + i, g[j]);
        }
    }
#pragma unroll
    for (int j = 0; j < VECS && SUMS; j++) {
        int64_t i = (int64_t)(j * (int)blockDim.x + (int)threadIdx.x) * N;
        for (int k = 0; k < N && i < a.h; k++)
            a.sums[blockIdx.x * a.h + i + k] = sum[j].v[k];
    }
}

/* The same in two looks at memory; a block takes one share of the rows, a thread whole columns. */
template <typename T> static __global__ void norm_grad_plain_kernel(grad_args<T> a)
{
    __shared__ float share[32];
    int64_t end = a.n * (blockIdx.x + 1) / gridDim.x;
    float *sums = a.sums != NULL ? a.sums + blockIdx.x * a.h : NULL;
    for (int64_t i = threadIdx.x; i < a.h && sums != NULL; i += blockDim.x)
        sums[i] = 0;
    for (int64_t r = a.n * blockIdx.x / gridDim.x; r < end; r++) {
        const T *x = a.res + r * a.ldres, *dy = a.dy + r * a.lddy;
        const T *dres = a.dres != NULL ? a.dres + r * a.lddres : NULL;
        T *dx = a.dx + r * a.lddx;
        float rstd = a.rstd[r * a.ldrstd], dot = 0;
        for (int64_t i = threadIdx.x; i < a.h; i += blockDim.x) {
            float g = to_f32(dy[i]), v = to_f32(x[i]);
            if (sums != NULL)
                sums[i] += g * v * rstd;
            dot += g * rounded<T>(a.w[i] + a.offset) * v;
        }
        float c = block_sum(dot, share) * rstd * rstd / (float)a.h;
        for (int64_t i = threadIdx.x; i < a.h; i += blockDim.x) {
            float g = to_f32(dy[i]) * rounded<T>(a.w[i] + a.offset);
            g = (g - to_f32(x[i]) * c) * rstd;
            dx[i] = from_f32<T>(dres != NULL ? g + to_f32(dres[i]) : g);
        }
    }
}

static int check_norm_grad(kern_dev *d, const kern_norm_grad *a)
{
    int64_t n = a->dy.rows, h = a->dy.cols;
    kern_dtype t = a->dy.dtype;
    int rc = cu_activation(d, "norm_grad: dy", &a->dy);
    if (rc == 0)
        rc = cu_shape(d, "norm_grad: dy", &a->dy, n, h);
    if (rc == 0)
        rc = cu_shape_of(d, "norm_grad: res", &a->res, t, n, h);
    if (rc == 0)
        rc = cu_shape_of(d, "norm_grad: weight", &a->weight, KERN_F32, 1, h);
    if (rc == 0)
        rc = cu_shape_of(d, "norm_grad: rstd", &a->rstd, KERN_F32, n, 1);
    if (rc == 0 && a->dres.data != NULL)
        rc = cu_shape_of(d, "norm_grad: dres", &a->dres, t, n, h);
    if (rc == 0)
        rc = cu_shape_of(d, "norm_grad: dx", &a->dx, t, n, h);
    if (rc == 0 && a->dweight.data != NULL)
        rc = cu_shape_of(d, "norm_grad: dweight", &a->dweight, KERN_F32, 1, h);
    return rc;
}

template <typename T>
static int launch_grad(kern_dev *d, const kern_norm_grad *a, const grad_args<T> &k, int shares)
{
    tune_row t = tune_norm(k.h, vec16<T>::N);
    bool wide = cu_aligned16(&a->dy) && cu_aligned16(&a->res) && cu_aligned16(&a->dres) &&
                cu_aligned16(&a->dx) && cu_aligned16(&a->weight);
    if (!wide || t.threads == 0)
        return cu_launch(d, "norm_grad plain", norm_grad_plain_kernel<T>,
                         (unsigned)(k.sums != NULL ? shares : k.n), PLAIN_THREADS, k);
    if (k.sums != NULL)
        return cu_launch(d, "norm_grad with dweight", norm_grad_kernel<T, true>, (unsigned)shares,
                         (unsigned)t.threads, k);
    return cu_launch(d, "norm_grad", norm_grad_kernel<T, false>, cu_blocks(k.n, t.rows),
                     dim3((unsigned)t.threads, (unsigned)t.rows), k);
}

template <typename T> static int run_norm_grad(kern_dev *d, const kern_norm_grad *a)
{
    int shares = tune_shares(a->dy.rows), rc = 0;
    void *sums = NULL;
    if (a->dweight.data != NULL)
        rc = cu_scratch(d, CU_SLOT_A, (size_t)shares * (size_t)a->dy.cols * 4, &sums);
    grad_args<T> k = {(const T *)a->dy.data,
                      (const T *)a->res.data,
                      (const T *)a->dres.data,
                      (T *)a->dx.data,
                      (const float *)a->weight.data,
                      (const float *)a->rstd.data,
                      (float *)sums,
                      a->dy.ld,
                      a->res.ld,
                      a->dres.ld,
                      a->dx.ld,
                      a->rstd.ld,
                      a->dy.rows,
                      a->dy.cols,
                      a->weight_offset};
    if (rc == 0)
        rc = launch_grad(d, a, k, shares);
    if (rc == 0 && sums != NULL)
        rc = cu_add_rows(d, "norm_grad: dweight", k.sums, shares, k.h, k.h,
                         (float *)a->dweight.data);
    return rc;
}

int cu_op_norm_grad(kern_dev *d, const kern_norm_grad *a)
{
    int rc = check_norm_grad(d, a);
    if (rc != 0 || a->dy.rows == 0 || a->dy.cols == 0)
        return rc;
    return a->dy.dtype == KERN_BF16 ? run_norm_grad<bf16>(d, a) : run_norm_grad<float>(d, a);
}

/* ---- sums of columns ------------------------------------------------------------------------- */

enum { SUM_COLS = 32, SUM_LANES = 8 };

/* out[c] += sum over r of x[r, c]: a block SUM_COLS columns, a thread every SUM_LANES-th row. */
static __global__ void add_rows_kernel(const float *x, int64_t rows, int64_t cols, int64_t ld,
                                       float *out)
{
    __shared__ float part[SUM_LANES][SUM_COLS];
    int64_t c = (int64_t)blockIdx.x * SUM_COLS + threadIdx.x;
    float s = 0;
    for (int64_t r = threadIdx.y; r < rows && c < cols; r += SUM_LANES)
        s += x[r * ld + c];
    part[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y != 0 || c >= cols)
        return;
    for (int i = 1; i < SUM_LANES; i++)
        s += part[i][threadIdx.x];
    out[c] += s;
}

int cu_add_rows(kern_dev *d, const char *what, const float *x, int64_t rows, int64_t cols,
                int64_t ld, float *out)
{
    return cu_launch(d, what, add_rows_kernel, cu_blocks(cols, SUM_COLS), dim3(SUM_COLS, SUM_LANES),
                     x, rows, cols, ld, out);
}
