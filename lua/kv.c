#include "lua/kv.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/utf8.h"

#include <math.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BUSY_MS = 1000 };

/* One statement each, made once. */
enum { GET, PUT, DROP, KEYS, SIZE, BEGIN, COMMIT, ROLLBACK, N_STATEMENTS };

static const char *const texts[N_STATEMENTS] = {
    [GET] = "SELECT value FROM kv WHERE key = ?1",
    [PUT] = "INSERT INTO kv (key, value) VALUES (?1, ?2) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    [DROP] = "DELETE FROM kv WHERE key = ?1",
    [KEYS] = "SELECT key FROM kv WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key LIMIT ?2",
    [SIZE] = "SELECT bytes FROM size",
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
};

/* The sum is kept by triggers, so that a set need not read every row. */
static const char schema[] =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;"
    "BEGIN IMMEDIATE;"
    "CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS size (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER);"
    "INSERT OR IGNORE INTO size VALUES (1, 0);"
    "CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON kv BEGIN UPDATE size SET bytes = bytes + "
    "length(CAST(NEW.key AS BLOB)) + length(CAST(NEW.value AS BLOB)); END;"
    "CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON kv BEGIN UPDATE size SET bytes = bytes - "
    "length(CAST(OLD.key AS BLOB)) - length(CAST(OLD.value AS BLOB)); END;"
    "CREATE TRIGGER IF NOT EXISTS changed AFTER UPDATE ON kv BEGIN UPDATE size SET bytes = bytes + "
    "length(CAST(NEW.value AS BLOB)) - length(CAST(OLD.value AS BLOB)); END;"
    "COMMIT;";

struct kv {
    pthread_mutex_t lock;
    sqlite3 *db;
    sqlite3_stmt *stmt[N_STATEMENTS];
    int64_t quota;
    char *path;
    bool on_disk;
};

static int db_error(const kv *k, hone_err *e)
{
    int code = sqlite3_errcode(k->db) == SQLITE_BUSY ? HONE_EAGAIN : HONE_EIO;
    return hone_fail(e, code, "%s: %s", k->path, sqlite3_errmsg(k->db));
}

kv *kv_new(const char *path, int64_t quota)
{
    kv *k = mem_alloc(sizeof *k);
    k->quota = quota;
    k->path = mem_strdup(path != NULL ? path : ":memory:");
    k->on_disk = path != NULL;
    pthread_mutex_init(&k->lock, NULL);
    return k;
}

static void close_db(kv *k)
{
    for (int i = 0; i < N_STATEMENTS; i++) {
        sqlite3_finalize(k->stmt[i]);
        k->stmt[i] = NULL;
    }
    sqlite3_close(k->db);
    k->db = NULL;
}

void kv_free(kv *k)
{
    if (k == NULL)
        return;
    close_db(k);
    pthread_mutex_destroy(&k->lock);
    free(k->path);
    free(k);
}

/* ---- under the lock ---- */

static int open_db(kv *k, hone_err *e)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    char *dir = path_dir(k->path);
    int rc = k->on_disk ? dir_make(dir, e) : 0;
    free(dir);
    if (rc != 0)
        return rc;
    if (sqlite3_open_v2(k->path, &k->db, flags, NULL) != SQLITE_OK ||
        sqlite3_busy_timeout(k->db, BUSY_MS) != SQLITE_OK ||
        sqlite3_exec(k->db, schema, NULL, NULL, NULL) != SQLITE_OK)
        rc = db_error(k, e);
    for (int i = 0; rc == 0 && i < N_STATEMENTS; i++)
        if (sqlite3_prepare_v3(k->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &k->stmt[i], NULL) !=
            SQLITE_OK)
            rc = db_error(k, e);
    if (rc == 0 && k->on_disk && chmod(k->path, 0600) != 0)
        rc = file_error(e, k->path, "cannot make private");
    if (rc != 0)
        close_db(k);
    return rc;
}

/* Every verb begins so and ends with unlocking. */
static int lock(kv *k, hone_err *e)
{
    pthread_mutex_lock(&k->lock);
    return k->db != NULL ? 0 : open_db(k, e);
}

/* Runs a statement to its end; what it has bound is unbound. */
static int run(kv *k, int which, hone_err *e)
{
    int rc = sqlite3_step(k->stmt[which]) == SQLITE_DONE ? 0 : db_error(k, e);
    sqlite3_reset(k->stmt[which]);
    sqlite3_clear_bindings(k->stmt[which]);
    return rc;
}

static int get(kv *k, const char *key, size_t len, json_t **out, hone_err *e)
{
    sqlite3_stmt *s = k->stmt[GET];
    sqlite3_bind_text(s, 1, key, (int)len, SQLITE_STATIC);
    int step = sqlite3_step(s), rc = 0;
    if (step == SQLITE_ROW)
        rc = js_parse(out, (const char *)sqlite3_column_text(s, 0),
                      (size_t)sqlite3_column_bytes(s, 0), e);
    else if (step != SQLITE_DONE)
        rc = db_error(k, e);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return rc;
}

static int check_quota(kv *k, hone_err *e)
{
    sqlite3_stmt *s = k->stmt[SIZE];
    int rc = sqlite3_step(s) == SQLITE_ROW ? 0 : db_error(k, e);
    int64_t bytes = rc == 0 ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    if (rc == 0 && bytes > k->quota)
        return hone_fail(e, HONE_ELIMIT, "the store would hold %lld bytes, at most %lld",
                         (long long)bytes, (long long)k->quota);
    return rc;
}

static int put(kv *k, const char *key, size_t len, const json_t *v, hone_err *e)
{
    if (v == NULL) {
        sqlite3_bind_text(k->stmt[DROP], 1, key, (int)len, SQLITE_STATIC);
        return run(k, DROP, e);
    }
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    size_t n = strlen(text);
    int rc = 0;
    if (n > KV_MAX_VALUE) {
        rc = hone_fail(e, HONE_ELIMIT, "a value of %zu bytes, at most %d", n, KV_MAX_VALUE);
    } else {
        sqlite3_bind_text(k->stmt[PUT], 1, key, (int)len, SQLITE_STATIC);
        sqlite3_bind_text(k->stmt[PUT], 2, text, (int)n, SQLITE_STATIC);
        rc = run(k, PUT, e);
    }
    free(text);
    return rc == 0 ? check_quota(k, e) : rc;
}

static int finish(kv *k, int rc, hone_err *e)
{
    if (rc == 0)
        rc = run(k, COMMIT, e);
    if (rc != 0)
        run(k, ROLLBACK, NULL);
    return rc;
}

static int check_key(const char *key, size_t len, hone_err *e)
{
    if (len == 0 || len > KV_MAX_KEY)
        return hone_fail(e, HONE_ELIMIT, "a key of %zu bytes, from 1 to %d", len, KV_MAX_KEY);
    if (memchr(key, 0, len) != NULL || utf8_valid(key, len) != len)
        return hone_fail(e, HONE_EINVAL, "a key that is not UTF-8 text");
    return 0;
}

/* ---- the verbs ---- */

int kv_get(kv *k, const char *key, size_t len, json_t **out, hone_err *e)
{
    int rc = check_key(key, len, e);
    *out = NULL;
    if (rc != 0)
        return rc;
    rc = lock(k, e);
    if (rc == 0)
        rc = get(k, key, len, out, e);
    pthread_mutex_unlock(&k->lock);
    return rc;
}

int kv_set(kv *k, const char *key, size_t len, const json_t *v, hone_err *e)
{
    int rc = check_key(key, len, e);
    if (rc != 0)
        return rc;
    rc = lock(k, e);
    if (rc == 0)
        rc = run(k, BEGIN, e);
    if (rc == 0)
        rc = finish(k, put(k, key, len, v, e), e);
    pthread_mutex_unlock(&k->lock);
    return rc;
}

static int add(kv *k, const char *key, size_t len, double amount, double *out, hone_err *e)
{
    json_t *old = NULL;
    int rc = get(k, key, len, &old, e);
    if (rc == 0 && old != NULL && !json_is_number(old))
        rc = hone_fail(e, HONE_EINVAL, "'%.*s' is no number", (int)len, key);
    double sum = json_number_value(old) + amount;
    json_decref(old);
    if (rc == 0 && !isfinite(sum))
        rc = hone_fail(e, HONE_EINVAL, "'%.*s' would not be finite", (int)len, key);
    if (rc != 0)
        return rc;
    json_t *v =
        sum == floor(sum) && fabs(sum) < 0x1p53 ? json_integer((json_int_t)sum) : json_real(sum);
    rc = put(k, key, len, v, e);
    json_decref(v);
    *out = sum;
    return rc;
}

int kv_add(kv *k, const char *key, size_t len, double amount, double *out, hone_err *e)
{
    int rc = check_key(key, len, e);
    if (rc != 0)
        return rc;
    rc = lock(k, e);
    if (rc == 0)
        rc = run(k, BEGIN, e);
    if (rc == 0)
        rc = finish(k, add(k, key, len, amount, out, e), e);
    pthread_mutex_unlock(&k->lock);
    return rc;
}

static int keys(kv *k, const char *prefix, size_t len, json_t *all, hone_err *e)
{
    sqlite3_stmt *s = k->stmt[KEYS];
    int step;
    sqlite3_bind_text(s, 1, prefix, (int)len, SQLITE_STATIC);
    sqlite3_bind_int(s, 2, KV_MAX_LIST);
    while ((step = sqlite3_step(s)) == SQLITE_ROW)
        json_array_append_new(all, json_stringn((const char *)sqlite3_column_text(s, 0),
                                                (size_t)sqlite3_column_bytes(s, 0)));
    int rc = step == SQLITE_DONE ? 0 : db_error(k, e);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return rc;
}

int kv_keys(kv *k, const char *prefix, size_t len, json_t **out, hone_err *e)
{
    json_t *all = json_array();
    int rc = lock(k, e);
    if (rc == 0)
        rc = keys(k, prefix, len, all, e);
    pthread_mutex_unlock(&k->lock);
    if (rc != 0) {
        json_decref(all);
        all = NULL;
    }
    *out = all;
    return rc;
}
