#pragma once
/* Statements over SQLite with this project's errors. Internal to serve/store: nobody else sees a
 * sqlite3.
 *
 * Parameters are given as a string of types and the values in that order:
 *   s  const char *            text; NULL is NULL
 *   i  int64_t                 integer (cast it: the compiler cannot check it)
 *   z  int64_t                 integer; 0 is NULL
 *   d  double                  real
 *   b  const void *, size_t    blob
 *   j  const json_t *          compact JSON text; NULL is NULL */
#include "core/base/err.h"

#include <jansson.h>
#include <sqlite3.h>
#include <stdint.h>

/* "<what>: <text of SQLite>" with the code it means (full disk and bad reads are EIO, a lock
 * EAGAIN). */
int sql_error(sqlite3 *db, const char *what, hone_err *e);

/* Runs a script without parameters. */
int sql_exec(sqlite3 *db, const char *script, hone_err *e);

/* One statement with its parameters bound; finish it with sqlite3_finalize. *out = NULL first. */
int sql_prepare(sqlite3_stmt **out, sqlite3 *db, hone_err *e, const char *text, const char *types,
                ...);

/* 1: a row, 0: the end, negative: an error. */
int sql_step(sqlite3_stmt *st, hone_err *e);

/* Runs a statement that gives no rows. */
int sql_run(sqlite3 *db, hone_err *e, const char *text, const char *types, ...);

/* The first column of the first row. ENOTFOUND when there is no row; NULL is 0. */
int sql_int(int64_t *out, sqlite3 *db, hone_err *e, const char *text, const char *types, ...);

/* Columns. Text is valid until the next step, NULL for NULL. JSON is a new reference, NULL for NULL
 * or for text that is not JSON. */
const char *sql_text(sqlite3_stmt *st, int col);
json_t *sql_json(sqlite3_stmt *st, int col);

/* Copies a text column into dst (cap bytes, cut where longer); NULL gives "". */
void sql_copy(char *dst, size_t cap, sqlite3_stmt *st, int col);

/* Sets o[key] to the column's value: integer, real, text; NULL sets null. */
void sql_set(json_t *o, const char *key, sqlite3_stmt *st, int col);
