/* What a run writes about itself: trainer_log.jsonl (LLaMA-Factory's keys) and trainer_state.json
 * (transformers'). */
#include "core/train/run.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char log_name[] = "trainer_log.jsonl";

double train_report_epoch(const train_run *r)
{
    return (double)r->s.epoch + (double)r->s.batch / (double)r->plan.n_batches;
}

double train_report_elapsed(const train_run *r)
{
    return r->s.seconds + clock_seconds() - r->start;
}

static double remaining(const train_run *r)
{
    int64_t done = r->s.step - r->first_step;
    if (done == 0)
        return 0;
    return (clock_seconds() - r->start) / (double)done * (double)(r->len.steps - r->s.step);
}

static void set_real(json_t *o, const char *key, double x)
{
    if (isfinite(x))
        json_object_set_new(o, key, json_real(x));
}

static void set_time(json_t *o, const char *key, double seconds)
{
    char text[24];
    progress_time(text, sizeof text, seconds);
    json_object_set_new(o, key, json_string(text));
}

/* One line of trainer_log.jsonl; `own` (taken) holds what is particular to it. */
static int log_line_add(train_run *r, json_t *own, hone_err *e)
{
    double share = 100.0 * (double)r->s.step / (double)r->len.steps;
    json_t *o = json_pack("{s:I, s:I}", "current_steps", (json_int_t)r->s.step, "total_steps",
                          (json_int_t)r->len.steps);
    json_object_update(o, own);
    json_decref(own);
    set_real(o, "epoch", round(train_report_epoch(r) * 1e4) / 1e4);
    set_real(o, "percentage", round(share * 100) / 100);
    set_time(o, "elapsed_time", train_report_elapsed(r));
    set_time(o, "remaining_time", remaining(r));
    set_real(o, "throughput", r->rate);
    json_object_set_new(o, "total_tokens", json_integer(r->s.tokens));
    char *text = js_text(o, false), *line = mem_printf("%s\n", text);
    char *path = path_join(r->c->output_dir, log_name);
    int rc = file_append(path, line, strlen(line), false, e);
    free(path);
    free(line);
    free(text);
    json_decref(o);
    return rc;
}

static json_t *history_row(train_run *r)
{
    json_t *row = json_object();
    set_real(row, "epoch", train_report_epoch(r));
    json_object_set_new(row, "step", json_integer(r->s.step));
    json_array_append_new(r->s.history, row);
    return row;
}

int train_report_step(train_run *r, hone_err *e)
{
    double now = clock_seconds();
    bool logged = r->s.step % r->c->logging_steps == 0 || r->s.step == r->len.steps;
    if (now > r->window_start && (logged || now - r->window_start > 1)) {
        r->rate = (double)r->window_tokens / (now - r->window_start);
        r->window_tokens = 0;
        r->window_start = now;
    }
    double loss = r->s.loss_sum / (double)r->s.loss_steps;
    progress_now p = {.step = r->s.step,
                      .total = r->len.steps,
                      .epoch = train_report_epoch(r),
                      .loss = loss,
                      .lr = r->lr,
                      .tokens_per_s = r->rate,
                      .eta_s = remaining(r)};
    progress_step(r->show, &p, logged);
    if (!logged)
        return 0;
    json_t *row = history_row(r), *own = json_object();
    set_real(row, "loss", loss);
    set_real(row, "grad_norm", r->grad_norm);
    set_real(row, "learning_rate", r->lr);
    set_real(own, "loss", loss);
    set_real(own, "lr", r->lr);
    set_real(own, "grad_norm", r->grad_norm);
    r->s.loss_sum = 0;
    r->s.loss_steps = 0;
    return log_line_add(r, own, e);
}

int train_report_eval(train_run *r, double seconds, hone_err *e)
{
    json_t *row = history_row(r), *own = json_object();
    double per_s = seconds > 0 ? 1.0 / seconds : 0;
    set_real(row, "eval_loss", r->s.last_eval);
    set_real(row, "eval_runtime", seconds);
    set_real(row, "eval_samples_per_second", per_s * (double)r->t->eval->n);
    set_real(row, "eval_steps_per_second", per_s * (double)r->eval_plan.n_batches);
    set_real(own, "eval_loss", r->s.last_eval);
    progress_line(r->show, "evaluation  step %lld, loss %.4f, perplexity %.3f",
                  (long long)r->s.step, r->s.last_eval, exp(r->s.last_eval));
    return log_line_add(r, own, e);
}

json_t *train_report_state(const train_run *r)
{
    json_t *o = json_object();
    double flos = 6.0 * (double)r->n_params * (double)r->s.tokens;
    bool best = r->s.best_step > 0;
    char *name = best ? mem_printf("checkpoint-%lld", (long long)r->s.best_step) : NULL;
    set_real(o, "epoch", train_report_epoch(r));
    json_object_set_new(o, "global_step", json_integer(r->s.step));
    json_object_set_new(o, "max_steps", json_integer(r->len.steps));
    set_real(o, "num_train_epochs", r->len.epochs);
    set_real(o, "total_flos", flos);
    json_object_set_new(o, "num_input_tokens_seen", json_integer(r->s.tokens));
    json_object_set_new(o, "train_batch_size", json_integer(r->c->micro_batch_size));
    json_object_set_new(o, "logging_steps", json_integer(r->c->logging_steps));
    json_object_set_new(o, "eval_steps", json_integer(r->len.eval_every));
    json_object_set_new(o, "save_steps", json_integer(r->len.save_every));
    json_object_set_new(o, "best_metric",
                        isfinite(r->s.best_eval) ? json_real(r->s.best_eval) : json_null());
    json_object_set_new(o, "best_global_step", best ? json_integer(r->s.best_step) : json_null());
    json_object_set_new(o, "best_model_checkpoint", best ? json_string(name) : json_null());
    json_object_set_new(o, "is_local_process_zero", json_true());
    json_object_set_new(o, "is_world_process_zero", json_true());
    json_object_set_new(o, "is_hyper_param_search", json_false());
    json_object_set_new(o, "trial_name", json_null());
    json_object_set_new(o, "trial_params", json_null());
    json_object_set(o, "log_history", r->s.history);
    free(name);
    return o;
}

int train_report_end(train_run *r, hone_err *e)
{
    double seconds = train_report_elapsed(r);
    json_t *row = history_row(r);
    set_real(row, "train_runtime", seconds);
    set_real(row, "train_samples_per_second",
             train_report_epoch(r) * (double)r->t->train->n / fmax(seconds, 1e-9));
    set_real(row, "train_steps_per_second", (double)r->s.step / fmax(seconds, 1e-9));
    set_real(row, "train_loss", r->s.loss_total / fmax((double)r->s.step, 1));
    json_t *state = train_report_state(r);
    char *path = path_join(r->c->output_dir, "trainer_state.json");
    int rc = js_save(state, path, true, e);
    free(path);
    json_decref(state);
    return rc;
}

/* Keeps the lines of a log up to a step. A line that is not whole was cut by a crash. */
static size_t kept_length(const char *text, size_t len, int64_t step)
{
    size_t keep = 0;
    for (size_t at = 0; at < len;) {
        const char *nl = memchr(text + at, '\n', len - at);
        if (nl == NULL)
            break;
        json_t *o = NULL;
        int64_t s = INT64_MAX;
        size_t end = (size_t)(nl - text) + 1;
        if (js_parse(&o, text + at, end - at, NULL) == 0)
            s = json_integer_value(json_object_get(o, "current_steps"));
        json_decref(o);
        if (s > step)
            break;
        keep = at = end;
    }
    return keep;
}

int train_report_resume(train_run *r, hone_err *e)
{
    char *path = path_join(r->c->output_dir, log_name), *text = NULL;
    size_t len = 0;
    int rc = 0;
    if (r->first_step == 0)
        rc = file_remove(path, e);
    else if (file_exists(path))
        rc = file_read(&text, &len, path, JS_MAX_BYTES, e);
    if (rc == 0 && text != NULL)
        rc = file_write(path, text, kept_length(text, len, r->first_step), e);
    free(text);
    free(path);
    return rc;
}
