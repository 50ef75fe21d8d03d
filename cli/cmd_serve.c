/* hone serve: the appliance. Opens the store, loads what is live, listens, follows the alias, and
 * leaves in order. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "core/base/hook.h"
#include "core/base/log.h"
#include "serve/engine/engine.h"
#include "serve/http/backend.h"
#include "serve/http/http_server.h"
#include "serve/http/serve_conf.h"
#include "serve/loop/live.h"
#include "serve/store/store.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

enum { MAX_ASSIGN = 64 };

typedef struct options {
    bool json_log;
} options;

static const args_row rows[] = {{"json-log", offsetof(options, json_log), ARGS_FLAG},
                                {NULL, 0, ARGS_TEXT}};

/* ---- the parts of a server, in the order in which they start ---- */

typedef struct appliance {
    const serve_conf *conf;
    hooks *hooks;
    store *store;
    sign_trust trust;
    engine *engine;
    live *live;
    http_server *http;
    backend backend;
} appliance;

static int start_engine(appliance *a, hone_err *e)
{
    const serve_conf *c = a->conf;
    const engine_options eo = {.max_seqs = (int)c->max_seqs,
                               .step_tokens = c->step_tokens,
                               .queue_requests = (int)c->queue_requests,
                               .queue_tokens = c->queue_tokens};
    int rc = engine_start(&a->engine, &eo, e);
    if (rc != 0)
        return rc;
    const live_options lo = {.st = a->store,
                             .eng = a->engine,
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

static int start(appliance *a, hone_err *e)
{
    const store_options so = {.hooks = a->hooks};
    int rc = store_open(&a->store, a->conf->state_dir, &so, e);
    if (rc == 0)
        rc = sign_trust_open(&a->trust, a->conf->state_dir, a->conf->trusted_keys,
                             a->conf->require_signature, e);
    if (rc == 0)
        rc = start_engine(a, e);
    if (rc != 0)
        return rc;
    backend_of_engine(&a->backend, a->engine);
    const http_options ho = {
        .conf = a->conf, .store = a->store, .hooks = a->hooks, .engine = &a->backend};
    return http_server_start(&a->http, &ho, e);
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
    hook_free(a->hooks);
}

/* SIGTERM and SIGINT are blocked in every thread and taken here. A second one does not wait for
 * answers any more. */
static void wait_for_end(const sigset_t *ends)
{
    int sig = 0;
    while (sigwait(ends, &sig) != 0)
        ;
    log_info("serve", "signal %d: no new requests, running answers are finished", sig);
    signal(sig, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, ends, NULL);
}

static int serve(const serve_conf *conf, hone_err *e)
{
    sigset_t ends;
    appliance a = {.conf = conf, .hooks = hook_new()};
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    int rc = conf->model != NULL ? start(&a, e)
                                 : hone_fail(e, HONE_EINVAL,
                                             "no model: set 'model' to the "
                                             "directory of a checkpoint");
    if (rc == 0) {
        char host[64];
        uint16_t port;
        serve_conf_listen(conf->listen, host, &port, NULL);
        log_info("serve", "listening on %s://%s:%u", conf->tls_cert != NULL ? "https" : "http",
                 host[0] != '\0' ? host : "0.0.0.0", http_server_port(a.http));
        wait_for_end(&ends);
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
        rc = serve(&conf, &e);
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
                       "answers, a second signal ends at once.\n"
                       "\n"
                       "example: hone serve hone.yaml listen=127.0.0.1:8080"};
