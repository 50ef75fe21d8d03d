#include "serve/http/http_limits.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_BUCKETS = 1024, N_ADDRESSES = 4096, PROBES = 8, DAY_MS = 86400000 };

typedef struct bucket {
    double left; /* may go below zero when an answer used more than was reserved */
    double at;   /* seconds, of the last refill */
    bool used;   /* false: still full */
} bucket;

typedef struct account {
    struct account *next;
    char id[KEYS_ID + 1];
    bucket requests, tokens;
    int64_t parallel, day, day_tokens;
} account;

typedef struct address {
    char ip[64];
    bucket failures;
} address;

struct http_limits {
    store *s;
    http_limits_default d;
    pthread_mutex_t lock;
    account *table[N_BUCKETS];
    address addresses[N_ADDRESSES];
};

http_limits *http_limits_new(store *s, const http_limits_default *d)
{
    http_limits *l = mem_alloc(sizeof *l);
    l->s = s;
    l->d = *d;
    if (d->seconds == NULL)
        l->d.seconds = clock_seconds;
    pthread_mutex_init(&l->lock, NULL);
    return l;
}

void http_limits_free(http_limits *l)
{
    if (l == NULL)
        return;
    for (int i = 0; i < N_BUCKETS; i++) {
        for (account *a = l->table[i], *next; a != NULL; a = next) {
            next = a->next;
            free(a);
        }
    }
    pthread_mutex_destroy(&l->lock);
    free(l);
}

const char *http_limit_name(http_limit w)
{
    static const char *const names[] = {"none", "requests", "tokens", "parallel", "daily_tokens"};
    return names[w];
}

/* ---- buckets: `cap` a minute ---- */

static void refill(bucket *b, double cap, double now)
{
    if (!b->used)
        *b = (bucket){cap, now, true};
    b->left += (now - b->at) * cap / 60;
    if (b->left > cap)
        b->left = cap;
    b->at = now;
}

/* Takes n, or says in how many seconds there will be n. A wish larger than the bucket is let
 * through when the bucket is full: otherwise it could never be. */
static bool take(bucket *b, double cap, double n, double now, double *wait_s)
{
    refill(b, cap, now);
    double need = n < cap ? n : cap;
    if (b->left >= need) {
        b->left -= n;
        return true;
    }
    *wait_s = (need - b->left) * 60 / cap;
    return false;
}

static double reset_of(const bucket *b, double cap)
{
    return cap > 0 && b->used ? (cap - b->left) * 60 / cap : 0;
}

/* ---- accounts ---- */

static uint32_t hash_of(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s != '\0'; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

/* One for each key that was ever used: keys are few, and only an operator makes them. */
static account *find(http_limits *l, const char *id)
{
    account **slot = &l->table[hash_of(id) % N_BUCKETS];
    for (account *a = *slot; a != NULL; a = a->next)
        if (strcmp(a->id, id) == 0)
            return a;
    account *a = mem_alloc(sizeof *a);
    snprintf(a->id, sizeof a->id, "%s", id);
    a->day = -1;
    a->next = *slot;
    *slot = a;
    return a;
}

static int64_t own_or(const api_key *k, int64_t own, int64_t common)
{
    return k != NULL && own > 0 ? own : common;
}

typedef struct allowance {
    int64_t rpm, tpm, parallel, daily;
} allowance;

static allowance allowed(const http_limits *l, const api_key *k)
{
    static const api_key nobody = {0};
    const api_key *o = k != NULL ? k : &nobody;
    return (allowance){own_or(k, o->rpm, l->d.rpm), own_or(k, o->tpm, l->d.tpm),
                       own_or(k, o->max_parallel, l->d.max_parallel),
                       own_or(k, o->daily_tokens, l->d.daily_tokens)};
}

static void show(const account *a, const allowance *w, http_limit_view *v)
{
    v->rpm = w->rpm;
    v->tpm = w->tpm;
    v->rpm_left = a->requests.used && a->requests.left > 0 ? (int64_t)a->requests.left : 0;
    v->tpm_left = a->tokens.used && a->tokens.left > 0 ? (int64_t)a->tokens.left : 0;
    if (!a->requests.used)
        v->rpm_left = w->rpm;
    if (!a->tokens.used)
        v->tpm_left = w->tpm;
    v->rpm_reset_s = reset_of(&a->requests, (double)w->rpm);
    v->tpm_reset_s = reset_of(&a->tokens, (double)w->tpm);
}

http_limit http_limits_request(http_limits *l, const api_key *k, http_limit_view *v)
{
    http_limit rc = LIMIT_NONE;
    allowance w = allowed(l, k);
    *v = (http_limit_view){0};
    pthread_mutex_lock(&l->lock);
    account *a = find(l, k != NULL ? k->id : "");
    if (w.rpm > 0 && !take(&a->requests, (double)w.rpm, 1, l->d.seconds(), &v->retry_after_s))
        rc = LIMIT_REQUESTS;
    show(a, &w, v);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

/* What the key used today before this process knew of it. Read outside the lock, so that a slow
 * disk stops nobody. */
static void know_today(http_limits *l, const api_key *k)
{
    int64_t today = clock_unix_ms() / DAY_MS, used = 0;
    pthread_mutex_lock(&l->lock);
    account *a = find(l, k->id);
    bool known = a->day == today;
    pthread_mutex_unlock(&l->lock);
    if (known)
        return;
    if (l->s != NULL)
        keys_usage(l->s, k->id, today, &used, NULL);
    pthread_mutex_lock(&l->lock);
    if (a->day != today) {
        a->day = today;
        a->day_tokens = used;
    }
    pthread_mutex_unlock(&l->lock);
}

static http_limit reserve(account *a, const allowance *w, int64_t tokens, http_limit_view *v,
                          double now)
{
    if (w->daily > 0 && a->day_tokens + tokens > w->daily) {
        v->retry_after_s = (double)(DAY_MS - clock_unix_ms() % DAY_MS) / 1000;
        return LIMIT_DAILY;
    }
    if (w->parallel > 0 && a->parallel >= w->parallel) {
        v->retry_after_s = 1;
        return LIMIT_PARALLEL;
    }
    if (w->tpm > 0 && !take(&a->tokens, (double)w->tpm, (double)tokens, now, &v->retry_after_s))
        return LIMIT_TOKENS;
    a->parallel++;
    a->day_tokens += tokens;
    return LIMIT_NONE;
}

http_limit http_limits_reserve(http_limits *l, const api_key *k, int64_t tokens, http_limit_view *v)
{
    allowance w = allowed(l, k);
    if (w.daily > 0 && k != NULL)
        know_today(l, k);
    pthread_mutex_lock(&l->lock);
    account *a = find(l, k != NULL ? k->id : "");
    http_limit rc = reserve(a, &w, tokens, v, l->d.seconds());
    show(a, &w, v);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

void http_limits_settle(http_limits *l, const api_key *k, int64_t reserved, int64_t used)
{
    allowance w = allowed(l, k);
    pthread_mutex_lock(&l->lock);
    account *a = find(l, k != NULL ? k->id : "");
    a->parallel--;
    a->day_tokens += used - reserved;
    if (w.tpm > 0) {
        refill(&a->tokens, (double)w.tpm, l->d.seconds());
        a->tokens.left += (double)(reserved - used);
        if (a->tokens.left > (double)w.tpm)
            a->tokens.left = (double)w.tpm;
    }
    pthread_mutex_unlock(&l->lock);
}

/* ---- addresses ---- */

/* A fixed table: an attacker with many addresses displaces entries, but cannot make it grow. The
 * emptiest of a few places gives way. */
static address *place_of(http_limits *l, const char *ip, bool make)
{
    uint32_t h = hash_of(ip);
    address *worst = NULL;
    for (uint32_t i = 0; i < PROBES; i++) {
        address *a = &l->addresses[(h + i) % N_ADDRESSES];
        if (strcmp(a->ip, ip) == 0)
            return a;
        if (a->failures.used)
            refill(&a->failures, (double)l->d.auth_failures_per_minute, l->d.seconds());
        if (worst == NULL || (worst->failures.used &&
                              (!a->failures.used || a->failures.left > worst->failures.left)))
            worst = a;
    }
    if (!make)
        return NULL;
    *worst = (address){0};
    snprintf(worst->ip, sizeof worst->ip, "%s", ip);
    return worst;
}

bool http_limits_ip_ok(http_limits *l, const char *ip, double *retry_after_s)
{
    double cap = (double)l->d.auth_failures_per_minute;
    bool ok = true;
    pthread_mutex_lock(&l->lock);
    address *a = cap > 0 ? place_of(l, ip, false) : NULL;
    if (a != NULL) {
        refill(&a->failures, cap, l->d.seconds());
        ok = a->failures.left >= 1;
        *retry_after_s = ok ? 0 : (1 - a->failures.left) * 60 / cap;
    }
    pthread_mutex_unlock(&l->lock);
    return ok;
}

void http_limits_ip_failed(http_limits *l, const char *ip)
{
    double cap = (double)l->d.auth_failures_per_minute, wait;
    pthread_mutex_lock(&l->lock);
    if (cap > 0)
        take(&place_of(l, ip, true)->failures, cap, 1, l->d.seconds(), &wait);
    pthread_mutex_unlock(&l->lock);
}
