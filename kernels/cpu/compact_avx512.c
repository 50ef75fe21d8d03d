/* Reading compact panels: the sum of mm.h's mv_bf16, step by step and bit for bit, from seven
 * tenths of the bytes. */
#include "kernels/cpu/compact.h"
#include "kernels/cpu/simd.h"

/* Where in a panel the next step is read. */
typedef struct reader {
    const uint8_t *at, *rare;
    __m512i table;
} reader;

SIMD_FN reader reader_of(const cpu_compact_panel *c)
{
    __m128i table = _mm_loadl_epi64((const __m128i *)(const void *)c->table);
    return (reader){c->data, c->rare, _mm512_broadcast_i32x4(table)};
}

/* 64 exponents from three planes of bits. */
SIMD_FN __m512i exponents(reader *r, const uint8_t *planes)
{
    uint64_t b[3];
    memcpy(b, planes, sizeof b);
    __m512i code = _mm512_maskz_set1_epi8(b[0], 1);
    code = _mm512_mask_add_epi8(code, b[1], code, _mm512_set1_epi8(2));
    code = _mm512_mask_add_epi8(code, b[2], code, _mm512_set1_epi8(4));
    uint64_t rare = b[0] & b[1] & b[2];
    __m512i e = _mm512_mask_expand_epi8(_mm512_shuffle_epi8(r->table, code), rare,
                                        _mm512_loadu_si512(r->rare));
    r->rare += __builtin_popcountll(rare);
    return e;
}

/* One step: four vectors of bf16. */
SIMD_FN void next_step(reader *r, __m512i w[4])
{
    UNROLL
    for (int i = 0; i < 2; i++) {
        __m512i e = exponents(r, r->at + 128 + (ptrdiff_t)24 * i);
        __m512i s = _mm512_loadu_si512(r->at + (ptrdiff_t)64 * i);
        /* exponent, mantissa, sign: one turn to the right brings the sign to the front */
        __m512i a = _mm512_unpacklo_epi8(s, e), b = _mm512_unpackhi_epi8(s, e);
        w[i * (ptrdiff_t)2] = _mm512_shrdi_epi16(a, a, 1);
        w[i * (ptrdiff_t)2 + 1] = _mm512_shrdi_epi16(b, b, 1);
    }
    r->at += COMPACT_STEP_BYTES;
}

SIMD_FN void mv_rows(const vec_mv *a, const cpu_compact_panel *c, const int rows)
{
    reader r = reader_of(c);
    __m512 acc[VEC_MV_ROWS][4];
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
    for (int v = 0; v < 4; v++)
        acc[i][v] = _mm512_setzero_ps();
    const uint16_t *x = a->x;
    for (int64_t k = 0; k < a->steps; k++) {
        __m512i w[4];
        next_step(&r, w);
        UNROLL
        for (int i = 0; i < rows; i++) {
            int32_t pair;
            memcpy(&pair, x + i * a->ldx + k * 2, 4);
            UNROLL
            for (int v = 0; v < 4; v++)
                acc[i][v] =
                    _mm512_dpbf16_ps(acc[i][v], (__m512bh)_mm512_set1_epi32(pair), (__m512bh)w[v]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
    for (int v = 0; v < 4; v++)
        _mm512_storeu_ps(a->y + (ptrdiff_t)i * VEC_MV_COLS + (ptrdiff_t)v * VL, acc[i][v]);
}

void cpu_compact_mv(const vec_mv *a, const cpu_compact_panel *c)
{
    a->rows == 1   ? mv_rows(a, c, 1)
    : a->rows == 2 ? mv_rows(a, c, 2)
    : a->rows == 3 ? mv_rows(a, c, 3)
                   : mv_rows(a, c, 4);
}

void cpu_compact_expand(const cpu_compact_panel *c, int64_t steps, uint16_t *dst)
{
    reader r = reader_of(c);
    for (int64_t k = 0; k < steps; k++) {
        __m512i w[4];
        next_step(&r, w);
        memcpy(dst + k * COMPACT_STEP, w, sizeof w);
    }
}
