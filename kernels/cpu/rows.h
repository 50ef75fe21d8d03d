#pragma once
/* Row kernels, written once against simd.h. Only the vec_*.c files include this. */
#include <math.h>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/vec.h"

/* ---- conversions
 * --------------------------------------------------------------------------------------------- */

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000U) << 16, e = (h >> 10) & 31U, m = h & 0x3FFU, u;
    float f;
    if (e == 0) {
        f = (float)m * 0x1p-24F;
        memcpy(&u, &f, 4);
        u |= sign;
    } else if (e == 31) {
        u = sign | 0x7F800000U | (m << 13);
    } else {
        u = sign | ((e + 112U) << 23) | (m << 13);
    }
    memcpy(&f, &u, 4);
    return f;
}

static inline uint16_t f16_from_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t sign = (u >> 16) & 0x8000U, a = u & 0x7FFFFFFFU;
    if (a > 0x7F800000U)
        return (uint16_t)(sign | 0x7E00U);
    if (a >= 0x477FF000U) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7C00U);
    if (a < 0x38800000U) { /* below 2^-14: adding 0.5 leaves the subnormal's bits at the bottom */
        float t;
        memcpy(&t, &a, 4);
        t += 0.5F;
        memcpy(&a, &t, 4);
        return (uint16_t)(sign | (a - 0x3F000000U));
    }
    a += 0xFFFU + ((a >> 13) & 1U);
    return (uint16_t)(sign | ((a >> 13) - (112U << 10)));
}

static inline void row_to_f32(kern_dtype t, const void *src, float *dst, int64_t n)
{
    int64_t i = 0;
    if (t == KERN_F32) {
        memcpy(dst, src, (size_t)n * 4);
        return;
    }
    if (t == KERN_BF16) {
        for (; i + VL <= n; i += VL)
            v_store(dst + i, v_get(src, i, 1));
        for (; i < n; i++)
            dst[i] = s_get(src, i, 1);
        return;
    }
    for (; i < n; i++)
        dst[i] = f16_to_f32(((const uint16_t *)src)[i]);
}

static inline void row_from_f32(kern_dtype t, const float *src, void *dst, int64_t n)
{
    int64_t i = 0;
    if (t == KERN_F32) {
        memmove(dst, src, (size_t)n * 4);
        return;
    }
    if (t == KERN_BF16) {
        for (; i + VL <= n; i += VL)
            v_put(dst, i, v_load(src + i), 1);
        for (; i < n; i++)
            s_put(dst, i, src[i], 1);
        return;
    }
    for (; i < n; i++)
        ((uint16_t *)dst)[i] = f16_from_f32(src[i]);
}

SIMD_FN void put_n(void *p, int64_t i, int64_t m, vf v, const int bf)
{
    if (m == VL)
        v_put(p, i, v, bf);
    else
        v_put_part(p, i, m, v, bf);
}

SIMD_FN vf get_n(const void *p, int64_t i, int64_t m, const int bf)
{
    return m == VL ? v_get(p, i, bf) : v_get_part(p, i, m, bf);
}

/* Elements from i in this step. */
SIMD_FN int64_t step_of(int64_t i, int64_t n)
{
    return n - i < VL ? n - i : VL;
}

/* ---- f32 product
 * --------------------------------------------------------------------------------------------- */

/* mr rows by nv vectors of C in registers. */
SIMD_FN void mm_tile(const vec_mm *g, int64_t i0, int64_t j0, const int mr, const int nv)
{
    vf acc[8][3];
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < nv; v++)
            acc[i][v] = (vf){0};
    const float *a = g->a + i0 * g->ars, *b = g->b + j0;
    for (int64_t k = 0; k < g->k; k++, a += g->aks, b += g->ldb) {
        vf bv[3];
        for (int v = 0; v < nv; v++)
            bv[v] = v_load(b + v * VL);
        for (int i = 0; i < mr; i++) {
            vf x = v_set1(a[i * g->ars]);
            for (int v = 0; v < nv; v++)
                acc[i][v] += x * bv[v];
        }
    }
    for (int i = 0; i < mr; i++) {
        float *c = g->c + (i0 + i) * g->ldc + j0;
        for (int v = 0; v < nv; v++) {
            vf r = acc[i][v] * g->alpha;
            v_store(c + v * VL, g->add ? r + v_load(c + v * VL) : r);
        }
    }
}

/* One row of fewer than VL columns. */
static inline void mm_edge(const vec_mm *g, int64_t i, int64_t j0, int64_t nj)
{
    float acc[VL] = {0};
    const float *a = g->a + i * g->ars, *b = g->b + j0;
    for (int64_t k = 0; k < g->k; k++)
        for (int64_t j = 0; j < nj; j++)
            acc[j] += a[k * g->aks] * b[k * g->ldb + j];
    float *c = g->c + i * g->ldc + j0;
    for (int64_t j = 0; j < nj; j++)
        c[j] = acc[j] * g->alpha + (g->add ? c[j] : 0);
}

/* All rows of one strip of nv vectors. */
SIMD_FN void mm_strip(const vec_mm *g, int64_t j0, const int nv)
{
    int64_t i = 0;
    for (; i + 8 <= g->m; i += 8)
        mm_tile(g, i, j0, 8, nv);
    for (; i + 2 <= g->m; i += 2)
        mm_tile(g, i, j0, 2, nv);
    for (; i < g->m; i++)
        mm_tile(g, i, j0, 1, nv);
}

static inline void row_mm(const vec_mm *g)
{
    int64_t j = 0;
    for (; j + 3 * VL <= g->n; j += 3 * VL)
        mm_strip(g, j, 3);
    for (; j + VL <= g->n; j += VL)
        mm_strip(g, j, 1);
    if (j < g->n)
        for (int64_t i = 0; i < g->m; i++)
            mm_edge(g, i, j, g->n - j);
}

/* ---- matrix-vector
 * ------------------------------------------------------------------------------------------- */

/* Vectors of columns at once: what the registers hold beside four rows of sums. */
enum { MV_VECS = VL == 16 ? 4 : 2 };

SIMD_FN void mv_f32_t(const vec_mv *a, int c0, const int rows, const int nv)
{
    vf acc[VEC_MV_ROWS][MV_VECS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++)
            acc[r][v] = (vf){0};
    const float *w = (const float *)a->panel + c0, *x = a->x;
    for (int64_t k = 0; k < a->steps; k++, w += a->width) {
        for (int v = 0; v < nv; v++) {
            vf b = v_load(w + v * VL);
            for (int r = 0; r < rows; r++)
                acc[r][v] += v_set1(x[r * a->ldx + k]) * b;
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++)
            v_store(a->y + r * VEC_MV_COLS + c0 + v * VL, acc[r][v]);
}

#if defined(__AVX512BF16__)
SIMD_FN void mv_bf16_t(const vec_mv *a, int c0, const int rows, const int nv)
{
    __m512 acc[VEC_MV_ROWS][MV_VECS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++)
            acc[r][v] = _mm512_setzero_ps();
    const uint16_t *w = (const uint16_t *)a->panel + c0 * 2, *x = a->x;
    for (int64_t k = 0; k < a->steps; k++, w += a->width * 2) {
        for (int v = 0; v < nv; v++) {
            __m512bh b = (__m512bh)_mm512_loadu_si512(w + v * 32);
            for (int r = 0; r < rows; r++) {
                int32_t pair;
                memcpy(&pair, x + r * a->ldx + k * 2, 4);
                acc[r][v] = _mm512_dpbf16_ps(acc[r][v], (__m512bh)_mm512_set1_epi32(pair), b);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++)
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
        for (int r = 0; r < rows; r++)
            acc[r] += b * get_n(x + r * ldx, i, m, 0);
    }
    for (int r = 0; r < rows; r++)
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

static inline float row_dot(const float *a, const float *b, int64_t n)
{
    vf s0 = {0}, s1 = {0};
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        s0 += v_load(a + i) * v_load(b + i);
        s1 += v_load(a + i + VL) * v_load(b + i + VL);
    }
    for (; i + VL <= n; i += VL)
        s0 += v_load(a + i) * v_load(b + i);
    float s = v_sum(s0 + s1);
    for (; i < n; i++)
        s += a[i] * b[i];
    return s;
}

static inline void row_axpy(float alpha, const float *x, float *y, int64_t n)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        v_store(y + i, v_load(y + i) + alpha * v_load(x + i));
    for (; i < n; i++)
        y[i] += alpha * x[i];
}

static inline void row_scale(float alpha, float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int64_t m = step_of(i, n);
        put_n(x, i, m, get_n(x, i, m, 0) * alpha, 0);
    }
}

SIMD_FN void add_to_t(const int bf, const float *x, void *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int64_t m = step_of(i, n);
        put_n(y, i, m, get_n(y, i, m, bf) + get_n(x, i, m, 0), bf);
    }
}

static inline void row_add_to(kern_dtype t, const float *x, void *y, int64_t n)
{
    if (t == KERN_BF16)
        add_to_t(1, x, y, n);
    else
        add_to_t(0, x, y, n);
}

/* ---- norm
 * ----------------------------------------------------------------------------------------------------
 */

/* The row as it will be read again: x + add, rounded to the activation dtype when it is stored. */
SIMD_FN vf norm_in(const vec_norm *a, int64_t i, int64_t m, const int bf)
{
    vf x = m == VL ? v_get(a->x, i, bf) : v_get_part(a->x, i, m, bf);
    if (a->add == NULL)
        return x;
    vf s = x + (m == VL ? v_get(a->add, i, bf) : v_get_part(a->add, i, m, bf));
    return v_round(s, bf);
}

SIMD_FN float norm_t(const vec_norm *a, const int bf)
{
    vf ss = {0};
    for (int64_t i = 0; i < a->h; i += VL) {
        int64_t m = step_of(i, a->h);
        vf s = norm_in(a, i, m, bf);
        /* y holds the sum until the second pass: res may be absent, and may be x. */
        put_n(a->y, i, m, s, bf);
        ss += s * s;
    }
    float rstd = 1.0F / sqrtf(v_sum(ss) / (float)a->h + a->eps);
    for (int64_t i = 0; i < a->h; i += VL) {
        int64_t m = step_of(i, a->h);
        vf s = get_n(a->y, i, m, bf);
        if (a->res != NULL)
            put_n(a->res, i, m, s, bf);
        vf w = get_n(a->weight, i, m, 0) + a->offset;
        put_n(a->y, i, m, v_round(s * rstd, bf) * v_round(w, bf), bf);
    }
    return rstd;
}

static inline float row_norm(const vec_norm *a)
{
    return a->t == KERN_BF16 ? norm_t(a, 1) : norm_t(a, 0);
}

SIMD_FN void norm_grad_t(const vec_norm_grad *a, const int bf)
{
    vf dot = {0};
    for (int64_t i = 0; i < a->h; i += VL) {
        int64_t m = step_of(i, a->h);
        vf w = get_n(a->weight, i, m, 0) + a->offset;
        vf x = get_n(a->res, i, m, bf), dy = get_n(a->dy, i, m, bf);
        dot += dy * v_round(w, bf) * x;
        if (a->dweight != NULL)
            put_n(a->dweight, i, m, get_n(a->dweight, i, m, 0) + dy * x * a->rstd, 0);
    }
    float c = v_sum(dot) * a->rstd * a->rstd / (float)a->h;
    for (int64_t i = 0; i < a->h; i += VL) {
        int64_t m = step_of(i, a->h);
        vf w = get_n(a->weight, i, m, 0) + a->offset;
        vf x = get_n(a->res, i, m, bf), dy = get_n(a->dy, i, m, bf);
        vf dx = (dy * v_round(w, bf) - x * c) * a->rstd;
        if (a->dres != NULL)
            dx += get_n(a->dres, i, m, bf);
        put_n(a->dx, i, m, dx, bf);
    }
}

static inline void row_norm_grad(const vec_norm_grad *a)
{
    if (a->t == KERN_BF16)
        norm_grad_t(a, 1);
    else
        norm_grad_t(a, 0);
}

/* ---- gated activation
 * ---------------------------------------------------------------------------------------- */

typedef struct act_value {
    vf y, dy; /* act(g) and its derivative */
} act_value;

SIMD_FN act_value act_silu(vf g)
{
    vf s = 1.0F / (1.0F + v_exp(-g));
    return (act_value){g * s, s * (1.0F + g * (1.0F - s))};
}

SIMD_FN act_value act_gelu_tanh(vf g)
{
    const float c = 0.79788456F, k = 0.044715F;
    vf u = c * (g + k * g * g * g);
    /* tanh(u) = 2 / (1 + e^(-2u)) - 1 */
    vf t = 2.0F / (1.0F + v_exp(-2.0F * u)) - 1.0F;
    vf du = c * (1.0F + 3.0F * k * g * g);
    return (act_value){0.5F * g * (1.0F + t), 0.5F * (1.0F + t) + 0.5F * g * (1.0F - t * t) * du};
}

SIMD_FN act_value act_gelu(vf g)
{
    float t[VL];
    v_store(t, g);
    for (int i = 0; i < VL; i++)
        t[i] = erff(t[i] * 0.70710678F);
    vf phi = 0.5F * (1.0F + v_load(t));
    return (act_value){g * phi, phi + g * 0.39894228F * v_exp(-0.5F * g * g)};
}

SIMD_FN act_value act_of(const kern_act_kind kind, vf g)
{
    return kind == KERN_SILU        ? act_silu(g)
           : kind == KERN_GELU_TANH ? act_gelu_tanh(g)
                                    : act_gelu(g);
}

SIMD_FN void act_t(const kern_act_kind kind, const int bf, const void *gate, const void *up,
                   void *h, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int64_t m = step_of(i, n);
        vf y = v_round(act_of(kind, get_n(gate, i, m, bf)).y, bf);
        put_n(h, i, m, y * get_n(up, i, m, bf), bf);
    }
}

SIMD_FN void act_grad_t(const kern_act_kind kind, const int bf, const void *gate, const void *up,
                        const void *dh, void *dgate, void *dup, void *h, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int64_t m = step_of(i, n);
        act_value a = act_of(kind, get_n(gate, i, m, bf));
        vf u = get_n(up, i, m, bf), d = get_n(dh, i, m, bf), y = v_round(a.y, bf);
        put_n(dgate, i, m, d * u * a.dy, bf);
        put_n(dup, i, m, d * y, bf);
        if (h != NULL)
            put_n(h, i, m, y * u, bf);
    }
}

#define ACT_CASES(F, ...)                                                                          \
    do {                                                                                           \
        if (t == KERN_BF16)                                                                        \
            kind == KERN_SILU        ? F(KERN_SILU, 1, __VA_ARGS__)                                \
            : kind == KERN_GELU_TANH ? F(KERN_GELU_TANH, 1, __VA_ARGS__)                           \
                                     : F(KERN_GELU, 1, __VA_ARGS__);                               \
        else                                                                                       \
            kind == KERN_SILU        ? F(KERN_SILU, 0, __VA_ARGS__)                                \
            : kind == KERN_GELU_TANH ? F(KERN_GELU_TANH, 0, __VA_ARGS__)                           \
                                     : F(KERN_GELU, 0, __VA_ARGS__);                               \
    } while (0)

static inline void row_act(kern_act_kind kind, kern_dtype t, const void *gate, const void *up,
                           void *h, int64_t n)
{
    ACT_CASES(act_t, gate, up, h, n);
}

static inline void row_act_grad(kern_act_kind kind, kern_dtype t, const void *gate, const void *up,
                                const void *dh, void *dgate, void *dup, void *h, int64_t n)
{
    ACT_CASES(act_grad_t, gate, up, dh, dgate, dup, h, n);
}

/* ---- softmax, optimizer
 * -------------------------------------------------------------------------------------- */

static inline float row_exp_sum(float *x, float max, int64_t n)
{
    vf s = {0};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        vf e = v_exp(v_load(x + i) - max);
        v_store(x + i, e);
        s += e;
    }
    if (i < n) {
        int64_t m = n - i;
        vf e = v_exp(v_get_part(x, i, m, 0) - max);
        v_put_part(x, i, m, e, 0);
        s += v_get_part(x, i, m, 0);
    }
    return v_sum(s);
}

/* A NaN anywhere gives NaN or the greatest of the rest; the sum that follows is NaN in either case.
 */
static inline float row_max(const float *x, int64_t n)
{
    vf m = v_set1(-INFINITY);
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        m = v_max(v_load(x + i), m);
    float r = v_max_lane(m);
    for (; i < n; i++)
        r = x[i] > r ? x[i] : r;
    return r;
}

SIMD_FN vf v_sqrt(vf x)
{
#if defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < VL; i++)
        x[i] = sqrtf(x[i]);
    return x;
#endif
}

static inline void row_adamw(const vec_adamw *a, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int64_t c = step_of(i, n);
        vf g = get_n(a->g, i, c, 0) * a->grad_scale;
        vf m = get_n(a->m, i, c, 0), v = get_n(a->v, i, c, 0), p = get_n(a->p, i, c, 0) * a->decay;
        m = m + (g - m) * (1.0F - a->beta1);
        v = v * a->beta2 + g * g * (1.0F - a->beta2);
        p -= a->step_size * m / (v_sqrt(v) * a->inv_sqrt_c2 + a->eps);
        put_n(a->m, i, c, m, 0);
        put_n(a->v, i, c, v, 0);
        put_n(a->p, i, c, p, 0);
    }
}

static inline double row_sumsq(const float *x, int64_t n)
{
    double s[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += (double)x[i + j] * x[i + j];
    for (; i < n; i++)
        s[0] += (double)x[i] * x[i];
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

/* clang-format off */
#define ROWS_TABLE(label)                                                                                              \
    {                                                                                                                  \
        .name = label, .to_f32 = row_to_f32, .from_f32 = row_from_f32, .mm = row_mm, .mv_f32 = row_mv_f32, .mv_bf16 = ROWS_MV_BF16, .dots = row_dots, .dot = row_dot,                   \
        .axpy = row_axpy, .scale = row_scale, .add_to = row_add_to, .norm = row_norm, .norm_grad = row_norm_grad, .act = row_act, .act_grad = row_act_grad,      \
        .exp_sum = row_exp_sum, .max = row_max, .adamw = row_adamw, .sumsq = row_sumsq,                                \
    }
/* clang-format on */
