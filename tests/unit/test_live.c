/* From an open port to a model that answers, and from one model to the next. */
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/model/digest.h"
#include "serve/http/http_server.h"
#include "serve/loop/live.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_http.h"
#include "tests/unit/aid_tiny.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WAIT_MS = AID_PATIENCE_MS };

/* A server with a real engine; nothing is loaded yet. */
typedef struct place {
    char *dir, *model;
    serve_conf conf;
    store *store;
    sign_trust trust;
    engine *engine;
    backend backend;
    http_server *http;
    uint16_t port;
    live *live;
    const char *canary; /* under which name; NULL: none */
} place;

static void must(int rc, const hone_err *e)
{
    if (rc != 0)
        fail_msg("%s", e->msg);
}

static int set_up(void **state)
{
    hone_err e = {0};
    place *p = mem_alloc(sizeof *p);
    const engine_options eo = {.max_seqs = 4};
    *state = p;
    p->dir = aid_dir_quick();
    p->model = path_join(p->dir, "model");
    aid_tiny_make(p->model);
    char *over[] = {mem_printf("state_dir=%s/state", p->dir), (char *)"listen=127.0.0.1:0"};
    must(serve_conf_load(&p->conf, NULL, over, 2, &e), &e);
    free(over[0]);
    must(store_open(&p->store, p->conf.state_dir, NULL, &e), &e);
    must(sign_trust_open(&p->trust, p->conf.state_dir, NULL, false, &e), &e);
    must(engine_start(&p->engine, &eo, &e), &e);
    backend_of_engine(&p->backend, p->engine);
    const http_options ho = {&p->conf, p->store, NULL, &p->backend};
    must(http_server_start(&p->http, &ho, &e), &e);
    p->port = http_server_port(p->http);
    return 0;
}

static int tear_down(void **state)
{
    place *p = *state;
    http_server_drain(p->http, 200);
    http_server_stop(p->http);
    live_stop(p->live);
    engine_stop(p->engine);
    sign_trust_close(&p->trust);
    store_close(p->store);
    serve_conf_free(&p->conf);
    aid_dir_drop(p->dir);
    free(p->model);
    free(p);
    return 0;
}

static void start_live(place *p)
{
    hone_err e = {0};
    const live_options o = {.st = p->store,
                            .eng = p->engine,
                            .trust = &p->trust,
                            .load = {.model_dir = p->model,
                                     .name = "tiny",
                                     .device = "cpu",
                                     .threads = 1,
                                     .dtype = KERN_F32,
                                     .max_seqs = 4},
                            .canary = p->canary,
                            .poll_ms = 10};
    must(live_start(&p->live, &o, &e), &e);
}

static void expect(place *p, const char *method, const char *path, const char *body, int status,
                   const char *says, bool retry)
{
    aid_reply r = aid_http(p->port, method, path, NULL, body);
    if (r.status != status || strstr(r.body, says) == NULL)
        fail_msg("%s gives %d '%s', not %d '%s'", path, r.status, r.body, status, says);
    char *after = aid_header(&r, "Retry-After");
    assert_int_equal(after != NULL, retry);
    free(after);
    aid_reply_free(&r);
}

#define QUESTION "{\"prompt\": \"hello\", \"max_tokens\": 2}"

static void test_the_port_opens_before_the_model(void **state)
{
    place *p = *state;
    hone_err e = {0};
    expect(p, "GET", "/health/live", NULL, 200, "ok", false);
    expect(p, "GET", "/health/ready", NULL, 503, "\"message\":\"no model is loaded yet\"", true);
    expect(p, "POST", "/v1/completions", QUESTION, 503, "\"code\":\"model_loading\"", true);
    expect(p, "GET", "/v1/models", NULL, 503, "\"code\":\"model_loading\"", true);
    expect(p, "GET", "/metrics", NULL, 200, "hone_requests_running", false);
    engine_set_why_none(p->engine, "the model is asked for its first token");
    expect(p, "GET", "/health/ready", NULL, 503, "is asked for its first token", true);
    start_live(p);
    must(live_wait(p->live, &e), &e);
    assert_int_equal(engine_counters(p->engine).count.finished, 1); /* the first question */
    assert_int_equal(engine_counters(p->engine).count.answer_tokens, 1);
    expect(p, "GET", "/health/ready", NULL, 200, "\"model\":\"tiny\"", false);
    expect(p, "POST", "/v1/completions", QUESTION, 200, "\"choices\"", false);
    expect(p, "GET", "/v1/models", NULL, 200, "\"signed_by\":null", false);
}

/* Every weight becomes a NaN. */
static void spoil(const char *dir)
{
    char *path = path_join(dir, "model.safetensors"), *data;
    size_t len, head;
    assert_int_equal(file_read(&data, &len, path, 1 << 24, NULL), 0);
    memcpy(&head, data, 8);
    memset(data + 8 + head, 0xff, len - 8 - head);
    assert_int_equal(file_write(path, data, len, NULL), 0);
    free(data);
    free(path);
}

static void test_a_model_that_computes_nothing_does_not_start(void **state)
{
    place *p = *state;
    hone_err e = {0};
    spoil(p->model);
    start_live(p);
    assert_int_equal(live_wait(p->live, &e), HONE_EDEVICE);
    if (strstr(e.msg, "the first question: sampling: sample: the logits of row 0 are not finite") ==
        NULL)
        fail_msg("%s", e.msg);
    expect(p, "GET", "/health/ready", NULL, 503, "the model cannot be loaded", true);
    assert_int_equal(live_state(p->live).phase, LIVE_FAILED);
}

static void add_artefact(place *p, const char *path, char digest[65], const char *promote_by)
{
    hone_err e = {0};
    must(model_dir_digest(digest, path, &e), &e);
    const registry_entry entry = {
        .digest = digest, .kind = "model", .path = path, .promote_by = promote_by};
    must(registry_add(p->store, &entry, &e), &e);
}

static void promote(place *p, const char *path, char digest[65])
{
    add_artefact(p, path, digest, "test");
}

static live_status wait_for(place *p, int64_t swaps, int64_t failures)
{
    int64_t end = aid_ms() + WAIT_MS;
    live_status s = live_state(p->live);
    while ((s.swaps < swaps || s.failures < failures) && aid_ms() < end) {
        usleep(2000);
        s = live_state(p->live);
    }
    return s;
}

static void test_a_swap_asks_first(void **state)
{
    place *p = *state;
    hone_err e = {0};
    char first[65], bad[65], good[65];
    char *broken = path_join(p->dir, "broken"), *other = path_join(p->dir, "other");
    aid_tiny_make(broken);
    spoil(broken);
    aid_tiny_make(other);
    char *file = path_join(other, "model.safetensors"), *data;
    size_t len;
    assert_int_equal(file_read(&data, &len, file, 1 << 24, NULL), 0);
    data[len - 4] ^= 1; /* another model, as good */
    assert_int_equal(file_write(file, data, len, NULL), 0);
    start_live(p);
    must(live_wait(p->live, &e), &e);
    memcpy(first, live_state(p->live).digest, 65);
    promote(p, broken, bad);
    live_status s = wait_for(p, 0, 1);
    assert_int_equal(s.failures, 1);
    assert_string_equal(s.digest, first);
    assert_non_null(strstr(s.last_error, "the first question"));
    expect(p, "GET", "/health/ready", NULL, 200, "ok", false);
    expect(p, "GET", "/v1/models", NULL, 200, first, false);
    uint64_t asked = engine_counters(p->engine).count.finished;
    promote(p, other, good);
    s = wait_for(p, 1, 0);
    assert_string_equal(s.digest, good);
    assert_int_equal(engine_counters(p->engine).count.finished, asked + 1);
    expect(p, "POST", "/v1/completions", QUESTION, 200, "\"choices\"", false);
    expect(p, "GET", "/v1/models", NULL, 200, good, false);
    free(data);
    free(file);
    free(broken);
    free(other);
}

/* A copy of the model that is another one, and as good. */
static char *make_other(place *p, const char *name, char bit)
{
    char *dir = path_join(p->dir, name), *data;
    aid_tiny_make(dir);
    char *file = path_join(dir, "model.safetensors");
    size_t len;
    assert_int_equal(file_read(&data, &len, file, 1 << 24, NULL), 0);
    data[len - 4] ^= bit;
    assert_int_equal(file_write(file, data, len, NULL), 0);
    free(data);
    free(file);
    return dir;
}

static void point_canary(place *p, const char *digest)
{
    hone_err e = {0};
    must(registry_alias_move(p->store, "canary", digest, NULL, "test", "a trial", &e), &e);
}

/* Until /v1/models says so, or says it no longer. */
static void wait_for_model(place *p, const char *says, bool there)
{
    bool is = !there;
    for (int64_t end = aid_ms() + WAIT_MS; is != there && aid_ms() < end;) {
        aid_reply r = aid_http(p->port, "GET", "/v1/models", NULL, NULL);
        is = strstr(r.body, says) != NULL;
        aid_reply_free(&r);
        usleep(2000);
    }
    assert_int_equal(is, there);
}

#define FOR_CANARY "{\"prompt\": \"hello\", \"max_tokens\": 2, \"model\": \"tiny-canary\"}"

/* The alias `canary` is served beside what is live, until it points elsewhere or is live. */
static void test_a_canary_beside_it(void **state)
{
    place *p = *state;
    hone_err e = {0};
    char other[65], third[65];
    char *a = make_other(p, "other", 1), *b = make_other(p, "third", 2);
    p->canary = "tiny-canary";
    start_live(p);
    must(live_wait(p->live, &e), &e);
    char first[65];
    memcpy(first, live_state(p->live).digest, 65);
    expect(p, "POST", "/v1/completions", FOR_CANARY, 404, "there is no model", false);
    add_artefact(p, a, other, NULL);
    add_artefact(p, b, third, NULL);
    point_canary(p, other);
    wait_for_model(p, other, true);
    expect(p, "GET", "/v1/models/tiny-canary", NULL, 200, other, false);
    expect(p, "GET", "/v1/models/tiny", NULL, 200, first, false);
    expect(p, "POST", "/v1/completions", FOR_CANARY, 200, "\"model\":\"tiny-canary\"", false);
    expect(p, "POST", "/v1/completions", QUESTION, 200, "\"model\":\"tiny\"", false);
    point_canary(p, third);
    wait_for_model(p, third, true);
    expect(p, "POST", "/v1/completions", FOR_CANARY, 200, "\"model\":\"tiny-canary\"", false);
    promote(p, b, third); /* now it is live, and not served twice */
    wait_for_model(p, "tiny-canary", false);
    expect(p, "GET", "/v1/models/tiny", NULL, 200, third, false);
    expect(p, "POST", "/v1/completions", FOR_CANARY, 404, "there is no model", false);
    /* One that computes nothing is refused, and what is live goes on. */
    char *c = make_other(p, "broken", 4), bad[65];
    spoil(c);
    add_artefact(p, c, bad, NULL);
    int64_t failures = live_state(p->live).failures;
    point_canary(p, bad);
    wait_for(p, 0, failures + 1);
    assert_int_equal(live_state(p->live).failures, failures + 1);
    assert_string_equal(live_state(p->live).canary, "");
    expect(p, "POST", "/v1/completions", QUESTION, 200, "\"model\":\"tiny\"", false);
    free(a);
    free(b);
    free(c);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
    log_setup(LOG_ERROR + 1, false);
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_the_port_opens_before_the_model),
        TEST(test_a_model_that_computes_nothing_does_not_start),
        TEST(test_a_swap_asks_first),
        TEST(test_a_canary_beside_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
