/* hone plugin: what is loaded by whom, what a plugin may hook into, and help for writing one. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/extend.h"
#include "cli/plugin_tools.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/yaml.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const args_row rows[] = {
    {"json", offsetof(plugin_args, json), ARGS_FLAG},
    {"markdown", offsetof(plugin_args, markdown), ARGS_FLAG},
    {"lua", offsetof(plugin_args, lua), ARGS_FLAG},
    {"lang", offsetof(plugin_args, lang), ARGS_TEXT},
    {"dir", offsetof(plugin_args, dir), ARGS_TEXT},
    {"settings", offsetof(plugin_args, settings), ARGS_TEXT},
    {"set", offsetof(plugin_args, set), ARGS_LIST},
    {"cases", offsetof(plugin_args, cases), ARGS_TEXT},
    {"seconds", offsetof(plugin_args, seconds), ARGS_TEXT},
    {NULL, 0, ARGS_TEXT},
};

/* ---- list ---- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static void print_one(const json_t *one)
{
    const char *name;
    json_t *v;
    if (json_object_get(one, "error") != NULL) {
        printf("%s\n    not loaded: %s\n", text_of(one, "path"), text_of(one, "error"));
        return;
    }
    printf("%s %s  %s\n    %s\n    sha256 %s%s\n", text_of(one, "name"), text_of(one, "version"),
           text_of(one, "path"), text_of(one, "summary"), text_of(one, "sha256"),
           json_is_false(json_object_get(one, "approved")) ? " (not approved)" : "");
    if (json_object_size(json_object_get(one, "points")) > 0)
        fputs("    hooks:", stdout);
    json_object_foreach (json_object_get(one, "points"), name, v) {
        printf(" %s", name);
    }
    if (json_object_size(json_object_get(one, "points")) > 0)
        putchar('\n');
    json_object_foreach (json_object_get(one, "settings"), name, v) {
        char *text = json_dumps(v, JSON_ENCODE_ANY);
        printf("    %s: %s\n", name, text);
        free(text);
    }
}

static void show(const json_t *list, bool json)
{
    size_t i;
    json_t *one;
    if (json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
        return;
    }
    json_array_foreach (list, i, one) {
        print_one(one);
    }
}

/* An entry as it would be loaded: alone, so that one that cannot be says nothing about others. */
static json_t *look_at_entry(const json_t *entry, const char *config)
{
    hone_err e = {0};
    extend *x = NULL;
    trust_file f;
    json_t *alone = json_pack("[O]", entry), *one = NULL;
    int rc = extend_file(&f, alone, 0, config, true, &e);
    if (rc == 0)
        rc = extend_open(&x, alone, config, NULL, &e);
    if (rc == 0) {
        json_t *report = hook_report(extend_hooks(x));
        one = json_incref(json_array_get(report, 0));
        json_object_set_new(one, "path", json_string(f.path));
        json_decref(report);
    } else {
        const char *path =
            json_is_string(entry) ? json_string_value(entry) : text_of(entry, "path");
        const char *why = strncmp(e.msg, "plugins: entry 1: ", 18) == 0 ? e.msg + 18 : e.msg;
        one = json_pack("{s:s, s:s}", "path", path, "error", why);
    }
    extend_close(x);
    trust_close(&f);
    json_decref(alone);
    return one;
}

static int list_config(json_t *out, const char *config, hone_err *e)
{
    json_t *tree, *entry;
    size_t i;
    int rc = yaml_load(&tree, NULL, config, e);
    if (rc != 0)
        return rc;
    json_array_foreach (json_object_get(tree, "plugins"), i, entry) {
        json_array_append_new(out, look_at_entry(entry, config));
    }
    json_decref(tree);
    return 0;
}

static void list_folder(json_t *out, const char *folder)
{
    char **names = NULL;
    if (!file_is_dir(folder) || dir_list(&names, folder, NULL) != 0)
        return;
    for (size_t i = 0; names[i] != NULL; i++) {
        hone_err e = {0};
        trust_file f;
        json_t *one = NULL;
        if (!extend_is_plugin(names[i]))
            continue;
        int rc = trust_open(&f, folder, names[i], &e);
        if (rc == 0)
            rc = extend_describe(&one, &f, &e);
        if (rc == 0) /* settings are declared, not given: show their defaults */
            json_object_set_new(one, "path", json_string(f.path));
        else
            one = json_pack("{s:s, s:s}", "path", names[i], "error", e.msg);
        json_array_append_new(out, one);
        trust_close(&f);
    }
    dir_list_free(names);
}

static int do_list(const plugin_args *a, hone_err *e)
{
    json_t *list = json_array();
    int rc = 0;
    if (a->n_words > 0) {
        rc = list_config(list, a->words[0], e);
    } else {
        char **folders = extend_folders();
        for (size_t i = 0; folders[i] != NULL; i++)
            list_folder(list, folders[i]);
        dir_list_free(folders);
    }
    if (rc == 0)
        show(list, a->json);
    if (rc == 0 && !a->json && a->n_words > 0) {
        const hook_breaker b = hook_breaker_default();
        printf("taken out: for %lld s after %d failures, or after %d late calls that are half of "
               "all, in %lld s; and while a call hangs for %lld s\n",
               (long long)(b.window_ms / 1000), b.failures, b.late, (long long)(b.window_ms / 1000),
               (long long)(b.hang_ms / 1000));
        puts("given up: a call of a plugin in C after hang_seconds (10; of what comes with the "
             "program: never)");
    }
    json_decref(list);
    return rc;
}

/* ---- pin ---- */

static int do_pin(const plugin_args *a, hone_err *e)
{
    json_t *tree;
    const char *config = a->words[0];
    char *lock = extend_lock(config);
    int rc = yaml_load(&tree, NULL, config, e);
    const json_t *list = json_object_get(tree, "plugins");
    if (rc == 0 && json_array_size(list) == 0)
        rc = hone_fail(e, HONE_EINVAL, "%s: there is no plugin in it", config);
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        trust_file f;
        rc = extend_file(&f, list, i, config, false, e);
        if (rc == 0)
            rc = trust_pin(&f, lock, e);
        if (rc == 0)
            printf("%s  %s\n", f.sha256, f.path);
        trust_close(&f);
    }
    if (rc == 0)
        fprintf(stderr, "written to %s: whoever runs these files trusts them\n", lock);
    json_decref(tree);
    free(lock);
    return rc;
}

/* ---- the verbs ---- */

typedef struct verb {
    const char *name;
    int (*run)(const plugin_args *a, hone_err *e);
    int min_words, max_words;
    const char *words;
} verb;

/* clang-format off */
static const verb verbs[] = {
    {"list",  do_list,      0, 1, NULL},
    {"pin",   do_pin,       1, 1, "a settings file"},
    {"check", plugin_check, 1, 1, "a plugin's file"},
    {"new",   plugin_new,   1, 1, "a name"},
    {"hooks", plugin_hooks, 0, 1, NULL},
};
/* clang-format on */

static int run(int argc, char **argv)
{
    plugin_args a = {0};
    hone_err e = {0};
    const verb *v = NULL;
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, argv[1]) == 0)
            v = &verbs[i];
    if (v == NULL)
        return cmd_usage(&cmd_plugin, "what should be done: list, pin, check, new or hooks?");
    if (args_parse(rows, &a, argc - 1, argv + 1, a.words, v->max_words, &a.n_words, &e) != 0)
        return cmd_usage(&cmd_plugin, "%s", e.msg);
    if (a.n_words < v->min_words)
        return cmd_usage(&cmd_plugin, "%s takes %s", v->name, v->words);
    return v->run(&a, &e) == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_plugin = {
    "plugin", run, "list, approve, check and begin plugins and scripts",
    "usage: hone plugin list [SETTINGS.yaml] [--json]\n"
    "       hone plugin pin SETTINGS.yaml\n"
    "       hone plugin check FILE [--set KEY=VALUE]... [--settings FILE.yaml] [--cases "
    "FILE.jsonl]\n"
    "            [--seconds N] [--json]\n"
    "       hone plugin new NAME --lang c|lua [--dir DIR]\n"
    "       hone plugin hooks [NAME] [--json|--markdown|--lua]\n"
    "\n"
    "list shows what a settings file loads; without one, what comes with the program. pin writes\n"
    "the digests of its files into plugins.lock beside it: only what stands there is loaded. "
    "check\n"
    "runs a file in a process of its own: every hook with the example of the hook table and with\n"
    "nonsense, several threads, time, leaks. --set gives it a setting, the value as YAML;\n"
    "--settings a file of them. --cases gives calls and what must come of them, one after the "
    "other,\n"
    "a JSON object a line: {\"hook\", \"data\", \"answer\": \"continue|modified|veto|error\",\n"
    "\"result\"}. The first at a point is its example then, with those before it played first. "
    "Data of\n"
    "train.batch are {\"examples\": [{\"id\", \"row\", \"ids\", \"mask\"}], \"step\"}, of "
    "serve.logits\n"
    "{\"row\", \"ids\", \"step\"}; the result is the list of weights, or the row.\n"
    "new makes a folder with a plugin that builds and passes its test. hooks is the reference.\n"
    "\n"
    "example: hone plugin new polite --lang lua"};
