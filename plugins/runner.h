#pragma once
/* Runs the functions of one plugin with a limit, on threads of its own. Code that does not come
 * back cannot be stopped soundly within a process: such a thread is left to itself, with all that
 * it was given, for ever, and the caller goes on without it. */
#include "core/base/err.h"

#include <stdint.h>

typedef struct runner runner;

/* limit_ns: what a call may take of the processor. One that waits for something may take six times
 * as long by the clock. */
runner *runner_new(int64_t limit_ns);

/* Ends the threads that are idle; NULL is a no-op. Not after a call was lost: what it runs may
 * still need the plugin. */
void runner_free(runner *r);

/* Runs fn(arg) and waits for it; the limit is at least `least_ns`. On many threads at once. With
 * r NULL it runs on the caller's thread, for as long as it takes.
 * ETIMEOUT: it is lost, and still running perhaps: neither arg nor anything that it reaches may be
 * freed, changed or read any more. The message says how long it ran. EAGAIN: there is no thread for
 * it, and nothing ran. */
int runner_call(runner *r, void (*fn)(void *arg), void *arg, int64_t least_ns, hone_err *e);

/* Calls that were lost; none with r NULL. */
int runner_lost(const runner *r);
