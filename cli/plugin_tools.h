#pragma once
/* The verbs of `hone plugin` that are files of their own. */
#include "cli/args.h"
#include "core/base/err.h"

#include <stdbool.h>

typedef struct plugin_args {
    bool json, markdown, lua;
    const char *lang, *dir, *settings, *cases, *seconds;
    args_list set; /* key=value */
    const char *words[2];
    int n_words;
} plugin_args;

/* Judges a file in a child process, so that a crash or an endless loop is a finding. EINVAL when it
 * has failed a check. */
int plugin_check(const plugin_args *a, hone_err *e);

/* A folder with a plugin that builds and passes its own test. EEXIST when there is one. */
int plugin_new(const plugin_args *a, hone_err *e);

/* The hook table: as text, JSON, a page, or stubs for scripts. */
int plugin_hooks(const plugin_args *a, hone_err *e);
