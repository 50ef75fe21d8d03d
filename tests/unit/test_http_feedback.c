/* /v1/feedback over the wire. */
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/http/http_auth.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_server.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <cmocka.h>

#define FB "/v1/feedback"
#define HI "{\"messages\": [{\"role\": \"user\", \"content\": \"sky?\"}]}"

static void has(const char *text, const char *needle)
{
    if (strstr(text, needle) == NULL)
        fail_msg("'%s' does not hold '%s'", text, needle);
}

static json_t *call(aid_server *s, const char *method, const char *path, const char *headers,
                    const char *body, int status)
{
    json_t *v = NULL;
    aid_reply r = aid_call(s, method, path, headers, body, status);
    assert_int_equal(r.status, status);
    js_parse(&v, r.body, r.len, NULL);
    aid_reply_free(&r);
    return v;
}

static void refused(aid_server *s, const char *method, const char *path, const char *headers,
                    const char *body, int status, const char *needle)
{
    aid_reply r = aid_call(s, method, path, headers, body, status);
    assert_int_equal(r.status, status);
    has(r.body, needle);
    aid_reply_free(&r);
}

static const char *str(const json_t *o, const char *name)
{
    return json_string_value(json_object_get(o, name));
}

/* Asks, and gives the id of the answer; *token, if not NULL, its feedback token as a header line.
 */
static char *answer_id(aid_server *s, const char *auth, char **token)
{
    aid_reply r = aid_call(s, "POST", "/v1/chat/completions", auth, HI, 200);
    char *id = aid_header(&r, "x-request-id");
    if (token != NULL) {
        char *t = aid_header(&r, "x-feedback-token");
        assert_non_null(t);
        *token = mem_printf("Authorization: Bearer %s\r\n", t);
        free(t);
    }
    aid_reply_free(&r);
    return id;
}

static void test_rate_correct_read(void **state)
{
    aid_server *s = *state;
    char *id = answer_id(s, NULL, NULL);
    char *body = mem_printf("{\"response_id\": \"%s\", \"rating\": \"down\", \"correction\": "
                            "\"blue\", \"tags\": [\"x\"], \"user\": \"bob\"}",
                            id);
    json_t *fb = call(s, "POST", FB, NULL, body, 201); /* at once: the answer is known already */
    assert_string_equal(str(fb, "response_id"), id);
    assert_int_equal(json_integer_value(json_object_get(fb, "rating")), -1);
    assert_null(json_object_get(fb, "snapshot"));
    json_t *again = call(s, "POST", FB, NULL, body, 200);
    assert_string_equal(str(again, "id"), str(fb, "id"));
    char *path = mem_printf(FB "/%s", str(fb, "id"));
    json_t *one = call(s, "GET", path, NULL, NULL, 200);
    assert_string_equal(str(json_object_get(one, "snapshot"), "answer"), "Hello");
    json_t *changed = call(s, "PUT", path, NULL, "{\"rating\": 1}", 200);
    assert_int_equal(json_integer_value(json_object_get(changed, "rating")), 1);
    json_t *reviewed = call(s, "PUT", path, NULL, "{\"review\": \"approved\"}", 200);
    assert_string_equal(str(reviewed, "review"), "approved");
    refused(s, "PUT", path, NULL, "{\"review\": \"ok\"}", 400, "it is pending, approved or");
    json_decref(call(s, "DELETE", path, NULL, NULL, 200));
    refused(s, "DELETE", path, NULL, NULL, 404, "\"code\":\"not_found\"");
    json_decref(fb);
    json_decref(again);
    json_decref(one);
    json_decref(changed);
    json_decref(reviewed);
    free(path);
    free(body);
    free(id);
}

static void test_refusals(void **state)
{
    aid_server *s = *state;
    char *id = answer_id(s, NULL, NULL), *other = answer_id(s, NULL, NULL);
    refused(s, "POST", FB, NULL, "{\"response_id\": \"chatcmpl-x\", \"rating\": 1}", 404,
            "no stored response 'chatcmpl-x'");
    refused(s, "POST", FB, NULL, "{\"response_id\": \"x\"}", 400, "feedback says nothing");
    refused(s, "POST", FB, NULL, "{\"response_id\": \"x\", \"rating\": 5}", 400,
            "\"param\":\"rating\",\"code\":\"invalid_value\"");
    refused(s, "POST", FB, NULL, "{\"response_id\": \"x\", \"ratting\": 1}", 400,
            "\"code\":\"unsupported_parameter\"");
    refused(s, "POST", FB, NULL, "{\"rating\": 1}", 400, "'response_id' is missing");
    char *body = mem_printf("{\"id\": \"%s\", \"rating\": 1}", id);
    json_decref(call(s, "POST", FB, "Idempotency-Key: k1\r\n", body, 201));
    json_decref(call(s, "POST", FB, "Idempotency-Key: k1\r\n", body, 200));
    free(body);
    body = mem_printf("{\"id\": \"%s\", \"rating\": 1}", other);
    aid_reply r = aid_call(s, "POST", FB, "Idempotency-Key: k1\r\n", body, 409);
    has(r.body, "\"type\":\"conflict_error\"");
    char *retry = aid_header(&r, "x-should-retry");
    assert_string_equal(retry, "false");
    free(retry);
    aid_reply_free(&r);
    free(body);
    free(id);
    free(other);
}

static void test_keys_and_owners(void **state)
{
    aid_server *s = *state;
    char *user = aid_server_key(s, SCOPE_INFER | SCOPE_FEEDBACK_WRITE, NULL);
    char *other = aid_server_key(s, SCOPE_FEEDBACK_WRITE, NULL);
    char *reader = aid_server_key(s, SCOPE_FEEDBACK_READ | SCOPE_FEEDBACK_WRITE, NULL);
    char *id = answer_id(s, user, NULL);
    char *body = mem_printf("{\"id\": \"%s\", \"rating\": 1}", id);
    refused(s, "POST", FB, NULL, body, 401, "missing_api_key");
    refused(s, "POST", FB, other, body, 404, "no stored response");
    json_t *fb = call(s, "POST", FB, user, body, 201);
    char *path = mem_printf(FB "/%s", str(fb, "id"));
    refused(s, "GET", path, user, NULL, 403, "lacks the scope 'feedback:read'");
    refused(s, "GET", FB, user, NULL, 403, "feedback:read");
    refused(s, "PUT", path, other, "{\"rating\": 1}", 404, "no feedback");
    refused(s, "PUT", path, user, "{\"review\": \"approved\"}", 403, "feedback:read");
    refused(s, "DELETE", path, other, NULL, 404, "no feedback");
    json_decref(call(s, "GET", path, reader, NULL, 200));
    json_t *note = call(s, "POST", FB, reader, body, 201); /* an annotator may rate any answer */
    assert_string_equal(str(note, "source"), "annotator");
    json_decref(note);
    json_decref(fb);
    free(path);
    free(body);
    free(id);
    free(user);
    free(other);
    free(reader);
}

static void test_tokens(void **state)
{
    aid_server *s = *state;
    char *user = aid_server_key(s, SCOPE_INFER, NULL), *token, *second;
    char *id = answer_id(s, user, &token), *id2 = answer_id(s, user, &second);
    char *body = mem_printf("{\"id\": \"%s\", \"rating\": 1}", id);
    json_t *fb = call(s, "POST", FB, token, body, 201);
    assert_string_equal(str(fb, "key_id"), "token");
    json_decref(fb);
    refused(s, "POST", FB, second, body, 403, "this feedback token is for another response");
    refused(s, "GET", "/v1/models", token, NULL, 401, "invalid_api_key");
    refused(s, "GET", FB, token, NULL, 401, "invalid_api_key");
    token[strlen(token) - 5] ^= 1;
    refused(s, "POST", FB, token, body, 401, "not valid here (any more)");
    char scratch[IDS_MAX];
    char *late = http_auth_token(s->store, id2, -1), *fine = http_auth_token(s->store, id2, 1);
    assert_false(http_auth_token_ok(s->store, late, scratch));
    assert_true(http_auth_token_ok(s->store, fine, scratch));
    assert_string_equal(scratch, id2);
    assert_false(http_auth_token_ok(s->store, "ft_", scratch));
    assert_false(http_auth_token_ok(s->store, "ft_a.b", scratch));
    assert_false(http_auth_token_ok(s->store, "ft_a.99999999999999.c", scratch));
    free(late);
    free(fine);
    free(body);
    free(id);
    free(id2);
    free(token);
    free(second);
    free(user);
}

static void test_list_and_export(void **state)
{
    aid_server *s = *state;
    enum { N = 130 };
    for (int i = 0; i < N; i++) {
        char *id = answer_id(s, NULL, NULL);
        char *body = mem_printf("{\"id\": \"%s\", \"rating\": %d, \"correction\": \"c%d\"}", id,
                                i % 2 ? 1 : -1, i);
        json_decref(call(s, "POST", FB, NULL, body, 201));
        free(body);
        free(id);
    }
    json_t *page = call(s, "GET", FB "?limit=100", NULL, NULL, 200);
    assert_int_equal(json_array_size(json_object_get(page, "data")), 100);
    assert_true(json_is_true(json_object_get(page, "has_more")));
    char *path = mem_printf(FB "?after=%lld&rating=up",
                            (long long)json_integer_value(json_object_get(page, "next")));
    json_t *rest = call(s, "GET", path, NULL, NULL, 200);
    assert_int_equal(json_array_size(json_object_get(rest, "data")), 15);
    assert_true(json_is_false(json_object_get(rest, "has_more")));
    json_decref(page);
    json_decref(rest);
    free(path);
    static const struct {
        const char *query;
        int lines;
        const char *holds;
    } exports[] = {
        {"", N, "\"object\":\"feedback\""},
        {"?format=raw", N, "\"snapshot\":"},
        {"?format=kto", N, "\"label\":true"},
        {"?format=dpo", N, "\"rejected\":[{\"role\":\"assistant\",\"content\":\"Hello\"}]"},
        {"?format=sft&rating=down", N / 2, "{\"messages\":[{\"role\":\"user\""},
        {"?format=dpo&limit=110", 110, "\"chosen\":"},
        {"?format=raw&limit=7", 7, "c6"},
        {"?review=approved", 0, ""},
        {"?unused=true", N, ""},
        {"?format=kto&dedupe=1", 2, "\"label\":true"},
        {"?format=kto&split=hash:1", N, "\"split\":\"train\""},
        {"?format=kto&split=hash:1&part=holdout", 0, ""},
        {"?format=kto&min_agreement=0.9", 0, ""},
    };
    for (size_t i = 0; i < sizeof exports / sizeof *exports; i++) {
        char *p = mem_printf(FB "/export%s", exports[i].query);
        aid_reply r = aid_call(s, "GET", p, NULL, NULL, 200);
        int lines = 0;
        for (const char *c = r.body; *c != '\0'; c++)
            lines += *c == '\n';
        if (lines != exports[i].lines)
            fail_msg("%s gives %d lines, not %d", p, lines, exports[i].lines);
        has(r.body, exports[i].holds);
        aid_reply_free(&r);
        free(p);
    }
    refused(s, "GET", FB "/export?format=xml", NULL, NULL, 400, "no format 'xml'");
    refused(s, "GET", FB "/export?formt=raw", NULL, NULL, 400, "unknown query parameter 'formt'");
    refused(s, "GET", FB "/export?split=0.9", NULL, NULL, 400, "expected hash:SHARE");
    refused(s, "GET", FB "?dedupe=1", NULL, NULL, 400, "'dedupe' is for /v1/feedback/export");
    refused(s, "GET", FB "?limit=x", NULL, NULL, 400, "'limit' must be a whole number");
    refused(s, "GET", FB "?rating=good", NULL, NULL, 400, "'rating' must be up, none or down");
}

/* One stored answer of this user, and nothing that is queued still. */
static void ask_as(aid_server *s, const char *auth, const char *user, const char *question)
{
    char *body = mem_printf("{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}],"
                            " \"user\": \"%s\"}",
                            question, user);
    json_decref(call(s, "POST", "/v1/chat/completions", auth, body, 200));
    assert_int_equal(store_flush(s->store, NULL), 0);
    free(body);
}

static void test_erasure(void **state)
{
    static const char erasure[] = "/v1/erasure";
    aid_server *s = *state;
    char *state_dir = s->conf.state_dir;
    refused(s, "POST", erasure, NULL, "{}", 400,
            "whom? give one of 'user', 'user_hash' and 'key_id'");
    refused(s, "POST", erasure, NULL, "{\"user\": \"a\", \"key_id\": \"b\"}", 400,
            "whom? give one");
    refused(s, "POST", erasure, NULL, "{\"usr\": \"a\"}", 400, "did you mean 'user'");
    refused(s, "POST", erasure, NULL, "{\"user\": \"nobody\"}", 404, "nothing is stored of user '");
    ask_as(s, NULL, "bob", "the needle of bob");
    ask_as(s, NULL, "ann", "the needle of ann");
    assert_true(aid_dir_holds(state_dir, "needle of bob"));
    json_t *plan = call(s, "POST", erasure, NULL, "{\"user\": \"bob\", \"dry_run\": true}", 200);
    assert_int_equal(json_integer_value(json_object_get(plan, "requests")), 1);
    assert_int_equal(json_array_size(json_object_get(plan, "limits")), 3);
    json_decref(plan);
    assert_true(aid_dir_holds(state_dir, "needle of bob"));
    json_t *done = call(s, "POST", erasure, NULL, "{\"user\": \"bob\"}", 200);
    json_t *receipt = json_object_get(done, "receipt");
    assert_int_equal(json_integer_value(json_object_get(receipt, "requests")), 1);
    assert_non_null(json_object_get(json_object_get(done, "envelope"), "signatures"));
    assert_false(aid_dir_holds(state_dir, "needle of bob"));
    assert_true(aid_dir_holds(state_dir, "needle of ann"));
    char *path = mem_printf("%s/%s", erasure, str(receipt, "id"));
    json_t *again = call(s, "GET", path, NULL, NULL, 200);
    assert_true(json_equal(again, done));
    refused(s, "GET", "/v1/erasure/erase-x", NULL, NULL, 404, "no erasure 'erase-x'");
    json_decref(again);
    json_decref(done);
    free(path);
}

/* Only with its scope; and by key, what came without a user. */
static void test_erasure_by_key(void **state)
{
    aid_server *s = *state;
    char *user = aid_server_key(s, keys_role_find("user")->scopes, NULL);
    char *admin = aid_server_key(s, keys_role_find("admin")->scopes, NULL);
    char id[KEYS_ID + 1] = "";
    memcpy(id, strstr(user, "hk_live_") + 8, KEYS_ID);
    char *body = mem_printf("{\"key_id\": \"%s\"}", id);
    json_decref(call(s, "POST", "/v1/chat/completions", user, HI, 200));
    assert_int_equal(store_flush(s->store, NULL), 0);
    refused(s, "POST", "/v1/erasure", user, body, 403, "this API key lacks the scope 'erase'");
    json_t *done = call(s, "POST", "/v1/erasure", admin, body, 200);
    const json_t *receipt = json_object_get(done, "receipt");
    assert_int_equal(json_integer_value(json_object_get(receipt, "requests")), 1);
    json_decref(done);
    free(body);
    free(user);
    free(admin);
}

static void test_feedback_is_off_without_storage(void **state)
{
    static const char *const settings[] = {"log_prompts=none", NULL};
    (void)state;
    aid_server *s = aid_server_open(settings);
    aid_reply r = aid_call(s, "POST", "/v1/chat/completions", NULL, HI, 200);
    assert_null(aid_header(&r, "x-feedback-token"));
    aid_reply_free(&r);
    refused(s, "POST", FB, NULL, "{\"id\": \"x\", \"rating\": 1}", 501,
            "\"code\":\"feature_disabled\"");
    aid_server_close(s);
}

static int ingest(hook_call *c, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    const char *comment = str(c->data, "comment");
    if (comment != NULL && strcmp(comment, "spam") == 0) {
        strcpy(c->reason, "spam");
        return HOOK_VETO;
    }
    json_object_set_new(c->data, "tags", json_pack("[s]", "seen"));
    return HOOK_MODIFIED;
}

static void test_hook(void **state)
{
    aid_server *s = *state;
    assert_int_equal(hook_on(s->hooks, HOOK_FEEDBACK_INGEST, "t", 0, ingest, NULL, NULL), 0);
    char *id = answer_id(s, NULL, NULL);
    char *body = mem_printf("{\"id\": \"%s\", \"comment\": \"spam\"}", id);
    refused(s, "POST", FB, NULL, body, 403, "\"code\":\"refused_by_policy\"");
    free(body);
    body = mem_printf("{\"id\": \"%s\", \"comment\": \"fine\"}", id);
    json_t *fb = call(s, "POST", FB, NULL, body, 201);
    assert_string_equal(json_string_value(json_array_get(json_object_get(fb, "tags"), 0)), "seen");
    json_decref(fb);
    free(body);
    free(id);
}

/* A full disk (here: a limit on the size of files) is an honest 503, and nothing is half-written.
 */
static void test_a_full_disk(void **state)
{
    aid_server *s = *state;
    struct rlimit old;
    char *id = answer_id(s, NULL, NULL);
    buf body;
    buf_init(&body, 1 << 20);
    buf_printf(&body, "{\"id\": \"%s\", \"rating\": 1, \"comment\": \"", id);
    for (int i = 0; i < 200000; i++)
        buf_char(&body, 'x');
    buf_str(&body, "\"}");
    assert_int_equal(store_flush(s->store, NULL), 0); /* the answer is stored before it is full */
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){250 << 10, old.rlim_max});
    aid_reply r = aid_call(s, "POST", FB, NULL, body.data, 503);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(r.status, 503);
    has(r.body, "\"code\":\"store_unavailable\"");
    aid_reply_free(&r);
    json_t *list = call(s, "GET", FB, NULL, NULL, 200);
    assert_int_equal(json_array_size(json_object_get(list, "data")), 0);
    json_decref(list);
    json_decref(call(s, "POST", FB, NULL, body.data, 201));
    buf_free(&body);
    free(id);
}

/* Thumbs count where the answer came from. */
static void test_counts_by_model(void **state)
{
    static const char *const lines[] = {
        "hone_feedback_total{model=\"fake\",digest=\"aaaaaaaaaaaa\",adapter=\"\",rating=\"up\"} "
        "1\n",
        "hone_feedback_total{model=\"fake\",digest=\"aaaaaaaaaaaa\",adapter=\"\",rating=\"down\"} "
        "0\n",
        "hone_feedback_total{model=\"fake-canary\",digest=\"bbbbbbbbbbbb\",adapter=\"\","
        "rating=\"down\"} 2\n",
        "hone_requests_admitted_total{model=\"fake-canary\",digest=\"bbbbbbbbbbbb\",adapter=\"\"} ",
        "hone_model_info{model=\"fake-canary\",digest=\"bbbbbbbbbbbb\",adapter=\"\","
        "role=\"canary\"} 1\n",
    };
    aid_server *s = *state;
    s->plan->beside = 1;
    for (int i = 0; i < 3; i++) {
        char *ask = mem_printf("{\"model\": \"%s\", \"messages\": [{\"role\": \"user\", "
                               "\"content\": \"hi\"}]}",
                               i == 0 ? "fake" : "fake-canary");
        json_t *said = call(s, "POST", "/v1/chat/completions", NULL, ask, 200);
        char *rate = mem_printf("{\"response_id\": \"%s\", \"rating\": \"%s\"}", str(said, "id"),
                                i == 0 ? "up" : "down");
        json_decref(call(s, "POST", FB, NULL, rate, 201));
        json_decref(said);
        free(rate);
        free(ask);
    }
    aid_reply r = aid_call(s, "GET", "/metrics", NULL, NULL, 200);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        has(r.body, lines[i]);
    aid_reply_free(&r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, aid_server_setup, aid_server_teardown)
    const struct CMUnitTest tests[] = {
        T(test_rate_correct_read),
        T(test_refusals),
        T(test_keys_and_owners),
        T(test_tokens),
        T(test_list_and_export),
        T(test_counts_by_model),
        T(test_erasure),
        T(test_erasure_by_key),
        cmocka_unit_test(test_feedback_is_off_without_storage),
        T(test_hook),
        T(test_a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
