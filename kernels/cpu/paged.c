/* The paged cache of keys and values, and attention over it. */
#include <limits.h>
#include <stdlib.h>

#include "kernels/cpu/attn.h"

int cpu_kv_new(kern_dev *d, const kern_kv_new_args *a)
{
    *a->out = NULL;
    if (a->dtype != KERN_F32 && a->dtype != KERN_BF16)
        return cpu_fail(d, KERN_EUNSUPPORTED, "kv_new: a cache of %s", kern_dtype_name(a->dtype));
    if (a->n_layers < 1 || a->n_kv < 1 || a->d < 1 || a->block_tokens < 1 || a->n_blocks < 1 ||
        a->n_blocks > INT_MAX / a->block_tokens)
        return cpu_fail(d, KERN_EINVAL, "kv_new: %d layers, %d heads of %d, %lld blocks of %d",
                        a->n_layers, a->n_kv, a->d, (long long)a->n_blocks, a->block_tokens);
    kern_kv *kv = calloc(1, sizeof *kv);
    if (kv == NULL)
        return cpu_fail(d, KERN_ENOMEM, "kv_new: no memory for %zu bytes", sizeof *kv);
    *kv = (kern_kv){a->n_layers, a->n_kv, a->d, a->block_tokens, a->n_blocks, a->dtype, NULL};
    size_t bytes = (size_t)a->n_layers * 2 * (size_t)a->n_blocks * (size_t)a->block_tokens *
                   (size_t)a->n_kv * (size_t)a->d * kern_dtype_size(a->dtype);
    void *p;
    int rc = cpu_take(d, "kv_new", bytes, &p);
    if (rc != 0) {
        free(kv);
        return rc;
    }
    kv->data = p;
    *a->out = kv;
    return 0;
}

int cpu_kv_free(kern_dev *d, kern_kv *kv)
{
    if (kv != NULL)
        cpu_give(d, kv->data);
    free(kv);
    return 0;
}

void *cpu_kv_at(const kern_kv *kv, int layer, int which, int64_t slot, int head)
{
    int64_t block = slot / kv->block_tokens, tok = slot % kv->block_tokens;
    int64_t i = (((int64_t)layer * 2 + which) * kv->n_blocks + block) * kv->n_kv + head;
    i = (i * kv->block_tokens + tok) * kv->d;
    return kv->data + (size_t)i * kern_dtype_size(kv->dtype);
}

static int check_seq(kern_dev *d, const kern_paged *a, int s)
{
    int64_t rows = (int64_t)a->q_start[s + 1] - a->q_start[s], len = a->kv_len[s];
    int64_t need = (len + a->kv->block_tokens - 1) / a->kv->block_tokens;
    if (rows < 0 || len < rows || need > a->max_blocks)
        return cpu_fail(d, KERN_EINVAL,
                        "paged: sequence %d has %lld rows and %lld tokens in at most %lld blocks",
                        s, (long long)rows, (long long)len, (long long)a->max_blocks);
    for (int64_t b = 0; b < need; b++) {
        int32_t block = a->blocks[s * a->max_blocks + b];
        if (block < 0 || block >= a->kv->n_blocks)
            return cpu_fail(d, KERN_EINVAL, "paged: block %d of sequence %d, the cache has %lld",
                            block, s, (long long)a->kv->n_blocks);
    }
    return 0;
}

static int check(kern_dev *d, const kern_paged *a)
{
    const kern_kv *kv = a->kv;
    int64_t n = a->q.rows;
    int rc = cpu_activation(d, "paged: q", &a->q);
    if (rc == 0)
        rc = cpu_shape(d, "paged: q", &a->q, n, (int64_t)a->n_q * a->d);
    if (rc == 0)
        rc = cpu_shape_of(d, "paged: out", &a->out, a->q.dtype, n, a->q.cols);
    if (rc != 0)
        return rc;
    if (kv->n_kv != a->n_kv || kv->d != a->d || a->n_q % a->n_kv != 0 ||
        a->n_q / a->n_kv > ATTN_TILE || a->layer < 0 || a->layer >= kv->n_layers || a->window < 0)
        return cpu_fail(d, KERN_EINVAL,
                        "paged: %d query heads on a cache of %d heads of %d, layer %d of %d",
                        a->n_q, kv->n_kv, kv->d, a->layer, kv->n_layers);
    if (a->n_seq < 0 || a->q_start[0] != 0 || a->q_start[a->n_seq] != n)
        return cpu_fail(d, KERN_EINVAL, "paged: sequences cover rows %d to %d of %lld",
                        a->q_start[0], a->q_start[a->n_seq], (long long)n);
    for (int s = 0; s < a->n_seq && rc == 0; s++)
        rc = check_seq(d, a, s);
    return rc;
}

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct pages {
    const kern_paged *a;
    const int32_t *blocks; /* of one sequence */
    int head;
} pages;

static const void *page_at(const void *arg, int64_t pos, int which, int64_t *ld, int64_t *n)
{
    const pages *p = arg;
    const kern_kv *kv = p->a->kv;
    int64_t bt = kv->block_tokens;
    *ld = kv->d;
    *n = bt - pos % bt;
    return cpu_kv_at(kv, p->a->layer, which, p->blocks[pos / bt] * bt + pos % bt, p->head);
}

/* Rows [r0, r0 + tokens) of the batch, which belong to sequence s; key head kh. */
static void run_block(const attn_form *f, const kern_paged *a, int s, int64_t r0, int kh, void *mem)
{
    int64_t end = a->q_start[s + 1], width = (int64_t)f->heads * a->d;
    int tokens = end - r0 < f->tokens ? (int)(end - r0) : f->tokens;
    pages p = {a, a->blocks + s * a->max_blocks, kh};
    kern_tensor q = kern_cols(&a->q, kh * width, width),
                out = kern_cols(&a->out, kh * width, width);
    attn_block b = {.kv = {page_at, &p, a->kv->dtype},
                    .q = kern_rows(&q, r0, tokens),
                    .out = kern_rows(&out, r0, tokens),
                    .pos = a->kv_len[s] - (end - r0),
                    .tokens = tokens,
                    .scale = a->scale,
                    .window = a->window};
    attn_forward(f, &b, mem);
}

typedef struct job {
    const kern_paged *a;
    attn_form f;
    int64_t blocks; /* of the sequence with most rows: all get as many */
    char *mem;
    size_t each;
} job;

static void run_unit(void *arg, int64_t u, int thread)
{
    const job *j = arg;
    const kern_paged *a = j->a;
    int64_t block = j->blocks - 1 - u / ((int64_t)a->n_seq * a->n_kv);
    int s = (int)(u / a->n_kv % a->n_seq);
    int64_t r0 = a->q_start[s] + block * j->f.tokens;
    if (r0 < a->q_start[s + 1])
        run_block(&j->f, a, s, r0, (int)(u % a->n_kv), j->mem + (size_t)thread * j->each);
}

int cpu_paged(kern_dev *d, const kern_paged *a)
{
    int rc = check(d, a);
    if (rc != 0 || a->q.rows == 0)
        return rc;
    job j = {.a = a, .f = attn_form_of(d, a->q.dtype, a->n_q, a->n_kv, a->d)};
    void *mem;
    rc = cpu_thread_mem(d, attn_forward_bytes(&j.f), &mem, &j.each);
    if (rc != 0)
        return rc;
    j.mem = mem;
    int64_t longest = 0, work = 0;
    for (int s = 0; s < a->n_seq; s++) {
        int64_t rows = a->q_start[s + 1] - a->q_start[s];
        longest = rows > longest ? rows : longest;
        work += rows * a->kv_len[s] * a->n_q;
    }
    j.blocks = (longest + j.f.tokens - 1) / j.f.tokens;
    cpu_run(d, work * a->d / 8, j.blocks * a->n_seq * a->n_kv, run_unit, &j);
    return 0;
}
