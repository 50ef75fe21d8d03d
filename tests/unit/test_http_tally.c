/* Ratings by model: apart by name and by both digests, and bounded. */
#include "serve/http/http_tally.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void test_models_are_apart(void **state)
{
    static const http_tally_model models[] = {
        {"a", "1", NULL}, {"a", "2", NULL}, {"b", "1", NULL}, {"a", "1", "x"}};
    http_tally_row row[HTTP_TALLY_MAX];
    http_tally *t = http_tally_new();
    (void)state;
    http_tally_know(t, &models[0]);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k <= i; k++)
            http_tally_add(t, &models[i], k % 3 - 1);
    assert_int_equal(http_tally_rows(t, row), 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(row[i].name, models[i].name);
        assert_int_equal(row[i].rated[0] + row[i].rated[1] + row[i].rated[2], i + 1);
    }
    assert_int_equal(row[3].rated[0], 2);
    assert_int_equal(row[3].rated[1], 1);
    assert_int_equal(row[3].rated[2], 1);
    http_tally_free(t);
}

/* Not one rating is lost, and those that have a row keep it. */
static void test_too_many_are_one(void **state)
{
    http_tally_row row[HTTP_TALLY_MAX];
    http_tally *t = http_tally_new();
    uint64_t sum = 0;
    (void)state;
    for (int i = 0; i < 3 * HTTP_TALLY_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        http_tally_add(t, &(http_tally_model){.name = name}, 1);
    }
    http_tally_add(t, &(http_tally_model){.name = "m0"}, 1);
    assert_int_equal(http_tally_rows(t, row), HTTP_TALLY_MAX);
    for (int i = 0; i < HTTP_TALLY_MAX; i++)
        sum += row[i].rated[2];
    assert_int_equal(sum, 3 * HTTP_TALLY_MAX + 1);
    assert_int_equal(row[0].rated[2], 2);
    assert_string_equal(row[HTTP_TALLY_MAX - 1].name, "other");
    http_tally_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_models_are_apart),
                                       cmocka_unit_test(test_too_many_are_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
