#include "serve/store/registry.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "serve/store/db.h"
#include "serve/store/erasure_in.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char registry_sql[] =
    "CREATE TABLE runs("
    " id TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, status TEXT NOT NULL, pid INTEGER NOT NULL,"
    " started_at INTEGER NOT NULL, ended_at INTEGER, settings TEXT, report TEXT) STRICT;"
    "CREATE TABLE artefacts("
    " digest TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL CHECK(kind IN ('model', 'adapter')),"
    " path TEXT NOT NULL, base TEXT, run_id TEXT, manifest TEXT, created_at INTEGER NOT NULL) "
    "STRICT;"
    "CREATE TABLE alias_moves("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,"
    " digest TEXT NOT NULL REFERENCES artefacts(digest), previous TEXT,"
    " by TEXT NOT NULL, reason TEXT, ts INTEGER NOT NULL) STRICT;"
    "CREATE INDEX alias_moves_name ON alias_moves(name, seq);"
    "CREATE TRIGGER alias_moves_no_update BEFORE UPDATE ON alias_moves"
    " BEGIN SELECT RAISE(ABORT, 'the history of an alias is append-only'); END;"
    "CREATE TRIGGER alias_moves_no_delete BEFORE DELETE ON alias_moves"
    " BEGIN SELECT RAISE(ABORT, 'the history of an alias is append-only'); END;";

/* ---- runs ---- */

typedef struct run_start {
    char *id;
    const char *kind;
    const json_t *settings;
} run_start;

/* Whoever begins a run has the lock, so a process whose run still stands there is gone. */
static int run_begin(sqlite3 *db, void *user, hone_err *e)
{
    run_start *r = user;
    int rc = sql_run(db, e,
                     "UPDATE runs SET status = 'abandoned', ended_at = ? WHERE status = 'running'",
                     "i", clock_unix_ms());
    if (rc != 0)
        return rc;
    return sql_run(db, e,
                   "INSERT INTO runs(id, kind, status, pid, started_at, settings)"
                   " VALUES (?, ?, 'running', ?, ?, ?)",
                   "ssiij", r->id, r->kind, (int64_t)getpid(), clock_unix_ms(), r->settings);
}

/* The one that has the lock; it may not have written its row yet, or have written its end. */
static int find_running(sqlite3 *db, void *user, hone_err *e)
{
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e, "SELECT id FROM runs WHERE status = 'running'", "");
    if (rc == 0)
        rc = sql_step(st, e);
    if (rc == 1)
        sql_copy(user, REGISTRY_ID_LEN, st, 0);
    sqlite3_finalize(st);
    return rc < 0 ? rc : 0;
}

static int other_run(store *s, hone_err *e)
{
    char id[REGISTRY_ID_LEN] = "";
    int rc = store_read(s, find_running, id, e);
    return rc != 0 ? rc
                   : hone_fail(e, HONE_EEXIST,
                               "another process is retraining here (%s): wait for it, or end it",
                               id[0] != '\0' ? id : "it is just beginning or ending");
}

int registry_run_begin(store *s, char id[REGISTRY_ID_LEN], const char *kind, const json_t *settings,
                       hone_err *e)
{
    time_t now = (time_t)(clock_unix_ms() / 1000);
    struct tm tm;
    char date[20];
    gmtime_r(&now, &tm);
    strftime(date, sizeof date, "%Y%m%dT%H%M%SZ", &tm);
    snprintf(id, REGISTRY_ID_LEN, "run-%s-%04x", date, randombytes_uniform(0x10000));
    run_start r = {id, kind, settings};
    int rc = store_lock_runs(s, e);
    if (rc == HONE_EAGAIN)
        return other_run(s, e);
    return rc == 0 ? store_write(s, run_begin, &r, e) : rc;
}

typedef struct run_given {
    const char *id;
    const json_t *feedback;
} run_given;

static int add_inputs(sqlite3 *db, void *user, hone_err *e)
{
    const run_given *g = user;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(g->feedback); i++)
        rc = sql_run(db, e, "INSERT OR IGNORE INTO run_inputs(run_id, feedback_id) VALUES(?, ?)",
                     "ss", g->id, json_string_value(json_array_get(g->feedback, i)));
    return rc;
}

int registry_run_inputs(store *s, const char *id, const json_t *feedback, hone_err *e)
{
    run_given g = {id, feedback};
    return store_write(s, add_inputs, &g, e);
}

typedef struct run_result {
    const char *id, *status;
    const json_t *report;
} run_result;

static int run_end(sqlite3 *db, void *user, hone_err *e)
{
    const run_result *r = user;
    return sql_run(db, e, "UPDATE runs SET status = ?, ended_at = ?, report = ? WHERE id = ?",
                   "sijs", r->status, clock_unix_ms(), r->report, r->id);
}

int registry_run_end(store *s, const char *id, const char *status, const json_t *report,
                     hone_err *e)
{
    run_result r = {id, status, report};
    int rc = store_write(s, run_end, &r, e);
    if (rc == 0)
        store_unlock_runs(s);
    return rc;
}

/* ---- artefacts ---- */

void registry_artefact_free(registry_artefact *a)
{
    free(a->kind);
    free(a->path);
    free(a->base);
    free(a->run_id);
    json_decref(a->manifest);
    *a = (registry_artefact){0};
}

#define ARTEFACT_COLUMNS "digest, kind, path, base, run_id, manifest, created_at"
#define ARTEFACT_READ                                                                              \
    ARTEFACT_COLUMNS ", EXISTS (SELECT 1 FROM taints WHERE taints.digest = artefacts.digest)"

static void read_artefact(registry_artefact *a, sqlite3_stmt *st)
{
    sql_copy(a->digest, sizeof a->digest, st, 0);
    a->kind = mem_strdup(sql_text(st, 1));
    a->path = mem_strdup(sql_text(st, 2));
    a->base = mem_strdup(sql_text(st, 3));
    a->run_id = mem_strdup(sql_text(st, 4));
    a->manifest = sql_json(st, 5);
    a->created_ms = sqlite3_column_int64(st, 6);
    a->tainted = sqlite3_column_int(st, 7) != 0;
}

typedef struct move {
    const char *name, *digest, *expected, *by, *reason;
} move;

/* The digest an alias points at now, "" when unset. */
static int current(char out[REGISTRY_DIGEST_LEN], sqlite3 *db, const char *name, hone_err *e)
{
    sqlite3_stmt *st;
    out[0] = '\0';
    int rc = sql_prepare(&st, db, e,
                         "SELECT digest FROM alias_moves WHERE name = ? ORDER BY seq DESC LIMIT 1",
                         "s", name);
    if (rc == 0 && (rc = sql_step(st, e)) == 1)
        sql_copy(out, REGISTRY_DIGEST_LEN, st, 0);
    sqlite3_finalize(st);
    return rc < 0 ? rc : 0;
}

static int do_move(sqlite3 *db, void *user, hone_err *e)
{
    const move *m = user;
    char now[REGISTRY_DIGEST_LEN];
    int rc = current(now, db, m->name, e);
    if (rc != 0)
        return rc;
    if (m->expected != NULL && strcmp(m->expected, now) != 0)
        return hone_fail(e, HONE_EAGAIN, "alias '%s' was moved meanwhile (it is %.12s)", m->name,
                         now[0] != '\0' ? now : "unset");
    rc = erasure_check_artefact(db, m->digest, e);
    return rc != 0 ? rc
                   : sql_run(db, e,
                             "INSERT INTO alias_moves(name, digest, previous, by, reason, ts)"
                             " VALUES (?, ?, ?, ?, ?, ?)",
                             "sssssi", m->name, m->digest, now[0] != '\0' ? now : NULL, m->by,
                             m->reason, clock_unix_ms());
}

int registry_alias_move(store *s, const char *name, const char *digest, const char *expected,
                        const char *by, const char *reason, hone_err *e)
{
    move m = {name, digest, expected, by, reason};
    return store_write(s, do_move, &m, e);
}

static int mark_feedback(sqlite3 *db, const registry_entry *r, hone_err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(r->feedback); i++)
        rc = sql_run(db, e,
                     "INSERT OR IGNORE INTO feedback_runs(feedback_id, run_id, ts)"
                     " VALUES (?, ?, ?)",
                     "ssi", json_string_value(json_array_get(r->feedback, i)), r->run_id,
                     clock_unix_ms());
    return rc;
}

/* What a run made anew without the erased feedback is not what was tainted under the same digest.
 */
static int clear_taint(sqlite3 *db, const char *digest, hone_err *e)
{
    int64_t n;
    int rc = sql_int(&n, db, e, "SELECT count(*) FROM taints WHERE digest = ?", "s", digest);
    if (rc == 0 && n > 0)
        rc = sql_run(db, e, "DELETE FROM taints WHERE digest = ?", "s", digest);
    return rc < 0 ? rc : n > 0;
}

static int replace_artefact(sqlite3 *db, const registry_entry *r, hone_err *e)
{
    return sql_run(db, e,
                   "UPDATE artefacts SET kind = ?, path = ?, base = ?, run_id = ?, manifest = ?,"
                   " created_at = ? WHERE digest = ?",
                   "ssssjis", r->kind, r->path, r->base, r->run_id, r->manifest, clock_unix_ms(),
                   r->digest);
}

typedef struct addition {
    const store *s;
    const registry_entry *r;
} addition;

static int do_add(sqlite3 *db, void *user, hone_err *e)
{
    const addition *x = user;
    const registry_entry *r = x->r;
    int rc = r->run_id != NULL ? erasure_check_run(db, x->s, r->run_id, e) : 0;
    if (rc == 0)
        rc = r->run_id != NULL ? clear_taint(db, r->digest, e) : 0;
    if (rc > 0)
        rc = replace_artefact(db, r, e);
    if (rc == 0)
        rc = sql_run(db, e,
                     "INSERT OR IGNORE INTO artefacts(" ARTEFACT_COLUMNS ")"
                     " VALUES (?, ?, ?, ?, ?, ?, ?)",
                     "sssssji", r->digest, r->kind, r->path, r->base, r->run_id, r->manifest,
                     clock_unix_ms());
    if (rc == 0 && r->run_id != NULL)
        rc = mark_feedback(db, r, e);
    if (rc == 0 && r->promote_by != NULL)
        rc = do_move(db, &(move){"live", r->digest, NULL, r->promote_by, r->reason}, e);
    if (rc == 0 && r->run_id != NULL)
        rc = run_end(db, &(run_result){r->run_id, r->run_status, r->report}, e);
    return rc;
}

int registry_add(store *s, const registry_entry *r, hone_err *e)
{
    addition x = {s, r};
    int rc = store_write(s, do_add, &x, e);
    if (rc == 0 && r->run_id != NULL) /* which has ended in the same transaction */
        store_unlock_runs(s);
    return rc;
}

/* One artefact by a query with one parameter. */
typedef struct lookup {
    const char *query, *key;
    const char *missing[2]; /* what is said around the key when there is none */
    registry_artefact *out;
} lookup;

static int first_artefact(sqlite3_stmt *st, const lookup *l, hone_err *e)
{
    registry_artefact *out = l->out;
    int rc = sql_step(st, e);
    if (rc == 0)
        return hone_fail(e, HONE_ENOTFOUND, "%s%.70s%s", l->missing[0], l->key, l->missing[1]);
    if (rc < 0)
        return rc;
    read_artefact(out, st);
    rc = sql_step(st, e);
    if (rc == 0)
        return 0;
    registry_artefact_free(out);
    return rc < 0 ? rc : hone_fail(e, HONE_EINVAL, "more than one artefact begins with that");
}

static int do_lookup(sqlite3 *db, void *user, hone_err *e)
{
    const lookup *l = user;
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e, l->query, "s", l->key);
    if (rc == 0)
        rc = first_artefact(st, l, e);
    sqlite3_finalize(st);
    return rc;
}

static int look_up(store *s, lookup l, hone_err *e)
{
    *l.out = (registry_artefact){0};
    return store_read(s, do_lookup, &l, e);
}

int registry_find(store *s, const char *digest, registry_artefact *out, hone_err *e)
{
    *out = (registry_artefact){0};
    if (strlen(digest) < 6)
        return hone_fail(e, HONE_EINVAL, "'%s': give at least 6 digits of the digest", digest);
    return look_up(s,
                   (lookup){"SELECT " ARTEFACT_READ " FROM artefacts"
                            " WHERE substr(digest, 1, length(?1)) = ?1",
                            digest,
                            {"no artefact ", ""},
                            out},
                   e);
}

/* ---- aliases ---- */

int registry_alias(store *s, const char *name, registry_artefact *out, hone_err *e)
{
    return look_up(s,
                   (lookup){"SELECT " ARTEFACT_READ " FROM artefacts WHERE digest ="
                            " (SELECT digest FROM alias_moves WHERE name = ?"
                            "  ORDER BY seq DESC LIMIT 1)",
                            name,
                            {"alias '", "' is not set"},
                            out},
                   e);
}

int registry_previous(store *s, const char *name, registry_artefact *out, hone_err *e)
{
    return look_up(s,
                   (lookup){"SELECT " ARTEFACT_READ " FROM artefacts WHERE digest ="
                            " (SELECT previous FROM alias_moves WHERE name = ?"
                            "  ORDER BY seq DESC LIMIT 1)",
                            name,
                            {"alias '", "' has no earlier artefact"},
                            out},
                   e);
}

typedef struct version_query {
    const char *name;
    int64_t version;
} version_query;

static int do_version(sqlite3 *db, void *user, hone_err *e)
{
    version_query *q = user;
    return sql_int(&q->version, db, e,
                   "SELECT coalesce(max(seq), 0) FROM alias_moves WHERE name = ?", "s", q->name);
}

int registry_alias_version(store *s, const char *name, int64_t *out, hone_err *e)
{
    version_query q = {name, 0};
    int rc = store_read(s, do_version, &q, e);
    *out = q.version;
    return rc;
}

/* ---- listings ---- */

/* Rows of a query as objects; columns take the names of the query. */
static int rows_as_json(json_t **out, sqlite3 *db, const char *query, const char *types,
                        const char *arg, hone_err *e)
{
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e, query, types, arg);
    json_t *list = json_array();
    while (rc == 0 && (rc = sql_step(st, e)) == 1) {
        json_t *row = json_object();
        for (int c = 0; c < sqlite3_column_count(st); c++)
            sql_set(row, sqlite3_column_name(st, c), st, c);
        json_array_append_new(list, row);
        rc = 0;
    }
    sqlite3_finalize(st);
    if (rc < 0) {
        json_decref(list);
        return rc;
    }
    *out = list;
    return 0;
}

static int do_list(sqlite3 *db, void *user, hone_err *e)
{
    json_t *o = user, *rows = NULL;
    int rc = rows_as_json(&rows, db,
                          "SELECT digest, kind, path, base, run_id, created_at,"
                          " (SELECT erasure_id FROM taints t WHERE t.digest = artefacts.digest)"
                          " AS tainted FROM artefacts"
                          " ORDER BY created_at",
                          "", NULL, e);
    if (rc == 0) {
        json_object_set_new(o, "artefacts", rows);
        rc = rows_as_json(&rows, db,
                          "SELECT name, digest, by, reason, ts FROM alias_moves m WHERE seq ="
                          " (SELECT max(seq) FROM alias_moves WHERE name = m.name)",
                          "", NULL, e);
    }
    if (rc == 0) {
        json_object_set_new(o, "aliases", rows);
        rc = rows_as_json(&rows, db,
                          "SELECT id, kind, status, started_at, ended_at FROM runs"
                          " ORDER BY started_at",
                          "", NULL, e);
    }
    if (rc == 0)
        json_object_set_new(o, "runs", rows);
    return rc;
}

int registry_list(store *s, json_t **out, hone_err *e)
{
    json_t *o = json_object();
    int rc = store_read(s, do_list, o, e);
    if (rc != 0) {
        json_decref(o);
        o = NULL;
    }
    *out = o;
    return rc;
}

typedef struct history_query {
    const char *name;
    json_t *rows;
} history_query;

static int do_history(sqlite3 *db, void *user, hone_err *e)
{
    history_query *q = user;
    return rows_as_json(&q->rows, db,
                        "SELECT digest, previous, by, reason, ts FROM alias_moves WHERE name = ?"
                        " ORDER BY seq DESC",
                        "s", q->name, e);
}

int registry_history(store *s, const char *name, json_t **out, hone_err *e)
{
    history_query q = {name, NULL};
    int rc = store_read(s, do_history, &q, e);
    *out = q.rows;
    return rc;
}
