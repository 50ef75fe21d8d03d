#include "plugins/crash.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
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

static struct sigaction earlier[N_DEADLY];
static _Thread_local crash_place now;

static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n; /* there is nobody to tell */
}

static void tell(int number)
{
    int error = errno, i = 0;
    while (i < N_DEADLY - 1 && deadly[i].number != number)
        i++;
    if (now.plugin != NULL) {
        say("hone: plugin ");
        say(now.plugin);
        say(" crashed at ");
        say(now.hook);
        say(" (");
        say(deadly[i].name);
        say("), and the process with it: leave it out; 'hone plugin check FILE' shows it alone\n");
    }
    sigaction(number, &earlier[i], NULL);
    errno = error;
    raise(number); /* waits until this handler has returned */
}

static void install(void)
{
    struct sigaction a = {.sa_handler = tell};
    sigemptyset(&a.sa_mask);
    for (int i = 0; i < N_DEADLY; i++)
        sigaction(deadly[i].number, &a, &earlier[i]);
}

void crash_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
}

crash_place crash_enter(const char *plugin, const char *hook)
{
    crash_place before = now;
    now = (crash_place){plugin, hook};
    return before;
}

void crash_leave(crash_place before)
{
    now = before;
}
