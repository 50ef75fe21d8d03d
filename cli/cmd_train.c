/* hone train: LoRA or full fine-tuning, or pretraining, as a settings file says. */
#include "adapters/tune.h"
#include "cli/extend.h"
#include "cli/killed.h"
#include "cli/train_args.h"
#include "core/base/js.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The one place where a signal handler can leave its word. */
static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
    if (interrupted) /* a second one does not wait for the checkpoint */
        cmd_killed(sig);
    interrupted = 1;
}

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static void print_json(const train_conf *c, const tune_result *r, const extend *x)
{
    const trainer_result *t = &r->train;
    json_t *o = json_pack(
        "{s:s, s:s, s:I, s:f, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:f}", "status",
        train_status_name(t->status), "output_dir", c->output_dir, "steps", (json_int_t)t->steps,
        "epochs", t->epochs, "tokens", (json_int_t)t->tokens, "supervised_tokens",
        (json_int_t)t->targets, "train_loss", real(t->train_loss), "last_loss", real(t->last_loss),
        "first_eval_loss", real(t->first_eval_loss), "eval_loss", real(t->eval_loss),
        "best_eval_loss", real(t->best_eval_loss), "rows", (json_int_t)r->n_rows, "rejected",
        (json_int_t)r->n_rejected, "seconds", t->seconds);
    if (hook_is_used(extend_hooks(x)))
        json_object_set_new(o, "plugins", hook_report(extend_hooks(x)));
    char *text = js_text(o, false);
    puts(text);
    free(text);
    json_decref(o);
}

static void print_text(const train_conf *c, const tune_result *r, const extend *x)
{
    const trainer_result *t = &r->train;
    printf("%s after %lld steps (%.2f epochs, %lld tokens, %.1f s)\n", train_status_name(t->status),
           (long long)t->steps, t->epochs, (long long)t->tokens, t->seconds);
    printf("loss         %.4f (mean of all steps %.4f)\n", t->last_loss, t->train_loss);
    if (isfinite(t->eval_loss))
        printf("evaluation   %.4f (first %.4f, lowest %.4f at step %lld)\n", t->eval_loss,
               t->first_eval_loss, t->best_eval_loss, (long long)t->best_step);
    printf("rows         %zu used, %zu rejected%s\n", r->n_rows, r->n_rejected,
           r->n_rejected > 0 ? " (see rejects.jsonl)" : "");
    extend_report(x, stdout);
    printf("%s in %s\n", c->adapter == TRAIN_ADAPTER_LORA ? "adapter" : "model", c->output_dir);
}

static int run(int argc, char **argv)
{
    train_conf c;
    train_args a;
    tune_result r;
    extend *x = NULL;
    hone_err e = {0};
    bool done;
    int rc = train_args_load(&c, &a, &done, &cmd_train, argc, argv);
    if (rc != 0 || done)
        return rc;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    c.stop = &interrupted;
    rc = extend_open(&x, c.plugins, a.config, NULL, &e);
    if (rc == 0) {
        extend_say(x);
        rc = tune_run(&c, extend_hooks(x), &r, &e);
    }
    if (rc != 0)
        rc = cmd_failed(&e);
    else if (a.json)
        print_json(&c, &r, x);
    else
        print_text(&c, &r, x);
    extend_close(x);
    train_conf_free(&c);
    return rc;
}

const cmd cmd_train = {
    "train",
    run,
    "fine-tune a model (LoRA or whole), or train one from nothing",
    "usage: hone train CONFIG.yaml [key=value ...] [--json]\n"
    "       hone train --settings        print all settings as a reference page\n"
    "\n"
    "Settings come from the file, then from key=value words. The result, logs and checkpoints go "
    "to\n"
    "output_dir. Interrupt once to save a checkpoint and stop; run again with\n"
    "auto_resume_from_checkpoints=true to go on.\n"
    "  --json   print the outcome as JSON\n"
    "\n"
    "example: hone train lora.yaml learning_rate=1e-4 num_epochs=2",
};
