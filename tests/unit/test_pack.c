#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/data/pack.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>

/* A set of n samples of 2 to max tokens; sample i begins with token i, then counts on; every third
 * token is not supervised. */
static dataset *make(size_t n, int64_t max)
{
    dataset *d = mem_alloc(sizeof *d);
    rng r = {7, 1, 0};
    d->samples = mem_array(n, sizeof *d->samples);
    d->ids = mem_array(n * (size_t)max, sizeof *d->ids);
    d->mask = mem_array(n * (size_t)max, 1);
    d->n_samples = n;
    for (size_t i = 0; i < n; i++) {
        data_sample *s = &d->samples[i];
        s->start = d->n_tokens;
        s->n = 2 + (int64_t)rng_below(&r, (uint64_t)max - 1);
        for (int64_t k = 0; k < s->n; k++) {
            d->ids[d->n_tokens] = (int32_t)((int64_t)i + k);
            d->mask[d->n_tokens++] = k % 3 != 2;
            s->n_targets += k > 0 && k % 3 != 2;
        }
    }
    return d;
}

static void drop(dataset *d)
{
    free(d->samples);
    free(d->ids);
    free(d->mask);
    free(d);
}

static void check_epoch(const dataset *d, const data_view *v, const pack_options *o, int64_t epoch)
{
    pack_plan p;
    micro_batch b = {0};
    uint8_t *seen = mem_array(d->n_samples, 1);
    int64_t max = 0;
    pack_epoch(&p, v, o, epoch);
    for (size_t i = 0; i < p.n_batches; i++) {
        int64_t targets = 0;
        pack_fill(&b, d, &p, i);
        assert_true(b.n_seg > 0);
        if (o->packing)
            assert_true(b.n <= o->micro_batch_size * o->sequence_len);
        else
            assert_true(b.n_seg <= o->micro_batch_size);
        for (int s = 0; s < b.n_seg; s++) {
            const data_sample *x = &d->samples[b.samples[s]];
            seen[b.samples[s]]++;
            assert_int_equal(b.cu[s + 1] - b.cu[s], x->n);
            for (int32_t k = b.cu[s]; k < b.cu[s + 1]; k++) {
                int32_t at = k - b.cu[s];
                bool last = k + 1 == b.cu[s + 1];
                assert_int_equal(b.pos[k], at);
                assert_int_equal(b.ids[k], d->ids[x->start + (size_t)at]);
                assert_int_equal(b.target[k], !last && (at + 1) % 3 != 2
                                                  ? d->ids[x->start + (size_t)at + 1]
                                                  : -1);
                targets += b.target[k] >= 0;
            }
        }
        assert_int_equal(targets, b.n_targets);
        assert_int_equal(targets, pack_targets(d, &p, i));
        max = b.n > max ? b.n : max;
    }
    assert_int_equal(max, p.max_tokens);
    for (size_t i = 0; i < v->n; i++)
        assert_int_equal(seen[v->sample[i]], 1);
    free(seen);
    micro_batch_free(&b);
    pack_plan_free(&p);
}

static void test_every_sample_once_an_epoch(void **state)
{
    (void)state;
    dataset *d = make(20001, 50);
    data_view v;
    data_view_all(&v, d);
    for (int packing = 0; packing < 2; packing++) {
        for (int shuffle = 0; shuffle < 2; shuffle++) {
            pack_options o = {3, 50, packing != 0, shuffle != 0, 42};
            check_epoch(d, &v, &o, 0);
            check_epoch(d, &v, &o, 1);
        }
    }
    data_view_free(&v);
    drop(d);
}

static bool same_order(const data_view *v, const pack_options *a, int64_t ea, const pack_options *b,
                       int64_t eb)
{
    pack_plan p, q;
    pack_epoch(&p, v, a, ea);
    pack_epoch(&q, v, b, eb);
    bool same = memcmp(p.order, q.order, v->n * sizeof *p.order) == 0;
    pack_plan_free(&p);
    pack_plan_free(&q);
    return same;
}

static void test_order_is_a_function_of_seed_and_epoch(void **state)
{
    (void)state;
    dataset *d = make(100, 20);
    data_view v;
    data_view_all(&v, d);
    pack_options plain = {4, 20, false, true, 42}, other = {4, 20, false, true, 43},
                 packed = {4, 20, true, true, 42};
    assert_true(same_order(&v, &plain, 3, &plain, 3));
    assert_false(same_order(&v, &plain, 3, &plain, 4));
    assert_false(same_order(&v, &plain, 3, &other, 3));
    assert_true(same_order(&v, &packed, 3, &packed, 3));
    assert_false(same_order(&v, &packed, 3, &packed, 4));
    data_view_free(&v);
    drop(d);
}

static void test_packing_wastes_little(void **state)
{
    (void)state;
    dataset *d = make(2000, 200);
    data_view v;
    pack_plan p;
    pack_options o = {4, 256, true, true, 1};
    data_view_all(&v, d);
    pack_epoch(&p, &v, &o, 0);
    assert_true((double)v.n_tokens / ((double)p.n_batches * 1024) > 0.98);
    pack_plan_free(&p);
    data_view_free(&v);
    drop(d);
}

/* Worked by hand: limit 10, lengths 6 4 5 3 2 in file order, first fit decreasing. */
static void test_first_fit_decreasing(void **state)
{
    (void)state;
    static const int64_t len[] = {6, 4, 5, 3, 2};
    static const uint32_t order[] = {0, 1, 2, 3, 4}, start[] = {0, 2, 5};
    dataset *d = make(5, 10);
    data_view v;
    pack_plan p;
    pack_options o = {1, 10, true, false, 1};
    for (size_t i = 0; i < 5; i++)
        d->samples[i].n = len[i];
    data_view_all(&v, d);
    pack_epoch(&p, &v, &o, 0);
    assert_int_equal(p.n_batches, 2);
    assert_memory_equal(p.order, order, sizeof order);
    assert_memory_equal(p.start, start, sizeof start);
    pack_plan_free(&p);
    data_view_free(&v);
    drop(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_sample_once_an_epoch),
        cmocka_unit_test(test_order_is_a_function_of_seed_and_epoch),
        cmocka_unit_test(test_packing_wastes_little),
        cmocka_unit_test(test_first_fit_decreasing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
