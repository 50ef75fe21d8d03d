#pragma once
/* Attention without tensor cores and without demands on alignment: F32, the reference on the card,
 * and what bf16 rows fall back on that cannot be read 16 bytes at a time. One warp a row; all sums
 * in f32, in the same order every time. */
#include "kernels/cuda/attn.cuh"

enum { PLAIN_WARPS = 4, PLAIN_THREADS = 32 * PLAIN_WARPS, PLAIN_MOST = TUNE_ATTN_MOST };
enum { PLAIN_COLS = PLAIN_MOST / 32 }; /* columns of a lane: lane, lane + 32 ... */

/* A row of d elements to the warp's own shared memory, as f32. */
template <typename T> __device__ __forceinline__ void plain_load(float *to, const T *from, int d)
{
    for (int i = threadIdx.x & 31; i < d; i += 32)
        to[i] = to_f32(from[i]);
}

template <typename T> __device__ __forceinline__ float plain_dot(const float *a, const T *b, int d)
{
    float sum = 0;
    for (int i = 0; i < d; i++)
        sum = fmaf(a[i], to_f32(b[i]), sum);
    return sum;
}

/* acc[i] += sum over j of w[j] * row(j)[lane + 32 i], rows [0, n). */
template <typename T>
__device__ __forceinline__ void plain_add(float (&acc)[PLAIN_COLS], const float *w, const T *row,
                                          int64_t ld, int n, int d)
{
    int lane = threadIdx.x & 31;
    for (int j = 0; j < n; j++)
#pragma unroll
        for (int i = 0; i < PLAIN_COLS; i++)
            if (lane + 32 * i < d)
                acc[i] = fmaf(w[j], to_f32(row[j * ld + lane + 32 * i]), acc[i]);
}

template <typename T>
__device__ __forceinline__ void plain_store(T *to, const float (&acc)[PLAIN_COLS], float factor,
                                            int d)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < PLAIN_COLS; i++)
        if (lane + 32 * i < d)
            to[lane + 32 * i] = from_f32<T>(acc[i] * factor);
}
