#pragma once
/* What a key may use: requests and tokens a minute (token buckets, refilled evenly), answers at a
 * time, tokens a day; and how often an address may show a wrong key. In memory; a day's use is read
 * from the database once. */
#include "serve/store/keys.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct http_limits http_limits;

/* Limits for keys without their own; 0: none. */
typedef struct http_limits_default {
    int64_t rpm, tpm, max_parallel, daily_tokens, auth_failures_per_minute;
    double (*seconds)(void); /* by which buckets fill; NULL: clock_seconds */
} http_limits_default;

/* s may be NULL (no daily use is known then); it must outlive the limits. */
http_limits *http_limits_new(store *s, const http_limits_default *d);
void http_limits_free(http_limits *l); /* NULL is a no-op */

typedef enum {
    LIMIT_NONE,     /* admitted */
    LIMIT_REQUESTS, /* rpm */
    LIMIT_TOKENS,   /* tpm */
    LIMIT_PARALLEL,
    LIMIT_DAILY
} http_limit;
const char *http_limit_name(http_limit w);

/* What a client is told; limits that do not apply are 0. */
typedef struct http_limit_view {
    int64_t rpm, rpm_left, tpm, tpm_left;
    double rpm_reset_s, tpm_reset_s; /* until the bucket is full */
    double retry_after_s;            /* after a refusal */
} http_limit_view;

/* Takes one request of the key. k NULL: nobody in particular (a server without keys), with the
 * defaults. */
http_limit http_limits_request(http_limits *l, const api_key *k, http_limit_view *v);

/* Reserves tokens (prompt plus the longest answer) and a place among the parallel answers. What is
 * reserved is settled with http_limits_settle, once. */
http_limit http_limits_reserve(http_limits *l, const api_key *k, int64_t tokens,
                               http_limit_view *v);

/* Gives the place back, and the tokens that were reserved but not used. */
void http_limits_settle(http_limits *l, const api_key *k, int64_t reserved, int64_t used);

/* May this address show a key? False while it has shown too many wrong ones; *retry_after_s then.
 */
bool http_limits_ip_ok(http_limits *l, const char *ip, double *retry_after_s);
void http_limits_ip_failed(http_limits *l, const char *ip);
