#include "serve/http/http_limits.h"

#include "core/base/clock.h"
#include "serve/store/requests.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

static const api_key k = {.id = "abcdefgh", .rpm = 600, .tpm = 6000, .max_parallel = 2};

/* Time goes on only when a test says so. */
static double now;

static double test_seconds(void)
{
    return now;
}

static void test_requests_refill(void **state)
{
    (void)state;
    http_limits *l = http_limits_new(NULL, &(http_limits_default){.seconds = test_seconds});
    http_limit_view v;
    api_key few = {.id = "aaaaaaaa", .rpm = 1200}; /* 20 a second */
    int n = 0;
    while (http_limits_request(l, &few, &v) == LIMIT_NONE)
        n++;
    assert_int_equal(n, 1200);
    assert_int_equal(v.rpm, 1200);
    assert_int_equal(v.rpm_left, 0);
    assert_true(v.retry_after_s > 0.0499 && v.retry_after_s < 0.0501);
    now += 0.049;
    assert_int_equal(http_limits_request(l, &few, &v), LIMIT_REQUESTS);
    now += 0.002;
    assert_int_equal(http_limits_request(l, &few, &v), LIMIT_NONE);
    http_limits_free(l);
}

static void test_tokens_are_settled(void **state)
{
    (void)state;
    http_limits *l = http_limits_new(NULL, &(http_limits_default){.seconds = test_seconds});
    http_limit_view v;
    assert_int_equal(http_limits_reserve(l, &k, 6000, &v), LIMIT_NONE);
    assert_int_equal(v.tpm_left, 0);
    assert_int_equal(http_limits_reserve(l, &k, 1000, &v), LIMIT_TOKENS);
    assert_true(v.retry_after_s > 9 && v.retry_after_s <= 10);
    http_limits_settle(l, &k, 6000, 100); /* it was far less */
    assert_int_equal(http_limits_reserve(l, &k, 5000, &v), LIMIT_NONE);
    http_limits_settle(l, &k, 5000, 9000); /* and now more than was reserved: a debt */
    assert_int_equal(http_limits_reserve(l, &k, 10, &v), LIMIT_TOKENS);
    assert_true(v.retry_after_s > 20);
    http_limits_free(l);
}

/* A request larger than a whole minute's tokens must not wait for ever. */
static void test_a_large_wish_waits_for_a_full_bucket(void **state)
{
    (void)state;
    http_limits *l = http_limits_new(NULL, &(http_limits_default){.seconds = test_seconds});
    http_limit_view v;
    assert_int_equal(http_limits_reserve(l, &k, 20000, &v), LIMIT_NONE);
    assert_int_equal(http_limits_reserve(l, &k, 1, &v), LIMIT_TOKENS);
    http_limits_free(l);
}

static void test_parallel(void **state)
{
    (void)state;
    http_limits *l = http_limits_new(NULL, &(http_limits_default){.seconds = test_seconds});
    http_limit_view v;
    assert_int_equal(http_limits_reserve(l, &k, 1, &v), LIMIT_NONE);
    assert_int_equal(http_limits_reserve(l, &k, 1, &v), LIMIT_NONE);
    assert_int_equal(http_limits_reserve(l, &k, 1, &v), LIMIT_PARALLEL);
    http_limits_settle(l, &k, 1, 1);
    assert_int_equal(http_limits_reserve(l, &k, 1, &v), LIMIT_NONE);
    http_limits_free(l);
}

static void test_defaults_and_own_limits(void **state)
{
    (void)state;
    http_limits *l = http_limits_new(
        NULL, &(http_limits_default){.rpm = 1, .max_parallel = 1, .seconds = test_seconds});
    http_limit_view v;
    api_key plain = {.id = "bbbbbbbb"}, rich = {.id = "cccccccc", .rpm = 5};
    assert_int_equal(http_limits_request(l, &plain, &v), LIMIT_NONE);
    assert_int_equal(http_limits_request(l, &plain, &v), LIMIT_REQUESTS);
    for (int i = 0; i < 5; i++)
        assert_int_equal(http_limits_request(l, &rich, &v), LIMIT_NONE);
    assert_int_equal(http_limits_request(l, &rich, &v), LIMIT_REQUESTS);
    assert_int_equal(http_limits_request(l, NULL, &v), LIMIT_NONE); /* nobody has a bucket too */
    assert_int_equal(http_limits_request(l, NULL, &v), LIMIT_REQUESTS);
    http_limits_free(l);
}

/* A restart must not hand out the day's budget again. */
static void test_the_day_is_known_after_a_restart(void **state)
{
    store *s;
    http_limit_view v;
    aid_day();
    api_key day = {.id = "dddddddd", .daily_tokens = 100};
    assert_int_equal(store_open(&s, *state, NULL, NULL), 0);
    json_t *r = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:i, s:i}", "id", "x", "key_id", day.id,
                          "route", "r", "model", "m", "status", 200, "ts",
                          (json_int_t)clock_unix_ms(), "tok_in", 60, "tok_out", 20);
    assert_int_equal(requests_post(s, r), 0);
    assert_int_equal(store_flush(s, NULL), 0);
    http_limits *l = http_limits_new(s, &(http_limits_default){.seconds = test_seconds});
    assert_int_equal(http_limits_reserve(l, &day, 21, &v), LIMIT_DAILY);
    assert_true(v.retry_after_s <= 86400);
    assert_int_equal(http_limits_reserve(l, &day, 20, &v), LIMIT_NONE);
    assert_int_equal(http_limits_reserve(l, &day, 1, &v), LIMIT_DAILY);
    http_limits_settle(l, &day, 20, 5);
    assert_int_equal(http_limits_reserve(l, &day, 15, &v), LIMIT_NONE);
    http_limits_free(l);
    store_close(s);
}

static void test_addresses(void **state)
{
    (void)state;
    http_limits *l = http_limits_new(
        NULL, &(http_limits_default){.auth_failures_per_minute = 3, .seconds = test_seconds});
    double wait;
    for (int i = 0; i < 3; i++) {
        assert_true(http_limits_ip_ok(l, "10.0.0.1", &wait));
        http_limits_ip_failed(l, "10.0.0.1");
    }
    assert_false(http_limits_ip_ok(l, "10.0.0.1", &wait));
    assert_true(wait > 10 && wait <= 20);
    assert_true(http_limits_ip_ok(l, "10.0.0.2", &wait));
    /* A flood of other addresses does not free the one that is blocked: the emptiest gives way
     * last. */
    for (int i = 0; i < 20000; i++) {
        char ip[32];
        snprintf(ip, sizeof ip, "10.%d.%d.%d", 1 + i / 65536, i / 256 % 256, i % 256);
        http_limits_ip_failed(l, ip);
    }
    assert_false(http_limits_ip_ok(l, "10.0.0.1", &wait));
    http_limits_free(l);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_refill),
        cmocka_unit_test(test_tokens_are_settled),
        cmocka_unit_test(test_a_large_wish_waits_for_a_full_bucket),
        cmocka_unit_test(test_parallel),
        cmocka_unit_test(test_defaults_and_own_limits),
        cmocka_unit_test_setup_teardown(test_the_day_is_known_after_a_restart, aid_dir_quick_setup,
                                        aid_dir_teardown),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
