#pragma once
/* The low-rank terms of a group of linear layers: y_p += s_p B_p (A_p drop_p(x)), and the way back.
 *
 * Four small products, all in f32 whatever the activations are: *shrink* (tokens by rank), *expand*
 * (onto a block of y or dx that the base product has just written) and *outer* (the gradients). */
#include "kernels/cpu/weight.h"

typedef struct lora_term {
    const kern_lora *l;
    int64_t r, r0;     /* rank, first column in xa */
    int64_t out, out0; /* outputs, first column in y */
} lora_term;

typedef struct lora {
    kern_dev *d;
    const cpu_vec *v;
    const kern_linear *f;
    const kern_linear_grad *g; /* NULL in the forward pass */
    lora_term t[KERN_MAX_PARTS];
    int n;
    int64_t ranks;
    bool drops;
    float *at;  /* [in, ranks]: all A, transposed (forward); [ranks, in]: all A (backward) */
    float *bt;  /* B transposed, one after the other: [r, out] from ranks-weighted offsets */
    float *dxa; /* [n, ranks] gradient of xa with the scale in */
    char *mem;
    size_t each;
} lora;

/* Prepares, and computes xa from x. */
int lora_forward(lora *s, kern_dev *d, const kern_linear *f);
/* Adds the terms to a block of y: the `after` of the base product. */
void lora_expand_y(void *arg, const cpu_block *b, int thread);

/* Prepares, and computes dxa from dy. */
int lora_backward(lora *s, kern_dev *d, const kern_linear_grad *g);
/* Adds the terms to a block of dx. */
void lora_expand_dx(void *arg, const cpu_block *b, int thread);
/* dA and dB. */
void lora_outer(lora *s);
