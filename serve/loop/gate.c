#include "serve/loop/gate.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"pass", "fail", "inconclusive"};

const char *gate_verdict_name(gate_verdict v)
{
    return names[v];
}

static double num(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* The interval turned so that more is better. */
static void oriented(const json_t *m, double *low, double *high)
{
    bool smaller = json_is_true(json_object_get(m, "smaller_is_better"));
    *low = smaller ? -num(m, "high") : num(m, "low");
    *high = smaller ? -num(m, "low") : num(m, "high");
}

static gate_verdict worse_of(gate_verdict a, gate_verdict b)
{
    if (a == GATE_FAIL || b == GATE_FAIL)
        return GATE_FAIL;
    return a == GATE_INCONCLUSIVE || b == GATE_INCONCLUSIVE ? GATE_INCONCLUSIVE : GATE_PASS;
}

static void say(json_t *reasons, gate_verdict v, const char *what, const char *metric, double low,
                double high, double bound)
{
    char *text = mem_printf("%s: %s %s: change [%+.4f, %+.4f], bound %+.4f", names[v], what, metric,
                            low, high, bound);
    json_array_append_new(reasons, json_string(text));
    free(text);
}

static bool is_nats(const json_t *m)
{
    const char *unit = json_string_value(json_object_get(m, "unit"));
    return unit != NULL && strncmp(unit, "nats", 4) == 0;
}

static gate_verdict against_bound(double low, double high, double bound)
{
    if (low > bound)
        return GATE_PASS;
    return high < bound ? GATE_FAIL : GATE_INCONCLUSIVE;
}

static gate_verdict enough_pairs(const json_t *compare, const char *what, const gate_policy *p,
                                 json_t *reasons)
{
    int64_t n = json_integer_value(json_object_get(compare, "n"));
    if (n >= p->min_pairs)
        return GATE_PASS;
    char *text = mem_printf("inconclusive: %s has %lld examples, %lld are needed", what,
                            (long long)n, (long long)p->min_pairs);
    json_array_append_new(reasons, json_string(text));
    free(text);
    return GATE_INCONCLUSIVE;
}

static gate_verdict judge(const json_t *compare, const char *what, const gate_policy *p,
                          bool improvement, json_t *reasons)
{
    gate_verdict all = enough_pairs(compare, what, p, reasons);
    const char *name;
    json_t *m;
    json_object_foreach (json_object_get(compare, "metrics"), name, m) {
        double low, high;
        double bound = improvement ? 0 : is_nats(m) ? -p->margin_nats : -p->margin;
        if (json_is_true(json_object_get(m, "info"))) /* shown, not judged */
            continue;
        oriented(m, &low, &high);
        gate_verdict v = against_bound(low, high, bound);
        if (improvement && low == 0 && high == 0) /* all equal: nothing got better */
            v = GATE_INCONCLUSIVE;
        say(reasons, v, what, name, low, high, bound);
        all = worse_of(all, v);
    }
    if (json_object_size(json_object_get(compare, "metrics")) == 0) {
        json_array_append_new(reasons, json_string("inconclusive: no metric could be compared"));
        all = worse_of(all, GATE_INCONCLUSIVE);
    }
    return all;
}

/* Subscribers may only add doubt: "pass" stays as it was, "inconclusive" and "fail" count. */
static int ask_hooks(gate_verdict *v, json_t *report, const json_t *holdout, const json_t *feedback,
                     const char *run_id, hooks *h, hone_err *e)
{
    if (!hook_wanted(h, HOOK_PROMOTE_GATE))
        return 0;
    json_t *data = json_pack("{s:s, s:O, s:O?, s:O?, s:s}", "verdict", names[*v], "reasons",
                             json_object_get(report, "reasons"), "holdout", (json_t *)holdout,
                             "feedback", (json_t *)feedback, "run", run_id);
    hone_err why = {0};
    int rc = hook_emit(h, HOOK_PROMOTE_GATE, &data, &why);
    json_t *reasons = json_object_get(report, "reasons");
    const char *said = json_string_value(json_object_get(data, "verdict"));
    if (rc == HONE_EVETO) {
        *v = GATE_FAIL;
        json_array_append_new(reasons, json_string(why.msg));
        rc = 0;
    } else if (rc != 0) {
        rc = hone_fail(e, rc, "%s", why.msg);
    } else if (said == NULL || (strcmp(said, "pass") != 0 && strcmp(said, "fail") != 0)) {
        *v = worse_of(*v, GATE_INCONCLUSIVE);
    } else if (strcmp(said, "fail") == 0) {
        *v = GATE_FAIL;
    }
    json_t *told = json_object_get(data, "reasons");
    if (rc == 0 && told != reasons && json_is_array(told))
        json_object_set(report, "reasons", told);
    json_decref(data);
    return rc;
}

int gate_decide(gate_verdict *out, json_t **report, const gate_policy *p, const json_t *holdout,
                const json_t *feedback, const char *run_id, hooks *h, hone_err *e)
{
    json_t *reasons = json_array();
    json_t *r = json_pack("{s:o}", "reasons", reasons);
    gate_verdict v = judge(holdout, "holdout", p, false, reasons);
    *report = NULL;
    if (feedback != NULL) {
        v = worse_of(v, judge(feedback, "feedback", p, p->need_improvement, reasons));
    } else if (p->need_improvement) {
        json_array_append_new(reasons,
                              json_string("inconclusive: no feedback was held out to show a gain"));
        v = worse_of(v, GATE_INCONCLUSIVE);
    }
    int rc = ask_hooks(&v, r, holdout, feedback, run_id, h, e);
    if (rc != 0) {
        json_decref(r);
        return rc;
    }
    json_object_set_new(r, "verdict", json_string(names[v]));
    *out = v;
    *report = r;
    return 0;
}
