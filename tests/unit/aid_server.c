#include "tests/unit/aid_server.h"

#include "core/base/log.h"
#include "core/base/mem.h"
#include "tests/unit/aid_dir.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SETTINGS = 32, DRAIN_MS = 200 };

static void must(int rc, const hone_err *e)
{
    if (rc == 0)
        return;
    fprintf(stderr, "aid_server: %s\n", e->msg);
    abort();
}

aid_server *aid_server_open(const char *const *settings)
{
    char *over[MAX_SETTINGS];
    int n = 0;
    hone_err e = {0};
    if (sodium_init() < 0)
        abort();
    log_setup(LOG_ERROR, false);
    aid_server *s = mem_alloc(sizeof *s);
    s->dir = aid_dir_quick();
    char *state = mem_printf("state_dir=%s/state", s->dir);
    over[n++] = (char *)"listen=127.0.0.1:0";
    over[n++] = state;
    for (; settings != NULL && settings[n - 2] != NULL && n < MAX_SETTINGS; n++)
        over[n] = (char *)settings[n - 2];
    must(serve_conf_load(&s->conf, NULL, over, n, &e), &e);
    free(state);
    s->hooks = hook_new();
    must(store_open(&s->store, s->conf.state_dir, &(store_options){.hooks = s->hooks}, &e), &e);
    s->fake = aid_fake_start(s->dir);
    s->plan = aid_fake_plan_of(s->fake);
    http_options o = {&s->conf, s->store, s->hooks, aid_fake_backend(s->fake)};
    must(http_server_start(&s->http, &o, &e), &e);
    s->port = http_server_port(s->http);
    s->health_port = http_server_health_port(s->http);
    s->admin_port = http_server_admin_port(s->http);
    return s;
}

void aid_server_close(aid_server *s)
{
    http_server_drain(s->http, DRAIN_MS);
    http_server_stop(s->http);
    store_close(s->store);
    if (aid_fake_references(s->fake) != 0) {
        fprintf(stderr, "aid_server: %d references to the model are out\n",
                aid_fake_references(s->fake));
        abort();
    }
    aid_fake_stop(s->fake);
    hook_free(s->hooks);
    serve_conf_free(&s->conf);
    aid_dir_drop(s->dir);
    free(s);
}

char *aid_server_key(aid_server *s, unsigned scopes, const api_key *limits)
{
    static const api_key none = {0};
    api_key want = limits != NULL ? *limits : none, made;
    char text[KEYS_TEXT + 1];
    hone_err e = {0};
    want.scopes = scopes;
    snprintf(want.name, sizeof want.name, "test");
    must(keys_create(s->store, &want, "test", &made, text, &e), &e);
    return mem_printf("Authorization: Bearer %s\r\n", text);
}

aid_reply aid_call(aid_server *s, const char *method, const char *path, const char *headers,
                   const char *body, int want)
{
    aid_reply r = aid_http(s->port, method, path, headers, body);
    if (r.status != want)
        fprintf(stderr, "%s %s %s gives %d, not %d: %s\n", method, path, body != NULL ? body : "",
                r.status, want, r.raw);
    return r;
}

int aid_server_setup(void **state)
{
    *state = aid_server_open(NULL);
    return 0;
}

int aid_server_teardown(void **state)
{
    aid_server_close(*state);
    return 0;
}
