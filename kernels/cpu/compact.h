#pragma once
/* Weights of bf16 in seven tenths of their bytes, without loss.
 *
 * Decoding reads every weight once a token and waits for memory, so fewer bytes are more tokens.
 * Trained weights use few of the 256 exponents: here each panel of 64 columns has a table of 7, and
 * a weight is its sign and mantissa (a byte) and three bits that name its exponent, or say that it
 * is the next of the panel's rare ones (another byte). A matrix with many rare ones stays as it is.
 * That exponents carry under 3 bits is shown by Zhang et al. 2025, "70% Size, 100% Accuracy:
 * Lossless LLM Compression for Efficient GPU Inference via Dynamic-Length Float"; bits of one
 * length suit vector registers.
 *
 * The sums are those of the whole panels, bit for bit. Products of many rows expand some panels at
 * a time. */
#include "kernels/cpu/weight.h"

/* A step is 64 columns by a pair. Of its weights, in two halves of 64: a byte of mantissa (upper 7
 * bits) and sign each, then three planes of 64 bits. */
enum { COMPACT_STEP = 128, COMPACT_STEP_BYTES = 176, COMPACT_TABLE = 8, COMPACT_RARE = 7 };

typedef struct cpu_compact {
    uint8_t *table; /* [panels, COMPACT_TABLE]; the last entry is not used */
    int64_t *first; /* [panels + 1] rare exponents of the panels before */
    uint8_t *rare;  /* [first[panels] + 64], as reading takes 64 at a time */
} cpu_compact;

/* A panel to read. */
typedef struct cpu_compact_panel {
    const uint8_t *data, *table, *rare;
} cpu_compact_panel;

/* This machine can read compact panels (AVX-512 with BF16 and VBMI2). */
bool cpu_compact_here(void);
/* m, of this layout, may be compact on this device. */
bool cpu_compact_fits(const kern_dev *d, const cpu_matrix *m);
/* Makes m's panels compact where that saves a fifth or more, else leaves them. On an error m is as
 * it was. */
int cpu_compact_make(kern_dev *d, cpu_matrix *m);
void cpu_compact_free(kern_dev *d, cpu_matrix *m);
cpu_compact_panel cpu_compact_at(const cpu_matrix *m, int64_t panel);

/* As mv_bf16, over all columns of a panel. */
void cpu_compact_mv(const vec_mv *a, const cpu_compact_panel *c);
/* The whole panel, [steps, 128]. */
void cpu_compact_expand(const cpu_compact_panel *c, int64_t steps, uint16_t *dst);
