/* One step: gradients of its micro-batches, the guard against numbers that are not finite,
 * clipping, update. */
#include "core/train/run.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct window {
    size_t first, n; /* micro-batches of the epoch's plan */
    int64_t targets;
    size_t n_seg;
    double loss; /* sum */
} window;

static window window_of(const train_run *r)
{
    window w = {.first = (size_t)r->s.batch};
    w.n = r->plan.n_batches - w.first;
    if (w.n > (size_t)r->c->accumulation)
        w.n = (size_t)r->c->accumulation;
    for (size_t i = 0; i < w.n; i++)
        w.targets += pack_targets(r->t->train->d, &r->plan, w.first + i);
    return w;
}

/* Remembers the segments of micro-batch i. */
static void note_segments(train_run *r, window *w, size_t i)
{
    const micro_batch *b = &r->batch;
    r->seg = mem_grow(r->seg, &r->cap_seg, w->n_seg + (size_t)b->n_seg, sizeof *r->seg);
    for (int s = 0; s < b->n_seg; s++)
        r->seg[w->n_seg++] = (train_seg){.at = (int64_t)i * r->len.max_tokens + b->cu[s],
                                         .n = b->cu[s + 1] - b->cu[s],
                                         .weight = r->weight[s]};
}

/* Sums the losses, segment by segment, in order, as the examples weigh. */
static int read_losses(train_run *r, window *w, hone_err *e)
{
    kern_dev *dev = model_device(r->t->model);
    size_t bytes = w->n * (size_t)r->len.max_tokens * sizeof *r->logp;
    int rc = kern_do(dev, read, r->logp, r->losses.data, bytes);
    if (rc != 0)
        return hone_fail(e, rc, "losses: %s", dev->err);
    for (size_t s = 0; s < w->n_seg; s++) {
        train_seg *seg = &r->seg[s];
        double sum = 0;
        for (int64_t k = seg->at; k < seg->at + seg->n; k++)
            sum -= (double)r->logp[k];
        seg->loss = sum * (double)seg->weight;
        w->loss += seg->loss;
    }
    return 0;
}

/* Nothing waits here: a card works on this one while the next is made ready. */
static int run_batch(train_run *r, window *w, size_t i, hone_err *e)
{
    micro_batch *b = &r->batch;
    pack_fill(b, r->t->train->d, &r->plan, w->first + i);
    int rc = train_hook_batch(r, e);
    if (rc != 0)
        return rc;
    for (int s = 0; s < b->n_seg; s++)
        for (int32_t k = b->cu[s]; k < b->cu[s + 1]; k++)
            r->coef[k] = (float)((double)r->weight[s] / (double)w->targets);
    model_batch m = {.n = b->n,
                     .ids = b->ids,
                     .pos = b->pos,
                     .target = b->target,
                     .coef = r->coef,
                     .cu = b->cu,
                     .n_seg = b->n_seg,
                     .training = true,
                     .seed = (uint64_t)r->c->seed,
                     .offset = (uint64_t)r->s.tokens};
    kern_tensor losses = kern_rows(&r->losses, (int64_t)i * r->len.max_tokens, b->n);
    rc = model_backward(r->t->model, &m, NULL, e);
    if (rc == 0)
        rc = model_logp(r->t->model, &losses, e);
    if (rc != 0)
        return rc;
    note_segments(r, w, i);
    r->s.tokens += b->n;
    r->window_tokens += b->n;
    return 0;
}

/* ---- not finite ---- */

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* The step's rows, a JSON object a line; the ones whose loss is not finite have null. */
static int write_rows(const train_run *r, const window *w, const char *path, hone_err *e)
{
    const dataset *d = r->t->train->d;
    buf text;
    size_t seg = 0;
    buf_init(&text, (size_t)256 << 20);
    for (size_t b = 0; b < w->n; b++) {
        for (uint32_t i = r->plan.start[w->first + b]; i < r->plan.start[w->first + b + 1]; i++) {
            const data_sample *s = &d->samples[r->plan.order[i]];
            const data_row *row = &d->rows[s->row];
            json_t *o =
                json_pack("{s:I, s:I, s:s, s:I, s:I, s:I, s:o}", "step", (json_int_t)r->s.step + 1,
                          "micro_batch", (json_int_t)b, "file", d->sources[row->source].path,
                          "line", (json_int_t)row->line, "tokens", (json_int_t)s->n, "supervised",
                          (json_int_t)s->n_targets, "loss", real(r->seg[seg++].loss));
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
static void name_row(const train_run *r, const window *w, char *dst, size_t cap)
{
    const dataset *d = r->t->train->d;
    uint32_t from = r->plan.start[w->first];
    size_t bad = 0;
    while (bad < w->n_seg && isfinite(r->seg[bad].loss))
        bad++;
    const data_sample *s = &d->samples[r->plan.order[from + (bad < w->n_seg ? bad : 0)]];
    const data_row *row = &d->rows[s->row];
    snprintf(dst, cap, "%.200s:%lld", d->sources[row->source].path, (long long)row->line);
}

static int not_finite(train_run *r, const window *w, hone_err *e)
{
    const char *name = NULL;
    char row[256];
    char *path = path_join(r->c->output_dir, "nan_batch.jsonl");
    name_row(r, w, row, sizeof row);
    int rc = optim_not_finite(r->opt, &name, e);
    if (rc == 0)
        rc = write_rows(r, w, path, e);
    if (rc == 0)
        rc = hone_fail(e, HONE_ENUMERIC,
                       "step %lld: the %s of %s is not a finite number; the %zu rows of the step "
                       "are in %s, the weights are still those of step %lld",
                       (long long)r->s.step + 1, isfinite(w->loss) ? "gradient" : "loss",
                       isfinite(w->loss) && name != NULL ? name : row, w->n_seg, path,
                       (long long)r->s.step);
    free(path);
    return rc;
}

/* ---- the step ---- */

static double clip_scale(double norm, double max)
{
    double scale = max / (norm + 1e-6); /* as torch.nn.utils.clip_grad_norm_ */
    return max > 0 && scale < 1 ? scale : 1;
}

static int update(train_run *r, hone_err *e)
{
    r->lr = r->c->learning_rate * schedule_share(&r->sched, r->s.step) * r->s.lr_scale;
    int rc =
        optim_step(r->opt, r->s.step + 1, r->lr, clip_scale(r->grad_norm, r->c->max_grad_norm), e);
    if (rc == 0 && r->t->after_step != NULL)
        rc = r->t->after_step(r->t->user, e);
    return rc;
}

static void advance(train_run *r, const window *w)
{
    r->s.step++;
    r->s.batch += (int64_t)w->n;
    r->s.targets += w->targets;
    r->s.last_loss = w->loss / (double)w->targets;
    r->s.loss_sum += r->s.last_loss;
    r->s.loss_total += r->s.last_loss;
    r->s.loss_steps++;
    r->saved = false;
    if ((size_t)r->s.batch < r->plan.n_batches)
        return;
    r->s.epoch++;
    r->s.batch = 0;
    pack_plan_free(&r->plan);
    pack_epoch(&r->plan, r->t->train, &r->pack, r->s.epoch);
}

int train_step(train_run *r, hone_err *e)
{
    window w = window_of(r);
    int rc = param_zero_grad(r->t->params, e);
    for (size_t i = 0; rc == 0 && i < w.n; i++)
        rc = run_batch(r, &w, i, e);
    if (rc == 0)
        rc = read_losses(r, &w, e);
    if (rc == 0)
        rc = optim_grad_norm(r->opt, &r->grad_norm, e);
    if (rc == 0 && !(isfinite(w.loss) && isfinite(r->grad_norm)))
        rc = not_finite(r, &w, e);
    if (rc == 0)
        rc = update(r, e);
    if (rc != 0)
        return hone_fail_at(e, "training");
    advance(r, &w);
    return 0;
}
