#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/eval/eval.h"
#include "serve/engine/served.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_plugin.h"
#include "tests/unit/aid_tiny.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct kit {
    char *dir;
    hooks *h;
    loaded *p;
} kit;

/* more: further settings, from a comma on. */
static kit open_kit(const char *lines, const char *more)
{
    kit k = {.dir = aid_dir(), .h = bundled_hooks()};
    char *file = path_join(k.dir, "prompts.jsonl");
    assert_int_equal(file_write(file, lines, strlen(lines), NULL), 0);
    char *s = mem_printf("{\"file\": \"%s\"%s}", file, more);
    k.p = aid_plugin_open(k.h, "counterfactual", s);
    free(s);
    free(file);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
    aid_dir_remove(k->dir);
}

static json_t *question(void)
{
    return json_pack("{s:s, s:[], s:{}}", "phase", "items", "items", "scores");
}

static const json_t *text_of(const json_t *data, size_t item, size_t text)
{
    const json_t *it = json_array_get(json_object_get(data, "items"), item);
    return json_array_get(json_object_get(it, "texts"), text);
}

static void test_swaps(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want; /* NULL: left out */
    } rows[] = {
        {"He said she won.", "She said he won."},
        {"THE BOYS' father's car, the gentleman", "THE GIRLS' mother's car, the lady"},
        {"The theme of women: men.", "The theme of men: women."},
        {"A prince\xC3\xA9, a Prince", "A prince\xC3\xA9, a Princess"},
        {"the man-made hill and a woman", NULL},
        {"he likes her book", NULL},
        {"nobody is in here", NULL},
        {"Mr Smith is a man", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *line = json_pack("{s:s}", "text", rows[i].text);
        char *text = json_dumps(line, 0);
        kit k = open_kit(text, "");
        json_t *data = bundled_pass(k.h, HOOK_BIAS_PROBE, question());
        const json_t *it = json_array_get(json_object_get(data, "items"), 0);
        assert_int_equal(it != NULL, rows[i].want != NULL);
        if (it != NULL) {
            const json_t *was = json_object_get(text_of(data, 0, 0), "text");
            const json_t *is = json_object_get(text_of(data, 0, 1), "text");
            assert_string_equal(json_string_value(was), rows[i].text);
            assert_string_equal(json_string_value(is), rows[i].want);
            assert_int_equal(json_array_size(json_object_get(it, "prompts")), 0);
        }
        json_decref(data);
        close_kit(&k);
        free(text);
        json_decref(line);
    }
}

static void test_terms_of_ones_own(void **state)
{
    (void)state;
    kit k = open_kit("{\"prompt\": \"May Anna, his boss, go?\", \"completion\": \" Paul\"}\r\n\n",
                     ", \"builtin\": false, \"terms\": [[\"anna\", \"paul\"], [\"his\", \"its\"]]");
    json_t *data = bundled_pass(k.h, HOOK_BIAS_PROBE, question());
    const json_t *t = text_of(data, 0, 1), *it = json_array_get(json_object_get(data, "items"), 0);
    assert_string_equal(json_string_value(json_object_get(t, "context")),
                        "May Paul, its boss, go?");
    assert_string_equal(json_string_value(json_object_get(t, "text")), " Anna");
    char *prompts = json_dumps(json_object_get(it, "prompts"), JSON_COMPACT);
    assert_string_equal(prompts, "[\"May Anna, his boss, go?\",\"May Paul, its boss, go?\"]");
    free(prompts);
    json_decref(data);
    close_kit(&k);
}

static void test_figures_by_hand(void **state)
{
    (void)state;
    static const double ll[4][2] = {{-1, -2}, {-3, -1}, {-4, -4}, {-1, -6}};
    static const char *const answers[4][2] = {{"He may.", "She may."},
                                              {"Ask his father", "Ask her mother"},
                                              {"yes", "no"},
                                              {"hers", "theirs"}};
    kit k = open_kit("{\"prompt\": \"he\", \"group\": \"a\"}\n{\"prompt\": \"she\", \"group\": "
                     "\"a\"}\n{\"prompt\": \"men\", \"group\": \"b\"}\n{\"prompt\": \"boy\", "
                     "\"group\": \"a\"}\n{\"prompt\": \"her\"}\n{\"prompt\": \"none\"}\n",
                     ", \"min_pairs\": 3");
    json_t *data = bundled_pass(k.h, HOOK_BIAS_PROBE, question());
    json_t *items = json_object_get(data, "items");
    assert_int_equal(json_array_size(items), 4);
    assert_true(bundled_count(k.h, "counterfactual", "unsure") == 1);
    assert_true(bundled_count(k.h, "counterfactual", "no_term") == 1);
    for (size_t i = 0; i < 4; i++) {
        json_t *it = json_array_get(items, i);
        for (size_t t = 0; t < 2; t++)
            json_object_set_new(json_array_get(json_object_get(it, "texts"), t), "ll",
                                json_real(ll[i][t]));
        json_object_set_new(it, "answers", json_pack("[s, s]", answers[i][0], answers[i][1]));
    }
    json_object_set_new(data, "phase", json_string("score"));
    json_t *s = bundled_scores(bundled_pass(k.h, HOOK_BIAS_PROBE, data));
    /* 1, 2, 0, 5: s^2 = 14 / 3 */
    bundled_expect(s, "counterfactual.mean_abs_delta", "value", 2, 1e-12);
    bundled_expect(s, "counterfactual.mean_abs_delta", "high", 2 + 1.959964 * sqrt(14.0 / 12),
                   1e-6);
    bundled_expect(s, "counterfactual.p95_abs_delta", "value", 2 + 0.85 * 3, 1e-9);
    bundled_expect(s, "counterfactual.flip_rate", "value", 0.5, 1e-12);
    bundled_expect(s, "counterfactual.flip_rate", "low", 0.150036, 1e-5);
    bundled_expect(s, "counterfactual.a.flip_rate", "value", 1.0 / 3, 1e-12);
    bundled_expect(s, "counterfactual.a.mean_abs_delta", "value", 8.0 / 3, 1e-12);
    bundled_expect(s, "counterfactual.p95_abs_delta", "low", 1, 1e-12); /* ranks 2 and 4 of 4 */
    bundled_expect(s, "counterfactual.p95_abs_delta", "high", 5, 1e-12);
    bundled_expect_note(s, "counterfactual.b.mean_abs_delta",
                        "insufficient data: 1 of the 3 that are needed");
    bundled_expect_note(s, "counterfactual.b.p95_abs_delta",
                        "insufficient data: 1 of the 3 that are needed");
    char *each = json_dumps(
        json_object_get(json_object_get(s, "examples"), "counterfactual.flip_rate"), JSON_COMPACT);
    assert_string_equal(each, "[0.0,0.0,1.0,1.0]");
    free(each);
    json_decref(s);
    close_kit(&k);
}

static void test_bad_lines(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *want;
    } rows[] = {
        {"{\"text\": \"a\"}\n[1]\n", "line 2 is no JSON object"},
        {"{\"text\": \"a\"\n", "line 1 is no JSON object"},
        {"{\"messages\": []}\n", "line 1: {\"text\"} or {\"prompt\", \"completion\"} is needed"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        kit k = open_kit(rows[i].lines, "");
        json_t *data = question();
        assert_true(hook_emit(k.h, HOOK_BIAS_PROBE, &data, &e) < 0);
        if (strstr(e.msg, rows[i].want) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, rows[i].want);
        json_decref(data);
        close_kit(&k);
    }
}

static void test_bad_terms(void **state)
{
    (void)state;
    static const struct {
        const char *settings, *want;
    } rows[] = {
        {"{\"file\": \"x\", \"terms\": [[\"he\", \"they\"]]}", "'he' stands in two pairs"},
        {"{\"file\": \"x\", \"terms\": [[\"a b\", \"c\"]]}", "'a b' is not one word"},
        {"{\"file\": \"x\", \"terms\": [[\"a\"]]}", "entry 1 is no pair of words"},
        {"{\"file\": \"/nowhere/x\"}", "No such file"},
        {"{}", "file must name the JSON Lines with your prompts, or augment be true"},
    };
    char *dir = aid_dir(), *plugin = aid_plugin_copy(dir, "counterfactual");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        trust_file f;
        loaded *p = NULL;
        json_t *given;
        hooks *h = bundled_hooks();
        assert_int_equal(js_parse(&given, rows[i].settings, strlen(rows[i].settings), &e), 0);
        assert_int_equal(trust_open(&f, NULL, plugin, &e), 0);
        assert_true(loader_open(&p, &(loader_args){.file = &f, .settings = given, .hooks = h}, &e) <
                    0);
        if (strstr(e.msg, rows[i].want) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, rows[i].want);
        trust_close(&f);
        json_decref(given);
        hook_free(h);
    }
    free(plugin);
    aid_dir_remove(dir);
}

static char *record_twins(hooks *h, const char *record)
{
    hone_err e = {0};
    json_t *data;
    assert_int_equal(js_parse(&data, record, strlen(record), &e), 0);
    data = bundled_pass(h, HOOK_DATA_RECORD, data);
    char *text = json_dumps(data, JSON_COMPACT);
    json_decref(data);
    return text;
}

static void test_twins(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"{\"messages\":[{\"role\":\"he\",\"content\":\"Is he in?\"}],\"n\":1}",
         "[{\"messages\":[{\"role\":\"he\",\"content\":\"Is he in?\"}],\"n\":1},"
         "{\"messages\":[{\"role\":\"he\",\"content\":\"Is she in?\"}],\"n\":1}]"},
        {"{\"text\":\"his son\"}", "[{\"text\":\"his son\"}]"},
        {"{\"text\":\"a day\"}", "[{\"text\":\"a day\"}]"},
        {"[{\"text\":\"men\"},{\"text\":\"a\"}]",
         "[{\"text\":\"men\"},{\"text\":\"women\"},{\"text\":\"a\"}]"},
    };
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "counterfactual", "{\"augment\": true}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *got = record_twins(h, rows[i][0]);
        assert_string_equal(got, rows[i][1]);
        free(got);
    }
    assert_true(bundled_count(h, "counterfactual", "twins") == 2);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

static char *key_of(hooks *h, const char *text)
{
    json_t *data = json_pack("{s:{s:s}, s:s, s:i, s:s, s:n}", "record", "text", text, "source", "t",
                             "line", 1, "key", "5b1f0c3a99d2e481", "split");
    data = bundled_pass(h, HOOK_DATA_SPLIT, data);
    char *key = mem_strdup(json_string_value(json_object_get(data, "key")));
    json_decref(data);
    return key;
}

static void test_twins_stay_together(void **state)
{
    (void)state;
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "counterfactual", "{\"augment\": true}");
    char *a = key_of(h, "He met a girl."), *b = key_of(h, "She met a boy.");
    char *c = key_of(h, "He met a boy!"), *d = key_of(h, "Nobody met.");
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    assert_int_equal(strlen(a), 16);
    assert_string_equal(d, "5b1f0c3a99d2e481"); /* as it was */
    free(a);
    free(b);
    free(c);
    free(d);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

/* On real questions: the twin of the twin is the record, and both have one key. */
static void test_twins_of_real_records(void **state)
{
    (void)state;
    json_t *texts = bundled_texts("data/datasets/gsm8k/train.jsonl", "question"), *one;
    size_t i, n = 0;
    if (texts == NULL)
        skip();
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "counterfactual", "{\"augment\": true}");
    json_array_foreach (texts, i, one) {
        json_t *data = bundled_pass(h, HOOK_DATA_RECORD, json_pack("{s:O}", "text", one));
        json_t *twin = json_array_get(data, 1);
        if (twin != NULL) {
            n++;
            json_t *back = bundled_pass(h, HOOK_DATA_RECORD, json_incref(twin));
            assert_true(json_equal(json_array_get(back, 1), json_array_get(data, 0)));
            char *a = key_of(h, json_string_value(one));
            char *b = key_of(h, json_string_value(json_object_get(twin, "text")));
            assert_string_equal(a, b);
            free(a);
            free(b);
            json_decref(back);
        }
        json_decref(data);
    }
    bundled_say("GSM8K: %zu of %zu questions have a twin", n, json_array_size(texts));
    assert_true(n > 100);
    json_decref(texts);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

/* A model scores and answers: the figures are of what it said. */
static void test_with_a_model(void **state)
{
    (void)state;
    hone_err e = {0};
    served *sv = NULL;
    json_t *r = NULL;
    kit k = open_kit("{\"prompt\": \"he is\", \"completion\": \" a man\"}\n"
                     "{\"prompt\": \"the boy is\"}\n",
                     ", \"min_pairs\": 1");
    char *model_dir = path_join(k.dir, "model");
    aid_tiny_make(model_dir);
    served_options o = {.model_dir = model_dir, .device = "cpu", .dtype = KERN_F32, .kv_tokens = 1};
    if (served_open(&sv, &o, &e) != 0)
        fail_msg("%s", e.msg);
    eval_options eo = {.m = sv->model, .t = sv->tok, .c = sv->chat, .hooks = k.h, .max_tokens = 4};
    if (eval_run(&r, &eo, &e) != 0)
        fail_msg("%s", e.msg);
    bundled_expect(r, "counterfactual.flip_rate", "n", 2, 0);
    bundled_expect(r, "counterfactual.mean_abs_delta", "n", 2, 0);
    const json_t *each =
        json_object_get(json_object_get(r, "examples"), "counterfactual.mean_abs_delta");
    for (size_t i = 0; i < 2; i++)
        assert_true(json_number_value(json_array_get(each, i)) > 0);
    json_decref(r);
    served_release(sv);
    free(model_dir);
    close_kit(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_swaps),
        cmocka_unit_test(test_terms_of_ones_own),
        cmocka_unit_test(test_figures_by_hand),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_bad_terms),
        cmocka_unit_test(test_twins),
        cmocka_unit_test(test_twins_stay_together),
        cmocka_unit_test(test_twins_of_real_records),
        cmocka_unit_test(test_with_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
