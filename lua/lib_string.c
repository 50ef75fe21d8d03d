/* string: the stock functions with a price; patterns are ours. */
#include "lua/lib.h"
#include "lua/sandbox.h"

#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

enum { BYTES_A_STEP = 16, MAX_BYTES_AT_ONCE = 4096 };

static size_t text_len(lua_State *L, int idx)
{
    return lua_type(L, idx) == LUA_TSTRING ? (size_t)lua_rawlen(L, idx) : 0;
}

static size_t cost_of_text(lua_State *L)
{
    return text_len(L, 1) / BYTES_A_STEP;
}

static size_t cost_of_rep(lua_State *L)
{
    double n = (double)luaL_checkinteger(L, 2);
    double bytes = n * (double)(text_len(L, 1) + text_len(L, 3));
    if (bytes <= 0 || bytes > (double)sandbox_used(sandbox_of(L)).limit)
        return 0; /* too much for the memory, which says so */
    return (size_t)bytes / BYTES_A_STEP;
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
            lib_text(L, arg, &ignored);
            lua_replace(L, arg);
        }
        cost += text_len(L, arg) / BYTES_A_STEP;
    }
    return cost;
}

/* clang-format off */
static const lib_row rows[] = {
    {"byte", NULL, cost_of_byte},
    {"char", NULL, NULL},
    {"find", lib_string_find, NULL},
    {"format", NULL, cost_of_format},
    {"gmatch", lib_string_gmatch, NULL},
    {"gsub", lib_string_gsub, NULL},
    {"len", NULL, NULL},
    {"lower", NULL, cost_of_text},
    {"match", lib_string_match, NULL},
    {"rep", NULL, cost_of_rep},
    {"reverse", NULL, cost_of_text},
    {"sub", NULL, cost_of_text},
    {"upper", NULL, cost_of_text},
    {NULL, NULL, NULL},
};
/* clang-format on */

/* The stock metatable (with arithmetic on numbers in text) was made when the library was opened; it
 * gets our functions, and nobody gets it. */
void lib_string(lua_State *L)
{
    lib_pick(L, luaopen_string, rows);
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}
