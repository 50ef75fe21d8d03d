/* How attention cuts its work on a card: what fits, and that nothing is left over. */
#include "kernels/cuda/tune_attn.h"
#include "tests/unit/aid.h"

/* Bytes of shared memory that a block may have, by compute capability. */
enum { SM_80 = 163 << 10, SM_89 = 99 << 10, SM_90 = 227 << 10 };
static const size_t cards[] = {SM_80, SM_89, SM_90};
static const int heads[] = {64, 80, 96, 128, 256};

static void test_heads_are_served_by_the_next_size(void **state)
{
    (void)state;
    assert_int_equal(tune_attn_head(1), 64);
    assert_int_equal(tune_attn_head(64), 64);
    assert_int_equal(tune_attn_head(65), 80);
    assert_int_equal(tune_attn_head(112), 128);
    assert_int_equal(tune_attn_head(129), 256);
    assert_int_equal(tune_attn_head(257), 0);
    assert_int_equal(tune_attn_head(0), 0);
    for (int d = 1; d <= TUNE_ATTN_MOST; d++)
        assert_true(tune_attn_head(d) >= d);
}

static void test_tiles_fit_every_card(void **state)
{
    (void)state;
    for (int h = 0; h < 5; h++)
        for (int c = 0; c < 3; c++) {
            int d = heads[h];
            assert_true(tune_attn_bytes(d, tune_attn(d, cards[c])) <= cards[c]);
            assert_true(tune_attn_dq_bytes(d, tune_attn_dq(d, cards[c])) <= cards[c]);
            assert_true(tune_attn_dkv_bytes(d, tune_attn_dkv(d, 1 << 20, 8)) <= cards[c]);
            assert_true(tune_paged_bytes(d, d > 128 ? 2 : 4) <= cards[c]);
        }
}

static void test_wide_tiles_go_in_pairs(void **state)
{
    (void)state;
    assert_int_equal(tune_attn_bytes(128, 2), 64 << 10);
    assert_int_equal(tune_attn(128, SM_80), 2);
    assert_int_equal(tune_attn(128, SM_89), 1);
    assert_int_equal(tune_attn(128, SM_90), 2);
    assert_int_equal(tune_attn(64, SM_89), 2);
    assert_int_equal(tune_attn(256, SM_90), 1); /* for the registers' sake */
    assert_int_equal(tune_attn_dq(128, SM_80), 1);
    assert_int_equal(tune_attn_dq(128, SM_90), 2);
    for (int c = 0; c < 3; c++)
        for (int h = 0; h < 5; h++)
            if (tune_attn(heads[h], cards[c]) == 2)
                assert_true(2 * (tune_attn_bytes(heads[h], 2) + 1024) <= cards[c] + 1024);
}

/* Stages hold what is put in their place at the end. */
static void test_merged_sums_fit_the_stages(void **state)
{
    (void)state;
    for (int h = 0; h < 5; h++) {
        int d = heads[h], warps = d > 128 ? 2 : 4;
        size_t sums = (size_t)(warps * 16 * d) * 4, stages = (size_t)(4 * 16 * warps * d) * 2;
        assert_true(sums <= stages);
        assert_true(tune_paged_bytes(d, warps) >= stages + (size_t)(16 * d) * 2);
    }
}

/* Every segment of a packed batch gets slots enough for its tiles, none shares one, and the launch
 * has as many as the last needs. */
static void test_slots_hold_every_tile(void **state)
{
    static const int lens[] = {0, 1, 63, 64, 65, 0, 0, 127, 128, 129, 1, 1, 1, 300, 0};
    enum { N = sizeof lens / sizeof lens[0] };
    (void)state;
    for (int tile = 1; tile <= 128; tile++) {
        int at = 0, end = 0;
        for (int s = 0; s < N; s++) {
            int first = at / tile + s, tiles = (lens[s] + tile - 1) / tile;
            assert_true(first >= end);
            end = first + tiles;
            at += lens[s];
            assert_true(end <= at / tile + s + 1);
        }
        assert_true(end <= at / tile + N);
    }
}

static void test_a_long_cache_is_split(void **state)
{
    (void)state;
    assert_int_equal(tune_paged_splits(1, 8, 128), 1);
    assert_int_equal(tune_paged_splits(1, 8, 512), 2);
    assert_int_equal(tune_paged_splits(1, 8, 8192), 32);
    assert_int_equal(tune_paged_splits(1, 8, 1 << 20), 64);
    assert_int_equal(tune_paged_splits(8, 8, 8192), 8);
    assert_int_equal(tune_paged_splits(64, 8, 8192), 1);
    assert_int_equal(tune_paged_splits(64, 2, 8192), 4);
    assert_int_equal(tune_paged_splits(4096, 8, 1 << 20), 1);
    assert_int_equal(tune_paged_splits(0, 8, 1 << 20), 1);
    assert_int_equal(tune_paged(64, SM_90, 64 * 4, 64), 1); /* one row a sequence, mostly */
    assert_int_equal(tune_paged(64, SM_90, 512 * 4, 1), 2);
    assert_int_equal(tune_attn_dkv(64, 16384, 8), 2);
    assert_int_equal(tune_attn_dkv(64, 16384, 2), 1);
    assert_int_equal(tune_attn_dkv(128, 16384, 8), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads_are_served_by_the_next_size),
        cmocka_unit_test(test_tiles_fit_every_card),
        cmocka_unit_test(test_wide_tiles_go_in_pairs),
        cmocka_unit_test(test_merged_sums_fit_the_stages),
        cmocka_unit_test(test_slots_hold_every_tile),
        cmocka_unit_test(test_a_long_cache_is_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
