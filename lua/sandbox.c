#include "lua/sandbox.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mem.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum {
    INTERVAL = 100,        /* instructions between two looks at the limits */
    LARGE = 1024,          /* bytes: what is smaller is paid by the instruction that asked */
    BYTES_A_STEP = 16,     /* of copying */
    REFUSED_STEPS = 50000, /* a refused allocation makes Lua collect all its garbage */
    CLOCK_STEPS = 1000,    /* charged work after which the clock is read */
    MAX_BLOCK_SHARE = 4,   /* one block is at most this part of the memory */
    MESSAGE_LEVELS = 16,   /* of the stack, searched for a line of the script */
    SLOT = 16,             /* bytes of a value on a stack of Lua's */
    SPARE_SLOTS = 5,       /* that Lua adds to its size */
    LARGE_STACK = 10000,   /* slots */
};

typedef enum { FINE, OUT_OF_STEPS, OUT_OF_TIME, CANCELLED } ending;

struct sandbox {
    lua_State *L;
    const char *name;
    void *user;
    const atomic_bool *cancel;
    sandbox_limits limits;
    size_t used, peak, limit;
    int64_t left, deadline; /* steps; monotonic nanoseconds, 0: none */
    int64_t cpu_end;        /* of the second half of the time, by clock_thread_ns; 0: not yet */
    int64_t unclocked;      /* steps charged since the clock was read */
    int64_t ticks;          /* of the hook */
    int64_t stack_ticks;    /* when a stack grew last */
    size_t stack_slots;     /* to which size */
    ending end;             /* sticky: once not FINE, nothing of this call goes on */
    int line;               /* where the script was when a limit was hit */
    bool running, poisoned, loading;
};

sandbox *sandbox_of(lua_State *L)
{
    sandbox *s;
    memcpy(&s, lua_getextraspace(L), sizeof s);
    return s;
}

/* ---- where the script is ---- */

/* Neither allocates nor raises, so that the allocator may ask. */
static int line_of(lua_State *L)
{
    lua_Debug ar;
    for (int level = 0; level < MESSAGE_LEVELS && lua_getstack(L, level, &ar); level++)
        if (lua_getinfo(L, "l", &ar) && ar.currentline > 0)
            return ar.currentline;
    return 0;
}

/* ---- memory ---- */

static void end_by(sandbox *s, ending why)
{
    if (s->end != FINE)
        return;
    s->end = why;
    s->line = line_of(s->L);
}

/* A table that is its own __call makes one instruction push values until no memory is left, and
 * move all of them for each: quadratic work that no hook sees. What shows is that blocks for the
 * stack come one after the other, each twice the last, while no instruction is run: then the moves
 * that were made in the last one are paid for. */
static void pay_for_stack(sandbox *s, size_t n)
{
    enum { MOVES_A_STEP = 100 };
    size_t slots = n / SLOT - SPARE_SLOTS, last = s->stack_slots;
    if (slots == 2 * last && s->ticks == s->stack_ticks)
        s->left -= (int64_t)(last * last / MOVES_A_STEP);
    s->stack_slots = slots;
    s->stack_ticks = s->ticks;
}

/* May the state grow by `more` bytes for a block of n? */
static bool may_grow(sandbox *s, size_t more, size_t n)
{
    bool fits =
        s->used <= s->limit && more <= s->limit - s->used && n <= s->limit / MAX_BLOCK_SHARE;
    if (!s->running)
        return fits;
    if (!fits && s->end == FINE)
        s->line = line_of(s->L);
    s->left -= fits ? (int64_t)(n >= LARGE ? n / BYTES_A_STEP : 0) : REFUSED_STEPS;
    if (fits && s->left < 0)
        end_by(s, OUT_OF_STEPS);
    return fits && s->end == FINE;
}

static void count(sandbox *s, size_t old, size_t n)
{
    s->used = s->used - old + n;
    if (s->used > s->peak)
        s->peak = s->used;
}

/* Lua passes a type tag as osize where ptr is NULL. */
static void *allocate(void *ud, void *ptr, size_t osize, size_t nsize)
{
    sandbox *s = ud;
    size_t old = ptr != NULL ? osize : 0;
    if (nsize == 0) {
        free(ptr);
        count(s, old, 0);
        return NULL;
    }
    if (ptr == NULL && osize == 0 && s->running && nsize >= (size_t)LARGE_STACK * SLOT)
        pay_for_stack(s, nsize);
    if (nsize > old && !may_grow(s, nsize - old, nsize))
        return NULL;
    void *p = realloc(ptr, nsize);
    if (p == NULL && nsize > old)
        return NULL;
    count(s, old, nsize);
    return p != NULL ? p : ptr; /* Lua takes for granted that a block can be made smaller */
}

void *sandbox_alloc(sandbox *s, size_t n)
{
    return allocate(s, NULL, 0, n);
}

void sandbox_dealloc(sandbox *s, void *p, size_t n)
{
    if (p != NULL)
        allocate(s, p, n, 0);
}

/* ---- steps and time ---- */

/* The clock that all share costs little and is asked first; how much of its time was ours is only
 * asked when half of it has passed. */
static bool is_late(sandbox *s)
{
    int64_t half = s->limits.time_ns / 2, mono = clock_mono_ns();
    if (s->deadline == 0 || mono < s->deadline)
        return false;
    int64_t cpu = clock_thread_ns();
    if (s->cpu_end == 0)
        s->cpu_end = cpu + half;
    s->deadline = mono + (s->cpu_end - cpu);
    return cpu >= s->cpu_end;
}

static void look(sandbox *s)
{
    s->unclocked = 0;
    if (s->left < 0)
        end_by(s, OUT_OF_STEPS);
    else if (is_late(s))
        end_by(s, OUT_OF_TIME);
    else if (s->cancel != NULL && atomic_load_explicit(s->cancel, memory_order_relaxed))
        end_by(s, CANCELLED);
}

/* The message is made by sandbox_run: the memory for one may be missing here. */
static _Noreturn void stop(lua_State *L)
{
    lua_pushnil(L);
    lua_error(L);
    abort(); /* not reached */
}

/* Once a limit is hit, every instruction raises, so that a pcall around the one that was caught
 * does not go on. */
static void tick(lua_State *L, lua_Debug *ar)
{
    sandbox *s = sandbox_of(L);
    s->ticks++;
    if (s->end == FINE) {
        s->left -= INTERVAL;
        look(s);
        if (s->end != FINE && lua_getinfo(L, "l", ar) && ar->currentline > 0)
            s->line = ar->currentline; /* of the coroutine that runs */
    }
    if (s->end == FINE)
        return;
    lua_sethook(L, tick, LUA_MASKCOUNT | LUA_MASKLINE, 1);
    stop(L);
}

bool sandbox_spend(lua_State *L, size_t steps)
{
    sandbox *s = sandbox_of(L);
    int64_t n = steps < INT64_MAX / 4 ? (int64_t)steps : INT64_MAX / 4;
    s->left -= n;
    s->unclocked += n;
    if (s->end == FINE && (s->left < 0 || s->unclocked >= CLOCK_STEPS)) {
        look(s);
        int line = s->end != FINE ? line_of(L) : 0;
        if (line > 0)
            s->line = line;
    }
    return s->end == FINE;
}

void sandbox_charge(lua_State *L, size_t steps)
{
    if (!sandbox_spend(L, steps))
        stop(L);
}

/* ---- life ---- */

static int panic(lua_State *L)
{
    const char *why = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "no message";
    log_error("lua", "%s: an error outside every call: %s", sandbox_of(L)->name, why);
    abort();
}

int sandbox_new(sandbox **out, const char *name, const sandbox_limits *l, const atomic_bool *cancel,
                hone_err *e)
{
    sandbox *s = mem_alloc(sizeof *s);
    *out = NULL;
    s->name = name;
    s->limits = *l;
    s->limit = 2 * l->memory;
    s->loading = true;
    s->cancel = cancel;
    s->L = lua_newstate(allocate, s);
    if (s->L == NULL) {
        free(s);
        return hone_fail(e, HONE_ELIMIT, "%s: no Lua state fits into %zu bytes", name, l->memory);
    }
    memcpy(lua_getextraspace(s->L), &s, sizeof s);
    lua_atpanic(s->L, panic);
    lua_sethook(s->L, tick, LUA_MASKCOUNT, INTERVAL);
    *out = s;
    return 0;
}

void sandbox_free(sandbox *s)
{
    if (s == NULL)
        return;
    lua_close(s->L);
    free(s);
}

void sandbox_limit(sandbox *s, int64_t steps, int64_t time_ns, bool loading)
{
    s->limits.steps = steps;
    s->limits.time_ns = time_ns;
    s->limit = loading ? 2 * s->limits.memory : s->limits.memory;
    s->loading = loading;
}

bool sandbox_loading(const sandbox *s)
{
    return s->loading;
}

/* ---- calls ---- */

/* Gives every error a line of the script: its values and those of error(x, 0) have none. */
static int explain(lua_State *L)
{
    const sandbox *s = sandbox_of(L);
    size_t n = strlen(s->name);
    const char *said = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : NULL;
    if (said != NULL && strncmp(said, s->name, n) == 0 && said[n] == ':')
        return 1;
    int line = line_of(L);
    if (said == NULL)
        lua_pushfstring(L, "%s:%d: an error that is a %s", s->name, line, luaL_typename(L, 1));
    else if (line > 0)
        lua_pushfstring(L, "%s:%d: %s", s->name, line, said);
    else
        lua_pushfstring(L, "%s: %s", s->name, said);
    return 1;
}

static int stopped(const sandbox *s, hone_err *e)
{
    long long steps = s->limits.steps, ms = s->limits.time_ns / 1000000;
    if (s->end == OUT_OF_STEPS)
        return hone_fail(e, HONE_ELIMIT, "%s:%d: stopped after %lld steps", s->name, s->line,
                         steps);
    if (s->end == OUT_OF_TIME)
        return hone_fail(e, HONE_ETIMEOUT, "%s:%d: stopped after %lld ms", s->name, s->line, ms);
    return hone_fail(e, HONE_ECANCELLED, "%s:%d: stopped: cancelled", s->name, s->line);
}

static int outcome(sandbox *s, int status, hone_err *e)
{
    lua_State *L = s->L;
    s->poisoned = s->poisoned || s->end != FINE || (status != LUA_OK && status != LUA_ERRRUN);
    if (s->end != FINE)
        return stopped(s, e);
    if (status == LUA_OK)
        return 0;
    if (status == LUA_ERRMEM)
        return hone_fail(e, HONE_ELIMIT, "%s:%d: more than %zu bytes of memory", s->name, s->line,
                         s->limit);
    const char *said =
        lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "an error in an error";
    return hone_fail(e, HONE_EINVAL, "%s", said);
}

int sandbox_run(sandbox *s, lua_CFunction body, void *arg, hone_err *e)
{
    lua_State *L = s->L;
    if (s->poisoned)
        return hone_fail(e, HONE_EINTERNAL, "%s: the state is not usable any more", s->name);
    s->left = s->limits.steps;
    s->deadline = s->limits.time_ns > 0 ? clock_mono_ns() + s->limits.time_ns / 2 : 0;
    s->cpu_end = 0;
    s->unclocked = 0;
    s->ticks = s->stack_ticks = 0;
    s->stack_slots = 0;
    s->end = FINE;
    s->line = 0;
    lua_settop(L, 0);
    lua_pushcfunction(L, explain);
    lua_pushcfunction(L, body);
    lua_pushlightuserdata(L, arg);
    s->running = true;
    int status = lua_pcall(L, 1, 0, 1);
    s->running = false;
    int rc = outcome(s, status, e);
    lua_settop(L, 0);
    return rc;
}

bool sandbox_poisoned(const sandbox *s)
{
    return s->poisoned;
}

void *sandbox_user(const sandbox *s)
{
    return s->user;
}

void sandbox_set_user(sandbox *s, void *user)
{
    s->user = user;
}

const char *sandbox_name(const sandbox *s)
{
    return s->name;
}

sandbox_usage sandbox_used(const sandbox *s)
{
    return (sandbox_usage){s->used, s->peak, s->limit, s->limits.steps - s->left};
}

void sandbox_collect(sandbox *s)
{
    lua_gc(s->L, LUA_GCCOLLECT);
}
