/* One token from each row of logits, for all rows in a few launches.
 *
 * A row is cut into slices of SLICE logits, a block each: their maxima, sums and best ids, and the
 * logits as bias, penalties and temperature leave them (w). Greedy rows end there. With top-k or
 * top-p only the best logits can be drawn: counts and masses of bands below the maximum say how far
 * down to look, what lies above is gathered and sorted, and the draw runs through it as the CPU's
 * does. Where more than SORT lie above (flat distributions), the place of each cut is searched for:
 * counts and masses of bins, each level 1024 times finer, until what is left can be sorted. Orders
 * of sums depend on the vocabulary alone. Nothing here was run on a card yet. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/sample_search.cuh"

/* ---- what bias and penalties leave ----------------------------------------------------------- */

/* Marks the ids of context and answer of row blockIdx.y. */
static __global__ void sample_seen_kernel(sample_args a)
{
    const row_args p = a.row[blockIdx.y];
    int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (p.seen < 0)
        return;
    unsigned *seen = a.seen + (int64_t)p.seen * a.vocab;
    if (i < p.n_context)
        atomicOr(&seen[a.ids[p.context + i]], IN_CONTEXT);
    if (i < p.n_answer)
        atomicAdd(&seen[a.ids[p.answer + i]], 1U);
}

static __device__ __forceinline__ float changed(const row_args &p, const unsigned *seen, int id,
                                                float l)
{
    unsigned s = seen != NULL ? seen[id] : 0;
    if ((s & IN_CONTEXT) != 0)
        l = l > 0 ? l / p.repetition : l * p.repetition;
    if ((s & ~IN_CONTEXT) != 0)
        l -= (float)(s & ~IN_CONTEXT) * p.frequency + p.presence;
    return l * p.inv_temperature;
}

/* Logits of the slice that have a bias are done again, in w: the first mention of an id adds all of
 * them, in order. */
static __device__ void add_bias(const sample_args &a, const row_args &p, const unsigned *seen,
                                const float *l, float *w, int first)
{
    const int32_t *id = a.ids + p.bias;
    for (int b = (int)threadIdx.x; b < p.n_bias; b += THREADS) {
        bool mine = id[b] >= first && id[b] - first < SLICE;
        for (int j = 0; j < b && mine; j++)
            mine = id[j] != id[b];
        if (!mine)
            continue;
        float x = l[id[b]];
        for (int j = b; j < p.n_bias; j++)
            x += id[j] == id[b] ? a.bias[p.bias + j] : 0.0F;
        w[id[b]] = changed(p, seen, id[b], x);
    }
}

/* Slice blockIdx.x of row blockIdx.y: the statistics of its logits, and w. Reads 4 bytes a logit
 * and writes as many, none for a greedy row. */
static __global__ void sample_slice_kernel(sample_args a)
{
    __shared__ float share[32];
    __shared__ rank_t share_best[32];
    const row_args p = a.row[blockIdx.y];
    int64_t r = blockIdx.y;
    int first = (int)blockIdx.x * SLICE;
    const float *l = a.logits + r * a.ld;
    float *w = a.w + r * a.vocab, x[EACH], max = -INFINITY, sum = 0;
    const unsigned *seen = p.seen >= 0 ? a.seen + (int64_t)p.seen * a.vocab : NULL;
    for (int k = 0; k < EACH; k++) {
        int id = first + k * THREADS + (int)threadIdx.x;
        x[k] = id < a.vocab ? l[id] : -INFINITY;
        max = fmaxf(max, x[k]);
    }
    max = block_max(max, share);
    for (int k = 0; k < EACH; k++) /* what is not a number must show */
        sum += x[k] == -INFINITY ? 0.0F : expf(x[k] - max);
    sum = block_sum(sum, share);
    for (int k = 0; k < EACH; k++) {
        int id = first + k * THREADS + (int)threadIdx.x;
        if (id < a.vocab)
            x[k] = changed(p, seen, id, x[k]);
        if (id < a.vocab && (p.greedy == 0 || p.n_bias > 0))
            w[id] = x[k];
    }
    if (p.n_bias > 0) {
        __syncthreads();
        add_bias(a, p, seen, l, w, first);
        __syncthreads();
    }
    rank_t best = 0;
    for (int k = 0; k < EACH; k++) {
        int id = first + k * THREADS + (int)threadIdx.x;
        if (id < a.vocab)
            best = ::max(best, rank_of(p.n_bias > 0 ? w[id] : x[k], id));
    }
    best = block_best(best, share_best);
    if (threadIdx.x != 0)
        return;
    slice_stat s = {max, sum, best};
    a.stat[r * a.slices + blockIdx.x] = s;
    if (blockIdx.x == 0)
        a.fill[r] = 0;
}

/* The best n_top of the model's own logits of a slice. */
static __global__ void sample_top_kernel(sample_args a)
{
    __shared__ rank_t s[SLICE];
    int n_top = a.row[blockIdx.y].n_top, first = (int)blockIdx.x * SLICE;
    int n = min(a.vocab - first, (int)SLICE), size = power_of_two(n);
    if (n_top == 0)
        return;
    for (int i = (int)threadIdx.x; i < size; i += THREADS)
        s[i] = i < n ? rank_of(a.logits[blockIdx.y * a.ld + first + i], first + i) : 0;
    __syncthreads();
    sort_ranks(s, size);
    rank_t *top = a.top + ((int64_t)blockIdx.y * a.slices + blockIdx.x) * TOP;
    if ((int)threadIdx.x < n_top)
        top[threadIdx.x] = (int)threadIdx.x < n ? s[threadIdx.x] : 0;
}

/* ---- how far down to look -------------------------------------------------------------------- */

/* Counts and masses of a slice's bands. Rows that are drawn by id have the last band only, without
 * what min_p leaves out. Reads 4 bytes a logit. */
static __global__ void sample_band_kernel(sample_args a)
{
    __shared__ rank_t share[32];
    __shared__ float count[BANDS][THREADS], mass[BANDS][THREADS];
    const row_args p = a.row[blockIdx.y];
    if (p.greedy != 0)
        return;
    int64_t r = blockIdx.y;
    const float *w = a.w + r * a.vocab;
    float max = rank_value(row_best(a, r, share)), c[BANDS] = {}, m[BANDS] = {};
    bool ranked = is_ranked(p);
    for (int k = 0; k < EACH; k++) {
        int id = (int)blockIdx.x * SLICE + k * THREADS + (int)threadIdx.x;
        if (id >= a.vocab)
            break;
        float x = w[id], e = expf(x - max);
        if (!ranked && e < p.min_p)
            continue;
#pragma unroll
        for (int b = 0; b < BANDS; b++) {
            bool in = in_band(b, max, x);
            c[b] += in ? 1.0F : 0.0F;
            m[b] += in ? e : 0.0F;
        }
    }
#pragma unroll
    for (int b = 0; b < BANDS; b++) {
        count[b][threadIdx.x] = c[b];
        mass[b][threadIdx.x] = m[b];
    }
    __syncthreads();
    band_stat *out = a.band + r * a.slices + blockIdx.x;
    int lane = (int)threadIdx.x & 31;
    for (int b = (int)threadIdx.x >> 5; b < BANDS; b += THREADS / 32) {
        float cs = 0, ms = 0;
        for (int i = lane; i < THREADS; i += 32) {
            cs += count[b][i];
            ms += mass[b][i];
        }
        cs = warp_sum(cs);
        ms = warp_sum(ms);
        if (lane == 0) {
            out->count[b] = cs;
            out->mass[b] = ms;
        }
    }
}

/* The ranks of a slice's candidates join the row's list. Reads 4 bytes a logit. */
static __global__ void sample_gather_kernel(sample_args a)
{
    __shared__ rank_t share[32];
    __shared__ reach_share far;
    const row_args p = a.row[blockIdx.y];
    if (!is_ranked(p))
        return;
    int64_t r = blockIdx.y;
    float max = rank_value(row_best(a, r, share));
    reach to = reach_of(a, p, r, &far);
    if (to.count > SORT)
        return;
    for (int k = 0; k < EACH; k++) {
        int id = (int)blockIdx.x * SLICE + k * THREADS + (int)threadIdx.x;
        if (id >= a.vocab)
            break;
        float x = a.w[r * a.vocab + id];
        if (in_band(to.band, max, x))
            a.list[r * SORT + atomicAdd(&a.fill[r], 1)] = rank_of(x, id);
    }
}

/* ---- drawing --------------------------------------------------------------------------------- */

/* Sorted candidates s[0..n): top-k, then top-p, then min-p, then u. A thread has a stretch of them.
 */
static __device__ int draw_ranked(const row_args &p, const rank_t *s, int n, float max,
                                  double total)
{
    __shared__ double share[33];
    __shared__ int keep, chosen;
    __shared__ double kept;
    if (p.top_k > 0)
        n = min(n, p.top_k);
    int each = (n + THREADS - 1) / THREADS, from = min((int)threadIdx.x * each, n);
    int to = min(from + each, n);
    double sum = 0, all;
    if (threadIdx.x == 0)
        keep = chosen = n;
    for (int i = from; i < to; i++)
        sum += (double)expf(rank_value(s[i]) - max);
    double before = block_before(sum, share, &all), need = (double)p.top_p * total;
    if (p.top_k > 0)
        need = (double)p.top_p * all;
    sum = before;
    for (int i = from; i < to; i++) {
        float e = expf(rank_value(s[i]) - max);
        sum += (double)e;
        if (e < p.min_p)
            atomicMin(&keep, i);
        if (p.top_p < 1.0F && sum >= need)
            atomicMin(&keep, i + 1);
    }
    __syncthreads();
    int left = ::max(keep, 1);
    sum = before;
    for (int i = from; i < to; i++) {
        sum += (double)expf(rank_value(s[i]) - max);
        if (i == left - 1)
            kept = sum;
    }
    __syncthreads();
    sum = before;
    for (int i = from; i < min(to, left); i++) {
        sum += (double)expf(rank_value(s[i]) - max);
        if ((double)p.u * kept < sum)
            atomicMin(&chosen, i);
    }
    __syncthreads();
    return id_of(s[min(chosen, left - 1)]);
}

/* By id, with min-p: first the slice that u falls into, then in it a thread has EACH logits. */
static __device__ int draw_by_id(const sample_args &a, const row_args &p, int64_t r, float max)
{
    __shared__ double share[33];
    __shared__ int slice, chosen, last;
    __shared__ double left; /* of u's share, in the slice */
    const band_stat *band = a.band + r * a.slices;
    if (threadIdx.x == 0) {
        double total = 0, sum = 0;
        for (int i = 0; i < a.slices; i++)
            total += (double)band[i].mass[BANDS - 1];
        slice = 0;
        for (int i = 0; i < a.slices; i++) {
            double mass = (double)band[i].mass[BANDS - 1];
            if (mass > 0) {
                slice = i;
                left = (double)p.u * total - sum;
            }
            sum += mass;
            if ((double)p.u * total < sum)
                break;
        }
        chosen = a.vocab;
        last = 0;
    }
    __syncthreads();
    int from = min(slice * SLICE + (int)threadIdx.x * EACH, a.vocab);
    int to = min(from + EACH, a.vocab);
    const float *w = a.w + r * a.vocab;
    double sum = 0, all;
    for (int id = from; id < to; id++) {
        float e = expf(w[id] - max);
        sum += e < p.min_p ? 0.0 : (double)e;
    }
    sum = block_before(sum, share, &all);
    for (int id = from; id < to; id++) {
        float e = expf(w[id] - max);
        if (e < p.min_p)
            continue;
        sum += (double)e;
        atomicMax(&last, id);
        if (left < sum)
            atomicMin(&chosen, id);
    }
    __syncthreads();
    return chosen < a.vocab ? chosen : last;
}

/* log of the sum of exp of the model's own logits. */
static __device__ float row_lse(const sample_args &a, int64_t r, float *share)
{
    const slice_stat *s = a.stat + r * a.slices;
    float max = -INFINITY, sum = 0;
    for (int i = (int)threadIdx.x; i < a.slices; i += THREADS)
        max = fmaxf(max, s[i].max);
    max = block_max(max, share);
    for (int i = (int)threadIdx.x; i < a.slices; i += THREADS)
        sum += s[i].max == -INFINITY ? s[i].sum : s[i].sum * expf(s[i].max - max);
    return max + logf(block_sum(sum, share));
}

/* The best n_top of all slices' best. */
static __device__ void merge_top(const sample_args &a, int n_top, int64_t r, float lse, rank_t *s,
                                 row_out *out)
{
    int n = a.slices * n_top, size = power_of_two(n);
    for (int i = (int)threadIdx.x; i < size; i += THREADS)
        s[i] = i < n ? a.top[(r * a.slices + i / n_top) * TOP + i % n_top] : 0;
    __syncthreads();
    sort_ranks(s, size);
    if ((int)threadIdx.x < min(n_top, a.vocab)) {
        out->top_id[threadIdx.x] = id_of(s[threadIdx.x]);
        out->top_logp[threadIdx.x] = rank_value(s[threadIdx.x]) - lse;
    }
    __syncthreads();
}

/* Row blockIdx.x. Rows that sample_search_kernel has drawn have their id. */
static __global__ void sample_draw_kernel(sample_args a)
{
    __shared__ rank_t s[SORT], share[32];
    __shared__ float share_f[32];
    __shared__ reach_share far;
    int64_t r = blockIdx.x;
    const row_args p = a.row[r];
    row_out *out = a.out + r;
    float lse = row_lse(a, r, share_f);
    rank_t best = row_best(a, r, share);
    float max = rank_value(best);
    int id = id_of(best);
    if (p.n_top > 0)
        merge_top(a, p.n_top, r, lse, s, out);
    if (is_ranked(p)) {
        reach to = reach_of(a, p, r, &far);
        int size = power_of_two(to.count);
        if (to.count <= SORT) {
            for (int i = (int)threadIdx.x; i < size; i += THREADS)
                s[i] = i < to.count ? a.list[r * SORT + i] : 0;
            __syncthreads();
            sort_ranks(s, size);
            id = draw_ranked(p, s, to.count, max, to.total);
        } else {
            id = out->id;
        }
    } else if (p.greedy == 0) {
        id = draw_by_id(a, p, r, max);
    }
    if (threadIdx.x != 0)
        return;
    id = id < 0 || id >= a.vocab ? 0 : id; /* of a row that is not finite */
    out->id = id;
    out->finite = isfinite(lse);
    out->logp = a.logits[r * a.ld + id] - lse;
}

/* ---- the host's side ------------------------------------------------------------------------- */

static int check_ids(kern_dev *d, const char *what, int64_t n, const int32_t *id, int64_t vocab)
{
    for (int64_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= vocab)
            return cu_fail(d, KERN_EINVAL, "sample: %s id %d, the vocabulary has %lld", what, id[i],
                           (long long)vocab);
    return 0;
}

static int check_row(kern_dev *d, const kern_sample_row *r, int64_t vocab)
{
    if (!(r->temperature >= 0) || !(r->repetition > 0) || !(r->u >= 0 && r->u < 1) || r->top_k < 0)
        return cu_fail(d, KERN_EINVAL, "sample: temperature %g, repetition %g, u %g, top_k %d",
                       (double)r->temperature, (double)r->repetition, (double)r->u, r->top_k);
    if (r->n_top < 0 || r->n_top > KERN_MAX_TOP)
        return cu_fail(d, KERN_EINVAL, "sample: n_top %d, must be 0 to %d", r->n_top, KERN_MAX_TOP);
    if ((vocab + SLICE - 1) / SLICE * r->n_top > SORT)
        return cu_fail(d, KERN_EUNSUPPORTED, "sample: n_top %d of a vocabulary of %lld", r->n_top,
                       (long long)vocab);
    int rc = check_ids(d, "context", r->n_context, r->context, vocab);
    if (rc == 0)
        rc = check_ids(d, "answer", r->n_answer, r->answer, vocab);
    return rc != 0 ? rc : check_ids(d, "bias", r->n_bias, r->bias_id, vocab);
}

/* What all rows ask for, as it goes to the card: the rows, then the ids, then the biases. */
typedef struct request {
    char *host;
    size_t bytes;
    row_args *row;
    int32_t *ids;
    float *bias;    /* beside the ids of the biases: the same offsets */
    int64_t n_ids;  /* room, then what is used */
    int most, seen; /* most ids of a row; rows with penalties */
    bool sampled, ranked, top;
} request;

static int64_t ids_of(const kern_sample_row *r)
{
    return (r->repetition != 1.0F ? r->n_context : 0) +
           (r->presence != 0 || r->frequency != 0 ? r->n_answer : 0) + r->n_bias;
}

static int32_t put_ids(request *q, const int32_t *id, int64_t n)
{
    int32_t at = (int32_t)q->n_ids;
    if (n > 0)
        memcpy(q->ids + at, id, (size_t)n * sizeof *id);
    q->n_ids += n;
    return at;
}

static void put_row(request *q, row_args *o, const kern_sample_row *r, int64_t vocab)
{
    bool penalties = r->presence != 0 || r->frequency != 0;
    o->greedy = r->temperature == 0;
    o->inv_temperature = o->greedy != 0 ? 1.0F : 1.0F / r->temperature;
    o->top_p = r->top_p;
    o->min_p = r->min_p;
    o->u = r->u;
    o->repetition = r->repetition;
    o->presence = r->presence;
    o->frequency = r->frequency;
    o->top_k = r->top_k < vocab ? r->top_k : 0;
    o->n_top = r->n_top;
    o->n_bias = (int32_t)r->n_bias;
    o->bias = put_ids(q, r->bias_id, r->n_bias);
    if (r->n_bias > 0)
        memcpy(q->bias + o->bias, r->bias, (size_t)r->n_bias * sizeof *r->bias);
    o->n_context = r->repetition != 1.0F ? (int32_t)r->n_context : 0;
    o->context = put_ids(q, r->context, o->n_context);
    o->n_answer = penalties ? (int32_t)r->n_answer : 0;
    o->answer = put_ids(q, r->answer, o->n_answer);
    o->seen = o->n_context + o->n_answer > 0 ? q->seen++ : -1;
    int most = o->n_context > o->n_answer ? o->n_context : o->n_answer;
    q->most = most > q->most ? most : q->most;
    bool sampled = o->greedy == 0;
    q->sampled |= sampled;
    /* As the CPU has it: a top_k of the whole vocabulary sorts, and leaves out nothing. */
    if (sampled && r->top_k > 0 && o->top_k == 0 && o->top_p >= 1.0F)
        o->top_k = (int32_t)vocab;
    q->ranked |= sampled && (o->top_k > 0 || o->top_p < 1.0F);
    q->top |= o->n_top > 0;
}

static int request_new(kern_dev *d, request *q, const kern_sample *a)
{
    int64_t n = a->logits.rows, ids = 0;
    int rc = 0;
    *q = request();
    for (int64_t i = 0; i < n && rc == 0; i++) {
        rc = check_row(d, &a->row[i], a->logits.cols);
        ids += ids_of(&a->row[i]);
    }
    if (rc != 0)
        return rc;
    if (ids > INT32_MAX / 2)
        return cu_fail(d, KERN_EUNSUPPORTED, "sample: %lld ids of context", (long long)ids);
    q->bytes = (size_t)n * sizeof(row_args) + (size_t)ids * (sizeof(int32_t) + sizeof(float));
    q->host = (char *)calloc(1, q->bytes);
    if (q->host == NULL)
        return cu_fail(d, KERN_ENOMEM, "sample: no memory");
    q->row = (row_args *)q->host;
    q->ids = (int32_t *)(q->row + n);
    q->bias = (float *)(q->ids + ids);
    for (int64_t i = 0; i < n; i++)
        put_row(q, &q->row[i], &a->row[i], a->logits.cols);
    return 0;
}

/* The next `bytes` of memory that begins at base; NULL: only counted. */
static void *part_of(char *base, size_t *at, size_t bytes)
{
    void *p = base != NULL ? base + *at : NULL;
    *at += (bytes + 15) / 16 * 16;
    return p;
}

/* Places of everything but `seen`; returns the bytes. */
static size_t lay_out(sample_args *k, const request *q, int64_t n, char *base)
{
    size_t rows = (size_t)n, cut = rows * (size_t)k->slices, at = 0;
    k->w = (float *)part_of(base, &at, rows * (size_t)k->vocab * sizeof *k->w);
    k->stat = (slice_stat *)part_of(base, &at, cut * sizeof *k->stat);
    k->band = (band_stat *)part_of(base, &at, q->sampled ? cut * sizeof *k->band : 0);
    k->top = (rank_t *)part_of(base, &at, q->top ? cut * TOP * sizeof *k->top : 0);
    k->list = (rank_t *)part_of(base, &at, q->ranked ? rows * SORT * sizeof *k->list : 0);
    k->fill = (int *)part_of(base, &at, rows * sizeof *k->fill);
    k->out = (row_out *)part_of(base, &at, rows * sizeof *k->out);
    return at;
}

static int prepare(kern_dev *d, sample_args *k, const request *q, int64_t n)
{
    void *mem;
    int rc = cu_scratch(d, CU_SLOT_A, q->bytes, &mem);
    k->row = (const row_args *)mem;
    k->ids = (const int32_t *)(k->row + n);
    k->bias = (const float *)((char *)mem + ((char *)q->bias - q->host));
    if (rc == 0)
        rc = cu_op_write(d, mem, q->host, q->bytes);
    if (rc == 0)
        rc = cu_scratch(d, CU_SLOT_B, lay_out(k, q, n, NULL), &mem);
    if (rc == 0)
        (void)lay_out(k, q, n, (char *)mem);
    if (rc != 0 || q->seen == 0)
        return rc;
    size_t seen = (size_t)q->seen * (size_t)k->vocab * sizeof *k->seen;
    rc = cu_scratch(d, CU_SLOT_C, seen, &mem);
    k->seen = (unsigned *)mem;
    return rc == 0 ? cu_op_zero(d, mem, seen) : rc;
}

static int launch_all(kern_dev *d, const sample_args &k, const request *q, int64_t n)
{
    dim3 cut((unsigned)k.slices, (unsigned)n), rows((unsigned)n);
    int rc = 0;
    if (q->seen > 0)
        rc = cu_launch(d, "sample seen", sample_seen_kernel,
                       dim3(cu_blocks(q->most, THREADS), (unsigned)n), THREADS, k);
    if (rc == 0)
        rc = cu_launch(d, "sample slice", sample_slice_kernel, cut, THREADS, k);
    if (rc == 0 && q->top)
        rc = cu_launch(d, "sample top", sample_top_kernel, cut, THREADS, k);
    if (rc == 0 && q->sampled)
        rc = cu_launch(d, "sample band", sample_band_kernel, cut, THREADS, k);
    if (rc == 0 && q->ranked)
        rc = cu_launch(d, "sample gather", sample_gather_kernel, cut, THREADS, k);
    if (rc == 0 && q->ranked)
        rc = cu_launch(d, "sample search", sample_search_kernel, rows, WIDE, k);
    return rc == 0 ? cu_launch(d, "sample draw", sample_draw_kernel, rows, THREADS, k) : rc;
}

static int take_results(kern_dev *d, const kern_sample *a, const row_out *out)
{
    for (int64_t i = 0; i < a->logits.rows; i++) {
        kern_sample_row *r = &a->row[i];
        if (!out[i].finite)
            return cu_fail(d, KERN_EDEVICE, "sample: the logits of row %lld are not finite",
                           (long long)i);
        r->id = out[i].id;
        r->logp = out[i].logp;
        r->n_top = r->n_top < a->logits.cols ? r->n_top : (int32_t)a->logits.cols;
        memcpy(r->top_id, out[i].top_id, (size_t)r->n_top * sizeof *r->top_id);
        memcpy(r->top_logp, out[i].top_logp, (size_t)r->n_top * sizeof *r->top_logp);
    }
    return 0;
}

static int check(kern_dev *d, const kern_sample *a)
{
    int64_t n = a->logits.rows, vocab = a->logits.cols;
    int rc = cu_shape_of(d, "sample: logits", &a->logits, KERN_F32, n, vocab);
    if (rc == 0 && vocab < 1)
        rc = cu_fail(d, KERN_EINVAL, "sample: a vocabulary of %lld", (long long)vocab);
    if (rc == 0 && (vocab > MAX_VOCAB || n > MAX_ROWS))
        rc = cu_fail(d, KERN_EUNSUPPORTED, "sample: %lld rows of %lld logits", (long long)n,
                     (long long)vocab);
    if (rc == 0 && cu_of(d)->capturing)
        rc = cu_fail(d, KERN_EINVAL, "sample: it waits, so it cannot be recorded");
    return rc;
}

int cu_op_sample(kern_dev *d, const kern_sample *a)
{
    int64_t n = a->logits.rows;
    int rc = check(d, a);
    request q;
    if (rc != 0 || n == 0)
        return rc;
    rc = request_new(d, &q, a);
    if (rc != 0)
        return rc;
    sample_args k = {};
    k.logits = (const float *)a->logits.data;
    k.ld = a->logits.ld;
    k.vocab = (int)a->logits.cols;
    k.slices = (k.vocab + SLICE - 1) / SLICE;
    rc = prepare(d, &k, &q, n);
    if (rc == 0)
        rc = launch_all(d, k, &q, n);
    row_out *out = (row_out *)realloc(q.host, (size_t)n * sizeof *out);
    if (out == NULL) {
        free(q.host);
        return cu_fail(d, KERN_ENOMEM, "sample: no memory");
    }
    if (rc == 0)
        rc = cu_op_read(d, out, k.out, (size_t)n * sizeof *out);
    if (rc == 0)
        rc = take_results(d, a, out);
    free(out);
    return rc;
}
