#pragma once
/* The scheduler: one thread owns the device, the KV cache and every admitted sequence, and runs
 * continuous batching with chunked prefill. Connection threads submit and cancel; they never touch
 * a model. Queues are bounded: full is an answer (EAGAIN), not a wait. */
#include "core/base/err.h"
#include "core/base/hook.h"
#include "serve/engine/served.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct engine engine;

typedef struct engine_options {
    int max_seqs;         /* sequences decoded together; 0: 16 */
    int64_t step_tokens;  /* token budget of a step, prefill chunks included; 0: 512 */
    int queue_requests;   /* 0: 64 */
    int64_t queue_tokens; /* prompt tokens waiting; 0: 65536 */
    hooks *hooks;         /* serve.logits; may be NULL */
} engine_options;

typedef enum { ENGINE_PROMPT, ENGINE_TEXT, ENGINE_DONE, ENGINE_ERROR } engine_event_kind;

/* One token's log-probabilities; bytes point into the event. */
typedef struct engine_logprob {
    int32_t id;
    float logp;
    int n_top;
    int32_t top_id[KERN_MAX_TOP];
    float top_logp[KERN_MAX_TOP];
} engine_logprob;

typedef struct engine_event {
    engine_event_kind kind;
    int choice; /* 0 .. n-1 */
    const char *text;
    size_t len; /* TEXT: new text that may be shown (may be empty) */
    const engine_logprob *logprobs;
    /* TEXT: of the tokens sampled since the last event. PROMPT (with echo_logprobs, once, first):
     * of the prompt's tokens; the first has logp NAN. */
    int n_logprobs;
    gen_finish finish;                          /* DONE: per choice */
    int64_t n_prompt, n_answer;                 /* DONE: tokens of this choice */
    int64_t queue_us, first_token_us, total_us; /* DONE */
    const int32_t *ids;
    size_t n_ids; /* DONE: the answer's ids */
    const hone_err
        *err; /* ERROR: for the whole request; ETIMEOUT deadline, ECANCELLED, EDEVICE, ... */
} engine_event;

/* Runs on the scheduler thread and must not block; `last` is true with the request's final event:
 * the engine does not touch `user` afterwards. */
typedef void engine_fn(void *user, const engine_event *ev, bool last);

typedef struct engine_request {
    served *on; /* which model; the engine takes its own reference */
    const int32_t *prompt;
    size_t n_prompt;          /* copied */
    const gen_params *params; /* copied deeply */
    int n;                    /* choices, 1 to 8; the prompt is prefilled once */
    bool echo_logprobs;       /* log-probabilities of the prompt too (completions with echo) */
    int64_t deadline_ms;      /* from now; 0: none */
    engine_fn *fn;
    void *user;
} engine_request;

int engine_start(engine **out, const engine_options *o, hone_err *e);

/* 0 and a ticket: fn will be called until `last`. EAGAIN: queue full, *retry_after_s says when to
 * come back. ELIMIT: prompt plus answer do not fit the context (counts in the message). ECANCELLED:
 * draining. fn is not called on failure. */
int engine_submit(engine *g, const engine_request *r, uint64_t *ticket, int *retry_after_s,
                  hone_err *e);
void engine_cancel(engine *g,
                   uint64_t ticket); /* at the next step; unknown or finished tickets are ignored */

/* The model that new requests get, with a reference for the caller; NULL while none is set. */
served *engine_current(engine *g);
/* Why there is none, for whoever asks: a text that lives for ever. */
void engine_set_why_none(engine *g, const char *why);
const char *engine_why_none(engine *g);
/* Sets it (takes a reference); requests in flight finish on the one they began with. */
void engine_set_current(engine *g, served *s);

/* A second model, which requests get that ask for it by its name or are sent there (serve.route);
 * with a reference, NULL while none is set. Setting it takes a reference. */
served *engine_beside(engine *g);
void engine_set_beside(engine *g, served *s);

/* Stops admitting; waits until all is finished or timeout_ms have passed, then cancels what is
 * left. */
void engine_drain(engine *g, int timeout_ms);
void engine_stop(engine *g); /* after drain; joins the thread; NULL is a no-op */

typedef struct engine_counts {
    uint64_t requests, finished, cancelled, failed, rejected, prompt_tokens, answer_tokens;
} engine_counts;

typedef struct engine_stats {
    engine_counts count; /* of all models together */
    uint64_t steps;
    int running, waiting;
    int64_t waiting_tokens, kv_blocks_used, kv_blocks;
    int64_t last_step_age_ms; /* heartbeat: since the scheduler last finished a turn */
} engine_stats;
engine_stats engine_counters(engine *g);

/* Latency histograms, in seconds: bounds shared by all. */
enum { ENGINE_HIST_BUCKETS = 14 };
typedef enum {
    ENGINE_TTFT,
    ENGINE_ITL,
    ENGINE_E2E,
    ENGINE_QUEUE,
    ENGINE_PREFILL,
    ENGINE_DECODE, /* from the first token to the end */
    ENGINE_N_HIST
} engine_hist_kind;
typedef struct engine_hist {
    uint64_t bucket[ENGINE_HIST_BUCKETS + 1]; /* not cumulative; the last is +Inf */
    double sum;
    uint64_t count;
} engine_hist;
extern const double engine_hist_bounds[ENGINE_HIST_BUCKETS];

/* What one model has done. A model is its name and its digests: one that is loaded again goes on
 * counting, and what is promoted under another name is another one. */
enum { ENGINE_MAX_FIGURES = 16 };
typedef struct engine_figures {
    char name[128], model_digest[65], adapter_digest[65]; /* a longer name is cut */
    engine_counts count;
    engine_hist hist[ENGINE_N_HIST];
} engine_figures;

/* Of those that were set or had a request, the last one used first; returns how many (at most max).
 * Over ENGINE_MAX_FIGURES the one is forgotten that has been idle longest. */
int engine_models(engine *g, engine_figures *out, int max);
