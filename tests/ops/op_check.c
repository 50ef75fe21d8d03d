/* op_check [MODE] [--device NAME[:FEATURES]] [--threads N] [--dtype f32|bf16] [--guard]
 *          [--skip-unsupported] [OP...]: every op of a backend against a plain double-precision
 * reference.
 *
 * test (as without a mode): results, gradients on some elements, and equal bits in two runs.
 * grad: gradients by finite differences over all elements and along eight directions, in cases of
 * their own. perf prints a time for each case. bits is test in one run, with a hash of each op's
 * results. threads: equal bits on 1 to 5 threads. self makes one result of test, then of grad,
 * wrong at a time and fails where that goes unnoticed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ops/guard.h"
#include "tests/ops/op.h"

static const op_test *const tests[] = {
    &op_copy,  &op_update, &op_linear, &op_embed,  &op_norm,  &op_act,   &op_qk,   &op_attn,
    &op_paged, &op_head,   &op_logits, &op_sample, &op_adamw, &op_sumsq, &op_clip, &op_read,
};

enum { N_TESTS = sizeof tests / sizeof tests[0], SELF_CASES = 4, MAX_THREADS = 5 };

static const kern_dtype dtypes[] = {KERN_F32, KERN_BF16};

typedef struct options {
    const char *mode, *device, *dtype;
    int threads;
    bool guard, skip_unsupported;
    char **ops; /* names, NULL at the end; none: all */
} options;

static kern_dev *open_device(const options *o, int threads)
{
    char name[32], err[256];
    kern_open_args a = {.threads = threads};
    kern_dev *d;
    snprintf(name, sizeof name, "%s", o->device);
    char *colon = strchr(name, ':');
    if (colon != NULL) {
        *colon = '\0';
        a.features = colon + 1;
    }
    if (kern_open(&d, name, &a, err) != 0)
        fprintf(stderr, "op_check: %s\n", err);
    else if (o->guard)
        guard_device(d);
    return d;
}

/* ---- modes: how many cases of an op went wrong ----------------------------------------------- */

static bool is_dtype(const options *o, kern_dtype t)
{
    return strcmp(o->dtype, kern_dtype_name(t)) == 0;
}

static bool runs_in(const options *o, const op_test *t, kern_dtype dtype)
{
    return o->dtype != NULL ? is_dtype(o, dtype) : dtype == KERN_F32 || !t->one_dtype;
}

static int run_cases(op_ctx *c, const options *o, const op_test *t)
{
    int bad = 0;
    for (size_t y = 0; y < sizeof dtypes / sizeof dtypes[0]; y++) {
        c->t = dtypes[y];
        for (int i = 0; runs_in(o, t, c->t) && i < op_cases(c, t); i++) {
            op_run(c, t, i);
            bad += c->failed > 0;
        }
    }
    return bad;
}

static int run_test(op_ctx *c, const options *o, const op_test *t)
{
    return run_cases(c, o, t);
}

static int run_grad(op_ctx *c, const options *o, const op_test *t)
{
    c->mode = OP_GRAD;
    return run_cases(c, o, t);
}

static int run_perf(op_ctx *c, const options *o, const op_test *t)
{
    c->mode = OP_PERF;
    return run_cases(c, o, t);
}

/* One number for all results of an op, to compare two ways of running it. */
static int run_bits(op_ctx *c, const options *o, const op_test *t)
{
    uint64_t all = 0;
    int bad = 0;
    c->once = true;
    for (size_t y = 0; y < sizeof dtypes / sizeof dtypes[0]; y++) {
        c->t = dtypes[y];
        for (int i = 0; runs_in(o, t, c->t) && i < t->n_cases; i++) {
            op_run(c, t, i);
            bad += c->failed > 0;
            all = (all ^ c->hash) * 0x100000001B3U;
        }
    }
    printf("%016llx %s\n", (unsigned long long)all, t->name);
    return bad;
}

/* All cases on one device; *hash gets one hash after the other, or is what they must be. */
static int hash_cases(op_ctx *c, const options *o, const op_test *t, uint64_t *hash, bool first)
{
    int bad = 0;
    for (size_t y = 0; y < sizeof dtypes / sizeof dtypes[0]; y++) {
        c->t = dtypes[y];
        for (int i = 0; runs_in(o, t, c->t) && i < op_cases(c, t); i++, hash++) {
            op_run(c, t, i);
            bad += c->failed > 0;
            if (first) {
                *hash = c->hash;
            } else if (c->hash != *hash) {
                printf("         %s[%d] %s: %d threads give other bits than one\n", t->name, i,
                       kern_dtype_name(c->t), c->d->threads);
                bad++;
            }
        }
    }
    return bad;
}

/* A device for each number of threads. */
static int run_threads(op_ctx *c, const options *o, const op_test *t)
{
    int bad = 0;
    kern_dev *given = c->d;
    c->mode = OP_BITS;
    uint64_t *hash = calloc(2 * (size_t)op_cases(c, t) + 1, sizeof *hash);
    for (int n = 1; n <= MAX_THREADS && hash != NULL; n++) {
        c->d = open_device(o, n);
        if (c->d == NULL)
            exit(1);
        bad += hash_cases(c, o, t, hash, n == 1);
        kern_close(c->d);
    }
    c->d = given;
    free(hash);
    return bad;
}

/* Every comparison of the first cases gets a wrong number once, and a NaN once. */
static int run_self(op_ctx *c, const options *o, const op_test *t)
{
    int bad = 0;
    (void)o;
    c->t = KERN_F32;
    for (int m = 0; m < 2; m++) {
        c->mode = m == 0 ? OP_TEST : OP_GRAD;
        for (int i = 0; i < op_cases(c, t) && i < SELF_CASES; i++) {
            c->inject = OP_OFF;
            c->inject_at = -1;
            op_run(c, t, i);
            int n = c->compared;
            if (n == 0 && ++bad > 0)
                printf("         %s[%d] compares nothing\n", t->name, i);
            for (int k = 0; k < 2 * n; k++) {
                c->inject = k % 2 == 0 ? OP_NAN : OP_ONE;
                c->inject_at = k / 2;
                op_run(c, t, i);
                if (c->failed > 0)
                    continue;
                printf("         %s[%d]: a wrong result in comparison %d went unnoticed\n", t->name,
                       i, k / 2);
                bad++;
            }
        }
    }
    return bad;
}

static const struct {
    const char *name;
    int (*run)(op_ctx *c, const options *o, const op_test *t);
} modes[] = {
    {"test", run_test}, {"grad", run_grad},       {"perf", run_perf},
    {"self", run_self}, {"threads", run_threads}, {"bits", run_bits},
};

enum { N_MODES = sizeof modes / sizeof modes[0] };

/* ---- the command line ------------------------------------------------------------------------ */

static int mode_of(const char *name)
{
    for (int i = 0; i < N_MODES; i++)
        if (strcmp(modes[i].name, name) == 0)
            return i;
    return -1;
}

static bool known_op(const char *name)
{
    for (int i = 0; i < N_TESTS; i++)
        if (strcmp(tests[i]->name, name) == 0)
            return true;
    return false;
}

static bool wanted(const options *o, const op_test *t)
{
    for (int i = 0; o->ops[i] != NULL; i++)
        if (strcmp(o->ops[i], t->name) == 0)
            return true;
    return o->ops[0] == NULL;
}

/* Options fall away from argv; what is left are names of ops. */
static bool parse(options *o, int argc, char **argv)
{
    int n = 0;
    *o = (options){.mode = "test", .device = "cpu", .ops = argv};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        const char **text = strcmp(a, "--device") == 0  ? &o->device
                            : strcmp(a, "--dtype") == 0 ? &o->dtype
                                                        : NULL;
        if (strcmp(a, "--guard") == 0)
            o->guard = true;
        else if (strcmp(a, "--skip-unsupported") == 0)
            o->skip_unsupported = true;
        else if (text != NULL && value != NULL)
            *text = argv[++i];
        else if (strcmp(a, "--threads") == 0 && value != NULL)
            o->threads = (int)strtol(argv[++i], NULL, 10);
        else if (i == 1 && mode_of(a) >= 0)
            o->mode = a;
        else if (known_op(a))
            argv[n++] = argv[i];
        else
            return false;
    }
    argv[n] = NULL;
    return o->dtype == NULL || is_dtype(o, KERN_F32) || is_dtype(o, KERN_BF16);
}

static int usage(void)
{
    fprintf(stderr,
            "usage: op_check [test|grad|perf|threads|bits|self] [--device cpu|cuda[:FEATURES]]\n"
            "                [--threads N] [--dtype f32|bf16] [--guard]\n"
            "                [--skip-unsupported] [OP...]\nops:");
    for (int i = 0; i < N_TESTS; i++)
        fprintf(stderr, " %s", tests[i]->name);
    fprintf(stderr, "\n");
    return 2;
}

int main(int argc, char **argv)
{
    options o;
    if (!parse(&o, argc, argv))
        return usage();
    op_ctx c = {.inject_at = -1, .skip_unsupported = o.skip_unsupported};
    int bad = 0, mode = mode_of(o.mode);
    c.d = open_device(&o, o.threads);
    if (c.d == NULL)
        return 1;
    for (int i = 0; i < N_TESTS; i++) {
        if (!wanted(&o, tests[i]))
            continue;
        c.mode = OP_TEST;
        int b = modes[mode].run(&c, &o, tests[i]);
        int n = modes[mode].run == run_grad ? tests[i]->n_grads : tests[i]->n_cases;
        if (c.mode != OP_PERF && n > 0)
            printf("%s %s (%d cases)\n", b == 0 ? "[       OK ]" : "[  FAILED  ]", tests[i]->name,
                   n);
        bad += b;
    }
    if (c.unsupported > 0)
        printf("%d cases are unsupported\n", c.unsupported);
    kern_close(c.d);
    return bad == 0 ? 0 : 1;
}
