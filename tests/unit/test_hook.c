#include "core/base/hook.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
