/* The scripts that come with the program, on real data. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_lua.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Opens lua/bundled/NAME.lua, whose own tests run then. settings: JSON, or NULL. */
static void open_it(aid_lua *a, const char *name, const char *settings)
{
    char *path = mem_printf("lua/bundled/%s.lua", name);
    json_t *given = settings != NULL ? json_loads(settings, 0, NULL) : NULL;
    static const hook_breaker patient = {1000000, 1000000, 60000, 60000};
    log_setup(LOG_ERROR, false);
    a->hooks = hook_new();
    hook_set_breaker(a->hooks, &patient);
    a->args.hooks = a->hooks;
    a->args.path = path;
    a->args.settings = given;
    a->args.state_dir = a->dir;
    if (lua_plugin_open(&a->plugin, &a->args, &a->e) != 0)
        fail_msg("%s", a->e.msg);
    json_decref(given);
    free(path);
}

static void close_it(aid_lua *a)
{
    aid_lua_close(a);
    log_setup(LOG_INFO, false);
}

/* Emits data (taken) and leaves what came of it in a->data. */
static int emit(aid_lua *a, hook_point p, json_t *data)
{
    assert_non_null(data);
    json_decref(a->data);
    a->data = data;
    a->e = (hone_err){0};
    return hook_emit(a->hooks, p, &a->data, &a->e);
}

/* A file of shared data line by line; NULL where it is absent. */
static FILE *open_shared(const char *name)
{
    char *path = aid_shared(name);
    FILE *f = NULL;
    if (path == NULL)
        return NULL;
    size_t n = strlen(path);
    if (n > 3 && strcmp(path + n - 3, ".gz") == 0) {
        char *command = mem_printf("gzip -dc '%s'", path);
        f = popen(command, "r");
        free(command);
    } else {
        f = fopen(path, "r");
    }
    free(path);
    return f;
}

static json_t *next_line(FILE *f)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n = getline(&line, &cap, f);
    json_t *v = n > 0 ? json_loadb(line, (size_t)n, 0, NULL) : NULL;
    free(line);
    return v;
}

static void test_every_script_opens(void **state)
{
    (void)state;
    char **names;
    int n = 0;
    assert_int_equal(dir_list(&names, "lua/bundled", NULL), 0);
    for (int i = 0; names[i] != NULL; i++) {
        const char *suffix = strrchr(names[i], '.');
        if (suffix == NULL || strcmp(suffix, ".lua") != 0)
            continue;
        aid_lua a = {0};
        char *name = mem_strndup(names[i], (size_t)(suffix - names[i]));
        n++;
        open_it(&a, name, NULL);
        assert_string_equal(lua_plugin_name(a.plugin), name);
        json_t *info = lua_plugin_info(a.plugin);
        assert_true(json_array_size(json_object_get(info, "tests")) > 0);
        json_decref(info);
        close_it(&a);
        free(name);
    }
    dir_list_free(names);
    assert_true(n >= 7);
}

/* ---- language ---- */

static int filter(aid_lua *a, const char *text)
{
    return emit(a, HOOK_DATA_FILTER,
                json_pack("{s:{s:s}, s:s, s:i, s:{}}", "record", "text", text, "source", "x",
                          "line", 1, "tags"));
}

static void test_language(void **state)
{
    (void)state;
    static const char *const others[] = {
        "Die Kaffeemaschine ist nicht mit dem Netz verbunden, und der Schalter steht auf null.",
        "La machine n'est pas dans la cuisine, et le café est sur la table avec les tasses.",
        "El café no es para los que se van a la cama, pero la taza es de un color muy claro.",
        "Il caffè non è per chi va a letto, ma la tazza è di un colore che si vede con la luce.",
        "De machine is niet met het net verbonden en de schakelaar staat op nul, maar het is een "
        "begin.",
    };
    aid_lua a = {0};
    open_it(&a, "language", "{\"least_words\": 3}");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(filter(&a, others[i]), HONE_EVETO);
    assert_int_equal(filter(&a, "Two words"), HONE_EVETO);
    assert_string_equal(a.e.msg, "data.filter: refused by language: 2 words");
    FILE *f = open_shared("data/datasets/llamafactory/c4_demo.jsonl");
    if (f == NULL) {
        close_it(&a);
        skip();
    }
    int n = 0, kept = 0;
    for (json_t *row; (row = next_line(f)) != NULL; n++) {
        kept += filter(&a, json_string_value(json_object_get(row, "text"))) == 0;
        json_decref(row);
    }
    fclose(f);
    assert_true(n > 100);
    if (kept * 100 < n * 99)
        fail_msg("%d of %d English texts are kept", kept, n);
    close_it(&a);
}

/* ---- toxicity ---- */

/* The whole text through the guard in pieces of random length; caller frees. */
static char *stream(aid_lua *a, const char *text, size_t len, rng *r, size_t longest)
{
    char *out = mem_alloc(2 * len + 1);
    size_t at = 0;
    for (bool eof = false; !eof;) {
        size_t n = longest == 0 ? len : 1 + rng_below(r, longest);
        if (n > len - at)
            n = len - at;
        while (at + n < len && ((unsigned char)text[at + n] & 0xc0) == 0x80)
            n++; /* the server cuts between characters */
        eof = at + n == len;
        int rc = emit(a, HOOK_SERVE_CHUNK,
                      json_pack("{s:s, s:i, s:s%, s:b}", "request_id", "r", "choice", 0, "text",
                                text + at, n, "eof", eof));
        if (rc != 0)
            fail_msg("%s", a->e.msg);
        strcat(out, json_string_value(json_object_get(a->data, "text")));
        at += n;
    }
    return out;
}

static void test_toxicity_of_streams(void **state)
{
    (void)state;
    aid_lua a = {0};
    rng r = {.seed = 3};
    open_it(&a, "toxicity", NULL);
    FILE *f = open_shared("data/datasets/hh-rlhf/harmless-base-test.jsonl.gz");
    if (f == NULL) {
        close_it(&a);
        skip();
    }
    int n = 0, masked = 0;
    for (json_t *row; n < 150 && (row = next_line(f)) != NULL; n++) {
        const char *text = json_string_value(json_object_get(row, "rejected"));
        size_t len = strlen(text);
        char *whole = stream(&a, text, len, &r, 0);
        masked += strcmp(whole, text) != 0;
        for (size_t longest = 1; longest <= 16; longest *= 4) {
            char *cut = stream(&a, text, len, &r, longest);
            if (strcmp(cut, whole) != 0)
                fail_msg("in pieces: %s\nwhole: %s", cut, whole);
            free(cut);
        }
        free(whole);
        json_decref(row);
    }
    pclose(f);
    assert_int_equal(n, 150);
    assert_true(masked > 5 && masked < 50);
    close_it(&a);
}

static void test_toxicity_refuses(void **state)
{
    (void)state;
    aid_lua a = {0};
    open_it(&a, "toxicity",
            "{\"answer\": \"refuse\", \"request\": \"mask\", \"words\": [\"d\xc3\xb6ner\"]}");
    assert_int_equal(
        aid_lua_emit(&a, "serve.chunk",
                     "{'request_id':'r','choice':0,'text':'ein D\xc3\x96','eof':false}"),
        0);
    assert_string_equal(json_string_value(json_object_get(a.data, "text")), "ein ");
    assert_int_equal(
        aid_lua_emit(&a, "serve.chunk", "{'request_id':'r','choice':0,'text':'NER.','eof':false}"),
        HONE_EVETO);
    assert_int_equal(
        aid_lua_emit(&a, "serve.request",
                     "{'body':{'messages':[{'role':'user','content':[{'type':'text','text':"
                     "'D\xc3\xb6ner?'}]}]}}"),
        0);
    assert_string_equal(aid_lua_data(&a), "{\"body\":{\"messages\":[{\"content\":[{\"text\":\"***?"
                                          "\",\"type\":\"text\"}],\"role\":\"user\"}]}}");
    /* A word longer than any of the list is let go in pieces, and its end begins no other. */
    assert_int_equal(aid_lua_emit(&a, "serve.chunk",
                                  "{'request_id':'s','choice':0,'text':'abcdefghijk','eof':false}"),
                     0);
    assert_string_equal(json_string_value(json_object_get(a.data, "text")), "abcdefghijk");
    assert_int_equal(aid_lua_emit(&a, "serve.chunk",
                                  "{'request_id':'s','choice':0,'text':'d\xc3\xb6ner','eof':true}"),
                     0);
    assert_string_equal(json_string_value(json_object_get(a.data, "text")), "d\xc3\xb6ner");
    close_it(&a);
}

/* ---- reward and numbers ---- */

static double score(aid_lua *a, const char *prediction, const char *reference, const char *name)
{
    if (emit(a, HOOK_EVAL_METRIC,
             json_pack("{s:s, s:s, s:{}}", "prediction", prediction, "reference", reference,
                       "scores")) != 0)
        fail_msg("%s", a->e.msg);
    return json_number_value(json_object_get(json_object_get(a->data, "scores"), name));
}

static void test_rewards_of_school_sums(void **state)
{
    (void)state;
    aid_lua reward = {0}, numbers = {0};
    open_it(&reward, "reward", NULL);
    open_it(&numbers, "numbers", NULL);
    FILE *f = open_shared("data/datasets/gsm8k/train.jsonl");
    if (f == NULL) {
        close_it(&reward);
        close_it(&numbers);
        skip();
    }
    int n = 0;
    for (json_t *row; n < 500 && (row = next_line(f)) != NULL; n++) {
        const char *text = json_string_value(json_object_get(row, "answer"));
        char *wrong = mem_printf("%s7", text),
             *bare = mem_printf("It is %s", strstr(text, "#### ") + 5);
        if (score(&reward, text, text, "reward") != 1 ||
            score(&reward, wrong, text, "reward") > 0.21 ||
            score(&reward, bare, text, "reward") < 0.89 ||
            score(&reward, bare, text, "reward") > 0.91 ||
            score(&numbers, text, text, "numbers") != 1 ||
            score(&numbers, wrong, text, "numbers") != 0)
            fail_msg("%s", text);
        free(wrong);
        free(bare);
        json_decref(row);
    }
    fclose(f);
    assert_int_equal(n, 500);
    close_it(&reward);
    close_it(&numbers);
}

/* ---- feedback_spam ---- */

static void take_count(const char *owner, const char *name, double value, void *user)
{
    (void)owner;
    (void)name;
    *(double *)user = value;
}

/* Real answers as corrections: few of them are taken for spam. */
static void test_feedback_of_people_passes(void **state)
{
    aid_lua a = {.dir = mem_strdup(*state)};
    char *path = aid_shared("data/datasets/llamafactory/dpo_en_demo.json");
    json_t *rows = NULL;
    open_it(&a, "feedback_spam", "{\"links\": 1}");
    a.args.state_dir = NULL;
    if (path == NULL || js_load(&rows, path, NULL) != 0) {
        free(path);
        a.dir = NULL;
        close_it(&a);
        skip();
    }
    size_t n = json_array_size(rows) < 300 ? json_array_size(rows) : 300, spam = 0;
    for (size_t i = 0; i < n; i++) {
        json_t *chosen = json_object_get(json_array_get(rows, i), "chosen");
        const char *text = json_string_value(json_object_get(chosen, "value"));
        assert_int_equal(emit(&a, HOOK_FEEDBACK_INGEST,
                              json_pack("{s:s, s:s}", "rating", "down", "correction", text)),
                         0);
        spam += json_object_get(a.data, "tags") != NULL;
    }
    if (n < 100 || spam * 50 > n)
        fail_msg("%zu of %zu real answers are taken for spam", spam, n);
    double counted = 0;
    hook_each_count(a.hooks, take_count, &counted);
    assert_true(counted == (double)spam);
    free(path);
    json_decref(rows);
    free(a.dir);
    a.dir = NULL;
    close_it(&a);
}

/* ---- gate ---- */

static void test_gate(void **state)
{
    (void)state;
    static const struct {
        const char *settings, *report, *verdict, *reason;
    } rows[] = {
        {"{\"least\": 0.5}", "{'n':9,'metrics':{'acc':{'before':0.5,'after':0.4}}}", "fail",
         "fail: gate: holdout acc is 0.4, at least 0.5"},
        {"{\"least\": 0.5}", "{'n':9,'metrics':{'acc':{'before':0.5,'after':0.6}}}", "pass",
         "pass: gate: 1 figures keep the rules"},
        {"{\"worse\": 0.05}", "{'n':9,'metrics':{'acc':{'before':0.5,'after':0.4}}}", "fail",
         "fail: gate: holdout acc is worse than live by 0.1, at most 0.05"},
        {"{\"most\": 3}",
         "{'n':9,'metrics':{'ppl':{'before':2,'after':4,'smaller_is_better':true}}}", "fail",
         "fail: gate: holdout ppl is 4, at most 3"},
        {"{\"examples\": 10}", "{'n':9,'metrics':{'acc':{'before':0.5,'after':0.6}}}",
         "inconclusive", "inconclusive: gate: holdout has 9 examples, 10 are wanted"},
        {"{\"metric\": \"f1\"}", "{'n':9,'metrics':{'acc':{'before':0.5,'after':0.6}}}",
         "inconclusive", "inconclusive: gate: no metric of its rules was measured"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        aid_lua a = {0};
        open_it(&a, "gate", rows[i].settings);
        char *data = mem_printf("{'verdict':'pass','reasons':[],'holdout':%s,'feedback':null}",
                                rows[i].report);
        assert_int_equal(aid_lua_emit(&a, "promote.gate", data), 0);
        assert_string_equal(json_string_value(json_object_get(a.data, "verdict")), rows[i].verdict);
        json_t *why = json_object_get(a.data, "reasons");
        assert_string_equal(json_string_value(json_array_get(why, 0)), rows[i].reason);
        free(data);
        close_it(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_script_opens),
        cmocka_unit_test(test_language),
        cmocka_unit_test(test_toxicity_of_streams),
        cmocka_unit_test(test_toxicity_refuses),
        cmocka_unit_test(test_rewards_of_school_sums),
        cmocka_unit_test_setup_teardown(test_feedback_of_people_passes, aid_dir_quick_setup,
                                        aid_dir_teardown),
        cmocka_unit_test(test_gate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
