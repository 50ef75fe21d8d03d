#include "core/base/buf.h"
#include "core/base/utf8.h"
#include "tests/unit/aid.h"

#include <string.h>

/* Unicode 15, table 3-7: well-formed byte sequences, and what just misses them. */
static const struct {
    const char *bytes;
    size_t used; /* by the first character; 0: malformed */
    uint32_t cp;
} cases[] = {
    {"A", 1, 'A'},
    {"\x7f", 1, 0x7F},
    {"\xc2\x80", 2, 0x80},
    {"\xdf\xbf", 2, 0x7FF},
    {"\xe0\xa0\x80", 3, 0x800},
    {"\xed\x9f\xbf", 3, 0xD7FF},
    {"\xee\x80\x80", 3, 0xE000},
    {"\xef\xbf\xbf", 3, 0xFFFF},
    {"\xf0\x90\x80\x80", 4, 0x10000},
    {"\xf4\x8f\xbf\xbf", 4, 0x10FFFF},
    {"\x80", 0, 0},             /* continuation alone */
    {"\xbf", 0, 0},             /* continuation alone */
    {"\xc0\x80", 0, 0},         /* overlong NUL */
    {"\xc1\xbf", 0, 0},         /* overlong */
    {"\xe0\x9f\xbf", 0, 0},     /* overlong */
    {"\xf0\x8f\xbf\xbf", 0, 0}, /* overlong */
    {"\xed\xa0\x80", 0, 0},     /* surrogate */
    {"\xed\xbf\xbf", 0, 0},     /* surrogate */
    {"\xf4\x90\x80\x80", 0, 0}, /* above U+10FFFF */
    {"\xf5\x80\x80\x80", 0, 0}, /* above U+10FFFF */
    {"\xfe", 0, 0},
    {"\xff", 0, 0},
    {"\xc3", 0, 0},          /* cut short */
    {"\xe2\x82", 0, 0},      /* cut short */
    {"\xf0\x9f\x98", 0, 0},  /* cut short */
    {"\xc3(", 0, 0},         /* second byte wrong */
    {"\xe2\x82(", 0, 0},     /* third byte wrong */
    {"\xf0\x9f\x98(", 0, 0}, /* fourth byte wrong */
};

static void test_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t cp = 0;
        size_t n = strlen(cases[i].bytes);
        assert_int_equal(utf8_next(cases[i].bytes, n, &cp), cases[i].used);
        assert_int_equal(utf8_valid(cases[i].bytes, n), cases[i].used ? n : 0);
        if (cases[i].used != 0)
            assert_int_equal(cp, cases[i].cp);
    }
    uint32_t cp;
    assert_int_equal(utf8_next("", 0, &cp), 0);
    assert_int_equal(utf8_next("\0", 1, &cp), 1);
    assert_int_equal(cp, 0);
}

static void test_every_character_comes_back(void **state)
{
    (void)state;
    buf b;
    buf_init(&b, 8);
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        uint32_t got = 0;
        if (cp >= 0xD800 && cp <= 0xDFFF)
            continue;
        buf_reset(&b);
        buf_utf8(&b, cp);
        if (utf8_next(b.data, b.len, &got) != b.len || got != cp)
            fail_msg("U+%04X came back as U+%04X", cp, got);
    }
    buf_free(&b);
}

static void test_the_valid_prefix(void **state)
{
    (void)state;
    assert_int_equal(utf8_valid("ab\xc3\xa9"
                                "c\xff"
                                "d",
                                7),
                     5);
    assert_int_equal(utf8_valid("", 0), 0);
    /* A bad byte at every place of a long text, and a cut character at its end. */
    char text[40];
    for (size_t n = 1; n <= sizeof text; n++) {
        for (size_t bad = 0; bad < n; bad++) {
            memset(text, 'x', n);
            text[bad] = '\xff';
            assert_int_equal(utf8_valid(text, n), bad);
            text[bad] = '\xc3';
            assert_int_equal(utf8_valid(text, n), bad);
        }
        memset(text, 'x', n);
        assert_int_equal(utf8_valid(text, n), n);
    }
}

static void test_the_part_of_a_character_at_the_end(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t partial;
    } ends[] = {
        {"", 0},         {"abc", 0},          {"ab\xc3", 1},           {"ab\xc3\xa9", 0},
        {"\xe2", 1},     {"\xe2\x82", 2},     {"\xe2\x82\xac", 0},     {"\xf0", 1},
        {"\xf0\x9f", 2}, {"\xf0\x9f\x98", 3}, {"\xf0\x9f\x98\x80", 0}, {"\xff", 0},
        {"\x80", 0},     {"a\x80\x80", 0},    {"\xe0\x80", 0},         {"\xed\xa0", 0},
        {"\xf4\x90", 0}, {"\xc0", 0},         {"\xf0\x8f\xbf", 0},     {"\x80\x80\x80\x80", 0},
    };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        assert_int_equal(utf8_partial(ends[i].bytes, strlen(ends[i].bytes)), ends[i].partial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table),
        cmocka_unit_test(test_every_character_comes_back),
        cmocka_unit_test(test_the_valid_prefix),
        cmocka_unit_test(test_the_part_of_a_character_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
