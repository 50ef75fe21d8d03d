/* The paged cache of keys and values, and attention over it. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

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
    if (kv->n_kv != a->n_kv || kv->d != a->d || a->n_q % a->n_kv != 0 || a->layer < 0 ||
        a->layer >= kv->n_layers || a->window < 0)
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

static const void *key_at(const kern_paged *a, int s, int64_t pos, int which, int head)
{
    int64_t bt = a->kv->block_tokens;
    int64_t slot = a->blocks[s * a->max_blocks + pos / bt] * bt + pos % bt;
    return cpu_kv_at(a->kv, a->layer, which, slot, head);
}

static void one_row(kern_dev *d, const kern_paged *a, int s, int64_t r, int h, float *mem)
{
    const cpu_vec *v = cpu_of(d)->vec;
    int64_t pos = a->kv_len[s] - (a->q_start[s + 1] - r);
    int64_t p0 = a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0, n = pos - p0 + 1;
    int kh = h / (a->n_q / a->n_kv);
    float *q = mem, *x = q + a->d, *o = x + a->d, *w = o + a->d;
    v->to_f32(a->q.dtype, cpu_at(&a->q, r, (int64_t)h * a->d), q, a->d);
    for (int64_t j = 0; j < n; j++) {
        v->to_f32(a->kv->dtype, key_at(a, s, p0 + j, 0, kh), x, a->d);
        w[j] = v->dot(q, x, a->d) * a->scale;
    }
    float sum = v->exp_sum(w, v->max(w, n), n);
    memset(o, 0, (size_t)a->d * 4);
    for (int64_t j = 0; j < n; j++) {
        v->to_f32(a->kv->dtype, key_at(a, s, p0 + j, 1, kh), x, a->d);
        v->axpy(w[j] / sum, x, o, a->d);
    }
    v->from_f32(a->out.dtype, o, cpu_at(&a->out, r, (int64_t)h * a->d), a->d);
}

int cpu_paged(kern_dev *d, const kern_paged *a)
{
    int rc = check(d, a);
    int64_t longest = 0;
    void *mem;
    if (rc != 0)
        return rc;
    for (int s = 0; s < a->n_seq; s++)
        longest = a->kv_len[s] > longest ? a->kv_len[s] : longest;
    int64_t need = longest + 3 * (int64_t)a->d + 16;
    rc = cpu_scratch(d, 0, (size_t)(d->threads * need) * 4, &mem);
    if (rc != 0)
        return rc;
    float *f = mem;
    for (int s = 0; s < a->n_seq; s++) {
#pragma omp parallel for num_threads(d->threads) schedule(static) collapse(2)
        for (int64_t r = a->q_start[s]; r < a->q_start[s + 1]; r++)
            for (int h = 0; h < a->n_q; h++)
                one_row(d, a, s, r, h, f + cpu_thread() * need);
    }
    return 0;
}
