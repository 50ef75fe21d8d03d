#pragma once
/* Private to serve/engine. Everything here but the inbox belongs to the scheduler thread. */
#include "core/base/buf.h"
#include "serve/engine/engine.h"

#include <pthread.h>

/* The cache of one loaded model: which blocks are free, and how many sequences share each. */
typedef struct lane {
    struct lane *next;
    served *on;          /* a reference */
    int32_t *free_block; /* stack */
    int64_t n_free;
    uint16_t *n_users; /* [n_blocks] */
    int n_seqs;        /* admitted */
} lane;

typedef struct job job;

/* What a model has done; the lock is held by who looks at it. */
typedef struct figures {
    struct figures *next; /* used before this one */
    engine_figures f;
    int n_jobs; /* requests that will count here */
} figures;

/* One choice of a request. ids = prompt, then answer; the first `computed` of them are in the
 * cache. */
typedef struct seq {
    struct seq *next; /* of the scheduler's list, oldest first */
    job *owner;
    lane *lane;
    int choice;
    gen_state *state;
    int32_t *ids;
    size_t n_ids, cap_ids, computed;
    int32_t *blocks;
    size_t n_blocks; /* held; room for every block of a context */
    bool admitted, done;
    int64_t last_token_ns;
    /* of the step being run */
    int64_t chunk; /* tokens of this sequence in the step; 0: not in it */
    int out_index; /* its row among the logits; -1: none wanted */
} seq;

/* One request. */
struct job {
    struct job *next; /* of the inbox */
    uint64_t ticket;
    served *on; /* a reference */
    int32_t *prompt;
    size_t n_prompt;
    gen_params params; /* a deep copy */
    bool echo_logprobs;
    int n, n_done;
    seq *seqs; /* [n] */
    figures *figures;
    engine_fn *fn;
    void *user;
    int64_t submit_ns, deadline_ns, admit_ns, first_token_ns; /* 0: none or not yet */
    bool cancelled, failed;
};

struct engine {
    engine_options o;
    pthread_t thread;
    pthread_mutex_t lock; /* the inbox, the flags and the figures below */
    pthread_cond_t wake, idle;
    job *inbox, **inbox_tail;
    uint64_t *cancels;
    size_t n_cancels, cap_cancels;
    uint64_t next_ticket;
    served *current, *beside;
    const char *why_none;
    bool draining, stopping, cancel_all;
    engine_stats stats;
    figures *figures; /* the last one used first */
    int64_t heartbeat_ns;
    double prefill_rate; /* tokens a second, smoothed */

    /* the scheduler thread's own */
    seq *seqs, **seqs_tail; /* all sequences of taken jobs, oldest first */
    lane *lanes;
    int n_admitted;
    struct step_buffers *step;
};

/* figures.c */
figures *figures_of(engine *g, const served *on); /* with the lock held */
void figures_taken(engine *g, job *j);            /* with the lock held: a request was taken */
void figures_free(engine *g);
void engine_observe(engine *g, const job *j, engine_hist_kind kind, double seconds);
void engine_count_done(engine *g, job *j, bool failed); /* once a request, after all it observes */

/* engine.c */
void engine_send_done(engine *g, seq *s); /* the choice's last event */

/* job.c */
job *job_new(const engine_request *r, uint64_t ticket);
void job_free(job *j);

/* blocks.c: lanes and their blocks */
lane *lane_for(engine *g, served *on);
void lane_drop_idle(engine *g); /* frees lanes nobody uses, but the current model's */
size_t lane_blocks_for(const lane *l, size_t n_tokens);
bool seq_reserve(seq *s, size_t n_tokens); /* blocks for that many tokens; false: not enough free */
void seq_release(seq *s);                  /* gives its blocks back, computed = 0 */
void seq_share(seq *s, const seq *from, size_t n_tokens); /* whole blocks of a common beginning */

/* sched.c */
bool sched_turn(engine *g); /* one step of every lane that has work; false when there was none */
void sched_mark_cancelled(engine *g); /* with the lock held */
void sched_expire(engine *g);         /* ends cancelled and late requests */
void sched_fail(engine *g, job *j, int code, const char *why);
void sched_reap(engine *g); /* unlinks finished sequences, frees finished jobs */

/* engine_step.c: one forward pass over the sequences of a lane that have a chunk */
struct step_buffers *engine_step_new(const engine_options *o);
void engine_step_free(struct step_buffers *b);
int engine_step_run(engine *g, lane *l, hone_err *e);
int engine_step_score(job *j, hone_err *e); /* echo_logprobs: sends the PROMPT event */
