/* The server as seen from the wire: routes, keys, limits, and everything that an honest client
 * would not send. */
#include "serve/http/http_server.h"

#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/store/audit.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_server.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define HI "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"max_tokens\": 5}"

static void has(const char *text, const char *needle)
{
    if (strstr(text, needle) == NULL)
        fail_msg("'%s' does not hold '%s'", text, needle);
}

/* A call whose reply has this status and holds this text. */
static void expect(aid_server *s, const char *method, const char *path, const char *headers,
                   const char *body, int status, const char *needle)
{
    aid_reply r = aid_call(s, method, path, headers, body, status);
    assert_int_equal(r.status, status);
    has(r.body, needle);
    aid_reply_free(&r);
}

static void header_is(const aid_reply *r, const char *name, const char *want)
{
    char *v = aid_header(r, name);
    if (v == NULL || (want != NULL && strcmp(v, want) != 0))
        fail_msg("header %s is '%s', not '%s' in %s", name, v != NULL ? v : "(none)",
                 want != NULL ? want : "(any)", r->headers);
    free(v);
}

/* ---- routes and errors ---- */

static void test_health(void **state)
{
    aid_server *s = *state;
    expect(s, "GET", "/health/live", NULL, NULL, 200, "{\"status\":\"ok\"}");
    expect(s, "GET", "/health/ready", NULL, NULL, 200, "\"model\":\"fake\"");
    expect(s, "GET", "/health", NULL, NULL, 200, "\"status\":\"ok\"");
    s->plan->no_model = 1;
    expect(s, "GET", "/health/ready", NULL, NULL, 503, "\"message\":\"the fake has no model\"");
    expect(s, "GET", "/health/live", NULL, NULL, 200, "ok");
    s->plan->no_model = 0;
    s->plan->step_age_ms = 70000;
    expect(s, "GET", "/health/ready", NULL, NULL, 503, "\"code\":\"engine_dead\"");
}

static void test_error_shape(void **state)
{
    aid_server *s = *state;
    aid_reply r = aid_call(s, "GET", "/nope", NULL, NULL, 404);
    assert_string_equal(r.body, "{\"error\":{\"message\":\"no route GET /nope\","
                                "\"type\":\"invalid_request_error\",\"param\":null,"
                                "\"code\":\"unknown_route\"}}");
    header_is(&r, "Content-Type", "application/json");
    header_is(&r, "x-request-id", NULL);
    aid_reply_free(&r);
    r = aid_call(s, "DELETE", "/v1/chat/completions", NULL, NULL, 405);
    has(r.body, "\"code\":\"method_not_allowed\"");
    header_is(&r, "Allow", "POST");
    aid_reply_free(&r);
    r = aid_call(s, "PATCH", "/v1/feedback/x", NULL, NULL, 405);
    header_is(&r, "Allow", "GET, PUT, DELETE");
    aid_reply_free(&r);
    expect(s, "GET", "/v1/feedback/a/b", NULL, NULL, 404, "unknown_route");
    expect(s, "GET", "/v1/models?api_key=x", NULL, NULL, 400,
           "unknown query parameter 'api_key' (keys are never taken from the URL)");
    /* Bytes that are no text, where an error repeats them: an answer all the same, cut before them.
     */
    expect(s, "GET", "/v1/models?a%FFb=x", NULL, NULL, 400,
           "{\"error\":{\"message\":\"unknown query parameter 'a\",");
    expect(s, "GET", "/v1/models?%C3=x", NULL, NULL, 400, "\"param\":\"\"");
    expect(s, "GET", "/v1/%FE", NULL, NULL, 404, "\"message\":\"no route GET /v1/\"");
    expect(s, "POST", "/tokenize", NULL, "{\"content\": \"a\"", 400, "\"code\":\"invalid_json\"");
    expect(s, "POST", "/tokenize", NULL, "{\"a\": 1, \"a\": 2}", 400, "duplicate object key");
    expect(s, "POST", "/tokenize", NULL, "[1]", 400, "the body must be a JSON object");
    expect(s, "POST", "/tokenize", NULL, "", 400, "invalid_json");
    aid_reply h = aid_call(s, "HEAD", "/health/live", NULL, NULL, 200);
    assert_string_equal(h.body, "");
    aid_reply_free(&h);
}

static void test_media_type(void **state)
{
    aid_server *s = *state;
    int fd = aid_connect(s->port);
    aid_send(fd, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
                 "Content-Length: 15\r\n\r\n{\"content\":\"a\"}");
    char *raw = aid_read(fd, "}}", AID_PATIENCE_MS, NULL);
    has(raw, "HTTP/1.1 415 ");
    has(raw, "unsupported_media_type");
    free(raw);
    /* the body was read, so the connection goes on */
    aid_send(fd, "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    raw = aid_read(fd, "ok", AID_PATIENCE_MS, NULL);
    has(raw, "HTTP/1.1 200 ");
    free(raw);
    close(fd);
}

/* Nor does a refusal without a body end the connection. */
static void test_refusals_keep_the_connection(void **state)
{
    static const char *const requests[][2] = {
        {"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 "},
        {"GET /tokenize HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 405 "},
        {"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
         "HTTP/1.1 415 "},
        {"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 "},
    };
    aid_server *s = *state;
    int fd = aid_connect(s->port);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        aid_send(fd, requests[i][0]);
        char *raw = aid_read(fd, i < 3 ? "}}" : "ok\"}", AID_PATIENCE_MS, NULL);
        has(raw, requests[i][1]);
        free(raw);
    }
    close(fd);
}

static void test_text_routes(void **state)
{
    aid_server *s = *state;
    expect(s, "POST", "/tokenize", NULL, "{\"content\": \"AB\"}", 200,
           "{\"tokens\":[65,66],\"count\":2,\"max_model_len\":512}");
    expect(s, "POST", "/tokenize", NULL, "{\"content\": \"A<|im_end|>\"}", 200, "[65,257]");
    expect(s, "POST", "/tokenize", NULL, "{\"content\": \"<|im_end|>\", \"parse_special\": false}",
           200, "\"count\":10");
    expect(s, "POST", "/tokenize", NULL, "{\"content\": \"A\", \"with_pieces\": true}", 200,
           "\"pieces\":[\"A\"]");
    expect(s, "POST", "/tokenize", NULL, "{\"content\": 5}", 400, "'content' must be text");
    expect(s, "POST", "/tokenize", NULL, "{\"contents\": \"A\"}", 400,
           "unknown field 'contents' (did you mean 'content'?)");
    expect(s, "POST", "/detokenize", NULL, "{\"tokens\": [65, 66, 257]}", 200,
           "{\"content\":\"AB<|im_end|>\"}");
    expect(s, "POST", "/detokenize", NULL, "{\"tokens\": [65, 257], \"skip_special\": true}", 200,
           "{\"content\":\"A\"}");
    expect(s, "POST", "/detokenize", NULL, "{\"tokens\": [99999]}", 400, "99999");
    expect(s, "POST", "/detokenize", NULL, "{\"tokens\": [-1]}", 400, "a list of token ids");
    expect(s, "POST", "/apply-template", NULL,
           "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", 200,
           "{\"prompt\":\"<|im_start|>user\\nx<|im_end|>\\n<|im_start|>assistant\\n\","
           "\"tokens\":[256,");
    expect(s, "POST", "/apply-template", NULL,
           "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"stream\": true}", 400,
           "unknown field 'stream'");
    expect(s, "GET", "/v1/models", NULL, NULL, 200, "\"id\":\"fake\",\"object\":\"model\"");
    expect(s, "GET", "/v1/models/fake", NULL, NULL, 200, "\"max_model_len\":512");
    expect(s, "GET", "/v1/models/other", NULL, NULL, 404, "model_not_found");
}

/* ---- keys ---- */

static void test_the_first_key_closes_the_door(void **state)
{
    aid_server *s = *state;
    expect(s, "GET", "/v1/models", NULL, NULL, 200, "fake");
    expect(s, "GET", "/v1/models", "Authorization: Bearer none\r\n", NULL, 200, "fake");
    char *auth = aid_server_key(s, SCOPE_MODELS_READ, NULL);
    aid_reply r = aid_call(s, "GET", "/v1/models", NULL, NULL, 401);
    has(r.body, "\"type\":\"authentication_error\"");
    has(r.body, "\"code\":\"missing_api_key\"");
    header_is(&r, "WWW-Authenticate", "Bearer");
    aid_reply_free(&r);
    expect(s, "GET", "/v1/models", auth, NULL, 200, "fake");
    char *other = mem_printf("x-api-key: %s", auth + strlen("Authorization: Bearer "));
    expect(s, "GET", "/v1/models", other, NULL, 200, "fake");
    expect(s, "GET", "/health/live", NULL, NULL, 200, "ok");
    expect(s, "GET", "/metrics", NULL, NULL, 401, "missing_api_key");
    expect(s, "POST", "/tokenize", NULL, "{}", 401, "missing_api_key");
    expect(s, "GET", "/nope", NULL, NULL, 404, "unknown_route");
    expect(s, "POST", "/v1/chat/completions", auth, HI, 403,
           "this API key lacks the scope 'infer'");
    auth[strlen(auth) - 4] ^= 1;
    expect(s, "GET", "/v1/models", auth, NULL, 401, "\"code\":\"invalid_api_key\"");
    expect(s, "GET", "/v1/models", "Authorization: Basic eDp5\r\n", NULL, 401,
           "must be 'Bearer <key>'");
    expect(s, "GET", "/v1/models", "Authorization: Bearer x\r\nx-api-key: y\r\n", NULL, 400,
           "both Authorization and x-api-key");
    buf longest;
    buf_init(&longest, 1000);
    buf_str(&longest, "x-api-key: ");
    for (int i = 0; i < 300; i++)
        buf_char(&longest, 'a');
    buf_str(&longest, "\r\n");
    expect(s, "GET", "/v1/models", longest.data, NULL, 401, "at most 256 characters");
    buf_free(&longest);
    free(auth);
    free(other);
}

static void test_revoked_and_expired(void **state)
{
    aid_server *s = *state;
    api_key made, want = {.scopes = SCOPE_MODELS_READ, .name = "x"};
    char text[KEYS_TEXT + 1];
    assert_int_equal(keys_create(s->store, &want, "t", &made, text, NULL), 0);
    char *auth = mem_printf("Authorization: Bearer %s\r\n", text);
    expect(s, "GET", "/v1/models", auth, NULL, 200, "fake");
    assert_int_equal(keys_revoke(s->store, made.id, "t", NULL), 0);
    expect(s, "GET", "/v1/models", auth, NULL, 401, "invalid_api_key");
    expect(s, "GET", "/v1/models", NULL, NULL, 401, "missing_api_key"); /* stays closed */
    free(auth);
}

static void test_wrong_keys_block_the_address(void **state)
{
    static const char *const settings[] = {"auth_failures_per_minute=3", NULL};
    (void)state;
    aid_server *s = aid_server_open(settings);
    char *auth = aid_server_key(s, SCOPE_MODELS_READ, NULL);
    for (int i = 0; i < 3; i++)
        expect(s, "GET", "/v1/models", "x-api-key: wrong\r\n", NULL, 401, "invalid_api_key");
    aid_reply r = aid_call(s, "GET", "/v1/models", auth, NULL, 429);
    has(r.body, "too many wrong keys");
    header_is(&r, "Retry-After", NULL);
    aid_reply_free(&r);
    free(auth);
    aid_server_close(s);
}

static int sees_failure(void *user, const json_t *record, hone_err *e)
{
    char *text = js_text(record, false);
    (void)e;
    if (strstr(text, "auth.refused") != NULL)
        ++*(int *)user;
    if (strstr(text, "hk_wrong") != NULL)
        *(int *)user += 1000;
    free(text);
    return 0;
}

static void test_failures_are_noted_without_the_secret(void **state)
{
    aid_server *s = *state;
    int n = 0;
    free(aid_server_key(s, SCOPE_INFER, NULL));
    expect(s, "GET", "/v1/models", "x-api-key: hk_wrong_secret\r\n", NULL, 401, "invalid");
    assert_int_equal(store_flush(s->store, NULL), 0);
    assert_int_equal(audit_each(s->store, 0, sees_failure, &n, NULL), 0);
    assert_int_equal(n, 1);
}

/* ---- limits ---- */

static void test_requests_a_minute(void **state)
{
    aid_server *s = *state;
    char *auth = aid_server_key(s, SCOPE_MODELS_READ, &(api_key){.rpm = 2});
    aid_reply r = aid_call(s, "GET", "/v1/models", auth, NULL, 200);
    header_is(&r, "x-ratelimit-limit-requests", "2");
    header_is(&r, "x-ratelimit-remaining-requests", "1");
    header_is(&r, "RateLimit-Limit", "2");
    header_is(&r, "RateLimit-Remaining", "1");
    header_is(&r, "RateLimit-Reset", "30");
    aid_reply_free(&r);
    expect(s, "GET", "/v1/models", auth, NULL, 200, "fake");
    r = aid_call(s, "GET", "/v1/models", auth, NULL, 429);
    has(r.body, "\"code\":\"rate_limit_exceeded\"");
    has(r.body, "more than 2 requests a minute");
    header_is(&r, "Retry-After", NULL);
    aid_reply_free(&r);
    free(auth);
}

static void test_tokens_and_daily_budget(void **state)
{
    aid_server *s = *state;
    aid_day();
    char *slow = aid_server_key(s, SCOPE_INFER, &(api_key){.tpm = 60});
    char *poor = aid_server_key(s, SCOPE_INFER, &(api_key){.daily_tokens = 30});
    /* 21 tokens of prompt and 5 of answer */
    expect(s, "POST", "/v1/chat/completions", slow, HI, 200, "\"total_tokens\":");
    expect(s, "POST", "/v1/chat/completions", slow, HI, 200, "\"total_tokens\":");
    expect(s, "POST", "/v1/chat/completions", slow, HI, 429, "limit of tokens a minute");
    expect(s, "POST", "/v1/chat/completions", poor, HI, 200, "\"total_tokens\":");
    aid_reply r = aid_call(s, "POST", "/v1/chat/completions", poor, HI, 429);
    has(r.body, "\"code\":\"insufficient_quota\"");
    header_is(&r, "x-should-retry", "false");
    aid_reply_free(&r);
    free(slow);
    free(poor);
}

static void test_parallel_answers(void **state)
{
    aid_server *s = *state;
    char *auth = aid_server_key(s, SCOPE_INFER, &(api_key){.max_parallel = 1});
    s->plan->deaf = 1; /* the first one does not end by itself */
    int fd = aid_post(s->port, "/v1/chat/completions", auth, HI);
    while (aid_fake_running(s->fake) == 0)
        usleep(1000);
    expect(s, "POST", "/v1/chat/completions", auth, HI, 429, "limit of answers at a time");
    s->plan->deaf = 0;
    close(fd);
    int status = 0;
    for (int64_t end = aid_ms() + AID_PATIENCE_MS; status != 200 && aid_ms() < end;) {
        aid_reply r = aid_http(s->port, "POST", "/v1/chat/completions", auth, HI);
        status = r.status; /* 429 until the first one has been settled */
        aid_reply_free(&r);
    }
    assert_int_equal(status, 200);
    free(auth);
}

/* ---- what no honest client sends ---- */

/* Sends this, and gives what comes until the server closes; the server must close. */
static char *attack(aid_server *s, const char *text)
{
    bool closed;
    int fd = aid_connect(s->port);
    aid_send(fd, text);
    char *raw = aid_read(fd, NULL, AID_PATIENCE_MS, &closed);
    if (!closed)
        fail_msg("the server keeps the connection after %s\n%s", text, raw);
    close(fd);
    return raw;
}

static int replies_in(const char *raw)
{
    int n = 0;
    for (const char *p = strstr(raw, "HTTP/1.1 "); p != NULL; p = strstr(p + 1, "HTTP/1.1 "))
        n++;
    return n;
}

#define SMUGGLED "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define TOKENIZE "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

static void test_framing_attacks(void **state)
{
    static const char *const attacks[][2] = {
        {TOKENIZE "Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}" SMUGGLED,
         "stands there twice"},
        {TOKENIZE "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" SMUGGLED,
         "stands there twice"},
        {TOKENIZE "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED,
         "both Content-Length and Transfer-Encoding"},
        {TOKENIZE "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "stands there twice"},
        {TOKENIZE "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "may only be 'chunked'"},
        {TOKENIZE "Content-Length : 2\r\n\r\n{}" SMUGGLED, "may not stand there"},
        {TOKENIZE "Content-Length: +2\r\n\r\n{}" SMUGGLED, ""},
        {TOKENIZE "Content-Length: 0x2\r\n\r\n{}" SMUGGLED, ""},
        {TOKENIZE "Content-Length: -2\r\n\r\n{}" SMUGGLED, ""},
        {"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", "stands there twice"},
        {"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a\r\n"
         "Authorization: Bearer b\r\n\r\n",
         "stands there twice"},
        {"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx-api-key: a\r\nX-API-Key: b\r\n\r\n",
         "stands there twice"},
        {"GET /v1/models HTTP/1.1\r\n\r\n", "the Host header is missing"},
        {"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 47\r\n\r\n" SMUGGLED,
         "takes no body"},
        {"DELETE /v1/feedback/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
         "0\r\n\r\n" SMUGGLED,
         "takes no body"},
        {"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: a\001b\r\n\r\n", "control character"},
    };
    aid_server *s = *state;
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        char *raw = attack(s, attacks[i][0]);
        bool own = attacks[i][1][0] != '\0'; /* else the library itself refuses, in HTML */
        if (strncmp(raw, "HTTP/1.1 400 ", 13) != 0 || strstr(raw, " 200 OK") != NULL ||
            (own && replies_in(raw) != 1) || strstr(raw, attacks[i][1]) == NULL)
            fail_msg("%s\n=> %s", attacks[i][0], raw);
        free(raw);
    }
}

static void test_malformed_lines(void **state)
{
    static const char *const lines[] = {
        "\r\n\r\n\r\n\r\n\r\n\r\nnonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET /health/live HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    };
    aid_server *s = *state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        int fd = aid_connect(s->port);
        aid_send(fd, lines[i]);
        shutdown(fd, SHUT_WR);
        char *raw = aid_read(fd, NULL, AID_PATIENCE_MS, NULL);
        if (strstr(raw, " 200 ") != NULL)
            fail_msg("%s => %s", lines[i], raw);
        free(raw);
        close(fd);
    }
    expect(s, "GET", "/health/live", NULL, NULL, 200, "ok");
}

static void test_large_headers(void **state)
{
    aid_server *s = *state;
    buf b;
    buf_init(&b, 1 << 20);
    buf_str(&b, "X-Large: ");
    for (int i = 0; i < 20000; i++)
        buf_char(&b, 'a');
    buf_str(&b, "\r\n");
    expect(s, "GET", "/health/live", b.data, NULL, 200, "ok");
    buf_reset(&b);
    buf_str(&b, "X-Large: ");
    for (int i = 0; i < 100000; i++)
        buf_char(&b, 'a');
    buf_str(&b, "\r\n");
    aid_reply r = aid_http(s->port, "GET", "/health/live", b.data, NULL);
    assert_int_equal(r.status, 431);
    aid_reply_free(&r);
    buf_free(&b);
}

static void test_large_bodies(void **state)
{
    static const char *const settings[] = {"max_body_bytes=2000", NULL};
    (void)state;
    aid_server *s = aid_server_open(settings);
    /* told by its length: refused before it is sent */
    char *raw = attack(s, TOKENIZE "Content-Length: 2001\r\n\r\n");
    has(raw, "HTTP/1.1 413 ");
    has(raw, "a body of 2001 bytes, at most 2000 are taken");
    free(raw);
    raw = attack(s, TOKENIZE "Content-Length: 2001\r\nExpect: 100-continue\r\n\r\n");
    has(raw, "HTTP/1.1 413 ");
    assert_null(strstr(raw, "100 Continue"));
    free(raw);
    raw = attack(s, TOKENIZE "Content-Length: 99999999999999999999999\r\n\r\n");
    assert_null(strstr(raw, " 200 "));
    free(raw);
    /* found out on the way: chunks of 500 */
    buf b;
    buf_init(&b, 1 << 20);
    buf_str(&b, TOKENIZE "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 6; i++) {
        buf_str(&b, "1f4\r\n");
        for (int k = 0; k < 500; k++)
            buf_char(&b, 'x');
        buf_str(&b, "\r\n");
    }
    buf_str(&b, "0\r\n\r\n");
    raw = attack(s, b.data);
    has(raw, "HTTP/1.1 413 ");
    has(raw, "a body of more than 2000 bytes");
    free(raw);
    /* a chunked body that fits is fine */
    int fd = aid_connect(s->port);
    aid_send(fd, TOKENIZE "Transfer-Encoding: chunked\r\n\r\n"
                          "5\r\n{\"con\r\nb\r\ntent\": \"A\"}\r\n0\r\n\r\n");
    raw = aid_read(fd, "count", AID_PATIENCE_MS, NULL);
    has(raw, "{\"tokens\":[65]");
    free(raw);
    close(fd);
    buf_free(&b);
    aid_server_close(s);
}

/* A busy machine may be late, but not as late as the idle limit. */
enum { SLOWEST = AID_PATIENCE_MS / 2 };

/* One byte now and then keeps the library's own timer from ever going off. */
static int64_t trickle(aid_server *s, const char *head, const char *drip, char **raw)
{
    int64_t start = aid_ms(); /* before the server's own start */
    int fd = aid_connect(s->port);
    bool closed = false;
    buf all;
    buf_init(&all, 1 << 20);
    buf_str(&all, "");
    aid_send(fd, head);
    while (!closed && aid_ms() - start < SLOWEST) {
        char *more = aid_read(fd, NULL, 150, &closed);
        buf_str(&all, more);
        free(more);
        if (!closed && all.len == 0)
            aid_send(fd, drip);
    }
    close(fd);
    *raw = buf_take(&all, NULL);
    return closed ? aid_ms() - start : -1;
}

/* It is closed after `least` ms and not for ever, with `want` as the reply. A drop that crosses the
 * reply on its way makes the kernel throw that away: then once more. */
static void is_closed(aid_server *s, const char *head, const char *drip, int64_t least,
                      const char *want)
{
    char *raw = NULL;
    for (int tries = 0; tries < 10 && (raw == NULL || strstr(raw, want) == NULL); tries++) {
        free(raw);
        int64_t ms = trickle(s, head, drip, &raw);
        assert_in_range((uintmax_t)ms, (uintmax_t)least, SLOWEST);
    }
    has(raw, want);
    if (want[0] != '\0')
        has(raw, "HTTP/1.1 408 ");
    free(raw);
}

static void test_slow_headers_and_bodies(void **state)
{
    static const char *const settings[] = {"header_seconds=1", "body_seconds=2", "idle_seconds=60",
                                           NULL};
    (void)state;
    aid_server *s = aid_server_open(settings);
    is_closed(s, "GET /health/live HTTP/1.1\r\nX: ", "a", 900, "request_timeout");
    is_closed(s, TOKENIZE "Content-Length: 1000\r\n\r\n{", "a", 1900, "x-request-id: req-");
    is_closed(s, "", "", 900, ""); /* connects and says nothing */
    aid_server_close(s);
}

/* ---- clients that leave ---- */

static bool soon(aid_fake *f, int (*what)(aid_fake *), int want, int ms)
{
    int64_t end = aid_ms() + ms;
    while (what(f) != want && aid_ms() < end)
        usleep(2000);
    return what(f) == want;
}

static int send_chat(aid_server *s, const char *body)
{
    return aid_post(s->port, "/v1/chat/completions", NULL, body);
}

#define STREAM "{\"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}"

static void test_a_client_that_leaves_during_prefill(void **state)
{
    aid_server *s = *state;
    s->plan->deaf = 1;
    const char *const bodies[] = {HI, STREAM};
    for (int i = 0; i < 2; i++) {
        int fd = send_chat(s, bodies[i]);
        assert_true(soon(s->fake, aid_fake_running, 1, SLOWEST));
        close(fd);
        assert_true(soon(s->fake, aid_fake_running, 0, SLOWEST)); /* it would run for ever */
        assert_int_equal(aid_fake_cancelled(s->fake), i + 1);
    }
    expect(s, "GET", "/health/live", NULL, NULL, 200, "ok");
    for (int i = 0; i < 100 && aid_fake_references(s->fake) > 0; i++)
        usleep(5000);
    expect(s, "GET", "/metrics", NULL, NULL, 200, "hone_client_disconnects_total");
}

static void test_a_client_that_leaves_mid_stream(void **state)
{
    aid_server *s = *state;
    static char text[401]; /* at 100 ms a byte it does not end before it is noticed */
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    text[2] = 'l';
    s->plan->text = text;
    s->plan->token_ms = 100;
    int fd = send_chat(s, STREAM);
    char *raw = aid_read(fd, "\"content\":\"l\"", AID_PATIENCE_MS, NULL);
    has(raw, "text/event-stream");
    free(raw);
    close(fd);
    assert_true(soon(s->fake, aid_fake_running, 0, SLOWEST));
    assert_int_equal(aid_fake_cancelled(s->fake), 1);
}

static void test_a_deaf_scheduler_ends_in_504(void **state)
{
    static const char *const settings[] = {"request_seconds=1", NULL};
    (void)state;
    aid_server *s = aid_server_open(settings);
    s->plan->prefill_ms = 60000;
    int64_t start = aid_ms();
    expect(s, "POST", "/v1/chat/completions", NULL, HI, 504, "\"code\":\"generation_timeout\"");
    assert_in_range((uintmax_t)(aid_ms() - start), 900, SLOWEST);
    aid_server_close(s);
}

/* ---- stopping ---- */

static void test_drain(void **state)
{
    (void)state;
    aid_server *s = aid_server_open(NULL);
    s->plan->text = "0123456789";
    s->plan->token_ms = 30;
    s->plan->hold_after = 0;
    int fd = send_chat(s, STREAM);
    assert_true(soon(s->fake, aid_fake_running, 1, SLOWEST));
    s->plan->hold_after = -1;
    http_server_drain(s->http, AID_PATIENCE_MS); /* waits for the stream */
    char *raw = aid_read(fd, "[DONE]", AID_PATIENCE_MS, NULL);
    has(raw, "\"content\":\"9\"");
    has(raw, "data: [DONE]");
    free(raw);
    close(fd);
    expect(s, "GET", "/health/ready", NULL, NULL, 503, "\"code\":\"draining\"");
    expect(s, "GET", "/health/live", NULL, NULL, 200, "ok");
    aid_reply r = aid_call(s, "POST", "/v1/chat/completions", NULL, HI, 503);
    has(r.body, "\"code\":\"draining\"");
    header_is(&r, "Retry-After", NULL);
    header_is(&r, "Connection", "close");
    aid_reply_free(&r);
    aid_server_close(s);
}

/* A subscriber that takes its time, so that the engine has ended long before there is a reply. */
static int take_time(hook_call *call, void *user, hone_err *e)
{
    (void)call;
    (void)user;
    (void)e;
    usleep(200000);
    return HOOK_CONTINUE;
}

/* What the engine has finished when the server stops is also sent, by none of two workers too
 * late. */
static void test_drained_answers_arrive(void **state)
{
    enum { N = 6 };
    hone_err e = {0};
    (void)state;
    aid_server *s = aid_server_open(NULL);
    int fds[N];
    assert_int_equal(hook_on(s->hooks, HOOK_SERVE_RESPONSE, "slow", 0, take_time, NULL, &e), 0);
    s->plan->hold_after = 0;
    for (int i = 0; i < N; i++)
        fds[i] = send_chat(s, HI);
    assert_true(soon(s->fake, aid_fake_running, N, AID_PATIENCE_MS));
    s->plan->hold_after = -1;
    http_server_drain(s->http, AID_PATIENCE_MS);
    aid_server_close(s);
    for (int i = 0; i < N; i++) {
        bool closed;
        char *raw = aid_read(fds[i], NULL, AID_PATIENCE_MS, &closed);
        has(raw, "HTTP/1.1 200 OK");
        has(raw, "\"content\":\"Hello\"");
        assert_true(closed);
        free(raw);
        close(fds[i]);
    }
}

/* The library ends the process when a daemon is stopped over suspended connections. */
static void test_stop_with_everything_in_flight(void **state)
{
    (void)state;
    aid_server *s = aid_server_open(NULL);
    int fds[24];
    s->plan->deaf = 1;
    for (int i = 0; i < 8; i++)
        fds[i] = send_chat(s, i % 2 ? HI : STREAM);
    for (int i = 8; i < 16; i++) { /* headers and bodies half sent */
        fds[i] = aid_connect(s->port);
        aid_send(fds[i], i % 2 ? "GET /heal" : TOKENIZE "Content-Length: 100\r\n\r\n{");
    }
    for (int i = 16; i < 24; i++)
        fds[i] = aid_connect(s->port);
    assert_true(soon(s->fake, aid_fake_running, 8, SLOWEST));
    int64_t start = aid_ms();
    aid_server_close(s);
    assert_in_range((uintmax_t)(aid_ms() - start), 0, SLOWEST);
    for (int i = 0; i < 24; i++)
        close(fds[i]);
}

/* ---- connections ---- */

static void test_connections_of_one_address_are_limited(void **state)
{
    static const char *const settings[] = {"max_connections_per_ip=4", NULL};
    (void)state;
    aid_server *s = aid_server_open(settings);
    int fds[8], closed = 0;
    for (int i = 0; i < 8; i++)
        fds[i] = aid_connect(s->port);
    for (int64_t end = aid_ms() + AID_PATIENCE_MS; closed < 4 && aid_ms() < end; usleep(2000)) {
        closed = 0;
        for (int i = 0; i < 8; i++) {
            struct pollfd p = {.fd = fds[i], .events = POLLIN | POLLRDHUP};
            closed += poll(&p, 1, 0) > 0;
        }
    }
    assert_in_range(closed, 4, 8);
    for (int i = 0; i < 8; i++)
        close(fds[i]);
    int status = 0;
    for (int64_t end = aid_ms() + AID_PATIENCE_MS; status != 200 && aid_ms() < end;) {
        aid_reply r = aid_http(s->port, "GET", "/health/live", NULL, NULL);
        status = r.status; /* none until the server has seen that they left */
        aid_reply_free(&r);
    }
    assert_int_equal(status, 200);
    aid_server_close(s);
}

static void test_health_has_a_door_of_its_own(void **state)
{
    static const char *const settings[] = {"health_listen=127.0.0.1:0", NULL};
    (void)state;
    aid_server *s = aid_server_open(settings);
    aid_reply r = aid_http(s->health_port, "GET", "/health/ready", NULL, NULL);
    assert_int_equal(r.status, 200);
    aid_reply_free(&r);
    r = aid_http(s->health_port, "GET", "/metrics", NULL, NULL);
    assert_int_equal(r.status, 200);
    aid_reply_free(&r);
    r = aid_http(s->health_port, "GET", "/v1/models", NULL, NULL);
    assert_int_equal(r.status, 404);
    aid_reply_free(&r);
    r = aid_http(s->health_port, "POST", "/v1/chat/completions", NULL, HI);
    assert_int_equal(r.status, 404);
    aid_reply_free(&r);
    aid_server_close(s);
}

static void test_operators_have_a_door_of_their_own(void **state)
{
    static const char *const settings[] = {"admin_listen=127.0.0.1:0", NULL};
    static const struct {
        const char *method, *path;
        int main, admin;
    } rows[] = {
        {"GET", "/health/live", 200, 200},          {"GET", "/metrics", 404, 200},
        {"GET", "/v1/feedback", 405, 200},          {"GET", "/v1/feedback/export", 404, 200},
        {"GET", "/v1/feedback/fb-x", 404, 404},     {"GET", "/v1/erasure/erase-x", 404, 404},
        {"POST", "/v1/erasure", 404, 400},          {"GET", "/v1/models", 200, 404},
        {"POST", "/v1/chat/completions", 200, 404},
    };
    (void)state;
    aid_server *s = aid_server_open(settings);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *body = strcmp(rows[i].method, "POST") == 0 ? HI : NULL;
        aid_reply r = aid_http(s->port, rows[i].method, rows[i].path, NULL, body);
        if (r.status != rows[i].main)
            fail_msg("%s on the main listener: %d", rows[i].path, r.status);
        aid_reply_free(&r);
        r = aid_http(s->admin_port, rows[i].method, rows[i].path, NULL, body);
        if (r.status != rows[i].admin)
            fail_msg("%s on the admin listener: %d", rows[i].path, r.status);
        aid_reply_free(&r);
    }
    aid_reply r = aid_http(s->port, "PUT", "/v1/feedback/fb-x", NULL, "{\"review\": \"approved\"}");
    assert_int_equal(r.status, 403);
    assert_non_null(strstr(r.body, "reviews are taken on the admin listener only"));
    aid_reply_free(&r);
    r = aid_http(s->admin_port, "PUT", "/v1/feedback/fb-x", NULL, "{\"review\": \"approved\"}");
    assert_int_equal(r.status, 404);
    assert_non_null(strstr(r.body, "no feedback 'fb-x'"));
    aid_reply_free(&r);
    aid_server_close(s);
}

static void test_keep_alive_and_pipelining(void **state)
{
    aid_server *s = *state;
    int fd = aid_connect(s->port);
    aid_send(fd, "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" TOKENIZE
                 "Content-Length: 17\r\n\r\n{\"content\": \"AB\"}"
                 "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    bool closed;
    char *raw = aid_read(fd, NULL, AID_PATIENCE_MS, &closed);
    assert_true(closed);
    assert_int_equal(replies_in(raw), 3);
    has(raw, "[65,66]");
    free(raw);
    close(fd);
}

/* Bytes and the end of them in one segment, of which libmicrohttpd reads the bytes only. The
 * connection goes all the same, long before its time is up. */
static void test_a_last_word_and_its_end_at_once(void **state)
{
    static const char *const settings[] = {"header_seconds=60", "body_seconds=60",
                                           "idle_seconds=60", NULL};
    static const char *const words[][2] = {
        {"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", " 200 OK"},
        {TOKENIZE "Content-Length: 17\r\n\r\n{\"content\": \"AB\"}",
         ""}, /* parked: its reply may be given up */
        {"GET /health/live HTTP/1.1\r\nHost: lo", ""},
        {TOKENIZE "Content-Length: 17\r\n\r\n{\"con", ""},
        {"GET", ""},
        {"", ""},
    };
    enum { N = sizeof words / sizeof *words };
    int fds[N];
    (void)state;
    aid_server *s = aid_server_open(settings);
    for (int i = 0; i < N; i++) {
        fds[i] = aid_connect(s->port);
        send(fds[i], words[i][0], strlen(words[i][0]), MSG_MORE | MSG_NOSIGNAL);
        shutdown(fds[i], SHUT_WR);
    }
    for (int i = 0; i < N; i++) {
        bool closed;
        char *raw = aid_read(fds[i], NULL, SLOWEST, &closed);
        if (!closed)
            fail_msg("'%s' and the end are not seen", words[i][0]);
        has(raw, words[i][1]);
        free(raw);
        close(fds[i]);
    }
    aid_server_close(s);
}

/* ---- browsers ---- */

static void test_cors(void **state)
{
    static const char *const settings[] = {"cors_origins=[\"https://app.example\"]", NULL};
    (void)state;
    aid_server *s = aid_server_open(settings);
    aid_reply r = aid_call(s, "OPTIONS", "/v1/chat/completions", "Origin: https://app.example\r\n",
                           NULL, 204);
    header_is(&r, "Access-Control-Allow-Origin", "https://app.example");
    header_is(&r, "Access-Control-Allow-Methods", "GET, POST, PUT, DELETE");
    aid_reply_free(&r);
    r = aid_call(s, "OPTIONS", "/v1/chat/completions", "Origin: https://evil.example\r\n", NULL,
                 403);
    assert_null(aid_header(&r, "Access-Control-Allow-Origin"));
    aid_reply_free(&r);
    r = aid_call(s, "GET", "/v1/models", "Origin: https://app.example\r\n", NULL, 200);
    header_is(&r, "Access-Control-Allow-Origin", "https://app.example");
    header_is(&r, "Vary", "Origin");
    assert_null(aid_header(&r, "Access-Control-Allow-Credentials"));
    aid_reply_free(&r);
    r = aid_call(s, "GET", "/v1/models", "Origin: https://evil.example\r\n", NULL, 200);
    assert_null(aid_header(&r, "Access-Control-Allow-Origin"));
    aid_reply_free(&r);
    aid_server_close(s);
}

/* Without keys, a web page whose name was pointed at this machine must not get in. */
static void test_rebinding(void **state)
{
    aid_server *s = *state;
    int fd = aid_connect(s->port);
    aid_send(fd, "GET /v1/models HTTP/1.1\r\nHost: evil.example:80\r\nConnection: close\r\n\r\n");
    char *raw = aid_read(fd, NULL, AID_PATIENCE_MS, NULL);
    has(raw, "HTTP/1.1 403 ");
    has(raw, "only requests to localhost are served, not to 'evil.example'");
    free(raw);
    close(fd);
    static const char *const good[] = {"127.0.0.1:99", "[::1]:99", "localhost", "127.0.0.1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char *req =
            mem_printf("GET /v1/models HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", good[i]);
        fd = aid_connect(s->port);
        aid_send(fd, req);
        raw = aid_read(fd, NULL, AID_PATIENCE_MS, NULL);
        has(raw, "HTTP/1.1 200 ");
        free(raw);
        free(req);
        close(fd);
    }
}

/* ---- metrics ---- */

#define FAKE "model=\"fake\",digest=\"aaaaaaaaaaaa\",adapter=\"\""

static void test_metric_names_are_a_contract(void **state)
{
    static const char *const names[] = {
        "hone_requests_running 0",
        "hone_requests_waiting 2",
        "hone_queue_tokens",
        "hone_kv_cache_usage_ratio 0.5",
        "# TYPE hone_prompt_tokens_total counter",
        "# TYPE hone_generation_tokens_total counter",
        "hone_requests_admitted_total",
        "hone_requests_finished_total",
        "hone_requests_cancelled_total",
        "hone_requests_failed_total",
        "hone_requests_rejected_total",
        "hone_engine_steps_total",
        "hone_engine_last_step_age_seconds",
        "hone_connections_open",
        "hone_connections_total",
        "hone_connections_timed_out_total",
        "hone_client_disconnects_total",
        "hone_store_writes_total",
        "hone_store_failed_total",
        "hone_store_dropped_total",
        "hone_store_waiting",
        "hone_uptime_seconds",
        "# TYPE hone_time_to_first_token_seconds histogram",
        "hone_time_to_first_token_seconds_bucket{" FAKE ",le=\"0.005\"} 3",
        "hone_time_to_first_token_seconds_bucket{" FAKE ",le=\"+Inf\"} 6",
        "hone_time_to_first_token_seconds_sum{" FAKE "} 1.5",
        "hone_inter_token_latency_seconds_count",
        "hone_e2e_request_latency_seconds_count",
        "hone_request_queue_time_seconds_count",
        "hone_request_prefill_time_seconds_count",
        "hone_request_decode_time_seconds_count",
        "hone_http_requests_total{method=\"GET\",route=\"/health/live\",status=\"2xx\"} 1",
        "hone_http_requests_total{method=\"\",route=\"unknown\",status=\"4xx\"} 1",
        "hone_model_info{" FAKE ",role=\"live\"} 1",
        "hone_requests_admitted_total{" FAKE "} 0",
        "hone_feedback_total{" FAKE ",rating=\"up\"} 0",
        "hone_auth_failures_total{reason=\"unknown\"} 0",
        "hone_rate_limited_total{limit=\"tokens\"} 0",
    };
    aid_server *s = *state;
    expect(s, "GET", "/health/live", NULL, NULL, 200, "ok");
    expect(s, "GET", "/nope", NULL, NULL, 404, "unknown_route");
    aid_reply r = aid_call(s, "GET", "/metrics", NULL, NULL, 200);
    header_is(&r, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        has(r.body, names[i]);
    assert_null(strstr(r.body, "vllm:"));
    aid_reply_free(&r);
}

static void test_vllm_metric_names(void **state)
{
    static const char *const settings[] = {"vllm_metric_names=true", NULL};
    static const char *const names[] = {
        "vllm:num_requests_running",          "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",           "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",       "vllm:request_success_total",
        "vllm:time_to_first_token_seconds_",  "vllm:inter_token_latency_seconds_",
        "vllm:e2e_request_latency_seconds_",  "vllm:request_queue_time_seconds_",
        "vllm:request_prefill_time_seconds_", "vllm:request_decode_time_seconds_"};
    (void)state;
    aid_server *s = aid_server_open(settings);
    aid_reply r = aid_call(s, "GET", "/metrics", NULL, NULL, 200);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        has(r.body, names[i]);
    aid_reply_free(&r);
    aid_server_close(s);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, aid_server_setup, aid_server_teardown)
    const struct CMUnitTest tests[] = {
        T(test_health),
        T(test_error_shape),
        T(test_refusals_keep_the_connection),
        T(test_media_type),
        T(test_text_routes),
        T(test_the_first_key_closes_the_door),
        T(test_revoked_and_expired),
        cmocka_unit_test(test_wrong_keys_block_the_address),
        T(test_failures_are_noted_without_the_secret),
        T(test_requests_a_minute),
        T(test_tokens_and_daily_budget),
        T(test_parallel_answers),
        T(test_framing_attacks),
        T(test_malformed_lines),
        T(test_large_headers),
        cmocka_unit_test(test_large_bodies),
        cmocka_unit_test(test_slow_headers_and_bodies),
        T(test_a_client_that_leaves_during_prefill),
        T(test_a_client_that_leaves_mid_stream),
        cmocka_unit_test(test_a_deaf_scheduler_ends_in_504),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drained_answers_arrive),
        cmocka_unit_test(test_stop_with_everything_in_flight),
        cmocka_unit_test(test_connections_of_one_address_are_limited),
        cmocka_unit_test(test_health_has_a_door_of_its_own),
        cmocka_unit_test(test_operators_have_a_door_of_their_own),
        cmocka_unit_test(test_a_last_word_and_its_end_at_once),
        T(test_keep_alive_and_pipelining),
        cmocka_unit_test(test_cors),
        T(test_rebinding),
        T(test_metric_names_are_a_contract),
        cmocka_unit_test(test_vllm_metric_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
