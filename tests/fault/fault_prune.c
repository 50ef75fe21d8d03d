/* A checkpoint save that also takes the checkpoint before it away: whatever happens in between, one
 * of the two is whole. Between step 2 and the news that its checkpoint stands, everything fails
 * once. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/train/trainer.h"
#include "tests/fault/cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_SAMPLES = 3, LENGTH = 6, VOCAB = 16 };

static const char config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": 16,"
    " \"hidden_size\": 8, \"intermediate_size\": 8, \"num_hidden_layers\": 1,"
    " \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"max_position_embeddings\": 16,"
    " \"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": true}";

static json_t *parse(const char *text)
{
    json_t *v;
    if (js_parse(&v, text, strlen(text), NULL) != 0)
        abort();
    return v;
}

static int save(void *user, const char *dir, hone_err *e)
{
    return model_save(user, dir, KERN_F32, 0, e);
}

static int refresh(void *user, hone_err *e)
{
    return model_refresh(user, e);
}

static int at_step(hook_call *call, void *user, hone_err *e)
{
    int64_t step = 0;
    (void)user;
    if (js_get_int(call->data, "step", &step, e) == 0 && step == 2)
        fault_begin();
    return HOOK_CONTINUE;
}

static int at_checkpoint(hook_call *call, void *user, hone_err *e)
{
    int64_t step = 0;
    (void)user;
    if (js_get_int(call->data, "step", &step, e) == 0 && step == 2)
        fault_end();
    return HOOK_CONTINUE;
}

typedef struct rows {
    dataset d;
    data_sample samples[N_SAMPLES];
    data_row rows[N_SAMPLES];
    data_source source;
    int32_t ids[N_SAMPLES * LENGTH];
    uint8_t mask[N_SAMPLES * LENGTH];
} rows;

static void fill(rows *r)
{
    *r = (rows){.source = {.path = (char *)"rows.jsonl"}};
    for (uint32_t i = 0; i < N_SAMPLES; i++) {
        r->samples[i] = (data_sample){i * LENGTH, LENGTH, LENGTH - 1, i};
        r->rows[i] = (data_row){.line = i + 1, .hash = i + 1};
    }
    for (int i = 0; i < N_SAMPLES * LENGTH; i++) {
        r->ids[i] = i * 7 % VOCAB;
        r->mask[i] = 1;
    }
    r->d = (dataset){.ids = r->ids,
                     .mask = r->mask,
                     .n_tokens = N_SAMPLES * LENGTH,
                     .samples = r->samples,
                     .n_samples = N_SAMPLES,
                     .rows = r->rows,
                     .n_rows = N_SAMPLES,
                     .sources = &r->source,
                     .n_sources = 1,
                     .longest = LENGTH};
}

static void must(int rc)
{
    if (rc != 0)
        abort();
}

static int train(const char *dir, int64_t steps, hone_err *e)
{
    static rows r; /* the child's own; as large as it is, not on the stack */
    train_conf c;
    kern_dev *dev;
    model *m;
    data_view all, none = {0};
    trainer_result result;
    char why[256];
    const kern_open_args one = {.threads = 1};
    hooks *h = hook_new();
    json_t *tree = json_pack("{s:s, s:s, s:[{s:s}], s:s, s:I, s:i, s:i, s:b, s:s, s:i, s:s}",
                             "base_model", "m", "output_dir", dir, "datasets", "path", "rows.jsonl",
                             "adapter", "full", "max_steps", (json_int_t)steps, "save_steps", 1,
                             "save_total_limit", 1, "auto_resume_from_checkpoints", 1, "progress",
                             "none", "sequence_len", 8, "lr_scheduler", "constant");
    json_t *identity = json_object(), *shape = parse(config);
    fill(&r);
    must(train_conf_from(&c, tree, e));
    must(kern_open(&dev, "cpu", &one, why));
    const model_options o = {.dev = dev, .dtype = KERN_F32, .backward = true, .train_base = true};
    must(model_create(&m, shape, 1, &o, e));
    must(hook_on(h, HOOK_TRAIN_STEP, "fault", 0, at_step, NULL, e));
    must(hook_on(h, HOOK_TRAIN_CHECKPOINT, "fault", 0, at_checkpoint, NULL, e));
    data_view_all(&all, &r.d);
    const trainer t = {.conf = &c,
                       .model = m,
                       .params = model_params(m),
                       .train = &all,
                       .eval = &none,
                       .hooks = h,
                       .identity = identity,
                       .save = save,
                       .after_step = refresh,
                       .user = m};
    int rc = trainer_run(&t, &result, e);
    data_view_free(&all);
    json_decref(identity);
    json_decref(shape);
    json_decref(tree);
    train_conf_free(&c);
    hook_free(h);
    model_close(m);
    kern_close(dev);
    return rc;
}

static void train_one(const char *dir)
{
    must(train(dir, 1, NULL));
}

static int train_two(const char *dir, hone_err *e)
{
    return train(dir, 2, e);
}

/* Every file of the checkpoint is what its state file says. */
static bool is_whole(const char *dir, int step)
{
    char *at = mem_printf("%s/checkpoint-%d", dir, step),
         *state = path_join(at, "trainer_state.json");
    json_t *o = NULL, *digest;
    const char *name;
    size_t n = 0;
    bool whole = js_load(&o, state, NULL) == 0;
    json_object_foreach (json_object_get(json_object_get(o, "hone"), "files"), name, digest) {
        char hex[65], *path = path_join(at, name);
        whole = whole && file_sha256(hex, path, NULL) == 0 &&
                strcmp(hex, json_string_value(digest)) == 0;
        free(path);
        n++;
    }
    json_decref(o);
    free(state);
    free(at);
    return whole && n >= 2; /* weights and moments at least */
}

static fault_state look_checkpoints(const char *dir)
{
    bool one = is_whole(dir, 1), two = is_whole(dir, 2);
    char *path = mem_printf("%s/checkpoint-2", dir);
    bool half = file_exists(path) && !two;
    free(path);
    return half ? FAULT_BROKEN : two ? FAULT_NEW : one ? FAULT_OLD : FAULT_BROKEN;
}

const fault_case fault_checkpoint_prune = {.name = "checkpoint_prune",
                                           .prepare = train_one,
                                           .act = train_two,
                                           .look = look_checkpoints,
                                           .leaves_names = true,
                                           .own_window = true,
                                           .error_after_new = true,
                                           .keeps_descriptors = true};
