#include "core/train/trainer.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/train/run.h"

#include <math.h>
#include <stdlib.h>

const char *train_status_name(train_status s)
{
    static const char *const names[] = {"finished", "stopped early", "stopped by a hook"};
    return names[s];
}

/* ---- start and end ---- */

static int make_results(train_run *r, hone_err *e)
{
    kern_dev *dev = model_device(r->t->model);
    int64_t n = r->c->accumulation * r->len.max_tokens;
    size_t bytes = RESULTS_LOGP + (size_t)n * sizeof(float);
    int rc = kern_do(dev, alloc, bytes, &r->results);
    if (rc != 0)
        return hone_fail(e, rc, "losses of a step: %s", dev->err);
    r->losses = kern_mat(KERN_F32, n, 1, (char *)r->results + RESULTS_LOGP);
    r->sums = mem_alloc(bytes);
    r->logp = (float *)(void *)((char *)r->sums + RESULTS_LOGP);
    return 0;
}

static int set_up(train_run *r, hone_err *e)
{
    const train_conf *c = r->c;
    optim_settings o = {c->optimizer, c->adam_beta1, c->adam_beta2, c->adam_epsilon,
                        c->weight_decay};
    pack_options in_order = r->pack;
    in_order.shuffle = false;
    if (r->t->eval != NULL && r->t->eval->n > 0)
        pack_epoch(&r->eval_plan, r->t->eval, &in_order, 0);
    r->n_params = model_n_params(r->t->model);
    int rc = dir_make(c->output_dir, e);
    if (rc == 0)
        rc = train_length_count(&r->len, r, e);
    if (rc != 0)
        return rc;
    r->sched = (schedule){
        .kind = c->lr_scheduler,
        .warmup = schedule_warmup(c->lr_scheduler, c->warmup_steps, c->warmup_ratio, r->len.steps),
        .total = r->len.steps,
        .min_ratio = c->cosine_min_lr_ratio};
    train_length_show(r);
    rc = train_memory_plan(r, e);
    if (rc == 0)
        rc = make_results(r, e);
    if (rc == 0)
        rc = optim_new(&r->opt, r->t->params, &o, e);
    if (rc == 0)
        rc = train_memory_prove(r, e);
    if (rc == 0)
        rc = checkpoint_resume(r, e);
    if (rc != 0)
        return rc;
    r->coef = mem_array((size_t)r->len.max_tokens, sizeof *r->coef);
    pack_epoch(&r->plan, r->t->train, &r->pack, r->s.epoch);
    r->at.step = r->s.step;
    r->at.batch = r->s.batch;
    r->at.tokens = r->s.tokens;
    return train_report_resume(r, e);
}

static void tear_down(train_run *r)
{
    kern_dev *dev = model_device(r->t->model);
    for (int i = 0; i < 2; i++) {
        kern_do(dev, read_end, r->queued[i].read, NULL);
        free(r->queued[i].seg);
    }
    progress_free(r->show);
    optim_free(r->opt);
    kern_do(dev, release, r->results);
    pack_plan_free(&r->plan);
    pack_plan_free(&r->eval_plan);
    micro_batch_free(&r->batch);
    free(r->coef);
    free(r->sums);
    free(r->weight);
    json_decref(r->s.history);
}

static int emit_start(const train_run *r, hone_err *e)
{
    if (!hook_wanted(r->t->hooks, HOOK_TRAIN_START))
        return 0;
    json_t *data = json_pack("{s:o, s:O, s:I, s:I, s:I, s:s}", "settings", train_conf_json(r->c),
                             "identity", r->t->identity, "steps", (json_int_t)r->len.steps,
                             "first_step", (json_int_t)r->first_step, "tokens",
                             (json_int_t)r->len.tokens, "output_dir", r->c->output_dir);
    int rc = hook_emit(r->t->hooks, HOOK_TRAIN_START, &data, e);
    json_decref(data);
    return rc;
}

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static void emit_end(const train_run *r, int rc, const hone_err *e)
{
    hone_err own = {0};
    if (!hook_wanted(r->t->hooks, HOOK_TRAIN_END))
        return;
    json_t *data =
        json_pack("{s:s, s:I, s:o, s:o}", "status",
                  rc == 0 ? train_status_name(r->status) : "failed", "steps", (json_int_t)r->s.step,
                  "loss", real(r->s.last_loss), "eval_loss", real(r->s.last_eval));
    if (rc != 0 && e != NULL)
        json_object_set_new(data, "error", json_string(e->msg));
    hook_emit(r->t->hooks, HOOK_TRAIN_END, &data, &own); /* this point fails open */
    json_decref(data);
}

/* ---- between two steps ---- */

static int watch_loss(train_run *r, hone_err *e)
{
    double limit = r->c->loss_watchdog_threshold;
    r->s.above_threshold = limit > 0 && r->s.last_loss > limit ? r->s.above_threshold + 1 : 0;
    if (limit <= 0 || r->s.above_threshold < r->c->loss_watchdog_patience)
        return 0;
    return hone_fail(e, HONE_ENUMERIC,
                     "step %lld: the loss %.4f has been above loss_watchdog_threshold %g for %lld "
                     "steps",
                     (long long)r->s.step, r->s.last_loss, limit, (long long)r->s.above_threshold);
}

bool trainer_impatient(train_run *r)
{
    int64_t patience = r->c->early_stopping_patience;
    if (patience == 0 || r->s.evals_without_better < patience)
        return false;
    r->status = TRAIN_EARLY_STOP;
    progress_line(r->show, "stopped     no lower evaluation loss in %lld evaluations",
                  (long long)r->s.evals_without_better);
    return true;
}

static void judge(train_run *r)
{
    if (r->s.step == 0)
        return; /* eval_on_start: there is no checkpoint of it */
    if (!isfinite(r->s.best_eval) || r->s.last_eval < r->s.best_eval) {
        r->s.best_eval = r->s.last_eval;
        r->s.best_step = r->s.step;
        r->s.evals_without_better = 0;
    } else {
        r->s.evals_without_better++;
        r->stop = r->stop || trainer_impatient(r);
    }
}

static int evaluate(train_run *r, hone_err *e)
{
    double begin = clock_seconds();
    int rc = train_eval_loss(r, &r->s.last_eval, e);
    if (rc != 0)
        return rc;
    if (!isfinite(r->s.last_eval))
        return hone_fail(e, HONE_ENUMERIC, "step %lld: the evaluation loss is not a finite number",
                         (long long)r->s.step);
    if (!isfinite(r->s.first_eval))
        r->s.first_eval = r->s.last_eval;
    judge(r);
    rc = train_report_eval(r, clock_seconds() - begin, e);
    r->window_start += clock_seconds() - begin; /* the rate is that of training */
    return rc;
}

static bool due(int64_t step, int64_t every, bool last)
{
    return every > 0 && (last || step % every == 0);
}

/* Once, when the pace is known: the first step warms caches up. */
static void tell_time(train_run *r)
{
    int64_t done = r->s.step - r->first_step, left = r->len.steps - r->s.step;
    double seconds = clock_seconds() - r->start;
    char text[24];
    if (r->told_time || done < 3 || left < 10 || seconds < 1)
        return;
    progress_time(text, sizeof text, seconds / (double)done * (double)left);
    progress_line(r->show, "time        about %s for the other %lld steps", text, (long long)left);
    r->told_time = true;
}

/* Order as in transformers: log, evaluate, save. */
static int after_step(train_run *r, hone_err *e)
{
    int rc = train_report_step(r, e);
    if (rc == 0)
        rc = watch_loss(r, e);
    if (rc == 0)
        rc = train_hook_step(r, e);
    tell_time(r);
    bool last = r->stop || r->s.step == r->len.steps;
    if (rc == 0 && r->eval_plan.n_batches > 0 && (last || due(r->s.step, r->len.eval_every, false)))
        rc = evaluate(r, e);
    last = last || r->stop;
    bool best = r->c->load_best && r->s.best_step == r->s.step;
    if (rc == 0 && (best || r->save_now || due(r->s.step, r->len.save_every, last)))
        rc = checkpoint_save(r, e);
    return rc;
}

/* ---- the device may be a step ahead ---- */

/* Must the results of the step that was queued last be known before the next one is queued? Where
 * the device does one thing after the other nothing is gained by going on. At the end of an epoch
 * the plan changes; a subscriber of train.step may change the rate or end the run. */
static bool must_wait(const train_run *r)
{
    int64_t step = r->at.step;
    return !model_device(r->t->model)->records || step == r->len.steps ||
           (size_t)r->at.batch == r->plan.n_batches ||
           (r->eval_plan.n_batches > 0 && due(step, r->len.eval_every, false)) ||
           due(step, r->len.save_every, false) || hook_wanted(r->t->hooks, HOOK_TRAIN_STEP);
}

/* Takes results until `left` steps are queued. */
static int settle(train_run *r, int64_t left, hone_err *e)
{
    int rc = 0;
    while (rc == 0 && r->at.step - r->s.step > left) {
        rc = train_step_take(r, e);
        if (rc == 0)
            rc = after_step(r, e);
    }
    return rc;
}

/* A step could not be queued. What the one before it came to is told all the same; where it was no
 * number, that is the error. */
static int give_up(train_run *r, int rc, hone_err *e)
{
    hone_err before = {0};
    if (settle(r, 0, &before) != HONE_ENUMERIC)
        return rc;
    return hone_fail(e, HONE_ENUMERIC, "%s", before.msg);
}

static int next_step(train_run *r, hone_err *e)
{
    int rc = train_step_queue(r, e);
    return rc == 0 ? settle(r, must_wait(r) ? 0 : 1, e) : give_up(r, rc, e);
}

static int asked_to_stop(train_run *r, hone_err *e)
{
    if (r->c->stop == NULL || *r->c->stop == 0 || r->stop || r->at.step == r->len.steps)
        return 0;
    int rc = settle(r, 0, e);
    if (rc == 0)
        rc = checkpoint_save(r, e);
    if (rc != 0)
        return rc;
    return hone_fail(e, HONE_ECANCELLED,
                     "stopped at step %lld; auto_resume_from_checkpoints: true goes on from there",
                     (long long)r->s.step);
}

static int loop(train_run *r, hone_err *e)
{
    int rc = 0;
    r->start = r->window_start = clock_seconds();
    if (r->c->eval_on_start && r->s.step == 0 && r->eval_plan.n_batches > 0)
        rc = evaluate(r, e);
    while (rc == 0 && !r->stop && r->at.step < r->len.steps) {
        rc = next_step(r, e);
        if (rc == 0)
            rc = asked_to_stop(r, e);
    }
    if (rc == 0 && r->c->load_best && r->s.best_step > 0 && r->s.best_step != r->s.step)
        rc = checkpoint_weights(r, r->s.best_step, e);
    return rc == 0 ? train_report_end(r, e) : rc;
}

static void fill_result(trainer_result *out, const train_run *r)
{
    *out = (trainer_result){.status = r->status,
                            .steps = r->s.step,
                            .first_step = r->first_step,
                            .tokens = r->s.tokens,
                            .targets = r->s.targets,
                            .epochs = train_report_epoch(r),
                            .seconds = clock_seconds() - r->start,
                            .train_loss = r->s.loss_total / (double)r->s.step,
                            .last_loss = r->s.last_loss,
                            .first_eval_loss = r->s.first_eval,
                            .eval_loss = r->s.last_eval,
                            .best_eval_loss = r->s.best_eval,
                            .best_step = r->s.best_step};
}

int trainer_run(const trainer *t, trainer_result *out, hone_err *e)
{
    const train_conf *c = t->conf;
    train_run r = {.t = t,
                   .c = c,
                   .pack = {c->micro_batch_size, c->sequence_len, c->sample_packing, c->shuffle,
                            (uint64_t)c->seed},
                   .s = {.last_loss = NAN,
                         .first_eval = NAN,
                         .last_eval = NAN,
                         .best_eval = NAN,
                         .lr_scale = 1,
                         .history = json_array()},
                   .show = progress_new((progress_mode)c->progress)};
    *out = (trainer_result){0};
    int rc = set_up(&r, e);
    if (rc == 0)
        rc = emit_start(&r, e);
    if (rc == 0) {
        rc = loop(&r, e);
        emit_end(&r, rc, e);
    }
    if (rc == 0)
        fill_result(out, &r);
    tear_down(&r);
    return rc;
}
