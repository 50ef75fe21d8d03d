#include "serve/http/http_probe.h"

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/js.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_REPLY = 64 << 10 };

typedef struct probe {
    const char *at; /* as the settings write it */
    int64_t end_ns;
    int fd;
} probe;

static int gave_up(const probe *p, hone_err *e)
{
    return hone_fail(e, HONE_ETIMEOUT, "%s: no answer in time", p->at);
}

/* Waits until the socket can be read or written. */
static int wait_for(const probe *p, short what, hone_err *e)
{
    for (;;) {
        int64_t left = (p->end_ns - clock_mono_ns()) / 1000000;
        struct pollfd f = {.fd = p->fd, .events = what};
        int n = left > 0 ? poll(&f, 1, (int)left) : 0;
        if (n > 0)
            return 0;
        if (n == 0 || errno != EINTR)
            return gave_up(p, e);
    }
}

static int connect_to(probe *p, const struct addrinfo *a, hone_err *e)
{
    int bad = 0;
    socklen_t n = sizeof bad;
    p->fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (p->fd < 0 || (connect(p->fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS))
        return hone_fail(e, HONE_EIO, "%s: %s", p->at, strerror(errno));
    int rc = wait_for(p, POLLOUT, e);
    if (rc != 0)
        return rc;
    if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &bad, &n) != 0 || bad != 0)
        return hone_fail(e, HONE_EIO, "%s: %s", p->at, strerror(bad != 0 ? bad : errno));
    return 0;
}

/* A host may have several addresses, of which the server listens on one. */
static int open_socket(probe *p, const char *host, uint16_t port, hone_err *e)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    int bad = getaddrinfo(*host != '\0' ? host : NULL, service, &hints, &list);
    if (bad != 0)
        return hone_fail(e, HONE_EINVAL, "%s: %s", p->at, gai_strerror(bad));
    int rc = HONE_EIO;
    for (const struct addrinfo *a = list; a != NULL && rc != 0; a = a->ai_next) {
        rc = connect_to(p, a, e);
        if (rc != 0 && p->fd >= 0) {
            close(p->fd);
            p->fd = -1;
        }
    }
    freeaddrinfo(list);
    return rc;
}

static int exchange(const probe *p, const char *request, buf *reply, hone_err *e)
{
    char chunk[4096];
    int rc = wait_for(p, POLLOUT, e);
    if (rc == 0 && send(p->fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        rc = hone_fail(e, HONE_EIO, "%s: %s", p->at, strerror(errno));
    while (rc == 0 && (rc = wait_for(p, POLLIN, e)) == 0) {
        ssize_t n = recv(p->fd, chunk, sizeof chunk, 0);
        if (n == 0)
            break;
        if (n > 0)
            buf_add(reply, chunk, (size_t)n);
        else if (errno != EINTR && errno != EAGAIN)
            rc = hone_fail(e, HONE_EIO, "%s: %s", p->at, strerror(errno));
        if (rc == 0)
            rc = buf_check(reply, p->at, e);
    }
    return rc;
}

/* The reason that the server itself gives stands in its error. */
static int judge(const probe *p, const buf *reply, char **said, hone_err *e)
{
    int status = 0;
    const char *body = strstr(reply->data, "\r\n\r\n");
    json_t *o = NULL;
    if (body == NULL || sscanf(reply->data, "HTTP/1.%*1d %3d", &status) != 1 ||
        js_parse(&o, body + 4, strlen(body + 4), NULL) != 0)
        return hone_fail(e, HONE_EFORMAT, "%s: what answers there is no hone server", p->at);
    const char *why = json_string_value(json_object_get(json_object_get(o, "error"), "message"));
    int rc = 0;
    if (status == 200)
        *said = js_text(o, false);
    else
        rc = hone_fail(e, HONE_EAGAIN, "%s: not ready (%d): %s", p->at, status,
                       why != NULL ? why : "no reason given");
    json_decref(o);
    return rc;
}

static int check_settings(const serve_conf *c, char host[64], uint16_t *port, hone_err *e)
{
    const char *at = c->health_listen != NULL ? c->health_listen : c->listen;
    int rc = serve_conf_listen(at, host, port, e);
    if (rc == 0 && c->health_listen == NULL && c->tls_cert != NULL)
        rc = hone_fail(e, HONE_EINVAL,
                       "listen '%s' speaks TLS, which a probe does not: set health_listen, such as "
                       "127.0.0.1:8081",
                       at);
    else if (rc == 0 && *port == 0)
        rc = hone_fail(e, HONE_EINVAL, "'%s': the server takes any free port; set one", at);
    return rc;
}

int http_probe(const serve_conf *c, bool live, int timeout_ms, char **said, hone_err *e)
{
    char host[64], request[160];
    uint16_t port;
    buf reply;
    probe p = {.at = c->health_listen != NULL ? c->health_listen : c->listen,
               .end_ns = clock_mono_ns() + (int64_t)timeout_ms * 1000000,
               .fd = -1};
    *said = NULL;
    int rc = check_settings(c, host, &port, e);
    if (rc == 0)
        rc = open_socket(&p, host, port, e);
    if (rc != 0)
        return rc;
    buf_init(&reply, MAX_REPLY);
    buf_str(&reply, "");
    snprintf(request, sizeof request,
             "GET /health/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
             live ? "live" : "ready");
    rc = exchange(&p, request, &reply, e);
    if (rc == 0)
        rc = judge(&p, &reply, said, e);
    buf_free(&reply);
    close(p.fd);
    return rc;
}
