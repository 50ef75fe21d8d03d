/* Tiles: how they lie, how they are filled, and their products. */
#include <string.h>

#include "kernels/cpu/attn.h"

attn_form attn_form_of(const kern_dev *d, kern_dtype activations, int n_q, int n_kv, int dim)
{
    const cpu_vec *v = ((const cpu_dev *)d)->vec;
    bool pairs = activations == KERN_BF16 && v->mm_pairs != NULL && dim % 2 == 0;
    attn_form f = {.v = v, .t = pairs ? KERN_BF16 : KERN_F32, .group = pairs ? 2 : 1, .d = dim};
    f.wide = (dim + 15) / 16 * 16;
    f.words = (dim / f.group + 15) / 16 * 16;
    f.heads = n_q / n_kv;
    f.tokens = f.heads >= ATTN_TILE ? 1 : ATTN_TILE / f.heads;
    return f;
}

void attn_put_rows(const attn_form *f, float *tile, int r, int n, kern_dtype src, const void *p,
                   int64_t ld)
{
    f->v->tile_rows(src, p, ld, n, f->d, f->t, tile + (int64_t)r * f->words, f->words);
}

void attn_clear_rows(const attn_form *f, float *tile, int r)
{
    memset(tile + (int64_t)r * f->words, 0, (size_t)(ATTN_TILE - r) * (size_t)f->words * 4);
}

void attn_mm(const attn_form *f, int m, int n, int steps, const float *a, int64_t ars, int64_t aks,
             const float *b, int64_t ldb, float *c, int64_t ldc, bool add)
{
    vec_mm g = {.m = m,
                .n = n,
                .steps = steps,
                .a = a,
                .ars = ars,
                .aks = aks,
                .b = b,
                .ldb = ldb,
                .c = c,
                .ldc = ldc,
                .alpha = 1.0F,
                .add = add};
    f->t == KERN_BF16 ? f->v->mm_pairs(&g) : f->v->mm(&g);
}

const float *attn_rows_as_b(const attn_form *f, const float *tile, float *woven)
{
    if (f->t == KERN_F32)
        return tile;
    f->v->weave((const uint16_t *)(const void *)tile, 2 * (int64_t)f->words, ATTN_TILE, f->wide,
                (uint16_t *)(void *)woven, 2 * (int64_t)f->wide);
    return woven;
}

static void load_tile(const attn_form *f, const attn_source *kv, int which, int64_t j0, int n,
                      float *tile)
{
    for (int64_t j = 0, run, ld; j < n; j += run) {
        const void *p = kv->at(kv->arg, j0 + j, which, &ld, &run);
        run = run < n - j ? run : n - j;
        attn_put_rows(f, tile, (int)j, (int)run, kv->t, p, ld);
    }
    attn_clear_rows(f, tile, n);
}

void attn_pack(const attn_form *f, const attn_source *kv, int64_t j0, int n, float *stage,
               float *packed)
{
    float *values = packed + attn_keys_size(f);
    load_tile(f, kv, 0, j0, n, stage);
    f->v->transpose(stage, f->words, ATTN_TILE, f->words, packed, ATTN_TILE);
    load_tile(f, kv, 1, j0, n, f->group == 1 ? values : stage);
    if (f->group != 1)
        (void)attn_rows_as_b(f, stage, values);
}
