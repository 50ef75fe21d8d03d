/* hone registry: what has been made, what is live, who signed it, and moving it. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/state.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "serve/loop/erase.h"
#include "serve/loop/live.h"
#include "serve/loop/verify.h"
#include "serve/store/audit.h"
#include "serve/store/registry.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>

typedef struct options {
    state_args at;
    const char *reason, *to, *base;
} options;

/* clang-format off */
static const args_row rows[] = {
    STATE_ARGS(options, at),
    {"reason", offsetof(options, reason), ARGS_TEXT},
    {"to",     offsetof(options, to),     ARGS_TEXT},
    {"base",   offsetof(options, base),   ARGS_TEXT},
    {NULL, 0, ARGS_TEXT},
};
/* clang-format on */

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "-";
}

static void print_time(const json_t *o, const char *key)
{
    char t[40] = "-";
    json_t *v = json_object_get(o, key);
    if (json_is_integer(v))
        clock_iso8601(t, sizeof t, json_integer_value(v));
    printf("%-25s ", t);
}

static int do_list(const state_call *c, hone_err *e)
{
    json_t *all, *row;
    size_t i;
    int rc = registry_list(c->st, &all, e);
    if (rc != 0)
        return rc;
    if (c->args->json) {
        cmd_print(all);
    } else {
        json_array_foreach (json_object_get(all, "aliases"), i, row) {
            printf("%-10s -> %.12s  by %s: %s\n", text(row, "name"), text(row, "digest"),
                   text(row, "by"), text(row, "reason"));
        }
        json_array_foreach (json_object_get(all, "artefacts"), i, row) {
            print_time(row, "created_at");
            printf("%-8s %.12s  %s%s%s\n", text(row, "kind"), text(row, "digest"),
                   text(row, "path"),
                   json_is_string(json_object_get(row, "tainted")) ? "  tainted by " : "",
                   json_is_string(json_object_get(row, "tainted")) ? text(row, "tainted") : "");
        }
        json_array_foreach (json_object_get(all, "runs"), i, row) {
            print_time(row, "started_at");
            printf("%-8s %-28s %s\n", text(row, "kind"), text(row, "id"), text(row, "status"));
        }
    }
    json_decref(all);
    return 0;
}

/* By its digest, or what is live. */
static int find(registry_artefact *a, const state_call *c, hone_err *e)
{
    return c->n_words > 0 ? registry_find(c->st, c->word[0], a, e)
                          : registry_alias(c->st, "live", a, e);
}

static int do_show(const state_call *c, hone_err *e)
{
    registry_artefact a;
    int rc = find(&a, c, e);
    if (rc != 0)
        return rc;
    json_t *history = NULL;
    rc = registry_history(c->st, "live", &history, e);
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:I, s:O?, s:o?}", "digest", a.digest, "kind",
                  a.kind, "path", a.path, "base", a.base, "run", a.run_id, "created_ms",
                  (json_int_t)a.created_ms, "manifest", a.manifest, "live_history", history);
    cmd_print(o);
    json_decref(o);
    registry_artefact_free(&a);
    return rc;
}

/* ---- signatures ---- */

static int verify_one(const state_call *c, const char *digest, const sign_trust *t, hone_err *e)
{
    registry_artefact a;
    verify_report v;
    int rc = registry_find(c->st, digest, &a, e);
    if (rc == 0)
        rc = verify_artefact(&v, &a, t, e);
    if (rc == HONE_ENOTFOUND && a.tainted && !file_exists(a.path)) {
        printf("%.12s  deleted by an erasure\n", a.digest);
        rc = 0;
    } else if (rc == 0) {
        printf("%.12s  ok, %s%.16s\n", a.digest,
               v.key_id[0] != '\0' ? "signed by key " : "not signed", v.key_id);
    }
    registry_artefact_free(&a);
    return rc;
}

/* Every one is looked at, whatever the others are. */
static int verify_all(const state_call *c, const sign_trust *t, hone_err *e)
{
    json_t *all, *row;
    size_t i;
    int bad = 0;
    int rc = registry_list(c->st, &all, e);
    if (rc != 0)
        return rc;
    const json_t *list = json_object_get(all, "artefacts");
    json_array_foreach (list, i, row) {
        hone_err why = {0};
        if (verify_one(c, text(row, "digest"), t, &why) != 0) {
            printf("%.12s  REFUSED: %s\n", text(row, "digest"), why.msg);
            bad++;
        }
    }
    if (bad > 0)
        rc = hone_fail(e, HONE_EFORMAT, "%d of %zu artefacts are not what was registered", bad,
                       json_array_size(list));
    json_decref(all);
    return rc;
}

static int do_verify(const state_call *c, hone_err *e)
{
    sign_trust t;
    int rc = state_trust(&t, c->st, c->args, e);
    if (rc == 0)
        rc = c->n_words > 0 ? verify_one(c, c->word[0], &t, e) : verify_all(c, &t, e);
    sign_trust_close(&t);
    return rc;
}

static int do_sign(const state_call *c, hone_err *e)
{
    sign_report r;
    const char *dir = c->word[0];
    const char *name = *path_base(dir) != '\0' ? path_base(dir) : dir;
    int rc = sign_dir(dir, name, store_dir(c->st), &r, e);
    if (rc == 0)
        rc = audit_append(
            c->st, &(audit_event){.action = "model.sign", .actor = c->actor, .target = r.root}, e);
    if (rc == 0)
        printf("%s: %lld files signed by key %.16s, root %.12s\n", dir, (long long)r.n_files,
               r.key_id, r.root);
    return rc;
}

static int do_add(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    char digest[REGISTRY_DIGEST_LEN];
    sign_trust t;
    int rc = state_trust(&t, c->st, c->args, e);
    if (rc == 0)
        rc = live_register(c->st, c->word[0], o->base, &t, digest, e);
    sign_trust_close(&t);
    if (rc == 0)
        rc = audit_append(
            c->st, &(audit_event){.action = "model.add", .actor = c->actor, .target = digest}, e);
    if (rc == 0)
        puts(digest);
    return rc;
}

static int do_key(const state_call *c, hone_err *e)
{
    sign_public own;
    int rc = sign_public_own(&own, store_dir(c->st), e);
    if (rc != 0)
        return rc;
    char *pem = sign_public_pem(&own);
    fprintf(stderr, "key %s\n", own.id);
    fputs(pem, stdout);
    free(pem);
    return 0;
}

/* ---- moving ---- */

static int move(const state_call *c, const char *alias, const registry_artefact *to,
                const char *what, hone_err *e)
{
    const options *o = c->options;
    registry_artefact now = {0};
    verify_report v;
    sign_trust t;
    int rc = state_trust(&t, c->st, c->args, e);
    if (rc == 0)
        rc = verify_artefact(&v, to, &t, e);
    sign_trust_close(&t);
    if (rc != 0)
        return rc;
    rc = registry_alias(c->st, alias, &now, e);
    const char *expected = rc == 0 ? now.digest : "";
    if (rc == 0 || rc == HONE_ENOTFOUND)
        rc = registry_alias_move(c->st, alias, to->digest, expected, c->actor,
                                 o->reason != NULL ? o->reason : what, e);
    if (rc == 0)
        printf("%s -> %.12s (was %.12s)\n", alias, to->digest, *expected ? expected : "unset");
    if (rc == 0) /* what learned from erased feedback goes when it is no longer live */
        rc = erase_resume(c->st, store_dir(c->st), e);
    registry_artefact_free(&now);
    return rc;
}

static int do_promote(const state_call *c, hone_err *e)
{
    registry_artefact a;
    int rc = registry_find(c->st, c->word[0], &a, e);
    if (rc == 0)
        rc = move(c, "live", &a, "promoted by hand", e);
    registry_artefact_free(&a);
    return rc;
}

/* "off" is what is live: a server does not serve that twice. */
static int do_canary(const state_call *c, hone_err *e)
{
    registry_artefact a;
    bool off = strcmp(c->word[0], "off") == 0;
    int rc = off ? registry_alias(c->st, "live", &a, e) : registry_find(c->st, c->word[0], &a, e);
    if (rc == 0)
        rc = move(c, "canary", &a, off ? "off" : "tried by hand", e);
    registry_artefact_free(&a);
    return rc;
}

static int do_rollback(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    registry_artefact a;
    int rc = o->to != NULL ? registry_find(c->st, o->to, &a, e)
                           : registry_previous(c->st, "live", &a, e);
    if (rc == 0)
        rc = move(c, "live", &a, "rolled back", e);
    registry_artefact_free(&a);
    return rc;
}

/* clang-format off */
static const state_verb verbs[] = {
    {"list",     do_list,     0, 0, NULL,                        false},
    {"show",     do_show,     0, 1, NULL,                        false},
    {"verify",   do_verify,   0, 1, NULL,                        false},
    {"add",      do_add,      1, 1, "a model's directory",       true},
    {"promote",  do_promote,  1, 1, "the digest of an artefact", false},
    {"rollback", do_rollback, 0, 0, NULL,                        false},
    {"canary",   do_canary,   1, 1, "a digest, or off",          false},
    {"sign",     do_sign,     1, 1, "a model's directory",       true},
    {"key",      do_key,      0, 0, NULL,                        true},
    {NULL, NULL, 0, 0, NULL, false},
};
/* clang-format on */

static int run(int argc, char **argv)
{
    options o = {0};
    return state_run(&cmd_registry, verbs, rows, &o, &o.at, argc, argv);
}

const cmd cmd_registry = {
    "registry", run, "list, show, verify, sign, add, promote or roll back artefacts",
    "usage: hone registry list [--json]\n"
    "       hone registry show [DIGEST]              what it was made of (of what is live)\n"
    "       hone registry verify [DIGEST]            digest and signature (of all)\n"
    "       hone registry add DIR [--base DIR]       a model of yours (or an adapter and its "
    "base)\n"
    "       hone registry promote DIGEST [--reason TEXT]\n"
    "       hone registry rollback [--to DIGEST] [--reason TEXT]\n"
    "       hone registry canary DIGEST|off          what is served beside it (canary: true)\n"
    "       hone registry sign DIR                   signs a model with this appliance's key\n"
    "       hone registry key > appliance.pem        the public half of that key\n\n"
    "A running server follows the alias `live` within a second and drops no request. Nothing is\n"
    "loaded or promoted whose files are not what was registered, or whose signature is gone, does\n"
    "not fit, or is of a key that is not trusted (trusted_keys).\n\n" STATE_HELP
    "  --reason TEXT   kept in the history of the alias\n\n"
    "example: hone registry rollback --reason 'wrong prices since noon'"};
