#include "serve/engine/canary.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_MS = 50, GRACE_MS = 5000 };

/* Held by the asker and, while it has the request, by the engine: one that hangs must not keep the
 * asker. */
typedef struct question {
    pthread_mutex_t lock;
    pthread_cond_t over;
    int refs;
    bool done;
    int n_tokens, rc;
    hone_err err;
} question;

static void drop(question *q)
{
    pthread_mutex_lock(&q->lock);
    bool last = --q->refs == 0;
    pthread_mutex_unlock(&q->lock);
    if (!last)
        return;
    pthread_cond_destroy(&q->over);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

static void hear(void *user, const engine_event *ev, bool last)
{
    question *q = user;
    pthread_mutex_lock(&q->lock);
    if (ev->kind == ENGINE_TEXT) {
        q->n_tokens += ev->n_logprobs;
    } else if (ev->kind == ENGINE_ERROR) {
        q->err = *ev->err;
        q->rc = ev->err->code;
    }
    q->done = last;
    if (last)
        pthread_cond_signal(&q->over);
    pthread_mutex_unlock(&q->lock);
    if (last)
        drop(q);
}

static int wait_for(question *q, int timeout_ms, hone_err *e)
{
    struct timespec until;
    int rc = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000 + 1;
    pthread_mutex_lock(&q->lock);
    while (!q->done && pthread_cond_timedwait(&q->over, &q->lock, &until) == 0)
        ;
    if (!q->done)
        rc = hone_fail(e, HONE_ETIMEOUT, "the engine does not answer");
    else if (q->rc != 0)
        rc = hone_fail(e, q->rc, "%s", q->err.msg);
    else if (q->n_tokens == 0)
        rc = hone_fail(e, HONE_EINTERNAL, "the model gave no token");
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static question *question_new(void)
{
    question *q = mem_alloc(sizeof *q);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->over, &attr);
    pthread_condattr_destroy(&attr);
    q->refs = 1;
    return q;
}

/* Greedy, and the end of the answer is a token like others. */
static int submit(engine *g, served *s, question *q, int timeout_ms, hone_err *e)
{
    tok_ids ids = {0};
    gen_params p;
    uint64_t ticket;
    int retry_s;
    int64_t end = clock_mono_ns() + (int64_t)timeout_ms * 1000000;
    int rc = tok_encode(s->tok, "hello", 5, TOK_ADD_SPECIAL, &ids, e);
    gen_defaults(&p);
    p.max_tokens = 1;
    p.temperature = 0;
    p.ignore_eos = true;
    const int32_t none = 0;
    const engine_request r = {.on = s,
                              .prompt = ids.n > 0 ? ids.id : &none,
                              .n_prompt = ids.n > 0 ? ids.n : 1,
                              .params = &p,
                              .n = 1,
                              .deadline_ms = timeout_ms,
                              .fn = hear,
                              .user = q};
    while (rc == 0 && (rc = engine_submit(g, &r, &ticket, &retry_s, e)) == HONE_EAGAIN &&
           clock_mono_ns() < end) {
        usleep(RETRY_MS * 1000);
        rc = 0;
    }
    tok_ids_free(&ids);
    return rc;
}

int canary_ask(engine *g, served *s, int timeout_ms, hone_err *e)
{
    question *q = question_new();
    q->refs++; /* the engine's */
    int rc = submit(g, s, q, timeout_ms, e);
    if (rc != 0)
        drop(q);
    else
        rc = wait_for(q, timeout_ms + GRACE_MS, e);
    drop(q);
    return rc == 0 ? 0 : hone_fail_at(e, "the first question");
}
