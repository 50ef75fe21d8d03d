#pragma once
/* What a match found, and how Lua sees it: shared by patterns and regular expressions. */
#include "lua/pattern.h"

#include <lauxlib.h>

typedef struct capture {
    const char *subject;
    const char *from, *to;     /* the whole match */
    const pattern_span *spans; /* at = NULL: the group took no part */
    int n;
} capture;

/* Pushes capture i (from 0): text, a position, false for a group that took no part. Without
 * captures, 0 is the whole match. Raises for one that is not there. */
void capture_push(lua_State *L, const capture *c, int i);

/* Pushes all, or the whole match where there are none and `whole`; returns how many. */
int capture_push_all(lua_State *L, const capture *c, bool whole);

/* Checks the replacement at idx (text, number, table or function). */
void capture_check(lua_State *L, int idx);

/* Adds what the replacement at idx makes of the match; returns whether it is another text. */
bool capture_replace(lua_State *L, luaL_Buffer *b, const capture *c, int idx);
