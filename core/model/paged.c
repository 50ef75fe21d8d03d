/* The same forward over a paged cache: several sequences, each with some new tokens. */
#include "core/base/mem.h"
#include "core/model/layer.h"
#include "core/model/pad.h"

#include <stdlib.h>

struct model_kv {
    model *m;
    kern_kv *kv;
    int64_t n_blocks; /* a device that records has one more, for what pads a step */
    int block_tokens;
};

size_t model_kv_bytes(const model *m, int64_t n_blocks, int block_tokens)
{
    const arch_config *c = &m->cfg;
    size_t token = 2 * (size_t)c->n_layers * (size_t)c->n_kv * (size_t)c->head_dim *
                   kern_dtype_size(m->opt.dtype);
    return (size_t)n_blocks * (size_t)block_tokens * token;
}

int model_kv_open(model_kv **out, model *m, int64_t n_blocks, int block_tokens, hone_err *e)
{
    *out = NULL;
    if (n_blocks < 1 || block_tokens < 1 || n_blocks > INT32_MAX / block_tokens)
        return hone_fail(e, HONE_EINVAL, "a cache of %lld blocks of %d tokens", (long long)n_blocks,
                         block_tokens);
    model_kv *kv = mem_alloc(sizeof *kv);
    *kv = (model_kv){.m = m, .n_blocks = n_blocks, .block_tokens = block_tokens};
    kern_kv_new_args a = {
        .n_layers = (int)m->cfg.n_layers,
        .n_kv = m->cfg.n_kv,
        .d = m->cfg.head_dim,
        .block_tokens = block_tokens,
        .n_blocks = n_blocks + (m->dev->records ? 1 : 0),
        .dtype = m->opt.dtype,
        .out = &kv->kv,
    };
    int rc = kern_do(m->dev, kv_new, &a);
    if (rc != 0) {
        rc = hone_fail(e, rc, "a cache of %lld tokens needs %zu bytes: %s",
                       (long long)n_blocks * block_tokens,
                       model_kv_bytes(m, n_blocks, block_tokens), m->dev->err);
        free(kv);
        return rc;
    }
    m->kv_bytes += model_kv_bytes(m, n_blocks, block_tokens);
    *out = kv;
    return 0;
}

void model_kv_close(model_kv *kv)
{
    if (kv == NULL)
        return;
    record_drop(kv->m);
    kv->m->kv_bytes -= model_kv_bytes(kv->m, kv->n_blocks, kv->block_tokens);
    kern_do(kv->m->dev, kv_free, kv->kv);
    free(kv);
}

/* ---- what comes from outside ---- */

/* The rows of sequence q end its cache; slot [n] gets where each new token's key and value go. */
static int check_sequence(const model *m, const model_kv *kv, const model_step *s, int q,
                          int32_t *slot, hone_err *e)
{
    int64_t first = s->q_start[q], last = s->q_start[q + 1], len = s->kv_len[q];
    int64_t bt = kv->block_tokens, used = (len + bt - 1) / bt;
    if (first < 0 || last <= first || last > s->n || len < last - first)
        return hone_fail(e, HONE_EINVAL, "sequence %d: rows %lld to %lld of %lld, %lld in cache", q,
                         (long long)first, (long long)last, (long long)s->n, (long long)len);
    if (len > m->cfg.max_positions)
        return hone_fail(e, HONE_ELIMIT, "sequence %d has %lld tokens, the model takes %lld", q,
                         (long long)len, (long long)m->cfg.max_positions);
    if (used > s->max_blocks)
        return hone_fail(e, HONE_EINVAL, "sequence %d has %lld tokens in %lld blocks of %lld", q,
                         (long long)len, (long long)s->max_blocks, (long long)bt);
    const int32_t *blocks = s->blocks + q * s->max_blocks;
    for (int64_t i = 0; i < used; i++)
        if (blocks[i] < 0 || blocks[i] >= kv->n_blocks)
            return hone_fail(e, HONE_EINVAL, "sequence %d: block %d of %lld", q, blocks[i],
                             (long long)kv->n_blocks);
    for (int64_t r = first; r < last; r++) {
        int64_t at = len - (last - r);
        if (s->pos[r] != at)
            return hone_fail(e, HONE_EINVAL, "row %lld: position %d, the cache calls for %lld",
                             (long long)r, s->pos[r], (long long)at);
        slot[r] = (int32_t)(blocks[at / bt] * bt + at % bt);
    }
    return 0;
}

static int check_step(const model *m, const model_kv *kv, const model_step *s, int32_t *slot,
                      hone_err *e)
{
    if (s->n_seq < 1 || s->q_start[0] != 0 || s->q_start[s->n_seq] != s->n)
        return hone_fail(e, HONE_EINVAL, "%d sequences do not cover %lld rows", s->n_seq,
                         (long long)s->n);
    for (int64_t r = 0; r < s->n; r++)
        if (s->ids[r] < 0 || s->ids[r] >= m->cfg.vocab)
            return hone_fail(e, HONE_EINVAL, "row %lld: id %d is outside the vocabulary of %lld",
                             (long long)r, s->ids[r], (long long)m->cfg.vocab);
    for (int i = 0; i < s->n_out; i++)
        if (s->out_row[i] < 0 || s->out_row[i] >= s->n)
            return hone_fail(e, HONE_EINVAL, "logits of row %d of %lld", s->out_row[i],
                             (long long)s->n);
    int rc = 0;
    for (int q = 0; q < s->n_seq && rc == 0; q++)
        rc = check_sequence(m, kv, s, q, slot, e);
    return rc;
}

/* The list of rows comes last: its length is its own. */
static int send_step(model *m, const model_kv *kv, const model_step *s, const int32_t *slot,
                     pass *p, hone_err *e)
{
    size_t n = (size_t)s->n * sizeof(int32_t), q = (size_t)s->n_seq * sizeof(int32_t);
    acts_upload *u = &m->upload;
    *p = (pass){.n = s->n, .kv = kv->kv, .n_seq = s->n_seq, .max_blocks = s->max_blocks};
    size_t ids = upload_add(u, s->ids, n);
    size_t pos = upload_add(u, s->pos, n);
    size_t slots = upload_add(u, slot, n);
    size_t q_start = upload_add(u, s->q_start, q + sizeof(int32_t));
    size_t kv_len = upload_add(u, s->kv_len, q);
    size_t blocks = upload_add(u, s->blocks, q * (size_t)s->max_blocks);
    size_t out_row =
        upload_add(u, s->n_out > 0 ? s->out_row : NULL, (size_t)s->n_out * sizeof(int32_t));
    int rc = upload_send(u, m, e);
    p->ids = upload_at(u, ids);
    p->pos = upload_at(u, pos);
    p->slot = upload_at(u, slots);
    p->q_start = upload_at(u, q_start);
    p->kv_len = upload_at(u, kv_len);
    p->blocks = upload_at(u, blocks);
    p->out_row = upload_at(u, out_row);
    return rc;
}

/* One new token a sequence: the shape repeats, so the pass is recorded. */
static int decode(model *m, const model_kv *kv, const model_step *s, const int32_t *slot, pass *p,
                  hone_err *e)
{
    padded_step all;
    pad_step(&all, s, slot, (int32_t)kv->n_blocks, kv->block_tokens);
    record_key key = {.kind = RECORD_DECODE,
                      .n = all.s.n,
                      .n_seg = all.s.n_seq,
                      .max_blocks = all.s.max_blocks,
                      .kv = kv};
    int rc = model_ensure(m, all.s.n, e);
    if (rc == 0)
        rc = send_step(m, kv, &all.s, all.slot, p, e);
    pad_step_free(&all);
    return rc == 0 ? record_run(m, &key, pass_forward, p, e) : rc;
}

static int forward(model *m, const model_kv *kv, const model_step *s, const int32_t *slot, pass *p,
                   hone_err *e)
{
    if (m->dev->records && s->n == s->n_seq)
        return decode(m, kv, s, slot, p, e);
    int rc = model_ensure(m, s->n, e);
    if (rc == 0)
        rc = send_step(m, kv, s, slot, p, e);
    return rc == 0 ? pass_forward(m, p, e) : rc;
}

int model_forward(model *m, model_kv *kv, const model_step *s, kern_tensor *logits, hone_err *e)
{
    pass p = {0};
    int64_t top = 0;
    *logits = (kern_tensor){0};
    int32_t *slot = mem_array((size_t)(s->n > 0 ? s->n : 0), sizeof *slot);
    int rc = check_step(m, kv, s, slot, e);
    for (int q = 0; q < s->n_seq && rc == 0; q++)
        top = s->kv_len[q] > top ? s->kv_len[q] : top;
    if (rc == 0)
        rc = model_positions(m, top, e);
    if (rc == 0)
        rc = forward(m, kv, s, slot, &p, e);
    free(slot);
    if (rc != 0 || s->n_out == 0)
        return rc;
    return pass_logits(m, acts_rows(&m->acts.y, p.n), p.out_row, s->n_out, logits, e);
}
