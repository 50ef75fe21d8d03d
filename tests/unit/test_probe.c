#include "core/base/js.h"
#include "core/eval/eval_int.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *parse(const char *text)
{
    hone_err e = {0};
    json_t *v;
    if (js_parse(&v, text, strlen(text), &e) != 0)
        fail_msg("%s", e.msg);
    return v;
}

static json_t *report_of(const char *scores)
{
    hone_err e = {0};
    json_t *r = bundled_report(), *s = parse(scores);
    if (probe_scores(r, s, &e) != 0)
        fail_msg("%s", e.msg);
    json_decref(s);
    return r;
}

static void expect(const json_t *report, const char *name, double value, double low, double high)
{
    static const char *const keys[] = {"value", "low", "high"};
    const double want[] = {value, low, high};
    const json_t *m = json_object_get(json_object_get(report, "metrics"), name);
    for (size_t i = 0; i < 3; i++) {
        const json_t *v = json_object_get(m, keys[i]);
        if (!json_is_number(v) || fabs(json_number_value(v) - want[i]) > 1e-6)
            fail_msg("%s of %s is %.9g, must be %.9g", keys[i], name, json_number_value(v),
                     want[i]);
    }
}

/* 6 of 10 have weight, and 4 of these are 1: Wilson's interval is that of 4 of 6. */
static void test_intervals(void **state)
{
    (void)state;
    json_t *r = report_of(
        "{\"mean\": {\"examples\": [1, 1, -1, 0]},"
        " \"share\": {\"examples\": [1, 0, 1, 0, 1], \"ends\": [0, 1]},"
        " \"skew\": {\"examples\": [[1, 1], [0, 0], [-1, 1], [1, 1], [1, 1], [0, 0], [-1, 1], [1, "
        "1], [0, 0], [0, 0]], \"ends\": [-1, 1]},"
        " \"given\": {\"value\": 2, \"low\": 1, \"high\": 5, \"examples\": [7]}}");
    double half = 1.959964 * sqrt(2.75 / 3 / 4);
    expect(r, "mean", 0.25, 0.25 - half, 0.25 + half);
    expect(r, "share", 0.6, 0.230724, 0.882379);
    expect(r, "skew", 1. / 3, 2 * 0.2999933 - 1, 2 * 0.9032286 - 1);
    expect(r, "given", 2, 1, 5);
    const json_t *skew = json_object_get(json_object_get(r, "metrics"), "skew");
    assert_int_equal(json_integer_value(json_object_get(skew, "n")), 6);
    assert_null(json_object_get(skew, "ends"));
    assert_int_equal(json_array_size(json_object_get(json_object_get(r, "examples"), "skew")), 10);
    json_decref(r);
}

static void test_insufficient_data(void **state)
{
    (void)state;
    json_t *r =
        report_of("{\"few\": {\"examples\": [[1, 1], [0, 0]], \"min_n\": 2, \"info\": true},"
                  " \"none\": {\"examples\": []}}");
    const json_t *m = json_object_get(r, "metrics"), *few = json_object_get(m, "few");
    assert_true(json_is_null(json_object_get(few, "value")));
    assert_int_equal(json_integer_value(json_object_get(few, "n")), 1);
    assert_string_equal(json_string_value(json_object_get(few, "note")),
                        "insufficient data: 1 of the 2 that are needed");
    assert_string_equal(json_string_value(json_object_get(json_object_get(m, "none"), "note")),
                        "insufficient data: 0 of the 1 that are needed");
    assert_int_equal(json_object_size(json_object_get(r, "examples")), 0);
    json_decref(r);
}

static void test_what_is_no_score(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"{\"a\": \"x\"}", "score 'a' is not a number"},
        {"{\"a\": {\"n\": 3}}", "score 'a' is not a number"},
        {"{\"a\": {\"examples\": 3}}", "score 'a': examples are no list"},
        {"{\"a\": {\"examples\": [1, \"x\"]}}", "score 'a': example 2 is neither a number nor"},
        {"{\"a\": {\"value\": 1, \"examples\": [null]}}", "score 'a': example 1 is neither a"},
        {"{\"a\": {\"examples\": [[1, -1]]}}", "score 'a': example 1 is neither a number nor"},
        {"{\"a\": {\"examples\": [[1, 0]]}}", "score 'a': example 1 is neither a number nor"},
        {"{\"a\": {\"examples\": [1, 0.5], \"ends\": [0, 1]}}", "example 2 is at neither of its"},
        {"{\"a\": {\"examples\": [1], \"ends\": [1, 1]}}", "score 'a': ends must be two numbers"},
        {"{\"perplexity\": 1}", "there is a metric 'perplexity' already"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        json_t *r = bundled_report(), *s = parse(rows[i][0]);
        assert_true(probe_scores(r, s, &e) < 0);
        if (strstr(e.msg, rows[i][1]) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, rows[i][1]);
        json_decref(s);
        json_decref(r);
    }
}

/* The one model leaves out what the other answers: both figures are their own, and the interval of
 * the change is of ratios over the same items. */
static void test_ratios_are_compared(void **state)
{
    (void)state;
    hone_err e = {0};
    json_t *compare, *before = json_array(), *after = json_array();
    for (size_t i = 0; i < 200; i++) {
        json_array_append_new(before, i % 4 == 0 ? parse("[0, 0]")
                                                 : parse(i % 2 == 0 ? "[1, 1]" : "[-1, 1]"));
        json_array_append_new(after, i % 5 == 0 ? parse("[0, 0]") : parse("[1, 1]"));
    }
    json_t *a = bundled_report(), *b = bundled_report();
    json_t *x = json_pack("{s:{s:o, s:b}}", "s", "examples", before, "info", 1);
    json_t *y = json_pack("{s:{s:o, s:b}}", "s", "examples", after, "info", 1);
    assert_int_equal(probe_scores(a, x, &e), 0);
    assert_int_equal(probe_scores(b, y, &e), 0);
    if (eval_compare(&compare, a, b, &e) != 0)
        fail_msg("%s", e.msg);
    const json_t *s = json_object_get(json_object_get(compare, "metrics"), "s");
    double low = json_number_value(json_object_get(s, "low"));
    double high = json_number_value(json_object_get(s, "high"));
    assert_true(fabs(json_number_value(json_object_get(s, "difference")) - 4. / 3) < 1e-9);
    assert_true(low > 1 && low < 4. / 3 && high > 4. / 3 && high < 1.6);
    assert_string_equal(json_string_value(json_object_get(s, "unit")), "score");
    assert_int_equal(json_array_size(json_object_get(compare, "lost")), 0);
    json_decref(compare);
    json_object_clear(json_object_get(b, "examples")); /* insufficient data */
    assert_int_equal(eval_compare(&compare, a, b, &e), 0);
    const json_t *lost = json_object_get(compare, "lost");
    assert_string_equal(json_string_value(json_array_get(lost, 0)), "s");
    json_decref(compare);
    json_decref(x);
    json_decref(y);
    json_decref(a);
    json_decref(b);
}

/* For people: each group with its interval and number, or why it has none. */
static void test_the_table(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len;
    json_t *r = report_of("{\"crows_pairs.age.pct_stereotype\": {\"examples\": [1, 0, 1, 0, 1], "
                          "\"ends\": [0, 1], \"note\": \"2 left out\"},"
                          " \"p.b.gap\": {\"examples\": [1], \"min_n\": 9}}");
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    eval_print(r, f);
    fclose(f);
    assert_string_equal(
        text, "crows_pairs.age.pct_stereotype 0.6000  [0.2307, 0.8824]  of 5  2 left out\n"
              "p.b.gap                        insufficient data: 1 of the 9 that are "
              "needed\n");
    free(text);
    json_decref(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_intervals),        cmocka_unit_test(test_insufficient_data),
        cmocka_unit_test(test_what_is_no_score), cmocka_unit_test(test_ratios_are_compared),
        cmocka_unit_test(test_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
