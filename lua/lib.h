#pragma once
/* The libraries that a script has: each function pushes one table. What can work long without
 * running an instruction charges for it (see sandbox_charge); nothing gives away an address, and
 * nothing depends on one. All raise. */
#include <lua.h>
#include <stddef.h>
#include <stdint.h>

/* The globals: pcall, pairs and so on. pairs and next go through the keys in a fixed order:
 * numbers, then text, each ascending, then the rest. */
void lib_base(lua_State *L);
void lib_string(lua_State *L); /* also makes the metatable of strings */
int lib_string_find(lua_State *L);
int lib_string_match(lua_State *L);
int lib_string_gmatch(lua_State *L);
int lib_string_gsub(lua_State *L);
void lib_table(lua_State *L);
void lib_math(lua_State *L);
void lib_utf8(lua_State *L);
void lib_coroutine(lua_State *L);

/* The environment of a script: the globals and the libraries, frozen. */
void lib_environment(lua_State *L);

/* Replaces the table on the top of the stack by one that reads from it and cannot be changed.
 * `what` is what it is called in the message. */
void lib_freeze(lua_State *L, const char *what);

/* Functions of a table of ours that charge `cost` and then do what the stock one does. */
typedef size_t lib_cost(lua_State *L);
typedef struct lib_row {
    const char *name;
    lua_CFunction fn; /* ours, or NULL: the stock one of this name */
    lib_cost *cost;   /* NULL: it is worth nothing */
} lib_row;

/* Opens the stock library, picks the rows (ended by a NULL name) from it, pushes the new table. */
void lib_pick(lua_State *L, lua_CFunction open, const lib_row *rows);

/* Puts functions that charge into the place of those of the table on the top of the stack. */
void lib_charge(lua_State *L, const lib_row *rows);

/* The cost of reading arguments that are numbers written as text. */
size_t lib_cost_of_numerals(lua_State *L);

/* As tostring, without addresses: pushes the text and returns it. */
const char *lib_text(lua_State *L, int idx, size_t *len);

/* math.random: `seed` is asked for a seed when the first number of the call is drawn. */
typedef uint64_t lib_seed(void *arg);
void lib_random(lua_State *L, lib_seed *seed, void *arg);
