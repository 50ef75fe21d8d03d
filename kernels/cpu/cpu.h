#pragma once
/* What the files of the CPU backend share: the device, its scratch memory, shape checks and the
 * ops' prototypes. */
#include "kernels/cpu/pool.h"
#include "kernels/cpu/vec.h"
#include "kernels/kern.h"

typedef enum cpu_isa { CPU_GENERIC, CPU_AVX2, CPU_AVX512, CPU_AVX512_BF16, CPU_AMX } cpu_isa;

/* Scratch buffers grow to what an op needs and stay; one slot is one purpose inside an op. */
enum {
    CPU_SLOT_THREADS, /* each thread's own (cpu_thread_mem) */
    CPU_SLOT_X,       /* operands of a product in another dtype or layout */
    CPU_SLOT_LORA,
    CPU_SLOT_A, /* an op's own */
    CPU_SLOT_B,
    CPU_SLOT_C,
    CPU_SCRATCH_SLOTS
};

typedef struct cpu_dev {
    kern_dev base;
    cpu_isa isa;
    const cpu_vec *vec;
    bool compact; /* weights may be compact (compact.h) */
    cpu_pool *pool;
    struct cpu_dnnl *dnnl;
    struct cpu_shelf *shelf; /* where the next lasting block goes; NULL: none has room */
    struct {
        void *p;
        size_t bytes;
    } scratch[CPU_SCRATCH_SLOTS];
} cpu_dev;

static inline cpu_dev *cpu_of(kern_dev *d)
{
    return (cpu_dev *)d;
}

/* Sets the text of the last error ("op: ..."); returns code. */
int cpu_fail(kern_dev *d, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Accounted memory, 64-byte aligned, not zeroed. *out is NULL on failure. */
int cpu_take(kern_dev *d, const char *what, size_t bytes, void **out);
/* The same for what stays as long as the model: weights lie on huge pages together, which are read
 * faster from end to end than their own small ones. */
int cpu_take_lasting(kern_dev *d, const char *what, size_t bytes, void **out);
void cpu_give(kern_dev *d, void *p);

/* At least bytes in a slot; valid until the same slot is asked for again. */
int cpu_scratch(kern_dev *d, int slot, size_t bytes, void **out);

/* ---- checks ---------------------------------------------------------------------------------- */

/* x has exactly this shape, data and a leading dimension that fits; the message names op and field.
 */
int cpu_shape(kern_dev *d, const char *field, const kern_tensor *x, int64_t rows, int64_t cols);
/* As cpu_shape, and the dtype is t. */
int cpu_shape_of(kern_dev *d, const char *field, const kern_tensor *x, kern_dtype t, int64_t rows,
                 int64_t cols);
/* The dtype is one that activations may have. */
int cpu_activation(kern_dev *d, const char *field, const kern_tensor *x);

static inline void *cpu_at(const kern_tensor *x, int64_t r, int64_t c)
{
    return (char *)x->data + (size_t)(r * x->ld + c) * kern_dtype_size(x->dtype);
}

/* ---- threads --------------------------------------------------------------------------------- */

/* f for every i in [0, n), on all threads when there is enough to do; work: all of it, about 1 unit
 * a nanosecond. */
void cpu_run(kern_dev *d, int64_t work, int64_t n, cpu_piece f, void *arg);

/* f for spans of rows that cover [0, n), each worth some microseconds; work: of one row. How rows
 * are cut depends on n and work only. */
typedef void (*cpu_span)(void *arg, int64_t r0, int64_t r1, int thread);
void cpu_rows(kern_dev *d, int64_t n, int64_t work, cpu_span f, void *arg);

/* bytes for each thread, on cache lines of their own; thread t's stand at (char *)out + t * each.
 */
int cpu_thread_mem(kern_dev *d, size_t bytes, void **out, size_t *each);

/* ---- parts shared by several ops ------------------------------------------------------------- */

struct kern_kv {
    int n_layers, n_kv, d, block_tokens;
    int64_t n_blocks;
    kern_dtype dtype;
    char *data; /* [layer][k, v][block][kv head][token][d] */
};
/* The d elements of one token and head; which: 0 keys, 1 values. */
void *cpu_kv_at(const kern_kv *kv, int layer, int which, int64_t slot, int head);

#define CPU_OP(name, args) int cpu_##name args;
KERN_OPS(CPU_OP)
#undef CPU_OP
