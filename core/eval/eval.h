#pragma once
/* Evaluation of one model (with whatever is attached to it) on one file of examples. A metric is a
 * row of metrics.c. The batches depend only on the file and the settings, so that the same model
 * gives the same scores; per-example scores are kept, so that two reports on the same file can be
 * compared pair by pair. */
#include "core/base/err.h"
#include "core/base/hook.h"
#include "core/model/gen.h"
#include "core/model/model.h"
#include "core/text/chat.h"
#include "core/text/tok.h"

#include <jansson.h>
#include <stdio.h>

typedef struct eval_options {
    model *m;
    const tok *t;
    const chat *c;    /* NULL: examples of messages are refused */
    const char *data; /* records in any shape that training reads, in its canonical forms: messages
                         (the last assistant turn is the reference), prompt and completion, or text.
                         NULL: what probes ask only */
    const char *metrics;  /* "perplexity,accuracy" */
    int64_t limit;        /* first examples only; 0: all */
    int64_t max_tokens;   /* of a generated answer; 0: 64 */
    int64_t batch_tokens; /* tokens of a scoring batch; 0: 2048 */
    int batch;            /* prompts decoded together; 0: 8 */
    hooks *hooks;         /* may be NULL */
} eval_options;

/* New reference in *report:
 * {"data", "data_sha256", "n", "settings", "metrics": {name: {...}}, "examples": {name: [per
 * example]}}. ENOTFOUND names a metric that does not exist and the ones that do. Every example is
 * scored or the run fails with its line: a score over part of a file is not comparable. */
int eval_run(json_t **report, const eval_options *o, hone_err *e);

/* {"n", "metrics": {name: {"before", "after", "difference", "low", "high", "better":
 * true|false|null}}, "lost": [names that only `before` can be compared by]}: paired bootstrap, 95
 * %. EINVAL when the reports are not of the same file and settings. "better" is null where the
 * interval holds 0. */
int eval_compare(json_t **out, const json_t *before, const json_t *after, hone_err *e);

/* Tables for people. */
void eval_print(const json_t *report, FILE *out);
void eval_print_compare(const json_t *compare, FILE *out);

/* "perplexity, exact_match, ..." for help texts; caller frees. */
char *eval_metric_names(void);
