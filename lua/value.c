#include "lua/value.h"

#include "core/base/mem.h"
#include "core/base/utf8.h"
#include "lua/sandbox.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HOLES "a list with holes or other keys"

/* Its address is the key of the mark in the registry. */
static const char mark_key;

void value_setup(lua_State *L)
{
    lua_createtable(L, 0, 2);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pushliteral(L, "array");
    lua_setfield(L, -2, "__name");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &mark_key);
}

void value_mark(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &mark_key);
    lua_setmetatable(L, -2);
}

/* ---- JSON to Lua ---- */

static void push(lua_State *L, const json_t *v, int depth);

static void push_object(lua_State *L, const json_t *v, int depth)
{
    const char *key;
    json_t *item;
    lua_createtable(L, 0, (int)json_object_size(v));
    json_object_foreach ((json_t *)v, key, item) {
        push(L, item, depth + 1);
        lua_setfield(L, -2, key);
    }
}

static void push_array(lua_State *L, const json_t *v, int depth)
{
    lua_createtable(L, (int)json_array_size(v), 0);
    for (size_t i = 0; i < json_array_size(v); i++) {
        push(L, json_array_get(v, i), depth + 1);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    value_mark(L);
}

static void push(lua_State *L, const json_t *v, int depth)
{
    if (depth > VALUE_MAX_DEPTH)
        luaL_error(L, "the data is nested deeper than %d", VALUE_MAX_DEPTH);
    luaL_checkstack(L, 4, "the data is nested too deep");
    sandbox_charge(L, VALUE_STEPS);
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        push_object(L, v, depth);
        return;
    case JSON_ARRAY:
        push_array(L, v, depth);
        return;
    case JSON_STRING:
        lua_pushlstring(L, json_string_value(v), json_string_length(v));
        return;
    case JSON_INTEGER:
        lua_pushinteger(L, (lua_Integer)json_integer_value(v));
        return;
    case JSON_REAL:
        lua_pushnumber(L, json_real_value(v));
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        lua_pushboolean(L, json_is_true(v));
        return;
    case JSON_NULL:
        lua_pushlightuserdata(L, NULL);
        return;
    }
}

void value_push(lua_State *L, const json_t *v)
{
    if (v == NULL)
        lua_pushnil(L);
    else
        push(L, v, 0);
}

/* ---- boxes ---- */

static int drop_json(lua_State *L)
{
    json_t **box = lua_touserdata(L, 1);
    json_decref(*box);
    *box = NULL;
    return 0;
}

json_t **value_box(lua_State *L)
{
    json_t **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    if (luaL_newmetatable(L, "hone.json")) {
        lua_pushcfunction(L, drop_json);
        lua_setfield(L, -2, "__gc");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
    }
    lua_setmetatable(L, -2);
    return box;
}

/* ---- Lua to JSON ---- */

/* The place of a value, for messages: a list from the inside out. */
typedef struct place {
    const struct place *in;
    const char *key; /* NULL: an array's */
    size_t i;
} place;

typedef struct taking {
    lua_State *L;
    const char *what;
    size_t bytes;
    hone_err *e;
} taking;

typedef struct field {
    const char *name; /* the table's own */
    json_t *value;
} field;

/* After an error *out means nothing, and there is nothing to release. */
static int take(taking *t, int idx, const json_t *like, const place *at, int depth, json_t **out);

/* Prepends the place to the message. */
static int fail_there(taking *t, const place *at, int code, const char *why)
{
    char path[128] = "", longer[128]; /* of a deep place, the outer part */
    for (const place *p = at; p != NULL; p = p->in) {
        if (p->key != NULL)
            snprintf(longer, sizeof longer, ".%.60s%.60s", p->key, path);
        else
            snprintf(longer, sizeof longer, "[%zu]%.60s", p->i, path);
        memcpy(path, longer, sizeof path);
    }
    return hone_fail(t->e, code, "%s%s: %s", t->what, path, why);
}

static int take_text(taking *t, int idx, const place *at, json_t **out)
{
    size_t n;
    const char *s = lua_tolstring(t->L, idx, &n); /* a string already: no conversion, no error */
    t->bytes += n;
    if (t->bytes > VALUE_MAX_BYTES)
        return fail_there(t, at, HONE_ELIMIT, "the answer is too long");
    if (utf8_valid(s, n) != n)
        return fail_there(t, at, HONE_EINVAL, "bytes that are not UTF-8");
    *out = json_stringn_nocheck(s, n);
    return 0;
}

static int take_number(taking *t, int idx, const place *at, json_t **out)
{
    if (lua_isinteger(t->L, idx)) {
        *out = json_integer(lua_tointeger(t->L, idx));
        return 0;
    }
    double x = lua_tonumber(t->L, idx);
    if (!isfinite(x))
        return fail_there(t, at, HONE_EINVAL, "a number that is not finite");
    *out = json_real(x);
    return 0;
}

static int take_array(taking *t, int idx, const json_t *like, const place *at, int depth,
                      json_t **out)
{
    size_t n = lua_rawlen(t->L, idx);
    int rc = 0;
    *out = json_array();
    for (size_t i = 1; rc == 0 && i <= n; i++) {
        place here = {at, NULL, i};
        json_t *item = NULL;
        if (lua_rawgeti(t->L, idx, (lua_Integer)i) == LUA_TNIL)
            rc = fail_there(t, at, HONE_EINVAL, HOLES);
        else
            rc = take(t, lua_gettop(t->L), json_array_get(like, i - 1), &here, depth + 1, &item);
        lua_pop(t->L, 1);
        if (rc == 0)
            json_array_append_new(*out, item);
    }
    if (rc != 0)
        json_decref(*out);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const field *)a)->name, ((const field *)b)->name);
}

/* How many keys of the table are text, and how many are something else. */
static void count_keys(lua_State *L, int idx, size_t *texts, size_t *others)
{
    *texts = *others = 0;
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        *(lua_type(L, -1) == LUA_TSTRING ? texts : others) += 1;
    }
}

static int take_field(taking *t, field *f, const json_t *like, const place *at, int depth)
{
    size_t len;
    f->name = lua_tolstring(t->L, -2, &len);
    if (strlen(f->name) != len || utf8_valid(f->name, len) != len)
        return fail_there(t, at, HONE_EINVAL, "a key that is not UTF-8 text");
    place here = {at, f->name, 0};
    return take(t, lua_gettop(t->L), json_object_get(like, f->name), &here, depth + 1, &f->value);
}

/* Puts the fields (sorted by name) into an object: those that `like` has in its order, then the
 * others. */
static json_t *assemble(field *f, size_t n, const json_t *like)
{
    json_t *o = json_object(), *ignored;
    const char *key;
    json_object_foreach ((json_t *)like, key, ignored) {
        field wanted = {key, NULL};
        field *found = n != 0 ? bsearch(&wanted, f, n, sizeof *f, by_name) : NULL;
        if (found == NULL)
            continue;
        json_object_set_new_nocheck(o, key, found->value);
        found->value = NULL;
    }
    for (size_t i = 0; i < n; i++)
        if (f[i].value != NULL)
            json_object_set_new_nocheck(o, f[i].name, f[i].value);
    return o;
}

static int take_object(taking *t, int idx, size_t n, const json_t *like, const place *at, int depth,
                       json_t **out)
{
    field *f = mem_array(n, sizeof *f);
    size_t k = 0;
    int rc = 0;
    lua_pushnil(t->L);
    while (lua_next(t->L, idx)) {
        if (rc == 0)
            rc = take_field(t, &f[k++], like, at, depth);
        lua_pop(t->L, 1);
    }
    if (rc == 0) {
        qsort(f, n, sizeof *f, by_name);
        *out = assemble(f, n, like);
    }
    for (size_t i = 0; rc != 0 && i + 1 < k; i++) /* the last one failed */
        json_decref(f[i].value);
    free(f);
    return rc;
}

static bool is_marked(lua_State *L, int idx)
{
    if (!lua_getmetatable(L, idx))
        return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &mark_key);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

static int take_table(taking *t, int idx, const json_t *like, const place *at, int depth,
                      json_t **out)
{
    size_t texts, others, len = lua_rawlen(t->L, idx);
    count_keys(t->L, idx, &texts, &others);
    bool marked = is_marked(t->L, idx);
    if (texts != 0 && others != 0)
        return fail_there(t, at, HONE_EINVAL, "a table with text keys and with numbers");
    if (others != len || (marked && texts != 0))
        return fail_there(t, at, HONE_EINVAL, HOLES);
    if (len != 0 || (texts == 0 && (marked || json_is_array(like))))
        return take_array(t, idx, like, at, depth, out);
    return take_object(t, idx, texts, like, at, depth, out);
}

static int take(taking *t, int idx, const json_t *like, const place *at, int depth, json_t **out)
{
    if (depth > VALUE_MAX_DEPTH)
        return fail_there(t, at, HONE_ELIMIT, "nested too deep (a table that holds itself?)");
    if (!sandbox_spend(t->L, VALUE_STEPS))
        return fail_there(t, at, HONE_ELIMIT, "the answer has too many values");
    if (!lua_checkstack(t->L, 6))
        return fail_there(t, at, HONE_ELIMIT, "nested too deep for the memory that there is");
    switch (lua_type(t->L, idx)) {
    case LUA_TSTRING:
        return take_text(t, idx, at, out);
    case LUA_TNUMBER:
        return take_number(t, idx, at, out);
    case LUA_TBOOLEAN:
        *out = json_boolean(lua_toboolean(t->L, idx));
        return 0;
    case LUA_TTABLE:
        return take_table(t, idx, like, at, depth, out);
    case LUA_TLIGHTUSERDATA:
        *out = json_null();
        return 0;
    default: {
        char why[64];
        snprintf(why, sizeof why, "a %s is no value of JSON",
                 lua_typename(t->L, lua_type(t->L, idx)));
        return fail_there(t, at, HONE_EINVAL, why);
    }
    }
}

int value_take(lua_State *L, int idx, const json_t *like, const char *what, json_t **out,
               hone_err *e)
{
    taking t = {.L = L, .what = what, .e = e};
    int top = lua_gettop(L);
    json_t *v = NULL;
    int rc = take(&t, lua_absindex(L, idx), like, NULL, 0, &v);
    lua_settop(L, top);
    *out = rc == 0 ? v : NULL;
    return rc;
}
