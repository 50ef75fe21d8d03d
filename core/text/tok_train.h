#pragma once
/* Learns a byte-level BPE vocabulary from text and writes it as tokenizer.json, the same merges
 * that Hugging Face's BpeTrainer learns with the byte alphabet and the same settings. Ties go to
 * the pair of lower ids, so the result depends on the text and the settings alone. */
#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TOK_TRAIN_MAX_VOCAB = 1 << 20, TOK_TRAIN_MAX_SPECIAL = 1 << 12 };

typedef struct tok_train_opts {
    size_t vocab_size;      /* special tokens, 256 bytes and merges; at most TOK_TRAIN_MAX_VOCAB */
    uint64_t min_frequency; /* pairs seen less often are not merged */
    const char *pattern;    /* how text is cut into words: "gpt2", "llama3" or "qwen2" */
    const char *const *special; /* these get the ids from 0 on */
    size_t n_special;
    const char *bos, *eos, *pad; /* each NULL or one of special */
    bool add_bos;                /* texts get bos in front */
} tok_train_opts;

typedef struct tok_train tok_train;

/* Copies nothing: opts must outlive the trainer. EINVAL names the setting that is not possible. */
int tok_train_new(tok_train **out, const tok_train_opts *opts, hone_err *e);
void tok_train_free(tok_train *t); /* NULL is a no-op */

/* Counts the words of one text. EFORMAT with the byte offset where it is not UTF-8, ENOMEM. */
int tok_train_add(tok_train *t, const char *text, size_t len, hone_err *e);

/* Learns the merges of the words counted so far; once. */
int tok_train_run(tok_train *t, hone_err *e);

/* Ids there are after tok_train_run: less than asked for when no pair was left that is frequent
 * enough. */
size_t tok_train_n_vocab(const tok_train *t);
/* Different words counted. */
size_t tok_train_n_words(const tok_train *t);

/* Writes tokenizer.json and tokenizer_config.json into dir, which is made. */
int tok_train_save(const tok_train *t, const char *dir, hone_err *e);
