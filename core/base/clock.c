#include "core/base/clock.h"

#include <stdio.h>
#include <time.h>

int64_t clock_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_unix_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

double clock_seconds(void)
{
    return (double)clock_mono_ns() * 1e-9;
}

void clock_iso8601(char *dst, size_t cap, int64_t unix_ms)
{
    int ms = (int)(unix_ms % 1000);
    time_t s = (time_t)(unix_ms / 1000);
    if (ms < 0) { /* before 1970: round the seconds down */
        ms += 1000;
        s--;
    }
    struct tm tm;
    char date[64] = "";
    gmtime_r(&s, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(dst, cap, "%s.%03dZ", date, ms);
}
