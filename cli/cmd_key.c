/* hone key: makes, lists, rotates and revokes API keys. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/state.h"
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "serve/store/keys.h"

#include <errno.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    state_args at;
    const char *name, *owner, *role, *scopes, *models, *env, *expires, *grace;
    const char *rpm, *tpm, *parallel, *daily;
} options;

/* clang-format off */
static const args_row rows[] = {
    STATE_ARGS(options, at),
    {"name",         offsetof(options, name),     ARGS_TEXT},
    {"owner",        offsetof(options, owner),    ARGS_TEXT},
    {"role",         offsetof(options, role),     ARGS_TEXT},
    {"scopes",       offsetof(options, scopes),   ARGS_TEXT},
    {"models",       offsetof(options, models),   ARGS_TEXT},
    {"env",          offsetof(options, env),      ARGS_TEXT},
    {"expires",      offsetof(options, expires),  ARGS_TEXT},
    {"grace",        offsetof(options, grace),    ARGS_TEXT},
    {"rpm",          offsetof(options, rpm),      ARGS_TEXT},
    {"tpm",          offsetof(options, tpm),      ARGS_TEXT},
    {"max-parallel", offsetof(options, parallel), ARGS_TEXT},
    {"daily-tokens", offsetof(options, daily),    ARGS_TEXT},
    {NULL, 0, ARGS_TEXT},
};
/* clang-format on */

/* ---- values ---- */

static int copy_text(char *dst, size_t cap, const char *text, const char *what, hone_err *e)
{
    if (text == NULL)
        return 0;
    if (strlen(text) >= cap)
        return hone_fail(e, HONE_ELIMIT, "--%s: %zu bytes, at most %zu", what, strlen(text),
                         cap - 1);
    memcpy(dst, text, strlen(text) + 1);
    return 0;
}

static int take_limit(int64_t *out, const char *text, const char *what, hone_err *e)
{
    char *end;
    if (text == NULL)
        return 0;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (*text == '\0' || *end != '\0' || errno != 0 || *out < 1)
        return hone_fail(e, HONE_EINVAL, "--%s: '%.40s' is not a whole number above 0", what, text);
    return 0;
}

/* "90s", "15m", "24h", "30d", "2w" in ms. */
static int take_duration(int64_t *ms, const char *text, const char *what, hone_err *e)
{
    static const char units[] = "smhdw";
    static const int64_t seconds[] = {1, 60, 3600, 86400, 604800};
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
    if (end == text || unit == NULL || end[1] != '\0' || errno != 0 || n < 0 || n > 100000)
        return hone_fail(e, HONE_EINVAL, "--%s: '%.40s' is not a time such as 90s, 24h or 30d",
                         what, text);
    *ms = (int64_t)n * seconds[unit - units] * 1000;
    return 0;
}

static int take_scopes(api_key *k, const options *o, hone_err *e)
{
    const char *role = o->role != NULL ? o->role : o->scopes == NULL ? "user" : NULL;
    if (o->scopes != NULL && o->role != NULL)
        return hone_fail(e, HONE_EINVAL, "--role and --scopes exclude each other");
    if (role == NULL)
        return keys_scopes_parse(&k->scopes, o->scopes, e);
    const keys_role *r = keys_role_find(role);
    if (r == NULL)
        return hone_fail(e, HONE_EINVAL,
                         "no role '%.32s'; there are user, feedback, monitor, admin", role);
    k->scopes = r->scopes;
    return copy_text(k->role, sizeof k->role, r->name, "role", e);
}

static int take_key(api_key *k, const options *o, hone_err *e)
{
    int64_t ms = 0;
    int rc = copy_text(k->name, sizeof k->name, o->name, "name", e);
    if (rc == 0)
        rc = copy_text(k->owner, sizeof k->owner, o->owner, "owner", e);
    if (rc == 0)
        rc = copy_text(k->models_allow, sizeof k->models_allow, o->models, "models", e);
    if (rc == 0)
        rc = copy_text(k->env, sizeof k->env, o->env, "env", e);
    if (rc == 0)
        rc = take_scopes(k, o, e);
    if (rc == 0)
        rc = take_limit(&k->rpm, o->rpm, "rpm", e);
    if (rc == 0)
        rc = take_limit(&k->tpm, o->tpm, "tpm", e);
    if (rc == 0)
        rc = take_limit(&k->max_parallel, o->parallel, "max-parallel", e);
    if (rc == 0)
        rc = take_limit(&k->daily_tokens, o->daily, "daily-tokens", e);
    if (rc == 0 && o->expires != NULL)
        rc = take_duration(&ms, o->expires, "expires", e);
    if (rc == 0 && o->expires != NULL)
        k->expires_ms = clock_unix_ms() + ms;
    return rc;
}

/* ---- showing ---- */

static void set_time(json_t *o, const char *name, int64_t ms)
{
    char text[32];
    clock_iso8601(text, sizeof text, ms);
    json_object_set_new(o, name, ms == 0 ? json_null() : json_string(text));
}

static json_t *key_json(const api_key *k)
{
    char scopes[256];
    keys_scopes_text(k->scopes, scopes, sizeof scopes);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "id", k->id,
                          "env", k->env, "name", k->name, "owner", k->owner, "role", k->role,
                          "scopes", scopes, "models", k->models_allow, "rpm", (json_int_t)k->rpm,
                          "tpm", (json_int_t)k->tpm, "max_parallel", (json_int_t)k->max_parallel,
                          "daily_tokens", (json_int_t)k->daily_tokens);
    set_time(o, "created_at", k->created_ms);
    set_time(o, "expires_at", k->expires_ms);
    set_time(o, "last_used_at", k->last_used_ms);
    set_time(o, "revoked_at", k->revoked_ms);
    return o;
}

static int print_key(json_t *o, hone_err *e)
{
    int rc = state_print(o, e);
    json_decref(o);
    return rc;
}

/* The one time that the whole key is seen: alone on standard output, so that a script can take it.
 */
static int show_new(const api_key *k, char *text, bool json, hone_err *e)
{
    int rc = 0;
    if (json) {
        json_t *o = key_json(k);
        json_object_set_new(o, "key", json_string(text));
        rc = print_key(o, e);
    } else {
        char scopes[256];
        keys_scopes_text(k->scopes, scopes, sizeof scopes);
        fprintf(stderr, "key %s (%s) for %s; it is shown only now:\n", k->id, k->name, scopes);
        puts(text);
    }
    sodium_memzero(text, KEYS_TEXT);
    return rc;
}

static const char *standing(const api_key *k)
{
    if (k->revoked_ms != 0)
        return "revoked";
    return k->expires_ms != 0 && k->expires_ms <= clock_unix_ms() ? "expired" : "active";
}

static int print_row(void *user, const api_key *k, hone_err *e)
{
    char scopes[256], used[32] = "never";
    if (*(const bool *)user)
        return print_key(key_json(k), e);
    keys_scopes_text(k->scopes, scopes, sizeof scopes);
    if (k->last_used_ms != 0)
        clock_iso8601(used, sizeof used, k->last_used_ms);
    printf("%-10s %-20.20s %-8s %-8s %-26s %s\n", k->id, k->name, k->role, standing(k), used,
           scopes);
    return 0;
}

/* ---- the verbs ---- */

static int do_create(const state_call *c, hone_err *e)
{
    api_key want = {0}, made;
    char text[KEYS_TEXT + 1];
    int rc = take_key(&want, c->options, e);
    if (rc == 0)
        rc = keys_create(c->st, &want, c->actor, &made, text, e);
    return rc == 0 ? show_new(&made, text, c->args->json, e) : rc;
}

static int do_list(const state_call *c, hone_err *e)
{
    if (!c->args->json)
        printf("%-10s %-20s %-8s %-8s %-26s %s\n", "ID", "NAME", "ROLE", "STATE", "LAST USED",
               "SCOPES");
    return keys_each(c->st, print_row, (void *)&c->args->json, e);
}

static int do_rotate(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    api_key made;
    char text[KEYS_TEXT + 1];
    int64_t grace = 0;
    int rc = o->grace != NULL ? take_duration(&grace, o->grace, "grace", e) : 0;
    if (rc == 0)
        rc = keys_rotate(c->st, c->word[0], grace, c->actor, &made, text, e);
    return rc == 0 ? show_new(&made, text, c->args->json, e) : rc;
}

static int do_scope(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    api_key k = {0};
    if (o->role == NULL && o->scopes == NULL)
        return hone_fail(e, HONE_EINVAL, "say --role NAME or --scopes A,B");
    int rc = take_scopes(&k, o, e);
    if (rc == 0)
        rc = keys_rescope(c->st, c->word[0], k.scopes, k.role, c->actor, e);
    if (rc == 0) {
        char scopes[256];
        keys_scopes_text(k.scopes, scopes, sizeof scopes);
        fprintf(stderr, "key %s may now: %s\n", c->word[0], scopes);
    }
    return rc;
}

static int do_revoke(const state_call *c, hone_err *e)
{
    int rc = keys_revoke(c->st, c->word[0], c->actor, e);
    if (rc == 0)
        fprintf(stderr, "key %s is revoked\n", c->word[0]);
    return rc;
}

/* clang-format off */
static const state_verb verbs[] = {
    {"create", do_create, 0, 0, NULL,              true},
    {"list",   do_list,   0, 0, NULL,              false},
    {"rotate", do_rotate, 1, 1, "the id of a key", false},
    {"scope",  do_scope,  1, 1, "the id of a key", false},
    {"revoke", do_revoke, 1, 1, "the id of a key", false},
    {NULL, NULL, 0, 0, NULL, false},
};
/* clang-format on */

static int run(int argc, char **argv)
{
    options o = {0};
    return state_run(&cmd_key, verbs, rows, &o, &o.at, argc, argv);
}

const cmd cmd_key = {
    "key", run, "make, list, rotate and revoke API keys",
    "usage: hone key create --name NAME [--role user|feedback|monitor|admin | --scopes A,B]\n"
    "                       [--models A,B] [--rpm N] [--tpm N] [--max-parallel N]\n"
    "                       [--daily-tokens N] [--expires 30d] [--owner WHO] [--env live]\n"
    "       hone key list\n"
    "       hone key rotate ID [--grace 24h]\n"
    "       hone key scope ID --role ROLE | --scopes A,B\n"
    "       hone key revoke ID\n\n" STATE_HELP "\n"
    "Scopes: infer, models:read, feedback:write, feedback:read, train, adapters:write,\n"
    "keys:admin, metrics:read, erase. The key is printed once, on standard output; only a keyed "
    "hash\n"
    "of it is stored. After a rotation the old secret works until the grace time is over.\n\n"
    "example: hone key create --name website --role user --rpm 60 --expires 90d"};
