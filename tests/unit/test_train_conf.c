#include "core/base/file.h"
#include "core/base/js.h"
#include "core/train/optim.h"
#include "core/train/train_conf.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>

static int load(train_conf *c, const char *yaml, hone_err *e)
{
    char *dir = aid_dir(), *path = path_join(dir, "c.yaml");
    assert_int_equal(file_write(path, yaml, strlen(yaml), e), 0);
    int rc = train_conf_load(c, path, NULL, 0, e);
    free(path);
    aid_dir_remove(dir);
    return rc;
}

/* The error of a settings file, without the directory. */
static void refused(const char *yaml, const char *want)
{
    train_conf c;
    hone_err e = {0};
    assert_int_not_equal(load(&c, yaml, &e), 0);
    const char *at = strstr(e.msg, "c.yaml: ");
    assert_string_equal(at != NULL ? at + 8 : e.msg, want);
}

static void test_table(void **state)
{
    (void)state;
    train_conf c = {0};
    hone_err e = {0};
    if (conf_check(train_conf_rows, &c, &e) != 0)
        fail_msg("%s", e.msg);
    conf_free(train_conf_rows, &c);
    const conf_row *row = conf_find(train_conf_rows, "optimizer");
    for (int i = 0; optimizers[i].name != NULL; i++) {
        char *name = conf_choice(row, i);
        assert_string_equal(name, optimizers[i].name);
        free(name);
    }
}

#define MIN "base_model: m\ndatasets: [a.jsonl]\n"

static void test_defaults(void **state)
{
    (void)state;
    train_conf c;
    hone_err e = {0};
    assert_int_equal(load(&c, MIN "adapter: lora\nlora_r: 16\n", &e), 0);
    assert_int_equal(c.sequence_len, 512);
    assert_int_equal(c.seed, 42);
    assert_true(c.lora_alpha == 32);
    assert_string_equal(json_string_value(json_array_get(c.lora_target_modules, 0)), "all-linear");
    assert_true(train_conf_given(&c, "lora_r"));
    assert_false(train_conf_given(&c, "seed"));
    assert_int_equal(c.max_shard_bytes, 5000000000);
    train_conf_free(&c);
    assert_int_equal(load(&c, MIN "max_shard_size: 1.5 GiB\n", &e), 0);
    assert_int_equal(c.max_shard_bytes, 1610612736);
    train_conf_free(&c);
}

static void test_llama_factory_names(void **state)
{
    (void)state;
    train_conf c;
    hone_err e = {0};
    assert_int_equal(load(&c,
                          "model_name_or_path: m\ndatasets: a.jsonl\nfinetuning_type: lora\n"
                          "lora_rank: 4\nlora_target: q_proj,v_proj\ncutoff_len: 99\n"
                          "per_device_train_batch_size: 3\nnum_train_epochs: 2.5\n"
                          "lr_scheduler_type: linear\nneat_packing: true\n",
                          &e),
                     0);
    assert_string_equal(c.base_model, "m");
    assert_int_equal(c.sequence_len, 99);
    assert_int_equal(c.micro_batch_size, 3);
    assert_true(c.num_epochs == 2.5);
    assert_int_equal(c.lr_scheduler, 0);
    assert_true(c.sample_packing);
    assert_int_equal(json_array_size(c.lora_target_modules), 2);
    assert_string_equal(json_string_value(json_array_get(c.lora_target_modules, 1)), "v_proj");
    train_conf_free(&c);
}

static void test_assignments_come_last(void **state)
{
    (void)state;
    train_conf c;
    hone_err e = {0};
    char *assign[] = {"base_model=m", "datasets=[{path: a.jsonl, type: alpaca}]", "seed=7",
                      "adapter=full"};
    assert_int_equal(train_conf_load(&c, NULL, assign, 4, &e), 0);
    assert_int_equal(c.seed, 7);
    assert_int_equal(c.adapter, TRAIN_ADAPTER_NONE);
    json_t *id = train_conf_identity(&c);
    assert_non_null(json_object_get(id, "seed"));
    assert_null(json_object_get(id, "output_dir"));
    json_decref(id);
    train_conf_free(&c);
}

static void test_refused(void **state)
{
    (void)state;
    refused(MIN "lora_rr: 8\n", "line 3: unknown key 'lora_rr' (did you mean 'lora_r'?)");
    refused("datasets: [a]\n", "'base_model' is missing (or 'pretrain_config')");
    refused("base_model: m\n", "'datasets' is missing");
    refused(MIN "lora_r: 8\n", "'lora_r' is set but 'adapter' is not lora");
    refused(MIN "warmup_steps: 1\nwarmup_ratio: 0.1\n",
            "'warmup_steps' and 'warmup_ratio' are both set: give one");
    refused(MIN "lr_scheduler: constant\nwarmup_steps: 10\n",
            "'lr_scheduler: constant' has no warmup; use constant_with_warmup");
    refused(MIN "early_stopping_patience: 2\n",
            "'early_stopping_patience' needs 'val_set_size' or 'test_datasets'");
    refused(MIN "val_set_size: 1.5\n", "'val_set_size' is 1.5: a share below 1 or a whole number");
    refused(MIN "micro_batch_size: 60000\nsequence_len: 1000000\n",
            "micro_batch_size * sequence_len is 60000000000 tokens, at most 16777216");
    refused("pretrain_config: c.json\ndatasets: [a]\n",
            "'pretrain_config' needs 'tokenizer_config', the directory of the tokenizer");
    refused(MIN "adapter: lora\nlora_model_dir: d\nlora_r: 4\n",
            "'lora_r' belongs to the adapter in 'lora_model_dir' and cannot be set again");
    refused(MIN "max_shard_size: 5 potatoes\n",
            "'max_shard_size' is '5 potatoes'; write a size such as 5GB, 500MB or 2GiB");
    refused(MIN "max_shard_size: \"0\"\n",
            "'max_shard_size' is '0'; write a size such as 5GB, 500MB or 2GiB");
    refused(MIN "optimizer: adamw_bnb_8bit\n",
            "line 3: 'optimizer' must be one of adamw_torch|adamw|adamw_torch_fused|adamw_hf, not "
            "\"adamw_bnb_8bit\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_llama_factory_names),
        cmocka_unit_test(test_assignments_come_last),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
