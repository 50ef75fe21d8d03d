#pragma once
/* Row kernels, written once against simd.h. Only the vec_*.c files include this. */
#include <math.h>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/vec.h"

/* ---- conversions ----------------------------------------------------------------------------- */

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

/* ---- small row kernels ----------------------------------------------------------------------- */

static inline float row_dot(const float *a, const float *b, int64_t n)
{
    vf s0 = {0}, s1 = {0};
    int64_t i = 0;
    enum { TWO = 2 * VL };
    for (; i + TWO <= n; i += TWO) {
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

/* ---- norm ------------------------------------------------------------------------------------ */

/* Writes x + add (rounded to the activation dtype) where it is read again; x itself needs no copy.
 * Returns 1 / the root of its mean square. */
SIMD_FN float norm_sum(const vec_norm *a, const int bf)
{
    vf ss = {0};
    for (int64_t i = 0; i < a->h; i += VL) {
        int64_t m = step_of(i, a->h);
        vf s = get_n(a->x, i, m, bf);
        if (a->add != NULL)
            s = v_round(s + get_n(a->add, i, m, bf), bf);
        if (a->res != NULL)
            put_n(a->res, i, m, s, bf);
        ss += s * s;
    }
    return 1.0F / sqrtf(v_sum(ss) / (float)a->h + a->eps);
}

SIMD_FN float norm_t(const vec_norm *a, const int bf)
{
    float rstd = norm_sum(a, bf);
    const void *s = a->res != NULL ? a->res : a->x;
    for (int64_t i = 0; i < a->h; i += VL) {
        int64_t m = step_of(i, a->h);
        put_n(a->y, i, m, v_round(get_n(s, i, m, bf) * rstd, bf) * get_n(a->weight, i, m, 0), bf);
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
        vf x = get_n(a->res, i, m, bf), dy = get_n(a->dy, i, m, bf);
        dot += dy * get_n(a->weight, i, m, 0) * x;
        if (a->dweight != NULL)
            put_n(a->dweight, i, m, get_n(a->dweight, i, m, 0) + dy * x * a->rstd, 0);
    }
    float c = v_sum(dot) * a->rstd * a->rstd / (float)a->h;
    for (int64_t i = 0; i < a->h; i += VL) {
        int64_t m = step_of(i, a->h);
        vf x = get_n(a->res, i, m, bf), dy = get_n(a->dy, i, m, bf);
        vf dx = (dy * get_n(a->weight, i, m, 0) - x * c) * a->rstd;
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

/* ---- heads ----------------------------------------------------------------------------------- */

SIMD_FN float head_rstd(const float *x, int d, float eps)
{
    vf ss = {0};
    for (int64_t i = 0; i < d; i += VL) {
        vf v = get_n(x, i, step_of(i, d), 0);
        ss += v * v;
    }
    return 1.0F / sqrtf(v_sum(ss) / (float)d + eps);
}

/* Half-split rotation of x [d] by the angle, or back by it when sign is -1, into y. */
SIMD_FN void head_rotate(const vec_head *a, const float *x, float sign, const int bf)
{
    int64_t half = a->d / 2;
    for (int64_t i = 0; i < half; i += VL) {
        int64_t m = step_of(i, half);
        vf p = get_n(x, i, m, 0), q = get_n(x, half + i, m, 0);
        vf c = get_n(a->cos, i, m, 0), s = get_n(a->sin, i, m, 0) * sign;
        put_n(a->y, i, m, p * c - q * s, bf);
        put_n(a->y, half + i, m, q * c + p * s, bf);
    }
}

SIMD_FN void head_t(const vec_head *a, const int bf)
{
    float x[VEC_MAX_HEAD];
    row_to_f32(a->t, a->x, x, a->d);
    if (a->weight != NULL) {
        float rstd = head_rstd(x, a->d, a->eps);
        for (int64_t i = 0; i < a->d; i += VL) {
            int64_t m = step_of(i, a->d);
            vf n = v_round(get_n(x, i, m, 0) * rstd, bf);
            put_n(x, i, m, v_round(n * v_round(get_n(a->weight, i, m, 0), bf), bf), 0);
        }
    }
    head_rotate(a, x, 1.0F, bf);
}

static inline void row_head(const vec_head *a)
{
    if (a->t == KERN_BF16)
        head_t(a, 1);
    else
        head_t(a, 0);
}

/* The rotated-back gradient g of the normed head becomes that of x. */
SIMD_FN void head_norm_grad(const vec_head *a, const float *x, float *g, const int bf)
{
    float rstd = head_rstd(x, a->d, a->eps);
    vf dot = {0};
    for (int64_t i = 0; i < a->d; i += VL) {
        int64_t m = step_of(i, a->d);
        vf gi = get_n(g, i, m, 0), xi = get_n(x, i, m, 0);
        put_n(a->dweight, i, m, get_n(a->dweight, i, m, 0) + gi * xi * rstd, 0);
        gi *= v_round(get_n(a->weight, i, m, 0), bf);
        put_n(g, i, m, gi, 0);
        dot += gi * xi;
    }
    float c = v_sum(dot) * rstd * rstd / (float)a->d;
    for (int64_t i = 0; i < a->d; i += VL) {
        int64_t m = step_of(i, a->d);
        put_n(a->y, i, m, (get_n(g, i, m, 0) - get_n(x, i, m, 0) * c) * rstd, bf);
    }
}

SIMD_FN void head_grad_t(const vec_head *a, const int bf)
{
    float x[VEC_MAX_HEAD], g[VEC_MAX_HEAD];
    row_to_f32(a->t, a->y, g, a->d);
    if (a->weight == NULL) {
        head_rotate(a, g, -1.0F, bf);
        return;
    }
    vec_head back = *a;
    back.y = x;
    head_rotate(&back, g, -1.0F, 0);
    memcpy(g, x, (size_t)a->d * sizeof *g);
    row_to_f32(a->t, a->x, x, a->d);
    head_norm_grad(a, x, g, bf);
}

static inline void row_head_grad(const vec_head *a)
{
    if (a->t == KERN_BF16)
        head_grad_t(a, 1);
    else
        head_grad_t(a, 0);
}

/* ---- gated activation ------------------------------------------------------------------------ */

typedef struct act_value {
    vf y, dy; /* act(g) and its derivative */
} act_value;

/* 1 / (1 + e^-g), to 2^-14 of it where the result is rounded to bf16. */
SIMD_FN vf act_sigmoid(vf g, const int bf)
{
#if defined(__AVX512F__)
    if (bf)
        return (vf)_mm512_rcp14_ps((__m512)(1.0F + v_exp_short(-g)));
#endif
    (void)bf;
    return 1.0F / (1.0F + v_exp(-g));
}

SIMD_FN act_value act_silu(vf g, const int bf)
{
    vf s = act_sigmoid(g, bf);
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

SIMD_FN act_value act_of(const kern_act_kind kind, vf g, const int bf)
{
    return kind == KERN_SILU        ? act_silu(g, bf)
           : kind == KERN_GELU_TANH ? act_gelu_tanh(g)
                                    : act_gelu(g);
}

SIMD_FN void act_t(const kern_act_kind kind, const int bf, const void *gate, const void *up,
                   void *h, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int64_t m = step_of(i, n);
        vf y = v_round(act_of(kind, get_n(gate, i, m, bf), bf).y, bf);
        put_n(h, i, m, y * get_n(up, i, m, bf), bf);
    }
}

SIMD_FN void act_grad_t(const kern_act_kind kind, const int bf, const void *gate, const void *up,
                        const void *dh, void *dgate, void *dup, void *h, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int64_t m = step_of(i, n);
        act_value a = act_of(kind, get_n(gate, i, m, bf), bf);
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

/* ---- softmax, optimizer ---------------------------------------------------------------------- */

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

SIMD_FN vf exp_of(vf x, const int bf)
{
    return bf ? v_exp_short(x) : v_exp(x);
}

SIMD_FN float sum_exp_t(const int bf, const float *x, float max, int64_t n)
{
    vf s = {0};
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        s += exp_of(v_load(x + i) - max, bf);
    float last[VL] = {0};
    if (i < n)
        v_put_part(last, 0, n - i, exp_of(v_get_part(x, i, n - i, 0) - max, bf), 0);
    return v_sum(s + v_load(last));
}

static inline float row_sum_exp(kern_dtype t, const float *x, float max, int64_t n)
{
    return t == KERN_BF16 ? sum_exp_t(1, x, max, n) : sum_exp_t(0, x, max, n);
}

SIMD_FN void scaled_exp_t(const int bf, const float *x, float max, float scale, void *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int64_t m = step_of(i, n);
        put_n(y, i, m, exp_of(get_n(x, i, m, 0) - max, bf) * scale, bf);
    }
}

static inline void row_scaled_exp(kern_dtype t, const float *x, float max, float scale, void *y,
                                  int64_t n)
{
    if (t == KERN_BF16)
        scaled_exp_t(1, x, max, scale, y, n);
    else
        scaled_exp_t(0, x, max, scale, y, n);
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
