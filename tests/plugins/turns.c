/* Fails when two of its calls run at once: it does not say that it is thread-safe. With `until` a
 * call stays until this directory is gone, and makes `begun` in it. */
#include <hone_plugin.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile int n_inside;

static void stay(const char *until)
{
    char begun[4096];
    snprintf(begun, sizeof begun, "%s/begun", until);
    mkdir(begun, 0777);
    while (access(until, F_OK) == 0)
        usleep(1000);
}

static int hold(const hone_host *h, hone_call *call, void *user)
{
    const char *until = h->string(h->get(h->settings(call->ctx), "until"), NULL);
    (void)user;
    if (++n_inside > 1)
        return h->error(call, "%d calls at once", n_inside);
    if (strcmp(until, "nothing") != 0)
        stay(until);
    else
        usleep(20000);
    n_inside--;
    return HONE_CONTINUE;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    return h->on(cx, "data.filter", 0, hold, NULL);
}

static const hone_setting settings[] = {
    {"until", HONE_SET_STRING, 0, "nothing", 0, 0, NULL,
     "the directory that a call waits for to go"},
};

static const hone_descriptor turns = {
    HONE_DESCRIPTOR(0, 0),   "turns", "1.0.0", "Apache-2.0", "one at a time",
    HONE_SETTINGS(settings), start,   NULL};
HONE_PLUGIN(turns)
