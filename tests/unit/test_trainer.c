#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LORA "tests/golden/train/lora/"

typedef struct kit {
    char *dir, *out, *start; /* start: the golden adapter with dropout */
    dataset *d;
} kit;

/* A copy of the golden adapter, with dropout. */
static void make_adapter(const char *dir, double dropout)
{
    hone_err e = {0};
    json_t *config;
    char *weights, *to = path_join(dir, "adapter_model.safetensors"),
                   *conf = path_join(dir, "adapter_config.json");
    size_t len;
    assert_int_equal(dir_make(dir, &e), 0);
    assert_int_equal(js_load(&config, LORA "adapter_config.json", &e), 0);
    json_object_set_new(config, "lora_dropout", json_real(dropout));
    assert_int_equal(js_save(config, conf, true, &e), 0);
    assert_int_equal(file_read(&weights, &len, LORA "adapter_model.safetensors", 1 << 20, &e), 0);
    assert_int_equal(file_write(to, weights, len, &e), 0);
    json_decref(config);
    free(weights);
    free(to);
    free(conf);
}

static int set_up(void **state)
{
    kit *k = mem_alloc(sizeof *k);
    k->dir = aid_dir();
    k->out = path_join(k->dir, "out");
    k->start = path_join(k->dir, "start");
    k->d = aid_chat_rows();
    make_adapter(k->start, 0.1);
    *state = k;
    return 0;
}

static int tear_down(void **state)
{
    kit *k = *state;
    aid_rows_free(k->d);
    free(k->out);
    free(k->start);
    aid_dir_remove(k->dir);
    free(k);
    return 0;
}

/* Trains with dropout in out_dir. 12 steps are two epochs of six: 23 rows, two by two, two
 * micro-batches a step. */
#define BASE                                                                                       \
    "\"adapter\":\"lora\",\"micro_batch_size\":2,\"gradient_accumulation_steps\":2,"               \
    "\"learning_rate\":0.003,\"num_epochs\":2,\"logging_steps\":4,\"weight_decay\":0.1"

static aid_run *train(const kit *k, const char *settings, const char *out, int64_t stop_at,
                      int want, hone_err *e)
{
    aid_run *r = mem_alloc(sizeof *r);
    *e = (hone_err){0};
    r->stop_at = stop_at;
    int rc = aid_train(r, k->d, settings, k->start, 0, out, e);
    if (rc != want)
        fail_msg("status %d instead of %d: %s", rc, want, e->msg);
    return r;
}

static void drop(aid_run *r)
{
    aid_run_free(r);
    free(r);
}

static void test_resume_is_bit_identical(void **state)
{
    const kit *k = *state;
    hone_err e;
    static const int64_t stops[] = {1, 5,  6,
                                    7, 11, 12}; /* in the middle, and at the border of an epoch */
    aid_run *whole = train(k, "{" BASE "}", k->out, 0, 0, &e);
    assert_int_equal(whole->n, 12);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        char *out = mem_printf("%s/stop%d", k->dir, (int)stops[i]);
        aid_run *first = train(k, "{" BASE "}", out, stops[i], 0, &e);
        assert_int_equal(first->n, stops[i]);
        aid_run *second =
            train(k, "{" BASE ",\"auto_resume_from_checkpoints\":true}", out, 0, 0, &e);
        assert_int_equal(second->result.first_step, stops[i]);
        assert_int_equal(second->n, 12 - stops[i]);
        assert_memory_equal(second->loss, whole->loss + stops[i], second->n * sizeof *second->loss);
        assert_memory_equal(second->weights, whole->weights, whole->n_weights * sizeof(float));
        assert_true(second->result.train_loss == whole->result.train_loss);
        assert_int_equal(second->result.tokens, whole->result.tokens);
        drop(first);
        drop(second);
        free(out);
    }
    drop(whole);
}

/* The losses of the log, a line a number, whatever the times. */
static char *logged(const char *dir)
{
    char *path = path_join(dir, "trainer_log.jsonl"), *text = aid_text(path),
         *out = mem_alloc(1 << 16);
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *o;
        hone_err e = {0};
        assert_int_equal(js_parse(&o, line, strlen(line), &e), 0);
        snprintf(out + strlen(out), (1 << 16) - strlen(out), "%d/%d %.17g %.17g %.2f %.4f %d\n",
                 (int)json_integer_value(json_object_get(o, "current_steps")),
                 (int)json_integer_value(json_object_get(o, "total_steps")),
                 json_real_value(json_object_get(o, "loss")),
                 json_real_value(json_object_get(o, "lr")),
                 json_number_value(json_object_get(o, "percentage")),
                 json_number_value(json_object_get(o, "epoch")),
                 (int)json_integer_value(json_object_get(o, "total_tokens")));
        json_decref(o);
    }
    free(text);
    free(path);
    return out;
}

static void test_logs_of_a_resumed_run_are_those_of_a_whole_one(void **state)
{
    const kit *k = *state;
    hone_err e;
    char *a = path_join(k->dir, "a"), *b = path_join(k->dir, "b");
    drop(train(k, "{" BASE "}", a, 0, 0, &e));
    drop(train(k, "{" BASE ",\"save_steps\":3}", b, 10, 0, &e));
    char *from =
        mem_printf("{" BASE ",\"save_steps\":3,\"resume_from_checkpoint\":\"%s/checkpoint-6\"}", b);
    drop(train(k, from, b, 0, HONE_EEXIST, &e));
    assert_non_null(strstr(e.msg, "checkpoint-10 is newer than "));
    for (int n = 10; n > 6; n -= 1) {
        char *newer = mem_printf("%s/checkpoint-%d", b, n);
        assert_int_equal(dir_remove(newer, &e), 0);
        free(newer);
    }
    drop(train(k, from, b, 0, 0, &e));
    char *want = logged(a), *got = logged(b);
    assert_string_equal(got, want);
    char *state_path = path_join(b, "trainer_state.json");
    json_t *s;
    assert_int_equal(js_load(&s, state_path, &e), 0);
    assert_int_equal(json_integer_value(json_object_get(s, "global_step")), 12);
    assert_true(json_real_value(json_object_get(s, "epoch")) == 2);
    assert_int_equal(json_array_size(json_object_get(s, "log_history")), 4);
    json_decref(s);
    free(state_path);
    free(want);
    free(got);
    free(from);
    free(a);
    free(b);
}

static void test_longer_run_goes_on(void **state)
{
    const kit *k = *state;
    hone_err e;
#define CONSTANT "{" BASE ",\"lr_scheduler\":\"constant\""
    char *b = path_join(k->dir, "b");
    aid_run *whole = train(k, CONSTANT ",\"max_steps\":10}", k->out, 0, 0, &e);
    drop(train(k, CONSTANT ",\"max_steps\":5,\"save_steps\":5}", b, 0, 0, &e));
    aid_run *r =
        train(k, CONSTANT ",\"max_steps\":10,\"auto_resume_from_checkpoints\":true}", b, 0, 0, &e);
    assert_int_equal(r->n, 5);
    assert_memory_equal(r->weights, whole->weights, whole->n_weights * sizeof(float));
    drop(whole);
    drop(r);
    free(b);
}

static void test_another_run_is_refused(void **state)
{
    const kit *k = *state;
    hone_err e;
    drop(train(k, "{" BASE "}", k->out, 4, 0, &e));
    drop(train(k, "{" BASE "}", k->out, 0, HONE_EEXIST, &e));
    assert_non_null(strstr(
        e.msg, "checkpoint-4 is of an earlier run; set auto_resume_from_checkpoints: true to go on "
               "from it, overwrite_output_dir: true to remove it, or another output_dir"));
    drop(train(k, "{" BASE ",\"seed\":43,\"auto_resume_from_checkpoints\":true}", k->out, 0,
               HONE_EINVAL, &e));
    assert_non_null(strstr(e.msg, "checkpoint-4: settings.seed was 42 and is 43: another run"));
    aid_run *r = train(k, "{" BASE ",\"overwrite_output_dir\":true}", k->out, 0, 0, &e);
    assert_int_equal(r->n, 12);
    drop(r);
}

static void flip(const char *dir, const char *file, size_t from_end)
{
    hone_err e = {0};
    char *path = mem_printf("%s/checkpoint-4/%s", dir, file), *data;
    size_t len;
    assert_int_equal(file_read(&data, &len, path, 1 << 24, &e), 0);
    data[len - from_end] ^= 1;
    assert_int_equal(file_write(path, data, len, &e), 0);
    free(data);
    free(path);
}

static void test_damaged_checkpoint_is_refused(void **state)
{
    const kit *k = *state;
    hone_err e;
    const char *resume = "{" BASE ",\"auto_resume_from_checkpoints\":true}";
    drop(train(k, "{" BASE "}", k->out, 4, 0, &e));
    flip(k->out, "optimizer.safetensors", 9);
    drop(train(k, resume, k->out, 0, HONE_EFORMAT, &e));
    assert_non_null(strstr(e.msg, "optimizer.safetensors: its content is not what was saved"));
    flip(k->out, "optimizer.safetensors", 9);
    char *state_path = mem_printf("%s/checkpoint-4/trainer_state.json", k->out),
         *text = aid_text(state_path);
    char *at = strstr(text, "\"tokens\": ");
    at[10] = at[10] == '9' ? '8' : '9';
    assert_int_equal(file_write(state_path, text, strlen(text), &e), 0);
    drop(train(k, resume, k->out, 0, HONE_EFORMAT, &e));
    assert_non_null(strstr(e.msg, "trainer_state.json: its content is not what was saved"));
    free(text);
    free(state_path);
}

static size_t count(const char *dir, const char *prefix)
{
    char **names;
    hone_err e = {0};
    size_t n = 0;
    assert_int_equal(dir_list(&names, dir, &e), 0);
    for (size_t i = 0; names[i] != NULL; i++)
        n += strncmp(names[i], prefix, strlen(prefix)) == 0;
    dir_list_free(names);
    return n;
}

static void test_checkpoints_are_limited(void **state)
{
    const kit *k = *state;
    hone_err e = {0};
    char *left = path_join(k->out, ".checkpoint-3.part"),
         *last = path_join(k->out, "checkpoint-12");
    assert_int_equal(dir_make(left, &e), 0); /* as a killed save leaves it */
    drop(train(k, "{" BASE ",\"save_steps\":1,\"save_total_limit\":2}", k->out, 0, 0, &e));
    assert_int_equal(count(k->out, "checkpoint-"), 2);
    assert_int_equal(count(k->out, "."), 0);
    assert_true(file_exists(last));
    free(left);
    free(last);
}

static void test_not_finite_stops_with_the_rows(void **state)
{
    const kit *k = *state;
    hone_err e;
    aid_run *r = mem_alloc(sizeof *r);
    r->poison = true;
    e = (hone_err){0};
    assert_int_equal(
        aid_train(r, k->d, "{" BASE ",\"shuffle_merged_datasets\":false}", k->start, 0, k->out, &e),
        HONE_ENUMERIC);
    drop(r);
    char *path = path_join(k->out, "nan_batch.jsonl"), *text = aid_text(path);
    char *want = mem_printf(
        "training: step 1: the loss of chat.jsonl:1 is not a finite number; the 4 rows of the "
        "step are in %s, the weights are still those of step 0",
        path);
    assert_string_equal(e.msg, want);
    char *end = strchr(text, '\n');
    *end = '\0';
    assert_string_equal(
        text, "{\"step\":1,\"micro_batch\":0,\"file\":\"chat.jsonl\",\"line\":1,\"tokens\":63,"
              "\"supervised\":15,\"loss\":null}");
    free(want);
    free(text);
    free(path);
}

static void test_watchdog(void **state)
{
    const kit *k = *state;
    hone_err e;
    drop(train(k, "{" BASE ",\"loss_watchdog_threshold\":1.5,\"loss_watchdog_patience\":2}", k->out,
               0, HONE_ENUMERIC, &e));
    assert_non_null(strstr(e.msg, "step 2: the loss "));
    assert_non_null(strstr(e.msg, " has been above loss_watchdog_threshold 1.5 for 2 steps"));
}

static void test_early_stopping(void **state)
{
    const kit *k = *state;
    hone_err e = {0};
    aid_run *r = mem_alloc(sizeof *r);
    /* A rate of nothing: no evaluation is better than the first. */
    assert_int_equal(
        aid_train(r, k->d,
                  "{\"adapter\":\"lora\",\"learning_rate\":0,\"num_epochs\":5,\"eval_steps\":2,"
                  "\"early_stopping_patience\":2,\"save_steps\":100}",
                  k->start, 3, k->out, &e),
        0);
    assert_int_equal(r->result.status, TRAIN_EARLY_STOP);
    assert_int_equal(r->result.steps, 6);
    assert_int_equal(r->result.best_step, 2);
    assert_int_equal(count(k->out, "checkpoint-6"), 1);
    drop(r);
    r = mem_alloc(sizeof *r); /* resumed, it has come to its end already */
    assert_int_equal(
        aid_train(r, k->d,
                  "{\"adapter\":\"lora\",\"learning_rate\":0,\"num_epochs\":5,\"eval_steps\":2,"
                  "\"early_stopping_patience\":2,\"auto_resume_from_checkpoints\":true}",
                  k->start, 3, k->out, &e),
        0);
    assert_int_equal(r->result.steps, 6);
    drop(r);
}

/* The first update has rate 0 and leaves good weights as they are, the next ones are far too large.
 */
static void test_best_weights_at_the_end(void **state)
{
    const kit *k = *state;
    hone_err e = {0};
    char *good = path_join(k->dir, "good"), *start = path_join(good, "checkpoint-30");
    aid_run *first = mem_alloc(sizeof *first), *r = mem_alloc(sizeof *r);
    if (aid_train(first, k->d,
                  "{\"adapter\":\"lora\",\"learning_rate\":0.005,\"max_steps\":30,"
                  "\"micro_batch_size\":4,\"save_steps\":30}",
                  k->start, 3, good, &e) != 0 ||
        aid_train(r, k->d,
                  "{\"adapter\":\"lora\",\"learning_rate\":100,\"max_steps\":3,\"eval_steps\":1,"
                  "\"lr_scheduler\":\"constant_with_warmup\",\"warmup_steps\":1,"
                  "\"save_steps\":3,\"save_total_limit\":1,\"load_best_model_at_end\":true}",
                  start, 3, k->out, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(r->result.best_step, 1);
    assert_true(r->result.best_eval_loss < r->result.eval_loss);
    assert_int_equal(count(k->out, "checkpoint-"), 2);
    assert_memory_equal(r->weights, first->weights, r->n_weights * sizeof(float));
    free(start);
    free(good);
    drop(first);
    drop(r);
}

/* The last step of an epoch takes what is left: 23 rows, 2 at a time, 5 micro-batches a step. */
static void test_partial_window_is_a_step(void **state)
{
    const kit *k = *state;
    hone_err e;
    aid_run *r =
        train(k,
              "{\"adapter\":\"lora\",\"micro_batch_size\":2,\"gradient_accumulation_steps\":5,"
              "\"num_epochs\":2}",
              k->out, 0, 0, &e);
    int64_t tokens = 0, targets = 0;
    for (size_t i = 0; i < k->d->n_samples; i++) {
        tokens += k->d->samples[i].n;
        targets += k->d->samples[i].n_targets;
    }
    assert_int_equal(r->n, 6);
    assert_int_equal(r->result.tokens, 2 * tokens);
    assert_int_equal(r->result.targets, 2 * targets);
    drop(r);
}

/* Micro-batches and packing change nothing but the order of sums. */
static void test_batching_changes_nothing(void **state)
{
    const kit *k = *state;
    hone_err e;
    static const char *const ways[] = {"\"micro_batch_size\":23",
                                       "\"micro_batch_size\":1,\"gradient_accumulation_steps\":23",
                                       "\"micro_batch_size\":5,\"gradient_accumulation_steps\":5",
                                       "\"micro_batch_size\":2,\"sequence_len\":200,\"sample_"
                                       "packing\":true,\"gradient_accumulation_steps\":23"};
    aid_run *want = NULL;
    make_adapter(k->start, 0);
    for (size_t i = 0; i < 4; i++) {
        char *out = mem_printf("%s/way%zu", k->dir, i);
        char *settings =
            mem_printf("{\"adapter\":\"lora\",\"num_epochs\":3,\"saves_per_epoch\":0,%s}", ways[i]);
        aid_run *r = train(k, settings, out, 0, 0, &e);
        for (size_t s = 0; want != NULL && s < r->n; s++) {
            assert_true(fabs(r->loss[s] - want->loss[s]) < 1e-5 * want->loss[s]);
            assert_true(fabs(r->norm[s] - want->norm[s]) < 1e-5 * want->norm[s]);
        }
        if (want == NULL)
            want = r;
        else
            drop(r);
        free(settings);
        free(out);
    }
    drop(want);
}

int main(void)
{
#define ROW(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        ROW(test_resume_is_bit_identical),
        ROW(test_logs_of_a_resumed_run_are_those_of_a_whole_one),
        ROW(test_longer_run_goes_on),
        ROW(test_another_run_is_refused),
        ROW(test_damaged_checkpoint_is_refused),
        ROW(test_checkpoints_are_limited),
        ROW(test_not_finite_stops_with_the_rows),
        ROW(test_watchdog),
        ROW(test_early_stopping),
        ROW(test_best_weights_at_the_end),
        ROW(test_partial_window_is_a_step),
        ROW(test_batching_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
