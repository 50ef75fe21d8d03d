#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>

static json_t *parsed(const char *text)
{
    json_t *v;
    hone_err e = {0};
    if (js_parse(&v, text, strlen(text), &e) != 0)
        fail_msg("%s: %s", text, e.msg);
    return v;
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "JSON: line 1, column 0: "},
        {"{\"a\":1,\"a\":2}", "JSON: line 1, column 10: duplicate object key near '\"a\"'"},
        {"{\"a\":{\"b\":1,\"b\":1}}", "JSON: line 1, column 15: duplicate object key near '\"b\"'"},
        {"[1,]", "JSON: line 1, column 4: unexpected token near ']'"},
        {"[1]\n\n x", "JSON: line 3, column 2: end of file expected near 'x'"},
        {"{\"a\":NaN}", "JSON: line 1, column 8: invalid token near 'NaN'"},
        {"\"\xff\"", "JSON: line 1, column 1: unable to decode byte 0xff near '\"'"},
        {"\"\\ud800\"", "JSON: line 1, column 8: invalid Unicode"},
        {"{\"a\\u0000\":1}", "JSON: line 1, column 10: NUL byte in object key not supported near "},
        {"1e999", "JSON: line 1, column 5: real number overflow near '1e999'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *v = (json_t *)&cases;
        hone_err e = {0};
        assert_int_equal(js_parse(&v, cases[i].text, strlen(cases[i].text), &e), HONE_EFORMAT);
        assert_null(v);
        if (strncmp(e.msg, cases[i].says, strlen(cases[i].says)) != 0)
            fail_msg("%s: says '%s', not '%s'", cases[i].text, e.msg, cases[i].says);
    }
}

static char *nested(size_t depth)
{
    char *s = mem_alloc(2 * depth + 2);
    memset(s, '[', depth);
    s[depth] = '1';
    memset(s + depth + 1, ']', depth);
    return s;
}

/* As transformers writes a tokenizer without a limit. */
static void test_whole_numbers_beyond_64_bits_are_reals(void **state)
{
    (void)state;
    json_t *v = parsed("{\"a\": 1000000000000000019884624838656, \"b\": 9223372036854775807,"
                       " \"c\": \"\\\"99999999999999999999\", \"d\": -99999999999999999999,"
                       " \"e\": 12345678901234567890.5}");
    assert_true(json_real_value(json_object_get(v, "a")) == 1e30);
    assert_true(json_integer_value(json_object_get(v, "b")) == INT64_MAX);
    assert_string_equal(json_string_value(json_object_get(v, "c")), "\"99999999999999999999");
    assert_true(json_real_value(json_object_get(v, "d")) == -1e20);
    assert_true(json_real_value(json_object_get(v, "e")) == 12345678901234567890.5);
    json_decref(v);
}

static void test_depth_has_a_limit(void **state)
{
    (void)state;
    json_t *v;
    hone_err e = {0};
    char *s = nested(JS_MAX_DEPTH);
    assert_int_equal(js_parse(&v, s, strlen(s), &e), 0);
    json_decref(v);
    free(s);
    s = nested(JS_MAX_DEPTH + 1);
    assert_int_equal(js_parse(&v, s, strlen(s), &e), HONE_ELIMIT);
    assert_string_equal(e.msg, "JSON nests deeper than 256");
    free(s);
    s = nested(100000); /* jansson's own limit: no overflow of the stack */
    assert_int_equal(js_parse(&v, s, strlen(s), &e), HONE_EFORMAT);
    free(s);
}

static void test_length_has_a_limit(void **state)
{
    (void)state;
    json_t *v;
    hone_err e = {0};
    assert_int_equal(js_parse(&v, "", (size_t)JS_MAX_BYTES + 1, &e), HONE_ELIMIT);
    assert_string_equal(e.msg, "JSON of 268435457 bytes, at most 268435456 are read");
}

static void test_nul_stays_in_values_but_not_in_strings(void **state)
{
    (void)state;
    const char *s = "before";
    hone_err e = {0};
    json_t *o = parsed("{\"a\":\"x\\u0000y\"}");
    assert_int_equal(json_string_length(json_object_get(o, "a")), 3);
    assert_int_equal(js_get_str(o, "a", &s, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "field 'a' is not free of NUL characters");
    assert_string_equal(s, "before");
    json_decref(o);
}

static void test_fields(void **state)
{
    (void)state;
    json_t *o = parsed("{\"s\":\"t\",\"i\":-7,\"n\":2.5,\"b\":true,\"a\":[1],\"z\":null}"), *a;
    const char *s = NULL;
    int64_t i = 0;
    double n = 0;
    bool b = false;
    assert_int_equal(js_get_str(o, "s", &s, NULL), 0);
    assert_string_equal(s, "t");
    assert_int_equal(js_get_int(o, "i", &i, NULL), 0);
    assert_int_equal(i, -7);
    assert_int_equal(js_get_num(o, "n", &n, NULL), 0);
    assert_true(n == 2.5);
    assert_int_equal(js_get_num(o, "i", &n, NULL), 0);
    assert_true(n == -7);
    assert_int_equal(js_opt_bool(o, "b", &b, NULL), 0);
    assert_true(b);
    assert_int_equal(js_get_array(o, "a", &a, NULL), 0);
    assert_int_equal(json_array_size(a), 1);
    json_decref(o);
}

static void test_absent_and_null_are_the_same(void **state)
{
    (void)state;
    json_t *o = parsed("{\"z\":null}"), *a;
    static const char *const keys[] = {"z", "absent"};
    for (size_t k = 0; k < 2; k++) {
        const char *s = "kept";
        int64_t i = 5;
        double n = 5;
        bool b = true;
        hone_err e = {0};
        assert_int_equal(js_opt_str(o, keys[k], &s, &e), 0);
        assert_int_equal(js_opt_int(o, keys[k], &i, &e), 0);
        assert_int_equal(js_opt_num(o, keys[k], &n, &e), 0);
        assert_int_equal(js_opt_bool(o, keys[k], &b, &e), 0);
        assert_string_equal(s, "kept");
        assert_true(i == 5 && n == 5 && b);
        assert_int_equal(js_get_str(o, keys[k], &s, &e), HONE_EFORMAT);
        assert_int_equal(js_get_int(o, keys[k], &i, &e), HONE_EFORMAT);
        assert_int_equal(js_get_num(o, keys[k], &n, &e), HONE_EFORMAT);
        assert_int_equal(js_get_array(o, keys[k], &a, &e), HONE_EFORMAT);
        assert_string_equal(e.msg, k == 0 ? "field 'z' is missing" : "field 'absent' is missing");
    }
    json_decref(o);
}

static void test_wrong_types_are_named(void **state)
{
    (void)state;
    json_t *o = parsed("{\"x\":{},\"r\":1.0}"), *a;
    const char *s;
    int64_t i;
    double n;
    bool b;
    hone_err e = {0};
    assert_int_equal(js_opt_str(o, "x", &s, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "field 'x' is not a string");
    assert_int_equal(js_opt_int(o, "r", &i, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "field 'r' is not an integer");
    assert_int_equal(js_opt_num(o, "x", &n, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "field 'x' is not a number");
    assert_int_equal(js_opt_bool(o, "r", &b, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "field 'r' is not true or false");
    assert_int_equal(js_get_array(o, "x", &a, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "field 'x' is not an array");
    json_decref(o);
}

static void test_unknown_fields(void **state)
{
    (void)state;
    static const char *const keys[] = {"model", "max_tokens", NULL};
    hone_err e = {0};
    json_t *o = parsed("{\"model\":1,\"max_token\":2}");
    assert_int_equal(js_only_keys(o, keys, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "unknown field 'max_token' (did you mean 'max_tokens'?)");
    json_decref(o);
    o = parsed("{\"zzz\":1}");
    assert_int_equal(js_only_keys(o, keys, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "unknown field 'zzz'");
    json_decref(o);
    o = parsed("{\"max_tokens\":1}");
    assert_int_equal(js_only_keys(o, keys, &e), 0);
    json_decref(o);
}

static void test_text(void **state)
{
    (void)state;
    json_t *o = parsed(" {\"b\": 0.1, \"a\": [1, \"\\u00e9\"]} ");
    char *s = js_text(o, false);
    assert_string_equal(s, "{\"b\":0.1,\"a\":[1,\"\xc3\xa9\"]}");
    free(s);
    s = js_text(o, true);
    assert_string_equal(s, "{\"a\":[1,\"\xc3\xa9\"],\"b\":0.1}");
    free(s);
    json_decref(o);
}

static void test_every_double_survives(void **state)
{
    (void)state;
    static const double values[] = {0.1, 1e-4, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 3e-5};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        json_t *v = json_real(values[i]);
        char *s = js_text(v, false);
        json_t *back = parsed(s);
        assert_true(json_real_value(back) == values[i]);
        json_decref(back);
        json_decref(v);
        free(s);
    }
}

static void test_reals_are_short(void **state)
{
    (void)state;
    static const struct {
        double x;
        const char *want;
    } rows[] = {
        {0.1, "0.1"},
        {5, "5.0"},
        {-0.0, "-0.0"},
        {1e-5, "1e-5"},
        {2.5e-07, "2.5e-7"},
        {1e20, "1e20"},
        {1e22, "1e22"},
        {0.3, "0.3"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1.0 / 3, "0.3333333333333333"},
        {5e-324, "5e-324"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {1.7976931348623157e308, "1.7976931348623157e308"},
        {123456789012345680.0, "1.2345678901234568e17"},
        {9007199254740992.0, "9007199254740992.0"},
        {77777777777777776.0, "77777777777777776.0"},
        {-12345678901234568.0, "-12345678901234568.0"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *v = json_real(rows[i].x);
        char *s = js_text(v, false);
        assert_string_equal(s, rows[i].want);
        free(s);
        json_decref(v);
    }
    /* Whole numbers and what stands in strings are left alone. */
    json_t *o =
        parsed("{\"a\\\"0.10000000000000001\":\"0.30000000000000001\\\\\",\"n\":[-1,17,-0.5e3]}");
    char *s = js_text(o, false);
    assert_string_equal(
        s, "{\"a\\\"0.10000000000000001\":\"0.30000000000000001\\\\\",\"n\":[-1,17,-500.0]}");
    free(s);
    s = js_pretty(o);
    assert_non_null(strstr(s, "\n    -500.0\n"));
    free(s);
    json_decref(o);
}

static void test_save_and_load(void **state)
{
    (void)state;
    hone_err e = {0};
    char *dir = aid_dir(), *path = path_join(dir, "a.json");
    json_t *o = parsed("{\"b\":1,\"a\":[true]}"), *back;
    assert_int_equal(js_save(o, path, false, &e), 0);
    char *text = aid_text(path);
    assert_string_equal(text, "{\"b\":1,\"a\":[true]}");
    free(text);
    assert_int_equal(js_save(o, path, true, &e), 0);
    text = aid_text(path);
    assert_string_equal(text, "{\n  \"b\": 1,\n  \"a\": [\n    true\n  ]\n}\n");
    free(text);
    assert_int_equal(js_load(&back, path, &e), 0);
    assert_true(json_equal(o, back));
    json_decref(back);
    json_decref(o);
    assert_int_equal(file_write(path, "{", 1, &e), 0);
    assert_int_equal(js_load(&back, path, &e), HONE_EFORMAT);
    assert_null(back);
    char *want =
        mem_printf("%s: JSON: line 1, column 1: string or '}' expected near end of file", path);
    assert_string_equal(e.msg, want);
    free(want);
    free(path);
    aid_dir_remove(dir);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_whole_numbers_beyond_64_bits_are_reals),
        cmocka_unit_test(test_depth_has_a_limit),
        cmocka_unit_test(test_length_has_a_limit),
        cmocka_unit_test(test_nul_stays_in_values_but_not_in_strings),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_absent_and_null_are_the_same),
        cmocka_unit_test(test_wrong_types_are_named),
        cmocka_unit_test(test_unknown_fields),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_every_double_survives),
        cmocka_unit_test(test_reals_are_short),
        cmocka_unit_test(test_save_and_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
