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
} kit;

static kit open_kit(const char *settings)
{
    kit k = {.h = bundled_hooks()};
    k.p = aid_plugin_open(k.h, "clean", settings);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
}

/* tests/golden/clean/gen_clean.py. What is clean stays as it is. */
static void test_cases(void **state)
{
    (void)state;
    char *text = aid_text("tests/golden/clean/cases.jsonl"), *save = NULL;
    kit k = open_kit(NULL);
    hone_err e = {0};
    int n = 0;
    for (char *s = strtok_r(text, "\n", &save); s != NULL; s = strtok_r(NULL, "\n", &save), n++) {
        json_t *row;
        assert_int_equal(js_parse(&row, s, strlen(s), &e), 0);
        const json_t *in = json_array_get(row, 0);
        const char *want = json_string_value(json_array_get(row, 1));
        char *got = bundled_normalize(k.h, json_string_value(in), json_string_length(in), "user");
        if (strcmp(got, want) != 0)
            fail_msg("case %d: '%s' became '%s', must be '%s'", n + 1, json_string_value(in), got,
                     want);
        free(got);
        json_decref(row);
    }
    assert_true(n > 150);
    free(text);
    assert_true(bundled_count(k.h, "clean", "mojibake") > 60);
    close_kit(&k);
}

static void test_switches(void **state)
{
    (void)state;
    static const char in[] = "caf\xc3\x83\xc2\xa9\r\n\xe2\x80\x8b\x07"
                             "e\xcc\x81";
    static const struct {
        const char *settings, *want;
    } rows[] = {
        {NULL, "caf\xc3\xa9\n\xc3\xa9"},
        {"{\"mojibake\": false}", "caf\xc3\x83\xc2\xa9\n\xc3\xa9"},
        {"{\"line_ends\": false}", "caf\xc3\xa9\r\n\xc3\xa9"},
        {"{\"controls\": false}", "caf\xc3\xa9\n\x07\xc3\xa9"},
        {"{\"nfc\": false}", "caf\xc3\xa9\ne\xcc\x81"},
        {"{\"invisible\": \"tag\"}", "caf\xc3\xa9\n\xe2\x80\x8b\xc3\xa9"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kit k = open_kit(rows[i].settings);
        char *got = bundled_normalize(k.h, in, sizeof in - 1, "user");
        assert_string_equal(got, rows[i].want);
        free(got);
        close_kit(&k);
    }
    kit k = open_kit("{\"invisible\": \"tag\"}");
    json_t *out = bundled_pass(k.h, HOOK_DATA_TAG, bundled_record(in, sizeof in - 1, 1));
    assert_int_equal(json_integer_value(json_object_get(json_object_get(out, "tags"), "invisible")),
                     1);
    json_decref(out);
    close_kit(&k);
}

/* Texts that were cleaned before stay; of the real ones few change. */
static void test_real(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"data/datasets/llamafactory/c4_demo.jsonl", "text"},
                                          {"data/datasets/gsm8k/train.jsonl", "answer"},
                                          {"data/datasets/tinyshakespeare/input.txt", NULL}};
    for (size_t r = 0; r < 3; r++) {
        json_t *texts = bundled_texts(rows[r][0], rows[r][1]), *one;
        size_t i;
        if (texts == NULL)
            skip();
        kit k = open_kit(NULL);
        json_array_foreach (texts, i, one) {
            char *a = bundled_normalize(k.h, json_string_value(one), json_string_length(one), "");
            char *b = bundled_normalize(k.h, a, strlen(a), "");
            assert_string_equal(a, b);
            free(a);
            free(b);
        }
        bundled_say("%s: %zu texts, %.0f changed, mojibake %.0f, controls %.0f, invisible %.0f",
                    rows[r][0], i, bundled_count(k.h, "clean", "texts_changed"),
                    bundled_count(k.h, "clean", "mojibake"),
                    bundled_count(k.h, "clean", "controls"),
                    bundled_count(k.h, "clean", "invisible"));
        assert_true(bundled_count(k.h, "clean", "texts_changed") < (double)i / 20 + 1);
        json_decref(texts);
        close_kit(&k);
    }
}

static void test_hostile(void **state)
{
    (void)state;
    /* letters, marks out of order, mojibake of mojibake, leads without an end, CR */
    static const char *const rows[] = {
        "a",  "\xcc\x96\xcc\x81", "\xc3\x83\xc2\x83",         "\xc3\x83",
        "\r", "\xc3\xb0\xc2\x9f", "\xe1\x84\x80\xe1\x85\xa1", "\xe2\x80\x8d"};
    enum { BYTES = 10 * 1000 * 1000 };
    kit k = open_kit(NULL);
    char *text = mem_alloc(BYTES + 1);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        size_t n = strlen(rows[r]), len = BYTES / n * n;
        for (size_t i = 0; i < len; i++)
            text[i] = rows[r][i % n];
        clock_t start = clock();
        free(bundled_normalize(k.h, text, len, ""));
        bundled_took(rows[r], start, 15);
    }
    free(text);
    close_kit(&k);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_switches),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
