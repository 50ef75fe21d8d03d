/* hone plugin new: a plugin that builds and passes its own test, to be changed from there. */
#include "cli/extend.h"
#include "cli/plugin_tools.h"
#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/mem.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char c_source[] =
    "/* @: what does it do? `hone plugin hooks` lists where a plugin may hook in. */\n"
    "#include <hone_plugin.h>\n"
    "\n"
    "/* Drops records whose text is shorter than min_bytes. */\n"
    "static int keep_or_drop(const hone_host *h, hone_call *call, void *user)\n"
    "{\n"
    "    size_t n = 0;\n"
    "    const hone_value *record = h->get(call->data, \"record\");\n"
    "    int64_t least = h->integer(h->get(h->settings(call->ctx), \"min_bytes\"), 0);\n"
    "    (void)user;\n"
    "    if (hone_get_string(h, record, \"text\", &n) == NULL || (int64_t)n >= least)\n"
    "        return HONE_CONTINUE;\n"
    "    h->count(call->ctx, \"dropped\", 1);\n"
    "    return h->veto(call, \"%lu bytes, at least %ld are wanted\", (unsigned long)n,\n"
    "                   (long)least);\n"
    "}\n"
    "\n"
    "static int start(const hone_host *h, hone_ctx *cx)\n"
    "{\n"
    "    return h->on(cx, \"data.filter\", 0, keep_or_drop, NULL);\n"
    "}\n"
    "\n"
    "static const hone_setting settings[] = {\n"
    "    {\"min_bytes\", HONE_SET_INT, 0, \"10\", 0, 1000000, NULL, \"shorter texts are "
    "dropped\"},\n"
    "};\n"
    "\n"
    "static const hone_descriptor descriptor = {\n"
    "    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, 0),\n"
    "    \"@\",\n"
    "    \"0.1.0\",\n"
    "    \"Apache-2.0\",\n"
    "    \"drops short records\",\n"
    "    HONE_SETTINGS(settings),\n"
    "    start,\n"
    "    NULL,\n"
    "};\n"
    "\n"
    "HONE_PLUGIN(descriptor)\n";

static const char c_makefile[] =
    "# `make` builds @.so, `make test` judges it.\n"
    "HONE ?= %HONE%\n"
    "HONE_INCLUDE ?= %INCLUDE%\n"
    "CFLAGS ?= -O2 -g -Wall -Wextra\n"
    "\n"
    "@.so: @.c\n"
    "\t$(CC) -std=c99 $(CFLAGS) -I$(HONE_INCLUDE) -fPIC -fvisibility=hidden -shared -o $@ $<\n"
    "\n"
    "test: @.so\n"
    "\t$(HONE) plugin check ./@.so --cases cases.jsonl\n"
    "\n"
    "clean:\n"
    "\trm -f @.so\n"
    "\n"
    ".PHONY: test clean\n";

static const char c_cases[] =
    "{\"hook\": \"data.filter\", \"data\": {\"record\": {\"text\": \"long enough\"}}, "
    "\"answer\": \"continue\"}\n"
    "{\"hook\": \"data.filter\", \"data\": {\"record\": {\"text\": \"short\"}}, "
    "\"answer\": \"veto\"}\n";

static const char lua_source[] =
    "-- @: what does it do? `hone plugin hooks` lists where a script may hook in.\n"
    "plugin {\n"
    "  name = '@',\n"
    "  version = '0.1.0',\n"
    "  summary = 'drops short records',\n"
    "  settings = {\n"
    "    min_bytes = {type = 'integer', default = 10, min = 0, help = 'shorter texts are "
    "dropped'},\n"
    "  },\n"
    "}\n"
    "\n"
    "on('data.filter', function(record)\n"
    "  if record.text and #record.text < host.config.min_bytes then\n"
    "    return false, #record.text .. ' bytes, less than ' .. host.config.min_bytes\n"
    "  end\n"
    "  return true\n"
    "end)\n";

static const char lua_makefile[] = "# `make test` judges @.lua.\n"
                                   "HONE ?= %HONE%\n"
                                   "\n"
                                   "test:\n"
                                   "\t$(HONE) plugin check ./@.lua --cases cases.jsonl\n"
                                   "\n"
                                   ".PHONY: test\n";

static const char readme[] =
    "# @\n"
    "\n"
    "`make test` runs it on `cases.jsonl`: a hook, what it is given, what must come of it.\n"
    "\n"
    "To use it, name it in the settings of a run or a server and approve it:\n"
    "\n"
    "    plugins:\n"
    "      - path: %DIR%/%FILE%\n"
    "        settings: {min_bytes: 20}\n"
    "\n"
    "    hone plugin pin SETTINGS.yaml\n";

typedef struct template
{
    const char *name; /* with '@' for the plugin's name */
    const char *text;
}
template;

static const struct {
    const char *lang, *suffix;
    const template *files;
} langs[] = {
    {"c", ".so",
     (const template[]){{"@.c", c_source},
                        {"Makefile", c_makefile},
                        {"cases.jsonl", c_cases},
                        {"README.md", readme},
                        {NULL, NULL}}},
    {"lua", ".lua",
     (const template[]){{"@.lua", lua_source},
                        {"Makefile", lua_makefile},
                        {"cases.jsonl", c_cases},
                        {"README.md", readme},
                        {NULL, NULL}}},
};

typedef struct words {
    const char *name, *hone, *include, *dir, *file;
} words;

/* '@' is the name of the plugin; %WORD% what the table says. "$@" is make's own. */
static void fill(buf *out, const char *text, const words *w)
{
    const struct {
        const char *key, *value;
    } keys[] = {
        {"%HONE%", w->hone}, {"%INCLUDE%", w->include}, {"%DIR%", w->dir}, {"%FILE%", w->file}};
    for (const char *s = text; *s != '\0';) {
        size_t k = 0, n = sizeof keys / sizeof *keys;
        while (k < n && strncmp(s, keys[k].key, strlen(keys[k].key)) != 0)
            k++;
        if (k < n) {
            buf_str(out, keys[k].value);
            s += strlen(keys[k].key);
        } else if (*s == '@' && (s == text || s[-1] != '$')) {
            buf_str(out, w->name);
            s++;
        } else {
            buf_char(out, *s++);
        }
    }
}

static int write_file(const char *dir, const template *t, const words *w, hone_err *e)
{
    buf name, text;
    buf_init(&name, 4096);
    buf_init(&text, 1 << 20);
    fill(&name, t->name, w);
    fill(&text, t->text, w);
    char *path = path_join(dir, name.data);
    int rc = file_write(path, text.data, text.len, e);
    free(path);
    buf_free(&name);
    buf_free(&text);
    return rc;
}

/* Where hone_plugin.h lies: installed, in a bundle, or in the tree that built this program; caller
 * frees. */
static char *include_dir(const char *self)
{
    static const char *const places[] = {"../include", "include", "../plugins"};
    char *here = path_dir(self), *found = NULL;
    for (size_t i = 0; found == NULL && i < sizeof places / sizeof *places; i++) {
        char *dir = path_join(here, places[i]), *header = path_join(dir, "hone_plugin.h");
        if (file_exists(header))
            found = realpath(dir, NULL);
        free(header);
        free(dir);
    }
    free(here);
    return found;
}

static int check_name(const char *name, hone_err *e)
{
    size_t n = strlen(name);
    if (n > 0 && n < 64 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == n)
        return 0;
    return hone_fail(e, HONE_EINVAL, "'%.80s' is no name of a plugin: [a-z0-9_-], at most 63",
                     name);
}

int plugin_new(const plugin_args *a, hone_err *e)
{
    char self[PATH_MAX] = "";
    const char *lang = a->lang != NULL ? a->lang : "c", *name = a->words[0];
    size_t i = 0, n = sizeof langs / sizeof *langs;
    while (i < n && strcmp(langs[i].lang, lang) != 0)
        i++;
    if (i == n)
        return hone_fail(e, HONE_EINVAL, "--lang '%.20s': it is c or lua", lang);
    if (check_name(name, e) != 0)
        return e->code;
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return file_error(e, "/proc/self/exe", "cannot read");
    char *include = include_dir(self), *dir = path_join(a->dir != NULL ? a->dir : ".", name);
    char *file = mem_printf("%s%s", name, langs[i].suffix);
    const words w = {name, self, include != NULL ? include : "", name, file};
    int rc = 0;
    if (include == NULL && strcmp(lang, "c") == 0)
        rc = hone_fail(e, HONE_ENOTFOUND,
                       "hone_plugin.h lies neither in ../include nor in include beside %s: copy it "
                       "there, plugins need it",
                       self);
    else if (file_exists(dir))
        rc = hone_fail(e, HONE_EEXIST, "%s: exists already", dir);
    else
        rc = dir_make(dir, e);
    for (const template *t = langs[i].files; rc == 0 && t->name != NULL; t++)
        rc = write_file(dir, t, &w, e);
    if (rc == 0)
        printf("%s: now `make -C %s test`\n", dir, dir);
    free(file);
    free(dir);
    free(include);
    return rc;
}
