/* hone retrain: one round from feedback to a judged, registered and perhaps promoted candidate. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/extend.h"
#include "cli/state.h"
#include "core/base/mem.h"
#include "core/eval/eval.h"
#include "core/base/file.h"
#include "serve/http/serve_conf.h"
#include "serve/loop/retrain.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ASSIGN = 64 };

typedef struct options {
    bool json;
} options;

static const args_row rows[] = {{"json", offsetof(options, json), ARGS_FLAG}, {NULL, 0, ARGS_TEXT}};

static void print_examples(const json_t *x)
{
    const char *key;
    json_t *v;
    printf("examples:");
    json_object_foreach ((json_t *)x, key, v) {
        printf(" %s=%lld", key, (long long)json_integer_value(v));
    }
    putchar('\n');
}

static void print_report(const json_t *r)
{
    size_t i;
    json_t *reason;
    const json_t *artefact = json_object_get(r, "artefact");
    print_examples(json_object_get(r, "examples"));
    if (json_object_get(r, "holdout") != NULL) {
        puts("\nfixed holdout, live against candidate:");
        eval_print_compare(json_object_get(r, "holdout"), stdout);
    }
    if (json_object_get(r, "feedback") != NULL) {
        puts("\nheld-out feedback, live against candidate:");
        eval_print_compare(json_object_get(r, "feedback"), stdout);
    }
    if (artefact != NULL)
        printf("\nartefact %.12s in %s\n", json_string_value(json_object_get(artefact, "digest")),
               json_string_value(json_object_get(artefact, "path")));
    json_array_foreach (json_object_get(r, "reasons"), i, reason) {
        printf("  %s\n", json_string_value(reason));
    }
    printf("status: %s\n", json_string_value(json_object_get(r, "status")));
}

static int retrain(const serve_conf *sc, const char *config, json_t **report, hone_err *e)
{
    static const char *const dtypes[] = {"bf16", "f32", "bf16"};
    retrain_conf rc_conf;
    store *st = NULL;
    extend *x = NULL;
    sign_trust trust = {0};
    char *dir = path_dir(config), *by = state_actor();
    int rc = retrain_conf_read(&rc_conf, sc->retrain, dir, e);
    if (rc == 0)
        rc = extend_open(&x, sc->plugins, config, sc->state_dir, e);
    if (rc == 0) {
        const store_options so = {.hooks = extend_hooks(x)};
        extend_say(x);
        rc = store_open(&st, sc->state_dir, &so, e);
    }
    if (rc == 0)
        rc = sign_trust_open(&trust, sc->state_dir, sc->trusted_keys, sc->require_signature, e);
    if (rc == 0) {
        retrain_options o = {.st = st,
                             .state_dir = sc->state_dir,
                             .model_dir = sc->model,
                             .adapter_dir = sc->adapter,
                             .device = sc->device,
                             .threads = (int)sc->threads,
                             .dtype = dtypes[sc->dtype],
                             .conf = &rc_conf,
                             .hooks = extend_hooks(x),
                             .trust = &trust,
                             .by = by};
        rc = retrain_run(report, &o, e);
    }
    sign_trust_close(&trust);
    store_close(st);
    extend_close(x);
    retrain_conf_free(&rc_conf);
    free(dir);
    free(by);
    return rc;
}

static int run(int argc, char **argv)
{
    options o = {0};
    hone_err e = {0};
    const char *rest[MAX_ASSIGN];
    int n_rest;
    if (args_parse(rows, &o, argc, argv, rest, MAX_ASSIGN, &n_rest, &e) != 0)
        return cmd_usage(&cmd_retrain, "%s", e.msg);
    if (n_rest < 1)
        return cmd_usage(&cmd_retrain, "which hone.yaml?");
    serve_conf sc;
    json_t *report = NULL;
    int rc = serve_conf_load(&sc, rest[0], (char *const *)(rest + 1), n_rest - 1, &e);
    if (rc == 0)
        rc = retrain(&sc, rest[0], &report, &e);
    if (rc == 0 && o.json) {
        cmd_print(report);
    } else if (rc == 0) {
        print_report(report);
    }
    json_decref(report);
    serve_conf_free(&sc);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_retrain = {"retrain", run, "feedback to candidate to gate to promotion",
                         "usage: hone retrain hone.yaml [key=value ...] [--json]\n"
                         "\n"
                         "Trains a candidate from the base on accepted feedback and replay, "
                         "compares it with what is live on the\n"
                         "fixed holdout and on held-out feedback, and says pass, fail or "
                         "inconclusive. Registers the artefact with\n"
                         "its manifest; moves `live` when the gate passes and retrain.promote is "
                         "auto. The settings stand under\n"
                         "`retrain:` in hone.yaml.\n"
                         "\n"
                         "example: hone retrain hone.yaml retrain.promote=auto"};
