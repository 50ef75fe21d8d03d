#include "lua/lib.h"

#include "lua/sandbox.h"

#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

/* ---- rows ---- */

static int charged(lua_State *L)
{
    const lib_row *r = lua_touserdata(L, lua_upvalueindex(2));
    sandbox_charge(L, r->cost(L));
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* Makes the function on the top one that charges. */
static void push_charged(lua_State *L, const lib_row *r)
{
    if (r->cost == NULL)
        return;
    lua_pushlightuserdata(L, (void *)r);
    lua_pushcclosure(L, charged, 2);
}

void lib_charge(lua_State *L, const lib_row *rows)
{
    for (const lib_row *r = rows; r->name != NULL; r++) {
        lua_getfield(L, -1, r->name);
        push_charged(L, r);
        lua_setfield(L, -2, r->name);
    }
}

size_t lib_cost_of_numerals(lua_State *L)
{
    enum { STEPS_A_NUMERAL = 16, BYTES_A_STEP = 4 };
    size_t cost = 0;
    for (int i = lua_gettop(L); i > 0; i--)
        if (lua_type(L, i) == LUA_TSTRING)
            cost += STEPS_A_NUMERAL + lua_rawlen(L, i) / BYTES_A_STEP;
    return cost;
}

void lib_pick(lua_State *L, lua_CFunction open, const lib_row *rows)
{
    lua_pushcfunction(L, open);
    lua_call(L, 0, 1);
    lua_newtable(L);
    for (const lib_row *r = rows; r->name != NULL; r++) {
        if (r->fn != NULL)
            lua_pushcfunction(L, r->fn);
        else
            lua_getfield(L, -2, r->name);
        push_charged(L, r);
        lua_setfield(L, -2, r->name);
    }
    lua_remove(L, -2);
}

/* ---- what cannot be changed ---- */

static int frozen(lua_State *L)
{
    return luaL_error(L, "'%s' cannot be changed", lua_tostring(L, lua_upvalueindex(1)));
}

/* Steps through the table behind; the script gets keys and values, never the table. */
static int step_frozen(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_call(L, 1, 2);
    return 2;
}

static int pairs_of_frozen(lua_State *L)
{
    lua_getglobal(L, "pairs");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_call(L, 1, 2);
    lua_pushcclosure(L, step_frozen, 2);
    return 1;
}

void lib_freeze(lua_State *L, const char *what)
{
    int real = lua_gettop(L);
    lua_newtable(L);
    lua_createtable(L, 0, 4);
    lua_pushvalue(L, real);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, what);
    lua_pushcclosure(L, frozen, 1);
    lua_setfield(L, -2, "__newindex");
    lua_pushvalue(L, real);
    lua_pushcclosure(L, pairs_of_frozen, 1);
    lua_setfield(L, -2, "__pairs");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_remove(L, real);
}

/* ---- the environment ---- */

static const char *const outside[] = {
    "os",         "io",     "package", "require", "debug",          "load",     "loadfile",
    "loadstring", "dofile", "getfenv", "setfenv", "collectgarbage", "newproxy", NULL};

static int no_global(lua_State *L)
{
    size_t len;
    const char *name = lib_text(L, 2, &len);
    for (size_t i = 0; outside[i] != NULL; i++)
        if (strcmp(name, outside[i]) == 0)
            return luaL_error(L, "a script has no '%s'", name);
    return luaL_error(L, "no global '%s'", name);
}

static int new_global(lua_State *L)
{
    size_t len;
    if (!sandbox_loading(sandbox_of(L)))
        return luaL_error(L, "global '%s' is made while a hook runs: make it local",
                          lib_text(L, 2, &len));
    lua_rawset(L, 1);
    return 0;
}

static void make_strict(lua_State *L)
{
    lua_createtable(L, 0, 3);
    lua_pushcfunction(L, no_global);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, new_global);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
}

void lib_environment(lua_State *L)
{
    static const struct {
        const char *name;
        void (*open)(lua_State *);
    } libraries[] = {{"string", lib_string},
                     {"table", lib_table},
                     {"math", lib_math},
                     {"utf8", lib_utf8},
                     {"coroutine", lib_coroutine}};
    lib_base(L);
    lua_getfield(L, -1, "pairs");
    lua_setglobal(L, "pairs"); /* the state's own globals: no script sees them */
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        libraries[i].open(L);
        lib_freeze(L, libraries[i].name);
        lua_setfield(L, -2, libraries[i].name);
    }
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "_G");
    make_strict(L);
}
