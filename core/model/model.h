#pragma once
/* A decoder: weights bound from a checkpoint, the forward pass, the backward pass, and the same
 * forward over a paged KV cache. Training, scoring and serving all come through here, so that what
 * is trained is what is served.
 *
 * Ownership: the caller owns the device and closes it last. One thread at a time uses a model.
 * Nothing here knows LoRA's files or the trainer's settings: a low-rank term is attached to a site,
 * a trainable parameter is an entry of a list. */
#include "core/base/err.h"
#include "core/model/arch.h"
#include "core/model/param.h"
#include "kernels/kern.h"

typedef struct model model;

typedef enum { RECOMPUTE_NONE, RECOMPUTE_SELECTIVE, RECOMPUTE_FULL } model_recompute;

typedef struct model_options {
    kern_dev *dev;
    kern_dtype dtype; /* KERN_F32 or KERN_BF16: activations and packed weights */
    bool backward;    /* pack for gradients too */
    /* Every weight becomes a trainable parameter (full fine-tuning, pretraining); needs backward.
     */
    bool train_base;
    model_recompute recompute; /* SELECTIVE: norms and gated activation again; FULL: the layer again
                                  from its input */
} model_options;

/* dir is a Hugging Face checkpoint. Every tensor must bind: one missing, left over or of another
 * shape is an error that names it. Two kinds are let be: rotary inv_freq buffers of old files, and
 * a tied head that is stored beside the embedding with the same bytes. */
int model_open(model **out, const char *dir, const model_options *o, hone_err *e);

/* A new model from a config.json with random weights as transformers initialises them (normal,
 * initializer_range; norms 1; biases 0; the row of pad_token_id 0), a pure function of seed. */
int model_create(model **out, const json_t *config, uint64_t seed, const model_options *o,
                 hone_err *e);
void model_close(model *m); /* NULL is a no-op */

const arch_config *model_config(const model *m);
kern_dev *model_device(const model *m);
int64_t model_n_params(const model *m);

/* ---- where low-rank terms attach ---- */

typedef struct model_site {
    const char *name; /* "model.layers.0.self_attn.q_proj", as the checkpoint names it */
    int64_t in, out;
    kern_lora *lora; /* NULL: none; set by model_attach, kept alive by its caller */
} model_site;
size_t model_n_sites(const model *m);
const model_site *model_site_at(const model *m, size_t i);
int model_attach(model *m, size_t site, kern_lora *lora,
                 hone_err *e); /* NULL detaches; shapes are checked */

/* All base weights as parameters (train_base only; borrowed, owned by the model). After an
 * optimizer step model_refresh repacks what the products read. */
param_list *model_params(model *m);
int model_refresh(model *m, hone_err *e);

/* Writes weights under their checkpoint names (F32 masters cast once to `dtype`: KERN_F32,
 * KERN_BF16 or KERN_F16) and config.json. Up to max_shard bytes (0: any number) they are
 * dir/model.safetensors; more become model-00001-of-0000N.safetensors and so on, each at most so
 * large unless one tensor alone is larger, with model.safetensors.index.json. What an earlier save
 * of the other kind left is removed last. ENUMERIC names a tensor whose values KERN_F16 does not
 * hold. train_base only. */
int model_save(const model *m, const char *dir, kern_dtype dtype, int64_t max_shard, hone_err *e);

/* ---- training and scoring ---- */

/* A packed batch on the host. Segment s is tokens [cu[s], cu[s+1]); positions restart in each.
 * Refused with the row: ids and targets outside the vocabulary, positions that the model does not
 * have, segments that do not cover the rows. */
typedef struct model_batch {
    int64_t n;
    const int32_t *ids, *pos; /* [n] */
    const int32_t *target; /* [n] id to predict at this row (already shifted), -1: not supervised */
    /* [n] weight of -logp in the loss whose gradient is taken; NULL: 1 everywhere */
    const float *coef;
    const int32_t *cu; /* [n_seg + 1] */
    int n_seg;
    bool training;         /* dropout on */
    uint64_t seed, offset; /* dropout key and the index of the first row in the step's stream */
} model_batch;

/* logp [n] on the host, may be NULL: log-probability of target (0 where not supervised). A batch
 * without targets is for model_logprobs only. */
int model_score(model *m, const model_batch *b, float *logp, hone_err *e);

/* Forward and backward: gradients of sum coef * -logp are ADDED to every parameter that wants one
 * (base parameters and attached terms with dA/dB); EINVAL when none does. */
int model_backward(model *m, const model_batch *b, float *logp, hone_err *e);

/* Log-probabilities of the last batch, [rows of dst, 1] of F32 on the device; nothing waits. */
int model_logp(model *m, const kern_tensor *dst, hone_err *e);

/* Full log-softmax rows on the host, one call of fn a row in order (`hone score --top`,
 * evaluation). */
typedef int model_row_fn(void *user, int64_t row, const float *logprobs, int64_t vocab,
                         hone_err *e);
int model_logprobs(model *m, const model_batch *b, model_row_fn *fn, void *user, hone_err *e);

/* Bytes that a batch of n tokens would need, by kind; shown before step 1, and a batch over the
 * plan is refused. Buffers are made once for n_max tokens by model_reserve; without it they grow
 * with the largest batch. `logits` counts the whole rows that model_logprobs and model_forward have
 * made so far (the loss needs none), `kv` the caches that are open. */
typedef struct model_plan {
    size_t weights, parameters, activations, logits, kv;
} model_plan;
model_plan model_plan_for(const model *m, int64_t n_tokens);
int model_reserve(model *m, int64_t n_max, hone_err *e);

/* Changes what is computed again; buffers that are there are made anew at the next call that needs
 * them. */
void model_recompute_set(model *m, model_recompute r);

/* Runs a whole batch of n tokens without effect (its loss has weight 0; `training` as the real ones
 * will have it), so that every buffer has its size and every pass its record before the first step.
 * Does nothing on a device that records nothing. */
int model_warm(model *m, int64_t n, bool training, hone_err *e);

/* ---- serving ---- */

typedef struct model_kv model_kv;
/* n_blocks blocks of block_tokens tokens each, over all layers. */
int model_kv_open(model_kv **out, model *m, int64_t n_blocks, int block_tokens, hone_err *e);
void model_kv_close(model_kv *kv);
size_t model_kv_bytes(const model *m, int64_t n_blocks, int block_tokens);

/* One step over several sequences: for each some new tokens (a prefill chunk, or one token of
 * decode), which are the last of its kv_len; their positions say so too. */
typedef struct model_step {
    int64_t n;                /* new tokens in all */
    const int32_t *ids, *pos; /* [n] */
    int n_seq;
    const int32_t *q_start; /* [n_seq + 1] rows of each sequence */
    const int32_t *kv_len;  /* [n_seq] tokens in the cache counting the new ones */
    const int32_t *blocks;  /* [n_seq, max_blocks] */
    int64_t max_blocks;
    int n_out;              /* rows whose logits are wanted */
    const int32_t *out_row; /* [n_out] */
} model_step;

/* logits: a view on the device of F32 [n_out, vocab], valid until the next call on the model; hand
 * it to the sample op. */
int model_forward(model *m, model_kv *kv, const model_step *s, kern_tensor *logits, hone_err *e);
