/* Packed batches: scoring, and the backward pass. */
#include "core/base/mem.h"
#include "core/model/layer.h"
#include "core/model/pad.h"

#include <math.h>
#include <stdlib.h>

enum { LOGITS_CHUNK = 16 << 20 }; /* elements of full rows made at a time */

/* ---- what comes from outside ---- */

static int check_row(const model *m, const model_batch *b, int64_t i, hone_err *e)
{
    const arch_config *c = &m->cfg;
    if (b->ids[i] < 0 || b->ids[i] >= c->vocab)
        return hone_fail(e, HONE_EINVAL, "row %lld: id %d is outside the vocabulary of %lld",
                         (long long)i, b->ids[i], (long long)c->vocab);
    if (b->pos[i] < 0 || b->pos[i] >= c->max_positions)
        return hone_fail(e, HONE_ELIMIT, "row %lld: position %d, the model has %lld positions",
                         (long long)i, b->pos[i], (long long)c->max_positions);
    return 0;
}

static int check_targets(const model *m, const model_batch *b, hone_err *e)
{
    for (int64_t i = 0; i < b->n && b->target != NULL; i++)
        if (b->target[i] >= m->cfg.vocab)
            return hone_fail(e, HONE_EINVAL,
                             "row %lld: target %d is outside the vocabulary of %lld", (long long)i,
                             b->target[i], (long long)m->cfg.vocab);
    return 0;
}

/* Segments must cover the rows in order and fit the model. */
static int check_segments(const model *m, const model_batch *b, int64_t *max_len, hone_err *e)
{
    *max_len = 0;
    if (b->n < 1 || b->n_seg < 1 || b->cu[0] != 0 || b->cu[b->n_seg] != b->n)
        return hone_fail(e, HONE_EINVAL, "%d segments do not cover %lld rows", b->n_seg,
                         (long long)b->n);
    for (int s = 0; s < b->n_seg; s++) {
        int64_t len = (int64_t)b->cu[s + 1] - b->cu[s];
        if (len < 1)
            return hone_fail(e, HONE_EINVAL, "segment %d has %lld rows", s, (long long)len);
        if (len > m->cfg.max_positions)
            return hone_fail(e, HONE_ELIMIT, "segment %d has %lld tokens, the model takes %lld", s,
                             (long long)len, (long long)m->cfg.max_positions);
        *max_len = len > *max_len ? len : *max_len;
    }
    return 0;
}

/* The rows that have a target, for the caller to free; NULL for a batch without targets. */
static int32_t *supervised(const model_batch *b, int64_t *n_rows)
{
    *n_rows = 0;
    if (b->target == NULL)
        return NULL;
    int32_t *row = mem_array((size_t)b->n, sizeof *row);
    for (int64_t i = 0; i < b->n; i++)
        if (b->target[i] >= 0)
            row[(*n_rows)++] = (int32_t)i;
    return row;
}

/* Checks the batch and makes room; max_len: of the longest segment. */
static int admit(model *m, const model_batch *b, int64_t *max_len, hone_err *e)
{
    int64_t top = 0;
    int rc = check_segments(m, b, max_len, e);
    for (int64_t i = 0; i < b->n && rc == 0; i++) {
        rc = check_row(m, b, i, e);
        top = b->pos[i] > top ? b->pos[i] : top;
    }
    if (rc == 0)
        rc = check_targets(m, b, e);
    if (rc == 0)
        rc = model_ensure(m, b->n, e);
    return rc == 0 ? model_positions(m, top + 1, e) : rc;
}

/* Sends the arrays. The list of rows comes last: its length is its own, and where the others stand
 * must depend on n and n_seg alone. */
static int send_batch(model *m, const model_batch *b, pass *p, hone_err *e)
{
    size_t n = (size_t)b->n;
    const uint64_t rng[2] = {b->seed, b->offset};
    acts_upload *u = &m->upload;
    int32_t *listed = supervised(b, &p->n_rows);
    size_t ids = upload_add(u, b->ids, n * sizeof *b->ids);
    size_t pos = upload_add(u, b->pos, n * sizeof *b->pos);
    size_t target = upload_add(u, b->target, n * sizeof *b->target);
    size_t coef = upload_add(u, b->coef, n * sizeof *b->coef);
    size_t cu = upload_add(u, b->cu, ((size_t)b->n_seg + 1) * sizeof *b->cu);
    size_t key = upload_add(u, rng, sizeof rng);
    size_t row = upload_add(u, listed, (size_t)p->n_rows * sizeof *listed);
    int rc = upload_send(u, m, e);
    free(listed);
    p->ids = upload_at(u, ids);
    p->pos = upload_at(u, pos);
    p->target = upload_at(u, target);
    p->coef = upload_at(u, coef);
    p->cu = upload_at(u, cu);
    p->rng = upload_at(u, key);
    p->row = upload_at(u, row);
    return rc;
}

static int begin(model *m, const model_batch *b, pass *p, hone_err *e)
{
    *p = (pass){.n = b->n, .n_seg = b->n_seg, .training = b->training};
    int rc = admit(m, b, &p->max_len, e);
    return rc == 0 ? send_batch(m, b, p, e) : rc;
}

/* Rows to pad n up to: an eighth of the plan is the step, so that short batches cost little more
 * than they must and there are at most eight shapes. */
static int64_t padded_rows(int64_t n, int64_t n_max)
{
    int64_t step = (n_max + 7) / 8;
    int64_t rows = (n + step - 1) / step * step;
    return rows < n_max ? rows : n_max;
}

static int begin_padded(model *m, const model_batch *b, pass *p, hone_err *e)
{
    padded all;
    if (!m->dev->records || !m->acts.fixed)
        return begin(m, b, p, e);
    int64_t max_len;
    int rc = admit(m, b, &max_len, e);
    if (rc != 0)
        return rc;
    pad_make(&all, b, padded_rows(b->n, m->acts.n_max));
    *p = (pass){.n = all.b.n, .n_seg = all.b.n_seg, .training = b->training, .max_len = all.b.n};
    rc = send_batch(m, &all.b, p, e);
    pad_free(&all);
    return rc;
}

/* ---- forward ---- */

static int final_norm(model *m, const pass *p, kern_tensor x, hone_err *e)
{
    acts *a = &m->acts;
    kern_norm k = {
        .x = x,
        .add = acts_rows(&a->mix, p->n),
        .weight = m->final_norm->value,
        .eps = m->cfg.norm_eps,
        .res = acts_rows(&a->res, p->n),
        .y = acts_rows(&a->y, p->n),
        .rstd = acts_rows(&a->rstd, p->n),
    };
    return model_failed(m, kern_do(m->dev, norm, &k), m->final_norm->name, e);
}

int pass_forward(model *m, const pass *p, hone_err *e)
{
    layer_acts a = acts_layer(m, 0, p->n, p->keep);
    kern_embed embed = {.table = m->embed->value, .ids = p->ids, .n = p->n, .x = a.res1};
    int rc = model_failed(m, kern_do(m->dev, embed, &embed), m->embed->name, e);
    kern_tensor x = a.res1, add = {0};
    for (int64_t l = 0; l < m->cfg.n_layers && rc == 0; l++) {
        rc = layer_forward(m, l, p, x, add, e);
        if (rc != 0)
            hone_fail_at(e, "layer %lld", (long long)l);
        x = acts_layer(m, l, p->n, p->keep).res2;
        add = acts_rows(&m->acts.mix, p->n);
    }
    return rc == 0 ? final_norm(m, p, x, e) : rc;
}

/* ---- loss ---- */

static int run_head(model *m, const pass *p, kern_tensor dx, hone_err *e)
{
    if (p->target == NULL)
        return hone_fail(e, HONE_EINVAL, "a batch to score has no targets");
    kern_head k = {
        .w = m->head.w,
        .x = acts_rows(&m->acts.y, p->n),
        .n_rows = p->n_rows,
        .row = p->row,
        .target = p->target,
        .coef = p->coef,
        .logp = m->acts.logp.data,
        .dx = dx,
    };
    int64_t trained = m->head.matrix[0]->param;
    if (dx.data != NULL && trained >= 0)
        k.dw = param_grad(&m->params, (size_t)trained);
    return model_failed(m, kern_do(m->dev, head, &k), "output head", e);
}

static int read_logp(model *m, int64_t n, float *logp, hone_err *e)
{
    if (logp == NULL)
        return 0;
    return model_failed(m, kern_do(m->dev, read, logp, m->acts.logp.data, (size_t)n * sizeof *logp),
                        "log-probabilities", e);
}

int model_logp(model *m, const kern_tensor *dst, hone_err *e)
{
    kern_tensor src = acts_rows(&m->acts.logp, dst->rows);
    return model_failed(m, kern_do(m->dev, copy, &src, dst), "log-probabilities", e);
}

int model_score(model *m, const model_batch *b, float *logp, hone_err *e)
{
    pass p;
    int rc = begin(m, b, &p, e);
    if (rc == 0)
        rc = pass_forward(m, &p, e);
    if (rc == 0)
        rc = run_head(m, &p, (kern_tensor){0}, e);
    return rc == 0 ? read_logp(m, b->n, logp, e) : rc;
}

/* ---- backward ---- */

static int final_norm_grad(model *m, const pass *p, hone_err *e)
{
    acts *a = &m->acts;
    int64_t trained = m->final_norm->param;
    kern_norm_grad k = {
        .dy = acts_rows(&a->dn, p->n),
        .res = acts_rows(&a->res, p->n),
        .weight = m->final_norm->value,
        .rstd = acts_rows(&a->rstd, p->n),
        .dx = acts_rows(&a->d, p->n),
    };
    if (trained >= 0)
        k.dweight = param_grad(&m->params, (size_t)trained);
    return model_failed(m, kern_do(m->dev, norm_grad, &k), m->final_norm->name, e);
}

static int embed_grad(model *m, const pass *p, hone_err *e)
{
    if (m->embed->param < 0)
        return 0;
    kern_embed_grad k = {
        .ids = p->ids,
        .n = p->n,
        .dx = acts_rows(&m->acts.d, p->n),
        .dtable = param_grad(&m->params, (size_t)m->embed->param),
    };
    return model_failed(m, kern_do(m->dev, embed_grad, &k), m->embed->name, e);
}

/* From the gradient that the head has left in acts.dn. */
static int backward(model *m, const pass *p, hone_err *e)
{
    int rc = final_norm_grad(m, p, e);
    for (int64_t l = m->cfg.n_layers - 1; l >= 0 && rc == 0; l--) {
        if (l * N_GROUPS + N_GROUPS - 1 < p->floor)
            return 0;
        rc = layer_backward(m, l, p, e);
        if (rc != 0)
            hone_fail_at(e, "layer %lld, backward", (long long)l);
    }
    return rc == 0 ? embed_grad(m, p, e) : rc;
}

static record_key key_of(record_kind kind, const pass *p)
{
    return (record_key){
        .kind = kind, .training = p->training, .n = p->n, .n_seg = p->n_seg, .floor = p->floor};
}

/* The head stands between two records: how many rows it has differs from batch to batch. */
static int run_forward(model *m, const pass *p, hone_err *e)
{
    record_key key = key_of(RECORD_FORWARD, p);
    return record_run(m, &key, pass_forward, p, e);
}

static int run_backward(model *m, const pass *p, hone_err *e)
{
    record_key key = key_of(RECORD_BACKWARD, p);
    return record_run(m, &key, backward, p, e);
}

int model_backward(model *m, const model_batch *b, float *logp, hone_err *e)
{
    pass p;
    int64_t floor = layer_floor(m);
    if (!m->opt.backward)
        return hone_fail(e, HONE_EINVAL, "the model was opened without its backward pass");
    if (floor == INT64_MAX)
        return hone_fail(e, HONE_EINVAL, "the model has nothing to train");
    model_batch with = *b;
    float *ones = NULL;
    if (b->coef == NULL && b->n > 0) {
        with.coef = ones = mem_array((size_t)b->n, sizeof *ones);
        for (int64_t i = 0; i < b->n; i++)
            ones[i] = 1;
    }
    int rc = begin_padded(m, &with, &p, e);
    p.keep = true;
    p.floor = floor;
    if (rc == 0)
        rc = run_forward(m, &p, e);
    if (rc == 0)
        rc = run_head(m, &p, acts_rows(&m->acts.dn, p.n), e);
    if (rc == 0)
        rc = run_backward(m, &p, e);
    free(ones);
    return rc == 0 ? read_logp(m, b->n, logp, e) : rc;
}

/* ---- whole rows ---- */

int pass_logits(model *m, kern_tensor x, const int32_t *row, int64_t n_rows, kern_tensor *logits,
                hone_err *e)
{
    int rc = 0;
    if (n_rows > m->logits.rows) {
        void *p = NULL;
        kern_do(m->dev, release, m->logits.data);
        m->logits = (kern_tensor){0};
        size_t bytes = (size_t)n_rows * (size_t)m->cfg.vocab * sizeof(float);
        rc = model_failed(m, kern_do(m->dev, alloc, bytes, &p), "logits", e);
        if (rc != 0)
            return rc;
        m->logits = kern_mat(KERN_F32, n_rows, m->cfg.vocab, p);
    }
    *logits = kern_rows(&m->logits, 0, n_rows);
    kern_logits k = {.w = m->head.w, .x = x, .row = row, .n_rows = n_rows, .logits = *logits};
    return model_failed(m, kern_do(m->dev, logits, &k), "output head", e);
}

static void log_softmax(float *row, int64_t n)
{
    float top = row[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        top = row[i] > top ? row[i] : top;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)(row[i] - top));
    float shift = top + (float)log(sum);
    for (int64_t i = 0; i < n; i++)
        row[i] -= shift;
}

static int give_rows(model *m, int64_t first, int64_t n, float *host, model_row_fn *fn, void *user,
                     hone_err *e)
{
    kern_tensor logits;
    kern_tensor x = kern_rows(&m->acts.y, first, n);
    int64_t vocab = m->cfg.vocab;
    int rc = pass_logits(m, x, NULL, n, &logits, e);
    if (rc == 0)
        rc = model_failed(
            m, kern_do(m->dev, read, host, logits.data, (size_t)n * (size_t)vocab * sizeof *host),
            "logits", e);
    for (int64_t i = 0; i < n && rc == 0; i++) {
        log_softmax(host + i * vocab, vocab);
        rc = fn(user, first + i, host + i * vocab, vocab, e);
    }
    return rc;
}

int model_logprobs(model *m, const model_batch *b, model_row_fn *fn, void *user, hone_err *e)
{
    pass p;
    int64_t chunk = LOGITS_CHUNK / m->cfg.vocab;
    chunk = chunk < 1 ? 1 : chunk > b->n ? b->n : chunk;
    int rc = begin(m, b, &p, e);
    if (rc == 0)
        rc = pass_forward(m, &p, e);
    if (rc != 0)
        return rc;
    float *host = mem_array((size_t)(chunk * m->cfg.vocab), sizeof *host);
    for (int64_t at = 0; at < b->n && rc == 0; at += chunk)
        rc = give_rows(m, at, b->n - at < chunk ? b->n - at : chunk, host, fn, user, e);
    free(host);
    return rc;
}
