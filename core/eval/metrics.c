/* The one list of metrics. */
#include "core/base/buf.h"
#include "core/base/mem.h"
#include "core/eval/eval_int.h"
#include "core/eval/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LATENCY_SAMPLES = 32 };

/* Corpus ratios of sums, as lm-evaluation-harness defines them; the token figure is the familiar
 * one, the byte figures do not depend on the tokenizer. */
static int perplexity(json_t **summary, json_t **examples, const example_set *s,
                      const eval_options *o, hone_err *e)
{
    double nll = 0, tokens = 0, bytes = 0;
    (void)o;
    *examples = json_array();
    for (size_t i = 0; i < s->n; i++) {
        const example *x = &s->items[i];
        nll += x->nll;
        tokens += x->n_scored;
        bytes += x->n_bytes;
        json_array_append_new(*examples, json_pack("[f, f]", x->nll, x->n_scored));
    }
    if (tokens == 0)
        return hone_fail(e, HONE_EINVAL, "perplexity: no token to score");
    *summary = json_pack("{s:f, s:f, s:f, s:I}", "value", exp(nll / tokens), "nll", nll / tokens,
                         "tokens_scored", tokens, "n", (json_int_t)s->n);
    if (bytes > 0) {
        json_object_set_new(*summary, "byte_perplexity", json_real(exp(nll / bytes)));
        json_object_set_new(*summary, "bits_per_byte", json_real(nll / bytes / log(2)));
    }
    return 0;
}

typedef bool example_test(const example *x);

/* A share of examples with Wilson's interval. */
static int share(json_t **summary, json_t **examples, const example_set *s, example_test *test)
{
    double hits = 0;
    *examples = json_array();
    for (size_t i = 0; i < s->n; i++) {
        bool hit = test(&s->items[i]);
        hits += hit;
        json_array_append_new(*examples, json_integer(hit));
    }
    stats_interval w = stats_wilson(hits, (double)s->n);
    *summary = json_pack("{s:f, s:f, s:f, s:I}", "value", w.value, "low", w.low, "high", w.high,
                         "n", (json_int_t)s->n);
    return 0;
}

static bool same_under(const example *x, char *(*form)(const char *))
{
    char *a = form(x->answer.text), *b = form(x->reference);
    bool same = strcmp(a, b) == 0;
    free(a);
    free(b);
    return same;
}

static bool is_exact(const example *x)
{
    return same_under(x, text_trimmed);
}

static bool is_same_normalised(const example *x)
{
    return same_under(x, text_normalised);
}

static bool did_stop(const example *x)
{
    return x->answer.finish == GEN_STOP;
}

static int exact_match(json_t **summary, json_t **examples, const example_set *s,
                       const eval_options *o, hone_err *e)
{
    (void)o;
    (void)e;
    return share(summary, examples, s, is_exact);
}

static int normalised_match(json_t **summary, json_t **examples, const example_set *s,
                            const eval_options *o, hone_err *e)
{
    (void)o;
    (void)e;
    return share(summary, examples, s, is_same_normalised);
}

static int stops(json_t **summary, json_t **examples, const example_set *s, const eval_options *o,
                 hone_err *e)
{
    (void)o;
    (void)e;
    return share(summary, examples, s, did_stop);
}

static json_t *percentiles(double *x, size_t n)
{
    double p50 = stats_quantile(x, n, 0.50), p95 = stats_quantile(x, n, 0.95);
    return json_pack("{s:f, s:f, s:f}", "p50", p50, "p95", p95, "p99", stats_quantile(x, n, 0.99));
}

/* One request at a time, so that the figures are the model's and not the batch's. Not a score:
 * nothing to pair. */
static int latency(json_t **summary, json_t **examples, const example_set *s, const eval_options *o,
                   hone_err *e)
{
    double first[LATENCY_SAMPLES], total[LATENCY_SAMPLES], per_token[LATENCY_SAMPLES];
    size_t n = 0;
    (void)examples;
    int rc = run_latency(s, o, LATENCY_SAMPLES, first, total, per_token, &n, e);
    if (rc != 0)
        return rc;
    *summary =
        json_pack("{s:o, s:o, s:o, s:I}", "first_token_s", percentiles(first, n), "per_token_s",
                  percentiles(per_token, n), "total_s", percentiles(total, n), "n", (json_int_t)n);
    return 0;
}

/* clang-format off */
const metric metric_rows[] = {
    {"perplexity", NEEDS_SCORES, true, perplexity, "token and byte perplexity, bits per byte"},
    {"exact_match", NEEDS_ANSWERS, false, exact_match, "answers equal to the reference (outer white space aside)"},
    {"normalized_match", NEEDS_ANSWERS, false, normalised_match, "the same without case, punctuation and articles"},
    {"accuracy", NEEDS_ANSWERS, false, metric_classification, "classification: accuracy, precision, recall, F1, confusion"},
    {"stops", NEEDS_ANSWERS, false, stops, "share of answers that end by themselves"},
    {"latency", NEEDS_ANSWERS, true, latency, "seconds to the first token, a token, the answer: p50, p95, p99"},
    {NULL, 0, false, NULL, NULL},
};
/* clang-format on */

const metric *metric_find(const char *name)
{
    for (const metric *m = metric_rows; m->name != NULL; m++)
        if (strcmp(m->name, name) == 0)
            return m;
    return NULL;
}

char *eval_metric_names(void)
{
    buf b;
    buf_init(&b, 4096);
    for (const metric *m = metric_rows; m->name != NULL; m++)
        buf_printf(&b, "%s%s", b.len > 0 ? ", " : "", m->name);
    return buf_take(&b, NULL);
}
