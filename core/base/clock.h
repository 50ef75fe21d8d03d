#pragma once
/* Time: monotonic for durations and deadlines, wall clock for records. */
#include <stddef.h>
#include <stdint.h>

int64_t clock_mono_ns(void);
int64_t clock_unix_ms(void);
double clock_seconds(void); /* monotonic, for rates and progress */
/* What the calling thread has taken of the processor. Costs a system call. */
int64_t clock_thread_ns(void);

/* "2026-01-31T12:00:00.123Z" into dst; cap at least 25. */
void clock_iso8601(char *dst, size_t cap, int64_t unix_ms);
