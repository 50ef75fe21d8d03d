/* string.find, match, gmatch and gsub over pattern.c. */
#include "lua/capture.h"
#include "lua/lib.h"
#include "lua/pattern.h"
#include "lua/sandbox.h"

#include <lauxlib.h>
#include <string.h>

enum { SMALL = 32, SLICE = 1000, BYTES_A_STEP = 8, REPLACE_STEPS = 8 };

typedef struct matcher {
    pattern p;
    pattern_match m;
    bool anchored;
    const char *last;          /* the end of the last match */
    pattern_item items[SMALL]; /* of short patterns; long ones have room on the Lua stack */
    pattern_back stack[SMALL];
} matcher;

static bool more(pattern_match *m)
{
    sandbox_charge(m->user, SLICE);
    m->left += SLICE;
    return true;
}

/* Pays for what was done since the last slice. */
static void settle(lua_State *L, matcher *k)
{
    int64_t done = SLICE - k->m.left;
    k->m.left = SLICE;
    sandbox_charge(L, done > 0 ? (size_t)done : 0);
}

/* Leaves one value on the stack (nil, or room for a long pattern) that must stay as long as k. */
static void prepare(lua_State *L, matcher *k, const char *s, size_t s_len, const char *p,
                    size_t p_len, bool may_anchor)
{
    pattern_item *items = k->items;
    k->anchored = may_anchor && p_len > 0 && p[0] == '^';
    k->last = NULL;
    if (k->anchored) {
        p++;
        p_len--;
    }
    sandbox_charge(L, p_len);
    k->m = (pattern_match){.p = &k->p,
                           .start = s,
                           .end = s + s_len,
                           .stack = k->stack,
                           .more = more,
                           .user = L,
                           .left = SLICE};
    if (p_len > SMALL) {
        luaL_argcheck(L, p_len <= PATTERN_MAX_LEN, 2, "the pattern is too long");
        k->m.stack = lua_newuserdatauv(L, p_len * (sizeof *items + sizeof(pattern_back)), 0);
        items = (pattern_item *)(k->m.stack + p_len);
    } else {
        lua_pushnil(L);
    }
    const char *why = pattern_read(&k->p, p, p_len, items);
    if (why != NULL)
        luaL_error(L, "%s", why);
}

static capture found(const matcher *k, const char *from, const char *to)
{
    return (capture){k->m.start, from, to, k->m.captures, k->p.n_captures};
}

/* The first match at or after *from (moved to where it begins). */
static const char *search(matcher *k, const char **from)
{
    for (const char *s = *from; s <= k->m.end; s++) {
        const char *to = pattern_run(&k->m, s);
        if (to != NULL) {
            *from = s;
            return to;
        }
        if (k->anchored)
            break;
    }
    return NULL;
}

/* ---- find and match ---- */

static bool is_plain(const char *p, size_t len)
{
    static const char special[] = "^$*+?.([%-";
    for (size_t i = 0; i < len; i++)
        if (p[i] != '\0' && strchr(special, p[i]) != NULL)
            return false;
    return true;
}

/* Offset of the optional start at idx; negative ones count from the end. */
static size_t start_at(lua_State *L, int idx, size_t len)
{
    lua_Integer i = luaL_optinteger(L, idx, 1);
    if (i > 0)
        return (size_t)i - 1;
    if (i == 0 || i < -(lua_Integer)len)
        return 0;
    return len - (size_t)-i;
}

static int find_plain(lua_State *L, const char *s, size_t len, size_t from, const char *p,
                      size_t p_len)
{
    const char *at = p_len == 0 ? s + from : memmem(s + from, len - from, p, p_len);
    sandbox_charge(L, (len - from) / BYTES_A_STEP);
    if (at == NULL) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, at - s + 1);
    lua_pushinteger(L, at - s + (lua_Integer)p_len);
    return 2;
}

static int find(lua_State *L, bool places)
{
    matcher k;
    size_t len, p_len;
    const char *s = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &p_len);
    size_t from = start_at(L, 3, len);
    if (from > len) {
        lua_pushnil(L);
        return 1;
    }
    if (places && (lua_toboolean(L, 4) || is_plain(p, p_len)))
        return find_plain(L, s, len, from, p, p_len);
    prepare(L, &k, s, len, p, p_len, true);
    const char *at = s + from, *to = search(&k, &at);
    settle(L, &k);
    if (to == NULL) {
        lua_pushnil(L);
        return 1;
    }
    capture c = found(&k, at, to);
    if (!places)
        return capture_push_all(L, &c, true);
    lua_pushinteger(L, at - s + 1);
    lua_pushinteger(L, to - s);
    return 2 + capture_push_all(L, &c, false);
}

int lib_string_find(lua_State *L)
{
    return find(L, true);
}

int lib_string_match(lua_State *L)
{
    return find(L, false);
}

/* ---- gmatch ---- */

typedef struct walk {
    matcher k;
    const char *at;
} walk;

/* Upvalues: the text, the pattern, the walk, room of a long pattern. */
static int gmatch_next(lua_State *L)
{
    walk *w = lua_touserdata(L, lua_upvalueindex(3));
    w->k.m.user = L; /* another coroutine may ask */
    for (const char *s = w->at; s <= w->k.m.end; s++) {
        const char *to = pattern_run(&w->k.m, s);
        if (to == NULL || to == w->k.last)
            continue;
        w->at = w->k.last = to;
        settle(L, &w->k);
        capture c = found(&w->k, s, to);
        return capture_push_all(L, &c, true);
    }
    w->at = w->k.m.end + 1;
    settle(L, &w->k);
    return 0;
}

int lib_string_gmatch(lua_State *L)
{
    size_t len, p_len;
    const char *s = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &p_len);
    size_t from = start_at(L, 3, len);
    lua_settop(L, 2);
    walk *w = lua_newuserdatauv(L, sizeof *w, 0);
    prepare(L, &w->k, s, len, p, p_len, false);
    w->at = s + (from > len ? len + 1 : from);
    lua_pushcclosure(L, gmatch_next, 4);
    return 1;
}

/* ---- gsub ---- */

int lib_string_gsub(lua_State *L)
{
    matcher k;
    luaL_Buffer b;
    size_t len, p_len;
    const char *s = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &p_len);
    capture_check(L, 3);
    lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)len + 1), n = 0;
    bool changed = false;
    lua_settop(L, 4);
    prepare(L, &k, s, len, p, p_len, true);
    luaL_buffinit(L, &b);
    while (n < max) {
        const char *to = pattern_run(&k.m, s);
        if (to != NULL && to != k.last) {
            capture c = found(&k, s, to);
            n++;
            sandbox_charge(L, REPLACE_STEPS);
            changed = capture_replace(L, &b, &c, 3) || changed;
            s = k.last = to;
        } else if (s < k.m.end) {
            luaL_addchar(&b, *s++);
        } else {
            break;
        }
        if (k.anchored)
            break;
    }
    settle(L, &k);
    if (!changed) {
        lua_pushvalue(L, 1);
    } else {
        luaL_addlstring(&b, s, (size_t)(k.m.end - s));
        luaL_pushresult(&b);
    }
    lua_pushinteger(L, n);
    return 2;
}
