#pragma once
/* The server: libmicrohttpd in front, workers behind, one connection list with its reaper between.
 *
 * Connection threads read requests, check headers, keys and limits, and write replies; workers run
 * the handlers (templates, tokenizer, database); the scheduler behind the backend makes answers. A
 * connection whose request is being worked on is parked, so any number of them costs no thread. */
#include "core/base/hook.h"
#include "serve/http/backend.h"
#include "serve/http/serve_conf.h"
#include "serve/store/store.h"

typedef struct http_server http_server;

typedef struct http_options {
    const serve_conf *conf; /* all of these must outlive the server */
    store *store;
    hooks *hooks; /* may be NULL */
    const backend *engine;
} http_options;

/* Checks the settings (serve_conf_check with the keys in the store), binds, and serves. EDENIED
 * when the address may not be opened; EIO "127.0.0.1:8080: cannot listen: ...". */
int http_server_start(http_server **out, const http_options *o, hone_err *e);

/* The ports that were bound; 0 where there is no such listener. */
uint16_t http_server_port(const http_server *s);
uint16_t http_server_health_port(const http_server *s);
uint16_t http_server_admin_port(const http_server *s);

/* Takes a certificate and key that have been replaced: at once with `always`, else when the files
 * have changed and stand still (call it now and then). Connections stand; those that come get the
 * new one. What cannot be used is logged, and the old one stays. */
void http_server_reload(http_server *s, bool always);

/* From now on no generation is admitted (503 draining) and /health/ready says 503. Waits until
 * running answers are done, at most timeout_ms; then the engine cancels the rest. Other requests
 * are still served. */
void http_server_drain(http_server *s, int timeout_ms);

/* Closes every connection and frees the server; drain first. NULL is a no-op. */
void http_server_stop(http_server *s);
