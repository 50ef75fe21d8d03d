#include "core/base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void test_each_layer_prepends(void **state)
{
    (void)state;
    hone_err e = {0};
    assert_int_equal(hone_fail(&e, HONE_EFORMAT, "header of %d bytes", 9), HONE_EFORMAT);
    assert_int_equal(hone_fail_at(&e, "%s", "a.safetensors"), HONE_EFORMAT);
    assert_string_equal(e.msg, "a.safetensors: header of 9 bytes");
}

static void test_every_code_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(hone_errname(HONE_EVETO), "EVETO");
    assert_string_equal(hone_strerror(HONE_ENOMEM), "out of memory");
    assert_string_equal(hone_strerror(-9999), "unknown error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_layer_prepends),
        cmocka_unit_test(test_every_code_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
