#pragma once
/* Private to adapters/lora*.c and peft.c. */
#include "adapters/lora.h"

enum { LORA_MAX_RANK = 1024 };

typedef struct lora_pair {
    size_t site;    /* of the model */
    size_t a, b;    /* indices in params */
    double alpha;   /* after patterns */
    kern_lora term; /* what the model reads; address stable for the adapter's life */
} lora_pair;

struct adapter {
    model *m;
    lora_pair *pairs;
    size_t n_pairs;
    param_list params;
    int64_t r; /* of the configuration; a pattern may give a pair another */
    double alpha, dropout;
    bool rslora, train;
};

/* An adapter with room for n_pairs that attaches to nothing yet. */
adapter *lora_make(model *m, size_t n_pairs);
/* Declares pair i for a site with rank r; before lora_commit. */
void lora_declare(adapter *a, size_t i, size_t site, int64_t r, double alpha, float b_lr_scale);
/* Allocates the values, makes the terms and attaches them. */
int lora_commit(adapter *a, hone_err *e);
