#pragma once
/* One training run from settings to artefact: device, model, tokenizer, data, adapter or whole
 * model, training, and what it leaves in output_dir. `hone train` and retraining both come through
 * here. */
#include "core/base/err.h"
#include "core/base/hook.h"
#include "core/train/train_conf.h"
#include "core/train/trainer.h"

/* Plain data. */
typedef struct tune_result {
    trainer_result train;
    size_t n_rows, n_rejected; /* of the data, held-out data included */
    char base_digest[65];      /* "" when trained from nothing */
    char template_digest[65];  /* "" without a template */
} tune_result;

/* In output_dir when it returns 0: adapter_config.json and adapter_model.safetensors, or
 * config.json, model.safetensors and the tokenizer's files; the chat template; hone_manifest.json
 * (written last: what it was made of, and the hashes of the files); trainer_log.jsonl,
 * trainer_state.json, rejects.jsonl, checkpoints. The full model is stored as f32 or bf16 as its
 * base was (f32 when trained from nothing). h may be NULL.
 *
 * Errors: of every part, with its name; those of trainer_run. Rejected rows are no error while some
 * are usable. */
int tune_run(const train_conf *c, hooks *h, tune_result *out, hone_err *e);
