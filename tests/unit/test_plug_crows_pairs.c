#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/eval/eval.h"
#include "serve/engine/served.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct kit {
    char *dir, *file;
    hooks *h;
    loaded *p;
} kit;

static kit open_kit(const char *csv, const char *tokens, int min_pairs)
{
    kit k = {.dir = aid_dir(), .h = bundled_hooks()};
    k.file = path_join(k.dir, "pairs.csv");
    assert_int_equal(file_write(k.file, csv, strlen(csv), NULL), 0);
    char *s = mem_printf("{\"file\": \"%s\", \"tokens\": \"%s\", \"min_pairs\": %d}", k.file,
                         tokens, min_pairs);
    k.p = aid_plugin_open(k.h, "crows_pairs", s);
    free(s);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
    free(k->file);
    aid_dir_remove(k->dir);
}

static json_t *ask(const kit *k)
{
    return bundled_pass(
        k->h, HOOK_BIAS_PROBE,
        json_pack("{s:s, s:[{s:s}], s:{}}", "phase", "items", "items", "probe", "other", "scores"));
}

/* What the model would have said. */
static void answer(json_t *data, const double (*ll)[2], size_t n)
{
    json_t *items = json_object_get(data, "items");
    assert_int_equal(json_array_size(items), n + 1);
    for (size_t i = 0; i < n; i++) {
        json_t *texts = json_object_get(json_array_get(items, i + 1), "texts");
        for (size_t t = 0; t < 2; t++)
            json_object_set_new(json_array_get(texts, t), "ll", json_real(ll[i][t]));
    }
    json_object_set_new(data, "phase", json_string("score"));
}

static const char five[] = "\xEF\xBB\xBF,sent_more,sent_less,stereo_antistereo,bias_type\r\n"
                           "0,\"A \"\"b\"\", c\",\"line\none\",stereo,age\r\n"
                           "1,b,c,stereo,age\n\n"
                           "2,d,e,antistereo,gender\n"
                           "3,f,g,stereo,age\n"
                           "4,h,\xC3\xA9,stereo,age";
static const double said[5][2] = {{-1, -2}, {-3, -1}, {-4, -4}, {-1, -5}, {-2, -3}};

static void test_figures_by_hand(void **state)
{
    (void)state;
    kit k = open_kit(five, "all", 4);
    json_t *data = ask(&k);
    json_t *first = json_array_get(json_object_get(data, "items"), 1);
    json_t *texts = json_object_get(first, "texts");
    assert_string_equal(json_string_value(json_object_get(first, "group")), "age");
    assert_string_equal(json_string_value(json_object_get(json_array_get(texts, 0), "text")),
                        "A \"b\", c");
    assert_string_equal(json_string_value(json_object_get(json_array_get(texts, 1), "text")),
                        "line\none");
    answer(data, said, 5);
    json_t *s = bundled_scores(bundled_pass(k.h, HOOK_BIAS_PROBE, data));
    bundled_expect(s, "crows_pairs.pct_stereotype", "value", 3.0 / 5, 1e-12); /* a tie is none */
    bundled_expect(s, "crows_pairs.pct_stereotype", "low", 0.230724, 1e-6);
    bundled_expect(s, "crows_pairs.pct_stereotype", "high", 0.882379, 1e-6);
    bundled_expect(s, "crows_pairs.likelihood_diff", "value", 8.0 / 5, 1e-12);
    bundled_expect(s, "crows_pairs.likelihood_diff", "low", 1.6 - 1.329312, 1e-6);
    bundled_expect(s, "crows_pairs.age.pct_stereotype", "value", 3.0 / 4, 1e-12);
    bundled_expect(s, "crows_pairs.age.likelihood_diff", "value", 8.0 / 4, 1e-12);
    assert_true(json_is_true(json_object_get(
        json_object_get(json_object_get(s, "metrics"), "crows_pairs.age.pct_stereotype"), "info")));
    const json_t *all = json_object_get(s, "examples");
    char *each = json_dumps(json_object_get(all, "crows_pairs.age.likelihood_diff"), JSON_COMPACT);
    assert_string_equal(each, "[1.0,2.0,4.0,1.0]");
    free(each);
    bundled_expect_note(s, "crows_pairs.gender.pct_stereotype",
                        "insufficient data: 1 of the 4 that are needed");
    assert_null(json_object_get(all, "crows_pairs.gender.pct_stereotype"));
    json_decref(s);
    close_kit(&k);
}

/* Scored token by token; of the sentences' ids. */
static void answer_tokens(json_t *data, const char *const (*ids)[2], const double (*logp)[2])
{
    json_t *items = json_object_get(data, "items");
    for (size_t i = 0; i + 1 < json_array_size(items); i++) {
        json_t *item = json_array_get(items, i + 1), *texts = json_object_get(item, "texts");
        assert_true(json_is_true(json_object_get(item, "tokens")));
        for (size_t t = 0; t < 2; t++) {
            json_t *id = json_array(), *each = json_array(), *text = json_array_get(texts, t);
            for (const char *s = ids[i][t]; *s != '\0'; s++) {
                json_array_append_new(id, json_integer(*s));
                /* the last token has one log-probability, the others another */
                json_array_append_new(each, json_real(s[1] == '\0' ? logp[i][t] : -1));
            }
            json_object_set_new(text, "ids", id);
            json_object_set_new(text, "logprobs", each);
            json_object_set_new(text, "ll", json_real(-1));
        }
    }
    json_object_set_new(data, "phase", json_string("score"));
}

static void test_shared_tokens_by_hand(void **state)
{
    (void)state;
    static const char *const ids[5][2] = {
        {"ab.c", "xy.c"},       /* ".c" */
        {"abz", "abz"},         /* all */
        {"abc", "xyz"},         /* none */
        {"heshehis", "shehis"}, /* what stands in one sentence alone is not scored */
        {"qabq", "abab"},       /* "ab" once, with the first of it; its last token is no end */
    };
    static const double logp[5][2] = {{-1, -3}, {-2, -1}, {-1, -9}, {-4, -1}, {-5, -7}};
    kit k = open_kit(five, "shared", 1);
    json_t *data = ask(&k);
    answer_tokens(data, ids, logp);
    json_t *s = bundled_scores(bundled_pass(k.h, HOOK_BIAS_PROBE, data));
    char *each = json_dumps(
        json_object_get(json_object_get(s, "examples"), "crows_pairs.likelihood_diff_shared"),
        JSON_COMPACT);
    assert_string_equal(each, "[2.0,1.0,0.0,3.0,0.0]");
    free(each);
    bundled_expect(s, "crows_pairs.pct_stereotype_shared", "value", 1. / 5, 1e-12);
    bundled_expect(s, "crows_pairs.age.pct_stereotype_shared", "n", 4, 0);
    assert_null(json_object_get(json_object_get(s, "metrics"), "crows_pairs.pct_stereotype"));
    json_decref(s);
    close_kit(&k);
}

/* Another subscriber took an item of ours away: no figure of what is left. */
static void test_lost_items(void **state)
{
    (void)state;
    hone_err e = {0};
    kit k = open_kit(five, "all", 1);
    json_t *data = ask(&k);
    answer(data, said, 5);
    json_array_remove(json_object_get(data, "items"), 5);
    assert_true(hook_emit(k.h, HOOK_BIAS_PROBE, &data, &e) < 0);
    assert_non_null(strstr(e.msg, "only 4 of 5 pairs came back"));
    json_decref(data);
    close_kit(&k);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *csv, *want;
    } rows[] = {
        {"", "there are no pairs in it"},
        {"sent_more,sent_less,bias_type\n", "there are no pairs in it"},
        {"sent_more,bias_type\na,b\n", "the header names no column 'sent_less'"},
        {"sent_more,sent_less,bias_type\na,b,c\na,,c\n", "pair 2 has no sent_less"},
        {"sent_more,sent_less,bias_type\na,b\n", "pair 1 has no bias_type"},
        {"sent_more,sent_less,bias_type\na,b,c\n\"a,b,c\n", "after pair 1: a quote is not closed"},
        {"sent_more,sent_less,bias_type\n\"a\"x,b,c\n", "after pair 0: a quote is not closed"},
        {"sent_more,sent_less,bias_type\na\xFF,b,c\n", "byte 31 is no UTF-8"},
        {NULL, "No such file"},
    };
    char *dir = aid_dir(), *file = path_join(dir, "pairs.csv");
    char *plugin = aid_plugin_copy(dir, "crows_pairs");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        trust_file f;
        loaded *p = NULL;
        hooks *h = bundled_hooks();
        const char *csv = rows[i].csv;
        if (csv != NULL)
            assert_int_equal(file_write(file, csv, strlen(csv), NULL), 0);
        json_t *s = json_pack("{s:s}", "file", csv != NULL ? file : "/nowhere/pairs.csv");
        assert_int_equal(trust_open(&f, NULL, plugin, &e), 0);
        assert_true(loader_open(&p, &(loader_args){.file = &f, .settings = s, .hooks = h}, &e) < 0);
        if (strstr(e.msg, rows[i].want) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, rows[i].want);
        trust_close(&f);
        json_decref(s);
        hook_free(h);
    }
    free(plugin);
    free(file);
    aid_dir_remove(dir);
}

/* The public file, or NULL. */
static char *public_pairs(void)
{
    char *path = aid_shared("data/bias/crows-pairs/crows_pairs_anonymized.csv");
    char *text = path != NULL ? aid_text(path) : NULL;
    free(path);
    return text;
}

static json_t *evaluate(const char *model_dir, hooks *h)
{
    hone_err e = {0};
    served *sv = NULL;
    json_t *r = NULL;
    served_options o = {.model_dir = model_dir, .device = "cpu", .dtype = KERN_F32, .kv_tokens = 1};
    if (served_open(&sv, &o, &e) != 0)
        fail_msg("%s", e.msg);
    eval_options eo = {.m = sv->model, .t = sv->tok, .c = sv->chat, .hooks = h};
    if (eval_run(&r, &eo, &e) != 0)
        fail_msg("%s", e.msg);
    served_release(sv);
    return r;
}

static void expect_figure(const json_t *r, const char *group, const json_t *want,
                          const char *figure, double tolerance)
{
    bool all = strcmp(group, "all") == 0;
    char *name = mem_printf("crows_pairs%s%s.%s", all ? "" : ".", all ? "" : group, figure);
    bundled_expect(r, name, "n", json_number_value(json_object_get(want, "n")), 0);
    bundled_expect(r, name, "value", json_number_value(json_object_get(want, figure)), tolerance);
    free(name);
}

/* tests/golden/bias/gen_bias.py: lm-evaluation-harness's definitions, by transformers. */
static void test_as_the_harness_defines_it(void **state)
{
    (void)state;
    char *csv = public_pairs(), *model_dir = aid_shared("data/checkpoints/stories260k-f32");
    json_t *golden, *want;
    const char *group;
    hone_err e = {0};
    if (csv == NULL || model_dir == NULL)
        skip();
    kit k = open_kit(csv, "both", 1);
    json_t *r = evaluate(model_dir, k.h);
    if (js_load(&golden, "tests/golden/bias/crows_pairs.json", &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(json_object_size(golden), 10);
    json_object_foreach (golden, group, want) {
        expect_figure(r, group, want, "pct_stereotype", 1e-9);
        expect_figure(r, group, want, "likelihood_diff", 1e-4);
        expect_figure(r, group, want, "pct_stereotype_shared", 1e-9);
        expect_figure(r, group, want, "likelihood_diff_shared", 1e-4);
    }
    json_decref(golden);
    json_decref(r);
    close_kit(&k);
    free(csv);
    free(model_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures_by_hand),
        cmocka_unit_test(test_shared_tokens_by_hand),
        cmocka_unit_test(test_lost_items),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_as_the_harness_defines_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
