#include "core/eval/stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        fail_msg("%.9g is not %.9g", a, b);
}

/* Expected values: statsmodels' proportion_confint(method="wilson"). */
static void test_wilson(void **state)
{
    (void)state;
    stats_interval w = stats_wilson(8, 10);
    near(w.value, 0.8, 1e-12);
    near(w.low, 0.4901624, 1e-6);
    near(w.high, 0.9433178, 1e-6);
    w = stats_wilson(0, 20);
    near(w.low, 0, 1e-12);
    near(w.high, 0.1611252, 1e-6);
    w = stats_wilson(0, 0);
    near(w.high, 1, 0);
}

/* Expected values: the paper's own examples (table II, a to d). */
static void test_wilson_difference(void **state)
{
    static const struct {
        double a, n_a, b, n_b, d, low, high;
    } cases[] = {{48, 80, 56, 70, 0.2, 0.0524, 0.3339},
                 {3, 10, 9, 10, 0.6, 0.1705, 0.8090},
                 {2, 7, 6, 7, 0.5714, 0.0582, 0.8062},
                 {0, 29, 5, 56, 0.0893, -0.0381, 0.1926}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        stats_interval w =
            stats_wilson_difference(cases[i].a, cases[i].n_a, cases[i].b, cases[i].n_b);
        near(w.value, cases[i].d, 5e-5);
        near(w.low, cases[i].low, 5e-5);
        near(w.high, cases[i].high, 5e-5);
    }
    near(stats_wilson_difference(0, 0, 1, 1).low, -1, 0);
    near(stats_wilson_difference(1, 1, 0, 0).high, 1, 0);
}

/* A mean is a ratio with weights of 1. An example of weight 0 counts for nothing but the
 * number of examples. */
static void test_ratio(void **state)
{
    (void)state;
    const double a[] = {1, 1, -1, 0}, w[] = {1, 1, 1, 0}, ones[] = {1, 1, 1, 1};
    stats_interval m = stats_ratio(a, NULL, 4), r = stats_ratio(a, w, 4);
    near(m.value, 0.25, 1e-12);
    near(m.low, 0.25 - 1.959964 * sqrt(2.75 / 3 / 4), 1e-6);
    near(stats_ratio(a, ones, 4).high, m.high, 1e-12);
    near(r.value, 1. / 3, 1e-12);
    /* residuals 2/3, 2/3, -4/3, 0: s^2 = 24 / 27 */
    near(r.high - r.value, 1.959964 * sqrt(24. / 27 * 4) / 3, 1e-6);
    near(stats_ratio(a, NULL, 1).high, 1, 0);
}

static void test_quantile_interpolates(void **state)
{
    (void)state;
    double x[] = {4, 1, 3, 2};
    near(stats_quantile(x, 4, 0.5), 2.5, 1e-12);
    near(stats_quantile(x, 4, 0.95), 3.85, 1e-12);
    near(stats_quantile(x, 1, 0.99), 1, 0);
}

/* Pairing matters: a constant shift on very spread values has an interval of no width, and the
 * coverage of the interval under a known truth is near its level. */
static void test_bootstrap_is_paired(void **state)
{
    (void)state;
    double a[50], b[50];
    for (int i = 0; i < 50; i++) {
        a[i] = 1000.0 * sin(i);
        b[i] = a[i] + 0.25;
    }
    stats_paired p = {.a = a, .b = b, .n = 50, .draws = 500, .level = 0.95, .seed = 3};
    stats_interval d = stats_bootstrap(&p);
    near(d.value, 0.25, 1e-9);
    near(d.low, 0.25, 1e-9);
    near(d.high, 0.25, 1e-9);
}

static double uniform(uint64_t *s)
{
    *s = *s * 6364136223846793005U + 1442695040888963407U;
    return (double)(*s >> 11) * 0x1p-53;
}

static void test_bootstrap_covers(void **state)
{
    (void)state;
    uint64_t s = 42;
    int inside = 0;
    enum { TRIALS = 200, N = 60 };
    for (int t = 0; t < TRIALS; t++) {
        double a[N], b[N];
        for (int i = 0; i < N; i++) {
            a[i] = uniform(&s) < 0.5;
            b[i] = uniform(&s) < 0.6;
        }
        stats_paired p = {.a = a, .b = b, .n = N, .draws = 400, .level = 0.9, .seed = (uint64_t)t};
        stats_interval d = stats_bootstrap(&p);
        inside += d.low <= 0.1 && d.high >= 0.1;
    }
    assert_in_range(inside, TRIALS * 82 / 100, TRIALS * 97 / 100);
}

/* Ratios of sums: weights count. */
static void test_bootstrap_of_ratios(void **state)
{
    (void)state;
    double a[] = {10, 2}, b[] = {20, 1}, w[] = {10, 1};
    stats_paired p = {
        .a = a, .b = b, .weight_a = w, .weight_b = w, .n = 2, .draws = 10, .level = 0.95};
    near(stats_bootstrap(&p).value, 21.0 / 11 - 12.0 / 11, 1e-12);
    p.n = 1;
    stats_interval d = stats_bootstrap(&p);
    near(d.low, d.value, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wilson),
        cmocka_unit_test(test_wilson_difference),
        cmocka_unit_test(test_ratio),
        cmocka_unit_test(test_quantile_interpolates),
        cmocka_unit_test(test_bootstrap_is_paired),
        cmocka_unit_test(test_bootstrap_covers),
        cmocka_unit_test(test_bootstrap_of_ratios),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
