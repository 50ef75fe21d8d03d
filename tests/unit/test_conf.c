#include "core/base/conf.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    char *model, *adapter;
    int64_t rank, seed;
    double rate, big;
    bool packing;
    int device;
    json_t *targets, *datasets;
    int64_t min_examples;
    char *when;
} settings;

#define AT(f) offsetof(settings, f)
/* clang-format off */
static const conf_row rows[] = {
    {"base_model", "model", CONF_STR, AT(model), NULL, 0, 0, NULL, "directory of the checkpoint"},
    {"adapter", NULL, CONF_STR, AT(adapter), "lora", 0, 0, NULL, "kind of adapter"},
    {"lora_r", "lora_rank r", CONF_INT, AT(rank), "8", 1, 4096, NULL, "rank"},
    {"seed", NULL, CONF_INT, AT(seed), NULL, 0, 0, NULL, "seed of every random stream"},
    {"learning_rate", NULL, CONF_FLOAT, AT(rate), "2e-4", 0, 10, NULL, "step size"},
    {"big", NULL, CONF_FLOAT, AT(big), "1", 1, INFINITY, NULL, "no upper limit"},
    {"sample_packing", NULL, CONF_BOOL, AT(packing), "true", 0, 0, NULL, "several rows in one sequence"},
    {"device", NULL, CONF_ENUM, AT(device), NULL, 0, 0, "auto|cpu|cuda|true", "a|b"},
    {"lora_target_modules", NULL, CONF_LIST, AT(targets), "[q_proj, v_proj]", 0, 0, NULL, "layers"},
    {"datasets", NULL, CONF_JSON, AT(datasets), NULL, 0, 0, NULL, "where rows come from"},
    {"retrain.min_examples", NULL, CONF_INT, AT(min_examples), "10", 0, 1000, NULL, "start at"},
    {"retrain.gate.when", NULL, CONF_STR, AT(when), "daily", 0, 0, NULL, "how often"},
    {.key = NULL}};
/* clang-format on */

static int setup(void **state)
{
    settings *s = mem_alloc(sizeof *s);
    conf_defaults(rows, s);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    conf_free(rows, *state);
    free(*state);
    return 0;
}

/* Applies YAML text as a file would be. Returns the status; the message goes to e. */
static int load_text(settings *s, json_t *given, const char *yaml, hone_err *e)
{
    char *dir = aid_dir(), *path = path_join(dir, "c.yaml");
    size_t skip = strlen(path) + 2;
    assert_int_equal(file_write(path, yaml, strlen(yaml), e), 0);
    int rc = conf_load(rows, s, given, path, e);
    if (rc != 0) {
        assert_memory_equal(e->msg, path, strlen(path)); /* each error begins with the file */
        memmove(e->msg, e->msg + skip, strlen(e->msg + skip) + 1);
    }
    free(path);
    aid_dir_remove(dir);
    return rc;
}

static void test_defaults(void **state)
{
    const settings *s = *state;
    assert_null(s->model);
    assert_string_equal(s->adapter, "lora");
    assert_int_equal(s->rank, 8);
    assert_int_equal(s->seed, 0);
    assert_true(s->rate == 2e-4);
    assert_true(s->packing);
    assert_int_equal(s->device, 0);
    assert_int_equal(json_array_size(s->targets), 2);
    assert_null(s->datasets);
    assert_int_equal(s->min_examples, 10);
    assert_string_equal(s->when, "daily");
}

static void test_every_type(void **state)
{
    settings *s = *state;
    hone_err e = {0};
    json_t *given = json_object();
    static const char yaml[] = "base_model: x/y\n"
                               "adapter: null\n"
                               "lora_rank: 16\n"
                               "seed: -1\n"
                               "learning_rate: 1e-5\n"
                               "big: 1e300\n"
                               "sample_packing: no\n"
                               "device: cuda\n"
                               "lora_target_modules: all-linear\n"
                               "datasets:\n"
                               "  - path: a.jsonl\n"
                               "retrain:\n"
                               "  min_examples: 1e2\n"
                               "  gate: {when: never}\n";
    if (load_text(s, given, yaml, &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(s->model, "x/y");
    assert_null(s->adapter);
    assert_int_equal(s->rank, 16);
    assert_int_equal(s->seed, -1);
    assert_true(s->rate == 1e-5);
    assert_true(s->big == 1e300);
    assert_false(s->packing);
    assert_int_equal(s->device, 2);
    assert_int_equal(json_array_size(s->targets), 1);
    assert_string_equal(json_string_value(json_array_get(s->targets, 0)), "all-linear");
    assert_int_equal(json_array_size(s->datasets), 1);
    assert_int_equal(s->min_examples, 100);
    assert_string_equal(s->when, "never");
    assert_int_equal(json_object_size(given), 12);
    assert_int_equal(json_integer_value(json_object_get(given, "lora_r")), 16);
    assert_string_equal(json_string_value(json_object_get(given, "retrain.gate.when")), "never");
    json_decref(given);
}

static void test_errors_name_line_and_value(void **state)
{
    static const struct {
        const char *yaml, *says;
    } cases[] = {
        {"seed: 1\nlora_r: 0\n", "line 2: 'lora_r' is 0, must lie between 1 and 4096"},
        {"r: 5000", "line 1: 'lora_r' is 5000, must lie between 1 and 4096"},
        {"learning_rate: -1", "line 1: 'learning_rate' is -1, must lie between 0 and 10"},
        {"big: 0.5", "line 1: 'big' is 0.5, must be at least 1"},
        {"lora_r: 8.5", "line 1: 'lora_r' must be a whole number, not 8.5"},
        {"lora_r: eight", "line 1: 'lora_r' must be a whole number, not \"eight\""},
        {"lora_r: 007", "line 1: 'lora_r' must be a whole number, not \"007\""},
        {"seed: 1e19", "line 1: 'seed' must be a whole number, not 1e19"},
        {"seed: 9223372036854775808",
         "line 1: 'seed' must be a whole number, not \"9223372036854775808\""},
        {"learning_rate: '1'", "line 1: 'learning_rate' must be a number, not \"1\""},
        {"learning_rate: .inf", "line 1: 'learning_rate' must be a number, not \".inf\""},
        {"sample_packing: 1", "line 1: 'sample_packing' must be true or false, not 1"},
        {"device: gpu", "line 1: 'device' must be one of auto|cpu|cuda|true, not \"gpu\""},
        {"device: false", "line 1: 'device' must be one of auto|cpu|cuda|true, not false"},
        {"base_model: 1.10", "line 1: 'base_model' must be text (put it in quotes), not 1.1"},
        {"base_model: yes", "line 1: 'base_model' must be text, not true"},
        {"base_model: [a]", "line 1: 'base_model' must be text, not [\"a\"]"},
        {"base_model: \"a\\0b\"", "line 1: 'base_model' must be text, not \"a\\u0000b\""},
        {"lora_target_modules: 3", "line 1: 'lora_target_modules' must be a list, not 3"},
        {"lora_target_modules: [a, 3]",
         "line 1: 'lora_target_modules' must be a list of texts, not [\"a\",3]"},
        {"\n\nlora_rnk: 8", "line 3: unknown key 'lora_rnk' (did you mean 'lora_rank'?)"},
        {"retrain:\n  min_exmples: 8",
         "line 2: unknown key 'retrain.min_exmples' (did you mean 'retrain.min_examples'?)"},
        {"retrian:\n  min_examples: 8", "line 1: unknown key 'retrian' (did you mean 'retrain'?)"},
        {"zzz: 8", "line 1: unknown key 'zzz'"},
        {"retrain: 8", "line 1: 'retrain' is a group of settings, not a setting"},
        {"a: &x {min_exmples: 8}\nretrain: *x", "line 1: unknown key 'a'"},
        {"datasets: [&x {min_exmples: 8}]\nretrain: *x",
         "line 2: unknown key 'retrain.min_exmples' (did you mean 'retrain.min_examples'?)"},
        {"lora_r: 1\nr: 2", "line 2: 'lora_r' and 'r' are one setting, given twice"},
        {"[1]", "settings must be a mapping of keys to values"},
        {"seed: [", "YAML: line 1: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hone_err e = {0};
        if (load_text(*state, NULL, cases[i].yaml, &e) == 0)
            fail_msg("%s: was accepted", cases[i].yaml);
        if (strncmp(e.msg, cases[i].says, strlen(cases[i].says)) != 0)
            fail_msg("%s: says '%s', not '%s'", cases[i].yaml, e.msg, cases[i].says);
    }
}

static void test_a_missing_file(void **state)
{
    hone_err e = {0};
    assert_int_equal(conf_load(rows, *state, NULL, "/no/such.yaml", &e), HONE_ENOTFOUND);
    assert_string_equal(e.msg, "/no/such.yaml: cannot open: No such file or directory");
}

static void test_empty_groups_and_files(void **state)
{
    settings *s = *state;
    hone_err e = {0};
    assert_int_equal(load_text(s, NULL, "# nothing\n", &e), 0);
    assert_int_equal(load_text(s, NULL, "---\n", &e), 0);
    assert_int_equal(load_text(s, NULL, "retrain:\n#  min_examples: 3\n", &e), 0);
    assert_int_equal(s->min_examples, 10);
}

static void test_null_gives_the_default_or_unsets(void **state)
{
    settings *s = *state;
    hone_err e = {0};
    assert_int_equal(load_text(s, NULL, "lora_r: 64\nseed: 3\nadapter: x\nbig: 7", &e), 0);
    assert_int_equal(load_text(s, NULL, "lora_r:\nseed: ~\nadapter:\nlora_target_modules:", &e), 0);
    assert_int_equal(s->rank, 8);
    assert_int_equal(s->seed, 0);
    assert_null(s->adapter);
    assert_null(s->targets);
    assert_true(s->big == 7);
}

static void test_assignments(void **state)
{
    settings *s = *state;
    hone_err e = {0};
    json_t *given = json_object();
    assert_int_equal(conf_set(rows, s, given, "lora_rank=32", &e), 0);
    assert_int_equal(s->rank, 32);
    assert_int_equal(conf_set(rows, s, given, "lora_r=33", &e), 0); /* the later one counts */
    assert_int_equal(s->rank, 33);
    assert_int_equal(json_integer_value(json_object_get(given, "lora_r")), 33);
    assert_int_equal(conf_set(rows, s, given, "lora_r=", &e), 0);
    assert_int_equal(s->rank, 8);
    assert_int_equal(conf_set(rows, s, given, "retrain.min_examples=3", &e), 0);
    assert_int_equal(s->min_examples, 3);
    assert_int_equal(conf_set(rows, s, given, "lora_target_modules=[a, b, c]", &e), 0);
    assert_int_equal(json_array_size(s->targets), 3);
    /* Text as it stands. */
    static const char *const texts[] = {"1.10", "007", "a: b", "yes", "x=y", "# no comment", "[a"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *a = mem_printf("base_model=%s", texts[i]);
        assert_int_equal(conf_set(rows, s, given, a, &e), 0);
        assert_string_equal(s->model, texts[i]);
        free(a);
    }
    assert_int_equal(conf_set(rows, s, given, "base_model='null'", &e), 0);
    assert_string_equal(s->model, "null");
    assert_int_equal(conf_set(rows, s, given, "base_model=null", &e), 0);
    assert_null(s->model);
    assert_int_equal(conf_set(rows, s, given, "adapter=", &e), 0);
    assert_null(s->adapter);
    json_decref(given);
}

static void test_wrong_assignments(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"lora_r", "'lora_r': expected key=value"},
        {"=8", "'=8': expected key=value"},
        {"lora_r=[", "lora_r: YAML: line 1: did not find expected node content"},
        {"lora_r=x", "'lora_r' must be a whole number, not \"x\""},
        {"seeed=1", "unknown key 'seeed' (did you mean 'seed'?)"},
        {"retrain=1", "'retrain' is a group of settings, not a setting"},
        {"base_model=\xff", "base_model: text that is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hone_err e = {0};
        assert_true(conf_set(rows, *state, NULL, cases[i].text, &e) < 0);
        assert_string_equal(e.msg, cases[i].says);
    }
}

static char *printed(void (*print)(const conf_row *, FILE *))
{
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    print(rows, f);
    fclose(f);
    return text;
}

static void test_help_and_reference_page(void **state)
{
    (void)state;
    char *text = printed(conf_help);
    assert_non_null(strstr(text, "  lora_r                       rank (integer, default 8; also "
                                 "lora_rank r)\n"));
    assert_non_null(strstr(text, "  seed                         seed of every random stream "
                                 "(integer)\n"));
    free(text);
    text = printed(conf_markdown);
    assert_non_null(strstr(text, "| `lora_r` | lora_rank r | integer | 8 | rank | \n"));
    assert_non_null(strstr(text, "| `device` |  | auto/cpu/cuda/true |  | a/b | \n"));
    free(text);
}

static void test_choices(void **state)
{
    (void)state;
    const conf_row *row = conf_find(rows, "device");
    static const char *const names[] = {"auto", "cpu", "cuda", "true", "?"};
    for (int i = 0; i < 5; i++) {
        char *s = conf_choice(row, i);
        assert_string_equal(s, names[i]);
        free(s);
    }
    assert_null(conf_find(rows, "lora"));
    assert_ptr_equal(conf_find(rows, "r"), conf_find(rows, "lora_r"));
}

static void test_wrong_tables_are_found(void **state)
{
    (void)state;
    static const struct {
        conf_row rows[3];
        const char *says;
    } cases[] = {
        {{{.key = "a", .type = CONF_INT, .def = "x", .help = "h"}},
         "default of 'a': 'a' must be a whole number, not \"x\""},
        {{{.key = "a", .type = CONF_INT, .def = "5", .min = 1, .max = 2, .help = "h"}},
         "default of 'a': 'a' is 5, must lie between 1 and 2"},
        {{{.key = "a", .type = CONF_INT}}, "'a' lacks its help"},
        {{{.key = "a", .type = CONF_ENUM, .help = "h"}}, "'a' lacks its choices"},
        {{{.key = "a", .type = CONF_INT, .help = "h"}, {.key = "b", .aliases = "c a", .help = "h"}},
         "'a' stands twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        settings s = {0};
        hone_err e = {0};
        assert_true(conf_check(cases[i].rows, &s, &e) < 0);
        assert_string_equal(e.msg, cases[i].says);
        conf_free(cases[i].rows, &s);
    }
    hone_err e = {0};
    settings s = {0};
    if (conf_check(rows, &s, &e) != 0)
        fail_msg("%s", e.msg);
    conf_free(rows, &s);
}

int main(void)
{
    js_start();
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),
        TEST(test_every_type),
        TEST(test_errors_name_line_and_value),
        TEST(test_a_missing_file),
        TEST(test_empty_groups_and_files),
        TEST(test_null_gives_the_default_or_unsets),
        TEST(test_assignments),
        TEST(test_wrong_assignments),
        TEST(test_help_and_reference_page),
        TEST(test_choices),
        TEST(test_wrong_tables_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
