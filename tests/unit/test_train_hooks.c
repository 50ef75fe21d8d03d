/* What subscribers do to a training run takes effect, and only what the points allow. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SETTINGS                                                                                   \
    "\"adapter\":\"lora\",\"micro_batch_size\":2,\"gradient_accumulation_steps\":2,"               \
    "\"learning_rate\":0.003,\"max_steps\":4,\"logging_steps\":1"

typedef struct kit {
    dataset *d;
    char *dir;
} kit;

static int open_kit(void **state)
{
    kit *k = mem_alloc(sizeof *k);
    k->d = aid_chat_rows();
    k->dir = aid_dir();
    *state = k;
    return 0;
}

static int close_kit(void **state)
{
    kit *k = *state;
    aid_rows_free(k->d);
    aid_dir_remove(k->dir);
    free(k);
    return 0;
}

static aid_run *train(const kit *k, const char *out, const char *settings,
                      void (*subscribe)(hooks *), int want, hone_err *e)
{
    aid_run *r = mem_alloc(sizeof *r);
    char *dir = path_join(k->dir, out);
    *e = (hone_err){0};
    r->subscribe = subscribe;
    int rc = aid_train(r, k->d, settings, "lora", 0, dir, e);
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

/* ---- train.batch ---- */

static float weight;
static int quiet; /* weights are changed, but nothing is said */
static size_t n_calls, n_examples, n_learnt;

static int weigh(hook_call *c, void *user, hone_err *e)
{
    const hook_batch *b = c->view->batch;
    (void)user;
    (void)e;
    n_calls++;
    n_examples += b->n_examples;
    for (uint64_t i = 0; i < b->n_examples; i++) {
        assert_true(b->bound[i] < b->bound[i + 1] && b->row[i] < 23);
        assert_true(b->id[i] == 1000 + b->row[i]);
        c->view->values[i] = weight;
    }
    for (uint64_t i = 0; i < b->n; i++)
        n_learnt += b->mask[i];
    assert_int_equal(b->bound[b->n_examples], b->n);
    return quiet ? HOOK_CONTINUE : HOOK_MODIFIED;
}

static void weigh_batches(hooks *h)
{
    n_calls = n_examples = n_learnt = 0;
    assert_int_equal(hook_on(h, HOOK_TRAIN_BATCH, "w", 0, weigh, NULL, NULL), 0);
}

static void test_weights_change_loss_and_gradient(void **state)
{
    const kit *k = *state;
    hone_err e;
    aid_run *plain = train(k, "plain", "{" SETTINGS "}", NULL, 0, &e);
    quiet = 0;
    weight = 0.5f;
    aid_run *half = train(k, "half", "{" SETTINGS "}", weigh_batches, 0, &e);
    assert_true(fabs(half->loss[0] - plain->loss[0] / 2) < 1e-9);
    assert_true(fabs(half->norm[0] - plain->norm[0] / 2) < 1e-4 * plain->norm[0]);
    assert_int_equal(n_calls, 8);
    assert_int_equal(n_examples, 16);
    assert_true(n_learnt > 0 && (int64_t)n_learnt == half->result.targets);
    weight = 0;
    aid_run *none = train(k, "none", "{" SETTINGS ",\"weight_decay\":0}", weigh_batches, 0, &e);
    assert_true(none->loss[0] == 0 && none->norm[0] == 0);
    quiet = 1; /* what it did without saying so does not count */
    aid_run *same = train(k, "same", "{" SETTINGS "}", weigh_batches, 0, &e);
    assert_memory_equal(same->weights, plain->weights, plain->n_weights * sizeof(float));
    quiet = 0;
    weight = NAN;
    aid_run *bad = train(k, "bad", "{" SETTINGS "}", weigh_batches, HONE_EINVAL, &e);
    assert_non_null(strstr(e.msg, "was given the weight nan, must be finite and not below 0"));
    drop(plain);
    drop(half);
    drop(none);
    drop(same);
    drop(bad);
}

/* ---- train.step ---- */

static int govern(hook_call *c, void *user, hone_err *e)
{
    json_int_t step = json_integer_value(json_object_get(c->data, "step"));
    (void)user;
    (void)e;
    json_object_set_new(c->data, "lr_scale", step >= 2 ? json_real(0) : json_real(1));
    json_object_set_new(c->data, "save", json_boolean(step == 3));
    return HOOK_MODIFIED;
}

static void govern_steps(hooks *h)
{
    assert_int_equal(hook_on(h, HOOK_TRAIN_STEP, "g", 0, govern, NULL, NULL), 0);
}

static void test_a_step_governs_the_rate_and_asks_for_checkpoints(void **state)
{
    const kit *k = *state;
    hone_err e;
    aid_run *two = train(k, "two", "{" SETTINGS ",\"lr_scheduler\":\"constant\"}", NULL, 0, &e);
    aid_run *stays =
        train(k, "stays", "{" SETTINGS ",\"lr_scheduler\":\"constant\"}", govern_steps, 0, &e);
    assert_true(stays->loss[2] == two->loss[2]); /* the rate of step 3 is 0 */
    assert_memory_not_equal(stays->weights, two->weights, two->n_weights * sizeof(float));
    char *path = path_join(k->dir, "stays/checkpoint-3");
    assert_true(file_is_dir(path));
    free(path);
    /* The scale goes on after a resume. */
    path = path_join(k->dir, "stays/checkpoint-4");
    assert_true(dir_remove(path, &e) == 0);
    aid_run *again = train(k, "stays",
                           "{" SETTINGS ",\"lr_scheduler\":\"constant\","
                           "\"auto_resume_from_checkpoints\":true}",
                           NULL, 0, &e);
    assert_int_equal(again->result.first_step, 3);
    assert_memory_equal(again->weights, stays->weights, stays->n_weights * sizeof(float));
    free(path);
    drop(two);
    drop(stays);
    drop(again);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_change_loss_and_gradient),
        cmocka_unit_test(test_a_step_governs_the_rate_and_asks_for_checkpoints),
    };
    return cmocka_run_group_tests(tests, open_kit, close_kit);
}
