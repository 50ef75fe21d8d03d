#pragma once
/* What weight.c makes and the products read. */
#include "kernels/cpu/cpu.h"

struct kern_weight {
    int n_parts;
    int64_t in, out;
    int64_t at[KERN_MAX_PARTS + 1]; /* first output of each part; at[n_parts] is out */
    kern_dtype compute;
    bool need_dx, trainable;
    void *rows;  /* [out, in] in the compute dtype */
    float *bias; /* [out]; NULL: none of the parts has one */
};

/* y = x W^T + bias (+ y when add). x [n, in], y [n, out]; y may be F32 where x is BF16. */
int cpu_product(kern_dev *d, const kern_weight *w, const kern_tensor *x, const kern_tensor *y,
                bool add);
/* dx = dy W (+ dx when add). dy [n, out], dx [n, in]. */
int cpu_product_dx(kern_dev *d, const kern_weight *w, const kern_tensor *dy, const kern_tensor *dx,
                   bool add);
/* dw += dy^T x for all outputs from o0 on; dy [n, out_p], x [n, in], dw F32 [out_p, in]. */
int cpu_product_dw(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw);

/* The low-rank terms of a group; see lora.c. */
int cpu_lora_forward(kern_dev *d, const kern_linear *a);
int cpu_lora_grad(kern_dev *d, const kern_linear_grad *a);
