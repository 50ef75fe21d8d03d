#pragma once
/* What the kernels of sampling share: what rows ask for, the order of logits, sorting, and how far
 * below the maximum candidates lie. */
#include "kernels/cuda/device.cuh"

typedef unsigned long long rank_t; /* greater: a better logit, or an equal one of a lower id */

enum {
    THREADS = 256,
    EACH = 16,
    SLICE = THREADS * EACH,
    SORT = 4096,
    BANDS = 16, /* band b: at most b + 1 below the maximum; the last: all */
    TOP = KERN_MAX_TOP,
    MAX_ROWS = 65535, /* of a grid */
    MAX_VOCAB = 1 << 23
};
static const unsigned IN_CONTEXT = 0x80000000U; /* in `seen`; below it how often in the answer */

/* What a row asks for. Offsets are into the lists of all rows; seen: -1 without penalties. */
typedef struct row_args {
    int32_t greedy;
    float inv_temperature; /* 1 when greedy */
    float top_p, min_p, u, repetition, presence, frequency;
    int32_t top_k, n_top, seen; /* top_k 0: off */
    int32_t context, n_context, answer, n_answer, bias, n_bias;
} row_args;

typedef struct row_out {
    int32_t id, finite;
    float logp, top_logp[TOP];
    int32_t top_id[TOP];
} row_out;

typedef struct slice_stat {
    float max, sum; /* of the model's own logits; sum of exp(l - max) */
    rank_t best;    /* of w */
} slice_stat;

typedef struct band_stat {
    float count[BANDS], mass[BANDS]; /* mass: sum of exp(w - the row's maximum) */
} band_stat;

typedef struct sample_args {
    const float *logits;
    int64_t ld;
    int vocab, slices;
    const row_args *row;
    const int32_t *ids;
    const float *bias;
    float *w;         /* [n, vocab] */
    unsigned *seen;   /* [rows with penalties, vocab] */
    slice_stat *stat; /* [n, slices] */
    band_stat *band;  /* [n, slices] */
    rank_t *top;      /* [n, slices, TOP], best first; 0: none */
    rank_t *list;     /* [n, SORT] what was gathered, in any order */
    int *fill;        /* [n] */
    row_out *out;     /* [n] */
} sample_args;

/* ---- ranks ----------------------------------------------------------------------------------- */

/* Bits that order as floats do; both zeros are one. */
static __device__ __forceinline__ unsigned bits_of(float x)
{
    unsigned u = __float_as_uint(x + 0.0F);
    return (u & 0x80000000U) != 0 ? ~u : u | 0x80000000U;
}
static __device__ __forceinline__ float value_of(unsigned bits)
{
    return __uint_as_float((bits & 0x80000000U) != 0 ? bits & 0x7FFFFFFFU : ~bits);
}
static __device__ __forceinline__ rank_t rank_of(float x, int id)
{
    return (rank_t)bits_of(x) << 32 | (unsigned)~id;
}
static __device__ __forceinline__ int id_of(rank_t r)
{
    return (int)~(unsigned)r;
}
static __device__ __forceinline__ float rank_value(rank_t r)
{
    return value_of((unsigned)(r >> 32));
}

static __device__ __forceinline__ rank_t block_best(rank_t x, rank_t *share)
{
    int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5, warps = (int)blockDim.x >> 5;
    for (int i = 16; i > 0; i >>= 1)
        x = max(x, __shfl_xor_sync(0xFFFFFFFFU, x, i));
    if (lane == 0)
        share[warp] = x;
    __syncthreads();
    x = lane < warps ? share[lane] : 0;
    for (int i = 16; i > 0; i >>= 1)
        x = max(x, __shfl_xor_sync(0xFFFFFFFFU, x, i));
    __syncthreads();
    return x;
}

/* The best of the row's w, from its slices; every thread gets it. */
static __device__ __forceinline__ rank_t row_best(const sample_args &a, int64_t r, rank_t *share)
{
    rank_t best = 0;
    for (int s = (int)threadIdx.x; s < a.slices; s += (int)blockDim.x)
        best = max(best, a.stat[r * a.slices + s].best);
    return block_best(best, share);
}

/* s[0..n), n a power of two up to SORT, best first (bitonic). */
static __device__ void sort_ranks(rank_t *s, int n)
{
    for (int k = 2; k <= n; k <<= 1)
        for (int j = k >> 1; j > 0; j >>= 1) {
            for (int p = (int)threadIdx.x; p < n / 2; p += (int)blockDim.x) {
                int i = (p & ~(j - 1)) << 1 | (p & (j - 1));
                rank_t x = s[i], y = s[i + j];
                if ((i & k) == 0 ? x < y : x > y)
                    s[i] = y, s[i + j] = x;
            }
            __syncthreads();
        }
}

static __device__ __forceinline__ int power_of_two(int n)
{
    int p = 2;
    while (p < n)
        p <<= 1;
    return p;
}

/* The sum over the threads before this one; *all of all threads. share holds 33. */
template <typename F> static __device__ F block_before(F x, F *share, F *all)
{
    int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5, warps = (int)blockDim.x >> 5;
    F upto = x;
    for (int i = 1; i < 32; i <<= 1) {
        F y = __shfl_up_sync(0xFFFFFFFFU, upto, i);
        upto += lane >= i ? y : F(0);
    }
    if (lane == 31)
        share[warp] = upto;
    __syncthreads();
    F before = 0, sum = 0;
    for (int w = 0; w < warps; w++) {
        before = w == warp ? sum : before;
        sum += share[w];
    }
    __syncthreads();
    *all = sum;
    F left = __shfl_up_sync(0xFFFFFFFFU, upto, 1);
    return before + (lane == 0 ? F(0) : left);
}

/* ---- how far down to look -------------------------------------------------------------------- */

/* The draw runs through the candidates in falling order, not by id. */
static __device__ __forceinline__ bool is_ranked(const row_args &p)
{
    return p.greedy == 0 && (p.top_k > 0 || p.top_p < 1.0F);
}

static __device__ __forceinline__ bool in_band(int b, float max, float w)
{
    return b == BANDS - 1 || max - w <= (float)(b + 1);
}

typedef struct reach {
    int band, count; /* what lies in the band */
    double total;    /* mass of the whole row */
} reach;

/* Memory of reach_of, shared by the block. */
typedef struct reach_share {
    double mass[BANDS][16], count[BANDS][16];
    reach answer;
} reach_share;

/* The smallest band that holds all candidates of a ranked row; needs THREADS threads or more. */
static __device__ reach reach_of(const sample_args &a, const row_args &p, int64_t r, reach_share *s)
{
    int b = (int)threadIdx.x % BANDS, part = (int)threadIdx.x / BANDS;
    if (part < 16) {
        double c = 0, m = 0;
        for (int i = part; i < a.slices; i += 16) {
            c += (double)a.band[r * a.slices + i].count[b];
            m += (double)a.band[r * a.slices + i].mass[b];
        }
        s->count[b][part] = c;
        s->mass[b][part] = m;
    }
    __syncthreads();
    if (threadIdx.x < BANDS)
        for (int i = 1; i < 16; i++) {
            s->count[threadIdx.x][0] += s->count[threadIdx.x][i];
            s->mass[threadIdx.x][0] += s->mass[threadIdx.x][i];
        }
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = s->mass[BANDS - 1][0];
        int at = 0;
        while (at < BANDS - 1 && (p.top_k > 0 ? s->count[at][0] < (double)p.top_k
                                              : s->mass[at][0] < (double)p.top_p * total))
            at++;
        s->answer.band = at;
        s->answer.count = (int)s->count[at][0];
        s->answer.total = total;
    }
    __syncthreads();
    return s->answer;
}
