/* Chat and completions over the wire, whole and streamed, against an engine that says what it is
 * told. */
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/store/requests.h"
#include "tests/unit/aid_server.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define U "\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]"
#define CHAT "/v1/chat/completions"
#define COMP "/v1/completions"

static void has(const char *text, const char *needle)
{
    if (strstr(text, needle) == NULL)
        fail_msg("'%s' does not hold '%s'", text, needle);
}

static void expect(aid_server *s, const char *path, const char *body, int status,
                   const char *needle)
{
    aid_reply r = aid_call(s, "POST", path, NULL, body, status);
    assert_int_equal(r.status, status);
    has(r.body, needle);
    aid_reply_free(&r);
}

/* The body of a good reply, parsed. */
static json_t *ask(aid_server *s, const char *path, const char *body)
{
    json_t *v;
    hone_err e = {0};
    aid_reply r = aid_call(s, "POST", path, NULL, body, 200);
    if (js_parse(&v, r.body, r.len, &e) != 0)
        fail_msg("%s in %s", e.msg, r.raw);
    char *id = aid_header(&r, "x-request-id");
    assert_string_equal(id, json_string_value(json_object_get(v, "id")));
    free(id);
    aid_reply_free(&r);
    return v;
}

/* A value by a path such as "choices.0.message.content"; borrowed. */
static const json_t *at(const json_t *v, const char *path)
{
    char *copy = mem_strdup(path), *save = NULL;
    for (char *w = strtok_r(copy, ".", &save); w != NULL; w = strtok_r(NULL, ".", &save))
        v = *w >= '0' && *w <= '9' ? json_array_get(v, (size_t)atoi(w)) : json_object_get(v, w);
    free(copy);
    return v;
}

static void text_is(const json_t *v, const char *path, const char *want)
{
    const char *got = json_string_value(at(v, path));
    if (got == NULL || strcmp(got, want) != 0) {
        char *all = js_text(v, false);
        fail_msg("%s is '%s', not '%s', in %s", path, got != NULL ? got : "(none)", want, all);
    }
}

static int64_t num(const json_t *v, const char *path)
{
    return json_integer_value(at(v, path));
}

/* ---- whole answers ---- */

static void test_chat(void **state)
{
    aid_server *s = *state;
    json_t *v = ask(s, CHAT, "{" U ", \"model\": \"fake\", \"seed\": 7}");
    text_is(v, "object", "chat.completion");
    text_is(v, "model", "fake");
    text_is(v, "choices.0.message.role", "assistant");
    text_is(v, "choices.0.message.content", "Hello");
    text_is(v, "choices.0.finish_reason", "stop");
    assert_true(json_is_null(at(v, "choices.0.logprobs")));
    assert_true(json_is_null(at(v, "choices.0.message.refusal")));
    assert_int_equal(num(v, "usage.prompt_tokens"), 21);
    assert_int_equal(num(v, "usage.completion_tokens"), 5);
    assert_int_equal(num(v, "usage.total_tokens"), 26);
    assert_int_equal(strncmp(json_string_value(at(v, "id")), "chatcmpl-", 9), 0);
    assert_int_equal(strncmp(json_string_value(at(v, "system_fingerprint")), "fp_", 3), 0);
    json_decref(v);
    char *prompt = aid_fake_last_prompt(s->fake);
    assert_string_equal(prompt, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    free(prompt);
    char *p = aid_fake_last_params(s->fake);
    has(p, "max_tokens=-1 temperature=1 top_p=1 ");
    has(p, " seed=7 ");
    free(p);
}

static void test_parameters_reach_the_engine(void **state)
{
    aid_server *s = *state;
    json_decref(ask(s, CHAT,
                    "{" U ", \"max_tokens\": 3, \"temperature\": 0.5, \"top_p\": 0.25,"
                    "\"top_k\": 4, \"min_p\": 0.125, \"presence_penalty\": 1,"
                    "\"frequency_penalty\": -1, \"repetition_penalty\": 1.5, \"seed\": 9, \"n\": 2,"
                    "\"stop\": \"xx\", \"stop_token_ids\": [65], \"logit_bias\": {\"66\": -5},"
                    "\"logprobs\": true, \"top_logprobs\": 3, \"ignore_eos\": true}"));
    char *p = aid_fake_last_params(s->fake);
    assert_string_equal(p, "max_tokens=3 temperature=0.5 top_p=0.25 min_p=0.125 top_k=4 "
                           "repetition=1.5 presence=1 frequency=-1 seed=9 n_top=3 n=2 "
                           "ignore_eos=1 stop=xx stop_id=65 bias=66:-5");
    free(p);
    json_decref(ask(s, CHAT, "{" U ", \"chat_template_kwargs\": {\"style\": \"terse\"}}"));
    char *prompt = aid_fake_last_prompt(s->fake);
    has(prompt, "[terse]");
    free(prompt);
    json_decref(ask(s, CHAT, "{" U ", \"add_generation_prompt\": false}"));
    prompt = aid_fake_last_prompt(s->fake);
    assert_null(strstr(prompt, "assistant"));
    free(prompt);
}

static void test_choices_and_logprobs(void **state)
{
    aid_server *s = *state;
    s->plan->text = "A\xc3\xa9";
    json_t *v = ask(s, CHAT, "{" U ", \"n\": 2, \"logprobs\": true, \"top_logprobs\": 2}");
    assert_int_equal(json_array_size(at(v, "choices")), 2);
    text_is(v, "choices.0.message.content", "A\xc3\xa9");
    text_is(v, "choices.1.message.content",
            "A\xc3\xa9"
            "1");
    assert_int_equal(num(v, "choices.1.index"), 1);
    const json_t *c = at(v, "choices.0.logprobs.content");
    assert_int_equal(json_array_size(c), 3);
    text_is(c, "0.token", "A");
    assert_true(json_real_value(at(c, "0.logprob")) == -0.5);
    assert_int_equal(num(c, "0.bytes.0"), 65);
    assert_int_equal(json_array_size(at(c, "0.top_logprobs")), 2);
    text_is(c, "0.top_logprobs.1.token", "B");
    assert_true(json_real_value(at(c, "0.top_logprobs.1.logprob")) == -9999.0); /* was -inf */
    text_is(c, "1.token", "\xef\xbf\xbd"); /* half a character: its bytes are exact */
    assert_int_equal(num(c, "1.bytes.0"), 0xc3);
    assert_int_equal(num(v, "usage.completion_tokens"), 3 + 4);
    json_decref(v);
}

static void test_length(void **state)
{
    aid_server *s = *state;
    json_t *v = ask(s, CHAT, "{" U ", \"max_completion_tokens\": 2}");
    text_is(v, "choices.0.message.content", "He");
    text_is(v, "choices.0.finish_reason", "length");
    json_decref(v);
}

static void test_completions(void **state)
{
    aid_server *s = *state;
    json_t *v = ask(s, COMP, "{\"prompt\": \"Say\"}");
    text_is(v, "object", "text_completion");
    text_is(v, "choices.0.text", "Hello");
    assert_int_equal(strncmp(json_string_value(at(v, "id")), "cmpl-", 5), 0);
    assert_int_equal(num(v, "usage.prompt_tokens"), 3);
    json_decref(v);
    char *p = aid_fake_last_params(s->fake);
    has(p, "max_tokens=16 ");
    free(p);
    v = ask(s, COMP, "{\"prompt\": [\"a\", \"bc\"], \"n\": 2}");
    assert_int_equal(json_array_size(at(v, "choices")), 4);
    text_is(v, "choices.3.text", "Hello1");
    assert_int_equal(num(v, "usage.prompt_tokens"), 3);
    assert_int_equal(num(v, "usage.completion_tokens"), 22);
    json_decref(v);
    v = ask(s, COMP, "{\"prompt\": [65, 66], \"echo\": true, \"logprobs\": 1}");
    text_is(v, "choices.0.text", "ABHello");
    text_is(v, "choices.0.logprobs.tokens.0", "A");
    assert_true(json_is_null(at(v, "choices.0.logprobs.token_logprobs.0")));
    assert_true(json_is_null(at(v, "choices.0.logprobs.top_logprobs.0")));
    assert_true(json_real_value(at(v, "choices.0.logprobs.token_logprobs.1")) == -1);
    assert_true(json_real_value(at(v, "choices.0.logprobs.top_logprobs.1.B")) == -1);
    assert_int_equal(num(v, "choices.0.logprobs.text_offset.6"), 6);
    assert_int_equal(json_array_size(at(v, "choices.0.logprobs.tokens")), 7);
    json_decref(v);
    v = ask(s, COMP,
            "{\"prompt\": [[65], [66, 67]], \"echo\": true, \"max_tokens\": 0,"
            "\"logprobs\": 0}");
    text_is(v, "choices.0.text", "A");
    text_is(v, "choices.1.text", "BC");
    text_is(v, "choices.1.finish_reason", "length");
    assert_int_equal(num(v, "usage.completion_tokens"), 0);
    assert_int_equal(json_array_size(at(v, "choices.1.logprobs.tokens")), 2);
    json_decref(v);
}

/* ---- streams ---- */

/* The events of a stream as one array; "[DONE]" and comments as texts. */
static json_t *events(const char *body)
{
    json_t *all = json_array();
    for (const char *s = body; *s != '\0';) {
        const char *end = strstr(s, "\n\n");
        if (end == NULL)
            break;
        json_t *v = NULL;
        if (strncmp(s, "data: {", 7) == 0)
            js_parse(&v, s + 6, (size_t)(end - s) - 6, NULL);
        json_array_append_new(all, v != NULL ? v : json_stringn(s, (size_t)(end - s)));
        s = end + 2;
    }
    return all;
}

static json_t *stream(aid_server *s, const char *path, const char *body)
{
    aid_reply r = aid_call(s, "POST", path, NULL, body, 200);
    char *type = aid_header(&r, "Content-Type"), *cache = aid_header(&r, "Cache-Control");
    assert_string_equal(type, "text/event-stream");
    assert_string_equal(cache, "no-cache");
    free(type);
    free(cache);
    json_t *all = events(r.body);
    aid_reply_free(&r);
    return all;
}

/* The text of choice i, put together from the deltas. */
static char *joined(const json_t *all, int i, const char *key)
{
    buf b;
    buf_init(&b, 1 << 20);
    buf_str(&b, "");
    for (size_t k = 0; k < json_array_size(all); k++) {
        const json_t *c = at(json_array_get(all, k), "choices.0");
        const json_t *text = at(c, key);
        if (num(c, "index") == i && json_is_string(text))
            buf_str(&b, json_string_value(text));
    }
    return buf_take(&b, NULL);
}

static void test_stream(void **state)
{
    aid_server *s = *state;
    json_t *all = stream(s, CHAT, "{" U ", \"stream\": true}");
    size_t n = json_array_size(all);
    text_is(all, "0.object", "chat.completion.chunk");
    text_is(all, "0.choices.0.delta.role", "assistant");
    assert_true(json_is_null(at(all, "0.choices.0.delta.content")));
    assert_true(json_is_null(at(all, "0.choices.0.finish_reason")));
    for (size_t i = 1; i < n - 1; i++) {
        assert_null(at(json_array_get(all, i), "choices.0.delta.role"));
        assert_null(json_object_get(json_array_get(all, i), "usage"));
        text_is(json_array_get(all, i), "id", json_string_value(at(all, "0.id")));
    }
    char *text = joined(all, 0, "delta.content");
    assert_string_equal(text, "Hello");
    free(text);
    text_is(json_array_get(all, n - 2), "choices.0.finish_reason", "stop");
    assert_int_equal(json_object_size(at(json_array_get(all, n - 2), "choices.0.delta")), 0);
    assert_string_equal(json_string_value(json_array_get(all, n - 1)), "data: [DONE]");
    json_decref(all);
}

static void test_stream_with_usage_and_choices(void **state)
{
    aid_server *s = *state;
    json_t *all = stream(s, CHAT,
                         "{" U ", \"stream\": true, \"n\": 2, \"logprobs\": true,"
                         "\"stream_options\": {\"include_usage\": true}}");
    size_t n = json_array_size(all);
    const json_t *last = json_array_get(all, n - 2);
    assert_int_equal(json_array_size(at(last, "choices")), 0);
    assert_int_equal(num(last, "usage.completion_tokens"), 11);
    assert_int_equal(num(last, "usage.prompt_tokens"), 21);
    assert_true(json_is_null(at(all, "0.usage")));
    assert_string_equal(json_string_value(json_array_get(all, n - 1)), "data: [DONE]");
    char *one = joined(all, 0, "delta.content"), *two = joined(all, 1, "delta.content");
    assert_string_equal(one, "Hello");
    assert_string_equal(two, "Hello1");
    free(one);
    free(two);
    buf tokens; /* the tokens of the log-probabilities make up the text */
    buf_init(&tokens, 1000);
    for (size_t i = 0; i < n; i++) {
        const json_t *c = at(json_array_get(all, i), "choices.0");
        if (num(c, "index") == 1 && at(c, "logprobs.content.0.token") != NULL)
            buf_str(&tokens, json_string_value(at(c, "logprobs.content.0.token")));
    }
    assert_string_equal(tokens.data, "Hello1");
    buf_free(&tokens);
    json_decref(all);
}

static void test_stream_of_completions(void **state)
{
    aid_server *s = *state;
    json_t *all = stream(s, COMP,
                         "{\"prompt\": \"Say \", \"stream\": true, \"echo\": true,"
                         "\"logprobs\": 1}");
    char *text = joined(all, 0, "text");
    assert_string_equal(text, "Say Hello");
    free(text);
    text_is(all, "0.choices.0.text", "Say ");
    assert_int_equal(num(all, "0.choices.0.logprobs.text_offset.3"), 3);
    assert_int_equal(num(all, "1.choices.0.logprobs.text_offset.0"), 4);
    json_decref(all);
    all = stream(s, COMP, "{\"prompt\": \"Say \", \"stream\": true, \"echo\": true}");
    text = joined(all, 0, "text");
    assert_string_equal(text, "Say Hello");
    free(text);
    json_decref(all);
}

static int send_stream(aid_server *s)
{
    return aid_post(s->port, CHAT, "Connection: close\r\n", "{" U ", \"stream\": true}");
}

/* What comes until this has come; caller frees. */
static char *await(int fd, const char *needle)
{
    char *raw = aid_read(fd, needle, AID_PATIENCE_MS, NULL);
    has(raw, needle);
    return raw;
}

/* What is said arrives when it is said, not at the end: nothing ends here before it is seen. */
static void test_stream_is_live(void **state)
{
    aid_server *s = *state;
    s->plan->hold_after = 1;
    int fd = send_stream(s);
    free(await(fd, "\"content\":\"H\""));
    assert_int_equal(aid_fake_running(s->fake), 1);
    s->plan->hold_after = -1;
    free(await(fd, "[DONE]"));
    close(fd);
}

/* ---- errors ---- */

static void test_errors_before_the_first_token(void **state)
{
    aid_server *s = *state;
    s->plan->fail_after = 0;
    aid_reply r = aid_call(s, "POST", CHAT, NULL, "{" U ", \"stream\": true}", 500);
    has(r.body, "\"code\":\"internal_error\"");
    assert_null(strstr(r.body, "caught fire")); /* that is for the log */
    aid_reply_free(&r);
    expect(s, CHAT, "{" U "}", 500, "internal_error");
}

static void test_errors_in_a_stream(void **state)
{
    aid_server *s = *state;
    s->plan->fail_after = s->plan->hold_after = 2;
    int fd = send_stream(s);
    char *begin = await(fd, "\"content\":\"e\""); /* before the error */
    s->plan->hold_after = -1;
    char *end = aid_read(fd, NULL, AID_PATIENCE_MS, NULL), *raw = mem_printf("%s%s", begin, end);
    aid_reply r = aid_parse(raw);
    json_t *all = events(r.body);
    size_t n = json_array_size(all);
    char *text = joined(all, 0, "delta.content");
    assert_string_equal(text, "He");
    free(text);
    text_is(json_array_get(all, n - 1), "error.code", "internal_error");
    for (size_t i = 0; i < n; i++)
        assert_false(json_is_string(json_array_get(all, i))); /* no [DONE] */
    json_decref(all);
    aid_reply_free(&r);
    free(begin);
    free(end);
    free(raw);
    close(fd);
}

static void test_a_full_queue(void **state)
{
    aid_server *s = *state;
    s->plan->queue_full = 1;
    aid_reply r = aid_call(s, "POST", CHAT, NULL, "{" U ", \"stream\": true}", 429);
    has(r.body, "\"code\":\"queue_full\"");
    char *retry = aid_header(&r, "Retry-After");
    assert_string_equal(retry, "7");
    free(retry);
    aid_reply_free(&r);
    s->plan->queue_full = 0;
    s->plan->no_model = 1;
    expect(s, CHAT, "{" U "}", 503, "model_loading");
    s->plan->no_model = 0;
}

static void test_context(void **state)
{
    aid_server *s = *state;
    buf b;
    buf_init(&b, 100000);
    buf_str(&b, "{\"prompt\": \"");
    for (int i = 0; i < 600; i++)
        buf_char(&b, 'x');
    buf_str(&b, "\"}");
    aid_reply r = aid_call(s, "POST", COMP, NULL, b.data, 400);
    has(r.body, "\"param\":\"prompt\",\"code\":\"context_length_exceeded\"");
    has(r.body, "\"n_prompt_tokens\":600");
    has(r.body, "\"n_ctx\":512");
    has(r.body, "the prompt has 600 tokens; with an answer of 16 that is more than the context of "
                "512");
    aid_reply_free(&r);
    buf_free(&b);
    expect(s, CHAT, "{" U ", \"max_tokens\": 500}", 400, "context_length_exceeded");
    expect(s, COMP, "{\"prompt\": \"\"}", 400, "the prompt has no tokens");
    assert_int_equal(aid_fake_taken(s->fake), 0);
}

static void test_refusals(void **state)
{
    aid_server *s = *state;
    aid_reply r = aid_call(s, "POST", CHAT, NULL, "{" U ", \"audio\": {}}", 400);
    has(r.body, "\"param\":\"audio\",\"code\":\"unsupported_parameter\"");
    aid_reply_free(&r);
    expect(s, CHAT, "{" U ", \"model\": \"gpt-4\"}", 404,
           "there is no model 'gpt-4' here; 'fake' is served");
    expect(s, CHAT, "{" U ", \"temperature\": 9}", 400,
           "\"param\":\"temperature\",\"code\":\"invalid_value\"");
    expect(s, CHAT, "{\"messages\": [{\"role\": \"forbidden\", \"content\": \"x\"}]}", 400,
           "no such role");
    expect(s, CHAT,
           "{" U ", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]}", 400,
           "'tools' is not supported: the chat template of 'fake' does not show them");
    json_decref(ask(s, CHAT,
                    "{" U ", \"tools\": [{\"type\": \"function\", \"function\": {\"name\":"
                    " \"f\"}}], \"chat_template_kwargs\": {\"show_tools\": true}}"));
    char *prompt = aid_fake_last_prompt(s->fake);
    has(prompt, "\"name\": \"f\"");
    free(prompt);
}

static void test_models_of_a_key(void **state)
{
    aid_server *s = *state;
    char *yes =
        aid_server_key(s, SCOPE_INFER | SCOPE_MODELS_READ, &(api_key){.models_allow = "x,fake"});
    char *no = aid_server_key(s, SCOPE_INFER | SCOPE_MODELS_READ, &(api_key){.models_allow = "x"});
    aid_reply r = aid_call(s, "POST", CHAT, yes, "{" U "}", 200);
    aid_reply_free(&r);
    r = aid_call(s, "POST", CHAT, no, "{" U "}", 403);
    has(r.body, "\"code\":\"model_not_allowed\"");
    aid_reply_free(&r);
    r = aid_call(s, "GET", "/v1/models", no, NULL, 200);
    has(r.body, "\"data\":[]");
    aid_reply_free(&r);
    free(yes);
    free(no);
}

/* ---- what is kept ---- */

static json_t *kept(aid_server *s, const json_t *reply)
{
    json_t *r = NULL;
    store_flush(s->store, NULL);
    requests_get(s->store, json_string_value(at(reply, "id")), &r, NULL);
    return r;
}

static void test_what_is_kept(void **state)
{
    aid_server *s = *state;
    json_t *v =
        ask(s, CHAT, "{" U ", \"user\": \"bob\", \"seed\": 3, \"metadata\": {\"app\": \"x\"}}");
    json_t *r = kept(s, v);
    text_is(r, "messages.0.content", "hi");
    text_is(r, "choices.0.text", "Hello");
    text_is(r, "finish_reason", "stop");
    text_is(r, "metadata.app", "x");
    assert_int_equal(num(r, "params.seed"), 3);
    assert_int_equal(num(r, "stored"), 1);
    assert_int_equal(num(r, "tok_in"), 21);
    assert_int_equal(num(r, "tok_out"), 5);
    assert_true(num(r, "expires_at") > num(r, "ts"));
    char hash[33];
    requests_user_hash(s->store, "bob", hash);
    text_is(r, "user_hash", hash);
    json_decref(r);
    json_decref(v);
    v = ask(s, CHAT, "{" U ", \"store\": false}");
    r = kept(s, v);
    assert_int_equal(num(r, "stored"), 0);
    assert_null(at(r, "messages"));
    assert_null(at(r, "choices"));
    json_decref(r);
    json_decref(v);
    json_t *all = stream(s, CHAT, "{" U ", \"stream\": true}");
    r = kept(s, json_array_get(all, 0));
    text_is(r, "choices.0.text", "Hello");
    json_decref(r);
    json_decref(all);
}

static void test_keeping_nothing(void **state)
{
    static const char *const none[] = {"log_prompts=none", NULL};
    static const char *const metadata[] = {"log_prompts=metadata", NULL};
    (void)state;
    aid_server *s = aid_server_open(none);
    json_t *v = ask(s, CHAT, "{" U "}");
    assert_null(kept(s, v));
    json_decref(v);
    expect(s, CHAT, "{" U ", \"store\": true}", 501, "\"code\":\"feature_disabled\"");
    aid_server_close(s);
    s = aid_server_open(metadata);
    v = ask(s, CHAT, "{" U "}");
    json_t *r = kept(s, v);
    assert_int_equal(num(r, "stored"), 0);
    json_decref(r);
    json_decref(v);
    v = ask(s, CHAT, "{" U ", \"store\": true}");
    r = kept(s, v);
    text_is(r, "choices.0.text", "Hello");
    json_decref(r);
    json_decref(v);
    aid_server_close(s);
}

/* ---- hooks ---- */

typedef struct script {
    int verdict;
    const char *set, *value; /* data[set] = value */
    const char *append;      /* to data.text */
    int calls;
} script;

static int act(hook_call *call, void *user, hone_err *e)
{
    script *x = user;
    (void)e;
    x->calls++;
    if (x->verdict == HOOK_VETO) {
        strcpy(call->reason, "not today");
        return HOOK_VETO;
    }
    if (x->set != NULL)
        json_object_set_new(call->data, x->set, json_string(x->value));
    const char *text = json_string_value(json_object_get(call->data, "text"));
    if (x->append != NULL && text != NULL) {
        char *longer = mem_printf("%s%s", text, x->append);
        json_object_set_new(call->data, "text", json_string(longer));
        free(longer);
    }
    return HOOK_MODIFIED;
}

static void on(aid_server *s, hook_point p, script *x)
{
    assert_int_equal(hook_on(s->hooks, p, "script", 0, act, x, NULL), 0);
}

static void test_a_veto_at_every_point(void **state)
{
    static const hook_point points[] = {HOOK_SERVE_REQUEST, HOOK_SERVE_PROMPT, HOOK_SERVE_RESPONSE};
    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        aid_server *s = aid_server_open(NULL);
        script x = {.verdict = HOOK_VETO};
        on(s, points[i], &x);
        aid_reply r = aid_call(s, "POST", CHAT, NULL, "{" U "}", 403);
        has(r.body, "\"code\":\"refused_by_policy\"");
        has(r.body, "not today");
        aid_reply_free(&r);
        aid_server_close(s);
    }
    aid_server *s = aid_server_open(NULL);
    script x = {.verdict = HOOK_VETO};
    on(s, HOOK_SERVE_CHUNK, &x);
    json_t *all = stream(s, CHAT, "{" U ", \"stream\": true}");
    text_is(json_array_get(all, json_array_size(all) - 1), "error.code", "refused_by_policy");
    json_decref(all);
    aid_server_close(s);
}

/* Which of the served names answers is the hook's to say, and only that. */
static void test_a_hook_routes(void **state)
{
    aid_server *s = *state;
    script x = {.set = "alias"};
    json_t *v = ask(s, CHAT, "{" U "}");
    char *name = mem_strdup(json_string_value(json_object_get(v, "model")));
    json_decref(v);
    aid_reply r = aid_call(s, "POST", CHAT, NULL, "{" U ", \"model\": \"gpt-4\"}", 404);
    aid_reply_free(&r);
    x.value = name;
    on(s, HOOK_SERVE_ROUTE, &x);
    v = ask(s, CHAT, "{" U ", \"model\": \"gpt-4\"}");
    text_is(v, "model", name);
    json_decref(v);
    x.value = "other";
    r = aid_call(s, "POST", CHAT, NULL, "{" U "}", 500); /* the log says why */
    has(r.body, "\"code\":\"internal_error\"");
    aid_reply_free(&r);
    r = aid_call(s, "GET", "/metrics", NULL, NULL, 200);
    has(r.body, "hone_plugin_calls_total{plugin=\"script\",hook=\"serve.route\"} 2\n");
    has(r.body, "hone_plugin_out{plugin=\"script\",hook=\"serve.route\"} 0\n");
    aid_reply_free(&r);
    free(name);
}

/* With a second model beside the live one its name may be asked for, and routed to. */
static void test_a_model_beside_the_live_one(void **state)
{
    aid_server *s = *state;
    script x = {.set = "alias", .value = "fake-canary"};
    aid_reply r = aid_call(s, "POST", CHAT, NULL, "{" U ", \"model\": \"fake-canary\"}", 404);
    aid_reply_free(&r);
    s->plan->beside = 1;
    json_t *live = ask(s, CHAT, "{" U ", \"model\": \"fake\"}"),
           *v = ask(s, CHAT, "{" U ", \"model\": \"fake-canary\"}");
    text_is(live, "model", "fake");
    text_is(v, "model", "fake-canary");
    assert_string_not_equal(json_string_value(json_object_get(v, "system_fingerprint")),
                            json_string_value(json_object_get(live, "system_fingerprint")));
    char *params = aid_fake_last_params(s->fake);
    has(params, "temperature=0.25"); /* its own defaults */
    free(params);
    json_decref(live);
    json_decref(v);
    r = aid_call(s, "GET", "/v1/models", NULL, NULL, 200);
    has(r.body, "\"id\":\"fake\"");
    has(r.body, "\"id\":\"fake-canary\"");
    aid_reply_free(&r);
    r = aid_call(s, "GET", "/v1/models/fake-canary", NULL, NULL, 200);
    has(r.body, "bbbbbbbb");
    aid_reply_free(&r);
    on(s, HOOK_SERVE_ROUTE, &x);
    v = ask(s, CHAT, "{" U ", \"model\": \"gpt-4\"}");
    text_is(v, "model", "fake-canary");
    json_decref(v);
    v = ask(s, CHAT, "{" U "}");
    text_is(v, "model", "fake-canary");
    json_decref(v);
    s->plan->beside = 0; /* it has gone, and the script does not know */
    r = aid_call(s, "POST", CHAT, NULL, "{" U "}", 500);
    aid_reply_free(&r);
}

/* Who may use the live model may use the one beside it. */
static void test_keys_and_the_model_beside(void **state)
{
    (void)state;
    aid_server *s = aid_server_open(NULL);
    s->plan->beside = 1;
    char *may = aid_server_key(s, SCOPE_INFER, &(api_key){.models_allow = "fake"}),
         *other = aid_server_key(s, SCOPE_INFER, &(api_key){.models_allow = "gpt-4"});
    aid_reply r = aid_call(s, "POST", CHAT, may, "{" U ", \"model\": \"fake-canary\"}", 200);
    aid_reply_free(&r);
    r = aid_call(s, "POST", CHAT, other, "{" U ", \"model\": \"fake-canary\"}", 403);
    aid_reply_free(&r);
    free(may);
    free(other);
    aid_server_close(s);
}

static void test_hooks_change_what_passes(void **state)
{
    aid_server *s = *state;
    script prompt = {.append = "!"}, chunk = {.append = "."},
           log = {.set = "keep", .value = "none"};
    on(s, HOOK_SERVE_PROMPT, &prompt);
    on(s, HOOK_SERVE_CHUNK, &chunk);
    json_t *all = stream(s, CHAT, "{" U ", \"stream\": true}");
    char *text = joined(all, 0, "delta.content");
    assert_string_equal(text, "H.e.l.l.o.."); /* the last one is said at the end */
    free(text);
    json_t *r = kept(s, json_array_get(all, 0));
    text_is(r, "choices.0.text", "H.e.l.l.o.."); /* what the user saw */
    json_decref(r);
    json_decref(all);
    char *p = aid_fake_last_prompt(s->fake);
    has(p, "assistant\n!");
    free(p);
    on(s, HOOK_SERVE_LOG, &log);
    json_t *v = ask(s, CHAT, "{" U "}");
    assert_null(kept(s, v));
    assert_int_equal(log.calls, 1);
    json_decref(v);
}

/* ---- many at once ---- */

typedef struct caller {
    aid_server *s;
    int good;
} caller;

static void *call_many(void *arg)
{
    caller *c = arg;
    for (int i = 0; i < 20; i++) {
        aid_reply r = aid_http(c->s->port, "POST", CHAT, NULL,
                               i % 2 ? "{" U "}" : "{" U ", \"stream\": true}");
        bool whole = strstr(r.body, "\"content\":\"Hello\"") != NULL;
        c->good += r.status == 200 && (whole || strstr(r.body, "data: [DONE]") != NULL);
        aid_reply_free(&r);
    }
    return NULL;
}

static void test_many_at_once(void **state)
{
    aid_server *s = *state;
    pthread_t t[12];
    caller c[12];
    for (int i = 0; i < 12; i++) {
        c[i] = (caller){s, 0};
        assert_int_equal(pthread_create(&t[i], NULL, call_many, &c[i]), 0);
    }
    int good = 0;
    for (int i = 0; i < 12; i++) {
        pthread_join(t[i], NULL);
        good += c[i].good;
    }
    assert_int_equal(good, 240);
    assert_int_equal(aid_fake_taken(s->fake), 240);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, aid_server_setup, aid_server_teardown)
    const struct CMUnitTest tests[] = {
        T(test_chat),
        T(test_parameters_reach_the_engine),
        T(test_choices_and_logprobs),
        T(test_length),
        T(test_completions),
        T(test_stream),
        T(test_stream_with_usage_and_choices),
        T(test_stream_of_completions),
        T(test_stream_is_live),
        T(test_errors_before_the_first_token),
        T(test_errors_in_a_stream),
        T(test_a_full_queue),
        T(test_context),
        T(test_refusals),
        T(test_models_of_a_key),
        T(test_what_is_kept),
        cmocka_unit_test(test_keeping_nothing),
        cmocka_unit_test(test_a_veto_at_every_point),
        T(test_a_hook_routes),
        T(test_a_model_beside_the_live_one),
        cmocka_unit_test(test_keys_and_the_model_beside),
        T(test_hooks_change_what_passes),
        T(test_many_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
