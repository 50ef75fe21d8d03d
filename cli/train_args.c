#include "cli/train_args.h"

#include "cli/args.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WORDS = 256 };

static const args_row rows[] = {
    {"json", offsetof(train_args, json), true},
    {"settings", offsetof(train_args, settings), true},
    {"rows", offsetof(train_args, rows), false},
    {NULL, 0, false},
};

int train_args_load(train_conf *c, train_args *a, bool *done, const cmd *self, int argc,
                    char **argv)
{
    const char *words[MAX_WORDS];
    hone_err e = {0};
    int n = 0;
    *a = (train_args){0};
    *c = (train_conf){0};
    *done = false;
    if (args_parse(rows, a, argc, argv, words, MAX_WORDS, &n, &e) != 0)
        return cmd_usage(self, "%s", e.msg);
    if (a->settings) {
        conf_markdown(train_conf_rows, stdout);
        *done = true;
        return 0;
    }
    if (n == 0)
        return cmd_usage(self, "a settings file is missing");
    const char *path = strchr(words[0], '=') == NULL ? words[0] : NULL;
    int first = path != NULL;
    for (int i = first; i < n; i++)
        if (strchr(words[i], '=') == NULL)
            return cmd_usage(self, "'%s' is no key=value", words[i]);
    if (train_conf_load(c, path, (char *const *)(words + first), (size_t)(n - first), &e) != 0)
        return cmd_failed(&e);
    return 0;
}
