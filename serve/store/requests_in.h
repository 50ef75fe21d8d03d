#pragma once
/* Stored requests inside somebody's transaction. Internal to serve/store. */
#include "serve/store/db.h"

/* As requests_get. */
int requests_get_in(sqlite3 *db, const char *id, json_t **out, hone_err *e);
