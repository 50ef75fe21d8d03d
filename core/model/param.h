#pragma once
/* The list of trainable parameters: what the trainer sees. Values and gradients lie in one flat F32
 * buffer each on the device, in list order, so that norm, clipping and update are one pass. Full
 * fine-tuning, pretraining and every adapter kind are different lists. */
#include "core/base/err.h"
#include "kernels/kern.h"

typedef struct param {
    char *name; /* as it is saved: "model.layers.0.self_attn.q_proj.lora_A.weight" */
    int64_t rows, cols;
    int64_t offset; /* elements from the start of the flat buffers */
    bool decay;     /* weight decay applies (matrices yes; norms and biases no) */
    float lr_scale; /* multiplies the learning rate (LoRA+, embeddings) */
} param;

typedef struct param_list {
    kern_dev *dev;
    param *items;
    size_t n, cap;
    int64_t total;       /* elements */
    float *value, *grad; /* device, [total] */
} param_list;

/* Declare, then allocate once. */
void param_list_init(param_list *l, kern_dev *dev);
size_t param_list_add(param_list *l, const char *name, int64_t rows, int64_t cols, bool decay,
                      float lr_scale); /* index; offsets are padded to 16 elements */
int param_list_alloc(param_list *l,
                     hone_err *e);   /* zeroed; after a failure free the list as usual */
void param_list_free(param_list *l); /* safe on a zeroed list */

kern_tensor param_value(const param_list *l, size_t i); /* F32 [rows, cols] on the device */
kern_tensor param_grad(const param_list *l, size_t i);
int param_zero_grad(param_list *l, hone_err *e);
int param_read(const param_list *l, size_t i, float *host, hone_err *e);
int param_write(param_list *l, size_t i, const float *host, hone_err *e);
/* Index by name, or -1. */
int64_t param_find(const param_list *l, const char *name);
