#pragma once
/* The settings of a training run, with axolotl's names (LLaMA-Factory's as aliases): one row of
 * train_conf_rows is one setting, and gives the YAML key, key=value on the command line, help and
 * the reference page. */
#include "core/base/conf.h"
#include "core/base/err.h"

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { TRAIN_BF16_AUTO, TRAIN_BF16_TRUE, TRAIN_BF16_FALSE } train_bf16;
enum { TRAIN_RECOMPUTE_AUTO, TRAIN_RECOMPUTE_NONE }; /* then selective, full, as model_recompute */
typedef enum { TRAIN_ADAPTER_NONE, TRAIN_ADAPTER_LORA } train_adapter;
typedef enum {
    TRAIN_PROGRESS_AUTO,
    TRAIN_PROGRESS_BAR,
    TRAIN_PROGRESS_LINES,
    TRAIN_PROGRESS_NONE
} train_progress;

typedef enum { TRAIN_SAVE_AUTO, TRAIN_SAVE_F32, TRAIN_SAVE_BF16, TRAIN_SAVE_F16 } train_save;

typedef struct train_conf {
    /* model */
    char *base_model, *pretrain_config, *tokenizer_config, *chat_template_jinja, *output_dir;
    /* data */
    json_t *datasets, *test_datasets;
    double val_set_size;
    int64_t sequence_len;
    int excess;      /* data_excess */
    int train_turns; /* chat_turns */
    bool sample_packing, train_on_inputs, shuffle;
    /* adapter */
    int adapter; /* train_adapter */
    char *lora_model_dir;
    int64_t lora_r;
    double lora_alpha, lora_dropout, loraplus_lr_ratio;
    json_t *lora_target_modules;
    bool lora_target_linear, use_rslora;
    /* steps */
    int64_t micro_batch_size, accumulation, max_steps;
    double num_epochs;
    int optimizer, lr_scheduler;
    double learning_rate, cosine_min_lr_ratio, warmup_ratio;
    int64_t warmup_steps; /* -1: not given */
    double weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm;
    /* numbers and memory */
    int bf16;          /* train_bf16 */
    int checkpointing; /* TRAIN_RECOMPUTE_AUTO, or TRAIN_RECOMPUTE_NONE + a model_recompute */
    char *device;
    int64_t threads, seed;
    /* when to report, evaluate, save, stop */
    int64_t logging_steps, eval_steps, evals_per_epoch, save_steps, saves_per_epoch,
        save_total_limit;
    int64_t early_stopping_patience, loss_watchdog_patience;
    double loss_watchdog_threshold;
    bool eval_on_start, load_best, auto_resume, overwrite;
    char *resume_from_checkpoint, *max_shard_size;
    int save_dtype;  /* train_save */
    int progress;    /* train_progress */
    json_t *plugins; /* read by whoever loads them */

    /* not settings */
    int64_t max_shard_bytes; /* max_shard_size as a number */
    json_t *given;           /* canonical keys that the user set, with their values */
    const volatile sig_atomic_t
        *stop; /* borrowed; non-zero asks for a checkpoint and an early end; may be NULL */
} train_conf;

extern const conf_row train_conf_rows[];

/* Defaults, then the file (NULL: none), then the assignments ("key=value"), then the checks that no
 * single row can make. Errors name file, line and key. On failure conf is released. */
int train_conf_load(train_conf *c, const char *path, char *const *assign, size_t n_assign,
                    hone_err *e);

/* The same from a tree of settings (retraining builds one). */
int train_conf_from(train_conf *c, const json_t *tree, hone_err *e);
void train_conf_free(train_conf *c); /* safe on a zeroed one */

/* Was this key (canonical name) set by the user? */
bool train_conf_given(const train_conf *c, const char *key);

/* Every setting that decides the weights, as canonical JSON (new reference): what a resumed run
 * must share. Settings of output, logging, evaluation, saving, device and threads are left out. */
json_t *train_conf_identity(const train_conf *c);
/* All settings with their effective values, for the manifest (new reference). */
json_t *train_conf_json(const train_conf *c);
