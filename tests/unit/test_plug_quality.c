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

/* Turns as "role" or "role: content", separated by '|'; new reference. */
static json_t *turns(const char *text)
{
    json_t *list = json_array();
    char *copy = mem_strdup(text), *save = NULL;
    for (char *s = strtok_r(copy, "|", &save); s != NULL; s = strtok_r(NULL, "|", &save)) {
        char *colon = strstr(s, ": ");
        if (colon != NULL)
            *colon = '\0';
        json_array_append_new(list, json_pack("{s:s, s:s}", "role", s, "content",
                                              colon != NULL ? colon + 2 : "Some words."));
    }
    free(copy);
    return json_pack("{s:o}", "messages", list);
}

/* A figure of tags.quality for this record (takes it). */
static double figure(const kit *k, json_t *record, const char *name)
{
    json_t *data =
        json_pack("{s:o, s:s, s:i, s:{}}", "record", record, "source", "x", "line", 1, "tags");
    data = bundled_pass(k->h, HOOK_DATA_TAG, data);
    const json_t *x =
        json_object_get(json_object_get(json_object_get(data, "tags"), "quality"), name);
    if (!json_is_number(x))
        fail_msg("there is no %s", name);
    double v = json_number_value(x);
    json_decref(data);
    return v;
}

#define TWENTY "one two three four five six seven eight nine ten one two three four five six seven "
#define ENGLISH "What is the name of the river that runs to the sea, and is it long?"
#define GERMAN "Der Fluss ist nicht lang, und die Quelle ist mit dem Auto zu erreichen."
#define FRENCH                                                                                     \
    "Le fleuve est long, et les gens de la ville sont dans une vall\xc3\xa9"                       \
    "e pour vous."
#define JAPANESE "\xe3\x81\x93\xe3\x81\xae\xe5\xb7\x9d\xe3\x81\xaf\xe9\x95\xb7\xe3\x81\x84"

static void test_conversations(void **state)
{
    (void)state;
    static const struct {
        const char *name, *turns;
        double want;
    } rows[] = {
        {"role_faults", "user|assistant", 0},
        {"role_faults", "system|user|assistant|user|assistant", 0},
        {"role_faults", "developer|user|assistant|tool|tool|assistant", 0},
        {"role_faults", "user|user|assistant", 1},
        {"role_faults", "user|assistant|assistant", 1},
        {"role_faults", "user|assistant|user", 1},
        {"role_faults", "assistant|user|assistant", 1},
        {"role_faults", "user|system|assistant", 2},
        {"role_faults", "user|narrator|assistant", 2},
        {"role_faults", "tool", 2},
        {"role_faults", "", 1},
        {"cut_answers", "user|assistant: " TWENTY "eight nine. And this is where it ends", 1},
        {"cut_answers", "user|assistant: " TWENTY "eight nine. And this is where it ends,", 1},
        {"cut_answers", "user|assistant: " TWENTY "eight nine. And this is where it ends.", 0},
        {"cut_answers", "user|assistant: " TWENTY "eight nine, which makes a sum of 72", 0},
        {"cut_answers", "user|assistant: " TWENTY "\n- the last item of a list of many items", 0},
        {"cut_answers", "user|assistant: " TWENTY "\n12. the last item of a list of many", 0},
        {"cut_answers", "user|assistant: " TWENTY "\nYours truly", 0},
        {"cut_answers", "user|assistant: A short answer without a full stop", 0},
        {"cut_answers", "user|assistant: ```c\nint x;", 1},
        {"cut_answers", "user|assistant: ```c\nint x;\n```", 0},
        {"other_language", "user: " ENGLISH "|assistant: " GERMAN, 1},
        {"other_language", "user: " GERMAN "|assistant: " FRENCH, 1},
        {"other_language", "user: " FRENCH "|assistant: " FRENCH, 0},
        {"other_language", "user: " ENGLISH "|assistant: " JAPANESE, 1},
        {"other_language", "user: " JAPANESE "|assistant: " JAPANESE, 0},
        {"other_language", "user: " ENGLISH "|assistant: 42 km", 0}, /* nobody can tell */
        {"other_language", "user: Wie lang?|assistant: " ENGLISH, 0},
        {"longest_answer", "user|assistant: a b|user|assistant: a b c d|user: a b c d e", 4},
    };
    kit k = open_kit("{}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double x = figure(&k, turns(rows[i].turns), rows[i].name);
        if (x != rows[i].want)
            fail_msg("%s of '%s' is %g, must be %g", rows[i].name, rows[i].turns, x, rows[i].want);
    }
    /* Who calls tools need not speak. */
    json_t *r = turns("user|assistant: |tool|assistant");
    json_object_set_new(json_array_get(json_object_get(r, "messages"), 1), "tool_calls",
                        json_pack("[{s:s}]", "type", "function"));
    assert_true(figure(&k, r, "empty_answers") == 0);
    assert_true(figure(&k, turns("user|assistant: "), "empty_answers") == 1);
    assert_true(figure(&k, json_pack("{s:s, s:s}", "prompt", ENGLISH, "completion", GERMAN),
                       "other_language") == 1);
    close_kit(&k);
}

/* Real answers: none of GSM8K's goes; of texts that are cut within a word most do. */
static void test_real_answers(void **state)
{
    (void)state;
    json_t *asked = bundled_texts("data/datasets/gsm8k/train.jsonl", "question"),
           *answered = bundled_texts("data/datasets/gsm8k/train.jsonl", "answer"),
           *texts = bundled_texts("data/datasets/llamafactory/c4_demo.jsonl", "text"), *one;
    size_t i, cut = 0, whole = 0;
    if (asked == NULL || texts == NULL)
        skip();
    kit k = open_kit("{\"filter\": true}");
    for (i = 0; i < 1000; i++) {
        hone_err e;
        char *text = NULL;
        json_t *r = json_pack("{s:O, s:O}", "prompt", json_array_get(asked, i), "completion",
                              json_array_get(answered, i));
        text = js_text(r, false);
        assert_string_equal(judge(&k, text, &e), "");
        free(text);
        json_decref(r);
    }
    json_array_foreach (texts, i, one) {
        const char *s = json_string_value(one);
        size_t n = json_string_length(one) * 3 / 5;
        while (n > 0 && !((s[n - 1] | 0x20) >= 'a' && (s[n - 1] | 0x20) <= 'z'))
            n--;
        cut += figure(&k, json_pack("{s:s, s:s%}", "prompt", "Tell me.", "completion", s, n),
                      "cut_answers") > 0;
        whole += figure(&k, json_pack("{s:s, s:O}", "prompt", "Tell me.", "completion", one),
                        "cut_answers") > 0;
    }
    bundled_say("%zu texts: %zu look cut, %zu when they are", i, whole, cut);
    assert_true(whole * 20 < i && cut * 10 > i * 8);
    json_decref(asked);
    json_decref(answered);
    json_decref(texts);
    close_kit(&k);
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
        cmocka_unit_test(test_definitions),   cmocka_unit_test(test_recipes),
        cmocka_unit_test(test_conversations), cmocka_unit_test(test_real_answers),
        cmocka_unit_test(test_without_tags),  cmocka_unit_test(test_real),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
