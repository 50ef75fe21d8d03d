#include "cli/state.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/http/serve_conf.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The settings that hold: --config, else ./hone.yaml unless there is a --state. */
static const char *config_of(const state_args *a)
{
    bool here = a->config == NULL && a->state == NULL && file_exists("hone.yaml");
    return here ? "hone.yaml" : a->config;
}

static int load(serve_conf *c, const state_args *a, hone_err *e)
{
    if (a->config != NULL && a->state != NULL) {
        *c = (serve_conf){0};
        return hone_fail(e, HONE_EINVAL, "--config and --state exclude each other");
    }
    return serve_conf_load(c, config_of(a), NULL, 0, e);
}

int state_open(store **out, const state_args *a, bool must_exist, hone_err *e)
{
    serve_conf c;
    store_options o = {.must_exist = must_exist};
    *out = NULL;
    int rc = load(&c, a, e);
    if (rc == 0)
        rc = store_open(out, a->state != NULL ? a->state : c.state_dir, &o, e);
    serve_conf_free(&c);
    return rc;
}

int state_plugins(extend **out, const state_args *a, hone_err *e)
{
    serve_conf c;
    *out = NULL;
    int rc = load(&c, a, e);
    if (rc == 0)
        rc = extend_open(out, c.plugins, config_of(a), c.state_dir, e);
    serve_conf_free(&c);
    return rc;
}

int state_trust(sign_trust *t, const store *s, const state_args *a, hone_err *e)
{
    serve_conf c;
    *t = (sign_trust){0};
    int rc = load(&c, a, e);
    if (rc == 0)
        rc = sign_trust_open(t, store_dir(s), c.trusted_keys, c.require_signature, e);
    serve_conf_free(&c);
    return rc;
}

char *state_actor(void)
{
    const struct passwd *p = getpwuid(getuid());
    return p != NULL ? mem_printf("cli:%s", p->pw_name) : mem_printf("cli:%u", (unsigned)getuid());
}

int state_print(const json_t *v, hone_err *e)
{
    char *text = js_text(v, false);
    puts(text);
    free(text);
    return ferror(stdout) ? hone_fail(e, HONE_EIO, "standard output: cannot write") : 0;
}

/* ---- verbs ---- */

static const state_verb *find(const state_verb *verbs, const char *name)
{
    for (; verbs->name != NULL; verbs++)
        if (strcmp(verbs->name, name) == 0)
            return verbs;
    return NULL;
}

/* "create, list, rotate or revoke" */
static void names(char *dst, size_t cap, const state_verb *verbs)
{
    size_t n = 0;
    for (const state_verb *v = verbs; v->name != NULL && n < cap; v++)
        n += (size_t)snprintf(dst + n, cap - n, "%s%s",
                              v == verbs          ? ""
                              : v[1].name == NULL ? " or "
                                                  : ", ",
                              v->name);
}

int state_run(const cmd *self, const state_verb *verbs, const args_row *rows, void *options,
              const state_args *args, int argc, char **argv)
{
    char known[256];
    hone_err e = {0};
    state_call c = {.args = args, .options = options};
    names(known, sizeof known, verbs);
    if (argc < 2)
        return cmd_usage(self, "what should be done: %s?", known);
    const state_verb *v = find(verbs, argv[1]);
    if (v == NULL)
        return cmd_usage(self, "no verb '%s'; there are %s", argv[1], known);
    if (args_parse(rows, options, argc - 1, argv + 1, c.word, v->max_words, &c.n_words, &e) != 0)
        return cmd_usage(self, "%s", e.msg);
    if (c.n_words < v->min_words)
        return cmd_usage(self, "%s takes %s", v->name, v->words);
    int rc = state_open(&c.st, args, !v->makes_state, &e);
    if (rc == 0) {
        char *actor = state_actor();
        c.actor = actor;
        rc = v->run(&c, &e);
        free(actor);
    }
    store_close(c.st);
    return rc == 0 ? 0 : cmd_failed(&e);
}
