#include "core/model/rope.h"

#include "tests/unit/aid.h"

#include <math.h>

/* Llama 3.1's settings; the values were computed from the published formula. */
static void test_llama3_frequencies(void **state)
{
    (void)state;
    static const struct {
        int i;
        double want;
    } rows[] = {{28, 3.211446e-3}, {29, 2.166571e-3}, {30, 1.371894e-3}, {32, 5.248462e-4},
                {34, 1.785078e-4}, {35, 9.556212e-5}, {63, 3.068926e-7}};
    const arch_config c = {.head_dim = 128,
                           .rope = ROPE_LLAMA3,
                           .rope_theta = 5e5,
                           .rope_factor = 8,
                           .rope_low = 1,
                           .rope_high = 4,
                           .rope_original = 8192};
    float inv[64];
    rope_frequencies(&c, inv);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(fabs(inv[rows[i].i] - rows[i].want) < 2e-6 * rows[i].want);
}

static void test_linear_scaling_divides(void **state)
{
    (void)state;
    arch_config c = {.head_dim = 8, .rope_theta = 10000, .rope_factor = 4};
    float plain[4], scaled[4];
    rope_frequencies(&c, plain);
    c.rope = ROPE_LINEAR;
    rope_frequencies(&c, scaled);
    static const double want[] = {1, 0.1, 0.01, 0.001};
    for (int i = 0; i < 4; i++) {
        assert_true(fabs(plain[i] - want[i]) < 1e-7 * want[i]);
        assert_true(scaled[i] == plain[i] / 4);
    }
}

static void test_tables_grow_up_to_the_context(void **state)
{
    (void)state;
    char err[256];
    kern_dev *dev;
    hone_err e = {0};
    rope r = {0};
    float row[4], want;
    const arch_config c = {.head_dim = 8, .rope_theta = 10000, .max_positions = 1500};
    assert_int_equal(kern_open(&dev, "cpu", &(kern_open_args){.threads = 1}, err), 0);
    assert_int_equal(rope_reserve(&r, dev, &c, 3, &e), 0);
    assert_int_equal(r.n, 1024);
    assert_int_equal(rope_reserve(&r, dev, &c, 1024, &e), 0);
    assert_int_equal(r.n, 1024);
    assert_int_equal(rope_reserve(&r, dev, &c, 1025, &e), 0);
    assert_int_equal(r.n, 1500);
    const void *made = r.cos.data;
    assert_int_equal(rope_reserve(&r, dev, &c, 4000, &e), 0); /* there are no more */
    assert_ptr_equal(r.cos.data, made);
    kern_do(dev, read, row, (float *)r.sin.data + 4 * 1499, sizeof row);
    want = (float)sin(1499);
    assert_true(row[0] == want);
    rope_free(&r, dev);
    kern_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama3_frequencies),
        cmocka_unit_test(test_linear_scaling_divides),
        cmocka_unit_test(test_tables_grow_up_to_the_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
