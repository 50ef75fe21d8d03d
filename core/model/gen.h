#pragma once
/* Generation for one caller at a time (generate, chat, evaluation): the same forward, cache and sampler as the
 * server's scheduler. A batch of prompts is decoded together. */
#include "core/base/err.h"
#include "core/model/model.h"
#include "core/text/tok.h"

/* What users of OpenAI's, vLLM's and llama.cpp's interfaces expect. gen_defaults fills the neutral values; then
 * generation_config.json of the model may override them (gen_load_defaults). */
typedef struct gen_params {
    int64_t max_tokens;              /* -1: up to the context */
    float temperature, top_p, min_p; /* temperature 0: greedy */
    int32_t top_k;
    float repetition, presence, frequency;
    uint64_t seed;
    int32_t n_top;                   /* top log-probabilities to report per token */
    int n_stop; char **stop;         /* stop strings: the text ends before the first */
    int n_stop_ids; int32_t *stop_ids; /* in addition to the model's own */
    bool ignore_eos;
    int64_t n_bias; int32_t *bias_id; float *bias;
} gen_params;
void gen_defaults(gen_params *p);
int gen_load_defaults(gen_params *p, const char *dir, hone_err *e);

typedef enum { GEN_RUNNING, GEN_STOP, GEN_LENGTH, GEN_CANCELLED } gen_finish;
const char *gen_finish_name(gen_finish f); /* "stop", "length" */

/* The state of one answer: what has been sampled, what of its text may be shown (a stop string that might be
 * beginning is held back; a character is never split). The server's sequences use it too. */
typedef struct gen_state gen_state;
gen_state *gen_state_new(const tok *t, const gen_params *p, const int32_t *prompt, size_t n_prompt,
                         uint64_t stream);
void gen_state_free(gen_state *s);
/* Fills a sampling row for the next token. Valid until the next call on the state. */
void gen_state_row(gen_state *s, kern_sample_row *row);
/* Takes the sampled id; new text that may be shown is appended to out (which may be NULL). */
int gen_state_take(gen_state *s, const kern_sample_row *row, buf *out, hone_err *e);
gen_finish gen_state_finish(const gen_state *s);
/* Text held back is given out at the end (finish by length or cancel). */
int gen_state_flush(gen_state *s, buf *out, hone_err *e);
const int32_t *gen_state_ids(const gen_state *s, size_t *n); /* answer ids, without the stop id */

typedef struct gen_result {
    char *text;
    int32_t *ids;
    size_t n;
    gen_finish finish;
    double first_token_s, total_s;
} gen_result;
void gen_result_free(gen_result *r);

/* Called for text as it comes (NULL: not wanted); a non-zero return cancels. */
typedef int gen_text_fn(void *user, size_t prompt, const char *text, size_t len);

/* Decodes n prompts together (ids each); results [n]. ELIMIT when a prompt does not fit the context, with counts. */
typedef struct gen_prompt {
    const int32_t *ids;
    size_t n;
} gen_prompt;
int gen_run(model *m, const tok *t, const gen_params *p, const gen_prompt *prompts, size_t n,
            gen_result *results, gen_text_fn *fn, void *user, hone_err *e);
