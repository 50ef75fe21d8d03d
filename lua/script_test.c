/* The tests that a script brings along: functions that get one table, t:
 *
 *     t.emit(point, data)   runs the script's hooks there, as the appliance would: returns
 *                           {answer = "continue"|"modified"|"veto", data, reason}
 *     t.eq(got, want)       raises where they are not the same JSON */
#include "lua/script_int.h"

#include "core/base/js.h"
#include "core/base/mem.h"
#include "lua/lib.h"
#include "lua/value.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

static script *script_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* ---- t.emit ---- */

/* A call whose data is released whatever is raised. */
static int drop_call(lua_State *L)
{
    hook_call *c = lua_touserdata(L, 1);
    json_decref(c->data);
    c->data = NULL;
    return 0;
}

static hook_call *new_call(lua_State *L, hook_point p)
{
    hook_call *c = lua_newuserdatauv(L, sizeof *c, 0);
    *c = (hook_call){.point = p};
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, drop_call);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    return c;
}

static int by_priority(const void *a, const void *b)
{
    const script_hook *const *x = a, *const *y = b;
    int d = ((*x)->priority > (*y)->priority) - ((*x)->priority < (*y)->priority);
    return d != 0 ? d : (*x > *y) - (*x < *y);
}

/* Runs the hooks of the point, lowest priority first; returns what came of it. */
static int run_chain(lua_State *L, script *s, hook_call *c)
{
    const script_hook *order[SCRIPT_MAX_HOOKS];
    size_t n = 0;
    int answer = HOOK_CONTINUE;
    for (size_t i = 0; i < s->n; i++)
        if (s->hooks[i].point == c->point)
            order[n++] = &s->hooks[i];
    if (n == 0)
        luaL_error(L, "t.emit: the script has no hook at '%s'", hook_describe(c->point)->name);
    qsort(order, n, sizeof *order, by_priority);
    for (size_t i = 0; i < n && answer != HOOK_VETO; i++) {
        int now = script_enter(L, s, (size_t)(order[i] - s->hooks), c);
        answer = now != HOOK_CONTINUE ? now : answer;
    }
    return answer;
}

static int test_emit(lua_State *L)
{
    static const char *const words[] = {"continue", "modified", "veto"};
    script *s = script_of(L);
    hone_err e = {0};
    hook_point p;
    if (hook_by_name(&p, luaL_checkstring(L, 1), &e) != 0)
        return luaL_error(L, "t.emit: %s", e.msg);
    hook_call *c = new_call(L, p);
    if (value_take(L, 2, NULL, "t.emit: data", &c->data, &e) != 0)
        return luaL_error(L, "%s", e.msg);
    int answer = run_chain(L, s, c);
    lua_createtable(L, 0, 3);
    lua_pushstring(L, words[answer]);
    lua_setfield(L, -2, "answer");
    value_push(L, c->data);
    lua_setfield(L, -2, "data");
    lua_pushstring(L, c->reason);
    lua_setfield(L, -2, "reason");
    return 1;
}

/* ---- t.eq ---- */

static json_t **take_into_box(lua_State *L, int idx)
{
    hone_err e = {0};
    json_t **box = value_box(L);
    if (lua_isnoneornil(L, idx))
        *box = json_null();
    else if (value_take(L, idx, NULL, "t.eq", box, &e) != 0)
        luaL_error(L, "%s", e.msg);
    return box;
}

static int test_eq(lua_State *L)
{
    char got[200], want[200];
    json_t **a = take_into_box(L, 1), **b = take_into_box(L, 2);
    if (json_equal(*a, *b))
        return 0;
    size_t n = json_dumpb(*a, got, sizeof got - 1, JSON_ENCODE_ANY | JSON_COMPACT);
    got[n < sizeof got ? n : sizeof got - 1] = '\0';
    n = json_dumpb(*b, want, sizeof want - 1, JSON_ENCODE_ANY | JSON_COMPACT);
    want[n < sizeof want ? n : sizeof want - 1] = '\0';
    return luaL_error(L, "got %s, wanted %s", got, want);
}

/* ---- the run ---- */

typedef struct one_test {
    script *s;
    const char *name;
} one_test;

static int body(lua_State *L)
{
    static const luaL_Reg functions[] = {{"emit", test_emit}, {"eq", test_eq}, {NULL, NULL}};
    one_test *t = lua_touserdata(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &script_tests_key);
    lua_getfield(L, -1, t->name);
    lua_newtable(L);
    lua_pushlightuserdata(L, t->s);
    luaL_setfuncs(L, functions, 1);
    lua_call(L, 1, 0);
    return 0;
}

int script_test(script *s, json_t **report, hone_err *e)
{
    const json_t *names = json_object_get(s->header, "tests");
    int64_t steps = 20 * s->setup.limits.steps;
    int first = 0;
    *report = json_array();
    for (size_t i = 0; i < json_array_size(names) && !script_spent(s); i++) {
        hone_err own = {0};
        one_test t = {s, json_string_value(json_array_get(names, i))};
        s->api.lines = 0;
        s->api.deterministic = false;
        sandbox_limit(s->box, steps, 5000000000LL, false);
        int rc = sandbox_run(s->box, body, &t, &own);
        json_array_append_new(*report, json_pack("{s:s, s:b, s:s}", "name", t.name, "passed",
                                                 rc == 0, "message", own.msg));
        if (rc != 0 && first == 0)
            first = hone_fail(e, rc, "test '%s': %s", t.name, own.msg);
    }
    return first;
}
