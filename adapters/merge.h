#pragma once
/* Merge: base weights plus scale * B A, read from the original shards, added in F32, rounded once
 * to the stored dtype, written as safetensors with the same names and shards; tokenizer, template
 * and generation settings are copied. Then the proof: logits of base+adapter and of the merged
 * model are compared on real prompts; beyond the tolerance there is no artefact. */
#include "core/base/err.h"
#include "core/base/hook.h"

#include <jansson.h>
#include <stdint.h>

typedef struct merge_options {
    const char *model_dir, *adapter_dir, *out_dir;
    const char *prompts_file; /* JSONL of texts or messages for the proof; NULL: a built-in set of
                                 plain texts */
    const char *device;       /* "cpu", "cuda", "auto" */
    int threads;
    double max_diff; /* largest |logit difference| allowed; 0: by stored dtype (f32 1e-3, bf16 0.5,
                        f16 0.1) */
    /* Share of positions whose most likely token is the same, or as likely within 0.1 nats (where
     * rounding decides); 0: 0.99. */
    double min_agreement;
    const char *key_dir; /* where the signing key lies (sign.h); NULL: not signed */
    hooks *hooks;        /* may be NULL */
} merge_options;

typedef struct merge_report {
    int64_t n_tensors, n_merged, n_positions;
    double max_abs_diff, mean_kl, agreement;
} merge_report;

/* out_dir must not exist; it appears complete or not at all. ENUMERIC: not finite after the
 * addition (the tensor is named), or the proof failed (the figures are named). */
int merge_run(const merge_options *o, merge_report *report, hone_err *e);
