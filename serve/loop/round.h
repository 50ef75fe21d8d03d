#pragma once
/* Private to retrain: one round's state, passed from step to step. */
#include "serve/loop/examples.h"
#include "serve/loop/gate.h"
#include "serve/loop/retrain.h"
#include "serve/store/registry.h"

typedef struct round {
    const retrain_options *o;
    char id[REGISTRY_ID_LEN];
    char *dir;        /* <state>/runs/<id> */
    const char *base; /* checkpoint that the candidate is trained from */
    loop_examples ex;
    int64_t n_replay;
    registry_artefact live, candidate;
    json_t *settings;           /* of the training, as given to the trainer */
    json_t *training;           /* its result */
    json_t *holdout, *feedback; /* comparisons; feedback NULL when none was held out */
    json_t *gate, *drift;
    gate_verdict verdict;
} round;

/* candidate.c: data files, training, merge; the artefact's directory stands under its digest, not
 * yet registered */
int round_train(round *r, hone_err *e);
/* judge.c: both comparisons */
int round_judge(round *r, hone_err *e);
