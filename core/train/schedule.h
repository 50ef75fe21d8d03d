#pragma once
/* Learning-rate schedules: a pure function of the step, so that a resumed run needs no state. */
#include <stdint.h>

typedef struct schedule {
    int kind; /* index into schedules[]: the order of the setting's choices */
    int64_t warmup, total;
    double min_ratio; /* cosine ends at this share */
} schedule;

typedef struct schedule_row {
    const char *name;
    /* Share of the highest learning rate for update `step` (0 is the first), after warmup. */
    double (*share)(const schedule *s, int64_t step);
    int warms_up;
} schedule_row;
extern const schedule_row schedules[]; /* ends with a row whose name is NULL */

/* Share of the highest learning rate for update `step` (0 is the first). As transformers counts:
 * during a warmup of w updates it is step / w, so the first update of a run with warmup has rate 0.
 */
double schedule_share(const schedule *s, int64_t step);

/* Updates of warmup: `steps` when >= 0; else `ratio` of the total, rounded up, when > 0; else 3 %
 * of the total, at most 100 (axolotl's rule). None for a schedule that does not warm up. */
int64_t schedule_warmup(int kind, int64_t steps, double ratio, int64_t total);
