#pragma once
/* The bench on which every op is held against a naive double-precision reference.
 *
 * A test builds its operands with op_in, op_from, op_out and op_send, calls the backend with
 * op_call and compares with op_equal or, for gradients, with op_grad: finite differences of the
 * reference's own forward pass. Device memory is reached through alloc, write, read and release
 * alone, so that any backend can be held against it. Operands have gaps between their rows; gaps
 * and fresh outputs are NaN, and gaps must come back untouched. Every case runs twice and must give
 * the same bits. In a self-test one result is made wrong on purpose and the comparison must notice.
 */
#include "core/base/rng.h"
#include "kernels/kern.h"

enum { OP_MAX_ARRAYS = 128 };

/* A matrix on the device and its exact value as doubles. */
typedef struct op_array {
    kern_tensor t;
    int64_t rows, cols;
    double *v; /* [rows, cols]; of a result: what stood there before, NaN when nothing did */
} op_array;

typedef enum op_inject { OP_OFF, OP_NAN, OP_ONE } op_inject;

/* TEST: results, and gradients on some elements. GRAD: gradients on all elements, in cases of their
 * own. PERF: times only. BITS: nothing is compared, results are hashed. */
typedef enum op_mode { OP_TEST, OP_GRAD, OP_PERF, OP_BITS } op_mode;

typedef struct op_ctx {
    kern_dev *d;
    kern_dtype t; /* of activations in this run */
    const char *op;
    int number;  /* of the case */
    rng r, pick; /* of operands; of what op_grad looks at */
    op_array *array[OP_MAX_ARRAYS];
    int n_arrays;
    void *block[OP_MAX_ARRAYS]; /* freed with the case */
    int n_blocks;
    void *sent[OP_MAX_ARRAYS]; /* device memory, released with the case */
    int n_sent;
    uint64_t hash; /* of all results, to compare two runs */
    int compared, failed;
    int inject_at; /* number of the comparison that gets a wrong result */
    op_inject inject;
    bool dense; /* arrays without gaps; a case may set it */
    bool even;  /* gaps that leave rows on 16 bytes where they can be; a case may set it */
    int samples, directions; /* that op_grad differentiates by; a case may lower them */
    op_mode mode;
    bool once;             /* a case is not run again for its bits */
    bool skip_unsupported; /* a case that the backend refuses as unsupported is told, not failed */
    int unsupported;       /* cases that were */
    double started;
    long calls, next_look; /* of op_again */
} op_ctx;

/* One op; its cases are numbered. */
typedef struct op_test {
    const char *name;
    int n_cases;
    void (*run)(op_ctx *c, int i);
    int n_grads; /* cases of OP_GRAD: small enough for a difference by every element */
    void (*grad)(op_ctx *c, int i);
    bool one_dtype; /* no activations: runs in F32, unless a dtype is asked for */
    int n_large;    /* cases of OP_BITS beside the plain ones, too large to be compared; may be 0 */
    void (*large)(op_ctx *c, int i);
} op_test;

extern const op_test op_linear, op_update, op_copy, op_embed, op_norm, op_act, op_qk, op_attn,
    op_paged, op_head, op_logits, op_sample, op_adamw, op_sumsq, op_clip, op_read;

/* ---- operands (all freed after the case) ----------------------------------------------------- */

/* Random normal values times scale, as the dtype holds them. */
op_array *op_in(op_ctx *c, kern_dtype t, int64_t rows, int64_t cols, double scale);
/* Given values, rounded to the dtype. */
op_array *op_from(op_ctx *c, kern_dtype t, int64_t rows, int64_t cols, const double *v);
/* A result that nothing has written. */
op_array *op_out(op_ctx *c, kern_dtype t, int64_t rows, int64_t cols);
/* A copy of an array in host memory, with the same gaps. */
kern_tensor op_host(op_ctx *c, const op_array *a);
/* A block of zeroed host memory. */
void *op_block(op_ctx *c, size_t bytes);
/* Random integers in [lo, hi), in host memory. */
int32_t *op_ints(op_ctx *c, int64_t n, int32_t lo, int32_t hi);
/* A copy of host memory on the device. */
const void *op_send(op_ctx *c, const void *host, size_t bytes);

/* ---- calls and comparisons ------------------------------------------------------------------- */

/* Calls the op; in perf mode again and again for a while, and prints the time. True when the status
 * is 0. */
#define op_call(c, name, args, flops)                                                              \
    ({                                                                                             \
        bool ok_ = op_ok((c), kern_do((c)->d, name, (args)));                                      \
        while (ok_ && op_again((c), #name, (flops)))                                               \
            (void)kern_do((c)->d, name, (args));                                                   \
        ok_;                                                                                       \
    })
bool op_ok(op_ctx *c, int rc);
bool op_again(op_ctx *c, const char *name, double flops);

/* The result of an op against what it should be. */
void op_equal(op_ctx *c, const char *what, const op_array *got, const double *want);
/* The same for plain numbers; exact: no tolerance. */
void op_numbers(op_ctx *c, const char *what, double *got, const double *want, int64_t n,
                bool exact);

/* A scalar function of the arrays' values, by plain loops in double precision. */
typedef double (*op_loss)(void *arg);

/* got holds the gradient of loss by x, on top of got->v when `added`. Compared on some elements and
 * along two random directions; in OP_GRAD on all elements and along eight. */
void op_grad(op_ctx *c, const char *what, op_array *x, const op_array *got, bool added,
             op_loss loss, void *arg);

/* ---- running --------------------------------------------------------------------------------- */

/* Both runs of one case of the mode's list; c->hash is of its results. */
void op_run(op_ctx *c, const op_test *t, int i);
int op_cases(const op_ctx *c, const op_test *t);
