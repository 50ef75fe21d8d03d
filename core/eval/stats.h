#pragma once
/* The statistics that reports and gates need. Everything is a pure function of its arguments and
 * the seed. */
#include <stddef.h>
#include <stdint.h>

typedef struct stats_interval {
    double value, low, high;
} stats_interval;

/* Wilson score interval of a proportion, 95 %. n = 0 gives {0, 0, 1}. Source: Wilson, JASA 22
 * (1927). */
stats_interval stats_wilson(double successes, double n);

/* Difference of two proportions of different examples, b's less a's, 95 %, from their Wilson
 * intervals. Where either n is 0 it is {0, -1, 1}. Source: Newcombe, Statistics in Medicine 17
 * (1998), method 10. */
stats_interval stats_wilson_difference(double successes_a, double n_a, double successes_b,
                                       double n_b);

/* Ratio of sums of a and of weights (NULL: 1 each, i.e. a mean) +- 1.96 standard errors,
 * linearised: s^2 is the variance (n - 1) of a - value * weight. n > 0, and the weights do not sum
 * to 0. Of one example the interval has no width. Source: Cochran, "Sampling techniques", 3rd
 * ed., 6.4. */
stats_interval stats_ratio(const double *a, const double *weight, size_t n);

/* The p-th quantile (0..1) of x, which is sorted in place; linear interpolation (type 7). n > 0. */
double stats_quantile(double *x, size_t n, double p);

/* Difference b - a of two ratios of sums over the same n examples (weights NULL: 1 each, i.e.
 * means), with its paired bootstrap percentile interval: examples are drawn with replacement, both
 * sides together. level: share of draws inside, e.g. 0.95. Source: Efron, Tibshirani, "An
 * introduction to the bootstrap", ch. 13. */
typedef struct stats_paired {
    const double *a, *b;               /* [n] summands */
    const double *weight_a, *weight_b; /* [n] or NULL */
    size_t n;
    int draws;
    double level;
    uint64_t seed;
} stats_paired;
stats_interval stats_bootstrap(const stats_paired *p);
