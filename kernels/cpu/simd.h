#pragma once
/* One vector type for every machine: as wide as the file that includes this is compiled for (16, 8
 * or 4 floats).
 *
 * GCC vector extensions carry the arithmetic; only conversions and horizontal steps are spelt by
 * hand. A row kernel written once against this header is compiled three times (vec_generic.c,
 * vec_avx2.c, vec_avx512.c). Reductions run over lanes in a fixed order, so that a width always
 * gives the same bits. */
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VL_IS_16 1
enum { VL = 16 };
#elif defined(__AVX2__)
#define VL_IS_8 1
enum { VL = 8 };
#else
enum { VL = 4 };
#endif

/* Before a loop with a constant count whose arrays are to live in registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

#define SIMD_FN static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef uint16_t vh __attribute__((vector_size(VL * 2)));

SIMD_FN vf v_set1(float x)
{
#if defined(__AVX512F__)
    return (vf)_mm512_set1_ps(x);
#elif defined(__AVX2__)
    return (vf)_mm256_set1_ps(x);
#else
    return (vf){x, x, x, x};
#endif
}

SIMD_FN vf v_load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

SIMD_FN void v_store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

SIMD_FN float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Round to nearest, ties to even; a NaN stays one. */
SIMD_FN uint16_t bf16_from_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7FFFFFFFU) > 0x7F800000U)
        return (uint16_t)((u >> 16) | 0x40U);
    return (uint16_t)((u + 0x7FFFU + ((u >> 16) & 1U)) >> 16);
}

SIMD_FN vf v_load_bf16(const uint16_t *p)
{
    vh h;
    memcpy(&h, p, sizeof h);
    return (vf)(__builtin_convertvector(h, vu) << 16);
}

SIMD_FN void v_store_bf16(uint16_t *p, vf v)
{
#if defined(__AVX512BF16__)
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &h, sizeof h);
#else
    vu u = (vu)v;
    vu r = (u + 0x7FFFU + ((u >> 16) & 1U)) >> 16;
    vu nan = (vu)((u & 0x7FFFFFFFU) > 0x7F800000U);
    r = (nan & ((u >> 16) | 0x40U)) | (~nan & r);
    vh h = __builtin_convertvector(r, vh);
    memcpy(p, &h, sizeof h);
#endif
}

/* Element access by a dtype known when the kernel is compiled: bf is 1 for bf16, 0 for f32. */
SIMD_FN vf v_get(const void *p, int64_t i, int bf)
{
    return bf ? v_load_bf16((const uint16_t *)p + i) : v_load((const float *)p + i);
}

SIMD_FN void v_put(void *p, int64_t i, vf v, int bf)
{
    if (bf)
        v_store_bf16((uint16_t *)p + i, v);
    else
        v_store((float *)p + i, v);
}

SIMD_FN float s_get(const void *p, int64_t i, int bf)
{
    return bf ? bf16_to_f32(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

SIMD_FN void s_put(void *p, int64_t i, float v, int bf)
{
    if (bf)
        ((uint16_t *)p)[i] = bf16_from_f32(v);
    else
        ((float *)p)[i] = v;
}

/* The first m < VL elements, the rest zero. */
SIMD_FN vf v_get_part(const void *p, int64_t i, int64_t m, int bf)
{
    float t[VL] = {0};
    for (int64_t j = 0; j < m; j++)
        t[j] = s_get(p, i + j, bf);
    return v_load(t);
}

SIMD_FN void v_put_part(void *p, int64_t i, int64_t m, vf v, int bf)
{
    float t[VL];
    v_store(t, v);
    for (int64_t j = 0; j < m; j++)
        s_put(p, i + j, t[j], bf);
}

/* What storing in the activation dtype and loading again gives. */
SIMD_FN vf v_round(vf v, int bf)
{
    if (!bf)
        return v;
    uint16_t t[VL];
    v_store_bf16(t, v);
    return v_load_bf16(t);
}

SIMD_FN float v_sum(vf v)
{
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#endif
    float t[VL];
    v_store(t, v);
    for (int w = VL / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            t[i] += t[i + w];
    return t[0];
}

SIMD_FN vf v_select(vi mask, vf a, vf b)
{
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

/* b where either is not a number. */
SIMD_FN vf v_max(vf a, vf b)
{
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#endif
    return v_select(a > b, a, b);
}

SIMD_FN float v_max_lane(vf v)
{
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#endif
    float t[VL], m;
    v_store(t, v);
    m = t[0];
    for (int i = 1; i < VL; i++)
        m = t[i] > m ? t[i] : m;
    return m;
}

/* e^x to about 1 unit in the last place; 0 far below, +inf above 88.7, NaN for NaN. Cephes' split
 * of ln 2 and minimax polynomial. */
SIMD_FN vf v_exp(vf x)
{
    const float magic = 12582912.0F; /* 1.5 * 2^23: adding it rounds to an integer */
#if defined(__AVX512F__)
    /* The second operand is what max gives when one is not a number. */
    vf c = (vf)_mm512_max_ps(_mm512_set1_ps(-200.0F), (__m512)x);
#else
    const vf lo = v_set1(-87.33654F), hi = v_set1(88.72283F);
    vi under = x<lo, over = x> hi;
    vf c = v_select(under, lo, v_select(over, hi, x));
#endif
    vf t = c * 1.44269504F + magic;
    vf n = t - magic;
    vf r = c - n * 0.693359375F - n * -2.12194440e-4F;
    vf p = v_set1(1.9875691500e-4F);
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * (r * r) + r + 1.0F;
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    /* 2^n in two halves, so that n = 128 does not overflow before the product. */
    vi ni = (vi)t - (vi)v_set1(magic);
    vi half = ni >> 1;
    vf s1 = (vf)((half + 127) << 23), s2 = (vf)((ni - half + 127) << 23);
    vf y = v_select(under, (vf){0}, p * s1 * s2);
    return v_select(over, v_set1(__builtin_inff()), y);
#endif
}

/* e^x for x up to about 0, to 2^-18 of it: for what is rounded to bf16. 0 far below, NaN for NaN.
 * 2^f for f in [0, 1) by a polynomial with the least relative error that is 1 at 0. */
SIMD_FN vf v_exp_short(vf x)
{
#if defined(__AVX512DQ__)
    __m512 y = _mm512_mul_ps((__m512)x, _mm512_set1_ps(1.44269504F));
    vf f = (vf)_mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vf p = v_set1(1.342668943e-2F);
    p = p * f + 5.224246532e-2F;
    p = p * f + 2.412802130e-1F;
    p = p * f + 6.930448413e-1F;
    p = p * f + 1.0F;
    return (vf)_mm512_scalef_ps((__m512)p, y);
#else
    return v_exp(x);
#endif
}
