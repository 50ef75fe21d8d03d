/* op_check BACKEND[:FEATURES] [OP...] [--perf|--self]: every op of a backend against a plain
 * double-precision reference.
 *
 * Without a mode: results, gradients (finite differences) and equal bits in two runs. --self makes
 * one result wrong at a time and fails where that goes unnoticed. --perf prints a time for each
 * case. */
#include <stdio.h>
#include <string.h>

#include "tests/ops/op.h"

static const op_test *const tests[] = {
    &op_copy, &op_update, &op_linear, &op_embed,  &op_norm,   &op_act,   &op_qk,
    &op_attn, &op_paged,  &op_head,   &op_logits, &op_sample, &op_adamw, &op_sumsq,
};

enum { N_TESTS = sizeof tests / sizeof tests[0], SELF_CASES = 6 };

/* Ops whose cases do not depend on the dtype of activations run once. */
static const kern_dtype dtypes[] = {KERN_F32, KERN_BF16};

static int run_plain(op_ctx *c, const op_test *t)
{
    int bad = 0;
    for (size_t y = 0; y < sizeof dtypes / sizeof dtypes[0]; y++) {
        c->t = dtypes[y];
        for (int i = 0; i < t->n_cases; i++) {
            op_run(c, t, i);
            bad += c->failed > 0;
        }
    }
    return bad;
}

/* Every comparison of the first cases gets a wrong number once, and a NaN once. */
static int run_self(op_ctx *c, const op_test *t)
{
    int bad = 0;
    c->t = KERN_F32;
    for (int i = 0; i < t->n_cases && i < SELF_CASES; i++) {
        c->inject = OP_OFF;
        c->inject_at = -1;
        op_run(c, t, i);
        int n = c->compared;
        for (int k = 0; k < 2 * n; k++) {
            c->inject = k % 2 == 0 ? OP_NAN : OP_ONE;
            c->inject_at = k / 2;
            op_run(c, t, i);
            if (c->failed > 0)
                continue;
            printf("         %s[%d]: a wrong result in comparison %d went unnoticed\n", t->name, i,
                   k / 2);
            bad++;
        }
    }
    return bad;
}

static bool wanted(const op_test *t, int argc, char **argv)
{
    bool named = false;
    for (int i = 2; i < argc; i++) {
        if (argv[i][0] == '-')
            continue;
        named = true;
        if (strcmp(argv[i], t->name) == 0)
            return true;
    }
    return !named;
}

static bool flag(const char *name, int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return false;
}

static kern_dev *open_device(const char *arg)
{
    char name[32], err[256];
    kern_open_args a = {0};
    kern_dev *d;
    snprintf(name, sizeof name, "%s", arg);
    char *colon = strchr(name, ':');
    if (colon != NULL) {
        *colon = '\0';
        a.features = colon + 1;
    }
    if (kern_open(&d, name, &a, err) != 0)
        fprintf(stderr, "op_check: %s\n", err);
    return d;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: op_check BACKEND[:FEATURES] [OP...] [--perf|--self]\n");
        return 2;
    }
    op_ctx c = {.inject_at = -1, .perf = flag("--perf", argc, argv)};
    int bad = 0;
    bool self = flag("--self", argc, argv);
    c.d = open_device(argv[1]);
    if (c.d == NULL)
        return 1;
    for (int i = 0; i < N_TESTS; i++) {
        if (!wanted(tests[i], argc, argv))
            continue;
        int b = self ? run_self(&c, tests[i]) : run_plain(&c, tests[i]);
        if (!c.perf)
            printf("%s %s (%d cases)\n", b == 0 ? "[       OK ]" : "[  FAILED  ]", tests[i]->name,
                   tests[i]->n_cases);
        bad += b;
    }
    kern_close(c.d);
    return bad == 0 ? 0 : 1;
}
