/* Two reports on the same examples, pair by pair. */
#include "core/base/mem.h"
#include "core/eval/eval.h"
#include "core/eval/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS = 10000 };

static int check_same(const json_t *a, const json_t *b, hone_err *e)
{
    static const char *const keys[] = {"data_sha256", "n", "settings", NULL};
    for (size_t i = 0; keys[i] != NULL; i++)
        if (!json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i])))
            return hone_fail(e, HONE_EINVAL, "the reports differ in '%s' and cannot be compared",
                             keys[i]);
    return 0;
}

/* An example's entry is a number, or [sum, weight]. */
static void split(const json_t *list, double *x, double *w)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        bool pair = json_is_array(v);
        x[i] = json_number_value(pair ? json_array_get(v, 0) : v);
        w[i] = pair ? json_number_value(json_array_get(v, 1)) : 1;
    }
}

static stats_interval paired(const json_t *a, const json_t *b)
{
    size_t n = json_array_size(a);
    double *x = mem_array(4 * n, sizeof *x);
    split(a, x, x + n);
    split(b, x + 2 * n, x + 3 * n);
    stats_paired p = {.a = x,
                      .weight_a = x + n,
                      .b = x + 2 * n,
                      .weight_b = x + 3 * n,
                      .n = n,
                      .draws = DRAWS,
                      .level = 0.95,
                      .seed = 1};
    stats_interval d = stats_bootstrap(&p);
    free(x);
    return d;
}

static json_t *verdict(const stats_interval *d, bool smaller)
{
    if (d->low <= 0 && d->high >= 0)
        return json_null();
    return json_boolean((d->value < 0) == smaller);
}

/* Scores of subscribers have no unit that we know. */
static const char *unit_of(const json_t *m, bool pairs)
{
    if (json_object_get(m, "info") != NULL)
        return "score";
    return pairs ? "nats per token" : "share";
}

/* For perplexity the difference is of the mean negative log-likelihood (nats a token), where sums
 * are additive. */
static json_t *compare_metric(const json_t *ma, const json_t *mb, const json_t *xa,
                              const json_t *xb)
{
    bool smaller = json_is_true(json_object_get(ma, "smaller_is_better"));
    stats_interval d = paired(xa, xb);
    bool pairs = json_is_array(json_array_get(xa, 0));
    json_t *o = json_pack(
        "{s:O, s:O, s:f, s:f, s:f, s:s, s:b, s:o}", "before", json_object_get(ma, "value"), "after",
        json_object_get(mb, "value"), "difference", d.value, "low", d.low, "high", d.high, "unit",
        unit_of(ma, pairs), "smaller_is_better", smaller, "better", verdict(&d, smaller));
    if (json_is_true(json_object_get(ma, "info")))
        json_object_set_new(o, "info", json_true());
    return o;
}

int eval_compare(json_t **out, const json_t *before, const json_t *after, hone_err *e)
{
    const char *name;
    json_t *xa;
    *out = NULL;
    int rc = check_same(before, after, e);
    if (rc != 0)
        return rc;
    json_t *o =
        json_pack("{s:O, s:{}, s:[]}", "n", json_object_get(before, "n"), "metrics", "lost");
    json_object_foreach (json_object_get(before, "examples"), name, xa) {
        json_t *xb = json_object_get(json_object_get(after, "examples"), name);
        if (xb == NULL || json_array_size(xa) != json_array_size(xb) || json_array_size(xa) == 0) {
            json_array_append_new(json_object_get(o, "lost"), json_string(name));
            continue;
        }
        json_object_set_new(
            json_object_get(o, "metrics"), name,
            compare_metric(json_object_get(json_object_get(before, "metrics"), name),
                           json_object_get(json_object_get(after, "metrics"), name), xa, xb));
    }
    *out = o;
    return 0;
}
