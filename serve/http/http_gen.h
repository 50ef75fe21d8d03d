#pragma once
/* A generation of a request, from the submitted prompts to the reply: whole, or as server-sent
 * events. What differs between chat and completions is in a face. Internal to serve/http. */
#include "serve/http/http_params.h"
#include "serve/http/http_req.h"

/* One choice of the answer. */
typedef struct gen_choice {
    buf text;
    json_t *logprobs; /* an array of entries, for the face to shape; NULL when not wanted */
    gen_finish finish;
    bool begun, done;
    int64_t n_answer;
    int64_t offset; /* characters before the next token, for text_offset */
} gen_choice;

typedef struct gen_prompt_text {
    int32_t *ids;
    size_t n;
    char *text; /* for echo and the record */
} gen_prompt_text;

typedef struct gen_face {
    const char *object, *chunk_object;
    /* New references: a choice as it stands in a whole answer; and in a stream, with new text (may
     * be empty), its log-probability entries (NULL: none), and the reason when the choice is done
     * (else NULL). */
    json_t *(*whole)(const struct http_gen *g, int choice);
    json_t *(*delta)(struct http_gen *g, int choice, const char *text, size_t len, json_t *entries,
                     const char *finish);
    bool says_role; /* a stream begins with a chunk that only says who speaks */
} gen_face;

struct http_gen {
    const gen_face *face;
    params p;
    served *m;
    bool routed; /* a subscriber has chosen it, whatever the client has asked for */
    gen_choice *choice;
    int n_choices; /* p.n for every prompt */
    gen_prompt_text *prompt;
    int n_prompts;
    bool discard; /* only the prompt's log-probabilities are wanted */
    int64_t tok_in, tok_out, queue_us, first_us, total_us, created;
    int64_t reserved;
    bool holds; /* a reservation */
    const char *keep;
    char fingerprint[24], user_hash[33];
    bool recorded;
};

/* Reads r->json for a surface: hooks, the model, the key's rights, parameters, storing. NULL after
 * an error reply. The generation belongs to the request. */
http_gen *http_gen_new(http_req *r, const gen_face *face, int surface);
void http_gen_free(http_gen *g); /* NULL is a no-op */

/* Appends a prompt: the SERVE_PROMPT hook, then tokens (flags as tok_encode). False after an error
 * reply. */
bool http_gen_add_text(http_req *r, const char *text, size_t len, unsigned flags,
                       const char *field);
bool http_gen_add_ids(http_req *r, const json_t *ids, const char *field);

/* Checks the context, reserves, submits every prompt. The last thing that a handler does. */
void http_gen_run(http_req *r);

/* On a worker, when all of a whole answer is there: makes the reply. */
void http_gen_finish(http_req *r);

/* On the connection's thread: may the reply begin? Sets up the stream, or an error reply. */
bool http_gen_ready(http_req *r);

/* The request is over; `ok` if all of the reply was sent. */
void http_gen_over(http_req *r, bool ok);

/* Entries of log-probabilities: {token, logprob, bytes, top_logprobs: [{token, logprob, bytes}]}.
 * New reference. */
json_t *http_gen_entries(const http_gen *g, const engine_logprob *lp, int n);

/* For the stream. */
void http_gen_done(http_gen *g, const answer_event *ev); /* takes what ENGINE_DONE says */
json_t *http_gen_usage(const http_gen *g);
json_t *http_gen_envelope(const http_req *r, const char *object,
                          json_t *choices);           /* takes choices */
http_error http_gen_error(int code);                  /* of what the engine says */
void http_gen_failed(http_req *r, const hone_err *e); /* error reply and record */
void http_gen_say_token(http_req *r);                 /* x-feedback-token */
