#pragma once
/* What the linear layers, the head and the logits share: low-rank terms as kernels take them, and
 * products of few rows. */
#include "kernels/cuda/device.cuh"

/* The low-rank terms of a group, passed to kernels by value. Columns of xa and rows of the stacked
 * factors are [r0, r0 + r) for term i. */
typedef struct cu_lora_term {
    const float *A, *B; /* [r, in], [out, r] */
    int64_t lda, ldb;
    int64_t r, r0;
    int64_t out, out0; /* outputs, first column in y */
    float scale;
} cu_lora_term;

typedef struct cu_lora {
    int n;
    int64_t ranks; /* of all terms */
    cu_lora_term t[KERN_MAX_PARTS];
} cu_lora;

/* y [n, out] = x W^T + b, plus y itself when add is set, plus the low-rank terms by xa, which is
 * read: one pass over the weight. At most TUNE_GEMV_ROWS rows. */
typedef struct cu_gemv_args {
    const char *what;
    const kern_weight *w;
    kern_tensor x;      /* [.., in] as the weight, rows anywhere */
    const int32_t *row; /* [n] which rows of x, device; NULL: in order */
    int64_t n;
    kern_tensor y; /* [n, out] as the weight, or F32 */
    bool add;
    const cu_lora *lora; /* NULL: none */
    kern_tensor xa;      /* [n, ranks] F32 */
} cu_gemv_args;
int cu_gemv(kern_dev *d, const cu_gemv_args *g);
/* Whether n rows by this weight are a case for it. */
bool cu_gemv_fits(const kern_weight *w, int64_t n);
/* xa [n, ranks] = x A^T for as few rows, all terms at once; no dropout. */
int cu_gemv_lora(kern_dev *d, const cu_lora *lora, const kern_tensor *x, const kern_tensor *xa);
