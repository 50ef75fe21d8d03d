#pragma once
/* Attention by tiles on tensor cores: what the passes share.
 *
 * A block has four warps; each owns 16 or 32 rows (TILES times 16) of the block's tile, for good,
 * and keeps their sums in registers. Everything is built from two products: rows with rows of
 * shared memory (a sum over the head size), and what came out of it, as it lies in the registers,
 * with the columns of another tile (a sum over its rows). D is the head size of the kernel; heads
 * of d <= D elements, a multiple of 8, are filled up with zeros. */
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tune_attn.h"

enum { ATTN_WARPS = TUNE_ATTN_WARPS, ATTN_THREADS = 32 * ATTN_WARPS };

#define ATTN_LOG2E 1.44269504088896341F
#define ATTN_LN2 0.693147180559945309F

/* ---- tiles in shared memory ------------------------------------------------------------------ */

/* Where 16-byte chunk c of row r stands in a tile of D columns, in elements. Chunks of a row change
 * places so that the same chunk of 8 rows one after the other falls on 8 different groups of banks:
 * ldmatrix meets no conflict. D is a multiple of 16; a row has D / 8 = odd * 2^E chunks, and they
 * change places within groups of 2^E (at most 8). */
template <int D> __device__ __forceinline__ int attn_chunk(int r, int c)
{
    constexpr int C = D / 8, E = C % 8 == 0 ? 3 : C % 4 == 0 ? 2 : 1;
    return (r * C + (c ^ (r >> (3 - E) & ((1 << E) - 1)))) * 8;
}

/* How a block's threads share the chunks of a tile: a thread always has the same chunk of a row, of
 * every STEP-th row from its own first. */
template <int D, int THREADS> struct attn_share {
    static const int C = D / 8, WIDE = C <= 8 ? 8 : C <= 16 ? 16 : 32, STEP = THREADS / WIDE;
};

/* Starts the copy of rows [0, rows) of d elements, ld apart, into a tile of ROWS rows; the rest of
 * the tile becomes zero. */
template <int D, int ROWS>
__device__ __forceinline__ void attn_load(bf16 *tile, const bf16 *src, int ld, int rows, int d)
{
    typedef attn_share<D, ATTN_THREADS> share;
    int c = threadIdx.x % share::WIDE, r0 = threadIdx.x / share::WIDE;
    if (c >= share::C)
        return;
    src += (int64_t)r0 * ld + c * 8;
#pragma unroll
    for (int i = 0; i < ROWS; i += share::STEP) {
        copy_async16(tile + attn_chunk<D>(r0 + i, c), src, r0 + i < rows && c * 8 < d);
        src += (int64_t)ld * share::STEP;
    }
}

/* ---- products -------------------------------------------------------------------------------- */

template <int TILES, int COLS>
__device__ __forceinline__ void attn_clear(float (&s)[TILES][COLS][4])
{
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int n = 0; n < COLS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[m][n][i] = 0;
}

/* s [16 TILES, 8 COLS] += A B^T: A rows [ar, ar + 16 TILES) of tile a, B rows [br, br + 8 COLS) of
 * tile b. s[m][n] lies as mma_bf16 has it: lane 4 g + t holds (16 m + g, 8 n + 2 t..) and
 * (16 m + g + 8, 8 n + 2 t..). UNROLL: steps of the sum laid out at once; fewer need fewer
 * registers. */
template <int D, int UNROLL = 16, int TILES, int COLS>
__device__ __forceinline__ void attn_rows(float (&s)[TILES][COLS][4], const bf16 *a, int ar,
                                          const bf16 *b, int br)
{
    int lane = threadIdx.x & 31;
    int arow = ar + (lane & 15), ac = lane >> 4;
    int brow = br + (lane & 7) + (lane >> 4) * 8, bc = lane >> 3 & 1;
#pragma unroll UNROLL
    for (int k = 0; k < D / 16; k++) {
        unsigned fa[TILES][4];
#pragma unroll
        for (int m = 0; m < TILES; m++)
            ldmatrix_x4(fa[m], a + attn_chunk<D>(arow + 16 * m, 2 * k + ac));
#pragma unroll
        for (int n = 0; n < COLS; n += 2) {
            unsigned fb[4];
            ldmatrix_x4(fb, b + attn_chunk<D>(brow + 8 * n, 2 * k + bc));
#pragma unroll
            for (int m = 0; m < TILES; m++) {
                mma_bf16(s[m][n], fa[m], fb);
                mma_bf16(s[m][n + 1], fa[m], fb + 2);
            }
        }
    }
}

/* o [16 TILES, 8 WIDE] += P B: P [16 TILES, 8 COLS] in registers as attn_rows leaves it, rounded to
 * bf16; B rows [br, br + 8 COLS) of tile b, columns from 8 * bc on. */
template <int D, int TILES, int COLS, int WIDE>
__device__ __forceinline__ void attn_columns(float (&o)[TILES][WIDE][4],
                                             const float (&p)[TILES][COLS][4], const bf16 *b,
                                             int br, int bc)
{
    int lane = threadIdx.x & 31, row = br + (lane & 15), c0 = bc + (lane >> 4);
#pragma unroll
    for (int k = 0; k < COLS / 2; k++) {
        unsigned fa[TILES][4];
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            fa[m][0] = pack_bf16(p[m][2 * k][0], p[m][2 * k][1]);
            fa[m][1] = pack_bf16(p[m][2 * k][2], p[m][2 * k][3]);
            fa[m][2] = pack_bf16(p[m][2 * k + 1][0], p[m][2 * k + 1][1]);
            fa[m][3] = pack_bf16(p[m][2 * k + 1][2], p[m][2 * k + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < WIDE; n += 2) {
            unsigned fb[4];
            ldmatrix_x4_trans(fb, b + attn_chunk<D>(row + 16 * k, c0 + n));
#pragma unroll
            for (int m = 0; m < TILES; m++) {
                mma_bf16(o[m][n], fa[m], fb);
                mma_bf16(o[m][n + 1], fa[m], fb + 2);
            }
        }
    }
}

/* Rows [at, at + 16 TILES) of a tile become the sums times factor[m][half], in bf16: the warp's own
 * rows, which it alone reads. */
template <int D, int TILES, int WIDE>
__device__ __forceinline__ void attn_put(bf16 *tile, int at, const float (&o)[TILES][WIDE][4],
                                         const float (&factor)[TILES][2])
{
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int n = 0; n < WIDE; n++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float f = factor[m][h];
                bf16 *p = tile + attn_chunk<D>(at + 16 * m + 8 * h + g, n) + 2 * t;
                *reinterpret_cast<unsigned *>(p) =
                    pack_bf16(o[m][n][2 * h] * f, o[m][n][2 * h + 1] * f);
            }
    __syncwarp();
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* What a warp knows of its rows: of row 16 m + 8 h + g in [m][h]. Scores are scaled by c, which is
 * positive, when they are raised to powers of 2. */
template <int TILES> struct attn_state {
    float top[TILES][2], sum[TILES][2]; /* the largest score; this lane's share of the sum */
    int pos[TILES][2];                  /* position of the row's token among the keys */
};

/* Scores of keys [j0, j0 + 8 COLS) that a row must not see become -inf. */
template <int TILES, int COLS>
__device__ __forceinline__ void attn_mask(float (&s)[TILES][COLS][4], const int (&pos)[TILES][2],
                                          int j0, int window)
{
    int t = threadIdx.x & 3;
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int n = 0; n < COLS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int j = j0 + 8 * n + 2 * t + (i & 1), p = pos[m][i >> 1];
                if (j > p || j <= p - window)
                    s[m][n][i] = -INFINITY;
            }
}

/* Scores become probabilities against the largest score so far; sums and o are brought along, o
 * only where some row of the warp has met a larger score (a factor of 1 changes no bit). */
template <int TILES, int COLS, int WIDE>
__device__ __forceinline__ void attn_soften(float (&s)[TILES][COLS][4], attn_state<TILES> &st,
                                            float (&o)[TILES][WIDE][4], float c)
{
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = st.top[m][h];
#pragma unroll
            for (int n = 0; n < COLS; n++)
                top = fmaxf(top, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
            top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFU, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFU, top, 2));
            /* A row that has seen no key yet keeps -inf, and its scores become 0. */
            float base = top == -INFINITY ? 0.0F : top * c;
            float keep = exp2_fast(st.top[m][h] * c - base), sum = 0;
            st.top[m][h] = top;
#pragma unroll
            for (int n = 0; n < COLS; n++) {
                s[m][n][2 * h] = exp2_fast(s[m][n][2 * h] * c - base);
                s[m][n][2 * h + 1] = exp2_fast(s[m][n][2 * h + 1] * c - base);
                sum += s[m][n][2 * h] + s[m][n][2 * h + 1];
            }
            st.sum[m][h] = st.sum[m][h] * keep + sum;
            if (__any_sync(0xFFFFFFFFU, keep != 1.0F) == 0)
                continue;
#pragma unroll
            for (int n = 0; n < WIDE; n++) {
                o[m][n][2 * h] *= keep;
                o[m][n][2 * h + 1] *= keep;
            }
        }
}

__device__ __forceinline__ float attn_quad_sum(float x)
{
    x += __shfl_xor_sync(0xFFFFFFFFU, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFU, x, 2);
}

/* ---- segments -------------------------------------------------------------------------------- */

/* The last s of n whose first slot is at most `slot`, where segment s owns the slots from
 * at[s] / tile + s on; tile 0: from at[s] on. Enough for every segment's tiles, whatever the
 * lengths, and known without looking at all of them. Called by whole warps. */
__device__ __forceinline__ int attn_segment(const int32_t *at, int n, int slot, int tile)
{
    int lane = threadIdx.x & 31, lo = 0, hi = n;
    while (hi - lo > 1) {
        int step = (hi - lo + 31) / 32, s = lo + lane * step;
        bool before = false;
        if (s < hi)
            before = (tile > 0 ? at[s] / tile + s : at[s]) <= slot;
        int k = __popc(__ballot_sync(0xFFFFFFFFU, before)); /* lanes 0 to k - 1, in order */
        lo = k > 0 ? lo + (k - 1) * step : lo;
        hi = min(hi, lo + step);
    }
    return lo;
}

/* ---- keys, packed or paged ------------------------------------------------------------------- */

/* Keys and values of one head, ldk and ldv elements from one row to the next. PAGED: block b of the
 * sequence is block blocks[b] of the pool, `between` elements from one to the next, with rows of d.
 */
typedef struct attn_keys {
    const bf16 *k, *v;
    int ldk, ldv, d;
    int row, col; /* where key 0 of the head begins; PAGED: in block 0, row is 0 */
    const int32_t *blocks;
    int block_tokens, shift; /* shift: block_tokens is 1 << shift; -1: no power of two */
    int64_t between;
} attn_keys;

/* Starts the copy of keys and values [j0, min(j0 + ROWS, end)) into two tiles, one after the other.
 */
template <int D, int ROWS, int THREADS, bool PAGED>
__device__ __forceinline__ void attn_load_keys(bf16 *tile, const attn_keys &s, int j0, int end)
{
    typedef attn_share<D, THREADS> share;
    int c = threadIdx.x % share::WIDE, r0 = threadIdx.x / share::WIDE;
    if (c >= share::C)
        return;
    const bf16 *k = s.k + s.col + c * 8, *v = s.v + s.col + c * 8;
    if (!PAGED) {
        k += (int64_t)(s.row + j0 + r0) * s.ldk;
        v += (int64_t)(s.row + j0 + r0) * s.ldv;
    }
#pragma unroll
    for (int i = 0; i < ROWS; i += share::STEP) {
        int j = j0 + r0 + i, at = attn_chunk<D>(r0 + i, c);
        bool keep = j < end && c * 8 < s.d;
        int64_t go = 0;
        if (PAGED && keep) {
            int b = s.shift >= 0 ? j >> s.shift : j / s.block_tokens;
            go = __ldg(s.blocks + b) * s.between + (int64_t)(j - b * s.block_tokens) * s.d;
        }
        copy_async16(tile + at, k + go, keep);
        copy_async16(tile + ROWS * D + at, v + go, keep);
        if (!PAGED) {
            k += (int64_t)s.ldk * share::STEP;
            v += (int64_t)s.ldv * share::STEP;
        }
    }
}

/* ---- forward of one tile of rows ------------------------------------------------------------- */

/* Rows are tokens, or the `heads` query heads of one key head for each token: row r is head
 * r % heads of token r / heads, at q + (row + r / heads) * ldq + col + (r % heads) * d. Pointers
 * are the call's own, which need no registers. */
typedef struct attn_tile {
    const bf16 *q;
    bf16 *out;
    float *lse; /* NULL: not wanted; PAGED has none */
    int ldq, ldo, ldl;
    int row, col, head; /* row of token 0; first column and number of head 0 */
    int heads, rows;
    int pos; /* of row 0's token among the keys */
    int window;
    float scale;
    attn_keys keys;
} attn_tile;

/* Starts the copy of rows [0, rows), as attn_tile has them, into a tile of ROWS rows. */
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void attn_load_heads(bf16 *tile, const bf16 *q, int ld, int heads,
                                                int rows, int d)
{
    constexpr int C = D / 8;
    for (int i = threadIdx.x; i < ROWS * C; i += THREADS) {
        int r = i / C, c = i % C;
        copy_async16(tile + attn_chunk<D>(r, c),
                     q + (int64_t)(r / heads) * ld + r % heads * d + c * 8, r < rows && c * 8 < d);
    }
}

/* Attention of at most 64 TILES rows over the keys that they see, in tiles of KEYS from the first
 * to the last. Keys and values have two stages in shared memory: while one is multiplied the next
 * arrives, and one barrier a tile says both that it is here and that nobody reads the one before.
 */
template <int D, int TILES, int KEYS, bool PAGED>
__device__ __forceinline__ void attn_forward(const attn_tile &a, bf16 *shared)
{
    constexpr int ROWS = 16 * TILES * ATTN_WARPS, C = D / 8;
    bf16 *sq = shared, *stage = sq + ROWS * D; /* [2][keys, values][KEYS, D] */
    int lane = threadIdx.x & 31, at = (threadIdx.x >> 5) * 16 * TILES; /* the warp's first row */
    int end = a.pos + (PAGED ? (a.rows - 1) / a.heads : a.rows - 1) + 1;
    int first = max(a.pos - a.window + 1, 0) / KEYS * KEYS;
    if (PAGED)
        attn_load_heads<D, ROWS, ATTN_THREADS>(sq, a.q + (int64_t)a.row * a.ldq + a.col, a.ldq,
                                               a.heads, a.rows, a.keys.d);
    else
        attn_load<D, ROWS>(sq, a.q + (int64_t)a.row * a.ldq + a.col, a.ldq, a.rows, a.keys.d);
    attn_load_keys<D, KEYS, ATTN_THREADS, PAGED>(stage, a.keys, first, end);
    copy_commit();

    attn_state<TILES> st;
    float o[TILES][C][4], c = a.scale * ATTN_LOG2E;
    attn_clear(o);
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int r = at + 16 * m + 8 * h + (lane >> 2);
            st.top[m][h] = -INFINITY;
            st.sum[m][h] = 0;
            st.pos[m][h] = a.pos + (PAGED ? r / a.heads : r);
        }
    /* Positions of the warp's first and last row. */
    int p0 = a.pos + (PAGED ? at / a.heads : at), p1 = at + 16 * TILES - 1;
    p1 = min(a.pos + (PAGED ? p1 / a.heads : p1), end - 1);
    for (int j0 = first, odd = 0; j0 < end; j0 += KEYS, odd ^= 1) {
        const bf16 *sk = stage + odd * 2 * KEYS * D, *sv = sk + KEYS * D;
        copy_wait<0>();
        __syncthreads();
        if (j0 + KEYS < end)
            attn_load_keys<D, KEYS, ATTN_THREADS, PAGED>(stage + (odd ^ 1) * 2 * KEYS * D, a.keys,
                                                         j0 + KEYS, end);
        copy_commit();
        if (at >= a.rows || j0 > p1 || j0 + KEYS - 1 <= p0 - a.window)
            continue;
        float s[TILES][KEYS / 8][4];
        attn_clear(s);
        attn_rows<D>(s, sq, at, sk, 0);
        if (j0 + KEYS - 1 > p0 || j0 <= p1 - a.window)
            attn_mask(s, st.pos, j0, a.window);
        attn_soften(s, st, o, c);
        attn_columns<D>(o, s, sv, 0, 0);
    }
    copy_wait<0>();

    float factor[TILES][2];
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int r = at + 16 * m + 8 * h + (lane >> 2);
            float sum = attn_quad_sum(st.sum[m][h]);
            factor[m][h] = 1.0F / sum;
            if (!PAGED && a.lse != NULL && (lane & 3) == 0 && r < a.rows)
                a.lse[(int64_t)(a.row + r) * a.ldl + a.head] =
                    (st.top[m][h] * c + log2f(sum)) * ATTN_LN2;
        }
    attn_put<D>(sq, at, o, factor);
    for (int i = lane; i < 16 * TILES * C; i += 32) {
        int r = at + i / C, k = i % C, t = PAGED ? r / a.heads : r, h = PAGED ? r % a.heads : 0;
        if (r < a.rows && k * 8 < a.keys.d)
            *reinterpret_cast<uint4 *>(a.out + (int64_t)(a.row + t) * a.ldo + a.col + h * a.keys.d +
                                       k * 8) =
                *reinterpret_cast<const uint4 *>(sq + attn_chunk<D>(r, k));
    }
}

/* ---- on the host (attn.cu) ------------------------------------------------------------------- */

/* Shapes of a forward call; the messages of the CPU backend. */
int attn_check(kern_dev *d, const kern_attn *a);
/* The rows can be read 16 bytes at a time and tensor cores take their dtype. */
bool attn_fast(const kern_attn *a);
/* A window for kernels: as it is, or one that no row reaches. */
int attn_window(int64_t window);
