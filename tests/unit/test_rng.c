#include "core/base/rng.h"
#include "tests/unit/aid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Known answers of philox4x32-10, from the kat_vectors of the authors' distribution (Random123).
 * The counter is (index, stream), the key is the seed, low words first. */
static void test_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint64_t index, stream, seed;
        uint32_t out[4];
    } cases[] = {
        {0, 0, 0, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
        {0x85A308D3243F6A88,
         0x0370734413198A2E,
         0x299F31D0A4093822,
         {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t out[4];
        rng_philox(out, cases[i].seed, cases[i].stream, cases[i].index);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void test_the_cursor_walks_the_blocks(void **state)
{
    (void)state;
    rng r = {.seed = 7, .stream = 9};
    for (uint64_t block = 0; block < 10; block++) {
        uint32_t w[4];
        rng_philox(w, 7, 9, block);
        for (int i = 0; i < 4; i++)
            assert_int_equal(rng_u32(&r), w[i]);
    }
    assert_int_equal(r.index, 40);
}

static void test_a_saved_cursor_replays(void **state)
{
    (void)state;
    rng r = {.seed = 1, .stream = rng_stream("dropout")};
    for (int i = 0; i < 5; i++)
        rng_u32(&r);
    rng saved = r;
    float a[10], b[10];
    for (int i = 0; i < 10; i++)
        a[i] = rng_normal(&r);
    for (int i = 0; i < 10; i++)
        b[i] = rng_normal(&saved);
    assert_memory_equal(a, b, sizeof a);
}

static void test_uniform(void **state)
{
    (void)state;
    enum { N = 200000, BINS = 20 };
    rng r = {.seed = 3};
    int bins[BINS] = {0};
    double sum = 0;
    for (int i = 0; i < N; i++) {
        float u = rng_uniform(&r);
        assert_true(u >= 0 && u < 1);
        bins[(int)(u * BINS)]++;
        sum += (double)u;
    }
    double chi2 = 0, expected = (double)N / BINS;
    for (int i = 0; i < BINS; i++)
        chi2 += (bins[i] - expected) * (bins[i] - expected) / expected;
    assert_true(chi2 < 43.8); /* 19 degrees of freedom, p = 0.001; the seed is fixed */
    assert_true(fabs(sum / N - 0.5) < 0.002);
}

static void test_below_is_unbiased(void **state)
{
    (void)state;
    enum { N = 60000 };
    rng r = {.seed = 4};
    int seen[6] = {0};
    for (int i = 0; i < N; i++)
        seen[rng_below(&r, 6)]++;
    for (int i = 0; i < 6; i++)
        assert_true(abs(seen[i] - N / 6) < 400);
    for (int i = 0; i < 100; i++)
        assert_int_equal(rng_below(&r, 1), 0);
    /* Three quarters of the range: taking the remainder alone would hit the lower third twice. */
    uint64_t n = UINT64_MAX / 4 * 3;
    int low = 0;
    for (int i = 0; i < 30000; i++) {
        uint64_t v = rng_below(&r, n);
        assert_true(v < n);
        low += v < n / 3;
    }
    assert_true(abs(low - 10000) < 400);
}

static void test_normal(void **state)
{
    (void)state;
    enum { N = 200000 };
    rng r = {.seed = 5};
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
    for (int i = 0; i < N; i++) {
        double x = (double)rng_normal(&r);
        assert_true(isfinite(x));
        m1 += x;
        m2 += x * x;
        m3 += x * x * x;
        m4 += x * x * x * x;
    }
    assert_true(fabs(m1 / N) < 0.01);
    assert_true(fabs(m2 / N - 1) < 0.02);
    assert_true(fabs(m3 / N) < 0.03);
    assert_true(fabs(m4 / N - 3) < 0.1);
}

static void test_shuffle_is_a_fair_permutation(void **state)
{
    (void)state;
    enum { N = 60000 };
    rng r = {.seed = 6};
    int seen[6] = {0}; /* of the 3! orders */
    for (int i = 0; i < N; i++) {
        uint32_t a[3] = {0, 1, 2};
        rng_shuffle(&r, a, 3);
        assert_int_equal(a[0] + a[1] + a[2], 3);
        assert_true(a[0] != a[1] && a[1] != a[2] && a[0] != a[2]);
        seen[a[0] * 2 + (a[1] > a[2])]++;
    }
    for (int i = 0; i < 6; i++)
        assert_true(abs(seen[i] - N / 6) < 400);
    rng_shuffle(&r, NULL, 0);
    uint32_t one = 9;
    rng_shuffle(&r, &one, 1);
    assert_int_equal(one, 9);
}

static void test_streams_differ(void **state)
{
    (void)state;
    uint32_t a[4], b[4];
    /* FNV-1a, 64 bits: its published test values. */
    assert_true(rng_stream("") == 0xCBF29CE484222325U);
    assert_true(rng_stream("a") == 0xAF63DC4C8601EC8CU);
    assert_true(rng_stream("foobar") == 0x85944171F73967E8U);
    rng_philox(a, 1, rng_stream("lora.q"), 0);
    rng_philox(b, 1, rng_stream("lora.k"), 0);
    assert_memory_not_equal(a, b, sizeof a);
    rng_philox(b, 2, rng_stream("lora.q"), 0);
    assert_memory_not_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_the_cursor_walks_the_blocks),
        cmocka_unit_test(test_a_saved_cursor_replays),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_below_is_unbiased),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_shuffle_is_a_fair_permutation),
        cmocka_unit_test(test_streams_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
