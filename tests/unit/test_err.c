#include "core/base/err.h"
#include "core/base/utf8.h"
#include "tests/unit/aid.h"

#include <string.h>

static void test_each_layer_prepends(void **state)
{
    (void)state;
    hone_err e = {0};
    assert_int_equal(hone_fail(&e, HONE_EFORMAT, "header of %d bytes", 9), HONE_EFORMAT);
    assert_int_equal(hone_fail_at(&e, "%s", "a.safetensors"), HONE_EFORMAT);
    assert_string_equal(e.msg, "a.safetensors: header of 9 bytes");
}

static void test_the_old_message_may_be_an_argument(void **state)
{
    (void)state;
    hone_err e = {0};
    hone_fail(&e, HONE_EIO, "inner");
    hone_fail(&e, HONE_EFORMAT, "outer of %s", e.msg);
    assert_string_equal(e.msg, "outer of inner");
    assert_int_equal(e.code, HONE_EFORMAT);
}

static void test_a_failure_never_becomes_success(void **state)
{
    (void)state;
    hone_err e = {0};
    assert_int_equal(hone_fail_at(&e, "where"), HONE_EINTERNAL);
    assert_int_equal(hone_fail_at(NULL, "where"), HONE_EINTERNAL);
    assert_int_equal(hone_fail(NULL, HONE_EIO, "what"), HONE_EIO);
}

static void test_a_message_is_one_line_of_utf8(void **state)
{
    (void)state;
    hone_err e = {0};
    hone_fail(&e, HONE_EIO, "%s", "a\nb\x1b[31m\x7f\xff\xc3 \xc3\xa9");
    assert_string_equal(e.msg, "a?b?[31m??? \xc3\xa9");
}

static void test_long_messages_say_that_they_were_cut(void **state)
{
    (void)state;
    char text[3000];
    hone_err e = {0};
    /* Two-byte characters, at both parities, so that a cut inside one would show. */
    for (size_t shift = 0; shift < 2; shift++) {
        for (size_t i = 0; i + 1 < sizeof text; i += 2)
            memcpy(text + i, "\xc3\xa9", 2);
        text[2998] = '\0';
        memset(text, 'x', shift);
        if (shift == 1)
            memcpy(text, "x\xc3\xa9", 3);
        hone_fail(&e, HONE_EIO, "%s", text + shift);
        size_t n = strlen(e.msg);
        assert_true(n >= sizeof e.msg - 6);
        assert_string_equal(e.msg + n - 3, "...");
        assert_int_equal(utf8_valid(e.msg, n), n);
        hone_fail_at(&e, "%s", text);
        n = strlen(e.msg);
        assert_string_equal(e.msg + n - 3, "...");
        assert_int_equal(utf8_valid(e.msg, n), n);
        assert_non_null(strstr(e.msg, "...: "));
    }
}

static void test_every_code_has_a_name(void **state)
{
    (void)state;
#define CHECK(name, n, text)                                                                       \
    assert_string_equal(hone_errname(-(n)), #name);                                                \
    assert_string_equal(hone_strerror(-(n)), text);
    HONE_ERRNO_MAP(CHECK)
#undef CHECK
    assert_string_equal(hone_errname(0), "OK");
    assert_string_equal(hone_strerror(0), "done");
    assert_string_equal(hone_errname(-9999), "?");
    assert_string_equal(hone_strerror(-9999), "unknown error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_layer_prepends),
        cmocka_unit_test(test_the_old_message_may_be_an_argument),
        cmocka_unit_test(test_a_failure_never_becomes_success),
        cmocka_unit_test(test_a_message_is_one_line_of_utf8),
        cmocka_unit_test(test_long_messages_say_that_they_were_cut),
        cmocka_unit_test(test_every_code_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
