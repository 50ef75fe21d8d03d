#pragma once
/* A whole server on a free port of loopback, with the fake engine and a store of its own. */
#include "serve/http/http_server.h"
#include "serve/store/keys.h"
#include "tests/unit/aid_fake.h"
#include "tests/unit/aid_http.h"

typedef struct aid_server {
    char *dir;
    serve_conf conf;
    store *store;
    hooks *hooks;
    aid_fake *fake;
    aid_fake_plan *plan;
    http_server *http;
    uint16_t port, health_port, admin_port;
} aid_server;

/* Starts one with these settings ("key=value", NULL-ended; listen is set). Aborts when it cannot.
 */
aid_server *aid_server_open(const char *const *settings);
/* Drains shortly and stops. */
void aid_server_close(aid_server *s);

/* A key with these limits, as a header line: "Authorization: Bearer hk_...\r\n". Caller frees. */
char *aid_server_key(aid_server *s, unsigned scopes, const api_key *limits);

/* As aid_http, with the status checked against `want`; prints the reply where it differs. */
aid_reply aid_call(aid_server *s, const char *method, const char *path, const char *headers,
                   const char *body, int want);

/* cmocka setup (no settings, no keys) and teardown. */
int aid_server_setup(void **state);
int aid_server_teardown(void **state);
