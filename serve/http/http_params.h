#pragma once
/* The parameters of /v1/chat/completions and /v1/completions: one table says which are taken, in
 * what range, and which are refused by name. Nothing is ignored: a parameter that the server would
 * not follow is an error. */
#include "core/base/err.h"
#include "serve/engine/engine.h"

#include <jansson.h>
#include <stdbool.h>

enum { PARAMS_CHAT = 1, PARAMS_COMPLETION = 2 };

enum {
    PARAMS_MAX_CHOICES = 8,
    PARAMS_MAX_PROMPTS = 16,
    PARAMS_MAX_STOPS = 16,
    PARAMS_MAX_STOP_BYTES = 256,
    PARAMS_MAX_BIAS = 1024,
    PARAMS_MAX_MESSAGES = 4096,
    PARAMS_MAX_TOOLS = 256,
    PARAMS_NAME = 96
};

typedef enum { PARAMS_STORE_UNSET, PARAMS_STORE_NO, PARAMS_STORE_YES } params_store;

/* Borrowed values point into the body. */
typedef struct http_params {
    gen_params gen; /* stop, stop_ids, bias_id and bias are ours */
    const char *model, *user;
    int64_t n, max_tokens; /* max_tokens -1: not given; 0 only with echo */
    bool stream, include_usage, has_seed;
    bool logprobs; /* wanted */
    int64_t n_top;
    bool echo;
    params_store store;
    const json_t *metadata;
    json_t *messages;                /* chat: in the form that templates expect; new reference */
    json_t *tools, *template_kwargs; /* new references or NULL */
    bool add_generation_prompt;
    const json_t *prompt; /* completions: string, strings, ids, or lists of ids */
} params;

/* Reads the body of a request. `base` gives temperature and the like where the body does not. On an
 * error `name` is the parameter ("messages[2].content"): EUNSUPPORTED for one that is refused,
 * EINVAL for a bad value. Release with params_free in every case. */
int params_read(params *p, int surface, const json_t *body, const gen_params *base,
                char name[PARAMS_NAME], hone_err *e);
void params_free(params *p);

/* What was asked for, for the record of the request. New reference. */
json_t *params_record(const params *p);
