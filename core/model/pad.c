#include "core/model/pad.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { SEGMENT = 64, LEAST_SEGMENTS = 16 };

static int segments_of(const model_batch *b, int64_t n)
{
    int64_t n_seg = b->n_seg + (n - b->n + SEGMENT - 1) / SEGMENT, all = LEAST_SEGMENTS;
    while (all < n_seg)
        all *= 2;
    return (int)all;
}

/* The first have[n] of each array, then `fill`. NULL stays NULL. */
static int32_t *extend(char **at, const int32_t *from, int64_t have, int64_t n, int32_t fill)
{
    if (from == NULL)
        return NULL;
    int32_t *to = (int32_t *)(void *)*at;
    *at += (size_t)n * sizeof *to;
    memcpy(to, from, (size_t)have * sizeof *to);
    for (int64_t i = have; i < n; i++)
        to[i] = fill;
    return to;
}

static int32_t *extend_segments(char **at, const model_batch *b, int64_t n, int n_seg)
{
    int32_t *cu = (int32_t *)(void *)*at;
    *at += ((size_t)n_seg + 1) * sizeof *cu;
    memcpy(cu, b->cu, ((size_t)b->n_seg + 1) * sizeof *cu);
    for (int s = b->n_seg + 1; s <= n_seg; s++)
        cu[s] = (int32_t)(cu[s - 1] + SEGMENT < n ? cu[s - 1] + SEGMENT : n);
    return cu;
}

void pad_make(padded *out, const model_batch *b, int64_t n)
{
    int n_seg = segments_of(b, n);
    char *at = out->block = mem_alloc(((size_t)n * 4 + (size_t)n_seg + 1) * sizeof(int32_t));
    out->b = *b;
    out->b.n = n;
    out->b.n_seg = n_seg;
    out->b.ids = extend(&at, b->ids, b->n, n, 0);
    out->b.pos = extend(&at, b->pos, b->n, n, 0);
    out->b.target = extend(&at, b->target, b->n, n, -1);
    out->b.cu = extend_segments(&at, b, n, n_seg);
    if (b->coef == NULL)
        return;
    float *coef = (float *)(void *)at;
    memcpy(coef, b->coef, (size_t)b->n * sizeof *coef);
    memset(coef + b->n, 0, (size_t)(n - b->n) * sizeof *coef);
    out->b.coef = coef;
}

void pad_free(padded *p)
{
    free(p->block);
}

/* ---- decode steps ---- */

enum { BY_16_FROM = 16 };

static int64_t power_of_two(int64_t n)
{
    int64_t p = 1;
    while (p < n)
        p *= 2;
    return p;
}

static int64_t step_rows(int64_t n)
{
    return n <= BY_16_FROM ? power_of_two(n) : (n + 15) / 16 * 16;
}

void pad_step(padded_step *out, const model_step *s, const int32_t *slot, int32_t spare,
              int block_tokens)
{
    int64_t have = s->n, n = step_rows(have), width = power_of_two(s->max_blocks);
    size_t all = (size_t)(5 * n + 1 + n * width);
    char *at = out->block = mem_alloc(all * sizeof(int32_t));
    out->s = *s;
    out->s.n = n;
    out->s.n_seq = (int)n;
    out->s.max_blocks = width;
    out->s.ids = extend(&at, s->ids, have, n, 0);
    out->s.pos = extend(&at, s->pos, have, n, 0);
    out->s.kv_len = extend(&at, s->kv_len, have, n, 1);
    out->slot = extend(&at, slot, have, n, 0);
    for (int64_t i = have; i < n; i++)
        out->slot[i] = (int32_t)((int64_t)spare * block_tokens + (i - have) % block_tokens);
    int32_t *start = (int32_t *)(void *)at, *blocks = start + n + 1;
    for (int64_t i = 0; i <= n; i++)
        start[i] = (int32_t)i;
    for (int64_t i = 0; i < n * width; i++)
        blocks[i] = spare;
    for (int64_t q = 0; q < have; q++)
        memcpy(blocks + q * width, s->blocks + q * s->max_blocks,
               (size_t)s->max_blocks * sizeof *blocks);
    out->s.q_start = start;
    out->s.blocks = blocks;
}

void pad_step_free(padded_step *p)
{
    free(p->block);
}
