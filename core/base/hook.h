#pragma once
/* Hook points: the only way into the appliance from outside. Trainer, data, eval and server emit;
 * plugins and scripts (started by cli/) subscribe. What may be vetoed or modified, and what happens
 * when a subscriber fails, belongs to the point, not to the subscriber.
 *
 * A subscriber belongs to an owner, the plugin. Owners are counted, taken out for a while when they
 * keep failing, and can be taken away while emissions run on other threads.
 *
 * An emission costs one load when nobody listens: guard the making of its data with hook_wanted. */
#include "core/base/err.h"
#include "core/base/hook_points.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

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
    bool breaker; /* whoever is out is not asked here */
    int64_t budget_us;
    const char *what;
    const char *example; /* data of a call, as JSON; NULL: the point has a struct (hook_view) */
} hook_info;

/* train.batch: the rows of one micro-batch. Example i is made of the tokens [bound[i],
 * bound[i + 1]); its share of the loss is multiplied by its weight. */
typedef struct hook_batch {
    const int32_t *ids;  /* [n] */
    const uint8_t *mask; /* [n], 1: learnt */
    uint64_t n, n_examples;
    const uint64_t *bound; /* [n_examples + 1] */
    const uint64_t *row;   /* [n_examples], number of the row in the data */
    int64_t step;          /* optimizer step, from 1 */
    const uint64_t *id;    /* [n_examples], of the record (data_row.id) */
} hook_batch;

/* serve.logits: one row before a token is picked. */
typedef struct hook_logits {
    const int32_t *ids; /* [n_ids], prompt and answer so far */
    uint64_t n_ids;
    int64_t step;     /* tokens answered */
    bool from_device; /* the row was copied from a GPU for this call */
} hook_logits;

/* What a point with a struct carries; values is what may be changed. */
typedef struct hook_view {
    const hook_batch *batch;   /* train.batch; values: weights [n_examples] */
    const hook_logits *logits; /* serve.logits; values: the row [vocab] */
    float *values;
    size_t n_values;
} hook_view;

/* What one emission carries. Each subscriber has a copy of data of its own and may change or
 * replace it (releasing the old reference); what it did counts only where the point may be modified
 * and it answers HOOK_MODIFIED, or HOOK_STOP. So it is with the values of a view. It writes a
 * reason when it vetoes. */
typedef struct hook_call {
    hook_point point;
    json_t *data;          /* null where the point has a view */
    const hook_view *view; /* NULL where it has data */
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
void hook_free(hooks *h); /* NULL is a no-op; no emission may be running */

const hook_info *hook_describe(hook_point p);
int hook_by_name(hook_point *out, const char *name, hone_err *e);

/* Subscribes, also while emissions run. Ascending priority, then the owner's name, which is copied.
 */
int hook_on(hooks *h, hook_point p, const char *owner, int priority, hook_fn *fn, void *user,
            hone_err *e);

typedef struct hook_sub {
    hook_point point;
    int priority;
    hook_fn *fn;
    void *user;
} hook_sub;

/* Puts these in place of all subscriptions of an owner, in one step a point, so that nothing passes
 * a point unseen. Emissions that have begun go on to the old ones: what those point to stays until
 * hook_off. */
int hook_replace(hooks *h, const char *owner, const hook_sub *subs, size_t n, hone_err *e);

/* Takes all subscriptions of an owner away and waits until none of its calls runs: then what `user`
 * points to may go. After ETIMEOUT no new call begins, but one is still running. An owner that does
 * not exist is no error. Not from within a hook. */
int hook_off(hooks *h, const char *owner, int timeout_ms, hone_err *e);

/* Is anybody listening? h may be NULL. */
bool hook_wanted(const hooks *h, hook_point p);

/* Runs the chain. *data (may be NULL) is replaced by what subscribers made of it; the caller keeps
 * one reference. 0: go on. EVETO: refused, e says by whom and why. Other negatives: a subscriber of
 * a point that fails closed failed, or is out. A failure at a point that fails open is logged and
 * counted, and changes nothing. A subscriber that takes longer than the point's budget is counted
 * and logged. */
int hook_emit(hooks *h, hook_point p, json_t **data, hone_err *e);

/* The same for a point with a struct: view->values hold what subscribers made of them. */
int hook_emit_view(hooks *h, hook_point p, const hook_view *view, hone_err *e);

typedef struct hook_stats {
    uint64_t calls, vetoes, modified, failures, late, nanoseconds; /* late: past the budget */
} hook_stats;
/* Of a point: calls are emissions, nanoseconds those of its whole chains. */
hook_stats hook_counters(const hooks *h, hook_point p);

/* ---- owners ---- */

/* When an owner is out for window_ms: after `failures` failures within window_ms, or after `late`
 * late calls when they are half of its calls or more; and while one of its calls has been running
 * for hang_ms and ten times its budget (hook_watch). Counted and applied at the points whose row
 * says so. Points that fail closed and the others are counted apart, so that what fails or lags at
 * one kind does not close the other: where a point fails closed, emissions fail meanwhile, and so
 * being late never takes an owner out there (a guard that is slow is a guard); elsewhere the owner
 * is passed over. A call that hangs takes it out at both. Defaults: 5, 5, 60000, 5000. */
typedef struct hook_breaker {
    int failures, late;
    int64_t window_ms, hang_ms;
} hook_breaker;
hook_breaker hook_breaker_default(void);
/* Before emissions begin. */
void hook_set_breaker(hooks *h, const hook_breaker *b);

/* Takes an owner out for good, at every point and whatever its row says: it is not called any more.
 * Where the point fails closed, emissions fail from now on and say why; elsewhere it is passed
 * over. Reports and manifests say so under "retired". May be called from within its calls. */
void hook_retire(hooks *h, const char *owner, const char *why);

/* Looks for calls that hang, logs each once and takes their owners out. To be called now and then
 * by a thread that runs no hooks. */
void hook_watch(hooks *h);

/* Announces an owner before its first subscription: what reports and manifests say about it
 * ({version, sha256, ...}; takes the reference, also after an error), and which points it may be
 * heard at (array of names, borrowed; NULL: all): a subscription elsewhere is none. EEXIST when one
 * of this name is there, until hook_off. Without it an owner is in no manifest (our own
 * subscriptions, tests). */
int hook_about(hooks *h, const char *owner, json_t *about, const json_t *points, hone_err *e);

/* A new version of an announced owner runs: what is said about it from now on. Takes the reference.
 */
void hook_about_again(hooks *h, const char *owner, json_t *about);

/* Adds to a counter of the owner's own, which only rises. At most 64 names an owner, each of 1 to
 * 63 bytes of UTF-8 without controls; what is beyond, or is no finite number from 0 on, is dropped
 * and logged once. */
void hook_count(hooks *h, const char *owner, const char *name, double add);

typedef struct hook_row {
    const char *owner;
    hook_point point;
    bool listens, out;
    hook_stats stats; /* of this owner at this point */
} hook_row;
/* Every owner and point with a subscription or a call, owners in order of name. */
void hook_each(const hooks *h, void (*fn)(const hook_row *row, void *user), void *user);
void hook_each_count(const hooks *h,
                     void (*fn)(const char *owner, const char *name, double value, void *user),
                     void *user);

/* Has anybody subscribed, or been announced? h may be NULL. */
bool hook_is_used(const hooks *h);

/* For the report of a run: [{name, (what hook_about was given), points: {name: {calls, vetoes,
 * modified, failures, late, seconds}}, counters: {}}], new reference; an empty array where nobody
 * is loaded or h is NULL. */
json_t *hook_report(const hooks *h);
/* For a manifest: those that were announced, without what differs from run to run. */
json_t *hook_manifest(const hooks *h);
