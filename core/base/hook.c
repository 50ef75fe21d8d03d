#include "core/base/hook_int.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/nearest.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* clang-format off */
static const hook_info infos[HOOK_N_POINTS] = {
#define HOOK_ROW(id, name, m, v, closed, breaker, us, what, example) \
    [HOOK_##id] = {name, m, v, closed, breaker, us, what, example},
    HOOK_POINTS(HOOK_ROW)
#undef HOOK_ROW
};
/* clang-format on */

hooks *hook_new(void)
{
    hooks *h = mem_alloc(sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    h->breaker = hook_breaker_default();
    return h;
}

static void free_chains(chain *c)
{
    while (c != NULL) {
        chain *older = c->older;
        free(c);
        c = older;
    }
}

void hook_free(hooks *h)
{
    if (h == NULL)
        return;
    for (int p = 0; p < HOOK_N_POINTS; p++)
        free(atomic_load(&h->points[p].now));
    free_chains(h->retired);
    owners_free(h);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

const hook_info *hook_describe(hook_point p)
{
    return &infos[p];
}

int hook_by_name(hook_point *out, const char *name, hone_err *e)
{
    const char *names[HOOK_N_POINTS + 1] = {NULL};
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        names[p] = infos[p].name;
        if (strcmp(infos[p].name, name) == 0) {
            *out = (hook_point)p;
            return 0;
        }
    }
    const char *near = nearest_name(name, names);
    if (near != NULL)
        return hone_fail(e, HONE_ENOTFOUND, "no hook point '%s' (did you mean '%s'?)", name, near);
    return hone_fail(e, HONE_ENOTFOUND, "no hook point '%s'", name);
}

/* ---- who is asked ---- */

static bool before(const subscriber *a, const subscriber *b)
{
    return a->priority != b->priority ? a->priority < b->priority
                                      : strcmp(a->lease->owner->name, b->lease->owner->name) < 0;
}

/* Under the lock. */
static void put_chain(hooks *h, hook_point p, chain *c)
{
    chain *old = atomic_exchange(&h->points[p].now, c);
    if (old != NULL) {
        old->older = h->retired;
        h->retired = old;
    }
}

static void insert(chain *c, const subscriber *s)
{
    size_t i = c->n++;
    for (; i > 0 && before(s, &c->subs[i - 1]); i--)
        c->subs[i] = c->subs[i - 1];
    c->subs[i] = *s;
}

/* A new chain of those of the point that do not belong to the lease (NULL: all), with room for more
 * besides. */
static chain *chain_without(const hooks *h, hook_point p, const lease *l, size_t more)
{
    const chain *old = atomic_load(&h->points[p].now);
    size_t n = old != NULL ? old->n : 0;
    chain *c = mem_alloc(sizeof *c + (n + more) * sizeof *c->subs);
    for (size_t i = 0; i < n; i++)
        if (old->subs[i].lease != l)
            c->subs[c->n++] = old->subs[i];
    return c;
}

/* Takes the chain. */
static void put_or_free(hooks *h, hook_point p, chain *c)
{
    if (c->n == 0) {
        free(c);
        c = NULL;
    }
    put_chain(h, p, c);
}

static bool is_at(const hooks *h, hook_point p, const lease *l)
{
    const chain *c = atomic_load(&h->points[p].now);
    for (size_t i = 0; c != NULL && i < c->n; i++)
        if (c->subs[i].lease == l)
            return true;
    return false;
}

static void remove_lease(hooks *h, hook_point p, const lease *l)
{
    if (is_at(h, p, l))
        put_or_free(h, p, chain_without(h, p, l, 0));
}

/* Under the lock. */
static lease *lease_of(hooks *h, owner *o)
{
    if (o->lease == NULL) {
        o->lease = mem_alloc(sizeof *o->lease);
        o->lease->owner = o;
        o->lease->next = h->leases;
        h->leases = o->lease;
    }
    return o->lease;
}

static int check_sub(const hook_sub *s, const char *name, hone_err *e)
{
    if ((int)s->point < 0 || s->point >= HOOK_N_POINTS || s->fn == NULL)
        return hone_fail(e, HONE_EINVAL, "%s: no such hook point", name);
    return 0;
}

int hook_on(hooks *h, hook_point p, const char *name, int priority, hook_fn *fn, void *user,
            hone_err *e)
{
    int rc = check_sub(&(hook_sub){p, priority, fn, user}, name, e);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&h->lock);
    owner *o = owner_get(h, name);
    if (!o->barred[p]) {
        chain *c = chain_without(h, p, NULL, 1);
        insert(c, &(subscriber){lease_of(h, o), priority, fn, user});
        put_chain(h, p, c);
    }
    pthread_mutex_unlock(&h->lock);
    return 0;
}

static void replace_at(hooks *h, hook_point p, lease *l, const hook_sub *subs, size_t n)
{
    chain *c = chain_without(h, p, l, n);
    for (size_t i = 0; i < n; i++)
        if (subs[i].point == p)
            insert(c, &(subscriber){l, subs[i].priority, subs[i].fn, subs[i].user});
    put_or_free(h, p, c);
}

int hook_replace(hooks *h, const char *name, const hook_sub *subs, size_t n, hone_err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = check_sub(&subs[i], name, e);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&h->lock);
    owner *o = owner_get(h, name);
    lease *l = lease_of(h, o);
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        size_t more = 0;
        for (size_t i = 0; i < n; i++)
            more += (int)subs[i].point == p;
        if (!o->barred[p] && (more > 0 || is_at(h, (hook_point)p, l)))
            replace_at(h, (hook_point)p, l, subs, n);
    }
    pthread_mutex_unlock(&h->lock);
    return 0;
}

static int wait_idle(const lease *l, int timeout_ms, hone_err *e)
{
    int64_t end = clock_mono_ns() + (int64_t)timeout_ms * 1000000;
    int n;
    while ((n = atomic_load(&l->in_flight)) > 0) {
        if (clock_mono_ns() > end)
            return hone_fail(e, HONE_ETIMEOUT, "%s: %d of its calls still run after %d ms",
                             l->owner->name, n, timeout_ms);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    return 0;
}

int hook_off(hooks *h, const char *name, int timeout_ms, hone_err *e)
{
    pthread_mutex_lock(&h->lock);
    owner *o = owner_find(h, name);
    lease *l = o != NULL ? o->lease : NULL;
    if (o != NULL)
        o->announced = false;
    if (l != NULL) {
        atomic_store(&l->gone, true);
        o->lease = NULL;
        for (int p = 0; p < HOOK_N_POINTS; p++)
            remove_lease(h, (hook_point)p, l);
    }
    pthread_mutex_unlock(&h->lock);
    return l != NULL ? wait_idle(l, timeout_ms, e) : 0;
}

bool hook_wanted(const hooks *h, hook_point p)
{
    return h != NULL && atomic_load_explicit(&h->points[p].now, memory_order_relaxed) != NULL;
}

/* ---- one subscriber ---- */

static int refused(const hook_call *call, const owner *o, hone_err *e)
{
    const hook_info *info = &infos[call->point];
    return hone_fail(e, HONE_EVETO, "%s: refused by %s: %.*s", info->name, o->name,
                     (int)sizeof call->reason,
                     call->reason[0] != '\0' ? call->reason : "no reason given");
}

/* What an answer means at this point: the answer, or a negative code if it is not allowed here. */
static int judge(const hook_info *info, int answer, const hook_call *call, hone_err *e)
{
    if (answer == HOOK_MODIFIED && call->data == NULL && call->view == NULL)
        return hone_fail(e, HONE_EINVAL, "it left no data");
    if (answer == HOOK_MODIFIED && !info->may_modify)
        return hone_fail(e, HONE_EDENIED, "nothing may be modified here");
    if (answer == HOOK_VETO && !info->may_veto)
        return hone_fail(e, HONE_EDENIED, "nothing may be refused here");
    if (answer > HOOK_STOP)
        return hone_fail(e, HONE_EINVAL, "it answered %d, which means nothing", answer);
    return answer;
}

static void add(hooks *h, hook_point p, owner *o, size_t field, uint64_t n)
{
    atomic_fetch_add((atomic_uint_fast64_t *)((char *)&o->at[p] + field), n);
    atomic_fetch_add((atomic_uint_fast64_t *)((char *)&h->points[p].total + field), n);
}
#define ADD(h, p, o, field, n) add(h, p, o, offsetof(tally, field), n)

/* What happens a million times is said twenty times. */
static bool is_power(uint64_t n)
{
    return (n & (n - 1)) == 0;
}

static int failed(hooks *h, hook_point p, owner *o, int rc, const hone_err *own, hone_err *e)
{
    const hook_info *info = &infos[p];
    const char *why = own->msg[0] != '\0' ? own->msg : hone_strerror(rc);
    ADD(h, p, o, failures, 1);
    if (info->breaker)
        owner_failed(h, o, p, why);
    if (info->fails_closed)
        return hone_fail(e, rc, "%s: %s failed: %s", info->name, o->name, why);
    if (is_power(atomic_load(&o->at[p].failures)))
        log_warn("hook", "%s: %s failed: %s", info->name, o->name, why);
    return 0;
}

static void took(hooks *h, hook_point p, owner *o, int64_t ns)
{
    const hook_info *info = &infos[p];
    atomic_fetch_add(&o->at[p].nanoseconds, (uint64_t)ns);
    if (ns <= info->budget_us * 1000)
        return;
    ADD(h, p, o, late, 1);
    if (is_power(atomic_load(&o->at[p].late)))
        log_warn("hook", "%s: %s took %lld us, budget %lld us", info->name, o->name,
                 (long long)(ns / 1000), (long long)info->budget_us);
    if (info->breaker)
        owner_late(h, o, p);
}

/* What the values of a view were, to put back what may not count. */
static float *save_values(const hook_view *v)
{
    float *saved = v != NULL ? mem_array(v->n_values, sizeof *saved) : NULL;
    if (v != NULL && v->n_values > 0)
        memcpy(saved, v->values, v->n_values * sizeof *saved);
    return saved;
}

/* The answer, judged; what the subscriber left is in call, or what was there before. */
static int ask(hooks *h, const subscriber *s, hook_call *call, hone_err *own)
{
    const hook_info *info = &infos[call->point];
    json_t *kept = call->data;
    float *saved = save_values(call->view);
    if (call->view == NULL)
        call->data = json_deep_copy(kept);
    call->reason[0] = '\0';
    int64_t start = clock_mono_ns();
    busy *b = owner_call_begins(s->lease, call->point, start);
    int rc = s->fn(call, s->user, own);
    owner_call_ends(h, s->lease, b);
    took(h, call->point, s->lease->owner, clock_mono_ns() - start);
    rc = judge(info, rc, call, own);
    bool good = info->may_modify && (rc == HOOK_MODIFIED || rc == HOOK_STOP);
    if (call->view != NULL) {
        if (!good && call->view->n_values > 0)
            memcpy(call->view->values, saved, call->view->n_values * sizeof *saved);
    } else {
        bool take = good && call->data != NULL;
        json_decref(take ? kept : call->data);
        if (!take)
            call->data = kept;
    }
    free(saved);
    return rc;
}

/* *stop ends the chain. */
static int run(hooks *h, const subscriber *s, hook_call *call, bool *stop, hone_err *e)
{
    hone_err own = {0};
    owner *o = s->lease->owner;
    hook_point p = call->point;
    if (!owner_may(o, p))
        return owner_refusal(h, o, p, e);
    atomic_fetch_add(&o->at[p].calls, 1);
    owner_called(o, p);
    int rc = ask(h, s, call, &own);
    *stop = rc == HOOK_STOP;
    if (rc == HOOK_MODIFIED)
        ADD(h, p, o, modified, 1);
    if (rc == HOOK_VETO) {
        ADD(h, p, o, vetoes, 1);
        return refused(call, o, e);
    }
    return rc < 0 ? failed(h, p, o, rc, &own, e) : 0;
}

/* ---- the chain ---- */

static int run_chain(hooks *h, hook_call *call, hone_err *e)
{
    const chain *c = atomic_load(&h->points[call->point].now);
    int64_t start = clock_mono_ns();
    bool stop = false;
    int rc = 0;
    for (size_t i = 0; c != NULL && rc == 0 && !stop && i < c->n; i++) {
        lease *l = c->subs[i].lease;
        /* hook_off says gone first and looks at in_flight then; here it is the other way round, so
         * that one of the two sees the other. */
        atomic_fetch_add(&l->in_flight, 1);
        if (!atomic_load(&l->gone))
            rc = run(h, &c->subs[i], call, &stop, e);
        atomic_fetch_sub(&l->in_flight, 1);
    }
    tally *total = &h->points[call->point].total;
    atomic_fetch_add(&total->calls, 1);
    atomic_fetch_add(&total->nanoseconds, (uint64_t)(clock_mono_ns() - start));
    return rc;
}

int hook_emit(hooks *h, hook_point p, json_t **data, hone_err *e)
{
    if (!hook_wanted(h, p))
        return 0;
    hook_call call = {.point = p, .data = data != NULL ? *data : json_null()};
    int rc = run_chain(h, &call, e);
    if (data != NULL)
        *data = call.data;
    else
        json_decref(call.data);
    return rc;
}

int hook_emit_view(hooks *h, hook_point p, const hook_view *view, hone_err *e)
{
    if (!hook_wanted(h, p))
        return 0;
    hook_call call = {.point = p, .view = view};
    return run_chain(h, &call, e);
}
