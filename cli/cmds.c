/* The one list of subcommands, in the order in which help shows them. */
#include "cli/cmd.h"

#include <stddef.h>

const cmd *const cmds[] = {
    &cmd_train,    &cmd_preview, &cmd_render,   &cmd_eval,  &cmd_merge,  &cmd_retrain,
    &cmd_registry, &cmd_key,     &cmd_feedback, &cmd_audit, &cmd_doctor, NULL,
};
