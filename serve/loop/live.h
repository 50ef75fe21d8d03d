#pragma once
/* What the server serves: the artefact that the alias `live` points at. A thread watches the alias;
 * when it moves, the new artefact is verified, loaded beside the old one, asked for one token and
 * made current. Requests in flight finish where they began. */
#include "adapters/sign.h"
#include "core/base/err.h"
#include "serve/engine/engine.h"
#include "serve/store/registry.h"

typedef struct live live;

typedef struct live_options {
    store *st;
    engine *eng;
    served_options load; /* model_dir, adapter_dir: what is registered and set live when the alias
                            is unset; the other fields hold for every load. Strings are borrowed for
                            the life of the watcher */
    const sign_trust *trust; /* outlives the watcher */
    /* The name under which what the alias `canary` points at is served beside what is live; NULL:
     * it is not looked at. What is live already, or has learned from what was erased since, is not
     * served a second time. Borrowed. */
    const char *canary;
    int poll_ms; /* 0: 500 */
} live_options;

/* Starts the thread, which loads what is live (registering the configured model first when nothing
 * is), asks it for one token, makes it current and watches. Meanwhile engine_why_none says how far
 * it is. */
int live_start(live **out, const live_options *o, hone_err *e);
/* Waits until the first model is current, or cannot be (e says why). */
int live_wait(live *l, hone_err *e);
void live_stop(live *l); /* NULL is a no-op; the engine keeps its current model */

typedef enum { LIVE_LOADING, LIVE_READY, LIVE_FAILED } live_phase;

typedef struct live_status {
    live_phase phase; /* of the first model: FAILED is for good */
    char digest[65];  /* current */
    char canary[65];  /* beside it; "" */
    int64_t swaps, failures;
    char last_error[256]; /* of the last failed load; "" */
} live_status;
live_status live_state(live *l);

/* Registers a checkpoint (and adapter) as an artefact and sets `live` to it if it is unset. What is
 * signed stays so: its signature is checked here and at every load. */
int live_bootstrap(store *st, const char *model_dir, const char *adapter_dir, const sign_trust *t,
                   hone_err *e);

/* Registers a checkpoint, or an adapter and the checkpoint that it goes with (base; NULL: none),
 * and promotes nothing; digest is its name. The directory has to stay where it is, and as it is:
 * every load verifies it. */
int live_register(store *st, const char *dir, const char *base, const sign_trust *t,
                  char digest[65], hone_err *e);

/* Opens an artefact after verify_artefact. */
int live_open(served **out, const registry_artefact *a, const served_options *with,
              const sign_trust *t, hone_err *e);
