/* A request from its headers to its body. */
#include "serve/http/http_req.h"

#include "core/base/clock.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/http/http_auth.h"
#include "serve/http/http_gen.h"
#include "serve/http/http_server_in.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

http_req *http_req_new(const listener *ln, struct MHD_Connection *mhd, const char *url,
                       const char *method)
{
    http_server *s = ln->srv;
    http_req *r = mem_alloc(sizeof *r);
    bool known;
    char allow[64];
    r->srv = s;
    r->mhd = mhd;
    r->conn = conn_of(mhd);
    r->began_ns = clock_mono_ns();
    r->ln = ln;
    snprintf(r->method, sizeof r->method, "%s", method);
    if (strlen(url) < sizeof r->path) {
        snprintf(r->path, sizeof r->path, "%s", url);
        r->route = http_route_find(r->method, r->path, &known, allow, r->tail);
    }
    ids_make(r->id, r->route != NULL ? r->route->id_prefix : "req-");
    buf_init(&r->body, (size_t)s->conf->max_body_bytes);
    return r;
}

void http_req_free(http_req *r)
{
    if (r == NULL)
        return;
    atomic_fetch_sub(&r->srv->body_bytes, r->counted);
    buf_free(&r->body);
    json_decref(r->json);
    if (r->reply.body.cap > 0)
        buf_free(&r->reply.body);
    for (int i = 0; i < r->reply.n_headers; i++)
        free(r->reply.headers[i].value);
    if (r->reply.pull_free != NULL)
        r->reply.pull_free(r->reply.pull_user);
    http_gen_free(r->gen);
    answer_unref(r->answer);
    free(r);
}

const api_key *http_req_key(const http_req *r)
{
    return r->authed && !r->by_token ? &r->key : NULL;
}

const char *http_req_key_id(const http_req *r)
{
    return r->authed && !r->by_token ? r->key.id : NULL;
}

served *http_req_model(http_req *r)
{
    const backend *b = r->srv->engine;
    served *m = b->current(b->ctx);
    if (m == NULL) {
        http_reply_error(r, HTTP_LOADING, NULL, "%s", b->why_none(b->ctx));
        http_reply_retry_after(r, 2);
    }
    return m;
}

const char *http_req_query(const http_req *r, const char *name)
{
    return MHD_lookup_connection_value(r->mhd, MHD_GET_ARGUMENT_KIND, name);
}

/* ---- headers ---- */

/* What of the headers decides how the message is read, or who sends it. A second one of these is an
 * attack, or will be read differently by a proxy in front. */
typedef struct headers {
    int n_length, n_coding, n_host, n_auth, n_key, n_type, n_expect, n_idempotency, n_origin;
    const char *length, *coding, *host, *auth, *key, *type, *expect, *idempotency, *origin;
    const char *forwarded;
    const char *bad; /* why the headers are refused */
} headers;

static bool token_char(unsigned char c)
{
    return c > 0x20 && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", c) == NULL;
}

static void check_name(headers *h, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!token_char((unsigned char)name[i]))
            h->bad = "a header's name holds a character that may not stand there";
    if (len == 0)
        h->bad = "a header has no name";
}

static void check_value(headers *h, const char *value, size_t len)
{
    if (strlen(value) != len)
        h->bad = "a header's value holds a NUL character";
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)value[i] < 0x20 && value[i] != '\t') || value[i] == 0x7f)
            h->bad = "a header's value holds a control character";
}

static enum MHD_Result see_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                  size_t name_len, const char *value, size_t value_len)
{
    headers *h = cls;
    const struct {
        const char *name;
        int *n;
        const char **value;
    } rows[] = {
        {"Content-Length", &h->n_length, &h->length},
        {"Transfer-Encoding", &h->n_coding, &h->coding},
        {"Host", &h->n_host, &h->host},
        {"Authorization", &h->n_auth, &h->auth},
        {"x-api-key", &h->n_key, &h->key},
        {"Content-Type", &h->n_type, &h->type},
        {"Expect", &h->n_expect, &h->expect},
        {"Idempotency-Key", &h->n_idempotency, &h->idempotency},
        {"Origin", &h->n_origin, &h->origin},
    };
    (void)kind;
    value = value != NULL ? value : "";
    check_name(h, name, name_len);
    check_value(h, value, value_len);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcasecmp(rows[i].name, name) == 0) {
            *rows[i].value = value;
            if (++*rows[i].n > 1)
                h->bad = "a header that may stand only once stands there twice";
        }
    }
    if (strcasecmp(name, "X-Forwarded-For") == 0)
        h->forwarded = value;
    return MHD_YES;
}

/* Malformed framing: nothing that follows on this connection can be trusted. */
static void refuse_framing(http_req *r, const char *why)
{
    http_reply_error(r, HTTP_BAD_REQUEST, NULL, "%s", why);
    r->reply.close = true;
}

static void check_framing(http_req *r, const headers *h, const char *version)
{
    bool old = strcmp(version, "HTTP/1.0") == 0;
    char *end = NULL;
    if (h->bad != NULL) {
        refuse_framing(r, h->bad);
    } else if (h->length != NULL && h->coding != NULL) {
        refuse_framing(r, "both Content-Length and Transfer-Encoding");
    } else if (h->coding != NULL && (old || strcasecmp(h->coding, "chunked") != 0)) {
        refuse_framing(r, "Transfer-Encoding may only be 'chunked', in HTTP/1.1");
    } else if (!old && h->host == NULL) {
        refuse_framing(r, "the Host header is missing");
    } else if (h->length != NULL) {
        errno = 0;
        r->length = strtoull(h->length, &end, 10);
        r->has_length = true;
        if (h->length[0] < '0' || h->length[0] > '9' || *end != '\0' || errno != 0)
            refuse_framing(r, "Content-Length is not a number");
    }
    r->chunked = h->coding != NULL;
    r->expects = h->expect != NULL;
    r->idempotency_key = h->idempotency;
}

/* ---- who ---- */

/* Addresses of one IPv6 network count as one: each client has a whole network of them. */
static void group_ip(char ip[64])
{
    struct in6_addr a;
    if (inet_pton(AF_INET6, ip, &a) != 1)
        return;
    if (IN6_IS_ADDR_V4MAPPED(&a)) {
        inet_ntop(AF_INET, &a.s6_addr[12], ip, 64);
        return;
    }
    memset(&a.s6_addr[8], 0, 8);
    inet_ntop(AF_INET6, &a, ip, 60);
    size_t n = strlen(ip);
    if (strcmp(ip, "::") != 0)
        memcpy(ip + n, "/64", sizeof "/64");
}

static void find_ip(http_req *r, const headers *h)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = i != NULL ? i->client_addr : NULL;
    if (a != NULL && a->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, r->ip, sizeof r->ip);
    else if (a != NULL && a->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)a)->sin6_addr, r->ip, sizeof r->ip);
    if (r->srv->conf->behind_proxy && h->forwarded != NULL) {
        const char *last = strrchr(h->forwarded, ','); /* what the proxy itself added */
        last = last != NULL ? last + 1 : h->forwarded;
        last += strspn(last, " ");
        struct in6_addr scratch;
        char text[64];
        snprintf(text, sizeof text, "%s", last);
        if (inet_pton(AF_INET, text, &scratch) == 1 || inet_pton(AF_INET6, text, &scratch) == 1)
            snprintf(r->ip, sizeof r->ip, "%s", text);
    }
    group_ip(r->ip);
}

/* The credential, or NULL. Two of them, or one that is too long, is an error. */
static const char *credential(http_req *r, const headers *h)
{
    const char *auth = h->auth;
    if (auth != NULL && h->key != NULL) {
        http_reply_error(r, HTTP_BAD_REQUEST, NULL, "both Authorization and x-api-key");
        return NULL;
    }
    if (auth != NULL) {
        if (strncasecmp(auth, "Bearer ", 7) != 0) {
            http_reply_error(r, HTTP_INVALID_KEY, NULL,
                             "the Authorization header must be 'Bearer <key>'");
            return NULL;
        }
        auth += 7 + strspn(auth + 7, " ");
    } else {
        auth = h->key;
    }
    if (auth != NULL && strlen(auth) > KEYS_PRESENTED) {
        http_reply_error(r, HTTP_INVALID_KEY, NULL, "an API key has at most %d characters",
                         KEYS_PRESENTED);
        return NULL;
    }
    return auth;
}

/* ---- browsers ---- */

static bool origin_allowed(const http_req *r, const char *origin)
{
    size_t i;
    json_t *o;
    json_array_foreach (r->srv->conf->cors_origins, i, o) {
        if (strcmp(json_string_value(o), origin) == 0)
            return true;
    }
    return false;
}

/* Without keys only what is on this machine may call: a page whose name was pointed at this machine
 * may not. */
static void check_open_host(http_req *r, const headers *h)
{
    char host[64];
    const char *text = h->host != NULL ? h->host : "localhost";
    size_t n = text[0] == '[' ? strcspn(text, "]") : strcspn(text, ":");
    const char *start = text[0] == '[' ? text + 1 : text;
    snprintf(host, sizeof host, "%.*s", (int)(n - (size_t)(start - text)), start);
    if (!serve_conf_loopback(host))
        http_reply_error(r, HTTP_ORIGIN, NULL,
                         "without keys only requests to localhost are served, not to '%.40s'",
                         host);
}

static void check_origin(http_req *r, const headers *h)
{
    if (h->origin == NULL)
        return;
    if (origin_allowed(r, h->origin)) {
        http_reply_header(r, "Access-Control-Allow-Origin", "%s", h->origin);
        http_reply_header(r, "Vary", "Origin");
        http_reply_header(r, "Access-Control-Expose-Headers",
                          "x-request-id, x-feedback-token, Retry-After");
    }
}

static void preflight(http_req *r, const headers *h)
{
    if (h->origin == NULL || !origin_allowed(r, h->origin)) {
        http_reply_error(r, HTTP_ORIGIN, NULL, "this origin is not among cors_origins");
        return;
    }
    buf none;
    buf_init(&none, 1);
    http_reply_header(r, "Access-Control-Allow-Methods", "GET, POST, PUT, DELETE");
    http_reply_header(r, "Access-Control-Allow-Headers",
                      "Authorization, Content-Type, Idempotency-Key, x-api-key");
    http_reply_header(r, "Access-Control-Max-Age", "600");
    http_reply_text(r, 204, NULL, &none);
}

/* ---- the route ---- */

static enum MHD_Result see_query(void *cls, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    http_req *r = cls;
    size_t n = strlen(name);
    (void)kind;
    (void)value;
    for (const char *s = r->route->query; s != NULL && n > 0;) {
        const char *hit = strstr(s, name);
        if (hit == NULL)
            break;
        if ((hit == r->route->query || hit[-1] == ' ') && (hit[n] == '\0' || hit[n] == ' '))
            return MHD_YES;
        s = hit + 1;
    }
    http_reply_error(r, HTTP_UNSUPPORTED_PARAMETER, name,
                     "unknown query parameter '%.64s' (keys are never taken from the URL)", name);
    return MHD_NO;
}

/* A route that is not served on this listener is as unknown as one that never was. */
static bool served_here(const http_req *r)
{
    bool moved = r->srv->conf->admin_listen != NULL;
    unsigned flags = r->route->flags;
    switch (r->ln->kind) {
    case LISTEN_HEALTH:
        return (flags & ROUTE_HEALTH) != 0;
    case LISTEN_ADMIN:
        return (flags & (ROUTE_ADMIN | ROUTE_MOVES | ROUTE_HEALTH)) != 0;
    default:
        return !moved || (flags & ROUTE_MOVES) == 0;
    }
}

static void check_route(http_req *r)
{
    bool known;
    char allow[64], tail[HTTP_PATH];
    if (r->route != NULL && !served_here(r))
        r->route = NULL;
    if (r->route == NULL) {
        http_route_find(r->method, r->path, &known, allow, tail);
        if (!known || r->ln->kind != LISTEN_MAIN) {
            http_reply_error(r, HTTP_UNKNOWN_ROUTE, NULL, "no route %s %.100s", r->method, r->path);
        } else {
            http_reply_error(r, HTTP_METHOD, NULL, "%s does not take %s, only %s", r->path,
                             r->method, allow);
            http_reply_header(r, "Allow", "%s", allow);
        }
        return;
    }
    MHD_get_connection_values(r->mhd, MHD_GET_ARGUMENT_KIND, see_query, r);
}

static void check_body(http_req *r, const headers *h)
{
    bool takes = (r->route->flags & ROUTE_BODY) != 0;
    if (!takes && (r->chunked || r->length > 0)) {
        http_reply_error(r, HTTP_BAD_REQUEST, NULL, "%s %s takes no body", r->method,
                         r->route->path);
        r->reply.close = true;
    } else if (takes && r->length > (uint64_t)r->srv->conf->max_body_bytes) {
        http_reply_error(r, HTTP_TOO_LARGE, NULL, "a body of %llu bytes, at most %lld are taken",
                         (unsigned long long)r->length, (long long)r->srv->conf->max_body_bytes);
        r->reply.close = true;
    } else if (takes && (h->type == NULL || strncasecmp(h->type, "application/json", 16) != 0 ||
                         strchr(";\t ", h->type[16]) == NULL)) {
        http_reply_error(r, HTTP_MEDIA_TYPE, NULL, "the Content-Type must be application/json");
    }
}

static void check_state(http_req *r)
{
    const backend *b = r->srv->engine;
    if ((r->route->flags & ROUTE_ENGINE) != 0 && atomic_load(&r->srv->draining)) {
        http_reply_error(r, HTTP_DRAINING, NULL, "the server is shutting down");
        http_reply_retry_after(r, 5);
        r->reply.close = true;
    } else if ((r->route->flags & ROUTE_ENGINE) != 0) {
        served *m = http_req_model(r);
        if (m != NULL)
            b->release(b->ctx, m);
    }
}

static void check_limits(http_req *r)
{
    if ((r->route->flags & ROUTE_NO_LIMIT) != 0)
        return;
    http_limit hit = http_limits_request(r->srv->limits, http_req_key(r), &r->limits);
    r->shows_limits = true;
    if (hit == LIMIT_NONE)
        return;
    atomic_fetch_add(&r->srv->count.rate_limited[hit], 1);
    http_reply_error(r, HTTP_RATE_LIMIT, NULL, "more than %lld requests a minute",
                     (long long)r->limits.rpm);
    http_reply_retry_after(r, r->limits.retry_after_s);
}

void http_req_check(http_req *r, const char *version)
{
    headers h = {0};
    MHD_get_connection_values_n(r->mhd, MHD_HEADER_KIND, see_header, &h);
    find_ip(r, &h);
    check_framing(r, &h, version);
    if (r->reply.status != 0)
        return;
    check_origin(r, &h);
    if (strcmp(r->method, "OPTIONS") == 0) {
        preflight(r, &h);
        return;
    }
    check_route(r);
    const char *presented = r->reply.status == 0 ? credential(r, &h) : NULL;
    if (r->reply.status == 0)
        http_auth_check(r, presented);
    if (r->reply.status == 0 && !r->authed && r->ln->loopback && !r->srv->conf->behind_proxy &&
        (r->route->flags & ROUTE_PUBLIC) == 0)
        check_open_host(r, &h);
    if (r->reply.status == 0)
        check_limits(r);
    if (r->reply.status == 0)
        check_state(r);
    if (r->reply.status == 0)
        check_body(r, &h);
}

bool http_req_parse(http_req *r)
{
    hone_err e = {0};
    if (js_parse(&r->json, r->body.data, r->body.len, &e) != 0) {
        http_reply_error(r, HTTP_INVALID_JSON, NULL, "%s", e.msg);
        return false;
    }
    if (!json_is_object(r->json)) {
        http_reply_error(r, HTTP_INVALID_JSON, NULL, "the body must be a JSON object");
        return false;
    }
    return true;
}
