/* hone serve: the appliance. Opens the store, loads what is live, listens, follows the alias, and
 * leaves in order. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/extend.h"
#include "cli/killed.h"
#include "core/base/hook.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "serve/engine/engine.h"
#include "serve/http/backend.h"
#include "serve/http/http_server.h"
#include "serve/http/serve_conf.h"
#include "serve/loop/live.h"
#include "serve/store/audit.h"
#include "serve/store/store.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ASSIGN = 64, TICK_MS = 200, TLS_TICKS = 10 };

typedef struct options {
    bool json_log;
} options;

static const args_row rows[] = {{"json-log", offsetof(options, json_log), ARGS_FLAG},
                                {NULL, 0, ARGS_TEXT}};

/* ---- the parts of a server, in the order in which they start ---- */

typedef struct appliance {
    const serve_conf *conf;
    extend *extend;
    hooks *hooks;
    store *store;
    sign_trust trust;
    engine *engine;
    live *live;
    http_server *http;
    backend backend;
    char *canary; /* its name, NULL where it is not served */
} appliance;

static int start_live(appliance *a, hone_err *e)
{
    const serve_conf *c = a->conf;
    if (c->canary)
        a->canary = mem_printf("%s-canary", c->name);
    const live_options lo = {.st = a->store,
                             .eng = a->engine,
                             .canary = a->canary,
                             .trust = &a->trust,
                             .load = {.model_dir = c->model,
                                      .adapter_dir = c->adapter,
                                      .name = c->name,
                                      .device = c->device,
                                      .threads = (int)c->threads,
                                      .dtype = c->dtype == SERVE_DTYPE_F32 ? KERN_F32 : KERN_BF16,
                                      .kv_tokens = c->kv_tokens,
                                      .max_seqs = (int)c->max_seqs,
                                      .context = c->context}};
    return live_start(&a->live, &lo, e);
}

/* The port is open before the model is loaded, so that whoever watches can tell loading from dead.
 */
static int start(appliance *a, hone_err *e)
{
    const serve_conf *c = a->conf;
    const store_options so = {.hooks = a->hooks};
    const engine_options eo = {.max_seqs = (int)c->max_seqs,
                               .step_tokens = c->step_tokens,
                               .queue_requests = (int)c->queue_requests,
                               .queue_tokens = c->queue_tokens,
                               .hooks = a->hooks};
    int rc = store_open(&a->store, c->state_dir, &so, e);
    if (rc == 0)
        rc = sign_trust_open(&a->trust, c->state_dir, c->trusted_keys, c->require_signature, e);
    if (rc == 0)
        rc = engine_start(&a->engine, &eo, e);
    if (rc != 0)
        return rc;
    backend_of_engine(&a->backend, a->engine);
    const http_options ho = {
        .conf = c, .store = a->store, .hooks = a->hooks, .engine = &a->backend};
    rc = http_server_start(&a->http, &ho, e);
    return rc == 0 ? start_live(a, e) : rc;
}

static void stop(appliance *a)
{
    if (a->http != NULL)
        http_server_drain(a->http, (int)a->conf->drain_seconds * 1000);
    http_server_stop(a->http);
    live_stop(a->live);
    engine_stop(a->engine);
    sign_trust_close(&a->trust);
    store_close(a->store);
    extend_close(a->extend);
    free(a->canary);
}

/* Which code runs stands in the audit log. */
static void note_plugin(void *user, const char *name, const char *was, const char *now)
{
    const appliance *a = user;
    hone_err e = {0};
    json_t *detail = json_pack("{s:s}", "sha256", now);
    if (was[0] != '\0')
        json_object_set_new(detail, "was", json_string(was));
    const audit_event ev = {.action = was[0] != '\0' ? "plugin.reload" : "plugin.load",
                            .actor = "server",
                            .target = name,
                            .detail = detail};
    if (audit_append(a->store, &ev, &e) != 0)
        log_error("plugins", "%s: not in the audit log: %s", name, e.msg);
    json_decref(detail);
}

/* Signals are blocked in every thread and taken here. 0: told to end; a second signal does not wait
 * for answers any more. Negative: the first model cannot be served. */
static int watch(appliance *a, const sigset_t *signals, hone_err *e)
{
    const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
    for (int n = 1;; n++) {
        int sig = sigtimedwait(signals, NULL, &tick);
        if (sig == SIGTERM || sig == SIGINT) {
            log_info("serve", "signal %d: no new requests, running answers are finished", sig);
            signal(SIGTERM, cmd_killed);
            signal(SIGINT, cmd_killed);
            pthread_sigmask(SIG_UNBLOCK, signals, NULL);
            return 0;
        }
        if (sig == SIGHUP || n % TLS_TICKS == 0)
            http_server_reload(a->http, sig == SIGHUP);
        if (sig == SIGHUP)
            extend_reload(a->extend, note_plugin, a);
        if (live_state(a->live).phase == LIVE_FAILED)
            return live_wait(a->live, e);
    }
}

static void say_address(const appliance *a)
{
    char host[64];
    uint16_t port;
    const serve_conf *c = a->conf;
    serve_conf_listen(c->listen, host, &port, NULL);
    bool v6 = strchr(host, ':') != NULL;
    log_info("serve", "listening on %s://%s%s%s:%u", c->tls_cert != NULL ? "https" : "http",
             v6 ? "[" : "", host[0] != '\0' ? host : "0.0.0.0", v6 ? "]" : "",
             http_server_port(a->http));
    if (c->admin_listen != NULL)
        log_info("serve", "for operators: port %u", http_server_admin_port(a->http));
    if (c->health_listen != NULL)
        log_info("serve", "for probes: port %u", http_server_health_port(a->http));
}

static int serve(const serve_conf *conf, const char *config, hone_err *e)
{
    sigset_t signals;
    appliance a = {.conf = conf};
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int rc = conf->model == NULL
                 ? hone_fail(e, HONE_EINVAL,
                             "no model: set 'model' to the "
                             "directory of a checkpoint")
                 : extend_open(&a.extend, conf->plugins, config, conf->state_dir, e);
    if (rc == 0) {
        a.hooks = extend_hooks(a.extend);
        extend_log(a.extend);
        rc = start(&a, e);
    }
    if (rc == 0) {
        extend_each(a.extend, note_plugin, &a);
        say_address(&a);
        rc = watch(&a, &signals, e);
    }
    stop(&a);
    return rc;
}

static int run(int argc, char **argv)
{
    options o = {0};
    hone_err e = {0};
    const char *rest[MAX_ASSIGN];
    int n_rest;
    serve_conf conf;
    if (args_parse(rows, &o, argc, argv, rest, MAX_ASSIGN, &n_rest, &e) != 0)
        return cmd_usage(&cmd_serve, "%s", e.msg);
    if (n_rest < 1)
        return cmd_usage(&cmd_serve, "which hone.yaml?");
    log_setup(LOG_INFO, o.json_log);
    int rc = serve_conf_load(&conf, rest[0], (char *const *)(rest + 1), n_rest - 1, &e);
    if (rc == 0)
        rc = serve(&conf, rest[0], &e);
    serve_conf_free(&conf);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_serve = {"serve", run, "serve a model behind keys, with feedback",
                       "usage: hone serve hone.yaml [key=value ...] [--json-log]\n"
                       "\n"
                       "Serves what the alias `live` points at (on the first start the configured "
                       "model) through OpenAI's API,\n"
                       "stores answers and feedback, and follows the alias when retraining or "
                       "`hone registry` moves it, without\n"
                       "dropping a request. Refuses an address beyond this machine without a key. "
                       "SIGTERM finishes running\n"
                       "answers, a second signal ends at once; SIGHUP reads the TLS certificate "
                       "again.\n"
                       "\n"
                       "example: hone serve hone.yaml listen=127.0.0.1:8080"};
