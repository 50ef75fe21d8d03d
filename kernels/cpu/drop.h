#pragma once
/* Dropout masks by Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011): a word is a function of seed, stream and place, so any part of a mask can be made again.
 * Only the vec_*.c files include this. */
#include <math.h>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/vec.h"

/* As many counters at once as there are 64-bit lanes. */
enum { DROP_LANES = VL / 2, DROP_WORDS = 2 * VL };
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

#if defined(VL_IS_16)
#define DROP_FRONT 0, 8, 1, 9, 2, 10, 3, 11
#define DROP_BACK 4, 12, 5, 13, 6, 14, 7, 15
#elif defined(VL_IS_8)
#define DROP_FRONT 0, 4, 1, 5
#define DROP_BACK 2, 6, 3, 7
#else
#define DROP_FRONT 0, 2
#define DROP_BACK 1, 3
#endif

/* Words 4i to 4i + 3 for DROP_LANES counters i from `index` on, in order: two vectors. */
SIMD_FN void drop_words(const vec_drop *a, uint64_t index, vu out[2])
{
    vq at, c[4];
    UNROLL
    for (int i = 0; i < DROP_LANES; i++)
        at[i] = index + (uint64_t)i;
    const vq low = (vq){0} + 0xFFFFFFFFU;
    c[0] = at & low;
    c[1] = at >> 32;
    c[2] = (vq){0} + (a->stream & 0xFFFFFFFFU);
    c[3] = (vq){0} + (a->stream >> 32);
    uint32_t k0 = (uint32_t)a->seed, k1 = (uint32_t)(a->seed >> 32);
    UNROLL
    for (int round = 0; round < 10; round++) {
        vq p0 = drop_mul(c[0], 0xD2511F53U), p1 = drop_mul(c[2], 0xCD9E8D57U);
        c[0] = (p1 >> 32) ^ c[1] ^ k0;
        c[2] = (p0 >> 32) ^ c[3] ^ k1;
        c[1] = p1 & low;
        c[3] = p0 & low;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    vq even = c[0] | c[1] << 32, odd = c[2] | c[3] << 32;
    out[0] = (vu)__builtin_shufflevector(even, odd, DROP_FRONT);
    out[1] = (vu)__builtin_shufflevector(even, odd, DROP_BACK);
}

static inline void row_drop(const vec_drop *a)
{
    /* A uniform value is 24 bits times 2^-24, so comparing it with p is comparing whole numbers. */
    const int32_t least = (int32_t)ceilf(a->p * 0x1p24F);
    const float keep = 1.0F / (1.0F - a->p);
    uint64_t first = a->at / 4;
    int64_t i = -(int64_t)(a->at % 4); /* element of the first word */
    for (; i < a->n; i += DROP_WORDS, first += DROP_LANES) {
        vu w[2];
        drop_words(a, first, w);
        for (int64_t v = 0; v < 2; v++) {
            int64_t e = i + v * VL;
            vf m = v_select((vi)(w[v] >> 8) >= least, v_set1(keep), (vf){0});
            if (e >= 0 && e + VL <= a->n) {
                v_store(a->x + e, v_load(a->x + e) * m);
                continue;
            }
            for (int64_t j = e < 0 ? -e : 0; j < VL && e + j < a->n; j++)
                a->x[e + j] *= m[j];
        }
    }
}
