#pragma once
/* Bounded queue of pointers between threads. Full is an answer (EAGAIN), not a wait: whoever admits
 * work decides what full means. */
#include "core/base/err.h"

#include <stddef.h>

typedef struct queue queue;

queue *queue_new(size_t max);
void queue_free(queue *q); /* NULL is a no-op; items left inside are the caller's to have taken */

int queue_push(queue *q, void *item);      /* 0, EAGAIN when full, ECANCELLED when closed */
int queue_push_wait(queue *q, void *item); /* waits for room; ECANCELLED when closed */
int queue_pop(queue *q, void **item, int timeout_ms); /* <0 waits for ever; EAGAIN at the end of
                                                         time, ECANCELLED when closed and empty */
void queue_close(queue *q);                           /* no more pushes; wakes everybody */
size_t queue_len(queue *q);
