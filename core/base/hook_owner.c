/* Owners of subscriptions: what is counted of them, and when they are out. */
#include "core/base/clock.h"
#include "core/base/hook_int.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

owner *owner_find(const hooks *h, const char *name)
{
    for (owner *o = h->owners; o != NULL; o = o->next)
        if (strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

owner *owner_get(hooks *h, const char *name)
{
    owner *o = owner_find(h, name), **at = &h->owners;
    if (o != NULL)
        return o;
    while (*at != NULL && strcmp((*at)->name, name) < 0)
        at = &(*at)->next;
    o = mem_alloc(sizeof *o);
    o->name = mem_strdup(name);
    o->next = *at;
    *at = o;
    return o;
}

void owners_free(hooks *h)
{
    for (owner *o = h->owners, *next; o != NULL; o = next) {
        next = o->next;
        for (size_t i = 0; i < o->n_counters; i++)
            free(o->counters[i].name);
        json_decref(o->about);
        free(o->name);
        free(o);
    }
    for (lease *l = h->leases, *next; l != NULL; l = next) {
        next = l->next;
        free(l);
    }
}

/* ---- the breaker ---- */

hook_breaker hook_breaker_default(void)
{
    return (hook_breaker){.failures = 5, .late = 5, .window_ms = 60000, .hang_ms = 5000};
}

void hook_set_breaker(hooks *h, const hook_breaker *b)
{
    h->breaker = *b;
}

static gate *gate_of(owner *o, hook_point p)
{
    return &o->gates[hook_describe(p)->fails_closed];
}

static bool is_out(const owner *o, hook_point p)
{
    int64_t until = atomic_load(&gate_of((owner *)(uintptr_t)o, p)->out_until);
    return atomic_load(&o->retired) ||
           (hook_describe(p)->breaker && until != 0 && until > clock_mono_ns());
}

bool owner_may(const owner *o, hook_point p)
{
    return !is_out(o, p);
}

int owner_refusal(hooks *h, owner *o, hook_point p, hone_err *e)
{
    const hook_info *info = hook_describe(p);
    if (!info->fails_closed)
        return 0;
    pthread_mutex_lock(&h->lock);
    int rc = hone_fail(e, HONE_EDENIED, "%s: %s is out: %s", info->name, o->name,
                       atomic_load(&o->retired) ? o->why_retired : gate_of(o, p)->why_out);
    pthread_mutex_unlock(&h->lock);
    return rc;
}

/* Under the lock. */
static void take_out(const hooks *h, const owner *o, gate *g, hook_point p, int64_t until,
                     const char *why)
{
    if (atomic_load(&o->retired))
        return;
    snprintf(g->why_out, sizeof g->why_out, "%s", why);
    g->window_start = 0;
    if (atomic_exchange(&g->out_until, until) == 0)
        log_error("hook", "%s: %s is out for %lld s at points that fail %s: %s",
                  hook_describe(p)->name, o->name, (long long)(h->breaker.window_ms / 1000),
                  g == &o->gates[true] ? "closed" : "open", why);
}

void hook_retire(hooks *h, const char *name, const char *why)
{
    pthread_mutex_lock(&h->lock);
    owner *o = owner_get(h, name);
    if (!atomic_exchange(&o->retired, true))
        snprintf(o->why_retired, sizeof o->why_retired, "%s", why);
    pthread_mutex_unlock(&h->lock);
}

static int64_t after_window(const hooks *h)
{
    return clock_mono_ns() + h->breaker.window_ms * 1000000;
}

/* Under the lock: a window that has passed begins anew, and who was out comes back in. */
static void roll_window(const hooks *h, gate *g)
{
    int64_t now = clock_mono_ns();
    if (g->window_start != 0 && now - g->window_start < h->breaker.window_ms * 1000000)
        return;
    g->window_start = now;
    g->calls_before = atomic_load(&g->calls) - 1; /* this one is in the window */
    g->failures = g->late = 0;
    atomic_store(&g->out_until, 0);
}

void owner_called(owner *o, hook_point p)
{
    atomic_fetch_add(&gate_of(o, p)->calls, 1);
}

void owner_failed(hooks *h, owner *o, hook_point p, const char *why)
{
    char text[160];
    gate *g = gate_of(o, p);
    pthread_mutex_lock(&h->lock);
    roll_window(h, g);
    if (++g->failures >= h->breaker.failures) {
        snprintf(text, sizeof text, "%d failures in %lld s, the last: %s", g->failures,
                 (long long)(h->breaker.window_ms / 1000), why);
        take_out(h, o, g, p, after_window(h), text);
    }
    pthread_mutex_unlock(&h->lock);
}

void owner_late(hooks *h, owner *o, hook_point p)
{
    char text[160];
    gate *g = gate_of(o, p);
    if (hook_describe(p)->fails_closed)
        return;
    pthread_mutex_lock(&h->lock);
    roll_window(h, g);
    uint64_t calls = atomic_load(&g->calls) - g->calls_before;
    if (++g->late >= h->breaker.late && (uint64_t)g->late * 2 >= calls) {
        snprintf(text, sizeof text, "%d of %llu calls were late", g->late,
                 (unsigned long long)calls);
        take_out(h, o, g, p, after_window(h), text);
    }
    pthread_mutex_unlock(&h->lock);
}

busy *owner_call_begins(lease *l, hook_point p, int64_t now)
{
    for (int i = 0; i < HOOK_WATCHED; i++) {
        int_fast64_t nobody = 0;
        if (!atomic_compare_exchange_strong(&l->busy[i].since, &nobody, now))
            continue;
        atomic_store(&l->busy[i].point, (int)p);
        atomic_store(&l->busy[i].reported, false);
        return &l->busy[i];
    }
    return NULL;
}

/* A call that hung and came back after all: its owner gets another chance when the window is over.
 */
void owner_call_ends(hooks *h, lease *l, busy *b)
{
    if (b == NULL)
        return;
    for (int i = 0; atomic_load(&b->reported) && i < 2; i++)
        atomic_store(&l->owner->gates[i].out_until, after_window(h));
    atomic_store(&b->since, 0);
}

static void watch_call(hooks *h, lease *l, busy *b, int64_t now)
{
    int64_t since = atomic_load(&b->since), ran = now - since;
    hook_point p = (hook_point)atomic_load(&b->point);
    const hook_info *info = hook_describe(p);
    char text[160];
    if (since == 0 || ran < h->breaker.hang_ms * 1000000 || ran < info->budget_us * 10000 ||
        atomic_exchange(&b->reported, true))
        return;
    snprintf(text, sizeof text, "a call has been running for %lld ms (budget %lld us)",
             (long long)(ran / 1000000), (long long)info->budget_us);
    for (int i = 0; i < 2; i++)
        take_out(h, l->owner, &l->owner->gates[i], p, INT64_MAX, text);
}

void hook_watch(hooks *h)
{
    int64_t now = clock_mono_ns();
    pthread_mutex_lock(&h->lock);
    for (lease *l = h->leases; l != NULL; l = l->next)
        for (int i = 0; i < HOOK_WATCHED; i++)
            watch_call(h, l, &l->busy[i], now);
    pthread_mutex_unlock(&h->lock);
}

/* ---- what is told about them ---- */

static bool is_listed(const json_t *points, const char *name)
{
    size_t i;
    json_t *one;
    json_array_foreach (points, i, one) {
        const char *text = json_string_value(one);
        if (text != NULL && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

int hook_about(hooks *h, const char *name, json_t *about, const json_t *points, hone_err *e)
{
    int rc = 0;
    pthread_mutex_lock(&h->lock);
    owner *o = owner_get(h, name);
    if (o->announced || o->lease != NULL) {
        rc = hone_fail(e, HONE_EEXIST, "a plugin named '%s' is loaded already", name);
        json_decref(about);
    } else {
        json_decref(o->about);
        o->about = about;
        o->announced = true;
        atomic_store(&o->retired, false);
        for (int p = 0; p < HOOK_N_POINTS; p++)
            o->barred[p] = points != NULL && !is_listed(points, hook_describe((hook_point)p)->name);
    }
    pthread_mutex_unlock(&h->lock);
    return rc;
}

void hook_about_again(hooks *h, const char *name, json_t *about)
{
    pthread_mutex_lock(&h->lock);
    owner *o = owner_get(h, name);
    json_decref(o->about);
    o->about = about;
    pthread_mutex_unlock(&h->lock);
}

/* It becomes a label in /metrics and a key in reports. */
static bool is_counter_name(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return n > 0 && n <= HOOK_MAX_COUNTER_NAME && utf8_valid(name, n) == n;
}

static counter *counter_dropped(owner *o, const char *name)
{
    if (!o->told_counters)
        log_warn("hook",
                 "%s: counter '%.80s' dropped: at most %d counters, each with a name of 1 to %d "
                 "bytes of UTF-8 without controls, and they only rise",
                 o->name, name, HOOK_MAX_COUNTERS, HOOK_MAX_COUNTER_NAME);
    o->told_counters = true;
    return NULL;
}

static counter *counter_get(owner *o, const char *name, double add)
{
    if (!(add >= 0) || isinf(add))
        return counter_dropped(o, name);
    for (size_t i = 0; i < o->n_counters; i++)
        if (strcmp(o->counters[i].name, name) == 0)
            return &o->counters[i];
    if (o->n_counters == HOOK_MAX_COUNTERS || !is_counter_name(name))
        return counter_dropped(o, name);
    counter *c = &o->counters[o->n_counters++];
    c->name = mem_strdup(name);
    return c;
}

void hook_count(hooks *h, const char *name, const char *what, double add)
{
    pthread_mutex_lock(&h->lock);
    counter *c = counter_get(owner_get(h, name), what, add);
    if (c != NULL)
        c->value += add;
    pthread_mutex_unlock(&h->lock);
}

static hook_stats read_tally(const tally *t)
{
    return (hook_stats){t->calls, t->vetoes, t->modified, t->failures, t->late, t->nanoseconds};
}

hook_stats hook_counters(const hooks *h, hook_point p)
{
    return read_tally(&h->points[p].total);
}

static bool listens(const hooks *h, const owner *o, hook_point p)
{
    const chain *c = atomic_load(&h->points[p].now);
    for (size_t i = 0; c != NULL && i < c->n; i++)
        if (c->subs[i].lease->owner == o)
            return true;
    return false;
}

static pthread_mutex_t *lock_of(const hooks *h)
{
    return &((hooks *)(uintptr_t)h)->lock;
}

static void each_point(const hooks *h, const owner *o, void (*fn)(const hook_row *, void *),
                       void *user)
{
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        hook_row row = {o->name, (hook_point)p, listens(h, o, (hook_point)p),
                        is_out(o, (hook_point)p), read_tally(&o->at[p])};
        if (row.listens || row.stats.calls > 0)
            fn(&row, user);
    }
}

void hook_each(const hooks *h, void (*fn)(const hook_row *row, void *user), void *user)
{
    pthread_mutex_lock(lock_of(h));
    for (const owner *o = h->owners; o != NULL; o = o->next)
        each_point(h, o, fn, user);
    pthread_mutex_unlock(lock_of(h));
}

void hook_each_count(const hooks *h,
                     void (*fn)(const char *owner, const char *name, double value, void *user),
                     void *user)
{
    pthread_mutex_lock(lock_of(h));
    for (const owner *o = h->owners; o != NULL; o = o->next)
        for (size_t i = 0; i < o->n_counters; i++)
            fn(o->name, o->counters[i].name, o->counters[i].value, user);
    pthread_mutex_unlock(lock_of(h));
}

bool hook_is_used(const hooks *h)
{
    if (h == NULL)
        return false;
    pthread_mutex_lock(lock_of(h));
    bool used = h->owners != NULL;
    pthread_mutex_unlock(lock_of(h));
    return used;
}

static void add_point(const hook_row *row, void *points)
{
    const hook_stats *s = &row->stats;
    json_object_set_new(points, hook_describe(row->point)->name,
                        json_pack("{s:I, s:I, s:I, s:I, s:I, s:f}", "calls", (json_int_t)s->calls,
                                  "vetoes", (json_int_t)s->vetoes, "modified",
                                  (json_int_t)s->modified, "failures", (json_int_t)s->failures,
                                  "late", (json_int_t)s->late, "seconds",
                                  (double)s->nanoseconds / 1e9));
}

/* A name alone says that somebody subscribed without saying who it is (a test). */
static json_t *about_owner(const owner *o)
{
    json_t *one = json_pack("{s:s}", "name", o->name);
    if (o->about != NULL)
        json_object_update(one, o->about);
    if (atomic_load(&o->retired))
        json_object_set_new(one, "retired", json_string(o->why_retired));
    return one;
}

json_t *hook_report(const hooks *h)
{
    json_t *list = json_array();
    if (h == NULL)
        return list;
    pthread_mutex_lock(lock_of(h));
    for (const owner *o = h->owners; o != NULL; o = o->next) {
        json_t *one = about_owner(o), *points = json_object(), *counters = json_object();
        each_point(h, o, add_point, points);
        for (size_t i = 0; i < o->n_counters; i++)
            json_object_set_new(counters, o->counters[i].name, json_real(o->counters[i].value));
        json_object_set_new(one, "points", points);
        json_object_set_new(one, "counters", counters);
        json_array_append_new(list, one);
    }
    pthread_mutex_unlock(lock_of(h));
    return list;
}

json_t *hook_manifest(const hooks *h)
{
    json_t *list = json_array();
    if (h == NULL)
        return list;
    pthread_mutex_lock(lock_of(h));
    for (const owner *o = h->owners; o != NULL; o = o->next)
        if (o->about != NULL)
            json_array_append_new(list, about_owner(o));
    pthread_mutex_unlock(lock_of(h));
    return list;
}
