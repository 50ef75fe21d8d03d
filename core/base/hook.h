#pragma once
/* Hook points: the only way into the appliance from outside. Trainer, data, eval and server emit;
 * plugins and scripts (started by cli/) subscribe. What may be vetoed or modified, and what happens
 * when a subscriber fails, belongs to the point, not to the subscriber.
 *
 * An emission costs one load when nobody listens: guard the making of its data with hook_wanted. */
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* X(id, name, may_modify, may_veto, fails_closed, budget_us, what) */
#define HOOK_POINTS(X)                                                                             \
    X(DATA_OPEN, "data.open", 1, 1, 1, 100000, "a data source is opened: {path, sha256, type}")    \
    X(DATA_RECORD, "data.record", 1, 1, 1, 50000, "a raw record was parsed: the record itself")    \
    X(DATA_FILTER, "data.filter", 0, 1, 1, 20000, "keep or drop a record: {record, source, line}") \
    X(TRAIN_START, "train.start", 0, 1, 1, 1000000, "a run begins: its manifest")                  \
    X(TRAIN_STEP, "train.step", 0, 1, 0, 5000, "after a step: {step, loss, lr, grad_norm, ...}")   \
    X(TRAIN_CHECKPOINT, "train.checkpoint", 0, 0, 0, 1000000, "a checkpoint stands: {path, step}") \
    X(TRAIN_END, "train.end", 0, 0, 0, 1000000, "a run ends: {status, steps, loss}")               \
    X(EVAL_METRIC, "eval.metric", 1, 0, 1, 20000, "one scored example: {prediction, reference}")   \
    X(EVAL_AGGREGATE, "eval.aggregate", 1, 0, 1, 1000000, "the report before it is returned")      \
    X(MERGE_PRE, "merge.pre", 0, 1, 1, 1000000, "before a merge: {model, adapter}")                \
    X(MERGE_POST, "merge.post", 0, 1, 1, 1000000, "after a merge: {max_abs_diff, agreement}")      \
    X(PROMOTE_GATE, "promote.gate", 1, 1, 1, 5000000, "candidate against live: the gate report")   \
    X(SERVE_REQUEST, "serve.request", 1, 1, 1, 5000, "an authenticated request: {key_id, body}")   \
    X(SERVE_PROMPT, "serve.prompt", 1, 1, 1, 5000, "the rendered prompt: {text}")                  \
    X(SERVE_CHUNK, "serve.chunk", 1, 1, 1, 1000, "a piece of a streamed answer: {text, eof}")      \
    X(SERVE_RESPONSE, "serve.response", 1, 1, 1, 5000, "a complete answer before it is sent")      \
    X(SERVE_LOG, "serve.log", 1, 1, 1, 5000, "a request record before it is stored")               \
    X(FEEDBACK_INGEST, "feedback.ingest", 1, 1, 1, 10000, "feedback before it is stored")          \
    X(FEEDBACK_TO_EXAMPLE, "feedback.to_example", 1, 1, 1, 20000, "feedback becomes an example")   \
    X(AUDIT_EVENT, "audit.event", 0, 0, 0, 5000, "an audit record was appended")

/* clang-format off */
typedef enum {
#define HOOK_ENUM(id, ...) HOOK_##id,
    HOOK_POINTS(HOOK_ENUM)
#undef HOOK_ENUM
    HOOK_N_POINTS
} hook_point;
/* clang-format on */

typedef struct hook_info {
    const char *name;
    bool may_modify, may_veto, fails_closed;
    int64_t budget_us;
    const char *what;
} hook_info;

/* What one emission carries. Each subscriber has a copy of data of its own and may change or
 * replace it (releasing the old reference); what it did counts only where the point may be modified
 * and it answers HOOK_MODIFIED, or HOOK_STOP. It writes a reason when it vetoes. */
typedef struct hook_call {
    hook_point point;
    json_t *data;
    char reason[256];
} hook_call;

/* STOP: nobody after this one is asked; at a point that may be modified, data is taken as it left
 * it. */
enum { HOOK_CONTINUE = 0, HOOK_MODIFIED = 1, HOOK_VETO = 2, HOOK_STOP = 3 };

/* Returns one of the above, or a negative HONE_E* for a failure of its own. MODIFIED or VETO at a
 * point that does not allow it is a failure too. May run on many threads at once. */
typedef int hook_fn(hook_call *call, void *user, hone_err *e);

typedef struct hooks hooks;

hooks *hook_new(void);
void hook_free(hooks *h); /* NULL is a no-op */

const hook_info *hook_describe(hook_point p);
int hook_by_name(hook_point *out, const char *name, hone_err *e);

/* Ascending priority, then name. `name` is copied. Not allowed once emissions have begun on other
 * threads. */
int hook_on(hooks *h, hook_point p, const char *name, int priority, hook_fn *fn, void *user,
            hone_err *e);

/* Is anybody listening? h may be NULL. */
bool hook_wanted(const hooks *h, hook_point p);

/* Runs the chain. *data (may be NULL) is replaced by what subscribers made of it; the caller keeps
 * one reference. 0: go on. EVETO: refused, e says by whom and why. Other negatives: a subscriber of
 * a point that fails closed failed. A failure at a point that fails open is logged and counted, and
 * changes nothing. A subscriber that takes longer than the point's budget is counted and logged. */
int hook_emit(hooks *h, hook_point p, json_t **data, hone_err *e);

typedef struct hook_stats {
    uint64_t calls, vetoes, modified, failures, late, nanoseconds; /* late: past the budget */
} hook_stats;
hook_stats hook_counters(const hooks *h, hook_point p);
