#pragma once
/* Bundled plugins under test: records through the data hooks, counters, time. */
#include "core/base/hook.h"

#include <time.h>

/* {"record": {"text": text}, "source": "t.jsonl", "line": line, "tags": {}}; new reference. */
json_t *bundled_record(const char *text, size_t len, int64_t line);
/* Emits it at data.filter: 0, or EVETO with the plugin's reason alone in e. Anything else fails the
 * test. */
int bundled_filter(hooks *h, const char *text, size_t len, int64_t line, hone_err *e);
/* Emits it at a point that must not refuse; returns what came of it, new reference. */
json_t *bundled_pass(hooks *h, hook_point p, json_t *data);
/* An empty report, new reference. */
json_t *bundled_report(void);
/* The scores of a probe's answer (takes the reference of data) as the report has them: {"metrics",
 * "examples"}, new reference. */
json_t *bundled_scores(json_t *data);
/* metrics.<name>.<key> of it must be a number within tolerance of want. */
void bundled_expect(const json_t *report, const char *name, const char *key, double want,
                    double tolerance);
/* Its note must be this. */
void bundled_expect_note(const json_t *report, const char *name, const char *want);
/* A text through data.normalize; caller frees. */
char *bundled_normalize(hooks *h, const char *text, size_t len, const char *role);

/* A counter of a plugin; 0 where it never counted. */
double bundled_count(hooks *h, const char *plugin, const char *name);

/* Reports a figure that a test has measured. */
void bundled_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Says how much processor time was used since start; fails the test where it is more than `most`
 * seconds, many times of what a linear program needs. */
void bundled_took(const char *what, clock_t start, double most);

/* "<field>" of every line of a JSON Lines file of the shared data, or every line of a text file
 * (field NULL); array of strings. NULL where the data are absent. */
json_t *bundled_texts(const char *shared_name, const char *field);

/* One line of 10 MB with words of all lengths; caller frees. */
char *bundled_long_line(size_t *len);

/* Without a breaker: hostile input may be late. */
hooks *bundled_hooks(void);
