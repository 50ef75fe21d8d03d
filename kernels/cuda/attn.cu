/* Attention inside the segments of a packed batch, forward (FlashAttention-2, arXiv:2307.08691).
 *
 * What to expect of attn_kernel, by counting; not run on a card yet. With 32 rows a warp, a product
 * of 2^12 flops reads 192 bytes of shared memory on average: 1.5 clocks, where the tensor cores of
 * sm_80 take 2 and those of sm_90 about 1.6 (mma.sync does not reach their full rate).
 * Exponentials, 16 a clock, take half the time of the products at heads of 64 and a quarter at 128,
 * while another block's products run. That leaves some 60 % of the dense rate on sm_80 (190 TFLOP/s
 * at heads of 128, long segments) and 30 to 35 % on sm_90 (300 to 350), as other kernels of these
 * tiles reach; heads of 64 some 10 % less. On sm_89 heads of 128 have one tile of 16 rows a warp:
 * 320 bytes a product, 2.5 clocks, beside tensor cores that take 4. */
#include "kernels/cuda/attn_plain.cuh"

#include <limits.h>

template <typename T> struct attn_args {
    const T *q, *k, *v;
    T *out;
    float *lse;
    int64_t ldq, ldk, ldv, ldo, ldl;
    const int32_t *cu;
    int64_t n, slots;
    int n_q, group, d, n_seg, window; /* group: query heads of a key head */
    float scale;
};

/* q [n, n_q d], k, v [n, n_kv d], out [n, n_q d]; a block is one tile of 64 TILES rows of one
 * segment and query head; heads side by side share keys and values in the L2 cache. Tiles with most
 * keys come first. 4 d flops for every pair of a query and a key that it sees. */
template <int D, int TILES>
static __global__ void __launch_bounds__(ATTN_THREADS, D == 64 ? 3 : 2)
    attn_kernel(attn_args<bf16> a)
{
    constexpr int ROWS = 16 * TILES * ATTN_WARPS;
    CU_SHARED(bf16, shared);
    int slot = (int)(a.slots - 1 - blockIdx.x / a.n_q), h = (int)(blockIdx.x % a.n_q);
    int s = attn_segment(a.cu, a.n_seg, slot, ROWS), from = a.cu[s], len = a.cu[s + 1] - from;
    attn_tile t = {};
    t.pos = (slot - (from / ROWS + s)) * ROWS;
    if (t.pos >= len)
        return;
    t.q = a.q, t.out = a.out, t.lse = a.lse;
    t.ldq = (int)a.ldq, t.ldo = (int)a.ldo, t.ldl = (int)a.ldl;
    t.row = from + t.pos;
    t.col = h * a.d;
    t.head = h;
    t.heads = 1;
    t.rows = min(len - t.pos, ROWS);
    t.window = a.window;
    t.scale = a.scale;
    t.keys.k = a.k, t.keys.v = a.v;
    t.keys.ldk = (int)a.ldk, t.keys.ldv = (int)a.ldv;
    t.keys.row = from;
    t.keys.col = h / a.group * a.d;
    t.keys.d = a.d;
    attn_forward<D, TILES, TUNE_ATTN_STEP(D), false>(t, shared);
}

/* The same without tensor cores: a warp is one row of one query head; each lane scores a key, then
 * sums its columns. Reads every key and value once for each row that sees it. */
template <typename T> static __global__ void attn_plain_kernel(attn_args<T> a)
{
    __shared__ float sq[PLAIN_WARPS][PLAIN_MOST], sp[PLAIN_WARPS][32];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int64_t i = (int64_t)blockIdx.x * PLAIN_WARPS + warp, r = i / a.n_q;
    if (r >= a.n)
        return;
    int h = (int)(i % a.n_q), hk = h / a.group, s = attn_segment(a.cu, a.n_seg, r, 0);
    int64_t from = a.cu[s];
    int pos = (int)(r - from);
    plain_load(sq[warp], a.q + r * a.ldq + (int64_t)h * a.d, a.d);
    float acc[PLAIN_COLS] = {}, top = -INFINITY, sum = 0;
    for (int j0 = max(pos - a.window + 1, 0); j0 <= pos; j0 += 32) {
        int n = min(pos + 1 - j0, 32);
        const T *k = a.k + (from + j0) * a.ldk + (int64_t)hk * a.d;
        const T *v = a.v + (from + j0) * a.ldv + (int64_t)hk * a.d;
        __syncwarp();
        float x = -INFINITY;
        if (lane < n)
            x = plain_dot(sq[warp], k + lane * a.ldk, a.d) * a.scale;
        float now = fmaxf(top, warp_max(x)), keep = expf(top - now), p = expf(x - now);
        sum = sum * keep + warp_sum(p);
        top = now;
        sp[warp][lane] = p;
        __syncwarp();
        for (int c = 0; c < PLAIN_COLS; c++)
            acc[c] *= keep;
        plain_add(acc, sp[warp], v, a.ldv, n, a.d);
    }
    plain_store(a.out + r * a.ldo + (int64_t)h * a.d, acc, 1.0F / sum, a.d);
    if (a.lse != NULL && lane == 0)
        a.lse[r * a.ldl + h] = top + logf(sum);
}

/* ---- the op ---------------------------------------------------------------------------------- */

int attn_check(kern_dev *d, const kern_attn *a)
{
    int64_t n = a->q.rows;
    kern_dtype t = a->q.dtype;
    if (a->d < 1 || a->n_q < 1 || a->n_kv < 1 || a->n_q % a->n_kv != 0 || a->window < 0)
        return cu_fail(d, KERN_EINVAL, "attn: %d query and %d key heads of %d, window %lld", a->n_q,
                       a->n_kv, a->d, (long long)a->window);
    if (a->d > PLAIN_MOST)
        return cu_fail(d, KERN_EUNSUPPORTED, "attn: heads of %d; the card takes at most %d", a->d,
                       PLAIN_MOST);
    if (!(a->scale > 0))
        return cu_fail(d, KERN_EUNSUPPORTED, "attn: scale %g; the card takes positive ones",
                       (double)a->scale);
    if (n > INT_MAX)
        return cu_fail(d, KERN_EUNSUPPORTED, "attn: %lld rows; the card takes at most %d",
                       (long long)n, INT_MAX);
    int rc = cu_activation(d, "attn: q", &a->q);
    if (rc == 0)
        rc = cu_shape(d, "attn: q", &a->q, n, (int64_t)a->n_q * a->d);
    if (rc == 0)
        rc = cu_shape_of(d, "attn: k", &a->k, t, n, (int64_t)a->n_kv * a->d);
    if (rc == 0)
        rc = cu_shape_of(d, "attn: v", &a->v, t, n, (int64_t)a->n_kv * a->d);
    if (rc == 0)
        rc = cu_shape_of(d, "attn: out", &a->out, t, n, a->q.cols);
    if (rc == 0 && a->lse.data != NULL)
        rc = cu_shape_of(d, "attn: lse", &a->lse, KERN_F32, n, a->n_q);
    if (rc == 0 && a->n_seg < 1 && n > 0)
        rc = cu_fail(d, KERN_EINVAL, "attn: %d segments of %lld rows", a->n_seg, (long long)n);
    return rc;
}

int attn_window(int64_t window)
{
    return window > 0 && window < INT_MAX ? (int)window : INT_MAX;
}

bool attn_fast(const kern_attn *a)
{
    return a->q.dtype == KERN_BF16 && a->d % 8 == 0 && cu_aligned16(&a->q) && cu_aligned16(&a->k) &&
           cu_aligned16(&a->v) && cu_aligned16(&a->out);
}

template <typename T> static attn_args<T> args_of(const kern_attn *a)
{
    attn_args<T> x = {};
    x.q = (const T *)a->q.data, x.k = (const T *)a->k.data, x.v = (const T *)a->v.data;
    x.out = (T *)a->out.data;
    x.lse = (float *)a->lse.data;
    x.ldq = a->q.ld, x.ldk = a->k.ld, x.ldv = a->v.ld, x.ldo = a->out.ld, x.ldl = a->lse.ld;
    x.cu = a->cu;
    x.n = a->q.rows;
    x.n_q = a->n_q, x.group = a->n_q / a->n_kv, x.d = a->d, x.n_seg = a->n_seg;
    x.window = attn_window(a->window);
    x.scale = a->scale;
    return x;
}

template <int D, int TILES> static int run_tiles(kern_dev *d, const kern_attn *a)
{
    attn_args<bf16> x = args_of<bf16>(a);
    x.slots = x.n / (16 * TILES * ATTN_WARPS) + a->n_seg;
    return cu_launch_smem(d, "attn", attn_kernel<D, TILES>, dim3((unsigned)(x.slots * a->n_q)),
                          ATTN_THREADS, tune_attn_bytes(D, TILES), x);
}

template <int D> static int run_head(kern_dev *d, const kern_attn *a)
{
    if (tune_attn(D, cu_of(d)->shared_max) == 2)
        return run_tiles<D, 2>(d, a);
    return run_tiles<D, 1>(d, a);
}

template <typename T> static int run_plain(kern_dev *d, const kern_attn *a)
{
    return cu_launch(d, "attn plain", attn_plain_kernel<T>,
                     cu_blocks(a->q.rows * a->n_q, PLAIN_WARPS), PLAIN_THREADS, args_of<T>(a));
}

int cu_op_attn(kern_dev *d, const kern_attn *a)
{
    int rc = attn_check(d, a);
    if (rc != 0 || a->q.rows == 0)
        return rc;
    if (a->q.dtype == KERN_F32)
        return run_plain<float>(d, a);
    if (!attn_fast(a))
        return run_plain<bf16>(d, a);
    switch (tune_attn_head(a->d)) {
    case 64:
        return run_head<64>(d, a);
    case 80:
        return run_head<80>(d, a);
    case 96:
        return run_head<96>(d, a);
    case 128:
        return run_head<128>(d, a);
    default:
        return run_tiles<256, 1>(d, a);
    }
}
