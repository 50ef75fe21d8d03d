#include "kernels/cpu/pool.h"

#include <linux/futex.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Pauses before a thread sleeps (a pause takes 20 to 60 ns), and before the caller lets others run
 * while it waits for the last piece. */
enum { SPIN_IDLE = 1500, SPIN_LAST = 2000, LINE = 64 };

struct cpu_pool {
    /* The job. Written by the caller while no worker is inside. */
    cpu_piece f;
    void *arg;
    int64_t n;
    int threads;
    /* Each on a line of its own: they change hands all the time. */
    _Alignas(LINE)
        atomic_uint turn; /* odd while a job is open; the word that idle workers sleep on */
    _Alignas(LINE) _Atomic int64_t next;
    _Alignas(LINE) _Atomic int64_t done;
    _Alignas(LINE) atomic_int inside; /* workers that may look at the job */
    _Alignas(LINE) atomic_int asleep;
    atomic_bool stop;
    int started;
    struct worker {
        pthread_t id;
        cpu_pool *p;
        int number;
    } w[];
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void work(cpu_pool *p, int thread)
{
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (i >= p->n)
            return;
        p->f(p->arg, i, thread);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
    }
}

/* ---- workers --------------------------------------------------------------------------------- */

static void doze(cpu_pool *p, unsigned seen)
{
    for (int i = 0; i < SPIN_IDLE; i++) {
        if (atomic_load_explicit(&p->turn, memory_order_acquire) != seen)
            return;
        relax();
    }
    atomic_fetch_add(&p->asleep, 1);
    while (!atomic_load(&p->stop) && atomic_load(&p->turn) == seen)
        syscall(SYS_futex, &p->turn, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&p->asleep, 1);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    cpu_pool *p = w->p;
    /* oneDNN runs inside a piece and must not start threads of its own. */
    omp_set_num_threads(1);
    while (!atomic_load(&p->stop)) {
        unsigned turn = atomic_load(&p->turn);
        if (turn % 2 == 1) {
            /* Only a worker that has said it is inside, and then still finds the job open, may read
             * it. */
            atomic_fetch_add(&p->inside, 1);
            if (atomic_load(&p->turn) == turn)
                work(p, w->number);
            atomic_fetch_sub(&p->inside, 1);
        }
        doze(p, turn);
    }
    return NULL;
}

static void wake(cpu_pool *p)
{
    if (atomic_load(&p->asleep) > 0)
        syscall(SYS_futex, &p->turn, FUTEX_WAKE_PRIVATE, p->threads, NULL, NULL, 0);
}

/* ---- the caller ------------------------------------------------------------------------------ */

void cpu_pool_run(cpu_pool *p, int64_t n, cpu_piece f, void *arg)
{
    if (n <= 1 || p->threads == 1) {
        for (int64_t i = 0; i < n; i++)
            f(arg, i, 0);
        return;
    }
    p->f = f;
    p->arg = arg;
    p->n = n;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_fetch_add(&p->turn, 1);
    wake(p);
    work(p, 0);
    for (int i = 0; atomic_load_explicit(&p->done, memory_order_acquire) < n; i++)
        i < SPIN_LAST ? relax() : (void)sched_yield();
    atomic_fetch_add(&p->turn, 1);
    for (int i = 0; atomic_load(&p->inside) > 0; i++)
        i < SPIN_LAST ? relax() : (void)sched_yield();
}

cpu_pool *cpu_pool_open(int threads)
{
    size_t bytes = sizeof(cpu_pool) + (size_t)threads * sizeof(struct worker);
    cpu_pool *p = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
    if (p == NULL)
        return NULL;
    *p = (cpu_pool){.threads = threads};
    /* Signals are for the program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = true;
    for (int i = 1; i < threads && ok; i++) {
        struct worker *w = &p->w[i];
        *w = (struct worker){.p = p, .number = i};
        ok = pthread_create(&w->id, NULL, worker_main, w) == 0;
        p->started += ok;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (ok)
        return p;
    cpu_pool_close(p);
    return NULL;
}

void cpu_pool_close(cpu_pool *p)
{
    if (p == NULL)
        return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->turn, 2); /* changes the word, and no job is open */
    syscall(SYS_futex, &p->turn, FUTEX_WAKE_PRIVATE, p->threads, NULL, NULL, 0);
    for (int i = 1; i <= p->started; i++)
        pthread_join(p->w[i].id, NULL);
    free(p);
}
