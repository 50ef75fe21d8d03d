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
    k.p = aid_plugin_open(k.h, "textmetrics", settings);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
}

static json_t *score(const kit *k, json_t *prediction, json_t *reference, int line)
{
    return bundled_pass(k->h, HOOK_EVAL_METRIC,
                        json_pack("{s:o, s:o, s:i, s:{}}", "prediction", prediction, "reference",
                                  reference, "line", line, "scores"));
}

static json_t *aggregate(const kit *k, size_t n)
{
    return bundled_pass(k->h, HOOK_EVAL_AGGREGATE,
                        json_pack("{s:I, s:{}, s:{}}", "n", (json_int_t)n, "metrics", "examples"));
}

static void near(const char *what, size_t row, const json_t *got, const json_t *want)
{
    if (got == NULL || fabs(json_number_value(got) - json_number_value(want)) > 1e-6)
        fail_msg("row %zu: %s is %.9g, must be %.9g", row, what, json_number_value(got),
                 json_number_value(want));
}

static const json_t *corpus(const json_t *report, const char *name)
{
    return json_object_get(json_object_get(json_object_get(report, "metrics"), name), "value");
}

/* As sacrebleu and rouge_score: tests/golden/textmetrics/gen_textmetrics.py. */
static void test_references(void **state)
{
    (void)state;
    static const char *const names[] = {"sentence_bleu", "sentence_chrf", "rouge1",
                                        "rouge2",        "rougeL",        "rougeLsum"};
    hone_err e = {0};
    json_t *cases, *row;
    size_t i;
    kit k = open_kit(NULL);
    assert_int_equal(js_load(&cases, "tests/golden/textmetrics/cases.json", &e), 0);
    for (int round = 0; round < 2; round++) { /* a second run begins anew */
        json_array_foreach (json_object_get(cases, "rows"), i, row) {
            json_t *out = score(&k, json_incref(json_object_get(row, "prediction")),
                                json_incref(json_object_get(row, "reference")), (int)i + 1);
            for (size_t m = 0; m < sizeof names / sizeof *names; m++)
                near(names[m], i, json_object_get(json_object_get(out, "scores"), names[m]),
                     json_object_get(row, names[m]));
            json_decref(out);
        }
        if (round == 0)
            continue; /* without its end: it was given up */
        json_t *report = aggregate(&k, i);
        near("bleu", i, corpus(report, "bleu"), json_object_get(cases, "bleu"));
        near("chrf", i, corpus(report, "chrf"), json_object_get(cases, "chrf"));
        json_decref(report);
    }
    json_decref(score(&k, json_string("no match here at all"), json_string("something else"), 1));
    json_decref(score(&k, json_string("none"), json_string("entirely"), 2));
    json_t *report = aggregate(&k, 2);
    near("bleu", 0, corpus(report, "bleu"), json_object_get(cases, "disjoint_bleu"));
    near("chrf", 0, corpus(report, "chrf"), json_object_get(cases, "disjoint_chrf"));
    json_decref(report);
    json_decref(cases);
    close_kit(&k);
}

static void test_nothing_was_asked(void **state)
{
    (void)state;
    kit k = open_kit("{\"rouge\": false}");
    json_t *out = score(&k, json_null(), json_string("a"), 1), *report = aggregate(&k, 1);
    assert_int_equal(json_object_size(json_object_get(out, "scores")), 0);
    assert_int_equal(json_object_size(json_object_get(report, "metrics")), 0);
    json_decref(out);
    json_decref(report);
    out = score(&k, json_string("a"), json_string("a"), 1);
    assert_int_equal(json_object_size(json_object_get(out, "scores")), 2);
    json_decref(out);
    close_kit(&k);
}

/* Answers of GSM8K against the next: far from equal, and each against itself: equal. */
static void test_real(void **state)
{
    (void)state;
    json_t *texts = bundled_texts("data/datasets/gsm8k/train.jsonl", "answer");
    if (texts == NULL)
        skip();
    kit k = open_kit(NULL);
    for (size_t shift = 0; shift < 2; shift++) {
        for (size_t i = 0; i < 500; i++)
            json_decref(score(&k, json_incref(json_array_get(texts, i + shift)),
                              json_incref(json_array_get(texts, i)), (int)i + 1));
        json_t *report = aggregate(&k, 500);
        double b = json_number_value(corpus(report, "bleu"));
        double c = json_number_value(corpus(report, "chrf"));
        bundled_say("gsm8k, answers against %s: bleu %.2f chrf %.2f",
                    shift == 0 ? "themselves" : "the next", b, c);
        assert_true(shift == 0 ? b > 99.99 && c > 99.99 : b < 20 && c < 40);
        json_decref(report);
    }
    json_decref(texts);
    close_kit(&k);
}

/* What is linear takes half a megabyte; what is quadratic says that it does not. */
static void test_hostile(void **state)
{
    (void)state;
    hone_err e = {0};
    size_t len;
    char *line = bundled_long_line(&len);
    kit k = open_kit("{\"rouge\": false}");
    clock_t start = clock();
    json_decref(score(&k, json_stringn(line, len / 20), json_stringn(line + 1, len / 20), 1));
    bundled_took("half a megabyte", start, 30);
    close_kit(&k);
    k = open_kit(NULL);
    json_t *data = json_pack("{s:o, s:o, s:i, s:{}}", "prediction", json_stringn(line, len / 5),
                             "reference", json_stringn(line, len / 5), "line", 1, "scores");
    assert_int_equal(hook_emit(k.h, HOOK_EVAL_METRIC, &data, &e), HONE_EINTERNAL);
    assert_non_null(strstr(e.msg, "are too long to compare"));
    json_decref(data);
    free(line);
    close_kit(&k);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_nothing_was_asked),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
