#pragma once
/* What has been made and what is live: runs, artefacts, and the aliases that point at artefacts. An
 * artefact is immutable and named by its digest; the names that people use are aliases, and every
 * move of one is kept. */
#include "core/base/err.h"
#include "serve/store/store.h"

#include <jansson.h>
#include <stdint.h>

enum { REGISTRY_ID_LEN = 32, REGISTRY_DIGEST_LEN = 65 };

/* ---- runs ---- */

/* A new run in state "running"; id ("run-20260131T120000Z-1a2b") is written to `id`. Runs that were
 * left "running" by a process that is gone become "abandoned" first. EEXIST when another run is
 * going on, in whatever container. */
int registry_run_begin(store *s, char id[REGISTRY_ID_LEN], const char *kind, const json_t *settings,
                       hone_err *e);
/* Notes what a run is given to learn from (array of ids), before it learns. */
int registry_run_inputs(store *s, const char *id, const json_t *feedback, hone_err *e);
/* status: "promoted", "registered", "inconclusive", "rejected", "failed"; report may be NULL. */
int registry_run_end(store *s, const char *id, const char *status, const json_t *report,
                     hone_err *e);

/* ---- artefacts ---- */

typedef struct registry_artefact {
    char digest[REGISTRY_DIGEST_LEN];
    char *kind; /* "model" or "adapter" */
    char *path; /* directory */
    char *base; /* for an adapter, the checkpoint that it goes with; else NULL */
    char *run_id;
    json_t *manifest;
    int64_t created_ms;
    bool tainted; /* it learned from what was erased (erasure.h) */
} registry_artefact;
void registry_artefact_free(registry_artefact *a); /* safe on a zeroed one */

/* One transaction: the artefact stands, the feedback is marked as used by the run, and the run has
 * ended; or none of it. Registering the same digest again is no error; a tainted one is replaced.
 * feedback: array of ids, may be NULL. EDENIED when the run was given feedback that has been erased
 * since. */
typedef struct registry_entry {
    const char *digest, *kind, *path, *base, *run_id;
    const json_t *manifest, *feedback, *report;
    const char *run_status;
    const char *promote_by; /* not NULL: alias "live" moves here in the same transaction */
    const char *reason;
} registry_entry;
int registry_add(store *s, const registry_entry *r, hone_err *e);

/* By digest or by a prefix of at least 6 digits. ENOTFOUND; EINVAL when a prefix is not unique. */
int registry_find(store *s, const char *digest, registry_artefact *out, hone_err *e);

/* ---- aliases ---- */

/* ENOTFOUND while the alias was never set. */
int registry_alias(store *s, const char *name, registry_artefact *out, hone_err *e);
/* Moves it, if it still points at `expected` (NULL: whatever it is; "": it must be unset). EAGAIN
 * when it moved meanwhile; EDENIED for a tainted artefact. */
int registry_alias_move(store *s, const char *name, const char *digest, const char *expected,
                        const char *by, const char *reason, hone_err *e);
/* The artefact that was live before the last move. ENOTFOUND when there is none. */
int registry_previous(store *s, const char *name, registry_artefact *out, hone_err *e);
/* A number that changes with every move: what a server polls. 0 while unset. */
int registry_alias_version(store *s, const char *name, int64_t *out, hone_err *e);

/* New references: {"artefacts": [...], "aliases": {...}, "runs": [...]}; the moves of an alias,
 * newest first. */
int registry_list(store *s, json_t **out, hone_err *e);
int registry_history(store *s, const char *name, json_t **out, hone_err *e);

extern const char registry_sql[]; /* its step of the schema */
