#pragma once
/* A generation that a request waits for: what the scheduler says, kept until the connection's
 * thread takes it. One answer has one or several parts (prompts), each a request to the engine with
 * n choices; choice i of part p is choice p * n + i of the answer.
 *
 * Counted: the connection, the request and every part that the engine still works on hold a
 * reference, so that a client may leave at any time. */
#include "serve/http/backend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct answer answer;

enum { ANSWER_MAX_PARTS = 16 };

/* One event, copied. For ENGINE_DONE finish, n_prompt, n_answer and the times are filled. */
typedef struct answer_event {
    struct answer_event *next;
    engine_event_kind kind;
    int choice;
    char *text;
    size_t len;
    engine_logprob *logprobs;
    int n_logprobs;
    gen_finish finish;
    int64_t n_prompt, n_answer, queue_us, first_token_us, total_us;
} answer_event;
void answer_event_free(answer_event *ev);

/* Called when there is something to take, with the answer's lock held: it must only pass it on. */
typedef void answer_wake_fn(void *user);

typedef struct answer_options {
    const backend *engine;
    int n_choices;   /* of one part */
    int n_parts;     /* 1 to ANSWER_MAX_PARTS; each is submitted once */
    bool stream;     /* wake for every event; else only when all is there */
    int64_t ping_ns; /* a stream that has nothing to say for so long is woken to say so; 0: never */
    int64_t timeout_ns; /* for a scheduler that does not answer at all; 0: none */
    answer_wake_fn *wake;
    void *user;
} answer_options;

answer *answer_new(const answer_options *o);
answer *answer_ref(answer *a);
void answer_unref(answer *a); /* NULL is a no-op */

/* Submits one more part; r's fn and user are filled in. Errors as engine_submit; *retry_after_s
 * with EAGAIN. After an error the parts that were admitted go on: cancel them. */
int answer_submit(answer *a, engine_request *r, int *retry_after_s, hone_err *e);

/* Every part is submitted: from now on wake is called. The submitter touches nothing of the request
 * after this. */
void answer_seal(answer *a);

/* Nobody will take any more: cancels what runs, and wake is not called again. */
void answer_detach(answer *a);

/* Cancels what runs; the answer fails with this error unless it is over already. */
void answer_fail(answer *a, int code, const char *message);

/* What has come, in order (the caller frees it); NULL: nothing at the moment. */
answer_event *answer_take(answer *a);

typedef enum {
    ANSWER_WAITING, /* nothing to take yet */
    ANSWER_READY,   /* something to take */
    ANSWER_DONE,    /* all was taken, and all choices are done */
    ANSWER_FAILED   /* e says why; what came before it may still be taken */
} answer_state;
answer_state answer_poll(answer *a, hone_err *e);

/* True once for every ping that is due. */
bool answer_take_ping(answer *a);

/* The reaper looks: pings and timeouts. */
void answer_tick(answer *a, int64_t now_ns);
