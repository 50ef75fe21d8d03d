#pragma once
/* How a command ends by a signal. */
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

/* A handler: ends the process as the signal by itself would, also where it is the first one of a
 * container, for which signals have no action of their own. Here in full, so that whoever calls it
 * from a handler sees that it may. */
static inline void cmd_killed(int sig)
{
    sigset_t one;
    signal(sig, SIG_DFL);
    sigemptyset(&one);
    sigaddset(&one, sig);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
    raise(sig);
    _exit(128 + sig);
}
