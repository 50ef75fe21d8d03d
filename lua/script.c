#include "lua/script_int.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "lua/call.h"
#include "lua/lib.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUDGET_US = 20000,   /* of the calls that the limits are given for */
    LEAST_TIME_MS = 100, /* a machine that is busy must not stop a script that is not */
    LOAD_SHARE = 20,     /* loading may take so many times the steps of a call */
    LOAD_TIME_S = 5,
};

/* ---- sources ---- */

int script_read(script_source *out, const char *path, const char *sha256, hone_err *e)
{
    *out = (script_source){0};
    int rc = file_read(&out->text, &out->len, path, SCRIPT_MAX_BYTES, e);
    if (rc != 0)
        return rc;
    out->file = mem_strdup(path_base(path));
    bytes_sha256(out->sha256, out->text, out->len);
    if (sha256 != NULL && strcmp(sha256, out->sha256) != 0) {
        rc = hone_fail(e, HONE_EDENIED, "%s: its SHA-256 is %s, wanted %s", path, out->sha256,
                       sha256);
        script_source_free(out);
    }
    return rc;
}

void script_source_free(script_source *s)
{
    free(s->file);
    free(s->text);
    *s = (script_source){0};
}

/* ---- life ---- */

/* What stays after loading must leave room for the calls. */
static int check_rest(const script *s, hone_err *e)
{
    sandbox_collect(s->box);
    sandbox_usage u = sandbox_used(s->box);
    if (u.now <= s->setup.limits.memory / 2)
        return 0;
    return hone_fail(e, HONE_ELIMIT, "%s: keeps %zu bytes after loading, at most half of %zu",
                     s->source->file, u.now, s->setup.limits.memory);
}

int script_open(script **out, const script_source *src, const script_setup *setup, hone_err *e)
{
    script *s = mem_alloc(sizeof *s);
    const sandbox_limits *l = &setup->limits;
    *out = NULL;
    s->source = src;
    s->setup = *setup;
    s->api = (api){.name = setup->name,
                   .kv = setup->kv,
                   .hooks = setup->hooks,
                   .deterministic = true,
                   .quiet = setup->quiet};
    int rc = sandbox_new(&s->box, src->file, l, setup->cancel, e);
    if (rc == 0) {
        sandbox_limit(s->box, LOAD_SHARE * l->steps, LOAD_TIME_S * 1000000000LL, true);
        rc = sandbox_run(s->box, script_load, s, e);
    }
    if (rc == 0)
        rc = check_rest(s, e);
    if (rc != 0) {
        script_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void script_close(script *s)
{
    if (s == NULL)
        return;
    sandbox_free(s->box);
    json_decref(s->header);
    json_decref(s->settings);
    free(s);
}

const json_t *script_header(const script *s)
{
    return s->header;
}

const json_t *script_settings(const script *s)
{
    return s->settings;
}

const script_hook *script_hooks(const script *s, size_t *n)
{
    *n = s->n;
    return s->hooks;
}

bool script_spent(const script *s)
{
    return sandbox_poisoned(s->box);
}

sandbox_usage script_usage(const script *s)
{
    return sandbox_used(s->box);
}

/* ---- calls ---- */

/* Random numbers are a function of what the hook was given: no matter which state, in which order.
 */
static uint64_t seed_of_call(void *arg)
{
    const script *s = arg;
    char *text = js_text(s->data, true);
    uint64_t seed = rng_stream(text) ^ s->setup.seed ^ (uint64_t)s->calling << 56;
    free(text);
    return seed;
}

int script_enter(lua_State *L, script *s, size_t i, hook_call *c)
{
    const script_hook *h = &s->hooks[i];
    bool outer = s->api.deterministic;
    s->data = c->data;
    s->calling = i;
    s->api.deterministic =
        s->setup.deterministic || strncmp(hook_describe(h->point)->name, "data.", 5) == 0;
    if (s->api.deterministic)
        lib_random(L, seed_of_call, s);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &script_functions_key);
    lua_rawgeti(L, -1, (lua_Integer)i + 1);
    lua_remove(L, -2);
    int answer = call_hook(L, h, c, s->setup.streams, s->api.name);
    s->api.deterministic = outer;
    return answer;
}

typedef struct one_call {
    script *s;
    size_t i;
    hook_call *c;
    int answer;
} one_call;

static int body(lua_State *L)
{
    one_call *k = lua_touserdata(L, 1);
    k->answer = script_enter(L, k->s, k->i, k->c);
    return 0;
}

static void limit(script *s, const hook_info *info, bool deterministic)
{
    int64_t share = info->budget_us > BUDGET_US ? info->budget_us / BUDGET_US : 1;
    int64_t ms = info->budget_us / 1000 * (deterministic ? 10 : 2);
    int64_t least = (int64_t)LEAST_TIME_MS * (deterministic ? 10 : 1);
    sandbox_limit(s->box, share * s->setup.limits.steps, (ms > least ? ms : least) * 1000000,
                  false);
}

int script_call(script *s, size_t i, hook_call *c, hone_err *e)
{
    const hook_info *info = hook_describe(s->hooks[i].point);
    one_call k = {s, i, c, HOOK_CONTINUE};
    limit(s, info, s->setup.deterministic || strncmp(info->name, "data.", 5) == 0);
    s->api.lines = 0;
    s->api.deterministic = false;
    int rc = sandbox_run(s->box, body, &k, e);
    return rc == 0 ? k.answer : rc;
}
