/* Plugins in C that do not come back: the call is given up, the plugin is out for good, the
 * message names plugin, hook and reason, and what was going on goes on as the point says. */
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/data/dataset.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_plugin.h"
#include "tests/unit/aid_train.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What does not come back computes far longer; what does may have to wait, for six times as long.
 */
enum { LIMIT_MS = 400, PATIENCE_MS = 60000 };

#ifdef __SANITIZE_ADDRESS__
/* What a lost call holds stays for ever, by design. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif

static loaded *open_bad(hooks *h, const char *settings)
{
    hone_err e = {0};
    loaded *p;
    if (aid_plugin_try(&p, h, "bad", settings, LIMIT_MS, &e) != 0)
        fail_msg("%s", e.msg);
    return p;
}

static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in: %s", part, text);
}

/* What the report says of the plugin; caller frees. */
static char *report_of(const hooks *h)
{
    json_t *all = hook_report(h);
    char *text = js_text(all, true);
    json_decref(all);
    return text;
}

static void assert_retired(const hooks *h, const char *why)
{
    char *text = report_of(h);
    assert_has(text, "\"name\":\"bad\"");
    assert_has(text, why);
    free(text);
}

/* ---- one call ---- */

static void test_a_point_that_fails_closed(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    hooks *h = hook_new();
    loaded *p = open_bad(h, "{\"mode\":\"scribble\",\"after\":1}"), *trim;
    assert_int_equal(aid_plugin_try(&trim, h, "trim", NULL, PATIENCE_MS, &e), 0);
    free(aid_emit(h, HOOK_DATA_FILTER, "{\"record\":{\"text\":\"good\"},\"text\":\"good\"}", &rc,
                  &e));
    assert_int_equal(rc, 0); /* the first call goes well */
    char *text = aid_emit(h, HOOK_DATA_FILTER, "{\"record\":{\"text\":\"good\"},\"text\":\"good\"}",
                          &rc, &e);
    assert_int_equal(rc, HONE_ETIMEOUT);
    assert_has(e.msg, "data.filter: bad failed: its call at data.filter did not come back within ");
    assert_has(e.msg, "s of computing): it is not called any more");
    assert_string_equal(text, "{\"record\":{\"text\":\"good\"},\"text\":\"good\"}");
    free(text);
    /* Nobody waits for it a second time: that would end as the first did. */
    free(aid_emit(h, HOOK_DATA_FILTER, "{\"record\":{\"text\":\"good\"}}", &rc, &e));
    assert_int_equal(rc, HONE_EDENIED);
    assert_has(e.msg, "data.filter: bad is out: its call at data.filter did not come back within ");
    assert_retired(h, "\"retired\":\"its call at data.filter did not come back");
    /* Others are called as before. */
    text = aid_emit(h, HOOK_DATA_NORMALIZE, "{\"text\":\" a \"}", &rc, &e);
    assert_string_equal(text, "{\"text\":\"a\"}");
    free(text);
    assert_int_equal(loader_close(p, 1000, &e), HONE_ETIMEOUT);
    assert_string_equal(e.msg,
                        "plugin bad 1.0.0: a call of it never came back: it stays in memory");
    assert_int_equal(loader_close(trim, PATIENCE_MS, &e), 0);
}

static void test_a_metric(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    hooks *h = hook_new();
    open_bad(h, "{\"mode\":\"scribble\",\"at\":\"eval.metric\"}");
    free(aid_emit(h, HOOK_EVAL_METRIC, "{\"text\":\"x\",\"scores\":{}}", &rc, &e));
    assert_int_equal(rc, HONE_ETIMEOUT);
    assert_has(e.msg, "eval.metric: bad failed: its call at eval.metric did not come back");
}

/* A call that only waits has six times the limit. */
static void test_waiting_is_not_computing(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    loaded *p;
    hooks *h = hook_new();
    assert_int_equal(aid_plugin_try(&p, h, "bad", "{\"mode\":\"wait\"}", 200, &e), 0);
    int64_t start = clock_mono_ns();
    free(aid_emit(h, HOOK_DATA_FILTER, "{}", &rc, &e));
    int64_t took = clock_mono_ns() - start;
    assert_int_equal(rc, HONE_ETIMEOUT);
    assert_has(e.msg, "(0.0 s of computing)");
    assert_true(took >= 6 * INT64_C(200000000));
}

/* Loading has the limit itself, waiting in init 72 times as much. */
static void test_init_and_fini(void **state)
{
    enum { START_MS = 200 };
    (void)state;
    hone_err e = {0};
    hooks *h = hook_new();
    loaded *p;
    assert_int_equal(aid_plugin_try(&p, h, "bad", "{\"mode\":\"wait_init\"}", START_MS, &e),
                     HONE_ETIMEOUT);
    assert_has(e.msg, "plugin bad 1.0.0: init: did not come back within ");
    assert_null(p);
    assert_false(hook_is_used(h));
    assert_int_equal(aid_plugin_try(&p, h, "bad", "{\"mode\":\"wait_fini\"}", START_MS, &e), 0);
    assert_int_equal(loader_close(p, 1000, &e), HONE_ETIMEOUT);
    assert_has(e.msg, "plugin bad 1.0.0: fini: did not come back within ");
}

/* ---- many calls ---- */

static void *many_calls(void *arg)
{
    hone_err e = {0};
    intptr_t bad = 0;
    for (int i = 0; i < 200; i++) {
        json_t *data = json_pack("{s:s}", "text", "  a ");
        bad += hook_emit(arg, HOOK_DATA_NORMALIZE, &data, &e) != 0;
        bad += strcmp(json_string_value(json_object_get(data, "text")), "a") != 0;
        json_decref(data);
    }
    return (void *)bad;
}

/* With a limit that nobody reaches, on many threads: as without one, and nothing stays behind. */
static void test_calls_on_many_threads(void **state)
{
    (void)state;
    enum { THREADS = 6 };
    pthread_t t[THREADS];
    hone_err e = {0};
    void *bad;
    loaded *p;
    hooks *h = hook_new();
    assert_int_equal(aid_plugin_try(&p, h, "trim", NULL, PATIENCE_MS, &e), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, many_calls, h), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    assert_int_equal(hook_counters(h, HOOK_DATA_NORMALIZE).calls, THREADS * 200);
    assert_int_equal(loader_close(p, PATIENCE_MS, &e), 0);
    hook_free(h);
}

/* ---- data ---- */

static const char lines[] =
    "{\"text\": \"the first text\"}\n{\"text\": \"a second text\"}\n{\"text\": \"a third text\"}\n";

static int load(dataset **d, hooks *h, const char *dir, hone_err *e)
{
    tok *t;
    char *path = path_join(dir, "data.jsonl");
    assert_int_equal(tok_open(&t, "tests/golden/train/model", e), 0);
    assert_int_equal(file_write(path, lines, strlen(lines), e), 0);
    const data_options o = {.tok = t, .no_chat = "", .sequence_len = 64, .hooks = h};
    json_t *entry = json_string(path);
    int rc = dataset_open(d, entry, &o, e);
    json_decref(entry);
    tok_close(t);
    free(path);
    return rc;
}

/* data.normalize fails open: the data are what they are without the plugin. */
static void test_data_go_on_without_it(void **state)
{
    (void)state;
    hone_err e = {0};
    dataset *plain, *d;
    char *dir = aid_dir();
    hooks *none = hook_new(), *h = hook_new();
    open_bad(h, "{\"mode\":\"scribble\",\"at\":\"data.normalize\",\"after\":1}");
    assert_int_equal(load(&plain, none, dir, &e), 0);
    assert_int_equal(load(&d, h, dir, &e), 0);
    assert_int_equal(d->n_rows, 3);
    assert_int_equal(d->n_tokens, plain->n_tokens);
    assert_memory_equal(d->ids, plain->ids, d->n_tokens * sizeof *d->ids);
    assert_int_equal(hook_counters(h, HOOK_DATA_NORMALIZE).failures, 1);
    assert_retired(h, "\"retired\":\"its call at data.normalize did not come back");
    dataset_close(d);
    dataset_close(plain);
    hook_free(none);
    aid_dir_remove(dir);
}

/* data.filter fails closed: what nobody judged is not trained on. */
static void test_data_that_nobody_filters(void **state)
{
    (void)state;
    hone_err e = {0};
    dataset *d = NULL;
    char *dir = aid_dir();
    hooks *h = hook_new();
    open_bad(h, "{\"mode\":\"scribble\",\"after\":1}");
    assert_int_equal(load(&d, h, dir, &e), HONE_EINTERNAL);
    assert_has(e.msg, "data.jsonl:2: data.filter: bad failed: its call at data.filter did not");
    aid_dir_remove(dir);
}

/* ---- training ---- */

static const char *bad_settings;

static void load_bad(hooks *h)
{
    if (bad_settings != NULL)
        open_bad(h, bad_settings);
}

static aid_run *train(const dataset *d, const char *dir, const char *settings, int want,
                      hone_err *e)
{
    aid_run *r = mem_alloc(sizeof *r);
    char *out = path_join(dir, settings != NULL ? "with" : "without");
    *e = (hone_err){0};
    bad_settings = settings;
    r->subscribe = load_bad;
    int rc = aid_train(r, d,
                       "{\"adapter\":\"lora\",\"micro_batch_size\":2,\"learning_rate\":0.003,"
                       "\"max_steps\":4,\"logging_steps\":1}",
                       "lora", 0, out, e);
    if (rc != want)
        fail_msg("status %d instead of %d: %s", rc, want, e->msg);
    free(out);
    return r;
}

static void drop(aid_run *r)
{
    aid_run_free(r);
    free(r);
}

/* train.step fails open: the run ends with the same weights as without the plugin. */
static void test_training_goes_on(void **state)
{
    (void)state;
    hone_err e;
    char *dir = aid_dir();
    dataset *d = aid_chat_rows();
    aid_run *plain = train(d, dir, NULL, 0, &e);
    aid_run *r = train(d, dir, "{\"mode\":\"scribble\",\"at\":\"train.step\",\"after\":2}", 0, &e);
    assert_int_equal(r->result.steps, 4);
    assert_int_equal(r->n_weights, plain->n_weights);
    assert_memory_equal(r->weights, plain->weights, plain->n_weights * sizeof *plain->weights);
    drop(r);
    drop(plain);
    aid_rows_free(d);
    aid_dir_remove(dir);
}

/* train.batch fails closed. The lost call goes on writing to its weights and ids: they are its own.
 */
static void test_training_ends_where_it_must(void **state)
{
    (void)state;
    hone_err e;
    char *dir = aid_dir();
    dataset *d = aid_chat_rows();
    int32_t first = d->ids[0];
    aid_run *r = train(d, dir, "{\"mode\":\"scribble\",\"at\":\"train.batch\",\"after\":2}",
                       HONE_ETIMEOUT, &e);
    assert_has(e.msg, "train.batch: bad failed: its call at train.batch did not come back within ");
    assert_int_equal(d->ids[0], first);
    drop(r);
    aid_rows_free(d);
    aid_dir_remove(dir);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_point_that_fails_closed),
        cmocka_unit_test(test_a_metric),
        cmocka_unit_test(test_waiting_is_not_computing),
        cmocka_unit_test(test_init_and_fini),
        cmocka_unit_test(test_calls_on_many_threads),
        cmocka_unit_test(test_data_go_on_without_it),
        cmocka_unit_test(test_data_that_nobody_filters),
        cmocka_unit_test(test_training_goes_on),
        cmocka_unit_test(test_training_ends_where_it_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
