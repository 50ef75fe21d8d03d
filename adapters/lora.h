#pragma once
/* LoRA adapters: a low-rank term beside chosen linear sites of a model (arXiv:2106.09685; rsLoRA:
 * arXiv:2312.03732), made new for training, or read from and written to a PEFT directory
 * (adapter_config.json, adapter_model.safetensors). A tensor that binds to nothing, a missing half
 * of a pair, or another base's shapes are errors that name the tensor: an adapter that silently
 * does nothing does not exist here. */
#include "core/base/err.h"
#include "core/model/model.h"

#include <jansson.h>

typedef struct lora_spec {
    int64_t r;
    double alpha, dropout;
    bool rslora;           /* scale alpha/sqrt(r) instead of alpha/r */
    const json_t *targets; /* list of module names (suffix match), a one-element list "all-linear",
                              or a list of one string "regex:..." ; NULL: all-linear */
    double loraplus_ratio; /* learning rate of B over A's; 0 or 1: the same */
    uint64_t seed; /* A is kaiming-uniform(a = sqrt 5), i.e. U(-1/sqrt(in), 1/sqrt(in)), a pure
                      function of seed and the site's name; B is zero */
} lora_spec;

typedef struct adapter adapter;

/* Attaches new terms with gradients to m. EINVAL names a target that matches no site. The model
 * must outlive it. */
int adapter_new(adapter **out, model *m, const lora_spec *spec, hone_err *e);

/* Reads a PEFT directory and attaches it. With `train` its pairs become parameters (continue from
 * an adapter). Refused by name: DoRA, other tuners, modules_to_save, rank/alpha patterns of sites
 * that do not exist, bias other than none, fan_in_fan_out. When hone_manifest.json stands beside it
 * and names another base or chat template than `base_digest` / `template_digest` (either may be
 * NULL: not checked), EINVAL says both digests. */
int adapter_open(adapter **out, const char *dir, model *m, bool train, const char *base_digest,
                 const char *template_digest, hone_err *e);
void adapter_close(adapter *a); /* detaches; NULL is a no-op */

param_list *adapter_params(adapter *a); /* the pairs, PEFT names; borrowed */
double adapter_dropout(const adapter *a);

/* Writes adapter_config.json and adapter_model.safetensors (F32) into dir, which exists. base_name
 * goes to base_model_name_or_path. */
int adapter_save(const adapter *a, const char *dir, const char *base_name, hone_err *e);

/* Calls fn for every pair with values on the host: A [r, in], B [out, r], the effective scale. */
typedef int adapter_pair_fn(void *user, const char *site, int64_t r, int64_t in, int64_t out,
                            const float *A, const float *B, float scale, hone_err *e);
int adapter_pairs(const adapter *a, adapter_pair_fn *fn, void *user, hone_err *e);
