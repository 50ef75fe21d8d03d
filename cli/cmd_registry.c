/* hone registry: what has been made, what is live, and moving it. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/state.h"
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "serve/store/registry.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *config, *state, *reason, *to;
    bool json;
} options;

/* clang-format off */
static const args_row rows[] = {
    {"config", offsetof(options, config), ARGS_TEXT},
    {"state",  offsetof(options, state),  ARGS_TEXT},
    {"reason", offsetof(options, reason), ARGS_TEXT},
    {"to",     offsetof(options, to),     ARGS_TEXT},
    {"json",   offsetof(options, json),   ARGS_FLAG},
    {NULL, 0, ARGS_TEXT},
};
/* clang-format on */

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "-";
}

static void print_json(const json_t *v)
{
    json_dumpf(v, stdout, JSON_INDENT(2));
    putchar('\n');
}

static void print_time(const json_t *o, const char *key)
{
    char t[40] = "-";
    json_t *v = json_object_get(o, key);
    if (json_is_integer(v))
        clock_iso8601(t, sizeof t, json_integer_value(v));
    printf("%-25s ", t);
}

static int list(store *st, const options *o, hone_err *e)
{
    json_t *all, *row;
    size_t i;
    int rc = registry_list(st, &all, e);
    if (rc != 0)
        return rc;
    if (o->json) {
        print_json(all);
    } else {
        json_array_foreach (json_object_get(all, "aliases"), i, row) {
            printf("%-10s -> %.12s  by %s: %s\n", text(row, "name"), text(row, "digest"),
                   text(row, "by"), text(row, "reason"));
        }
        json_array_foreach (json_object_get(all, "artefacts"), i, row) {
            print_time(row, "created_at");
            printf("%-8s %.12s  %s\n", text(row, "kind"), text(row, "digest"), text(row, "path"));
        }
        json_array_foreach (json_object_get(all, "runs"), i, row) {
            print_time(row, "started_at");
            printf("%-8s %-28s %s\n", text(row, "kind"), text(row, "id"), text(row, "status"));
        }
    }
    json_decref(all);
    return 0;
}

static int show(store *st, const char *digest, hone_err *e)
{
    registry_artefact a;
    int rc = digest != NULL ? registry_find(st, digest, &a, e) : registry_alias(st, "live", &a, e);
    if (rc != 0)
        return rc;
    json_t *history = NULL;
    rc = registry_history(st, "live", &history, e);
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:I, s:O?, s:o?}", "digest", a.digest, "kind",
                  a.kind, "path", a.path, "base", a.base, "run", a.run_id, "created_ms",
                  (json_int_t)a.created_ms, "manifest", a.manifest, "live_history", history);
    print_json(o);
    json_decref(o);
    registry_artefact_free(&a);
    return rc;
}

static int move(store *st, const registry_artefact *to, const options *o, const char *what,
                hone_err *e)
{
    registry_artefact now;
    char *by = state_actor();
    int rc = registry_alias(st, "live", &now, e);
    const char *expected = rc == 0 ? now.digest : "";
    if (rc == 0 || rc == HONE_ENOTFOUND)
        rc = registry_alias_move(st, "live", to->digest, expected, by,
                                 o->reason != NULL ? o->reason : what, e);
    if (rc == 0)
        printf("live -> %.12s (was %.12s)\n", to->digest, *expected ? expected : "unset");
    registry_artefact_free(&now);
    free(by);
    return rc;
}

static int promote(store *st, const char *digest, const options *o, hone_err *e)
{
    registry_artefact a;
    int rc = registry_find(st, digest, &a, e);
    if (rc == 0)
        rc = move(st, &a, o, "promoted by hand", e);
    registry_artefact_free(&a);
    return rc;
}

static int rollback(store *st, const options *o, hone_err *e)
{
    registry_artefact a;
    int rc = o->to != NULL ? registry_find(st, o->to, &a, e) : registry_previous(st, "live", &a, e);
    if (rc == 0)
        rc = move(st, &a, o, "rolled back", e);
    registry_artefact_free(&a);
    return rc;
}

static int dispatch(store *st, const options *o, const char *verb, const char *digest, hone_err *e)
{
    if (strcmp(verb, "list") == 0)
        return list(st, o, e);
    if (strcmp(verb, "show") == 0)
        return show(st, digest, e);
    if (strcmp(verb, "promote") == 0)
        return promote(st, digest, o, e);
    return rollback(st, o, e);
}

static int run(int argc, char **argv)
{
    static const char *const verbs = " list show promote rollback ";
    options o = {0};
    hone_err e = {0};
    const char *rest[2] = {NULL, NULL};
    int n_rest;
    if (args_parse(rows, &o, argc, argv, rest, 2, &n_rest, &e) != 0)
        return cmd_usage(&cmd_registry, "%s", e.msg);
    char *word = mem_printf(" %s ", n_rest > 0 ? rest[0] : "");
    bool known = n_rest > 0 && strstr(verbs, word) != NULL;
    free(word);
    if (!known)
        return cmd_usage(&cmd_registry, "say list, show, promote or rollback");
    if (strcmp(rest[0], "promote") == 0 && n_rest < 2)
        return cmd_usage(&cmd_registry, "promote needs the digest of an artefact");
    store *st;
    int rc = state_open(&st, o.config, o.state, true, &e);
    if (rc == 0)
        rc = dispatch(st, &o, rest[0], rest[1], &e);
    store_close(st);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_registry = {
    "registry", run, "list, show, promote or roll back artefacts",
    "usage: hone registry list|show [DIGEST]|promote DIGEST|rollback [--to DIGEST] [options]\n"
    "\n"
    "A running server follows the alias `live` within a second and drops no request.\n"
    "\n"
    "  --config FILE | --state DIR   whose registry (default: ./hone.yaml, else ./state)\n"
    "  --reason TEXT                 kept in the history of the alias\n"
    "  --json                        (list) as JSON\n"
    "\n"
    "example: hone registry rollback --reason 'wrong prices since noon'"};
