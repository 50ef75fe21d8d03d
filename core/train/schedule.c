#include "core/train/schedule.h"

#include <math.h>
#include <stddef.h>

static double past(const schedule *s, int64_t step)
{
    int64_t span = s->total - s->warmup;
    return (double)(step - s->warmup) / (double)(span > 1 ? span : 1);
}

static double linear(const schedule *s, int64_t step)
{
    return fmax(0.0, 1.0 - past(s, step));
}

static double cosine(const schedule *s, int64_t step)
{
    double share = fmax(0.0, 0.5 * (1.0 + cos(M_PI * past(s, step))));
    return (1.0 - s->min_ratio) * share + s->min_ratio;
}

static double constant(const schedule *s, int64_t step)
{
    (void)s;
    (void)step;
    return 1.0;
}

const schedule_row schedules[] = {
    {"linear", linear, 1},     {"cosine", cosine, 1},
    {"constant", constant, 0}, {"constant_with_warmup", constant, 1},
    {NULL, NULL, 0},
};

double schedule_share(const schedule *s, int64_t step)
{
    if (step < s->warmup)
        return (double)step / (double)s->warmup;
    return schedules[s->kind].share(s, step);
}

int64_t schedule_warmup(int kind, int64_t steps, double ratio, int64_t total)
{
    if (!schedules[kind].warms_up)
        return 0;
    if (steps >= 0)
        return steps;
    if (ratio > 0)
        return (int64_t)ceil(ratio * (double)total);
    int64_t share = (int64_t)(0.03 * (double)total);
    return share < 100 ? share : 100;
}
