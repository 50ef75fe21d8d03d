#include "plugins/loader.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/version.h"
#include "plugins/crash.h"
#include "plugins/image.h"
#include "plugins/runner.h"
#include "plugins/settings.h"
#include "plugins/value.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* LEAST_NS: of a microsecond of a point's budget, ten times that. INIT_TIMES: a plugin may load
 * much when it starts. DESCRIBE_NS: of reading what a file says of itself. */
enum { MAX_SUBSCRIPTIONS = 256, TURN_SECONDS = 2, LEAST_NS = 10000, INIT_TIMES = 12 };
static const int64_t DESCRIBE_NS = 10 * INT64_C(1000000000);

/* One hook of a plugin. */
typedef struct subscription {
    struct loaded *p;
    hook_point point;
    int priority;
    hone_fn *fn;
    void *user;
} subscription;

struct loaded {
    hone_descriptor d;
    hone_host host;
    hooks *hooks;
    json_t *settings;
    json_t *parsed; /* what init had read as JSON; NULL: nothing */
    void *state;
    pthread_mutex_t lock; /* of the turn, in a plugin that is not thread-safe */
    pthread_cond_t turn_ends;
    bool taken;     /* by a call that is running */
    runner *runner; /* NULL: its calls have no limit */
    int64_t limit_ns;
    subscription *subs[MAX_SUBSCRIPTIONS];
    size_t n_subs;
    bool in_init;
    int init_rc;
    hone_err why; /* what init says */
};

static loaded *of(hone_ctx *cx)
{
    return (loaded *)(void *)cx;
}

/* ---- one call ---- */

static uint32_t allows(const hook_info *info)
{
    return (info->may_modify ? HONE_MAY_MODIFY : 0u) | (info->may_veto ? HONE_MAY_VETO : 0u) |
           (info->fails_closed ? HONE_FAILS_CLOSED : 0u);
}

/* A call, with room for the struct of a point that has one. */
typedef struct plugin_call {
    value_call v;
    hone_batch batch;
    hone_logits logits;
    float *values; /* of the view, as the plugin sees them */
    const subscription *s;
    int rc;
} plugin_call;

/* Of what the plugin may reach after its call was lost it has a copy, which is lost with it. */
static void *shown(const plugin_call *c, const void *data, size_t n, size_t size)
{
    if (c->s->p->runner == NULL)
        return (void *)(uintptr_t)data;
    void *own = arena_alloc(c->v.memory, n * size + 1);
    if (n > 0)
        memcpy(own, data, n * size);
    return own;
}
#define SHOWN(c, data, n) shown((c), (data), (size_t)(n), sizeof *(data))

static void show_view(plugin_call *c, const hook_view *v)
{
    const hook_batch *b = v->batch;
    const hook_logits *l = v->logits;
    c->values = SHOWN(c, v->values, v->n_values);
    if (b != NULL) {
        c->batch = (hone_batch){.size = sizeof c->batch,
                                .version = 1,
                                .ids = SHOWN(c, b->ids, b->n),
                                .mask = SHOWN(c, b->mask, b->n),
                                .n = b->n,
                                .bound = SHOWN(c, b->bound, b->n_examples + 1),
                                .n_examples = b->n_examples,
                                .row = SHOWN(c, b->row, b->n_examples),
                                .weight = c->values,
                                .step = b->step,
                                .id = SHOWN(c, b->id, b->n_examples)};
        c->v.seen.batch = &c->batch;
    }
    if (l != NULL) {
        c->logits = (hone_logits){.size = sizeof c->logits,
                                  .version = 1,
                                  .row = c->values,
                                  .vocab = v->n_values,
                                  .ids = SHOWN(c, l->ids, l->n_ids),
                                  .n_ids = l->n_ids,
                                  .step = l->step,
                                  .flags = l->from_device ? HONE_LOGITS_FROM_DEVICE : 0u};
        c->v.seen.logits = &c->logits;
    }
}

static plugin_call *call_start(const subscription *s, const hook_call *call)
{
    const hook_info *info = hook_describe(s->point);
    plugin_call *c = mem_alloc(sizeof *c);
    c->s = s;
    c->v.seen = (hone_call){.size = sizeof c->v.seen,
                            .version = 1,
                            .ctx = (hone_ctx *)(void *)s->p,
                            .hook = info->name,
                            .allows = allows(info),
                            .budget_us = info->budget_us,
                            .data = value_of(call->data)};
    value_call_start(&c->v);
    if (call->view != NULL)
        show_view(c, call->view);
    c->v.deadline_ns = clock_mono_ns() + info->budget_us * 1000;
    return c;
}

static void call_end(plugin_call *c)
{
    value_call_end(&c->v);
    free(c);
}

/* Takes what the plugin left. A tree that holds itself, or is deeper than we read, is refused. */
static int take(value_call *c, hook_call *call, hone_err *e)
{
    json_t *left = value_json(c->seen.data);
    if (call->view != NULL)
        return 0;
    if (left == NULL)
        return hone_fail(e, HONE_EINVAL, "it left no data");
    if (!js_is_tree(left)) {
        value_call_untie(c);
        return hone_fail(e, HONE_EINVAL,
                         "it left data that hold themselves, or are too deep or too many");
    }
    if (left != call->data) {
        json_incref(left);
        json_decref(call->data);
        call->data = left;
    }
    return 0;
}

static int answer(value_call *c, int rc, hook_call *call, hone_err *e)
{
    memcpy(call->reason, c->reason, sizeof call->reason);
    if (rc == HONE_MODIFIED || rc == HONE_STOP) {
        int bad = take(c, call, e);
        return bad != 0 ? bad : rc == HONE_STOP ? HOOK_STOP : HOOK_MODIFIED;
    }
    if (rc == HONE_CONTINUE)
        return HOOK_CONTINUE;
    if (rc == HONE_VETO)
        return HOOK_VETO;
    if (rc == HONE_ERR)
        return hone_fail(e, HONE_EINTERNAL, "%s",
                         c->reason[0] != '\0' ? c->reason : "no reason given");
    return hone_fail(e, HONE_EINVAL, "it answered %d, which means nothing", rc);
}

static void enter(void *arg)
{
    plugin_call *c = arg;
    const subscription *s = c->s;
    crash_place before = crash_enter(s->p->d.name, hook_describe(s->point)->name);
    c->rc = s->fn(&s->p->host, &c->v.seen, s->user);
    crash_leave(before);
}

static bool is_lost(const loaded *p)
{
    return runner_lost(p->runner) > 0;
}

/* Whatever the call has stays as it is from here on; its data are also held by our caller. */
static int lose(const subscription *s, hook_call *call, hone_err *e)
{
    char why[200];
    json_incref(call->data);
    snprintf(why, sizeof why, "its call at %s %.150s", hook_describe(s->point)->name, e->msg);
    hook_retire(s->p->hooks, s->p->d.name, why);
    return hone_fail(e, HONE_ETIMEOUT, "%s: it is not called any more", why);
}

/* One that hangs must not hold the others for ever. */
static bool take_turn(loaded *p)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += TURN_SECONDS;
    pthread_mutex_lock(&p->lock);
    while (p->taken && pthread_cond_timedwait(&p->turn_ends, &p->lock, &until) == 0)
        ;
    bool mine = !p->taken;
    p->taken = true;
    pthread_mutex_unlock(&p->lock);
    return mine;
}

static void end_turn(loaded *p)
{
    pthread_mutex_lock(&p->lock);
    p->taken = false;
    pthread_cond_signal(&p->turn_ends);
    pthread_mutex_unlock(&p->lock);
}

/* Waits by a clock that nobody sets. */
static void turns_init(loaded *p)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->turn_ends, &attr);
    pthread_condattr_destroy(&attr);
}

static int call_plugin(hook_call *call, void *user, hone_err *e)
{
    const subscription *s = user;
    bool turns = (s->p->d.flags & HONE_F_THREADSAFE) == 0;
    if (turns && !take_turn(s->p))
        return hone_fail(e, HONE_ETIMEOUT,
                         "another call of it has been running for %d s, and it is not thread-safe",
                         TURN_SECONDS);
    plugin_call *c = call_start(s, call);
    int rc = runner_call(s->p->runner, enter, c, hook_describe(s->point)->budget_us * LEAST_NS, e);
    if (rc == HONE_ETIMEOUT)
        return lose(s, call, e);
    if (turns)
        end_turn(s->p);
    if (rc == 0 && call->view != NULL && call->view->n_values > 0 &&
        c->values != call->view->values)
        memcpy(call->view->values, c->values, call->view->n_values * sizeof *c->values);
    if (rc == 0)
        rc = answer(&c->v, c->rc, call, e);
    call_end(c);
    return rc;
}

/* ---- the host's members that are not about values ---- */

static int host_on(hone_ctx *cx, const char *hook, int priority, hone_fn *fn, void *user)
{
    loaded *p = of(cx);
    hook_point point;
    if (!p->in_init || fn == NULL || hook == NULL) {
        hone_fail(&p->why, HONE_EINVAL, "on: %s",
                  p->in_init ? "no name or no function" : "called outside of init");
        return HONE_ERR;
    }
    if (hook_by_name(&point, hook, &p->why) != 0)
        return HONE_ERR;
    if (p->n_subs == MAX_SUBSCRIPTIONS) {
        hone_fail(&p->why, HONE_ELIMIT, "more than %d subscriptions", MAX_SUBSCRIPTIONS);
        return HONE_ERR;
    }
    subscription *s = mem_alloc(sizeof *s);
    *s = (subscription){p, point, priority, fn, user};
    p->subs[p->n_subs++] = s;
    return 0;
}

static int host_init_error(hone_ctx *cx, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    hone_fail(&of(cx)->why, HONE_EINVAL, "%s", text);
    return HONE_ERR;
}

static void host_log(hone_ctx *cx, int level, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (level >= LOG_DEBUG && level <= LOG_ERROR)
        log_line((log_level)level, "plugin", "%s: %s", of(cx)->d.name, text);
}

static void host_count(hone_ctx *cx, const char *name, double add)
{
    if (name != NULL)
        hook_count(of(cx)->hooks, of(cx)->d.name, name, add);
}

static const hone_value *host_settings(hone_ctx *cx)
{
    return value_of(of(cx)->settings);
}

static const hone_value *host_parse(hone_ctx *cx, const char *text, size_t len)
{
    loaded *p = of(cx);
    json_t *v;
    if (!p->in_init || text == NULL || js_parse(&v, text, len, NULL) != 0)
        return NULL;
    if (p->parsed == NULL)
        p->parsed = json_array();
    json_array_append_new(p->parsed, v);
    return value_of(v);
}

static void host_set_state(hone_ctx *cx, void *state)
{
    of(cx)->state = state;
}

static void *host_state(hone_ctx *cx)
{
    return of(cx)->state;
}

static const void *host_api(hone_ctx *cx, const char *name, uint32_t min_version)
{
    (void)cx;
    (void)name;
    (void)min_version;
    return NULL; /* 1.0 has none */
}

static void keep_reason(hone_call *call, const char *fmt, va_list ap)
{
    value_call *c = value_call_of(call);
    vsnprintf(c->reason, sizeof c->reason, fmt, ap);
}

static int host_veto(hone_call *call, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    keep_reason(call, fmt, ap);
    va_end(ap);
    return HONE_VETO;
}

static int host_error(hone_call *call, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    keep_reason(call, fmt, ap);
    va_end(ap);
    return HONE_ERR;
}

static int host_late(hone_call *call)
{
    return clock_mono_ns() > value_call_of(call)->deadline_ns;
}

static void fill_host(hone_host *h)
{
    *h = (hone_host){.struct_size = sizeof *h,
                     .abi_major = HONE_ABI_MAJOR,
                     .abi_minor = HONE_ABI_MINOR,
                     .version = HONE_VERSION,
                     .on = host_on,
                     .init_error = host_init_error,
                     .log = host_log,
                     .count = host_count,
                     .settings = host_settings,
                     .set_state = host_set_state,
                     .state = host_state,
                     .api = host_api,
                     .veto = host_veto,
                     .error = host_error,
                     .late = host_late,
                     .parse = host_parse};
    value_members(h);
}

/* ---- opening and closing ---- */

/* Not the code: that stays; and nothing goes that a lost call may still reach. */
static void loaded_free(loaded *p)
{
    if (is_lost(p))
        return;
    runner_free(p->runner);
    for (size_t i = 0; i < p->n_subs; i++)
        free(p->subs[i]);
    json_decref(p->settings);
    json_decref(p->parsed);
    pthread_cond_destroy(&p->turn_ends);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void enter_init(void *arg)
{
    loaded *p = arg;
    crash_place before = crash_enter(p->d.name, "init");
    p->init_rc = p->d.init(&p->host, (hone_ctx *)(void *)p);
    crash_leave(before);
}

static void enter_fini(void *arg)
{
    loaded *p = arg;
    crash_place before = crash_enter(p->d.name, "fini");
    p->d.fini(&p->host, (hone_ctx *)(void *)p);
    crash_leave(before);
}

static int start(loaded *p, hone_err *e)
{
    p->in_init = true;
    int rc = runner_call(p->runner, enter_init, p, INIT_TIMES * p->limit_ns, e);
    if (rc != 0)
        return hone_fail_at(e, "init");
    p->in_init = false;
    if (p->init_rc == 0)
        return 0;
    return hone_fail(e, p->why.code != 0 ? p->why.code : HONE_EINVAL, "init failed: %s",
                     p->why.msg[0] != '\0' ? p->why.msg : "no reason given");
}

static int finish(loaded *p, hone_err *e)
{
    if (p->d.fini == NULL)
        return 0;
    int rc = runner_call(p->runner, enter_fini, p, 0, e);
    return rc == 0 ? 0 : hone_fail_at(e, "fini");
}

static json_t *about(const loaded *p, const trust_file *f)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:O, s:b}", "version", p->d.version, "license",
                     p->d.license, "file", path_base(f->path), "sha256", f->sha256, "settings",
                     p->settings, "deterministic", (p->d.flags & HONE_F_DETERMINISTIC) != 0);
}

/* All of its hooks, or none. */
static int subscribe(loaded *p, const loader_args *a, hone_err *e)
{
    int rc = hook_about(p->hooks, p->d.name, about(p, a->file), a->points, e);
    for (size_t i = 0; rc == 0 && i < p->n_subs; i++)
        rc = hook_on(p->hooks, p->subs[i]->point, p->d.name, p->subs[i]->priority, call_plugin,
                     p->subs[i], e);
    return rc;
}

int loader_open(loaded **out, const loader_args *a, hone_err *e)
{
    loaded *p = mem_alloc(sizeof *p);
    turns_init(p);
    p->hooks = a->hooks;
    p->limit_ns = a->limit_ns;
    p->runner = a->limit_ns > 0 ? runner_new(a->limit_ns) : NULL;
    *out = NULL;
    fill_host(&p->host);
    int rc = image_open(&p->d, a->file, p->runner, e);
    if (rc != 0) {
        loaded_free(p);
        return rc;
    }
    rc = settings_read(&p->settings, &p->d, a->settings, a->dir, e);
    if (rc == 0)
        rc = start(p, e);
    if (rc == 0) {
        rc = subscribe(p, a, e);
        if (rc != 0)
            finish(p, NULL);
    }
    if (rc != 0) {
        rc = hone_fail_at(e, "plugin %s %s", p->d.name, p->d.version);
        loaded_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

int loader_close(loaded *p, int timeout_ms, hone_err *e)
{
    if (p == NULL)
        return 0;
    int rc = hook_off(p->hooks, p->d.name, timeout_ms, e);
    if (rc == 0 && is_lost(p))
        rc = hone_fail(e, HONE_ETIMEOUT, "a call of it never came back: it stays in memory");
    if (rc == 0)
        rc = finish(p, e);
    if (rc != 0)
        return hone_fail_at(e, "plugin %s %s", p->d.name, p->d.version);
    loaded_free(p);
    return 0;
}

const hone_descriptor *loader_descriptor(const loaded *p)
{
    return &p->d;
}

static json_t *cap_names(uint64_t caps)
{
    static const struct {
        uint64_t cap;
        const char *name;
    } rows[] = {{HONE_CAP_READ_FILES, "read_files"},
                {HONE_CAP_WRITE_FILES, "write_files"},
                {HONE_CAP_NETWORK, "network"}};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if ((caps & rows[i].cap) != 0)
            json_array_append_new(list, json_string(rows[i].name));
    return list;
}

int loader_describe(json_t **out, const trust_file *f, hone_err *e)
{
    hone_descriptor d;
    json_t *settings = NULL;
    runner *r = runner_new(DESCRIBE_NS);
    *out = NULL;
    int rc = image_open(&d, f, r, e);
    if (runner_lost(r) == 0)
        runner_free(r);
    if (rc == 0)
        rc = settings_read(&settings, &d, NULL, NULL, e);
    json_decref(settings);
    if (rc != 0)
        return rc;
    char abi[32];
    snprintf(abi, sizeof abi, "%u.%u", d.abi_major, d.abi_minor);
    *out = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:o, s:s, s:o}", "name", d.name,
                     "version", d.version, "license", d.license, "summary", d.summary, "abi", abi,
                     "threadsafe", (d.flags & HONE_F_THREADSAFE) != 0, "deterministic",
                     (d.flags & HONE_F_DETERMINISTIC) != 0, "caps", cap_names(d.caps), "sha256",
                     f->sha256, "settings", settings_describe(&d));
    return *out != NULL ? 0
                        : hone_fail(e, HONE_EFORMAT, "%s: its descriptor is not UTF-8", f->path);
}
