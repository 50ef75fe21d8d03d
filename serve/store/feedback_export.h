#pragma once
/* Feedback as rows for trainers, page by page: without what is there twice, without what users do
 * not agree on, and parted into training and holdout. */
#include "serve/store/feedback.h"

typedef enum { FEEDBACK_ALL, FEEDBACK_TRAIN, FEEDBACK_HOLDOUT } feedback_part;

typedef struct feedback_export_options {
    feedback_filter filter; /* its texts must outlive the export; limit counts feedback, 0: all */
    feedback_format format;
    bool dedupe; /* a row that says the same as one before is left out */
    /* Share of the opinions on the same thing (kto: an answer to a prompt, else: a prompt) that a
     * row must have on its side; 0: any. */
    double min_agreement;
    double split; /* share of the prompts that is for training; 0: not parted */
    /* ALL gives each row a field "split" that says "train" or "holdout". */
    feedback_part part;
} feedback_export_options;

/* Takes the texts of a command line or a query, each may be NULL: "hash:0.9", "train" or "holdout",
 * "0.6". EINVAL says what is expected. */
int feedback_export_take(feedback_export_options *o, const char *format, const char *split,
                         const char *part, const char *min_agreement, hone_err *e);

typedef struct feedback_export feedback_export;

/* With min_agreement everything is read once before. EINVAL for raw records with dedupe or
 * agreement, and for a part of what is not parted. */
int feedback_export_open(feedback_export **out, store *s, const feedback_export_options *o,
                         hone_err *e);
/* Appends the rows of the next page. 0: go on, 1: that was the last, negative: an error. */
int feedback_export_next(feedback_export *x, json_t *rows, hone_err *e);
void feedback_export_close(feedback_export *x); /* NULL is a no-op */
