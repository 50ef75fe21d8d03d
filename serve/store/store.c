/* Opening, the writer thread, and the read connections. */
#include "serve/store/store.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/queue.h"
#include "core/base/secret.h"
#include "serve/store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { QUEUE_JOBS = 4096, BATCH = 64, READERS = 4, BUSY_MS = 10000 };

typedef struct job {
    store_fn *fn;
    store_done_fn *done;
    void *user;
    int rc;
    hone_err err;
} job;

struct store {
    char *dir, *path;
    unsigned char pepper[SECRET_BYTES];
    hooks *hooks;
    int64_t (*now_ms)(void);
    int runs_fd; /* locked; -1: not */
    sqlite3 *db; /* the writer's */
    queue *jobs;
    pthread_t writer;
    bool started;
    int64_t lost; /* the writer's: what it could not write since the disk failed; 0: it does not */
    atomic_uint_fast64_t written, failed, dropped, commits;

    pthread_mutex_t lock; /* of the readers */
    pthread_cond_t reader_back;
    sqlite3 *idle[READERS];
    int n_idle, n_open;
};

/* ---- connections ---- */

static int connect_db(sqlite3 **out, const char *path, bool writer, hone_err *e)
{
    int flags = (writer ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY) |
                SQLITE_OPEN_NOMUTEX;
    int rc = 0;
    if (sqlite3_open_v2(path, out, flags, NULL) != SQLITE_OK)
        rc = sql_error(*out, "cannot open", e);
    if (rc == 0) {
        sqlite3_extended_result_codes(*out, 1);
        sqlite3_busy_timeout(*out, BUSY_MS);
        rc = sql_exec(*out, "PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON", e);
    }
    if (rc == 0 && writer)
        rc = sql_exec(*out,
                      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                      "PRAGMA secure_delete = ON",
                      e);
    if (rc != 0) {
        sqlite3_close(*out);
        *out = NULL;
    }
    return rc;
}

/* ---- the writer ---- */

static void run_job(sqlite3 *db, job *j)
{
    hone_err *e = &j->err;
    j->rc = sql_exec(db, "SAVEPOINT job", e);
    if (j->rc != 0)
        return;
    j->rc = j->fn(db, j->user, e);
    if (j->rc < 0) /* fails too when the whole transaction is gone, which the caller sees */
        sql_exec(db, "ROLLBACK TO job", NULL);
    else
        j->rc = 0;
    int rc = sql_exec(db, "RELEASE job", j->rc == 0 ? e : NULL);
    if (j->rc == 0)
        j->rc = rc;
}

/* SQLite ends the transaction by itself after some errors (a full disk): then nothing of the batch
 * is there. */
static int run_batch(sqlite3 *db, job *batch[], int n, hone_err *e)
{
    int rc = sql_exec(db, "BEGIN IMMEDIATE", e);
    for (int i = 0; i < n && rc == 0; i++) {
        run_job(db, batch[i]);
        if (sqlite3_get_autocommit(db)) {
            *e = batch[i]->err;
            rc = batch[i]->rc < 0 ? batch[i]->rc : hone_fail(e, HONE_EIO, "database: rolled back");
        }
    }
    if (rc == 0)
        rc = sql_exec(db, "COMMIT", e);
    if (rc != 0 && !sqlite3_get_autocommit(db))
        sql_exec(db, "ROLLBACK", NULL);
    return rc;
}

/* Most of what is lost was nobody's to wait for: the log says when that begins and how much it was.
 */
static void tell_disk(store *s, job *batch[], int n, int rc, const hone_err *e)
{
    int bad = 0;
    const hone_err *why = rc == HONE_EIO ? e : NULL;
    for (int i = 0; i < n; i++) {
        bad += rc != 0 || batch[i]->rc != 0;
        if (why == NULL && batch[i]->rc == HONE_EIO)
            why = &batch[i]->err;
    }
    if (why != NULL) {
        if (s->lost == 0)
            log_error("store", "requests, usage and the audit log are not written: %s", why->msg);
        s->lost += bad;
    } else if (s->lost > 0 && bad < n) {
        log_warn("store", "written again; %lld records were lost", (long long)s->lost);
        s->lost = 0;
    }
}

static void finish_batch(store *s, job *batch[], int n, int rc, const hone_err *e)
{
    atomic_fetch_add(&s->commits, rc == 0 ? 1 : 0);
    tell_disk(s, batch, n, rc, e);
    for (int i = 0; i < n; i++) {
        job *j = batch[i];
        if (rc != 0 && j->rc == 0) {
            j->rc = rc;
            j->err = *e;
        }
        atomic_fetch_add(j->rc == 0 ? &s->written : &s->failed, 1);
        j->done(j->user, j->rc, &j->err);
        free(j);
    }
}

static void *writer_main(void *arg)
{
    store *s = arg;
    job *batch[BATCH];
    void *item;
    while (queue_pop(s->jobs, &item, -1) == 0) {
        int n = 0;
        do
            batch[n++] = item;
        while (n < BATCH && queue_pop(s->jobs, &item, 0) == 0);
        hone_err e = {0};
        int rc = run_batch(s->db, batch, n, &e);
        finish_batch(s, batch, n, rc, &e);
    }
    return NULL;
}

static job *job_new(store_fn *fn, store_done_fn *done, void *user)
{
    job *j = mem_alloc(sizeof *j);
    *j = (job){.fn = fn, .done = done, .user = user};
    return j;
}

int store_post(store *s, store_fn *fn, store_done_fn *done, void *user)
{
    job *j = job_new(fn, done, user);
    int rc = queue_push(s->jobs, j);
    if (rc != 0) {
        atomic_fetch_add(&s->dropped, 1);
        free(j);
    }
    return rc;
}

/* A writer that waits: its job carries this instead of the caller's own pointer. */
typedef struct waiter {
    store_fn *fn;
    void *user;
    pthread_mutex_t lock;
    pthread_cond_t done_now;
    bool done;
    int rc;
    hone_err *e;
} waiter;

static int waiter_run(sqlite3 *db, void *user, hone_err *e)
{
    waiter *w = user;
    return w->fn(db, w->user, e);
}

static void waiter_done(void *user, int rc, const hone_err *e)
{
    waiter *w = user;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    w->rc = rc;
    if (rc != 0 && w->e != NULL)
        *w->e = *e;
    pthread_cond_signal(&w->done_now);
    pthread_mutex_unlock(&w->lock);
}

int store_write(store *s, store_fn *fn, void *user, hone_err *e)
{
    waiter w = {.fn = fn, .user = user, .e = e};
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.done_now, NULL);
    job *j = job_new(waiter_run, waiter_done, &w);
    if (queue_push_wait(s->jobs, j) != 0) {
        free(j);
        w.rc = hone_fail(e, HONE_ECANCELLED, "database: closing");
        w.done = true;
    }
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.done_now, &w.lock);
    pthread_mutex_unlock(&w.lock);
    pthread_cond_destroy(&w.done_now);
    pthread_mutex_destroy(&w.lock);
    return w.rc;
}

static int nothing(sqlite3 *db, void *user, hone_err *e)
{
    (void)db;
    (void)user;
    (void)e;
    return 0;
}

int store_flush(store *s, hone_err *e)
{
    return store_write(s, nothing, NULL, e);
}

/* ---- readers ---- */

static int take_reader(store *s, sqlite3 **out, hone_err *e)
{
    int rc = 0;
    *out = NULL;
    pthread_mutex_lock(&s->lock);
    while (s->n_idle == 0 && s->n_open == READERS)
        pthread_cond_wait(&s->reader_back, &s->lock);
    if (s->n_idle > 0) {
        *out = s->idle[--s->n_idle];
    } else {
        rc = connect_db(out, s->path, false, e);
        s->n_open += rc == 0;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static void give_reader(store *s, sqlite3 *db)
{
    pthread_mutex_lock(&s->lock);
    s->idle[s->n_idle++] = db;
    pthread_cond_signal(&s->reader_back);
    pthread_mutex_unlock(&s->lock);
}

int store_read(store *s, store_fn *fn, void *user, hone_err *e)
{
    sqlite3 *db;
    int rc = take_reader(s, &db, e);
    if (rc != 0)
        return rc;
    rc = sql_exec(db, "BEGIN", e);
    if (rc == 0) {
        rc = fn(db, user, e);
        sql_exec(db, "ROLLBACK", NULL);
    }
    give_reader(s, db);
    return rc;
}

/* Neither can run inside a transaction, so they have a connection of their own. */
int store_fold(store *s, hone_err *e)
{
    sqlite3 *db;
    int rc = connect_db(&db, s->path, true, e);
    if (rc == 0)
        rc = sql_exec(db, "VACUUM", e);
    if (rc == 0 &&
        sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) != SQLITE_OK)
        rc = sql_error(db, "cannot fold the log", e);
    sqlite3_close(db);
    return rc;
}

/* ---- opening and closing ---- */

/* Volumes of containers often belong to somebody else: who is who, and what to do. */
static int cannot_open(const store *s, hone_err *e)
{
    struct stat st;
    bool denied = errno == EACCES;
    int rc = file_error(e, s->path, "cannot open");
    const char *theirs = file_exists(s->path) ? s->path : s->dir;
    unsigned me = (unsigned)geteuid();
    if (!denied || stat(theirs, &st) != 0 || (unsigned)st.st_uid == me)
        return rc;
    return hone_fail(e, rc,
                     "%s; %s is the user's with number %u, and this program runs as %u: "
                     "'chown -R %u %s' where it is not a volume of somebody else's",
                     e->msg, theirs, (unsigned)st.st_uid, me, me, s->dir);
}

/* The directory and the files are the operator's alone; SQLite gives its side files the mode of the
 * database. */
static int make_place(store *s, bool must_exist, hone_err *e)
{
    if (must_exist && !file_exists(s->path))
        return hone_fail(e, HONE_ENOTFOUND, "%s: there is no database yet", s->path);
    bool is_new = !file_is_dir(s->dir);
    int rc = dir_make(s->dir, e);
    if (rc == 0 && is_new && chmod(s->dir, 0700) != 0)
        rc = file_error(e, s->dir, "cannot change the mode");
    if (rc != 0)
        return rc;
    int fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return cannot_open(s, e);
    close(fd);
    return secret_load(s->pepper, s->dir, "pepper", e);
}

/* The database remembers a digest of its pepper: with another one every key would be refused for no
 * visible reason. */
static int check_pepper(sqlite3 *db, void *user, hone_err *e)
{
    const store *s = user;
    char hex[65];
    int64_t known, same;
    store_digest_hex(s, STORE_CHECK, "pepper", 6, hex);
    int rc = sql_int(&known, db, e, "SELECT count(*) FROM meta WHERE key = 'pepper'", "");
    if (rc == 0 && known == 0)
        return sql_run(db, e, "INSERT INTO meta(key, value) VALUES('pepper', ?)", "s", hex);
    if (rc == 0)
        rc = sql_int(&same, db, e, "SELECT count(*) FROM meta WHERE key = 'pepper' AND value = ?",
                     "s", hex);
    if (rc == 0 && same == 0)
        rc = hone_fail(e, HONE_EFORMAT,
                       "%s/pepper is not the one that this database was made with; put it back "
                       "(no key works without it)",
                       s->dir);
    return rc;
}

static int prepare(store *s, hone_err *e)
{
    int rc = connect_db(&s->db, s->path, true, e);
    if (rc == 0)
        rc = migrate(s->db, migrations, e);
    if (rc == 0)
        rc = sql_exec(s->db,
                      "CREATE TABLE IF NOT EXISTS meta("
                      "key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT",
                      e);
    if (rc != 0)
        return hone_fail_at(e, "%s", s->path);
    if (pthread_create(&s->writer, NULL, writer_main, s) != 0)
        return hone_fail(e, HONE_ENOMEM, "%s: cannot start the writer", s->path);
    s->started = true;
    return store_write(s, check_pepper, s, e);
}

int store_open(store **out, const char *dir, const store_options *o, hone_err *e)
{
    static const store_options none = {0};
    *out = NULL;
    o = o != NULL ? o : &none;
    store *s = mem_alloc(sizeof *s);
    s->dir = mem_strdup(dir);
    s->path = path_join(dir, "hone.db");
    s->hooks = o->hooks;
    s->runs_fd = -1;
    s->now_ms = o->now_ms != NULL ? o->now_ms : clock_unix_ms;
    s->jobs = queue_new((size_t)(o->queue_jobs > 0 ? o->queue_jobs : QUEUE_JOBS));
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->reader_back, NULL);
    int rc = make_place(s, o->must_exist, e);
    if (rc == 0)
        rc = prepare(s, e);
    if (rc != 0) {
        store_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void store_close(store *s)
{
    if (s == NULL)
        return;
    queue_close(s->jobs);
    if (s->started)
        pthread_join(s->writer, NULL);
    store_unlock_runs(s);
    for (int i = 0; i < s->n_idle; i++)
        sqlite3_close(s->idle[i]);
    sqlite3_close(s->db); /* the last connection also folds the log into the database */
    queue_free(s->jobs);
    pthread_cond_destroy(&s->reader_back);
    pthread_mutex_destroy(&s->lock);
    sodium_memzero(s->pepper, sizeof s->pepper);
    free(s->dir);
    free(s->path);
    free(s);
}

/* ---- one run at a time ---- */

int store_lock_runs(store *s, hone_err *e)
{
    if (s->runs_fd >= 0)
        return 0;
    int rc = 0;
    char *path = path_join(s->dir, "runs.lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        rc = file_error(e, path, "cannot open");
    else if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        rc = errno == EWOULDBLOCK ? hone_fail(e, HONE_EAGAIN, "%s: another process has it", path)
                                  : file_error(e, path, "cannot lock");
    if (rc == 0)
        s->runs_fd = fd;
    else if (fd >= 0)
        close(fd);
    free(path);
    return rc;
}

void store_unlock_runs(store *s)
{
    if (s->runs_fd >= 0)
        close(s->runs_fd);
    s->runs_fd = -1;
}

/* ---- what it knows ---- */

const char *store_dir(const store *s)
{
    return s->dir;
}

hooks *store_hooks(const store *s)
{
    return s->hooks;
}

int64_t store_now_ms(const store *s)
{
    return s->now_ms();
}

static int read_version(sqlite3 *db, void *user, hone_err *e)
{
    return sql_int(user, db, e, "SELECT max(version) FROM migrations", "");
}

int store_version(store *s, int64_t *out, hone_err *e)
{
    return store_read(s, read_version, out, e);
}

store_stats store_counters(store *s)
{
    return (store_stats){s->written, s->failed, s->dropped, s->commits, (int)queue_len(s->jobs)};
}

void store_digest(const store *s, store_purpose purpose, const void *data, size_t len,
                  unsigned char out[32])
{
    unsigned char key[crypto_generichash_KEYBYTES];
    crypto_kdf_derive_from_key(key, sizeof key, (uint64_t)purpose, "honekdf_", s->pepper);
    crypto_generichash(out, 32, data, len, key, sizeof key);
    sodium_memzero(key, sizeof key);
}

void store_digest_hex(const store *s, store_purpose purpose, const void *data, size_t len,
                      char hex[65])
{
    unsigned char d[32];
    store_digest(s, purpose, data, len, d);
    sodium_bin2hex(hex, 65, d, sizeof d);
}
