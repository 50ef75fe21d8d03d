/* How long a run is and what it needs, counted before step 1 by laying out every epoch. */
#include "core/train/run.h"

#include <math.h>

static int64_t steps_of(int64_t batches, int64_t accumulation)
{
    return (batches + accumulation - 1) / accumulation;
}

static int64_t every(int64_t steps, int64_t per_epoch, const train_length *len)
{
    if (steps > 0)
        return steps;
    if (per_epoch == 0)
        return 0;
    return (int64_t)fmax(1, ceil((double)len->steps / ((double)per_epoch * len->epochs)));
}

/* Tokens of the first `batches` micro-batches. */
static int64_t plan_tokens(const pack_plan *p, const dataset *d, size_t batches)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < p->start[batches]; i++)
        n += d->samples[p->order[i]].n;
    return n;
}

/* Adds one epoch; `share` of it is wanted, or what is left to max_steps. */
static void add_epoch(train_length *len, const train_run *r, int64_t epoch, double share)
{
    pack_plan p;
    int64_t acc = r->c->accumulation;
    pack_epoch(&p, r->t->train, &r->pack, epoch);
    int64_t full = steps_of((int64_t)p.n_batches, acc);
    int64_t want = (int64_t)ceil(share * (double)full - 1e-9);
    if (r->c->max_steps > 0)
        want = r->c->max_steps - len->steps < full ? r->c->max_steps - len->steps : full;
    int64_t batches = want * acc < (int64_t)p.n_batches ? want * acc : (int64_t)p.n_batches;
    if (epoch == 0)
        len->epoch_steps = full;
    len->steps += want;
    len->epochs += (double)want / (double)full;
    len->tokens += plan_tokens(&p, r->t->train->d, (size_t)batches);
    if (p.max_tokens > len->max_tokens)
        len->max_tokens = p.max_tokens;
    pack_plan_free(&p);
}

int train_length_count(train_length *out, const train_run *r, hone_err *e)
{
    *out = (train_length){0};
    if (r->t->train->n == 0)
        return hone_fail(e, HONE_EINVAL, "there is nothing to train on");
    for (int64_t epoch = 0;; epoch++) {
        double left = r->c->num_epochs - (double)epoch;
        if (r->c->max_steps > 0 ? out->steps >= r->c->max_steps : left <= 1e-9)
            break;
        add_epoch(out, r, epoch, fmin(left, 1.0));
    }
    if (r->eval_plan.max_tokens > out->max_tokens)
        out->max_tokens = r->eval_plan.max_tokens;
    out->eval_every = every(r->c->eval_steps, r->c->evals_per_epoch, out);
    out->save_every = every(r->c->save_steps, r->c->saves_per_epoch, out);
    return 0;
}

void train_length_show(const train_run *r)
{
    int64_t trainable = 0, params = r->n_params;
    const data_view *v = r->t->train;
    for (size_t i = 0; i < r->t->params->n; i++)
        trainable += r->t->params->items[i].rows * r->t->params->items[i].cols;
    progress_line(r->show, "device      %s", model_device(r->t->model)->name);
    progress_line(r->show, "parameters  %lld, of which trained %lld (%.2f %%)", (long long)params,
                  (long long)trainable, 100.0 * (double)trainable / (double)params);
    progress_line(r->show, "data        %zu sequences, %lld tokens, %lld supervised", v->n,
                  (long long)v->n_tokens, (long long)v->n_targets);
    if (r->t->eval != NULL && r->t->eval->n > 0)
        progress_line(r->show, "held out    %zu sequences, %lld tokens, %lld supervised",
                      r->t->eval->n, (long long)r->t->eval->n_tokens,
                      (long long)r->t->eval->n_targets);
    progress_line(r->show,
                  "steps       %lld (%.2f epochs of %lld), at most %lld tokens a micro-batch",
                  (long long)r->len.steps, r->len.epochs, (long long)r->len.epoch_steps,
                  (long long)r->len.max_tokens);
}
