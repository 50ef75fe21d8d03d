#include "plugins/crash.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* strsignal may allocate. */
static const struct deadly {
    int number;
    const char *name;
} deadly[] = {
    {SIGSEGV, "Segmentation fault"}, {SIGBUS, "Bus error"}, {SIGFPE, "Arithmetic error"},
    {SIGILL, "Illegal instruction"}, {SIGABRT, "Aborted"},
};
enum { N_DEADLY = sizeof deadly / sizeof *deadly };

/* Where a handler runs when the thread's own stack is used up: room for a frame with AMX tiles. */
enum { HANDLER_STACK = 32 << 10 };

static struct sigaction earlier[N_DEADLY];
static _Thread_local crash_place now;
static _Thread_local char spare[HANDLER_STACK];
static _Thread_local bool has_spare;

static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n; /* there is nobody to tell */
}

static void say_who(const char *did, const char *how)
{
    const char *const parts[] = {
        "hone: plugin ",
        now.plugin,
        did,
        now.hook,
        " (",
        how,
        "), and the process with it: leave it out; 'hone plugin check FILE' shows it alone\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        say(parts[i]);
}

static void tell(int number)
{
    int error = errno, i = 0;
    while (i < N_DEADLY - 1 && deadly[i].number != number)
        i++;
    if (now.plugin != NULL)
        say_who(" crashed at ", deadly[i].name);
    sigaction(number, &earlier[i], NULL);
    errno = error;
    raise(number); /* waits until this handler has returned */
}

/* Whoever reads the status must not take it for the end of the work. */
static void tell_exit(void)
{
    if (now.plugin == NULL)
        return;
    say_who(" ended at ", "exit");
    fflush(NULL);
    _exit(1);
}

static void install(void)
{
    struct sigaction a = {.sa_handler = tell, .sa_flags = SA_ONSTACK};
    sigemptyset(&a.sa_mask);
    atexit(tell_exit);
    for (int i = 0; i < N_DEADLY; i++)
        sigaction(deadly[i].number, &a, &earlier[i]);
}

void crash_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
}

/* Where somebody has given the thread another stack, that one does. */
static void have_spare(void)
{
    stack_t own = {.ss_sp = spare, .ss_size = sizeof spare}, was;
    if (sigaltstack(NULL, &was) == 0 && (was.ss_flags & SS_DISABLE) != 0)
        sigaltstack(&own, NULL);
    has_spare = true;
}

crash_place crash_enter(const char *plugin, const char *hook)
{
    if (!has_spare)
        have_spare();
    crash_place before = now;
    now = (crash_place){plugin, hook};
    return before;
}

void crash_leave(crash_place before)
{
    now = before;
}
