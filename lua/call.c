#include "lua/call.h"

#include "lua/value.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the parts of a call share. Indices are of the Lua stack. */
typedef struct call {
    lua_State *L;
    const script_hook *h;
    const form *f;
    hook_call *c;
    const char *name;
    int fn, n_args, answer; /* the function, its arguments after it, the first of two answers */
} call;

/* Raises a message that names the line where the function begins. */
static _Noreturn void fail(const call *k, const char *why)
{
    lua_pushfstring(k->L, "%s:%d: %s", sandbox_name(sandbox_of(k->L)), k->h->line, why);
    lua_error(k->L);
    abort(); /* not reached */
}

/* ---- arguments ---- */

static void push_rest(const call *k)
{
    const char *key;
    json_t *v;
    lua_newtable(k->L);
    json_object_foreach (k->c->data, key, v) {
        if (strcmp(key, k->f->first) == 0 ||
            (k->f->second != NULL && strcmp(key, k->f->second) == 0))
            continue;
        value_push(k->L, v);
        lua_setfield(k->L, -2, key);
    }
}

static const char *stream_of(const json_t *data, int64_t *choice)
{
    const char *request = json_string_value(json_object_get(data, "request_id"));
    *choice = json_integer_value(json_object_get(data, "choice"));
    return request != NULL ? request : "";
}

/* Adds what the script kept to the table on the top. */
static void push_kept(const call *k, streams *st)
{
    const char *key;
    int64_t choice;
    json_t *v, **box = value_box(k->L);
    const char *request = stream_of(k->c->data, &choice);
    *box = stream_take(st, request, choice);
    json_object_foreach (*box, key, v) {
        value_push(k->L, v);
        lua_setfield(k->L, -3, key);
    }
    lua_pop(k->L, 1);
}

static void push_args(call *k, streams *st)
{
    int top = lua_gettop(k->L);
    const json_t *data = k->c->data;
    if (k->f->first == NULL) {
        value_push(k->L, data);
    } else {
        value_push(k->L, json_object_get(data, k->f->first));
        if (k->f->second != NULL)
            value_push(k->L, json_object_get(data, k->f->second));
        push_rest(k);
        if (k->f->stream)
            push_kept(k, st);
    }
    k->n_args = lua_gettop(k->L) - top;
}

/* ---- answers ---- */

static _Noreturn void wrong(const call *k, const char *got)
{
    char *may = form_answers(k->f), why[512];
    snprintf(why, sizeof why, "the answer is %s; %s takes %s", got, k->f->point, may);
    free(may);
    fail(k, why);
}

/* The value at idx; new reference. */
static json_t *take(const call *k, int idx, const json_t *like)
{
    hone_err e = {0};
    json_t *v;
    if (value_take(k->L, idx, like, "the answer", &v, &e) != 0)
        fail(k, e.msg);
    return v;
}

static int veto(const call *k, const char *otherwise)
{
    const char *why = lua_type(k->L, k->answer + 1) == LUA_TSTRING
                          ? lua_tostring(k->L, k->answer + 1)
                          : otherwise;
    if (!hook_describe(k->c->point)->may_veto)
        wrong(k, "a refusal");
    snprintf(k->c->reason, sizeof k->c->reason, "%s", why);
    return HOOK_VETO;
}

/* Puts v (taken) where the replaced argument came from. */
static int replace(const call *k, json_t *v)
{
    const char *field = k->f->replaces == 2 ? k->f->second : k->f->first;
    if (field != NULL) {
        json_object_set_new_nocheck(k->c->data, field, v);
    } else {
        json_decref(k->c->data);
        k->c->data = v;
    }
    return HOOK_MODIFIED;
}

static const json_t *original(const call *k)
{
    const char *field = k->f->replaces == 2 ? k->f->second : k->f->first;
    return field != NULL ? json_object_get(k->c->data, field) : k->c->data;
}

/* The script said nothing, but may have changed its argument in place. */
static int unchanged(const call *k)
{
    int idx = k->fn + k->f->replaces;
    if (k->f->replaces == 0 || lua_type(k->L, idx) != LUA_TTABLE)
        return HOOK_CONTINUE;
    json_t *v = take(k, idx, original(k));
    if (!json_equal(v, original(k)))
        return replace(k, v);
    json_decref(v);
    return HOOK_CONTINUE;
}

static int merge(const call *k, json_t *v)
{
    const char *field = k->f->merges;
    json_t *into = field[0] != '\0' ? json_object_get(k->c->data, field) : k->c->data;
    if (!json_is_object(v)) {
        json_decref(v);
        wrong(k, "a list");
    }
    if (into == NULL)
        json_object_set_new_nocheck(k->c->data, field, v);
    else {
        json_object_update(into, v);
        json_decref(v);
    }
    return HOOK_MODIFIED;
}

static bool is_empty(const call *k)
{
    lua_pushnil(k->L);
    bool some = lua_next(k->L, k->answer);
    lua_settop(k->L, k->answer + 1);
    return !some;
}

static int table_answer(const call *k)
{
    if (k->f->merges != NULL)
        return merge(k, take(k, k->answer, NULL));
    if (k->f->replaces == 0)
        wrong(k, "a table");
    if (k->f->list && is_empty(k))
        return replace(k, json_array());
    return replace(k, take(k, k->answer, original(k)));
}

/* Is s one of the words of "a|b|c"? */
static bool has_word(const char *words, const char *s)
{
    size_t len = strlen(s);
    for (const char *w = words; w != NULL && *w != '\0';) {
        size_t n = strcspn(w, "|");
        if (n == len && memcmp(w, s, n) == 0)
            return true;
        w += n + (w[n] == '|');
    }
    return false;
}

/* Why a gate says so goes to its reasons. */
static void add_reason(const call *k, const char *word)
{
    json_t *reasons = json_object_get(k->c->data, "reasons");
    if (lua_type(k->L, k->answer + 1) != LUA_TSTRING || !json_is_array(reasons))
        return;
    json_t *why = take(k, k->answer + 1, NULL);
    json_array_append_new(reasons,
                          json_sprintf("%s: %s: %s", word, k->name, json_string_value(why)));
    json_decref(why);
}

/* Sets a field; whether that changed anything. */
static int set(const call *k, const char *field, json_t *v)
{
    bool same = json_equal(v, json_object_get(k->c->data, field));
    json_object_set_new_nocheck(k->c->data, field, v);
    return same ? HOOK_CONTINUE : HOOK_MODIFIED;
}

static int text_answer(const call *k)
{
    const form *f = k->f;
    const char *s = lua_tostring(k->L, k->answer);
    if (f->stops != NULL && strcmp(s, f->stops) == 0)
        return veto(k, s);
    if (f->sets != NULL && strcmp(s, f->sets) == 0)
        return set(k, s, json_true());
    if (has_word(f->words, s)) {
        add_reason(k, s);
        set(k, f->word, json_string(s));
        return HOOK_MODIFIED;
    }
    if (f->text == NULL)
        wrong(k, "text");
    if (f->with_text == NULL)
        return set(k, f->text, take(k, k->answer, NULL));
    if (lua_type(k->L, k->answer + 1) != LUA_TTABLE)
        wrong(k, "text alone");
    json_t *v = take(k, k->answer + 1, json_object_get(k->c->data, f->with_text));
    set(k, f->with_text, v);
    set(k, f->text, take(k, k->answer, NULL));
    return HOOK_MODIFIED;
}

static int judge(const call *k)
{
    switch (lua_type(k->L, k->answer)) {
    case LUA_TNIL:
        return unchanged(k);
    case LUA_TBOOLEAN:
        return lua_toboolean(k->L, k->answer) ? unchanged(k) : veto(k, "no reason given");
    case LUA_TTABLE:
        return table_answer(k);
    case LUA_TSTRING:
        return text_answer(k);
    default:
        wrong(k, lua_type(k->L, k->answer) == LUA_TNUMBER ? "a number" : "no value of JSON");
    }
}

/* ---- streams ---- */

/* Keeps what the script left in its last argument. Nothing is kept past the end. */
static void keep(const call *k, streams *st, bool eof, const char *request, int64_t choice)
{
    hone_err e = {0};
    if (eof)
        return;
    json_t *v = take(k, k->fn + k->n_args, NULL);
    json_object_del(v, "request_id");
    json_object_del(v, "choice");
    int rc = stream_keep(st, request, choice, v, &e);
    json_decref(v);
    if (rc != 0)
        fail(k, e.msg);
}

int call_hook(lua_State *L, const script_hook *h, hook_call *c, streams *st, const char *name)
{
    call k = {L, h, h->form, c, name, lua_gettop(L), 0, 0};
    luaL_checkstack(L, 16, "the call");
    push_args(&k, st);
    lua_pushvalue(L, k.fn);
    for (int i = 1; i <= k.n_args; i++)
        lua_pushvalue(L, k.fn + i);
    lua_call(L, k.n_args, 2);
    k.answer = lua_gettop(L) - 1;
    if (k.f->stream) {
        int64_t choice;
        const char *request = stream_of(c->data, &choice);
        keep(&k, st, json_is_true(json_object_get(c->data, "eof")), request, choice);
    }
    int answer = judge(&k);
    lua_settop(L, k.fn - 1);
    return answer;
}
