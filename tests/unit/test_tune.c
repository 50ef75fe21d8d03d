/* Whole runs, from settings to artefact. */
#include "adapters/lora.h"
#include "adapters/tune.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/digest.h"
#include "core/model/safetensors.h"
#include "core/text/chat.h"
#include "core/text/tok.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MODEL "tests/golden/train/model"
#define CHAT "tests/golden/train/chat.jsonl"

static char *dir, *out;

static int set_up(void **state)
{
    (void)state;
    dir = aid_dir();
    out = path_join(dir, "out");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(out);
    aid_dir_remove(dir);
    return 0;
}

/* Settings as YAML text after base_model, output_dir and what keeps a test quiet and small. */
static int run(const char *more, tune_result *r, hone_err *e)
{
    train_conf c;
    char *path = path_join(dir, "c.yaml");
    char *yaml = mem_printf("output_dir: %s\nprogress: none\nthreads: 1\n%s", out, more);
    *e = (hone_err){0};
    assert_int_equal(file_write(path, yaml, strlen(yaml), e), 0);
    int rc = train_conf_load(&c, path, NULL, 0, e);
    if (rc == 0)
        rc = tune_run(&c, NULL, r, e);
    train_conf_free(&c);
    free(yaml);
    free(path);
    return rc;
}

static void must(const char *more, tune_result *r)
{
    hone_err e;
    if (run(more, r, &e) != 0)
        fail_msg("%s", e.msg);
}

static json_t *read_json(const char *name)
{
    json_t *v;
    hone_err e = {0};
    char *path = path_join(out, name);
    if (js_load(&v, path, &e) != 0)
        fail_msg("%s", e.msg);
    free(path);
    return v;
}

static bool made(const char *name)
{
    char *path = path_join(out, name);
    bool there = file_exists(path);
    free(path);
    return there;
}

static void check_manifest(const char *kind, const tune_result *r)
{
    json_t *m = read_json("hone_manifest.json"), *v;
    const char *name;
    char hex[65];
    hone_err e = {0};
    assert_string_equal(json_string_value(json_object_get(m, "kind")), kind);
    assert_int_equal(model_dir_digest(hex, MODEL, &e), 0);
    assert_string_equal(json_string_value(json_object_get(m, "base_digest")), hex);
    assert_string_equal(json_string_value(json_object_get(m, "template_digest")),
                        r->template_digest);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(m, "stop_ids"), 0)), 1);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(m, "training"), "steps")),
                     r->train.steps);
    json_t *sources = json_object_get(json_object_get(m, "data"), "sources");
    assert_string_equal(json_string_value(json_object_get(json_array_get(sources, 0), "path")),
                        CHAT);
    assert_true(json_object_size(json_object_get(m, "files")) >= 3);
    json_object_foreach (json_object_get(m, "files"), name, v) {
        char *path = path_join(out, name);
        assert_int_equal(file_sha256(hex, path, &e), 0);
        assert_string_equal(json_string_value(v), hex);
        free(path);
    }
    json_decref(m);
}

#define TINY                                                                                       \
    "base_model: " MODEL "\ndatasets: [" CHAT                                                      \
    "]\nmicro_batch_size: 4\nlearning_rate: 0.005\nval_set_size: 3\n"

static void test_adapter(void **state)
{
    (void)state;
    tune_result r, again;
    hone_err e = {0};
    adapter *a;
    must(TINY "adapter: lora\nlora_r: 4\nlora_dropout: 0.05\nnum_epochs: 3\n", &r);
    assert_int_equal(r.train.steps, 15);
    assert_int_equal(r.n_rows, 23);
    assert_true(r.train.eval_loss < r.train.first_eval_loss);
    check_manifest("adapter", &r);
    assert_true(made("chat_template.jinja") && made("rejects.jsonl") && made("trainer_log.jsonl") &&
                made("trainer_state.json") && made("checkpoint-15"));
    kern_dev *dev = aid_device();
    model *m = aid_open(dev, MODEL, KERN_F32, false, RECOMPUTE_NONE);
    if (adapter_open(&a, out, m, false, r.base_digest, r.template_digest, &e) != 0)
        fail_msg("%s", e.msg);
    adapter_close(a);
    assert_int_equal(adapter_open(&a, out, m, false, "0000000000000000", NULL, &e), HONE_EINVAL);
    model_close(m);
    kern_close(dev);
    char *first = mem_strdup(out); /* training goes on from it in another directory */
    free(out);
    out = path_join(dir, "out2");
    char *more = mem_printf(TINY "adapter: lora\nlora_model_dir: %s\n", first);
    must(more, &again);
    assert_true(again.train.eval_loss < r.train.first_eval_loss);
    free(more);
    free(first);
}

static void test_whole_model(void **state)
{
    (void)state;
    tune_result r;
    hone_err e = {0};
    tok *t;
    chat *c;
    must(TINY "num_epochs: 2\n", &r);
    check_manifest("model", &r);
    kern_dev *dev = aid_device();
    model_close(aid_open(dev, out, KERN_F32, false, RECOMPUTE_NONE));
    kern_close(dev);
    assert_int_equal(tok_open(&t, out, &e), 0);
    assert_int_equal(chat_open(&c, out, NULL, &e), 0);
    assert_string_equal(chat_digest(c), r.template_digest);
    tok_close(t);
    chat_close(c);
}

/* A base in f16 stays in f16, in shards where it is larger than asked; both can be set. */
static void test_stored_as_asked(void **state)
{
    (void)state;
    tune_result r;
    hone_err e = {0};
    kern_dev *dev = aid_device();
    model *m = aid_open(dev, MODEL, KERN_F32, true, RECOMPUTE_NONE);
    char *base = path_join(dir, "f16");
    static const char *const copied[] = {"tokenizer.json", "tokenizer_config.json",
                                         "chat_template.jinja"};
    assert_int_equal(dir_make(base, &e), 0);
    assert_int_equal(model_save(m, base, KERN_F16, 0, &e), 0);
    model_close(m);
    for (size_t i = 0; i < 3; i++) {
        char *from = path_join(MODEL, copied[i]), *to = path_join(base, copied[i]);
        if (file_exists(from))
            assert_int_equal(file_copy(from, to, &e), 0);
        free(from);
        free(to);
    }
    static const struct {
        const char *more;
        st_dtype want;
        bool sharded;
    } rows[] = {{"", ST_F16, false},
                {"max_shard_size: 20KB\n", ST_F16, true},
                {"save_dtype: f32\nmax_shard_size: 1 GiB\n", ST_F32, false}};
    for (size_t i = 0; i < 3; i++) {
        safetensors *st;
        char *more = mem_printf("base_model: %s\ndatasets: [" CHAT "]\nmax_steps: 1\n"
                                "sequence_len: 256\noverwrite_output_dir: true\n%s",
                                base, rows[i].more);
        must(more, &r);
        assert_int_equal(safetensors_open(&st, out, &e), 0);
        assert_int_equal(safetensors_at(st, 0)->dtype, rows[i].want);
        assert_true((safetensors_files(st)[1] != NULL) == rows[i].sharded);
        safetensors_close(st);
        model_close(aid_open(dev, out, KERN_F32, false, RECOMPUTE_NONE));
        free(more);
    }
    kern_close(dev);
    free(base);
}

static void test_from_nothing(void **state)
{
    (void)state;
    tune_result r;
    hone_err e;
    char *config = path_join(dir, "config.json"), *text = path_join(dir, "t.txt");
    const char *shape =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":300,"
        "\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":1,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":2,\"max_position_embeddings\":32,"
        "\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true,\"hidden_act\":\"silu\"}";
    const char *words = "the cat sees the dog\nthe dog sees the cat\nthe bird sees the cat\n";
    assert_int_equal(file_write(config, shape, strlen(shape), &e), 0);
    assert_int_equal(file_write(text, words, strlen(words), &e), 0);
    char *more = mem_printf(
        "pretrain_config: %s\ntokenizer_config: " MODEL "\ndatasets: [%s]\nnum_epochs: 30\n"
        "micro_batch_size: 3\nlearning_rate: 0.02\nsequence_len: 32\nsample_packing: true\n",
        config, text);
    must(more, &r);
    assert_true(r.train.last_loss < 1.5 && r.train.train_loss < 5);
    assert_true(made("model.safetensors") && made("tokenizer.json"));
    free(more);
    more = mem_printf("pretrain_config: %s\ntokenizer_config: " MODEL "\ndatasets: [" CHAT "]\n"
                      "overwrite_output_dir: true\n",
                      config);
    assert_int_equal(run(more, &r, &e), HONE_ELIMIT);
    assert_string_equal(e.msg,
                        "the longest sequence has 156 tokens and the model has 32 positions; lower "
                        "sequence_len and set excess_length_strategy");
    free(more);
    free(config);
    free(text);
}

static void test_tokenizer_of_another_model(void **state)
{
    (void)state;
    tune_result r;
    hone_err e;
    char *stories = aid_shared("data/checkpoints/stories260k-f32");
    char *qwen = aid_shared("data/tokenizers/qwen2.json");
    if (stories == NULL || qwen == NULL)
        skip();
    char *to = path_join(dir, "tokenizer.json"), *text = path_join(dir, "t.txt");
    assert_int_equal(file_copy(qwen, to, &e), 0);
    assert_int_equal(file_write(text, "extraordinary\n", 14, &e), 0);
    char *more = mem_printf("base_model: %s\ntokenizer_config: %s\ndatasets: [%s]\nadapter: lora\n",
                            stories, dir, text);
    char *want = mem_printf("%s:1: token ", text);
    assert_int_equal(run(more, &r, &e), HONE_EINVAL);
    assert_memory_equal(e.msg, want, strlen(want));
    assert_non_null(strstr(
        e.msg, "is beyond the model's vocabulary of 512: the tokenizer is of another model"));
    free(want);
    free(more);
    free(text);
    free(to);
    free(qwen);
    free(stories);
}

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * fabs(want)))
        fail_msg("%s is %.9g, PEFT has %.9g", what, got, want);
}

/* Real data on a real checkpoint: each step and the held-out loss follow PEFT. */
static void test_wikisql_follows_peft(void **state)
{
    (void)state;
    tune_result r;
    json_t *want;
    hone_err e = {0};
    size_t i;
    json_t *row;
    char *stories = aid_shared("data/checkpoints/stories260k-f32"),
         *sql = aid_shared("data/datasets/wikisql");
    if (stories == NULL || sql == NULL)
        skip();
    assert_int_equal(js_load(&want, "tests/golden/train/wikisql/run.json", &e), 0);
    char *cut = path_join(dir, "train.jsonl"), *held = path_join(dir, "valid.jsonl");
    const struct {
        const char *name, *to;
        int rows;
    } files[] = {{"train.jsonl", cut, 400}, {"valid.jsonl", held, 60}};
    for (i = 0; i < 2; i++) { /* the first rows, as the golden run takes them */
        char *from = path_join(sql, files[i].name), *text = aid_text(from), *end = text;
        for (int n = 0; n < files[i].rows; n++)
            end = strchr(end, '\n') + 1;
        assert_int_equal(file_write(files[i].to, text, (size_t)(end - text), &e), 0);
        free(text);
        free(from);
    }
    char *more = mem_printf(
        "base_model: %s\ndatasets: [%s]\ntest_datasets: [%s]\nadapter: lora\n"
        "lora_model_dir: tests/golden/train/wikisql\nshuffle_merged_datasets: false\n"
        "micro_batch_size: 16\nlearning_rate: 0.005\nwarmup_steps: 5\neval_on_start: true\n"
        "evals_per_epoch: 0\nsaves_per_epoch: 0\n",
        stories, cut, held);
    must(more, &r);
    assert_int_equal(r.train.tokens, json_integer_value(json_object_get(want, "tokens")));
    near("loss before", r.train.first_eval_loss, json_real_value(json_object_get(want, "before")),
         1e-5);
    near("loss after", r.train.eval_loss, json_real_value(json_object_get(want, "after")), 1e-4);
    json_t *log_state = read_json("trainer_state.json");
    json_array_foreach (json_object_get(want, "losses"), i, row) {
        json_t *log = json_array_get(json_object_get(log_state, "log_history"),
                                     i + 1); /* after the evaluation */
        near("loss of a step", json_real_value(json_object_get(log, "loss")), json_real_value(row),
             1e-4);
    }
    json_decref(log_state);
    json_decref(want);
    free(more);
    free(cut);
    free(held);
    free(sql);
    free(stories);
}

int main(void)
{
#define ROW(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        ROW(test_adapter),
        ROW(test_whole_model),
        ROW(test_stored_as_asked),
        ROW(test_from_nothing),
        ROW(test_tokenizer_of_another_model),
        ROW(test_wikisql_follows_peft),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
