#pragma once
/* The weights of a model by name: one table for all architectures, bound against a checkpoint or
 * made at random. */
#include "core/base/err.h"
#include "core/model/safetensors.h"
#include "kernels/kern.h"

#include <stdint.h>

struct model;
typedef struct weight_row weight_row;

/* One tensor of the checkpoint. Vectors are [1, n]. */
typedef struct weight {
    const weight_row *row;
    int64_t layer; /* -1: of no layer */
    char *name;
    int64_t rows, cols;
    const st_tensor *stored; /* while a checkpoint is being read */
    int64_t param;           /* in model_params; -1: frozen */
    kern_tensor value;       /* on the device: norms and the embedding table */
} weight;

/* Where values come from: a checkpoint, or a seed. */
typedef struct weight_source {
    const safetensors *st; /* NULL: random */
    uint64_t seed;
    double std;
    int64_t pad_row; /* of the embedding, zero as transformers makes it; -1: none */
} weight_source;

/* Lists what the configuration calls for, in checkpoint order, and hangs it into layers, products
 * and sites. */
void weights_list(struct model *m);
void weights_free(struct model *m);

/* Its dimensions as a checkpoint has them; how many (1 or 2). */
int weight_dims(const weight *w, int64_t dim[2]);

/* Finds every weight in the checkpoint. EFORMAT names a tensor that is missing, has another shape
 * or dtype, or belongs to nothing. */
int weights_bind(struct model *m, const safetensors *st, hone_err *e);

/* Sends everything to the device: parameters, norms, embedding, products. */
int weights_load(struct model *m, const weight_source *src, hone_err *e);

/* Repacks what the products read from the parameters. */
int weights_refresh(struct model *m, hone_err *e);
