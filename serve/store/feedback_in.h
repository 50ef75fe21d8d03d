#pragma once
/* Feedback inside somebody's transaction. Internal to serve/store. */
#include "serve/store/db.h"
#include "serve/store/feedback.h"

/* The record that `where` picks, with two text parameters (types "s" or "ss"): new reference, NULL
 * for none. */
int feedback_find(sqlite3 *db, const char *where, const char *types, const char *a, const char *b,
                  json_t **out, hone_err *e);

/* New reference; ENOTFOUND. */
int feedback_find_id(sqlite3 *db, const char *id, json_t **out, hone_err *e);
