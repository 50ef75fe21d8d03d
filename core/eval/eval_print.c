/* Reports as tables for people. */
#include "core/eval/eval.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static double num(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* Room for the longest name of a metric. */
static int name_width(const json_t *metrics)
{
    const char *name;
    json_t *m;
    size_t width = 18;
    json_object_foreach ((json_t *)(uintptr_t)metrics, name, m) {
        width = strlen(name) > width ? strlen(name) : width;
    }
    return (int)width;
}

static void print_percentiles(const char *name, int width, const json_t *m, FILE *out)
{
    static const char *const rows[] = {"first_token_s", "per_token_s", "total_s", NULL};
    for (size_t i = 0; rows[i] != NULL; i++) {
        const json_t *p = json_object_get(m, rows[i]);
        fprintf(out, "%-*s %-14s p50 %.4f  p95 %.4f  p99 %.4f\n", width, i == 0 ? name : "",
                rows[i], num(p, "p50"), num(p, "p95"), num(p, "p99"));
    }
}

static void print_matrix(const json_t *m, FILE *out)
{
    const json_t *classes = json_object_get(m, "classes");
    const json_t *rows = json_object_get(m, "confusion");
    size_t n = json_array_size(classes);
    fprintf(out, "\n%-24s %9s %9s %9s %8s   confusion (columns as rows, then other)\n", "label",
            "precision", "recall", "f1", "support");
    for (size_t i = 0; i < n; i++) {
        const json_t *c = json_array_get(classes, i);
        fprintf(out, "%-24.24s %9.3f %9.3f %9.3f %8.0f  ",
                json_string_value(json_object_get(c, "label")), num(c, "precision"),
                num(c, "recall"), num(c, "f1"), num(c, "support"));
        for (size_t k = 0; k <= n; k++)
            fprintf(out, " %3d",
                    (int)json_integer_value(json_array_get(json_array_get(rows, i), k)));
        fputc('\n', out);
    }
    fprintf(out, "%-24s %9.3f %9.3f %9.3f\n\n", "macro", num(m, "macro_precision"),
            num(m, "macro_recall"), num(m, "macro_f1"));
}

static void print_metric(const char *name, int width, const json_t *m, FILE *out)
{
    if (json_object_get(m, "value") == NULL) {
        print_percentiles(name, width, m, out);
        return;
    }
    if (json_is_null(json_object_get(m, "value"))) {
        const char *note = json_string_value(json_object_get(m, "note"));
        fprintf(out, "%-*s %s\n", width, name, note != NULL ? note : "insufficient data");
        return;
    }
    fprintf(out, "%-*s %.4f", width, name, num(m, "value"));
    if (json_object_get(m, "low") != NULL)
        fprintf(out, "  [%.4f, %.4f]", num(m, "low"), num(m, "high"));
    if (json_object_get(m, "info") != NULL && json_object_get(m, "n") != NULL)
        fprintf(out, "  of %.0f", num(m, "n"));
    if (json_object_get(m, "bits_per_byte") != NULL)
        fprintf(out, "  (%.4f a byte, %.4f bits a byte, %.0f tokens)", num(m, "byte_perplexity"),
                num(m, "bits_per_byte"), num(m, "tokens_scored"));
    if (json_object_get(m, "note") != NULL)
        fprintf(out, "  %s", json_string_value(json_object_get(m, "note")));
    fputc('\n', out);
    if (json_object_get(m, "confusion") != NULL)
        print_matrix(m, out);
}

void eval_print(const json_t *report, FILE *out)
{
    const char *name;
    json_t *m;
    int width = name_width(json_object_get(report, "metrics"));
    const char *data = json_string_value(json_object_get(report, "data"));
    if (data != NULL)
        fprintf(out, "%s: %d examples\n", data,
                (int)json_integer_value(json_object_get(report, "n")));
    json_object_foreach (json_object_get(report, "metrics"), name, m) {
        print_metric(name, width, m, out);
    }
}

void eval_print_compare(const json_t *compare, FILE *out)
{
    const char *name;
    json_t *m;
    size_t i;
    int width = name_width(json_object_get(compare, "metrics"));
    fprintf(out, "%-*s %10s %10s   %-34s %s\n", width, "metric", "before", "after",
            "difference [95 % interval, paired]", "verdict");
    json_object_foreach (json_object_get(compare, "metrics"), name, m) {
        const json_t *better = json_object_get(m, "better");
        fprintf(out, "%-*s %10.4f %10.4f   %+.4f [%+.4f, %+.4f] %-14s %s\n", width, name,
                num(m, "before"), num(m, "after"), num(m, "difference"), num(m, "low"),
                num(m, "high"), json_string_value(json_object_get(m, "unit")),
                json_is_null(better)   ? "no clear difference"
                : json_is_true(better) ? "better"
                                       : "worse");
    }
    json_array_foreach (json_object_get(compare, "lost"), i, m) {
        fprintf(out, "%-*s has a figure before and none after\n", width, json_string_value(m));
    }
}
