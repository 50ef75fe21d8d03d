/* One step: gradients of its micro-batches, the guard against numbers that are not finite,
 * clipping, update. It is queued as a whole and its results are read later, so that a card always
 * has work; the guard therefore stands on the device, and the host tells of it. */
#include "core/train/run.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where the results of step k (from 1) are waited for. */
static train_queued *queued_of(train_run *r, int64_t k)
{
    return &r->queued[k % 2];
}

/* The micro-batches of the next step. */
static train_queued *next_window(train_run *r)
{
    train_queued *q = queued_of(r, r->at.step + 1);
    q->first = (size_t)r->at.batch;
    q->n = r->plan.n_batches - q->first;
    if (q->n > (size_t)r->c->accumulation)
        q->n = (size_t)r->c->accumulation;
    q->tokens = q->targets = 0;
    q->n_seg = 0;
    for (size_t i = 0; i < q->n; i++)
        q->targets += pack_targets(r->t->train->d, &r->plan, q->first + i);
    return q;
}

/* Remembers the segments of micro-batch i. */
static void note_segments(train_run *r, train_queued *q, size_t i)
{
    const micro_batch *b = &r->batch;
    q->seg = mem_grow(q->seg, &q->cap_seg, q->n_seg + (size_t)b->n_seg, sizeof *q->seg);
    for (int s = 0; s < b->n_seg; s++)
        q->seg[q->n_seg++] = (train_seg){.at = (int64_t)i * r->len.max_tokens + b->cu[s],
                                         .n = b->cu[s + 1] - b->cu[s],
                                         .weight = r->weight[s]};
}

/* Gradients of r->batch, whose examples weigh r->weight; `offset`: tokens of the run before it. */
static int add_gradients(train_run *r, const train_queued *q, int64_t offset, hone_err *e)
{
    const micro_batch *b = &r->batch;
    for (int s = 0; s < b->n_seg; s++)
        for (int32_t k = b->cu[s]; k < b->cu[s + 1]; k++)
            r->coef[k] = (float)((double)r->weight[s] / (double)q->targets);
    model_batch m = {.n = b->n,
                     .ids = b->ids,
                     .pos = b->pos,
                     .target = b->target,
                     .coef = r->coef,
                     .cu = b->cu,
                     .n_seg = b->n_seg,
                     .training = true,
                     .seed = (uint64_t)r->c->seed,
                     .offset = (uint64_t)offset};
    return model_backward(r->t->model, &m, NULL, e);
}

/* Nothing waits here: a card works on this one while the next is made ready. */
static int run_batch(train_run *r, train_queued *q, size_t i, hone_err *e)
{
    pack_fill(&r->batch, r->t->train->d, &r->plan, q->first + i);
    kern_tensor losses = kern_rows(&r->losses, (int64_t)i * r->len.max_tokens, r->batch.n);
    int rc = train_hook_batch(r, e);
    if (rc == 0)
        rc = add_gradients(r, q, r->at.tokens + q->tokens, e);
    if (rc == 0)
        rc = model_logp(r->t->model, &losses, e);
    if (rc != 0)
        return rc;
    note_segments(r, q, i);
    q->tokens += r->batch.n;
    return 0;
}

/* ---- not finite ---- */

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* The step's rows, a JSON object a line; the ones whose loss is not finite have null. */
static int write_rows(const train_run *r, const train_queued *q, const char *path, hone_err *e)
{
    const dataset *d = r->t->train->d;
    buf text;
    size_t seg = 0;
    buf_init(&text, (size_t)256 << 20);
    for (size_t b = 0; b < q->n; b++) {
        for (uint32_t i = r->plan.start[q->first + b]; i < r->plan.start[q->first + b + 1]; i++) {
            const data_sample *s = &d->samples[r->plan.order[i]];
            const data_row *row = &d->rows[s->row];
            json_t *o =
                json_pack("{s:I, s:I, s:s, s:I, s:I, s:I, s:o}", "step", (json_int_t)r->s.step + 1,
                          "micro_batch", (json_int_t)b, "file", d->sources[row->source].path,
                          "line", (json_int_t)row->line, "tokens", (json_int_t)s->n, "supervised",
                          (json_int_t)s->n_targets, "loss", real(q->seg[seg++].loss));
            char *line = js_text(o, false);
            buf_str(&text, line);
            buf_char(&text, '\n');
            free(line);
            json_decref(o);
        }
    }
    int rc = buf_check(&text, path, e);
    if (rc == 0)
        rc = file_write(path, text.data, text.len, e);
    buf_free(&text);
    return rc;
}

/* The first row whose loss is not finite, else the first of the step: "train.jsonl:12". */
static void name_row(const train_run *r, const train_queued *q, char *dst, size_t cap)
{
    const dataset *d = r->t->train->d;
    uint32_t from = r->plan.start[q->first];
    size_t bad = 0;
    while (bad < q->n_seg && isfinite(q->seg[bad].loss))
        bad++;
    const data_sample *s = &d->samples[r->plan.order[from + (bad < q->n_seg ? bad : 0)]];
    const data_row *row = &d->rows[s->row];
    snprintf(dst, cap, "%.200s:%lld", d->sources[row->source].path, (long long)row->line);
}

/* The gradients of the step once more, bit for bit: the step that was queued after it has written
 * over them. */
static int gradients_again(train_run *r, const train_queued *q, hone_err *e)
{
    int64_t offset = r->s.tokens;
    size_t seg = 0;
    int rc = param_zero_grad(r->t->params, e);
    for (size_t i = 0; rc == 0 && i < q->n; i++) {
        pack_fill(&r->batch, r->t->train->d, &r->plan, q->first + i);
        size_t n_seg = (size_t)r->batch.n_seg;
        r->weight = mem_grow(r->weight, &r->cap_weight, n_seg, sizeof *r->weight);
        for (size_t k = 0; k < n_seg; k++)
            r->weight[k] = q->seg[seg++].weight;
        rc = add_gradients(r, q, offset, e);
        offset += r->batch.n;
    }
    return rc;
}

static int not_finite(train_run *r, const train_queued *q, double loss, hone_err *e)
{
    const char *name = NULL;
    char row[256];
    char *path = path_join(r->c->output_dir, "nan_batch.jsonl");
    name_row(r, q, row, sizeof row);
    int rc = r->at.step > r->s.step + 1 ? gradients_again(r, q, e) : 0;
    if (rc == 0)
        rc = optim_not_finite(r->opt, &name, e);
    if (rc == 0)
        rc = write_rows(r, q, path, e);
    if (rc == 0)
        rc = hone_fail(e, HONE_ENUMERIC,
                       "step %lld: the %s of %s is not a finite number; the %zu rows of the step "
                       "are in %s, the weights are still those of step %lld",
                       (long long)r->s.step + 1, isfinite(loss) ? "gradient" : "loss",
                       isfinite(loss) && name != NULL ? name : row, q->n_seg, path,
                       (long long)r->s.step);
    free(path);
    return rc;
}

/* ---- the step ---- */

/* Norm, guard, clipping, update: all by the device itself. */
static int update(train_run *r, train_queued *q, hone_err *e)
{
    kern_dev *dev = model_device(r->t->model);
    double *sum = r->results;
    const optim_update u = {.step = r->at.step + 1,
                            .lr = q->lr,
                            .max_norm = r->c->max_grad_norm,
                            .sum = sum,
                            .n_sums = N_SUMS};
    const kern_sumsq losses = {
        .g = r->losses.data, .n = (int64_t)q->n * r->len.max_tokens, .out = &sum[RESULTS_LOSS]};
    int rc = optim_grad_sumsq(r->opt, &sum[RESULTS_GRAD], e);
    if (rc == 0 && (rc = kern_do(dev, sumsq, &losses)) != 0)
        hone_fail(e, rc, "losses: %s", dev->err);
    if (rc == 0)
        rc = optim_step(r->opt, &u, e);
    if (rc == 0 && r->t->after_step != NULL)
        rc = r->t->after_step(r->t->user, e);
    return rc;
}

static int begin_read(train_run *r, train_queued *q, hone_err *e)
{
    kern_dev *dev = model_device(r->t->model);
    size_t bytes = RESULTS_LOGP + q->n * (size_t)r->len.max_tokens * sizeof(float);
    int rc = kern_do(dev, read_begin, r->results, bytes, &q->read);
    return rc == 0 ? 0 : hone_fail(e, rc, "losses: %s", dev->err);
}

int train_step_queue(train_run *r, hone_err *e)
{
    train_queued *q = next_window(r);
    q->lr = r->c->learning_rate * schedule_share(&r->sched, r->at.step) * r->s.lr_scale;
    int rc = param_zero_grad(r->t->params, e);
    for (size_t i = 0; rc == 0 && i < q->n; i++)
        rc = run_batch(r, q, i, e);
    if (rc == 0)
        rc = update(r, q, e);
    if (rc == 0)
        rc = begin_read(r, q, e);
    if (rc != 0)
        return hone_fail_at(e, "training");
    r->at.step++;
    r->at.batch += (int64_t)q->n;
    r->at.tokens += q->tokens;
    return 0;
}

/* Sums the losses, segment by segment, in order, as the examples weigh. */
static double sum_losses(const train_run *r, train_queued *q)
{
    double loss = 0;
    for (size_t s = 0; s < q->n_seg; s++) {
        train_seg *seg = &q->seg[s];
        double sum = 0;
        for (int64_t k = seg->at; k < seg->at + seg->n; k++)
            sum -= (double)r->logp[k];
        seg->loss = sum * (double)seg->weight;
        loss += seg->loss;
    }
    return loss;
}

static void advance(train_run *r, const train_queued *q, double loss)
{
    r->s.step++;
    r->s.batch += (int64_t)q->n;
    r->s.tokens += q->tokens;
    r->window_tokens += q->tokens;
    r->s.targets += q->targets;
    r->s.last_loss = loss / (double)q->targets;
    r->s.loss_sum += r->s.last_loss;
    r->s.loss_total += r->s.last_loss;
    r->s.loss_steps++;
    r->lr = q->lr;
    r->saved = false;
    if ((size_t)r->s.batch < r->plan.n_batches)
        return;
    r->s.epoch++;
    r->s.batch = r->at.batch = 0; /* no step of the next epoch is queued yet */
    pack_plan_free(&r->plan);
    pack_epoch(&r->plan, r->t->train, &r->pack, r->s.epoch);
}

int train_step_take(train_run *r, hone_err *e)
{
    kern_dev *dev = model_device(r->t->model);
    train_queued *q = queued_of(r, r->s.step + 1);
    int rc = kern_do(dev, read_end, q->read, r->sums);
    q->read = NULL;
    if (rc != 0)
        return hone_fail(e, rc, "training: losses: %s", dev->err);
    double loss = sum_losses(r, q);
    r->grad_norm = sqrt(r->sums[RESULTS_GRAD]);
    if (!isfinite(r->sums[RESULTS_GRAD]) || !isfinite(r->sums[RESULTS_LOSS])) {
        not_finite(r, q, loss, e);
        return hone_fail_at(e, "training");
    }
    advance(r, q, loss);
    return 0;
}
