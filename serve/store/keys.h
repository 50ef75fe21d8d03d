#pragma once
/* API keys: hk_<env>_<id>_<secret><check>.
 *
 *   env     1 to 16 of a-z 0-9, by default "live"
 *   id      8 of a-z 2-7; public: it is what lists, logs and limits speak of
 *   secret  43 characters of base64url: 32 random bytes; shown once, never stored
 *   check   6 of a-z 2-7 over everything before it, so that scanners recognise a leaked key
 *
 * The database keeps BLAKE2b-256 of the secret, keyed with the pepper. A 256-bit random secret
 * needs no slow hash, and a stolen database is of no use without the pepper. */
#include "serve/store/store.h"

/* X(id, bit, name, what) */
#define KEYS_SCOPES(X)                                                                             \
    X(INFER, 0, "infer", "chat, completions, tokenize")                                            \
    X(MODELS_READ, 1, "models:read", "list models")                                                \
    X(FEEDBACK_WRITE, 2, "feedback:write", "rate and correct answers")                             \
    X(FEEDBACK_READ, 3, "feedback:read", "list, export and review feedback")                       \
    X(TRAIN, 4, "train", "start a retraining")                                                     \
    X(ADAPTERS_WRITE, 5, "adapters:write", "change what is served")                                \
    X(KEYS_ADMIN, 6, "keys:admin", "make and revoke keys")                                         \
    X(METRICS_READ, 7, "metrics:read", "read metrics")                                             \
    X(ERASE, 8, "erase", "erase what a user or a key has left")

typedef enum {
#define KEYS_ENUM(id, bit, name, what) SCOPE_##id = 1 << (bit),
    KEYS_SCOPES(KEYS_ENUM)
#undef KEYS_ENUM
        SCOPE_NONE = 0
} keys_scope;

enum {
    KEYS_ID = 8,
    KEYS_SECRET = 43,
    KEYS_CHECK = 6,
    KEYS_ENV = 16,
    KEYS_TEXT = 3 + KEYS_ENV + 1 + KEYS_ID + 1 + KEYS_SECRET + KEYS_CHECK, /* longest api_key */
    KEYS_NAME = 128,
    KEYS_MODELS = 512,
    KEYS_PRESENTED = 256 /* what a client may present; longer is refused unread */
};

/* Plain data. Times in ms since 1970; 0: none. Limits: 0 is no limit. */
typedef struct api_key {
    char id[KEYS_ID + 1], env[KEYS_ENV + 1];
    char name[KEYS_NAME + 1], owner[KEYS_NAME + 1], role[KEYS_ENV + 1];
    char models_allow[KEYS_MODELS + 1]; /* names parted by commas; "": all */
    unsigned scopes;
    int64_t rpm, tpm, max_parallel, daily_tokens;
    int64_t created_ms, expires_ms, last_used_ms, revoked_ms, prev_expires_ms;
} api_key;

/* "infer,feedback:write" to bits; EINVAL names an unknown scope. */
int keys_scopes_parse(unsigned *out, const char *list, hone_err *e);
/* The names parted by commas; cap at least 256. */
void keys_scopes_text(unsigned scopes, char *dst, size_t cap);
const char *keys_scope_name(unsigned scope); /* of one scope */

/* Roles are presets of scopes; the key keeps the scopes. Ends with a NULL name. */
typedef struct keys_role {
    const char *name;
    unsigned scopes;
    const char *what;
} keys_role;
extern const keys_role keys_roles[];
const keys_role *keys_role_find(const char *name); /* NULL when there is none */

/* Makes a key from want's env ("" is "live"), name, owner, role, scopes, models, limits and
 * expires_ms. `text` is the whole key, to be shown once. EINVAL for a bad field, an expiry in the
 * past, or no scope at all. */
int keys_create(store *s, const api_key *want, const char *actor, api_key *made,
                char text[KEYS_TEXT + 1], hone_err *e);

/* A new secret for the same id; the old one goes on working for grace_ms. ENOTFOUND; EDENIED when
 * it is revoked. */
int keys_rotate(store *s, const char *id, int64_t grace_ms, const char *actor, api_key *made,
                char text[KEYS_TEXT + 1], hone_err *e);

/* Other scopes (and the name of their role, or ""), at once, in every process. ENOTFOUND; EDENIED
 * when it is revoked; EINVAL for no scope at all. */
int keys_rescope(store *s, const char *id, unsigned scopes, const char *role, const char *actor,
                 hone_err *e);

/* For good, at once, in every process. ENOTFOUND; EEXIST when it was revoked before. */
int keys_revoke(store *s, const char *id, const char *actor, hone_err *e);

/* In order of creation. A negative return of fn ends it and is returned. */
typedef int keys_fn(void *user, const api_key *k, hone_err *e);
int keys_each(store *s, keys_fn *fn, void *user, hone_err *e);
int keys_get(store *s, const char *id, api_key *out, hone_err *e);

/* Keys that are neither revoked nor expired. */
int keys_active(store *s, int64_t *n, hone_err *e);
/* Keys that were ever made. */
int keys_count(store *s, int64_t *n, hone_err *e);

typedef enum {
    KEYS_OK,
    KEYS_MALFORMED, /* not of the form above, or the check does not fit */
    KEYS_UNKNOWN,   /* no such id, or another secret; the two take the same time */
    KEYS_EXPIRED,
    KEYS_REVOKED
} keys_verdict;
const char *keys_verdict_name(keys_verdict v); /* for metrics and the audit log */

/* Is this text a key? 0 when that could be found out: *v is the verdict and *out the key (for every
 * verdict after UNKNOWN). Negative when the database cannot be read. */
int keys_check(store *s, const char *text, keys_verdict *v, api_key *out, hone_err *e);

/* Notes that the key was used; written at most once a minute a key. */
void keys_touch(store *s, const api_key *k);

/* Does the key allow this model? */
bool keys_allows_model(const api_key *k, const char *model);

/* Tokens of a key on a day (days since 1970, UTC), for its daily budget. */
int keys_usage(store *s, const char *id, int64_t day, int64_t *tokens, hone_err *e);
