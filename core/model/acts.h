#pragma once
/* Device buffers of a pass: the activations of each layer that the backward pass needs, one shared
 * set for what it does not, and the gradients that flow. All of it is one allocation, made for a
 * number of tokens. */
#include "core/base/err.h"
#include "kernels/kern.h"

struct model;

/* What one layer leaves behind. Rows are tokens. */
typedef struct layer_acts {
    kern_tensor res1;  /* [n, h] residual stream that enters the layer */
    kern_tensor n1;    /* [n, h] normed */
    kern_tensor rstd1; /* [n, 1] */
    kern_tensor qkv;   /* [n, (q + 2 kv) d] q and k after rope unless there is qk */
    kern_tensor
        qk; /* [n, (q + kv) d] q and k after norm and rope (architectures with q and k norms) */
    kern_tensor attn;  /* [n, q d] */
    kern_tensor lse;   /* [n, q] */
    kern_tensor res2;  /* [n, h] residual stream after attention */
    kern_tensor n2;    /* [n, h] normed */
    kern_tensor rstd2; /* [n, 1] */
    kern_tensor gu;    /* [n, 2 i] gate and up */
    kern_tensor h;     /* [n, i] gated */
    kern_tensor xa[4]; /* [n, sum of ranks] of each product's low-rank terms */
} layer_acts;

/* Zero-initialise. */
typedef struct acts {
    int64_t n_max;     /* tokens; 0: not made */
    bool fixed;        /* model_reserve was called: larger batches are refused */
    layer_acts *layer; /* for the backward pass, one a layer; NULL without */
    layer_acts shared;
    kern_tensor mix;          /* [n, h] output of a product, before it is added */
    kern_tensor res, y, rstd; /* final norm */
    kern_tensor d, dn, dqkv, dattn,
        dh;           /* gradients: stream, norm output, q|k|v, attention, gated */
    kern_tensor logp; /* F32 [n, 1] */
    void *block;
    int64_t rank[4]; /* widths of xa that the buffers have */
} acts;

/* Bytes for n tokens with the terms that are attached now. */
size_t acts_bytes(const struct model *m, int64_t n);

/* Makes the buffers for n tokens, in place of those that were there. */
int acts_make(struct model *m, int64_t n, hone_err *e);
void acts_free(struct model *m);

/* The buffers of a layer for a pass of n tokens; `keep`: its own ones, for a backward pass. */
layer_acts acts_layer(const struct model *m, int64_t l, int64_t n, bool keep);

/* The first n rows of a buffer. */
kern_tensor acts_rows(const kern_tensor *t, int64_t n);

/* Host arrays that go to the device in one write: add them, send, then ask where each stands.
 * Zero-initialise. Addresses are valid until the next send. */
typedef struct acts_upload {
    char *host, *device;
    size_t host_cap, device_cap, len;
} acts_upload;
size_t upload_add(acts_upload *u, const void *data, size_t bytes); /* a ticket; data may be NULL */
int upload_send(acts_upload *u, struct model *m, hone_err *e);
const void *upload_at(const acts_upload *u, size_t ticket); /* NULL for NULL data */
void upload_free(acts_upload *u, kern_dev *dev);
