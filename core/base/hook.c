#include "core/base/hook.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/nearest.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
static const hook_info points[HOOK_N_POINTS] = {
#define HOOK_ROW(id, name, m, v, closed, us, what) [HOOK_##id] = {name, m, v, closed, us, what},
    HOOK_POINTS(HOOK_ROW)
#undef HOOK_ROW
};
/* clang-format on */

typedef struct subscriber {
    char *name;
    int priority;
    hook_fn *fn;
    void *user;
} subscriber;

typedef struct chain {
    subscriber *subs;
    size_t n, cap;
    atomic_uint_fast64_t calls, vetoes, modified, failures, late, nanoseconds;
} chain;

struct hooks {
    chain chains[HOOK_N_POINTS];
};

hooks *hook_new(void)
{
    return mem_alloc(sizeof(hooks));
}

void hook_free(hooks *h)
{
    if (h == NULL)
        return;
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        for (size_t i = 0; i < h->chains[p].n; i++)
            free(h->chains[p].subs[i].name);
        free(h->chains[p].subs);
    }
    free(h);
}

const hook_info *hook_describe(hook_point p)
{
    return &points[p];
}

int hook_by_name(hook_point *out, const char *name, hone_err *e)
{
    const char *names[HOOK_N_POINTS + 1] = {NULL};
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        names[p] = points[p].name;
        if (strcmp(points[p].name, name) == 0) {
            *out = (hook_point)p;
            return 0;
        }
    }
    const char *near = nearest_name(name, names);
    if (near != NULL)
        return hone_fail(e, HONE_ENOTFOUND, "no hook point '%s' (did you mean '%s'?)", name, near);
    return hone_fail(e, HONE_ENOTFOUND, "no hook point '%s'", name);
}

static bool before(const subscriber *a, const subscriber *b)
{
    return a->priority != b->priority ? a->priority < b->priority : strcmp(a->name, b->name) < 0;
}

int hook_on(hooks *h, hook_point p, const char *name, int priority, hook_fn *fn, void *user,
            hone_err *e)
{
    if ((int)p < 0 || p >= HOOK_N_POINTS || fn == NULL)
        return hone_fail(e, HONE_EINVAL, "%s: no such hook point", name);
    chain *c = &h->chains[p];
    subscriber s = {mem_strdup(name), priority, fn, user};
    c->subs = mem_grow(c->subs, &c->cap, c->n + 1, sizeof *c->subs);
    size_t i = c->n++;
    for (; i > 0 && before(&s, &c->subs[i - 1]); i--)
        c->subs[i] = c->subs[i - 1];
    c->subs[i] = s;
    return 0;
}

bool hook_wanted(const hooks *h, hook_point p)
{
    return h != NULL && h->chains[p].n != 0;
}

static int refused(const hook_call *call, const subscriber *s, hone_err *e)
{
    const hook_info *info = &points[call->point];
    return hone_fail(e, HONE_EVETO, "%s: refused by %s: %.*s", info->name, s->name,
                     (int)sizeof call->reason,
                     call->reason[0] != '\0' ? call->reason : "no reason given");
}

/* What an answer means at this point: the answer, or a negative code if it is not allowed here. */
static int judge(const hook_info *info, int answer, const json_t *data, hone_err *e)
{
    if (answer == HOOK_MODIFIED && data == NULL)
        return hone_fail(e, HONE_EINVAL, "it left no data");
    if (answer == HOOK_MODIFIED && !info->may_modify)
        return hone_fail(e, HONE_EDENIED, "nothing may be modified here");
    if (answer == HOOK_VETO && !info->may_veto)
        return hone_fail(e, HONE_EDENIED, "nothing may be refused here");
    if (answer > HOOK_STOP)
        return hone_fail(e, HONE_EINVAL, "it answered %d, which means nothing", answer);
    return answer;
}

static int failed(chain *c, const hook_info *info, const subscriber *s, int rc, const hone_err *own,
                  hone_err *e)
{
    const char *why = own->msg[0] != '\0' ? own->msg : hone_strerror(rc);
    atomic_fetch_add(&c->failures, 1);
    if (info->fails_closed)
        return hone_fail(e, rc, "%s: %s failed: %s", info->name, s->name, why);
    log_warn("hook", "%s: %s failed: %s", info->name, s->name, why);
    return 0;
}

static void check_budget(chain *c, const hook_info *info, const subscriber *s, int64_t ns)
{
    if (ns <= info->budget_us * 1000)
        return;
    atomic_fetch_add(&c->late, 1);
    log_warn("hook", "%s: %s took %lld us, budget %lld us", info->name, s->name,
             (long long)(ns / 1000), (long long)info->budget_us);
}

/* Runs one subscriber on a copy of the data; *stop ends the chain. */
static int run(chain *c, const subscriber *s, hook_call *call, bool *stop, hone_err *e)
{
    const hook_info *info = &points[call->point];
    hone_err own = {0};
    json_t *kept = call->data;
    call->data = json_deep_copy(kept);
    call->reason[0] = '\0';
    int64_t start = clock_mono_ns();
    int rc = s->fn(call, s->user, &own);
    rc = judge(info, rc, call->data, &own);
    check_budget(c, info, s, clock_mono_ns() - start);
    bool take = info->may_modify && call->data != NULL && (rc == HOOK_MODIFIED || rc == HOOK_STOP);
    if (rc == HOOK_MODIFIED)
        atomic_fetch_add(&c->modified, 1);
    json_decref(take ? kept : call->data);
    if (!take)
        call->data = kept;
    *stop = rc == HOOK_STOP;
    if (rc == HOOK_VETO) {
        atomic_fetch_add(&c->vetoes, 1);
        return refused(call, s, e);
    }
    return rc < 0 ? failed(c, info, s, rc, &own, e) : 0;
}

int hook_emit(hooks *h, hook_point p, json_t **data, hone_err *e)
{
    if (!hook_wanted(h, p))
        return 0;
    chain *c = &h->chains[p];
    hook_call call = {.point = p, .data = data != NULL ? *data : json_null()};
    int64_t start = clock_mono_ns();
    bool stop = false;
    int rc = 0;
    for (size_t i = 0; rc == 0 && !stop && i < c->n; i++)
        rc = run(c, &c->subs[i], &call, &stop, e);
    if (data != NULL)
        *data = call.data;
    else
        json_decref(call.data);
    atomic_fetch_add(&c->calls, 1);
    atomic_fetch_add(&c->nanoseconds, (uint64_t)(clock_mono_ns() - start));
    return rc;
}

hook_stats hook_counters(const hooks *h, hook_point p)
{
    const chain *c = &h->chains[p];
    return (hook_stats){c->calls, c->vetoes, c->modified, c->failures, c->late, c->nanoseconds};
}
