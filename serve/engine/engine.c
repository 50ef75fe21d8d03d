/* The engine's face: the inbox between connection threads and the scheduler thread, the drain, the
 * figures. */
#include "serve/engine/engine.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "serve/engine/engine_int.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CHOICES = 8, IDLE_WAIT_MS = 250 };

void engine_send_done(engine *g, seq *s)
{
    job *j = s->owner;
    int64_t now = clock_mono_ns();
    size_t n = 0;
    engine_event ev = {.kind = ENGINE_DONE, .choice = s->choice};
    ev.finish = gen_state_finish(s->state);
    if (ev.finish == GEN_RUNNING)
        ev.finish = GEN_LENGTH;
    ev.ids = gen_state_ids(s->state, &n);
    ev.n_ids = n;
    ev.n_prompt = (int64_t)j->n_prompt;
    ev.n_answer = (int64_t)(s->n_ids - j->n_prompt);
    ev.queue_us = (j->admit_ns - j->submit_ns) / 1000;
    ev.first_token_us = j->first_token_ns != 0 ? (j->first_token_ns - j->submit_ns) / 1000 : 0;
    ev.total_us = (now - j->submit_ns) / 1000;
    s->done = true;
    bool last = ++j->n_done == j->n;
    if (last) {
        engine_observe(g, j, ENGINE_E2E, (double)(now - j->submit_ns) * 1e-9);
        if (j->first_token_ns != 0)
            engine_observe(g, j, ENGINE_DECODE, (double)(now - j->first_token_ns) * 1e-9);
        engine_count_done(g, j, false);
    }
    j->fn(j->user, &ev, last);
}

/* ---- the scheduler thread ---- */

static struct timespec wait_until(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += IDLE_WAIT_MS * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

/* Moves what was submitted into the scheduler's list. Called with the lock held. */
static void take_inbox(engine *g)
{
    while (g->inbox != NULL) {
        job *j = g->inbox;
        g->inbox = j->next;
        j->next = NULL;
        for (int i = 0; i < j->n; i++) {
            *g->seqs_tail = &j->seqs[i];
            g->seqs_tail = &j->seqs[i].next;
        }
    }
    g->inbox_tail = &g->inbox;
}

static void count_queue(engine *g)
{
    int running = 0, waiting = 0;
    int64_t tokens = 0, used = 0, blocks = 0;
    for (seq *s = g->seqs; s != NULL; s = s->next) {
        if (s->admitted)
            running++;
        else if (s->choice == 0 && s->n_ids == s->owner->n_prompt) {
            waiting++;
            tokens += (int64_t)s->n_ids;
        }
    }
    for (lane *l = g->lanes; l != NULL; l = l->next) {
        blocks += l->on->n_blocks;
        used += l->on->n_blocks - l->n_free;
    }
    pthread_mutex_lock(&g->lock);
    g->stats.running = running;
    for (job *j = g->inbox; j != NULL; j = j->next) {
        waiting++;
        tokens += (int64_t)j->n_prompt;
    }
    g->stats.waiting = waiting;
    g->stats.waiting_tokens = tokens;
    g->stats.kv_blocks_used = used;
    g->stats.kv_blocks = blocks;
    g->heartbeat_ns = clock_mono_ns();
    if (g->seqs == NULL && g->inbox == NULL)
        pthread_cond_broadcast(&g->idle);
    pthread_mutex_unlock(&g->lock);
}

static void *scheduler(void *arg)
{
    engine *g = arg;
    for (;;) {
        pthread_mutex_lock(&g->lock);
        take_inbox(g);
        sched_mark_cancelled(g);
        bool stop = g->stopping && g->seqs == NULL;
        pthread_mutex_unlock(&g->lock);
        if (stop)
            break;
        sched_expire(g);
        sched_reap(g);
        bool worked = sched_turn(g);
        lane_drop_idle(g);
        count_queue(g);
        if (worked)
            continue;
        struct timespec until = wait_until();
        pthread_mutex_lock(&g->lock);
        if (g->inbox == NULL && g->n_cancels == 0 && !g->stopping)
            pthread_cond_timedwait(&g->wake, &g->lock, &until);
        pthread_mutex_unlock(&g->lock);
    }
    return NULL;
}

/* ---- the face ---- */

static void set_defaults(engine_options *o)
{
    if (o->max_seqs == 0)
        o->max_seqs = 16;
    if (o->step_tokens == 0)
        o->step_tokens = 512;
    if (o->step_tokens < o->max_seqs)
        o->step_tokens = o->max_seqs;
    if (o->queue_requests == 0)
        o->queue_requests = 64;
    if (o->queue_tokens == 0)
        o->queue_tokens = 65536;
}

int engine_start(engine **out, const engine_options *o, hone_err *e)
{
    *out = NULL;
    engine *g = mem_alloc(sizeof *g);
    g->o = *o;
    set_defaults(&g->o);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, &attr);
    pthread_cond_init(&g->idle, &attr);
    pthread_condattr_destroy(&attr);
    g->inbox_tail = &g->inbox;
    g->seqs_tail = &g->seqs;
    g->next_ticket = 1;
    g->why_none = "no model is loaded yet";
    g->heartbeat_ns = clock_mono_ns();
    g->step = engine_step_new(&g->o);
    if (pthread_create(&g->thread, NULL, scheduler, g) != 0) {
        engine_step_free(g->step);
        free(g);
        return hone_fail(e, HONE_EIO, "engine: cannot start a thread");
    }
    *out = g;
    return 0;
}

static int check_request(const engine *g, const engine_request *r, hone_err *e)
{
    int64_t want = r->params->max_tokens, context = r->on->context;
    if (r->n < 1 || r->n > MAX_CHOICES || r->n > g->o.max_seqs)
        return hone_fail(e, HONE_EINVAL, "n is %d, must lie between 1 and %d", r->n, MAX_CHOICES);
    if (r->n_prompt == 0)
        return hone_fail(e, HONE_EINVAL, "the prompt is empty");
    if ((int64_t)r->n_prompt >= context)
        return hone_fail(e, HONE_ELIMIT,
                         "the prompt has %zu tokens, the context holds %lld with the answer",
                         r->n_prompt, (long long)context);
    if (want > 0 && (int64_t)r->n_prompt + want > context)
        return hone_fail(e, HONE_ELIMIT,
                         "the prompt's %zu tokens and an answer of %lld are more than the context "
                         "of %lld",
                         r->n_prompt, (long long)want, (long long)context);
    int64_t bt = r->on->block_tokens;
    int64_t most = want > 0 ? (int64_t)r->n_prompt + want : context;
    if ((most + bt - 1) / bt > r->on->n_blocks)
        return hone_fail(e, HONE_ELIMIT, "%lld tokens do not fit the cache of %lld (kv_tokens)",
                         (long long)most, (long long)(r->on->n_blocks * bt));
    return 0;
}

/* Seconds until the queue has likely moved on, from its length and the measured rate. */
static int retry_after(const engine *g)
{
    double rate = g->prefill_rate > 1 ? g->prefill_rate : 100;
    double s = (double)g->stats.waiting_tokens / rate;
    return s < 1 ? 1 : s > 60 ? 60 : (int)s;
}

int engine_submit(engine *g, const engine_request *r, uint64_t *ticket, int *retry_after_s,
                  hone_err *e)
{
    int rc = check_request(g, r, e);
    if (rc != 0)
        return rc;
    job *j = job_new(r, 0);
    pthread_mutex_lock(&g->lock);
    bool many = g->stats.waiting >= g->o.queue_requests;
    bool long_queue =
        g->stats.waiting > 0 && g->stats.waiting_tokens + (int64_t)r->n_prompt > g->o.queue_tokens;
    if (g->draining || g->stopping) {
        rc = hone_fail(e, HONE_ECANCELLED, "the server is shutting down");
    } else if (many || long_queue) {
        g->stats.count.rejected++;
        figures_of(g, r->on)->f.count.rejected++;
        if (retry_after_s != NULL)
            *retry_after_s = retry_after(g);
        rc = hone_fail(e, HONE_EAGAIN, "the queue is full (%d requests, %lld tokens wait)",
                       g->stats.waiting, (long long)g->stats.waiting_tokens);
    } else {
        *ticket = j->ticket = g->next_ticket++;
        *g->inbox_tail = j;
        g->inbox_tail = &j->next;
        g->stats.waiting++;
        g->stats.waiting_tokens += (int64_t)r->n_prompt;
        figures_taken(g, j);
        pthread_cond_signal(&g->wake);
        j = NULL;
    }
    pthread_mutex_unlock(&g->lock);
    job_free(j);
    return rc;
}

void engine_cancel(engine *g, uint64_t ticket)
{
    pthread_mutex_lock(&g->lock);
    g->cancels = mem_grow(g->cancels, &g->cap_cancels, g->n_cancels + 1, sizeof *g->cancels);
    g->cancels[g->n_cancels++] = ticket;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
}

static served *retained(engine *g, served *const *which)
{
    pthread_mutex_lock(&g->lock);
    served *s = *which;
    if (s != NULL)
        served_retain(s);
    pthread_mutex_unlock(&g->lock);
    return s;
}

served *engine_current(engine *g)
{
    return retained(g, &g->current);
}

served *engine_beside(engine *g)
{
    return retained(g, &g->beside);
}

void engine_set_why_none(engine *g, const char *why)
{
    pthread_mutex_lock(&g->lock);
    g->why_none = why;
    pthread_mutex_unlock(&g->lock);
}

const char *engine_why_none(engine *g)
{
    pthread_mutex_lock(&g->lock);
    const char *why = g->why_none;
    pthread_mutex_unlock(&g->lock);
    return why;
}

static void put(engine *g, served **which, served *s)
{
    if (s != NULL)
        served_retain(s);
    pthread_mutex_lock(&g->lock);
    served *old = *which;
    *which = s;
    if (s != NULL)
        figures_of(g, s);
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
    served_release(old);
}

void engine_set_current(engine *g, served *s)
{
    put(g, &g->current, s);
}

void engine_set_beside(engine *g, served *s)
{
    put(g, &g->beside, s);
}

void engine_drain(engine *g, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&g->lock);
    g->draining = true;
    pthread_cond_signal(&g->wake);
    while (g->stats.running + g->stats.waiting > 0)
        if (pthread_cond_timedwait(&g->idle, &g->lock, &until) != 0)
            break;
    g->cancel_all = true;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
}

void engine_stop(engine *g)
{
    if (g == NULL)
        return;
    pthread_mutex_lock(&g->lock);
    g->draining = g->stopping = g->cancel_all = true;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
    pthread_join(g->thread, NULL);
    engine_set_current(g, NULL);
    engine_set_beside(g, NULL);
    lane_drop_idle(g);
    engine_step_free(g->step);
    figures_free(g);
    free(g->cancels);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->wake);
    pthread_cond_destroy(&g->idle);
    free(g);
}

engine_stats engine_counters(engine *g)
{
    pthread_mutex_lock(&g->lock);
    engine_stats s = g->stats;
    s.last_step_age_ms = (clock_mono_ns() - g->heartbeat_ns) / 1000000;
    pthread_mutex_unlock(&g->lock);
    return s;
}
