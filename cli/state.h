#pragma once
/* What the commands that work on a state directory share: how it is found, their verbs, and how
 * they print. */
#include "adapters/sign.h"
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/extend.h"
#include "serve/store/store.h"

#include <jansson.h>
#include <stddef.h>

/* The options that all of them take. */
typedef struct state_args {
    const char *config, *state;
    bool json;
} state_args;

/* clang-format off */
#define STATE_ARGS(type, field)                                                                    \
    {"config", offsetof(type, field.config), ARGS_TEXT},                                           \
    {"state",  offsetof(type, field.state),  ARGS_TEXT},                                           \
    {"json",   offsetof(type, field.json),   ARGS_FLAG}
#define STATE_HELP                                                                                 \
    "  --config FILE   the appliance's settings (hone.yaml when it is there)\n"                    \
    "  --state DIR     its state directory, without settings\n"                                    \
    "  --json          as JSON\n"
/* clang-format on */

/* What a verb works on. */
enum { STATE_MAX_WORDS = 256 };
typedef struct state_call {
    store *st;
    const char *actor; /* "cli:<user>", for the audit log */
    const state_args *args;
    const void *options; /* of the command */
    const char *word[STATE_MAX_WORDS];
    int n_words;
} state_call;

/* One row is one verb; the table ends with a NULL name. */
typedef struct state_verb {
    const char *name;
    int (*run)(const state_call *c, hone_err *e);
    int min_words, max_words;
    const char *words; /* what is missing when there are too few: "the id of a key" */
    bool makes_state;  /* may be the first to use the directory */
} state_verb;

/* Finds the verb in argv[1], fills `options` by the rows (`args` lies in it), opens the state and
 * runs the verb. The status of the process. */
int state_run(const cmd *self, const state_verb *verbs, const args_row *rows, void *options,
              const state_args *args, int argc, char **argv);

/* Opens the database of --config (its state_dir) or --state; with neither, of ./hone.yaml, else
 * ./state. */
int state_open(store **out, const state_args *a, bool must_exist, hone_err *e);

/* The plugins of the same settings. */
int state_plugins(extend **out, const state_args *a, hone_err *e);

/* Whose signatures count there: the same settings, and the key of the open store's directory. */
int state_trust(sign_trust *t, const store *s, const state_args *a, hone_err *e);

/* "cli:<user>", for the audit log; caller frees. */
char *state_actor(void);

/* A line of JSON on standard output. EIO when nobody takes it any more. */
int state_print(const json_t *v, hone_err *e);
