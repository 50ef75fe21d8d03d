/* Everything that a plugin should not do, one thing at a time: `mode` says which. */
#include <hone_plugin.h>

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_SECONDS = 600 }; /* the process ends first */

static const char *mode_of(const hone_host *h, hone_ctx *cx)
{
    return h->string(h->get(h->settings(cx), "mode"), NULL);
}

static int is(const char *mode, const char *what)
{
    return strcmp(mode, what) == 0;
}

static volatile int for_ever = 1;
static volatile int64_t n_calls;
static int *volatile nowhere;
static void
    *volatile kept[1 << 18]; /* what leaks is still known, so that only the counting finds it */
static size_t n_kept;

/* Seconds of this thread. */
static double computed(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Writes to all that it was given, for longer than any test lets it. */
static void scribble(const hone_host *h, hone_call *call)
{
    size_t len = 0;
    const char *text = hone_get_string(h, call->data, "text", &len);
    double end = computed() + 4;
    while (computed() < end)
        for (int i = 0; i < 1000000; i++) {
            if (len > 0)
                ((volatile char *)(uintptr_t)text)[(size_t)i % len] = 'x';
            if (call->batch != NULL)
                ((volatile float *)call->batch->weight)[(uint64_t)i % call->batch->n_examples] = -1;
            if (call->batch != NULL)
                ((volatile int32_t *)(uintptr_t)call->batch->ids)[(uint64_t)i % call->batch->n] = 0;
        }
}

/* Until there is no stack left. */
static int64_t deep(volatile int64_t n)
{
    return n < 0 ? 0 : deep(n + 1) + n;
}

static int misbehave(const hone_host *h, hone_call *call, void *user)
{
    const char *mode = user;
    if (n_calls++ < h->integer(h->get(h->settings(call->ctx), "after"), 0))
        return HONE_CONTINUE;
    if (is(mode, "crash"))
        *nowhere = 1;
    if (is(mode, "deep"))
        n_calls += deep(0);
    if (is(mode, "exit"))
        exit(0);
    while (is(mode, "loop") && for_ever)
        ;
    if (is(mode, "scribble"))
        scribble(h, call);
    if (is(mode, "wait"))
        sleep(WAIT_SECONDS);
    while (is(mode, "polite_loop"))
        if (h->late(call))
            return h->error(call, "gave up");
    if (is(mode, "leak") && n_kept < sizeof kept / sizeof *kept)
        kept[n_kept++] = malloc(100);
    if (is(mode, "veto"))
        return h->veto(call, "no");
    if (is(mode, "modify"))
        return HONE_MODIFIED;
    if (is(mode, "answer"))
        return 42;
    if (is(mode, "fail"))
        return h->error(call, "cannot");
    if (is(mode, "take"))
        call->data = NULL;
    if (is(mode, "knot")) {
        hone_value *a = h->new_object(call);
        hone_value *b = h->new_array(call);
        h->append(call, b, a);
        h->set(call, a, "b", b);
        call->data = a;
        h->set(call, a, "x", h->new_int(call, 1));
    }
    return is(mode, "take") || is(mode, "knot") ? HONE_MODIFIED : HONE_CONTINUE;
}

static int spoil_batch(const hone_host *h, hone_call *call, void *user)
{
    hone_batch *b = call->batch;
    (void)h;
    if (is(user, "overrun"))
        b->weight[b->n_examples] = 1;
    if (is(user, "readonly"))
        ((int32_t *)(uintptr_t)b->ids)[0] = 9;
    if (is(user, "nan"))
        b->weight[0] = -1;
    return HONE_MODIFIED;
}

static void *sleep_long(void *arg)
{
    sleep(1000);
    return arg;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const char *mode = mode_of(h, cx);
    pthread_t t;
    if (is(mode, "crash_init"))
        *nowhere = 1;
    if (is(mode, "wait_init"))
        sleep(WAIT_SECONDS);
    if (is(mode, "init_error"))
        return h->init_error(cx, "no licence for %s", "this");
    if (is(mode, "no_point"))
        return h->on(cx, "data.filtre", 0, misbehave, NULL);
    if (is(mode, "thread") && pthread_create(&t, NULL, sleep_long, NULL) != 0)
        return HONE_ERR;
    if (is(mode, "overrun") || is(mode, "readonly") || is(mode, "nan"))
        return h->on(cx, "train.batch", 0, spoil_batch, (void *)(uintptr_t)mode);
    /* veto and modify where the point does not allow them */
    if (is(mode, "veto") || is(mode, "take") || is(mode, "knot"))
        return h->on(cx, "eval.metric", 0, misbehave, (void *)(uintptr_t)mode);
    return h->on(cx, h->string(h->get(h->settings(cx), "at"), NULL), 0, misbehave,
                 (void *)(uintptr_t)mode);
}

static void end(const hone_host *h, hone_ctx *cx)
{
    if (is(mode_of(h, cx), "wait_fini"))
        sleep(WAIT_SECONDS);
}

static const hone_setting settings[] = {
    {"mode", HONE_SET_STRING, 0, "nothing", 0, 0, NULL, "what it does wrong"},
    {"at", HONE_SET_STRING, 0, "data.filter", 0, 0, NULL, "where"},
    {"after", HONE_SET_INT, 0, "0", 0, 1000000, NULL, "calls that go well before that"},
};

static const hone_descriptor bad = {HONE_DESCRIPTOR(HONE_F_THREADSAFE, 0),
                                    "bad",
                                    "1.0.0",
                                    "Apache-2.0",
                                    "does what one should not",
                                    HONE_SETTINGS(settings),
                                    start,
                                    end};
HONE_PLUGIN(bad)
