#pragma once
/* Private to core/eval. */
#include "core/eval/eval.h"

#include <stdbool.h>

/* One example: what is scored, what is asked, what was answered. */
typedef struct example {
    int64_t line;
    int32_t *ids;  /* the whole text, for scoring */
    uint8_t *mask; /* [n_ids] supervised */
    size_t n_ids;
    int32_t *prompt; /* for generation; NULL: nothing to answer ({"text"}) */
    size_t n_prompt;
    char *reference;
    gen_result answer;
    double nll, n_scored, n_bytes; /* natural log; tokens and bytes that it is over */
    json_t *record;                /* canonical; NULL where nobody will be shown it */
    json_t *extra;                 /* scores that hooks added: {name: number} */
    float *each;                   /* [n_ids] log-probabilities; NULL: nobody asks for them */
} example;

typedef struct example_set {
    example *items;
    size_t n, cap;
    char sha256[65];
} example_set;

/* custom.c: scores of subscribers, example by example; then a metric each */
bool custom_wanted(const eval_options *o);
int custom_emit(example_set *s, bool answered, const eval_options *o, hone_err *e);
int custom_report(json_t *report, const example_set *s, hone_err *e);

/* probe.c: what subscribers of bias.probe find out, as metrics of the report */
bool probe_wanted(const eval_options *o);
int probe_run(json_t *report, const eval_options *o, hone_err *e);
/* probe_score.c: what they answered (an object), into "metrics" and "examples" of the report.
 * EFORMAT for what is no score, EEXIST for the name of a metric that is there. */
int probe_scores(json_t *report, const json_t *scores, hone_err *e);

/* data.c */
/* Of an example whose ids and mask stand: it fits the model, and what is scored is counted. */
int example_finish(example *x, const eval_options *o, hone_err *e);
int examples_load(example_set *s, const eval_options *o, bool need_prompt, hone_err *e);
void examples_free(example_set *s);

/* run.c: the two passes */
int run_scoring(example_set *s, const eval_options *o, hone_err *e);
int run_answers(example_set *s, const eval_options *o, hone_err *e);
/* Answers again, one at a time, for the first examples; fills the arrays [*n <= max] with seconds.
 */
int run_latency(const example_set *s, const eval_options *o, size_t max, double *first,
                double *total, double *per_token, size_t *n, hone_err *e);

enum { NEEDS_SCORES = 1, NEEDS_ANSWERS = 2 };

/* A row of the metric table. `examples` gets one number an example (or stays NULL: not comparable
 * pair by pair). */
typedef struct metric {
    const char *name;
    unsigned needs;
    bool smaller_is_better;
    int (*compute)(json_t **summary, json_t **examples, const example_set *s, const eval_options *o,
                   hone_err *e);
    const char *what;
} metric;
extern const metric metric_rows[]; /* ends with name NULL */
const metric *metric_find(const char *name);

/* classify.c */
int metric_classification(json_t **summary, json_t **examples, const example_set *s,
                          const eval_options *o, hone_err *e);

/* text.c: both free-standing copies; caller frees */
char *text_trimmed(const char *s);
char *text_normalised(
    const char *s); /* lower case, punctuation and articles out, single spaces (SQuAD's) */
