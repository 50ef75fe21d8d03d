#include "core/data/pack.h"

#include "core/base/mem.h"
#include "core/base/rng.h"

#include <stdlib.h>
#include <string.h>

/* ---- first fit ---- */

/* Room left in each bin, under a tree of maxima: the first bin with room is found in log(bins). */
typedef struct bins {
    int64_t *room; /* tree of 2 * leaves nodes, leaf i at leaves + i */
    size_t leaves, n;
} bins;

static void bins_init(bins *b, size_t max)
{
    b->n = 0;
    b->leaves = 1;
    while (b->leaves < max)
        b->leaves *= 2;
    b->room = mem_array(2 * b->leaves, sizeof *b->room);
}

static void bins_set(bins *b, size_t bin, int64_t room)
{
    size_t i = b->leaves + bin;
    b->room[i] = room;
    for (i /= 2; i > 0; i /= 2) {
        int64_t l = b->room[2 * i], r = b->room[2 * i + 1];
        b->room[i] = l > r ? l : r;
    }
}

/* Puts n tokens into the first bin that has room, or into a new one of `size`. */
static size_t bins_put(bins *b, int64_t n, int64_t size)
{
    size_t i = 1;
    if (b->room[1] < n) {
        bins_set(b, b->n, size - n);
        return b->n++;
    }
    while (i < b->leaves)
        i = b->room[2 * i] >= n ? 2 * i : 2 * i + 1;
    bins_set(b, i - b->leaves, b->room[i] - n);
    return i - b->leaves;
}

typedef struct placed {
    int64_t n;
    uint32_t sample, at; /* at: place in the epoch's order, which settles ties */
} placed;

static int longest_first(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Packs order[0..n) in place; appends the start of each batch, counted from `base`. */
static void pack_window(pack_plan *p, const dataset *d, uint32_t *order, size_t n, uint32_t base,
                        int64_t size)
{
    placed *w = mem_array(n, sizeof *w);
    size_t *bin = mem_array(n, sizeof *bin);
    bins b;
    bins_init(&b, n);
    for (size_t i = 0; i < n; i++)
        w[i] = (placed){d->samples[order[i]].n, order[i], (uint32_t)i};
    qsort(w, n, sizeof *w, longest_first);
    for (size_t i = 0; i < n; i++)
        bin[i] = bins_put(&b, w[i].n, size);
    uint32_t *at = mem_array(b.n + 1, sizeof *at);
    for (size_t i = 0; i < n; i++)
        at[bin[i] + 1]++;
    for (size_t i = 0; i < b.n; i++) {
        p->start[p->n_batches++] = base + at[i];
        at[i + 1] += at[i];
    }
    for (size_t i = 0; i < n; i++)
        order[at[bin[i]]++] = w[i].sample;
    free(at);
    free(b.room);
    free(bin);
    free(w);
}

/* ---- an epoch ---- */

static void shuffle_batches(pack_plan *p, size_t n, rng *r)
{
    uint32_t *perm = mem_array(p->n_batches, sizeof *perm);
    uint32_t *order = mem_array(n, sizeof *order), *start = mem_array(n + 1, sizeof *start);
    uint32_t at = 0;
    for (size_t i = 0; i < p->n_batches; i++)
        perm[i] = (uint32_t)i;
    rng_shuffle(r, perm, p->n_batches);
    for (size_t i = 0; i < p->n_batches; i++) {
        uint32_t from = p->start[perm[i]], len = p->start[perm[i] + 1] - from;
        memcpy(order + at, p->order + from, len * sizeof *order);
        start[i] = at;
        at += len;
    }
    start[p->n_batches] = at;
    free(perm);
    free(p->order);
    free(p->start);
    p->order = order;
    p->start = start;
}

static void measure(pack_plan *p, const dataset *d)
{
    for (size_t b = 0; b < p->n_batches; b++) {
        int64_t n = 0;
        for (uint32_t i = p->start[b]; i < p->start[b + 1]; i++)
            n += d->samples[p->order[i]].n;
        if (n > p->max_tokens)
            p->max_tokens = n;
    }
}

void pack_epoch(pack_plan *out, const data_view *v, const pack_options *o, int64_t epoch)
{
    rng r = {o->seed, rng_stream("epoch") + (uint64_t)epoch, 0};
    size_t step = o->packing ? PACK_WINDOW : (size_t)o->micro_batch_size;
    *out = (pack_plan){.order = mem_array(v->n, sizeof *out->order),
                       .start = mem_array(v->n + 1, sizeof *out->start)};
    memcpy(out->order, v->sample, v->n * sizeof *out->order);
    if (o->shuffle)
        rng_shuffle(&r, out->order, v->n);
    for (size_t at = 0; at < v->n; at += step) {
        size_t n = v->n - at < step ? v->n - at : step;
        if (o->packing)
            pack_window(out, v->d, out->order + at, n, (uint32_t)at,
                        o->micro_batch_size * o->sequence_len);
        else
            out->start[out->n_batches++] = (uint32_t)at;
    }
    out->start[out->n_batches] = (uint32_t)v->n;
    if (o->packing && o->shuffle)
        shuffle_batches(out, v->n, &r);
    measure(out, v->d);
}

void pack_plan_free(pack_plan *p)
{
    free(p->order);
    free(p->start);
    *p = (pack_plan){0};
}

/* ---- a micro-batch ---- */

static void reserve(micro_batch *b, size_t n, size_t n_seg)
{
    size_t cap = b->cap_n;
    b->ids = mem_grow(b->ids, &cap, n, sizeof *b->ids);
    cap = b->cap_n;
    b->pos = mem_grow(b->pos, &cap, n, sizeof *b->pos);
    b->target = mem_grow(b->target, &b->cap_n, n, sizeof *b->target);
    b->cu = mem_grow(b->cu, &b->cap_seg, n_seg + 1, sizeof *b->cu);
}

static void fill_segment(micro_batch *b, const dataset *d, const data_sample *s)
{
    const int32_t *ids = d->ids + s->start;
    const uint8_t *mask = d->mask + s->start;
    int32_t *target = b->target + b->n;
    memcpy(b->ids + b->n, ids, (size_t)s->n * sizeof *ids);
    for (int64_t i = 0; i < s->n; i++) {
        b->pos[b->n + i] = (int32_t)i;
        target[i] = i + 1 < s->n && mask[i + 1] != 0 ? ids[i + 1] : -1;
    }
    b->n += s->n;
    b->n_targets += s->n_targets;
}

void pack_fill(micro_batch *b, const dataset *d, const pack_plan *p, size_t batch)
{
    uint32_t from = p->start[batch], to = p->start[batch + 1];
    size_t n = 0;
    for (uint32_t i = from; i < to; i++)
        n += (size_t)d->samples[p->order[i]].n;
    reserve(b, n, to - from);
    b->n = b->n_targets = 0;
    b->n_seg = (int)(to - from);
    b->samples = p->order + from;
    for (uint32_t i = from; i < to; i++) {
        b->cu[i - from] = (int32_t)b->n;
        fill_segment(b, d, &d->samples[p->order[i]]);
    }
    b->cu[b->n_seg] = (int32_t)b->n;
}

int64_t pack_targets(const dataset *d, const pack_plan *p, size_t batch)
{
    int64_t n = 0;
    for (uint32_t i = p->start[batch]; i < p->start[batch + 1]; i++)
        n += d->samples[p->order[i]].n_targets;
    return n;
}

void micro_batch_free(micro_batch *b)
{
    free(b->ids);
    free(b->pos);
    free(b->target);
    free(b->cu);
    *b = (micro_batch){0};
}
