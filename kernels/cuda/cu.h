#pragma once
/* What the files of the CUDA backend share on the host's side: the device, launches, scratch
 * memory, shape checks, the matrix product, and the ops' prototypes.
 *
 * Everything runs on one stream. A launcher checks shapes, launches, and returns what cu_launch
 * says; it never waits and never reads device memory. The same sources are compiled by nvcc and,
 * for tests on machines without a card, by g++ with tests/emu (EMU is defined there). */
#include <cuda_runtime.h>
#include <stdarg.h>

#include "kernels/kern.h"

/* Scratch buffers grow to what an op needs and stay; one slot is one purpose inside an op. */
enum { CU_SLOT_GEMM, CU_SLOT_X, CU_SLOT_LORA, CU_SLOT_A, CU_SLOT_B, CU_SLOT_C, CU_SCRATCH_SLOTS };

struct cu_gemm_state;

/* Pinned host memory for writes, used in turn: a piece is free again when its event has passed. */
enum { CU_STAGES = 4, CU_STAGE_BYTES = 4 << 20 };

typedef struct cu_dev {
    kern_dev base;
    cudaStream_t stream;
    int index;         /* of the card */
    int sms;           /* multiprocessors */
    int cc;            /* 80, 89, 90 ... */
    size_t shared_max; /* bytes of dynamic shared memory that a block may have */
    bool capturing;    /* between capture_begin and capture_end */
    int graphs;        /* recorded and not freed: their scratch must stay where it is */
    struct {
        void *p;
        size_t bytes;
    } scratch[CU_SCRATCH_SLOTS];
    struct cu_block { /* what cu_take has given out */
        void *p;
        size_t bytes;
    } * blocks;
    size_t n_blocks, cap_blocks;
    void **retired; /* scratch that graphs may still use; freed with the last graph */
    size_t n_retired, cap_retired;
    struct {
        char *host;
        cudaEvent_t done;
        bool busy;
    } stage[CU_STAGES];
    int next_stage;
    struct kern_read *reads; /* that may be used again */
    struct cu_gemm_state *gemm;
} cu_dev;

static inline cu_dev *cu_of(kern_dev *d)
{
    return (cu_dev *)d;
}

/* Sets the text of the last error ("op: ..."); returns code. */
int cu_fail(kern_dev *d, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* 0 for cudaSuccess, else EDEVICE or ENOMEM with what was being done and CUDA's own words. */
int cu_check(kern_dev *d, cudaError_t rc, const char *what);

/* Accounted device memory, 256-byte aligned, not zeroed. *out is NULL on failure; not while
 * recording. */
int cu_take(kern_dev *d, const char *what, size_t bytes, void **out);
void cu_give(kern_dev *d, void *p);

/* At least bytes in a slot; valid until the same slot is asked for again. Everything that uses it
 * is on the one stream, so nothing waits. */
int cu_scratch(kern_dev *d, int slot, size_t bytes, void **out);
/* Frees the pinned memory of reads that have ended. */
void cu_reads_free(kern_dev *d);
/* Frees what recorded steps might have used; none is there any more. */
void cu_retired_free(kern_dev *d);

/* ---- checks (as the CPU backend's) ---- */

int cu_shape(kern_dev *d, const char *field, const kern_tensor *x, int64_t rows, int64_t cols);
int cu_shape_of(kern_dev *d, const char *field, const kern_tensor *x, kern_dtype t, int64_t rows,
                int64_t cols);
/* The dtype is one that activations may have: F32 or BF16. */
int cu_activation(kern_dev *d, const char *field, const kern_tensor *x);

static inline void *cu_at(const kern_tensor *x, int64_t r, int64_t c)
{
    return (char *)x->data + (size_t)(r * x->ld + c) * kern_dtype_size(x->dtype);
}

/* Rows may be read and written 16 bytes at a time: base, row pitch and width are multiples of 16
 * bytes. NULL data counts as aligned. */
bool cu_aligned16(const kern_tensor *x);

/* ---- the matrix product ---- */

/* c = alpha * op(a) op(b) + beta * c, row-major; op transposes when ta, tb say so. op(a) [m, k],
 * op(b) [k, n], c [m, n]. a and b of one dtype (F32 or BF16); c of that dtype or F32. Sums in f32;
 * F32 operands are multiplied as f32, never as tf32. m, n or k of 0 is allowed (k 0: c = beta * c).
 * gemm_lt.cu, by cuBLASLt. */
typedef struct cu_gemm_args {
    const char *what; /* for messages and the table of algorithms */
    kern_tensor a, b, c;
    bool ta, tb;
    float alpha, beta;
    const void *bias; /* [n] in c's dtype, added to every row; NULL: none; not with k 0 */
} cu_gemm_args;
int cu_gemm(kern_dev *d, const cu_gemm_args *g);
/* The plain case: alpha 1, beta 0 (`add`: 1), no bias. */
static inline cu_gemm_args cu_gemm_of(const char *what, kern_tensor a, bool ta, kern_tensor b,
                                      bool tb, kern_tensor c, bool add)
{
    cu_gemm_args g = {what, a, b, c, ta, tb, 1.0F, add ? 1.0F : 0.0F, NULL};
    return g;
}
int cu_gemm_open(kern_dev *d);
void cu_gemm_close(kern_dev *d);

/* ---- launches ---- */

#ifdef EMU
template <typename... P, typename... A>
static inline int cu_launch_smem(kern_dev *d, const char *what, void (*kernel)(P...), dim3 grid,
                                 dim3 block, size_t smem, A... a)
{
    emu::submit([=] { emu::run(what, grid, block, smem, [=] { kernel(a...); }); });
    return cu_check(d, cudaGetLastError(), what);
}
#else
/* Launches on the device's stream. what: "op kernel", for the message. smem: dynamic shared memory;
 * above 48 KiB it is asked for here. */
template <typename... P, typename... A>
static inline int cu_launch_smem(kern_dev *d, const char *what, void (*kernel)(P...), dim3 grid,
                                 dim3 block, size_t smem, A... a)
{
    if (smem > (48 << 10)) {
        cudaError_t rc =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)smem);
        if (rc != cudaSuccess)
            return cu_check(d, rc, what);
    }
    kernel<<<grid, block, smem, cu_of(d)->stream>>>(static_cast<P>(a)...);
    return cu_check(d, cudaGetLastError(), what);
}
#endif
template <typename... P, typename... A>
static inline int cu_launch(kern_dev *d, const char *what, void (*kernel)(P...), dim3 grid,
                            dim3 block, A... a)
{
    return cu_launch_smem(d, what, kernel, grid, block, 0, a...);
}

static inline unsigned cu_blocks(int64_t n, int64_t each)
{
    return (unsigned)((n + each - 1) / each);
}

/* ---- parts shared by several ops ---- */

/* out[c] += sum over r of x[r, c] for x F32 [rows, cols], in an order that depends on rows alone:
 * the second stage of sums over a batch. */
int cu_add_rows(kern_dev *d, const char *what, const float *x, int64_t rows, int64_t cols,
                int64_t ld, float *out);

struct kern_kv {
    int n_layers, n_kv, d, block_tokens;
    int64_t n_blocks;
    kern_dtype dtype;
    char *data; /* [layer][k, v][block][kv head][token][d] */
};
/* Elements from one layer's keys to its values, and from one layer to the next. */
static inline int64_t cu_kv_half(const kern_kv *kv)
{
    return kv->n_blocks * kv->n_kv * kv->block_tokens * (int64_t)kv->d;
}

/* Parts p are rows [at[p], at[p + 1]) of one row-major matrix in the compute dtype. */
struct kern_weight {
    int n_parts;
    int64_t in, out;
    int64_t at[KERN_MAX_PARTS + 1];
    kern_dtype compute;
    bool need_dx, trainable;
    kern_tensor w; /* [out, in], device */
    float *bias;   /* [out], device; NULL: none */
    void *bias_c;  /* the same in the compute dtype, as products add it; for F32 bias itself */
};

#define CU_OP(name, args) int cu_op_##name args;
KERN_OPS(CU_OP)
#undef CU_OP
