/* Attention inside the segments of a packed batch, backward (FlashAttention-2, arXiv:2307.08691):
 * probabilities are computed again from lse.
 *
 * Sums are never shared between blocks, so nothing is added atomically and the order of every sum
 * is fixed. One pass has the keys: it goes over all queries that see them, in all heads of the
 * group, and keeps dk and dv in registers. Another has the queries, goes over the keys, and keeps
 * dq. The price is that scores and their gradients are computed in both: 7 products of 2 d flops
 * for a pair of query and key where one pass with atomics has 5.
 *
 * What to expect, by counting; not run on a card yet. A product of 2^12 flops reads, on average,
 * 192 bytes of shared memory for dk and dv at heads of 64 and 320 at 128, 213 for dq: 1.5 to 2.5
 * clocks beside tensor cores that take 2 (sm_80) or about 1.6 (sm_90). Some 55 % of that bound
 * gives, at heads of 128, 140 TFLOP/s of products on sm_80 and 240 on sm_90: 100 and 170 in the
 * usual count of 5 products. */
#include "kernels/cuda/attn_plain.cuh"

template <typename T> struct grad_args {
    const T *q, *k, *v, *out, *dout;
    T *dq, *dk, *dv;
    const float *lse;
    float2 *stat; /* [n_q, n]: lse in units of log 2, and the sum over a row of out dout */
    int64_t ldl;
    int ldq, ldk, ldv, ldo, lddo, lddq, lddk, lddv;
    const int32_t *cu;
    int64_t n, slots;
    int n_q, n_kv, group, d, n_seg, window;
    float scale;
};

/* stat from out, dout [n, n_q d] and lse [n, n_q]; a warp a row and head. Reads 2 n n_q d elements;
 * WIDE: four at a time. Not run on a card yet. */
template <typename T, bool WIDE> static __global__ void attn_stat_kernel(grad_args<T> a)
{
    int64_t i = (int64_t)blockIdx.x * PLAIN_WARPS + (threadIdx.x >> 5), r = i / a.n_q;
    int lane = threadIdx.x & 31, h = (int)(i % a.n_q);
    if (r >= a.n)
        return;
    const T *o = a.out + r * a.ldo + (int64_t)h * a.d, *g = a.dout + r * a.lddo + (int64_t)h * a.d;
    float sum = 0;
    if (WIDE) {
        for (int c = 4 * lane; c < a.d; c += 128) {
            uint2 x = *reinterpret_cast<const uint2 *>(o + c);
            uint2 y = *reinterpret_cast<const uint2 *>(g + c);
            float2 x0 = unpack_bf16(x.x), x1 = unpack_bf16(x.y);
            float2 y0 = unpack_bf16(y.x), y1 = unpack_bf16(y.y);
            sum += x0.x * y0.x + x0.y * y0.y + x1.x * y1.x + x1.y * y1.y;
        }
    } else {
        for (int c = lane; c < a.d; c += 32)
            sum = fmaf(to_f32(o[c]), to_f32(g[c]), sum);
    }
    sum = warp_sum(sum);
    if (lane == 0)
        a.stat[h * a.n + r] = make_float2(a.lse[r * a.ldl + h] * ATTN_LOG2E, sum);
}

/* ---- dk and dv ------------------------------------------------------------------------------- */

/* What a block of the first pass knows: keys [key, key + keys) of a segment from row `from`
 * on, seen by queries [key, end). */
typedef struct key_tile {
    int from, key, keys, end, head; /* head: of keys */
} key_tile;

/* Starts the copy of STEP queries, their gradients of outputs and their stat into a stage. */
template <int D, int STEP>
__device__ __forceinline__ void load_queries(const grad_args<bf16> &a, const key_tile &t, int head,
                                             int pos, bf16 *stage, float2 *stat)
{
    int64_t row = t.from + pos;
    int rows = t.end - pos, col = head * a.d;
    attn_load<D, STEP>(stage, a.q + row * a.ldq + col, a.ldq, rows, a.d);
    attn_load<D, STEP>(stage + STEP * D, a.dout + row * a.lddo + col, a.lddo, rows, a.d);
    if (threadIdx.x < STEP)
        copy_async8(stat + threadIdx.x, a.stat + head * a.n + row + threadIdx.x,
                    (int)threadIdx.x < rows);
    copy_commit();
}

/* Scores [keys, queries] become probabilities. Queries past the end have zeros for everything,
 * which leaves nothing of their probability. */
template <int TILES, int COLS>
__device__ __forceinline__ void recall(float (&s)[TILES][COLS][4], const float2 *stat, float c)
{
    int t = threadIdx.x & 3;
#pragma unroll
    for (int n = 0; n < COLS; n++) {
        float4 w = *reinterpret_cast<const float4 *>(stat + 8 * n + 2 * t);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[m][n][i] = exp2_fast(s[m][n][i] * c - ((i & 1) == 0 ? w.x : w.z));
    }
}

/* Keys [j, ...) of the warp against queries [p0, ...): what does not see each other becomes 0. */
template <int TILES, int COLS>
__device__ __forceinline__ void hide(float (&s)[TILES][COLS][4], int j, int p0, int window)
{
    int g = threadIdx.x >> 2 & 7, t = threadIdx.x & 3;
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int n = 0; n < COLS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int key = j + 16 * m + 8 * (i >> 1) + g, p = p0 + 8 * n + 2 * t + (i & 1);
                if (key > p || key <= p - window)
                    s[m][n][i] = 0;
            }
}

/* Gradients of the scores, but for the scale: p (dp - stat.y). */
template <int TILES, int COLS>
__device__ __forceinline__ void score_grad(float (&s)[TILES][COLS][4],
                                           const float (&dp)[TILES][COLS][4], const float2 *stat)
{
    int t = threadIdx.x & 3;
#pragma unroll
    for (int n = 0; n < COLS; n++) {
        float4 w = *reinterpret_cast<const float4 *>(stat + 8 * n + 2 * t);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[m][n][i] *= dp[m][n][i] - ((i & 1) == 0 ? w.y : w.w);
    }
}

/* Stores columns [8 part, 8 part + 8 WIDE) of the block's rows, which stand in the first WIDE
 * chunks of a tile; each warp its own. */
template <int D, int TILES, int WIDE>
__device__ __forceinline__ void store_rows(const bf16 *tile, bf16 *to, int ld, int rows, int part,
                                           int d)
{
    int lane = threadIdx.x & 31, at = (threadIdx.x >> 5) * 16 * TILES;
    for (int i = lane; i < 16 * TILES * WIDE; i += 32) {
        int r = at + i / WIDE, c = i % WIDE;
        if (r < rows && (part + c) * 8 < d)
            *reinterpret_cast<uint4 *>(to + (int64_t)r * ld + (part + c) * 8) =
                *reinterpret_cast<const uint4 *>(tile + attn_chunk<D>(r, c));
    }
}

/* Products go [keys, queries], so that probabilities lie in registers as the sums over queries want
 * them: nothing goes through shared memory twice. 8 d flops a pair. Heads of 256 are too wide for
 * the registers: two blocks make half of the columns each, and the scores both (12 d). */
template <int D, int TILES, int PARTS>
static __global__ void __launch_bounds__(ATTN_THREADS, 2) attn_dkv_kernel(grad_args<bf16> a)
{
    constexpr int ROWS = 16 * TILES * ATTN_WARPS, STEP = TUNE_ATTN_STEP(D), WIDE = D / 8 / PARTS;
    constexpr int UNROLL = TILES == 2 ? 2 : 16;
    CU_SHARED(bf16, shared);
    bf16 *sk = shared, *sv = sk + ROWS * D, *stage = sv + ROWS * D;  /* [2][q, dout][STEP, D] */
    float2 *stat = reinterpret_cast<float2 *>(stage + 4 * STEP * D); /* [2][STEP] */
    int slot = (int)(blockIdx.x / (a.n_kv * PARTS)), part = (int)(blockIdx.x / a.n_kv % PARTS);
    int s = attn_segment(a.cu, a.n_seg, slot, ROWS), at = (threadIdx.x >> 5) * 16 * TILES;
    key_tile t;
    t.head = (int)(blockIdx.x % a.n_kv);
    t.from = a.cu[s];
    t.key = (slot - (t.from / ROWS + s)) * ROWS;
    t.end = a.cu[s + 1] - t.from;
    if (t.key >= t.end)
        return;
    t.keys = min(t.end - t.key, ROWS);
    if (t.end - t.key - t.keys >= a.window)
        t.end = t.key + t.keys + a.window - 1;
    int64_t row = t.from + t.key;
    int col = t.head * a.d, first = t.key + at; /* the warp's first key */
    attn_load<D, ROWS>(sk, a.k + row * a.ldk + col, a.ldk, t.keys, a.d);
    attn_load<D, ROWS>(sv, a.v + row * a.ldv + col, a.ldv, t.keys, a.d);

    float dk[TILES][WIDE][4], dv[TILES][WIDE][4], c = a.scale * ATTN_LOG2E;
    attn_clear(dk);
    attn_clear(dv);
    int head = t.head * a.group, last = head + a.group, pos = t.key, odd = 0;
    load_queries<D, STEP>(a, t, head, pos, stage, stat);
    while (head < last) {
        const bf16 *sq = stage + odd * 2 * STEP * D, *sd = sq + STEP * D;
        const float2 *w = stat + odd * STEP;
        int p0 = pos;
        odd ^= 1;
        pos += STEP;
        if (pos >= t.end) {
            pos = t.key;
            head++;
        }
        copy_wait<0>();
        __syncthreads();
        if (head < last)
            load_queries<D, STEP>(a, t, head, pos, stage + odd * 2 * STEP * D, stat + odd * STEP);
        if (at >= t.keys || p0 + STEP - 1 < first || first + 16 * TILES - 1 <= p0 - a.window)
            continue;
        float p[TILES][STEP / 8][4], dp[TILES][STEP / 8][4];
        attn_clear(p);
        attn_rows<D, UNROLL>(p, sk, at, sq, 0);
        recall(p, w, c);
        if (p0 < first + 16 * TILES - 1 || first <= p0 + STEP - 1 - a.window)
            hide(p, first, p0, a.window);
        attn_columns<D>(dv, p, sd, 0, part * WIDE);
        attn_clear(dp);
        attn_rows<D, UNROLL>(dp, sv, at, sd, 0);
        score_grad(p, dp, w);
        attn_columns<D>(dk, p, sq, 0, part * WIDE);
    }

    float scale[TILES][2], one[TILES][2];
    for (int m = 0; m < TILES; m++)
        for (int h = 0; h < 2; h++)
            scale[m][h] = a.scale, one[m][h] = 1.0F;
    attn_put<D>(sk, at, dk, scale);
    attn_put<D>(sv, at, dv, one);
    row = t.from + t.key;
    store_rows<D, TILES, WIDE>(sk, a.dk + row * a.lddk + col, a.lddk, t.keys, part * WIDE, a.d);
    store_rows<D, TILES, WIDE>(sv, a.dv + row * a.lddv + col, a.lddv, t.keys, part * WIDE, a.d);
}

/* ---- dq -------------------------------------------------------------------------------------- */

/* A block is a tile of queries of one head, as in the forward pass. 6 d flops a pair. */
template <int D, int TILES>
static __global__ void __launch_bounds__(ATTN_THREADS, 2) attn_dq_kernel(grad_args<bf16> a)
{
    constexpr int ROWS = 16 * TILES * ATTN_WARPS, STEP = TUNE_ATTN_STEP(D), C = D / 8;
    constexpr int UNROLL = D == 128 && TILES == 2 ? 4 : 16;
    CU_SHARED(bf16, shared);
    bf16 *sq = shared, *sd = sq + ROWS * D, *stage = sd + ROWS * D; /* [2][keys, values][STEP, D] */
    float2 *stat = reinterpret_cast<float2 *>(stage + 4 * STEP * D); /* [ROWS] */
    int slot = (int)(a.slots - 1 - blockIdx.x / a.n_q), h = (int)(blockIdx.x % a.n_q);
    int s = attn_segment(a.cu, a.n_seg, slot, ROWS), from = a.cu[s], len = a.cu[s + 1] - from;
    int pos = (slot - (from / ROWS + s)) * ROWS, rows = min(len - pos, ROWS), row = from + pos;
    if (rows <= 0)
        return;
    int lane = threadIdx.x & 31, at = (threadIdx.x >> 5) * 16 * TILES;
    int end = pos + rows, first = max(pos - a.window + 1, 0) / STEP * STEP;
    attn_keys keys = {};
    keys.k = a.k, keys.v = a.v;
    keys.ldk = a.ldk, keys.ldv = a.ldv;
    keys.row = from;
    keys.col = h / a.group * a.d;
    keys.d = a.d;
    attn_load<D, ROWS>(sq, a.q + (int64_t)row * a.ldq + h * a.d, a.ldq, rows, a.d);
    attn_load<D, ROWS>(sd, a.dout + (int64_t)row * a.lddo + h * a.d, a.lddo, rows, a.d);
    for (int i = threadIdx.x; i < ROWS; i += ATTN_THREADS)
        copy_async8(stat + i, a.stat + h * a.n + row + i, i < rows);
    attn_load_keys<D, STEP, ATTN_THREADS, false>(stage, keys, first, end);
    copy_commit();

    float dq[TILES][C][4], c = a.scale * ATTN_LOG2E;
    int p[TILES][2];
    attn_clear(dq);
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            p[m][i] = pos + at + 16 * m + 8 * i + (lane >> 2);
    int p0 = pos + at, p1 = min(p0 + 16 * TILES, end) - 1; /* the warp's first and last */
    for (int j0 = first, odd = 0; j0 < end; j0 += STEP, odd ^= 1) {
        const bf16 *sk = stage + odd * 2 * STEP * D, *sv = sk + STEP * D;
        copy_wait<0>();
        __syncthreads();
        if (j0 + STEP < end)
            attn_load_keys<D, STEP, ATTN_THREADS, false>(stage + (odd ^ 1) * 2 * STEP * D, keys,
                                                         j0 + STEP, end);
        copy_commit();
        if (at >= rows || j0 > p1 || j0 + STEP - 1 <= p0 - a.window)
            continue;
        float x[TILES][STEP / 8][4], dp[TILES][STEP / 8][4];
        attn_clear(x);
        attn_rows<D, UNROLL>(x, sq, at, sk, 0);
        if (j0 + STEP - 1 > p0 || j0 <= p1 - a.window)
            attn_mask(x, p, j0, a.window);
        attn_clear(dp);
        attn_rows<D, UNROLL>(dp, sd, at, sv, 0);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float2 w = stat[at + 16 * m + 8 * (i >> 1) + (lane >> 2)];
#pragma unroll
                for (int n = 0; n < STEP / 8; n++)
                    x[m][n][i] = exp2_fast(x[m][n][i] * c - w.x) * (dp[m][n][i] - w.y);
            }
        attn_columns<D>(dq, x, sk, 0, 0);
    }
    copy_wait<0>();

    float scale[TILES][2];
    for (int m = 0; m < TILES; m++)
        for (int i = 0; i < 2; i++)
            scale[m][i] = a.scale;
    attn_put<D>(sq, at, dq, scale);
    store_rows<D, TILES, C>(sq, a.dq + (int64_t)row * a.lddq + h * a.d, a.lddq, rows, 0, a.d);
}

/* ---- without tensor cores -------------------------------------------------------------------- */

/* A warp's shared memory: the two rows that stay, and what 32 of the others weigh. */
typedef struct plain_mem {
    float a[PLAIN_MOST], b[PLAIN_MOST], p[32], ds[32];
} plain_mem;

/* dq of one row and head: lanes score a key each, then sum their columns. */
template <typename T> static __global__ void attn_dq_plain_kernel(grad_args<T> a)
{
    __shared__ plain_mem mem[PLAIN_WARPS];
    plain_mem *m = &mem[threadIdx.x >> 5];
    int64_t i = (int64_t)blockIdx.x * PLAIN_WARPS + (threadIdx.x >> 5), r = i / a.n_q;
    if (r >= a.n)
        return;
    int lane = threadIdx.x & 31, h = (int)(i % a.n_q), hk = h / a.group;
    int64_t from = a.cu[attn_segment(a.cu, a.n_seg, r, 0)];
    int pos = (int)(r - from);
    plain_load(m->a, a.q + r * a.ldq + (int64_t)h * a.d, a.d);
    plain_load(m->b, a.dout + r * a.lddo + (int64_t)h * a.d, a.d);
    float acc[PLAIN_COLS] = {}, lse = a.lse[r * a.ldl + h], delta = a.stat[h * a.n + r].y;
    for (int j0 = max(pos - a.window + 1, 0); j0 <= pos; j0 += 32) {
        int n = min(pos + 1 - j0, 32);
        const T *k = a.k + (from + j0) * a.ldk + (int64_t)hk * a.d;
        const T *v = a.v + (from + j0) * a.ldv + (int64_t)hk * a.d;
        __syncwarp();
        float ds = 0;
        if (lane < n) {
            float p = expf(plain_dot(m->a, k + (int64_t)lane * a.ldk, a.d) * a.scale - lse);
            ds = p * (plain_dot(m->b, v + (int64_t)lane * a.ldv, a.d) - delta);
        }
        m->ds[lane] = ds;
        __syncwarp();
        plain_add(acc, m->ds, k, a.ldk, n, a.d);
    }
    plain_store(a.dq + r * a.lddq + (int64_t)h * a.d, acc, a.scale, a.d);
}

/* dk and dv of one row and key head: lanes score a query each, in all heads of the group. */
template <typename T> static __global__ void attn_dkv_plain_kernel(grad_args<T> a)
{
    __shared__ plain_mem mem[PLAIN_WARPS];
    plain_mem *m = &mem[threadIdx.x >> 5];
    int64_t i = (int64_t)blockIdx.x * PLAIN_WARPS + (threadIdx.x >> 5), r = i / a.n_kv;
    if (r >= a.n)
        return;
    int lane = threadIdx.x & 31, hk = (int)(i % a.n_kv);
    int64_t end = a.cu[attn_segment(a.cu, a.n_seg, r, 0) + 1];
    end = end - r < a.window ? end : r + a.window;
    plain_load(m->a, a.k + r * a.ldk + (int64_t)hk * a.d, a.d);
    plain_load(m->b, a.v + r * a.ldv + (int64_t)hk * a.d, a.d);
    float dk[PLAIN_COLS] = {}, dv[PLAIN_COLS] = {};
    for (int h = hk * a.group; h < (hk + 1) * a.group; h++)
        for (int64_t r0 = r; r0 < end; r0 += 32) {
            int n = end - r0 < 32 ? (int)(end - r0) : 32;
            const T *q = a.q + r0 * a.ldq + (int64_t)h * a.d;
            const T *g = a.dout + r0 * a.lddo + (int64_t)h * a.d;
            __syncwarp();
            float p = 0, ds = 0;
            if (lane < n) {
                float lse = a.lse[(r0 + lane) * a.ldl + h];
                p = expf(plain_dot(m->a, q + (int64_t)lane * a.ldq, a.d) * a.scale - lse);
                ds = p * (plain_dot(m->b, g + (int64_t)lane * a.lddo, a.d) -
                          a.stat[h * a.n + r0 + lane].y);
            }
            m->p[lane] = p;
            m->ds[lane] = ds;
            __syncwarp();
            plain_add(dv, m->p, g, a.lddo, n, a.d);
            plain_add(dk, m->ds, q, a.ldq, n, a.d);
        }
    plain_store(a.dk + r * a.lddk + (int64_t)hk * a.d, dk, a.scale, a.d);
    plain_store(a.dv + r * a.lddv + (int64_t)hk * a.d, dv, 1.0F, a.d);
}

/* ---- the op ---------------------------------------------------------------------------------- */

static int check(kern_dev *d, const kern_attn_grad *a)
{
    const kern_attn *f = &a->f;
    kern_dtype t = f->q.dtype;
    int64_t n = f->q.rows;
    int rc = attn_check(d, f);
    if (rc == 0)
        rc = cu_shape_of(d, "attn_grad: lse", &f->lse, KERN_F32, n, f->n_q);
    if (rc == 0)
        rc = cu_shape_of(d, "attn_grad: dout", &a->dout, t, n, f->q.cols);
    if (rc == 0)
        rc = cu_shape_of(d, "attn_grad: dq", &a->dq, t, n, f->q.cols);
    if (rc == 0)
        rc = cu_shape_of(d, "attn_grad: dk", &a->dk, t, n, f->k.cols);
    if (rc == 0)
        rc = cu_shape_of(d, "attn_grad: dv", &a->dv, t, n, f->k.cols);
    return rc;
}

template <typename T> static grad_args<T> args_of(const kern_attn_grad *a, void *stat)
{
    const kern_attn *f = &a->f;
    grad_args<T> x = {};
    x.q = (const T *)f->q.data, x.k = (const T *)f->k.data, x.v = (const T *)f->v.data;
    x.out = (const T *)f->out.data, x.dout = (const T *)a->dout.data;
    x.dq = (T *)a->dq.data, x.dk = (T *)a->dk.data, x.dv = (T *)a->dv.data;
    x.lse = (const float *)f->lse.data;
    x.stat = (float2 *)stat;
    x.ldl = f->lse.ld;
    x.ldq = (int)f->q.ld, x.ldk = (int)f->k.ld, x.ldv = (int)f->v.ld, x.ldo = (int)f->out.ld;
    x.lddo = (int)a->dout.ld;
    x.lddq = (int)a->dq.ld, x.lddk = (int)a->dk.ld, x.lddv = (int)a->dv.ld;
    x.cu = f->cu;
    x.n = f->q.rows;
    x.n_q = f->n_q, x.n_kv = f->n_kv, x.group = f->n_q / f->n_kv, x.d = f->d, x.n_seg = f->n_seg;
    x.window = attn_window(f->window);
    x.scale = f->scale;
    return x;
}

template <int D, int TILES, int PARTS> static int run_dkv(kern_dev *d, grad_args<bf16> x)
{
    x.slots = x.n / (16 * TILES * ATTN_WARPS) + x.n_seg;
    return cu_launch_smem(d, "attn_grad dk, dv", attn_dkv_kernel<D, TILES, PARTS>,
                          dim3((unsigned)(x.slots * PARTS * x.n_kv)), ATTN_THREADS,
                          tune_attn_dkv_bytes(D, TILES), x);
}

template <int D, int TILES> static int run_dq(kern_dev *d, grad_args<bf16> x)
{
    x.slots = x.n / (16 * TILES * ATTN_WARPS) + x.n_seg;
    return cu_launch_smem(d, "attn_grad dq", attn_dq_kernel<D, TILES>,
                          dim3((unsigned)(x.slots * x.n_q)), ATTN_THREADS,
                          tune_attn_dq_bytes(D, TILES), x);
}

template <int D> static int run_head(kern_dev *d, const grad_args<bf16> &x)
{
    int rc;
    if (D == 64 && tune_attn_dkv(D, x.n, x.n_kv) == 2)
        rc = run_dkv < D, D == 64 ? 2 : 1, 1 > (d, x);
    else
        rc = run_dkv<D, 1, 1>(d, x);
    if (rc != 0)
        return rc;
    return tune_attn_dq(D, cu_of(d)->shared_max) == 2 ? run_dq<D, 2>(d, x) : run_dq<D, 1>(d, x);
}

static int run_tiles(kern_dev *d, const grad_args<bf16> &x)
{
    int rc = cu_launch(d, "attn_grad stat", attn_stat_kernel<bf16, true>,
                       cu_blocks(x.n * x.n_q, PLAIN_WARPS), PLAIN_THREADS, x);
    if (rc != 0)
        return rc;
    switch (tune_attn_head(x.d)) {
    case 64:
        return run_head<64>(d, x);
    case 80:
        return run_head<80>(d, x);
    case 96:
        return run_head<96>(d, x);
    case 128:
        return run_head<128>(d, x);
    default:
        rc = run_dkv<256, 1, 2>(d, x);
        return rc == 0 ? run_dq<256, 1>(d, x) : rc;
    }
}

template <typename T> static int run_plain(kern_dev *d, const grad_args<T> &x)
{
    unsigned queries = cu_blocks(x.n * x.n_q, PLAIN_WARPS),
             keys = cu_blocks(x.n * x.n_kv, PLAIN_WARPS);
    int rc = cu_launch(d, "attn_grad stat", attn_stat_kernel<T, false>, queries, PLAIN_THREADS, x);
    if (rc == 0)
        rc = cu_launch(d, "attn_grad dk, dv", attn_dkv_plain_kernel<T>, keys, PLAIN_THREADS, x);
    if (rc == 0)
        rc = cu_launch(d, "attn_grad dq", attn_dq_plain_kernel<T>, queries, PLAIN_THREADS, x);
    return rc;
}

int cu_op_attn_grad(kern_dev *d, const kern_attn_grad *a)
{
    void *stat;
    int rc = check(d, a);
    if (rc != 0 || a->f.q.rows == 0)
        return rc;
    rc = cu_scratch(d, CU_SLOT_A, (size_t)(a->f.q.rows * a->f.n_q) * sizeof(float2), &stat);
    if (rc != 0)
        return rc;
    if (a->f.q.dtype == KERN_F32)
        return run_plain(d, args_of<float>(a, stat));
    if (attn_fast(&a->f) && cu_aligned16(&a->dout) && cu_aligned16(&a->dq) &&
        cu_aligned16(&a->dk) && cu_aligned16(&a->dv))
        return run_tiles(d, args_of<bf16>(a, stat));
    return run_plain(d, args_of<bf16>(a, stat));
}
