#pragma once
/* The threads of a CPU device.
 *
 * Work is cut into numbered pieces that threads take from one counter. A piece is done the same way
 * whoever does it, so results do not depend on how many threads there are. Idle threads spin for
 * some tens of microseconds, which covers the gaps inside a model step, then sleep. The caller
 * never waits for a thread that has not started on a piece: on a crowded machine it does the work
 * itself. */
#include <stdint.h>

typedef struct cpu_pool cpu_pool;

/* threads >= 1 counts the caller. NULL when a thread cannot be made. */
cpu_pool *cpu_pool_open(int threads);
void cpu_pool_close(cpu_pool *p); /* NULL is a no-op */

/* f(arg, i, thread) for every i in [0, n), thread in [0, threads); returns when all are done. */
typedef void (*cpu_piece)(void *arg, int64_t i, int thread);
void cpu_pool_run(cpu_pool *p, int64_t n, cpu_piece f, void *arg);
