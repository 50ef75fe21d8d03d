#pragma once
/* An engine without a model, for tests of the HTTP layer: a thread that says what the test tells it
 * to say, a byte a token, with a real tokenizer (one token a byte) and a real chat template. */
#include "serve/http/backend.h"

#include <stdatomic.h>

typedef struct aid_fake aid_fake;

/* What it does; may be changed while it runs. */
typedef struct aid_fake_plan {
    _Atomic(const char *) text; /* the answer; choice i > 0 has its number behind it */
    atomic_int prefill_ms;      /* before the first token */
    atomic_int token_ms;        /* before every token */
    atomic_int queue_full;      /* refuse with EAGAIN */
    atomic_int fail_after;      /* >= 0: an error after so many tokens (EDEVICE) */
    atomic_int no_model;        /* current() is NULL */
    atomic_int beside;          /* there is a second model, fake-canary */
    atomic_int deaf;            /* says nothing at all until it is cancelled */
    atomic_int hold_after;      /* >= 0: no more than so many tokens until this is -1 again */
    atomic_int step_age_ms;     /* what the heartbeat shows */
} aid_fake_plan;

/* dir: an empty directory, where the tokenizer and the template are written. */
aid_fake *aid_fake_start(const char *dir);
void aid_fake_stop(aid_fake *f);
aid_fake_plan *aid_fake_plan_of(aid_fake *f);
const backend *aid_fake_backend(aid_fake *f);

/* Requests taken, cancelled, and running now; references to the model that are out. */
int aid_fake_taken(aid_fake *f);
int aid_fake_cancelled(aid_fake *f);
int aid_fake_running(aid_fake *f);
int aid_fake_references(aid_fake *f);

/* The parameters and the prompt of the last request, as "temperature=1 ..." and as text; caller
 * frees. */
char *aid_fake_last_params(aid_fake *f);
char *aid_fake_last_prompt(aid_fake *f);
