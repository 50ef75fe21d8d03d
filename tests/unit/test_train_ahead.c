/* A device that works while the host goes on may be one step ahead of what is known. Nothing that
 * a run leaves behind may show it: the same runs with and without are held side by side. The CPU is
 * taken for such a device here, unless HONE_TEST_DEVICE names one. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Two epochs of six steps. */
#define BASE                                                                                       \
    "\"adapter\":\"lora\",\"micro_batch_size\":2,\"gradient_accumulation_steps\":2,"               \
    "\"learning_rate\":0.003,\"lr_scheduler\":\"constant\",\"logging_steps\":1,"                   \
    "\"weight_decay\":0.1,\"max_grad_norm\":0.5"

static aid_run *train(const aid_rows *k, const char *out, const char *settings, bool ahead,
                      void (*subscribe)(hooks *), double val, int want, hone_err *e)
{
    aid_run *r = mem_alloc(sizeof *r);
    char *dir = path_join(k->dir, out);
    *e = (hone_err){0};
    r->records = true;
    r->ahead = ahead;
    r->subscribe = subscribe;
    int rc = aid_train(r, k->d, settings, "lora", val, dir, e);
    if (rc != want)
        fail_msg("status %d instead of %d: %s", rc, want, e->msg);
    free(dir);
    return r;
}

static void drop(aid_run *r)
{
    aid_run_free(r);
    free(r);
}

static void same_weights(const aid_run *a, const aid_run *b)
{
    assert_int_equal(a->n_weights, b->n_weights);
    assert_memory_equal(a->weights, b->weights, a->n_weights * sizeof(float));
}

static void same_file(const aid_rows *k, const char *a, const char *b, const char *name)
{
    char *pa = mem_printf("%s/%s/%s", k->dir, a, name),
         *pb = mem_printf("%s/%s/%s", k->dir, b, name);
    char da[65], db[65];
    hone_err e = {0};
    assert_int_equal(file_sha256(da, pa, &e), 0);
    assert_int_equal(file_sha256(db, pb, &e), 0);
    assert_string_equal(da, db);
    free(pa);
    free(pb);
}

/* trainer_log.jsonl without what the clock says; caller frees. */
static char *logged(const aid_rows *k, const char *out)
{
    static const char *const clock[] = {"elapsed_time", "remaining_time", "throughput"};
    char *path = mem_printf("%s/%s/trainer_log.jsonl", k->dir, out), *text = aid_text(path);
    char *all = mem_alloc(1 << 16), *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *o;
        hone_err e = {0};
        assert_int_equal(js_parse(&o, line, strlen(line), &e), 0);
        for (size_t i = 0; i < 3; i++)
            json_object_del(o, clock[i]);
        char *kept = js_text(o, true);
        snprintf(all + strlen(all), (1 << 16) - strlen(all), "%s\n", kept);
        free(kept);
        json_decref(o);
    }
    free(text);
    free(path);
    return all;
}

static void same_log(const aid_rows *k, const char *a, const char *b)
{
    char *la = logged(k, a), *lb = logged(k, b);
    assert_true(strlen(la) > 0);
    assert_string_equal(la, lb);
    free(la);
    free(lb);
}

/* ---- what a run leaves ---- */

static void nothing_shows_it(void **state)
{
    const aid_rows *k = *state;
    hone_err e;
    const char *settings = "{" BASE ",\"num_epochs\":2,\"eval_steps\":4,\"save_steps\":5}";
    aid_run *a = train(k, "wait", settings, false, NULL, 3, 0, &e);
    aid_run *b = train(k, "ahead", settings, true, NULL, 3, 0, &e);
    assert_true(a->n == 10 && a->result.steps == 10);
    same_weights(a, b);
    same_log(k, "wait", "ahead");
    same_file(k, "wait", "ahead", "checkpoint-5/adapter_model.safetensors");
    same_file(k, "wait", "ahead", "checkpoint-5/optimizer.safetensors");
    assert_true(a->result.train_loss == b->result.train_loss);
    assert_true(a->result.last_loss == b->result.last_loss);
    assert_true(a->result.eval_loss == b->result.eval_loss);
    assert_int_equal(a->result.tokens, b->result.tokens);
    assert_int_equal(a->result.targets, b->result.targets);
    drop(a);
    drop(b);
}

static void a_resumed_run_is_the_same_run(void **state)
{
    const aid_rows *k = *state;
    hone_err e = {0};
    aid_run *whole = train(k, "whole", "{" BASE ",\"num_epochs\":2}", true, NULL, 0, 0, &e);
    drop(train(k, "cut", "{" BASE ",\"num_epochs\":2,\"save_steps\":4}", true, NULL, 0, 0, &e));
    for (int step = 8; step <= 12; step += 4) {
        char *dir = mem_printf("%s/cut/checkpoint-%d", k->dir, step);
        assert_int_equal(dir_remove(dir, &e), 0);
        free(dir);
    }
    aid_run *rest =
        train(k, "cut", "{" BASE ",\"num_epochs\":2,\"auto_resume_from_checkpoints\":true}", true,
              NULL, 0, 0, &e);
    assert_int_equal(rest->result.first_step, 4);
    same_weights(rest, whole);
    same_log(k, "cut", "whole");
    drop(whole);
    drop(rest);
}

/* ---- failures ---- */

static int64_t last_batch; /* the step of the last batch that was seen */

/* In step 3 gradients overflow, though the loss does not: the rate has made the weights large. */
#define LARGE                                                                                      \
    "\"adapter\":\"lora\",\"micro_batch_size\":2,\"gradient_accumulation_steps\":2,"               \
    "\"learning_rate\":30,\"lr_scheduler\":\"constant\",\"logging_steps\":1"

static int overflow(hook_call *c, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    last_batch = (int64_t)c->view->batch->step;
    for (uint64_t i = 0; i < c->view->batch->n_examples; i++)
        c->view->values[i] = last_batch == 3 ? 3e38F : 1;
    return HOOK_MODIFIED;
}

/* The same, and step 4 cannot be queued at all. */
static int overflow_and_fail(hook_call *c, void *user, hone_err *e)
{
    int rc = overflow(c, user, e);
    if (last_batch == 4)
        c->view->values[0] = NAN;
    return rc;
}

static void with_overflow(hooks *h)
{
    assert_int_equal(hook_on(h, HOOK_TRAIN_BATCH, "o", 0, overflow, NULL, NULL), 0);
}

static void with_both(hooks *h)
{
    assert_int_equal(hook_on(h, HOOK_TRAIN_BATCH, "o", 0, overflow_and_fail, NULL, NULL), 0);
}

/* What is said, from "step" on, without the folder. */
static void said(char *dst, size_t cap, const hone_err *e)
{
    const char *from = strstr(e->msg, "step "), *in = strstr(e->msg, " are in ");
    assert_true(from != NULL && in != NULL);
    snprintf(dst, cap, "%.*s%s", (int)(in - from), from, strstr(in, ", the weights"));
}

static void a_failed_step_changes_nothing(void **state)
{
    const aid_rows *k = *state;
    hone_err e;
    char want[512], got[512];
    aid_run *two = train(k, "two", "{" LARGE ",\"max_steps\":2}", true, NULL, 0, 0, &e);
    aid_run *wait =
        train(k, "stop", "{" LARGE ",\"max_steps\":6}", false, with_overflow, 0, HONE_ENUMERIC, &e);
    assert_int_equal(last_batch, 3);
    said(want, sizeof want, &e);
    aid_run *ahead = train(k, "stop-ahead", "{" LARGE ",\"max_steps\":6}", true, with_overflow, 0,
                           HONE_ENUMERIC, &e);
    assert_int_equal(last_batch, 4);
    said(got, sizeof got, &e);
    assert_string_equal(got, want);
    assert_memory_equal(want, "step 3: the gradient of ", 24);
    assert_non_null(strstr(want, "lora_"));
    assert_non_null(strstr(want, ", the weights are still those of step 2"));
    same_weights(wait, two);
    same_weights(ahead, two);
    same_log(k, "stop", "stop-ahead");
    same_file(k, "stop", "stop-ahead", "nan_batch.jsonl");
    drop(two);
    drop(wait);
    drop(ahead);
}

/* The first of two failures is the one that is told. */
static void a_failed_step_is_told_before_the_next(void **state)
{
    const aid_rows *k = *state;
    hone_err e;
    drop(train(k, "both", "{" LARGE ",\"max_steps\":6}", true, with_both, 0, HONE_ENUMERIC, &e));
    assert_int_equal(last_batch, 4);
    assert_non_null(strstr(e.msg, "step 3: the gradient of "));
}

int main(void)
{
    js_start();
#define ROW(test) cmocka_unit_test_setup_teardown(test, aid_rows_open, aid_rows_close)
    const struct CMUnitTest tests[] = {
        ROW(nothing_shows_it),
        ROW(a_resumed_run_is_the_same_run),
        ROW(a_failed_step_changes_nothing),
        ROW(a_failed_step_is_told_before_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
