#include "serve/store/feedback.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/store/audit.h"
#include "serve/store/keys.h"
#include "serve/store/requests.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"

#include <setjmp.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <cmocka.h>

typedef struct place {
    char *dir;
    store *s;
} place;

static int open_place(void **state)
{
    place *p = mem_alloc(sizeof *p);
    p->dir = aid_dir_quick();
    *state = p;
    return store_open(&p->s, p->dir, NULL, NULL);
}

static int close_place(void **state)
{
    place *p = *state;
    store_close(p->s);
    aid_dir_drop(p->dir);
    free(p);
    return 0;
}

static void fails_with(int rc, int want, const hone_err *e, const char *text)
{
    if (rc != want)
        fail_msg("%s, not %s: %s", hone_errname(rc), hone_errname(want), e->msg);
    if (strstr(e->msg, text) == NULL)
        fail_msg("'%s' does not say '%s'", e->msg, text);
}

static json_t *parse(const char *text)
{
    json_t *v;
    hone_err e = {0};
    if (js_parse(&v, text, strlen(text), &e) != 0)
        fail_msg("%s in %s", e.msg, text);
    return v;
}

/* A stored answer of key "keyaaaaa" with two choices. */
static void add_response(store *s, const char *id, const char *keep, const char *question)
{
    json_t *r = parse("{\"key_id\": \"keyaaaaa\", \"route\": \"/v1/chat/completions\","
                      "\"model\": \"m\", \"model_digest\": \"d1\", \"adapter_digest\": \"d2\","
                      "\"template_digest\": \"d3\", \"params\": {\"seed\": 7}, \"status\": 200,"
                      "\"choices\": [{\"index\": 0, \"text\": \"blue\","
                      " \"finish_reason\": \"stop\"}, {\"index\": 1, \"text\": \"red\"}],"
                      "\"finish_reason\": \"stop\", \"tok_in\": 5, \"tok_out\": 3}");
    json_object_set_new(r, "id", json_string(id));
    json_object_set_new(r, "ts", json_integer(clock_unix_ms()));
    json_object_set_new(r, "keep", json_string(keep));
    json_object_set_new(r, "user_hash", json_string("hash-of-bob"));
    json_object_set_new(r, "messages",
                        json_pack("[{s:s, s:s}]", "role", "user", "content", question));
    assert_int_equal(requests_post(s, r), 0);
    assert_int_equal(store_flush(s, NULL), 0);
}

static const feedback_author owner = {.key_id = "keyaaaaa", .user_hash = "u1"};
static const feedback_author stranger = {.key_id = "keybbbbb", .user_hash = "u1"};
static const feedback_author annotator = {
    .key_id = "keybbbbb", .source = "annotator", .any_response = true};

static int put(store *s, const char *body, const feedback_author *a, json_t **out, bool *created,
               hone_err *e)
{
    json_t *b = parse(body), *form;
    *out = NULL;
    int rc = feedback_form(b, &form, NULL, e);
    if (rc == 0)
        rc = feedback_put(s, form, a, out, created, e);
    json_decref(form);
    json_decref(b);
    return rc;
}

static json_t *put_ok(store *s, const char *body, const feedback_author *a)
{
    json_t *fb;
    bool created;
    hone_err e = {0};
    if (put(s, body, a, &fb, &created, &e) != 0)
        fail_msg("%s", e.msg);
    return fb;
}

static int64_t figure(const json_t *rows, size_t i, const char *name)
{
    return json_integer_value(json_object_get(json_array_get(rows, i), name));
}

/* Two answered models, one of them as two artefacts; feedback that was rejected does not count. */
static void test_by_model(void **state)
{
    static const char *const digests[] = {"d0", "d1", "d1", "d1"};
    static const char *const models[] = {"m", "m", "m-canary", "m-canary"};
    static const char *const ratings[] = {"up", "down", "up", "none"};
    place *p = *state;
    hone_err e = {0};
    json_t *rows, *fb = NULL;
    for (int i = 0; i < 4; i++) {
        json_t *r = json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:I, s:[{s:i, s:s}], s:[]}", "route",
                              "/v1/completions", "model", models[i], "model_digest", digests[i],
                              "keep", "full", "status", i == 3 ? 500 : 200, "key_id", "keyaaaaa",
                              "ts", (json_int_t)(1000 * (i + 1)), "choices", "index", 0, "text",
                              "blue", "messages");
        char *id = mem_printf("r%d", i);
        json_object_set_new(r, "id", json_string(id));
        assert_int_equal(requests_post(p->s, r), 0);
        char *body = mem_printf("{\"response_id\": \"%s\", \"rating\": \"%s\"%s}", id, ratings[i],
                                i == 1 ? ", \"correction\": \"red\"" : "");
        assert_int_equal(store_flush(p->s, NULL), 0);
        json_decref(fb);
        fb = put_ok(p->s, body, &owner);
        free(body);
        free(id);
    }
    assert_int_equal(feedback_models(p->s, 0, &rows, &e), 0);
    assert_int_equal(json_array_size(rows), 3);
    assert_int_equal(figure(rows, 0, "up"), 1);
    assert_int_equal(figure(rows, 1, "down"), 1);
    assert_int_equal(figure(rows, 1, "corrected"), 1);
    assert_int_equal(figure(rows, 2, "answers"), 2);
    assert_int_equal(figure(rows, 2, "failed"), 1);
    assert_int_equal(figure(rows, 2, "rated"), 2);
    assert_int_equal(figure(rows, 2, "none"), 1);
    json_decref(rows);
    const char *last = json_string_value(json_object_get(fb, "id"));
    assert_int_equal(feedback_review(p->s, last, "rejected", "test", &e), 0);
    assert_int_equal(feedback_models(p->s, 4000, &rows, &e),
                     0); /* one answer; all feedback is new */
    assert_int_equal(figure(rows, 2, "answers"), 1);
    assert_int_equal(figure(rows, 2, "rated"), 1);
    json_decref(rows);
    json_decref(fb);
}

static void put_fails(store *s, const char *body, const feedback_author *a, int code,
                      const char *text)
{
    json_t *fb;
    bool created;
    hone_err e = {0};
    fails_with(put(s, body, a, &fb, &created, &e), code, &e, text);
    assert_null(fb);
}

static const char *str(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static int64_t num(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* ---- the form ---- */

static void test_forms(void **state)
{
    (void)state;
    static const struct {
        const char *body, *field, *error;
    } bad[] = {
        {"[]", NULL, "feedback must be a JSON object"},
        {"{\"response_id\": \"r\"}", NULL, "feedback says nothing: give a rating"},
        {"{\"rating\": 2}", "rating", "'rating' must be -1, 0, 1, \"down\", \"none\" or \"up\""},
        {"{\"rating\": \"Up\"}", "rating", "'rating' must be"},
        {"{\"rating\": 1.0}", "rating", "'rating' must be"},
        {"{\"ratign\": 1}", NULL, "unknown field 'ratign' (did you mean 'rating'?)"},
        {"{\"rating\": 1, \"choice_index\": -1}", "choice_index", "must be the index of a choice"},
        {"{\"correction\": {\"role\": \"user\", \"content\": \"x\"}}", "correction",
         "'correction' must be text, or a message"},
        {"{\"correction\": \"\"}", "correction", "'correction' must be text"},
        {"{\"tags\": [\"a\", 1]}", "tags", "'tags' must be a list of texts"},
        {"{\"tags\": \"a\"}", "tags", "'tags' must be a list"},
        {"{\"score\": \"5\"}", "score", "'score' must be a number"},
        {"{\"comment\": 5}", "comment", "'comment' must be text"},
        {"{\"comment\": \"a\\u0000b\"}", "comment", "'comment' must be text"},
        {"{\"response_id\": \"\", \"rating\": 1}", "response_id", "text of 1 to 256 bytes"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *b = parse(bad[i].body), *form;
        const char *field;
        hone_err e = {0};
        int rc = feedback_form(b, &form, &field, &e);
        assert_int_not_equal(rc, 0);
        if (strstr(e.msg, bad[i].error) == NULL)
            fail_msg("%s: '%s'", bad[i].body, e.msg);
        if (bad[i].field == NULL)
            assert_null(field);
        else
            assert_string_equal(field, bad[i].field);
        assert_null(form);
        json_decref(b);
    }
    json_t *b = parse("{\"id\": \"r\", \"rating\": \"down\", \"correction\": \"new\","
                      "\"comment\": null, \"score\": 3}");
    json_t *form;
    assert_int_equal(feedback_form(b, &form, NULL, NULL), 0);
    assert_string_equal(str(form, "response_id"), "r");
    assert_int_equal(num(form, "rating"), -1);
    assert_string_equal(str(json_object_get(form, "correction"), "content"), "new");
    assert_null(json_object_get(form, "comment"));
    json_decref(form);
    json_decref(b);
}

/* ---- storing ---- */

static void test_feedback_keeps_what_was_seen(void **state)
{
    store *s = ((place *)*state)->s;
    add_response(s, "chatcmpl-1", "full", "sky?");
    json_t *fb = put_ok(s,
                        "{\"response_id\": \"chatcmpl-1\", \"choice_index\": 1, \"rating\": 1,"
                        "\"tags\": [\"a\"], \"correction\": \"blue!\", \"score\": 0.5}",
                        &owner);
    const json_t *snap = json_object_get(fb, "snapshot");
    assert_int_equal(strncmp(str(fb, "id"), "fb-", 3), 0);
    assert_string_equal(str(fb, "object"), "feedback");
    assert_string_equal(str(fb, "review"), "pending");
    assert_string_equal(str(fb, "source"), "end_user");
    assert_int_equal(num(fb, "version"), 1);
    assert_string_equal(str(snap, "answer"), "red");
    assert_string_equal(str(snap, "model_digest"), "d1");
    assert_string_equal(str(snap, "adapter_digest"), "d2");
    assert_int_equal(num(json_object_get(snap, "params"), "seed"), 7);
    assert_string_equal(str(json_array_get(json_object_get(snap, "messages"), 0), "content"),
                        "sky?");
    char hex[65];
    char *text = js_text(snap, true);
    bytes_sha256(hex, text, strlen(text));
    assert_string_equal(str(fb, "snapshot_sha256"), hex);
    free(text);
    json_decref(fb);
}

static void test_what_is_refused(void **state)
{
    store *s = ((place *)*state)->s;
    add_response(s, "chatcmpl-1", "full", "sky?");
    add_response(s, "chatcmpl-2", "metadata", "sky?");
    add_response(s, "chatcmpl-3", "full", "sea?");
    put_fails(s, "{\"rating\": 1}", &owner, HONE_EINVAL, "'response_id' is missing");
    put_fails(s, "{\"response_id\": \"x\", \"rating\": 1}", &owner, HONE_ENOTFOUND,
              "no stored response 'x'");
    put_fails(s, "{\"response_id\": \"chatcmpl-1\", \"rating\": 1}", &stranger, HONE_ENOTFOUND,
              "no stored response 'chatcmpl-1'"); /* as if it were not there */
    put_fails(s, "{\"response_id\": \"chatcmpl-2\", \"rating\": 1}", &owner, HONE_EDENIED,
              "the text of response 'chatcmpl-2' was not stored");
    put_fails(s, "{\"response_id\": \"chatcmpl-1\", \"choice_index\": 2, \"rating\": 1}", &owner,
              HONE_EINVAL, "response 'chatcmpl-1' has no choice 2");
    put_fails(s, "{\"response_id\": \"chatcmpl-1\", \"preferred_over\": \"chatcmpl-3\"}", &owner,
              HONE_EINVAL, "'chatcmpl-3' answers another prompt");
    put_fails(s, "{\"response_id\": \"chatcmpl-1\", \"preferred_over\": \"y\"}", &owner,
              HONE_ENOTFOUND, "no stored response 'y'");
    json_decref(put_ok(s, "{\"response_id\": \"chatcmpl-1\", \"rating\": 1}", &annotator));
}

static void test_one_opinion_a_user(void **state)
{
    store *s = ((place *)*state)->s;
    bool created;
    json_t *fb;
    hone_err e = {0};
    add_response(s, "r1", "full", "sky?");
    add_response(s, "r2", "full", "sky?");
    json_t *first = put_ok(s, "{\"id\": \"r1\", \"rating\": 1, \"comment\": \"nice\"}", &owner);
    assert_int_equal(feedback_review(s, str(first, "id"), "approved", "cli:me", &e), 0);
    assert_int_equal(put(s, "{\"id\": \"r1\", \"rating\": -1}", &owner, &fb, &created, &e), 0);
    assert_false(created);
    assert_string_equal(str(fb, "id"), str(first, "id"));
    assert_int_equal(num(fb, "version"), 2);
    assert_int_equal(num(fb, "rating"), -1);
    assert_string_equal(str(fb, "comment"), "nice");   /* what is not given stays */
    assert_string_equal(str(fb, "review"), "pending"); /* what changed is reviewed again */
    json_decref(fb);
    feedback_author other = owner;
    other.user_hash = "u2";
    fb = put_ok(s, "{\"id\": \"r1\", \"rating\": 1}", &other);
    assert_string_not_equal(str(fb, "id"), str(first, "id"));
    json_decref(fb);
    json_decref(first);

    first = put_ok(s, "{\"id\": \"r1\", \"rating\": 1, \"idempotency_key\": \"k\"}", &owner);
    assert_int_equal(put(s, "{\"id\": \"r1\", \"rating\": 0, \"idempotency_key\": \"k\"}", &owner,
                         &fb, &created, &e),
                     0);
    assert_false(created);
    assert_string_equal(str(fb, "id"), str(first, "id"));
    json_decref(fb);
    json_decref(first);
    put_fails(s, "{\"id\": \"r2\", \"rating\": 0, \"idempotency_key\": \"k\"}", &owner, HONE_EEXIST,
              "the idempotency key was used for choice 0 of response 'r1'");
}

static void test_change_and_delete(void **state)
{
    store *s = ((place *)*state)->s;
    hone_err e = {0};
    add_response(s, "r1", "full", "sky?");
    json_t *fb = put_ok(s, "{\"id\": \"r1\", \"rating\": 1}", &owner), *changed, *form;
    json_t *body = parse("{\"correction\": \"grey\"}");
    assert_int_equal(feedback_form(body, &form, NULL, &e), 0);
    fails_with(feedback_change(s, str(fb, "id"), form, &stranger, &changed, &e), HONE_ENOTFOUND, &e,
               "no feedback 'fb-");
    assert_int_equal(feedback_change(s, str(fb, "id"), form, &owner, &changed, &e), 0);
    assert_int_equal(num(changed, "rating"), 1);
    assert_string_equal(str(json_object_get(changed, "correction"), "content"), "grey");
    fails_with(feedback_delete(s, str(fb, "id"), &stranger, &e), HONE_ENOTFOUND, &e, "no feedback");
    assert_int_equal(feedback_delete(s, str(fb, "id"), &owner, &e), 0);
    fails_with(feedback_delete(s, str(fb, "id"), &owner, &e), HONE_ENOTFOUND, &e, "no feedback");
    audit_report r;
    assert_int_equal(audit_verify(s, NULL, &r, &e), 0);
    assert_int_equal(r.n, 4); /* the request, then create, update, delete */
    json_decref(form);
    json_decref(body);
    json_decref(changed);
    json_decref(fb);
}

/* ---- reading ---- */

static int count(void *user, json_t *fb, hone_err *e)
{
    (void)fb;
    (void)e;
    ++*(int *)user;
    return 0;
}

static int counted(store *s, const feedback_filter *f)
{
    int n = 0;
    hone_err e = {0};
    if (feedback_each(s, f, count, &n, &e) != 0)
        fail_msg("%s", e.msg);
    return n;
}

static void test_filters_and_used_marks(void **state)
{
    store *s = ((place *)*state)->s;
    hone_err e = {0};
    add_response(s, "r1", "full", "sky?");
    add_response(s, "r2", "full", "sea?");
    add_response(s, "r3", "full", "sun?");
    json_t *a = put_ok(s, "{\"id\": \"r1\", \"rating\": 1, \"tags\": [\"x\", \"y\"]}", &owner);
    json_t *b = put_ok(s, "{\"id\": \"r2\", \"rating\": -1, \"correction\": \"wet\"}", &owner);
    json_t *c = put_ok(s, "{\"id\": \"r3\", \"score\": 2.5}", &annotator);
    assert_int_equal(feedback_review(s, str(a, "id"), "approved", "me", &e), 0);
    fails_with(feedback_review(s, "fb-x", "approved", "me", &e), HONE_ENOTFOUND, &e,
               "no feedback 'fb-x'");
    fails_with(feedback_review(s, str(a, "id"), "fine", "me", &e), HONE_EINVAL, &e,
               "it is pending, approved or rejected");
    assert_int_equal(counted(s, NULL), 3);
    assert_int_equal(counted(s, &(feedback_filter){.limit = 2}), 2);
    assert_int_equal(counted(s, &(feedback_filter){.after_seq = num(a, "seq")}), 2);
    assert_int_equal(counted(s, &(feedback_filter){.with_rating = true, .rating = -1}), 1);
    assert_int_equal(counted(s, &(feedback_filter){.with_rating = true, .rating = 0}), 0);
    assert_int_equal(counted(s, &(feedback_filter){.tag = "y"}), 1);
    assert_int_equal(counted(s, &(feedback_filter){.tag = "z"}), 0);
    assert_int_equal(counted(s, &(feedback_filter){.review = "approved"}), 1);
    assert_int_equal(counted(s, &(feedback_filter){.corrected = true}), 1);
    assert_int_equal(counted(s, &(feedback_filter){.source = "annotator"}), 1);
    assert_int_equal(counted(s, &(feedback_filter){.response_id = "r2"}), 1);
    assert_int_equal(counted(s, &(feedback_filter){.model = "m"}), 3);
    assert_int_equal(counted(s, &(feedback_filter){.since_ms = clock_unix_ms() + 1000}), 0);
    assert_int_equal(counted(s, &(feedback_filter){.until_ms = clock_unix_ms() + 1000}), 3);

    json_t *ids = json_pack("[s, s]", str(a, "id"), str(b, "id"));
    assert_int_equal(feedback_mark_used(s, ids, "run-1", &e), 0);
    assert_int_equal(feedback_mark_used(s, ids, "run-1", &e), 0);
    assert_int_equal(feedback_mark_used(s, ids, "run-2", &e), 0);
    assert_int_equal(counted(s, &(feedback_filter){.unused = true}), 1);
    json_t *got;
    assert_int_equal(feedback_get(s, str(a, "id"), &got, &e), 0);
    assert_int_equal(json_array_size(json_object_get(got, "used_in_runs")), 2);
    json_decref(got);
    json_array_append_new(ids, json_string("fb-nope"));
    json_array_insert_new(ids, 0, json_string(str(c, "id")));
    fails_with(feedback_mark_used(s, ids, "run-3", &e), HONE_ENOTFOUND, &e,
               "no feedback 'fb-nope'");
    assert_int_equal(counted(s, &(feedback_filter){.unused = true}), 1); /* all or none */
    json_decref(ids);
    json_decref(a);
    json_decref(b);
    json_decref(c);
}

/* ---- rows for trainers ---- */

static void rows_are(const json_t *fb, feedback_format f, const char *want)
{
    json_t *rows = json_array();
    feedback_rows(f, fb, rows);
    char *text = js_text(rows, false);
    assert_string_equal(text, want);
    free(text);
    json_decref(rows);
}

#define PROMPT "[{\"role\":\"user\",\"content\":\"sky?\"}]"
#define SAID(text) "[{\"role\":\"assistant\",\"content\":\"" text "\"}]"

static void test_rows(void **state)
{
    store *s = ((place *)*state)->s;
    add_response(s, "r1", "full", "sky?");
    add_response(s, "r2", "full", "sky?");
    json_t *up = put_ok(s, "{\"id\": \"r1\", \"rating\": 1}", &owner);
    rows_are(up, FEEDBACK_KTO,
             "[{\"prompt\":" PROMPT ",\"completion\":" SAID("blue") ",\"label\":true}]");
    rows_are(up, FEEDBACK_DPO, "[]");
    rows_are(up, FEEDBACK_SFT,
             "[{\"messages\":[{\"role\":\"user\",\"content\":\"sky?\"},"
             "{\"role\":\"assistant\",\"content\":\"blue\"}]}]");
    json_t *fixed = put_ok(s, "{\"id\": \"r1\", \"rating\": -1, \"correction\": \"grey\"}", &owner);
    rows_are(fixed, FEEDBACK_KTO,
             "[{\"prompt\":" PROMPT ",\"completion\":" SAID("blue") ",\"label\":false}]");
    rows_are(fixed, FEEDBACK_DPO,
             "[{\"prompt\":" PROMPT ",\"chosen\":" SAID("grey") ",\"rejected\":" SAID("blue") "}]");
    rows_are(fixed, FEEDBACK_SFT,
             "[{\"messages\":[{\"role\":\"user\",\"content\":\"sky?\"},"
             "{\"role\":\"assistant\",\"content\":\"grey\"}]}]");
    json_t *over =
        put_ok(s, "{\"id\": \"r1\", \"choice_index\": 1, \"preferred_over\": \"r2\"}", &owner);
    rows_are(over, FEEDBACK_DPO,
             "[{\"prompt\":" PROMPT ",\"chosen\":" SAID("red") ",\"rejected\":" SAID("blue") "}]");
    rows_are(over, FEEDBACK_SFT, "[]");
    json_t *plain = parse("{\"rating\": 1, \"snapshot\": {\"prompt\": \"p\", \"answer\": \"a\"},"
                          "\"correction\": {\"role\": \"assistant\", \"content\": \"b\"}}");
    rows_are(plain, FEEDBACK_KTO, "[{\"prompt\":\"p\",\"completion\":\"a\",\"label\":true}]");
    rows_are(plain, FEEDBACK_DPO, "[{\"prompt\":\"p\",\"chosen\":\"b\",\"rejected\":\"a\"}]");
    rows_are(plain, FEEDBACK_SFT, "[{\"prompt\":\"p\",\"completion\":\"b\"}]");
    json_decref(up);
    json_decref(fixed);
    json_decref(over);
    json_decref(plain);
}

/* ---- importing ---- */

static int keep_last(void *user, json_t *fb, hone_err *e)
{
    (void)e;
    json_decref(*(json_t **)user);
    *(json_t **)user = json_incref(fb);
    return 0;
}

static void test_import(void **state)
{
    place *p = *state;
    bool created;
    hone_err e = {0};
    json_t *line = parse("{\"messages\": [{\"role\": \"user\", \"content\": \"sky?\"}],"
                         "\"answer\": \"red\", \"correction\": \"blue\", \"rating\": \"down\"}");
    assert_int_equal(feedback_import(p->s, line, "cli:me", &created, &e), 0);
    assert_true(created);
    assert_int_equal(feedback_import(p->s, line, "cli:me", &created, &e), 0);
    assert_false(created);
    json_t *raw = NULL, *again = NULL;
    assert_int_equal(feedback_each(p->s, NULL, keep_last, &raw, &e), 0);
    assert_string_equal(str(raw, "source"), "annotator");
    rows_are(raw, FEEDBACK_DPO,
             "[{\"prompt\":" PROMPT ",\"chosen\":" SAID("blue") ",\"rejected\":" SAID("red") "}]");

    char *dir = aid_dir_quick(); /* a raw export goes into another appliance as it is */
    store *other;
    assert_int_equal(store_open(&other, dir, NULL, &e), 0);
    if (feedback_import(other, raw, "cli:me", &created, &e) != 0)
        fail_msg("%s", e.msg);
    assert_true(created);
    assert_int_equal(feedback_each(other, NULL, keep_last, &again, &e), 0);
    assert_string_equal(str(again, "id"), str(raw, "id"));
    assert_true(json_equal(json_object_get(again, "snapshot"), json_object_get(raw, "snapshot")));
    store_close(other);
    aid_dir_drop(dir);

    json_object_del(line, "answer");
    assert_int_equal(feedback_import(p->s, line, "cli:me", &created, &e), 0); /* a correction */
    json_object_del(line, "correction");
    fails_with(feedback_import(p->s, line, "cli:me", &created, &e), HONE_EFORMAT, &e,
               "'answer' (text) is missing");
    json_object_del(line, "messages");
    fails_with(feedback_import(p->s, line, "cli:me", &created, &e), HONE_EFORMAT, &e,
               "neither 'messages' nor 'prompt'");
    json_decref(line);
    json_decref(raw);
    json_decref(again);
}

/* ---- forgetting ---- */

static void test_purge_leaves_feedback(void **state)
{
    store *s = ((place *)*state)->s;
    int64_t today = aid_day();
    json_t *r = parse("{\"id\": \"old\", \"key_id\": \"keyaaaaa\", \"route\": \"r\","
                      "\"model\": \"m\", \"status\": 200, \"keep\": \"full\", \"expires_at\": 5,"
                      "\"prompt\": \"p\", \"choices\": [{\"index\": 0, \"text\": \"a\"}]}");
    assert_int_equal(requests_post(s, r), 0);
    add_response(s, "new", "full", "sky?");
    json_decref(put_ok(s, "{\"id\": \"old\", \"rating\": 1}", &owner));
    int64_t n;
    assert_int_equal(requests_purge(s, &n, NULL), 0);
    assert_int_equal(n, 1);
    json_t *got;
    hone_err e = {0};
    fails_with(requests_get(s, "old", &got, &e), HONE_ENOTFOUND, &e, "no stored response 'old'");
    assert_int_equal(requests_get(s, "new", &got, &e), 0);
    assert_int_equal(num(got, "tok_in"), 5);
    json_decref(got);
    assert_int_equal(counted(s, NULL), 1);
    int64_t used;
    assert_int_equal(keys_usage(s, "keyaaaaa", today, &used, &e), 0);
    assert_int_equal(used, 8);
}

/* ---- a full disk ---- */

static void test_a_full_disk_takes_nothing(void **state)
{
    place *p = *state;
    hone_err e = {0};
    json_t *fb;
    bool created;
    struct rlimit old;
    add_response(p->s, "r1", "full", "sky?");
    char *large = mem_alloc(200000);
    memset(large, 'x', 199999);
    char *body = mem_printf("{\"id\": \"r1\", \"rating\": 1, \"comment\": \"%s\"}", large);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){200 << 10, old.rlim_max});
    int rc = put(p->s, body, &owner, &fb, &created, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    fails_with(rc, HONE_EIO, &e, "database: ");
    assert_null(fb);
    assert_int_equal(counted(p->s, NULL), 0);
    audit_report r;
    assert_int_equal(audit_verify(p->s, NULL, &r, &e), 0);
    assert_int_equal(r.n, 1); /* the request; nothing of the feedback */
    fb = put_ok(p->s, body, &owner);
    assert_int_equal(counted(p->s, NULL), 1);
    json_decref(fb);
    free(body);
    free(large);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
#define T(f) cmocka_unit_test_setup_teardown(f, open_place, close_place)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        T(test_feedback_keeps_what_was_seen),
        T(test_what_is_refused),
        T(test_by_model),
        T(test_one_opinion_a_user),
        T(test_change_and_delete),
        T(test_filters_and_used_marks),
        T(test_rows),
        T(test_import),
        T(test_purge_leaves_feedback),
        T(test_a_full_disk_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
