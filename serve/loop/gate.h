#pragma once
/* The promotion gate: what two paired comparisons (candidate against live, on the fixed holdout and
 * on feedback that was never trained on) allow us to conclude. Three outcomes: a small holdout
 * cannot support a tight margin, and then the gate says so instead of guessing. */
#include "core/base/err.h"
#include "core/base/hook.h"

#include <jansson.h>

typedef enum { GATE_PASS, GATE_FAIL, GATE_INCONCLUSIVE } gate_verdict;
const char *gate_verdict_name(gate_verdict v); /* "pass", "fail", "inconclusive" */

typedef struct gate_policy {
    double margin;         /* share metrics may be this much worse (0.02: two points) */
    double margin_nats;    /* negative log-likelihood per token may be this much worse */
    int64_t min_pairs;     /* with fewer examples nothing is concluded */
    bool need_improvement; /* the held-out feedback must get better, not only no worse */
} gate_policy;

/* holdout: eval_compare of live (before) and candidate (after); feedback likewise, or NULL when
 * there was none to hold out. Non-inferiority on every holdout metric: the whole 95 % interval
 * within the margin passes, the whole beyond fails, else inconclusive. Improvement on feedback: the
 * interval above 0 passes, below 0 fails, else inconclusive. *report: {"verdict", "reasons":
 * [text]}, new reference. Then promote.gate subscribers see {"verdict", "reasons", "holdout",
 * "feedback", "run"} and may make the verdict stricter, never looser; a veto is a fail. */
int gate_decide(gate_verdict *out, json_t **report, const gate_policy *p, const json_t *holdout,
                const json_t *feedback, const char *run_id, hooks *h, hone_err *e);
