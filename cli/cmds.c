/* The one list of subcommands, in the order in which help shows them. */
#include "cli/cmd.h"

#include <stddef.h>

/* clang-format off */
const cmd *const cmds[] = {
    &cmd_train,
    &cmd_preview,
    &cmd_eval,
    &cmd_score,
    &cmd_tokenize,
    &cmd_tokenizer,
    &cmd_render,
    &cmd_generate,
    &cmd_chat,
    &cmd_merge,
    &cmd_serve,
    &cmd_health,
    &cmd_key,
    &cmd_feedback,
    &cmd_audit,
    &cmd_retrain,
    &cmd_registry,
    &cmd_plugin,
    &cmd_doctor,
    NULL,
};
