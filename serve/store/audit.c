#include "serve/store/audit.h"

#include "core/base/clock.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/store/audit_in.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { HASH = 32 };

static void put(json_t *o, const char *key, const char *value)
{
    if (value != NULL)
        json_object_set_new(o, key, json_string(value));
}

json_t *audit_record(const audit_event *ev)
{
    json_t *o = json_object();
    put(o, "action", ev->action);
    put(o, "actor", ev->actor);
    put(o, "target", ev->target);
    put(o, "request_id", ev->request_id);
    put(o, "ip", ev->ip);
    if (ev->detail != NULL)
        json_object_set_new(o, "detail", json_deep_copy(ev->detail));
    json_object_set_new(o, "ts", json_integer(clock_unix_ms()));
    return o;
}

static void chain(const store *s, const unsigned char prev[HASH], const char *line,
                  unsigned char out[HASH])
{
    size_t n = strlen(line);
    unsigned char *text = mem_alloc(HASH + n);
    memcpy(text, prev, HASH);
    memcpy(text + HASH, line, n);
    store_digest(s, STORE_AUDIT, text, HASH + n, out);
    free(text);
}

/* The last record's number and digest; 0 and zeros for an empty log. */
static int last(sqlite3 *db, int64_t *seq, unsigned char hash[HASH], hone_err *e)
{
    sqlite3_stmt *st;
    *seq = 0;
    memset(hash, 0, HASH);
    int rc = sql_prepare(&st, db, e, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", "");
    if (rc == 0)
        rc = sql_step(st, e);
    if (rc > 0) {
        *seq = sqlite3_column_int64(st, 0);
        if (sqlite3_column_bytes(st, 1) == HASH)
            memcpy(hash, sqlite3_column_blob(st, 1), HASH);
        rc = 0;
    }
    sqlite3_finalize(st);
    return rc;
}

int audit_add(sqlite3 *db, const store *s, json_t *record, hone_err *e)
{
    int64_t seq;
    unsigned char prev[HASH], hash[HASH];
    int rc = last(db, &seq, prev, e);
    if (rc != 0)
        return rc;
    json_object_set_new(record, "seq", json_integer(++seq));
    char *line = js_text(record, true);
    if (line == NULL)
        return hone_fail(e, HONE_EINVAL, "audit: the record cannot be written as JSON");
    chain(s, prev, line, hash);
    rc = sql_run(db, e, "INSERT INTO audit(seq, ts, action, line, hash) VALUES(?, ?, ?, ?, ?)",
                 "iissb", seq, (int64_t)json_integer_value(json_object_get(record, "ts")),
                 json_string_value(json_object_get(record, "action")), line, (const void *)hash,
                 (size_t)HASH);
    free(line);
    return rc;
}

void audit_tell(const store *s, json_t *record)
{
    if (hook_wanted(store_hooks(s), HOOK_AUDIT_EVENT))
        hook_emit(store_hooks(s), HOOK_AUDIT_EVENT, &record, NULL);
    json_decref(record);
}

typedef struct entry {
    store *s;
    json_t *record;
} entry;

static int entry_run(sqlite3 *db, void *user, hone_err *e)
{
    entry *en = user;
    return audit_add(db, en->s, en->record, e);
}

static void entry_done(void *user, int rc, const hone_err *e)
{
    entry *en = user;
    (void)e;
    if (rc == 0)
        audit_tell(en->s, en->record);
    else
        json_decref(en->record);
    free(en);
}

int audit_append(store *s, const audit_event *ev, hone_err *e)
{
    entry en = {s, audit_record(ev)};
    int rc = store_write(s, entry_run, &en, e);
    if (rc == 0)
        audit_tell(s, en.record);
    else
        json_decref(en.record);
    return rc;
}

int audit_post(store *s, const audit_event *ev)
{
    entry *en = mem_alloc(sizeof *en);
    *en = (entry){s, audit_record(ev)};
    int rc = store_post(s, entry_run, entry_done, en);
    if (rc != 0) {
        json_decref(en->record);
        free(en);
    }
    return rc;
}

/* ---- reading and proving ---- */

typedef struct walk {
    store *s;
    int64_t after;
    audit_fn *fn;
    void *user;
    const char *want_head;
    audit_report *report;
} walk;

static int each_run(sqlite3 *db, void *user, hone_err *e)
{
    walk *w = user;
    sqlite3_stmt *st;
    char hex[2 * HASH + 1];
    int rc = sql_prepare(&st, db, e, "SELECT line, hash FROM audit WHERE seq > ? ORDER BY seq", "i",
                         w->after);
    while (rc == 0 && (rc = sql_step(st, e)) > 0) {
        json_t *record = sql_json(st, 0);
        if (!json_is_object(record) || sqlite3_column_bytes(st, 1) != HASH) {
            rc = hone_fail(e, HONE_EFORMAT, "audit: a record is damaged; see 'hone audit verify'");
        } else {
            sodium_bin2hex(hex, sizeof hex, sqlite3_column_blob(st, 1), HASH);
            json_object_set_new(record, "hash", json_string(hex));
            rc = w->fn(w->user, record, e);
        }
        json_decref(record);
    }
    sqlite3_finalize(st);
    return rc;
}

int audit_each(store *s, int64_t seq, audit_fn *fn, void *user, hone_err *e)
{
    walk w = {.s = s, .after = seq, .fn = fn, .user = user};
    return store_read(s, each_run, &w, e);
}

/* The columns repeat what the line says: a record whose columns were changed must show too. */
static bool columns_agree(sqlite3_stmt *st)
{
    json_t *o = sql_json(st, 3);
    const char *action = json_string_value(json_object_get(o, "action"));
    const char *column = sql_text(st, 2);
    bool ok = json_integer_value(json_object_get(o, "seq")) == sqlite3_column_int64(st, 0) &&
              json_integer_value(json_object_get(o, "ts")) == sqlite3_column_int64(st, 1) &&
              action != NULL && column != NULL && strcmp(action, column) == 0;
    json_decref(o);
    return ok;
}

static int check_row(const walk *w, sqlite3_stmt *st, unsigned char hash[HASH], hone_err *e)
{
    int64_t seq = sqlite3_column_int64(st, 0);
    const char *line = sql_text(st, 3);
    if (seq != w->report->n + 1)
        return hone_fail(e, HONE_EFORMAT,
                         "audit: record %" PRId64 " is missing (the next one is %" PRId64 ")",
                         w->report->n + 1, seq);
    unsigned char want[HASH];
    chain(w->s, hash, line != NULL ? line : "", want);
    if (line == NULL || sqlite3_column_bytes(st, 4) != HASH ||
        sodium_memcmp(want, sqlite3_column_blob(st, 4), HASH) != 0 || !columns_agree(st))
        return hone_fail(e, HONE_EFORMAT,
                         "audit: record %" PRId64 " was changed after it was written", seq);
    memcpy(hash, want, HASH);
    w->report->n = seq;
    sodium_bin2hex(w->report->head, sizeof w->report->head, hash, HASH);
    if (w->want_head != NULL && strcmp(w->want_head, w->report->head) == 0)
        w->report->found = true;
    return 0;
}

static int verify_run(sqlite3 *db, void *user, hone_err *e)
{
    walk *w = user;
    sqlite3_stmt *st;
    unsigned char hash[HASH] = {0};
    int rc =
        sql_prepare(&st, db, e, "SELECT seq, ts, action, line, hash FROM audit ORDER BY seq", "");
    while (rc == 0 && (rc = sql_step(st, e)) > 0)
        rc = check_row(w, st, hash, e);
    sqlite3_finalize(st);
    if (rc == 0 && w->want_head != NULL && !w->report->found)
        rc = hone_fail(e, HONE_EFORMAT,
                       "audit: no record has the digest %.64s: records were cut off or replaced",
                       w->want_head);
    return rc;
}

int audit_verify(store *s, const char *head, audit_report *out, hone_err *e)
{
    *out = (audit_report){0};
    memset(out->head, '0', sizeof out->head - 1);
    walk w = {.s = s, .want_head = head, .report = out};
    return store_read(s, verify_run, &w, e);
}
