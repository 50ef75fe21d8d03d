#include "serve/loop/live.h"

#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/model/digest.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct live {
    live_options o;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping;
    int64_t version; /* of the alias, the one that is loaded or that failed to */
    live_status status;
};

int live_bootstrap(store *st, const char *model_dir, const char *adapter_dir, hone_err *e)
{
    registry_artefact a;
    hone_err none = {0};
    int rc = registry_alias(st, "live", &a, &none);
    registry_artefact_free(&a);
    if (rc == 0)
        return 0;
    if (rc != HONE_ENOTFOUND)
        return hone_fail(e, rc, "%s", none.msg);
    char digest[65];
    bool adapted = adapter_dir != NULL && *adapter_dir != '\0';
    rc = model_dir_digest(digest, adapted ? adapter_dir : model_dir, e);
    if (rc != 0)
        return rc;
    json_t *manifest = json_pack("{s:s}", "origin", "configured");
    registry_entry entry = {.digest = digest,
                            .kind = adapted ? "adapter" : "model",
                            .path = adapted ? adapter_dir : model_dir,
                            .base = adapted ? model_dir : NULL,
                            .manifest = manifest,
                            .promote_by = "hone",
                            .reason = "first start"};
    rc = registry_add(st, &entry, e);
    json_decref(manifest);
    return rc;
}

int live_open(served **out, const registry_artefact *a, const served_options *with, hone_err *e)
{
    char now[65];
    served_options o = *with;
    bool adapted = strcmp(a->kind, "adapter") == 0;
    *out = NULL;
    int rc = model_dir_digest(now, a->path, e);
    if (rc == 0 && strcmp(now, a->digest) != 0)
        rc = hone_fail(e, HONE_EFORMAT,
                       "%s: its files have changed since it was registered (digest %.12s, was "
                       "%.12s)",
                       a->path, now, a->digest);
    if (rc != 0)
        return rc;
    o.model_dir = adapted ? a->base : a->path;
    o.adapter_dir = adapted ? a->path : NULL;
    return served_open(out, &o, e);
}

static int load_current(live *l, hone_err *e)
{
    registry_artefact a;
    served *s = NULL;
    int rc = registry_alias(l->o.st, "live", &a, e);
    if (rc == 0 && strcmp(a.digest, l->status.digest) != 0) {
        rc = live_open(&s, &a, &l->o.load, e);
        if (rc == 0) {
            engine_set_current(l->o.eng, s);
            served_release(s);
            pthread_mutex_lock(&l->lock);
            snprintf(l->status.digest, sizeof l->status.digest, "%s", a.digest);
            pthread_mutex_unlock(&l->lock);
        }
    }
    registry_artefact_free(&a);
    return rc;
}

static void check_alias(live *l)
{
    hone_err err = {0};
    int64_t version = 0;
    int rc = registry_alias_version(l->o.st, "live", &version, &err);
    if (rc == 0 && version == l->version)
        return;
    if (rc == 0)
        rc = load_current(l, &err);
    l->version = version;
    pthread_mutex_lock(&l->lock);
    if (rc == 0) {
        l->status.swaps++;
        l->status.last_error[0] = '\0';
    } else {
        l->status.failures++;
        snprintf(l->status.last_error, sizeof l->status.last_error, "%.255s", err.msg);
    }
    pthread_mutex_unlock(&l->lock);
    if (rc == 0)
        log_info("live", "now serving %.12s", l->status.digest);
    else
        log_error("live", "cannot serve what 'live' points at, keeping %.12s: %s", l->status.digest,
                  err.msg);
}

static void *watch(void *arg)
{
    live *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)l->o.poll_ms * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&l->wake, &l->lock, &until);
        if (l->stopping)
            break;
        pthread_mutex_unlock(&l->lock);
        check_alias(l);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void live_free(live *l)
{
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->wake);
    free(l);
}

int live_start(live **out, const live_options *o, hone_err *e)
{
    *out = NULL;
    live *l = mem_alloc(sizeof *l);
    l->o = *o;
    l->o.poll_ms = o->poll_ms > 0 ? o->poll_ms : 500;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = live_bootstrap(o->st, o->load.model_dir, o->load.adapter_dir, e);
    if (rc == 0)
        rc = registry_alias_version(o->st, "live", &l->version, e);
    if (rc == 0)
        rc = load_current(l, e);
    if (rc == 0 && pthread_create(&l->thread, NULL, watch, l) != 0)
        rc = hone_fail(e, HONE_EIO, "live: cannot start a thread");
    if (rc != 0) {
        live_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

void live_stop(live *l)
{
    if (l == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    live_free(l);
}

live_status live_state(live *l)
{
    pthread_mutex_lock(&l->lock);
    live_status s = l->status;
    pthread_mutex_unlock(&l->lock);
    return s;
}
