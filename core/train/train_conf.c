#include "core/train/train_conf.h"

#include "core/base/mem.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_BATCH_TOKENS = 1 << 24 };

#define AT(field) offsetof(train_conf, field)

/* clang-format off */
const conf_row train_conf_rows[] = {
    {"base_model", "model_name_or_path", CONF_STR, AT(base_model), NULL, 0, 0, NULL,
     "checkpoint directory to start from"},
    {"pretrain_config", NULL, CONF_STR, AT(pretrain_config), NULL, 0, 0, NULL,
     "config.json of a model to train from nothing (instead of base_model; needs "
     "tokenizer_config)"},
    {"tokenizer_config", "tokenizer_name_or_path", CONF_STR, AT(tokenizer_config), NULL, 0, 0, NULL,
     "directory with tokenizer.json (default: base_model)"},
    {"chat_template_jinja", NULL, CONF_STR, AT(chat_template_jinja), NULL, 0, 0, NULL,
     "file with the chat template (default: the tokenizer's own)"},
    {"output_dir", NULL, CONF_STR, AT(output_dir), "./model-out", 0, 0, NULL,
     "where checkpoints, logs and the result go"},

    {"datasets", NULL, CONF_JSON, AT(datasets), NULL, 0, 0, NULL,
     "list of files, or of {path, type, ...}; see Data below"},
    {"test_datasets", "eval_dataset", CONF_JSON, AT(test_datasets), NULL, 0, 0, NULL,
     "data for evaluation while training, as datasets"},
    {"val_set_size", "val_size", CONF_FLOAT, AT(val_set_size), "0", 0, 1e9, NULL,
     "rows held out for evaluation: a share below 1, or a count; chosen by the hash of the row"},
    {"sequence_len", "cutoff_len", CONF_INT, AT(sequence_len), "512", 2, 1 << 20, NULL,
     "longest sequence, in tokens"},
    {"excess_length_strategy", NULL, CONF_ENUM, AT(excess), "error", 0, 0,
     "error|drop|truncate|split|raise",
     "what to do with a row longer than sequence_len; raise is error"},
    {"sample_packing", "packing neat_packing", CONF_BOOL, AT(sample_packing), "false", 0, 0, NULL,
     "fill micro-batches of micro_batch_size * sequence_len tokens; sequences never see each "
     "other"},
    {"train_on_inputs", "train_on_prompt", CONF_BOOL, AT(train_on_inputs), "false", 0, 0, NULL,
     "learn prompts too, not only answers"},
    {"train_turns", NULL, CONF_ENUM, AT(train_turns), "all", 0, 0, "all|last",
     "which assistant turns of a conversation are learnt"},
    {"shuffle_merged_datasets", NULL, CONF_BOOL, AT(shuffle), "true", 0, 0, NULL,
     "new order every epoch; false: file order every epoch"},

    {"adapter", "finetuning_type", CONF_ENUM, AT(adapter), "none", 0, 0, "none|lora|full",
     "lora, or none (full): every weight is trained"},
    {"lora_model_dir", "adapter_name_or_path", CONF_STR, AT(lora_model_dir), NULL, 0, 0, NULL,
     "PEFT directory to go on from"},
    {"lora_r", "lora_rank", CONF_INT, AT(lora_r), "8", 1, 1024, NULL, "rank"},
    {"lora_alpha", NULL, CONF_FLOAT, AT(lora_alpha), "0", 0, 1e6, NULL,
     "scale is alpha / r; 0: twice the rank"},
    {"lora_dropout", NULL, CONF_FLOAT, AT(lora_dropout), "0", 0, 0.999, NULL,
     "dropout on the input of the low-rank term"},
    {"lora_target_modules", "lora_target", CONF_LIST, AT(lora_target_modules), NULL, 0, 0, NULL,
     "module names, 'all-linear', or one 'regex:...' (default: all-linear)"},
    {"lora_target_linear", NULL, CONF_BOOL, AT(lora_target_linear), "false", 0, 0, NULL,
     "every linear layer but the output head"},
    {"peft_use_rslora", "use_rslora", CONF_BOOL, AT(use_rslora), "false", 0, 0, NULL,
     "scale alpha / sqrt(r)"},
    {"loraplus_lr_ratio", NULL, CONF_FLOAT, AT(loraplus_lr_ratio), "0", 0, 1e4, NULL,
     "learning rate of B over that of A (LoRA+); 0: the same"},

    {"micro_batch_size", "per_device_train_batch_size", CONF_INT, AT(micro_batch_size), "1", 1,
     1 << 16, NULL,
     "sequences in a micro-batch"},
    {"gradient_accumulation_steps", NULL, CONF_INT, AT(accumulation), "1", 1, 1 << 16, NULL,
     "micro-batches in a step; the step is normalised by its supervised tokens"},
    {"num_epochs", "num_train_epochs", CONF_FLOAT, AT(num_epochs), "1", 0, 1e6, NULL,
     "passes over the data; may be a fraction"},
    {"max_steps", NULL, CONF_INT, AT(max_steps), "0", -1, 1e9, NULL,
     "steps in all, instead of num_epochs; 0 or -1: not set"},
    {"optimizer", "optim", CONF_ENUM, AT(optimizer), "adamw_torch", 0, 0,
     "adamw_torch|adamw|adamw_torch_fused|adamw_hf",
     "AdamW under the names people write"},
    {"learning_rate", NULL, CONF_FLOAT, AT(learning_rate), "0.0002", 0, 100, NULL,
     "highest learning rate"},
    {"lr_scheduler", "lr_scheduler_type", CONF_ENUM, AT(lr_scheduler), "cosine", 0, 0,
     "linear|cosine|constant|constant_with_warmup",
     "how the learning rate goes down"},
    {"cosine_min_lr_ratio", NULL, CONF_FLOAT, AT(cosine_min_lr_ratio), "0", 0, 1, NULL,
     "cosine ends at this share of learning_rate"},
    {"warmup_steps", NULL, CONF_INT, AT(warmup_steps), "-1", -1, 1e9, NULL,
     "steps of linear warmup (default: 3 % of the steps, at most 100)"},
    {"warmup_ratio", NULL, CONF_FLOAT, AT(warmup_ratio), "0", 0, 1, NULL,
     "the same as a share of all steps"},
    {"weight_decay", NULL, CONF_FLOAT, AT(weight_decay), "0", 0, 10, NULL,
     "decoupled; not on norms and biases"},
    {"adam_beta1", NULL, CONF_FLOAT, AT(adam_beta1), "0.9", 0, 0.999999, NULL,
     "decay of the first moment"},
    {"adam_beta2", NULL, CONF_FLOAT, AT(adam_beta2), "0.999", 0, 0.999999, NULL,
     "decay of the second moment"},
    {"adam_epsilon", NULL, CONF_FLOAT, AT(adam_epsilon), "1e-8", 1e-30, 1, NULL,
     "added to the root of the second moment"},
    {"max_grad_norm", NULL, CONF_FLOAT, AT(max_grad_norm), "1.0", 0, 1e9, NULL,
     "clip the gradient to this norm; 0: never"},

    {"bf16", NULL, CONF_ENUM, AT(bf16), "auto", 0, 0, "auto|true|false",
     "bf16 arithmetic; adapters, gradients and optimizer stay f32. auto: on a GPU"},
    {"gradient_checkpointing", NULL, CONF_ENUM, AT(checkpointing), "auto", 0, 0,
     "auto|false|selective|true",
     "compute activations again instead of keeping them: all of a layer's, or what is cheap "
     "(selective). auto: as little as fits the device"},
    {"device", NULL, CONF_STR, AT(device), "auto", 0, 0, NULL, "cpu, cuda, or auto"},
    {"threads", NULL, CONF_INT, AT(threads), "0", 0, 4096, NULL, "CPU threads; 0: all"},
    {"seed", NULL, CONF_INT, AT(seed), "42", 0, 9e15, NULL, "of order, dropout and new weights"},

    {"logging_steps", NULL, CONF_INT, AT(logging_steps), "1", 1, 1e9, NULL,
     "steps between two log lines"},
    {"eval_steps", NULL, CONF_INT, AT(eval_steps), "0", 0, 1e9, NULL,
     "steps between two evaluations"},
    {"evals_per_epoch", NULL, CONF_INT, AT(evals_per_epoch), "1", 0, 1e6, NULL,
     "the same by epoch, when eval_steps is not set; 0: only at the end"},
    {"eval_on_start", NULL, CONF_BOOL, AT(eval_on_start), "false", 0, 0, NULL,
     "evaluate before step 1 too"},
    {"save_steps", NULL, CONF_INT, AT(save_steps), "0", 0, 1e9, NULL,
     "steps between two checkpoints"},
    {"saves_per_epoch", NULL, CONF_INT, AT(saves_per_epoch), "1", 0, 1e6, NULL,
     "the same by epoch, when save_steps is not set; 0: no checkpoints"},
    {"save_total_limit", NULL, CONF_INT, AT(save_total_limit), "4", 0, 1e6, NULL,
     "checkpoints kept, newest first; 0: all"},
    {"save_dtype", NULL, CONF_ENUM, AT(save_dtype), "auto", 0, 0, "auto|f32|bf16|f16",
     "how a whole model is stored at the end; auto: as the base was"},
    {"max_shard_size", NULL, CONF_STR, AT(max_shard_size), "5GB", 0, 0, NULL,
     "a whole model is stored in files of at most so much: bytes, KB, MB, GB, KiB, MiB or GiB"},
    {"load_best_model_at_end", NULL, CONF_BOOL, AT(load_best), "false", 0, 0, NULL,
     "end with the weights of the lowest evaluation loss"},
    {"early_stopping_patience", "early_stopping_steps", CONF_INT, AT(early_stopping_patience),
     "0", 0, 1e6, NULL,
     "stop after so many evaluations without a lower loss; 0: never"},
    {"loss_watchdog_threshold", NULL, CONF_FLOAT, AT(loss_watchdog_threshold), "0", 0, 1e9, NULL,
     "give up when the loss stays above this; 0: never"},
    {"loss_watchdog_patience", NULL, CONF_INT, AT(loss_watchdog_patience), "3", 1, 1e6, NULL,
     "steps in a row above the threshold"},
    {"resume_from_checkpoint", NULL, CONF_STR, AT(resume_from_checkpoint), NULL, 0, 0, NULL,
     "checkpoint directory to go on from"},
    {"auto_resume_from_checkpoints", NULL, CONF_BOOL, AT(auto_resume), "false", 0, 0, NULL,
     "go on from the last checkpoint in output_dir, if there is one"},
    {"overwrite_output_dir", NULL, CONF_BOOL, AT(overwrite), "false", 0, 0, NULL,
     "remove the checkpoints of an earlier run in output_dir"},
    {"progress", NULL, CONF_ENUM, AT(progress), "auto", 0, 0, "auto|bar|lines|none",
     "what is shown while training; auto: a bar on a terminal, else lines"},
    {"plugins", NULL, CONF_JSON, AT(plugins), NULL, 0, 0, NULL,
     "list of plugins and scripts, each a path or {path, settings, hooks, sha256, ...}"},
    {NULL, NULL, CONF_STR, 0, NULL, 0, 0, NULL, NULL},
};

/* What decides neither the numbers nor the data, so that a resumed run may set it anew. num_epochs
 * and max_steps are here because going on for longer is a usual wish; the trainer says when they
 * differ. Data, base and template are compared by their digests. */
static const char *const not_identity[] = {
    "base_model", "pretrain_config", "tokenizer_config", "chat_template_jinja", "datasets",
    "test_datasets", "val_set_size", "output_dir", "num_epochs", "max_steps", "device", "threads",
    "logging_steps", "eval_steps", "evals_per_epoch", "eval_on_start", "save_steps",
    "saves_per_epoch", "save_total_limit", "save_dtype", "max_shard_size", "load_best_model_at_end",
    "early_stopping_patience", "loss_watchdog_threshold", "loss_watchdog_patience",
    "resume_from_checkpoint", "auto_resume_from_checkpoints", "overwrite_output_dir", "progress", "plugins", NULL,
};

static const char *const lora_keys[] = {
    "lora_model_dir", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules",
    "lora_target_linear", "peft_use_rslora", "loraplus_lr_ratio", NULL,
};

/* What an adapter that is trained further brings along. */
static const char *const pair_keys[] = {
    "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear",
    "peft_use_rslora", NULL,
};

static const struct { const char *a, *b, *why; } not_both[] = {
    {"base_model", "pretrain_config", "one is fine-tuned, the other trained from nothing"},
    {"warmup_steps", "warmup_ratio", "give one"},
    {"eval_steps", "evals_per_epoch", "give one"},
    {"save_steps", "saves_per_epoch", "give one"},
    {"val_set_size", "test_datasets", "give one"},
    {"resume_from_checkpoint", "auto_resume_from_checkpoints", "give one"},
    {"resume_from_checkpoint", "overwrite_output_dir", "give one"},
};
/* clang-format on */

bool train_conf_given(const train_conf *c, const char *key)
{
    json_t *v = json_object_get(c->given, key);
    return v != NULL && !json_is_null(v);
}

static const char *first_given(const train_conf *c, const char *const *keys)
{
    for (size_t i = 0; keys[i] != NULL; i++)
        if (train_conf_given(c, keys[i]))
            return keys[i];
    return NULL;
}

/* "all" and "q_proj,v_proj" are how LLaMA-Factory writes lora_target. */
static void split_targets(train_conf *c)
{
    const char *only = json_array_size(c->lora_target_modules) == 1
                           ? json_string_value(json_array_get(c->lora_target_modules, 0))
                           : NULL;
    if (only == NULL || strncmp(only, "regex:", 6) == 0)
        return;
    json_t *list = json_array();
    for (const char *s = only; *s != '\0';) {
        size_t n = strcspn(s, ", ");
        if (n == 3 && strncmp(s, "all", 3) == 0)
            json_array_append_new(list, json_string("all-linear"));
        else if (n > 0)
            json_array_append_new(list, json_stringn(s, n));
        s += n + (s[n] != '\0');
    }
    json_decref(c->lora_target_modules);
    c->lora_target_modules = list;
}

static int check_model(const train_conf *c, hone_err *e)
{
    if (c->base_model == NULL && c->pretrain_config == NULL)
        return hone_fail(e, HONE_EINVAL, "'base_model' is missing (or 'pretrain_config')");
    if (c->pretrain_config != NULL && c->tokenizer_config == NULL)
        return hone_fail(e, HONE_EINVAL,
                         "'pretrain_config' needs 'tokenizer_config', the "
                         "directory of the tokenizer");
    if (c->adapter != TRAIN_ADAPTER_LORA) {
        const char *key = first_given(c, lora_keys);
        if (key != NULL)
            return hone_fail(e, HONE_EINVAL, "'%s' is set but 'adapter' is not lora", key);
    } else if (c->pretrain_config != NULL) {
        return hone_fail(e, HONE_EINVAL,
                         "an adapter cannot be trained on random weights; set "
                         "'adapter: none' with 'pretrain_config'");
    }
    const char *pair = c->lora_model_dir != NULL ? first_given(c, pair_keys) : NULL;
    if (pair != NULL)
        return hone_fail(e, HONE_EINVAL,
                         "'%s' belongs to the adapter in 'lora_model_dir' and "
                         "cannot be set again",
                         pair);
    return 0;
}

static int check_data(const train_conf *c, hone_err *e)
{
    if (c->datasets == NULL)
        return hone_fail(e, HONE_EINVAL, "'datasets' is missing");
    if (c->val_set_size >= 1 && c->val_set_size != (double)(int64_t)c->val_set_size)
        return hone_fail(e, HONE_EINVAL, "'val_set_size' is %g: a share below 1 or a whole number",
                         c->val_set_size);
    if (c->micro_batch_size * c->sequence_len > MAX_BATCH_TOKENS)
        return hone_fail(e, HONE_ELIMIT,
                         "micro_batch_size * sequence_len is %lld tokens, at most %d",
                         (long long)(c->micro_batch_size * c->sequence_len), MAX_BATCH_TOKENS);
    return 0;
}

/* As transformers reads it: GB is 10^9, GiB 2^30; a plain number counts bytes. */
static int read_shard_size(train_conf *c, hone_err *e)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},       {"KB", 1e3},      {"MB", 1e6},     {"GB", 1e9},
                 {"KIB", 1024}, {"MIB", 1 << 20}, {"GIB", 1 << 30}};
    char *end;
    double n = strtod(c->max_shard_size, &end);
    end += strspn(end, " ");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        double bytes = n * units[i].bytes;
        if (strcasecmp(end, units[i].name) != 0 || !(bytes >= 1 && bytes <= 1e18))
            continue;
        c->max_shard_bytes = (int64_t)bytes;
        return 0;
    }
    return hone_fail(e, HONE_EINVAL,
                     "'max_shard_size' is '%.40s'; write a size such as 5GB, 500MB or 2GiB",
                     c->max_shard_size);
}

static int check_steps(const train_conf *c, hone_err *e)
{
    bool has_eval = c->test_datasets != NULL || c->val_set_size > 0;
    if (c->max_steps <= 0 && c->num_epochs <= 0)
        return hone_fail(e, HONE_EINVAL, "'num_epochs' must be above 0");
    if (c->lr_scheduler == 2 && (c->warmup_steps > 0 || c->warmup_ratio > 0))
        return hone_fail(e, HONE_EINVAL,
                         "'lr_scheduler: constant' has no warmup; use "
                         "constant_with_warmup");
    if (!has_eval && (c->early_stopping_patience > 0 || c->load_best))
        return hone_fail(e, HONE_EINVAL, "'%s' needs 'val_set_size' or 'test_datasets'",
                         c->load_best ? "load_best_model_at_end" : "early_stopping_patience");
    if (c->load_best && c->save_steps == 0 && c->saves_per_epoch == 0)
        return hone_fail(e, HONE_EINVAL, "'load_best_model_at_end' needs checkpoints");
    return 0;
}

static int check(train_conf *c, hone_err *e)
{
    for (size_t i = 0; i < sizeof not_both / sizeof *not_both; i++)
        if (train_conf_given(c, not_both[i].a) && train_conf_given(c, not_both[i].b))
            return hone_fail(e, HONE_EINVAL, "'%s' and '%s' are both set: %s", not_both[i].a,
                             not_both[i].b, not_both[i].why);
    int rc = check_model(c, e);
    if (rc == 0)
        rc = read_shard_size(c, e);
    if (rc == 0)
        rc = check_data(c, e);
    if (rc == 0)
        rc = check_steps(c, e);
    return rc;
}

static void settle(train_conf *c)
{
    enum { RAISE = 4, FULL = 2 };
    if (c->excess == RAISE)
        c->excess = 0;
    if (c->adapter == FULL)
        c->adapter = TRAIN_ADAPTER_NONE;
    if (c->lora_alpha == 0)
        c->lora_alpha = 2.0 * (double)c->lora_r;
    if (c->save_steps > 0)
        c->saves_per_epoch = 0;
    if (c->eval_steps > 0)
        c->evals_per_epoch = 0;
    split_targets(c);
    if (c->lora_target_linear || c->lora_target_modules == NULL) {
        json_decref(c->lora_target_modules);
        c->lora_target_modules = json_pack("[s]", "all-linear");
    }
}

static void start(train_conf *c)
{
    *c = (train_conf){.given = json_object()};
    conf_defaults(train_conf_rows, c);
}

static int finish(train_conf *c, int rc, hone_err *e)
{
    if (rc == 0)
        settle(c);
    if (rc == 0)
        rc = check(c, e);
    if (rc != 0)
        train_conf_free(c);
    return rc;
}

int train_conf_load(train_conf *c, const char *path, char *const *assign, size_t n_assign,
                    hone_err *e)
{
    int rc = 0;
    start(c);
    if (path != NULL)
        rc = conf_load(train_conf_rows, c, c->given, path, e);
    for (size_t i = 0; rc == 0 && i < n_assign; i++)
        rc = conf_set(train_conf_rows, c, c->given, assign[i], e);
    return finish(c, rc, e);
}

int train_conf_from(train_conf *c, const json_t *tree, hone_err *e)
{
    start(c);
    return finish(c, conf_apply(train_conf_rows, c, c->given, tree, e), e);
}

void train_conf_free(train_conf *c)
{
    conf_free(train_conf_rows, c);
    json_decref(c->given);
    *c = (train_conf){0};
}

static json_t *value_of(const conf_row *row, const train_conf *c)
{
    const void *at = (const char *)c + row->offset;
    const char *s;
    json_t *v;
    switch (row->type) {
    case CONF_STR:
        s = *(char *const *)at;
        return s != NULL ? json_string(s) : json_null();
    case CONF_INT:
        return json_integer(*(const int64_t *)at);
    case CONF_FLOAT:
        return json_real(*(const double *)at);
    case CONF_BOOL:
        return json_boolean(*(const bool *)at);
    case CONF_ENUM: {
        char *name = conf_choice(row, *(const int *)at);
        v = json_string(name);
        free(name);
        return v;
    }
    case CONF_LIST:
    case CONF_JSON:
        v = *(json_t *const *)at;
        return v != NULL ? json_deep_copy(v) : json_null();
    }
    return json_null();
}

static bool listed(const char *const *list, const char *key)
{
    while (*list != NULL && strcmp(*list, key) != 0)
        list++;
    return *list != NULL;
}

json_t *train_conf_json(const train_conf *c)
{
    json_t *o = json_object();
    for (const conf_row *r = train_conf_rows; r->key != NULL; r++)
        json_object_set_new(o, r->key, value_of(r, c));
    return o;
}

json_t *train_conf_identity(const train_conf *c)
{
    json_t *o = json_object();
    for (const conf_row *r = train_conf_rows; r->key != NULL; r++)
        if (!listed(not_identity, r->key))
            json_object_set_new(o, r->key, value_of(r, c));
    return o;
}
