#include "serve/store/requests.h"

#include "core/base/clock.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/store/audit_in.h"
#include "serve/store/requests_in.h"

#include <stdlib.h>
#include <string.h>

enum { DAY_MS = 86400000 };

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static int64_t int_of(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* ---- writing ---- */

typedef struct entry {
    store *s;
    json_t *record, *audit;
} entry;

static int add_row(sqlite3 *db, const json_t *r, bool full, hone_err *e)
{
    const json_t *none = NULL;
    return sql_run(db, e,
                   "INSERT INTO requests(id, ts, key_id, user_hash, route, model, model_digest,"
                   " adapter_digest, template_digest, params, messages, prompt, choices, metadata,"
                   " finish_reason, tok_in, tok_out, ttft_ms, e2e_ms, status, stored, expires_at)"
                   " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   "sisssssssjjsjjsiiiiiiz", text_of(r, "id"), int_of(r, "ts"),
                   text_of(r, "key_id"), text_of(r, "user_hash"), text_of(r, "route"),
                   text_of(r, "model"), text_of(r, "model_digest"), text_of(r, "adapter_digest"),
                   text_of(r, "template_digest"), json_object_get(r, "params"),
                   full ? json_object_get(r, "messages") : none, full ? text_of(r, "prompt") : NULL,
                   full ? json_object_get(r, "choices") : none, json_object_get(r, "metadata"),
                   text_of(r, "finish_reason"), int_of(r, "tok_in"), int_of(r, "tok_out"),
                   int_of(r, "ttft_ms"), int_of(r, "e2e_ms"), int_of(r, "status"), (int64_t)full,
                   int_of(r, "expires_at"));
}

static int add_usage(sqlite3 *db, const json_t *r, hone_err *e)
{
    const char *key_id = text_of(r, "key_id");
    return key_id == NULL ? 0
                          : sql_run(db, e,
                                    "INSERT INTO usage(key_id, day, requests, tok_in, tok_out)"
                                    " VALUES(?, ?, 1, ?, ?) ON CONFLICT(key_id, day) DO UPDATE SET"
                                    " requests = requests + 1, tok_in = tok_in + excluded.tok_in,"
                                    " tok_out = tok_out + excluded.tok_out",
                                    "siii", key_id, int_of(r, "ts") / DAY_MS, int_of(r, "tok_in"),
                                    int_of(r, "tok_out"));
}

/* The audit log says who asked what of which weights and what it cost, never the text. */
static json_t *audit_of(const json_t *r)
{
    static const char *const keys[] = {"route",         "status",  "error_code",     "model",
                                       "model_digest",  "tok_in",  "adapter_digest", "tok_out",
                                       "finish_reason", "ttft_ms", "e2e_ms",         NULL};
    json_t *detail = json_object();
    for (int i = 0; keys[i] != NULL; i++) {
        json_t *v = json_object_get(r, keys[i]);
        if (v != NULL && !json_is_null(v))
            json_object_set(detail, keys[i], v);
    }
    json_t *record = audit_record(&(audit_event){.action = "request",
                                                 .actor = text_of(r, "key_id"),
                                                 .target = text_of(r, "model"),
                                                 .request_id = text_of(r, "id"),
                                                 .ip = text_of(r, "ip"),
                                                 .detail = detail});
    json_decref(detail);
    return record;
}

static int entry_run(sqlite3 *db, void *user, hone_err *e)
{
    entry *en = user;
    const char *keep = text_of(en->record, "keep");
    int rc = 0;
    if (keep != NULL && strcmp(keep, "none") != 0)
        rc = add_row(db, en->record, strcmp(keep, "full") == 0, e);
    if (rc == 0)
        rc = add_usage(db, en->record, e);
    if (rc == 0) {
        en->audit = audit_of(en->record);
        rc = audit_add(db, en->s, en->audit, e);
    }
    return rc;
}

static void entry_done(void *user, int rc, const hone_err *e)
{
    entry *en = user;
    (void)e;
    if (rc == 0)
        audit_tell(en->s, en->audit);
    else
        json_decref(en->audit);
    json_decref(en->record);
    free(en);
}

int requests_post(store *s, json_t *record)
{
    entry *en = mem_alloc(sizeof *en);
    *en = (entry){.s = s, .record = record};
    int rc = store_post(s, entry_run, entry_done, en);
    if (rc != 0) {
        json_decref(record);
        free(en);
    }
    return rc;
}

/* ---- reading ---- */

int requests_get_in(sqlite3 *db, const char *id, json_t **out, hone_err *e)
{
    static const char *const names[] = {"id",
                                        "ts",
                                        "key_id",
                                        "user_hash",
                                        "route",
                                        "model",
                                        "model_digest",
                                        "adapter_digest",
                                        "template_digest",
                                        "finish_reason",
                                        "tok_in",
                                        "tok_out",
                                        "ttft_ms",
                                        "e2e_ms",
                                        "status",
                                        "stored",
                                        "expires_at",
                                        "prompt",
                                        NULL};
    static const char *const documents[] = {"params", "messages", "choices", "metadata", NULL};
    sqlite3_stmt *st;
    *out = NULL;
    int rc = sql_prepare(&st, db, e,
                         "SELECT id, ts, key_id, user_hash, route, model, model_digest,"
                         " adapter_digest, template_digest, finish_reason, tok_in, tok_out,"
                         " ttft_ms, e2e_ms, status, stored, expires_at, prompt, params, messages,"
                         " choices, metadata FROM requests WHERE id = ?",
                         "s", id);
    if (rc == 0)
        rc = sql_step(st, e);
    if (rc > 0) {
        int col = 0;
        *out = json_object();
        for (int i = 0; names[i] != NULL; i++)
            sql_set(*out, names[i], st, col++);
        for (int i = 0; documents[i] != NULL; i++, col++)
            if (sqlite3_column_type(st, col) != SQLITE_NULL)
                json_object_set_new(*out, documents[i], sql_json(st, col));
        rc = 0;
    } else if (rc == 0) {
        rc = hone_fail(e, HONE_ENOTFOUND, "no stored response '%.64s'", id);
    }
    sqlite3_finalize(st);
    return rc;
}

typedef struct lookup {
    const char *id;
    json_t **out;
} lookup;

static int get_run(sqlite3 *db, void *user, hone_err *e)
{
    lookup *l = user;
    return requests_get_in(db, l->id, l->out, e);
}

int requests_get(store *s, const char *id, json_t **out, hone_err *e)
{
    lookup l = {id, out};
    *out = NULL;
    return store_read(s, get_run, &l, e);
}

/* ---- forgetting ---- */

static int purge_run(sqlite3 *db, void *user, hone_err *e)
{
    int rc = sql_run(db, e, "DELETE FROM requests WHERE expires_at <= ?", "i", clock_unix_ms());
    *(int64_t *)user = sqlite3_changes64(db);
    return rc;
}

int requests_purge(store *s, int64_t *n, hone_err *e)
{
    *n = 0;
    return store_write(s, purge_run, n, e);
}

void requests_user_hash(const store *s, const char *user, char out[33])
{
    char hex[65];
    store_digest_hex(s, STORE_USERS, user, strlen(user), hex);
    memcpy(out, hex, 32);
    out[32] = '\0';
}
