#include "serve/loop/live.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/model/digest.h"
#include "serve/engine/canary.h"
#include "serve/loop/erase.h"
#include "serve/loop/verify.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CANARY_MS = 300000 };

struct live {
    live_options o;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping;
    int64_t version; /* of the alias, the one that is loaded or that failed to */
    live_status status;
    hone_err first;   /* of the first load */
    char refused[65]; /* what `canary` points at and cannot be served */
};

/* What it is, and who signed it; the caller says where it goes. `whole`: nobody may sign it anew.
 */
static int look_at(char digest[65], json_t *manifest, const char *dir, const sign_trust *t,
                   bool whole, hone_err *e)
{
    sign_report sig;
    hone_err why = {0};
    int rc = model_dir_digest(digest, dir, e);
    int signed_rc = rc == 0 ? sign_dir_check(dir, t, &sig, &why) : 0;
    if (rc == 0 && signed_rc != 0 && signed_rc != HONE_ENOTFOUND)
        rc = hone_fail(e, signed_rc, "%s", why.msg);
    if (rc == 0 && signed_rc == 0)
        json_object_set_new(manifest, "signature",
                            verify_signature_json(sig.key_id, whole ? sig.root : NULL));
    return rc;
}

static int register_configured(store *st, const char *model_dir, const char *adapter_dir,
                               const sign_trust *t, hone_err *e)
{
    bool adapted = adapter_dir != NULL && *adapter_dir != '\0';
    const char *dir = adapted ? adapter_dir : model_dir;
    char digest[65];
    json_t *manifest = json_pack("{s:s}", "origin", "configured");
    registry_entry entry = {.digest = digest,
                            .kind = adapted ? "adapter" : "model",
                            .path = dir,
                            .base = adapted ? model_dir : NULL,
                            .manifest = manifest,
                            .promote_by = "hone",
                            .reason = "first start"};
    int rc = look_at(digest, manifest, dir, t, false, e); /* whoever configures it may sign it */
    if (rc == 0)
        rc = registry_add(st, &entry, e);
    json_decref(manifest);
    return rc;
}

int live_register(store *st, const char *dir, const char *base, const sign_trust *t,
                  char digest[65], hone_err *e)
{
    char whole[PATH_MAX], whole_base[PATH_MAX];
    if (realpath(dir, whole) == NULL)
        return file_error(e, dir, "cannot find");
    if (base != NULL && realpath(base, whole_base) == NULL)
        return file_error(e, base, "cannot find");
    json_t *manifest = json_pack("{s:s}", "origin", "added");
    registry_entry entry = {.digest = digest,
                            .kind = base != NULL ? "adapter" : "model",
                            .path = whole,
                            .base = base != NULL ? whole_base : NULL,
                            .manifest = manifest};
    int rc = look_at(digest, manifest, whole, t, true, e);
    if (rc == 0)
        rc = registry_add(st, &entry, e);
    json_decref(manifest);
    return rc;
}

int live_bootstrap(store *st, const char *model_dir, const char *adapter_dir, const sign_trust *t,
                   hone_err *e)
{
    registry_artefact a;
    hone_err none = {0};
    int rc = registry_alias(st, "live", &a, &none);
    registry_artefact_free(&a);
    if (rc == HONE_ENOTFOUND)
        return register_configured(st, model_dir, adapter_dir, t, e);
    return rc == 0 ? 0 : hone_fail(e, rc, "%s", none.msg);
}

int live_open(served **out, const registry_artefact *a, const served_options *with,
              const sign_trust *t, hone_err *e)
{
    served_options o = *with;
    verify_report v;
    bool adapted = strcmp(a->kind, "adapter") == 0;
    *out = NULL;
    int rc = verify_artefact(&v, a, t, e);
    if (rc != 0)
        return rc;
    o.model_dir = adapted ? a->base : a->path;
    o.adapter_dir = adapted ? a->path : NULL;
    o.model_digest = adapted ? v.base_digest : a->digest;
    o.adapter_digest = adapted ? a->digest : NULL;
    rc = served_open(out, &o, e);
    if (rc == 0)
        memcpy((*out)->signed_by, v.key_id, sizeof v.key_id);
    return rc;
}

/* Verified, loaded, and asked: only then others get it, by `set`. */
static int bring_up(live *l, const registry_artefact *a, const served_options *load,
                    void (*set)(engine *g, served *s), hone_err *e)
{
    served *s = NULL;
    engine_set_why_none(l->o.eng, "the model is being verified and loaded");
    if (a->tainted)
        log_warn("live", "%.12s learned from what was erased: retrain to replace it", a->digest);
    int rc = live_open(&s, a, load, l->o.trust, e);
    if (rc != 0)
        return rc;
    engine_set_why_none(l->o.eng, "the model is asked for its first token");
    int64_t start = clock_mono_ns();
    rc = canary_ask(l->o.eng, s, CANARY_MS, e);
    if (rc == 0) {
        set(l->o.eng, s);
        log_info("live", "now serving %.12s as '%s' (%s%.16s), first token after %lld ms",
                 a->digest, s->name, s->signed_by[0] != '\0' ? "signed by key " : "not signed",
                 s->signed_by, (long long)(clock_mono_ns() - start) / 1000000);
    } else {
        hone_fail_at(e, "%s", a->path);
    }
    served_release(s);
    return rc;
}

static int load_current(live *l, hone_err *e)
{
    registry_artefact a;
    int rc = registry_alias(l->o.st, "live", &a, e);
    if (rc == 0 && strcmp(a.digest, l->status.digest) != 0) {
        rc = bring_up(l, &a, &l->o.load, engine_set_current, e);
        if (rc == 0) {
            pthread_mutex_lock(&l->lock);
            snprintf(l->status.digest, sizeof l->status.digest, "%s", a.digest);
            pthread_mutex_unlock(&l->lock);
        }
    }
    registry_artefact_free(&a);
    return rc;
}

static void note_failure(live *l, const hone_err *e)
{
    l->status.failures++;
    snprintf(l->status.last_error, sizeof l->status.last_error, "%.255s", e->msg);
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
        note_failure(l, &err);
    }
    pthread_mutex_unlock(&l->lock);
    if (rc != 0)
        log_error("live", "cannot serve what 'live' points at, keeping %.12s: %s", l->status.digest,
                  err.msg);
}

/* ---- the one beside it ---- */

static void note_canary(live *l, const char *digest)
{
    pthread_mutex_lock(&l->lock);
    snprintf(l->status.canary, sizeof l->status.canary, "%s", digest);
    pthread_mutex_unlock(&l->lock);
}

static void load_canary(live *l, const registry_artefact *a)
{
    hone_err e = {0};
    served_options load = l->o.load;
    load.name = l->o.canary;
    if (bring_up(l, a, &load, engine_set_beside, &e) == 0) {
        note_canary(l, a->digest);
        return;
    }
    log_error("live", "cannot serve what 'canary' points at: %s", e.msg);
    snprintf(l->refused, sizeof l->refused, "%s", a->digest);
    pthread_mutex_lock(&l->lock);
    note_failure(l, &e);
    pthread_mutex_unlock(&l->lock);
}

/* What is not wanted any more goes at once; requests in flight finish on it. */
static void check_canary(live *l)
{
    registry_artefact a = {0};
    hone_err e = {0};
    int rc = l->o.canary != NULL ? registry_alias(l->o.st, "canary", &a, &e) : HONE_ENOTFOUND;
    bool wanted = rc == 0 && !a.tainted && strcmp(a.digest, l->status.digest) != 0;
    bool told = rc == 0 || rc == HONE_ENOTFOUND;
    if (told && l->status.canary[0] != '\0' &&
        (!wanted || strcmp(a.digest, l->status.canary) != 0)) {
        engine_set_beside(l->o.eng, NULL);
        log_info("live", "no longer serving %.12s as '%s'", l->status.canary, l->o.canary);
        note_canary(l, "");
    }
    if (wanted && l->status.canary[0] == '\0' && strcmp(a.digest, l->refused) != 0)
        load_canary(l, &a);
    registry_artefact_free(&a);
}

static bool load_first(live *l)
{
    const live_options *o = &l->o;
    hone_err err = {0};
    if (erase_resume(o->st, store_dir(o->st), &err) != 0) /* the next retraining tries again */
        log_error("live", "an erasure is not finished: %s", err.msg);
    int rc = live_bootstrap(o->st, o->load.model_dir, o->load.adapter_dir, o->trust, &err);
    if (rc == 0)
        rc = registry_alias_version(o->st, "live", &l->version, &err);
    if (rc == 0)
        rc = load_current(l, &err);
    if (rc != 0)
        engine_set_why_none(o->eng, "the model cannot be loaded; the server's log says why");
    pthread_mutex_lock(&l->lock);
    l->status.phase = rc == 0 ? LIVE_READY : LIVE_FAILED;
    if (rc != 0)
        note_failure(l, &err);
    l->first = err;
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
    return rc == 0;
}

static void *watch(void *arg)
{
    live *l = arg;
    if (!load_first(l))
        return NULL;
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
        check_canary(l);
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
    if (pthread_create(&l->thread, NULL, watch, l) != 0) {
        live_free(l);
        return hone_fail(e, HONE_EIO, "live: cannot start a thread");
    }
    *out = l;
    return 0;
}

int live_wait(live *l, hone_err *e)
{
    pthread_mutex_lock(&l->lock);
    while (l->status.phase == LIVE_LOADING)
        pthread_cond_wait(&l->wake, &l->lock);
    int rc = l->status.phase == LIVE_READY ? 0 : hone_fail(e, l->first.code, "%s", l->first.msg);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

void live_stop(live *l)
{
    if (l == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_broadcast(&l->wake);
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
