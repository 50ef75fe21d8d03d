#pragma once
/* What a person watching sees, on standard error: a bar on a terminal, plain lines elsewhere. */
#include <stdbool.h>
#include <stdint.h>

typedef enum { PROGRESS_AUTO, PROGRESS_BAR, PROGRESS_LINES, PROGRESS_NONE } progress_mode;

typedef struct progress_now {
    int64_t step, total;
    double epoch, loss, lr;
    double tokens_per_s, eta_s; /* 0: not known yet */
} progress_now;

typedef struct progress progress;

progress *progress_new(progress_mode mode);
void progress_free(progress *p); /* ends the bar; NULL is a no-op */

/* After each step. The bar is redrawn at most ten times a second; lines are printed for steps that
 * are logged. */
void progress_step(progress *p, const progress_now *now, bool logged);
/* A line of its own, in every mode but NONE. */
void progress_line(progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "1:02:03" or "2:03"; cap at least 24. */
void progress_time(char *dst, int cap, double seconds);
/* "1.2 GiB"; cap at least 16. */
void progress_bytes(char *dst, int cap, double bytes);
