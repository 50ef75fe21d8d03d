#include "core/base/file.h"
#include "core/base/js.h"
#include "core/data/source.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>

/* What a file gives, a record a line: "<line> <json>" or "<line> ! <why>", then the error if there
 * is one. */
static void check(const char *name, const char *text, source_unit unit, const char *want)
{
    char *dir = aid_dir(), *path = path_join(dir, name), got[4096] = "";
    hone_err e = {0};
    source *s;
    source_record r = {.got = SOURCE_RECORD};
    assert_int_equal(file_write(path, text, strlen(text), &e), 0);
    int rc = source_open(&s, path, SOURCE_BY_NAME, unit, &e);
    while (rc == 0 && r.got != SOURCE_END) {
        size_t n = strlen(got);
        rc = source_next(s, &r, &e);
        if (rc == 0 && r.got == SOURCE_RECORD) {
            char *json = js_text(r.value, false);
            snprintf(got + n, sizeof got - n, "%d %s\n", (int)r.line, json);
            free(json);
        } else if (rc == 0 && r.got == SOURCE_BAD) {
            snprintf(got + n, sizeof got - n, "%d ! %s\n", (int)r.line, r.why.msg);
        }
        json_decref(r.value);
    }
    if (rc != 0) {
        const char *msg = strstr(e.msg, name);
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s", msg != NULL ? msg : e.msg);
    }
    assert_string_equal(got, want);
    source_close(s);
    free(path);
    aid_dir_remove(dir);
}

static void test_json_lines(void **state)
{
    (void)state;
    check("a.jsonl",
          "\xEF\xBB\xBF{\"a\":1}\r\n\n  \n{\"a\":2}\n[3]\n{\"a\":\n{\"b\":1,\"b\":2}\n{\"a\":5}",
          SOURCE_LINE,
          "1 {\"a\":1}\n"
          "4 {\"a\":2}\n"
          "5 ! the record is not a JSON object\n"
          "6 ! JSON: line 1, column 5: unexpected token near end of file\n"
          "7 ! JSON: line 1, column 10: duplicate object key near '\"b\"'\n"
          "8 {\"a\":5}\n");
    check("a.json", "{\"a\":1}\n{\"a\":2}\n", SOURCE_LINE, "1 {\"a\":1}\n2 {\"a\":2}\n");
}

static void test_json_array(void **state)
{
    (void)state;
    check("a.json", "\n[\n {\"a\":\n  \"}],{\\\"\"}, {\"a\":[1,{}]},\n\n 7,\n {\"b\":2}\n]\n",
          SOURCE_LINE,
          "3 {\"a\":\"}],{\\\"\"}\n"
          "4 {\"a\":[1,{}]}\n"
          "6 ! the record is not a JSON object\n"
          "7 {\"b\":2}\n");
    check("b.json", "[]", SOURCE_LINE, "");
    check("c.json", "[{\"a\":1}", SOURCE_LINE, "c.json:1: the JSON array is not closed");
    check("d.json", "[{\"a\":1}]\nx", SOURCE_LINE,
          "1 {\"a\":1}\nd.json:2: there is text after the JSON array");
    check("f.json", "[{\"a\":1}}, {}]", SOURCE_LINE,
          "1 {\"a\":1}\nf.json:1: a ',' or ']' belongs here");
    check("e.json", "[{\"a\":1},\n{\"a\"", SOURCE_LINE,
          "1 {\"a\":1}\ne.json:2: the JSON array is not closed");
}

static void test_text(void **state)
{
    (void)state;
    const char *text = "one\r\ntwo\n\n \nthree\nfour";
    check("a.txt", text, SOURCE_LINE,
          "1 {\"text\":\"one\"}\n2 {\"text\":\"two\"}\n5 {\"text\":\"three\"}\n6 "
          "{\"text\":\"four\"}\n");
    check("a.txt", text, SOURCE_PARAGRAPH,
          "1 {\"text\":\"one\\r\\ntwo\"}\n5 {\"text\":\"three\\nfour\"}\n");
    check("a.txt", text, SOURCE_DOCUMENT, "1 {\"text\":\"one\\r\\ntwo\\n\\n \\nthree\\nfour\"}\n");
    check("b.txt", "ok\nbad \xFF\nok\n", SOURCE_LINE,
          "1 {\"text\":\"ok\"}\n2 ! not UTF-8 from byte 4 on\n3 {\"text\":\"ok\"}\n");
}

static void test_other_files_are_refused_by_name(void **state)
{
    (void)state;
    check("a.parquet", "x", SOURCE_LINE,
          "a.parquet: '.parquet' files are not read; write it as JSON Lines");
    check("a.jsonl.gz", "x", SOURCE_LINE, "a.jsonl.gz: '.gz' files are not read; unpack it first");
    check("a.data", "x", SOURCE_LINE,
          "a.data: what is in it? .jsonl, .json and .txt are read by their names; set 'ds_type' to "
          "json or text for others");
    check("a.jsonl", "", SOURCE_LINE, "a.jsonl: the file is empty");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_lines),
        cmocka_unit_test(test_json_array),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_other_files_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
