#pragma once
/* Products in registers, written once against simd.h. Only the vec_*.c files include this. */
#include "kernels/cpu/rows.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vec.h"

/* ---- tiles ----------------------------------------------------------------------------------- */

/* One step of a sum: a float times a vector, or a pair of bf16 times a vector of pairs. */
SIMD_FN vf mm_step(vf acc, vf a, vf b, const int bf)
{
#if defined(__AVX512BF16__)
    if (bf)
        return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#endif
    (void)bf;
    return acc + a * b;
}

#if defined(__AVX512F__)
enum {
    MM_VECS = 4,
    MM_ROWS = 24
}; /* MM_ROWS: rows times vectors that the registers hold as sums */
#else
enum { MM_VECS = 2, MM_ROWS = 12 };
#endif

enum { MM_COLS = MM_VECS * VL };

/* Sums that begin with what stands in C need no more than to be put there again. */
SIMD_FN int mm_begins_with_c(const vec_mm *g)
{
    return g->add && g->alpha == 1.0F;
}

/* A tile of sums as it begins: what stands in C from element `at` on, or zeros. */
SIMD_FN void mm_begin(const vec_mm *g, int64_t at, const int mr, const int nv, const int from_c,
                      const int c_bf, vf acc[MM_ROWS][MM_VECS])
{
    UNROLL
    for (int i = 0; i < mr; i++)
        UNROLL
    for (int64_t v = 0; v < nv; v++)
        acc[i][v] = from_c ? v_get(g->c, at + i * g->ldc + v * VL, c_bf) : (vf){0};
}

SIMD_FN void mm_scale(float alpha, const int mr, const int nv, vf acc[MM_ROWS][MM_VECS])
{
    UNROLL
    for (int i = 0; i < mr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[i][v] *= alpha;
}

SIMD_FN void mm_put(const vec_mm *g, int64_t at, const int mr, const int nv, const int c_bf,
                    vf acc[MM_ROWS][MM_VECS])
{
    const int add = g->add && !mm_begins_with_c(g);
    UNROLL
    for (int i = 0; i < mr; i++)
        UNROLL
    for (int64_t v = 0; v < nv; v++) {
        int64_t to = at + i * g->ldc + v * VL;
        vf r = acc[i][v];
        if (add)
            r += v_get(g->c, to, c_bf);
        v_put(g->c, to, r, c_bf);
    }
}

/* mr rows by nv vectors of C in registers. */
SIMD_FN void mm_tile(const vec_mm *g, int64_t i0, int64_t j0, const int mr, const int nv,
                     const int bf)
{
    vf acc[MM_ROWS][MM_VECS];
    const int64_t at = i0 * g->ldc + j0;
    if (!mm_begins_with_c(g))
        mm_begin(g, at, mr, nv, 0, 0, acc);
    else if (g->c_bf16)
        mm_begin(g, at, mr, nv, 1, 1, acc);
    else
        mm_begin(g, at, mr, nv, 1, 0, acc);
    const float *a = (const float *)g->a + i0 * g->ars, *b = (const float *)g->b + j0;
    const int64_t ars = g->ars;
    for (int64_t k = 0; k < g->steps; k++, a += g->aks, b += g->ldb) {
        vf bv[MM_VECS];
        UNROLL
        for (int64_t v = 0; v < nv; v++)
            bv[v] = v_load(b + v * VL);
        UNROLL
        for (int i = 0; i < mr; i++) {
            vf x = v_set1(a[i * ars]);
            UNROLL
            for (int64_t v = 0; v < nv; v++)
                acc[i][v] = mm_step(acc[i][v], x, bv[v], bf);
        }
    }
    if (g->alpha != 1.0F)
        mm_scale(g->alpha, mr, nv, acc);
    if (g->c_bf16)
        mm_put(g, at, mr, nv, 1, acc);
    else
        mm_put(g, at, mr, nv, 0, acc);
}

/* All rows of one strip of nv vectors. */
SIMD_FN void mm_strip(const vec_mm *g, int64_t j0, const int nv, const int bf)
{
    const int mr = MM_ROWS / nv < 12 ? MM_ROWS / nv : 12;
    int64_t i = 0;
    for (; i + mr <= g->m; i += mr)
        mm_tile(g, i, j0, mr, nv, bf);
    for (; i + 4 <= g->m; i += 4)
        mm_tile(g, i, j0, 4, nv, bf);
    for (; i + 2 <= g->m; i += 2)
        mm_tile(g, i, j0, 2, nv, bf);
    for (; i < g->m; i++)
        mm_tile(g, i, j0, 1, nv, bf);
}

/* One row of fewer than VL columns. */
static inline void mm_edge(const vec_mm *g, int64_t i, int64_t j0, int64_t nj)
{
    float acc[VL] = {0};
    const float *a = (const float *)g->a + i * g->ars, *b = (const float *)g->b + j0;
    for (int64_t k = 0; k < g->steps; k++)
        for (int64_t j = 0; j < nj; j++)
            acc[j] += a[k * g->aks] * b[k * g->ldb + j];
    const int bf = g->c_bf16;
    for (int64_t j = 0; j < nj; j++) {
        int64_t at = i * g->ldc + j0 + j;
        s_put(g->c, at, acc[j] * g->alpha + (g->add ? s_get(g->c, at, bf) : 0), bf);
    }
}

SIMD_FN void mm_all(const vec_mm *g, const int bf)
{
    int64_t j = 0;
    for (; j + MM_COLS <= g->n; j += MM_COLS)
        mm_strip(g, j, MM_VECS, bf);
#if defined(__AVX512F__)
    enum { TWO = 2 * VL, THREE = 3 * VL };
    for (; j + THREE <= g->n; j += THREE)
        mm_strip(g, j, 3, bf);
    for (; j + TWO <= g->n; j += TWO)
        mm_strip(g, j, 2, bf);
#endif
    for (; j + VL <= g->n; j += VL)
        mm_strip(g, j, 1, bf);
    if (j < g->n)
        for (int64_t i = 0; i < g->m; i++)
            mm_edge(g, i, j, g->n - j);
}

static inline void row_mm(const vec_mm *g)
{
    mm_all(g, 0);
}

#if defined(__AVX512BF16__)
static inline void row_mm_pairs(const vec_mm *g)
{
    mm_all(g, 1);
}
#define ROWS_MM_PAIRS row_mm_pairs
#else
#define ROWS_MM_PAIRS NULL
#endif

/* ---- matrix-vector --------------------------------------------------------------------------- */

/* Vectors of columns at once: what the registers hold beside four rows of sums. */
enum { MV_VECS = VL == 16 ? 4 : 2 };

SIMD_FN void mv_f32_t(const vec_mv *a, int c0, const int rows, const int nv)
{
    vf acc[VEC_MV_ROWS][MV_VECS];
    UNROLL
    for (int64_t r = 0; r < rows; r++)
        UNROLL
    for (int64_t v = 0; v < nv; v++)
        acc[r][v] = (vf){0};
    const float *w = (const float *)a->panel + c0, *x = a->x;
    for (int64_t k = 0; k < a->steps; k++, w += a->width) {
        UNROLL
        for (int64_t v = 0; v < nv; v++) {
            vf b = v_load(w + v * VL);
            UNROLL
            for (int64_t r = 0; r < rows; r++)
                acc[r][v] += v_set1(x[r * a->ldx + k]) * b;
        }
    }
    UNROLL
    for (int64_t r = 0; r < rows; r++)
        UNROLL
    for (int64_t v = 0; v < nv; v++)
        v_store(a->y + r * VEC_MV_COLS + c0 + v * VL, acc[r][v]);
}

#if defined(__AVX512BF16__)
SIMD_FN void mv_bf16_t(const vec_mv *a, int c0, const int rows, const int nv)
{
    __m512 acc[VEC_MV_ROWS][MV_VECS];
    UNROLL
    for (int64_t r = 0; r < rows; r++)
        UNROLL
    for (int64_t v = 0; v < nv; v++)
        acc[r][v] = _mm512_setzero_ps();
    const uint16_t *w = (const uint16_t *)a->panel + c0 * 2L, *x = a->x;
    for (int64_t k = 0; k < a->steps; k++, w += a->width * 2L) {
        UNROLL
        for (int64_t v = 0; v < nv; v++) {
            __m512bh b = (__m512bh)_mm512_loadu_si512(w + v * 32);
            UNROLL
            for (int64_t r = 0; r < rows; r++) {
                int32_t pair;
                memcpy(&pair, x + r * a->ldx + k * 2, 4);
                acc[r][v] = _mm512_dpbf16_ps(acc[r][v], (__m512bh)_mm512_set1_epi32(pair), b);
            }
        }
    }
    UNROLL
    for (int64_t r = 0; r < rows; r++)
        UNROLL
    for (int64_t v = 0; v < nv; v++)
        _mm512_storeu_ps(a->y + r * VEC_MV_COLS + c0 + v * VL, acc[r][v]);
}
#endif

#define MV_ROWS(F, a, c0, nv)                                                                      \
    ((a)->rows == 1   ? F(a, c0, 1, nv)                                                            \
     : (a)->rows == 2 ? F(a, c0, 2, nv)                                                            \
     : (a)->rows == 3 ? F(a, c0, 3, nv)                                                            \
                      : F(a, c0, 4, nv))

#define MV_COLS(F, a)                                                                              \
    do {                                                                                           \
        int c0_ = 0;                                                                               \
        for (; c0_ + MV_VECS * VL <= (a)->cols; c0_ += MV_VECS * VL)                               \
            MV_ROWS(F, a, c0_, MV_VECS);                                                           \
        for (; c0_ < (a)->cols; c0_ += VL)                                                         \
            MV_ROWS(F, a, c0_, 1);                                                                 \
    } while (0)

static inline void row_mv_f32(const vec_mv *a)
{
    MV_COLS(mv_f32_t, a);
}

#if defined(__AVX512BF16__)
static inline void row_mv_bf16(const vec_mv *a)
{
    MV_COLS(mv_bf16_t, a);
}
#define ROWS_MV_BF16 row_mv_bf16
#else
#define ROWS_MV_BF16 NULL
#endif

SIMD_FN void dots_t(const int bf, const void *w, const float *x, int64_t ldx, const int rows,
                    int64_t n, float *y)
{
    vf acc[VEC_MV_ROWS] = {{0}};
    for (int64_t i = 0; i < n; i += VL) {
        int64_t m = step_of(i, n);
        vf b = get_n(w, i, m, bf);
        UNROLL
        for (int64_t r = 0; r < rows; r++)
            acc[r] += b * get_n(x + r * ldx, i, m, 0);
    }
    UNROLL
    for (int64_t r = 0; r < rows; r++)
        y[r] = v_sum(acc[r]);
}

static inline void row_dots(kern_dtype t, const void *w, const float *x, int64_t ldx, int rows,
                            int64_t n, float *y)
{
    if (t == KERN_BF16)
        rows == 1 ? dots_t(1, w, x, ldx, 1, n, y) : dots_t(1, w, x, ldx, rows, n, y);
    else
        rows == 1 ? dots_t(0, w, x, ldx, 1, n, y) : dots_t(0, w, x, ldx, rows, n, y);
}
