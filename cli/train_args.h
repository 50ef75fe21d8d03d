#pragma once
/* The words of `hone train` and `hone preview`: a settings file, assignments, and a few options. */
#include "cli/cmd.h"
#include "core/train/train_conf.h"

#include <stdbool.h>

typedef struct train_args {
    bool json, settings;
    const char *rows;   /* preview */
    const char *config; /* the settings file, borrowed from argv; NULL: none */
} train_args;

/* Parses argv and loads the settings. 0; or the status to end with, everything having been said.
 * With --settings the reference page has been printed and *done is set. */
int train_args_load(train_conf *c, train_args *a, bool *done, const cmd *self, int argc,
                    char **argv);
