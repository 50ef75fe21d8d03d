#pragma once
/* Erasure inside somebody's transaction. Internal to serve/store. */
#include "serve/store/db.h"

/* EDENIED when a piece of feedback, its user (hash) or its key was erased; any may be NULL. */
int erasure_check_import(sqlite3 *db, const store *s, const char *feedback_id,
                         const char *user_hash, const char *key_id, hone_err *e);

/* EDENIED when an artefact learned from what was erased, with the id of the erasure. */
int erasure_check_artefact(sqlite3 *db, const char *digest, hone_err *e);

/* EDENIED when a run was given feedback that has been erased since. */
int erasure_check_run(sqlite3 *db, const store *s, const char *run_id, hone_err *e);

extern const char erasure_sql[]; /* its step of the schema */
