#include "core/base/buf.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>

static void test_text_is_terminated_at_every_length(void **state)
{
    (void)state;
    buf b;
    buf_init(&b, 1000);
    assert_string_equal(b.data, "");
    for (size_t i = 0; i < 1000; i++) {
        buf_char(&b, (char)('a' + i % 26));
        assert_int_equal(b.len, i + 1);
        assert_int_equal(strlen(b.data), i + 1);
    }
    assert_int_equal(buf_check(&b, "text", NULL), 0);
    buf_free(&b);
    assert_string_equal(b.data, "");
}

static void test_the_maximum_is_exact(void **state)
{
    (void)state;
    buf b;
    hone_err e = {0};
    buf_init(&b, 5);
    buf_str(&b, "12345");
    assert_int_equal(buf_check(&b, "answer", &e), 0);
    buf_str(&b, "");
    assert_int_equal(buf_check(&b, "answer", &e), 0);
    buf_char(&b, '6');
    assert_int_equal(buf_check(&b, "answer", &e), HONE_ELIMIT);
    assert_string_equal(e.msg, "answer: longer than 5 bytes");
    assert_string_equal(b.data, "12345");
    buf_free(&b);
}

static void test_nothing_is_added_after_a_failure(void **state)
{
    (void)state;
    buf b;
    buf_init(&b, 5);
    buf_str(&b, "abc");
    buf_str(&b, "too long");
    buf_str(&b, "d"); /* would fit, but the text would have a hole */
    buf_printf(&b, "%d", 1);
    assert_string_equal(b.data, "abc");
    assert_true(b.failed);
    buf_reset(&b);
    buf_str(&b, "again");
    assert_int_equal(buf_check(&b, "x", NULL), 0);
    assert_string_equal(b.data, "again");
    buf_free(&b);
}

static void test_memory_stays_within_the_maximum(void **state)
{
    (void)state;
    buf b;
    buf_init(&b, 100);
    for (int i = 0; i < 100; i++)
        buf_char(&b, 'x');
    assert_false(b.failed);
    assert_true(b.cap <= 101);
    buf_free(&b);
}

static void test_huge_sizes_fail_and_do_not_wrap(void **state)
{
    (void)state;
    buf b;
    hone_err e = {0};
    buf_init(&b, SIZE_MAX);
    buf_str(&b, "x");
    buf_add(&b, "y", SIZE_MAX / 4);
    assert_int_equal(buf_check(&b, "body", &e), HONE_ENOMEM);
    assert_string_equal(e.msg, "body: no memory past 1 bytes");
    buf_free(&b);
    buf_init(&b, 10);
    buf_add(&b, "y", SIZE_MAX);
    assert_int_equal(buf_check(&b, "body", &e), HONE_ELIMIT);
    buf_free(&b);
}

static void test_nul_bytes_are_kept(void **state)
{
    (void)state;
    buf b;
    size_t len;
    buf_init(&b, 100);
    buf_add(&b, "a\0b", 3);
    buf_char(&b, '\0');
    char *p = buf_take(&b, &len);
    assert_int_equal(len, 4);
    assert_memory_equal(p, "a\0b\0", 5);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    free(p);
    p = buf_take(&b, NULL); /* an empty one is text too */
    assert_string_equal(p, "");
    free(p);
}

static void test_utf8_of_every_length(void **state)
{
    (void)state;
    static const struct {
        unsigned cp;
        const char *bytes;
    } cases[] = {
        {'A', "A"},
        {0x7F, "\x7f"},
        {0x80, "\xc2\x80"},
        {0x7FF, "\xdf\xbf"},
        {0x800, "\xe0\xa0\x80"},
        {0xFFFF, "\xef\xbf\xbf"},
        {0x10000, "\xf0\x90\x80\x80"},
        {0x10FFFF, "\xf4\x8f\xbf\xbf"},
        {0xD800, "\xef\xbf\xbd"},
        {0xDFFF, "\xef\xbf\xbd"},
        {0x110000, "\xef\xbf\xbd"},
        {0xFFFFFFFF, "\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf b;
        buf_init(&b, 10);
        buf_utf8(&b, cases[i].cp);
        assert_string_equal(b.data, cases[i].bytes);
        buf_free(&b);
    }
}

static void test_a_zeroed_one_may_be_freed(void **state)
{
    (void)state;
    buf b = {0};
    buf_free(&b);
    assert_string_equal(b.data, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_is_terminated_at_every_length),
        cmocka_unit_test(test_the_maximum_is_exact),
        cmocka_unit_test(test_nothing_is_added_after_a_failure),
        cmocka_unit_test(test_memory_stays_within_the_maximum),
        cmocka_unit_test(test_huge_sizes_fail_and_do_not_wrap),
        cmocka_unit_test(test_nul_bytes_are_kept),
        cmocka_unit_test(test_utf8_of_every_length),
        cmocka_unit_test(test_a_zeroed_one_may_be_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
