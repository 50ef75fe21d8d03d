/* Metrics on a tiny model: figures worked out by hand from scores and answers taken another way. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/eval/eval.h"
#include "core/eval/eval_int.h"
#include "serve/engine/served.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_tiny.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char *dir, *data;
static served *sv;

static int set_up(void **state)
{
    (void)state;
    hone_err e = {0};
    dir = aid_dir_make();
    data = path_join(dir, "data.jsonl");
    char *model_dir = path_join(dir, "model");
    aid_tiny_make(model_dir);
    served_options o = {.model_dir = model_dir, .device = "cpu", .dtype = KERN_F32, .kv_tokens = 1};
    if (served_open(&sv, &o, &e) != 0)
        fail_msg("%s", e.msg);
    free(model_dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    served_release(sv);
    free(data);
    aid_dir_drop(dir);
    return 0;
}

static void put(const char *text)
{
    assert_int_equal(file_write(data, text, strlen(text), NULL), 0);
}

static eval_options options(const char *metrics)
{
    return (eval_options){.m = sv->model,
                          .t = sv->tok,
                          .c = sv->chat,
                          .data = data,
                          .metrics = metrics,
                          .max_tokens = 5};
}

static json_t *evaluate(const char *metrics)
{
    eval_options o = options(metrics);
    json_t *r = NULL;
    hone_err e = {0};
    if (eval_run(&r, &o, &e) != 0)
        fail_msg("%s", e.msg);
    return r;
}

static void expect_error(const char *metrics, int code, const char *message)
{
    eval_options o = options(metrics);
    json_t *r = NULL;
    hone_err e = {0};
    assert_int_equal(eval_run(&r, &o, &e), code);
    assert_null(r);
    if (strstr(e.msg, message) == NULL)
        fail_msg("'%s' does not say '%s'", e.msg, message);
}

static double figure(const json_t *report, const char *name, const char *key)
{
    json_t *v = json_object_get(json_object_get(json_object_get(report, "metrics"), name), key);
    if (!json_is_number(v))
        fail_msg("no %s.%s", name, key);
    return json_number_value(v);
}

/* Sum of -log p over the tokens of `text` from the k-th on, token by token. */
static double nll_of(const char *text, size_t from, double *n)
{
    tok_ids ids = {0};
    hone_err e = {0};
    int32_t pos[64], target[64], cu[2];
    float logp[64];
    double sum = 0;
    assert_int_equal(tok_encode(sv->tok, text, strlen(text), TOK_ADD_SPECIAL, &ids, &e), 0);
    cu[0] = 0;
    cu[1] = (int32_t)ids.n;
    for (size_t i = 0; i < ids.n; i++) {
        pos[i] = (int32_t)i;
        target[i] = i + 1 < ids.n && i + 1 >= from ? ids.id[i + 1] : -1;
        *n += target[i] >= 0;
    }
    const model_batch b = {
        .n = (int64_t)ids.n, .ids = ids.id, .pos = pos, .target = target, .cu = cu, .n_seg = 1};
    assert_int_equal(model_score(sv->model, &b, logp, &e), 0);
    for (size_t i = 0; i < ids.n; i++)
        sum -= target[i] >= 0 ? (double)logp[i] : 0;
    tok_ids_free(&ids);
    return sum;
}

static void test_perplexity_is_a_ratio_of_sums(void **state)
{
    (void)state;
    put("{\"text\": \"hello you\"}\n{\"text\": \"a b c d e f\"}\n{\"prompt\": \"what is\", "
        "\"completion\": \" it\"}\n");
    json_t *r = evaluate("perplexity");
    double n = 0;
    double nll =
        nll_of("hello you", 1, &n) + nll_of("a b c d e f", 1, &n) + nll_of("what is it", 7, &n);
    double bytes = 8 + 10 + 3;
    assert_int_equal((int)n, 8 + 10 + 3);
    assert_true(fabs(figure(r, "perplexity", "value") - exp(nll / n)) < 1e-3);
    assert_true(fabs(figure(r, "perplexity", "byte_perplexity") - exp(nll / bytes)) < 1e-3);
    assert_true(fabs(figure(r, "perplexity", "bits_per_byte") - nll / bytes / log(2)) < 1e-4);
    json_decref(r);
}

/* A report that batches differently is the same report. */
static void test_batches_do_not_matter(void **state)
{
    (void)state;
    put("{\"prompt\": \"a b\", \"completion\": \" c\"}\n{\"prompt\": \"hello\", \"completion\": \" "
        "you\"}\n"
        "{\"prompt\": \"x\", \"completion\": \"y z\"}\n");
    json_t *one = evaluate("perplexity,exact_match,stops");
    eval_options o = options("perplexity,exact_match,stops");
    o.batch = 1;
    o.batch_tokens = 1;
    json_t *two = NULL;
    assert_int_equal(eval_run(&two, &o, NULL), 0);
    assert_true(fabs(figure(one, "perplexity", "nll") - figure(two, "perplexity", "nll")) < 1e-5);
    assert_true(json_equal(json_object_get(json_object_get(one, "examples"), "exact_match"),
                           json_object_get(json_object_get(two, "examples"), "exact_match")));
    json_decref(one);
    json_decref(two);
}

/* The model's own greedy answers as references: all match, and the labels of the matrix are they.
 */
static void test_answers_are_compared(void **state)
{
    (void)state;
    static const char *const prompts[] = {"ab", "cd", "what", "hello"};
    char lines[2048] = "";
    for (int i = 0; i < 4; i++) {
        tok_ids ids = {0};
        gen_result r = {0};
        gen_params p;
        gen_defaults(&p);
        p.temperature = 0;
        p.max_tokens = 5;
        assert_int_equal(
            tok_encode(sv->tok, prompts[i], strlen(prompts[i]), TOK_ADD_SPECIAL, &ids, NULL), 0);
        gen_prompt prompt = {.ids = ids.id, .n = ids.n};
        assert_int_equal(gen_run(sv->model, sv->tok, &p, &prompt, 1, &r, NULL, NULL, NULL), 0);
        json_t *o =
            json_pack("{s:s, s:s}", "prompt", prompts[i], "completion", i == 3 ? "wrong" : r.text);
        char *text = json_dumps(o, JSON_COMPACT);
        strcat(strcat(lines, text), "\n");
        free(text);
        json_decref(o);
        gen_result_free(&r);
        tok_ids_free(&ids);
    }
    put(lines);
    json_t *r = evaluate("exact_match,accuracy,normalized_match,latency");
    assert_true(figure(r, "exact_match", "value") == 0.75);
    assert_true(figure(r, "accuracy", "value") == 0.75);
    assert_true(figure(r, "normalized_match", "value") == 0.75);
    assert_true(figure(r, "exact_match", "low") > 0.2 && figure(r, "exact_match", "high") < 1);
    json_t *latency = json_object_get(json_object_get(r, "metrics"), "latency");
    assert_true(json_number_value(json_object_get(json_object_get(latency, "total_s"), "p95")) > 0);
    json_decref(r);
}

/* P, R and F1 from a matrix worked out by hand: a a b b c against a b b x c. */
static void test_classification_by_hand(void **state)
{
    (void)state;
    static const char *const want[] = {"a", "a", "b", "b", "c"}, *const got[] = {"a", "b", "b ",
                                                                                 "x", "c"};
    example items[5] = {0};
    for (int i = 0; i < 5; i++) {
        items[i].reference = mem_strdup(want[i]);
        items[i].answer.text = mem_strdup(got[i]);
    }
    example_set s = {.items = items, .n = 5};
    json_t *summary = NULL, *examples = NULL;
    assert_int_equal(metric_classification(&summary, &examples, &s, NULL, NULL), 0);
    assert_true(json_number_value(json_object_get(summary, "value")) == 0.6);
    double f_a = 2 * 1.0 * 0.5 / 1.5, f_b = 0.5, f_c = 1;
    assert_true(fabs(json_number_value(json_object_get(summary, "macro_f1")) -
                     (f_a + f_b + f_c) / 3) < 1e-12);
    assert_true(fabs(json_number_value(json_object_get(summary, "weighted_f1")) -
                     (2 * f_a + 2 * f_b + f_c) / 5) < 1e-12);
    char *confusion = json_dumps(json_object_get(summary, "confusion"), JSON_COMPACT);
    assert_string_equal(confusion, "[[1,1,0,0],[0,1,0,1],[0,0,1,0]]");
    free(confusion);
    json_decref(summary);
    json_decref(examples);
    for (int i = 0; i < 5; i++) {
        free(items[i].reference);
        free(items[i].answer.text);
    }
}

static void test_normalised_text(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"  The cat,  sat!", "cat sat"},
                                          {"A", ""},
                                          {"an-other", "another"},
                                          {"Zo\xC3\xAB", "zo\xC3\xAB"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *got = text_normalised(rows[i][0]);
        assert_string_equal(got, rows[i][1]);
        free(got);
    }
}

static void test_compare(void **state)
{
    (void)state;
    put("{\"text\": \"hello you\"}\n{\"text\": \"a b c d e f\"}\n{\"text\": \"the end\"}\n");
    json_t *a = evaluate("perplexity"), *b = json_deep_copy(a), *c = NULL;
    json_t *xs = json_object_get(json_object_get(b, "examples"), "perplexity");
    for (size_t i = 0; i < 3; i++) { /* every token half a nat easier */
        double n = json_number_value(json_array_get(json_array_get(xs, i), 1));
        double nll = json_number_value(json_array_get(json_array_get(xs, i), 0));
        json_array_set_new(json_array_get(xs, i), 0, json_real(nll - 0.5 * n));
    }
    hone_err e = {0};
    assert_int_equal(eval_compare(&c, a, b, &e), 0);
    json_t *m = json_object_get(json_object_get(c, "metrics"), "perplexity");
    assert_true(fabs(json_number_value(json_object_get(m, "difference")) + 0.5) < 1e-9);
    assert_true(fabs(json_number_value(json_object_get(m, "high")) + 0.5) < 1e-9);
    assert_true(json_is_true(json_object_get(m, "better")));
    json_decref(c);
    assert_int_equal(eval_compare(&c, a, a, &e), 0);
    m = json_object_get(json_object_get(c, "metrics"), "perplexity");
    assert_true(json_is_null(json_object_get(m, "better")));
    json_decref(c);
    json_object_set_new(b, "data_sha256", json_string("other"));
    assert_int_equal(eval_compare(&c, a, b, &e), HONE_EINVAL);
    assert_string_equal(e.msg, "the reports differ in 'data_sha256' and cannot be compared");
    json_decref(a);
    json_decref(b);
}

static int score(hook_call *call, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    double n = (double)json_string_length(json_object_get(call->data, "prediction"));
    json_object_set_new(json_object_get(call->data, "scores"), "length", json_real(n));
    return HOOK_MODIFIED;
}

static void test_hooks_add_metrics(void **state)
{
    (void)state;
    put("{\"prompt\": \"ab\", \"completion\": \"c\"}\n{\"prompt\": \"cd\", \"completion\": "
        "\"e\"}\n");
    hooks *h = hook_new();
    hook_on(h, HOOK_EVAL_METRIC, "test", 0, score, NULL, NULL);
    eval_options o = options("stops");
    o.hooks = h;
    json_t *r = NULL;
    hone_err e = {0};
    if (eval_run(&r, &o, &e) != 0)
        fail_msg("%s", e.msg);
    assert_true(figure(r, "length", "value") > 0);
    json_decref(r);
    hook_free(h);
}

/* ---- probes ---- */

typedef struct probe_state {
    double ll[3], sum;
    char *answer;
    const char *name; /* of the score */
    bool none;        /* its value is null */
} probe_state;

static int probe(hook_call *call, void *user, hone_err *e)
{
    (void)e;
    probe_state *p = user;
    json_t *items = json_object_get(call->data, "items");
    size_t i;
    json_t *v;
    if (strcmp(json_string_value(json_object_get(call->data, "phase")), "items") == 0) {
        json_array_append_new(items,
                              json_pack("{s:s, s:s, s:b, s:[{s:s}, {s:s, s:s}, {s:s, s:s}], s:[s]}",
                                        "probe", "test", "group", "g", "tokens", 1, "texts", "text",
                                        "hello you", "context", "hello ", "text", "you", "context",
                                        "hello", "text", " you", "prompts", "ab"));
        return HOOK_MODIFIED;
    }
    json_t *item = json_array_get(items, 0), *texts = json_object_get(item, "texts");
    for (i = 0; i < 3; i++)
        p->ll[i] = json_number_value(json_object_get(json_array_get(texts, i), "ll"));
    json_array_foreach (json_object_get(json_array_get(texts, 0), "logprobs"), i, v)
        p->sum += json_number_value(v);
    p->answer = mem_strdup(json_string_value(json_array_get(json_object_get(item, "answers"), 0)));
    json_object_set_new(json_object_get(call->data, "scores"), p->name,
                        json_pack("{s:o, s:i, s:[f]}", "value",
                                  p->none ? json_null() : json_real(0.25), "n", 1, "examples",
                                  0.25));
    return HOOK_MODIFIED;
}

static int run_probe(probe_state *p, json_t **r, hone_err *e)
{
    put("{\"prompt\": \"hello\", \"completion\": \" you\"}\n");
    hooks *h = hook_new();
    hook_on(h, HOOK_BIAS_PROBE, "test", 0, probe, p, NULL);
    eval_options o = options("perplexity");
    o.hooks = h;
    int rc = eval_run(r, &o, e);
    hook_free(h);
    return rc;
}

static void test_a_probe_is_given_what_the_model_says(void **state)
{
    (void)state;
    json_t *r = NULL;
    hone_err e = {0};
    probe_state p = {.name = "skew"};
    if (run_probe(&p, &r, &e) != 0)
        fail_msg("%s", e.msg);
    assert_true(fabs(p.sum - p.ll[0]) < 1e-4);
    assert_true(p.ll[1] == p.ll[2]); /* a space that ends the context goes to the text */
    assert_true(p.ll[0] < p.ll[1]);
    double nll = json_number_value(json_array_get(
        json_array_get(json_object_get(json_object_get(r, "examples"), "perplexity"), 0), 0));
    assert_true(fabs(nll + p.ll[1]) < 1e-4); /* as prompt and completion are scored */
    assert_true(strlen(p.answer) > 0);
    assert_true(figure(r, "skew", "value") == 0.25);
    assert_int_equal(json_array_size(json_object_get(json_object_get(r, "examples"), "skew")), 1);
    free(p.answer);
    json_decref(r);
}

#define TALK                                                                                       \
    "[{\"role\": \"user\", \"content\": \"hello\"}, {\"role\": \"assistant\", \"content\": "       \
    "\"you\"}]"

/* user: the role of the last message. */
static int probe_talk(hook_call *call, void *user, hone_err *e)
{
    json_t *talk, *items = json_object_get(call->data, "items");
    if (strcmp(json_string_value(json_object_get(call->data, "phase")), "items") == 0) {
        assert_int_equal(js_parse(&talk, TALK, strlen(TALK), e), 0);
        json_object_set_new(json_array_get(talk, 1), "role", json_string(user));
        json_array_append_new(items, json_pack("{s:[{s:o}]}", "texts", "messages", talk));
        return HOOK_MODIFIED;
    }
    json_t *text = json_array_get(json_object_get(json_array_get(items, 0), "texts"), 0);
    json_object_set(json_object_get(call->data, "scores"), "ll", json_object_get(text, "ll"));
    return HOOK_MODIFIED;
}

/* Of a conversation the assistant's last turn is scored, as eval scores it. */
static void test_a_probe_may_score_conversations(void **state)
{
    (void)state;
    static char assistant[] = "assistant", role[] = "user";
    json_t *r = NULL;
    hone_err e = {0};
    put("{\"messages\": " TALK "}\n");
    for (int i = 0; i < 2; i++) {
        hooks *h = hook_new();
        hook_on(h, HOOK_BIAS_PROBE, "test", 0, probe_talk, i == 0 ? assistant : role, NULL);
        eval_options o = options("perplexity");
        o.hooks = h;
        int rc = eval_run(&r, &o, &e);
        hook_free(h);
        if (i == 0 && rc != 0)
            fail_msg("%s", e.msg);
        if (i == 1)
            assert_string_equal(e.msg, "bias.probe: item 0: the last message to score must be the "
                                       "assistant's");
        if (i == 0) {
            double nll = json_number_value(json_array_get(
                json_array_get(json_object_get(json_object_get(r, "examples"), "perplexity"), 0),
                0));
            assert_true(nll > 0 && fabs(figure(r, "ll", "value") + nll) < 1e-6);
            json_decref(r);
        }
    }
}

static void test_scores_of_probes(void **state)
{
    (void)state;
    json_t *r = NULL;
    hone_err e = {0};
    probe_state p = {.name = "skew", .none = true};
    assert_int_equal(run_probe(&p, &r, &e), 0);
    json_t *m = json_object_get(json_object_get(r, "metrics"), "skew");
    assert_true(json_is_null(json_object_get(m, "value")));
    assert_null(json_object_get(json_object_get(r, "examples"), "skew"));
    free(p.answer);
    json_decref(r);
    p.name = "perplexity";
    assert_int_equal(run_probe(&p, &r, &e), HONE_EEXIST);
    assert_string_equal(e.msg, "bias.probe: there is a metric 'perplexity' already");
    free(p.answer);
    eval_options o = options("perplexity");
    o.data = NULL;
    assert_int_equal(eval_run(&r, &o, &e), HONE_EINVAL);
    assert_string_equal(e.msg, "there is nothing to evaluate: no data, and no probe");
}

static const char *given; /* what the metric answers as scores, as JSON */

static int give(hook_call *call, void *user, hone_err *e)
{
    json_t *scores;
    (void)user;
    if (json_integer_value(json_object_get(call->data, "line")) == 2 && given[0] == '1')
        return HOOK_CONTINUE;
    assert_int_equal(js_parse(&scores, given + 1, strlen(given + 1), e), 0);
    json_object_set_new(call->data, "scores", scores);
    return HOOK_MODIFIED;
}

/* Scores of subscribers are metrics with intervals, compared pair by pair. */
static void test_scores_of_hooks_are_held_to_something(void **state)
{
    static const struct {
        const char *given, *msg;
    } rows[] = {
        {"0{\"a\": \"x\"}", "eval.metric: score 'a' is not a number"},
        {"0{\"perplexity\": 1}", "eval.metric: score 'perplexity' has the name of a metric"},
        {"1{\"a\": 1}", "eval.metric: line 2 has no score 'a'"},
    };
    (void)state;
    hone_err e = {0};
    json_t *r = NULL, *c = NULL;
    hooks *h = hook_new();
    put("{\"text\": \"ab\"}\n{\"text\": \"cd\"}\n");
    hook_on(h, HOOK_EVAL_METRIC, "test", 0, give, NULL, NULL);
    eval_options o = options("perplexity");
    o.hooks = h;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        given = rows[i].given;
        assert_true(eval_run(&r, &o, &e) < 0);
        assert_non_null(strstr(e.msg, rows[i].msg));
    }
    given = "0{\"a\": {\"value\": 2, \"smaller_is_better\": true, \"info\": true}}";
    if (eval_run(&r, &o, &e) != 0)
        fail_msg("%s", e.msg);
    assert_true(figure(r, "a", "value") == 2 && figure(r, "a", "low") == 2);
    assert_int_equal(eval_compare(&c, r, r, &e), 0);
    json_t *a = json_object_get(json_object_get(c, "metrics"), "a");
    assert_true(json_is_true(json_object_get(a, "smaller_is_better")));
    assert_true(json_is_true(json_object_get(a, "info"))); /* the gate passes it over */
    assert_string_equal(json_string_value(json_object_get(a, "unit")), "score");
    json_decref(c);
    json_decref(r);
    hook_free(h);
}

static void test_refusals(void **state)
{
    (void)state;
    put("{\"text\": \"hello\"}\n");
    expect_error("perplexity,blue", HONE_ENOTFOUND,
                 "no metric 'blue' (there are: perplexity, exact_match");
    expect_error("exact_match", HONE_EINVAL, "line 1: plain text has no answer to generate");
    put("{\"prompt\": \"ab\", \"completion\": \"c\"}\n{\"prompt\": 3, \"completion\": \"c\"}\n");
    expect_error("stops", HONE_EFORMAT, "line 2");
    put("\n");
    expect_error("perplexity", HONE_EFORMAT, "data.jsonl");
    char *lines = mem_alloc(400);
    strcpy(lines, "{\"text\": \"");
    memset(lines + strlen(lines), 'a', 70);
    strcat(lines, "\"}\n");
    put(lines);
    free(lines);
    expect_error("perplexity", HONE_ELIMIT,
                 "line 1: 70 tokens are more than the model's context of 64");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_perplexity_is_a_ratio_of_sums),
        cmocka_unit_test(test_batches_do_not_matter),
        cmocka_unit_test(test_answers_are_compared),
        cmocka_unit_test(test_classification_by_hand),
        cmocka_unit_test(test_normalised_text),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_hooks_add_metrics),
        cmocka_unit_test(test_a_probe_is_given_what_the_model_says),
        cmocka_unit_test(test_a_probe_may_score_conversations),
        cmocka_unit_test(test_scores_of_probes),
        cmocka_unit_test(test_scores_of_hooks_are_held_to_something),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
