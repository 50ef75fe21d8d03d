#pragma once
/* Micro-batches of an epoch: which samples go together, and the arrays that the model reads. Every
 * sample is in exactly one micro-batch of each epoch. Sequences are isolated: positions restart, a
 * row's target never crosses a border. */
#include "core/base/err.h"
#include "core/data/dataset.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pack_options {
    int64_t micro_batch_size, sequence_len;
    bool packing; /* fill micro_batch_size * sequence_len tokens; else micro_batch_size samples */
    bool shuffle;
    uint64_t seed;
} pack_options;

/* The order of one epoch; a pure function of view, options and epoch. */
typedef struct pack_plan {
    uint32_t *order; /* [view.n] samples of the data set, batch by batch */
    uint32_t *start; /* [n_batches + 1] where each batch begins in order */
    size_t n_batches;
    int64_t max_tokens; /* of the largest batch */
} pack_plan;

/* With packing: first fit decreasing, over windows of PACK_WINDOW samples in the epoch's order; the
 * batches are shuffled again, since they come out by length. */
enum { PACK_WINDOW = 8192 };
void pack_epoch(pack_plan *out, const data_view *v, const pack_options *o, int64_t epoch);
void pack_plan_free(pack_plan *p); /* safe on a zeroed one */

/* One micro-batch on the host. Zero-initialise; pack_fill reuses the memory. */
typedef struct micro_batch {
    int64_t n, n_targets;
    int n_seg;
    int32_t *ids, *pos, *target; /* [n]; target: the next id where it is supervised, else -1; -1 at
                                    the end of a segment */
    int32_t *cu;                 /* [n_seg + 1] */
    const uint32_t *samples;     /* [n_seg], into the plan */
    size_t cap_n, cap_seg;       /* private */
} micro_batch;

void pack_fill(micro_batch *b, const dataset *d, const pack_plan *p, size_t batch);
int64_t pack_targets(const dataset *d, const pack_plan *p,
                     size_t batch); /* n_targets without filling */
void micro_batch_free(micro_batch *b);
