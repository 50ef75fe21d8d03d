#pragma once
/* A model as the server holds it: device, weights, adapter, tokenizer, chat template and KV cache,
 * loaded and checked once, immutable after, counted by reference. Swapping models is making a new
 * one and letting the old one run dry. */
#include "core/base/err.h"
#include "core/model/gen.h"
#include "core/model/model.h"
#include "core/text/chat.h"
#include "core/text/tok.h"

typedef struct served_options {
    const char *model_dir;   /* checkpoint */
    const char *adapter_dir; /* PEFT directory beside it; NULL: none */
    const char *name;        /* the name clients use */
    const char *device;      /* "cpu", "cuda", "auto" */
    int threads;             /* 0: all */
    kern_dtype dtype;
    int64_t kv_tokens; /* size of the paged cache; 0: room for max_seqs contexts, at most 1 GiB */
    int max_seqs;
    int block_tokens; /* 0: 16 */
    int64_t context;  /* 0: the model's own max_position_embeddings */
    /* Digests that somebody has just proved, so that the files need not be read for them again;
     * NULL: they are computed. */
    const char *model_digest, *adapter_digest;
} served_options;

typedef struct served {
    /* read-only for everybody */
    char *name, *model_dir, *adapter_dir;
    char model_digest[65], adapter_digest[65]; /* adapter_digest "" without one */
    char signed_by[65]; /* id of the key that signed what is served; "" when it is not signed */
    const tok *tok;
    const chat *chat;    /* NULL: the model has no chat template (chat requests are refused) */
    gen_params defaults; /* from generation_config.json */
    int64_t context, n_blocks;
    int block_tokens;
    int64_t created_unix;
    /* for the engine only */
    model *model;
    model_kv *kv;
    struct served_private *own;
} served;

int served_open(served **out, const served_options *o, hone_err *e);
void served_retain(served *s);
void served_release(served *s); /* frees with the last reference */
