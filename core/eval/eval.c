#include "core/eval/eval.h"

#include "core/base/mem.h"
#include "core/eval/eval_int.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_METRICS = 32 };

static int parse_metrics(const metric **out, size_t *n, const char *list, hone_err *e)
{
    *n = 0;
    for (const char *s = list; *s != '\0';) {
        size_t len = strcspn(s, ", ");
        char *name = mem_strndup(s, len);
        const metric *m = len > 0 ? metric_find(name) : NULL;
        int rc = 0;
        if (len > 0 && m == NULL) {
            char *names = eval_metric_names();
            rc = hone_fail(e, HONE_ENOTFOUND, "no metric '%s' (there are: %s)", name, names);
            free(names);
        } else if (m != NULL && *n < MAX_METRICS) {
            out[(*n)++] = m;
        }
        free(name);
        if (rc != 0)
            return rc;
        s += len;
        s += strspn(s, ", ");
    }
    return *n > 0 ? 0 : hone_fail(e, HONE_EINVAL, "no metric was asked for");
}

static int compute(json_t *report, const metric *m, const example_set *s, const eval_options *o,
                   hone_err *e)
{
    json_t *summary = NULL, *examples = NULL;
    int rc = m->compute(&summary, &examples, s, o, e);
    if (rc != 0) {
        json_decref(summary);
        json_decref(examples);
        return rc;
    }
    json_object_set_new(summary, "smaller_is_better", json_boolean(m->smaller_is_better));
    json_object_set_new(json_object_get(report, "metrics"), m->name, summary);
    if (examples != NULL)
        json_object_set_new(json_object_get(report, "examples"), m->name, examples);
    return 0;
}

/* Subscribers of eval.metric get everything that the examples allow. */
static unsigned needs_of(const metric *const *wanted, size_t n, const example_set *s,
                         const eval_options *o)
{
    unsigned needs = 0;
    bool all_ask = true;
    for (size_t i = 0; i < n; i++)
        needs |= wanted[i]->needs;
    for (size_t i = 0; s != NULL && i < s->n; i++)
        all_ask = all_ask && s->items[i].prompt != NULL;
    if (s != NULL && custom_wanted(o))
        needs |= NEEDS_SCORES | (all_ask ? NEEDS_ANSWERS : 0u);
    return needs;
}

static int run_model(example_set *s, unsigned needs, const eval_options *o, hone_err *e)
{
    int rc = 0;
    if (needs & NEEDS_SCORES)
        rc = run_scoring(s, o, e);
    if (rc == 0 && (needs & NEEDS_ANSWERS))
        rc = run_answers(s, o, e);
    if (rc == 0 && custom_wanted(o))
        rc = custom_emit(s, (needs & NEEDS_ANSWERS) != 0, o, e);
    return rc;
}

static json_t *settings_of(const eval_options *o)
{
    return json_pack("{s:I, s:I, s:I, s:i, s:s}", "limit", (json_int_t)o->limit, "max_tokens",
                     (json_int_t)o->max_tokens, "batch_tokens", (json_int_t)o->batch_tokens,
                     "batch", o->batch, "template", o->c != NULL ? chat_digest(o->c) : "");
}

int eval_run(json_t **report, const eval_options *o, hone_err *e)
{
    const metric *wanted[MAX_METRICS];
    size_t n = 0;
    example_set s = {0};
    *report = NULL;
    if (o->data == NULL && !probe_wanted(o))
        return hone_fail(e, HONE_EINVAL, "there is nothing to evaluate: no data, and no probe");
    int rc = o->data != NULL ? parse_metrics(wanted, &n, o->metrics, e) : 0;
    if (rc == 0 && o->data != NULL)
        rc = examples_load(&s, o, (needs_of(wanted, n, NULL, o) & NEEDS_ANSWERS) != 0, e);
    if (rc != 0)
        return rc;
    if (o->data != NULL)
        rc = run_model(&s, needs_of(wanted, n, &s, o), o, e);
    json_t *r =
        json_pack("{s:s?, s:s, s:I, s:o, s:{}, s:{}}", "data", o->data, "data_sha256", s.sha256,
                  "n", (json_int_t)s.n, "settings", settings_of(o), "metrics", "examples");
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = compute(r, wanted[i], &s, o, e);
    if (rc == 0 && o->data != NULL && custom_wanted(o))
        rc = custom_report(r, &s, e);
    if (rc == 0 && probe_wanted(o))
        rc = probe_run(r, o, e);
    examples_free(&s);
    if (rc == 0)
        rc = hook_emit(o->hooks, HOOK_EVAL_AGGREGATE, &r, e);
    if (rc == 0 && !json_is_object(json_object_get(r, "metrics")))
        rc = hone_fail(e, HONE_EFORMAT, "eval.aggregate: the report has lost its metrics");
    if (rc != 0) {
        json_decref(r);
        return rc;
    }
    if (hook_is_used(o->hooks))
        json_object_set_new(r, "plugins", hook_report(o->hooks));
    *report = r;
    return 0;
}
