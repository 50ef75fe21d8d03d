/* The scheduler's policy. A turn: finish what was cancelled or is late; then for every loaded model
 * with work choose chunks under the token budget (running sequences first, then prefill, oldest
 * first) and run one step. When blocks run out the youngest sequence gives its own back and is
 * computed again later: answers are never cut for room. */
#include "core/base/clock.h"
#include "core/base/log.h"
#include "serve/engine/engine_int.h"

#include <string.h>

void sched_fail(engine *g, job *j, int code, const char *why)
{
    if (j->failed)
        return;
    hone_err err = {0};
    hone_fail(&err, code, "%s", why);
    engine_event ev = {.kind = ENGINE_ERROR, .err = &err};
    j->failed = true;
    for (int i = 0; i < j->n; i++)
        j->seqs[i].done = true;
    engine_count_done(g, j, true);
    j->fn(j->user, &ev, true);
}

static bool is_cancelled(const engine *g, uint64_t ticket)
{
    for (size_t i = 0; i < g->n_cancels; i++)
        if (g->cancels[i] == ticket)
            return true;
    return false;
}

void sched_mark_cancelled(engine *g)
{
    for (seq *s = g->seqs; s != NULL; s = s->next)
        if (g->cancel_all || is_cancelled(g, s->owner->ticket))
            s->owner->cancelled = true;
    g->n_cancels = 0;
}

void sched_expire(engine *g)
{
    int64_t now = clock_mono_ns();
    for (seq *s = g->seqs; s != NULL; s = s->next) {
        job *j = s->owner;
        if (s->done || j->failed)
            continue;
        if (j->cancelled)
            sched_fail(g, j, HONE_ECANCELLED, "the request was cancelled");
        else if (j->deadline_ns != 0 && now > j->deadline_ns)
            sched_fail(g, j, HONE_ETIMEOUT, "the request's deadline has passed");
    }
}

void sched_reap(engine *g)
{
    job *dead = NULL;
    g->seqs_tail = &g->seqs;
    for (seq **at = &g->seqs; *at != NULL;) {
        seq *s = *at;
        if (!s->done) {
            at = &s->next;
            g->seqs_tail = at;
            continue;
        }
        *at = s->next;
        if (s->lane != NULL)
            seq_release(s);
        if (s->admitted) {
            s->lane->n_seqs--;
            g->n_admitted--;
        }
        job *j = s->owner;
        s->owner = NULL;
        bool linked = false;
        for (int i = 0; i < j->n; i++)
            linked = linked || j->seqs[i].owner != NULL;
        if (!linked) {
            j->next = dead;
            dead = j;
        }
    }
    while (dead != NULL) {
        job *next = dead->next;
        job_free(dead);
        dead = next;
    }
}

/* Other choices of a request wait until the first has computed what they share. */
static bool ready(const seq *s)
{
    const seq *first = &s->owner->seqs[0];
    return s == first || first->done || first->computed >= s->owner->n_prompt;
}

static void admit_one(engine *g, seq *s)
{
    job *j = s->owner;
    hone_err err = {0};
    s->admitted = true;
    s->lane->n_seqs++;
    g->n_admitted++;
    if (j->admit_ns == 0) {
        j->admit_ns = clock_mono_ns();
        engine_observe(g, j, ENGINE_QUEUE, (double)(j->admit_ns - j->submit_ns) * 1e-9);
        int rc = j->echo_logprobs ? engine_step_score(j, &err) : 0;
        if (rc != 0)
            sched_fail(g, j, rc, err.msg);
    }
    if (j->params.max_tokens == 0 && !j->failed) /* the prompt was all that was wanted */
        engine_send_done(g, s);
}

/* In order of arrival: a long prompt at the head is not overtaken for ever. */
static void admit(engine *g)
{
    for (seq *s = g->seqs; s != NULL && g->n_admitted < g->o.max_seqs; s = s->next) {
        if (s->admitted || s->done)
            continue;
        if (s->lane == NULL)
            s->lane = lane_for(g, s->owner->on);
        if (!ready(s))
            continue;
        const seq *first = &s->owner->seqs[0];
        bool share = s != first && !first->done && s->n_blocks == 0 && s->computed == 0;
        size_t shared = share ? (s->owner->n_prompt - 1) / (size_t)s->lane->on->block_tokens : 0;
        size_t need = lane_blocks_for(s->lane, s->n_ids + 1) - shared;
        if ((int64_t)need > s->lane->n_free && s->lane->n_seqs > 0)
            return;
        if (share)
            seq_share(s, first, s->owner->n_prompt - 1);
        admit_one(g, s);
    }
}

static seq *youngest(engine *g, const lane *l)
{
    seq *found = NULL;
    for (seq *s = g->seqs; s != NULL; s = s->next)
        if (s->lane == l && s->admitted && !s->done && s->n_blocks > 0)
            found = s;
    return found;
}

/* Gets blocks for s, taking them from the youngest when none are free. False: s itself had to give
 * way. */
static bool make_room(engine *g, seq *s, size_t n_tokens)
{
    while (!seq_reserve(s, n_tokens)) {
        seq *victim = youngest(g, s->lane);
        if (victim == NULL)
            return false;
        seq_release(victim);
        victim->chunk = 0;
        victim->admitted = false;
        victim->lane->n_seqs--;
        g->n_admitted--;
        log_debug("engine", "request %llu gives its cache blocks back",
                  (unsigned long long)victim->owner->ticket);
        if (victim == s)
            return false;
    }
    return true;
}

/* Chooses the chunks of a lane; returns the tokens in all. Two rounds: one token each for running
 * sequences, then prefill with what is left of the budget. */
static int64_t choose(engine *g, lane *l)
{
    int64_t left = g->o.step_tokens;
    for (seq *s = g->seqs; s != NULL; s = s->next)
        if (s->lane == l)
            s->chunk = 0;
    for (int round = 0; round < 2; round++) {
        for (seq *s = g->seqs; s != NULL && left > 0; s = s->next) {
            if (s->lane != l || !s->admitted || s->done || s->chunk > 0)
                continue;
            int64_t todo = (int64_t)(s->n_ids - s->computed);
            if ((todo == 1) != (round == 0))
                continue;
            int64_t take = todo < left ? todo : left;
            if (!make_room(g, s, s->computed + (size_t)take))
                continue;
            s->chunk = take;
            left -= take;
        }
        /* Whoever gave way after it was chosen left some of the budget. */
        left = g->o.step_tokens;
        for (seq *s = g->seqs; s != NULL; s = s->next)
            left -= s->lane == l ? s->chunk : 0;
    }
    return g->o.step_tokens - left;
}

/* A step that failed fails every request in it: their caches cannot be trusted any more. */
static void fail_lane(engine *g, const lane *l, const hone_err *err)
{
    log_error("engine", "step failed: %s", err->msg);
    for (seq *s = g->seqs; s != NULL; s = s->next)
        if (s->lane == l && s->chunk > 0 && !s->done)
            sched_fail(g, s->owner, err->code, err->msg);
}

bool sched_turn(engine *g)
{
    bool worked = false;
    admit(g);
    for (lane *l = g->lanes; l != NULL; l = l->next) {
        if (l->n_seqs == 0 || choose(g, l) == 0)
            continue;
        hone_err err = {0};
        worked = true;
        if (engine_step_run(g, l, &err) != 0)
            fail_lane(g, l, &err);
    }
    sched_reap(g);
    return worked;
}
