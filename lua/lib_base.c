/* The globals of a script: the stock ones that are harmless, and our own where the stock one tells
 * an address, depends on one, or lets a script out of its account. */
#include "lua/lib.h"
#include "lua/sandbox.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- text ---- */

static void push_name(lua_State *L, int idx)
{
    if (lua_type(L, idx) == LUA_TLIGHTUSERDATA)
        lua_pushliteral(L, "null");
    else if (luaL_getmetafield(L, idx, "__name") != LUA_TSTRING)
        lua_pushstring(L, luaL_typename(L, idx));
}

const char *lib_text(lua_State *L, int idx, size_t *len)
{
    idx = lua_absindex(L, idx);
    luaL_checkstack(L, 3, NULL);
    if (luaL_callmeta(L, idx, "__tostring")) {
        if (lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "'__tostring' must return a string");
        return lua_tolstring(L, -1, len);
    }
    switch (lua_type(L, idx)) {
    case LUA_TSTRING:
    case LUA_TNUMBER:
        lua_pushvalue(L, idx);
        break;
    case LUA_TBOOLEAN:
        lua_pushstring(L, lua_toboolean(L, idx) ? "true" : "false");
        break;
    case LUA_TNIL:
        lua_pushliteral(L, "nil");
        break;
    default:
        push_name(L, idx);
    }
    return lua_tolstring(L, -1, len);
}

static int base_tostring(lua_State *L)
{
    size_t len;
    luaL_checkany(L, 1);
    lib_text(L, 1, &len);
    return 1;
}

static size_t cost_of_number(lua_State *L)
{
    return lua_type(L, 1) == LUA_TSTRING ? lua_rawlen(L, 1) : 0;
}

static size_t cost_of_text(lua_State *L)
{
    enum { STEPS = 16 };
    return lua_type(L, 1) == LUA_TNUMBER && !lua_isinteger(L, 1) ? STEPS : 0;
}

/* Only its first argument is read as a number. */
static size_t cost_of_select(lua_State *L)
{
    return lua_type(L, 1) == LUA_TSTRING ? lua_rawlen(L, 1) / 4 : 0;
}

/* Of the error that it may have to catch, message and all. */
static size_t cost_of_catching(lua_State *L)
{
    enum { STEPS = 10 };
    (void)L;
    return STEPS;
}

/* ---- tables ---- */

/* Finalizers run where the hook does not, and weak tables show when garbage is collected. */
static int base_setmetatable(lua_State *L)
{
    static const char *const refused[] = {"__gc", "__mode"};
    int type = lua_type(L, 2);
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
        return luaL_error(L, "cannot change a protected metatable");
    for (size_t i = 0; type == LUA_TTABLE && i < 2; i++) {
        lua_pushstring(L, refused[i]);
        if (lua_rawget(L, 2) != LUA_TNIL)
            return luaL_error(L, "a metatable of a script has no '%s'", refused[i]);
        lua_pop(L, 1);
    }
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

static int base_rawset(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkany(L, 2);
    luaL_checkany(L, 3);
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
        return luaL_error(L, "cannot change a protected table");
    lua_settop(L, 3);
    lua_rawset(L, 1);
    return 1;
}

/* ---- an order of keys that depends on nothing but the keys ---- */

enum { STEPS_A_KEY = 8 };

enum { RANK_NUMBER, RANK_TEXT, RANK_OTHER };

typedef struct key {
    int rank;
    bool whole;
    lua_Integer i;
    lua_Number x;
    const char *s; /* the table's own */
    size_t len;
    lua_Integer at; /* where it stands in the list of keys */
} key;

static key key_at(lua_State *L, int idx, lua_Integer at)
{
    key k = {.rank = RANK_OTHER, .at = at};
    if (lua_type(L, idx) == LUA_TNUMBER) {
        k.rank = RANK_NUMBER;
        k.whole = lua_isinteger(L, idx);
        k.i = k.whole ? lua_tointeger(L, idx) : 0;
        k.x = lua_tonumber(L, idx);
    } else if (lua_type(L, idx) == LUA_TSTRING) {
        k.rank = RANK_TEXT;
        k.s = lua_tolstring(L, idx, &k.len);
    }
    return k;
}

static int compare_text(const key *a, const key *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int c = memcmp(a->s, b->s, n);
    return c != 0 ? c : (a->len > b->len) - (a->len < b->len);
}

static int compare(const void *pa, const void *pb)
{
    const key *a = pa, *b = pb;
    if (a->rank != b->rank)
        return a->rank - b->rank;
    if (a->rank == RANK_TEXT)
        return compare_text(a, b);
    if (a->rank == RANK_NUMBER && a->whole && b->whole)
        return (a->i > b->i) - (a->i < b->i);
    if (a->rank == RANK_NUMBER)
        return (a->x > b->x) - (a->x < b->x);
    return (a->at > b->at) - (a->at < b->at);
}

/* next: the smallest key after the one given. Booleans and tables as keys come last, in the table's
 * own order. */
static int base_next(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    bool first = lua_isnil(L, 2), passed = first, found = false;
    key from = key_at(L, 2, -1), best = {0};
    lua_Integer seen = 0;
    lua_pushnil(L); /* 3: the best key */
    lua_pushnil(L); /* 4: the one looked at */
    while (lua_next(L, 1)) {
        lua_pop(L, 1);
        key k = key_at(L, 4, ++seen);
        bool after = first || (from.rank == RANK_OTHER ? passed && k.rank == RANK_OTHER
                                                       : compare(&k, &from) > 0);
        passed = passed || lua_rawequal(L, 2, 4);
        if (!after || (found && compare(&k, &best) > 0))
            continue;
        best = k;
        found = true;
        lua_copy(L, 4, 3);
    }
    sandbox_charge(L, STEPS_A_KEY * (size_t)seen);
    lua_settop(L, 3);
    if (!found)
        return 1;
    lua_pushvalue(L, 3);
    lua_rawget(L, 1);
    return 2;
}

/* Steps through a list of keys: upvalues: the list (nil: the keys are 1 to n), the last place, n.
 */
static int step(lua_State *L)
{
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(2));
    lua_Integer n = lua_tointeger(L, lua_upvalueindex(3));
    bool listed = !lua_isnil(L, lua_upvalueindex(1));
    luaL_checktype(L, 1, LUA_TTABLE);
    while (i < n) {
        i++;
        lua_settop(L, 1);
        if (listed)
            lua_rawgeti(L, lua_upvalueindex(1), i);
        else
            lua_pushinteger(L, i);
        lua_pushvalue(L, 2);
        if (lua_rawget(L, 1) == LUA_TNIL) /* removed meanwhile */
            continue;
        lua_pushinteger(L, i);
        lua_copy(L, -1, lua_upvalueindex(2));
        lua_settop(L, 3);
        return 2;
    }
    lua_pushnil(L);
    return 1;
}

static lua_Integer count_keys(lua_State *L)
{
    lua_Integer n = 0;
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        lua_pop(L, 1);
        n++;
    }
    return n;
}

/* Pushes the sorted list of the n keys of the table at 1. */
static void push_keys(lua_State *L, lua_Integer n)
{
    key *keys = lua_newuserdatauv(L, (size_t)n * sizeof *keys, 0);
    lua_Integer i = 0;
    lua_createtable(L, (int)n, 0);
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        lua_pop(L, 1);
        keys[i] = key_at(L, -1, i + 1);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, ++i);
    }
    qsort(keys, (size_t)n, sizeof *keys, compare);
    lua_createtable(L, (int)n, 0);
    for (i = 0; i < n; i++) {
        lua_rawgeti(L, -2, keys[i].at);
        lua_rawseti(L, -2, i + 1);
    }
}

static int base_pairs(lua_State *L)
{
    luaL_checkany(L, 1);
    if (luaL_getmetafield(L, 1, "__pairs") != LUA_TNIL) {
        lua_pushvalue(L, 1);
        lua_call(L, 1, 3);
        return 3;
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_Integer n = count_keys(L);
    sandbox_charge(L, STEPS_A_KEY / 2 * (size_t)n);
    if ((lua_Unsigned)n == lua_rawlen(L, 1)) {
        lua_pushnil(L);
    } else {
        sandbox_charge(L, (size_t)4 * STEPS_A_KEY * (size_t)n);
        push_keys(L, n);
    }
    lua_pushinteger(L, 0);
    lua_pushinteger(L, n);
    lua_pushcclosure(L, step, 3);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

/* clang-format off */
static const lib_row rows[] = {
    {"assert", NULL, NULL},
    {"error", NULL, NULL},
    {"getmetatable", NULL, NULL},
    {"ipairs", NULL, NULL},
    {"next", base_next, NULL},
    {"pairs", base_pairs, NULL},
    {"pcall", NULL, cost_of_catching},
    {"rawequal", NULL, NULL},
    {"rawget", NULL, NULL},
    {"rawlen", NULL, NULL},
    {"rawset", base_rawset, NULL},
    {"select", NULL, cost_of_select},
    {"setmetatable", base_setmetatable, NULL},
    {"tonumber", NULL, cost_of_number},
    {"tostring", base_tostring, cost_of_text},
    {"type", NULL, NULL},
    {"xpcall", NULL, cost_of_catching},
    {"_VERSION", NULL, NULL},
    {NULL, NULL, NULL},
};
/* clang-format on */

void lib_base(lua_State *L)
{
    lib_pick(L, luaopen_base, rows);
}
