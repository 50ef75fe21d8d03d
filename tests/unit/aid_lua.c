#include "tests/unit/aid_lua.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"

#include <stdlib.h>
#include <string.h>

void aid_lua_write(aid_lua *a, const char *file, const char *text)
{
    char *path = path_join(a->dir, file);
    bool headed = strstr(text, "plugin {") != NULL || strstr(text, "plugin{") != NULL;
    char *whole = mem_printf(
        "%s%s", headed ? "" : "plugin {name='t', version='1', summary='a test'}; ", text);
    assert_int_equal(file_write(path, whole, strlen(whole), NULL), 0);
    free(whole);
    free(path);
}

int aid_lua_open(aid_lua *a, const char *file, const char *text)
{
    if (a->dir == NULL)
        a->dir = aid_dir_quick();
    aid_lua_write(a, file, text);
    char *path = path_join(a->dir, file);
    a->hooks = hook_new();
    a->args.hooks = a->hooks;
    a->args.path = path;
    a->e = (hone_err){0};
    int rc = lua_plugin_open(&a->plugin, &a->args, &a->e);
    assert_int_equal(rc == 0, a->plugin != NULL);
    free(path);
    return rc;
}

void aid_lua_close(aid_lua *a)
{
    lua_plugin_close(a->plugin);
    hook_free(a->hooks);
    json_decref(a->data);
    aid_dir_drop(a->dir);
    *a = (aid_lua){0};
}

int aid_lua_emit(aid_lua *a, const char *point, const char *json)
{
    hook_point p;
    char *text = mem_strdup(json);
    for (char *c = text; *c != '\0'; c++)
        *c = *c == '\'' ? '"' : *c;
    json_decref(a->data);
    a->e = (hone_err){0};
    assert_int_equal(hook_by_name(&p, point, &a->e), 0);
    assert_int_equal(js_parse(&a->data, text, strlen(text), &a->e), 0);
    free(text);
    return hook_emit(a->hooks, p, &a->data, &a->e);
}

const char *aid_lua_data(aid_lua *a)
{
    static char text[8192];
    size_t n =
        json_dumpb(a->data, text, sizeof text - 1, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    assert_true(n < sizeof text);
    text[n] = '\0';
    return text;
}
