#pragma once
/* Dropout masks by Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011): a word is a function of seed, stream and place, so any part of a mask can be made again.
 * Only the vec_*.c files include this. */
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vec.h"

/* As many counters at once as there are 64-bit lanes. */
enum { DROP_LANES = VL / 2 };
typedef uint64_t vq __attribute__((vector_size(VL * 4)));

/* Low halves of a times m. */
SIMD_FN vq drop_mul(vq a, uint32_t m)
{
#if defined(__AVX512F__)
    return (vq)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(m));
#elif defined(__AVX2__)
    return (vq)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(m));
#else
    return (a & 0xFFFFFFFFU) * m;
#endif
}

/* Words 4i to 4i + 3 for DROP_LANES counters i from `index` on, in order. */
SIMD_FN void drop_words(const vec_drop *a, uint64_t index, uint32_t out[4 * DROP_LANES])
{
    vq at, c[4];
    for (int i = 0; i < DROP_LANES; i++)
        at[i] = index + (uint64_t)i;
    const vq low = (vq){0} + 0xFFFFFFFFU;
    c[0] = at & low;
    c[1] = at >> 32;
    c[2] = (vq){0} + (a->stream & 0xFFFFFFFFU);
    c[3] = (vq){0} + (a->stream >> 32);
    uint32_t k0 = (uint32_t)a->seed, k1 = (uint32_t)(a->seed >> 32);
    for (int round = 0; round < 10; round++) {
        vq p0 = drop_mul(c[0], 0xD2511F53U), p1 = drop_mul(c[2], 0xCD9E8D57U);
        c[0] = (p1 >> 32) ^ c[1] ^ k0;
        c[2] = (p0 >> 32) ^ c[3] ^ k1;
        c[1] = p1 & low;
        c[3] = p0 & low;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    for (int i = 0; i < DROP_LANES; i++)
        for (int j = 0; j < 4; j++)
            out[4 * i + j] = (uint32_t)c[j][i];
}

static inline void row_drop(const vec_drop *a)
{
    uint32_t w[4 * DROP_LANES];
    const float keep = 1.0F / (1.0F - a->p);
    uint64_t first = a->at / 4;
    int64_t i = -(int64_t)(a->at % 4); /* element of the first word */
    for (; i < a->n; i += 4 * DROP_LANES, first += DROP_LANES) {
        drop_words(a, first, w);
        int64_t from = i < 0 ? -i : 0, to = a->n - i < 4 * DROP_LANES ? a->n - i : 4 * DROP_LANES;
        for (int64_t j = from; j < to; j++)
            a->x[i + j] *= (float)(w[j] >> 8) * 0x1p-24F >= a->p ? keep : 0.0F;
    }
}
