/* Scores of probes. A score is a number, {"value" (null: insufficient data), "n", "low", "high"},
 * or
 * {"examples"} of which value, n and interval are worked out here, all of it with
 * "smaller_is_better", "info" and "note".
 *
 * An example is a number, or [sum, weight] of what is a ratio of sums over the items: of items that
 * count for nothing weight and sum are 0, so that the examples of two models belong to each other
 * also where these models answered different ones. The value is sum / weight of all, +- 1.96
 * standard errors; with "ends": [a, b], where every example is one of the two, Wilson's interval of
 * the share of b, carried over. n counts the examples with weight; fewer than "min_n" are
 * insufficient data. Scores with examples are compared before and after, pair by pair. */
#include "core/base/mem.h"
#include "core/eval/eval_int.h"
#include "core/eval/stats.h"

#include <math.h>
#include <stdlib.h>

/* What a score's examples come to. */
typedef struct examples_of {
    double *x, *w; /* [n], one allocation */
    size_t n, n_counted;
    double sum, weight;
} examples_of;

static bool is_finite(const json_t *v)
{
    return json_is_number(v) && isfinite(json_number_value(v));
}

static int read_one(examples_of *s, size_t i, const json_t *v)
{
    const json_t *sum = json_is_array(v) ? json_array_get(v, 0) : v;
    const json_t *weight = json_is_array(v) ? json_array_get(v, 1) : NULL;
    if (!is_finite(sum) ||
        (json_is_array(v) && (!is_finite(weight) || json_number_value(weight) < 0)))
        return HONE_EFORMAT;
    s->x[i] = json_number_value(sum);
    s->w[i] = weight != NULL ? json_number_value(weight) : 1;
    if (s->w[i] == 0 && s->x[i] != 0)
        return HONE_EFORMAT;
    s->n_counted += s->w[i] > 0;
    s->sum += s->x[i];
    s->weight += s->w[i];
    return 0;
}

/* The caller frees s->x, also after an error. */
static int read_examples(examples_of *s, const json_t *list, const char *name, hone_err *e)
{
    if (!json_is_array(list))
        return hone_fail(e, HONE_EFORMAT, "bias.probe: score '%s': examples are no list", name);
    s->n = json_array_size(list);
    s->x = mem_array(2 * s->n + 1, sizeof *s->x);
    s->w = s->x + s->n;
    for (size_t i = 0; i < s->n; i++)
        if (read_one(s, i, json_array_get(list, i)) != 0)
            return hone_fail(e, HONE_EFORMAT,
                             "bias.probe: score '%s': example %zu is neither a number nor [sum, "
                             "weight] with a weight above 0 or both 0",
                             name, i + 1);
    return 0;
}

static int between_ends(stats_interval *out, const examples_of *s, const json_t *ends,
                        const char *name, hone_err *e)
{
    const json_t *first = json_array_get(ends, 0), *last = json_array_get(ends, 1);
    double a = json_number_value(first), b = json_number_value(last);
    if (!is_finite(first) || !is_finite(last) || json_array_size(ends) != 2 || a == b)
        return hone_fail(e, HONE_EFORMAT, "bias.probe: score '%s': ends must be two numbers", name);
    for (size_t i = 0; i < s->n; i++)
        if (s->x[i] != a * s->w[i] && s->x[i] != b * s->w[i])
            return hone_fail(e, HONE_EFORMAT,
                             "bias.probe: score '%s': example %zu is at neither of its ends", name,
                             i + 1);
    stats_interval share = stats_wilson((s->sum - a * s->weight) / (b - a), s->weight);
    *out = (stats_interval){a + (b - a) * share.value, a + (b - a) * share.low,
                            a + (b - a) * share.high};
    return 0;
}

static void put_few(json_t *score, size_t n, int64_t min_n)
{
    char *note =
        mem_printf("insufficient data: %zu of the %lld that are needed", n, (long long)min_n);
    json_object_set_new(score, "value", json_null());
    json_object_set_new(score, "note", json_string(note));
    free(note);
}

/* Value, n and interval of a score that has examples and no value. */
static int work_out(json_t *score, const char *name, hone_err *e)
{
    const json_t *ends = json_object_get(score, "ends");
    int64_t min_n = json_integer_value(json_object_get(score, "min_n"));
    examples_of s = {0};
    stats_interval v = {0};
    int rc = read_examples(&s, json_object_get(score, "examples"), name, e);
    bool few = s.n_counted == 0 || (int64_t)s.n_counted < min_n;
    if (rc == 0 && !few && ends != NULL)
        rc = between_ends(&v, &s, ends, name, e);
    else if (rc == 0 && !few)
        v = stats_ratio(s.x, s.w, s.n);
    free(s.x);
    if (rc != 0)
        return rc;
    json_object_set_new(score, "n", json_integer((json_int_t)s.n_counted));
    if (few) {
        put_few(score, s.n_counted, min_n > 1 ? min_n : 1);
        return 0;
    }
    json_object_set_new(score, "value", json_real(v.value));
    json_object_set_new(score, "low", json_real(v.low));
    json_object_set_new(score, "high", json_real(v.high));
    return 0;
}

/* Examples beside a value of the subscriber's own. */
static int check_examples(const json_t *list, const char *name, hone_err *e)
{
    examples_of s = {0};
    int rc = list != NULL ? read_examples(&s, list, name, e) : 0;
    free(s.x);
    return rc;
}

static int finish(json_t *score, const char *name, hone_err *e)
{
    const json_t *value = json_object_get(score, "value");
    const json_t *list = json_object_get(score, "examples");
    int rc =
        value == NULL && list != NULL ? work_out(score, name, e) : check_examples(list, name, e);
    value = json_object_get(score, "value");
    if (rc == 0 && !json_is_null(value) && !is_finite(value))
        rc = hone_fail(e, HONE_EFORMAT, "bias.probe: score '%s' is not a number", name);
    return rc;
}

static int add_score(json_t *report, const char *name, json_t *given, hone_err *e)
{
    static const char *const flags[] = {"smaller_is_better", "info"};
    json_t *metrics = json_object_get(report, "metrics");
    if (json_object_get(metrics, name) != NULL || metric_find(name) != NULL)
        return hone_fail(e, HONE_EEXIST, "bias.probe: there is a metric '%s' already", name);
    json_t *o = json_is_object(given) ? json_copy(given) : json_pack("{s:O}", "value", given);
    int rc = finish(o, name, e);
    if (rc == 0) {
        json_t *list = json_object_get(o, "examples");
        if (list != NULL && json_is_number(json_object_get(o, "value")))
            json_object_set(json_object_get(report, "examples"), name, list);
        json_object_del(o, "examples");
        json_object_del(o, "min_n");
        json_object_del(o, "ends");
        for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
            json_object_set_new(o, flags[i],
                                json_boolean(json_is_true(json_object_get(o, flags[i]))));
        json_object_set(metrics, name, o);
    }
    json_decref(o);
    return rc;
}

int probe_scores(json_t *report, const json_t *scores, hone_err *e)
{
    const char *name;
    json_t *score;
    int rc = 0;
    json_object_foreach ((json_t *)(uintptr_t)scores, name, score) {
        if (rc == 0)
            rc = add_score(report, name, score, e);
    }
    return rc;
}
