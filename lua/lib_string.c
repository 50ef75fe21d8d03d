/* string: the stock functions with a price; patterns are ours. */
#include "lua/lib.h"
#include "lua/sandbox.h"

#include <lauxlib.h>
#include <lualib.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    BYTES_A_STEP = 16,
    MAX_BYTES_AT_ONCE = 4096,
    MAX_TEXT = INT_MAX,     /* more than any memory of a state */
    STEPS_A_WORD = 16,      /* to make one of a value */
    STEPS_A_REAL = 40,      /* to write one */
    STEPS_A_LONG_REAL = 200 /* with hundreds of digits before the point */
};

static size_t text_len(lua_State *L, int idx)
{
    return lua_type(L, idx) == LUA_TSTRING ? (size_t)lua_rawlen(L, idx) : 0;
}

static size_t cost_of_text(lua_State *L)
{
    return text_len(L, 1) / BYTES_A_STEP;
}

/* The stock rep does nothing n times where there is nothing to repeat, and makes n copies where
 * doubling makes few. */
static int string_rep(lua_State *L)
{
    luaL_Buffer b;
    size_t len, gap;
    const char *s = luaL_checklstring(L, 1, &len), *sep = luaL_optlstring(L, 3, "", &gap);
    lua_Integer n = luaL_checkinteger(L, 2);
    size_t unit = len + gap;
    if (n <= 0 || unit == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    if (unit > MAX_TEXT || (size_t)n > MAX_TEXT / unit)
        return luaL_error(L, "resulting string too large");
    size_t total = unit * (size_t)n - gap;
    sandbox_charge(L, total < sandbox_used(sandbox_of(L)).limit ? total / BYTES_A_STEP : 0);
    char *to = luaL_buffinitsize(L, &b, total + gap);
    memcpy(to, s, len);
    memcpy(to + len, sep, gap);
    for (size_t done = unit; done < total; done += done < total - done ? done : total - done)
        memcpy(to + done, to, done < total - done ? done : total - done);
    luaL_pushresultsize(&b, total);
    return 1;
}

/* Bytes on the stack are copied by every call that passes them on. */
static size_t cost_of_byte(lua_State *L)
{
    lua_Integer n = (lua_Integer)text_len(L, 1);
    lua_Integer from = luaL_optinteger(L, 2, 1), to = luaL_optinteger(L, 3, from);
    from = from < 0 ? from + n + 1 : from;
    to = to < 0 ? to + n + 1 : to > n ? n : to;
    if (from < 1)
        from = 1;
    if (to - from >= MAX_BYTES_AT_ONCE)
        luaL_error(L, "string.byte: more than %d bytes at once", MAX_BYTES_AT_ONCE);
    return 0;
}

/* ---- format ---- */

static size_t cost_of_conversion(lua_State *L, char conversion, int arg)
{
    if (lua_type(L, arg) == LUA_TSTRING)
        return lua_rawlen(L, arg) / (conversion == 's' ? BYTES_A_STEP : 1); /* %q: escapes */
    if (conversion == '\0' || strchr("aAeEfFgG", conversion) == NULL)
        return 0;
    bool is_long = (conversion == 'f' || conversion == 'F') && !(fabs(lua_tonumber(L, arg)) < 1e15);
    return is_long ? STEPS_A_LONG_REAL : STEPS_A_REAL;
}

/* The stock format tells addresses, of %p and of a table under %s: what is no text is made text
 * first, and %p is refused. */
static size_t cost_of_format(lua_State *L)
{
    size_t len, ignored;
    const char *f = luaL_checklstring(L, 1, &len), *end = f + len;
    size_t cost = len / BYTES_A_STEP;
    int arg = 1, n = lua_gettop(L);
    while ((f = memchr(f, '%', (size_t)(end - f))) != NULL && ++f < end) {
        f += strspn(f, "-+ #0123456789.");
        if (*f == '%') {
            f++;
            continue;
        }
        arg++;
        if (*f == 'p')
            luaL_error(L, "invalid conversion '%%p' to 'format'");
        if (arg > n)
            break; /* the stock function says so */
        if (*f == 's' && lua_type(L, arg) != LUA_TSTRING) {
            cost += lua_isinteger(L, arg) ? 0 : STEPS_A_WORD;
            lib_text(L, arg, &ignored);
            lua_replace(L, arg);
        }
        cost += cost_of_conversion(L, *f, arg);
    }
    return cost;
}

/* clang-format off */
static const lib_row rows[] = {
    {"byte", NULL, cost_of_byte},
    {"char", NULL, lib_cost_of_numerals},
    {"find", lib_string_find, NULL},
    {"format", NULL, cost_of_format},
    {"gmatch", lib_string_gmatch, NULL},
    {"gsub", lib_string_gsub, NULL},
    {"len", NULL, NULL},
    {"lower", NULL, cost_of_text},
    {"match", lib_string_match, NULL},
    {"rep", string_rep, lib_cost_of_numerals},
    {"reverse", NULL, cost_of_text},
    {"sub", NULL, cost_of_text},
    {"upper", NULL, cost_of_text},
    {NULL, NULL, NULL},
};
/* clang-format on */

/* Arithmetic on numbers in text: reading them is work. */
static const lib_row arithmetic[] = {
    {"__add", NULL, lib_cost_of_numerals},
    {"__sub", NULL, lib_cost_of_numerals},
    {"__mul", NULL, lib_cost_of_numerals},
    {"__mod", NULL, lib_cost_of_numerals},
    {"__pow", NULL, lib_cost_of_numerals},
    {"__div", NULL, lib_cost_of_numerals},
    {"__idiv", NULL, lib_cost_of_numerals},
    {"__unm", NULL, lib_cost_of_numerals},
    {NULL, NULL, NULL},
};

/* The stock metatable (with arithmetic on numbers in text) was made when the library was opened; it
 * gets our functions, and nobody gets it. */
void lib_string(lua_State *L)
{
    lib_pick(L, luaopen_string, rows);
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lib_charge(L, arithmetic);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}
