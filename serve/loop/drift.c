#include "serve/loop/drift.h"

#include "core/data/formats.h"
#include "core/data/source.h"

#include <math.h>
#include <string.h>

enum { N_BINS = 12 }; /* [0, first), [first, 2 first), ... doubling; the last has no end */

/* What is counted of an example. */
typedef struct sizes {
    size_t prompt, answer, messages;
} sizes;

static sizes sizes_of(const json_t *record)
{
    sizes s = {0};
    size_t i;
    json_t *m, *all = json_object_get(record, "messages");
    s.prompt = json_string_length(json_object_get(record, "prompt"));
    s.answer = json_string_length(json_object_get(record, "completion"));
    s.messages = json_array_size(all);
    json_array_foreach (all, i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        size_t n = json_string_length(json_object_get(m, "content"));
        if (role != NULL && strcmp(role, "assistant") == 0)
            s.answer += n;
        else
            s.prompt += n;
    }
    return s;
}

static size_t prompt_bytes(const sizes *s)
{
    return s->prompt;
}
static size_t answer_bytes(const sizes *s)
{
    return s->answer;
}
static size_t messages(const sizes *s)
{
    return s->messages;
}

static const struct {
    const char *name;
    size_t (*value)(const sizes *s);
    size_t first;
} measures[] = {{"prompt_bytes", prompt_bytes, 16},
                {"answer_bytes", answer_bytes, 16},
                {"messages", messages, 2}};
enum { N_MEASURES = sizeof measures / sizeof *measures };

typedef struct counts {
    double bin[N_MEASURES][N_BINS];
    size_t n;
} counts;

static int bin_of(size_t x, size_t first)
{
    int b = 0;
    for (size_t edge = first; b < N_BINS - 1 && x >= edge; edge *= 2)
        b++;
    return b;
}

static void count(counts *c, const json_t *record)
{
    sizes s = sizes_of(record);
    for (int m = 0; m < N_MEASURES; m++)
        c->bin[m][bin_of(measures[m].value(&s), measures[m].first)]++;
    c->n++;
}

/* Lines that training would reject are not its examples. */
static int count_file(counts *c, const char *path, hone_err *e)
{
    json_t *entry = json_string(path);
    format_spec spec;
    source *in = NULL;
    source_record r = {.got = SOURCE_RECORD};
    int rc = format_spec_read(&spec, entry, e);
    const format *f = spec.format;
    if (rc == 0)
        rc = source_open(&in, path, (source_kind)spec.kind, (source_unit)spec.unit, e);
    while (rc == 0 && r.got != SOURCE_END) {
        json_t *record = NULL;
        rc = source_next(in, &r, e);
        bool read = rc == 0 && r.got == SOURCE_RECORD;
        if (read && f == NULL && format_detect(&f, r.value, &spec, NULL) != 0)
            f = NULL;
        if (read && f != NULL && f->convert(&record, r.value, &spec, NULL) == 0)
            count(c, record);
        json_decref(record);
        json_decref(r.value);
    }
    source_close(in);
    json_decref(entry);
    return rc;
}

static json_t *histograms(const counts *c)
{
    json_t *all = json_object();
    for (int m = 0; m < N_MEASURES; m++) {
        json_t *edges = json_array(), *bins = json_array();
        for (int b = 0; b < N_BINS; b++) {
            json_array_append_new(
                edges, json_integer(b == 0 ? 0 : (json_int_t)measures[m].first << (b - 1)));
            json_array_append_new(bins, json_integer((json_int_t)c->bin[m][b]));
        }
        json_object_set_new(all, measures[m].name,
                            json_pack("{s:o, s:o}", "edges", edges, "counts", bins));
    }
    return all;
}

static double psi(const double *p, size_t n_p, const double *q, size_t n_q)
{
    double sum = 0;
    for (int b = 0; b < N_BINS; b++) {
        double x = (p[b] + 0.5) / ((double)n_p + 0.5 * N_BINS);
        double y = (q[b] + 0.5) / ((double)n_q + 0.5 * N_BINS);
        sum += (x - y) * log(x / y);
    }
    return sum;
}

static json_t *own_scores(const counts *was, const counts *is)
{
    json_t *scores = json_object();
    for (int m = 0; m < N_MEASURES; m++) {
        char name[64];
        snprintf(name, sizeof name, "psi.%s", measures[m].name);
        json_object_set_new(scores, name, json_real(psi(is->bin[m], is->n, was->bin[m], was->n)));
    }
    return scores;
}

int drift_measure(json_t **out, const json_t *current, const char *file, hooks *h, hone_err *e)
{
    counts was = {0}, is = {0};
    *out = NULL;
    int rc = count_file(&was, file, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < json_array_size(current); i++)
        count(&is, json_array_get(current, i));
    json_t *data = json_pack("{s:o, s:o, s:I, s:I, s:o}", "reference", histograms(&was), "current",
                             histograms(&is), "n_reference", (json_int_t)was.n, "n_current",
                             (json_int_t)is.n, "scores", own_scores(&was, &is));
    rc = hook_emit(h, HOOK_DRIFT_MEASURE, &data, e);
    if (rc == 0)
        *out = data;
    else
        json_decref(data);
    return rc;
}
