#pragma once
/* Accepted feedback as training examples: a correction is what should have been said, an answer
 * that was rated up is right as it stands. Rated down without a correction teaches nothing here
 * (preference learning will use it). */
#include "core/base/err.h"
#include "core/base/hook.h"
#include "serve/loop/retrain_conf.h"
#include "serve/store/store.h"

#include <jansson.h>

typedef struct loop_examples {
    json_t *train;   /* array of {"messages": [...]} */
    json_t *holdout; /* the same, never trained on */
    json_t *ids;     /* ids of the feedback behind both */
    int64_t n_new;   /* not used by a registered run yet */
    int64_t
        n_unused; /* accepted rows that make no example, by want of a correction or a rating up */
    int64_t n_capped;     /* left out by max_user_share */
    int64_t n_superseded; /* older answers to a prompt that has a newer one */
} loop_examples;

/* In order of arrival; one example a prompt: the newest wins. The split goes by a hash of the
 * prompt, so that an example never changes sides. */
int loop_examples_make(loop_examples *out, store *st, const retrain_conf *c, hooks *h, hone_err *e);
void loop_examples_free(loop_examples *x); /* safe on a zeroed one */

/* Writes an array of records as JSON Lines. */
int loop_write_jsonl(const json_t *records, const char *path, int64_t repeat, hone_err *e);

/* Copies up to max lines (0: all) of the files, chosen by a stream that is a function of seed
 * alone, in the files' order. *n is how many. */
int loop_write_replay(const json_t *files, int64_t max, uint64_t seed, const char *path, int64_t *n,
                      hone_err *e);
