/* Classification: the labels are the references that occur; an answer that is none of them counts
 * as wrong and is shown in a column of its own. 0/0 is 0. */
#include "core/base/mem.h"
#include "core/eval/eval_int.h"
#include "core/eval/stats.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LABELS = 200 };

typedef struct table {
    char *label[MAX_LABELS];
    size_t n;       /* labels; column n of the matrix is "anything else" */
    int64_t *count; /* [n, n + 1]: reference, prediction */
} table;

static size_t label_index(const table *t, const char *s)
{
    size_t i = 0;
    while (i < t->n && strcmp(t->label[i], s) != 0)
        i++;
    return i;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int collect(table *t, const example_set *s, hone_err *e)
{
    for (size_t i = 0; i < s->n; i++) {
        char *label = text_trimmed(s->items[i].reference);
        if (label_index(t, label) < t->n) {
            free(label);
        } else if (t->n == MAX_LABELS) {
            free(label);
            return hone_fail(e, HONE_EINVAL,
                             "accuracy: more than %d different references; these are not labels "
                             "(exact_match compares free text)",
                             MAX_LABELS);
        } else {
            t->label[t->n++] = label;
        }
    }
    qsort(t->label, t->n, sizeof *t->label, by_text);
    return 0;
}

static void fill(table *t, const example_set *s, json_t *examples)
{
    t->count = mem_array(t->n * (t->n + 1), sizeof *t->count);
    for (size_t i = 0; i < s->n; i++) {
        char *want = text_trimmed(s->items[i].reference);
        char *got = text_trimmed(s->items[i].answer.text);
        size_t r = label_index(t, want), c = label_index(t, got);
        t->count[r * (t->n + 1) + c]++;
        json_array_append_new(examples, json_integer(r == c));
        free(want);
        free(got);
    }
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

typedef struct averages {
    double precision, recall, f1, weighted_f1, hits;
} averages;

/* One class's row of figures; adds it to the averages. */
static json_t *class_row(const table *t, size_t k, double n_all, averages *avg)
{
    double hit = (double)t->count[k * (t->n + 1) + k], support = 0, predicted = 0;
    for (size_t j = 0; j <= t->n; j++)
        support += (double)t->count[k * (t->n + 1) + j];
    for (size_t j = 0; j < t->n; j++)
        predicted += (double)t->count[j * (t->n + 1) + k];
    double p = ratio(hit, predicted), r = ratio(hit, support), f1 = ratio(2 * p * r, p + r);
    avg->precision += p / (double)t->n;
    avg->recall += r / (double)t->n;
    avg->f1 += f1 / (double)t->n;
    avg->weighted_f1 += f1 * support / n_all;
    avg->hits += hit;
    return json_pack("{s:s, s:f, s:f, s:f, s:I}", "label", t->label[k], "precision", p, "recall", r,
                     "f1", f1, "support", (json_int_t)support);
}

static json_t *matrix(const table *t)
{
    json_t *rows = json_array();
    for (size_t r = 0; r < t->n; r++) {
        json_t *row = json_array();
        for (size_t c = 0; c <= t->n; c++)
            json_array_append_new(row, json_integer((json_int_t)t->count[r * (t->n + 1) + c]));
        json_array_append_new(rows, row);
    }
    return rows;
}

int metric_classification(json_t **summary, json_t **examples, const example_set *s,
                          const eval_options *o, hone_err *e)
{
    table t = {0};
    averages avg = {0};
    (void)o;
    *examples = json_array();
    int rc = collect(&t, s, e);
    if (rc == 0) {
        fill(&t, s, *examples);
        json_t *classes = json_array();
        for (size_t k = 0; k < t.n; k++)
            json_array_append_new(classes, class_row(&t, k, (double)s->n, &avg));
        stats_interval w = stats_wilson(avg.hits, (double)s->n);
        *summary =
            json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:o, s:o}", "value", w.value, "low",
                      w.low, "high", w.high, "macro_precision", avg.precision, "macro_recall",
                      avg.recall, "macro_f1", avg.f1, "weighted_f1", avg.weighted_f1, "n",
                      (json_int_t)s->n, "classes", classes, "confusion", matrix(&t));
    }
    for (size_t i = 0; i < t.n; i++)
        free(t.label[i]);
    free(t.count);
    return rc;
}
