#include "lua/lua_host.h"

#include "core/base/log.h"
#include "core/base/mem.h"
#include "lua/script.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IDLE = 16, MEMORY = 8 << 20, STEPS = 1000000, KV_BYTES = 1 << 20, STOP_MS = 5000 };

/* One version of the script. Whoever runs it holds a reference, and so does the plugin. */
typedef struct version {
    script_source source;
    script *idle[MAX_IDLE];
    int n_idle, refs; /* under the plugin's lock */
} version;

/* The nth hook of the script at a point, whatever version runs. */
typedef struct subscription {
    lua_plugin *plugin;
    hook_point point;
    size_t nth;
} subscription;

/* What was subscribed at one time. All stay until the plugin is closed: an emission may still be on
 * its way along old ones. */
typedef struct sub_set {
    struct sub_set *older;
    subscription subs[SCRIPT_MAX_HOOKS];
} sub_set;

struct lua_plugin {
    char *path, *name, *state_dir;
    int64_t kv_bytes;
    bool passing_store;
    hooks *hooks;
    json_t *given;
    script_setup setup;
    json_t *header, *settings; /* of the current version; under the lock */
    script_hook at[SCRIPT_MAX_HOOKS];
    size_t n_hooks;
    sub_set *subs;
    pthread_mutex_t lock;
    pthread_cond_t quiet;
    version *current;
    int64_t states, poisoned, reloads, running;
    size_t peak;
};

/* ---- versions ---- */

static void close_version(version *v)
{
    for (int i = 0; i < MAX_IDLE; i++)
        script_close(v->idle[i]);
    script_source_free(&v->source);
    free(v);
}

/* Under the lock; returns the version where nobody holds it any more, for the caller to close. */
static version *unref(lua_plugin *p, version *v)
{
    if (--v->refs > 0)
        return NULL;
    p->states -= v->n_idle;
    return v;
}

static bool has_defaults(const json_t *header)
{
    const char *name;
    json_t *row;
    json_object_foreach (json_object_get(header, "settings"), name, row) {
        if (json_object_get(row, "default") == NULL)
            return false;
    }
    return true;
}

/* Loads it with what was given, and then for its tests with the defaults, which they were written
 * for (unless there are none), and with stores of its own: tests leave nothing behind. */
static int try_it(lua_plugin *p, const script_source *src, json_t **header, json_t **report,
                  hone_err *e)
{
    script *s = NULL;
    script_setup own = p->setup;
    own.kv = kv_new(NULL, KV_BYTES);
    own.hooks = NULL;
    own.quiet = true;
    own.streams = stream_new();
    int rc = script_open(&s, src, &own, e);
    if (rc == 0)
        *header = json_deep_copy(script_header(s));
    if (rc == 0 && own.settings != NULL && has_defaults(*header)) {
        script_close(s);
        own.settings = NULL;
        rc = script_open(&s, src, &own, e);
    }
    if (rc == 0)
        rc = script_test(s, report, e);
    script_close(s);
    kv_free(own.kv);
    stream_free(own.streams);
    return rc;
}

/* Counters, settings and the store go by the name: a new version cannot take another. */
static int keep_name(const lua_plugin *p, const json_t *header, hone_err *e)
{
    const char *was = json_string_value(json_object_get(p->header, "name"));
    const char *is = json_string_value(json_object_get(header, "name"));
    if (was == NULL || strcmp(was, is) == 0)
        return 0;
    return hone_fail(e, HONE_EINVAL, "it calls itself '%s' now: another name takes a restart", is);
}

/* The store is named after the plugin, whose name is known when its header has been read. */
static int name_it(lua_plugin *p, const json_t *header, hone_err *e)
{
    if (p->setup.name != NULL)
        return 0;
    if (p->name == NULL)
        p->name = mem_strdup(json_string_value(json_object_get(header, "name")));
    if (p->name[0] == '\0' || p->name[0] == '.' || strchr(p->name, '/') != NULL)
        return hone_fail(e, HONE_EINVAL, "%s: '%s' is no name for a plugin", p->path, p->name);
    p->setup.name = p->name;
    if (p->state_dir == NULL) {
        p->setup.kv = p->passing_store ? kv_new(NULL, p->kv_bytes) : NULL;
        return 0;
    }
    char *path = mem_printf("%s/%s.db", p->state_dir, p->name);
    p->setup.kv = kv_new(path, p->kv_bytes);
    free(path);
    return 0;
}

/* A version that has loaded and passed its tests, with one state. */
static int make_version(version **out, lua_plugin *p, const char *sha256, hone_err *e)
{
    version *v = mem_alloc(sizeof *v);
    json_t *report = NULL, *header = NULL;
    int rc = script_read(&v->source, p->path, sha256, e);
    if (rc == 0)
        rc = try_it(p, &v->source, &header, &report, e);
    if (rc == 0)
        rc = keep_name(p, header, e);
    if (rc == 0)
        rc = name_it(p, header, e);
    if (rc == 0)
        rc = script_open(&v->idle[0], &v->source, &p->setup, e);
    json_decref(report);
    json_decref(header);
    if (rc != 0) {
        close_version(v);
        return rc;
    }
    v->n_idle = v->refs = 1;
    *out = v;
    return 0;
}

/* ---- calls ---- */

static int take_state(lua_plugin *p, version **v, script **s, hone_err *e)
{
    pthread_mutex_lock(&p->lock);
    *v = p->current;
    (*v)->refs++;
    p->running++;
    *s = NULL;
    if ((*v)->n_idle > 0) {
        *s = (*v)->idle[--(*v)->n_idle];
        (*v)->idle[(*v)->n_idle] = NULL;
    }
    p->states += *s == NULL;
    pthread_mutex_unlock(&p->lock);
    return *s != NULL ? 0 : script_open(s, &(*v)->source, &p->setup, e);
}

static void give_back(lua_plugin *p, version *v, script *s)
{
    bool spent = s == NULL || script_spent(s);
    size_t peak = s != NULL ? script_usage(s).peak : 0;
    pthread_mutex_lock(&p->lock);
    if (!spent && v == p->current && v->n_idle < MAX_IDLE) {
        v->idle[v->n_idle++] = s;
        s = NULL;
    } else {
        p->states--;
    }
    p->poisoned += spent;
    p->peak = peak > p->peak ? peak : p->peak;
    version *gone = unref(p, v);
    if (--p->running == 0)
        pthread_cond_broadcast(&p->quiet);
    pthread_mutex_unlock(&p->lock);
    script_close(s);
    if (gone != NULL)
        close_version(gone);
}

/* Its number among the hooks of a state; SCRIPT_MAX_HOOKS where this version has none there. */
static size_t find_hook(const script *s, const subscription *sub)
{
    size_t n, seen = 0;
    const script_hook *h = script_hooks(s, &n);
    for (size_t i = 0; i < n; i++)
        if (h[i].point == sub->point && seen++ == sub->nth)
            return i;
    return SCRIPT_MAX_HOOKS;
}

static int on_hook(hook_call *c, void *user, hone_err *e)
{
    const subscription *sub = user;
    version *v;
    script *s;
    int rc = take_state(sub->plugin, &v, &s, e);
    size_t i = rc == 0 ? find_hook(s, sub) : 0;
    if (rc == 0)
        rc = i < SCRIPT_MAX_HOOKS ? script_call(s, i, c, e) : HOOK_CONTINUE;
    give_back(sub->plugin, v, s);
    return rc;
}

/* ---- life ---- */

static void adopt(lua_plugin *p, const version *v)
{
    const script *s = v->idle[0];
    const script_hook *h = script_hooks(s, &p->n_hooks);
    memcpy(p->at, h, p->n_hooks * sizeof *h);
    json_decref(p->header);
    json_decref(p->settings);
    p->header = json_deep_copy(script_header(s));
    p->settings = json_deep_copy(script_settings(s));
}

static int subscribe(lua_plugin *p, hone_err *e)
{
    hook_sub subs[SCRIPT_MAX_HOOKS];
    size_t n_at[HOOK_N_POINTS] = {0};
    if (p->hooks == NULL)
        return 0;
    sub_set *set = mem_alloc(sizeof *set);
    for (size_t i = 0; i < p->n_hooks; i++) {
        const script_hook *h = &p->at[i];
        set->subs[i] = (subscription){p, h->point, n_at[h->point]++};
        subs[i] = (hook_sub){h->point, h->priority, on_hook, &set->subs[i]};
    }
    set->older = p->subs;
    p->subs = set;
    return hook_replace(p->hooks, p->name, subs, p->n_hooks, e);
}

static void set_up(lua_plugin *p, const lua_plugin_args *a)
{
    const lua_plugin_limits *l = &a->limits;
    p->path = mem_strdup(a->path);
    p->name = mem_strdup(a->name);
    p->state_dir = mem_strdup(a->state_dir);
    p->passing_store = a->passing_store;
    p->kv_bytes = l->kv_bytes != 0 ? l->kv_bytes : KV_BYTES;
    p->hooks = a->hooks;
    p->given = a->settings != NULL ? json_deep_copy(a->settings) : NULL;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->quiet, NULL);
    p->setup = (script_setup){
        .limits = {.memory = l->memory != 0 ? l->memory : MEMORY,
                   .steps = l->steps != 0 ? l->steps : STEPS},
        .deterministic = a->deterministic,
        .seed = a->seed,
        .settings = p->given,
        .cancel = a->cancel,
        .hooks = a->hooks,
        .streams = stream_new(),
    };
}

int lua_plugin_open(lua_plugin **out, const lua_plugin_args *a, hone_err *e)
{
    lua_plugin *p = mem_alloc(sizeof *p);
    version *v = NULL;
    *out = NULL;
    set_up(p, a);
    int rc = make_version(&v, p, a->sha256, e);
    if (rc == 0) {
        p->current = v;
        p->states = 1;
        adopt(p, v);
        rc = subscribe(p, e);
    }
    if (rc != 0) {
        lua_plugin_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

void lua_plugin_close(lua_plugin *p)
{
    if (p == NULL)
        return;
    if (p->hooks != NULL && p->name != NULL)
        hook_off(p->hooks, p->name, STOP_MS, NULL);
    pthread_mutex_lock(&p->lock);
    while (p->running > 0)
        pthread_cond_wait(&p->quiet, &p->lock);
    pthread_mutex_unlock(&p->lock);
    if (p->current != NULL)
        close_version(p->current);
    for (sub_set *s = p->subs, *older; s != NULL; s = older) {
        older = s->older;
        free(s);
    }
    stream_free(p->setup.streams);
    kv_free(p->setup.kv);
    json_decref(p->given);
    json_decref(p->header);
    json_decref(p->settings);
    pthread_cond_destroy(&p->quiet);
    pthread_mutex_destroy(&p->lock);
    free(p->path);
    free(p->name);
    free(p->state_dir);
    free(p);
}

const char *lua_plugin_name(const lua_plugin *p)
{
    return p->name;
}

/* ---- what is seen from outside ---- */

static json_t *hook_list(const lua_plugin *p)
{
    json_t *all = json_array();
    for (size_t i = 0; i < p->n_hooks; i++)
        json_array_append_new(all,
                              json_pack("{s:s, s:i}", "point", hook_describe(p->at[i].point)->name,
                                        "priority", p->at[i].priority));
    return all;
}

json_t *lua_plugin_info(lua_plugin *p)
{
    pthread_mutex_lock(&p->lock);
    json_t *o =
        json_pack("{s:s, s:O, s:O, s:s, s:s, s:b, s:O, s:O, s:o, s:O}", "name", p->name, "version",
                  json_object_get(p->header, "version"), "summary",
                  json_object_get(p->header, "summary"), "path", p->path, "sha256",
                  p->current->source.sha256, "deterministic", p->setup.deterministic, "settings",
                  p->settings, "declared", json_object_get(p->header, "settings"), "hooks",
                  hook_list(p), "tests", json_object_get(p->header, "tests"));
    pthread_mutex_unlock(&p->lock);
    return o;
}

json_t *lua_plugin_stats(lua_plugin *p)
{
    pthread_mutex_lock(&p->lock);
    json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "states", (json_int_t)p->states,
                          "running", (json_int_t)p->running, "peak_bytes", (json_int_t)p->peak,
                          "limit_bytes", (json_int_t)p->setup.limits.memory, "poisoned",
                          (json_int_t)p->poisoned, "reloads", (json_int_t)p->reloads);
    pthread_mutex_unlock(&p->lock);
    return o;
}

/* ---- a new version ---- */

static bool has_same_hooks(const lua_plugin *p, const version *v)
{
    size_t n;
    const script_hook *h = script_hooks(v->idle[0], &n);
    bool same = n == p->n_hooks;
    for (size_t i = 0; same && i < n; i++)
        same = h[i].point == p->at[i].point && h[i].priority == p->at[i].priority;
    return same;
}

int lua_plugin_reload(lua_plugin *p, const char *sha256, hone_err *e)
{
    version *v = NULL, *gone;
    int rc = make_version(&v, p, sha256, e);
    if (rc != 0)
        return hone_fail_at(e, "%s", p->name);
    bool same = has_same_hooks(p, v);
    pthread_mutex_lock(&p->lock);
    version *old = p->current;
    p->current = v;
    p->states += v->n_idle;
    adopt(p, v);
    p->reloads++;
    gone = unref(p, old);
    pthread_mutex_unlock(&p->lock);
    if (gone != NULL)
        close_version(gone);
    return same ? 0 : subscribe(p, e); /* until then calls of other hooks pass the new version by */
}

int lua_plugin_test(lua_plugin *p, json_t **report, hone_err *e)
{
    json_t *header = NULL;
    version *v;
    *report = NULL;
    pthread_mutex_lock(&p->lock);
    v = p->current;
    v->refs++;
    pthread_mutex_unlock(&p->lock);
    int rc = try_it(p, &v->source, &header, report, e);
    json_decref(header);
    pthread_mutex_lock(&p->lock);
    version *gone = unref(p, v);
    pthread_mutex_unlock(&p->lock);
    if (gone != NULL)
        close_version(gone);
    return rc;
}
