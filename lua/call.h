#pragma once
/* One call of a script's function at a hook point: the data in, the answer out. */
#include "lua/script.h"

/* The function is on the top of the stack and is taken from it. c->data is the subscriber's own.
 * Returns HOOK_CONTINUE, HOOK_MODIFIED or HOOK_VETO; raises what the script raises, and where its
 * answer means nothing here. `name` is put before its reasons. */
int call_hook(lua_State *L, const script_hook *h, hook_call *c, streams *st, const char *name);
