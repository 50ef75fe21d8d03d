#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct kit {
    hooks *h;
    loaded *p;
} kit;

static kit open_kit(const char *settings)
{
    kit k = {.h = bundled_hooks()};
    k.p = aid_plugin_open(k.h, "quality", settings);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
}

/* tests/golden/quality/gen_quality.py: the same definitions in another hand. */
static void test_definitions(void **state)
{
    (void)state;
    char *text = aid_text("tests/golden/quality/documents.jsonl"), *save = NULL;
    kit k = open_kit("{\"recipe\": \"web\"}");
    hone_err e = {0};
    int n = 0;
    for (char *s = strtok_r(text, "\n", &save); s != NULL; s = strtok_r(NULL, "\n", &save), n++) {
        json_t *row, *want;
        const char *key;
        assert_int_equal(js_parse(&row, s, strlen(s), &e), 0);
        const json_t *in = json_object_get(row, "text");
        json_t *out =
            bundled_pass(k.h, HOOK_DATA_TAG,
                         bundled_record(json_string_value(in), json_string_length(in), n + 1));
        const json_t *got = json_object_get(json_object_get(out, "tags"), "quality");
        json_object_foreach (json_object_get(row, "expected"), key, want) {
            const json_t *x = json_object_get(got, key);
            if (x == NULL || fabs(json_number_value(x) - json_number_value(want)) > 2e-6)
                fail_msg("document %d: %s is %g, must be %g", n + 1, key, json_number_value(x),
                         json_number_value(want));
        }
        json_decref(out);
        json_decref(row);
    }
    assert_int_equal(n, 32);
    free(text);
    close_kit(&k);
}

/* Through data.tag and data.filter, as a record goes; "" where it stays. */
static const char *judge(const kit *k, const char *record, hone_err *e)
{
    json_t *r;
    *e = (hone_err){0};
    assert_int_equal(js_parse(&r, record, strlen(record), e), 0);
    json_t *data =
        json_pack("{s:o, s:s, s:i, s:{}}", "record", r, "source", "x", "line", 1, "tags");
    data = bundled_pass(k->h, HOOK_DATA_TAG, data);
    int rc = hook_emit(k->h, HOOK_DATA_FILTER, &data, e);
    json_decref(data);
    assert_true(rc == 0 || rc == HONE_EVETO);
    return rc == 0 ? "" : strstr(e->msg, "quality: ") + 9;
}

static void test_recipes(void **state)
{
    (void)state;
    static const struct {
        const char *settings, *record, *want;
    } rows[] = {
        {"{\"recipe\": \"web\"}", "{\"text\": \"short\"}", ""},
        {"{\"recipe\": \"web\", \"filter\": true}", "{\"text\": \"short\"}",
         "words is 1, at least 50 is wanted"},
        {"{\"recipe\": \"docs\", \"filter\": true}", "{\"text\": \"short\"}",
         "words is 1, at least 20 is wanted"},
        {"{\"recipe\": \"docs\", \"filter\": true, \"limits\": {\"words\": [1, null], "
         "\"top_2gram\": [0, null]}}",
         "{\"text\": \"short and sweet\"}", ""},
        {"{\"filter\": true}", "{\"prompt\": \"Why?\", \"completion\": \"So.\"}", ""},
        {"{\"filter\": true}", "{\"prompt\": \"Why?\", \"completion\": \" \"}",
         "words is 0, at least 1 is wanted"},
        {"{\"filter\": true}", "{\"prompt\": \"Why is it\", \"completion\": \" Why is it\\n\"}",
         "echoes is 1, at most 0 is allowed"},
        {"{\"filter\": true}",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
         "\"content\": \"As an AI language model, I have no name.\"}]}",
         "refusals is 1, at most 0 is allowed"},
        {"{\"filter\": true}",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
         "\"content\": \"{\\\"a\\\": 1}\"}]}",
         ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e;
        kit k = open_kit(rows[i].settings);
        assert_string_equal(judge(&k, rows[i].record, &e), rows[i].want);
        close_kit(&k);
    }
}

static void test_without_tags(void **state)
{
    (void)state;
    hone_err e = {0};
    int rc;
    kit k = open_kit("{\"filter\": true}");
    free(aid_emit(k.h, HOOK_DATA_FILTER, "{\"record\": {\"text\": \"a\"}, \"tags\": {}}", &rc, &e));
    assert_int_equal(rc, HONE_EINTERNAL);
    assert_non_null(strstr(e.msg, "the record has no tag quality"));
    close_kit(&k);
}

/* How much of the real sets each recipe would drop. */
static void test_real(void **state)
{
    (void)state;
    static const struct {
        const char *file, *field, *recipe;
        double least, most; /* share that stays */
    } rows[] = {{"llamafactory/c4_demo.jsonl", "text", "docs", 0.95, 1},
                {"llamafactory/c4_demo.jsonl", "text", "web", 0.4, 0.95},
                {"llamafactory/wiki_demo.txt", NULL, "docs", 0.5, 1}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        char *name = mem_printf("data/datasets/%s", rows[r].file);
        json_t *texts = bundled_texts(name, rows[r].field), *one;
        free(name);
        if (texts == NULL)
            skip();
        char *s = mem_printf("{\"recipe\": \"%s\", \"filter\": true}", rows[r].recipe);
        kit k = open_kit(s);
        size_t i, kept = 0;
        json_array_foreach (texts, i, one) {
            hone_err e = {0};
            json_t *data = bundled_pass(
                k.h, HOOK_DATA_TAG,
                bundled_record(json_string_value(one), json_string_length(one), (int64_t)i));
            kept += hook_emit(k.h, HOOK_DATA_FILTER, &data, &e) == 0;
            json_decref(data);
        }
        double share = (double)kept / (double)i;
        bundled_say("%s, recipe %s: %.1f %% stay", rows[r].file, rows[r].recipe, 100 * share);
        assert_true(share >= rows[r].least && share <= rows[r].most);
        json_decref(texts);
        free(s);
        close_kit(&k);
    }
}

static void test_hostile(void **state)
{
    (void)state;
    static const char *const rows[] = {"a ", "x\n", "\n", "[", "{", ".", "#", "lorem ips"};
    enum { BYTES = 10 * 1000 * 1000 };
    kit k = open_kit("{\"recipe\": \"web\"}");
    size_t len;
    char *text = bundled_long_line(&len);
    clock_t start = clock();
    json_decref(bundled_pass(k.h, HOOK_DATA_TAG, bundled_record(text, len, 1)));
    bundled_took("one line", start, 60);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        size_t n = strlen(rows[r]);
        for (size_t i = 0; i < BYTES / 5; i++)
            text[i] = rows[r][i % n];
        start = clock();
        json_decref(bundled_pass(k.h, HOOK_DATA_TAG, bundled_record(text, BYTES / 5, 1)));
        bundled_took(rows[r], start, 30);
    }
    free(text);
    close_kit(&k);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definitions),  cmocka_unit_test(test_recipes),
        cmocka_unit_test(test_without_tags), cmocka_unit_test(test_real),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
