#pragma once
/* One request: what came in, who sent it, and the reply that is being made. Internal to serve/http.
 *
 * It lives from the first call of the access handler until libmicrohttpd says that it is completed.
 * Meanwhile it belongs to the connection's thread, or, while the connection is busy, to a worker.
 */
#include "core/base/buf.h"
#include "serve/http/http_answer.h"
#include "serve/http/http_conn.h"
#include "serve/http/http_errors.h"
#include "serve/http/http_limits.h"
#include "serve/http/http_route.h"
#include "serve/store/ids.h"
#include "serve/store/keys.h"

#include <jansson.h>
#include <microhttpd.h>

enum { HTTP_MAX_HEADERS = 24, HTTP_PATH = 256 };

typedef struct http_server http_server;
typedef struct http_gen http_gen;
typedef struct http_req http_req;

/* The next piece of a reply that is made as it is sent: appends to out; 0 go on, 1 the end,
 * negative: cut off. */
typedef int http_pull_fn(void *user, buf *out, hone_err *e);

typedef struct http_reply {
    int status; /* 0: none yet */
    http_error error;
    const char *type; /* content type */
    buf body;
    struct {
        const char *name;
        char *value;
    } headers[HTTP_MAX_HEADERS];
    int n_headers;
    bool close;
    http_pull_fn *pull; /* instead of body */
    void *pull_user;
    void (*pull_free)(void *user);
} http_reply;

struct http_req {
    http_server *srv;
    conn *conn;
    struct MHD_Connection *mhd;
    const http_route *route; /* NULL while unknown */
    char id[IDS_MAX];
    char method[16], path[HTTP_PATH], tail[HTTP_PATH]; /* tail: what a route's '*' stands for */
    char ip[64];
    int64_t began_ns;
    const struct listener *ln; /* where it came in */

    bool has_length, chunked, expects;
    uint64_t length;
    buf body;
    uint64_t seen, counted; /* bytes of the body; and those that count as memory in use */
    bool dropping;          /* the body is read only to be polite */
    json_t *json;           /* the body, parsed; an object */
    const char *idempotency_key;

    bool authed, by_token;
    api_key key;             /* authed and not by_token */
    char token_for[IDS_MAX]; /* by_token: the response that it may rate */
    http_limit_view limits;
    bool shows_limits;

    bool started, handed_over; /* to the workers again, when the answer is there */
    http_reply reply;

    http_gen *gen; /* a generation that runs or ran */
    answer *answer;
};

http_req *http_req_new(const struct listener *ln, struct MHD_Connection *mhd, const char *url,
                       const char *method);
void http_req_free(http_req *r);

/* Headers, route, key, limits: fills the request, or sets an error reply. Runs on the connection's
 * thread. */
void http_req_check(http_req *r, const char *version);

/* Parses the body into r->json, or sets an error reply and returns false. */
bool http_req_parse(http_req *r);

/* The key's id, or NULL when the server runs without keys. */
const char *http_req_key_id(const http_req *r);
const api_key *http_req_key(const http_req *r);

/* The model that answers now, with a reference; NULL after an error reply that says why there is
 * none. */
served *http_req_model(http_req *r);

/* A query argument, or NULL. Borrowed until the request ends. */
const char *http_req_query(const http_req *r, const char *name);

/* ---- replies: the first one stands ---- */

void http_reply_json(http_req *r, int status, json_t *v); /* takes v */
void http_reply_text(http_req *r, int status, const char *type, const buf *text);
void http_reply_pull(http_req *r, int status, const char *type, http_pull_fn *fn, void *user,
                     void (*free_user)(void *));
void http_reply_header(http_req *r, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* field (the "param" of the reply) may be NULL. INTERNAL logs the message and tells the client only
 * the request's id. */
void http_reply_error(http_req *r, http_error id, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same with more fields in the error object (takes extra). */
void http_reply_error_with(http_req *r, http_error id, const char *field, json_t *extra,
                           const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The error of a database call. */
void http_reply_store_error(http_req *r, const hone_err *e);
void http_reply_retry_after(http_req *r, double seconds);

/* {"error": ...} as it stands in a body or in a stream. New reference. */
json_t *http_error_json(http_error id, const char *field, const char *message);

/* Queues the reply with libmicrohttpd. */
enum MHD_Result http_reply_send(http_req *r);
