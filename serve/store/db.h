#pragma once
/* How the modules of serve/store run statements: jobs for the writer, and reads. Internal to
 * serve/store. */
#include "serve/store/sql.h"
#include "serve/store/store.h"

/* Runs inside a transaction; a negative return undoes what this job did. */
typedef int store_fn(sqlite3 *db, void *user, hone_err *e);

/* Called on the writer thread after the commit (rc 0) or the failure (e says why). Owns `user` from
 * then on. */
typedef void store_done_fn(void *user, int rc, const hone_err *e);

/* Waits until fn is committed and on disk. */
int store_write(store *s, store_fn *fn, void *user, hone_err *e);

/* Queues fn. 0: done will be called. EAGAIN: the queue is full, nothing will be called and the drop
 * is counted. */
int store_post(store *s, store_fn *fn, store_done_fn *done, void *user);

/* Runs fn on a read connection, in one read transaction. */
int store_read(store *s, store_fn *fn, void *user, hone_err *e);

/* Only one process retrains in a directory: a lock on <dir>/runs.lock, which the kernel takes back
 * when its process is gone, however that went and whatever numbers processes have in other
 * containers. EAGAIN: another store has it. Again, or without it, is no error. Not thread-safe. */
int store_lock_runs(store *s, hone_err *e);
void store_unlock_runs(store *s);

hooks *store_hooks(const store *s);
int64_t store_now_ms(const store *s);

/* One row is one step of the schema; rows are only ever added, at the end. */
typedef struct migration {
    int64_t version; /* 1, 2, 3, ... without gaps */
    const char *name;
    const char *sql;
} migration;
extern const migration migrations[]; /* ends with a zero version */

/* Applies the rows that the database does not have yet, each in its own transaction. */
int migrate(sqlite3 *db, const migration *rows, hone_err *e);
