#include "cli/extend.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/yaml.h"
#include "lua/lua_host.h"
#include "plugins/loader.h"

#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PLUGINS = 256, STOP_MS = 5000 };

/* ---- one entry ---- */

typedef struct entry {
    char *path;
    json_t *settings, *points;
    char *sha256, *signed_by;
    double hang_seconds;
    bool pinned, bundled;
} entry;

#define AT(field) offsetof(entry, field)

/* clang-format off */
const conf_row extend_rows[] = {
    {"path", NULL, CONF_STR, AT(path), NULL, 0, 0, NULL,
     "the file: .so is a plugin in C, .lua a script; relative to the settings file"},
    {"settings", NULL, CONF_JSON, AT(settings), NULL, 0, 0, NULL,
     "its own settings, as `hone plugin list` shows them"},
    {"hooks", NULL, CONF_LIST, AT(points), NULL, 0, 0, NULL,
     "only these hook points (default: all that it asks for)"},
    {"sha256", NULL, CONF_STR, AT(sha256), NULL, 0, 0, NULL,
     "what the file must be; else plugins.lock beside the settings says it (`hone plugin pin`)"},
    {"signed_by", NULL, CONF_STR, AT(signed_by), NULL, 0, 0, NULL,
     "Ed25519 public key (64 hex digits) whose signature lies in PATH.sig"},
    {"pinned", NULL, CONF_BOOL, AT(pinned), "true", 0, 0, NULL,
     "false: load it whatever it is, while you are writing it"},
    {"hang_seconds", NULL, CONF_FLOAT, AT(hang_seconds), "10", 0, 86400, NULL,
     "of a plugin in C: the seconds of computing (six times as many of waiting) after which a call is "
     "given up and the plugin out for good; 0: never (default of what comes with the program)"},
    {NULL, NULL, CONF_STR, 0, NULL, 0, 0, NULL, NULL},
};
/* clang-format on */

/* ---- kinds of files ---- */

typedef struct kind kind;

typedef struct part {
    const kind *kind;
    void *handle;
    json_t *entry; /* of the list; NULL where there is none */
    char sha256[65];
} part;

struct extend {
    hooks *hooks;
    part parts[MAX_PLUGINS];
    size_t n;
    char *config; /* may be NULL */
    pthread_t watch;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool watching, ending;
};

typedef struct opening {
    const trust_file *file;
    const json_t *settings, *points;
    const char *dir, *state_dir;
    hooks *hooks;
    double hang_seconds; /* 0: no limit */
    bool passing_store;  /* of a script, where there is no state_dir */
} opening;

struct kind {
    const char *suffix;
    int (*open)(void **out, const opening *o, hone_err *e);
    int (*close)(void *handle, hooks *h, hone_err *e);
    int (*describe)(json_t **out, const trust_file *f, hone_err *e);
    const char *(*name)(const void *handle);
    /* A new version of the file in place of the old one; NULL: not while it runs. */
    int (*reload)(void *handle, const trust_file *f, hooks *h, hone_err *e);
};

static int open_c(void **out, const opening *o, hone_err *e)
{
    loaded *p;
    const loader_args a = {.file = o->file,
                           .settings = o->settings,
                           .points = o->points,
                           .dir = o->dir,
                           .hooks = o->hooks,
                           .limit_ns = (int64_t)(o->hang_seconds * 1e9)};
    int rc = loader_open(&p, &a, e);
    *out = p;
    return rc;
}

static int close_c(void *handle, hooks *h, hone_err *e)
{
    (void)h;
    return loader_close(handle, STOP_MS, e);
}

static const char *name_c(const void *handle)
{
    return loader_descriptor(handle)->name;
}

/* The script is announced by what it calls itself, which is known when it has been read. */
static json_t *about_script(lua_plugin *p, const char *file)
{
    static const char *const keys[] = {"version", "sha256", "settings", "deterministic"};
    json_t *info = lua_plugin_info(p);
    json_t *about = json_pack("{s:s, s:s}", "file", file, "language", "lua");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        json_object_set(about, keys[i], json_object_get(info, keys[i]));
    json_decref(info);
    return about;
}

static int announce(const lua_plugin_args *a, const char *file, const json_t *points, hone_err *e)
{
    lua_plugin *p;
    lua_plugin_args look = *a;
    look.hooks = NULL;
    int rc = lua_plugin_open(&p, &look, e);
    if (rc != 0)
        return rc;
    rc = hook_about(a->hooks, lua_plugin_name(p), about_script(p, file), points, e);
    lua_plugin_close(p);
    return rc;
}

static int open_lua(void **out, const opening *o, hone_err *e)
{
    lua_plugin *p = NULL;
    const lua_plugin_args a = {.hooks = o->hooks,
                               .path = o->file->path,
                               .sha256 = o->file->sha256,
                               .settings = o->settings,
                               .state_dir = o->state_dir,
                               .passing_store = o->passing_store};
    int rc = announce(&a, path_base(o->file->path), o->points, e);
    if (rc == 0)
        rc = lua_plugin_open(&p, &a, e);
    *out = p;
    return rc;
}

static int close_lua(void *handle, hooks *h, hone_err *e)
{
    int rc = hook_off(h, lua_plugin_name(handle), STOP_MS, e);
    if (rc == 0)
        lua_plugin_close(handle);
    return rc;
}

static const char *name_lua(const void *handle)
{
    return lua_plugin_name(handle);
}

static int reload_lua(void *handle, const trust_file *f, hooks *h, hone_err *e)
{
    int rc = lua_plugin_reload(handle, f->sha256, e);
    if (rc == 0)
        hook_about_again(h, lua_plugin_name(handle), about_script(handle, path_base(f->path)));
    return rc;
}

static int describe_lua(json_t **out, const trust_file *f, hone_err *e)
{
    lua_plugin *p;
    const lua_plugin_args a = {.path = f->path, .sha256 = f->sha256};
    *out = NULL;
    int rc = lua_plugin_open(&p, &a, e);
    if (rc != 0)
        return rc;
    *out = lua_plugin_info(p);
    lua_plugin_close(p);
    return 0;
}

static const kind kinds[] = {
    {".so", open_c, close_c, loader_describe, name_c, NULL},
    {".lua", open_lua, close_lua, describe_lua, name_lua, reload_lua},
};

static const kind *kind_of(const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t m = strlen(kinds[i].suffix);
        if (n > m && strcmp(path + n - m, kinds[i].suffix) == 0)
            return &kinds[i];
    }
    return NULL;
}

/* ---- reading an entry ---- */

/* What comes with the program has a name and no path: where the program lies, where it is
 * installed, and where it is built. */
char **extend_folders(void)
{
    static const char *const places[] = {"plugins", "../lib/hone/plugins", "../lua/bundled"};
    size_t n = sizeof places / sizeof *places;
    char self[PATH_MAX] = "", **list = mem_array(n + 1, sizeof *list);
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return list;
    char *here = path_dir(self);
    for (size_t i = 0; i < n; i++)
        list[i] = path_join(here, places[i]);
    free(here);
    return list;
}

static bool is_name(const char *path)
{
    return strpbrk(path, "/.") == NULL;
}

/* The file of a bundled plugin; caller frees. NULL: there is none of this name. */
static char *bundled_path(const char *name)
{
    char *found = NULL, **folders = extend_folders();
    for (size_t i = 0; found == NULL && folders[i] != NULL; i++)
        for (size_t k = 0; found == NULL && k < sizeof kinds / sizeof *kinds; k++) {
            char *path = mem_printf("%s/%s%s", folders[i], name, kinds[k].suffix);
            if (file_exists(path))
                found = path;
            else
                free(path);
        }
    dir_list_free(folders);
    return found;
}

/* A name becomes the path of what it names. */
static int find_bundled(entry *x, hone_err *e)
{
    char *path = bundled_path(x->path);
    if (path == NULL)
        return hone_fail(e, HONE_ENOTFOUND,
                         "no plugin '%s' comes with this program (`hone plugin list` shows which "
                         "do); a file of yours has a path: ./%s.so",
                         x->path, x->path);
    free(x->path);
    x->path = path;
    x->bundled = true;
    return 0;
}

static int check_points(const json_t *points, hone_err *e)
{
    hook_point p;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(points); i++)
        rc = hook_by_name(&p, json_string_value(json_array_get(points, i)), e);
    return rc;
}

static int check_hang(entry *x, const json_t *given, hone_err *e)
{
    if (given != NULL && !extend_is_object(x->path))
        return hone_fail(e, HONE_EINVAL,
                         "hang_seconds is for plugins in C: a script has limits of "
                         "its own");
    if (given == NULL && x->bundled)
        x->hang_seconds = 0;
    return 0;
}

static int read_entry(entry *x, const json_t *v, hone_err *e)
{
    *x = (entry){0};
    conf_defaults(extend_rows, x);
    json_t *mapping = json_is_string(v) ? json_pack("{s:O}", "path", v) : NULL;
    int rc = conf_apply(extend_rows, x, NULL, mapping != NULL ? mapping : v, e);
    json_decref(mapping);
    if (rc == 0 && x->path == NULL)
        rc = hone_fail(e, HONE_EINVAL, "its path is missing");
    if (rc == 0 && x->settings != NULL && !json_is_object(x->settings))
        rc = hone_fail(e, HONE_EINVAL, "settings is not a mapping");
    if (rc == 0 && x->points != NULL)
        rc = check_points(x->points, e);
    if (rc == 0 && is_name(x->path))
        rc = find_bundled(x, e);
    return rc == 0 ? check_hang(x, json_object_get(v, "hang_seconds"), e) : rc;
}

static void entry_free(entry *x)
{
    conf_free(extend_rows, x);
}

static char *folder_of(const char *config)
{
    return config != NULL ? path_dir(config) : mem_strdup(".");
}

char *extend_lock(const char *config)
{
    char *dir = folder_of(config), *lock = path_join(dir, "plugins.lock");
    free(dir);
    return lock;
}

static int open_file(trust_file *f, const entry *x, const char *config, bool approved, hone_err *e)
{
    char *dir = folder_of(config), *lock = extend_lock(config);
    const trust_rule rule = {x->sha256, x->signed_by, lock, x->bundled, !x->pinned};
    int rc = trust_open(f, dir, x->path, e);
    if (rc == 0 && approved)
        rc = trust_check(f, &rule, e);
    if (rc != 0)
        trust_close(f);
    free(lock);
    free(dir);
    return rc;
}

static int entry_file(trust_file *out, const json_t *v, const char *config, bool approved,
                      hone_err *e)
{
    entry x;
    *out = (trust_file){.fd = -1};
    int rc = read_entry(&x, v, e);
    if (rc == 0)
        rc = open_file(out, &x, config, approved, e);
    entry_free(&x);
    return rc;
}

int extend_file(trust_file *out, const json_t *list, size_t i, const char *config, bool approved,
                hone_err *e)
{
    int rc = entry_file(out, json_array_get(list, i), config, approved, e);
    return rc == 0 ? 0 : hone_fail_at(e, "plugins: entry %zu", i + 1);
}

/* ---- what is loaded ---- */

static int open_part(extend *x, const opening *o, hone_err *e)
{
    part *p = &x->parts[x->n];
    p->kind = kind_of(o->file->path);
    if (p->kind == NULL)
        return hone_fail(e, HONE_EUNSUPPORTED, "%s: a plugin is a .so, a script a .lua",
                         o->file->path);
    int rc = p->kind->open(&p->handle, o, e);
    memcpy(p->sha256, o->file->sha256, sizeof p->sha256);
    x->n += rc == 0;
    return rc;
}

static int open_entry(extend *x, const json_t *v, const char *config, const char *state_dir,
                      hone_err *e)
{
    entry en;
    trust_file f = {.fd = -1};
    char *dir = folder_of(config);
    int rc = read_entry(&en, v, e);
    if (rc == 0)
        rc = open_file(&f, &en, config, true, e);
    if (rc == 0) {
        rc = open_part(x,
                       &(opening){.file = &f,
                                  .settings = en.settings,
                                  .points = en.points,
                                  .dir = dir,
                                  .state_dir = state_dir,
                                  .hooks = x->hooks,
                                  .hang_seconds = en.hang_seconds},
                       e);
        if (rc == 0)
            x->parts[x->n - 1].entry = json_incref((json_t *)(uintptr_t)v);
        if (rc == 0 && !en.pinned)
            log_warn("plugins", "%s: loaded as it is (pinned: false)", f.path);
    }
    trust_close(&f);
    entry_free(&en);
    free(dir);
    return rc;
}

/* ---- the one that looks for calls that hang ---- */

static void *watch(void *arg)
{
    extend *x = arg;
    pthread_mutex_lock(&x->lock);
    while (!x->ending) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&x->wake, &x->lock, &until);
        hook_watch(x->hooks);
    }
    pthread_mutex_unlock(&x->lock);
    return NULL;
}

static int start_watch(extend *x, hone_err *e)
{
    if (x->n == 0)
        return 0;
    int err = pthread_create(&x->watch, NULL, watch, x);
    x->watching = err == 0;
    return err == 0 ? 0 : hone_fail(e, HONE_EAGAIN, "cannot start a thread: %s", strerror(err));
}

static void stop_watch(extend *x)
{
    if (!x->watching)
        return;
    pthread_mutex_lock(&x->lock);
    x->ending = true;
    pthread_cond_signal(&x->wake);
    pthread_mutex_unlock(&x->lock);
    pthread_join(x->watch, NULL);
}

/* ---- all of it ---- */

static extend *extend_new(void)
{
    extend *x = mem_alloc(sizeof *x);
    x->hooks = hook_new();
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->wake, &attr);
    pthread_condattr_destroy(&attr);
    return x;
}

static int open_list(extend *x, const json_t *list, const char *config, const char *state_dir,
                     hone_err *e)
{
    size_t n = json_array_size(list);
    int rc = 0;
    if (list != NULL && !json_is_array(list) && !json_is_null(list))
        return hone_fail(e, HONE_EINVAL, "plugins: is not a list of files");
    if (n > MAX_PLUGINS)
        return hone_fail(e, HONE_ELIMIT, "plugins: %zu entries, at most %d", n, MAX_PLUGINS);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = open_entry(x, json_array_get(list, i), config, state_dir, e);
        if (rc != 0)
            hone_fail_at(e, "plugins: entry %zu", i + 1);
    }
    return rc;
}

int extend_open(extend **out, const json_t *list, const char *config, const char *state_dir,
                hone_err *e)
{
    extend *x = extend_new();
    int rc = open_list(x, list, config, state_dir, e);
    x->config = mem_strdup(config);
    *out = NULL;
    if (rc == 0)
        rc = start_watch(x, e);
    if (rc != 0)
        extend_close(x);
    else
        *out = x;
    return rc;
}

int extend_open_one(extend **out, const trust_file *f, const json_t *settings, const char *dir,
                    hone_err *e)
{
    extend *x = extend_new();
    int rc = open_part(
        x,
        &(opening){
            .file = f, .settings = settings, .dir = dir, .hooks = x->hooks, .passing_store = true},
        e);
    *out = rc == 0 ? x : NULL;
    if (rc != 0)
        extend_close(x);
    return rc;
}

int extend_open_file(extend **out, const char *config, hone_err *e)
{
    json_t *tree = NULL;
    int rc = config != NULL ? yaml_load(&tree, NULL, config, e) : 0;
    *out = NULL;
    if (rc == 0 && config != NULL && json_object_get(tree, "plugins") == NULL)
        rc = hone_fail(e, HONE_EINVAL, "%s: there is no section plugins in it", config);
    if (rc == 0)
        rc = extend_open(out, json_object_get(tree, "plugins"), config, NULL, e);
    json_decref(tree);
    return rc;
}

hooks *extend_hooks(const extend *x)
{
    return x->hooks;
}

/* Later ones first. A plugin that does not stop keeps the hooks alive that it may still call. */
void extend_close(extend *x)
{
    bool stuck = false;
    if (x == NULL)
        return;
    stop_watch(x);
    while (x->n > 0) {
        hone_err e = {0};
        part *p = &x->parts[--x->n];
        if (p->kind->close(p->handle, x->hooks, &e) != 0) {
            log_error("plugins", "%s", e.msg);
            stuck = true;
        }
        json_decref(p->entry);
    }
    if (!stuck)
        hook_free(x->hooks);
    pthread_cond_destroy(&x->wake);
    pthread_mutex_destroy(&x->lock);
    free(x->config);
    free(x);
}

int extend_describe(json_t **out, const trust_file *f, hone_err *e)
{
    const kind *k = kind_of(f->path);
    *out = NULL;
    if (k == NULL)
        return hone_fail(e, HONE_EUNSUPPORTED, "%s: a plugin is a .so, a script a .lua", f->path);
    return k->describe(out, f, e);
}

bool extend_is_plugin(const char *path)
{
    return kind_of(path) != NULL;
}

bool extend_is_object(const char *path)
{
    const kind *k = kind_of(path);
    return k != NULL && k->open == open_c;
}

/* ---- new versions ---- */

/* *changed: a new version runs, and p->sha256 is its digest. */
static int reload_part(const extend *x, part *p, bool *changed, hone_err *e)
{
    trust_file f;
    *changed = false;
    int rc = entry_file(&f, p->entry, x->config, true, e);
    if (rc == 0 && strcmp(f.sha256, p->sha256) == 0) {
        trust_close(&f);
        return 0;
    }
    if (rc == 0 && p->kind->reload == NULL)
        rc = hone_fail(e, HONE_EUNSUPPORTED, "%s: a plugin in C is changed by a restart", f.path);
    if (rc == 0)
        rc = p->kind->reload(p->handle, &f, x->hooks, e);
    if (rc == 0) {
        *changed = true;
        memcpy(p->sha256, f.sha256, sizeof p->sha256);
        log_info("plugins", "%s: the new version runs (sha256 %s)", f.path, f.sha256);
    }
    trust_close(&f);
    return rc;
}

void extend_reload(extend *x, extend_told *told, void *user)
{
    for (size_t i = 0; i < x->n; i++) {
        part *p = &x->parts[i];
        char was[65];
        bool changed = false;
        hone_err e = {0};
        memcpy(was, p->sha256, sizeof was);
        if (p->entry != NULL && reload_part(x, p, &changed, &e) != 0)
            log_error("plugins", "the old version stays: %s", e.msg);
        if (changed && told != NULL)
            told(user, p->kind->name(p->handle), was, p->sha256);
    }
}

void extend_each(const extend *x, extend_told *told, void *user)
{
    for (size_t i = 0; i < x->n; i++)
        told(user, x->parts[i].kind->name(x->parts[i].handle), "", x->parts[i].sha256);
}

/* ---- telling ---- */

/* "trim 1.0.0: data.normalize data.filter" of each. */
static void each_line(const extend *x, void (*fn)(const char *line))
{
    const char *point;
    size_t i;
    json_t *one, *v, *all = hook_report(x->hooks);
    json_array_foreach (all, i, one) {
        buf b;
        const char *version = json_string_value(json_object_get(one, "version"));
        buf_init(&b, 1 << 16);
        buf_printf(&b, "%s %s:", json_string_value(json_object_get(one, "name")),
                   version != NULL ? version : "");
        json_object_foreach (json_object_get(one, "points"), point, v) {
            buf_printf(&b, " %s", point);
        }
        fn(b.data);
        buf_free(&b);
    }
    json_decref(all);
}

static void say_line(const char *line)
{
    fprintf(stderr, "plugin      %s\n", line);
}

static void log_loaded(const char *line)
{
    log_info("plugins", "%s", line);
}

void extend_say(const extend *x)
{
    each_line(x, say_line);
}

void extend_log(const extend *x)
{
    each_line(x, log_loaded);
}

static void print_row(const hook_row *row, void *user)
{
    const hook_stats *s = &row->stats;
    if (s->calls == 0)
        return;
    fprintf(user,
            "plugin       %s %s: %llu calls, %llu modified, %llu refused, %llu failed, %llu late, "
            "%.3f s\n",
            row->owner, hook_describe(row->point)->name, (unsigned long long)s->calls,
            (unsigned long long)s->modified, (unsigned long long)s->vetoes,
            (unsigned long long)s->failures, (unsigned long long)s->late,
            (double)s->nanoseconds / 1e9);
}

static void print_count(const char *owner, const char *name, double value, void *user)
{
    fprintf(user, "plugin       %s counts %s %.10g\n", owner, name, value);
}

void extend_report(const extend *x, FILE *out)
{
    hook_each(x->hooks, print_row, out);
    hook_each_count(x->hooks, print_count, out);
}
