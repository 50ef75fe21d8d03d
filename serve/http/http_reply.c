/* Replies: making them, and handing them to libmicrohttpd. */
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/utf8.h"
#include "serve/http/http_req.h"
#include "serve/http/http_server_in.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPLY = 1 << 30, BLOCK = 16 << 10, PIECE = 1 << 20 };

json_t *http_error_json(http_error id, const char *field, const char *message)
{
    const http_error_row *row = http_error_get(id);
    size_t n = utf8_valid(message, strlen(message)); /* it may have been cut inside a character */
    /* A client's own name for a parameter may be any bytes. */
    json_t *named =
        field != NULL ? json_stringn(field, utf8_valid(field, strlen(field))) : json_null();
    return json_pack("{s:{s:s%, s:s, s:o, s:s}}", "error", "message", message, n, "type", row->type,
                     "param", named, "code", row->code);
}

void http_reply_json(http_req *r, int status, json_t *v)
{
    if (r->reply.status == 0) {
        char *text = js_text(v, false);
        r->reply.status = status;
        r->reply.type = "application/json";
        buf_init(&r->reply.body, MAX_REPLY);
        if (text != NULL)
            buf_str(&r->reply.body, text);
        free(text);
    }
    json_decref(v);
}

void http_reply_text(http_req *r, int status, const char *type, const buf *text)
{
    if (r->reply.status != 0)
        return;
    r->reply.status = status;
    r->reply.type = type;
    buf_init(&r->reply.body, MAX_REPLY);
    buf_add(&r->reply.body, text->data, text->len);
}

void http_reply_pull(http_req *r, int status, const char *type, http_pull_fn *fn, void *user,
                     void (*free_user)(void *))
{
    r->reply.status = status;
    r->reply.type = type;
    r->reply.pull = fn;
    r->reply.pull_user = user;
    r->reply.pull_free = free_user;
}

void http_reply_header(http_req *r, const char *name, const char *fmt, ...)
{
    http_reply *p = &r->reply;
    char value[1024];
    if (p->n_headers == HTTP_MAX_HEADERS)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    p->headers[p->n_headers].name = name;
    p->headers[p->n_headers++].value = mem_strdup(value);
}

void http_reply_retry_after(http_req *r, double seconds)
{
    if (!(seconds > 0))
        seconds = 0;
    http_reply_header(r, "Retry-After", "%.0f", ceil(seconds));
    http_reply_header(r, "Retry-After-Ms", "%.0f", ceil(seconds * 1000));
}

static void reply_error(http_req *r, http_error id, const char *field, json_t *extra,
                        const char *message)
{
    const http_error_row *row = http_error_get(id);
    if (r->reply.status != 0) {
        json_decref(extra);
        return;
    }
    if (id == HTTP_INTERNAL) {
        log_error("http", "%s %s %s: %s", r->id, r->method, r->path, message);
        message = "internal error; the server's log has the details under the request's id";
    }
    json_t *v = http_error_json(id, field, message);
    if (extra != NULL)
        json_object_update(json_object_get(v, "error"), extra);
    json_decref(extra);
    r->reply.error = id;
    http_reply_json(r, row->status, v);
    if (row->retry[0] != '\0')
        http_reply_header(r, "x-should-retry", "%s", row->retry);
    if (row->status == 401)
        http_reply_header(r, "WWW-Authenticate", "Bearer");
}

void http_reply_error(http_req *r, http_error id, const char *field, const char *fmt, ...)
{
    char message[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    reply_error(r, id, field, NULL, message);
}

void http_reply_error_with(http_req *r, http_error id, const char *field, json_t *extra,
                           const char *fmt, ...)
{
    char message[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    reply_error(r, id, field, extra, message);
}

void http_reply_store_error(http_req *r, const hone_err *e)
{
    log_error("http", "%s %s %s: %s", r->id, r->method, r->path, e->msg);
    http_reply_error(r, HTTP_STORE, NULL, "the database cannot be read or written at the moment");
    http_reply_retry_after(r, 5);
}

/* ---- to libmicrohttpd ---- */

typedef struct pull_state {
    http_req *r; /* only while the connection stands */
    buf out;
    size_t off;
    bool ended;
} pull_state;

static ssize_t pull_read(void *cls, uint64_t pos, char *dst, size_t max)
{
    pull_state *p = cls;
    http_reply *reply = &p->r->reply;
    hone_err e = {0};
    (void)pos;
    while (p->off == p->out.len && !p->ended) {
        buf_reset(&p->out);
        p->off = 0;
        int rc = reply->pull(reply->pull_user, &p->out, &e);
        if (rc == HONE_EAGAIN) { /* nothing at the moment */
            if (conn_gone(p->r->conn))
                return MHD_CONTENT_READER_END_WITH_ERROR;
            if (conn_park(p->r->conn))
                return 0;
            continue;
        }
        if (rc < 0 || p->out.failed) {
            if (rc != HONE_ECANCELLED)
                log_error("http", "%s: the reply is cut off: %s", p->r->id, e.msg);
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        p->ended = rc == 1;
    }
    size_t n = p->out.len - p->off;
    if (n == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n > max)
        n = max;
    memcpy(dst, p->out.data + p->off, n);
    p->off += n;
    return (ssize_t)n;
}

static void pull_free(void *cls)
{
    pull_state *p = cls;
    buf_free(&p->out);
    free(p);
}

static struct MHD_Response *make_response(http_req *r)
{
    http_reply *p = &r->reply;
    if (p->pull != NULL) {
        pull_state *s = mem_alloc(sizeof *s);
        s->r = r;
        buf_init(&s->out, (size_t)PIECE * 64);
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, pull_read, s, pull_free);
    }
    size_t len;
    char *text = buf_take(&p->body, &len);
    return MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
}

static void add_limits(http_req *r)
{
    const http_limit_view *v = &r->limits;
    if (!r->shows_limits)
        return;
    if (v->rpm > 0) {
        http_reply_header(r, "x-ratelimit-limit-requests", "%lld", (long long)v->rpm);
        http_reply_header(r, "x-ratelimit-remaining-requests", "%lld", (long long)v->rpm_left);
        http_reply_header(r, "x-ratelimit-reset-requests", "%.3fs", v->rpm_reset_s);
        http_reply_header(r, "RateLimit-Limit", "%lld", (long long)v->rpm);
        http_reply_header(r, "RateLimit-Remaining", "%lld", (long long)v->rpm_left);
        http_reply_header(r, "RateLimit-Reset", "%.0f", ceil(v->rpm_reset_s));
    }
    if (v->tpm > 0) {
        http_reply_header(r, "x-ratelimit-limit-tokens", "%lld", (long long)v->tpm);
        http_reply_header(r, "x-ratelimit-remaining-tokens", "%lld", (long long)v->tpm_left);
        http_reply_header(r, "x-ratelimit-reset-tokens", "%.3fs", v->tpm_reset_s);
    }
}

enum MHD_Result http_reply_send(http_req *r)
{
    http_reply *p = &r->reply;
    if (p->status == 0)
        http_reply_error(r, HTTP_INTERNAL, NULL, "no reply was made");
    add_limits(r);
    struct MHD_Response *m = make_response(r);
    if (m == NULL)
        return MHD_NO;
    MHD_add_response_header(m, "x-request-id", r->id);
    if (p->type != NULL)
        MHD_add_response_header(m, "Content-Type", p->type);
    if (p->close)
        MHD_add_response_header(m, "Connection", "close");
    for (int i = 0; i < p->n_headers; i++)
        MHD_add_response_header(m, p->headers[i].name, p->headers[i].value);
    enum MHD_Result rc = MHD_queue_response(r->mhd, (unsigned)p->status, m);
    MHD_destroy_response(m);
    int class = p->status / 100;
    atomic_fetch_add(
        &r->srv->count.requests[http_route_index(r->route)][class < HTTP_N_CLASSES ? class : 5], 1);
    return rc;
}
