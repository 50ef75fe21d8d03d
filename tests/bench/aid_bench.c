#include "tests/bench/bench.h"

#include "core/base/clock.h"

#include <stdint.h>
#include <stdio.h>

enum { ROUNDS = 5 };

double bench(const char *name, double amount, const char *unit, void (*fn)(void *arg), void *arg)
{
    fn(arg);
    int64_t start = clock_mono_ns();
    fn(arg);
    int64_t once = clock_mono_ns() - start;
    int64_t calls = 100000000 / (once > 0 ? once : 1) + 1;
    double best = 1e300;
    for (int round = 0; round < ROUNDS; round++) {
        start = clock_mono_ns();
        for (int64_t i = 0; i < calls; i++)
            fn(arg);
        double each = (double)(clock_mono_ns() - start) * 1e-9 / (double)calls;
        best = each < best ? each : best;
    }
    double rate = amount / best;
    static const char *const scales[] = {"", "k", "M", "G", "T"};
    size_t s = 0;
    double shown = rate;
    for (; shown >= 1000 && s < 4; s++)
        shown /= 1000;
    printf("%-36s %8.2f %s%s/s  (%.3g s a call)\n", name, shown, scales[s], unit, best);
    fflush(stdout);
    return rate;
}
