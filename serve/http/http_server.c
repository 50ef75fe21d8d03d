/* Daemons, threads, the life of a request, and the order in which all of it stops. */
#include "serve/http/http_server.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "serve/http/http_gen.h"
#include "serve/http/http_req.h"
#include "serve/http/http_server_in.h"
#include "serve/http/http_tls.h"
#include "serve/store/audit.h"
#include "serve/store/requests.h"

#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 512,
    HEADER_BYTES = 64 << 10, /* of memory for one connection's headers */
    POLITE_BYTES = 64 << 10, /* of a refused body that are read all the same */
    BODIES = 64,             /* full bodies that may be in memory together */
    JANITOR_MS = 3600 * 1000,
    KICK_MS = 20,
    SEND_MS = 1000, /* at least, for replies to requests that end with the server */
    KICKS = 500,
    SIDE_CONNECTIONS = 64, /* of operators and probes, each */
    SPARE_FILES = 64 + 2 * SIDE_CONNECTIONS,
    MIN_CONNECTIONS = 8
};

static const int64_t SECOND_NS = 1000000000;

/* ---- workers ---- */

void http_server_submit(http_server *s, http_req *r)
{
    conn_work_begin(r->conn);
    queue_push_wait(s->jobs, r);
}

static void run_request(http_req *r)
{
    if (r->gen != NULL && r->answer != NULL)
        http_gen_finish(r);
    else if ((r->route->flags & ROUTE_BODY) == 0 || http_req_parse(r))
        r->route->run(r);
}

static void *worker_main(void *arg)
{
    http_server *s = arg;
    void *item;
    while (queue_pop(s->jobs, &item, -1) == 0) {
        http_req *r = item;
        conn *c = r->conn; /* the request may be gone once the work has ended */
        run_request(r);
        conn_work_end(c);
    }
    return NULL;
}

static void *janitor_main(void *arg)
{
    http_server *s = arg;
    void *item;
    do {
        hone_err e = {0};
        int64_t n;
        if (requests_purge(s->store, &n, &e) != 0)
            log_warn("http", "deleting old requests: %s", e.msg);
        else if (n > 0)
            log_info("http", "%lld old requests deleted", (long long)n);
    } while (queue_pop(s->janitor_stop, &item, JANITOR_MS) == HONE_EAGAIN);
    return NULL;
}

/* ---- the life of a request ---- */

/* A refused request: answer at once, or read a short body first, so that the client gets to read
 * the answer. */
static enum MHD_Result refuse(http_req *r)
{
    bool has_body = r->chunked || r->length > 0;
    bool read_on = !has_body || (!r->expects && !r->chunked && r->length <= POLITE_BYTES);
    if (!r->reply.close && read_on) { /* the library closes after a reply at once */
        r->dropping = true;
        return MHD_YES;
    }
    if (has_body)
        r->reply.close = true;
    r->started = true;
    return http_reply_send(r);
}

static enum MHD_Result begin(http_req *r, const char *version)
{
    conn_enter(r->conn, CONN_BODY, r->id);
    http_req_check(r, version);
    return r->reply.status != 0 ? refuse(r) : MHD_YES;
}

/* The library takes no reply in the middle of a body: what is too long is read to its end and
 * dropped, within reason, and within the time for a body. */
static enum MHD_Result take_body(http_req *r, const char *data, size_t *size)
{
    uint64_t max = (uint64_t)r->srv->conf->max_body_bytes;
    r->seen += *size;
    if (!r->dropping && r->seen > max) {
        http_reply_error(r, HTTP_TOO_LARGE, NULL, "a body of more than %llu bytes",
                         (unsigned long long)max);
        r->reply.close = true;
        r->dropping = true;
    }
    if (!r->dropping) {
        r->counted += *size;
        if (atomic_fetch_add(&r->srv->body_bytes, *size) + *size > max * BODIES) {
            http_reply_error(r, HTTP_OVERLOADED, NULL, "too many large requests at once");
            http_reply_retry_after(r, 2);
            r->dropping = true;
        }
        buf_add(&r->body, data, *size);
        if (r->body.failed) {
            http_reply_error(r, HTTP_OVERLOADED, NULL, "no memory for this request");
            r->dropping = true;
        }
    }
    if (r->seen > 4 * max + POLITE_BYTES)
        return MHD_NO;
    *size = 0;
    return MHD_YES;
}

static void start(http_req *r)
{
    r->started = true;
    conn_enter(r->conn, CONN_WORK, r->id);
    if (r->reply.status != 0)
        return;
    if (r->route->flags & ROUTE_INLINE)
        r->route->run(r);
    else
        http_server_submit(r->srv, r);
}

/* Called when the body is there, and again after every wake. */
static enum MHD_Result proceed(http_req *r)
{
    if (!r->started)
        start(r);
    for (;;) {
        bool gone = conn_gone(r->conn);
        if (gone && r->answer != NULL)
            answer_detach(r->answer); /* from here on no worker gets the request any more */
        if (!conn_busy(r->conn)) {
            if (gone)
                return MHD_NO;
            if (r->reply.status != 0 || http_gen_ready(r))
                return http_reply_send(r);
        }
        if (conn_park(r->conn))
            return MHD_YES;
    }
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *mhd, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **con_cls)
{
    listener *ln = cls;
    http_req *r = *con_cls;
    if (r == NULL) {
        r = *con_cls = http_req_new(ln, mhd, url, method);
        return begin(r, version);
    }
    if (*size > 0)
        return take_body(r, data, size);
    return proceed(r);
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    http_req *r = *con_cls;
    (void)cls;
    (void)mhd;
    if (r == NULL)
        return;
    *con_cls = NULL;
    conn_set_answer(r->conn, NULL);
    if (r->answer != NULL)
        answer_detach(r->answer);
    http_gen_over(r, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    conn_enter(r->conn, CONN_HEADERS, NULL);
    http_req_free(r);
}

/* ---- daemons ---- */

static void on_log(void *cls, const char *fmt, va_list ap)
{
    char text[512];
    (void)cls;
    vsnprintf(text, sizeof text, fmt, ap);
    for (char *s = text; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = ' ';
    log_debug("mhd", "%s", text);
}

static int bind_one(const struct addrinfo *a, int *out)
{
    int one = 1;
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a->ai_family == AF_INET6) { /* every address: both families on one socket */
        int only = 0;
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
    }
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    *out = fd;
    return 0;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

/* What an operator can do about it. */
static const char *bind_advice(int why)
{
    static const struct {
        int why;
        const char *what;
    } rows[] = {
        {EADDRINUSE, "; another program has this port (ss -ltnp): end it, or listen elsewhere"},
        {EADDRNOTAVAIL, "; this machine has no such address (ip address): ':PORT' is every one"},
        {EACCES, "; ports below 1024 are for root: take a higher one, or CAP_NET_BIND_SERVICE"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].why == why)
            return rows[i].what;
    return "";
}

/* A name may have several addresses; a kernel without IPv6 has none for "::". */
static int bind_any(const char *host, const char *service, const struct addrinfo *hints, int *fd,
                    const char **why)
{
    struct addrinfo *list = NULL;
    int bad = getaddrinfo(host, service, hints, &list);
    bool done = false;
    *why = bad != 0 ? gai_strerror(bad) : NULL;
    for (const struct addrinfo *a = list; a != NULL && !done; a = a->ai_next)
        done = bind_one(a, fd) == 0;
    int saved = errno;
    if (list != NULL)
        freeaddrinfo(list);
    errno = saved;
    return done ? 0 : -1;
}

/* We bind ourselves: the library's own error would not say what is wrong. */
static int open_socket(listener *ln, const char *text, const char *host, uint16_t port, hone_err *e)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    const char *unknown;
    char service[8];
    bool every = *host == '\0';
    snprintf(service, sizeof service, "%u", port);
    int rc = bind_any(every ? "::" : host, service, &hints, &ln->fd, &unknown);
    if (rc != 0 && every && errno == EAFNOSUPPORT)
        rc = bind_any("0.0.0.0", service, &hints, &ln->fd, &unknown);
    if (unknown != NULL)
        return hone_fail(e, HONE_EINVAL, "%s: %s", text, unknown);
    if (rc != 0)
        return hone_fail(e, HONE_EIO, "%s: cannot listen: %s%s", text, strerror(errno),
                         bind_advice(errno));
    ln->port = port_of(ln->fd);
    return 0;
}

/* GnuTLS knows its session only, and the library has written there which connection it is. */
static int on_handshake(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
                        gnutls_pcert_st **certs, unsigned *n_certs, gnutls_ocsp_data_st **ocsp,
                        unsigned *n_ocsp, gnutls_privkey_t *key, unsigned *flags)
{
    struct MHD_Connection *mhd = gnutls_session_get_ptr(session);
    const conn *c = mhd != NULL ? conn_of(mhd) : NULL;
    (void)info;
    *ocsp = NULL;
    *n_ocsp = 0;
    return c != NULL ? http_tls_give(((http_server *)c->owner)->tls, certs, n_certs, key, flags)
                     : -1;
}

static int start_daemon(listener *ln, bool tls, unsigned threads, hone_err *e)
{
    const serve_conf *c = ln->srv->conf;
    struct MHD_OptionItem options[16];
    int n = 0;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    int64_t per_ip = c->behind_proxy ? 0 : c->max_connections_per_ip;
    int64_t most = ln->kind == LISTEN_MAIN ? ln->srv->max_connections : SIDE_CONNECTIONS;
    options[n++] = (struct MHD_OptionItem){MHD_OPTION_LISTEN_SOCKET, ln->fd, NULL};
    options[n++] = (struct MHD_OptionItem){MHD_OPTION_CONNECTION_LIMIT, (intptr_t)most, NULL};
    options[n++] = (struct MHD_OptionItem){MHD_OPTION_PER_IP_CONNECTION_LIMIT, per_ip, NULL};
    options[n++] =
        (struct MHD_OptionItem){MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)c->idle_seconds, NULL};
    options[n++] = (struct MHD_OptionItem){MHD_OPTION_CONNECTION_MEMORY_LIMIT, HEADER_BYTES, NULL};
    if (threads > 1)
        options[n++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, threads, NULL};
    if (tls) {
        flags |= MHD_USE_TLS;
        options[n++] =
            (struct MHD_OptionItem){MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)on_handshake};
        options[n++] = (struct MHD_OptionItem){
            MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"};
    }
    options[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    ln->mhd = MHD_start_daemon(flags, 0, NULL, NULL, on_access, ln, MHD_OPTION_EXTERNAL_LOGGER,
                               on_log, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                               MHD_OPTION_NOTIFY_CONNECTION, conn_notify, ln->srv->conns,
                               MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    if (ln->mhd == NULL)
        return hone_fail(e, HONE_EIO, "port %u: the HTTP library does not start", ln->port);
    return 0;
}

/* Operators on this machine need no TLS; probes never have it. */
static bool wants_tls(const listener *ln)
{
    return ln->srv->tls != NULL &&
           (ln->kind == LISTEN_MAIN || (ln->kind == LISTEN_ADMIN && !ln->loopback));
}

static int open_listener(http_server *s, listener_kind kind, const char *text, hone_err *e)
{
    listener *ln = &s->listeners[kind];
    char host[64];
    uint16_t port;
    if (text == NULL)
        return 0;
    int rc = serve_conf_listen(text, host, &port, e);
    if (rc == 0)
        rc = open_socket(ln, text, host, port, e);
    if (rc != 0)
        return rc;
    ln->loopback = serve_conf_loopback(host);
    unsigned threads = kind == LISTEN_MAIN ? (unsigned)s->conf->http_threads : 1;
    return start_daemon(ln, wants_tls(ln), threads, e);
}

/* The library ends the process after this call whatever it does; at least the reason is in the log.
 */
static void on_panic(void *cls, const char *file, unsigned line, const char *reason)
{
    (void)cls;
    log_error("mhd", "%s:%u: %s", file, line, reason != NULL ? reason : "inconsistent state");
    abort();
}

/* ---- starting ---- */

/* Connections must not take the files that the database and a new model need: the limit is raised
 * as far as it may be, and what is still too much is not taken in. */
static int fit_files(http_server *s, hone_err *e)
{
    struct rlimit lim;
    int64_t want = s->conf->max_connections + SPARE_FILES;
    s->max_connections = s->conf->max_connections;
    if (getrlimit(RLIMIT_NOFILE, &lim) != 0 || lim.rlim_cur == RLIM_INFINITY ||
        (int64_t)lim.rlim_cur >= want)
        return 0;
    lim.rlim_cur = lim.rlim_max == RLIM_INFINITY || (int64_t)lim.rlim_max >= want ? (rlim_t)want
                                                                                  : lim.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &lim) != 0 || getrlimit(RLIMIT_NOFILE, &lim) != 0)
        return hone_fail(e, HONE_EIO, "cannot raise the limit of open files: %s", strerror(errno));
    if ((int64_t)lim.rlim_cur >= want)
        return 0;
    s->max_connections = (int64_t)lim.rlim_cur - SPARE_FILES;
    if (s->max_connections < MIN_CONNECTIONS)
        return hone_fail(e, HONE_ELIMIT,
                         "this process may have %lld open files, a server needs %d at least: raise "
                         "the limit (ulimit -n, LimitNOFILE=, --ulimit nofile=)",
                         (long long)lim.rlim_cur, SPARE_FILES + MIN_CONNECTIONS);
    log_warn("http",
             "this process may have %lld open files: %lld connections at a time are taken, not "
             "max_connections %lld; raise the limit to %lld (ulimit -n, LimitNOFILE=, --ulimit "
             "nofile=)",
             (long long)lim.rlim_cur, (long long)s->max_connections,
             (long long)s->conf->max_connections, (long long)want);
    return 0;
}

static int start_threads(http_server *s, hone_err *e)
{
    for (int64_t i = 0; i < s->conf->workers && i < HTTP_MAX_WORKERS; i++) {
        if (pthread_create(&s->workers[s->n_workers], NULL, worker_main, s) != 0)
            return hone_fail(e, HONE_ENOMEM, "cannot start a worker");
        s->n_workers++;
    }
    if (pthread_create(&s->janitor, NULL, janitor_main, s) != 0)
        return hone_fail(e, HONE_ENOMEM, "cannot start the janitor");
    s->janitor_runs = true;
    return 0;
}

static int start_all(http_server *s, hone_err *e)
{
    const serve_conf *c = s->conf;
    conn_limits lim = {c->header_seconds * SECOND_NS, c->body_seconds * SECOND_NS,
                       c->idle_seconds * SECOND_NS};
    int64_t n_keys;
    int rc = fit_files(s, e);
    if (rc == 0)
        rc = keys_count(s->store, &n_keys, e);
    if (rc == 0)
        rc = serve_conf_check(c, n_keys, e);
    if (rc == 0 && c->tls_cert != NULL)
        rc = http_tls_open(&s->tls, c->tls_cert, c->tls_key, e);
    if (rc == 0)
        rc = conn_list_open(&s->conns, &lim, s, e);
    if (rc == 0)
        rc = start_threads(s, e);
    if (rc == 0)
        rc = open_listener(s, LISTEN_ADMIN, c->admin_listen, e);
    if (rc == 0)
        rc = open_listener(s, LISTEN_MAIN, c->listen, e);
    if (rc == 0)
        rc = open_listener(s, LISTEN_HEALTH, c->health_listen, e);
    return rc;
}

int http_server_start(http_server **out, const http_options *o, hone_err *e)
{
    const serve_conf *c = o->conf;
    *out = NULL;
    http_server *s = mem_alloc(sizeof *s);
    s->conf = c;
    s->store = o->store;
    s->hooks = o->hooks;
    s->engine = o->engine;
    for (int i = 0; i < HTTP_N_LISTENERS; i++)
        s->listeners[i] = (listener){.srv = s, .kind = (listener_kind)i, .fd = -1};
    s->started_ns = clock_mono_ns();
    s->ratings = http_tally_new();
    /* Room for a request of every connection, twice: pushing never waits. */
    s->jobs = queue_new(2 * (size_t)c->max_connections + 16);
    s->janitor_stop = queue_new(1);
    s->limits = http_limits_new(
        s->store,
        &(http_limits_default){c->default_rpm, c->default_tpm, c->default_max_parallel,
                               c->default_daily_tokens, c->auth_failures_per_minute, NULL});
    MHD_set_panic_func(on_panic, NULL);
    int rc = start_all(s, e);
    if (rc != 0) {
        http_server_stop(s);
        return rc;
    }
    audit_post(s->store, &(audit_event){.action = "server.start", .target = c->listen});
    *out = s;
    return 0;
}

uint16_t http_server_port(const http_server *s)
{
    return s->listeners[LISTEN_MAIN].port;
}

uint16_t http_server_health_port(const http_server *s)
{
    return s->listeners[LISTEN_HEALTH].port;
}

uint16_t http_server_admin_port(const http_server *s)
{
    return s->listeners[LISTEN_ADMIN].port;
}

void http_server_reload(http_server *s, bool always)
{
    hone_err e = {0};
    bool took;
    if (s->tls != NULL && http_tls_reload(s->tls, always, &took, &e) != 0)
        log_error("tls", "%s; the certificate of before stays", e.msg);
}

/* ---- stopping ---- */

void http_server_drain(http_server *s, int timeout_ms)
{
    int64_t start = clock_mono_ns();
    int64_t most = (int64_t)(timeout_ms > SEND_MS ? timeout_ms : SEND_MS) * 1000000;
    atomic_store(&s->draining, true);
    s->engine->drain(s->engine->ctx, timeout_ms);
    /* The engine has ended its answers; the clients do not have them yet. */
    int64_t ended = clock_mono_ns();
    while (conn_at_work(s->conns, ended) > 0 && clock_mono_ns() - start < most)
        usleep(KICK_MS * 1000);
}

/* Stopping a daemon that has suspended connections ends the process, so: no new connections, then
 * every connection is woken or shut until none is left, and only then the daemons. */
void http_server_stop(http_server *s)
{
    if (s == NULL)
        return;
    atomic_store(&s->draining, true);
    bool ran = s->listeners[LISTEN_MAIN].mhd != NULL;
    for (int i = 0; i < HTTP_N_LISTENERS; i++)
        if (s->listeners[i].mhd != NULL)
            MHD_quiesce_daemon(s->listeners[i].mhd);
    for (int i = 1; s->conns != NULL && conn_counters(s->conns).open > 0; i++) {
        conn_kick_all(s->conns);
        usleep(KICK_MS * 1000);
        if (i % KICKS == 0)
            log_warn("http", "%d connections are still at work", conn_counters(s->conns).open);
    }
    for (int i = 0; i < HTTP_N_LISTENERS; i++) {
        if (s->listeners[i].mhd != NULL)
            MHD_stop_daemon(s->listeners[i].mhd);
        if (s->listeners[i].fd >= 0)
            close(s->listeners[i].fd);
    }
    queue_close(s->jobs);
    for (int i = 0; i < s->n_workers; i++)
        pthread_join(s->workers[i], NULL);
    queue_close(s->janitor_stop);
    if (s->janitor_runs)
        pthread_join(s->janitor, NULL);
    conn_list_close(s->conns);
    http_tls_close(s->tls);
    if (ran)
        audit_post(s->store, &(audit_event){.action = "server.stop", .target = s->conf->listen});
    queue_free(s->jobs);
    queue_free(s->janitor_stop);
    http_limits_free(s->limits);
    http_tally_free(s->ratings);
    free(s);
}
