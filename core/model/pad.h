#pragma once
/* Batches and decode steps made up to one of a few sizes, so that a pass of each size is recorded
 * once. What is added stands after the real rows and changes no result and no gradient: in a batch
 * short segments of its own without targets, in a step sequences of one token whose key and value
 * go to a block that no sequence owns. Private to core/model. */
#include "core/model/model.h"

typedef struct padded {
    model_batch b; /* arrays belong to this struct */
    void *block;
} padded;

/* b, already checked, as a batch of n rows (n >= b->n). Its number of segments is a power of two;
 * the last ones may be empty. */
void pad_make(padded *out, const model_batch *b, int64_t n);
void pad_free(padded *p);

typedef struct padded_step {
    model_step s; /* arrays belong to this struct, but out_row */
    int32_t *slot;
    void *block;
} padded_step;

/* A step of one new token a sequence, already checked, as one of a power of two of sequences (of
 * many sequences: a multiple of 16) and of max_blocks. slot [n] says where each token goes; `spare`
 * is the block that takes what is added, of block_tokens tokens. */
void pad_step(padded_step *out, const model_step *s, const int32_t *slot, int32_t spare,
              int block_tokens);
void pad_step_free(padded_step *p);
