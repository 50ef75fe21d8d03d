#pragma once
/* Ratings by the model that was rated, since the start; for metrics. */
#include <stdint.h>

/* The strings are borrowed; NULL counts as "". */
typedef struct http_tally_model {
    const char *name, *digest, *adapter;
} http_tally_model;

enum { HTTP_TALLY_MAX = 64 };
typedef struct http_tally_row {
    char name[128], digest[65], adapter[65]; /* a longer name is cut */
    uint64_t rated[3];                       /* down, none, up */
} http_tally_row;

typedef struct http_tally http_tally;
http_tally *http_tally_new(void);
void http_tally_free(http_tally *t); /* NULL is a no-op */

/* rating: -1, 0, 1. More than HTTP_TALLY_MAX models are one called "other". Thread-safe. */
void http_tally_add(http_tally *t, const http_tally_model *m, int rating);
/* Makes a row without a rating, where there is none. */
void http_tally_know(http_tally *t, const http_tally_model *m);
/* Copies the rows; returns how many. */
int http_tally_rows(http_tally *t, http_tally_row out[HTTP_TALLY_MAX]);
