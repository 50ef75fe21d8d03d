#include "plugins/runner.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A call that waits instead of computing may take so many times its limit: a busy machine must not
 * decide what data become. */
enum { WALL_TIMES = 6 };

enum { RUNNING, DONE, LOST };

/* One thread, which belongs to one call at a time. Whoever moves `state` from RUNNING first, the
 * thread to DONE or its caller to LOST, decides what becomes of the call. */
typedef struct worker {
    pthread_t thread;
    clockid_t cpu;
    sem_t go, done;
    void (*fn)(void *arg); /* NULL: end */
    void *arg;
    atomic_int state;
    atomic_int_fast64_t cpu_start; /* processor time of the thread when the call began; -1: not yet
                                    */
    struct worker *next;
} worker;

struct runner {
    int64_t limit_ns;
    pthread_mutex_t lock;
    worker *idle;
    atomic_int n_lost;
};

runner *runner_new(int64_t limit_ns)
{
    runner *r = mem_alloc(sizeof *r);
    r->limit_ns = limit_ns;
    pthread_mutex_init(&r->lock, NULL);
    return r;
}

/* ---- the thread ---- */

static int64_t cpu_ns(clockid_t clock)
{
    struct timespec t = {0};
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0 && errno == EINTR)
        ;
}

static void *work(void *arg)
{
    worker *w = arg;
    for (;;) {
        int running = RUNNING;
        wait_for(&w->go);
        if (w->fn == NULL)
            return NULL;
        atomic_store(&w->cpu_start, clock_thread_ns());
        w->fn(w->arg);
        if (!atomic_compare_exchange_strong(&w->state, &running, DONE))
            return NULL; /* it comes back after all, to nobody */
        sem_post(&w->done);
    }
}

/* Signals are for the threads of the appliance, but for those that a thread brings on itself: where
 * they are blocked the process dies without a word (plugins/crash.h). */
static int start_thread(worker *w)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t others, before;
    sigfillset(&others);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&others, own[i]);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    int err = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err != 0 ? err : pthread_getcpuclockid(w->thread, &w->cpu);
}

static worker *new_worker(hone_err *e)
{
    worker *w = mem_alloc(sizeof *w);
    sem_init(&w->go, 0, 0);
    sem_init(&w->done, 0, 0);
    int err = start_thread(w);
    if (err == 0)
        return w;
    hone_fail(e, HONE_EAGAIN, "cannot start a thread: %s", strerror(err));
    sem_destroy(&w->go);
    sem_destroy(&w->done);
    free(w);
    return NULL;
}

static worker *take_worker(runner *r, hone_err *e)
{
    pthread_mutex_lock(&r->lock);
    worker *w = r->idle;
    if (w != NULL)
        r->idle = w->next;
    pthread_mutex_unlock(&r->lock);
    return w != NULL ? w : new_worker(e);
}

static void give_back(runner *r, worker *w)
{
    pthread_mutex_lock(&r->lock);
    w->next = r->idle;
    r->idle = w;
    pthread_mutex_unlock(&r->lock);
}

/* ---- its caller ---- */

/* 0 when the call has come back by then. */
static int wait_until(sem_t *s, int64_t mono_ns)
{
    const struct timespec t = {mono_ns / 1000000000, mono_ns % 1000000000};
    int rc;
    while ((rc = sem_clockwait(s, CLOCK_MONOTONIC, &t)) != 0 && errno == EINTR)
        ;
    return rc;
}

static int64_t computed(const worker *w)
{
    int64_t start = atomic_load(&w->cpu_start);
    return start < 0 ? 0 : cpu_ns(w->cpu) - start;
}

/* 0, or ETIMEOUT when the limit has passed; *cpu, *wall: what it has taken until then. */
static int await(worker *w, int64_t limit, int64_t *cpu, int64_t *wall)
{
    int64_t start = clock_mono_ns();
    *cpu = *wall = 0;
    while (*cpu < limit && *wall < WALL_TIMES * limit) {
        if (wait_until(&w->done, start + *wall + limit - *cpu) == 0)
            return atomic_load(&w->state) == DONE ? 0 : HONE_EINTERNAL;
        *cpu = computed(w);
        *wall = clock_mono_ns() - start;
    }
    int running = RUNNING;
    if (atomic_compare_exchange_strong(&w->state, &running, LOST))
        return HONE_ETIMEOUT;
    wait_for(&w->done); /* it came back just now */
    return 0;
}

int runner_call(runner *r, void (*fn)(void *arg), void *arg, int64_t least_ns, hone_err *e)
{
    if (r == NULL) {
        fn(arg);
        return 0;
    }
    int64_t limit = least_ns > r->limit_ns ? least_ns : r->limit_ns, cpu, wall;
    worker *w = take_worker(r, e);
    if (w == NULL)
        return HONE_EAGAIN;
    w->fn = fn;
    w->arg = arg;
    atomic_store(&w->state, RUNNING);
    atomic_store(&w->cpu_start, -1);
    sem_post(&w->go);
    if (await(w, limit, &cpu, &wall) == 0) {
        give_back(r, w);
        return 0;
    }
    pthread_detach(w->thread);
    atomic_fetch_add(&r->n_lost, 1);
    return hone_fail(e, HONE_ETIMEOUT, "did not come back within %.1f s (%.1f s of computing)",
                     (double)wall * 1e-9, (double)cpu * 1e-9);
}

int runner_lost(const runner *r)
{
    return r != NULL ? atomic_load(&r->n_lost) : 0;
}

void runner_free(runner *r)
{
    if (r == NULL)
        return;
    while (r->idle != NULL) {
        worker *w = r->idle;
        r->idle = w->next;
        w->fn = NULL;
        sem_post(&w->go);
        pthread_join(w->thread, NULL);
        sem_destroy(&w->go);
        sem_destroy(&w->done);
        free(w);
    }
    pthread_mutex_destroy(&r->lock);
    free(r);
}
