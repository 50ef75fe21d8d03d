#include "cli/train_args.h"

#include "cli/args.h"
#include "cli/extend.h"
#include "core/data/formats.h"

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

/* The reference page: every setting, every format, and what an entry of `datasets` may hold. */
static void print_reference(void)
{
    fputs("# Settings of `hone train`\n\n", stdout);
    conf_markdown(train_conf_rows, stdout);
    fputs("\n# Data\n\n| type | records |\n|---|---|\n", stdout);
    for (size_t i = 0; formats[i] != NULL; i++)
        printf("| `%s` | %s |\n", formats[i]->name, formats[i]->help);
    fputs("\nAn entry of `datasets` is a path, or a mapping of:\n\n"
          "| key | meaning |\n|---|---|\n"
          "| `path` | .jsonl, .ndjson, .json (a list, or JSON Lines) or .txt |\n"
          "| `type` | one of the above; default: what the first record looks like |\n"
          "| `ds_type` | json or text, for files with other names |\n"
          "| `sample_by` | what one record of a text file is: line, paragraph, document |\n"
          "| `train_on_inputs` | as the setting, for this file |\n"
          "| `message_property_mappings` | our name of a property of a message: its name here |\n"
          "| `roles` | our role: list of its names here |\n"
          "| `field_messages`, `field_tools`, `field_system`, `message_field_role`, "
          "`message_field_content`, `message_field_training`, `field_instruction`, `field_input`, "
          "`field_output`, `field_history`, `field_prompt`, `field_completion`, `field` (text) | "
          "names of fields that differ |\n"
          "\nA message with `train: false` is never learnt. Rows that cannot be used are in "
          "`rejects.jsonl` with file, line and reason.\n"
          "\n# Plugins\n\nAn entry of `plugins` is a path, or a mapping of:\n\n",
          stdout);
    conf_markdown(extend_rows, stdout);
}

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
        print_reference();
        *done = true;
        return 0;
    }
    if (n == 0)
        return cmd_usage(self, "a settings file is missing");
    const char *path = strchr(words[0], '=') == NULL ? words[0] : NULL;
    a->config = path;
    int first = path != NULL;
    for (int i = first; i < n; i++)
        if (strchr(words[i], '=') == NULL)
            return cmd_usage(self, "'%s' is no key=value", words[i]);
    if (train_conf_load(c, path, (char *const *)(words + first), (size_t)(n - first), &e) != 0)
        return cmd_failed(&e);
    return 0;
}
