#pragma once
/* bf16 and f16 for the host: the conversions that kernels/cuda uses, rounding to nearest even. */
#include "tests/emu/cuda_runtime.h"

struct __nv_bfloat16 {
    unsigned short bits;
};
struct __align__(4) __nv_bfloat162
{
    __nv_bfloat16 x, y;
};
struct __half {
    unsigned short bits;
};

static inline float __bfloat162float(__nv_bfloat16 x)
{
    return __uint_as_float((unsigned)x.bits << 16);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
    unsigned u = __float_as_uint(f);
    if (f != f)
        return {(unsigned short)0x7FFF};
    u += 0x7FFFU + (u >> 16 & 1U);
    return {(unsigned short)(u >> 16)};
}
static inline float __half2float(__half h)
{
    unsigned e = h.bits >> 10 & 31U, m = h.bits & 0x3FFU, s = (unsigned)(h.bits & 0x8000U) << 16;
    if (e == 31)
        return __uint_as_float(s | 0x7F800000U | m << 13);
    if (e == 0)
        return (s != 0 ? -1.0F : 1.0F) * ldexpf((float)m, -24);
    return __uint_as_float(s | (e + 112) << 23 | m << 13);
}
static inline __half __float2half_rn(float f)
{
    _Float16 h = (_Float16)f;
    __half r;
    memcpy(&r, &h, 2);
    return r;
}
