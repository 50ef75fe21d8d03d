#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_plugin.h"

#include <stdlib.h>
#include <string.h>

typedef struct kit {
    hooks *h;
    loaded *p;
    char *dir;
} kit;

/* With one set, "quiz", of these lines. */
static kit open_kit(const char *lines, const char *more)
{
    kit k = {.h = bundled_hooks(), .dir = aid_dir()};
    hone_err e = {0};
    char *path = path_join(k.dir, "quiz.jsonl");
    char *s =
        mem_printf("{\"folder\": \"%s\", \"sets\": {\"quiz\": \"quiz.jsonl\"}%s}", k.dir, more);
    assert_int_equal(file_write(path, lines, strlen(lines), &e), 0);
    k.p = aid_plugin_open(k.h, "decontam", s);
    free(s);
    free(path);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
    aid_dir_remove(k->dir);
}

static const char *say(const kit *k, const char *text)
{
    static hone_err e;
    return bundled_filter(k->h, text, strlen(text), 1, &e) == 0 ? "" : e.msg;
}

static const char quiz[] =
    "{\"question\": \"A pump moves three litres a minute. How many litres does it move in an hour "
    "and a half?\", \"answer\": \"270\", \"id\": 7}\n"
    "{\"question\": \"Which of these rivers flows through four capitals?\", \"answer\": "
    "\"Danube\"}\n"
    "\n"
    "{\"question\": \"Who wrote Faust?\", \"answer\": \"Goethe\"}\n"
    "\"Wie viele Br\xc3\xbc"
    "cken hat Hamburg?\"\n"
    "Just a line of text\n";

static void test_items(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        /* thirteen words, whatever the case and the marks between them */
        {"x y A PUMP moves, three litres a minute - how many litres does it (move)?",
         "shares 1 n-grams with quiz (line 1)"},
        {"a pump moves three litres a minute. How many litres does it", ""}, /* twelve */
        {"Which of these rivers flows through four capitals? I know!",
         "shares 1 n-grams with quiz (line 2)"}, /* eight: all the question has */
        {"of these rivers flows through four capitals", ""},
        {"who wrote faust goethe", "shares 1 n-grams with quiz (line 4)"}, /* the item alone */
        {"who wrote faust", ""},
        {"and who wrote faust goethe", ""},
        {"wie viele BR\xc3\x9c"
         "CKEN hat hamburg",
         "shares 1 n-grams with quiz (line 5)"},
        {"just a line, of text!", "shares 1 n-grams with quiz (line 6)"},
        {"", ""},
    };
    kit k = open_kit(quiz, "");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(say(&k, rows[i][0]), rows[i][1]);
    assert_true(bundled_count(k.h, "decontam", "hits_quiz") == 5);
    close_kit(&k);
    k = open_kit(quiz, ", \"fields\": [\"answer\"]");
    assert_string_equal(say(&k, rows[0][0]), "");
    assert_string_equal(say(&k, "danube"), "shares 1 n-grams with quiz (line 2)");
    close_kit(&k);
    k = open_kit(quiz, ", \"min_hits\": 2");
    assert_string_equal(say(&k, rows[0][0]), "");
    close_kit(&k);
}

/* What stands in many items says nothing about one. */
static void test_templates(void **state)
{
    (void)state;
    char *text = mem_alloc(65536), *at = text;
    static const char head[] =
        "read the text below with care and then answer the question that follows";
    for (int i = 0; i < 11; i++)
        at += sprintf(at,
                      "{\"q\": \"%s: what is thing%d good for on sunday%d when rain%d falls?\"}\n",
                      head, i, i, i);
    kit k = open_kit(text, "");
    assert_string_equal(say(&k, head), "");
    close_kit(&k);
    k = open_kit(text, ", \"max_items\": 11");
    assert_string_equal(say(&k, head), "shares 1 n-grams with quiz (line 1)");
    close_kit(&k);
    free(text);
}

/* The set itself, read to be judged on, stays; feedback is looked at too; a tag in place of a veto.
 */
static void test_points(void **state)
{
    (void)state;
    kit k = open_kit(quiz, "");
    hone_err e = {0};
    int rc;
    char *s = mem_printf("{\"record\": {\"text\": \"who wrote faust goethe\"}, \"source\": "
                         "\"%s/./quiz.jsonl\", \"line\": 1, \"tags\": {}}",
                         k.dir);
    free(aid_emit(k.h, HOOK_DATA_FILTER, s, &rc, &e));
    assert_int_equal(rc, 0);
    free(s);
    free(aid_emit(
        k.h, HOOK_FEEDBACK_TO_EXAMPLE,
        "{\"feedback\": {}, \"example\": {\"messages\": [{\"role\": \"user\", \"content\": "
        "\"Who wrote Faust?\"}, {\"role\": \"assistant\", \"content\": \"Goethe\"}]}}",
        &rc, &e));
    assert_int_equal(rc, HONE_EVETO);
    close_kit(&k);
    k = open_kit(quiz, ", \"action\": \"tag\"");
    json_t *out =
        bundled_pass(k.h, HOOK_DATA_TAG, bundled_record("Who wrote Faust? Goethe", 23, 1));
    char *text = js_text(json_object_get(out, "tags"), true);
    assert_string_equal(text, "{\"contaminated\":{\"hits\":1,\"line\":4,\"set\":\"quiz\"}}");
    free(text);
    json_decref(out);
    close_kit(&k);
}

static void test_a_set_that_is_not_there(void **state)
{
    (void)state;
    hone_err e = {0};
    trust_file f;
    loaded *p;
    json_t *given;
    hooks *h = bundled_hooks();
    char *dir = aid_dir(), *path = aid_plugin_copy(dir, "decontam");
    static const char *const rows[][2] = {
        {"{}", "sets must be an object, 1 to 32 of {name: path}"},
        {"{\"sets\": {\"q\": \"/none/q\"}}", "set q: /none/q: No such file or directory"}};
    assert_int_equal(trust_open(&f, NULL, path, &e), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(js_parse(&given, rows[i][0], strlen(rows[i][0]), &e), 0);
        assert_int_equal(
            loader_open(&p, &(loader_args){.file = &f, .settings = given, .hooks = h}, &e),
            HONE_EINVAL);
        assert_non_null(strstr(e.msg, rows[i][1]));
        json_decref(given);
    }
    trust_close(&f);
    free(path);
    aid_dir_remove(dir);
    hook_free(h);
}

/* 500 questions of GSM8K are the set: those and no text of C4 are found. */
static void test_real(void **state)
{
    (void)state;
    enum { SET = 500 };
    json_t *q = bundled_texts("data/datasets/gsm8k/train.jsonl", "question"), *one;
    json_t *c4 = bundled_texts("data/datasets/llamafactory/c4_demo.jsonl", "text");
    if (q == NULL || c4 == NULL)
        skip();
    size_t i, len = 0, found = 0, others = 0, wrong = 0;
    char *lines = mem_alloc(4 << 20);
    for (i = 0; i < SET; i++) {
        char *s = json_dumps(json_array_get(q, i), JSON_ENCODE_ANY);
        len += (size_t)sprintf(lines + len, "%s\n", s);
        free(s);
    }
    kit k = open_kit(lines, "");
    hone_err e;
    json_array_foreach (q, i, one) {
        int hit = bundled_filter(k.h, json_string_value(one), json_string_length(one), 1, &e) != 0;
        *(i < SET ? &found : &others) += (size_t)hit;
    }
    json_array_foreach (c4, i, one)
        wrong += bundled_filter(k.h, json_string_value(one), json_string_length(one), 1, &e) != 0;
    bundled_say("gsm8k: %zu of %d found, %zu other questions share 13 words, %zu of C4", found, SET,
                others, wrong);
    assert_int_equal(found, SET);
    assert_int_equal(wrong, 0);
    assert_true(others < 100);
    free(lines);
    json_decref(q);
    json_decref(c4);
    close_kit(&k);
}

static void test_hostile(void **state)
{
    (void)state;
    size_t len;
    hone_err e;
    char *line = bundled_long_line(&len);
    kit k = open_kit(quiz, "");
    clock_t start = clock();
    assert_int_equal(bundled_filter(k.h, line, len, 1, &e), 0);
    for (size_t i = 0; i < len; i++)
        line[i] = i % 2 == 0 ? 'a' : '\n';
    assert_int_equal(bundled_filter(k.h, line, len, 1, &e), 0);
    bundled_took("one line, five million equal lines", start, 20);
    close_kit(&k);
    start = clock();
    line[len / 5] = '\0';
    k = open_kit(line, ""); /* a set of a million equal items */
    assert_int_equal(bundled_filter(k.h, "b", 1, 1, &e), 0);
    bundled_took("a set of a million items", start, 30);
    close_kit(&k);
    free(line);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items),  cmocka_unit_test(test_templates),
        cmocka_unit_test(test_points), cmocka_unit_test(test_a_set_that_is_not_there),
        cmocka_unit_test(test_real),   cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
