#include "serve/store/store.h"

#include "core/base/file.h"
#include "core/base/mem.h"
#include "serve/store/audit.h"
#include "serve/store/db.h"
#include "serve/store/keys.h"
#include "tests/unit/aid_dir.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static store *open_store(const char *dir)
{
    store *s;
    hone_err e = {0};
    if (store_open(&s, dir, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    return s;
}

static void fails_with(int rc, int want, const hone_err *e, const char *text)
{
    assert_int_equal(rc, want);
    if (strstr(e->msg, text) == NULL)
        fail_msg("'%s' does not say '%s'", e->msg, text);
}

/* Whoever starts it with a directory of somebody else's learns whose it is and who they are. */
static void test_names_the_owner_of_a_strange_directory(void **state)
{
    hone_err e = {0};
    store *s;
    struct stat st;
    enum { NOBODY = 65534 };
    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(*state, 0755), 0);
    assert_int_equal(seteuid(NOBODY), 0);
    bool reached = stat(*state, &st) == 0; /* not where the parent is closed to others */
    int rc = store_open(&s, *state, NULL, &e);
    assert_int_equal(seteuid(0), 0);
    if (!reached)
        skip();
    fails_with(rc, HONE_EDENIED, &e, "is the user's with number 0, and this program runs as 65534");
    assert_non_null(strstr(e.msg, "chown -R 65534"));
    store_close(open_store(*state)); /* now there is a database, and it is the one that counts */
    assert_int_equal(seteuid(NOBODY), 0);
    rc = store_open(&s, *state, NULL, &e);
    assert_int_equal(seteuid(0), 0);
    fails_with(rc, HONE_EDENIED, &e, "hone.db is the user's with number 0");
}

static int make_table(sqlite3 *db, void *user, hone_err *e)
{
    (void)user;
    return sql_exec(db, "CREATE TABLE t(x INTEGER PRIMARY KEY, y TEXT)", e);
}

static int add_row(sqlite3 *db, void *user, hone_err *e)
{
    return sql_run(db, e, "INSERT INTO t(x, y) VALUES(?, ?)", "is", *(int64_t *)user, "row");
}

static int count_rows(sqlite3 *db, void *user, hone_err *e)
{
    return sql_int(user, db, e, "SELECT count(*) FROM t", "");
}

static int64_t rows(store *s)
{
    int64_t n = -1;
    hone_err e = {0};
    assert_int_equal(store_read(s, count_rows, &n, &e), 0);
    return n;
}

/* ---- opening ---- */

static unsigned mode_of(const char *dir, const char *name)
{
    struct stat st;
    char *path = path_join(dir, name);
    assert_int_equal(stat(path, &st), 0);
    free(path);
    return st.st_mode & 0777;
}

static void test_a_new_state_is_private(void **state)
{
    char *dir = path_join(*state, "deep/state");
    store *s = open_store(dir);
    int64_t version;
    assert_int_equal(store_version(s, &version, NULL), 0);
    assert_true(version >= 4);
    assert_int_equal(mode_of(dir, "."), 0700);
    assert_int_equal(mode_of(dir, "hone.db"), 0600);
    assert_int_equal(mode_of(dir, "hone.db-wal"), 0600);
    assert_int_equal(mode_of(dir, "pepper"), 0600);
    store_close(s);
    s = open_store(dir); /* and opens again */
    store_close(s);
    free(dir);
}

static void test_must_exist(void **state)
{
    store *s;
    hone_err e = {0};
    store_options o = {.must_exist = true};
    fails_with(store_open(&s, *state, &o, &e), HONE_ENOTFOUND, &e, "there is no database yet");
    assert_null(s);
}

static int set_version(sqlite3 *db, void *user, hone_err *e)
{
    (void)user;
    return sql_run(db, e, "INSERT INTO migrations(version, name, ts) VALUES(999, 'later', 0)", "");
}

static void test_a_newer_schema_is_refused(void **state)
{
    store *s = open_store(*state);
    assert_int_equal(store_write(s, set_version, NULL, NULL), 0);
    store_close(s);
    hone_err e = {0};
    fails_with(store_open(&s, *state, NULL, &e), HONE_EUNSUPPORTED, &e,
               "the database has schema 999, this program knows up to ");
}

static void test_another_pepper_is_refused(void **state)
{
    store_close(open_store(*state));
    char *path = path_join(*state, "pepper");
    assert_int_equal(unlink(path), 0);
    store *s;
    hone_err e = {0};
    fails_with(store_open(&s, *state, NULL, &e), HONE_EFORMAT, &e,
               "is not the one that this database was made with");
    free(path);
}

static void test_a_readable_or_short_pepper_is_refused(void **state)
{
    store_close(open_store(*state));
    char *path = path_join(*state, "pepper");
    assert_int_equal(chmod(path, 0640), 0);
    store *s;
    hone_err e = {0};
    fails_with(store_open(&s, *state, NULL, &e), HONE_EDENIED, &e, "mode 640, others may read it");
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, 31), 0);
    fails_with(store_open(&s, *state, NULL, &e), HONE_EFORMAT, &e, "not 32 bytes long");
    free(path);
}

static void test_not_a_database(void **state)
{
    char *path = path_join(*state, "hone.db");
    char junk[8192];
    memset(junk, 'x', sizeof junk);
    assert_int_equal(file_write(path, junk, sizeof junk, NULL), 0);
    store *s;
    hone_err e = {0};
    fails_with(store_open(&s, *state, NULL, &e), HONE_EFORMAT, &e, "file is not a database");
    assert_null(s);
    free(path);
}

static void test_migrations_run_once_each(void **state)
{
    static const migration two[] = {
        {1, "a", "CREATE TABLE a(x)"}, {2, "b", "CREATE TABLE b(x)"}, {0, NULL, NULL}};
    static const migration bad[] = {{1, "a", "CREATE TABLE a(x)"},
                                    {2, "b", "CREATE TABLE b(x)"},
                                    {3, "c", "CREATE TABLE c(x); CREATE TABLE a(x)"},
                                    {0, NULL, NULL}};
    char *path = path_join(*state, "m.db");
    sqlite3 *db;
    hone_err e = {0};
    int64_t n;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(migrate(db, two, &e), 0);
    assert_int_equal(migrate(db, two, &e), 0);
    fails_with(migrate(db, bad, &e), HONE_EINTERNAL, &e, "schema 3 (c): ");
    assert_int_equal(sql_int(&n, db, &e, "SELECT max(version) FROM migrations", ""), 0);
    assert_int_equal(n, 2);
    assert_int_equal(/* a failed step leaves nothing of itself */
                     sql_int(&n, db, &e, "SELECT count(*) FROM sqlite_schema WHERE name = 'c'", ""),
                     0);
    assert_int_equal(n, 0);
    sqlite3_close(db);
    free(path);
}

/* ---- writing ---- */

static void test_a_failed_job_takes_nothing_with_it(void **state)
{
    store *s = open_store(*state);
    int64_t one = 1, two = 2;
    hone_err e = {0};
    assert_int_equal(store_write(s, make_table, NULL, &e), 0);
    assert_int_equal(store_write(s, add_row, &one, &e), 0);
    fails_with(store_write(s, add_row, &one, &e), HONE_EEXIST, &e, "UNIQUE constraint failed");
    assert_int_equal(store_write(s, add_row, &two, &e), 0);
    assert_int_equal(rows(s), 2);
    store_close(s);
}

typedef struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool entered, open;
} gate;

static int wait_at_gate(sqlite3 *db, void *user, hone_err *e)
{
    (void)db;
    (void)e;
    gate *g = user;
    pthread_mutex_lock(&g->lock);
    g->entered = true;
    pthread_cond_broadcast(&g->changed);
    while (!g->open)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
    return 0;
}

static void count_done(void *user, int rc, const hone_err *e)
{
    (void)e;
    if (user != NULL && rc == 0)
        atomic_fetch_add((atomic_int *)user, 1);
}

static void ignore(void *user, int rc, const hone_err *e)
{
    (void)user;
    (void)rc;
    (void)e;
}

static int no_op(sqlite3 *db, void *user, hone_err *e)
{
    (void)db;
    (void)user;
    (void)e;
    return 0;
}

static void test_a_full_queue_is_an_answer(void **state)
{
    store *s;
    store_options o = {.queue_jobs = 3};
    gate g = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false};
    atomic_int done = 0;
    assert_int_equal(store_open(&s, *state, &o, NULL), 0);
    assert_int_equal(store_post(s, wait_at_gate, ignore, &g), 0);
    pthread_mutex_lock(&g.lock);
    while (!g.entered)
        pthread_cond_wait(&g.changed, &g.lock);
    pthread_mutex_unlock(&g.lock);
    for (int i = 0; i < 3; i++)
        assert_int_equal(store_post(s, no_op, count_done, &done), 0);
    assert_int_equal(store_post(s, no_op, count_done, &done), HONE_EAGAIN);
    assert_int_equal(store_counters(s).dropped, 1);
    assert_int_equal(store_counters(s).waiting, 3);
    pthread_mutex_lock(&g.lock);
    g.open = true;
    pthread_cond_broadcast(&g.changed);
    pthread_mutex_unlock(&g.lock);
    assert_int_equal(store_flush(s, NULL), 0);
    assert_int_equal(done, 3);
    store_close(s);
}

static void test_close_writes_what_is_queued(void **state)
{
    enum { N = 300 };
    int64_t ids[N];
    store *s = open_store(*state);
    assert_int_equal(store_write(s, make_table, NULL, NULL), 0);
    for (int i = 0; i < N; i++) {
        ids[i] = i;
        assert_int_equal(store_post(s, add_row, ignore, &ids[i]), 0);
    }
    store_close(s);
    s = open_store(*state);
    assert_int_equal(rows(s), N);
    store_close(s);
}

typedef struct writer {
    store *s;
    int64_t first;
    int failed;
} writer;

static void *write_many(void *arg)
{
    writer *w = arg;
    for (int64_t i = 0; i < 50; i++) {
        int64_t x = w->first + i;
        w->failed += store_write(w->s, add_row, &x, NULL) != 0;
    }
    return NULL;
}

static void test_many_writers(void **state)
{
    store *s = open_store(*state);
    pthread_t t[8];
    writer w[8];
    assert_int_equal(store_write(s, make_table, NULL, NULL), 0);
    for (int i = 0; i < 8; i++) {
        w[i] = (writer){s, i * 1000, 0};
        assert_int_equal(pthread_create(&t[i], NULL, write_many, &w[i]), 0);
    }
    int failed = 0;
    for (int i = 0; i < 8; i++) {
        pthread_join(t[i], NULL);
        failed += w[i].failed;
    }
    assert_int_equal(failed, 0);
    assert_int_equal(rows(s), 400);
    store_close(s);
}

/* Another process (here: another handle) may hold the write lock for a while. */
static void test_two_stores_share_a_database(void **state)
{
    store *a = open_store(*state), *b = open_store(*state);
    assert_int_equal(store_write(a, make_table, NULL, NULL), 0);
    pthread_t t[2];
    writer w[2] = {{a, 0, 0}, {b, 1000, 0}};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, write_many, &w[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(w[0].failed + w[1].failed, 0);
    assert_int_equal(rows(a), 100);
    assert_int_equal(rows(b), 100);
    store_close(a);
    store_close(b);
}

static int add_large(sqlite3 *db, void *user, hone_err *e)
{
    char *text = mem_alloc(1 << 20);
    memset(text, 'x', (1 << 20) - 1);
    int rc = sql_run(db, e, "INSERT INTO t(x, y) VALUES(?, ?)", "is", *(int64_t *)user, text);
    free(text);
    return rc;
}

/* A file size limit stands for a full disk: writes past it fail. */
static void test_a_full_disk_loses_nothing(void **state)
{
    store *s = open_store(*state);
    int64_t one = 1, two = 2;
    hone_err e = {0};
    struct rlimit old, small;
    assert_int_equal(store_write(s, make_table, NULL, &e), 0);
    assert_int_equal(store_write(s, add_row, &one, &e), 0);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = (struct rlimit){300 << 10, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    int rc = store_write(s, add_large, &two, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    fails_with(rc, HONE_EIO, &e, "database: ");
    assert_non_null(strstr(e.msg, "/hone.db")); /* where to look */
    assert_int_equal(rows(s), 1);
    assert_int_equal(store_write(s, add_large, &two, &e), 0); /* room again: works again */
    assert_int_equal(rows(s), 2);
    store_close(s);
    s = open_store(*state);
    assert_int_equal(rows(s), 2);
    store_close(s);
}

static void test_wrong_parameters_are_found(void **state)
{
    store *s = open_store(*state);
    hone_err e = {0};
    int64_t n;
    (void)s;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    fails_with(sql_int(&n, db, &e, "SELECT ?", ""), HONE_EINTERNAL, &e, "wrong parameters");
    fails_with(sql_int(&n, db, &e, "SELECT ?", "q", (int64_t)1), HONE_EINTERNAL, &e,
               "wrong parameters");
    assert_int_equal(sql_int(&n, db, &e, "SELECT ?", "i", (int64_t)7), 0);
    assert_int_equal(n, 7);
    sqlite3_close(db);
    store_close(s);
}

/* ---- the audit log ---- */

static int note(hook_call *call, void *user, hone_err *e)
{
    (void)e;
    atomic_fetch_add((atomic_int *)user,
                     json_integer_value(json_object_get(call->data, "seq")) > 0);
    return HOOK_CONTINUE;
}

static void test_audit_chain(void **state)
{
    store *s;
    hone_err e = {0};
    atomic_int told = 0;
    hooks *h = hook_new();
    hook_on(h, HOOK_AUDIT_EVENT, "test", 0, note, &told, NULL);
    store_options o = {.hooks = h};
    assert_int_equal(store_open(&s, *state, &o, &e), 0);
    audit_report r;
    assert_int_equal(audit_verify(s, NULL, &r, &e), 0);
    assert_int_equal(r.n, 0);
    json_t *detail = json_pack("{s:i, s:s}", "status", 200, "model", "m\xc3\xa9");
    audit_event ev = {.action = "request", .actor = "abcdefgh", .ip = "::1", .detail = detail};
    for (int i = 0; i < 5; i++)
        assert_int_equal(audit_post(s, &ev), 0);
    assert_int_equal(audit_append(s, &ev, &e), 0);
    assert_int_equal(audit_verify(s, NULL, &r, &e), 0);
    assert_int_equal(r.n, 6);
    char head[65];
    memcpy(head, r.head, sizeof head);
    assert_int_equal(audit_append(s, &ev, &e), 0);
    assert_int_equal(audit_verify(s, head, &r, &e), 0);
    assert_true(r.found);
    assert_int_equal(told, 7);
    memset(head, 'a', 64);
    fails_with(audit_verify(s, head, &r, &e), HONE_EFORMAT, &e, "were cut off or replaced");
    json_decref(detail);
    store_close(s);
    hook_free(h);
}

static int run_sql(sqlite3 *db, void *user, hone_err *e)
{
    return sql_exec(db, user, e);
}

static void test_audit_is_append_only(void **state)
{
    store *s = open_store(*state);
    hone_err e = {0};
    audit_event ev = {.action = "request"};
    assert_int_equal(audit_append(s, &ev, &e), 0);
    fails_with(store_write(s, run_sql, (void *)"DELETE FROM audit", &e), HONE_EEXIST, &e,
               "the audit log is append-only");
    fails_with(store_write(s, run_sql, (void *)"UPDATE audit SET ts = 0", &e), HONE_EEXIST, &e,
               "the audit log is append-only");
    store_close(s);
}

/* What somebody with the file in hand could do; each must show. */
static void test_tampering_shows(void **state)
{
    static const char off[] = "DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete;";
    static const char *const tricks[][2] = {
        {"UPDATE audit SET line = replace(line, 'bob', 'eve') WHERE seq = 2",
         "audit: record 2 was changed"},
        {"UPDATE audit SET ts = 1 WHERE seq = 3", "audit: record 3 was changed"},
        {"UPDATE audit SET action = 'x' WHERE seq = 1", "audit: record 1 was changed"},
        {"DELETE FROM audit WHERE seq = 2", "audit: record 2 is missing"},
        {"DELETE FROM audit WHERE seq = 1", "audit: record 1 is missing"},
        {"UPDATE audit SET hash = zeroblob(32) WHERE seq = 4", "audit: record 4 was changed"},
    };
    hone_err e = {0};
    audit_report r;
    for (size_t i = 0; i < sizeof tricks / sizeof *tricks; i++) {
        char *dir = mem_printf("%s/%zu", (char *)*state, i);
        store *s = open_store(dir);
        for (int k = 0; k < 4; k++)
            assert_int_equal(
                audit_append(s, &(audit_event){.action = "request", .actor = "bob"}, &e), 0);
        assert_int_equal(store_write(s, run_sql, (void *)off, &e), 0);
        assert_int_equal(store_write(s, run_sql, (void *)tricks[i][0], &e), 0);
        fails_with(audit_verify(s, NULL, &r, &e), HONE_EFORMAT, &e, tricks[i][1]);
        store_close(s);
        free(dir);
    }
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
#define T(f) cmocka_unit_test_setup_teardown(f, aid_dir_quick_setup, aid_dir_teardown)
    const struct CMUnitTest tests[] = {
        T(test_a_new_state_is_private),
        T(test_must_exist),
        T(test_names_the_owner_of_a_strange_directory),
        T(test_a_newer_schema_is_refused),
        T(test_another_pepper_is_refused),
        T(test_a_readable_or_short_pepper_is_refused),
        T(test_not_a_database),
        T(test_migrations_run_once_each),
        T(test_a_failed_job_takes_nothing_with_it),
        T(test_a_full_queue_is_an_answer),
        T(test_close_writes_what_is_queued),
        T(test_many_writers),
        T(test_two_stores_share_a_database),
        T(test_a_full_disk_loses_nothing),
        T(test_wrong_parameters_are_found),
        T(test_audit_chain),
        T(test_audit_is_append_only),
        T(test_tampering_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
