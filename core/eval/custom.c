/* Metrics that are not ours: what subscribers of eval.metric say of every example. */
#include "core/base/mem.h"
#include "core/eval/eval_int.h"
#include "core/eval/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS = 10000 };

bool custom_wanted(const eval_options *o)
{
    return hook_wanted(o->hooks, HOOK_EVAL_METRIC);
}

/* {"score": 1} is short for {"score": {"value": 1}}. */
static int check_score(const char *name, const json_t *v, hone_err *e)
{
    const json_t *value = json_is_object(v) ? json_object_get(v, "value") : v;
    if (!json_is_number(value) || !isfinite(json_number_value(value)))
        return hone_fail(e, HONE_EFORMAT, "eval.metric: score '%s' is not a number", name);
    if (metric_find(name) != NULL)
        return hone_fail(e, HONE_EEXIST, "eval.metric: score '%s' has the name of a metric", name);
    return 0;
}

static json_t *payload(const example *x, bool answered)
{
    bool scored = x->n_scored > 0;
    return json_pack("{s:O, s:s?, s:s?, s:I, s:o, s:f, s:f, s:{}}", "record", x->record,
                     "prediction", answered ? x->answer.text : NULL, "reference", x->reference,
                     "line", (json_int_t)x->line, "nats", scored ? json_real(x->nll) : json_null(),
                     "tokens", x->n_scored, "bytes", x->n_bytes, "scores");
}

/* What subscribers leave under "scores" is kept. */
static int emit(example *x, bool answered, hooks *h, hone_err *e)
{
    const char *name;
    json_t *v, *data = payload(x, answered);
    if (data == NULL)
        return hone_fail(e, HONE_EFORMAT, "eval.metric: the answer is not UTF-8");
    int rc = hook_emit(h, HOOK_EVAL_METRIC, &data, e);
    json_t *scores = json_object_get(data, "scores");
    json_object_foreach (scores, name, v) {
        if (rc == 0)
            rc = check_score(name, v, e);
    }
    if (rc == 0 && json_object_size(scores) > 0)
        x->extra = json_incref(scores);
    json_decref(data);
    return rc == 0 ? 0 : hone_fail_at(e, "line %lld", (long long)x->line);
}

int custom_emit(example_set *s, bool answered, const eval_options *o, hone_err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->n; i++)
        rc = emit(&s->items[i], answered, o->hooks, e);
    return rc;
}

static double value_of(const json_t *v)
{
    return json_number_value(json_is_object(v) ? json_object_get(v, "value") : v);
}

/* The mean over all examples with its bootstrap interval. One that is missing for some example is
 * an error, since its mean would be over another set. */
static int collect(double *x, const example_set *s, const char *name, hone_err *e)
{
    for (size_t i = 0; i < s->n; i++) {
        const json_t *v = json_object_get(s->items[i].extra, name);
        if (v == NULL)
            return hone_fail(e, HONE_EFORMAT, "eval.metric: line %lld has no score '%s'",
                             (long long)s->items[i].line, name);
        x[i] = value_of(v);
    }
    return 0;
}

static void add_metric(json_t *report, const char *name, const json_t *first, const double *x,
                       size_t n)
{
    double *zero = mem_array(n, sizeof *zero);
    json_t *list = json_array();
    const stats_paired p = {.a = zero, .b = x, .n = n, .draws = DRAWS, .level = 0.95, .seed = 1};
    stats_interval mean = stats_bootstrap(&p);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_real(x[i]));
    json_object_set_new(json_object_get(report, "metrics"), name,
                        json_pack("{s:f, s:f, s:f, s:I, s:b, s:b}", "value", mean.value, "low",
                                  mean.low, "high", mean.high, "n", (json_int_t)n,
                                  "smaller_is_better",
                                  json_is_true(json_object_get(first, "smaller_is_better")), "info",
                                  json_is_true(json_object_get(first, "info"))));
    json_object_set_new(json_object_get(report, "examples"), name, list);
    free(zero);
}

int custom_report(json_t *report, const example_set *s, hone_err *e)
{
    const char *name;
    json_t *first;
    double *x = mem_array(s->n, sizeof *x);
    int rc = 0;
    json_object_foreach (s->items[0].extra, name, first) {
        if (rc == 0)
            rc = collect(x, s, name, e);
        if (rc == 0)
            add_metric(report, name, first, x, s->n);
    }
    free(x);
    return rc;
}
