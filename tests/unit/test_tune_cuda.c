/* How ops are cut for a card. */
#include "tests/unit/aid.h"

#include "kernels/cuda/tune.h"

static void rows_fit_their_threads(void **state)
{
    (void)state;
    for (int per = 4; per <= 8; per *= 2) {
        for (int64_t h = per; h <= 40000; h += per) {
            tune_row r = tune_norm(h, per);
            int64_t holds = (int64_t)r.threads * per * TUNE_ROW_VECS;
            if (r.threads == 0) {
                assert_true(h > (int64_t)TUNE_ROW_THREADS * per * TUNE_ROW_VECS);
                continue;
            }
            assert_true(holds >= h && r.threads % 32 == 0 && r.threads <= TUNE_ROW_THREADS);
            assert_true(holds - h < 32 * (int64_t)per * TUNE_ROW_VECS);
            assert_true(r.rows == 1 || r.threads == 32);
        }
    }
}

static void shares_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(tune_shares(0), 1);
    assert_int_equal(tune_shares(16), 1);
    assert_int_equal(tune_shares(17), 2);
    assert_int_equal(tune_shares(1000000), 512);
    assert_int_equal(tune_sumsq(0), 1);
    assert_int_equal(tune_sumsq(4097), 2);
    assert_int_equal(tune_sumsq((int64_t)1 << 40), 1024);
}

static void heads_fit_their_threads(void **state)
{
    (void)state;
    for (int d = 2; d <= 1024; d += 2) {
        tune_heads t = tune_qk(d, 8, 1);
        if (t.group == 0) {
            assert_true(d % 16 != 0 || d > 512);
            continue;
        }
        assert_true(t.group <= 32 && 32 % t.group == 0);
        assert_true(16 * t.group >= d && (t.group == 1 || 8 * t.group < d));
    }
    assert_int_equal(tune_qk(128, 8, 4).passes, 1);
    assert_int_equal(tune_qk(128, 8, 4096).passes, 4);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_fit_their_threads),
        cmocka_unit_test(shares_are_bounded),
        cmocka_unit_test(heads_fit_their_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
