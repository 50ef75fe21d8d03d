#pragma once
/* The row kernels that exist once for each instruction set; which table is used is chosen when the
 * device is opened. */
#include <stdint.h>

#include "kernels/kern.h"

/* C[m, n] = alpha * A B (+ C when add); C is F32, or BF16 when c_bf16.
 *
 * One step of the sum is a float (mm) or a pair of bf16 next to each other (mm_pairs): both are 4
 * bytes, and strides and leading dimensions of A and B count those. A's element (i, k) stands at
 * a[i * ars + k * aks]; B is [steps, n], row-major. Steps are summed in order, whatever m and n
 * are. mm_pairs: n is a multiple of 16. */
typedef struct vec_mm {
    int64_t m, n, steps;
    const void *a;
    int64_t ars, aks;
    const void *b;
    int64_t ldb;
    void *c;
    int64_t ldc;
    float alpha;
    bool add, c_bf16;
} vec_mm;

typedef struct vec_norm {
    int64_t h;
    kern_dtype t; /* of x, add, res, y */
    const void *x, *add;
    const float *weight; /* with its offset, rounded to t */
    float eps;
    void *res, *y; /* res may be NULL when add is, and may be x */
} vec_norm;

typedef struct vec_norm_grad {
    int64_t h;
    kern_dtype t;
    const void *dy, *res, *dres;
    const float *weight; /* with its offset, rounded to t */
    float rstd;
    void *dx;
    float *dweight; /* [h] added; NULL: not wanted */
} vec_norm_grad;

/* One head of q or k: norm when weight is there, then rotation by the angles of its position. */
enum { VEC_MAX_HEAD = 1024 };
typedef struct vec_head {
    int d;
    kern_dtype t;
    const void *x;
    const float *weight; /* [d]; NULL: no norm */
    float eps;
    const float *cos, *sin; /* [d / 2] */
    void *y;                /* forward: written, may be x; backward: gradient, in place */
    float *dweight;         /* backward: [d] added */
} vec_head;

typedef struct vec_adamw {
    float *p, *m, *v;
    const float *g;
    float beta1, beta2, grad_scale, decay, step_size, inv_sqrt_c2, eps;
} vec_adamw;

/* y [rows, cols] = x times some columns of a panel (see cpu_layout). */
typedef struct vec_mv {
    int rows;           /* 1 to VEC_MV_ROWS */
    int64_t steps, ldx; /* steps of `group` values; x is padded with zeros to steps * group */
    const void *x, *panel;
    int width, cols; /* of the panel; wanted, a multiple of 16 */
    float *y;        /* leading dimension VEC_MV_COLS */
} vec_mv;
enum { VEC_MV_ROWS = 4, VEC_MV_COLS = 64 };

/* A tile of attention scores: rows of VEC_TILE columns. */
enum { VEC_TILE = 64 };
typedef struct vec_soft {
    const float *s; /* [rows, VEC_TILE] dot products */
    int rows, cols; /* cols: computed, a multiple of 16 */
    float scale;
    const int *lo, *hi;      /* [rows] columns that count: [lo, hi) */
    float *max, *sum, *keep; /* [rows] of the row so far, carried on; what earlier sums of the row
                                are to be multiplied by */
    void *p; /* [rows, VEC_TILE], cols of it written: exp(scaled - max); 0 where a column does not
                count */
} vec_soft;

/* Two rows of scores and of dP on the way back. */
typedef struct vec_soft_grad {
    const float *s, *dp;
    int64_t ld;
    int cols; /* computed, a multiple of 16 */
    float scale;
    int lo[2], hi[2];
    float lse[2], delta[2];
    void *p, *ds;   /* [2, VEC_TILE]; with pairs p is woven: [VEC_TILE] pairs of the two rows */
    void *ds_woven; /* pairs only */
} vec_soft_grad;

/* Dropout of n elements that stand at word `at` of a Philox stream and after: those whose uniform
 * value is at least p are multiplied by 1 / (1 - p), the rest become 0. */
typedef struct vec_drop {
    uint64_t seed, stream, at;
    float p;
    float *x;
    int64_t n;
} vec_drop;

typedef struct cpu_vec {
    const char *name;
    /* dst[i] = src[i] for n elements; F32, BF16 and F16 on either side. */
    void (*to_f32)(kern_dtype t, const void *src, float *dst, int64_t n);
    void (*from_f32)(kern_dtype t, const float *src, void *dst, int64_t n);
    void (*mm)(const vec_mm *a);
    void (*mm_pairs)(const vec_mm *a); /* NULL where there are no bf16 products */
    void (*mv_f32)(const vec_mv *a);
    void (*mv_bf16)(const vec_mv *a); /* NULL where there are no bf16 products */
    /* y[r] = w . x[r] for rows (1 to VEC_MV_ROWS) of x; w has dtype t. */
    void (*dots)(kern_dtype t, const void *w, const float *x, int64_t ldx, int rows, int64_t n,
                 float *y);
    float (*dot)(const float *a, const float *b, int64_t n);
    void (*axpy)(float alpha, const float *x, float *y, int64_t n); /* y += alpha x */
    void (*scale)(float alpha, float *x, int64_t n);                /* x *= alpha */
    /* y += x, x F32 and y of dtype t. */
    void (*add_to)(kern_dtype t, const float *x, void *y, int64_t n);
    /* Returns 1 / sqrt(mean + eps) of the row. */
    float (*norm)(const vec_norm *a);
    void (*norm_grad)(const vec_norm_grad *a);
    void (*head)(const vec_head *a);
    void (*head_grad)(const vec_head *a);
    /* h = act(gate) * up, rows of i elements of dtype t. */
    void (*act)(kern_act_kind kind, kern_dtype t, const void *gate, const void *up, void *h,
                int64_t i);
    /* dgate, dup (and h when not NULL) from dh; dgate may be gate and dup may be up. */
    void (*act_grad)(kern_act_kind kind, kern_dtype t, const void *gate, const void *up,
                     const void *dh, void *dgate, void *dup, void *h, int64_t i);
    /* x[i] = exp(x[i] - max); returns the sum. */
    float (*exp_sum)(float *x, float max, int64_t n);
    /* The sum of exp(x[i] - max), as well as a result of dtype t is worth. */
    float (*sum_exp)(kern_dtype t, const float *x, float max, int64_t n);
    /* y[i] = scale exp(x[i] - max), y of dtype t; y may be x. */
    void (*scaled_exp)(kern_dtype t, const float *x, float max, float scale, void *y, int64_t n);
    float (*max)(const float *x, int64_t n);
    /* rows of n elements of dtype from, ld elements apart, into rows of `words` units of 4 bytes
     * that hold dtype to, padded with zeros. */
    void (*tile_rows)(kern_dtype from, const void *src, int64_t ld, int64_t rows, int64_t n,
                      kern_dtype to, float *dst, int64_t words);
    /* Tiles of attention. Elements of 4 bytes; rows and cols multiples of 16; dst[c, r] = src[r,
     * c]. */
    void (*transpose)(const float *src, int64_t lds, int rows, int cols, float *dst, int64_t ldd);
    /* Pairs (row 2i, row 2i + 1) of each column: dst [rows / 2, cols] pairs. Strides count bf16. */
    void (*weave)(const uint16_t *src, int64_t lds, int rows, int cols, uint16_t *dst, int64_t ldd);
    /* Probabilities in dtype t. */
    void (*soft)(kern_dtype t, const vec_soft *a);
    void (*soft_grad)(const vec_soft_grad *a);
    void (*soft_grad_pairs)(const vec_soft_grad *a); /* NULL where there are no bf16 products */
    void (*drop)(const vec_drop *a);
    void (*adamw)(const vec_adamw *a, int64_t n);
    double (*sumsq)(const float *x, int64_t n);
} cpu_vec;

extern const cpu_vec cpu_vec_generic;
extern const cpu_vec cpu_vec_avx2;
extern const cpu_vec cpu_vec_avx512;
