#pragma once
/* The low-rank terms of a group of linear layers: y_p += s_p B_p (A_p drop_p(x)), and the way back.
 *
 * Four small products: *shrink* (tokens by rank), *expand* (onto a block of y or dx that the base
 * product has just written) and *outer* (the gradients of A and of B, sums over tokens). There are
 * two ways of doing them: in f32 whatever the activations are (the reference), and with pairs of
 * bf16 that are summed in f32, where activations are bf16 and the machine has such products. */
#include "kernels/cpu/weight.h"

typedef struct lora_term {
    const kern_lora *l;
    int64_t r, r0;     /* rank, first column in xa */
    int64_t q, q0;     /* the same with ranks rounded up to 16 */
    int64_t out, out0; /* outputs, first column in y */
    float *b;          /* pairs: B as a product reads it */
} lora_term;

typedef struct lora {
    kern_dev *d;
    const cpu_vec *v;
    const kern_linear *f;
    const kern_linear_grad *g; /* NULL in the forward pass */
    lora_term t[KERN_MAX_PARTS];
    int n;
    int64_t ranks, wide; /* sums of r and of q */
    bool drops;
    /* All A: [in, ranks] forward, [ranks, in] backward; pairs: words [in / 2, wide] and [wide / 2,
     * in]. */
    float *at;
    /* f32 */
    float *bt;  /* B transposed, one after the other: [r, out] from ranks-weighted offsets */
    float *dxa; /* [n, ranks] gradient of xa with the scale in */
    /* pairs */
    uint16_t *rows;              /* [n, wide] xa forward, its gradient with the scale in backward */
    float *xa_words, *dxa_words; /* backward: words [n / 2, wide], pairs of tokens */
    char *mem;
    size_t each;
} lora;

/* The base product's `after` (cpu_mul) adds the terms to each block of y, and of dx. */
typedef struct lora_way {
    int (*forward)(lora *s);  /* prepares, and computes xa from x */
    int (*backward)(lora *s); /* prepares, and computes the gradient of xa from dy */
    void (*expand_y)(void *s, const cpu_block *b, int thread);
    void (*expand_dx)(void *s, const cpu_block *b, int thread);
    void (*outer)(lora *s); /* dA and dB */
} lora_way;

extern const lora_way lora_f32, lora_pairs;
enum { LORA_MAX_RANK = 512 }; /* of a part, that lora_pairs takes */

/* Fills s but for the memory; g: NULL in the forward pass. Returns the way to go. */
const lora_way *lora_start(lora *s, kern_dev *d, const kern_linear *f, const kern_linear_grad *g);

/* Of slot CPU_SLOT_LORA (the base product uses the others at the same time): memory for each
 * thread, thread t's at s->mem + t * s->each, and *shared after it. */
int lora_take(lora *s, size_t each, size_t bytes, void **shared);
/* Whether the term has a mask in this pass. */
bool lora_drops(const lora *s, const lora_term *t);
/* The mask of columns [c0, c0 + n) of row r onto x [n], whose first element is column c0. */
void lora_drop(const lora *s, const lora_term *t, int64_t r, int64_t c0, int64_t n, float *x);
