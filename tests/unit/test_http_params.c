/* The table of request parameters: what is taken, in what range, and what is refused by name. */
#include "serve/http/http_params.h"

#include "core/base/js.h"
#include "core/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define M "\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]"

static int read_as(params *p, int surface, const char *text, char *name, hone_err *e, json_t **body)
{
    hone_err pe = {0};
    if (js_parse(body, text, strlen(text), &pe) != 0)
        fail_msg("%s: %s", text, pe.msg);
    return params_read(p, surface, *body, NULL, name, e);
}

static void good(params *p, int surface, const char *text, json_t **body)
{
    char name[PARAMS_NAME];
    hone_err e = {0};
    if (read_as(p, surface, text, name, &e, body) != 0)
        fail_msg("%s: %s", text, e.msg);
}

static void bad(int surface, const char *text, int code, const char *field, const char *message)
{
    params p;
    json_t *body;
    char name[PARAMS_NAME];
    hone_err e = {0};
    int rc = read_as(&p, surface, text, name, &e, &body);
    if (rc != code || strcmp(name, field) != 0 || strstr(e.msg, message) == NULL)
        fail_msg("%s\n=> %s, '%s', '%s'", text, hone_errname(rc), name, e.msg);
    params_free(&p);
    json_decref(body);
}

static void test_all_that_is_taken(void **state)
{
    (void)state;
    params p;
    json_t *body;
    good(&p, PARAMS_CHAT,
         "{" M
         ", \"model\": \"m\", \"stream\": true, \"stream_options\": {\"include_usage\": true},"
         "\"n\": 3, \"max_completion_tokens\": 7, \"temperature\": 0.5, \"top_p\": 0.9,"
         "\"top_k\": 40, \"min_p\": 0.1, \"repetition_penalty\": 1.1, \"presence_penalty\": -1,"
         "\"frequency_penalty\": 2, \"seed\": -5, \"stop\": [\"a\", \"b\"],"
         "\"stop_token_ids\": [1, 2], \"ignore_eos\": true, \"logit_bias\": {\"7\": -100},"
         "\"logprobs\": true, \"top_logprobs\": 5, \"user\": \"u\", \"store\": false,"
         "\"metadata\": {\"k\": \"v\"}, \"tools\": [{\"type\": \"function\", \"function\":"
         " {\"name\": \"f\"}}], \"tool_choice\": \"auto\", \"chat_template_kwargs\": {\"x\": 1},"
         "\"response_format\": {\"type\": \"text\"}, \"service_tier\": \"auto\","
         "\"modalities\": [\"text\"], \"audio\": null}",
         &body);
    assert_string_equal(p.model, "m");
    assert_true(p.stream && p.include_usage && p.logprobs && p.has_seed && p.gen.ignore_eos);
    assert_int_equal(p.n, 3);
    assert_int_equal(p.max_tokens, 7);
    assert_true(p.gen.temperature == 0.5f && p.gen.top_p == 0.9f && p.gen.min_p == 0.1f);
    assert_int_equal(p.gen.top_k, 40);
    assert_true(p.gen.repetition == 1.1f && p.gen.presence == -1 && p.gen.frequency == 2);
    assert_true(p.gen.seed == (uint64_t)-5);
    assert_int_equal(p.gen.n_stop, 2);
    assert_string_equal(p.gen.stop[1], "b");
    assert_int_equal(p.gen.n_stop_ids, 2);
    assert_int_equal(p.gen.n_bias, 1);
    assert_int_equal(p.gen.bias_id[0], 7);
    assert_true(p.gen.bias[0] == -100);
    assert_int_equal(p.n_top, 5);
    assert_int_equal(p.store, PARAMS_STORE_NO);
    assert_int_equal(json_array_size(p.tools), 1);
    assert_int_equal(json_object_size(p.template_kwargs), 1);
    json_t *record = params_record(&p);
    assert_int_equal(json_integer_value(json_object_get(record, "max_tokens")), 7);
    json_decref(record);
    params_free(&p);
    json_decref(body);
}

static void test_defaults_come_from_the_model(void **state)
{
    (void)state;
    params p;
    json_t *body;
    char name[PARAMS_NAME];
    gen_params base = {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .repetition = 1.05f};
    js_parse(&body, "{" M ", \"top_p\": 0.5}", strlen("{" M ", \"top_p\": 0.5}"), NULL);
    assert_int_equal(params_read(&p, PARAMS_CHAT, body, &base, name, NULL), 0);
    assert_true(p.gen.temperature == 0.7f && p.gen.top_p == 0.5f && p.gen.top_k == 20);
    assert_true(p.gen.repetition == 1.05f);
    assert_int_equal(p.max_tokens, -1);
    assert_int_equal(p.n, 1);
    params_free(&p);
    json_decref(body);
}

static void test_ranges(void **state)
{
    (void)state;
    static const struct {
        const char *field, *value, *message;
    } rows[] = {
        {"temperature", "2.1", "'temperature' is 2.1, must lie between 0 and 2"},
        {"temperature", "-0.1", "must lie between 0 and 2"},
        {"temperature", "\"1\"", "must be a number"},
        {"top_p", "0", "must lie between"},
        {"top_p", "1.01", "must lie between"},
        {"min_p", "-1", "must lie between 0 and 1"},
        {"top_k", "-2", "'top_k' is -2"},
        {"n", "0", "'n' is 0, must lie between 1 and 8"},
        {"n", "9", "'n' is 9, must lie between 1 and 8"},
        {"n", "1.5", "must be an integer"},
        {"presence_penalty", "2.5", "must lie between -2 and 2"},
        {"frequency_penalty", "-2.5", "must lie between -2 and 2"},
        {"max_tokens", "0", "'max_tokens' is 0, must lie between 1 and"},
        {"max_tokens", "-1", "must lie between 1 and"},
        {"top_logprobs", "21", "must lie between 0 and 20"},
        {"logprobs", "1", "must be true or false"},
        {"seed", "1.5", "must be an integer"},
        {"stop", "\"\"", "has a text of 0 bytes"},
        {"stop", "[1]", "must be text or a list of texts"},
        {"stop", "[1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7]", "has 17 texts, at most 16 are taken"},
        {"stop_token_ids", "[-1]", "must be a list of token ids"},
        {"logit_bias", "[]", "must map at most 1024 token ids to numbers"},
        {"logit_bias", "{\"x\": 1}", "has the key 'x', which is not a token id"},
        {"logit_bias", "{\"1\": 101}", "must lie between -100 and 100"},
        {"logit_bias", "{\"1\": \"a\"}", "that is not a number"},
        {"stream", "\"true\"", "must be true or false"},
        {"store", "1", "must be true or false"},
        {"user", "5", "must be text"},
        {"user", "\"\"", "must have 1 to 512 bytes"},
        {"metadata", "{\"a\": 1}", "takes keys of 64 and texts of 512 bytes at most"},
        {"tools", "[{}]", "[0] is not {\"type\": \"function\""},
        {"chat_template_kwargs", "{\"messages\": []}", "may not set 'messages'"},
        {"model", "\"a\\u0000b\"", "must be text"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text = mem_printf("{" M ", \"%s\": %s}", rows[i].field, rows[i].value);
        bad(PARAMS_CHAT, text, HONE_EINVAL, rows[i].field, rows[i].message);
        free(text);
    }
}

static void test_what_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        int surface;
        const char *field, *value, *message;
    } rows[] = {
        {PARAMS_CHAT, "response_format", "{\"type\": \"json_object\"}",
         "'response_format' is not supported except as {\"type\":\"text\"}"},
        {PARAMS_CHAT, "tool_choice", "\"required\"", "'tool_choice' is not supported except as"},
        {PARAMS_CHAT, "audio", "{}", "'audio' is not supported"},
        {PARAMS_CHAT, "modalities", "[\"text\", \"audio\"]", "'modalities' is not supported"},
        {PARAMS_CHAT, "functions", "[]", "'functions' is not supported"},
        {PARAMS_CHAT, "reasoning_effort", "\"low\"", "'reasoning_effort' is not supported"},
        {PARAMS_CHAT, "guided_json", "{}", "'guided_json' is not supported"},
        {PARAMS_CHAT, "suffix", "\"x\"", "unknown parameter 'suffix'"},
        {PARAMS_CHAT, "temprature", "1",
         "unknown parameter 'temprature' (did you mean 'temperature'?)"},
        {PARAMS_CHAT, "stream_options", "{\"include_obfuscation\": true}",
         "unknown field 'include_obfuscation'"},
        {PARAMS_COMPLETION, "suffix", "\"x\"", "'suffix' is not supported except as \"\""},
        {PARAMS_COMPLETION, "best_of", "2", "'best_of' is not supported except as 1"},
        {PARAMS_COMPLETION, "messages", "[]", "unknown parameter 'messages'"},
        {PARAMS_COMPLETION, "top_logprobs", "2", "unknown parameter 'top_logprobs'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text =
            mem_printf("{%s, \"%s\": %s}", rows[i].surface == PARAMS_CHAT ? M : "\"prompt\": \"x\"",
                       rows[i].field, rows[i].value);
        bad(rows[i].surface, text, HONE_EUNSUPPORTED, rows[i].field, rows[i].message);
        free(text);
    }
}

static void test_what_must_agree(void **state)
{
    (void)state;
    bad(PARAMS_CHAT, "{}", HONE_EINVAL, "messages", "'messages' is missing");
    bad(PARAMS_COMPLETION, "{}", HONE_EINVAL, "prompt", "'prompt' is missing");
    bad(PARAMS_CHAT, "{" M ", \"top_logprobs\": 2}", HONE_EINVAL, "top_logprobs",
        "needs 'logprobs': true");
    bad(PARAMS_CHAT, "{" M ", \"stream_options\": {\"include_usage\": true}}", HONE_EINVAL,
        "stream_options", "needs 'stream': true");
    bad(PARAMS_CHAT, "{" M ", \"max_tokens\": 2, \"max_completion_tokens\": 3}", HONE_EINVAL,
        "max_tokens", "say different things");
    bad(PARAMS_COMPLETION, "{\"prompt\": \"x\", \"max_tokens\": 0}", HONE_EINVAL, "max_tokens",
        "only of use with 'echo'");
    params p;
    json_t *body;
    good(&p, PARAMS_CHAT,
         "{" M ", \"tool_choice\": \"none\", \"tools\": [{\"type\": \"function\", \"function\":"
         " {\"name\": \"f\"}}]}",
         &body);
    assert_null(p.tools);
    params_free(&p);
    json_decref(body);
}

static void test_messages(void **state)
{
    (void)state;
    static const struct {
        const char *messages, *field, *message;
        int code;
    } rows[] = {
        {"[]", "messages", "must be a list of at least one message", HONE_EINVAL},
        {"\"hi\"", "messages", "must be a list", HONE_EINVAL},
        {"[5]", "messages[0]", "must be an object with role and content", HONE_EINVAL},
        {"[{\"content\": \"x\"}]", "messages[0]", "has no role", HONE_EINVAL},
        {"[{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"user\"}]", "messages[1].content",
         "must be text or a list of text parts", HONE_EINVAL},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]", "messages[0].content",
         "[0] is of type 'image_url'; only text is", HONE_EUNSUPPORTED},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]", "messages[0].content",
         "[0] has no text", HONE_EINVAL},
        {"[{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\":"
         " {\"name\": \"f\", \"arguments\": \"{\"}}]}]",
         "messages[0].tool_calls[0].function", "has arguments that are not a JSON object",
         HONE_EINVAL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text = mem_printf("{\"messages\": %s}", rows[i].messages);
        bad(PARAMS_CHAT, text, rows[i].code, rows[i].field, rows[i].message);
        free(text);
    }
    params p;
    json_t *body;
    good(&p, PARAMS_CHAT,
         "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"},"
         "{\"type\": \"text\", \"text\": \"b\"}]}, {\"role\": \"assistant\", \"content\": null,"
         "\"tool_calls\": [{\"id\": \"1\", \"function\": {\"name\": \"f\","
         "\"arguments\": \"{\\\"x\\\": 1}\"}}]}]}",
         &body);
    char *text = js_text(p.messages, false);
    assert_string_equal(text, "[{\"role\":\"user\",\"content\":\"a\\nb\"},"
                              "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":"
                              "[{\"id\":\"1\",\"function\":{\"name\":\"f\","
                              "\"arguments\":{\"x\":1}}}]}]");
    free(text);
    params_free(&p);
    json_decref(body);
}

static void test_prompts(void **state)
{
    (void)state;
    static const char *const forms[] = {"\"x\"", "[1, 2]", "[\"a\", \"b\"]", "[[1], [2, 3]]",
                                        "\"\""};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        params p;
        json_t *body;
        char *text = mem_printf("{\"prompt\": %s, \"echo\": true, \"logprobs\": 2}", forms[i]);
        good(&p, PARAMS_COMPLETION, text, &body);
        assert_true(p.echo && p.logprobs);
        assert_int_equal(p.n_top, 2);
        params_free(&p);
        json_decref(body);
        free(text);
    }
    static const char *const wrong[] = {"[]",   "5",    "[1, \"a\"]",  "[[1], \"a\"]",
                                        "[[]]", "[-1]", "[\"a\", [1]]"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *text = mem_printf("{\"prompt\": %s}", wrong[i]);
        bad(PARAMS_COMPLETION, text, HONE_EINVAL, "prompt",
            "must be text, token ids, or a list of either");
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_is_taken),
        cmocka_unit_test(test_defaults_come_from_the_model),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_what_is_refused_by_name),
        cmocka_unit_test(test_what_must_agree),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_prompts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
