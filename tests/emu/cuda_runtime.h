#pragma once
/* CUDA's runtime for a machine without a card, as far as kernels/cuda uses it: the same sources,
 * compiled as plain C++, run thread by thread on the host.
 *
 * Found in place of the toolkit's header by -Itests/emu. A block's threads are fibers of one host
 * thread; a barrier or a warp operation is where they change. What a card would leave undefined is
 * made to show: device memory starts as NaN, shared memory too, copies into shared memory, and
 * from the card to the host, arrive only when they are waited for, and the order of threads can be
 * turned round (EMU_ORDER=reverse or a number that seeds a shuffle) so that a missing barrier
 * changes the result. Host pointers are not device pointers here either: device memory is reserved
 * in an address range of its own. EMU_SHARED=BYTES gives blocks less shared memory, as on a smaller
 * card (101376: sm_89); EMU_LOST=N loses the card after N kernels. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static thread_local
#define __ldg(p) (*(p))
#define __grid_constant__

/* ---- types ---- */

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};
struct uint3 {
    unsigned x, y, z;
};
struct __align__(8) float2
{
    float x, y;
};
struct __align__(16) float4
{
    float x, y, z, w;
};
struct __align__(8) uint2
{
    unsigned x, y;
};
struct __align__(16) uint4
{
    unsigned x, y, z, w;
};
struct __align__(8) int2
{
    int x, y;
};
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

/* ---- where a thread is ---- */

namespace emu
{
struct place {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
place &here();
void *dynamic_shared();

/* Runs every thread of every block. */
void run(const char *what, dim3 grid, dim3 block, size_t smem, const std::function<void()> &kernel);
/* Runs now, or is recorded where the stream captures. */
void submit(std::function<void()> work);

void barrier();
/* Every lane of mask gives n bytes (at most 64) and gets the 32 lanes' bytes, 64 apart. tag names
 * the operation: two lanes in different ones is an error. */
const char *exchange(const char *tag, unsigned mask, const void *mine, size_t n);
unsigned lane();

void async_copy(void *dst, const void *src, size_t n, bool zero);
void async_commit();
void async_wait(int pending);

[[noreturn]] void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
} // namespace emu

#define threadIdx (emu::here().thread)
#define blockIdx (emu::here().block)
#define blockDim (emu::here().block_dim)
#define gridDim (emu::here().grid_dim)
enum { warpSize = 32 };

/* ---- barriers and warps ---- */

static inline void __syncthreads()
{
    emu::barrier();
}
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFU)
{
    emu::exchange("syncwarp", mask, nullptr, 0);
}

template <typename T> static inline T emu_lane(const char *all, unsigned lane)
{
    T v;
    memcpy(&v, all + 64 * lane, sizeof v);
    return v;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T v, int src, int width = 32)
{
    unsigned base = emu::lane() / (unsigned)width * (unsigned)width;
    return emu_lane<T>(emu::exchange("shfl", mask, &v, sizeof v),
                       base + (unsigned)src % (unsigned)width);
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32)
{
    (void)width;
    return emu_lane<T>(emu::exchange("shfl_xor", mask, &v, sizeof v), emu::lane() ^ (unsigned)x);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T v, int by, int width = 32)
{
    unsigned me = emu::lane(), to = me % (unsigned)width + (unsigned)by;
    const char *all = emu::exchange("shfl_down", mask, &v, sizeof v);
    return to < (unsigned)width ? emu_lane<T>(all, me + (unsigned)by) : v;
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T v, int by, int width = 32)
{
    unsigned me = emu::lane();
    const char *all = emu::exchange("shfl_up", mask, &v, sizeof v);
    return me % (unsigned)width >= (unsigned)by ? emu_lane<T>(all, me - (unsigned)by) : v;
}
static inline unsigned __ballot_sync(unsigned mask, int p)
{
    const char *all = emu::exchange("ballot", mask, &p, sizeof p);
    unsigned bits = 0;
    for (unsigned i = 0; i < 32; i++)
        if ((mask >> i & 1U) != 0 && emu_lane<int>(all, i) != 0)
            bits |= 1U << i;
    return bits;
}
static inline int __any_sync(unsigned mask, int p)
{
    return __ballot_sync(mask, p) != 0;
}
static inline int __all_sync(unsigned mask, int p)
{
    return __ballot_sync(mask, p) == mask;
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}

/* ---- arithmetic ---- */

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
#define __expf expf
#define __logf logf
static inline float rsqrtf(float x)
{
    return 1.0F / sqrtf(x);
}
static inline float __fdividef(float a, float b)
{
    return a / b;
}
static inline float __uint_as_float(unsigned u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline unsigned __float_as_uint(float f)
{
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline int __float_as_int(float f)
{
    return (int)__float_as_uint(f);
}
static inline float __int_as_float(int i)
{
    return __uint_as_float((unsigned)i);
}
template <typename T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}
static inline int64_t min(int64_t a, int b)
{
    return b < a ? b : a;
}
static inline int64_t min(int a, int64_t b)
{
    return b < a ? b : a;
}
static inline int64_t max(int64_t a, int b)
{
    return a < b ? b : a;
}
static inline int64_t max(int a, int64_t b)
{
    return a < b ? b : a;
}

template <typename T> static inline T atomicAdd(T *p, T v)
{
    T old = *p;
    *p = old + v;
    return old;
}
template <typename T> static inline T atomicOr(T *p, T v)
{
    T old = *p;
    *p = old | v;
    return old;
}
template <typename T> static inline T atomicMax(T *p, T v)
{
    T old = *p;
    *p = old < v ? v : old;
    return old;
}
template <typename T> static inline T atomicMin(T *p, T v)
{
    T old = *p;
    *p = v < old ? v : old;
    return old;
}
static inline unsigned atomicInc(unsigned *p, unsigned top)
{
    unsigned old = *p;
    *p = old >= top ? 0 : old + 1;
    return old;
}
static inline void __threadfence()
{
}
static inline void __threadfence_block()
{
}

/* ---- the runtime ---- */

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorECCUncorrectable = 214,
    cudaErrorUnsupportedPtxVersion = 222,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchTimeout = 702,
    cudaErrorHardwareStackError = 714,
    cudaErrorIllegalInstruction = 715,
    cudaErrorMisalignedAddress = 716,
    cudaErrorInvalidAddressSpace = 717,
    cudaErrorInvalidPc = 718,
    cudaErrorLaunchFailure = 719,
    cudaErrorSystemNotReady = 802,
    cudaErrorUnknown = 999
} cudaError_t;
typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_graph *cudaGraphExec_t;
typedef enum {
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
} cudaMemcpyKind;
typedef enum {
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
} cudaStreamCaptureMode;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

struct cudaDeviceProp {
    char name[256];
    int major, minor, multiProcessorCount;
    size_t totalGlobalMem, sharedMemPerBlockOptin;
};

const char *cudaGetErrorString(cudaError_t e);
const char *cudaGetErrorName(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int i);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int i);
cudaError_t cudaDriverGetVersion(int *v);
cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaMalloc(void **p, size_t n);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, cudaMemcpyKind k, cudaStream_t s);
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dpitch, const void *src, size_t spitch,
                              size_t width, size_t height, cudaMemcpyKind k, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s);
cudaError_t cudaMemset2DAsync(void *p, size_t pitch, int v, size_t width, size_t height,
                              cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode m);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags = 0);
template <typename F> cudaError_t cudaFuncSetAttribute(F *, cudaFuncAttribute, int)
{
    return cudaSuccess;
}
