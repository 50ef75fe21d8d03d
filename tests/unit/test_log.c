/* log, clock and nearest. */
#include "core/base/clock.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/nearest.h"
#include "core/base/utf8.h"
#include "tests/unit/aid.h"

#include <regex.h>
#include <stdlib.h>
#include <string.h>

static void assert_matches(const char *text, const char *pattern)
{
    regex_t re;
    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&re, text, 0, NULL, 0) != 0)
        fail_msg("'%s' does not match '%s'", text, pattern);
    regfree(&re);
}

#define TS "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"

static void say_text(void *arg)
{
    (void)arg;
    log_debug("x", "below the level");
    log_warn("serve", "port %d is \"taken\"\nby\t%s", 80, "\x01\\");
}

static void test_key_value_lines(void **state)
{
    (void)state;
    char *line = aid_stderr(say_text, NULL, NULL);
    assert_matches(line, "^ts=" TS " level=warn sys=serve msg=\"port 80 is \\\\\"taken\\\\\"\\\\nby"
                         "\\\\u0009\\\\u0001\\\\\\\\\"\n$");
    free(line);
}

static const char nasty[] = "quote \" backslash \\ newline \n bell \a bad \xff\xc3 good \xc3\xa9";

static void say_json(void *arg)
{
    (void)arg;
    log_setup(LOG_DEBUG, true);
    log_debug("train", "%s", nasty);
}

static void test_json_lines(void **state)
{
    (void)state;
    hone_err e = {0};
    json_t *o;
    const char *s = NULL;
    char *line = aid_stderr(say_json, NULL, NULL);
    assert_int_equal(js_parse(&o, line, strlen(line), &e), 0);
    assert_int_equal(js_get_str(o, "level", &s, &e), 0);
    assert_string_equal(s, "debug");
    assert_int_equal(js_get_str(o, "sys", &s, &e), 0);
    assert_string_equal(s, "train");
    assert_int_equal(js_get_str(o, "msg", &s, &e), 0);
    assert_string_equal(
        s, "quote \" backslash \\ newline \n bell \a bad \xef\xbf\xbd\xef\xbf\xbd good \xc3\xa9");
    assert_int_equal(json_object_size(o), 4);
    json_decref(o);
    free(line);
}

static void say_long(void *arg)
{
    const char *what = arg;
    char text[8000];
    size_t n = strlen(what);
    for (size_t i = 0; i + n < sizeof text; i += n)
        memcpy(text + i, what, n + 1);
    log_setup(LOG_INFO, true);
    log_info("x", "%s", text);
}

static void test_long_messages_are_marked(void **state)
{
    (void)state;
    char *cases[] = {"x", "\x01", "\xc3\xa9", "x\xc3\xa9"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hone_err e = {0};
        json_t *o;
        const char *s = NULL;
        char *line = aid_stderr(say_long, cases[i], NULL);
        assert_int_equal(js_parse(&o, line, strlen(line), &e), 0);
        assert_int_equal(js_get_str(o, "msg", &s, &e), 0);
        assert_true(strlen(s) > 1990);
        assert_string_equal(s + strlen(s) - 3, "...");
        json_decref(o);
        free(line);
    }
}

static void test_iso8601(void **state)
{
    (void)state;
    char s[32];
    clock_iso8601(s, sizeof s, 0);
    assert_string_equal(s, "1970-01-01T00:00:00.000Z");
    clock_iso8601(s, sizeof s, 1769860800123);
    assert_string_equal(s, "2026-01-31T12:00:00.123Z");
    clock_iso8601(s, sizeof s, 951782400000); /* a leap day */
    assert_string_equal(s, "2000-02-29T00:00:00.000Z");
    clock_iso8601(s, sizeof s, -1);
    assert_string_equal(s, "1969-12-31T23:59:59.999Z");
}

static void test_monotonic(void **state)
{
    (void)state;
    int64_t a = clock_mono_ns();
    double sa = clock_seconds();
    for (int i = 0; i < 1000; i++) {
        int64_t b = clock_mono_ns();
        assert_true(b >= a);
        a = b;
    }
    assert_true(clock_seconds() >= sa);
    assert_true(clock_unix_ms() > 1600000000000);
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const names[] = {"learning_rate", "lora_r", "lora_alpha", "seed", "r", NULL};
    static const char *const none[] = {NULL};
    assert_string_equal(nearest_name("learning_rat", names), "learning_rate");
    assert_string_equal(nearest_name("learnig_rate", names), "learning_rate");
    assert_string_equal(nearest_name("lora_alhpa", names), "lora_alpha");
    assert_string_equal(nearest_name("lora_rr", names), "lora_r");
    assert_string_equal(nearest_name("sed", names), "seed");
    assert_null(nearest_name("x", names)); /* all of it would change */
    assert_null(nearest_name("temperature", names));
    assert_null(nearest_name("seed", none));
    char longest[200];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_null(nearest_name(longest, names));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_value_lines),
        cmocka_unit_test(test_json_lines),
        cmocka_unit_test(test_long_messages_are_marked),
        cmocka_unit_test(test_iso8601),
        cmocka_unit_test(test_monotonic),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
