#include "core/base/hook_members.h"
#include "core/base/clock.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_NS INT64_C(60000000000)

/* A subscriber that does what its plan says. */
typedef struct plan {
    int answer;
    const char *reason; /* of a veto, or the message of a failure */
    const char *add;    /* a field to set in the data */
    json_t *replace;    /* data of its own to put there */
    useconds_t sleep_us;
    char *trace; /* its name is appended here */
    const char *name;
} plan;

static int act(hook_call *call, void *user, hone_err *e)
{
    const plan *p = user;
    if (p->trace != NULL)
        strcat(p->trace, p->name);
    if (p->add != NULL)
        json_object_set_new(call->data, p->add, json_true());
    if (p->replace != NULL) {
        json_decref(call->data);
        call->data = json_incref(p->replace);
    }
    if (p->reason != NULL && p->answer == HOOK_VETO) {
        size_t n = strlen(p->reason) + 1, room = sizeof call->reason;
        memcpy(call->reason, p->reason, n < room ? n : room); /* may leave no terminator */
    }
    if (p->sleep_us != 0)
        usleep(p->sleep_us);
    if (p->answer < 0 && p->reason != NULL)
        return hone_fail(e, p->answer, "%s", p->reason);
    return p->answer;
}

static void on(hooks *h, hook_point p, int priority, plan *what)
{
    assert_int_equal(hook_on(h, p, what->name ? what->name : "x", priority, act, what, NULL), 0);
}

/* Emits {"n":1} and returns the data as text; caller frees. */
static char *emit(hooks *h, hook_point p, int *rc, hone_err *e)
{
    json_t *data = json_pack("{s:i}", "n", 1);
    *rc = hook_emit(h, p, &data, e);
    char *text = js_text(data, true);
    json_decref(data);
    return text;
}

static void test_every_point_has_its_row(void **state)
{
    (void)state;
    hone_err e = {0};
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        hook_point found;
        const hook_info *info = hook_describe((hook_point)p);
        assert_true(strlen(info->name) > 0 && strlen(info->what) > 0 && info->budget_us > 0);
        assert_int_equal(hook_by_name(&found, info->name, &e), 0);
        assert_int_equal(found, p);
    }
    hook_point found;
    assert_int_equal(hook_by_name(&found, "train.stop", &e), HONE_ENOTFOUND);
    assert_string_equal(e.msg, "no hook point 'train.stop' (did you mean 'train.step'?)");
    assert_int_equal(hook_by_name(&found, "zzzzzzzz", &e), HONE_ENOTFOUND);
    assert_string_equal(e.msg, "no hook point 'zzzzzzzz'");
}

static void test_order_is_priority_then_name(void **state)
{
    (void)state;
    int rc;
    char trace[16] = "";
    plan a = {.name = "a", .trace = trace}, b = {.name = "b", .trace = trace},
         c = {.name = "c", .trace = trace}, d = {.name = "d", .trace = trace};
    hooks *h = hook_new();
    on(h, HOOK_TRAIN_STEP, 10, &b);
    on(h, HOOK_TRAIN_STEP, 10, &a);
    on(h, HOOK_TRAIN_STEP, -1, &d);
    on(h, HOOK_TRAIN_STEP, 5, &c);
    free(emit(h, HOOK_TRAIN_STEP, &rc, NULL));
    assert_int_equal(rc, 0);
    assert_string_equal(trace, "dcab");
    hook_free(h);
    hook_free(NULL);
}

static void test_nobody_listens(void **state)
{
    (void)state;
    int rc;
    hooks *h = hook_new();
    assert_false(hook_wanted(NULL, HOOK_TRAIN_STEP));
    assert_false(hook_wanted(h, HOOK_TRAIN_STEP));
    char *text = emit(h, HOOK_TRAIN_STEP, &rc, NULL);
    assert_int_equal(rc, 0);
    assert_string_equal(text, "{\"n\":1}");
    free(text);
    assert_int_equal(hook_emit(NULL, HOOK_TRAIN_STEP, NULL, NULL), 0);
    assert_int_equal(hook_on(h, HOOK_N_POINTS, "x", 0, act, NULL, NULL), HONE_EINVAL);
    hook_free(h);
}

static void test_modification(void **state)
{
    (void)state;
    int rc;
    json_t *other = json_pack("{s:i}", "m", 2);
    plan plans[] = {{.answer = HOOK_MODIFIED, .replace = other, .name = "1"},
                    {.answer = HOOK_MODIFIED, .add = "second", .name = "2"},
                    {.answer = HOOK_CONTINUE, .add = "lost", .name = "3"}};
    hooks *h = hook_new();
    for (size_t i = 0; i < 3; i++)
        on(h, HOOK_SERVE_PROMPT, (int)i, &plans[i]);
    char *text = emit(h, HOOK_SERVE_PROMPT, &rc, NULL);
    assert_int_equal(rc, 0);
    assert_string_equal(text, "{\"m\":2,\"second\":true}");
    free(text);
    assert_int_equal(json_object_size(other), 1); /* what was shared is as it was */
    json_decref(other);
    hook_stats s = hook_counters(h, HOOK_SERVE_PROMPT);
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.modified, 2);
    assert_int_equal(s.failures, 0);
    hook_free(h);
}

static void test_what_may_not_be_modified_is_not(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    plan quiet = {.answer = HOOK_CONTINUE, .add = "x", .name = "quiet"};
    plan says = {.answer = HOOK_MODIFIED, .add = "x", .name = "says"};
    hooks *h = hook_new();
    on(h, HOOK_DATA_FILTER, 0, &quiet);
    char *text = emit(h, HOOK_DATA_FILTER, &rc, &e);
    assert_int_equal(rc, 0);
    assert_string_equal(text, "{\"n\":1}");
    free(text);
    on(h, HOOK_DATA_FILTER, 1, &says);
    text = emit(h, HOOK_DATA_FILTER, &rc, &e);
    assert_int_equal(rc, HONE_EDENIED);
    assert_string_equal(e.msg, "data.filter: says failed: nothing may be modified here");
    assert_string_equal(text, "{\"n\":1}");
    free(text);
    hook_free(h);
}

static void test_veto(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    char trace[8] = "", longest[300];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    plan no = {.answer = HOOK_VETO, .reason = "too short", .name = "filter"};
    plan after = {.name = "z", .trace = trace};
    hooks *h = hook_new();
    on(h, HOOK_DATA_RECORD, 0, &no);
    on(h, HOOK_DATA_RECORD, 1, &after);
    free(emit(h, HOOK_DATA_RECORD, &rc, &e));
    assert_int_equal(rc, HONE_EVETO);
    assert_string_equal(e.msg, "data.record: refused by filter: too short");
    assert_string_equal(trace, "");
    no.reason = NULL;
    free(emit(h, HOOK_DATA_RECORD, &rc, &e));
    assert_string_equal(e.msg, "data.record: refused by filter: no reason given");
    no.reason = longest;
    free(emit(h, HOOK_DATA_RECORD, &rc, &e));
    assert_int_equal(strlen(e.msg), strlen("data.record: refused by filter: ") + 256);
    assert_int_equal(hook_counters(h, HOOK_DATA_RECORD).vetoes, 3);
    hook_free(h);
}

static void test_veto_where_it_is_not_allowed(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    plan no = {.answer = HOOK_VETO, .reason = "stop", .name = "p"};
    hooks *h = hook_new();
    on(h, HOOK_EVAL_METRIC, 0, &no); /* fails closed */
    on(h, HOOK_TRAIN_END, 0, &no);   /* fails open */
    free(emit(h, HOOK_EVAL_METRIC, &rc, &e));
    assert_int_equal(rc, HONE_EDENIED);
    assert_string_equal(e.msg, "eval.metric: p failed: nothing may be refused here");
    free(emit(h, HOOK_TRAIN_END, &rc, NULL));
    assert_int_equal(rc, 0);
    assert_int_equal(hook_counters(h, HOOK_TRAIN_END).failures, 1);
    assert_int_equal(hook_counters(h, HOOK_TRAIN_END).vetoes, 0);
    hook_free(h);
}

static void test_failure_policy_belongs_to_the_point(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    char trace[8] = "";
    plan bad = {.answer = HONE_EFORMAT, .reason = "no field 'text'", .name = "bad"};
    plan after = {.name = "z", .trace = trace};
    hooks *h = hook_new();
    on(h, HOOK_DATA_RECORD, 0, &bad);
    on(h, HOOK_DATA_RECORD, 1, &after);
    on(h, HOOK_TRAIN_STEP, 0, &bad);
    on(h, HOOK_TRAIN_STEP, 1, &after);
    free(emit(h, HOOK_DATA_RECORD, &rc, &e));
    assert_int_equal(rc, HONE_EFORMAT);
    assert_string_equal(e.msg, "data.record: bad failed: no field 'text'");
    assert_string_equal(trace, ""); /* closed: nobody after it */
    free(emit(h, HOOK_TRAIN_STEP, &rc, &e));
    assert_int_equal(rc, 0);
    assert_string_equal(trace, "z"); /* open: the rest of the chain runs */
    bad.reason = NULL;
    free(emit(h, HOOK_DATA_RECORD, &rc, &e));
    assert_string_equal(e.msg, "data.record: bad failed: malformed input");
    bad.answer = 17;
    free(emit(h, HOOK_DATA_RECORD, &rc, &e));
    assert_int_equal(rc, HONE_EINVAL);
    assert_string_equal(e.msg, "data.record: bad failed: it answered 17, which means nothing");
    hook_free(h);
}

static void test_stop(void **state)
{
    (void)state;
    int rc;
    char trace[8] = "";
    plan stop = {.answer = HOOK_STOP, .add = "taken", .name = "s"};
    plan after = {.name = "z", .trace = trace};
    hooks *h = hook_new();
    on(h, HOOK_SERVE_LOG, 0, &stop);
    on(h, HOOK_SERVE_LOG, 1, &after);
    char *text = emit(h, HOOK_SERVE_LOG, &rc, NULL);
    assert_int_equal(rc, 0);
    assert_string_equal(trace, "");
    assert_string_equal(text, "{\"n\":1,\"taken\":true}");
    free(text);
    hook_free(h);
}

static int steal(hook_call *call, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    json_decref(call->data);
    call->data = NULL;
    return HOOK_MODIFIED;
}

static void test_data_cannot_be_taken_away(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    hooks *h = hook_new();
    assert_int_equal(hook_on(h, HOOK_SERVE_PROMPT, "thief", 0, steal, NULL, &e), 0);
    char *text = emit(h, HOOK_SERVE_PROMPT, &rc, &e);
    assert_int_equal(rc, HONE_EINVAL);
    assert_string_equal(text, "{\"n\":1}");
    free(text);
    assert_int_equal(hook_emit(h, HOOK_SERVE_PROMPT, NULL, &e), HONE_EINVAL);
    hook_free(h);
}

static void test_late_subscribers_are_counted(void **state)
{
    (void)state;
    int rc;
    plan slow = {.sleep_us = 8000, .name = "slow"};
    hooks *h = hook_new();
    on(h, HOOK_TRAIN_STEP, 0, &slow); /* 5 ms */
    free(emit(h, HOOK_TRAIN_STEP, &rc, NULL));
    hook_stats s = hook_counters(h, HOOK_TRAIN_STEP);
    assert_int_equal(s.late, 1);
    assert_true(s.nanoseconds >= 8000000);
    hook_free(h);
}

enum { EMISSIONS = 2000, THREADS = 4 };

/* Among many threads a call may be late because its own has to wait: nobody is out for it. */
static const hook_breaker patient = {1 << 30, 1 << 30, 60000, 60000};

static void *emit_many(void *arg)
{
    for (int i = 0; i < EMISSIONS; i++) {
        json_t *data = json_object();
        hook_emit(arg, HOOK_SERVE_CHUNK, &data, NULL);
        json_decref(data);
    }
    return NULL;
}

static void test_counters_lose_nothing_between_threads(void **state)
{
    (void)state;
    pthread_t t[THREADS];
    plan mark = {.answer = HOOK_MODIFIED, .add = "x", .name = "m"};
    hooks *h = hook_new();
    hook_set_breaker(h, &patient);
    on(h, HOOK_SERVE_CHUNK, 0, &mark);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, emit_many, h), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    hook_stats s = hook_counters(h, HOOK_SERVE_CHUNK);
    assert_int_equal(s.calls, EMISSIONS * THREADS);
    assert_int_equal(s.modified, EMISSIONS * THREADS);
    hook_free(h);
}

/* ---- owners ---- */

static void test_an_owner_can_be_taken_away(void **state)
{
    (void)state;
    int rc;
    char trace[32] = "";
    hone_err e = {0};
    plan a = {.name = "a", .trace = trace}, b = {.name = "b", .trace = trace};
    hooks *h = hook_new();
    on(h, HOOK_TRAIN_STEP, 0, &a);
    on(h, HOOK_TRAIN_STEP, 1, &b);
    on(h, HOOK_TRAIN_END, 0, &a);
    assert_int_equal(hook_off(h, "a", 100, &e), 0);
    free(emit(h, HOOK_TRAIN_STEP, &rc, NULL));
    assert_string_equal(trace, "b");
    assert_false(hook_wanted(h, HOOK_TRAIN_END));
    assert_int_equal(hook_off(h, "nobody", 100, &e), 0);
    on(h, HOOK_TRAIN_STEP, 0, &a); /* another life of the same name */
    free(emit(h, HOOK_TRAIN_STEP, &rc, NULL));
    assert_string_equal(trace, "bab");
    hook_free(h);
}

static void test_a_name_is_announced_once(void **state)
{
    (void)state;
    hone_err e = {0};
    plan a = {.name = "a"};
    hooks *h = hook_new();
    json_t *only = json_pack("[s]", "train.step");
    assert_int_equal(hook_about(h, "a", json_pack("{s:s}", "version", "1"), only, &e), 0);
    assert_int_equal(hook_about(h, "a", json_object(), NULL, &e), HONE_EEXIST);
    assert_string_equal(e.msg, "a plugin named 'a' is loaded already");
    on(h, HOOK_TRAIN_STEP, 0, &a);
    on(h, HOOK_TRAIN_END, 0, &a); /* not a point that it may be heard at */
    assert_true(hook_wanted(h, HOOK_TRAIN_STEP));
    assert_false(hook_wanted(h, HOOK_TRAIN_END));
    json_t *m = hook_manifest(h);
    char *text = js_text(m, true);
    assert_string_equal(text, "[{\"name\":\"a\",\"version\":\"1\"}]");
    free(text);
    json_decref(m);
    assert_int_equal(hook_off(h, "a", 100, &e), 0);
    assert_int_equal(hook_about(h, "a", json_object(), NULL, &e), 0);
    json_decref(only);
    hook_free(h);
}

typedef struct guarded {
    atomic_int alive; /* 0: whoever calls now is too late */
    atomic_int calls, late_calls;
} guarded;

static int count_call(hook_call *call, void *user, hone_err *e)
{
    guarded *g = user;
    (void)call;
    (void)e;
    atomic_fetch_add(&g->calls, 1);
    if (atomic_load(&g->alive) == 0)
        atomic_fetch_add(&g->late_calls, 1);
    return HOOK_CONTINUE;
}

static atomic_bool emitting;

static void *emit_while(void *arg)
{
    while (atomic_load(&emitting)) {
        json_t *data = json_object();
        hook_emit(arg, HOOK_SERVE_CHUNK, &data, NULL);
        json_decref(data);
    }
    return NULL;
}

/* After hook_off nothing of the owner runs, however many threads emit. */
static void test_taken_away_under_load(void **state)
{
    (void)state;
    enum { ROUNDS = 60 };
    pthread_t t[THREADS];
    hone_err e = {0};
    int called = 0;
    hooks *h = hook_new();
    plan other = {.name = "other"};
    hook_set_breaker(h, &patient);
    on(h, HOOK_SERVE_CHUNK, 0, &other);
    atomic_store(&emitting, true);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, emit_while, h), 0);
    for (int i = 0; i < ROUNDS; i++) {
        guarded *g = mem_alloc(sizeof *g);
        atomic_store(&g->alive, 1);
        assert_int_equal(hook_on(h, HOOK_SERVE_CHUNK, "guest", 1, count_call, g, &e), 0);
        while (i % 4 == 0 && atomic_load(&g->calls) == 0)
            sched_yield();
        assert_int_equal(hook_off(h, "guest", 10000, &e), 0);
        atomic_store(&g->alive, 0);
        sched_yield();
        assert_int_equal(atomic_load(&g->late_calls), 0);
        called += atomic_load(&g->calls);
        free(g);
    }
    atomic_store(&emitting, false);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    assert_true(called >= ROUNDS / 4);
    hook_free(h);
}

static void *emit_one(void *arg)
{
    json_t *data = json_object();
    hook_emit(arg, HOOK_SERVE_CHUNK, &data, NULL);
    json_decref(data);
    return NULL;
}

static int hang(hook_call *call, void *user, hone_err *e)
{
    guarded *g = user;
    (void)call;
    (void)e;
    atomic_fetch_add(&g->calls, 1);
    while (atomic_load(&g->alive) != 0)
        usleep(1000);
    return HOOK_CONTINUE;
}

/* A call that does not come back: its owner is out, others go on, and it may not be freed yet. */
static void test_a_call_that_hangs(void **state)
{
    (void)state;
    pthread_t t;
    hone_err e = {0};
    int rc;
    guarded g = {.alive = 1};
    hooks *h = hook_new();
    hook_set_breaker(h, &(hook_breaker){5, 5, 60000, 20});
    assert_int_equal(hook_on(h, HOOK_SERVE_CHUNK, "stuck", 0, hang, &g, &e), 0);
    assert_int_equal(hook_on(h, HOOK_TRAIN_STEP, "stuck", 0, hang, &g, &e), 0);
    assert_int_equal(pthread_create(&t, NULL, emit_one, h), 0);
    while (atomic_load(&g.calls) == 0)
        usleep(1000);
    usleep(30000);
    hook_watch(h);
    free(emit(h, HOOK_SERVE_CHUNK, &rc, &e)); /* fails closed */
    assert_int_equal(rc, HONE_EDENIED);
    assert_non_null(strstr(e.msg, "serve.chunk: stuck is out: a call has been running for "));
    free(emit(h, HOOK_TRAIN_STEP, &rc, &e)); /* fails open */
    assert_int_equal(rc, 0);
    assert_int_equal(hook_off(h, "stuck", 10, &e), HONE_ETIMEOUT);
    assert_string_equal(e.msg, "stuck: 1 of its calls still run after 10 ms");
    atomic_store(&g.alive, 0);
    pthread_join(t, NULL);
    assert_int_equal(atomic_load(&g.calls), 1);
    hook_free(h);
}

static void test_the_breaker(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    char trace[64] = "";
    plan bad = {.answer = HONE_EIO, .reason = "no disk", .name = "bad", .trace = trace};
    hooks *h = hook_new();
    hook_set_breaker(h, &(hook_breaker){3, 1 << 30, 3600000, 5000});
    on(h, HOOK_TRAIN_STEP, 0, &bad); /* fails open */
    on(h, HOOK_DATA_FILTER, 0, &bad);
    on(h, HOOK_SERVE_PROMPT, 0, &bad); /* fails closed */
    for (int i = 0; i < 5; i++) {
        free(emit(h, HOOK_TRAIN_STEP, &rc, &e));
        assert_int_equal(rc, 0);
    }
    assert_int_equal(strlen(trace), 9); /* asked three times */
    for (int i = 0; i < 3; i++) {       /* which is no reason to refuse where it fails closed */
        free(emit(h, HOOK_SERVE_PROMPT, &rc, &e));
        assert_int_equal(rc, HONE_EIO);
    }
    free(emit(h, HOOK_SERVE_PROMPT, &rc, &e));
    assert_int_equal(rc, HONE_EDENIED);
    assert_string_equal(e.msg, "serve.prompt: bad is out: 3 failures in 3600 s, the last: no disk");
    for (int i = 0; i < 5; i++) { /* what data become does not depend on it: each is asked */
        free(emit(h, HOOK_DATA_FILTER, &rc, &e));
        assert_int_equal(rc, HONE_EIO);
    }
    hook_free(h);
}

/* Emits until that ends with `want`, for as long as a busy machine may need. */
static void emit_until(hooks *h, hook_point p, int want)
{
    int rc = want + 1;
    for (int64_t end = clock_mono_ns() + PATIENCE_NS; rc != want && clock_mono_ns() < end;)
        free(emit(h, p, &rc, NULL));
    assert_int_equal(rc, want);
}

static void test_the_window_of_the_breaker(void **state)
{
    (void)state;
    plan turns = {.answer = HONE_EIO, .name = "turns"};
    hooks *h = hook_new();
    hook_set_breaker(h, &(hook_breaker){3, 1 << 30, 50, 5000});
    on(h, HOOK_SERVE_PROMPT, 0, &turns);
    emit_until(h, HOOK_SERVE_PROMPT, HONE_EDENIED); /* three failures fell in one window */
    turns.answer = HOOK_CONTINUE;
    emit_until(h, HOOK_SERVE_PROMPT, 0); /* it is over: another chance */
    hook_free(h);
}

/* Most calls are in time, or most are late: a few that the machine itself makes late tip neither.
 * Where the point fails closed a slow guard is still a guard. */
static void test_late_now_and_then_is_not_out(void **state)
{
    (void)state;
    int rc;
    char trace[2000] = "";
    plan slow = {.name = "slow", .trace = trace};
    hooks *h = hook_new();
    hook_set_breaker(h, &(hook_breaker){1 << 30, 20, 3600000, 5000});
    on(h, HOOK_TRAIN_STEP, 0, &slow);  /* fails open */
    on(h, HOOK_SERVE_CHUNK, 0, &slow); /* fails closed */
    slow.sleep_us = 3000;
    for (int i = 0; i < 50; i++) {
        free(emit(h, HOOK_SERVE_CHUNK, &rc, NULL));
        assert_int_equal(rc, 0);
    }
    assert_int_equal(hook_counters(h, HOOK_SERVE_CHUNK).late, 50);
    trace[0] = '\0';
    for (int i = 0; i < 100; i++) {
        slow.sleep_us = i >= 50 && i % 5 == 4 ? 7000 : 0;
        free(emit(h, HOOK_TRAIN_STEP, &rc, NULL));
    }
    assert_int_equal(strlen(trace), 400); /* asked each time */
    slow.sleep_us = 7000;
    for (int i = 0; i < 150; i++)
        free(emit(h, HOOK_TRAIN_STEP, &rc, NULL));
    assert_true(strlen(trace) < 400 + 600);
    free(emit(h, HOOK_SERVE_CHUNK, &rc, NULL));
    assert_int_equal(rc, 0);
    hook_free(h);
}

static void add_row(const hook_row *row, void *user)
{
    sprintf((char *)user + strlen(user), "%s %s %d%d %d;", row->owner,
            hook_describe(row->point)->name, row->listens, row->out, (int)row->stats.calls);
}

static void add_count(const char *owner, const char *name, double value, void *user)
{
    sprintf((char *)user + strlen(user), "%s %s %g;", owner, name, value);
}

static void test_what_is_told_of_owners(void **state)
{
    (void)state;
    int rc;
    char text[512] = "", counts[2048] = "";
    plan a = {.name = "a"}, b = {.name = "b", .answer = HOOK_MODIFIED, .add = "x"};
    hooks *h = hook_new();
    assert_false(hook_is_used(NULL));
    assert_false(hook_is_used(h));
    on(h, HOOK_SERVE_PROMPT, 1, &b);
    on(h, HOOK_SERVE_PROMPT, 0, &a);
    on(h, HOOK_TRAIN_STEP, 0, &b);
    free(emit(h, HOOK_SERVE_PROMPT, &rc, NULL));
    hook_off(h, "a", 100, NULL);
    hook_each(h, add_row, text);
    assert_string_equal(text, "a serve.prompt 00 1;b train.step 10 0;b serve.prompt 10 1;");
    hook_count(h, "b", "bytes", 2);
    hook_count(h, "b", "bytes", 0.5);
    hook_count(h, "b", "bytes", -1); /* it only rises, and by a number */
    hook_count(h, "b", "bytes", NAN);
    hook_count(h, "b", "bytes", INFINITY);
    static const char *const no_names[] = {
        "",        "two\nlines",
        "\xff",    "\xed\xa0\x80",
        "del\x7f", "0123456789012345678901234567890123456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof no_names / sizeof *no_names; i++)
        hook_count(h, "b", no_names[i], 1);
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        hook_count(h, "a", name, i == 0);
    }
    hook_each_count(h, add_count, counts + strlen(counts));
    assert_non_null(strstr(counts, "b bytes 2.5;"));
    json_t *report = hook_report(h);
    assert_int_equal(json_object_size(json_object_get(json_array_get(report, 0), "counters")), 64);
    assert_int_equal(json_object_size(json_object_get(json_array_get(report, 1), "counters")), 1);
    json_decref(report);
    hook_free(h);
}

/* All of an owner's in one step, where it may be heard; others stay in their places. */
static void test_subscriptions_are_replaced(void **state)
{
    (void)state;
    int rc;
    char trace[64] = "";
    hone_err e = {0};
    plan a = {.name = "a", .trace = trace}, b = {.name = "b", .trace = trace};
    hooks *h = hook_new();
    json_t *points = json_pack("[s, s]", "serve.prompt", "serve.log");
    assert_int_equal(hook_about(h, "a", json_pack("{s:s}", "version", "1"), points, &e), 0);
    on(h, HOOK_SERVE_PROMPT, 1, &a);
    on(h, HOOK_SERVE_PROMPT, 2, &b);
    const hook_sub subs[] = {{HOOK_SERVE_PROMPT, 3, act, &a},
                             {HOOK_SERVE_PROMPT, 0, act, &a},
                             {HOOK_SERVE_LOG, 0, act, &a},
                             {HOOK_SERVE_CHUNK, 0, act, &a}};
    assert_int_equal(hook_replace(h, "a", subs, 4, &e), 0);
    free(emit(h, HOOK_SERVE_PROMPT, &rc, NULL));
    assert_string_equal(trace, "aba");
    assert_true(hook_wanted(h, HOOK_SERVE_LOG));
    assert_false(hook_wanted(h, HOOK_SERVE_CHUNK)); /* it may not be heard there */
    assert_int_equal(hook_replace(h, "a", NULL, 0, &e), 0);
    assert_false(hook_wanted(h, HOOK_SERVE_LOG));
    trace[0] = '\0';
    free(emit(h, HOOK_SERVE_PROMPT, &rc, NULL));
    assert_string_equal(trace, "b");
    json_decref(points);
    hook_free(h);
}

/* Out at every point for good, whatever its row says of a breaker. */
static void test_one_that_is_retired(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    plan a = {.name = "a", .answer = HOOK_MODIFIED, .add = "x"};
    hooks *h = hook_new();
    const hook_point points[] = {HOOK_DATA_FILTER, HOOK_DATA_TAG, HOOK_SERVE_PROMPT};
    hook_set_breaker(h, &(hook_breaker){1, 1, 1, 1});
    for (size_t i = 0; i < 3; i++)
        on(h, points[i], 0, &a);
    hook_retire(h, "a", "it hangs");
    hook_retire(h, "a", "for another reason");
    for (size_t i = 0; i < 3; i++) {
        usleep(2000); /* longer than the breaker's window */
        char *text = emit(h, points[i], &rc, &e);
        assert_string_equal(text, "{\"n\":1}");
        assert_int_equal(rc, points[i] == HOOK_DATA_TAG ? 0 : HONE_EDENIED);
        if (rc != 0)
            assert_non_null(strstr(e.msg, ": a is out: it hangs"));
        free(text);
    }
    json_t *all = hook_report(h);
    assert_string_equal(json_string_value(json_object_get(json_array_get(all, 0), "retired")),
                        "it hangs");
    json_decref(all);
    hook_free(h);
}

static void test_values_of_a_view(void **state)
{
    (void)state;
    float row[2] = {1, 2};
    hone_err e = {0};
    hook_logits l = {.step = 1};
    const hook_view v = {.logits = &l, .values = row, .n_values = 2};
    hooks *h = hook_new();
    plan quiet = {.name = "quiet"};
    assert_int_equal(hook_emit_view(h, HOOK_SERVE_LOGITS, &v, &e), 0);
    on(h, HOOK_SERVE_LOGITS, 0, &quiet);
    assert_int_equal(hook_emit_view(h, HOOK_SERVE_LOGITS, &v, &e), 0);
    assert_true(row[0] == 1 && row[1] == 2);
    assert_null(hook_describe(HOOK_SERVE_LOGITS)->example);
    hook_free(h);
}

/* The page's two tables say the same: the example of a point has its members, and no others. What
 * is really passed is held to it by tests/e2e/hooks.sh. */
static void test_examples_have_the_members(void **state)
{
    (void)state;
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        const hook_info *info = hook_describe((hook_point)p);
        size_t n, known = 0;
        bool open = false, may_change = false;
        const hook_member *m = hook_members((hook_point)p, &n);
        assert_int_equal(n > 0, info->example != NULL);
        json_t *data = n > 0 ? json_loads(info->example, 0, NULL) : NULL;
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(m[i].point, p);
            open = open || strcmp(m[i].name, "*") == 0;
            known += json_object_get(data, m[i].name) != NULL;
            assert_ptr_equal(hook_member_find((hook_point)p, m[i].name), &m[i]);
            may_change = may_change || m[i].changes;
            if (!hook_member_takes(&m[i], json_object_get(data, m[i].name)))
                fail_msg("%s: %s", info->name, m[i].name);
        }
        if (n > 0) /* what may be modified has something to modify */
            assert_int_equal(may_change, info->may_modify);
        if (!open && known != json_object_size(data))
            fail_msg("%s: the example has what no member tells", info->name);
        json_decref(data);
    }
}

static void test_types_of_members(void **state)
{
    (void)state;
    const hook_member number = {HOOK_DATA_OPEN, "x", "number|null?", "", false},
                      text = {HOOK_DATA_OPEN, "x", "text", "", false};
    json_t *list = json_pack("[i, f, n, s]", 1, 1.5, "a");
    assert_true(hook_member_takes(&number, json_array_get(list, 0)));
    assert_true(hook_member_takes(&number, json_array_get(list, 1)));
    assert_true(hook_member_takes(&number, json_array_get(list, 2)));
    assert_false(hook_member_takes(&number, json_array_get(list, 3)));
    assert_true(hook_member_takes(&number, NULL));
    assert_true(hook_member_takes(&text, json_array_get(list, 3)));
    assert_false(hook_member_takes(&text, json_array_get(list, 2)));
    assert_false(hook_member_takes(&text, NULL));
    json_decref(list);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples_have_the_members),
        cmocka_unit_test(test_types_of_members),
        cmocka_unit_test(test_every_point_has_its_row),
        cmocka_unit_test(test_order_is_priority_then_name),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_modification),
        cmocka_unit_test(test_what_may_not_be_modified_is_not),
        cmocka_unit_test(test_veto),
        cmocka_unit_test(test_veto_where_it_is_not_allowed),
        cmocka_unit_test(test_failure_policy_belongs_to_the_point),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_data_cannot_be_taken_away),
        cmocka_unit_test(test_late_subscribers_are_counted),
        cmocka_unit_test(test_counters_lose_nothing_between_threads),
        cmocka_unit_test(test_an_owner_can_be_taken_away),
        cmocka_unit_test(test_a_name_is_announced_once),
        cmocka_unit_test(test_taken_away_under_load),
        cmocka_unit_test(test_a_call_that_hangs),
        cmocka_unit_test(test_the_breaker),
        cmocka_unit_test(test_the_window_of_the_breaker),
        cmocka_unit_test(test_late_now_and_then_is_not_out),
        cmocka_unit_test(test_what_is_told_of_owners),
        cmocka_unit_test(test_subscriptions_are_replaced),
        cmocka_unit_test(test_one_that_is_retired),
        cmocka_unit_test(test_values_of_a_view),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
