#pragma once
/* What handlers see of the server. Internal to serve/http. */
#include "core/base/queue.h"
#include "serve/http/http_conn.h"
#include "serve/http/http_limits.h"
#include "serve/http/http_route.h"
#include "serve/http/http_server.h"
#include "serve/http/http_tally.h"

#include <stdatomic.h>

enum { HTTP_N_REASONS = 8, HTTP_N_CLASSES = 6 };

/* Why somebody was not let in, for a metric. */
typedef enum {
    AUTH_MISSING,
    AUTH_MALFORMED,
    AUTH_UNKNOWN,
    AUTH_EXPIRED,
    AUTH_REVOKED,
    AUTH_TOKEN,
    AUTH_SCOPE,
    AUTH_BLOCKED
} http_auth_reason;

typedef struct http_counters {
    atomic_uint_fast64_t requests[HTTP_ROUTES_MAX][HTTP_N_CLASSES]; /* by status / 100 */
    atomic_uint_fast64_t auth_failures[HTTP_N_REASONS];
    atomic_uint_fast64_t rate_limited[5]; /* by http_limit */
    atomic_uint_fast64_t disconnects;     /* answers that nobody waited for */
    atomic_uint_fast64_t records_dropped;
} http_counters;

/* Everything; health and metrics only; and, where there is such a listener, what is for operators.
 */
typedef enum { LISTEN_MAIN, LISTEN_HEALTH, LISTEN_ADMIN, HTTP_N_LISTENERS } listener_kind;

typedef struct listener {
    struct http_server *srv;
    struct MHD_Daemon *mhd; /* NULL: not open */
    int fd;                 /* ours until the daemon has it */
    uint16_t port;
    listener_kind kind;
    bool loopback; /* only this machine reaches it */
} listener;

enum { HTTP_MAX_WORKERS = 64 };

struct http_server {
    const serve_conf *conf;
    store *store;
    hooks *hooks;
    const backend *engine;

    listener listeners[HTTP_N_LISTENERS];
    struct http_tls *tls; /* NULL: none */
    conn_list *conns;
    http_limits *limits;
    queue *jobs; /* requests for the workers */
    pthread_t workers[HTTP_MAX_WORKERS];
    int n_workers;
    pthread_t janitor; /* deletes what is too old */
    bool janitor_runs;
    queue *janitor_stop;

    atomic_bool draining;
    atomic_uint_fast64_t body_bytes; /* of all requests together */
    http_counters count;
    http_tally *ratings;
    int64_t started_ns;      /* of the clock that nobody sets */
    int64_t max_connections; /* of clients, as the limit of open files lets */
};

/* Gives a request to the workers; never fails, since a connection has one request at a time. */
void http_server_submit(http_server *s, struct http_req *r);
