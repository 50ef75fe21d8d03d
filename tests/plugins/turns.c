/* Fails when two of its calls run at once: it does not say that it is thread-safe. */
#include <hone_plugin.h>

#include <unistd.h>

static volatile int n_inside;

static int hold(const hone_host *h, hone_call *call, void *user)
{
    int64_t ms = h->integer(h->get(h->settings(call->ctx), "hold_ms"), 0);
    (void)user;
    if (++n_inside > 1)
        return h->error(call, "%d calls at once", n_inside);
    usleep((useconds_t)ms * 1000);
    n_inside--;
    return HONE_CONTINUE;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    return h->on(cx, "data.filter", 0, hold, NULL);
}

static const hone_setting settings[] = {
    {"hold_ms", HONE_SET_INT, 0, "20", 0, 60000, NULL, "how long a call takes"},
};

static const hone_descriptor turns = {
    HONE_DESCRIPTOR(0, 0),   "turns", "1.0.0", "Apache-2.0", "one at a time",
    HONE_SETTINGS(settings), start,   NULL};
HONE_PLUGIN(turns)
