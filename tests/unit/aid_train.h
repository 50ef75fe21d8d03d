#pragma once
/* A training run on the golden checkpoint of tests/golden/train, driven from memory: data from ids
 * and masks, losses and gradient norms of every step collected through the train.step hook. */
#include "adapters/lora.h"
#include "core/data/dataset.h"
#include "core/train/trainer.h"

/* The rows of chat_rows.json as a data set (one source, line = row). */
dataset *aid_chat_rows(void);
void aid_rows_free(dataset *d);

/* State of a test: these rows, and an empty folder. */
typedef struct aid_rows {
    dataset *d;
    char *dir;
} aid_rows;
int aid_rows_open(void **state);
int aid_rows_close(void **state);

/* State of a test: what makes rows of texts, and an empty folder. */
typedef struct aid_texts {
    tok *tok;
    chat *chat;
    char *dir;
} aid_texts;
int aid_texts_open(void **state);
int aid_texts_close(void **state);

enum { AID_MAX_STEPS = 4096 };

typedef struct aid_run {
    trainer_result result;
    size_t n;
    double loss[AID_MAX_STEPS], norm[AID_MAX_STEPS];
    int64_t stop_at;             /* veto train.step there; 0: never */
    void (*subscribe)(hooks *h); /* more hooks; may be NULL */
    bool poison;                 /* the first trained value is not a number */
    bool records; /* the CPU is taken for a device that works while the host goes on */
    bool ahead;   /* nobody listens to train.step, so that such a device may be a step ahead: losses
                     and norms are not collected, stop_at has no effect */
    float *weights; /* all trained values at the end, in list order */
    size_t n_weights;
} aid_run;

/* settings: the run's settings as JSON text without base_model and datasets. start: "lora",
 * "rslora", or NULL for full training. val: rows held out (val_set_size). Returns trainer_run's
 * status. */
int aid_train(aid_run *out, const dataset *d, const char *settings, const char *start, double val,
              const char *out_dir, hone_err *e);
void aid_run_free(aid_run *r);
