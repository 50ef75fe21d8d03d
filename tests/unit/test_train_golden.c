/* Training against torch + transformers + PEFT in f32: tests/golden/train/gen_train.py. */
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_train.h"

#include <math.h>
#include <stdlib.h>

static void near(const char *run, const char *what, size_t step, double got, double want)
{
    if (!(fabs(got - want) <= 1e-4 * fabs(want)))
        fail_msg("%s: %s of step %zu is %.9g, torch has %.9g", run, what, step + 1, got, want);
}

static void follow(const char *run, const char *settings, const char *start)
{
    json_t *all;
    hone_err e = {0};
    char *dir = aid_dir();
    dataset *d = aid_chat_rows();
    aid_run *r = mem_alloc(sizeof *r);
    assert_int_equal(js_load(&all, "tests/golden/train/runs.json", &e), 0);
    json_t *want = json_object_get(all, run);
    if (aid_train(r, d, settings, start, 0, dir, &e) != 0)
        fail_msg("%s: %s", run, e.msg);
    json_t *losses = json_object_get(want, "losses"), *norms = json_object_get(want, "norms");
    assert_int_equal(r->n, json_array_size(losses));
    for (size_t i = 0; i < r->n; i++) {
        near(run, "loss", i, r->loss[i], json_real_value(json_array_get(losses, i)));
        near(run, "gradient norm", i, r->norm[i], json_real_value(json_array_get(norms, i)));
    }
    aid_run_free(r);
    free(r);
    aid_rows_free(d);
    json_decref(all);
    aid_dir_remove(dir);
}

#define COMMON                                                                                     \
    "\"learning_rate\":0.005,\"weight_decay\":0.1,\"max_grad_norm\":1.0,\"warmup_steps\":5,"       \
    "\"lr_scheduler\":\"cosine\",\"shuffle_merged_datasets\":false,\"saves_per_epoch\":0,"
#define LORA "\"adapter\":\"lora\","

static void test_plain(void **state)
{
    (void)state;
    follow("plain", "{" COMMON LORA "\"micro_batch_size\":4,\"max_steps\":50}", "lora");
}

static void test_accumulated(void **state)
{
    (void)state;
    follow("accumulated",
           "{" COMMON LORA
           "\"micro_batch_size\":3,\"gradient_accumulation_steps\":3,\"max_steps\":50}",
           "lora");
}

static void test_packed(void **state)
{
    (void)state;
    follow("packed",
           "{" COMMON LORA
           "\"micro_batch_size\":2,\"sequence_len\":96,\"sample_packing\":true,\"max_steps\":50}",
           "lora");
}

static void test_rslora_and_loraplus(void **state)
{
    (void)state;
    follow("rslora_plus",
           "{" COMMON LORA "\"micro_batch_size\":4,\"loraplus_lr_ratio\":4,\"max_steps\":20}",
           "rslora");
}

static void test_full(void **state)
{
    (void)state;
    follow(
        "full",
        "{\"learning_rate\":0.001,\"weight_decay\":0.1,\"warmup_steps\":5,\"micro_batch_size\":4,"
        "\"max_steps\":20,\"shuffle_merged_datasets\":false,\"saves_per_epoch\":0}",
        NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),  cmocka_unit_test(test_accumulated),
        cmocka_unit_test(test_packed), cmocka_unit_test(test_rslora_and_loraplus),
        cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
