#include "serve/http/http_route.h"

#include "serve/http/http_handlers.h"

#include <stdio.h>
#include <string.h>

enum {
    GEN = ROUTE_ENGINE | ROUTE_BODY,
    TXT = ROUTE_ENGINE | ROUTE_BODY,
    OPEN = ROUTE_PUBLIC | ROUTE_INLINE | ROUTE_HEALTH | ROUTE_NO_LIMIT
};

#define FEEDBACK_QUERY                                                                             \
    "format dedupe split part min_agreement since until model tag review source rating "           \
    "response_id corrected unused limit after"

/* clang-format off */
const http_route http_routes[] = {
    {"POST",   "/v1/chat/completions", http_chat,            SCOPE_INFER,          GEN,               "chatcmpl-", NULL},
    {"POST",   "/v1/completions",      http_completions,     SCOPE_INFER,          GEN,               "cmpl-",     NULL},
    {"POST",   "/tokenize",            http_tokenize,        SCOPE_INFER,          TXT,               "req-",      NULL},
    {"POST",   "/detokenize",          http_detokenize,      SCOPE_INFER,          TXT,               "req-",      NULL},
    {"POST",   "/apply-template",      http_apply_template,  SCOPE_INFER,          TXT,               "req-",      NULL},
    {"GET",    "/v1/models",           http_models_list,     SCOPE_MODELS_READ,    ROUTE_ENGINE,                 "req-",      NULL},
    {"GET",    "/v1/models/*",         http_models_get,      SCOPE_MODELS_READ,    ROUTE_ENGINE,                 "req-",      NULL},
    {"POST",   "/v1/feedback",         http_feedback_put,    SCOPE_FEEDBACK_WRITE, ROUTE_BODY | ROUTE_TOKEN, "req-", NULL},
    {"GET",    "/v1/feedback",         http_feedback_list,   SCOPE_FEEDBACK_READ,  ROUTE_MOVES,                 "req-",      FEEDBACK_QUERY},
    {"GET",    "/v1/feedback/export",  http_feedback_export, SCOPE_FEEDBACK_READ,  ROUTE_MOVES,                 "req-",      FEEDBACK_QUERY},
    {"GET",    "/v1/feedback/*",       http_feedback_get,    SCOPE_FEEDBACK_READ,  ROUTE_MOVES,                 "req-",      NULL},
    {"PUT",    "/v1/feedback/*",       http_feedback_change, SCOPE_FEEDBACK_WRITE, ROUTE_BODY | ROUTE_ADMIN,        "req-",      NULL},
    {"DELETE", "/v1/feedback/*",       http_feedback_delete, SCOPE_FEEDBACK_WRITE, 0,                 "req-",      NULL},
    {"POST",   "/v1/erasure",          http_erasure,         SCOPE_ERASE,          ROUTE_BODY | ROUTE_MOVES, "req-", NULL},
    {"GET",    "/v1/erasure/*",        http_erasure_receipt, SCOPE_ERASE,          ROUTE_MOVES,       "req-",      NULL},
    {"GET",    "/health/live",         http_health_live,     SCOPE_NONE,           OPEN,              "req-",      NULL},
    {"GET",    "/health/ready",        http_health_ready,    SCOPE_NONE,           OPEN,              "req-",      NULL},
    {"GET",    "/health",              http_health_ready,    SCOPE_NONE,           OPEN,              "req-",      NULL},
    {"GET",    "/metrics",             http_metrics,         SCOPE_METRICS_READ,   ROUTE_HEALTH | ROUTE_INLINE | ROUTE_NO_LIMIT | ROUTE_MOVES, "req-", NULL},
    {NULL, NULL, NULL, 0, 0, NULL, NULL},
};
/* clang-format on */

/* Does the path fit? With a "*" the rest goes to tail. */
static bool fits(const char *pattern, const char *path, char *tail)
{
    size_t n = strlen(pattern);
    tail[0] = '\0';
    if (pattern[n - 1] != '*')
        return strcmp(pattern, path) == 0;
    const char *rest = path + n - 1;
    if (strncmp(pattern, path, n - 1) != 0 || *rest == '\0' || strchr(rest, '/') != NULL)
        return false;
    snprintf(tail, 256, "%s", rest);
    return true;
}

const http_route *http_route_find(const char *method, const char *path, bool *known, char *allow,
                                  char *tail)
{
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    *known = false;
    allow[0] = '\0';
    for (const http_route *r = http_routes; r->method != NULL; r++) {
        if (!fits(r->path, path, tail))
            continue;
        if (strcmp(r->method, method) == 0)
            return r;
        if (strstr(allow, r->method) == NULL)
            snprintf(allow + strlen(allow), 64 - strlen(allow), "%s%s", *known ? ", " : "",
                     r->method);
        *known = true;
    }
    return NULL;
}

int http_route_index(const http_route *route)
{
    return route != NULL ? (int)(route - http_routes) : HTTP_ROUTES_MAX - 1;
}
