#pragma once
/* Philox4x32-10, a counter-based generator: the n-th value of a stream is a pure function of (seed,
 * stream, n), so that a recomputed dropout mask or a resumed run replays exactly. Source: Salmon et
 * al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#include <stddef.h>
#include <stdint.h>

/* Four words for (seed, stream, index). */
void rng_philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t index);

/* A cursor over one stream. Plain data: save and restore it as it is. */
typedef struct rng {
    uint64_t seed, stream, index; /* index counts 32-bit words handed out */
} rng;

uint32_t rng_u32(rng *r);
uint64_t rng_below(rng *r, uint64_t n);          /* uniform in [0, n), unbiased; n > 0 */
float rng_uniform(rng *r);                       /* [0, 1), 24 bits */
float rng_normal(rng *r);                        /* mean 0, variance 1 (Box-Muller) */
void rng_shuffle(rng *r, uint32_t *a, size_t n); /* Fisher-Yates */

/* A stream number from a name, stable for ever (FNV-1a, 64 bits). */
uint64_t rng_stream(const char *name);
