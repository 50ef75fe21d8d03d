#include "core/model/stdtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* Every f16 and bf16 value survives the way to F32 and back. */
static void test_round_trip_of_every_value(void **state)
{
    (void)state;
    for (uint32_t v = 0; v < 0x10000U; v++) {
        float h = f16_to_f32((uint16_t)v), b = bf16_to_f32((uint16_t)v);
        if (!isnan(h))
            assert_int_equal(f32_to_f16(h), v);
        else
            assert_true(isnan(f16_to_f32(f32_to_f16(h))));
        if (!isnan(b))
            assert_int_equal(f32_to_bf16(b), v);
        else
            assert_true(isnan(bf16_to_f32(f32_to_bf16(b))));
    }
}

/* Known values by IEEE 754: ties to even, overflow, the smallest numbers. */
static void test_rounding(void **state)
{
    (void)state;
    static const struct {
        float v;
        uint16_t f16, bf16;
    } rows[] = {
        {1.0F, 0x3C00, 0x3F80},
        {1.0F + 0x1p-11F, 0x3C00, 0x3F80},
        {1.0F + 0x1.8p-10F, 0x3C02, 0x3F80},
        {1.0F + 0x1p-8F, 0x3C04, 0x3F80},
        {1.0F + 0x1.8p-7F, 0x3C0C, 0x3F82},
        {65504.0F, 0x7BFF, 0x4780},
        {65519.9F, 0x7BFF, 0x4780},
        {65520.0F, 0x7C00, 0x4780},
        {0x1p-24F, 0x0001, 0x3380},
        {0x1p-25F, 0x0000, 0x3300},
        {0x1.8p-25F, 0x0001, 0x3340},
        {-0x1p-14F, 0x8400, 0xB880},
        {3.4e38F, 0x7C00, 0x7F80},
        {-0.0F, 0x8000, 0x8000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(f32_to_f16(rows[i].v), rows[i].f16);
        assert_int_equal(f32_to_bf16(rows[i].v), rows[i].bf16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_of_every_value),
        cmocka_unit_test(test_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
