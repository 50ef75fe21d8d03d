/* hone merge: base and adapter into one checkpoint, proved before it appears. */
#include "adapters/merge.h"
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/extend.h"
#include "cli/state.h"

#include <stddef.h>
#include <stdio.h>

typedef struct options {
    const char *model, *adapter, *out, *prompts, *device, *threads, *max_diff, *min_agreement;
    const char *plugins;
    state_args at;
} options;

/* clang-format off */
static const args_row rows[] = {
    {"model",         offsetof(options, model),         ARGS_TEXT},
    {"adapter",       offsetof(options, adapter),       ARGS_TEXT},
    {"out",           offsetof(options, out),           ARGS_TEXT},
    {"prompts",       offsetof(options, prompts),       ARGS_TEXT},
    {"device",        offsetof(options, device),        ARGS_TEXT},
    {"threads",       offsetof(options, threads),       ARGS_TEXT},
    {"max-diff",      offsetof(options, max_diff),      ARGS_TEXT},
    {"min-agreement", offsetof(options, min_agreement), ARGS_TEXT},
    {"plugins",       offsetof(options, plugins),       ARGS_TEXT},
    STATE_ARGS(options, at),
    {NULL, 0, ARGS_TEXT},
};
/* clang-format on */

static void print_json(const options *o, const merge_report *r, const sign_public *by)
{
    printf("{\"out\":\"%s\",\"tensors\":%lld,\"merged\":%lld,\"positions\":%lld,"
           "\"max_abs_diff\":%.6g,\"mean_kl\":%.6g,\"agreement\":%.6g,\"signed_by\":\"%s\"}\n",
           o->out, (long long)r->n_tensors, (long long)r->n_merged, (long long)r->n_positions,
           r->max_abs_diff, r->mean_kl, r->agreement, by->id);
}

static void print_report(const options *o, const merge_report *r, const sign_public *by)
{
    printf("%s: %lld tensors, %lld of them merged\n", o->out, (long long)r->n_tensors,
           (long long)r->n_merged);
    printf("proof over %lld positions: largest log-probability difference %.3g, mean KL %.3g, same "
           "best token %.4f\n",
           (long long)r->n_positions, r->max_abs_diff, r->mean_kl, r->agreement);
    if (by->id[0] != '\0')
        printf("signed by key %.16s\n", by->id);
}

/* With a state directory the model is signed with the key of that appliance. */
static int open_key(store **st, sign_public *by, const state_args *a, hone_err *e)
{
    if (a->config == NULL && a->state == NULL)
        return 0;
    int rc = state_open(st, a, false, e);
    return rc == 0 ? sign_public_own(by, store_dir(*st), e) : rc;
}

static int take_numbers(merge_options *m, const options *o, hone_err *e)
{
    int64_t threads = 0;
    int rc = args_whole(&threads, o->threads, "threads", e);
    if (rc == 0)
        rc = args_real(&m->max_diff, o->max_diff, "max-diff", e);
    if (rc == 0)
        rc = args_real(&m->min_agreement, o->min_agreement, "min-agreement", e);
    m->threads = (int)threads;
    return rc;
}

static int run(int argc, char **argv)
{
    options o = {0};
    hone_err e = {0};
    int n_rest;
    if (args_parse(rows, &o, argc, argv, NULL, 0, &n_rest, &e) != 0)
        return cmd_usage(&cmd_merge, "%s", e.msg);
    if (o.model == NULL || o.adapter == NULL || o.out == NULL)
        return cmd_usage(&cmd_merge, "--model, --adapter and --out are needed");
    merge_report report;
    merge_options m = {.model_dir = o.model,
                       .adapter_dir = o.adapter,
                       .out_dir = o.out,
                       .prompts_file = o.prompts,
                       .device = o.device != NULL ? o.device : "auto"};
    if (take_numbers(&m, &o, &e) != 0)
        return cmd_usage(&cmd_merge, "%s", e.msg);
    store *st = NULL;
    extend *x = NULL;
    sign_public by = {0};
    int rc = open_key(&st, &by, &o.at, &e);
    m.key_dir = st != NULL ? store_dir(st) : NULL;
    if (rc == 0)
        rc = extend_open_file(&x, o.plugins, &e);
    if (rc == 0) {
        m.hooks = extend_hooks(x);
        rc = merge_run(&m, &report, &e);
    }
    extend_close(x);
    store_close(st);
    if (rc != 0)
        return cmd_failed(&e);
    if (o.at.json)
        print_json(&o, &report, &by);
    else
        print_report(&o, &report, &by);
    return 0;
}

const cmd cmd_merge = {
    "merge", run, "merge an adapter into its base model",
    "usage: hone merge --model DIR --adapter DIR --out DIR [options]\n"
    "\n"
    "Writes base + adapter as a checkpoint of its own, then compares it with the pair on real "
    "prompts;\n"
    "beyond the tolerance nothing is written.\n"
    "\n"
    "  --prompts FILE        JSON Lines of {\"text\"} or {\"messages\"} for the comparison\n"
    "  --max-diff X          largest difference of a log-probability (f32 0.001, f16 0.1, bf16 "
    "0.5)\n"
    "  --min-agreement X     share of positions with the same best token (0.99)\n"
    "  --config FILE, --state DIR  sign it with the key of this appliance (hone.yaml, state)\n"
    "  --plugins FILE        settings file whose section plugins is loaded\n"
    "  --device cpu|cuda|auto  --threads N  --json\n"
    "\n"
    "example: hone merge --model base --adapter out/support --out merged"};
