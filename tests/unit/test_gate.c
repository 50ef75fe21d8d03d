#include "serve/loop/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static json_t *compare(const char *unit, int smaller, double low, double high)
{
    return json_pack("{s:i, s:{s:{s:f, s:f, s:f, s:s, s:b}}}", "n", 40, "metrics", "m",
                     "difference", (low + high) / 2, "low", low, "high", high, "unit", unit,
                     "smaller_is_better", smaller);
}

static gate_verdict decide(json_t *holdout, json_t *feedback, hooks *h)
{
    gate_policy p = {.margin = 0.02, .margin_nats = 0.05, .min_pairs = 5, .need_improvement = true};
    gate_verdict v = GATE_INCONCLUSIVE;
    json_t *report = NULL;
    hone_err e = {0};
    if (gate_decide(&v, &report, &p, holdout, feedback, "run-1", h, &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(json_string_value(json_object_get(report, "verdict")),
                        gate_verdict_name(v));
    json_decref(report);
    json_decref(holdout);
    json_decref(feedback);
    return v;
}

static void test_three_outcomes(void **state)
{
    (void)state;
    static const struct {
        double low, high, f_low, f_high;
        gate_verdict want;
    } rows[] = {
        {-0.01, 0.03, 0.1, 0.5, GATE_PASS},   {-0.05, 0.03, 0.1, 0.5, GATE_INCONCLUSIVE},
        {-0.09, -0.03, 0.1, 0.5, GATE_FAIL},  {-0.01, 0.03, -0.1, 0.5, GATE_INCONCLUSIVE},
        {-0.01, 0.03, -0.5, -0.1, GATE_FAIL}, {-0.01, 0.03, 0, 0, GATE_INCONCLUSIVE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(decide(compare("share", 0, rows[i].low, rows[i].high),
                                compare("share", 0, rows[i].f_low, rows[i].f_high), NULL),
                         rows[i].want);
}

/* For a likelihood loss less is better, and its own margin holds. */
static void test_smaller_is_better(void **state)
{
    (void)state;
    assert_int_equal(decide(compare("nats per token", 1, -0.2, 0.04),
                            compare("nats per token", 1, -0.9, -0.5), NULL),
                     GATE_PASS);
    assert_int_equal(decide(compare("nats per token", 1, 0.06, 0.2),
                            compare("nats per token", 1, -0.9, -0.5), NULL),
                     GATE_FAIL);
}

static void test_no_feedback_is_inconclusive(void **state)
{
    (void)state;
    assert_int_equal(decide(compare("share", 0, 0, 0.1), NULL, NULL), GATE_INCONCLUSIVE);
}

/* An interval from four pairs is no ground for anything, however good it looks. */
static void test_few_pairs_are_inconclusive(void **state)
{
    (void)state;
    json_t *few = compare("share", 0, 0.1, 0.2);
    json_object_set_new(few, "n", json_integer(4));
    assert_int_equal(decide(compare("share", 0, 0, 0.1), few, NULL), GATE_INCONCLUSIVE);
}

static int say(hook_call *c, void *user, hone_err *e)
{
    (void)e;
    if (strcmp(user, "veto") == 0) {
        strcpy(c->reason, "toxicity");
        return HOOK_VETO;
    }
    json_object_set_new(c->data, "verdict", json_string(user));
    return HOOK_MODIFIED;
}

/* A script may hold a candidate back, but not wave it through. */
static void test_hooks_only_get_stricter(void **state)
{
    (void)state;
    static const struct {
        const char *said;
        double low;
        gate_verdict want;
    } rows[] = {{"veto", 0, GATE_FAIL},
                {"fail", 0, GATE_FAIL},
                {"maybe", 0, GATE_INCONCLUSIVE},
                {"pass", 0, GATE_PASS},
                {"pass", -0.09, GATE_INCONCLUSIVE}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hooks *h = hook_new();
        hook_on(h, HOOK_PROMOTE_GATE, "test", 0, say, (void *)rows[i].said, NULL);
        assert_int_equal(
            decide(compare("share", 0, rows[i].low, 0.1), compare("share", 0, 0.1, 0.2), h),
            rows[i].want);
        hook_free(h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_outcomes),
        cmocka_unit_test(test_smaller_is_better),
        cmocka_unit_test(test_no_feedback_is_inconclusive),
        cmocka_unit_test(test_few_pairs_are_inconclusive),
        cmocka_unit_test(test_hooks_only_get_stricter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
