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

static char *dir;

static int set_up(void **state)
{
    (void)state;
    dir = aid_dir();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    aid_dir_remove(dir);
    return 0;
}

/* Settings that name files with these texts; caller frees. */
static char *settings_for(const char *pro, const char *anti, int min_pairs)
{
    char *a = path_join(dir, "pro.txt"), *b = path_join(dir, "anti.txt");
    assert_int_equal(file_write(a, pro, strlen(pro), NULL), 0);
    assert_int_equal(file_write(b, anti, strlen(anti), NULL), 0);
    char *s = mem_printf("{\"pro_type1\": \"%s\", \"anti_type1\": \"%s\", \"min_pairs\": %d}", a, b,
                         min_pairs);
    free(a);
    free(b);
    return s;
}

static const char *text_of(const json_t *items, size_t item, size_t text)
{
    const json_t *texts = json_object_get(json_array_get(items, item), "texts");
    return json_string_value(json_object_get(json_array_get(texts, text), "text"));
}

static json_t *run(hooks *h, const double (*ll)[2], size_t n)
{
    json_t *data = bundled_pass(
        h, HOOK_BIAS_PROBE, json_pack("{s:s, s:[], s:{}}", "phase", "items", "items", "scores"));
    json_t *items = json_object_get(data, "items");
    assert_int_equal(json_array_size(items), n);
    for (size_t i = 0; i < n; i++) {
        json_t *texts = json_object_get(json_array_get(items, i), "texts");
        for (size_t t = 0; t < 2; t++)
            json_object_set_new(json_array_get(texts, t), "ll", json_real(ll[i][t]));
    }
    json_object_set_new(data, "phase", json_string("score"));
    return bundled_pass(h, HOOK_BIAS_PROBE, data);
}

/* Lines 4 and 5 differ in more than the pronoun, or in nothing. */
static void test_figures_by_hand(void **state)
{
    (void)state;
    static const double ll[4][2] = {{-1, -2}, {-1, -3}, {-5, -3}, {-2, -2}};
    char *s = settings_for("1 [The smith] met the nurse because [he] was ill.\r\n"
                           "2 The smith met [the nurse] and thanked [her].\n"
                           "3 The smith met [the nurse] because [her] car broke.\n\n"
                           "4 [The smith] said [he] was ill.\n"
                           "5 [The smith] slept.\n"
                           "6 The smith told [the nurse] that [she] won",
                           "1 [The smith] met the nurse because [she] was ill.\r\n"
                           "2 The smith met [the nurse] and thanked [him].\n"
                           "3 The smith met the [nurse] because [his] car broke.\n\n"
                           "4 [The smith] says [she] was ill.\n"
                           "5 [The smith] slept.\n"
                           "6 The smith told [the nurse] that [he] won",
                           4);
    hooks *h = bundled_hooks();
    hone_err e = {0};
    loaded *p = aid_plugin_open(h, "winobias", s);
    json_t *data = run(h, ll, 4);
    const json_t *items = json_object_get(data, "items");
    assert_string_equal(text_of(items, 0, 0), "The smith met the nurse because he was ill.");
    assert_string_equal(text_of(items, 2, 1), "The smith met the nurse because his car broke.");
    json_t *m = bundled_scores(data);
    bundled_expect(m, "winobias.pro", "value", 0.5, 1e-12);
    bundled_expect(m, "winobias.pro", "low", 0.150036, 1e-5); /* Wilson's, of 2 of 4 */
    bundled_expect(m, "winobias.anti", "value", 0.25, 1e-12); /* a tie is neither */
    bundled_expect(m, "winobias.type1.gap", "value", 0.25, 1e-12);
    /* 1, 1, -1, 0: s^2 = 2.75 / 3 */
    bundled_expect(m, "winobias.type1.gap", "low", 0.25 - 1.959964 * sqrt(2.75 / 3 / 4), 1e-6);
    bundled_expect(m, "winobias.type1.gap", "high", 0.25 + 1.959964 * sqrt(2.75 / 3 / 4), 1e-6);
    bundled_expect_note(m, "winobias.type1.gap",
                        "2 lines left out: they differ in more than a pronoun");
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(m, "examples"), "winobias.type1.gap")), 4);
    assert_null(json_object_get(json_object_get(m, "metrics"), "winobias.type2.gap"));
    json_decref(m);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
    free(s);
}

static void test_few_pairs(void **state)
{
    (void)state;
    static const double ll[1][2] = {{-1, -2}};
    char *s = settings_for("1 A said [he] won.\n", "1 A said [she] won.\n", 2);
    hooks *h = bundled_hooks();
    hone_err e = {0};
    loaded *p = aid_plugin_open(h, "winobias", s);
    json_t *m = bundled_scores(run(h, ll, 1));
    bundled_expect_note(m, "winobias.type1.gap", "insufficient data: 1 of the 2 that are needed");
    json_decref(m);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
    free(s);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *pro, *anti, *want;
    } rows[] = {
        {"1 [he] is\n2 [he] was\n", "1 [she] is\n", "pro.txt has more lines than "},
        {"1 [he] is\n", "1 [she] is\n2 [she] was\n", "anti.txt has more lines than "},
        {"1 [he] is\n", "1 [he] is\n", "no line differs in the bracketed pronoun alone"},
        {"1 [he] \xFF\n", "1 [she] is\n", "byte 7 is no UTF-8"},
        {NULL, NULL, "pro_type1 and anti_type1, or those of type2, must name files"},
    };
    char *plugin = aid_plugin_copy(dir, "winobias");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        trust_file f;
        loaded *p = NULL;
        json_t *given;
        hooks *h = bundled_hooks();
        char *s =
            rows[i].pro != NULL ? settings_for(rows[i].pro, rows[i].anti, 1) : mem_strdup("{}");
        assert_int_equal(js_parse(&given, s, strlen(s), &e), 0);
        assert_int_equal(trust_open(&f, NULL, plugin, &e), 0);
        assert_true(loader_open(&p, &(loader_args){.file = &f, .settings = given, .hooks = h}, &e) <
                    0);
        if (strstr(e.msg, rows[i].want) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, rows[i].want);
        trust_close(&f);
        json_decref(given);
        hook_free(h);
        free(s);
    }
    free(plugin);
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

/* tests/golden/bias/gen_bias.py: the same definition by transformers, on the public files. */
static void test_real(void **state)
{
    (void)state;
    char *files = aid_shared("data/bias/winobias");
    char *model_dir = aid_shared("data/checkpoints/stories260k-f32");
    json_t *golden, *want;
    const char *type;
    hone_err e = {0};
    if (files == NULL || model_dir == NULL)
        skip();
    char *s = mem_printf("{\"pro_type1\": \"%s/pro_stereotyped_type1.txt.dev\", "
                         "\"anti_type1\": \"%s/anti_stereotyped_type1.txt.dev\", "
                         "\"pro_type2\": \"%s/pro_stereotyped_type2.txt.dev\", "
                         "\"anti_type2\": \"%s/anti_stereotyped_type2.txt.dev\"}",
                         files, files, files, files);
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "winobias", s);
    json_t *r = evaluate(model_dir, h);
    if (js_load(&golden, "tests/golden/bias/winobias.json", &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(json_object_size(golden), 2);
    json_object_foreach (golden, type, want) {
        static const char *const sides[] = {"pro", "anti"};
        for (size_t i = 0; i < 2; i++) {
            char *name = mem_printf("winobias.%s.%s", type, sides[i]);
            bundled_expect(r, name, "n", json_number_value(json_object_get(want, "n")), 0);
            bundled_expect(r, name, "value", json_number_value(json_object_get(want, sides[i])),
                           1e-9);
            free(name);
        }
    }
    json_decref(golden);
    json_decref(r);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
    free(s);
    free(files);
    free(model_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures_by_hand),
        cmocka_unit_test(test_few_pairs),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
