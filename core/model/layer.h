#pragma once
/* One decoder block, forward and backward, for every architecture. */
#include "core/base/err.h"
#include "core/model/model_int.h"

/* One pass over n tokens, packed segments or sequences over a paged cache. Arrays are on the
 * device. */
typedef struct pass {
    int64_t n;
    const int32_t *ids, *pos, *target, *row; /* row: [n_rows] those with a target */
    int64_t n_rows;
    const float *coef;
    const int32_t *cu; /* packed */
    int n_seg;
    int64_t max_len;
    kern_kv *kv; /* NULL: packed */
    const int32_t *slot, *q_start, *kv_len, *blocks, *out_row;
    int n_seq;
    int64_t max_blocks;
    bool keep;           /* each layer keeps what its backward needs */
    bool training;       /* dropout of low-rank terms */
    int64_t floor;       /* layer_floor, for the backward pass */
    const uint64_t *rng; /* [2] seed and row offset of dropout */
} pass;

/* The stream x + add (add data NULL: none) enters; res2 of the layer's buffers and acts.mix
 * together are what leaves. For layer 0 x is its own res1, already written. */
int layer_forward(model *m, int64_t l, const pass *p, kern_tensor x, kern_tensor add, hone_err *e);

/* The first product that has something to train, counted as layer * N_GROUPS + group: nothing below
 * it needs a gradient. -1: the embedding is trained too. INT64_MAX: nothing is trained. */
int64_t layer_floor(const model *m);

/* acts.d holds the gradient of the stream that leaves the layer, and on return of the one that
 * enters (down to p->floor, after which it is not meaningful). Gradients of parameters are added.
 */
int layer_backward(model *m, int64_t l, const pass *p, hone_err *e);

/* pass.c: the layers and the final norm, whose output acts.y holds. */
int pass_forward(model *m, const pass *p, hone_err *e);
/* Logits of rows of x (row NULL: all of it) in the model's own buffer. */
int pass_logits(model *m, kern_tensor x, const int32_t *row, int64_t n_rows, kern_tensor *logits,
                hone_err *e);
