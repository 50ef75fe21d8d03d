#include "lua/capture.h"

#include <string.h>

void capture_push(lua_State *L, const capture *c, int i)
{
    if (i >= c->n) {
        if (i != 0)
            luaL_error(L, "invalid capture index %%%d", i + 1);
        lua_pushlstring(L, c->from, (size_t)(c->to - c->from));
        return;
    }
    const pattern_span *s = &c->spans[i];
    if (s->at == NULL)
        lua_pushboolean(L, 0);
    else if (s->len == PATTERN_POSITION)
        lua_pushinteger(L, s->at - c->subject + 1);
    else
        lua_pushlstring(L, s->at, (size_t)s->len);
}

int capture_push_all(lua_State *L, const capture *c, bool whole)
{
    int n = c->n == 0 && whole ? 1 : c->n;
    luaL_checkstack(L, n, "too many captures");
    for (int i = 0; i < n; i++)
        capture_push(L, c, i);
    return n;
}

void capture_check(lua_State *L, int idx)
{
    int type = lua_type(L, idx);
    luaL_argexpected(L,
                     type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION ||
                         type == LUA_TTABLE,
                     idx, "string/function/table");
}

/* The replacement is text, in which %0 to %9 stand for the match and its captures. */
static void add_text(lua_State *L, luaL_Buffer *b, const capture *c, int idx)
{
    size_t len;
    const char *t = lua_tolstring(L, idx, &len), *end = t + len, *sign;
    while ((sign = memchr(t, '%', (size_t)(end - t))) != NULL) {
        luaL_addlstring(b, t, (size_t)(sign - t));
        t = sign + 1;
        if (t < end && *t == '%') {
            luaL_addchar(b, '%');
        } else if (t < end && *t == '0') {
            luaL_addlstring(b, c->from, (size_t)(c->to - c->from));
        } else if (t < end && *t >= '1' && *t <= '9') {
            capture_push(L, c, *t - '1');
            if (lua_type(L, -1) == LUA_TBOOLEAN)
                lua_pop(L, 1);
            else
                luaL_addvalue(b);
        } else {
            luaL_error(L, "invalid use of '%%' in replacement string");
        }
        t++;
    }
    luaL_addlstring(b, t, (size_t)(end - t));
}

bool capture_replace(lua_State *L, luaL_Buffer *b, const capture *c, int idx)
{
    switch (lua_type(L, idx)) {
    case LUA_TFUNCTION: {
        lua_pushvalue(L, idx);
        int n = capture_push_all(L, c, true);
        lua_call(L, n, 1);
        break;
    }
    case LUA_TTABLE:
        capture_push(L, c, 0);
        lua_gettable(L, idx);
        break;
    default:
        add_text(L, b, c, idx);
        return true;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(b, c->from, (size_t)(c->to - c->from));
        return false;
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(b);
    return true;
}
