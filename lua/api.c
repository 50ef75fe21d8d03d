#include "lua/api.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "lua/lib.h"
#include "lua/regex.h"
#include "lua/value.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINES = 10, MAX_COUNTER = 48, MAX_JSON = 4 << 20, BYTES_A_STEP = 16 };

static api *api_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* Raises e's message, with the script's line before it. */
static int raise(lua_State *L, const hone_err *e)
{
    return luaL_error(L, "%s", e->msg);
}

/* ---- log ---- */

static int say(lua_State *L, log_level level, const char *text)
{
    api *a = api_of(L);
    if (a->quiet || ++a->lines > MAX_LINES)
        return 0;
    log_line(level, "lua", "%s: %s", a->name, text);
    if (a->lines == MAX_LINES)
        log_line(LOG_WARN, "lua", "%s: %d lines in one call, the rest is dropped", a->name,
                 MAX_LINES);
    return 0;
}

static int host_log(lua_State *L)
{
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
    size_t len;
    int level = luaL_checkoption(L, 1, NULL, levels);
    luaL_checkany(L, 2);
    return say(L, (log_level)level, lib_text(L, 2, &len));
}

static int host_print(lua_State *L)
{
    luaL_Buffer b;
    int n = lua_gettop(L);
    luaL_buffinit(L, &b);
    for (int i = 1; i <= n; i++) {
        size_t len;
        if (i > 1)
            luaL_addchar(&b, ' ');
        lib_text(L, i, &len);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    return say(L, LOG_INFO, lua_tostring(L, -1));
}

/* ---- json, sha256 ---- */

static int json_encode(lua_State *L)
{
    hone_err e = {0};
    json_t *v;
    luaL_checkany(L, 1);
    if (value_take(L, 1, NULL, "json.encode", &v, &e) != 0)
        return raise(L, &e);
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    size_t n = strlen(text);
    json_decref(v);
    /* The text goes into memory of the state's own before anything may raise with it in hand. */
    char *room = sandbox_alloc(sandbox_of(L), n);
    if (room != NULL)
        memcpy(room, text, n);
    free(text);
    luaL_argcheck(L, room != NULL, 1, "not enough memory");
    lua_pushlstring(L, room, n);
    sandbox_dealloc(sandbox_of(L), room, n);
    sandbox_charge(L, n / BYTES_A_STEP);
    return 1;
}

static int json_decode(lua_State *L)
{
    hone_err e = {0};
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    luaL_argcheck(L, n <= MAX_JSON, 1, "longer than 4 MiB");
    sandbox_charge(L, n);
    json_t **box = value_box(L);
    if (js_parse(box, text, n, &e) != 0) {
        lua_pushnil(L);
        lua_pushstring(L, e.msg);
        return 2;
    }
    value_push(L, *box);
    json_decref(*box);
    *box = NULL;
    return 1;
}

static int json_array_of(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argcheck(L, !lua_getmetatable(L, 1), 1, "the table has a metatable already");
    lua_settop(L, 1);
    value_mark(L);
    return 1;
}

static int host_sha256(lua_State *L)
{
    char hex[65];
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    sandbox_charge(L, n / 4);
    bytes_sha256(hex, s, n);
    lua_pushstring(L, hex);
    return 1;
}

/* ---- time and counters ---- */

static int not_here(lua_State *L, const char *what)
{
    return luaL_error(
        L,
        "%s is not there while a script is loaded or a data hook runs: the same input "
        "must give the same data again",
        what);
}

static int host_now(lua_State *L)
{
    if (api_of(L)->deterministic)
        return not_here(L, "host.now");
    lua_pushinteger(L, (lua_Integer)(clock_unix_ms() / 1000));
    return 1;
}

static int host_counter(lua_State *L)
{
    const api *a = api_of(L);
    const char *name = luaL_checkstring(L, 1);
    sandbox_charge(L, lib_cost_of_numerals(L));
    double n = luaL_optnumber(L, 2, 1);
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    if (len == 0 || name[len] != '\0' || len > MAX_COUNTER)
        return luaL_error(L, "counter '%s': a name is 1 to %d of the characters a-z, 0-9 and _",
                          name, MAX_COUNTER);
    if (!isfinite(n) || n < 0)
        return luaL_error(L, "counter '%s' only rises, and by a number", name);
    if (a->hooks != NULL && a->name != NULL)
        hook_count(a->hooks, a->name, name, n);
    return 0;
}

/* ---- kv ---- */

static kv *kv_of(lua_State *L)
{
    const api *a = api_of(L);
    if (a->deterministic)
        not_here(L, "host.kv");
    if (a->kv == NULL)
        luaL_error(L, "host.kv: there is no state folder to keep it in");
    sandbox_charge(L, 200);
    return a->kv;
}

static int kv_fail(lua_State *L, const hone_err *e)
{
    return luaL_error(L, "host.kv: %s", e->msg);
}

static int host_kv_get(lua_State *L)
{
    hone_err e = {0};
    size_t n;
    kv *k = kv_of(L);
    const char *key = luaL_checklstring(L, 1, &n);
    json_t **box = value_box(L);
    if (kv_get(k, key, n, box, &e) != 0)
        return kv_fail(L, &e);
    value_push(L, *box);
    json_decref(*box);
    *box = NULL;
    return 1;
}

static int host_kv_set(lua_State *L)
{
    hone_err e = {0};
    size_t n;
    kv *k = kv_of(L);
    const char *key = luaL_checklstring(L, 1, &n);
    json_t *v = NULL;
    int rc = lua_isnoneornil(L, 2) ? 0 : value_take(L, 2, NULL, "the value", &v, &e);
    if (rc == 0)
        rc = kv_set(k, key, n, v, &e);
    json_decref(v);
    return rc != 0 ? kv_fail(L, &e) : 0;
}

static int host_kv_add(lua_State *L)
{
    hone_err e = {0};
    size_t n;
    double sum;
    kv *k = kv_of(L);
    const char *key = luaL_checklstring(L, 1, &n);
    sandbox_charge(L, lib_cost_of_numerals(L));
    if (kv_add(k, key, n, luaL_optnumber(L, 2, 1), &sum, &e) != 0)
        return kv_fail(L, &e);
    lua_Integer whole;
    if (lua_numbertointeger(sum, &whole) && (double)whole == sum)
        lua_pushinteger(L, whole);
    else
        lua_pushnumber(L, sum);
    return 1;
}

static int host_kv_keys(lua_State *L)
{
    hone_err e = {0};
    size_t n;
    kv *k = kv_of(L);
    const char *prefix = luaL_optlstring(L, 1, "", &n);
    json_t **box = value_box(L);
    if (kv_keys(k, prefix, n, box, &e) != 0)
        return kv_fail(L, &e);
    value_push(L, *box);
    json_decref(*box);
    *box = NULL;
    return 1;
}

/* ---- the table ---- */

static const luaL_Reg json_functions[] = {
    {"encode", json_encode}, {"decode", json_decode}, {"array", json_array_of}, {NULL, NULL}};

static const luaL_Reg kv_functions[] = {{"get", host_kv_get},
                                        {"set", host_kv_set},
                                        {"add", host_kv_add},
                                        {"keys", host_kv_keys},
                                        {NULL, NULL}};

static const luaL_Reg host_functions[] = {{"log", host_log},         {"print", host_print},
                                          {"sha256", host_sha256},   {"now", host_now},
                                          {"counter", host_counter}, {NULL, NULL}};

static void push_functions(lua_State *L, const luaL_Reg *fns, api *a)
{
    lua_newtable(L);
    lua_pushlightuserdata(L, a);
    luaL_setfuncs(L, fns, 1);
}

static int no_setting(lua_State *L)
{
    size_t len;
    return luaL_error(L, "the script declares no setting '%s'", lib_text(L, 2, &len));
}

static void push_config(lua_State *L, api *a)
{
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, no_setting);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, a);
}

void api_push(lua_State *L, api *a)
{
    push_functions(L, host_functions, a);
    push_functions(L, json_functions, a);
    lib_freeze(L, "host.json");
    lua_setfield(L, -2, "json");
    push_functions(L, kv_functions, a);
    lib_freeze(L, "host.kv");
    lua_setfield(L, -2, "kv");
    push_config(L, a);
    lib_freeze(L, "host.config");
    lua_setfield(L, -2, "config");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    regex_push(L);
    lua_setfield(L, -2, "regex");
    lib_freeze(L, "host");
}
