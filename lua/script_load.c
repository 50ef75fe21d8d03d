/* Loading: the environment, the header, and what the script hooks into. */
#include "lua/script_int.h"

#include "core/base/js.h"
#include "lua/lib.h"
#include "lua/settings.h"
#include "lua/value.h"

#include <lauxlib.h>
#include <string.h>

const char script_functions_key, script_tests_key;

static script *script_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

static void only_loading(lua_State *L, const char *what)
{
    if (!sandbox_loading(sandbox_of(L)))
        luaL_error(L, "'%s' is for loading, not for a hook", what);
}

/* ---- plugin {...} ---- */

static void take_text(lua_State *L, script *s, const char *key, size_t max)
{
    size_t n;
    if (lua_getfield(L, 1, key) != LUA_TSTRING)
        luaL_error(L, "plugin: %s = '...' is missing", key);
    const char *text = lua_tolstring(L, -1, &n);
    if (n == 0 || n > max)
        luaL_error(L, "plugin: %s has 1 to %d characters", key, (int)max);
    json_t *v = json_stringn(text, n);
    if (v == NULL)
        luaL_error(L, "plugin: %s is not UTF-8", key);
    json_object_set_new(s->header, key, v);
    lua_pop(L, 1);
}

static void check_name(lua_State *L, const script *s)
{
    const char *name = json_string_value(json_object_get(s->header, "name"));
    if (name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-")] != '\0')
        luaL_error(L, "plugin: name '%s' has other characters than a-z, 0-9, '_' and '-'", name);
}

/* The names of the tests go into the header, their functions into the registry. */
static void take_tests(lua_State *L, script *s)
{
    json_t *names = json_array();
    json_object_set_new(s->header, "tests", names);
    if (lua_getfield(L, 1, "tests") == LUA_TNIL)
        lua_newtable(L);
    luaL_argcheck(L, lua_type(L, -1) == LUA_TTABLE, 1, "tests is a table of functions");
    lua_getglobal(L, "pairs");
    lua_pushvalue(L, -2);
    lua_call(L, 1, 3);
    for (;;) {
        int step = lua_gettop(L) - 2;
        lua_pushvalue(L, step);
        lua_pushvalue(L, step + 1);
        lua_pushvalue(L, step + 2);
        lua_call(L, 2, 2);
        if (lua_isnil(L, -2))
            break;
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TFUNCTION)
            luaL_error(L, "plugin: tests = {['what holds'] = function(t) ... end}");
        json_array_append_new(names, json_string(lua_tostring(L, -2)));
        lua_pop(L, 1);
        lua_replace(L, step + 2);
    }
    lua_settop(L, 2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &script_tests_key);
}

/* Declared settings and given values become host.config. */
static void take_settings(lua_State *L, script *s)
{
    hone_err e = {0};
    json_t *declared = NULL;
    const char *key;
    json_t *v;
    int rc = 0;
    if (lua_getfield(L, 1, "settings") != LUA_TNIL)
        rc = value_take(L, -1, NULL, "settings", &declared, &e);
    if (declared == NULL)
        declared = json_object();
    json_object_set_new(s->header, "settings", declared);
    if (rc == 0 && !json_is_object(declared))
        rc = hone_fail(&e, HONE_EFORMAT, "settings is a table of tables");
    if (rc == 0)
        rc = settings_resolve(&s->settings, declared, s->setup.settings, &e);
    if (rc != 0)
        luaL_error(L, "plugin: %s", e.msg);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &s->api);
    json_object_foreach (s->settings, key, v) {
        value_push(L, v);
        if (json_is_array(v))
            lib_freeze(L, key);
        lua_setfield(L, -2, key);
    }
    lua_pop(L, 2);
}

static int host_plugin(lua_State *L)
{
    static const char *const keys[] = {"name", "version", "summary", "settings", "tests", NULL};
    script *s = script_of(L);
    only_loading(L, "plugin");
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (s->header != NULL)
        return luaL_error(L, "plugin: a script has one header");
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        bool known = false;
        lua_pop(L, 1);
        for (int i = 0; keys[i] != NULL && lua_type(L, -1) == LUA_TSTRING; i++)
            known = known || strcmp(keys[i], lua_tostring(L, -1)) == 0;
        if (!known)
            return luaL_error(L, "plugin: no field '%s'", luaL_tolstring(L, -1, NULL));
    }
    s->header = json_object();
    take_text(L, s, "name", 64);
    check_name(L, s);
    take_text(L, s, "version", 64);
    take_text(L, s, "summary", 200);
    take_settings(L, s);
    take_tests(L, s);
    if (s->api.name == NULL)
        s->api.name = json_string_value(json_object_get(s->header, "name"));
    return 0;
}

/* ---- on(point, function, {priority = n}) ---- */

static int priority_of(lua_State *L)
{
    if (lua_isnoneornil(L, 3))
        return 0;
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 3)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING || strcmp(lua_tostring(L, -1), "priority") != 0)
            luaL_error(L, "on: the options are {priority = n}");
    }
    lua_getfield(L, 3, "priority");
    lua_Integer p = luaL_optinteger(L, -1, 0);
    luaL_argcheck(L, p >= -1000 && p <= 1000, 3, "priority is from -1000 to 1000");
    return (int)p;
}

static int line_of(lua_State *L, int idx)
{
    lua_Debug ar;
    lua_pushvalue(L, idx);
    return lua_getinfo(L, ">S", &ar) ? ar.linedefined : 0;
}

static int host_on(lua_State *L)
{
    script *s = script_of(L);
    hone_err e = {0};
    hook_point p;
    only_loading(L, "on");
    const char *name = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    if (s->header == NULL)
        return luaL_error(L, "on: the header comes first: plugin {name = '...', ...}");
    if (hook_by_name(&p, name, &e) != 0)
        return luaL_error(L, "on: %s", e.msg);
    if (form_of(p) == NULL)
        return luaL_error(L, "on: '%s' is for plugins in C alone", name);
    if (s->n == SCRIPT_MAX_HOOKS)
        return luaL_error(L, "on: at most %d hooks", SCRIPT_MAX_HOOKS);
    s->hooks[s->n++] = (script_hook){p, priority_of(L), form_of(p), line_of(L, 2)};
    lua_rawgetp(L, LUA_REGISTRYINDEX, &script_functions_key);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, (lua_Integer)s->n);
    return 0;
}

/* ---- the whole ---- */

/* What stands before a script in some files: the mark that editors on Windows leave, and a line for
 * the shell (its end stays, so that lines keep their numbers). */
static const char *source_text(const script_source *s)
{
    static const char mark[] = "\xef\xbb\xbf";
    const char *text = s->text, *end = s->text + s->len;
    if (s->len >= sizeof mark - 1 && memcmp(text, mark, sizeof mark - 1) == 0)
        text += sizeof mark - 1;
    const char *nl = text < end && *text == '#' ? memchr(text, '\n', (size_t)(end - text)) : text;
    return nl != NULL ? nl : end;
}

static void set_global(lua_State *L, int env, const char *name, lua_CFunction fn, script *s)
{
    lua_pushlightuserdata(L, s);
    lua_pushcclosure(L, fn, 1);
    lua_setfield(L, env, name);
}

int script_load(lua_State *L)
{
    script *s = lua_touserdata(L, 1);
    char chunk[128];
    value_setup(L);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &script_functions_key);
    lib_environment(L);
    int env = lua_gettop(L);
    set_global(L, env, "plugin", host_plugin, s);
    set_global(L, env, "on", host_on, s);
    api_push(L, &s->api);
    lua_getfield(L, -1, "print");
    lua_setfield(L, env, "print");
    lua_setfield(L, env, "host");
    snprintf(chunk, sizeof chunk, "=%s", s->source->file);
    /* "t": bytecode could do what no source can. */
    const char *text = source_text(s->source);
    if (luaL_loadbufferx(L, text, s->source->len - (size_t)(text - s->source->text), chunk, "t") !=
        LUA_OK)
        return lua_error(L);
    lua_pushvalue(L, env);
    lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 0);
    if (s->header == NULL)
        return luaL_error(L,
                          "%s: it has no header: plugin {name = '...', version = '...', "
                          "summary = '...'}",
                          s->source->file);
    return 0;
}
