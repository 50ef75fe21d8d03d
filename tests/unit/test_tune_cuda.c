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

static void every_warp_has_a_step_of_its_own(void **state)
{
    (void)state;
    for (int64_t out = 1; out < 40000; out = out * 3 / 2 + 1)
        for (int64_t in = 8; in < 40000; in = in * 3 / 2 + 8) {
            tune_gemv_plan p = tune_gemv(out, in);
            int64_t steps = (in + TUNE_GEMV_STEP - 1) / TUNE_GEMV_STEP;
            assert_true(p.warps >= 1 && p.warps <= 16 && p.splits >= 1 && p.splits <= 8);
            assert_true(p.warps * p.splits <= steps);
        }
    /* A wide matrix needs no second launch; a narrow one gets all the warps there are. */
    assert_int_equal(tune_gemv(28672, 4096).splits, 1);
    assert_int_equal(tune_gemv(4096, 14336).splits, 1);
    assert_int_equal(tune_gemv(256, 16384).warps, 16);
    assert_int_equal(tune_gemv(256, 16384).splits, 4);
}

static void a_chunk_of_logits_is_bounded(void **state)
{
    (void)state;
    for (int64_t vocab = 1; vocab < 2000000; vocab = vocab * 2 + 1) {
        int64_t rows = tune_head_rows(1000000, vocab);
        assert_true(rows >= 1 && rows <= 4096 && rows * vocab * 4 <= (int64_t)512 << 20);
        assert_true(rows < 128 || rows % 128 == 0);
        int threads = tune_head_threads(vocab);
        assert_true(threads >= 32 && threads <= 512 && threads % 32 == 0);
    }
    assert_int_equal(tune_head_rows(7, 1000), 7);
    assert_int_equal(tune_head_rows(100000, 128256), 1024);
    assert_int_equal(tune_head_rows(100000, 151936), 768);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_fit_their_threads),
        cmocka_unit_test(shares_are_bounded),
        cmocka_unit_test(heads_fit_their_threads),
        cmocka_unit_test(every_warp_has_a_step_of_its_own),
        cmocka_unit_test(a_chunk_of_logits_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
