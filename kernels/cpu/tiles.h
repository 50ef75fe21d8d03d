#pragma once
/* What attention does to tiles between its products. Only the vec_*.c files include this. */
#include <math.h>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/vec.h"

/* ---- moving ---------------------------------------------------------------------------------- */

#if defined(__AVX512F__)
/* 16 x 16 elements of 4 bytes: four rounds, each swapping blocks of twice the size between pairs of
 * rows. */
SIMD_FN void transpose_block(const float *src, int64_t lds, float *dst, int64_t ldd)
{
    __m512 r[16], t[16];
    UNROLL
    for (int i = 0; i < 16; i++)
        r[i] = _mm512_loadu_ps(src + i * lds);
    UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4)
        UNROLL
    for (int j = 0; j < 2; j++) {
        __m512d a = (__m512d)t[i + j], b = (__m512d)t[i + j + 2];
        r[i + 2 * j] = (__m512)_mm512_unpacklo_pd(a, b);
        r[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd(a, b);
    }
    UNROLL
    for (int i = 0; i < 16; i += 8)
        UNROLL
    for (int j = 0; j < 4; j++) {
        t[i + j] = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], 0x88);
        t[i + j + 4] = _mm512_shuffle_f32x4(r[i + j], r[i + j + 4], 0xDD);
    }
    UNROLL
    for (int j = 0; j < 8; j++) {
        r[j] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0xDD);
    }
    UNROLL
    for (int i = 0; i < 16; i++)
        _mm512_storeu_ps(dst + i * ldd, r[i]);
}
#else
SIMD_FN void transpose_block(const float *src, int64_t lds, float *dst, int64_t ldd)
{
    UNROLL
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            dst[j * ldd + i] = src[i * lds + j];
}
#endif

static inline void tile_transpose(const float *src, int64_t lds, int rows, int cols, float *dst,
                                  int64_t ldd)
{
    for (int i = 0; i < rows; i += 16)
        for (int j = 0; j < cols; j += 16)
            transpose_block(src + i * lds + j, lds, dst + j * ldd + i, ldd);
}

/* One row, from and to known; m elements of each vector. */
SIMD_FN void tile_row(const void *src, const int from_bf, int64_t n, void *dst, const int to_bf)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        v_put(dst, i, v_get(src, i, from_bf), to_bf);
    for (; i < n; i++)
        s_put(dst, i, s_get(src, i, from_bf), to_bf);
}

SIMD_FN void tile_rows_t(const void *src, const int from_bf, int64_t ld, int64_t rows, int64_t n,
                         float *dst, const int to_bf, int64_t words)
{
    size_t used = (size_t)n * (to_bf ? 2 : 4), all = (size_t)words * 4;
    for (int64_t r = 0; r < rows; r++) {
        const char *s = (const char *)src + (size_t)(r * ld) * (from_bf ? 2 : 4);
        char *d = (char *)(dst + r * words);
        if (from_bf == to_bf && used % 64 == 0)
            for (size_t b = 0; b < used; b += 64)
                memcpy(d + b, s + b, 64);
        else
            tile_row(s, from_bf, n, d, to_bf);
        if (used < all)
            memset(d + used, 0, all - used);
    }
}

static inline void tile_rows(kern_dtype from, const void *src, int64_t ld, int64_t rows, int64_t n,
                             kern_dtype to, float *dst, int64_t words)
{
    if (from == KERN_BF16 && to == KERN_BF16)
        tile_rows_t(src, 1, ld, rows, n, dst, 1, words);
    else if (from == KERN_BF16)
        tile_rows_t(src, 1, ld, rows, n, dst, 0, words);
    else if (to == KERN_BF16)
        tile_rows_t(src, 0, ld, rows, n, dst, 1, words);
    else
        tile_rows_t(src, 0, ld, rows, n, dst, 0, words);
}

#if defined(__AVX512BF16__)
/* 16 bf16 of two rows, side by side. */
SIMD_FN __m512i weave_16(__m256i even, __m256i odd)
{
    return _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

/* 32 bf16 of two rows, side by side: the first 16 columns, or the last. */
SIMD_FN __m512i weave_32(__m512i even, __m512i odd, const int last)
{
    static const uint16_t places[2][32] = {
        {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
         8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
        {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
         24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
    return _mm512_permutex2var_epi16(even, _mm512_loadu_si512(places[last]), odd);
}

static inline void tile_weave(const uint16_t *src, int64_t lds, int rows, int cols, uint16_t *dst,
                              int64_t ldd)
{
    for (int i = 0; i < rows; i += 2) {
        const uint16_t *even = src + i * lds, *odd = even + lds;
        uint16_t *d = dst + i / 2 * ldd;
        int64_t j = 0;
        for (; j + 32 <= cols; j += 32) {
            __m512i a = _mm512_loadu_si512(even + j), b = _mm512_loadu_si512(odd + j);
            _mm512_storeu_si512(d + j * 2, weave_32(a, b, 0));
            _mm512_storeu_si512(d + j * 2 + 32, weave_32(a, b, 1));
        }
        for (; j < cols; j += 16) {
            __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(even + j));
            __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(odd + j));
            _mm512_storeu_si512(d + j * 2, weave_16(a, b));
        }
    }
}
#define TILES_WEAVE tile_weave
#else
#define TILES_WEAVE NULL
#endif

/* ---- softmax --------------------------------------------------------------------------------- */

enum { TILE_VECS = VEC_TILE / VL };

/* Ones where lo <= column < hi. */
SIMD_FN vi tile_mask(int64_t v, int lo, int hi)
{
    vi at;
    UNROLL
    for (int i = 0; i < VL; i++)
        at[i] = (int)v * VL + i;
    return (at >= lo) & (at < hi);
}

/* Probabilities that are rounded to bf16 need no more than a short polynomial. */
SIMD_FN vf tile_exp(vf x, const int bf)
{
    return bf ? v_exp_short(x) : v_exp(x);
}

SIMD_FN void soft_row(const vec_soft *a, int64_t r, const int bf, const int nv)
{
    vf s[TILE_VECS], top = v_set1(a->max[r]), sum = {0};
    bool whole = a->lo[r] <= 0 && a->hi[r] >= nv * VL;
    UNROLL
    for (int64_t v = 0; v < nv; v++) {
        s[v] = v_load(a->s + r * VEC_TILE + v * VL) * a->scale;
        if (!whole)
            s[v] = v_select(tile_mask(v, a->lo[r], a->hi[r]), s[v], v_set1(-INFINITY));
        top = v_max(s[v], top);
    }
    float max = v_max_lane(top);
    UNROLL
    for (int64_t v = 0; v < nv; v++) {
        vf p = tile_exp(s[v] - max, bf);
        sum += p;
        v_put(a->p, r * VEC_TILE + v * VL, p, bf);
    }
    a->keep[r] = max == a->max[r] ? 1 : expf(a->max[r] - max);
    a->sum[r] = a->sum[r] * a->keep[r] + v_sum(sum);
    a->max[r] = max;
}

SIMD_FN void tile_soft_t(const vec_soft *a, const int bf, const int nv)
{
    for (int64_t r = 0; r < a->rows; r++) {
        if (a->lo[r] < a->hi[r]) {
            soft_row(a, r, bf, nv);
            continue;
        }
        size_t e = bf ? 2 : 4;
        memset((char *)a->p + (size_t)r * VEC_TILE * e, 0, (size_t)nv * VL * e);
        a->keep[r] = 1;
    }
}

/* The count of vectors is known to the compiler, so that a row stays in registers. */
SIMD_FN void tile_soft_cols(const vec_soft *a, const int bf)
{
    switch (a->cols / 16) {
    case 1:
        tile_soft_t(a, bf, TILE_VECS / 4);
        break;
    case 2:
        tile_soft_t(a, bf, TILE_VECS / 2);
        break;
    case 3:
        tile_soft_t(a, bf, TILE_VECS / 4 * 3);
        break;
    default:
        tile_soft_t(a, bf, TILE_VECS);
    }
}

static inline void tile_soft(kern_dtype t, const vec_soft *a)
{
    if (t == KERN_BF16)
        tile_soft_cols(a, 1);
    else
        tile_soft_cols(a, 0);
}

typedef struct soft_pair {
    vf p, ds;
} soft_pair;

/* Probabilities and the gradient of the scores, for one vector of one row. */
SIMD_FN soft_pair soft_grad_vec(const vec_soft_grad *a, int64_t v, int64_t row, const int bf)
{
    int64_t at = row * a->ld + v * VL;
    vf p = tile_exp(v_load(a->s + at) * a->scale - a->lse[row], bf);
    vf ds = p * (v_load(a->dp + at) - a->delta[row]) * a->scale;
    if (a->lo[row] <= 0 && a->hi[row] >= a->cols)
        return (soft_pair){p, ds};
    vi mask = tile_mask(v, a->lo[row], a->hi[row]);
    return (soft_pair){v_select(mask, p, (vf){0}), v_select(mask, ds, (vf){0})};
}

static inline void tile_soft_grad(const vec_soft_grad *a)
{
    for (int64_t row = 0; row < 2; row++)
        for (int64_t v = 0; v < a->cols / VL; v++) {
            soft_pair g = soft_grad_vec(a, v, row, 0);
            int64_t at = row * VEC_TILE + v * VL;
            v_store((float *)a->p + at, g.p);
            v_store((float *)a->ds + at, g.ds);
        }
}

#if defined(__AVX512BF16__)
static inline void tile_soft_grad_pairs(const vec_soft_grad *a)
{
    for (int64_t v = 0; v < a->cols / VL; v++) {
        soft_pair even = soft_grad_vec(a, v, 0, 1), odd = soft_grad_vec(a, v, 1, 1);
        __m256i p0 = (__m256i)_mm512_cvtneps_pbh((__m512)even.p),
                p1 = (__m256i)_mm512_cvtneps_pbh((__m512)odd.p);
        __m256i d0 = (__m256i)_mm512_cvtneps_pbh((__m512)even.ds),
                d1 = (__m256i)_mm512_cvtneps_pbh((__m512)odd.ds);
        _mm512_storeu_si512((uint16_t *)a->p + v * 2 * VL, weave_16(p0, p1));
        _mm512_storeu_si512((uint16_t *)a->ds_woven + v * 2 * VL, weave_16(d0, d1));
        _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)a->ds + v * VL), d0);
        _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)a->ds + VEC_TILE + v * VL), d1);
    }
}
#define TILES_SOFT_GRAD_PAIRS tile_soft_grad_pairs
#else
#define TILES_SOFT_GRAD_PAIRS NULL
#endif
