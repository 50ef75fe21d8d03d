#pragma once
/* What a run reads before there is a model: tokenizer, chat template, training and held-out data.
 * `hone preview` shows exactly this. */
#include "core/base/err.h"
#include "core/base/hook.h"
#include "core/data/dataset.h"
#include "core/text/chat.h"
#include "core/text/tok.h"
#include "core/train/train_conf.h"

typedef struct train_inputs {
    tok *tok;
    chat *chat;            /* NULL: the tokenizer has no template, and no record needed one */
    dataset *set, *test;   /* test: of test_datasets, else NULL */
    data_view train, eval; /* eval is empty without held-out data */
} train_inputs;

/* With `preview`, rows that are too long are listed among the rejects instead of being an error. */
int train_inputs_open(train_inputs *in, const train_conf *c, hooks *h, bool preview, hone_err *e);
void train_inputs_close(train_inputs *in); /* safe on a zeroed one */

/* Directory of the tokenizer and of the chat template. Borrowed from c. */
const char *train_inputs_dir(const train_conf *c);
