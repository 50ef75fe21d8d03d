/* What subscribers do to a training run takes effect, and only what the points allow. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "lua/lua_host.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SETTINGS                                                                                   \
    "\"adapter\":\"lora\",\"micro_batch_size\":2,\"gradient_accumulation_steps\":2,"               \
    "\"learning_rate\":0.003,\"max_steps\":4,\"logging_steps\":1"

static aid_run *train(const aid_rows *k, const char *out, const char *settings,
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
    const aid_rows *k = *state;
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
    const aid_rows *k = *state;
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

/* ---- a governor in Lua ---- */

static const char *governor_settings;
static lua_plugin *governor;
static hooks *governed;
enum { MAX_RATES = 64 };
static double rate[MAX_RATES], loss[MAX_RATES], cuts;
static int n_rates;

static int note_rate(hook_call *c, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    if (n_rates < MAX_RATES) {
        rate[n_rates] = json_number_value(json_object_get(c->data, "lr"));
        loss[n_rates++] = json_number_value(json_object_get(c->data, "loss"));
    }
    return HOOK_CONTINUE;
}

static void take_cuts(const char *owner, const char *name, double value, void *user)
{
    (void)user;
    if (strcmp(owner, "governor") == 0 && strcmp(name, "cuts") == 0)
        cuts = value;
}

/* At the end, while the hooks are still there. */
static int count_cuts(hook_call *c, void *user, hone_err *e)
{
    (void)c;
    (void)user;
    (void)e;
    lua_plugin_close(governor);
    governor = NULL;
    hook_each_count(governed, take_cuts, NULL);
    return HOOK_CONTINUE;
}

static void govern_by_script(hooks *h)
{
    hone_err e = {0};
    json_t *given = NULL;
    n_rates = 0;
    cuts = 0;
    governed = h;
    assert_int_equal(hook_on(h, HOOK_TRAIN_STEP, "note", -1, note_rate, NULL, NULL), 0);
    if (governor_settings == NULL)
        return;
    assert_int_equal(js_parse(&given, governor_settings, strlen(governor_settings), &e), 0);
    const lua_plugin_args a = {.hooks = h, .path = "lua/bundled/governor.lua", .settings = given};
    if (lua_plugin_open(&governor, &a, &e) != 0)
        fail_msg("%s", e.msg);
    json_decref(given);
    assert_int_equal(hook_on(h, HOOK_TRAIN_END, "note", 0, count_cuts, NULL, NULL), 0);
}

/* The rate grows until the loss, which has fallen at first, climbs again. */
#define TOO_FAST                                                                                   \
    "{\"adapter\":\"lora\",\"micro_batch_size\":2,\"learning_rate\":0.1,\"warmup_steps\":60,"      \
    "\"lr_scheduler\":\"constant_with_warmup\",\"max_steps\":60,\"logging_steps\":1}"
#define SOON "\"warmup\":30,\"climb\":1.02,\"noise\":0.5,\"patience\":2,\"recover\":1"

static void test_a_script_governs_a_run(void **state)
{
    const aid_rows *k = *state;
    double wild_rate[MAX_RATES], wild_loss[MAX_RATES], scale = 1, lowest = 100;
    hone_err e;
    governor_settings = NULL;
    drop(train(k, "wild", TOO_FAST, govern_by_script, 0, &e));
    assert_int_equal(n_rates, 60);
    memcpy(wild_rate, rate, sizeof rate);
    memcpy(wild_loss, loss, sizeof loss);
    governor_settings = "{" SOON "}";
    drop(train(k, "tame", TOO_FAST, govern_by_script, 0, &e));
    assert_int_equal(n_rates, 60);
    assert_true(cuts >= 1);
    for (int i = 1; i < 60; i++) {
        double now = rate[i] / wild_rate[i];
        bool cut = fabs(now - scale / 2) < 1e-9;
        assert_true(cut || fabs(now - scale) < 1e-9); /* halved, or as it was */
        lowest = loss[i - 1] < lowest ? loss[i - 1] : lowest;
        assert_true(!cut || loss[i - 1] > 1.02 * lowest);
        if (scale == 1) /* up to there it is the same run */
            assert_true(loss[i] == wild_loss[i]);
        scale = cut ? scale / 2 : scale;
    }
    assert_true(fabs(scale - pow(0.5, cuts)) < 1e-9);
    /* Where cutting is no use the run ends with what it has. */
    governor_settings = "{" SOON ",\"floor\":0.9}";
    aid_run *r = train(k, "lost", TOO_FAST, govern_by_script, 0, &e);
    assert_int_equal(r->result.status, TRAIN_HOOK_STOP);
    assert_true(r->result.steps > 20 && r->result.steps < 60);
    char *path = mem_printf("%s/lost/checkpoint-%d", k->dir, (int)r->result.steps);
    assert_true(file_is_dir(path));
    free(path);
    drop(r);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_change_loss_and_gradient),
        cmocka_unit_test(test_a_script_governs_a_run),
        cmocka_unit_test(test_a_step_governs_the_rate_and_asks_for_checkpoints),
    };
    return cmocka_run_group_tests(tests, aid_rows_open, aid_rows_close);
}
