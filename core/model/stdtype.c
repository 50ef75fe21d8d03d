#include "core/model/stdtype.h"

#include <string.h>

static uint32_t bits_of(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

float bf16_to_f32(uint16_t v)
{
    return float_of((uint32_t)v << 16);
}

uint16_t f32_to_bf16(float v)
{
    uint32_t u = bits_of(v);
    if ((u & 0x7FFFFFFFU) > 0x7F800000U) /* a NaN must not round to infinity */
        return (uint16_t)(u >> 16 | 0x0040U);
    return (uint16_t)((u + 0x7FFFU + (u >> 16 & 1U)) >> 16);
}

float f16_to_f32(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000U) << 16;
    uint32_t exponent = v >> 10 & 0x1FU;
    uint32_t mantissa = v & 0x3FFU;
    if (exponent == 0x1FU)
        return float_of(sign | 0x7F800000U | mantissa << 13);
    if (exponent != 0)
        return float_of(sign | (exponent + 112U) << 23 | mantissa << 13);
    float small = (float)mantissa * 0x1p-24F; /* subnormal or zero */
    return sign != 0 ? -small : small;
}

/* The result below 2^-14: multiples of 2^-24, which the float addition rounds as it should. */
static uint16_t f16_subnormal(uint32_t sign, float magnitude)
{
    float shifted = magnitude + 0.5F; /* an ulp of 0.5 is 2^-24 */
    return (uint16_t)(sign | (bits_of(shifted) - bits_of(0.5F)));
}

uint16_t f32_to_f16(float v)
{
    uint32_t u = bits_of(v);
    uint32_t sign = u >> 16 & 0x8000U;
    uint32_t rest = u & 0x7FFFFFFFU;
    if (rest > 0x7F800000U)
        return (uint16_t)(sign | 0x7E00U);
    if (rest < 0x38800000U)
        return f16_subnormal(sign, float_of(rest));
    uint32_t rounded = rest + 0xFFFU + (rest >> 13 & 1U);
    if (rounded >= 0x47800000U)
        return (uint16_t)(sign | 0x7C00U);
    return (uint16_t)(sign | ((rounded - 0x38000000U) >> 13));
}

/* clang-format off */
static const struct { const char *name; size_t size; } forms[] = {
    [ST_F32] = {"F32", 4}, [ST_F16] = {"F16", 2}, [ST_BF16] = {"BF16", 2},
    [ST_I32] = {"I32", 4}, [ST_I64] = {"I64", 8}, [ST_U8] = {"U8", 1}, [ST_OTHER] = {"other", 0},
};
/* clang-format on */

size_t st_dtype_size(st_dtype t)
{
    return forms[t].size;
}

const char *st_dtype_name(st_dtype t)
{
    return forms[t].name;
}

int st_to_f32(float *dst, const st_tensor *t, hone_err *e)
{
    size_t size = st_dtype_size(t->dtype);
    const unsigned char *src = t->data;
    if (t->dtype != ST_F32 && t->dtype != ST_F16 && t->dtype != ST_BF16)
        return hone_fail(e, HONE_EUNSUPPORTED,
                         "tensor '%s': stored as %s, only F32, F16 and BF16 are read", t->name,
                         st_dtype_name(t->dtype));
    size_t n = t->bytes / size;
    if (t->dtype == ST_F32) {
        memcpy(dst, src, t->bytes);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, src + i * size, sizeof v);
        dst[i] = t->dtype == ST_BF16 ? bf16_to_f32(v) : f16_to_f32(v);
    }
    return 0;
}

int st_from_f32(void *dst, st_dtype t, const float *src, int64_t n, hone_err *e)
{
    if (t != ST_F32 && t != ST_F16 && t != ST_BF16)
        return hone_fail(e, HONE_EUNSUPPORTED, "numbers are not written as %s", st_dtype_name(t));
    if (t == ST_F32) {
        memcpy(dst, src, (size_t)n * sizeof *src);
        return 0;
    }
    uint16_t *out = dst;
    for (int64_t i = 0; i < n; i++)
        out[i] = t == ST_BF16 ? f32_to_bf16(src[i]) : f32_to_f16(src[i]);
    return 0;
}
