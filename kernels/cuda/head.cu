/* The output head with loss, and plain logits.
 *
 * Only listed rows are multiplied, a chunk at a time; a chunk's logits are f32 (half of the time of
 * their traffic could be saved in bf16, at an error of 2^-9 of each logit: 0.06 for 16) and at most
 * 512 MiB: 1024 rows of a vocabulary of 128k. Their gradient in the compute dtype takes their
 * place, so that nothing else of that size exists. Traffic a row: 4V bytes written by the product,
 * read twice by the softmax, 2V written, 2V read by each product of the gradient; at h = 4096 and
 * 700 TFLOP/s that is a sixth of the products' time. */
#include <string.h>

#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/tune.h"

enum { THREADS = 256 };

/* ---- rows in and out ------------------------------------------------------------------------- */

/* dst[i] = src[row[i]], or dst[row[i]] = src[i] where OUT; 16 bytes a thread where V is such a
 * vector, else an element. per: vectors a row. */
template <typename V, bool OUT>
static __global__ void rows_kernel(const V *src, int64_t lds, V *dst, int64_t ldd,
                                   const int32_t *row, int64_t n, int64_t per)
{
    int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x, i = j / per, c = j % per;
    if (i >= n)
        return;
    int64_t r = row[i];
    dst[(OUT ? r : i) * ldd + c] = src[(OUT ? i : r) * lds + c];
}

/* n rows of src to or from the rows of the larger matrix that are listed. */
template <bool OUT>
static int move_rows(kern_dev *d, const char *what, const kern_tensor *src, const kern_tensor *dst,
                     const int32_t *row, int64_t n)
{
    int64_t e = (int64_t)kern_dtype_size(src->dtype), per = 16 / e;
    if (cu_aligned16(src) && cu_aligned16(dst))
        return cu_launch(d, what, rows_kernel<uint4, OUT>,
                         cu_blocks(n * (src->cols / per), THREADS), THREADS,
                         (const uint4 *)src->data, src->ld / per, (uint4 *)dst->data, dst->ld / per,
                         row, n, src->cols / per);
    unsigned grid = cu_blocks(n * src->cols, THREADS);
    if (e == 4)
        return cu_launch(d, what, rows_kernel<float, OUT>, grid, THREADS, (const float *)src->data,
                         src->ld, (float *)dst->data, dst->ld, row, n, src->cols);
    return cu_launch(d, what, rows_kernel<unsigned short, OUT>, grid, THREADS,
                     (const unsigned short *)src->data, src->ld, (unsigned short *)dst->data,
                     dst->ld, row, n, src->cols);
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* max and sum of exp(x - max) of what has been seen. */
struct running {
    float max, sum;
};

static __device__ __forceinline__ void see(running &s, float x)
{
    if (x > s.max) {
        s.sum *= expf(s.max - x);
        s.max = x;
    }
    s.sum += expf(x - s.max);
}

/* Four in a row, of which n are there. */
template <typename D>
static __device__ __forceinline__ void store_some(D *p, const float v[4], int64_t n)
{
    if (n >= 4)
        store4(p, v);
    else
        for (int i = 0; i < n; i++)
            p[i] = from_f32<D>(v[i]);
}

/* One row of logits l [V] (16-byte aligned) a block: logp of its target, then the gradient of coef
 * * -logp in its place, as D. Reads are by 16 bytes. In the second pass a tile is read by all
 * before any of it is written, and what is written, the shorter D, ends before the next tile
 * begins. */
template <typename D>
static __global__ void __launch_bounds__(512)
    softmax_kernel(float *logits, int64_t ld, int64_t vocab, const int32_t *row,
                   const int32_t *target, const float *coef, float *logp, bool grad)
{
    __shared__ float share[32];
    float *l = logits + (int64_t)blockIdx.x * ld;
    int64_t r = row[blockIdx.x], t = target[r], whole = vocab / 4 * 4;
    running s = {-INFINITY, 0};
    for (int64_t c = (int64_t)threadIdx.x * 4; c < whole; c += blockDim.x * 4) {
        vec16<float> v;
        load16(v, l + c);
        float top = fmaxf(fmaxf(v.v[0], v.v[1]), fmaxf(v.v[2], v.v[3]));
        if (top > s.max) {
            s.sum *= expf(s.max - top);
            s.max = top;
        }
        s.sum += (expf(v.v[0] - s.max) + expf(v.v[1] - s.max)) +
                 (expf(v.v[2] - s.max) + expf(v.v[3] - s.max));
    }
    if (whole + threadIdx.x < vocab)
        see(s, l[whole + threadIdx.x]);
    float max = block_max(s.max, share);
    float sum = block_sum(s.max == -INFINITY ? 0 : s.sum * expf(s.max - max), share);
    if (threadIdx.x == 0)
        logp[r] = l[t] - max - logf(sum);
    if (!grad)
        return;
    float k = coef[r], scale = k / sum;
    D *out = reinterpret_cast<D *>(l);
    for (int64_t c0 = 0; c0 < vocab; c0 += blockDim.x * 4) {
        int64_t c = c0 + threadIdx.x * 4;
        vec16<float> v;
#pragma unroll
        for (int i = 0; i < 4; i++)
            v.v[i] = 0;
        if (c < whole)
            load16(v, l + c);
        else if (c < vocab)
            for (int i = 0; i < 3; i++)
                v.v[i] = c + i < vocab ? l[c + i] : 0;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++)
            v.v[i] = scale * expf(v.v[i] - max) - (c + i == t ? k : 0);
        if (c < vocab)
            store_some(out + c, v.v, vocab - c);
    }
}

/* ---- head ------------------------------------------------------------------------------------ */

static int check(kern_dev *d, const kern_head *a)
{
    int64_t n = a->x.rows, h = a->w->in;
    int rc = cu_shape_of(d, "head: x", &a->x, a->w->compute, n, h);
    if (rc == 0 && a->dx.data != NULL)
        rc = cu_shape_of(d, "head: dx", &a->dx, a->w->compute, n, h);
    if (rc == 0 && a->dw.data != NULL)
        rc = cu_shape_of(d, "head: dw", &a->dw, KERN_F32, a->w->out, h);
    if (rc == 0 && (a->dx.data != NULL || a->dw.data != NULL) && a->coef == NULL)
        rc = cu_fail(d, KERN_EINVAL, "head: a gradient is wanted and coef is missing");
    if (rc == 0 && a->dx.data != NULL && !a->w->need_dx)
        rc = cu_fail(d, KERN_EINVAL, "head: dx of a weight made without need_dx");
    if (rc == 0 && (a->n_rows < 0 || a->n_rows > n))
        rc = cu_fail(d, KERN_EINVAL, "head: %lld rows are listed of %lld", (long long)a->n_rows,
                     (long long)n);
    return rc;
}

/* Rows [i, i + m) of the list. All rows listed: they are x's rows in order, and need no copy. */
typedef struct chunk {
    kern_dev *d;
    const kern_head *a;
    const int32_t *row;
    int64_t m;
    bool all;
    kern_tensor x, dx;  /* [m, h] */
    kern_tensor logits; /* F32 [m, V], rows of whole 16 bytes */
    kern_tensor dl;     /* the same memory in the compute dtype */
} chunk;

static int softmax(const chunk *c, bool grad)
{
    const kern_head *a = c->a;
    const kern_tensor *l = &c->logits;
    unsigned threads = (unsigned)tune_head_threads(l->cols);
    if (a->w->compute == KERN_F32)
        return cu_launch(c->d, "head: softmax", softmax_kernel<float>, (unsigned)c->m, threads,
                         (float *)l->data, l->ld, l->cols, c->row, a->target, a->coef, a->logp,
                         grad);
    return cu_launch(c->d, "head: softmax", softmax_kernel<bf16>, (unsigned)c->m, threads,
                     (float *)l->data, l->ld, l->cols, c->row, a->target, a->coef, a->logp, grad);
}

static int run_chunk(const chunk *c)
{
    const kern_head *a = c->a;
    bool dx = a->dx.data != NULL, dw = a->dw.data != NULL;
    cu_gemm_args y = cu_gemm_of("head: logits", c->x, false, a->w->w, true, c->logits, false);
    cu_gemm_args gx = cu_gemm_of("head: dx", c->dl, false, a->w->w, false, c->dx, false);
    cu_gemm_args gw = cu_gemm_of("head: dw", c->dl, true, c->x, false, a->dw, true);
    y.bias = a->w->bias;
    int rc = c->all ? 0 : move_rows<false>(c->d, "head: rows", &a->x, &c->x, c->row, c->m);
    if (rc == 0)
        rc = cu_gemm(c->d, &y);
    if (rc == 0)
        rc = softmax(c, dx || dw);
    if (rc == 0 && dx)
        rc = cu_gemm(c->d, &gx);
    if (rc == 0 && dx && !c->all)
        rc = move_rows<true>(c->d, "head: rows", &c->dx, &a->dx, c->row, c->m);
    return rc == 0 && dw ? cu_gemm(c->d, &gw) : rc;
}

/* What rows without a target get. */
static int clear(kern_dev *d, const kern_head *a)
{
    int rc = cu_op_zero(d, a->logp, (size_t)a->x.rows * 4);
    if (rc != 0 || a->dx.data == NULL || a->n_rows == a->x.rows)
        return rc;
    size_t e = kern_dtype_size(a->dx.dtype);
    return cu_check(d,
                    cudaMemset2DAsync(a->dx.data, (size_t)a->dx.ld * e, 0, (size_t)a->dx.cols * e,
                                      (size_t)a->dx.rows, cu_of(d)->stream),
                    "head: dx");
}

int cu_op_head(kern_dev *d, const kern_head *a)
{
    int rc = check(d, a);
    if (rc == 0 && a->x.rows > 0)
        rc = clear(d, a);
    if (rc != 0 || a->n_rows == 0)
        return rc;
    kern_dtype t = a->w->compute;
    int64_t h = a->w->in, vocab = a->w->out, rows = tune_head_rows(a->n_rows, vocab);
    int64_t ld = (vocab + 7) / 8 * 8, e = (int64_t)kern_dtype_size(t);
    void *l = NULL, *x = NULL, *dx = NULL;
    chunk c = {d, a, NULL, 0, a->n_rows == a->x.rows, {}, {}, {}, {}};
    rc = cu_scratch(d, CU_SLOT_B, (size_t)(rows * ld) * 4, &l);
    if (rc == 0 && !c.all)
        rc = cu_scratch(d, CU_SLOT_X, (size_t)(rows * h * e), &x);
    if (rc == 0 && !c.all && a->dx.data != NULL)
        rc = cu_scratch(d, CU_SLOT_A, (size_t)(rows * h * e), &dx);
    for (int64_t i = 0; i < a->n_rows && rc == 0; i += rows) {
        c.m = a->n_rows - i < rows ? a->n_rows - i : rows;
        c.row = a->row + i;
        c.x = c.all ? kern_rows(&a->x, i, c.m) : kern_mat(t, c.m, h, x);
        c.dx = c.all && a->dx.data != NULL ? kern_rows(&a->dx, i, c.m) : kern_mat(t, c.m, h, dx);
        c.logits = (kern_tensor){KERN_F32, c.m, vocab, ld, l};
        c.dl = (kern_tensor){t, c.m, vocab, ld * 4 / e, l};
        rc = run_chunk(&c);
    }
    return rc;
}

/* ---- logits ---------------------------------------------------------------------------------- */

int cu_op_logits(kern_dev *d, const kern_logits *a)
{
    const kern_weight *w = a->w;
    int rc = cu_shape_of(d, "logits: x", &a->x, w->compute, a->x.rows, w->in);
    if (rc == 0)
        rc = cu_shape_of(d, "logits: logits", &a->logits, KERN_F32, a->n_rows, w->out);
    if (rc == 0 && a->row == NULL && a->n_rows != a->x.rows)
        rc = cu_fail(d, KERN_EINVAL, "logits: %lld rows wanted of %lld and none named",
                     (long long)a->n_rows, (long long)a->x.rows);
    if (rc != 0 || a->n_rows == 0)
        return rc;
    cu_gemv_args v = {"logits", w, a->x, a->row, a->n_rows, a->logits, false, NULL, {}};
    if (cu_gemv_fits(w, a->n_rows))
        return cu_gemv(d, &v);
    cu_gemm_args g = cu_gemm_of("logits", a->x, false, w->w, true, a->logits, false);
    void *p;
    g.bias = w->bias;
    if (a->row != NULL) {
        rc =
            cu_scratch(d, CU_SLOT_X, (size_t)(a->n_rows * w->in) * kern_dtype_size(w->compute), &p);
        g.a = kern_mat(w->compute, a->n_rows, w->in, p);
        if (rc == 0)
            rc = move_rows<false>(d, "logits: rows", &a->x, &g.a, a->row, a->n_rows);
    }
    return rc == 0 ? cu_gemm(d, &g) : rc;
}
