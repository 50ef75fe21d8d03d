#include "serve/store/erasure.h"

#include "core/base/clock.h"
#include "serve/store/audit_in.h"
#include "serve/store/erasure_in.h"
#include "serve/store/ids.h"

#include <stdio.h>
#include <string.h>

const char erasure_sql[] =
    "CREATE TABLE run_inputs("
    " run_id TEXT NOT NULL, feedback_id TEXT NOT NULL, PRIMARY KEY(run_id, feedback_id)) STRICT;"
    "CREATE INDEX run_inputs_feedback ON run_inputs(feedback_id);"
    "CREATE TABLE tombstones("
    " hash TEXT NOT NULL PRIMARY KEY, erasure_id TEXT NOT NULL) STRICT;"
    "CREATE TABLE taints("
    " digest TEXT NOT NULL PRIMARY KEY, erasure_id TEXT NOT NULL, ts INTEGER NOT NULL,"
    " removed_at INTEGER) STRICT;"
    "ALTER TABLE erasures ADD COLUMN finished_at INTEGER;";

/* By the kind of the subject: the column, and what its tombstone begins with. */
static const struct {
    const char *name, *feedback, *requests, *tombstone;
} kinds[] = {
    [ERASURE_USER] = {"user", "SELECT id FROM feedback WHERE user_hash = ?1",
                      "requests WHERE user_hash = ?1", "user"},
    [ERASURE_KEY] = {"key", "SELECT id FROM feedback WHERE key_id = ?1",
                     "requests WHERE key_id = ?1", "key"},
};

typedef struct work {
    store *s;
    const erasure_subject *who;
    const char *actor, *id;
    const json_t *receipt;
    json_t *out, *audit;
} work;

/* ---- what there is ---- */

static int rows_of(json_t **out, sqlite3 *db, const char *query, const char *arg, hone_err *e)
{
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e, query, arg != NULL ? "s" : "", arg);
    *out = json_array();
    while (rc == 0 && (rc = sql_step(st, e)) == 1) {
        json_t *row = json_object();
        for (int c = 0; c < sqlite3_column_count(st); c++)
            sql_set(row, sqlite3_column_name(st, c), st, c);
        json_array_append_new(*out, row);
        rc = 0;
    }
    sqlite3_finalize(st);
    return rc;
}

static int count(int64_t *n, sqlite3 *db, const char *from, const char *id, hone_err *e)
{
    char query[512];
    snprintf(query, sizeof query, "SELECT count(*) FROM %.400s", from);
    return sql_int(n, db, e, query, "s", id);
}

/* One column as an array of texts. */
static json_t *column(json_t *rows, const char *name)
{
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(rows); i++)
        json_array_append(list, json_object_get(json_array_get(rows, i), name));
    json_decref(rows);
    return list;
}

static int find_runs(json_t **out, sqlite3 *db, const erasure_subject *who, hone_err *e)
{
    char query[512];
    snprintf(query, sizeof query,
             "SELECT run_id FROM run_inputs WHERE feedback_id IN (%s) UNION"
             " SELECT run_id FROM feedback_runs WHERE feedback_id IN (%s) ORDER BY run_id",
             kinds[who->kind].feedback, kinds[who->kind].feedback);
    int rc = rows_of(out, db, query, who->id, e);
    *out = column(*out, "run_id");
    return rc;
}

/* What the runs made, and what was trained from that. */
static int find_artefacts(json_t **out, sqlite3 *db, const json_t *runs, hone_err *e)
{
    sqlite3_stmt *st;
    int rc = sql_prepare(
        &st, db, e,
        "WITH RECURSIVE t(digest) AS (SELECT digest FROM artefacts WHERE run_id IN"
        "  (SELECT value FROM json_each(?1))"
        " UNION SELECT a.digest FROM artefacts a JOIN t ON"
        "  json_extract(a.manifest, '$.base_digest') = t.digest)"
        " SELECT digest, kind, path, digest = (SELECT digest FROM alias_moves WHERE name = 'live'"
        "  ORDER BY seq DESC LIMIT 1) FROM artefacts WHERE digest IN t ORDER BY created_at",
        "j", runs);
    *out = json_array();
    while (rc == 0 && (rc = sql_step(st, e)) == 1) {
        json_array_append_new(*out, json_pack("{s:s, s:s, s:s, s:b}", "digest", sql_text(st, 0),
                                              "kind", sql_text(st, 1), "path", sql_text(st, 2),
                                              "live", sqlite3_column_int(st, 3)));
        rc = 0;
    }
    sqlite3_finalize(st);
    return rc;
}

static int plan_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    int64_t requests, feedback;
    json_t *runs = NULL, *artefacts = NULL;
    char from[256];
    snprintf(from, sizeof from, "(%s)", kinds[w->who->kind].feedback);
    int rc = count(&feedback, db, from, w->who->id, e);
    if (rc == 0)
        rc = count(&requests, db, kinds[w->who->kind].requests, w->who->id, e);
    if (rc == 0 && requests + feedback == 0)
        rc = hone_fail(e, HONE_ENOTFOUND, "nothing is stored of %s '%.64s'",
                       kinds[w->who->kind].name, w->who->id);
    if (rc == 0)
        rc = find_runs(&runs, db, w->who, e);
    if (rc == 0)
        rc = find_artefacts(&artefacts, db, runs, e);
    json_decref(w->out);
    w->out = rc != 0 ? NULL
                     : json_pack("{s:{s:s, s:s}, s:I, s:I, s:O, s:O}", "subject", "kind",
                                 kinds[w->who->kind].name, "id", w->who->id, "requests",
                                 (json_int_t)requests, "feedback", (json_int_t)feedback, "runs",
                                 runs, "artefacts", artefacts);
    json_decref(runs);
    json_decref(artefacts);
    return rc;
}

int erasure_plan(store *s, const erasure_subject *who, json_t **plan, hone_err *e)
{
    work w = {.s = s, .who = who};
    int rc = store_read(s, plan_run, &w, e);
    *plan = w.out;
    return rc;
}

/* ---- erasing ---- */

static void tombstone(const store *s, const char *what, const char *id, char hex[65])
{
    char text[160];
    int n = snprintf(text, sizeof text, "%s:%.128s", what, id);
    store_digest_hex(s, STORE_ERASED, text, (size_t)n, hex);
}

static int bury(sqlite3 *db, const work *w, const char *what, const char *id, hone_err *e)
{
    char hex[65];
    tombstone(w->s, what, id, hex);
    return sql_run(db, e, "INSERT OR IGNORE INTO tombstones(hash, erasure_id) VALUES(?, ?)", "ss",
                   hex, w->id);
}

/* The receipt names the feedback by digests too: they can be compared, and say nothing. */
static int bury_feedback(sqlite3 *db, work *w, hone_err *e)
{
    json_t *ids;
    int rc = rows_of(&ids, db, kinds[w->who->kind].feedback, w->who->id, e);
    ids = column(ids, "id");
    json_t *hashes = json_array();
    for (size_t i = 0; rc == 0 && i < json_array_size(ids); i++) {
        char hex[65];
        const char *id = json_string_value(json_array_get(ids, i));
        tombstone(w->s, "feedback", id, hex);
        json_array_append_new(hashes, json_string(hex));
        rc = bury(db, w, "feedback", id, e);
    }
    json_object_set_new(w->out, "feedback_ids", hashes);
    json_decref(ids);
    return rc == 0 ? bury(db, w, kinds[w->who->kind].tombstone, w->who->id, e) : rc;
}

static int delete_rows(sqlite3 *db, const work *w, hone_err *e)
{
    char text[256];
    snprintf(text, sizeof text, "DELETE FROM feedback WHERE id IN (%s)",
             kinds[w->who->kind].feedback);
    int rc = sql_run(db, e, text, "s", w->who->id);
    snprintf(text, sizeof text, "DELETE FROM %s", kinds[w->who->kind].requests);
    return rc == 0 ? sql_run(db, e, text, "s", w->who->id) : rc;
}

static int taint(sqlite3 *db, const work *w, hone_err *e)
{
    size_t i;
    json_t *a;
    int rc = 0;
    json_array_foreach (json_object_get(w->out, "artefacts"), i, a) {
        if (rc == 0)
            rc = sql_run(
                db, e, "INSERT OR IGNORE INTO taints(digest, erasure_id, ts) VALUES(?, ?, ?)",
                "ssi", json_string_value(json_object_get(a, "digest")), w->id, clock_unix_ms());
    }
    return rc;
}

static int begin_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    int rc = plan_run(db, w, e);
    if (rc != 0)
        return rc;
    json_object_set_new(w->out, "id", json_string(w->id));
    json_object_set_new(w->out, "ts", json_integer(clock_unix_ms()));
    rc = bury_feedback(db, w, e);
    if (rc == 0)
        rc = delete_rows(db, w, e);
    if (rc == 0)
        rc = taint(db, w, e);
    if (rc == 0)
        rc = sql_run(db, e, "INSERT INTO erasures(id, ts, user_hash, receipt) VALUES(?, ?, ?, ?)",
                     "sisj", w->id, clock_unix_ms(), w->who->id, w->out);
    if (rc == 0) {
        json_decref(w->audit);
        w->audit = audit_record(&(audit_event){
            .action = "erase", .actor = w->actor, .target = w->id, .detail = w->out});
        rc = audit_add(db, w->s, w->audit, e);
    }
    return rc;
}

int erasure_begin(store *s, const erasure_subject *who, const char *actor, json_t **record,
                  hone_err *e)
{
    char id[IDS_MAX];
    work w = {.s = s, .who = who, .actor = actor, .id = id};
    ids_make(id, "erase-");
    int rc = store_write(s, begin_run, &w, e);
    if (rc == 0) {
        audit_tell(s, w.audit);
        *record = w.out;
        return 0;
    }
    json_decref(w.audit);
    json_decref(w.out);
    *record = NULL;
    return rc;
}

/* ---- the rest of it ---- */

static int pending_run(sqlite3 *db, void *user, hone_err *e)
{
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e,
                         "SELECT receipt FROM erasures WHERE finished_at IS NULL ORDER BY ts", "");
    while (rc == 0 && (rc = sql_step(st, e)) == 1) {
        json_array_append_new(user, sql_json(st, 0));
        rc = 0;
    }
    sqlite3_finalize(st);
    return rc;
}

int erasure_pending(store *s, json_t **records, hone_err *e)
{
    *records = json_array();
    return store_read(s, pending_run, *records, e);
}

static int finish_run(sqlite3 *db, void *user, hone_err *e)
{
    const work *w = user;
    return sql_run(db, e, "UPDATE erasures SET receipt = ?, finished_at = ? WHERE id = ?", "jis",
                   w->receipt, clock_unix_ms(), w->id);
}

int erasure_finish(store *s, const char *id, const json_t *receipt, hone_err *e)
{
    work w = {.id = id, .receipt = receipt};
    return store_write(s, finish_run, &w, e);
}

static int receipt_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e, "SELECT receipt, finished_at FROM erasures WHERE id = ?", "s",
                         w->id);
    if (rc == 0)
        rc = sql_step(st, e);
    if (rc == 0)
        rc = hone_fail(e, HONE_ENOTFOUND, "no erasure '%.64s'", w->id);
    else if (rc > 0 && sqlite3_column_type(st, 1) == SQLITE_NULL)
        rc = hone_fail(e, HONE_EAGAIN, "erasure '%.64s' has not finished", w->id);
    else if (rc > 0)
        w->out = sql_json(st, 0);
    sqlite3_finalize(st);
    return rc > 0 ? 0 : rc;
}

int erasure_receipt(store *s, const char *id, json_t **receipt, hone_err *e)
{
    work w = {.id = id};
    int rc = store_read(s, receipt_run, &w, e);
    *receipt = w.out;
    return rc;
}

static int leftovers_run(sqlite3 *db, void *user, hone_err *e)
{
    return rows_of(user, db,
                   "SELECT t.digest, a.path FROM taints t JOIN artefacts a ON a.digest = t.digest"
                   " WHERE t.removed_at IS NULL AND t.digest IS NOT (SELECT digest FROM alias_moves"
                   "  WHERE name = 'live' ORDER BY seq DESC LIMIT 1)",
                   NULL, e);
}

int erasure_leftovers(store *s, json_t **list, hone_err *e)
{
    *list = NULL;
    int rc = store_read(s, leftovers_run, list, e);
    if (rc != 0) {
        json_decref(*list);
        *list = NULL;
    }
    return rc;
}

static int removed_run(sqlite3 *db, void *user, hone_err *e)
{
    return sql_run(db, e, "UPDATE taints SET removed_at = ? WHERE digest = ?", "is",
                   clock_unix_ms(), (const char *)user);
}

int erasure_removed(store *s, const char *digest, hone_err *e)
{
    return store_write(s, removed_run, (void *)digest, e);
}

/* ---- what others ask ---- */

static int is_buried(bool *out, sqlite3 *db, const store *s, const char *what, const char *id,
                     hone_err *e)
{
    char hex[65];
    int64_t n = 0;
    *out = false;
    if (id == NULL || *id == '\0')
        return 0;
    tombstone(s, what, id, hex);
    int rc = sql_int(&n, db, e, "SELECT count(*) FROM tombstones WHERE hash = ?", "s", hex);
    *out = n > 0;
    return rc;
}

int erasure_check_import(sqlite3 *db, const store *s, const char *feedback_id,
                         const char *user_hash, const char *key_id, hone_err *e)
{
    const struct {
        const char *what, *id;
    } rows[] = {{"feedback", feedback_id}, {"user", user_hash}, {"key", key_id}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool buried;
        int rc = is_buried(&buried, db, s, rows[i].what, rows[i].id, e);
        if (rc != 0)
            return rc;
        if (buried)
            return hone_fail(e, HONE_EDENIED, "%s '%.64s' was erased here and is not taken again",
                             rows[i].what, rows[i].id);
    }
    return 0;
}

int erasure_check_artefact(sqlite3 *db, const char *digest, hone_err *e)
{
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e, "SELECT erasure_id FROM taints WHERE digest = ?", "s", digest);
    if (rc == 0)
        rc = sql_step(st, e);
    if (rc > 0)
        rc = hone_fail(e, HONE_EDENIED,
                       "artefact %.12s learned from what was erased (%s); retrain instead", digest,
                       sql_text(st, 0));
    sqlite3_finalize(st);
    return rc;
}

int erasure_check_run(sqlite3 *db, const store *s, const char *run_id, hone_err *e)
{
    json_t *ids;
    bool buried = false;
    int rc = rows_of(&ids, db,
                     "SELECT feedback_id AS id FROM run_inputs WHERE run_id = ?1"
                     " AND feedback_id NOT IN (SELECT id FROM feedback)",
                     run_id, e);
    ids = column(ids, "id");
    for (size_t i = 0; rc == 0 && !buried && i < json_array_size(ids); i++)
        rc = is_buried(&buried, db, s, "feedback", json_string_value(json_array_get(ids, i)), e);
    json_decref(ids);
    return rc == 0 && buried
               ? hone_fail(e, HONE_EDENIED,
                           "run %s learned from feedback that was erased meanwhile; run it again",
                           run_id)
               : rc;
}
