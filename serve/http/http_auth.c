#include "serve/http/http_auth.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "serve/http/http_server_in.h"
#include "serve/store/audit.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { MAC = 32, MAC_TEXT = 43, HOUR_MS = 3600000 };

/* ---- tokens ---- */

static void mac_of(const store *s, const char *text, size_t len, char out[MAC_TEXT + 1])
{
    unsigned char d[MAC];
    store_digest(s, STORE_TOKENS, text, len, d);
    sodium_bin2base64(out, MAC_TEXT + 1, d, sizeof d, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

char *http_auth_token(const store *s, const char *response_id, int64_t hours)
{
    char mac[MAC_TEXT + 1];
    char *head = mem_printf("ft_%s.%" PRId64, response_id, clock_unix_ms() + hours * HOUR_MS);
    mac_of(s, head, strlen(head), mac);
    char *token = mem_printf("%s.%s", head, mac);
    free(head);
    return token;
}

bool http_auth_token_ok(const store *s, const char *token, char id[IDS_MAX])
{
    char mac[MAC_TEXT + 1], *end;
    const char *last = strrchr(token, '.');
    const char *first = strchr(token, '.');
    if (strncmp(token, "ft_", 3) != 0 || first == NULL || first == last ||
        strlen(last + 1) != MAC_TEXT || first - token - 3 >= IDS_MAX)
        return false;
    mac_of(s, token, (size_t)(last - token), mac);
    if (sodium_memcmp(mac, last + 1, MAC_TEXT) != 0)
        return false;
    errno = 0;
    long long expiry = strtoll(first + 1, &end, 10);
    if (end != last || errno != 0 || expiry < clock_unix_ms())
        return false;
    size_t n = (size_t)(first - token) - 3;
    memcpy(id, token + 3, n);
    id[n] = '\0';
    return true;
}

/* ---- keys ---- */

/* What is refused is counted, held against the address, and noted; never what was presented. */
static void refuse(http_req *r, http_auth_reason reason, http_error id, const char *message)
{
    static const char *const names[] = {"missing", "malformed", "unknown", "expired",
                                        "revoked", "token",     "scope",   "blocked"};
    atomic_fetch_add(&r->srv->count.auth_failures[reason], 1);
    if (reason != AUTH_MISSING && reason != AUTH_SCOPE && reason != AUTH_BLOCKED)
        http_limits_ip_failed(r->srv->limits, r->ip);
    if (reason != AUTH_BLOCKED && reason != AUTH_MISSING) {
        json_t *detail = json_pack("{s:s, s:s, s:s}", "reason", names[reason], "method", r->method,
                                   "path", r->path);
        audit_post(r->srv->store, &(audit_event){.action = "auth.refused",
                                                 .actor = r->key.id[0] ? r->key.id : NULL,
                                                 .request_id = r->id,
                                                 .ip = r->ip,
                                                 .detail = detail});
        json_decref(detail);
    }
    http_reply_error(r, id, NULL, "%s", message);
}

static void judge(http_req *r, keys_verdict v)
{
    static const char wrong[] = "this API key is not valid here";
    switch (v) {
    case KEYS_OK:
        r->authed = true;
        keys_touch(r->srv->store, &r->key);
        return;
    case KEYS_EXPIRED:
        refuse(r, AUTH_EXPIRED, HTTP_EXPIRED_KEY, "this API key has expired");
        return;
    case KEYS_MALFORMED:
        refuse(r, AUTH_MALFORMED, HTTP_INVALID_KEY, wrong);
        return;
    case KEYS_UNKNOWN:
        r->key = (api_key){0};
        refuse(r, AUTH_UNKNOWN, HTTP_INVALID_KEY, wrong);
        return;
    case KEYS_REVOKED:
        refuse(r, AUTH_REVOKED, HTTP_INVALID_KEY, wrong);
        return;
    }
}

static void check_token(http_req *r, const char *presented)
{
    if ((r->route->flags & ROUTE_TOKEN) != 0 &&
        http_auth_token_ok(r->srv->store, presented, r->token_for))
        r->authed = r->by_token = true;
    else
        refuse(r, AUTH_TOKEN, HTTP_INVALID_KEY, "this feedback token is not valid here (any more)");
}

/* Without a single key ever made, a server on loopback is open; the first key closes it. */
static int is_open(const http_req *r, bool *open, hone_err *e)
{
    int64_t n = 0;
    *open = r->srv->conf->insecure_no_auth;
    if (*open || !r->ln->loopback)
        return 0;
    int rc = keys_count(r->srv->store, &n, e);
    *open = n == 0;
    return rc;
}

static void check_scope(http_req *r)
{
    unsigned scope = r->route->scope;
    if (!r->authed || r->by_token || scope == 0 || (r->key.scopes & scope) != 0)
        return;
    char *message = mem_printf("this API key lacks the scope '%s'", keys_scope_name(scope));
    refuse(r, AUTH_SCOPE, HTTP_SCOPE, message);
    free(message);
}

static void check_presented(http_req *r, const char *presented, bool open)
{
    hone_err e = {0};
    keys_verdict v;
    double wait = 0;
    if (!open && !http_limits_ip_ok(r->srv->limits, r->ip, &wait)) {
        refuse(r, AUTH_BLOCKED, HTTP_RATE_LIMIT, "too many wrong keys from this address");
        http_reply_retry_after(r, wait);
        return;
    }
    if (strncmp(presented, "ft_", 3) == 0) {
        check_token(r, presented);
        return;
    }
    if (keys_check(r->srv->store, presented, &v, &r->key, &e) != 0) {
        http_reply_store_error(r, &e);
        return;
    }
    if (open && v != KEYS_OK) { /* clients must often send something */
        r->key = (api_key){0};
        return;
    }
    judge(r, v);
    check_scope(r);
}

void http_auth_check(http_req *r, const char *presented)
{
    hone_err e = {0};
    bool open;
    if ((r->route->flags & ROUTE_PUBLIC) != 0)
        return;
    if (is_open(r, &open, &e) != 0)
        http_reply_store_error(r, &e);
    else if (presented != NULL)
        check_presented(r, presented, open);
    else if (!open)
        refuse(r, AUTH_MISSING, HTTP_MISSING_KEY,
               "no API key: send 'Authorization: Bearer <key>' or 'x-api-key: <key>'");
}
