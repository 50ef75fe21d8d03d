/* The paged cache of keys and values, and attention over it.
 *
 * Three ways, chosen by what the host knows: dtypes, alignment, rows and sequences. All are right
 * for whatever q_start, kv_len and blocks say: a sequence may bring no row, one or many. */
#include "kernels/cuda/attn_plain.cuh"

#include <limits.h>
#include <stdlib.h>

int cu_op_kv_new(kern_dev *d, const kern_kv_new_args *a)
{
    *a->out = NULL;
    if (a->dtype != KERN_F32 && a->dtype != KERN_BF16)
        return cu_fail(d, KERN_EUNSUPPORTED, "kv_new: a cache of %s", kern_dtype_name(a->dtype));
    if (a->n_layers < 1 || a->n_kv < 1 || a->d < 1 || a->block_tokens < 1 || a->n_blocks < 1 ||
        a->n_blocks > INT_MAX / a->block_tokens)
        return cu_fail(d, KERN_EINVAL, "kv_new: %d layers, %d heads of %d, %lld blocks of %d",
                       a->n_layers, a->n_kv, a->d, (long long)a->n_blocks, a->block_tokens);
    kern_kv *kv = (kern_kv *)calloc(1, sizeof *kv);
    if (kv == NULL)
        return cu_fail(d, KERN_ENOMEM, "kv_new: no memory for %zu bytes", sizeof *kv);
    kv->n_layers = a->n_layers, kv->n_kv = a->n_kv, kv->d = a->d;
    kv->block_tokens = a->block_tokens;
    kv->n_blocks = a->n_blocks;
    kv->dtype = a->dtype;
    void *p;
    int rc =
        cu_take(d, "kv_new",
                (size_t)(2 * cu_kv_half(kv)) * (size_t)a->n_layers * kern_dtype_size(a->dtype), &p);
    if (rc != 0) {
        free(kv);
        return rc;
    }
    kv->data = (char *)p;
    *a->out = kv;
    return 0;
}

int cu_op_kv_free(kern_dev *d, kern_kv *kv)
{
    int rc = kv != NULL ? cu_op_sync(d) : 0; /* what is queued may use it */
    if (kv != NULL)
        cu_give(d, kv->data);
    free(kv);
    return rc;
}

/* ---- kernels --------------------------------------------------------------------------------- */

template <typename T, typename K> struct paged_args {
    const T *q;
    T *out;
    const K *k, *v; /* of the layer */
    const int32_t *q_start, *kv_len, *blocks;
    int64_t ldq, ldo, n, slots, max_blocks;
    int n_q, n_kv, group, d, n_seq, window, block_tokens, shift;
    int64_t between; /* from one block of a head to the next, in elements */
    float scale;
    int splits, cuts; /* of one row's keys; of the heads of a group, 16 each */
    float *sum;       /* [n, n_q, splits, d] */
    float2 *weight;   /* [n, n_q, splits]: largest score in units of log 2, sum of powers */
};

static __device__ __forceinline__ attn_keys keys_of(const paged_args<bf16, bf16> &a, int s, int hk)
{
    attn_keys k = {};
    k.k = a.k, k.v = a.v;
    k.d = a.d;
    k.col = hk * a.block_tokens * a.d;
    k.blocks = a.blocks + s * a.max_blocks;
    k.block_tokens = a.block_tokens, k.shift = a.shift;
    k.between = a.between;
    return k;
}

/* q, out [n, n_q d]; the rows of a block's tile are the heads of one group for each of TOKENS
 * tokens of one sequence, so that its keys are read once for all of them. The last tokens, which
 * see most, first. Not run on a card yet; as attn_kernel, but that the place of each key is looked
 * up. */
template <int D, int TILES>
static __global__ void __launch_bounds__(ATTN_THREADS, 2) paged_kernel(paged_args<bf16, bf16> a)
{
    constexpr int ROWS = 16 * TILES * ATTN_WARPS;
    CU_SHARED(bf16, shared);
    int tokens = ROWS / a.group, hk = (int)(blockIdx.x % a.n_kv);
    int slot = (int)(a.slots - 1 - blockIdx.x / a.n_kv);
    int s = attn_segment(a.q_start, a.n_seq, slot, tokens), from = a.q_start[s];
    int len = a.q_start[s + 1] - from, first = (slot - (from / tokens + s)) * tokens;
    if (first >= len)
        return;
    attn_tile t = {};
    t.q = a.q, t.out = a.out;
    t.ldq = (int)a.ldq, t.ldo = (int)a.ldo;
    t.row = from + first;
    t.head = hk * a.group;
    t.col = t.head * a.d;
    t.heads = a.group;
    t.rows = min(len - first, tokens) * a.group;
    t.pos = a.kv_len[s] - len + first;
    t.window = a.window;
    t.scale = a.scale;
    t.keys = keys_of(a, s, hk);
    attn_forward<D, TILES, TUNE_ATTN_STEP(D), true>(t, shared);
}

/* Warps of a block that splits keys, 16 of a tile each. */
#define SPLIT_WARPS(D) ((D) <= 128 ? 4 : 2)

/* What the warps found, side by side in shared memory: sums [WARPS][16, D], largest scores and sums
 * of powers [WARPS][16]. Added in the order of the warps; rows [0, rows) leave the block. */
template <int D>
static __device__ __forceinline__ void merge_warps(const paged_args<bf16, bf16> &a,
                                                   const float *sum, const float2 *weight,
                                                   int64_t row, int head, int rows, int split)
{
    constexpr int WARPS = SPLIT_WARPS(D);
    for (int i = threadIdx.x; i < rows * a.d; i += 32 * WARPS) {
        int r = i / a.d, c = i % a.d;
        float top = -INFINITY, total = 0, x = 0;
        for (int w = 0; w < WARPS; w++)
            top = fmaxf(top, weight[w * 16 + r].x);
        float base = top == -INFINITY ? 0.0F : top;
        for (int w = 0; w < WARPS; w++) {
            float f = exp2_fast(weight[w * 16 + r].x - base);
            total += weight[w * 16 + r].y * f;
            x += sum[(w * 16 + r) * D + c] * f;
        }
        int64_t to = row * a.n_q + head + r;
        if (a.splits == 1) {
            a.out[row * a.ldo + (head + r) * a.d + c] =
                from_f32<bf16>(total == 0 ? 0.0F : x / total);
            continue;
        }
        a.sum[(to * a.splits + split) * a.d + c] = x;
        if (c == 0)
            a.weight[to * a.splits + split] = make_float2(top, total);
    }
}

/* One row, up to 16 query heads of one key head, one piece of its keys: a block reads every key and
 * value of the piece once, 2 d * 2 bytes a token, and each warp scores 16 of a tile's keys by
 * itself. Memory is what it waits for: a tile is 32 KiB at heads of 128, one of two stages is
 * always on its way, in three blocks a multiprocessor. A row that no sequence has gets zeros. Not
 * run on a card yet; to be measured in bytes a second. */
template <int D>
static __global__ void __launch_bounds__(32 * SPLIT_WARPS(D))
    paged_split_kernel(paged_args<bf16, bf16> a)
{
    constexpr int WARPS = SPLIT_WARPS(D), THREADS = 32 * WARPS, KEYS = 16 * WARPS, C = D / 8;
    CU_SHARED(bf16, shared);
    bf16 *stage = shared, *sq = stage + 4 * KEYS * D; /* [2][keys, values][KEYS, D], [16, D] */
    int split = (int)(blockIdx.x % a.splits), cut = (int)(blockIdx.y % a.cuts);
    int64_t row = blockIdx.x / a.splits;
    int hk = (int)(blockIdx.y / a.cuts), head = hk * a.group + 16 * cut;
    int rows = min(a.group - 16 * cut, 16), warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int s = attn_segment(a.q_start, a.n_seq, row, 0), last = a.q_start[s + 1];
    int pos = row < last ? a.kv_len[s] - (last - (int)row) : -1;
    /* Tiles of the row, and of this piece of it. */
    int lo = max(pos - a.window + 1, 0) / KEYS, hi = (pos + KEYS) / KEYS;
    int each = (hi - lo + a.splits - 1) / a.splits;
    lo += split * each;
    hi = min(lo + each, hi);
    attn_keys keys = keys_of(a, s, hk);
    if (lo < hi)
        attn_load_keys<D, KEYS, THREADS, true>(stage, keys, lo * KEYS, pos + 1);
    attn_load_heads<D, 16, THREADS>(sq, a.q + row * a.ldq + head * a.d, 0, 16, rows, a.d);
    copy_commit();

    attn_state<1> st = {{{-INFINITY, -INFINITY}}, {{0, 0}}, {{pos, pos}}};
    float o[1][C][4], c = a.scale * ATTN_LOG2E;
    attn_clear(o);
    for (int t = lo, odd = 0; t < hi; t++, odd ^= 1) {
        const bf16 *sk = stage + odd * 2 * KEYS * D, *sv = sk + KEYS * D;
        int j0 = t * KEYS + 16 * warp;
        copy_wait<0>();
        __syncthreads();
        if (t + 1 < hi)
            attn_load_keys<D, KEYS, THREADS, true>(stage + (odd ^ 1) * 2 * KEYS * D, keys,
                                                   (t + 1) * KEYS, pos + 1);
        copy_commit();
        if (j0 > pos || j0 + 15 <= pos - a.window)
            continue;
        float x[1][2][4];
        attn_clear(x);
        attn_rows<D>(x, sq, 0, sk, 16 * warp);
        if (j0 + 15 > pos || j0 <= pos - a.window)
            attn_mask(x, st.pos, j0, a.window);
        attn_soften(x, st, o, c);
        attn_columns<D>(o, x, sv, 16 * warp, 0);
    }
    copy_wait<0>();
    __syncthreads(); /* the stages are free */
    float *sum = reinterpret_cast<float *>(stage) + warp * 16 * D;
    float2 *weight = reinterpret_cast<float2 *>(sq + 16 * D) + warp * 16;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int r = 8 * h + (lane >> 2);
        float total = attn_quad_sum(st.sum[0][h]);
        if ((lane & 3) == 0)
            weight[r] = make_float2(st.top[0][h] * c, total);
#pragma unroll
        for (int n = 0; n < C; n++)
            *reinterpret_cast<float2 *>(sum + r * D + 8 * n + 2 * (lane & 3)) =
                make_float2(o[0][n][2 * h], o[0][n][2 * h + 1]);
    }
    __syncthreads();
    merge_warps<D>(a, sum - warp * 16 * D, weight - warp * 16, row, head, rows, split);
}

/* out from the pieces, in order; a warp a row and head. Reads splits * d floats for each. */
static __global__ void paged_merge_kernel(paged_args<bf16, bf16> a)
{
    int64_t i = (int64_t)blockIdx.x * PLAIN_WARPS + (threadIdx.x >> 5), row = i / a.n_q;
    if (row >= a.n)
        return;
    const float2 *w = a.weight + i * a.splits;
    const float *sum = a.sum + i * a.splits * a.d;
    float top = -INFINITY, total = 0, acc[PLAIN_COLS] = {};
    for (int s = 0; s < a.splits; s++)
        top = fmaxf(top, w[s].x);
    for (int s = 0; s < a.splits; s++) {
        if (w[s].y == 0)
            continue;
        float f = top == -INFINITY ? 1.0F : exp2_fast(w[s].x - top);
        total += w[s].y * f;
        plain_add(acc, &f, sum + (int64_t)s * a.d, 0, 1, a.d);
    }
    plain_store(a.out + row * a.ldo + i % a.n_q * a.d, acc, total == 0 ? 0.0F : 1.0F / total, a.d);
}

/* Without tensor cores, for any dtypes and alignment: a warp a row and head, as attn_plain_kernel;
 * lanes keep the place of their key for the others. A row that no sequence has gets zeros. */
template <typename T, typename K> static __global__ void paged_plain_kernel(paged_args<T, K> a)
{
    __shared__ float sq[PLAIN_WARPS][PLAIN_MOST], sp[PLAIN_WARPS][32];
    __shared__ int64_t place[PLAIN_WARPS][32];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int64_t i = (int64_t)blockIdx.x * PLAIN_WARPS + warp, r = i / a.n_q;
    if (r >= a.n)
        return;
    int h = (int)(i % a.n_q), s = attn_segment(a.q_start, a.n_seq, r, 0);
    int last = a.q_start[s + 1], pos = r < last ? a.kv_len[s] - (last - (int)r) : -1;
    const int32_t *blocks = a.blocks + s * a.max_blocks;
    plain_load(sq[warp], a.q + r * a.ldq + (int64_t)h * a.d, a.d);
    float acc[PLAIN_COLS] = {}, top = -INFINITY, sum = 0;
    for (int j0 = max(pos - a.window + 1, 0); j0 <= pos; j0 += 32) {
        int n = min(pos + 1 - j0, 32), j = j0 + lane;
        __syncwarp();
        float x = -INFINITY;
        if (lane < n) {
            int64_t at = blocks[j / a.block_tokens] * a.between +
                         ((int64_t)(h / a.group) * a.block_tokens + j % a.block_tokens) * a.d;
            place[warp][lane] = at;
            x = plain_dot(sq[warp], a.k + at, a.d) * a.scale;
        }
        float now = fmaxf(top, warp_max(x)), keep = expf(top - now), p = expf(x - now);
        sum = sum * keep + warp_sum(p);
        top = now;
        sp[warp][lane] = p;
        __syncwarp();
        for (int c = 0; c < PLAIN_COLS; c++)
            acc[c] *= keep;
        for (int k = 0; k < n; k++)
            plain_add(acc, &sp[warp][k], a.v + place[warp][k], 0, 1, a.d);
    }
    plain_store(a.out + r * a.ldo + (int64_t)h * a.d, acc, pos < 0 ? 0.0F : 1.0F / sum, a.d);
}

/* ---- the op ---------------------------------------------------------------------------------- */

static int check(kern_dev *d, const kern_paged *a)
{
    const kern_kv *kv = a->kv;
    int64_t n = a->q.rows;
    int rc = cu_activation(d, "paged: q", &a->q);
    if (rc == 0)
        rc = cu_shape(d, "paged: q", &a->q, n, (int64_t)a->n_q * a->d);
    if (rc == 0)
        rc = cu_shape_of(d, "paged: out", &a->out, a->q.dtype, n, a->q.cols);
    if (rc != 0)
        return rc;
    if (kv->n_kv != a->n_kv || kv->d != a->d || a->n_q < 1 || a->n_q % a->n_kv != 0 ||
        a->layer < 0 || a->layer >= kv->n_layers || a->window < 0)
        return cu_fail(d, KERN_EINVAL,
                       "paged: %d query heads on a cache of %d heads of %d, layer %d of %d", a->n_q,
                       kv->n_kv, kv->d, a->layer, kv->n_layers);
    if (a->n_seq < 0 || (a->n_seq == 0 && n > 0) || n > INT_MAX)
        return cu_fail(d, KERN_EINVAL, "paged: %d sequences of %lld rows", a->n_seq, (long long)n);
    if (a->d > PLAIN_MOST)
        return cu_fail(d, KERN_EUNSUPPORTED, "paged: heads of %d; the card takes at most %d", a->d,
                       PLAIN_MOST);
    if (!(a->scale > 0))
        return cu_fail(d, KERN_EUNSUPPORTED, "paged: scale %g; the card takes positive ones",
                       (double)a->scale);
    return 0;
}

template <typename T, typename K> static paged_args<T, K> args_of(const kern_paged *a)
{
    const kern_kv *kv = a->kv;
    paged_args<T, K> x = {};
    x.q = (const T *)a->q.data, x.out = (T *)a->out.data;
    x.k = (const K *)kv->data + 2 * a->layer * cu_kv_half(kv);
    x.v = x.k + cu_kv_half(kv);
    x.q_start = a->q_start, x.kv_len = a->kv_len, x.blocks = a->blocks;
    x.ldq = a->q.ld, x.ldo = a->out.ld;
    x.n = a->q.rows;
    x.max_blocks = a->max_blocks;
    x.n_q = a->n_q, x.n_kv = a->n_kv, x.group = a->n_q / a->n_kv, x.d = a->d, x.n_seq = a->n_seq;
    x.window = attn_window(a->window);
    x.block_tokens = kv->block_tokens;
    x.shift = -1;
    for (int i = 0; i < 31; i++)
        if (1 << i == kv->block_tokens)
            x.shift = i;
    x.between = (int64_t)kv->n_kv * kv->block_tokens * kv->d;
    x.scale = a->scale;
    return x;
}

template <typename T, typename K> static int run_plain(kern_dev *d, const kern_paged *a)
{
    return cu_launch(d, "paged plain", paged_plain_kernel<T, K>,
                     cu_blocks(a->q.rows * a->n_q, PLAIN_WARPS), PLAIN_THREADS, args_of<T, K>(a));
}

template <int D, int TILES> static int run_tiles(kern_dev *d, paged_args<bf16, bf16> x)
{
    x.slots = x.n / (16 * TILES * ATTN_WARPS / x.group) + x.n_seq;
    return cu_launch_smem(d, "paged", paged_kernel<D, TILES>, dim3((unsigned)(x.slots * x.n_kv)),
                          ATTN_THREADS, tune_attn_bytes(D, TILES), x);
}

template <int D> static int run_split(kern_dev *d, paged_args<bf16, bf16> x)
{
    void *sum = NULL, *weight = NULL;
    int64_t heads = x.n * x.n_q;
    int rc = 0;
    x.cuts = (x.group + 15) / 16;
    x.splits = tune_paged_splits(x.n, x.n_kv * x.cuts, x.max_blocks * x.block_tokens);
    if (x.splits > 1)
        rc = cu_scratch(d, CU_SLOT_A, (size_t)(heads * x.splits * x.d) * sizeof(float), &sum);
    if (rc == 0 && x.splits > 1)
        rc = cu_scratch(d, CU_SLOT_B, (size_t)(heads * x.splits) * sizeof(float2), &weight);
    if (rc != 0)
        return rc;
    x.sum = (float *)sum, x.weight = (float2 *)weight;
    rc = cu_launch_smem(d, "paged split", paged_split_kernel<D>,
                        dim3((unsigned)(x.n * x.splits), (unsigned)(x.n_kv * x.cuts)),
                        32 * SPLIT_WARPS(D), tune_paged_bytes(D, SPLIT_WARPS(D)), x);
    if (rc != 0 || x.splits == 1)
        return rc;
    return cu_launch(d, "paged merge", paged_merge_kernel, cu_blocks(heads, PLAIN_WARPS),
                     PLAIN_THREADS, x);
}

/* When there are no more rows than sequences, nearly all bring one: then it is the cache that is
 * read, and its pieces go side by side. Groups larger than a tile go that way too. */
template <int D> static int run_head(kern_dev *d, const paged_args<bf16, bf16> &x)
{
    if (x.n <= x.n_seq || x.group > 16 * ATTN_WARPS)
        return run_split<D>(d, x);
    if (D <= 128 && tune_paged(D, cu_of(d)->shared_max, x.n * x.group, x.n_seq) == 2)
        return run_tiles < D, D <= 128 ? 2 : 1 > (d, x);
    return run_tiles<D, 1>(d, x);
}

static int run_fast(kern_dev *d, const kern_paged *a)
{
    paged_args<bf16, bf16> x = args_of<bf16, bf16>(a);
    switch (tune_attn_head(a->d)) {
    case 64:
        return run_head<64>(d, x);
    case 80:
        return run_head<80>(d, x);
    case 96:
        return run_head<96>(d, x);
    case 128:
        return run_head<128>(d, x);
    default:
        return run_head<256>(d, x);
    }
}

int cu_op_paged(kern_dev *d, const kern_paged *a)
{
    int rc = check(d, a);
    if (rc != 0 || a->q.rows == 0)
        return rc;
    bool wide = a->kv->dtype == KERN_F32;
    if (a->q.dtype == KERN_F32)
        return wide ? run_plain<float, float>(d, a) : run_plain<float, bf16>(d, a);
    if (wide)
        return run_plain<bf16, float>(d, a);
    if (a->d % 8 == 0 && cu_aligned16(&a->q) && cu_aligned16(&a->out))
        return run_fast(d, a);
    return run_plain<bf16, bf16>(d, a);
}
