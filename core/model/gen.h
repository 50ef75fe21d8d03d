#pragma once
/* Generation for one caller at a time (generate, chat, evaluation): the same forward, cache and
 * sampler as the server's scheduler. A batch of prompts is decoded together. */
#include "core/base/err.h"
#include "core/model/model.h"
#include "core/text/tok.h"

enum { GEN_MAX_STOPS = 64, GEN_MAX_STOP_LEN = 1024 };

/* What users of OpenAI's, vLLM's and llama.cpp's interfaces expect. gen_defaults fills the neutral
 * values; then generation_config.json of the model may override them (gen_load_defaults). */
typedef struct gen_params {
    int64_t max_tokens;              /* from 1; -1: up to the context */
    float temperature, top_p, min_p; /* temperature 0: greedy */
    int32_t top_k;                   /* 0: off */
    float repetition, presence, frequency;
    uint64_t seed;
    int32_t n_top; /* top log-probabilities to report per token */
    int n_stop;
    char **stop; /* stop strings: the text ends before the first */
    int n_stop_ids;
    int32_t *stop_ids; /* in addition to the model's own */
    bool ignore_eos;   /* the model's own stop ids are tokens like others */
    int64_t n_bias;
    int32_t *bias_id;
    float *bias; /* added to the logits */
} gen_params;
void gen_defaults(gen_params *p);
/* Takes what dir/generation_config.json says of temperature, top_k, top_p, min_p,
 * repetition_penalty, max_new_tokens; do_sample false is temperature 0. No file is no error. */
int gen_load_defaults(gen_params *p, const char *dir, hone_err *e);
/* ELIMIT or EINVAL names what is out of range: a negative temperature, top_p outside (0, 1], a bias
 * or stop id outside the vocabulary of n_vocab, too many or too long stop strings. */
int gen_check(const gen_params *p, int64_t n_vocab, hone_err *e);

typedef enum { GEN_RUNNING, GEN_STOP, GEN_LENGTH, GEN_CANCELLED } gen_finish;
const char *gen_finish_name(gen_finish f); /* "stop", "length" */

/* The state of one answer: what has been sampled, what of its text may be shown (a stop string that
 * might be beginning is held back; a character is never split). The server's sequences use it too.
 */
typedef struct gen_state gen_state;
/* The prompt is copied; the arrays that p points to must outlive the state. Random numbers are a
 * function of (p->seed, stream, number of the token), whatever else is decoded beside it. */
gen_state *gen_state_new(const tok *t, const gen_params *p, const int32_t *prompt, size_t n_prompt,
                         uint64_t stream);
void gen_state_free(gen_state *s);
/* Fills a sampling row for the next token. Valid until the next call on the state. */
void gen_state_row(const gen_state *s, kern_sample_row *row);
/* Takes the sampled id; new text that may be shown is appended to out (which may be NULL). When
 * this ends the answer (a stop, or p->max_tokens tokens), all of its text has been given out. */
int gen_state_take(gen_state *s, const kern_sample_row *row, buf *out, hone_err *e);
gen_finish gen_state_finish(const gen_state *s);
/* Ends an answer that is still running (cancelled); text held back is given out. */
int gen_state_flush(gen_state *s, buf *out, hone_err *e);
const int32_t *gen_state_ids(const gen_state *s,
                             size_t *n); /* answer ids, without the stop id; borrowed */

typedef struct gen_result {
    char *text;
    int32_t *ids;
    float *logp; /* [n] of each id, from the model's own distribution */
    size_t n;
    gen_finish finish;
    double first_token_s, total_s; /* since its prompt began to be read */
} gen_result;
void gen_result_free(gen_result *r);

/* Called for text as it comes (NULL: not wanted); a non-zero return cancels that answer. */
typedef int gen_text_fn(void *user, size_t prompt, const char *text, size_t len);

/* What was computed for one conversation, kept from run to run: what a prompt has in common with
 * the prompt and answer before it is not computed again. It grows with the conversation. Free it
 * before its model is closed. */
typedef struct gen_cache gen_cache;
gen_cache *gen_cache_new(void);
void gen_cache_free(gen_cache *c); /* NULL is a no-op */
/* Tokens of the last prompt that were there already. */
size_t gen_cache_kept(const gen_cache *c);

typedef struct gen_prompt {
    const int32_t *ids;
    size_t n;
    uint64_t stream;  /* of its random numbers: give equal prompts different ones */
    gen_cache *cache; /* NULL: none. For a prompt that runs alone */
} gen_prompt;

/* Decodes n prompts together; results [n], to be released each with gen_result_free, also after an
 * error. The same seed and stream give the same text alone or in a batch. EINVAL for an empty
 * prompt; ELIMIT when one does not fit the context, with counts. */
int gen_run(model *m, const tok *t, const gen_params *p, const gen_prompt *prompts, size_t n,
            gen_result *results, gen_text_fn *fn, void *user, hone_err *e);
