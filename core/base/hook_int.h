#pragma once
/* Private to hook.c and hook_owner.c. */
#include "core/base/hook.h"

#include <pthread.h>
#include <stdatomic.h>

enum { HOOK_MAX_COUNTERS = 64, HOOK_MAX_COUNTER_NAME = 63, HOOK_WATCHED = 32 };

typedef struct tally {
    atomic_uint_fast64_t calls, vetoes, modified, failures, late, nanoseconds;
} tally;

typedef struct counter {
    char *name;
    double value;
} counter;

/* Whether an owner is asked at the points of one policy: those that fail closed, or those that do
 * not. */
typedef struct gate {
    atomic_int_fast64_t out_until; /* monotonic ns; 0: in */
    atomic_uint_fast64_t calls;
    int64_t window_start; /* the rest under hooks.lock */
    uint64_t calls_before;
    int failures, late;
    char why_out[200];
} gate;

/* One plugin, for as long as there are hooks: what was counted does not go when it goes. */
typedef struct owner {
    char *name;
    json_t *about;
    bool announced; /* until hook_off */
    bool barred[HOOK_N_POINTS];
    tally at[HOOK_N_POINTS];
    counter counters[HOOK_MAX_COUNTERS];
    size_t n_counters;
    bool told_counters; /* that one was dropped */

    gate gates[2];       /* [fails closed] */
    atomic_bool retired; /* out for good, at every point */
    char why_retired[200];

    struct lease *lease; /* NULL: it has no subscriptions */
    struct owner *next;  /* by name */
} owner;

/* A call that is running. since: monotonic ns when it began, 0: free. */
typedef struct busy {
    atomic_int_fast64_t since;
    atomic_int point;
    atomic_bool reported;
} busy;

/* One life of an owner, from its first subscription to hook_off. Emissions that still hold the
 * chain of a former life find it gone. */
typedef struct lease {
    owner *owner;
    atomic_int in_flight;
    atomic_bool gone;
    busy busy[HOOK_WATCHED];
    struct lease *next;
} lease;

typedef struct subscriber {
    lease *lease;
    int priority;
    hook_fn *fn;
    void *user;
} subscriber;

/* Who is asked at one point, in order. Never changed: replaced, and kept until the end, since an
 * emission may be walking along it. */
typedef struct chain {
    struct chain *older;
    size_t n;
    subscriber subs[];
} chain;

typedef struct point_state {
    _Atomic(chain *) now; /* NULL: nobody */
    tally total;
} point_state;

struct hooks {
    point_state points[HOOK_N_POINTS];
    pthread_mutex_t lock;
    owner *owners;
    lease *leases;
    chain *retired;
    hook_breaker breaker;
};

/* hook_owner.c. With the lock held: */
owner *owner_get(hooks *h, const char *name); /* found or made */
owner *owner_find(const hooks *h, const char *name);

/* Whether the owner may be asked at this point now; else its failure there. */
bool owner_may(const owner *o, hook_point p);
int owner_refusal(hooks *h, owner *o, hook_point p, hone_err *e);
/* Counts for, and against, the breaker. */
void owner_called(owner *o, hook_point p);
void owner_failed(hooks *h, owner *o, hook_point p, const char *why);
void owner_late(hooks *h, owner *o, hook_point p);
/* Shows a call to hook_watch; NULL when all places are taken. */
busy *owner_call_begins(lease *l, hook_point p, int64_t now);
void owner_call_ends(hooks *h, lease *l, busy *b);
void owners_free(hooks *h);
