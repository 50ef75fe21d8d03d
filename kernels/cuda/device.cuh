#pragma once
/* What kernels share on the device: conversions, vectors of 16 bytes, sums over warps and blocks in
 * a fixed order, and Philox. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/cu.h"

typedef __nv_bfloat16 bf16;
typedef __half f16;

/* Dynamic shared memory of the block, as an array of T; 16-byte aligned (128 on a card). */
#ifdef EMU
#define CU_SHARED(T, name) T *name = static_cast<T *>(emu::dynamic_shared())
#else
#define CU_SHARED(T, name)                                                                         \
    extern __shared__ __align__(128) unsigned char cu_dynamic_shared[];                            \
    T *name = reinterpret_cast<T *>(cu_dynamic_shared)
#endif

/* ---- conversions ---- */

__device__ __forceinline__ float to_f32(float x)
{
    return x;
}
__device__ __forceinline__ float to_f32(bf16 x)
{
    return __bfloat162float(x);
}
__device__ __forceinline__ float to_f32(f16 x)
{
    return __half2float(x);
}
template <typename T> __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_f32<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}
template <> __device__ __forceinline__ f16 from_f32<f16>(float x)
{
    return __float2half_rn(x);
}

/* x as T holds it. */
template <typename T> __device__ __forceinline__ float rounded(float x)
{
    return to_f32(from_f32<T>(x));
}

/* Two bf16 in a word, the first in the low half: as mma and ldmatrix have them. */
__device__ __forceinline__ unsigned pack_bf16(float lo, float hi)
{
#ifdef EMU
    return (unsigned)__float2bfloat16_rn(lo).bits | (unsigned)__float2bfloat16_rn(hi).bits << 16;
#else
    __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
    return *reinterpret_cast<unsigned *>(&v);
#endif
}
__device__ __forceinline__ float2 unpack_bf16(unsigned w)
{
    return make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xFFFF0000U));
}

/* 2^x to within two units in the last place; 0 for -inf. One instruction where exp2f has four. */
__device__ __forceinline__ float exp2_fast(float x)
{
#ifdef EMU
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/* ---- 16 bytes at a time: 4 floats or 8 bf16 ---- */

template <typename T> struct vec16 {
    static const int N = 16 / (int)sizeof(T);
    float v[N];
};
__device__ __forceinline__ void load16(vec16<float> &r, const float *p)
{
    float4 q = *reinterpret_cast<const float4 *>(p);
    r.v[0] = q.x, r.v[1] = q.y, r.v[2] = q.z, r.v[3] = q.w;
}
__device__ __forceinline__ void store16(float *p, const vec16<float> &r)
{
    *reinterpret_cast<float4 *>(p) = make_float4(r.v[0], r.v[1], r.v[2], r.v[3]);
}
__device__ __forceinline__ void load16(vec16<bf16> &r, const bf16 *p)
{
    uint4 q = *reinterpret_cast<const uint4 *>(p);
    float2 a = unpack_bf16(q.x), b = unpack_bf16(q.y), c = unpack_bf16(q.z), d = unpack_bf16(q.w);
    r.v[0] = a.x, r.v[1] = a.y, r.v[2] = b.x, r.v[3] = b.y;
    r.v[4] = c.x, r.v[5] = c.y, r.v[6] = d.x, r.v[7] = d.y;
}
__device__ __forceinline__ void store16(bf16 *p, const vec16<bf16> &r)
{
    *reinterpret_cast<uint4 *>(p) =
        make_uint4(pack_bf16(r.v[0], r.v[1]), pack_bf16(r.v[2], r.v[3]), pack_bf16(r.v[4], r.v[5]),
                   pack_bf16(r.v[6], r.v[7]));
}

__device__ __forceinline__ void load16(vec16<f16> &r, const f16 *p)
{
    uint4 q = *reinterpret_cast<const uint4 *>(p);
    f16 h[8];
    memcpy(h, &q, sizeof h);
    for (int i = 0; i < 8; i++)
        r.v[i] = to_f32(h[i]);
}

/* N elements: a vector, or 1 where rows are not aligned. */
template <int N, typename T> __device__ __forceinline__ void load_part(vec16<T> &r, const T *p)
{
    if constexpr (N == 1)
        r.v[0] = to_f32(*p);
    else
        load16(r, p);
}
template <int N, typename T> __device__ __forceinline__ void store_part(T *p, const vec16<T> &r)
{
    if constexpr (N == 1)
        *p = from_f32<T>(r.v[0]);
    else
        store16(p, r);
}

/* Four in a row: 16 bytes of f32, 8 of bf16. */
__device__ __forceinline__ void load4(float v[4], const float *p)
{
    float4 q = *reinterpret_cast<const float4 *>(p);
    v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}
__device__ __forceinline__ void load4(float v[4], const bf16 *p)
{
    uint2 q = *reinterpret_cast<const uint2 *>(p);
    float2 a = unpack_bf16(q.x), b = unpack_bf16(q.y);
    v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y;
}
__device__ __forceinline__ void store4(float *p, const float v[4])
{
    *reinterpret_cast<float4 *>(p) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ __forceinline__ void store4(bf16 *p, const float v[4])
{
    *reinterpret_cast<uint2 *>(p) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
}

/* ---- sums and maxima, the same order every time ---- */

__device__ __forceinline__ float warp_sum(float x)
{
    for (int i = 16; i > 0; i >>= 1)
        x += __shfl_xor_sync(0xFFFFFFFFU, x, i);
    return x;
}
__device__ __forceinline__ double warp_sum(double x)
{
    for (int i = 16; i > 0; i >>= 1)
        x += __shfl_xor_sync(0xFFFFFFFFU, x, i);
    return x;
}
__device__ __forceinline__ float warp_max(float x)
{
    for (int i = 16; i > 0; i >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFU, x, i));
    return x;
}

/* Over a block of whole warps (one dimension, at most 1024 threads); every thread gets the result.
 * share holds 32 elements and is free again after the call. */
template <typename F> __device__ __forceinline__ F block_sum(F x, F *share)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    x = warp_sum(x);
    if (lane == 0)
        share[warp] = x;
    __syncthreads();
    x = warp_sum(lane < warps ? share[lane] : F(0));
    __syncthreads();
    return x;
}
__device__ __forceinline__ float block_max(float x, float *share)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    x = warp_max(x);
    if (lane == 0)
        share[warp] = x;
    __syncthreads();
    x = warp_max(lane < warps ? share[lane] : -INFINITY);
    __syncthreads();
    return x;
}

/* ---- Philox4x32-10, as core/base/rng.h has it: words 4 * index to 4 * index + 3 ---- */

__device__ __forceinline__ uint4 philox(uint64_t seed, uint64_t stream, uint64_t index)
{
    unsigned c0 = (unsigned)index, c1 = (unsigned)(index >> 32);
    unsigned c2 = (unsigned)stream, c3 = (unsigned)(stream >> 32);
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned h0 = __umulhi(0xD2511F53U, c0), l0 = 0xD2511F53U * c0;
        unsigned h1 = __umulhi(0xCD9E8D57U, c2), l1 = 0xCD9E8D57U * c2;
        c0 = h1 ^ c1 ^ k0;
        c2 = h0 ^ c3 ^ k1;
        c1 = l1;
        c3 = l0;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    return make_uint4(c0, c1, c2, c3);
}

/* A word is kept when its 24-bit uniform value is at least p. */
__device__ __forceinline__ bool philox_keeps(unsigned word, float p)
{
    return (word >> 8) >= (unsigned)ceilf(p * 16777216.0F);
}
