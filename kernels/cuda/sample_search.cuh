#pragma once
/* One token from a row with more candidates than can be sorted: the place of each cut (top-k,
 * top-p, min-p, and at last u) is searched for by counts and masses of bins. */
#include "kernels/cuda/sample.cuh"

enum {
    WIDE = 1024, /* threads */
    BIN_BITS = 10,
    BINS = 1 << BIN_BITS,
    DEPTH_BITS = 26, /* from 1 to 256: what lies deeper weighs nothing */
    MASS_BITS = 40   /* a weight of 1; MAX_VOCAB of them fit a sum */
};
static const double MASS_ONE = (double)(1ULL << MASS_BITS);

/* Candidates fall in the order of these: how far below the maximum, then the id. The distance has 1
 * added, so that its bits are spread evenly over what matters: a level of BINS tells 1/128 apart
 * near the maximum, 1/16 where a weight is 1/3000. */
static __device__ __forceinline__ unsigned depth_of(float x, float max)
{
    return __float_as_uint(1.0F + (max - x));
}
static __device__ __forceinline__ rank_t place_of(unsigned depth, int id)
{
    return (rank_t)~depth << 32 | (unsigned)~id;
}

/* Weights as whole numbers: their sums are exact, whatever the order. */
static __device__ __forceinline__ rank_t mass_of(float weight)
{
    return (rank_t)((double)weight * MASS_ONE);
}

typedef struct bins {
    rank_t mass[BINS];
    unsigned count[BINS];
} bins;

/* Up to what place candidates are kept, that one included; mass: theirs. */
typedef struct cut {
    rank_t place, mass;
} cut;

/* The bin where the goal is reached: what stands before it and in it. */
typedef struct crossing {
    int bin;
    unsigned count;
    rank_t before, mass;
} crossing;

/* One row; the pointers are shared by the block. */
typedef struct search {
    const float *w;
    int vocab;
    float max, min_p;
    bins *bin;
    rank_t *list; /* [SORT], in the place of the bins */
    rank_t *sums; /* [33] */
    crossing *at;
    cut *found;
    int *fill;
} search;

/* Candidate id, when it is kept by `upto` and lies in depths [lo, hi]. */
static __device__ __forceinline__ bool candidate(const search &q, int id, rank_t upto, unsigned lo,
                                                 unsigned hi, unsigned *depth, rank_t *mass)
{
    float x = q.w[id], e = expf(x - q.max);
    *depth = depth_of(x, q.max);
    *mass = mass_of(e);
    return *depth >= lo && *depth <= hi && place_of(*depth, id) >= upto && e >= q.min_p;
}

/* Fills the bins of depths [lo, hi], 1 << shift wide. */
static __device__ void fill_bins(const search &q, rank_t upto, unsigned lo, unsigned hi, int shift)
{
    __syncthreads();
    q.bin->mass[threadIdx.x] = 0;
    q.bin->count[threadIdx.x] = 0;
    __syncthreads();
    for (int id = (int)threadIdx.x; id < q.vocab; id += WIDE) {
        unsigned depth;
        rank_t mass;
        if (!candidate(q, id, upto, lo, hi, &depth, &mass))
            continue;
        atomicAdd(&q.bin->mass[(depth - lo) >> shift], mass);
        atomicAdd(&q.bin->count[(depth - lo) >> shift], 1U);
    }
    __syncthreads();
}

/* The first place where the sum over x, a value a thread, reaches the goal, or else the last where
 * there is anything: true for that thread. before: of the sum. */
static __device__ __forceinline__ bool reaches(rank_t x, rank_t goal, rank_t *sums, rank_t *before)
{
    rank_t all;
    *before = block_before(x, sums, &all);
    rank_t need = goal < all ? goal : all;
    return *before < need && *before + x >= need;
}

static __device__ crossing find_bin(const search &q, bool by_count, rank_t goal)
{
    rank_t count = q.bin->count[threadIdx.x], mass = q.bin->mass[threadIdx.x], before, all;
    bool here = reaches(by_count ? count : mass, goal, q.sums, &before);
    rank_t mass_before = block_before(mass, q.sums, &all);
    if (here) {
        q.at->bin = (int)threadIdx.x;
        q.at->count = (unsigned)count;
        q.at->before = by_count ? before : mass_before;
        q.at->mass = mass_before;
    }
    __syncthreads();
    return *q.at;
}

/* The best candidates whose masses (or number) first reach the goal, of those in depths [lo, hi]:
 * they are sorted. above: mass of what is better than all of them. */
static __device__ cut cut_list(const search &q, bool by_count, rank_t goal, rank_t upto,
                               unsigned lo, unsigned hi, rank_t above)
{
    if (threadIdx.x == 0)
        *q.fill = 0;
    __syncthreads();
    for (int id = (int)threadIdx.x; id < q.vocab; id += WIDE) {
        unsigned depth;
        rank_t mass;
        if (candidate(q, id, upto, lo, hi, &depth, &mass))
            q.list[atomicAdd(q.fill, 1)] = place_of(depth, id);
    }
    __syncthreads();
    int n = *q.fill, size = power_of_two(n);
    for (int i = n + (int)threadIdx.x; i < size; i += WIDE)
        q.list[i] = 0;
    __syncthreads();
    sort_ranks(q.list, size);
    rank_t mass[SORT / WIDE], sum = 0, count = 0, before, all;
    int first = (int)threadIdx.x * (SORT / WIDE);
    for (int k = 0; k < SORT / WIDE; k++) {
        mass[k] = first + k < n ? mass_of(expf(q.w[id_of(q.list[first + k])] - q.max)) : 0;
        sum += mass[k];
        count += first + k < n ? 1 : 0;
    }
    rank_t goal_before;
    bool here = reaches(by_count ? count : sum, goal, q.sums, &goal_before);
    before = block_before(sum, q.sums, &all);
    for (int k = 0; k < SORT / WIDE && here; k++) {
        before += mass[k];
        goal_before += by_count ? 1 : mass[k];
        if (first + k < n) {
            q.found->place = q.list[first + k];
            q.found->mass = above + before;
        }
        here = goal_before < goal;
    }
    __syncthreads();
    return *q.found;
}

/* More than can be sorted, all equally deep: they follow each other by id, and weigh the same. The
 * first `n` of them; a thread has a stretch of the vocabulary. */
static __device__ cut cut_equal(const search &q, rank_t n, rank_t upto, unsigned depth,
                                rank_t above, rank_t each)
{
    int stretch = (q.vocab + WIDE - 1) / WIDE, from = min((int)threadIdx.x * stretch, q.vocab);
    int to = min(from + stretch, q.vocab);
    rank_t mine = 0, before, mass;
    unsigned d;
    for (int id = from; id < to; id++)
        mine += candidate(q, id, upto, depth, depth, &d, &mass) ? 1 : 0;
    bool here = reaches(mine, n, q.sums, &before);
    for (int id = from; id < to && here; id++) {
        if (!candidate(q, id, upto, depth, depth, &d, &mass))
            continue;
        q.found->place = place_of(depth, id);
        q.found->mass = above + ++before * each;
        here = before < n;
    }
    __syncthreads();
    return *q.found;
}

/* The best candidates, of those that `upto` keeps, whose masses (or number) first reach the goal.
 * Looks at the row once a level of bins, and once more. */
static __device__ cut search_cut(const search &q, bool by_count, rank_t goal, rank_t upto)
{
    unsigned lo = depth_of(0.0F, 0.0F), hi = lo + (1U << DEPTH_BITS) - 1U;
    rank_t above = 0;
    for (int shift = DEPTH_BITS - BIN_BITS;; shift = shift > BIN_BITS ? shift - BIN_BITS : 0) {
        fill_bins(q, upto, lo, hi, shift);
        crossing c = find_bin(q, by_count, goal);
        rank_t mass = q.bin->mass[c.bin];
        __syncthreads();
        goal = goal > c.before ? goal - c.before : 1;
        above += c.mass;
        lo += (unsigned)c.bin << shift;
        hi = min(hi, lo + ((1U << shift) - 1U));
        if (c.count <= SORT)
            return cut_list(q, by_count, goal, upto, lo, hi, above);
        if (shift == 0) {
            rank_t each = mass / c.count, n = by_count ? goal : (goal + each - 1) / max(each, 1ULL);
            return cut_equal(q, n, upto, lo, above, each);
        }
    }
}

/* Mass of what is left. */
static __device__ rank_t mass_left(const search &q, rank_t upto)
{
    rank_t sum = 0, all;
    for (int id = (int)threadIdx.x; id < q.vocab; id += WIDE) {
        unsigned depth;
        rank_t mass;
        sum += candidate(q, id, upto, 0, ~0U, &depth, &mass) ? mass : 0;
    }
    (void)block_before(sum, q.sums, &all);
    return all;
}

/* Top-k, then top-p, then min-p, then u, as the CPU has it. */
static __device__ int draw_searched(search &q, const row_args &p, double total)
{
    cut kept = {0, 0};
    if (p.top_k > 0)
        kept = search_cut(q, true, (rank_t)p.top_k, 0);
    if (p.top_p < 1.0F) {
        double need = ceil((double)p.top_p * (p.top_k > 0 ? (double)kept.mass : total * MASS_ONE));
        kept = search_cut(q, false, need < 1 ? 1 : (rank_t)need, kept.place);
    }
    if (p.min_p > 0) {
        q.min_p = p.min_p;
        kept.mass = mass_left(q, kept.place);
    }
    rank_t goal = (rank_t)((double)p.u * (double)kept.mass) + 1;
    return id_of(search_cut(q, false, goal, kept.place).place);
}

/* Rows with more candidates than can be sorted; a block of WIDE threads each. Every cut looks at
 * the row two or three times, 4 bytes a logit, from the L2 cache. Not run on a card yet. */
static __global__ void __launch_bounds__(WIDE) sample_search_kernel(sample_args a)
{
    __shared__ rank_t memory[SORT]; /* bins, then a list */
    __shared__ rank_t share[33];
    __shared__ reach_share far;
    __shared__ crossing at;
    __shared__ cut found;
    __shared__ int fill;
    static_assert(sizeof(bins) <= sizeof memory && BINS == WIDE, "bins stand where a list does");
    int64_t r = blockIdx.x;
    const row_args p = a.row[r];
    if (!is_ranked(p))
        return;
    reach to = reach_of(a, p, r, &far);
    if (to.count <= SORT)
        return;
    float max = rank_value(row_best(a, r, share));
    if (!isfinite(max)) /* the row is refused */
        return;
    search q = {a.w + r * a.vocab,
                a.vocab,
                max,
                0,
                reinterpret_cast<bins *>(memory),
                memory,
                share,
                &at,
                &found,
                &fill};
    int id = draw_searched(q, p, to.total);
    if (threadIdx.x == 0)
        a.out[r].id = id;
}
