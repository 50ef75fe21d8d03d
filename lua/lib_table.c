/* table, math, utf8 and coroutine: the stock functions with a price, a sort that is stable and
 * takes no chances with time, random numbers that are the script's own. */
#include "lua/lib.h"
#include "lua/sandbox.h"

#include "core/base/rng.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
    MAX_VALUES = 4096, /* on the stack at once: copying more is work that no hook sees */
    STEPS_A_NUMBER = 16,
    BYTES_A_STEP = 8, /* of comparing */
};

static size_t span(lua_State *L, lua_Integer from, lua_Integer to, const char *what)
{
    if (to < from)
        return 0;
    lua_Unsigned n = (lua_Unsigned)to - (lua_Unsigned)from + 1;
    if (what != NULL && (n > MAX_VALUES || n == 0))
        luaL_error(L, "%s: more than %d values at once", what, MAX_VALUES);
    return (size_t)n;
}

/* ---- table ---- */

/* Its items may be numbers, which are written out. */
static size_t cost_of_concat(lua_State *L)
{
    return lua_type(L, 1) == LUA_TTABLE ? STEPS_A_NUMBER * (size_t)lua_rawlen(L, 1) : 0;
}

static size_t cost_of_shift(lua_State *L)
{
    lua_Integer n = lua_type(L, 1) == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, 1) : 0;
    lua_Integer at = lua_isinteger(L, 2) ? lua_tointeger(L, 2) : n;
    return at >= 1 && at <= n ? (size_t)(n - at) : 0;
}

static size_t cost_of_move(lua_State *L)
{
    return span(L, luaL_checkinteger(L, 2), luaL_checkinteger(L, 3), NULL);
}

static size_t cost_of_unpack(lua_State *L)
{
    lua_Integer from = luaL_optinteger(L, 2, 1);
    lua_Integer to = lua_isnoneornil(L, 3) ? luaL_len(L, 1) : luaL_checkinteger(L, 3);
    return span(L, from, to, "table.unpack");
}

/* Is the value at a less than the one at b? Both are at the top of the stack. */
static bool less(lua_State *L, bool by_function)
{
    if (!by_function) {
        if (lua_type(L, -1) == LUA_TSTRING)
            sandbox_charge(L, lua_rawlen(L, -1) / BYTES_A_STEP);
        return lua_compare(L, -2, -1, LUA_OPLT);
    }
    lua_pushvalue(L, 2);
    lua_pushvalue(L, -3);
    lua_pushvalue(L, -3);
    lua_call(L, 2, 1);
    bool yes = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return yes;
}

/* Is item b of the copy at 3 less than item a? */
static bool goes_before(lua_State *L, lua_Integer b, lua_Integer a, bool by_function)
{
    lua_rawgeti(L, 3, b);
    lua_rawgeti(L, 3, a);
    bool yes = less(L, by_function);
    lua_pop(L, 2);
    return yes;
}

/* Merges order[lo..mid) and order[mid..hi) into out. */
static void merge(lua_State *L, const lua_Integer *order, lua_Integer *out, size_t lo, size_t mid,
                  size_t hi, bool by_function)
{
    size_t i = lo, j = mid;
    for (size_t k = lo; k < hi; k++) {
        bool right = i >= mid || (j < hi && goes_before(L, order[j], order[i], by_function));
        out[k] = right ? order[j++] : order[i++];
    }
}

static lua_Integer *sort_order(lua_State *L, size_t n, bool by_function)
{
    lua_Integer *a = lua_newuserdatauv(L, 2 * n * sizeof *a, 0), *b = a + n;
    for (size_t i = 0; i < n; i++)
        a[i] = (lua_Integer)i + 1;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n;
            size_t hi = mid + width < n ? mid + width : n;
            sandbox_charge(L, 2 * (hi - lo));
            merge(L, a, b, lo, mid, hi, by_function);
        }
        lua_Integer *t = a;
        a = b;
        b = t;
    }
    return a;
}

/* A stable merge sort. The stock one takes the clock for its pivots where a table is awkward. */
static int table_sort(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    bool by_function = !lua_isnoneornil(L, 2);
    if (by_function)
        luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    lua_Integer n = luaL_len(L, 1);
    if (n < 2)
        return 0;
    sandbox_charge(L, (size_t)n);
    lua_createtable(L, 0, 0); /* 3: a copy */
    for (lua_Integer i = 1; i <= n; i++) {
        lua_geti(L, 1, i);
        lua_rawseti(L, 3, i);
    }
    const lua_Integer *order = sort_order(L, (size_t)n, by_function);
    for (lua_Integer i = 0; i < n; i++) {
        lua_rawgeti(L, 3, order[i]);
        lua_seti(L, 1, i + 1);
    }
    return 0;
}

/* clang-format off */
static const lib_row table_rows[] = {
    {"concat", NULL, cost_of_concat},
    {"insert", NULL, cost_of_shift},
    {"move", NULL, cost_of_move},
    {"pack", NULL, NULL},
    {"remove", NULL, cost_of_shift},
    {"sort", table_sort, NULL},
    {"unpack", NULL, cost_of_unpack},
    {NULL, NULL, NULL},
};
/* clang-format on */

void lib_table(lua_State *L)
{
    lib_pick(L, luaopen_table, table_rows);
}

/* ---- math ---- */

typedef struct source {
    rng r;
    lib_seed *seed; /* asked at the first number of a call; NULL: not any more */
    void *arg;
} source;

static const char source_key;

static source *random_source(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &source_key);
    source *s = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return s;
}

void lib_random(lua_State *L, lib_seed *seed, void *arg)
{
    source *s = random_source(L);
    s->seed = seed;
    s->arg = arg;
}

static uint64_t draw(lua_State *L)
{
    source *s = random_source(L);
    if (s->seed != NULL) {
        s->r = (rng){.seed = s->seed(s->arg), .stream = rng_stream("lua")};
        s->seed = NULL;
    }
    uint64_t high = rng_u32(&s->r);
    return high << 32 | rng_u32(&s->r);
}

/* A number in [0, n]. */
static uint64_t draw_upto(lua_State *L, uint64_t n)
{
    uint64_t mask = n, x;
    for (int shift = 1; shift < 64; shift *= 2)
        mask |= mask >> shift;
    do
        x = draw(L) & mask;
    while (x > n);
    return x;
}

static int math_random(lua_State *L)
{
    lua_Integer low = 1, high;
    int n = lua_gettop(L);
    if (n == 0) {
        lua_pushnumber(L, (lua_Number)(draw(L) >> 11) * 0x1p-53);
        return 1;
    }
    if (n == 1 && luaL_checkinteger(L, 1) == 0) {
        lua_pushinteger(L, (lua_Integer)draw(L));
        return 1;
    }
    if (n > 2)
        return luaL_error(L, "math.random takes at most two numbers");
    high = luaL_checkinteger(L, n);
    if (n == 2)
        low = luaL_checkinteger(L, 1);
    luaL_argcheck(L, low <= high, n, "interval is empty");
    uint64_t more = draw_upto(L, (uint64_t)high - (uint64_t)low);
    lua_pushinteger(L, (lua_Integer)(more + (uint64_t)low));
    return 1;
}

static int math_randomseed(lua_State *L)
{
    source *s = random_source(L);
    lua_Integer i = lua_isinteger(L, 1) ? lua_tointeger(L, 1) : (lua_Integer)luaL_checknumber(L, 1);
    s->seed = NULL;
    s->r = (rng){.seed = (uint64_t)i, .stream = rng_stream("lua")};
    return 0;
}

/* Its loop has a turn for each bit between the two. */
static size_t cost_of_fmod(lua_State *L)
{
    enum { STEPS = 64 };
    return STEPS + lib_cost_of_numerals(L);
}

/* clang-format off */
#define COST lib_cost_of_numerals
static const lib_row math_rows[] = {
    {"abs", NULL, COST}, {"acos", NULL, COST}, {"asin", NULL, COST}, {"atan", NULL, COST},
    {"ceil", NULL, COST}, {"cos", NULL, COST}, {"deg", NULL, COST}, {"exp", NULL, COST},
    {"floor", NULL, COST}, {"fmod", NULL, cost_of_fmod}, {"huge", NULL, NULL},
    {"log", NULL, COST}, {"max", NULL, COST}, {"maxinteger", NULL, NULL}, {"min", NULL, COST},
    {"mininteger", NULL, NULL}, {"modf", NULL, COST}, {"pi", NULL, NULL}, {"rad", NULL, COST},
    {"random", math_random, COST}, {"randomseed", math_randomseed, COST}, {"sin", NULL, COST},
    {"sqrt", NULL, COST}, {"tan", NULL, COST}, {"tointeger", NULL, COST}, {"type", NULL, NULL},
    {"ult", NULL, COST}, {NULL, NULL, NULL},
};
#undef COST
/* clang-format on */

void lib_math(lua_State *L)
{
    source *s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = (source){.r = {.stream = rng_stream("lua")}};
    lua_rawsetp(L, LUA_REGISTRYINDEX, &source_key);
    lib_pick(L, luaopen_math, math_rows);
}

/* ---- utf8 ---- */

static size_t cost_of_text(lua_State *L)
{
    return lua_type(L, 1) == LUA_TSTRING ? (size_t)lua_rawlen(L, 1) / 4 : 0;
}

static size_t cost_of_codes(lua_State *L)
{
    size_t len;
    luaL_checklstring(L, 1, &len);
    lua_Integer from = luaL_optinteger(L, 2, 1), to = luaL_optinteger(L, 3, from);
    from = from < 0 ? from + (lua_Integer)len + 1 : from;
    to = to < 0 ? to + (lua_Integer)len + 1 : to;
    return span(L, from, to, "utf8.codepoint");
}

/* From one character to the next is as far as there are continuation bytes, in text that is no
 * UTF-8 any number of them. */
static int next_code(lua_State *L)
{
    size_t len, from, to;
    const char *s = luaL_checklstring(L, 1, &len);
    lua_Integer i = luaL_checkinteger(L, 2);
    from = to = i > 0 && (size_t)i <= len ? (size_t)i : len;
    while (to < len && ((unsigned char)s[to] & 0xC0) == 0x80)
        to++;
    sandbox_charge(L, (to - from) / 2);
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* Upvalue: the stock function. */
static int utf8_codes(lua_State *L)
{
    int n = lua_gettop(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, n, 3);
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, next_code, 1);
    lua_replace(L, -4);
    return 3;
}

/* A coroutine has a stack of its own. */
static size_t cost_of_thread(lua_State *L)
{
    enum { STEPS = 50 };
    (void)L;
    return STEPS;
}

/* clang-format off */
static const lib_row utf8_rows[] = {
    {"char", NULL, NULL},
    {"charpattern", NULL, NULL},
    {"codepoint", NULL, cost_of_codes},
    {"codes", NULL, NULL}, /* see lib_utf8 */
    {"len", NULL, cost_of_text},
    {"offset", NULL, cost_of_text},
    {NULL, NULL, NULL},
};

static const lib_row coroutine_rows[] = {
    {"close", NULL, NULL}, {"create", NULL, cost_of_thread}, {"isyieldable", NULL, NULL},
    {"resume", NULL, NULL}, {"running", NULL, NULL}, {"status", NULL, NULL},
    {"wrap", NULL, cost_of_thread}, {"yield", NULL, NULL}, {NULL, NULL, NULL},
};
/* clang-format on */

void lib_utf8(lua_State *L)
{
    lib_pick(L, luaopen_utf8, utf8_rows);
    lua_getfield(L, -1, "codes");
    lua_pushcclosure(L, utf8_codes, 1);
    lua_setfield(L, -2, "codes");
}

void lib_coroutine(lua_State *L)
{
    lib_pick(L, luaopen_coroutine, coroutine_rows);
}
