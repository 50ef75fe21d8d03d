#include "serve/store/sql.h"

#include "core/base/js.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int meaning(int sqlite_code)
{
    switch (sqlite_code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return HONE_EAGAIN;
    case SQLITE_NOMEM:
        return HONE_ENOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return HONE_EFORMAT;
    case SQLITE_CONSTRAINT:
        return HONE_EEXIST;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
        return HONE_EDENIED;
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        return HONE_EIO;
    default:
        return HONE_EINTERNAL;
    }
}

int sql_error(sqlite3 *db, const char *what, hone_err *e)
{
    int system = sqlite3_extended_errcode(db), code = meaning(system);
    const char *file = db != NULL ? sqlite3_db_filename(db, "main") : NULL;
    bool place = file != NULL && (code == HONE_EIO || code == HONE_EDENIED);
    return hone_fail(e, code, "database: %s: %s%s%s%s", what, sqlite3_errmsg(db), place ? ": " : "",
                     place ? file : "", (system & 0xff) == SQLITE_FULL ? "; free space there" : "");
}

int sql_exec(sqlite3 *db, const char *script, hone_err *e)
{
    if (sqlite3_exec(db, script, NULL, NULL, NULL) == SQLITE_OK)
        return 0;
    char head[48];
    snprintf(head, sizeof head, "%.*s", (int)strcspn(script, "(\n"), script);
    return sql_error(db, head, e);
}

static int bind_json(sqlite3_stmt *st, int i, const json_t *v)
{
    if (v == NULL || json_is_null(v))
        return sqlite3_bind_null(st, i);
    char *text = js_text(v, false);
    return text == NULL ? SQLITE_NOMEM : sqlite3_bind_text(st, i, text, -1, free);
}

static int bind_int(sqlite3_stmt *st, int i, int64_t v, bool zero_is_null)
{
    return v == 0 && zero_is_null ? sqlite3_bind_null(st, i) : sqlite3_bind_int64(st, i, v);
}

/* All text and blobs are copied, so that a statement may outlive its arguments. */
static int bind_all(sqlite3_stmt *st, const char *types, va_list ap)
{
    int rc = SQLITE_OK;
    for (int i = 1; types[i - 1] != '\0' && rc == SQLITE_OK; i++) {
        const void *p;
        switch (types[i - 1]) {
        case 's':
            rc = sqlite3_bind_text(st, i, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
            break;
        case 'i':
        case 'z':
            rc = bind_int(st, i, va_arg(ap, int64_t), types[i - 1] == 'z');
            break;
        case 'd':
            rc = sqlite3_bind_double(st, i, va_arg(ap, double));
            break;
        case 'b':
            p = va_arg(ap, const void *);
            rc = sqlite3_bind_blob64(st, i, p, va_arg(ap, size_t), SQLITE_TRANSIENT);
            break;
        case 'j':
            rc = bind_json(st, i, va_arg(ap, const json_t *));
            break;
        default:
            rc = SQLITE_MISUSE;
        }
    }
    return rc;
}

static int prepare(sqlite3_stmt **out, sqlite3 *db, hone_err *e, const char *text,
                   const char *types, va_list ap)
{
    *out = NULL;
    if (sqlite3_prepare_v2(db, text, -1, out, NULL) != SQLITE_OK)
        return sql_error(db, text, e);
    if ((int)strlen(types) != sqlite3_bind_parameter_count(*out) ||
        bind_all(*out, types, ap) != SQLITE_OK) {
        sqlite3_finalize(*out);
        *out = NULL;
        return hone_fail(e, HONE_EINTERNAL, "database: wrong parameters for: %s", text);
    }
    return 0;
}

int sql_prepare(sqlite3_stmt **out, sqlite3 *db, hone_err *e, const char *text, const char *types,
                ...)
{
    va_list ap;
    va_start(ap, types);
    int rc = prepare(out, db, e, text, types, ap);
    va_end(ap);
    return rc;
}

int sql_step(sqlite3_stmt *st, hone_err *e)
{
    switch (sqlite3_step(st)) {
    case SQLITE_ROW:
        return 1;
    case SQLITE_DONE:
        return 0;
    default:
        return sql_error(sqlite3_db_handle(st), "cannot read or write", e);
    }
}

int sql_run(sqlite3 *db, hone_err *e, const char *text, const char *types, ...)
{
    sqlite3_stmt *st;
    va_list ap;
    va_start(ap, types);
    int rc = prepare(&st, db, e, text, types, ap);
    va_end(ap);
    if (rc == 0)
        rc = sql_step(st, e);
    sqlite3_finalize(st);
    return rc > 0 ? 0 : rc;
}

int sql_int(int64_t *out, sqlite3 *db, hone_err *e, const char *text, const char *types, ...)
{
    sqlite3_stmt *st;
    va_list ap;
    *out = 0;
    va_start(ap, types);
    int rc = prepare(&st, db, e, text, types, ap);
    va_end(ap);
    if (rc == 0)
        rc = sql_step(st, e);
    if (rc > 0)
        *out = sqlite3_column_int64(st, 0);
    else if (rc == 0)
        rc = hone_fail(e, HONE_ENOTFOUND, "database: no such row");
    sqlite3_finalize(st);
    return rc > 0 ? 0 : rc;
}

const char *sql_text(sqlite3_stmt *st, int col)
{
    return (const char *)sqlite3_column_text(st, col);
}

json_t *sql_json(sqlite3_stmt *st, int col)
{
    json_t *v = NULL;
    const char *text = sql_text(st, col);
    if (text != NULL)
        js_parse(&v, text, (size_t)sqlite3_column_bytes(st, col), NULL);
    return v;
}

void sql_copy(char *dst, size_t cap, sqlite3_stmt *st, int col)
{
    const char *text = sql_text(st, col);
    snprintf(dst, cap, "%s", text != NULL ? text : "");
}

void sql_set(json_t *o, const char *key, sqlite3_stmt *st, int col)
{
    json_t *v;
    switch (sqlite3_column_type(st, col)) {
    case SQLITE_INTEGER:
        v = json_integer(sqlite3_column_int64(st, col));
        break;
    case SQLITE_FLOAT:
        v = json_real(sqlite3_column_double(st, col));
        break;
    case SQLITE_TEXT:
        v = json_string(sql_text(st, col));
        break;
    default:
        v = json_null();
    }
    json_object_set_new(o, key, v);
}
