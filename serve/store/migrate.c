/* The schema, step by step. A step that has been released is never changed: what comes later is a
 * new row. */
#include "serve/store/db.h"

#include "core/base/clock.h"
#include "serve/store/erasure_in.h"
#include "serve/store/registry.h"

#include <inttypes.h>

static const char keys_sql[] =
    "CREATE TABLE keys("
    " id TEXT NOT NULL PRIMARY KEY, env TEXT NOT NULL, name TEXT NOT NULL, owner TEXT, role TEXT,"
    " hash BLOB NOT NULL, hash_prev BLOB, prev_expires_at INTEGER,"
    " scopes INTEGER NOT NULL, models_allow TEXT,"
    " rpm INTEGER, tpm INTEGER, max_parallel INTEGER, daily_tokens INTEGER,"
    " created_at INTEGER NOT NULL, created_by TEXT, expires_at INTEGER, last_used_at INTEGER,"
    " revoked_at INTEGER, note TEXT) STRICT;"
    "CREATE TABLE usage("
    " key_id TEXT NOT NULL, day INTEGER NOT NULL, requests INTEGER NOT NULL,"
    " tok_in INTEGER NOT NULL, tok_out INTEGER NOT NULL, PRIMARY KEY(key_id, day)) STRICT;";

/* The triggers keep an honest program honest; the chain of digests shows what a dishonest one did.
 */
static const char audit_sql[] =
    "CREATE TABLE audit("
    " seq INTEGER PRIMARY KEY, ts INTEGER NOT NULL, action TEXT NOT NULL, line TEXT NOT NULL,"
    " hash BLOB NOT NULL) STRICT;"
    "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit"
    " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;"
    "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit"
    " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;";

static const char requests_sql[] =
    "CREATE TABLE requests("
    " id TEXT NOT NULL PRIMARY KEY, ts INTEGER NOT NULL, key_id TEXT, user_hash TEXT, route TEXT "
    "NOT NULL,"
    " model TEXT NOT NULL, model_digest TEXT, adapter_digest TEXT, template_digest TEXT,"
    " params TEXT, messages TEXT, prompt TEXT, choices TEXT, metadata TEXT,"
    " finish_reason TEXT, tok_in INTEGER, tok_out INTEGER, ttft_ms INTEGER, e2e_ms INTEGER,"
    " status INTEGER NOT NULL, stored INTEGER NOT NULL, expires_at INTEGER) STRICT;"
    "CREATE INDEX requests_expires ON requests(expires_at) WHERE expires_at IS NOT NULL;"
    "CREATE INDEX requests_user ON requests(user_hash) WHERE user_hash IS NOT NULL;";

/* request_id is no foreign key: feedback keeps its own snapshot and outlives the request. */
static const char feedback_sql[] =
    "CREATE TABLE feedback("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, request_id TEXT,"
    " choice_index INTEGER NOT NULL, ts INTEGER NOT NULL, updated_at INTEGER NOT NULL,"
    " version INTEGER NOT NULL, rating INTEGER CHECK(rating IN (-1, 0, 1)), score REAL,"
    " reason TEXT, tags TEXT, comment TEXT, correction TEXT, preferred_over TEXT,"
    " source TEXT NOT NULL CHECK(source IN ('end_user', 'annotator', 'auto', 'implicit')),"
    " key_id TEXT, user_hash TEXT, idempotency_key TEXT, model TEXT,"
    " review TEXT NOT NULL DEFAULT 'pending'"
    "  CHECK(review IN ('pending', 'approved', 'rejected')),"
    " reviewer TEXT, reviewed_at INTEGER, snapshot TEXT NOT NULL, snapshot_sha256 TEXT NOT NULL"
    ") STRICT;"
    "CREATE UNIQUE INDEX feedback_idempotency ON feedback(key_id, idempotency_key)"
    " WHERE idempotency_key IS NOT NULL;"
    "CREATE INDEX feedback_request ON feedback(request_id);"
    "CREATE INDEX feedback_user ON feedback(user_hash) WHERE user_hash IS NOT NULL;"
    "CREATE TABLE feedback_runs("
    " feedback_id TEXT NOT NULL, run_id TEXT NOT NULL, ts INTEGER NOT NULL,"
    " PRIMARY KEY(feedback_id, run_id)) STRICT;"
    "CREATE TABLE erasures("
    " id TEXT NOT NULL PRIMARY KEY, ts INTEGER NOT NULL, user_hash TEXT NOT NULL, receipt TEXT NOT "
    "NULL"
    ") STRICT;";

/* clang-format off */
const migration migrations[] = {
    {1, "keys and usage",      keys_sql},
    {2, "audit log",           audit_sql},
    {3, "stored responses",    requests_sql},
    {4, "feedback",            feedback_sql},
    {5, "registry",            registry_sql},
    {6, "erasure",             erasure_sql},
    {0, NULL, NULL},
};
/* clang-format on */

static int apply(sqlite3 *db, const migration *m, hone_err *e)
{
    int rc = sql_exec(db, "BEGIN IMMEDIATE", e);
    if (rc != 0)
        return rc;
    int64_t have;
    rc =
        sql_int(&have, db, e, "SELECT count(*) FROM migrations WHERE version = ?", "i", m->version);
    if (rc == 0 && have == 0) { /* another process may have been faster */
        rc = sql_exec(db, m->sql, e);
        if (rc == 0)
            rc = sql_run(db, e, "INSERT INTO migrations(version, name, ts) VALUES(?, ?, ?)", "isi",
                         m->version, m->name, clock_unix_ms());
    }
    if (rc == 0)
        rc = sql_exec(db, "COMMIT", e);
    if (rc != 0) {
        sql_exec(db, "ROLLBACK", NULL);
        hone_fail_at(e, "schema %" PRId64 " (%s)", m->version, m->name);
    }
    return rc;
}

int migrate(sqlite3 *db, const migration *rows, hone_err *e)
{
    int64_t have, newest = 0;
    int rc =
        sql_exec(db,
                 "CREATE TABLE IF NOT EXISTS migrations("
                 "version INTEGER PRIMARY KEY, name TEXT NOT NULL, ts INTEGER NOT NULL) STRICT",
                 e);
    if (rc == 0)
        rc = sql_int(&have, db, e, "SELECT coalesce(max(version), 0) FROM migrations", "");
    for (const migration *m = rows; rc == 0 && m->version != 0; m++) {
        newest = m->version;
        if (m->version > have)
            rc = apply(db, m, e);
    }
    if (rc == 0 && have > newest)
        rc = hone_fail(e, HONE_EUNSUPPORTED,
                       "the database has schema %" PRId64 ", this program knows up to %" PRId64
                       "; use the newer program",
                       have, newest);
    return rc;
}
