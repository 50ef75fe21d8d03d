#pragma once
/* Scripts as subscribers of hook points. A plugin is one script with as many states as threads are
 * in it at once; a new version is swapped in under the running ones. */
#include "core/base/err.h"
#include "core/base/hook.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lua_plugin_limits {
    size_t memory;    /* bytes a state; 0: 8 MiB */
    int64_t steps;    /* of a call at a point with a budget of 20 ms or less; 0: 1,000,000 */
    int64_t kv_bytes; /* of the key-value store; 0: 1 MiB */
} lua_plugin_limits;

/* All borrowed for the call alone, but for hooks and cancel. */
typedef struct lua_plugin_args {
    hooks *hooks;           /* NULL: subscribe nowhere (to look at a script, or test it) */
    const char *path;       /* of the script */
    const char *sha256;     /* NULL, or what the file's bytes must have */
    const char *name;       /* NULL: what the script calls itself */
    const json_t *settings; /* NULL: none given */
    bool deterministic;     /* all hooks; those of data are so in any case */
    uint64_t seed;          /* of random numbers in deterministic hooks */
    const char *state_dir;  /* of the key-value store, "<state_dir>/<name>.db"; NULL: no store */
    bool passing_store;     /* without state_dir: a store in memory, gone with the plugin */
    lua_plugin_limits limits;
    const atomic_bool *cancel; /* NULL, or a flag that ends running calls */
} lua_plugin_args;

typedef struct lua_plugin lua_plugin;

/* Reads, loads, runs the script's own tests and subscribes. Errors name file, line and reason; then
 * nothing is subscribed and *out is NULL. */
int lua_plugin_open(lua_plugin **out, const lua_plugin_args *a, hone_err *e);

/* Unsubscribes; waits for running calls. NULL is a no-op. */
void lua_plugin_close(lua_plugin *p);

const char *lua_plugin_name(const lua_plugin *p);

/* {name, version, summary, path, sha256, deterministic, settings: {name: value}, declared: {name:
 * {type, default, help, ...}}, hooks: [{point, priority}], tests: [name]}; new reference. */
json_t *lua_plugin_info(lua_plugin *p);

/* {states, running, peak_bytes, limit_bytes, poisoned, reloads}; new reference. */
json_t *lua_plugin_stats(lua_plugin *p);

/* Reads the file again (its bytes must have `sha256` where that is not NULL). Where the new version
 * loads and passes its own tests, calls that begin from now on run it, at the points that it hooks
 * into, and the old one goes when its last call ends. Else the old one stays and the error says
 * why. Any thread may call it, but one at a time. */
int lua_plugin_reload(lua_plugin *p, const char *sha256, hone_err *e);

/* Runs the script's tests. *report: [{name, passed, message}], a new reference; EINVAL names the
 * first that failed. */
int lua_plugin_test(lua_plugin *p, json_t **report, hone_err *e);
