#pragma once
/* The database of an appliance: <dir>/hone.db (SQLite, WAL). It holds keys, the audit log, stored
 * responses, feedback, and what the retraining loop registers.
 *
 * One thread writes. Writers queue (the queue is bounded); what waits is written in one transaction
 * and one sync, each job in a savepoint of its own, so that a failing job takes nothing else with
 * it. Readers have connections of their own and see the last committed state. Other processes may
 * use the same database at the same time.
 *
 * The directory also holds `pepper` (mode 0600, made on first use): 32 random bytes without which
 * the hashes in the database are worth nothing to whoever steals it. */
#include "core/base/err.h"
#include "core/base/hook.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct store store;

typedef struct store_options {
    int queue_jobs;          /* writes that may wait; 0: 4096 */
    hooks *hooks;            /* AUDIT_EVENT is emitted there; may be NULL; must outlive the store */
    bool must_exist;         /* ENOTFOUND instead of making a new database */
    int64_t (*now_ms)(void); /* by which keys expire; NULL: clock_unix_ms */
} store_options;

/* Opens or makes the database and brings its schema up to date. o may be NULL. Errors: EUNSUPPORTED
 * when the schema is newer than this program (both numbers named); EDENIED when the pepper is
 * readable by others; EFORMAT when the pepper is not the one that the database was made with. */
int store_open(store **out, const char *dir, const store_options *o, hone_err *e);

/* Writes everything that is queued, then closes. NULL is a no-op. */
void store_close(store *s);

const char *store_dir(const store *s); /* borrowed */

/* The schema version of an open database. */
int store_version(store *s, int64_t *out, hone_err *e);

typedef struct store_stats {
    uint64_t written; /* jobs committed */
    uint64_t failed;  /* jobs that failed */
    uint64_t dropped; /* jobs refused because the queue was full */
    uint64_t commits; /* transactions */
    int waiting;
} store_stats;
store_stats store_counters(store *s);

/* Packs the database and folds the write-ahead log into it, so that what was deleted is in no file
 * any more. */
int store_fold(store *s, hone_err *e);

/* Waits until everything that was queued before the call is written. */
int store_flush(store *s, hone_err *e);

/* Keyed digests for what is stored but must not be readable. `hex` takes 64 digits and a
 * terminator. */
typedef enum {
    STORE_KEYS = 1,
    STORE_USERS,
    STORE_AUDIT,
    STORE_TOKENS,
    STORE_CHECK,
    STORE_ERASED
} store_purpose;
void store_digest(const store *s, store_purpose purpose, const void *data, size_t len,
                  unsigned char out[32]);
void store_digest_hex(const store *s, store_purpose purpose, const void *data, size_t len,
                      char hex[65]);
