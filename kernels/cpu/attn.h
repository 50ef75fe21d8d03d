#pragma once
/* Attention by tiles, after FlashAttention (arXiv:2205.14135, 2307.08691).
 *
 * A tile is TILE rows by TILE keys. Its rows are the query heads of one key head for a few tokens,
 * one token after the other, so that keys and values are loaded once for the whole group. Tiles
 * hold f32, or pairs of bf16 where the machine multiplies those. */
#include "kernels/cpu/cpu.h"

enum { ATTN_TILE = VEC_TILE };

int cpu_attn_check(kern_dev *d, const kern_attn *a);

/* How tiles lie in memory. Lengths in units of 4 bytes. */
typedef struct attn_form {
    const cpu_vec *v;
    kern_dtype t; /* of tile elements */
    int group;    /* elements in 4 bytes */
    int d, wide;  /* head dimension; rounded up to 16: columns of sums */
    int words;    /* of one row of a tile, rounded up to 16 */
    int heads;    /* query heads of a key head */
    int tokens;   /* tokens in a tile of rows */
} attn_form;

attn_form attn_form_of(const kern_dev *d, kern_dtype activations, int n_q, int n_kv, int dim);

/* Loads rows [r, r + n) of a tile from rows of d elements of dtype src, ld elements apart. */
void attn_put_rows(const attn_form *f, float *tile, int r, int n, kern_dtype src, const void *p,
                   int64_t ld);
/* Zeroes rows [r, ATTN_TILE). */
void attn_clear_rows(const attn_form *f, float *tile, int r);
/* C [m, n] = A B with A's row and step strides; add: += . */
void attn_mm(const attn_form *f, int m, int n, int steps, const float *a, int64_t ars, int64_t aks,
             const float *b, int64_t ldb, float *c, int64_t ldc, bool add);
/* The tile's rows as the second factor of a sum over rows: woven for pairs, else as they are. */
const float *attn_rows_as_b(const attn_form *f, const float *tile, float *woven);

/* ---- forward of one tile of rows ------------------------------------------------------------- */

/* Where keys and values come from: d elements of position pos and, ld elements apart, of the *n - 1
 * positions after it that lie the same way; which: 0 keys, 1 values. */
typedef struct attn_source {
    const void *(*at)(const void *arg, int64_t pos, int which, int64_t *ld, int64_t *n);
    const void *arg;
    kern_dtype t;
} attn_source;

/* A tile of keys as the products read it: keys transposed [words, ATTN_TILE], and values as the
 * second factor of a sum over keys. Floats of each, and of both. */
static inline int64_t attn_keys_size(const attn_form *f)
{
    return (int64_t)ATTN_TILE * f->words;
}

static inline int64_t attn_packed_size(const attn_form *f)
{
    return attn_keys_size(f) + (int64_t)ATTN_TILE * f->wide / f->group;
}

/* Packs the keys and values of positions [j0, j0 + n), and zeros to the end of the tile; stage:
 * [ATTN_TILE, words]. */
void attn_pack(const attn_form *f, const attn_source *kv, int64_t j0, int n, float *stage,
               float *packed);

/* Tokens [pos, pos + tokens) of one key head's group; q and out have one token in each row. */
typedef struct attn_block {
    attn_source kv;
    const float *packed; /* tiles from position 0 on; NULL: they are packed on the way */
    int64_t next;        /* floats from one to the next */
    kern_tensor q, out;  /* [tokens, heads * d] */
    kern_tensor lse;     /* F32 [tokens, heads]; data NULL: not wanted */
    int64_t pos;         /* position of the first token among the keys */
    int tokens;
    float scale;
    int64_t window;
} attn_block;

/* Bytes of one thread's memory for attn_forward. */
size_t attn_forward_bytes(const attn_form *f);
void attn_forward(const attn_form *f, const attn_block *b, void *mem);
