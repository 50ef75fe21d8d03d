#include "serve/store/keys.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/nearest.h"
#include "core/base/utf8.h"
#include "serve/store/audit_in.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HASH = 32, TOUCH_MS = 60000, MAKE_TRIES = 8 };
enum {
#define KEYS_OR(id, bit, name, what) SCOPE_##id |
    ALL_SCOPES = KEYS_SCOPES(KEYS_OR) 0
#undef KEYS_OR
};

static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";

/* ---- scopes and roles ---- */

typedef struct scope_row {
    keys_scope scope;
    const char *name;
} scope_row;

/* clang-format off */
static const scope_row scope_rows[] = {
#define KEYS_ROW(id, bit, name, what) {SCOPE_##id, name},
    KEYS_SCOPES(KEYS_ROW)
#undef KEYS_ROW
};

const keys_role keys_roles[] = {
    {"user",     SCOPE_INFER | SCOPE_MODELS_READ | SCOPE_FEEDBACK_WRITE, "use the model, rate it"},
    {"feedback", SCOPE_FEEDBACK_WRITE,                                   "only rate answers"},
    {"monitor",  SCOPE_METRICS_READ | SCOPE_MODELS_READ,                 "only read metrics"},
    {"admin",    ALL_SCOPES,                                             "everything"},
    {NULL, 0, NULL},
};
/* clang-format on */

enum { N_SCOPES = sizeof scope_rows / sizeof *scope_rows };

const keys_role *keys_role_find(const char *name)
{
    for (const keys_role *r = keys_roles; r->name != NULL; r++)
        if (strcmp(r->name, name) == 0)
            return r;
    return NULL;
}

const char *keys_scope_name(unsigned scope)
{
    for (int i = 0; i < N_SCOPES; i++)
        if ((unsigned)scope_rows[i].scope == scope)
            return scope_rows[i].name;
    return "none";
}

static int scope_parse(unsigned *out, const char *word, hone_err *e)
{
    const char *names[N_SCOPES + 1];
    for (int i = 0; i < N_SCOPES; i++) {
        if (strcmp(scope_rows[i].name, word) == 0) {
            *out |= (unsigned)scope_rows[i].scope;
            return 0;
        }
        names[i] = scope_rows[i].name;
    }
    names[N_SCOPES] = NULL;
    const char *near = nearest_name(word, names);
    char all[256];
    keys_scopes_text(ALL_SCOPES, all, sizeof all);
    return near != NULL
               ? hone_fail(e, HONE_EINVAL, "no scope '%.64s' (did you mean '%s'?)", word, near)
               : hone_fail(e, HONE_EINVAL, "no scope '%.64s'; there are %s", word, all);
}

int keys_scopes_parse(unsigned *out, const char *list, hone_err *e)
{
    char *copy = mem_strdup(list), *save = NULL;
    int rc = 0;
    *out = 0;
    for (char *w = strtok_r(copy, ", ", &save); w != NULL && rc == 0;
         w = strtok_r(NULL, ", ", &save))
        rc = scope_parse(out, w, e);
    free(copy);
    return rc;
}

void keys_scopes_text(unsigned scopes, char *dst, size_t cap)
{
    size_t n = 0;
    dst[0] = '\0';
    for (int i = 0; i < N_SCOPES; i++)
        if ((scopes & (unsigned)scope_rows[i].scope) != 0 && n < cap)
            n += (size_t)snprintf(dst + n, cap - n, "%s%s", n > 0 ? "," : "", scope_rows[i].name);
}

/* ---- the text of a key ---- */

static void check_of(char out[KEYS_CHECK + 1], const char *text, size_t len)
{
    unsigned char d[HASH];
    crypto_generichash(d, sizeof d, (const unsigned char *)text, len, NULL, 0);
    for (int i = 0; i < KEYS_CHECK; i++)
        out[i] = base32[d[i] & 31];
    out[KEYS_CHECK] = '\0';
}

static void random_id(char out[KEYS_ID + 1])
{
    unsigned char d[KEYS_ID];
    randombytes_buf(d, sizeof d);
    for (int i = 0; i < KEYS_ID; i++)
        out[i] = base32[d[i] & 31];
    out[KEYS_ID] = '\0';
}

/* A new secret in the text of a key, and the digest that is stored. */
static void new_secret(const store *s, const api_key *k, char text[KEYS_TEXT + 1],
                       unsigned char hash[HASH])
{
    unsigned char raw[32];
    char secret[KEYS_SECRET + 1];
    randombytes_buf(raw, sizeof raw);
    sodium_bin2base64(secret, sizeof secret, raw, sizeof raw,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    int n = snprintf(text, KEYS_TEXT + 1, "hk_%s_%s_%s", k->env, k->id, secret);
    check_of(text + n, text, (size_t)n);
    store_digest(s, STORE_KEYS, secret, KEYS_SECRET, hash);
    sodium_memzero(raw, sizeof raw);
    sodium_memzero(secret, sizeof secret);
}

typedef struct parsed {
    char id[KEYS_ID + 1], secret[KEYS_SECRET + 1];
} parsed;

static bool all_of(const char *s, size_t n, const char *set)
{
    return strspn(s, set) >= n;
}

/* The secret may hold '_', so the parts are counted from the ends. */
static bool parse_text(const char *text, parsed *out)
{
    enum { TAIL = 1 + KEYS_ID + 1 + KEYS_SECRET + KEYS_CHECK };
    size_t n = strlen(text);
    if (n > KEYS_TEXT || n < 3 + 1 + TAIL || strncmp(text, "hk_", 3) != 0)
        return false;
    const char *tail = text + n - TAIL;
    const char *secret = tail + 1 + KEYS_ID + 1;
    char check[KEYS_CHECK + 1];
    check_of(check, text, n - KEYS_CHECK);
    if (!all_of(text + 3, (size_t)(tail - text) - 3, "abcdefghijklmnopqrstuvwxyz0123456789") ||
        tail[0] != '_' || !all_of(tail + 1, KEYS_ID, base32) || secret[-1] != '_' ||
        strcmp(check, text + n - KEYS_CHECK) != 0)
        return false;
    snprintf(out->id, sizeof out->id, "%.*s", KEYS_ID, tail + 1);
    snprintf(out->secret, sizeof out->secret, "%.*s", KEYS_SECRET, secret);
    return true;
}

/* ---- rows ---- */

#define KEY_COLUMNS                                                                                \
    "id, env, name, owner, role, models_allow, scopes, rpm, tpm, max_parallel, daily_tokens,"      \
    " created_at, expires_at, last_used_at, revoked_at, prev_expires_at, hash, hash_prev"

static void read_key(sqlite3_stmt *st, api_key *k)
{
    *k = (api_key){0};
    sql_copy(k->id, sizeof k->id, st, 0);
    sql_copy(k->env, sizeof k->env, st, 1);
    sql_copy(k->name, sizeof k->name, st, 2);
    sql_copy(k->owner, sizeof k->owner, st, 3);
    sql_copy(k->role, sizeof k->role, st, 4);
    sql_copy(k->models_allow, sizeof k->models_allow, st, 5);
    k->scopes = (unsigned)sqlite3_column_int64(st, 6);
    int64_t *const numbers[] = {&k->rpm,          &k->tpm,        &k->max_parallel,
                                &k->daily_tokens, &k->created_ms, &k->expires_ms,
                                &k->last_used_ms, &k->revoked_ms, &k->prev_expires_ms};
    for (int i = 0; i < 9; i++)
        *numbers[i] = sqlite3_column_int64(st, 7 + i);
}

static int not_found(const char *id, hone_err *e)
{
    return hone_fail(e, HONE_ENOTFOUND, "no key '%.32s'; 'hone key list' shows them", id);
}

/* "hk_live_abcdefgh" and "abcdefgh" both name a key. */
static const char *bare_id(const char *id)
{
    const char *last = strrchr(id, '_');
    return strncmp(id, "hk_", 3) == 0 && last != NULL ? last + 1 : id;
}

static int get_in(sqlite3 *db, const char *id, api_key *out, hone_err *e)
{
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e, "SELECT " KEY_COLUMNS " FROM keys WHERE id = ?", "s", id);
    if (rc == 0)
        rc = sql_step(st, e);
    if (rc > 0) {
        read_key(st, out);
        rc = 0;
    } else if (rc == 0) {
        rc = not_found(id, e);
    }
    sqlite3_finalize(st);
    return rc;
}

/* ---- making and unmaking ---- */

/* What the jobs of this file work on. */
typedef struct work {
    store *s;
    api_key k;
    const char *id, *actor;
    char *text;
    int64_t grace_ms;
    unsigned char hash[HASH];
    json_t *record;
} work;

static int note(sqlite3 *db, work *w, const char *action, hone_err *e)
{
    char scopes[256];
    keys_scopes_text(w->k.scopes, scopes, sizeof scopes);
    json_t *detail =
        json_pack("{s:s, s:s, s:s}", "name", w->k.name, "role", w->k.role, "scopes", scopes);
    json_decref(w->record);
    w->record = audit_record(
        &(audit_event){.action = action, .actor = w->actor, .target = w->k.id, .detail = detail});
    json_decref(detail);
    return audit_add(db, w->s, w->record, e);
}

/* Runs fn as a durable write; afterwards the audit record is told or dropped. */
static int commit(work *w, store_fn *fn, hone_err *e)
{
    int rc = store_write(w->s, fn, w, e);
    if (rc == 0)
        audit_tell(w->s, w->record);
    else
        json_decref(w->record);
    return rc;
}

/* Names are shown in lists, logs and JSON. */
static bool printable(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return false;
    return utf8_valid(s, n) == n;
}

static int check_want(const store *s, const api_key *k, hone_err *e)
{
    if (!printable(k->name) || !printable(k->owner) || !printable(k->models_allow))
        return hone_fail(e, HONE_EINVAL,
                         "a key's name, owner or models: control characters or "
                         "bytes that are not UTF-8");
    if (k->name[0] == '\0')
        return hone_fail(e, HONE_EINVAL, "a key needs a name");
    if (k->scopes == 0)
        return hone_fail(e, HONE_EINVAL, "key '%s': no scope and no role, so it could do nothing",
                         k->name);
    if (!all_of(k->env, strlen(k->env), "abcdefghijklmnopqrstuvwxyz0123456789"))
        return hone_fail(e, HONE_EINVAL, "key '%s': environment '%s' has more than a-z and 0-9",
                         k->name, k->env);
    if (k->rpm < 0 || k->tpm < 0 || k->max_parallel < 0 || k->daily_tokens < 0)
        return hone_fail(e, HONE_EINVAL, "key '%s': a limit below zero", k->name);
    if (k->expires_ms != 0 && k->expires_ms <= store_now_ms(s))
        return hone_fail(e, HONE_EINVAL, "key '%s': the expiry lies in the past", k->name);
    return 0;
}

static int create_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    api_key *k = &w->k;
    int rc = HONE_EEXIST;
    for (int i = 0; i < MAKE_TRIES && rc == HONE_EEXIST; i++) {
        random_id(k->id);
        new_secret(w->s, k, w->text, w->hash);
        rc = sql_run(db, e,
                     "INSERT INTO keys(id, env, name, owner, role, hash, scopes, models_allow, rpm,"
                     " tpm, max_parallel, daily_tokens, created_at, created_by, expires_at)"
                     " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                     "sssssbisiiiiisz", k->id, k->env, k->name, k->owner, k->role,
                     (const void *)w->hash, (size_t)HASH, (int64_t)k->scopes, k->models_allow,
                     k->rpm, k->tpm, k->max_parallel, k->daily_tokens, k->created_ms, w->actor,
                     k->expires_ms);
    }
    return rc == 0 ? note(db, w, "key.create", e) : rc;
}

int keys_create(store *s, const api_key *want, const char *actor, api_key *made,
                char text[KEYS_TEXT + 1], hone_err *e)
{
    work w = {.s = s, .k = *want, .actor = actor, .text = text};
    if (w.k.env[0] == '\0')
        snprintf(w.k.env, sizeof w.k.env, "live");
    w.k.created_ms = store_now_ms(s);
    w.k.revoked_ms = w.k.last_used_ms = w.k.prev_expires_ms = 0;
    int rc = check_want(s, &w.k, e);
    if (rc == 0)
        rc = commit(&w, create_run, e);
    if (rc != 0) {
        sodium_memzero(text, KEYS_TEXT + 1);
        return rc;
    }
    *made = w.k;
    return 0;
}

static int rotate_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    int rc = get_in(db, w->id, &w->k, e);
    if (rc != 0)
        return rc;
    if (w->k.revoked_ms != 0)
        return hone_fail(e, HONE_EDENIED, "key '%s' is revoked; make a new one", w->k.id);
    new_secret(w->s, &w->k, w->text, w->hash);
    w->k.prev_expires_ms = w->grace_ms > 0 ? store_now_ms(w->s) + w->grace_ms : 0;
    rc = sql_run(db, e,
                 "UPDATE keys SET hash_prev = CASE WHEN ?1 IS NULL THEN NULL ELSE hash END,"
                 " prev_expires_at = ?1, hash = ?2 WHERE id = ?3",
                 "zbs", w->k.prev_expires_ms, (const void *)w->hash, (size_t)HASH, w->k.id);
    return rc == 0 ? note(db, w, "key.rotate", e) : rc;
}

int keys_rotate(store *s, const char *id, int64_t grace_ms, const char *actor, api_key *made,
                char text[KEYS_TEXT + 1], hone_err *e)
{
    work w = {.s = s, .id = bare_id(id), .actor = actor, .text = text, .grace_ms = grace_ms};
    int rc = commit(&w, rotate_run, e);
    if (rc != 0)
        sodium_memzero(text, KEYS_TEXT + 1);
    else
        *made = w.k;
    return rc;
}

static int rescope_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    unsigned scopes = w->k.scopes;
    char role[sizeof w->k.role];
    memcpy(role, w->k.role, sizeof role);
    int rc = get_in(db, w->id, &w->k, e);
    if (rc != 0)
        return rc;
    if (w->k.revoked_ms != 0)
        return hone_fail(e, HONE_EDENIED, "key '%s' is revoked; make a new one", w->k.id);
    w->k.scopes = scopes;
    memcpy(w->k.role, role, sizeof role);
    rc = sql_run(db, e, "UPDATE keys SET scopes = ?, role = ? WHERE id = ?", "iss", (int64_t)scopes,
                 role, w->k.id);
    return rc == 0 ? note(db, w, "key.scope", e) : rc;
}

int keys_rescope(store *s, const char *id, unsigned scopes, const char *role, const char *actor,
                 hone_err *e)
{
    work w = {.s = s, .id = bare_id(id), .actor = actor};
    if (scopes == 0)
        return hone_fail(e, HONE_EINVAL, "key '%.16s': no scope, so it could do nothing", w.id);
    w.k.scopes = scopes;
    snprintf(w.k.role, sizeof w.k.role, "%s", role);
    return commit(&w, rescope_run, e);
}

static int revoke_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    int rc = get_in(db, w->id, &w->k, e);
    if (rc != 0)
        return rc;
    if (w->k.revoked_ms != 0)
        return hone_fail(e, HONE_EEXIST, "key '%s' was revoked before", w->k.id);
    rc = sql_run(db, e,
                 "UPDATE keys SET revoked_at = ?, hash_prev = NULL, prev_expires_at = NULL"
                 " WHERE id = ?",
                 "is", store_now_ms(w->s), w->k.id);
    return rc == 0 ? note(db, w, "key.revoke", e) : rc;
}

int keys_revoke(store *s, const char *id, const char *actor, hone_err *e)
{
    work w = {.s = s, .id = bare_id(id), .actor = actor};
    return commit(&w, revoke_run, e);
}

/* ---- reading ---- */

typedef struct lookup {
    const store *s;
    const char *id;
    api_key *out;
    keys_fn *fn;
    void *user;
    int64_t n, day;
    unsigned char hash[HASH], prev[HASH];
    bool found, has_prev;
} lookup;

static int get_run(sqlite3 *db, void *user, hone_err *e)
{
    lookup *l = user;
    return get_in(db, l->id, l->out, e);
}

int keys_get(store *s, const char *id, api_key *out, hone_err *e)
{
    lookup l = {.id = bare_id(id), .out = out};
    return store_read(s, get_run, &l, e);
}

static int each_run(sqlite3 *db, void *user, hone_err *e)
{
    lookup *l = user;
    sqlite3_stmt *st;
    api_key k;
    int rc =
        sql_prepare(&st, db, e, "SELECT " KEY_COLUMNS " FROM keys ORDER BY created_at, id", "");
    while (rc == 0 && (rc = sql_step(st, e)) > 0) {
        read_key(st, &k);
        rc = l->fn(l->user, &k, e);
    }
    sqlite3_finalize(st);
    return rc;
}

int keys_each(store *s, keys_fn *fn, void *user, hone_err *e)
{
    lookup l = {.fn = fn, .user = user};
    return store_read(s, each_run, &l, e);
}

static int active_run(sqlite3 *db, void *user, hone_err *e)
{
    lookup *l = user;
    return sql_int(&l->n, db, e,
                   "SELECT count(*) FROM keys WHERE revoked_at IS NULL"
                   " AND (expires_at IS NULL OR expires_at > ?)",
                   "i", store_now_ms(l->s));
}

int keys_active(store *s, int64_t *n, hone_err *e)
{
    lookup l = {.s = s};
    int rc = store_read(s, active_run, &l, e);
    *n = l.n;
    return rc;
}

static int count_run(sqlite3 *db, void *user, hone_err *e)
{
    return sql_int(user, db, e, "SELECT count(*) FROM keys", "");
}

int keys_count(store *s, int64_t *n, hone_err *e)
{
    return store_read(s, count_run, n, e);
}

static int usage_run(sqlite3 *db, void *user, hone_err *e)
{
    lookup *l = user;
    return sql_int(&l->n, db, e,
                   "SELECT coalesce(sum(tok_in + tok_out), 0) FROM usage"
                   " WHERE key_id = ? AND day = ?",
                   "si", l->id, l->day);
}

int keys_usage(store *s, const char *id, int64_t day, int64_t *tokens, hone_err *e)
{
    lookup l = {.id = id, .day = day};
    int rc = store_read(s, usage_run, &l, e);
    *tokens = l.n;
    return rc;
}

bool keys_allows_model(const api_key *k, const char *model)
{
    size_t n = strlen(model);
    if (k->models_allow[0] == '\0')
        return true;
    for (const char *s = k->models_allow; *s != '\0';) {
        size_t len = strcspn(s, ", ");
        if (len == n && memcmp(s, model, n) == 0)
            return true;
        s += len + strspn(s + len, ", ");
    }
    return false;
}

/* ---- checking ---- */

static void copy_hash(unsigned char dst[HASH], sqlite3_stmt *st, int col)
{
    if (sqlite3_column_bytes(st, col) == HASH)
        memcpy(dst, sqlite3_column_blob(st, col), HASH);
}

static int find_run(sqlite3 *db, void *user, hone_err *e)
{
    lookup *l = user;
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e, "SELECT " KEY_COLUMNS " FROM keys WHERE id = ?", "s", l->id);
    if (rc == 0)
        rc = sql_step(st, e);
    if (rc > 0) {
        l->found = true;
        read_key(st, l->out);
        copy_hash(l->hash, st, 16);
        copy_hash(l->prev, st, 17);
        l->has_prev = sqlite3_column_type(st, 17) == SQLITE_BLOB;
        rc = 0;
    }
    sqlite3_finalize(st);
    return rc;
}

/* Both digests are compared whether or not the id is known and the first one fits: an unknown id
 * costs what a wrong secret costs. */
static keys_verdict judge(const lookup *l, const unsigned char got[HASH])
{
    int64_t now = store_now_ms(l->s);
    bool now_fits = sodium_memcmp(got, l->hash, HASH) == 0;
    bool prev_fits = sodium_memcmp(got, l->prev, HASH) == 0;
    bool in_grace = l->has_prev && l->out->prev_expires_ms > now;
    if (!l->found || !(now_fits || (prev_fits && in_grace)))
        return KEYS_UNKNOWN;
    if (l->out->revoked_ms != 0)
        return KEYS_REVOKED;
    if (l->out->expires_ms != 0 && l->out->expires_ms <= now)
        return KEYS_EXPIRED;
    return KEYS_OK;
}

int keys_check(store *s, const char *text, keys_verdict *v, api_key *out, hone_err *e)
{
    parsed p;
    unsigned char got[HASH];
    *out = (api_key){0};
    *v = KEYS_MALFORMED;
    if (!parse_text(text, &p))
        return 0;
    lookup l = {.s = s, .id = p.id, .out = out};
    randombytes_buf(l.hash, HASH); /* what an unknown id is compared with */
    randombytes_buf(l.prev, HASH);
    store_digest(s, STORE_KEYS, p.secret, KEYS_SECRET, got);
    int rc = store_read(s, find_run, &l, e);
    if (rc == 0)
        *v = judge(&l, got);
    sodium_memzero(&p, sizeof p);
    sodium_memzero(got, sizeof got);
    return rc;
}

const char *keys_verdict_name(keys_verdict v)
{
    static const char *const names[] = {"ok", "malformed", "unknown", "expired", "revoked"};
    return names[v];
}

typedef struct touch {
    char id[KEYS_ID + 1];
    int64_t now_ms;
} touch;

static int touch_run(sqlite3 *db, void *user, hone_err *e)
{
    const touch *t = user;
    return sql_run(db, e, "UPDATE keys SET last_used_at = ? WHERE id = ?", "is", t->now_ms, t->id);
}

static void touch_done(void *user, int rc, const hone_err *e)
{
    (void)rc;
    (void)e;
    free(user);
}

void keys_touch(store *s, const api_key *k)
{
    int64_t now = store_now_ms(s);
    if (now - k->last_used_ms < TOUCH_MS)
        return;
    touch *t = mem_alloc(sizeof *t);
    memcpy(t->id, k->id, sizeof t->id);
    t->now_ms = now;
    if (store_post(s, touch_run, touch_done, t) != 0)
        free(t);
}
