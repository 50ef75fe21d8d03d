#define PCRE2_CODE_UNIT_WIDTH 8
#include "lua/regex.h"

#include "lua/capture.h"
#include "lua/lib.h"
#include "lua/sandbox.h"

#include <lauxlib.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEAP_KIB = 1024, CALL_STEPS = 100, BYTES_A_STEP = 16 };

static const char type_name[] = "hone.regex";

typedef struct regex {
    sandbox *box;
    pcre2_general_context *memory;
    pcre2_match_context *limits;
    pcre2_code *code;
    pcre2_match_data *data;
} regex;

/* ---- memory: the state's account, with the size before the block ---- */

typedef union head {
    size_t n;
    max_align_t align;
} head;

static void *take_memory(PCRE2_SIZE n, void *box)
{
    head *h = n < SIZE_MAX - sizeof *h ? sandbox_alloc(box, n + sizeof *h) : NULL;
    if (h == NULL)
        return NULL;
    h->n = n + sizeof *h;
    return h + 1;
}

static void give_memory(void *p, void *box)
{
    head *h = p;
    if (h != NULL)
        sandbox_dealloc(box, h - 1, h[-1].n);
}

static void free_parts(regex *r)
{
    pcre2_match_data_free(r->data);
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->limits);
    pcre2_general_context_free(r->memory);
    *r = (regex){.box = r->box};
}

static int regex_gc(lua_State *L)
{
    free_parts(lua_touserdata(L, 1));
    return 0;
}

/* ---- making ---- */

static uint32_t options_of(lua_State *L, int idx)
{
    uint32_t o = PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C;
    size_t n;
    const char *flags = luaL_optlstring(L, idx, "", &n);
    sandbox_charge(L, n);
    for (const char *f = flags; *f != '\0'; f++) {
        if (*f == 'i')
            o |= PCRE2_CASELESS;
        else if (*f == 'm')
            o |= PCRE2_MULTILINE;
        else if (*f == 's')
            o |= PCRE2_DOTALL;
        else if (*f == 'x')
            o |= PCRE2_EXTENDED;
        else
            luaL_error(L, "host.regex: no flag '%c' (i, m, s, x)", *f);
    }
    return o;
}

static bool prepare(regex *r, const char *p, size_t len, uint32_t options, int *code,
                    PCRE2_SIZE *at)
{
    *code = PCRE2_ERROR_NOMEMORY;
    r->memory = pcre2_general_context_create(take_memory, give_memory, r->box);
    if (r->memory == NULL)
        return false;
    r->limits = pcre2_match_context_create(r->memory);
    pcre2_compile_context *c = pcre2_compile_context_create(r->memory);
    if (c == NULL || r->limits == NULL) {
        pcre2_compile_context_free(c);
        return false;
    }
    pcre2_set_match_limit(r->limits, REGEX_MAX_STEPS);
    pcre2_set_depth_limit(r->limits, REGEX_MAX_DEPTH);
    pcre2_set_heap_limit(r->limits, MAX_HEAP_KIB);
    r->code = pcre2_compile((PCRE2_SPTR)p, len, options, code, at, c);
    pcre2_compile_context_free(c);
    if (r->code == NULL)
        return false;
    r->data = pcre2_match_data_create_from_pattern(r->code, r->memory);
    return r->data != NULL;
}

static int host_regex(lua_State *L)
{
    size_t len;
    int code;
    PCRE2_SIZE at = 0;
    PCRE2_UCHAR why[128] = "";
    const char *p = luaL_checklstring(L, 1, &len);
    uint32_t options = options_of(L, 2);
    luaL_argcheck(L, len <= REGEX_MAX_PATTERN, 1, "longer than 4096 bytes");
    sandbox_charge(L, CALL_STEPS * (len + 1));
    regex *r = lua_newuserdatauv(L, sizeof *r, 0);
    *r = (regex){.box = sandbox_of(L)};
    luaL_setmetatable(L, type_name);
    bool made = prepare(r, p, len, options, &code, &at);
    if (!made && code == PCRE2_ERROR_NOMEMORY) { /* the garbage may hold expressions */
        free_parts(r);
        lua_gc(L, LUA_GCCOLLECT);
        made = prepare(r, p, len, options, &code, &at);
    }
    if (made)
        return 1;
    if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)
        return luaL_error(L, "host.regex: not enough memory");
    pcre2_get_error_message(code, why, sizeof why);
    return luaL_error(L, "host.regex: %s at character %d", (const char *)why, (int)at + 1);
}

/* ---- matching ---- */

/* A search through one text. */
typedef struct search {
    regex *r;
    const char *s;
    size_t len;
    pattern_span spans[PATTERN_MAX_CAPTURES];
    capture c;
} search;

static void note(lua_State *L, search *k, int groups)
{
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(k->r->data);
    uint32_t n = pcre2_get_ovector_count(k->r->data) - 1;
    if (n > PATTERN_MAX_CAPTURES)
        luaL_error(L, "regex: more than %d groups", PATTERN_MAX_CAPTURES);
    for (uint32_t i = 0; i < n; i++) {
        size_t from = v[2 * i + 2], to = v[2 * i + 3];
        bool took = (int)i + 1 < groups && from != PCRE2_UNSET && to >= from;
        k->spans[i] =
            took ? (pattern_span){k->s + from, (ptrdiff_t)(to - from)} : (pattern_span){NULL, 0};
    }
    k->c = (capture){k->s, k->s + v[0], k->s + v[1], k->spans, (int)n};
}

/* The next match at or after `from`; with `not_empty`, no empty one at `from` itself. */
static bool next(lua_State *L, search *k, size_t from, bool not_empty)
{
    uint32_t o = not_empty ? PCRE2_NOTEMPTY_ATSTART : 0;
    sandbox_charge(L, CALL_STEPS + (k->len - from) / BYTES_A_STEP);
    int rc = pcre2_match(k->r->code, (PCRE2_SPTR)k->s, k->len, from, o, k->r->data, k->r->limits);
    if (rc == PCRE2_ERROR_NOMATCH)
        return false;
    if (rc > 0) {
        note(L, k, rc);
        return true;
    }
    sandbox_charge(L, REGEX_MAX_STEPS);
    if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT)
        luaL_error(L, "regex: the text takes more than %d steps, or too much depth",
                   REGEX_MAX_STEPS);
    PCRE2_UCHAR why[128] = "";
    pcre2_get_error_message(rc, why, sizeof why);
    luaL_error(L, "regex: %s", (const char *)why);
    return false; /* not reached */
}

/* Reads the arguments (expression, text, start); false where the start is past the end. */
static bool begin(lua_State *L, search *k, size_t *from)
{
    *k = (search){.r = luaL_checkudata(L, 1, type_name)};
    k->s = luaL_checklstring(L, 2, &k->len);
    lua_Integer i = luaL_optinteger(L, 3, 1);
    if (i < 0)
        i = i < -(lua_Integer)k->len ? 1 : (lua_Integer)k->len + i + 1;
    *from = i > 1 ? (size_t)i - 1 : 0;
    return *from <= k->len;
}

static int regex_match(lua_State *L)
{
    search k;
    size_t from;
    if (begin(L, &k, &from) && next(L, &k, from, false))
        return capture_push_all(L, &k.c, true);
    lua_pushnil(L);
    return 1;
}

static int regex_find(lua_State *L)
{
    search k;
    size_t from;
    if (!begin(L, &k, &from) || !next(L, &k, from, false)) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, k.c.from - k.s + 1);
    lua_pushinteger(L, k.c.to - k.s);
    return 2 + capture_push_all(L, &k.c, false);
}

/* Upvalues: the expression, the text, where to go on, whether a match ended there. */
static int gmatch_next(lua_State *L)
{
    search k = {.r = lua_touserdata(L, lua_upvalueindex(1))};
    size_t from = (size_t)lua_tointeger(L, lua_upvalueindex(3));
    k.s = lua_tolstring(L, lua_upvalueindex(2), &k.len);
    bool again = lua_toboolean(L, lua_upvalueindex(4));
    if (from > k.len || !next(L, &k, from, again))
        return 0;
    lua_pushinteger(L, k.c.to - k.s);
    lua_replace(L, lua_upvalueindex(3));
    lua_pushboolean(L, 1);
    lua_replace(L, lua_upvalueindex(4));
    return capture_push_all(L, &k.c, true);
}

static int regex_gmatch(lua_State *L)
{
    search k;
    size_t from;
    begin(L, &k, &from);
    lua_settop(L, 2);
    lua_pushinteger(L, (lua_Integer)from);
    lua_pushboolean(L, 0);
    lua_pushcclosure(L, gmatch_next, 4);
    return 1;
}

/* (expression, text, replacement, at most n) */
static int regex_gsub(lua_State *L)
{
    luaL_Buffer b;
    search k = {.r = luaL_checkudata(L, 1, type_name)};
    size_t at = 0;
    k.s = luaL_checklstring(L, 2, &k.len);
    capture_check(L, 3);
    lua_Integer max = luaL_optinteger(L, 4, LUA_MAXINTEGER), n = 0;
    bool changed = false;
    lua_settop(L, 4);
    luaL_buffinit(L, &b);
    while (n < max && next(L, &k, at, n > 0)) {
        luaL_addlstring(&b, k.s + at, (size_t)(k.c.from - k.s) - at);
        at = (size_t)(k.c.to - k.s);
        changed = capture_replace(L, &b, &k.c, 3) || changed;
        n++;
    }
    if (changed) {
        luaL_addlstring(&b, k.s + at, k.len - at);
        luaL_pushresult(&b);
    } else {
        lua_pushvalue(L, 2);
    }
    lua_pushinteger(L, n);
    return 2;
}

void regex_push(lua_State *L)
{
    static const luaL_Reg methods[] = {{"match", regex_match},
                                       {"find", regex_find},
                                       {"gmatch", regex_gmatch},
                                       {"gsub", regex_gsub},
                                       {NULL, NULL}};
    luaL_newmetatable(L, type_name);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lib_freeze(L, "regex");
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, regex_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, "regex");
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    lua_pushcfunction(L, host_regex);
}
