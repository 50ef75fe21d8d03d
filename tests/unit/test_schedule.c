#include "core/train/schedule.h"
#include "core/train/train_conf.h"
#include "tests/unit/aid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values of transformers' get_*_schedule_with_warmup at 2 warmup steps of 10. */
static void test_as_transformers(void **state)
{
    (void)state;
    static const struct {
        int kind;
        double min_ratio, want[11];
    } cases[] = {
        {0, 0, {0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0}},
        {1,
         0,
         {0, 0.5, 1, 0.96193976625564, 0.85355339059327, 0.69134171618254, 0.5, 0.30865828381746,
          0.14644660940673, 0.03806023374436, 0}},
        {1,
         0.1,
         {0, 0.5, 1, 0.965745789630080, 0.868198051533946, 0.722207544564290, 0.55,
          0.377792455435710, 0.231801948466054, 0.134254210369920, 0.1}},
        {3, 0, {0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        schedule s = {cases[c].kind, 2, 10, cases[c].min_ratio};
        for (int64_t k = 0; k <= 10; k++)
            assert_true(fabs(schedule_share(&s, k) - cases[c].want[k]) < 1e-12);
    }
    schedule constant = {2, 0, 10, 0};
    assert_true(schedule_share(&constant, 0) == 1);
}

static void test_warmup(void **state)
{
    (void)state;
    assert_int_equal(schedule_warmup(0, 7, 0, 1000), 7);
    assert_int_equal(schedule_warmup(0, 0, 0, 1000), 0);
    assert_int_equal(schedule_warmup(0, -1, 0.101, 100), 11);
    assert_int_equal(schedule_warmup(0, -1, 0, 1000), 30);
    assert_int_equal(schedule_warmup(0, -1, 0, 100000), 100);
    assert_int_equal(schedule_warmup(2, -1, 0, 1000), 0);
}

static void test_rows_follow_the_setting(void **state)
{
    (void)state;
    const conf_row *row = conf_find(train_conf_rows, "lr_scheduler");
    for (int i = 0; schedules[i].name != NULL; i++) {
        char *name = conf_choice(row, i);
        assert_string_equal(name, schedules[i].name);
        free(name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_transformers),
        cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_rows_follow_the_setting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
