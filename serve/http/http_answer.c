#include "serve/http/http_answer.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* What may wait for a client that does not read; more, and the answer fails. */
enum { MAX_WAITING = 16 << 20 };

typedef struct part {
    struct answer *of;
    int first_choice;
    uint64_t ticket;
    bool running; /* the engine may still call */
} part;

struct answer {
    atomic_int refs;
    pthread_mutex_t lock;
    answer_options o;
    part *parts;
    int n_parts, n_running, n_done; /* n_done: choices */
    answer_event *head, **tail;
    size_t waiting; /* bytes in the list */
    bool detached, failed, ping_due, sealed;
    hone_err err;
    int64_t began_ns, spoke_ns;
};

void answer_event_free(answer_event *ev)
{
    if (ev == NULL)
        return;
    free(ev->text);
    free(ev->logprobs);
    free(ev);
}

answer *answer_new(const answer_options *o)
{
    answer *a = mem_alloc(sizeof *a);
    atomic_init(&a->refs, 1);
    pthread_mutex_init(&a->lock, NULL);
    a->o = *o;
    a->parts = mem_array((size_t)o->n_parts, sizeof *a->parts);
    a->tail = &a->head;
    a->began_ns = a->spoke_ns = clock_mono_ns();
    return a;
}

answer *answer_ref(answer *a)
{
    atomic_fetch_add(&a->refs, 1);
    return a;
}

void answer_unref(answer *a)
{
    if (a == NULL || atomic_fetch_sub(&a->refs, 1) != 1)
        return;
    while (a->head != NULL) {
        answer_event *ev = a->head;
        a->head = ev->next;
        answer_event_free(ev);
    }
    pthread_mutex_destroy(&a->lock);
    free(a->parts);
    free(a);
}

/* ---- what the scheduler calls ---- */

static void *copy(const void *p, size_t n)
{
    void *c = mem_alloc(n + 1);
    if (n > 0)
        memcpy(c, p, n);
    return c;
}

static void append(answer *a, int first_choice, const engine_event *ev)
{
    answer_event *c = mem_alloc(sizeof *c);
    *c = (answer_event){.kind = ev->kind,
                        .choice = first_choice + ev->choice,
                        .finish = ev->finish,
                        .n_prompt = ev->n_prompt,
                        .n_answer = ev->n_answer,
                        .queue_us = ev->queue_us,
                        .first_token_us = ev->first_token_us,
                        .total_us = ev->total_us};
    if (ev->kind == ENGINE_TEXT || ev->kind == ENGINE_PROMPT) {
        c->text = copy(ev->text, ev->len);
        c->len = ev->len;
        c->n_logprobs = ev->n_logprobs;
        c->logprobs = copy(ev->logprobs, (size_t)ev->n_logprobs * sizeof *ev->logprobs);
    }
    *a->tail = c;
    a->tail = &c->next;
    a->waiting += sizeof *c + c->len + (size_t)c->n_logprobs * sizeof *c->logprobs;
}

static bool over(const answer *a)
{
    return a->sealed && (a->failed || a->n_running == 0);
}

static void wake(answer *a)
{
    if (!a->detached && a->sealed && (a->o.stream || over(a)))
        a->o.wake(a->o.user);
}

static void fail(answer *a, int code, const char *message)
{
    if (a->failed || over(a))
        return;
    a->failed = true;
    hone_fail(&a->err, code, "%s", message);
}

/* Tickets of what runs. They are cancelled after the lock is released, because the engine has locks
 * of its own, and never from on_event: whoever takes the events sees the failure and detaches. */
typedef struct tickets {
    uint64_t v[ANSWER_MAX_PARTS];
    int n;
} tickets;

static tickets running(const answer *a)
{
    tickets t = {.n = 0};
    for (int i = 0; i < a->n_parts; i++)
        if (a->parts[i].running)
            t.v[t.n++] = a->parts[i].ticket;
    return t;
}

static void cancel(const answer *a, const tickets *t)
{
    for (int i = 0; i < t->n; i++)
        a->o.engine->cancel(a->o.engine->ctx, t->v[i]);
}

static void on_event(void *user, const engine_event *ev, bool last)
{
    part *p = user;
    answer *a = p->of;
    bool flood = false;
    pthread_mutex_lock(&a->lock);
    if (ev->kind == ENGINE_ERROR) {
        fail(a, ev->err->code, ev->err->msg);
    } else if (!a->detached && !a->failed) {
        append(a, p->first_choice, ev);
        a->n_done += ev->kind == ENGINE_DONE;
        flood = a->waiting > MAX_WAITING;
    }
    if (last) {
        p->running = false;
        a->n_running--;
    }
    if (flood)
        fail(a, HONE_ELIMIT, "the client reads too slowly");
    wake(a);
    pthread_mutex_unlock(&a->lock);
    if (last)
        answer_unref(a);
}

/* ---- what the request calls ---- */

int answer_submit(answer *a, engine_request *r, int *retry_after_s, hone_err *e)
{
    part *p = &a->parts[a->n_parts];
    *p = (part){.of = a, .first_choice = a->n_parts * a->o.n_choices, .running = true};
    r->fn = on_event;
    r->user = p;
    r->n = a->o.n_choices;
    pthread_mutex_lock(&a->lock);
    a->n_parts++;
    a->n_running++;
    pthread_mutex_unlock(&a->lock);
    answer_ref(a);
    uint64_t ticket = 0;
    int rc = a->o.engine->submit(a->o.engine->ctx, r, &ticket, retry_after_s, e);
    pthread_mutex_lock(&a->lock);
    p->ticket = ticket;
    if (rc != 0) {
        p->running = false;
        a->n_running--;
    }
    bool unwanted = rc == 0 && (a->detached || a->failed);
    pthread_mutex_unlock(&a->lock);
    if (unwanted)
        a->o.engine->cancel(a->o.engine->ctx, ticket);
    if (rc != 0)
        answer_unref(a);
    return rc;
}

void answer_seal(answer *a)
{
    pthread_mutex_lock(&a->lock);
    a->sealed = true;
    if (a->head != NULL || over(a)) /* what came before nobody was woken for */
        wake(a);
    pthread_mutex_unlock(&a->lock);
}

void answer_detach(answer *a)
{
    pthread_mutex_lock(&a->lock);
    a->detached = true;
    tickets t = running(a);
    pthread_mutex_unlock(&a->lock);
    cancel(a, &t);
}

void answer_fail(answer *a, int code, const char *message)
{
    pthread_mutex_lock(&a->lock);
    fail(a, code, message);
    wake(a);
    tickets t = running(a);
    pthread_mutex_unlock(&a->lock);
    cancel(a, &t);
}

answer_event *answer_take(answer *a)
{
    pthread_mutex_lock(&a->lock);
    answer_event *ev = a->head;
    if (ev != NULL) {
        a->head = ev->next;
        if (a->head == NULL)
            a->tail = &a->head;
        a->waiting -= sizeof *ev + ev->len + (size_t)ev->n_logprobs * sizeof *ev->logprobs;
        ev->next = NULL;
        a->spoke_ns = clock_mono_ns();
    }
    pthread_mutex_unlock(&a->lock);
    return ev;
}

answer_state answer_poll(answer *a, hone_err *e)
{
    answer_state st = ANSWER_WAITING;
    pthread_mutex_lock(&a->lock);
    if (a->failed) {
        st = ANSWER_FAILED;
        *e = a->err;
    } else if (a->head != NULL && (a->o.stream || over(a))) {
        st = ANSWER_READY;
    } else if (over(a)) {
        st = ANSWER_DONE;
    }
    pthread_mutex_unlock(&a->lock);
    return st;
}

bool answer_take_ping(answer *a)
{
    pthread_mutex_lock(&a->lock);
    bool due = a->ping_due;
    a->ping_due = false;
    pthread_mutex_unlock(&a->lock);
    return due;
}

void answer_tick(answer *a, int64_t now_ns)
{
    tickets t = {.n = 0};
    pthread_mutex_lock(&a->lock);
    if (a->o.timeout_ns > 0 && now_ns - a->began_ns > a->o.timeout_ns && !over(a)) {
        fail(a, HONE_ETIMEOUT, "the scheduler does not answer");
        wake(a);
        t = running(a);
    } else if (a->o.stream && a->o.ping_ns > 0 && now_ns - a->spoke_ns > a->o.ping_ns &&
               a->head == NULL && !over(a)) {
        a->spoke_ns = now_ns;
        a->ping_due = true;
        wake(a);
    }
    pthread_mutex_unlock(&a->lock);
    cancel(a, &t);
}
