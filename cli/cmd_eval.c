/* hone eval: scores of a model on a file, alone or before against after an adapter. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/extend.h"
#include "cli/runtime.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/eval/eval.h"
#include "core/model/digest.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct options {
    runtime_args rt;
    const char *data, *metrics, *limit, *max_tokens, *batch, *out, *baseline, *plugins;
    bool json, before;
} options;

/* clang-format off */
static const args_row rows[] = {
    RUNTIME_ARGS(options, rt),
    {"data",       offsetof(options, data),       ARGS_TEXT},
    {"metrics",    offsetof(options, metrics),    ARGS_TEXT},
    {"limit",      offsetof(options, limit),      ARGS_TEXT},
    {"max-tokens", offsetof(options, max_tokens), ARGS_TEXT},
    {"batch",      offsetof(options, batch),      ARGS_TEXT},
    {"out",        offsetof(options, out),        ARGS_TEXT},
    {"baseline",   offsetof(options, baseline),   ARGS_TEXT},
    {"plugins",    offsetof(options, plugins),    ARGS_TEXT},
    {"before",     offsetof(options, before),     ARGS_FLAG},
    {"json",       offsetof(options, json),       ARGS_FLAG},
    {NULL, 0, ARGS_TEXT},
};
/* clang-format on */

static int take_numbers(eval_options *eo, const options *o, hone_err *e)
{
    int64_t batch = 0;
    int rc = args_whole(&eo->limit, o->limit, "limit", e);
    if (rc == 0)
        rc = args_whole(&eo->max_tokens, o->max_tokens, "max-tokens", e);
    if (rc == 0)
        rc = args_whole(&batch, o->batch, "batch", e);
    eo->batch = (int)batch;
    return rc;
}

/* What was scored, by digest. */
static int name_weights(json_t *report, const runtime_args *a, hone_err *e)
{
    char digest[65] = "";
    int rc = model_dir_digest(digest, a->model, e);
    json_object_set_new(report, "model", json_string(digest));
    digest[0] = '\0';
    if (rc == 0 && a->adapter != NULL)
        rc = model_dir_digest(digest, a->adapter, e);
    json_object_set_new(report, "adapter", json_string(digest));
    return rc;
}

static int evaluate(json_t **report, const options *o, bool adapted, hooks *h, hone_err *e)
{
    runtime rt = {0};
    runtime_args with = o->rt;
    eval_options eo = {
        .data = o->data, .metrics = o->metrics != NULL ? o->metrics : "perplexity", .hooks = h};
    if (!adapted)
        with.adapter = NULL;
    int rc = take_numbers(&eo, o, e);
    if (rc == 0)
        rc = runtime_open(&rt, &with, e);
    if (rc != 0)
        return rc;
    eo.m = rt.model;
    eo.t = rt.tok;
    eo.c = rt.chat;
    rc = eval_run(report, &eo, e);
    if (rc == 0)
        rc = name_weights(*report, &with, e);
    runtime_close(&rt);
    return rc;
}

static void show(const options *o, const json_t *report, const json_t *compare)
{
    if (o->json) {
        json_t *both = json_pack("{s:O, s:O?}", "report", report, "compare", compare);
        cmd_print(both);
        json_decref(both);
        return;
    }
    eval_print(report, stdout);
    if (compare != NULL) {
        putchar('\n');
        eval_print_compare(compare, stdout);
    }
}

static int run_all(const options *o, hone_err *e)
{
    json_t *before = NULL, *after = NULL, *compare = NULL;
    extend *x = NULL;
    int rc = extend_open_file(&x, o->plugins, e);
    if (rc == 0 && o->before)
        rc = evaluate(&before, o, false, extend_hooks(x), e);
    else if (rc == 0 && o->baseline != NULL)
        rc = js_load(&before, o->baseline, e);
    if (rc == 0)
        rc = evaluate(&after, o, true, extend_hooks(x), e);
    if (rc == 0 && before != NULL)
        rc = eval_compare(&compare, before, after, e);
    if (rc == 0 && o->out != NULL)
        rc = js_save(after, o->out, true, e);
    if (rc == 0)
        show(o, after, compare);
    if (rc == 0 && !o->json)
        extend_report(x, stdout);
    json_decref(before);
    json_decref(after);
    json_decref(compare);
    extend_close(x);
    return rc;
}

static int run(int argc, char **argv)
{
    options o = {0};
    hone_err e = {0};
    int n_rest;
    if (args_parse(rows, &o, argc, argv, NULL, 0, &n_rest, &e) != 0)
        return cmd_usage(&cmd_eval, "%s", e.msg);
    if (o.rt.model == NULL || (o.data == NULL && o.plugins == NULL))
        return cmd_usage(&cmd_eval, "--model is needed, and --data or --plugins with a probe");
    if (o.before && (o.rt.adapter == NULL || o.baseline != NULL))
        return cmd_usage(&cmd_eval, "--before compares without and with --adapter");
    return run_all(&o, &e) == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_eval = {
    "eval", run, "score a model on a file of examples",
    "usage: hone eval --model DIR [--adapter DIR] [--data FILE] [--metrics LIST] [options]\n"
    "\n"
    "FILE holds records as training reads them; of a conversation the last assistant turn is the "
    "reference.\n"
    "Metrics: perplexity, exact_match, normalized_match, accuracy (labels: precision, recall, F1, "
    "confusion),\n"
    "stops (share of answers that end by themselves), latency. Answers are greedy.\n"
    "\n"
    "  --before              also without the adapter, and the paired difference of the two\n"
    "  --baseline FILE       paired difference to a report written by --out\n"
    "  --out FILE            write the report with the scores of every example\n"
    "  --plugins FILE        settings file whose section plugins is loaded: metrics of your own,\n"
    "                        probes of bias (these need no --data)\n"
    "  --limit N             first N examples only\n"
    "  --max-tokens N        longest answer (64)\n"
    "  --batch N             answers decoded together (8)\n"
    "  --json\n" RUNTIME_HELP "\n"
    "example: hone eval --model base --adapter out/support --before --data holdout.jsonl --metrics "
    "perplexity,accuracy"};
