#pragma once
/* The row kernels that exist once for each instruction set; which table is used is chosen when the
 * device is opened. */
#include <stdint.h>

#include "kernels/kern.h"

/* C[m, n] = alpha * A B (+ C when add). All F32. A's element (i, k) stands at a[i * ars + k * aks];
 * B [k, n] and C [m, n] are row-major with leading dimensions ldb and ldc. The sum over k runs in
 * order, whatever m and n are. */
typedef struct vec_mm {
    int64_t m, n, k;
    const float *a;
    int64_t ars, aks;
    const float *b;
    int64_t ldb;
    float *c;
    int64_t ldc;
    float alpha;
    bool add;
} vec_mm;

typedef struct vec_norm {
    int64_t h;
    kern_dtype t; /* of x, add, res, y */
    const void *x, *add;
    const float *weight;
    float eps, offset;
    void *res, *y; /* res may be NULL */
} vec_norm;

typedef struct vec_norm_grad {
    int64_t h;
    kern_dtype t;
    const void *dy, *res, *dres;
    const float *weight;
    float rstd, offset;
    void *dx;
    float *dweight; /* [h] added; NULL: not wanted */
} vec_norm_grad;

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

typedef struct cpu_vec {
    const char *name;
    /* dst[i] = src[i] for n elements; F32, BF16 and F16 on either side. */
    void (*to_f32)(kern_dtype t, const void *src, float *dst, int64_t n);
    void (*from_f32)(kern_dtype t, const float *src, void *dst, int64_t n);
    void (*mm)(const vec_mm *a);
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
    /* h = act(gate) * up, rows of i elements of dtype t. */
    void (*act)(kern_act_kind kind, kern_dtype t, const void *gate, const void *up, void *h,
                int64_t i);
    /* dgate, dup (and h when not NULL) from dh; dgate may be gate and dup may be up. */
    void (*act_grad)(kern_act_kind kind, kern_dtype t, const void *gate, const void *up,
                     const void *dh, void *dgate, void *dup, void *h, int64_t i);
    /* x[i] = exp(x[i] - max); returns the sum. */
    float (*exp_sum)(float *x, float max, int64_t n);
    float (*max)(const float *x, int64_t n);
    void (*adamw)(const vec_adamw *a, int64_t n);
    double (*sumsq)(const float *x, int64_t n);
} cpu_vec;

extern const cpu_vec cpu_vec_generic;
extern const cpu_vec cpu_vec_avx2;
extern const cpu_vec cpu_vec_avx512;
