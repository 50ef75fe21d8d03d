#pragma once
/* Private to core/model: what a model is made of. */
#include "core/model/acts.h"
#include "core/model/model.h"
#include "core/model/record.h"
#include "core/model/rope.h"
#include "core/model/weights.h"

/* Matrices of a layer that share an input are one product. */
enum { GROUP_QKV, GROUP_O, GROUP_GU, GROUP_DOWN, N_GROUPS };
enum { VEC_ATTN_NORM, VEC_MLP_NORM, VEC_Q_NORM, VEC_K_NORM, N_VECS };

typedef struct product {
    kern_weight *w;
    int n_parts;
    int64_t in, out; /* columns of its input, of all parts together */
    const weight *matrix[KERN_MAX_PARTS], *bias[KERN_MAX_PARTS]; /* bias NULL: none */
    model_site *site[KERN_MAX_PARTS];                            /* NULL: no term may attach */
} product;

typedef struct layer {
    product group[N_GROUPS];
    const weight *vec[N_VECS]; /* NULL: the architecture has none */
} layer;

struct model {
    arch_config cfg;
    model_options opt;
    kern_dev *dev;
    json_t *config; /* as it was read, for model_save */
    weight *weights;
    size_t n_weights;
    layer *layers;
    const weight *embed, *final_norm;
    product head; /* tied: its matrix is the embedding */
    model_site *sites;
    size_t n_sites;
    param_list params; /* train_base only */
    size_t weight_bytes, kv_bytes;
    rope rope;
    acts acts;
    acts_upload upload;
    record_set records;
    kern_tensor logits; /* F32 [rows, vocab], grown when more rows are asked for */
};

/* 0, or the device's error with what was being done. */
int model_failed(const model *m, int rc, const char *what, hone_err *e);

/* Sum of the ranks of the terms attached to a product. */
int64_t product_rank(const product *p);

/* Rotary tables for positions below n. */
int model_positions(model *m, int64_t n, hone_err *e);

/* Buffers for n tokens, made now if there are none for so many and no plan was fixed. */
int model_ensure(model *m, int64_t n, hone_err *e);
