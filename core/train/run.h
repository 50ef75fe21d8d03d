#pragma once
/* The state of one run, shared by the files of the trainer; nobody else includes it. */
#include "core/data/pack.h"
#include "core/train/optim.h"
#include "core/train/progress.h"
#include "core/train/schedule.h"
#include "core/train/trainer.h"

/* What a checkpoint must hold beside weights and moments, so that the next step is the same step.
 * Of steps whose results are known; a card may be one step ahead (train_run.at). */
typedef struct train_state {
    int64_t step;            /* updates done */
    int64_t epoch;           /* the one being run */
    int64_t batch;           /* next micro-batch in it */
    int64_t tokens, targets; /* so far; tokens is also the row number of the dropout streams */
    double loss_sum;         /* of the steps since the last log line */
    int64_t loss_steps;
    double loss_total;                                  /* of all steps */
    double last_loss, first_eval, last_eval, best_eval; /* NaN: none yet */
    int64_t best_step, evals_without_better, above_threshold;
    double seconds;  /* of earlier processes */
    double lr_scale; /* of the schedule's rate: 1 but for a subscriber of train.step */
    json_t *history; /* log_history */
} train_state;

/* How long the run is; known before step 1. */
typedef struct train_length {
    int64_t steps, epoch_steps;     /* in all, in the first epoch */
    int64_t max_tokens;             /* of any micro-batch, evaluation included */
    int64_t tokens;                 /* of all steps together */
    int64_t eval_every, save_every; /* steps; 0: only at the end / never */
    double epochs;
} train_length;

/* One segment of a step: where its log-probabilities stand in `logp`, and its loss (a sum). */
typedef struct train_seg {
    int64_t at;
    int32_t n;
    float weight;
    double loss;
} train_seg;

/* A step that the device has been given and whose results have not been read. */
typedef struct train_queued {
    size_t first, n; /* micro-batches of the epoch's plan */
    int64_t tokens, targets;
    double lr;
    train_seg *seg; /* in order */
    size_t n_seg, cap_seg;
    kern_read *read; /* of the run's `results`; NULL: nothing is queued here */
} train_queued;

/* On the device, and what is read back of it: sums of squares of the gradients and of the losses,
 * then, from byte RESULTS_LOGP on, the losses. */
enum { RESULTS_GRAD, RESULTS_LOSS, N_SUMS, RESULTS_LOGP = 256 };

typedef struct train_run {
    const trainer *t;
    const train_conf *c;
    pack_options pack;
    train_length len;
    int64_t n_params; /* of the model */
    schedule sched;
    train_state s;
    optim *opt;
    pack_plan plan, eval_plan;
    micro_batch batch;
    float *coef;        /* [max_tokens] */
    void *results;      /* on the device */
    kern_tensor losses; /* F32 [accumulation, max_tokens] in it: logp of the step */
    double *sums;       /* [N_SUMS] results on the host, and */
    float *logp;        /* [accumulation, max_tokens], in the same block */
    struct {
        int64_t step, batch, tokens;
    } at;                   /* where queueing stands; s follows, by one step at most */
    train_queued queued[2]; /* step k stands at k % 2 */
    float *weight;          /* of the micro-batch's examples */
    size_t cap_weight;
    progress *show;
    double start, window_start; /* clock */
    int64_t window_tokens;
    int64_t first_step;
    double grad_norm, lr, rate; /* of the last step; rate: tokens/s */
    int recompute;              /* model_recompute */
    train_status status;
    bool told_time;
    bool save_now;    /* a subscriber of train.step asks for a checkpoint */
    bool stop, saved; /* saved: the state stands in a checkpoint */
} train_run;

/* trainer.c: has early stopping come to its end? */
bool trainer_impatient(train_run *r);

/* train_length.c */
int train_length_count(train_length *out, const train_run *r, hone_err *e);
/* Prints what will be run on what. */
void train_length_show(const train_run *r);
/* Chooses what is computed again, makes the buffers, and prints the plan of the memory; ELIMIT when
 * it does not fit the device. */
int train_memory_plan(train_run *r, hone_err *e);
/* After the optimizer stands: runs a batch without effect, so that memory can end now only; prints
 * what the device has in use where that is known. */
int train_memory_prove(train_run *r, hone_err *e);

/* train_step.c: gives the device one more step; nothing waits. */
int train_step_queue(train_run *r, hone_err *e);
/* Waits for the oldest step that is queued and makes its results the state. ENUMERIC: they are not
 * finite, and the weights are still those before it. */
int train_step_take(train_run *r, hone_err *e);

/* train_hooks.c: fills r->weight for r->batch (1 each, or what subscribers make of it); EINVAL for
 * a weight that is not finite or below 0. After a step: r->s.lr_scale, r->save_now, r->stop. */
int train_hook_batch(train_run *r, hone_err *e);
int train_hook_step(train_run *r, hone_err *e);

/* train_eval.c: token-weighted mean loss of the held-out data. */
int train_eval_loss(train_run *r, double *loss, hone_err *e);

/* train_report.c */
int train_report_step(train_run *r, hone_err *e);
int train_report_eval(train_run *r, double seconds, hone_err *e);
int train_report_end(train_run *r, hone_err *e);
/* Drops the log lines of steps that will be run again. */
int train_report_resume(train_run *r, hone_err *e);
double train_report_elapsed(const train_run *r); /* seconds, earlier processes included */
double train_report_epoch(const train_run *r);   /* fractional */
/* trainer_state.json as transformers has it; new reference. */
json_t *train_report_state(const train_run *r);

/* checkpoint.c */
int checkpoint_save(train_run *r, hone_err *e);
/* Finds what the settings ask for and restores it; nothing to do is no error. */
int checkpoint_resume(train_run *r, hone_err *e);
/* Weights of the checkpoint of `step`. */
int checkpoint_weights(train_run *r, int64_t step, hone_err *e);
