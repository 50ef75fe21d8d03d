#pragma once
/* One Lua state that cannot take more than it is given: bytes held, steps and time of a call. What
 * a stock Lua leaves open (a loop under pcall, C functions that never reach the hook, finalizers,
 * bytecode) is closed here and in lib.h. A state belongs to one thread at a time.
 *
 * A step is a VM instruction, or what a C function says that its work is worth, or 16 bytes of a
 * large allocation. Source: measurements on Lua 5.4.4. */
#include "core/base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

typedef struct sandbox_limits {
    size_t memory;   /* bytes that the state may hold; twice that while it is being loaded */
    int64_t steps;   /* of one call */
    int64_t time_ns; /* of one call: half of it by the clock, the rest of the processor, so that a
                        busy machine ends no script that did little; 0: no such limit */
} sandbox_limits;

typedef struct sandbox sandbox;

/* An empty state: no library is open. cancel may be NULL; where it becomes true, a running call
 * ends. `name` is what messages call the script; it is borrowed for the life of the state. */
int sandbox_new(sandbox **out, const char *name, const sandbox_limits *l, const atomic_bool *cancel,
                hone_err *e);
void sandbox_free(sandbox *s); /* NULL is a no-op */

/* Calls body(L) with `arg` as a light userdata at index 1, protected and limited; body may raise.
 * Errors: EINVAL for an error of the script, ELIMIT for memory and steps, ETIMEOUT, ECANCELLED; the
 * message begins with the script's name and line. */
int sandbox_run(sandbox *s, lua_CFunction body, void *arg, hone_err *e);

/* Limits of the calls that follow; `loading` doubles the memory. */
void sandbox_limit(sandbox *s, int64_t steps, int64_t time_ns, bool loading);

bool sandbox_loading(const sandbox *s);

/* A limit was hit: the state must be dropped, not used again. */
bool sandbox_poisoned(const sandbox *s);

/* Inside a call, for C functions: `steps` of work are done now. Raises when that is too much. */
void sandbox_charge(lua_State *L, size_t steps);
/* The same, but returns false instead of raising: the caller returns as soon as it can. */
bool sandbox_spend(lua_State *L, size_t steps);

/* The same account for memory that a library allocates for the script: NULL when it is over. */
void *sandbox_alloc(sandbox *s, size_t n);
void sandbox_dealloc(sandbox *s, void *p, size_t n);

sandbox *sandbox_of(lua_State *L);
void *sandbox_user(const sandbox *s); /* whatever its owner keeps with it */
void sandbox_set_user(sandbox *s, void *user);
const char *sandbox_name(const sandbox *s);

typedef struct sandbox_usage {
    size_t now, peak, limit; /* bytes */
    int64_t steps;           /* of the last call, to the next hundred */
} sandbox_usage;
sandbox_usage sandbox_used(const sandbox *s);
/* Collects garbage; for the count of what a script keeps. Not inside a call. */
void sandbox_collect(sandbox *s);
