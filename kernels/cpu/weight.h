#pragma once
/* Prepared weights: their layouts, and the products that read them. */
#include "kernels/cpu/cpu.h"

/* How a matrix B [depth, cols] lies in memory.
 *
 * Rows: as the checkpoint has W [out, in]; the forward product reads it transposed.
 * Panels: panels of `width` columns, one after the other; in a panel all of depth, in steps of
 * `group` (1 for F32, 2 for BF16, whose products take pairs), each step `width` columns of `group`
 * values. Depth is padded with zeros to `depth_pad`, columns to whole panels. oneDNN calls this
 * BA16a64b and BA16a64b2a, and our matrix-vector kernels stream it front to back: one copy serves
 * both. */
typedef struct cpu_layout {
    int64_t depth, cols;
    int width, group; /* width 0: rows */
    int64_t depth_pad;
    bool transposed; /* rows only: B is W^T */
} cpu_layout;

typedef struct cpu_matrix {
    cpu_layout l;
    kern_dtype dtype;
    void *data;
    struct cpu_compact *compact; /* how data is to be read (compact.h); NULL: as the layout says */
} cpu_matrix;

struct kern_weight {
    int n_parts;
    int64_t in, out;
    int64_t at[KERN_MAX_PARTS + 1]; /* first output of each part; at[n_parts] is out */
    kern_dtype compute;
    bool need_dx, trainable;
    cpu_matrix fwd, bwd; /* W^T [in, out] and W [out, in]; in rows they share data */
    float *bias;         /* [out]; NULL: none of the parts has one */
};

/* ---- pack.c ---------------------------------------------------------------------------------- */

/* The layout that this device wants for B [depth, cols]. */
cpu_layout cpu_layout_of(const kern_dev *d, kern_dtype t, int64_t depth, int64_t cols,
                         bool transposed);
size_t cpu_layout_bytes(const cpu_layout *l, kern_dtype t);
/* Rows [o0, o0 + src->rows) of W into whatever copies the weight has. */
int cpu_pack(kern_dev *d, kern_weight *w, int64_t o0, const kern_tensor *src);

/* ---- products -------------------------------------------------------------------------------- */

/* Part of a result: rows [r0, r1), columns [c0, c1). */
typedef struct cpu_block {
    int64_t r0, r1, c0, c1;
} cpu_block;

/* y [n, cols] = x [n, depth] B (+ bias) (+ y when add). x has B's dtype; y may be F32. */
typedef struct cpu_mul {
    const kern_tensor *x;
    const cpu_matrix *b;
    const float *bias; /* [cols]; NULL: none */
    const kern_tensor *y;
    bool add;
    /* Called for each block when it has been written, by the thread that wrote it; NULL: nothing.
     */
    void (*after)(void *arg, const cpu_block *b, int thread);
    void *arg;
} cpu_mul;

/* Picks one of the three below. */
int cpu_product(kern_dev *d, const cpu_mul *m);
int cpu_product_dnnl(kern_dev *d, const cpu_mul *m);
int cpu_product_plain(kern_dev *d, const cpu_mul *m);
int cpu_product_small(kern_dev *d, const cpu_mul *m); /* n <= CPU_SMALL */
enum { CPU_SMALL = 8 };

/* dw += dy^T x; dy [n, out], x [n, in], dw F32 [out, in]. */
int cpu_product_dw(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw);
int cpu_dw_dnnl(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw);
int cpu_dw_plain(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw);
