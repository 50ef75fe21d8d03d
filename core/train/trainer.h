#pragma once
/* The training loop: epochs of packed micro-batches, forward and backward, clipping, update,
 * evaluation, checkpoints. It sees a list of trainable parameters and never asks what they are
 * parts of.
 *
 * A step is gradient_accumulation_steps micro-batches of one epoch; the last step of an epoch takes
 * what is left (so that no sample is carried over or lost). Its gradient is that of the mean loss
 * over all supervised tokens of the step, whatever micro-batches they lie in. Loss and gradient
 * norm that are logged are of that mean, before clipping.
 *
 * Same settings, data, weights, device and threads: same bits, also when the run was killed in
 * between. */
#include "core/base/err.h"
#include "core/base/hook.h"
#include "core/data/dataset.h"
#include "core/model/model.h"
#include "core/train/train_conf.h"

#include <jansson.h>
#include <stdint.h>

typedef struct trainer {
    const train_conf *conf;
    model *model;
    param_list *params;
    const data_view *train;
    const data_view *eval; /* NULL or empty: no evaluation */
    hooks *hooks;          /* may be NULL */
    /* What a resumed run must share, as an object of texts and objects: settings, digests of base,
     * tokenizer, template, data. */
    const json_t *identity;
    /* Writes the trained weights into a directory, as .safetensors files whose tensor names are the
     * parameters'. */
    int (*save)(void *user, const char *dir, hone_err *e);
    /* Called after every change of the parameters (full training repacks); may be NULL. */
    int (*after_step)(void *user, hone_err *e);
    void *user;
} trainer;

typedef enum { TRAIN_FINISHED, TRAIN_EARLY_STOP, TRAIN_HOOK_STOP } train_status;
const char *train_status_name(train_status s); /* "finished" */

/* Losses that were never taken are NaN. */
typedef struct trainer_result {
    train_status status;
    int64_t steps, first_step; /* first_step: where this process began, 0 unless resumed */
    int64_t tokens, targets;
    double epochs, seconds; /* seconds of this process */
    double train_loss;      /* mean over all steps */
    double last_loss;
    double first_eval_loss, eval_loss, best_eval_loss;
    int64_t best_step; /* 0: none */
} trainer_result;

/* Runs to the end, or from the checkpoint that the settings name. On success the parameters are the
 * trained ones and output_dir holds trainer_log.jsonl and trainer_state.json. Errors: ELIMIT when
 * memory does not suffice (with the plan); EINVAL when a checkpoint was made with other settings,
 * data or base (names what differs); ENUMERIC for a loss or gradient that is not finite (names
 * step, rows and parameter; the rows are in nan_batch.jsonl) and for the loss watchdog; ECANCELLED
 * when conf->stop was set (a checkpoint stands); EVETO when train.start was refused. */
int trainer_run(const trainer *t, trainer_result *r, hone_err *e);
