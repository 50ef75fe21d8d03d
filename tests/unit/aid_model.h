#pragma once
/* A device and models for unit tests, and the golden files of tests/golden/model. */
#include "core/model/model.h"
#include "core/model/safetensors.h"

#include <stdbool.h>

/* The CPU backend with two threads; fails the test when it does not open. Close with kern_close. */
/* HONE_TEST_DEVICE, or "cpu": the same tests hold every backend. */
const char *aid_device_name(void);
kern_dev *aid_device(void);

/* For groups of tests: aid_dev is such a device in between. */
extern kern_dev *aid_dev;
int aid_dev_open(void **state);
int aid_dev_close(void **state);

/* Opens dir, or fails the test with the message. */
model *aid_open(kern_dev *dev, const char *dir, kern_dtype dtype, bool train_base,
                model_recompute recompute);

/* The golden file of a case, and what stands in it. Arrays are borrowed from the map. */
typedef struct aid_golden {
    safetensors *st;
    int64_t n, vocab;
    int n_seg;
    const int32_t *ids, *cu;
    const float *coef, *logits, *logp;
    int32_t *pos, *target; /* owned */
} aid_golden;
void aid_golden_open(aid_golden *g, const char *name);
void aid_golden_close(aid_golden *g);
/* "<prefix><name>" as F32; *n elements. NULL when absent. */
const float *aid_golden_array(const aid_golden *g, const char *prefix, const char *name, size_t *n);

/* All segments of the case in one packed batch. */
model_batch aid_batch(const aid_golden *g);

/* LoRA pairs of the case beside every site, with gradients. */
typedef struct aid_lora {
    model *m;
    kern_lora *terms;
    param_list params; /* A of site i is 2 i, B 2 i + 1 */
} aid_lora;
void aid_lora_attach(aid_lora *l, model *m, const aid_golden *g);
void aid_lora_detach(aid_lora *l);

/* Full rows [n, vocab] of log-probabilities; caller frees. */
float *aid_logprobs(model *m, const model_batch *b);

/* Largest |a - b|, and the norm of a - b over that of b. */
double aid_max_diff(const float *a, const float *b, size_t n);
double aid_rel_diff(const float *a, const float *b, size_t n);
