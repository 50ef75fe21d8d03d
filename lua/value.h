#pragma once
/* JSON to Lua and back. An object is a table with text keys, an array a sequence that carries a
 * mark, so that an empty one comes back as it was; null is the light userdata NULL (host.null). A
 * whole number stays whole, a real stays real. What JSON cannot say (functions, cycles, NaN, bytes
 * that are not UTF-8, tables of both kinds) is an error that names the place. */
#include "core/base/err.h"

#include <jansson.h>
#include <lua.h>

enum {
    VALUE_MAX_DEPTH = 64,
    VALUE_STEPS = 20,          /* what one value costs, either way */
    VALUE_MAX_BYTES = 8 << 20, /* of text in one answer */
};

/* Makes the mark of arrays; once in a state. Raises. */
void value_setup(lua_State *L);

/* Pushes v. Raises where it is nested too deep, and without memory. */
void value_push(lua_State *L, const json_t *v);

/* Marks the table on the top of the stack as an array. Raises without memory. */
void value_mark(lua_State *L);

/* The value at idx as JSON (new reference); raises nothing, and leaves the stack as it was. Keys
 * stand in the order of `like` (NULL: none) as far as it has them, the others sorted after them. A
 * table without keys becomes an object, unless it is marked or `like` is an array.
 * Errors: EINVAL (the message names the place, "answer.scores[2]: ..."), ELIMIT. */
int value_take(lua_State *L, int idx, const json_t *like, const char *what, json_t **out,
               hone_err *e);

/* Pushes a userdata that holds a JSON value (NULL at first) and releases it when it is collected:
 * for values that must not be lost where something raises. */
json_t **value_box(lua_State *L);
