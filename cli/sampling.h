#pragma once
/* The options of commands that let a model write. */
#include "cli/args.h"
#include "core/model/gen.h"

typedef struct sampling_args {
    const char *max_tokens, *temperature, *top_k, *top_p, *min_p;
    const char *repetition, *presence, *frequency, *seed;
    args_list stop, stop_id, bias;
    bool ignore_eos;
} sampling_args;

/* clang-format off */
#define SAMPLING_ARGS(type, field)                                                                 \
    {"max-tokens",         offsetof(type, field.max_tokens),  ARGS_TEXT},                          \
    {"temperature",        offsetof(type, field.temperature), ARGS_TEXT},                          \
    {"top-k",              offsetof(type, field.top_k),       ARGS_TEXT},                          \
    {"top-p",              offsetof(type, field.top_p),       ARGS_TEXT},                          \
    {"min-p",              offsetof(type, field.min_p),       ARGS_TEXT},                          \
    {"repetition-penalty", offsetof(type, field.repetition),  ARGS_TEXT},                          \
    {"presence-penalty",   offsetof(type, field.presence),    ARGS_TEXT},                          \
    {"frequency-penalty",  offsetof(type, field.frequency),   ARGS_TEXT},                          \
    {"seed",               offsetof(type, field.seed),        ARGS_TEXT},                          \
    {"stop",               offsetof(type, field.stop),        ARGS_LIST},                          \
    {"stop-id",            offsetof(type, field.stop_id),     ARGS_LIST},                          \
    {"logit-bias",         offsetof(type, field.bias),        ARGS_LIST},                          \
    {"ignore-eos",         offsetof(type, field.ignore_eos),  ARGS_FLAG}
#define SAMPLING_HELP                                                                              \
    "  --max-tokens N      length of an answer; -1: up to the context\n"                           \
    "  --temperature T     0: always the most likely token\n"                                      \
    "  --top-k N           keep the N most likely tokens; 0: all\n"                                \
    "  --top-p P           keep the most likely tokens that make up P of the probability\n"        \
    "  --min-p P           keep tokens of at least P times the highest probability\n"              \
    "  --repetition-penalty X, --presence-penalty X, --frequency-penalty X\n"                      \
    "  --seed N            the same seed gives the same text; default a new one each time\n"       \
    "  --stop TEXT         end before this text; may be given more than once, as the next two\n"   \
    "  --stop-id ID        end at this token, as at the model's own\n"                             \
    "  --logit-bias ID=X   add X to the logit of this token\n"                                     \
    "  --ignore-eos        go on past the model's own stop tokens\n"                               \
    "  What is not given is taken from the model's generation_config.json.\n"
/* clang-format on */

/* Arrays that the parameters point to. */
typedef struct sampling {
    gen_params p;
    int32_t stop_id[ARGS_MAX_LIST], bias_id[ARGS_MAX_LIST];
    float bias[ARGS_MAX_LIST];
} sampling;

/* Defaults, then what the model in dir says, then the options, checked. `max_tokens` is the length
 * where none of them says one. The arguments must outlive s. */
int sampling_read(sampling *s, const sampling_args *a, const char *dir, int64_t max_tokens,
                  int64_t n_vocab, hone_err *e);
