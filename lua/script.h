#pragma once
/* One loaded script: a state with its hooks. It begins with its header, and then says what it hooks
 * into:
 *
 *     plugin {name = "short", version = "1.0", summary = "drops short answers",
 *             settings = {least = {type = "integer", default = 3, help = "words"}},
 *             tests = {["a word is too short"] = function(t) ... end}}
 *     on("data.filter", function(record) ... end, {priority = 10})
 *
 * A script belongs to one thread at a time. */
#include "core/base/hook.h"
#include "lua/form.h"
#include "lua/kv.h"
#include "lua/sandbox.h"
#include "lua/stream.h"

enum { SCRIPT_MAX_BYTES = 1 << 20, SCRIPT_MAX_HOOKS = 64 };

/* What all states of one version share; borrowed for the life of a script. */
typedef struct script_source {
    char *file; /* its base name: what messages call it */
    char *text;
    size_t len;
    char sha256[65];
} script_source;

/* Errors: what file_read says; ELIMIT past SCRIPT_MAX_BYTES; EDENIED where `sha256` is not NULL and
 * not the digest of the bytes. */
int script_read(script_source *out, const char *path, const char *sha256, hone_err *e);
void script_source_free(script_source *s);

typedef struct script_setup {
    sandbox_limits limits; /* of an ordinary call (see script_call) and of loading */
    bool deterministic;    /* every hook, not only those of data */
    bool quiet;            /* its log goes nowhere: for tests */
    uint64_t seed;
    const char *name; /* in the log; NULL: what the script calls itself */
    const json_t *settings;
    const atomic_bool *cancel;
    kv *kv;
    hooks *hooks; /* that count for it; NULL: nobody does */
    streams *streams;
} script_setup;

typedef struct script_hook {
    hook_point point;
    int priority;
    const form *form;
    int line; /* where the function begins */
} script_hook;

typedef struct script script;

int script_open(script **out, const script_source *s, const script_setup *setup, hone_err *e);
void script_close(script *s); /* NULL is a no-op */

/* {name, version, summary, settings (as declared), tests (their names)}; borrowed. */
const json_t *script_header(const script *s);
const json_t *script_settings(const script *s); /* the values; borrowed */
const script_hook *script_hooks(const script *s, size_t *n);

/* Runs hook i as a subscriber: what hook_fn says. Its limits grow with the budget of the point: the
 * steps in its proportion to 20 ms, the time to twice the budget, or ten times where it is
 * deterministic, since the clock must not decide then.
 * Errors: those of sandbox_run; EINVAL for an answer that means nothing at this point. */
int script_call(script *s, size_t i, hook_call *c, hone_err *e);

/* A limit was hit; close it. */
bool script_spent(const script *s);
sandbox_usage script_usage(const script *s);

/* Runs the tests of the header. *report is a new reference: [{name, passed, message}]. EINVAL names
 * the first that failed. */
int script_test(script *s, json_t **report, hone_err *e);
