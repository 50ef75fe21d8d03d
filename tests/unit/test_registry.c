#include "core/base/file.h"
#include "serve/store/db.h"
#include "serve/store/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define A64 "aaaaaaaa00000000000000000000000000000000000000000000000000000000"
#define B64 "bbbbbbbb00000000000000000000000000000000000000000000000000000000"

static char dir[64];
static store *st;

static int open_store(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/hone-registry-XXXXXX");
    return mkdtemp(dir) == NULL || store_open(&st, dir, NULL, NULL) != 0;
}

static int close_store(void **state)
{
    (void)state;
    store_close(st);
    st = NULL;
    return dir_remove(dir, NULL);
}

static void add(const char *digest, const char *promote_by)
{
    hone_err e = {0};
    registry_entry r = {.digest = digest, .kind = "model", .path = "/m", .promote_by = promote_by};
    if (registry_add(st, &r, &e) != 0)
        fail_msg("%s", e.msg);
}

static void expect_live(const char *digest)
{
    registry_artefact a;
    hone_err e = {0};
    if (registry_alias(st, "live", &a, &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(a.digest, digest);
    registry_artefact_free(&a);
}

static void test_alias_moves_and_goes_back(void **state)
{
    (void)state;
    registry_artefact a;
    hone_err e = {0};
    int64_t v0, v1;
    assert_int_equal(registry_alias(st, "live", &a, &e), HONE_ENOTFOUND);
    assert_string_equal(e.msg, "alias 'live' is not set");
    add(A64, "test");
    expect_live(A64);
    assert_int_equal(registry_previous(st, "live", &a, &e), HONE_ENOTFOUND);
    assert_int_equal(registry_alias_version(st, "live", &v0, &e), 0);
    add(B64, NULL);
    expect_live(A64);
    assert_int_equal(registry_alias_move(st, "live", B64, A64, "me", "better", &e), 0);
    expect_live(B64);
    assert_int_equal(registry_alias_version(st, "live", &v1, &e), 0);
    assert_true(v1 > v0);
    assert_int_equal(registry_previous(st, "live", &a, &e), 0);
    assert_string_equal(a.digest, A64);
    registry_artefact_free(&a);
}

static void test_move_compares_and_sets(void **state)
{
    (void)state;
    hone_err e = {0};
    add(A64, "test");
    add(B64, NULL);
    assert_int_equal(registry_alias_move(st, "live", B64, B64, "me", NULL, &e), HONE_EAGAIN);
    expect_live(A64);
    assert_int_not_equal(registry_alias_move(st, "live", "cccccc", NULL, "me", NULL, &e), 0);
    expect_live(A64);
}

static void test_history_is_kept(void **state)
{
    (void)state;
    json_t *h = NULL, *all = NULL;
    hone_err e = {0};
    add(A64, "one");
    add(B64, "two");
    assert_int_equal(registry_history(st, "live", &h, &e), 0);
    assert_int_equal(json_array_size(h), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(h, 0), "by")), "two");
    json_decref(h);
    assert_int_equal(registry_list(st, &all, &e), 0);
    assert_int_equal(json_array_size(json_object_get(all, "artefacts")), 2);
    assert_int_equal(json_array_size(json_object_get(all, "aliases")), 1);
    json_decref(all);
}

static void test_found_by_prefix(void **state)
{
    (void)state;
    registry_artefact a;
    hone_err e = {0};
    add(A64, NULL);
    assert_int_equal(registry_find(st, "aaaaaa", &a, &e), 0);
    assert_string_equal(a.digest, A64);
    registry_artefact_free(&a);
    assert_int_equal(registry_find(st, "aaa", &a, &e), HONE_EINVAL);
    assert_int_equal(registry_find(st, "dddddd", &a, &e), HONE_ENOTFOUND);
    assert_string_equal(e.msg, "no artefact dddddd");
}

/* A run of this very process that was left "running" is taken for abandoned; its artefact never
 * counted. */
static void test_runs(void **state)
{
    (void)state;
    char one[REGISTRY_ID_LEN], two[REGISTRY_ID_LEN];
    json_t *all = NULL;
    hone_err e = {0};
    assert_int_equal(registry_run_begin(st, one, "retrain", NULL, &e), 0);
    assert_int_equal(registry_run_begin(st, two, "retrain", NULL, &e), 0);
    json_t *ids = json_pack("[s, s]", "f1", "f2");
    registry_entry r = {.digest = A64,
                        .kind = "model",
                        .path = "/m",
                        .run_id = two,
                        .run_status = "registered",
                        .feedback = ids};
    assert_int_equal(registry_add(st, &r, &e), 0);
    json_decref(ids);
    assert_int_equal(registry_list(st, &all, &e), 0);
    json_t *runs = json_object_get(all, "runs");
    int abandoned = 0, registered = 0;
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const char *status = json_string_value(json_object_get(json_array_get(runs, i), "status"));
        abandoned += strcmp(status, "abandoned") == 0;
        registered += strcmp(status, "registered") == 0;
    }
    assert_int_equal(abandoned, 1);
    assert_int_equal(registered, 1);
    json_decref(all);
}

static int say_pid(sqlite3 *db, void *user, hone_err *e)
{
    return sql_run(db, e, "UPDATE runs SET pid = ?", "i", *(const int64_t *)user);
}

/* Not the number of a process counts, which is 1 in every container and belongs to others later,
 * but who holds the lock. */
static void test_one_run_at_a_time(void **state)
{
    (void)state;
    char one[REGISTRY_ID_LEN], two[REGISTRY_ID_LEN];
    const int64_t alive = 1;
    store *other;
    hone_err e = {0};
    assert_int_equal(store_open(&other, dir, NULL, &e), 0);
    assert_int_equal(registry_run_begin(other, one, "retrain", NULL, &e), 0);
    assert_int_equal(registry_run_begin(st, two, "retrain", NULL, &e), HONE_EEXIST);
    assert_non_null(strstr(e.msg, "another process is retraining here"));
    assert_non_null(strstr(e.msg, one));
    assert_int_equal(registry_run_end(other, one, "rejected", NULL, &e), 0);
    assert_int_equal(registry_run_begin(st, two, "retrain", NULL, &e), 0);
    assert_int_equal(registry_run_begin(other, one, "retrain", NULL, &e), HONE_EEXIST);
    /* Killed: its row stands there, under the number of a process that lives. */
    assert_int_equal(store_write(st, say_pid, (void *)&alive, &e), 0);
    store_close(st);
    assert_int_equal(store_open(&st, dir, NULL, &e), 0);
    assert_int_equal(registry_run_begin(other, one, "retrain", NULL, &e), 0);
    store_close(other);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_store, close_store)
    const struct CMUnitTest tests[] = {
        TEST(test_alias_moves_and_goes_back),
        TEST(test_move_compares_and_sets),
        TEST(test_history_is_kept),
        TEST(test_found_by_prefix),
        TEST(test_runs),
        TEST(test_one_run_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
