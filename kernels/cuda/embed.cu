/* Embedding rows, and their gradient without atomics on floats: tokens are sorted by id (stably, by
 * digits), so that the rows of one id stand together in the order of the batch, and each row of the
 * table is read and written by one thread a column. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/tune.h"

/* ---- forward --------------------------------------------------------------------------------- */

enum { THREADS = 128 };

template <int N, typename S, typename D>
static __device__ __forceinline__ void move_part(D *to, const S *from)
{
    const int IN = N == 1 ? 1 : vec16<S>::N, OUT = N == 1 ? 1 : vec16<D>::N;
    float v[N];
    for (int i = 0; i < N; i += IN) {
        vec16<S> part;
        load_part<IN>(part, from + i);
        for (int k = 0; k < IN; k++)
            v[i + k] = part.v[k];
    }
    for (int i = 0; i < N; i += OUT) {
        vec16<D> part;
        for (int k = 0; k < OUT; k++)
            part.v[k] = v[i + k];
        store_part<OUT>(to + i, part);
    }
}

/* x[r] = table[ids[r]]: rows in blockIdx.x, N elements a thread, 8 or 1. Moves 2 n h elements. Not
 * run on a card yet. */
template <typename S, typename D, int N>
static __global__ void embed_kernel(const S *table, int64_t ldt, const int32_t *ids, D *x,
                                    int64_t ldx, int64_t h)
{
    int64_t r = blockIdx.x;
    const S *from = table + ids[r] * ldt;
    D *to = x + r * ldx;
    for (int64_t i = (int64_t)threadIdx.x * N; i < h; i += THREADS * N)
        move_part<N>(to + i, from + i);
}

template <typename S, typename D> static int run_embed(kern_dev *d, const kern_embed *a)
{
    const kern_tensor *t = &a->table, *x = &a->x;
    bool wide = cu_aligned16(t) && cu_aligned16(x) && t->cols % 8 == 0;
    return wide ? cu_launch(d, "embed", embed_kernel<S, D, 8>, (unsigned)a->n, THREADS,
                            (const S *)t->data, t->ld, a->ids, (D *)x->data, x->ld, t->cols)
                : cu_launch(d, "embed plain", embed_kernel<S, D, 1>, (unsigned)a->n, THREADS,
                            (const S *)t->data, t->ld, a->ids, (D *)x->data, x->ld, t->cols);
}

template <typename S> static int embed_into(kern_dev *d, const kern_embed *a)
{
    return a->x.dtype == KERN_BF16 ? run_embed<S, bf16>(d, a) : run_embed<S, float>(d, a);
}

int cu_op_embed(kern_dev *d, const kern_embed *a)
{
    int rc = cu_activation(d, "embed: x", &a->x);
    if (rc == 0)
        rc = cu_shape(d, "embed: x", &a->x, a->n, a->table.cols);
    if (rc != 0 || a->n == 0 || a->table.cols == 0)
        return rc;
    switch (a->table.dtype) {
    case KERN_F32:
        return embed_into<float>(d, a);
    case KERN_BF16:
        return embed_into<bf16>(d, a);
    case KERN_F16:
        return embed_into<f16>(d, a);
    default:
        return cu_fail(d, KERN_EUNSUPPORTED, "embed: a table of %s",
                       kern_dtype_name(a->table.dtype));
    }
}

/* ---- sorting tokens by id -------------------------------------------------------------------- */

enum {
    DIGIT_BITS = 8,
    DIGITS = 1 << DIGIT_BITS,
    WARPS = DIGITS / 32, /* a thread a digit */
    ROUNDS = 4,          /* of 32 tokens a warp */
    TILE = WARPS * ROUNDS * 32
};

/* Tokens in some order: key and row; row NULL: the order of the batch. */
typedef struct token_list {
    int32_t *key, *row;
} token_list;

static __device__ __forceinline__ int digit_of(int32_t key, int shift)
{
    return (int)((unsigned)key >> shift & (unsigned)(DIGITS - 1));
}

/* count[tile, digit]: how many tokens of the tile have the digit. A block a tile. */
static __global__ void digit_count_kernel(const int32_t *key, int64_t n, int shift, int *count)
{
    __shared__ int c[DIGITS];
    c[threadIdx.x] = 0;
    __syncthreads();
    int64_t first = (int64_t)blockIdx.x * TILE;
    for (int i = (int)threadIdx.x; i < TILE && first + i < n; i += DIGITS)
        atomicAdd(&c[digit_of(key[first + i], shift)], 1);
    __syncthreads();
    count[(int64_t)blockIdx.x * DIGITS + threadIdx.x] = c[threadIdx.x];
}

/* Inclusive sum over the lanes before and this one. */
static __device__ __forceinline__ int warp_prefix(int x)
{
    for (int i = 1; i < 32; i <<= 1) {
        int y = __shfl_up_sync(0xFFFFFFFFU, x, i);
        if ((int)(threadIdx.x & 31) >= i)
            x += y;
    }
    return x;
}

/* count becomes the place of the tile's first token of the digit: smaller digits stand before it,
 * and earlier tiles. One block, a thread a digit. */
static __global__ void digit_place_kernel(int *count, int tiles)
{
    __shared__ int warps[WARPS];
    int *mine = count + threadIdx.x, sum = 0;
#pragma unroll 8
    for (int i = 0; i < tiles; i++)
        sum += mine[(int64_t)i * DIGITS];
    int upto = warp_prefix(sum);
    if ((threadIdx.x & 31) == 31)
        warps[threadIdx.x >> 5] = upto;
    __syncthreads();
    int at = upto - sum;
    for (int w = 0; w < (int)(threadIdx.x >> 5); w++)
        at += warps[w];
#pragma unroll 8
    for (int i = 0; i < tiles; i++) {
        int c = mine[(int64_t)i * DIGITS];
        mine[(int64_t)i * DIGITS] = at;
        at += c;
    }
}

/* Lanes of the warp with the same digit; those without a token have digit -1. */
static __device__ __forceinline__ unsigned peers_of(int digit)
{
    unsigned same = __ballot_sync(0xFFFFFFFFU, digit >= 0);
    for (int b = 0; b < DIGIT_BITS; b++) {
        unsigned set = __ballot_sync(0xFFFFFFFFU, digit >> b & 1);
        same &= (digit >> b & 1) != 0 ? set : ~set;
    }
    return same;
}

/* Puts each token of a tile at its place. A warp has ROUNDS * 32 tokens next to each other: first
 * it counts its digits, then the counts become places, then each token takes the next. */
static __global__ void digit_move_kernel(token_list from, token_list to, int64_t n, int shift,
                                         const int *place)
{
    __shared__ int at[WARPS][DIGITS];
    int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    int64_t first = (int64_t)blockIdx.x * TILE + warp * (ROUNDS * 32) + lane;
    int digit[ROUNDS], before[ROUNDS];
    for (int w = 0; w < WARPS; w++)
        at[w][threadIdx.x] = 0;
    __syncthreads();
    for (int k = 0; k < ROUNDS; k++) {
        int64_t i = first + k * 32;
        digit[k] = i < n ? digit_of(from.key[i], shift) : -1;
        unsigned same = peers_of(digit[k]);
        int earlier = __popc(same & ((1U << lane) - 1U));
        before[k] = digit[k] < 0 ? 0 : at[warp][digit[k]] + earlier;
        __syncwarp();
        if (digit[k] >= 0 && earlier == 0)
            at[warp][digit[k]] += __popc(same);
        __syncwarp();
    }
    __syncthreads();
    int sum = place[(int64_t)blockIdx.x * DIGITS + threadIdx.x];
    for (int w = 0; w < WARPS; w++) {
        int c = at[w][threadIdx.x];
        at[w][threadIdx.x] = sum;
        sum += c;
    }
    __syncthreads();
    for (int k = 0; k < ROUNDS; k++) {
        int64_t i = first + k * 32;
        if (digit[k] < 0)
            continue;
        int dst = at[warp][digit[k]] + before[k];
        to.key[dst] = from.key[i];
        to.row[dst] = from.row != NULL ? from.row[i] : (int32_t)i;
    }
}

/* Ids below vocab. On return *sorted is one of the two lists. */
static int sort_tokens(kern_dev *d, const int32_t *ids, int64_t n, int64_t vocab, token_list l[2],
                       int *count, token_list *sorted)
{
    unsigned tiles = cu_blocks(n, TILE);
    token_list from = {(int32_t *)ids, NULL};
    int rc = 0, pass = 0;
    for (int shift = 0; rc == 0 && (shift == 0 || vocab > (int64_t)1 << shift);
         shift += DIGIT_BITS, pass ^= 1) {
        rc = cu_launch(d, "embed_grad count", digit_count_kernel, tiles, DIGITS, from.key, n, shift,
                       count);
        if (rc == 0)
            rc = cu_launch(d, "embed_grad place", digit_place_kernel, 1, DIGITS, count, (int)tiles);
        if (rc == 0)
            rc = cu_launch(d, "embed_grad move", digit_move_kernel, tiles, DIGITS, from, l[pass], n,
                           shift, count);
        from = l[pass];
    }
    *sorted = from;
    return rc;
}

/* ---- backward -------------------------------------------------------------------------------- */

enum { AHEAD = 4 }; /* rows that are on their way at once */

/* dtable[id] += dx[r] for the rows r of id, in order: the block of an id's first place in the list
 * does them all, others leave; N columns a thread, blockIdx.y the rest. Moves n h elements of dx
 * and 2 h of dtable an id. Not run on a card yet. */
template <typename T, int N>
static __global__ void embed_grad_kernel(token_list l, int64_t n, const T *dx, int64_t lddx,
                                         float *dtable, int64_t ldt, int64_t h)
{
    int64_t p = blockIdx.x, c = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * N;
    int32_t id = l.key[p];
    if ((p > 0 && l.key[p - 1] == id) || c >= h)
        return;
    float *to = dtable + id * ldt + c;
    vec16<T> x[AHEAD];
    float sum[N];
    for (int k = 0; k < N; k++)
        sum[k] = to[k];
    for (; p + AHEAD <= n && l.key[p + AHEAD - 1] == id; p += AHEAD) {
        for (int j = 0; j < AHEAD; j++)
            load_part<N>(x[j], dx + l.row[p + j] * lddx + c);
        for (int j = 0; j < AHEAD; j++)
            for (int k = 0; k < N; k++)
                sum[k] += x[j].v[k];
    }
    for (; p < n && l.key[p] == id; p++) {
        load_part<N>(x[0], dx + l.row[p] * lddx + c);
        for (int k = 0; k < N; k++)
            sum[k] += x[0].v[k];
    }
    for (int k = 0; k < N; k++)
        to[k] = sum[k];
}

template <typename T>
static int run_embed_grad(kern_dev *d, const kern_embed_grad *a, const token_list *l)
{
    const kern_tensor *t = &a->dtable;
    const int N = vec16<T>::N;
    if (cu_aligned16(&a->dx) && cu_aligned16(t))
        return cu_launch(d, "embed_grad", embed_grad_kernel<T, N>,
                         dim3((unsigned)a->n, cu_blocks(t->cols, THREADS * N)), THREADS, *l, a->n,
                         (const T *)a->dx.data, a->dx.ld, (float *)t->data, t->ld, t->cols);
    return cu_launch(d, "embed_grad plain", embed_grad_kernel<T, 1>,
                     dim3((unsigned)a->n, cu_blocks(t->cols, THREADS)), THREADS, *l, a->n,
                     (const T *)a->dx.data, a->dx.ld, (float *)t->data, t->ld, t->cols);
}

int cu_op_embed_grad(kern_dev *d, const kern_embed_grad *a)
{
    const kern_tensor *t = &a->dtable;
    int rc = cu_activation(d, "embed_grad: dx", &a->dx);
    if (rc == 0)
        rc = cu_shape(d, "embed_grad: dx", &a->dx, a->n, t->cols);
    if (rc == 0)
        rc = cu_shape_of(d, "embed_grad: dtable", t, KERN_F32, t->rows, t->cols);
    if (rc != 0 || a->n == 0 || t->cols == 0)
        return rc;
    if (a->n > INT32_MAX)
        return cu_fail(d, KERN_EUNSUPPORTED, "embed_grad: %lld tokens", (long long)a->n);
    void *mem;
    size_t n = (size_t)a->n, counts = (size_t)DIGITS * cu_blocks(a->n, TILE);
    rc = cu_scratch(d, CU_SLOT_A, (4 * n + counts) * sizeof(int32_t), &mem);
    if (rc != 0)
        return rc;
    int32_t *m = (int32_t *)mem;
    token_list lists[2] = {{m, m + n}, {m + 2 * n, m + 3 * n}}, sorted;
    rc = sort_tokens(d, a->ids, a->n, t->rows, lists, m + 4 * n, &sorted);
    if (rc != 0)
        return rc;
    return a->dx.dtype == KERN_BF16 ? run_embed_grad<bf16>(d, a, &sorted)
                                    : run_embed_grad<float>(d, a, &sorted);
}
