#pragma once
/* Training data in memory: records of all sources read, converted, rendered, tokenised and held to
 * the length policy. Every row is accounted for: it is used, or it is among the rejects with its
 * file, line and reason.
 *
 * Text documents get what the tokenizer adds around a text (its BOS policy) and end with eos when
 * the tokenizer has one; so does prompt + completion, tokenised as one text. Messages are rendered
 * by the chat template, which brings its own special tokens. */
#include "core/base/err.h"
#include "core/base/hook.h"
#include "core/text/chat.h"
#include "core/text/tok.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DATA_MAX_SOURCES = 4096 };
#define DATA_MAX_TOKENS ((size_t)1 << 31) /* 10 GiB with the mask */
#define DATA_MAX_ROWS ((size_t)1 << 30)

/* A row longer than sequence_len: ERROR fails the run with counts; DROP rejects it; TRUNCATE cuts a
 * text at its end, a prompt at its front, and a conversation after the last answer that fits whole
 * (a row of which no answer fits is rejected): a stop token is never cut off an answer; SPLIT makes
 * pieces that overlap by one token, so that every supervised token is learnt once. */
typedef enum { DATA_ERROR, DATA_DROP, DATA_TRUNCATE, DATA_SPLIT } data_excess;

typedef struct data_options {
    const tok *tok;
    const chat *chat;    /* NULL: records that need a template are an error, which says no_chat */
    const char *no_chat; /* why there is none */
    int64_t sequence_len;
    data_excess excess;
    bool train_on_inputs;
    chat_turns turns;
    bool list_too_long; /* preview: with ERROR, list rows that are too long among the rejects */
    hooks *hooks;       /* may be NULL */
} data_options;

typedef struct data_sample {
    size_t start;         /* first token in the store */
    int64_t n, n_targets; /* tokens; supervised tokens that have one before them */
    uint32_t row;
} data_sample;

/* Where a row goes: as val_set_size says, or as a subscriber of data.split did. */
typedef enum { DATA_PART_AUTO, DATA_PART_TRAIN, DATA_PART_VAL, DATA_PART_NONE } data_part;

typedef struct data_row {
    uint32_t source;
    int64_t line;
    uint64_t hash; /* of the canonical record, or of the key that data.split made */
    uint64_t id;   /* names the record as it stands in its file: the first 8 bytes of SHA-256 of its
                      "id" (a text, or a whole number in decimal), or else of the record as compact
                      JSON with sorted keys. 0 where no subscriber asks for it. */
    data_part part; /* never NONE: such a row is rejected */
} data_row;

typedef struct data_reject {
    uint32_t source;
    int64_t line;
    char *reason;
} data_reject;

typedef struct data_source {
    char *path;
    char sha256[65];
    const char *format; /* "alpaca"; of the first record when it was detected */
    size_t n_used, n_rejected;
    json_t *about; /* what data.open was given, as subscribers left it */
} data_source;

/* Read-only. */
typedef struct dataset {
    int32_t *ids;
    uint8_t *mask; /* 1: supervised */
    size_t n_tokens, cap_tokens;
    data_sample *samples;
    size_t n_samples, cap_samples;
    data_row *rows; /* used ones */
    size_t n_rows, cap_rows;
    data_reject *rejects;
    size_t n_rejects, cap_rejects;
    data_source *sources;
    size_t n_sources;
    size_t n_truncated, n_split; /* rows that the length policy touched */
    size_t n_tokens_cut;         /* tokens that truncation took away */
    int64_t longest;             /* tokens of the longest row before the policy */
} dataset;

/* entries: the value of `datasets`: a list (or one entry). Errors: what a file or an entry has
 * wrong; ELIMIT for rows that are too long (how many, the longest, the first) and over the limits
 * above; EFORMAT when no row is usable; EVETO when data.open is refused; a failure of a hook that
 * fails closed. */
int dataset_open(dataset **out, const json_t *entries, const data_options *o, hone_err *e);
void dataset_close(dataset *d); /* NULL is a no-op */

/* Writes the rejects of n sets, one JSON object a line: {"file", "line", "reason"}. The file is
 * there even when it is empty. */
int dataset_write_rejects(const dataset *const *sets, size_t n, const char *path, hone_err *e);

/* [{path, sha256, format, rows, rejected}, ...], new reference. */
json_t *dataset_sources(const dataset *d);

/* Some of the samples, in file order. */
typedef struct data_view {
    const dataset *d;
    uint32_t *sample; /* [n] */
    size_t n;
    int64_t n_tokens, n_targets, longest;
} data_view;

void data_view_all(data_view *v, const dataset *d);
/* Holds out rows for evaluation: a share of them (below 1, at least one row) or a count: those with
 * the smallest hash, so that the same rows are held out again when others are added, and equal rows
 * fall on one side. Rows whose part is said go there, and do not count for the size. EINVAL when
 * nothing would be left to train on. size 0: val has only rows that are said to be. */
int data_view_split(data_view *train, data_view *val, const dataset *d, double size, hone_err *e);
/* SHA-256 over the tokens, masks and borders of the samples, in order: what a resumed run must find
 * again. */
void data_view_digest(char out[65], const data_view *v);
void data_view_free(data_view *v); /* safe on a zeroed one */
