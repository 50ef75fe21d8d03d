#pragma once
/* The one table of routes. */
#include "serve/store/keys.h"

#include <stdbool.h>

struct http_req;
typedef void http_handler(struct http_req *r);

enum {
    ROUTE_PUBLIC = 1,    /* no key needed */
    ROUTE_INLINE = 2,    /* quick: runs on the connection's thread */
    ROUTE_HEALTH = 4,    /* also on the small listener */
    ROUTE_ENGINE = 8,    /* needs a model; refused while draining */
    ROUTE_TOKEN = 16,    /* a feedback token will do */
    ROUTE_BODY = 32,     /* takes a JSON object */
    ROUTE_NO_LIMIT = 64, /* does not count against requests a minute */
    ROUTE_ADMIN = 128,   /* also on the admin listener */
    ROUTE_MOVES = 256    /* only there, where there is one */
};

typedef struct http_route {
    const char *method, *path; /* a path may end with "*": one more part, without '/' */
    http_handler *run;
    unsigned scope; /* keys_scope; 0: any key */
    unsigned flags;
    const char *id_prefix; /* of the request's id */
    const char *query;     /* names of the query arguments it takes, parted by spaces; NULL: none */
} http_route;

extern const http_route http_routes[]; /* ends with a NULL method */

/* The route, or NULL. *known is true when the path exists with another method; `allow` (cap at
 * least 64) lists the methods then. `tail` (cap at least 256) gets what "*" stands for. HEAD is
 * GET. */
const http_route *http_route_find(const char *method, const char *path, bool *known, char *allow,
                                  char *tail);

/* Its index, for counters; HTTP_ROUTES_MAX - 1 for NULL. */
enum { HTTP_ROUTES_MAX = 40 };
int http_route_index(const http_route *route);
