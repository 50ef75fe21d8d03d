#pragma once
/* The table of subcommands. A command parses, calls and prints; the work is in the library. A
 * command returns the process status: 0 done, 1 failed (it has printed why), 2 wrong usage. */
#include "core/base/err.h"

#include <jansson.h>

typedef struct cmd {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the command's own name */
    const char *summary;               /* one line */
    const char *usage;                 /* what --help prints, ending with an example */
} cmd;

extern const cmd *const cmds[]; /* NULL-ended */
extern const cmd cmd_train;
extern const cmd cmd_preview;
extern const cmd cmd_eval;
extern const cmd cmd_score;
extern const cmd cmd_tokenize;
extern const cmd cmd_tokenizer;
extern const cmd cmd_render;
extern const cmd cmd_generate;
extern const cmd cmd_chat;
extern const cmd cmd_merge;
extern const cmd cmd_serve;
extern const cmd cmd_health;
extern const cmd cmd_key;
extern const cmd cmd_feedback;
extern const cmd cmd_audit;
extern const cmd cmd_retrain;
extern const cmd cmd_registry;
extern const cmd cmd_plugin;
extern const cmd cmd_doctor;

/* "hone: <message>" on standard error; returns 1. */
int cmd_failed(const hone_err *e);
/* The message and where help is, on standard error; returns 2. */
int cmd_usage(const cmd *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* JSON over several lines, on standard output. */
void cmd_print(const json_t *v);
