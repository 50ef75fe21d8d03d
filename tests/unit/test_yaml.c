#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/yaml.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>

static void test_values(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *json;
    } cases[] = {
        {"", "{}"},
        {"# only a comment\n", "{}"},
        {"---\n", "null"},
        {"a: 1", "{\"a\":1}"},
        {"a: -5\nb: +5\nc: 0", "{\"a\":-5,\"b\":5,\"c\":0}"},
        {"a: 1e-4", "{\"a\":0.0001}"},
        {"a: .5\nb: 5.\nc: -2.5e+3", "{\"a\":0.5,\"b\":5.0,\"c\":-2500.0}"},
        {"a: 1e5", "{\"a\":100000.0}"},
        {"a: 007", "{\"a\":\"007\"}"},
        {"a: 0x10\nb: 0o7\nc: 1_000", "{\"a\":\"0x10\",\"b\":\"0o7\",\"c\":\"1_000\"}"},
        {"a: 9223372036854775807", "{\"a\":9223372036854775807}"},
        {"a: 9223372036854775808", "{\"a\":\"9223372036854775808\"}"},
        {"a: 1e400", "{\"a\":\"1e400\"}"},
        {"a: .inf\nb: .nan\nc: inf\nd: nan",
         "{\"a\":\".inf\",\"b\":\".nan\",\"c\":\"inf\",\"d\":\"nan\"}"},
        {"a: 1.2.3\nb: 2024-01-31\nc: 1e\nd: '-'",
         "{\"a\":\"1.2.3\",\"b\":\"2024-01-31\",\"c\":\"1e\",\"d\":\"-\"}"},
        {"a: true\nb: Yes\nc: ON", "{\"a\":true,\"b\":true,\"c\":true}"},
        {"a: false\nb: no\nc: Off", "{\"a\":false,\"b\":false,\"c\":false}"},
        {"a:\nb: ~\nc: null\nd: NULL", "{\"a\":null,\"b\":null,\"c\":null,\"d\":null}"},
        {"a: '1'\nb: \"true\"\nc: ''", "{\"a\":\"1\",\"b\":\"true\",\"c\":\"\"}"},
        {"a: !!str 1\nb: ! 2", "{\"a\":\"1\",\"b\":\"2\"}"},
        {"a: \"x\\u00e9\\n\\0y\"", "{\"a\":\"x\xc3\xa9\\n\\u0000y\"}"},
        {"a: |\n  x\n  y\n", "{\"a\":\"x\\ny\\n\"}"},
        {"a: >-\n  1\n", "{\"a\":\"1\"}"},
        {"- 1\n- [a, 'b']\n- {c: d}", "[1,[\"a\",\"b\"],{\"c\":\"d\"}]"},
        {"1: a\ntrue: b", "{\"1\":\"a\",\"true\":\"b\"}"},
        {"a: &x [1, 2]\nb: *x\n", "{\"a\":[1,2],\"b\":[1,2]}"},
        {"&k a: 1\nb: *k\n", "{\"a\":1,\"b\":\"a\"}"},
        {"a: &x 1\nb: &x 2\nc: *x", "{\"a\":1,\"b\":2,\"c\":2}"},
        {"a: !!seq [1]\nb: !!map {c: 1}", "{\"a\":[1],\"b\":{\"c\":1}}"},
        {"\xef\xbb\xbf"
         "a: 1",
         "{\"a\":1}"},
        {"a: 1\n...\n", "{\"a\":1}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *v, *lines;
        hone_err e = {0};
        if (yaml_parse(&v, &lines, cases[i].yaml, strlen(cases[i].yaml), &e) != 0)
            fail_msg("%s: %s", cases[i].yaml, e.msg);
        char *text = js_text(v, false);
        char *want = mem_strdup(cases[i].json);
        json_t *expected;
        assert_int_equal(js_parse(&expected, want, strlen(want), &e), 0);
        if (!json_equal(v, expected))
            fail_msg("%s: gives %s, not %s", cases[i].yaml, text, want);
        json_decref(expected);
        json_decref(lines);
        json_decref(v);
        free(text);
        free(want);
    }
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *yaml;
        int code;
        const char *says;
    } cases[] = {
        {"a: 1\nb: 2\na: 3", HONE_EFORMAT, "line 3: key 'a' stands twice"},
        {"x:\n  a: 1\n  'a': 3", HONE_EFORMAT, "line 3: key 'a' stands twice"},
        {"a: 1\n---\nb: 2", HONE_EFORMAT, "line 2: more than one document in the file"},
        {"a: !!int 1", HONE_EUNSUPPORTED, "line 1: tag 'tag:yaml.org,2002:int' is not supported"},
        {"a: 1\nb: !env HOME", HONE_EUNSUPPORTED, "line 2: tag '!env' is not supported"},
        {"a: !x [1]", HONE_EUNSUPPORTED, "line 1: tag '!x' is not supported"},
        {"a: !x {b: 1}", HONE_EUNSUPPORTED, "line 1: tag '!x' is not supported"},
        {"!!python/object:os.system a: 1", HONE_EUNSUPPORTED,
         "line 1: tag 'tag:yaml.org,2002:python/object:os.system' is not supported"},
        {"a: &x {b: 1}\nc:\n  <<: *x", HONE_EUNSUPPORTED,
         "line 3: merge keys (<<) are not supported"},
        {"[a, b]: 1", HONE_EFORMAT, "line 1: a key that is not a plain name"},
        {"? {a: 1}\n: 1", HONE_EFORMAT, "line 1: a key that is not a plain name"},
        {"a: &x 1\n*x : 2", HONE_EFORMAT, "line 2: a key that is not a plain name"},
        {"\"a\\0b\": 1", HONE_EFORMAT, "line 1: a key with a NUL character"},
        {"a: *x", HONE_EFORMAT, "line 1: no anchor 'x' above"},
        {"a: &x [*x]", HONE_EFORMAT, "line 1: no anchor 'x' above"},
        {"a: [1, 2", HONE_EFORMAT, "YAML: line 1: did not find expected ',' or ']'"},
        {"a: 1\n  b: 2", HONE_EFORMAT,
         "YAML: line 2: mapping values are not allowed in this context"},
        {"a: 1\n\tb: 2", HONE_EFORMAT, "YAML: line 2: "},
        {"a: 1\nb: 2\nc: \xff", HONE_EFORMAT, "YAML: line 3: invalid leading UTF-8 octet"},
        {"a: \x01", HONE_EFORMAT, "YAML: line 1: control characters are not allowed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *v = (json_t *)&cases, *lines = v;
        hone_err e = {0};
        int rc = yaml_parse(&v, &lines, cases[i].yaml, strlen(cases[i].yaml), &e);
        if (strncmp(e.msg, cases[i].says, strlen(cases[i].says)) != 0)
            fail_msg("%s: says '%s', not '%s'", cases[i].yaml, e.msg, cases[i].says);
        assert_int_equal(rc, cases[i].code);
        assert_null(v);
        assert_null(lines);
    }
}

static void test_lines(void **state)
{
    (void)state;
    static const char text[] = "a: 1\n"
                               "datasets:\n"
                               "  - path: x\n"
                               "    type: y\n"
                               "  - {path: z,\n"
                               "     type: w}\n"
                               "b: &s\n"
                               "  c: 1\n"
                               "d: *s\n";
    static const struct {
        const char *path;
        int line;
    } cases[] = {
        {"a", 1},
        {"datasets", 2},
        {"datasets.0.path", 3},
        {"datasets.0.type", 4},
        {"datasets.1.path", 5},
        {"datasets.1.type", 6},
        {"b", 7},
        {"b.c", 8},
        {"d", 9},
    };
    json_t *v, *lines;
    assert_int_equal(yaml_parse(&v, &lines, text, strlen(text), NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(json_integer_value(json_object_get(lines, cases[i].path)), cases[i].line);
    assert_int_equal(json_object_size(lines), sizeof cases / sizeof *cases);
    json_decref(v);
    json_decref(lines);
}

static void test_an_alias_bomb_is_refused(void **state)
{
    (void)state;
    buf b;
    json_t *v;
    hone_err e = {0};
    buf_init(&b, 10000);
    buf_str(&b, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 30; i++)
        buf_printf(&b, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1, i - 1,
                   i - 1, i - 1);
    assert_int_equal(yaml_parse(&v, NULL, b.data, b.len, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "line 7: more than 100000 values");
    buf_free(&b);
}

static void test_depth_has_a_limit(void **state)
{
    (void)state;
    char text[1200];
    json_t *v;
    hone_err e = {0};
    /* The outermost list has depth 0, so that one list more than the limit is allowed. */
    for (size_t depth = JS_MAX_DEPTH + 1; depth <= JS_MAX_DEPTH + 2; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        int rc = yaml_parse(&v, NULL, text, 2 * depth, &e);
        assert_int_equal(rc, depth <= JS_MAX_DEPTH + 1 ? 0 : HONE_EFORMAT);
        json_decref(v);
    }
    assert_string_equal(e.msg, "line 1: nested too deep");
    /* An alias must not get below the limit either: 200 lists inside 200 lists. */
    buf b;
    buf_init(&b, 10000);
    buf_str(&b, "a: &a ");
    for (int i = 0; i < 200; i++)
        buf_char(&b, '[');
    for (int i = 0; i < 200; i++)
        buf_char(&b, ']');
    buf_str(&b, "\nb: ");
    for (int i = 0; i < 200; i++)
        buf_char(&b, '[');
    buf_str(&b, "*a");
    for (int i = 0; i < 200; i++)
        buf_char(&b, ']');
    assert_int_equal(yaml_parse(&v, NULL, b.data, b.len, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "line 2: nested too deep");
    buf_free(&b);
}

static void test_length_has_a_limit(void **state)
{
    (void)state;
    json_t *v;
    hone_err e = {0};
    assert_int_equal(yaml_parse(&v, NULL, "", (16 << 20) + 1, &e), HONE_ELIMIT);
    assert_string_equal(e.msg, "YAML of 16777217 bytes, at most 16777216 are read");
}

static void test_load_names_the_file(void **state)
{
    (void)state;
    hone_err e = {0};
    json_t *v = (json_t *)&e, *lines = v;
    char *dir = aid_dir(), *path = path_join(dir, "x.yaml");
    assert_int_equal(yaml_load(&v, &lines, path, &e), HONE_ENOTFOUND);
    assert_null(v);
    assert_null(lines);
    assert_int_equal(file_write(path, "a: [", 4, &e), 0);
    assert_int_equal(yaml_load(&v, &lines, path, &e), HONE_EFORMAT);
    assert_memory_equal(e.msg, path, strlen(path));
    assert_int_equal(file_write(path, "a: 1", 4, &e), 0);
    assert_int_equal(yaml_load(&v, NULL, path, &e), 0);
    json_decref(v);
    free(path);
    aid_dir_remove(dir);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_an_alias_bomb_is_refused),
        cmocka_unit_test(test_depth_has_a_limit),
        cmocka_unit_test(test_length_has_a_limit),
        cmocka_unit_test(test_load_names_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
