#pragma once
/* Rotary position embedding: one row of cosines and sines a position, with the scaling of the
 * checkpoint in it. arXiv:2104.09864; the linear and llama3 scalings as transformers computes them,
 * in F32. */
#include "core/base/err.h"
#include "core/model/arch.h"
#include "kernels/kern.h"

/* Zero-initialise. */
typedef struct rope {
    int64_t n;            /* positions that the tables hold */
    kern_tensor cos, sin; /* F32 [n, head_dim / 2] on the device */
} rope;

/* inv [head_dim / 2]: radians a position for each pair of dimensions. */
void rope_frequencies(const arch_config *c, float *inv);

/* Makes the tables hold at least n_positions, at most c->max_positions. */
int rope_reserve(rope *r, kern_dev *dev, const arch_config *c, int64_t n_positions, hone_err *e);
void rope_free(rope *r, kern_dev *dev);
