/* Where subscribers reach into a step: the weights of a micro-batch's examples, the learning rate
 * that follows, a checkpoint or an end that they ask for. */
#include "core/base/mem.h"
#include "core/train/run.h"

#include <math.h>
#include <stdlib.h>

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* ---- train.batch ---- */

static hook_batch batch_of(const train_run *r, uint8_t *mask, uint64_t *bound, uint64_t *row,
                           uint64_t *id)
{
    const micro_batch *b = &r->batch;
    const dataset *d = r->t->train->d;
    for (int s = 0; s < b->n_seg; s++) {
        bound[s] = (uint64_t)b->cu[s];
        row[s] = d->samples[b->samples[s]].row;
        id[s] = d->rows[row[s]].id;
        for (int32_t i = b->cu[s]; i < b->cu[s + 1]; i++)
            mask[i] = i > b->cu[s] && b->target[i - 1] >= 0;
    }
    bound[b->n_seg] = (uint64_t)b->n;
    return (hook_batch){.ids = b->ids,
                        .mask = mask,
                        .n = (uint64_t)b->n,
                        .n_examples = (uint64_t)b->n_seg,
                        .bound = bound,
                        .row = row,
                        .step = r->at.step + 1,
                        .id = id};
}

static int check_weights(const train_run *r, hone_err *e)
{
    const dataset *d = r->t->train->d;
    for (int s = 0; s < r->batch.n_seg; s++) {
        const data_row *row = &d->rows[d->samples[r->batch.samples[s]].row];
        if (!(r->weight[s] >= 0 && r->weight[s] < INFINITY))
            return hone_fail(e, HONE_EINVAL,
                             "train.batch: %s:%lld was given the weight %g, must be finite and not "
                             "below 0",
                             d->sources[row->source].path, (long long)row->line,
                             (double)r->weight[s]);
    }
    return 0;
}

int train_hook_batch(train_run *r, hone_err *e)
{
    size_t n_seg = (size_t)r->batch.n_seg;
    r->weight = mem_grow(r->weight, &r->cap_weight, n_seg, sizeof *r->weight);
    for (size_t s = 0; s < n_seg; s++)
        r->weight[s] = 1;
    if (!hook_wanted(r->t->hooks, HOOK_TRAIN_BATCH))
        return 0;
    uint8_t *mask = mem_array((size_t)r->batch.n, 1);
    uint64_t *bound = mem_array(3 * n_seg + 1, sizeof *bound), *row = bound + n_seg + 1;
    hook_batch b = batch_of(r, mask, bound, row, row + n_seg);
    const hook_view view = {.batch = &b, .values = r->weight, .n_values = n_seg};
    int rc = hook_emit_view(r->t->hooks, HOOK_TRAIN_BATCH, &view, e);
    free(bound);
    free(mask);
    return rc == 0 ? check_weights(r, e) : rc;
}

/* ---- train.step ---- */

static json_t *step_data(const train_run *r)
{
    return json_pack("{s:I, s:I, s:f, s:o, s:f, s:o, s:f, s:I, s:f, s:b}", "step",
                     (json_int_t)r->s.step, "total_steps", (json_int_t)r->len.steps, "epoch",
                     train_report_epoch(r), "loss", real(r->s.last_loss), "lr", r->lr, "grad_norm",
                     real(r->grad_norm), "tokens_per_second", r->rate, "tokens",
                     (json_int_t)r->s.tokens, "lr_scale", r->s.lr_scale, "save", 0);
}

/* The point fails open: what makes no sense is said and not taken. */
static void take_answer(train_run *r, const json_t *data)
{
    const json_t *scale = json_object_get(data, "lr_scale");
    double x = json_number_value(scale);
    if (json_is_number(scale) && x >= 0 && x <= 1000)
        r->s.lr_scale = x;
    else
        progress_line(r->show, "train.step  lr_scale must lie between 0 and 1000: it stays %g",
                      r->s.lr_scale);
    r->save_now = json_is_true(json_object_get(data, "save"));
}

/* A veto asks for an end, not for a failure. */
int train_hook_step(train_run *r, hone_err *e)
{
    hone_err why = {0};
    r->save_now = false;
    if (!hook_wanted(r->t->hooks, HOOK_TRAIN_STEP))
        return 0;
    json_t *data = step_data(r);
    int rc = hook_emit(r->t->hooks, HOOK_TRAIN_STEP, &data, &why);
    if (rc == 0)
        take_answer(r, data);
    json_decref(data);
    if (rc == HONE_EVETO) {
        r->status = TRAIN_HOOK_STOP;
        r->stop = true;
        progress_line(r->show, "stopped     %s", why.msg);
        return 0;
    }
    return rc == 0 ? 0 : hone_fail(e, rc, "%s", why.msg);
}
