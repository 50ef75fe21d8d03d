#pragma once
/* Timing for benches. A bench is a program tests/bench/bench_NAME.c that prints lines of figures;
 * it compares nothing with other machines, so every ratio it prints is of one run. */
#include <stddef.h>

/* Calls fn(arg) for about half a second after a warm-up and prints
 * "name  <rate> <unit>/s  (<best time of a call>)", where one call does `amount` units. The best of
 * several rounds counts: what disturbs a run only ever makes it slower. Returns the rate. */
double bench(const char *name, double amount, const char *unit, void (*fn)(void *arg), void *arg);
