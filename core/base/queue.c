#include "core/base/queue.h"

#include "core/base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty, not_full;
    void **items;
    size_t max, head, len;
    bool closed;
};

queue *queue_new(size_t max)
{
    queue *q = mem_alloc(sizeof *q);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->not_empty, &attr);
    pthread_cond_init(&q->not_full, &attr);
    pthread_condattr_destroy(&attr);
    q->max = max ? max : 1;
    q->items = mem_array(q->max, sizeof *q->items);
    return q;
}

void queue_free(queue *q)
{
    if (q == NULL)
        return;
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->not_empty);
    pthread_cond_destroy(&q->not_full);
    free(q->items);
    free(q);
}

static int push(queue *q, void *item, bool wait)
{
    int rc = 0;
    pthread_mutex_lock(&q->lock);
    while (wait && !q->closed && q->len == q->max)
        pthread_cond_wait(&q->not_full, &q->lock);
    if (q->closed) {
        rc = HONE_ECANCELLED;
    } else if (q->len == q->max) {
        rc = HONE_EAGAIN;
    } else {
        q->items[(q->head + q->len++) % q->max] = item;
        pthread_cond_signal(&q->not_empty);
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int queue_push(queue *q, void *item)
{
    return push(q, item, false);
}

int queue_push_wait(queue *q, void *item)
{
    return push(q, item, true);
}

static struct timespec deadline_in(int timeout_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

int queue_pop(queue *q, void **item, int timeout_ms)
{
    int rc = 0;
    *item = NULL;
    struct timespec until = deadline_in(timeout_ms > 0 ? timeout_ms : 0);
    pthread_mutex_lock(&q->lock);
    while (q->len == 0 && !q->closed && rc == 0) {
        if (timeout_ms < 0)
            pthread_cond_wait(&q->not_empty, &q->lock);
        else if (pthread_cond_timedwait(&q->not_empty, &q->lock, &until) == ETIMEDOUT)
            rc = HONE_EAGAIN;
    }
    if (q->len != 0) {
        rc = 0;
        *item = q->items[q->head];
        q->head = (q->head + 1) % q->max;
        q->len--;
        pthread_cond_signal(&q->not_full);
    } else if (q->closed) {
        rc = HONE_ECANCELLED;
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

void queue_close(queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->not_empty);
    pthread_cond_broadcast(&q->not_full);
    pthread_mutex_unlock(&q->lock);
}

size_t queue_len(queue *q)
{
    pthread_mutex_lock(&q->lock);
    size_t n = q->len;
    pthread_mutex_unlock(&q->lock);
    return n;
}
