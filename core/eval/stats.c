#include "core/eval/stats.h"

#include "core/base/mem.h"
#include "core/base/rng.h"

#include <math.h>
#include <stdlib.h>

static const double z = 1.959963984540054; /* 95 % of a normal distribution lie within */

stats_interval stats_wilson(double successes, double n)
{
    if (n <= 0)
        return (stats_interval){0, 0, 1};
    double p = successes / n;
    double scale = 1 + z * z / n;
    double middle = (p + z * z / (2 * n)) / scale;
    double half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale;
    return (stats_interval){p, middle - half, middle + half};
}

stats_interval stats_wilson_difference(double successes_a, double n_a, double successes_b,
                                       double n_b)
{
    if (n_a <= 0 || n_b <= 0)
        return (stats_interval){0, -1, 1};
    stats_interval a = stats_wilson(successes_a, n_a), b = stats_wilson(successes_b, n_b);
    double d = b.value - a.value;
    return (stats_interval){d, d - hypot(b.value - b.low, a.high - a.value),
                            d + hypot(b.high - b.value, a.value - a.low)};
}

static double weight_at(const double *weight, size_t i)
{
    return weight != NULL ? weight[i] : 1;
}

stats_interval stats_ratio(const double *a, const double *weight, size_t n)
{
    double sum = 0, weights = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += a[i];
        weights += weight_at(weight, i);
    }
    double value = sum / weights;
    for (size_t i = 0; i < n; i++) {
        double d = a[i] - value * weight_at(weight, i);
        squares += d * d;
    }
    double of_sum = n > 1 ? sqrt(squares / (double)(n - 1) * (double)n) : 0;
    double half = z * of_sum / weights;
    return (stats_interval){value, value - half, value + half};
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile_sorted(const double *x, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n)
        return x[n - 1];
    return x[i] + (at - (double)i) * (x[i + 1] - x[i]);
}

double stats_quantile(double *x, size_t n, double p)
{
    qsort(x, n, sizeof *x, ascending);
    return quantile_sorted(x, n, p);
}

typedef struct sums {
    double a, b, wa, wb;
} sums;

static void add(sums *s, const stats_paired *p, size_t i)
{
    s->a += p->a[i];
    s->b += p->b[i];
    s->wa += weight_at(p->weight_a, i);
    s->wb += weight_at(p->weight_b, i);
}

static double difference(const sums *s)
{
    double a = s->wa > 0 ? s->a / s->wa : 0;
    double b = s->wb > 0 ? s->b / s->wb : 0;
    return b - a;
}

stats_interval stats_bootstrap(const stats_paired *p)
{
    sums all = {0};
    for (size_t i = 0; i < p->n; i++)
        add(&all, p, i);
    stats_interval out = {difference(&all), 0, 0};
    out.low = out.high = out.value;
    if (p->n < 2 || p->draws < 1)
        return out;
    rng r = {.seed = p->seed, .stream = rng_stream("bootstrap")};
    double *d = mem_array((size_t)p->draws, sizeof *d);
    for (int k = 0; k < p->draws; k++) {
        sums s = {0};
        for (size_t i = 0; i < p->n; i++)
            add(&s, p, (size_t)rng_below(&r, p->n));
        d[k] = difference(&s);
    }
    qsort(d, (size_t)p->draws, sizeof *d, ascending);
    out.low = quantile_sorted(d, (size_t)p->draws, (1 - p->level) / 2);
    out.high = quantile_sorted(d, (size_t)p->draws, (1 + p->level) / 2);
    free(d);
    return out;
}
