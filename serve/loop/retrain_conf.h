#pragma once
/* The `retrain:` part of hone.yaml: when there is enough feedback, what it is mixed with, how the
 * candidate is trained and judged, and who may promote it. The rows are appended to the server's
 * table. */
#include "core/base/conf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { RETRAIN_APPROVED, RETRAIN_ANY } retrain_accept;
typedef enum { RETRAIN_MANUAL, RETRAIN_AUTO } retrain_promote;

typedef struct retrain_conf {
    char *base;         /* checkpoint to train from; NULL: the configured model */
    char *holdout;      /* fixed examples that are never trained on */
    json_t *replay;     /* files whose examples are mixed in */
    int64_t replay_max; /* lines of them; 0: all */
    json_t *train;      /* settings of the trainer */
    char *metrics;
    int64_t min_new;         /* accepted feedback since the last run */
    double feedback_holdout; /* share that is held out for the gate */
    double max_user_share;   /* one user's share of the feedback examples */
    int accept;              /* retrain_accept */
    double margin, margin_nats;
    bool need_improvement, merge;
    int promote; /* retrain_promote */
    int64_t eval_max_tokens, repeat, min_pairs;
} retrain_conf;

extern const conf_row retrain_conf_rows[];

/* Defaults, then the mapping (NULL: only defaults). Relative files are taken from dir. Errors begin
 * with "retrain: ". */
int retrain_conf_read(retrain_conf *c, const json_t *mapping, const char *dir, hone_err *e);
void retrain_conf_free(retrain_conf *c); /* safe on a zeroed one */
