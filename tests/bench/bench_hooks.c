/* What hook points cost where nobody listens: bench_hooks [ROOT], ROOT being the source tree.
 *
 * A training step and a served request of the embedded model are timed with an empty table; how
 * many emissions each makes is counted in runs with a subscriber at every point, in turn with the
 * others. An emission that nobody hears is timed twice: again and again, and with the table out of
 * the caches, which is what the percentage is made of. The figures below it say what those
 * subscribers cost, which do nothing. At the end, what a limit (hang_seconds) costs a call of a
 * plugin in C. */
#include "adapters/tune.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/yaml.h"
#include "plugins/loader.h"
#include "serve/http/http_server.h"
#include "tests/bench/bench.h"
#include "tests/unit/aid_http.h"

#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 5, STEPS = 8, REQUESTS = 20, ANSWER = 16, PASSES = 1000, COLD = 64 << 20 };

static void check(int rc, const hone_err *e)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench_hooks: %s\n", e->msg);
    exit(1);
}

/* ---- an emission that nobody hears ---- */

static void ask_again(void *arg)
{
    for (int i = 0; i < PASSES; i++)
        for (int p = 0; p < HOOK_N_POINTS; p++)
            if (hook_wanted(arg, (hook_point)p))
                abort();
}

/* Seconds of one, with nothing of the table in the caches. */
static double cold_emission(const hooks *h)
{
    enum { TIMES = 50 };
    char *trash = mem_alloc(COLD);
    int64_t spent = 0;
    for (int i = 0; i < TIMES; i++) {
        memset(trash, i, COLD);
        int64_t start = clock_mono_ns();
        for (int p = 0; p < HOOK_N_POINTS; p++)
            if (hook_wanted(h, (hook_point)p))
                abort();
        spent += clock_mono_ns() - start;
    }
    free(trash);
    return (double)spent * 1e-9 / TIMES / HOOK_N_POINTS;
}

static int say_nothing(hook_call *call, void *user, hone_err *e)
{
    (void)call;
    (void)user;
    (void)e;
    return HOOK_CONTINUE;
}

static void listen_everywhere(hooks *h)
{
    hone_err e = {0};
    for (int p = 0; p < HOOK_N_POINTS; p++)
        check(hook_on(h, (hook_point)p, "nobody", 0, say_nothing, NULL, &e), &e);
}

static double emissions(const hooks *h, hook_point first, hook_point last)
{
    double n = 0;
    for (int p = (int)first; p <= (int)last; p++)
        n += (double)hook_counters(h, (hook_point)p).calls;
    return n;
}

/* ---- a pair of timings ---- */

typedef struct timing {
    double empty, heard; /* seconds of one, the best of all rounds */
    double emitted;      /* in one */
} timing;

static void keep_best(double *best, double seconds)
{
    if (*best == 0 || seconds < *best)
        *best = seconds;
}

static void report(const char *what, const timing *t, double each)
{
    printf("%-18s %9.3f ms; %.1f emissions to nobody: %.4f ms, %.4f %%\n", what, t->empty * 1e3,
           t->emitted, t->emitted * each * 1e3, 100 * t->emitted * each / t->empty);
    printf("%-18s %9.3f ms with a subscriber in C at every point\n", "", t->heard * 1e3);
}

/* ---- a training step ---- */

static json_t *run_settings(const char *root, const char *out)
{
    hone_err e = {0};
    json_t *tree;
    char *from = path_join(root, "examples/finetune.yaml"),
         *base = path_join(root, "examples/model"),
         *data = path_join(root, "examples/support/train.jsonl");
    check(yaml_load(&tree, NULL, from, &e), &e);
    json_object_del(tree, "plugins");
    json_object_del(tree, "test_datasets");
    json_object_set_new(tree, "base_model", json_string(base));
    json_object_set_new(tree, "datasets",
                        json_pack("[{s:s, s:s}]", "path", data, "type", "chat_template"));
    json_object_set_new(tree, "output_dir", json_string(out));
    json_object_set_new(tree, "max_steps", json_integer(STEPS));
    json_object_set_new(tree, "progress", json_string("none"));
    free(data);
    free(base);
    free(from);
    return tree;
}

/* Seconds of a step; its emissions where somebody listens. */
static double train(const char *root, const char *dir, bool heard, double *emitted)
{
    hone_err e = {0};
    train_conf c;
    tune_result r;
    hooks *h = hook_new();
    char *out = path_join(dir, "run");
    json_t *settings = run_settings(root, out);
    check(train_conf_from(&c, settings, &e), &e);
    if (heard)
        listen_everywhere(h);
    check(tune_run(&c, h, &r, &e), &e);
    check(dir_remove(out, &e), &e);
    if (heard)
        *emitted = emissions(h, HOOK_TRAIN_START, HOOK_TRAIN_END) / (double)r.train.steps;
    double each = r.train.seconds / (double)r.train.steps;
    train_conf_free(&c);
    json_decref(settings);
    hook_free(h);
    free(out);
    return each;
}

static void bench_training(const char *root, const char *dir, double each)
{
    timing t = {0};
    for (int i = 0; i < ROUNDS; i++) {
        keep_best(&t.empty, train(root, dir, false, NULL));
        keep_best(&t.heard, train(root, dir, true, &t.emitted));
    }
    report("a training step", &t, each);
}

/* ---- a served request ---- */

typedef struct appliance {
    serve_conf conf;
    hooks *hooks;
    store *store;
    engine *engine;
    backend backend;
    http_server *http;
} appliance;

static void load_model(appliance *a, const char *root)
{
    hone_err e = {0};
    served *s;
    char *base = path_join(root, "examples/model");
    check(served_open(&s,
                      &(served_options){.model_dir = base,
                                        .name = "bench",
                                        .device = "cpu",
                                        .max_seqs = 4,
                                        .dtype = KERN_F32},
                      &e),
          &e);
    engine_set_current(a->engine, s);
    served_release(s);
    free(base);
}

static void serve(appliance *a, const char *root, const char *dir)
{
    hone_err e = {0};
    char *over[] = {mem_printf("state_dir=%s/state", dir), (char *)"listen=127.0.0.1:0"};
    a->hooks = hook_new();
    check(serve_conf_load(&a->conf, NULL, over, 2, &e), &e);
    check(store_open(&a->store, a->conf.state_dir, &(store_options){.hooks = a->hooks}, &e), &e);
    check(engine_start(&a->engine, &(engine_options){.max_seqs = 4, .hooks = a->hooks}, &e), &e);
    load_model(a, root);
    backend_of_engine(&a->backend, a->engine);
    check(
        http_server_start(&a->http, &(http_options){&a->conf, a->store, a->hooks, &a->backend}, &e),
        &e);
    free(over[0]);
}

static void stop(appliance *a)
{
    http_server_drain(a->http, 1000);
    http_server_stop(a->http);
    engine_stop(a->engine);
    store_close(a->store);
    hook_free(a->hooks);
    serve_conf_free(&a->conf);
}

/* Seconds of one; every other answer is streamed. */
static double ask(const appliance *a)
{
    static const char body[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"How long is the warranty of the "
        "Duo?\"}], \"max_tokens\": %d, \"temperature\": 0, \"ignore_eos\": true, \"stream\": %s}";
    int64_t start = clock_mono_ns();
    for (int i = 0; i < REQUESTS; i++) {
        char *text = mem_printf(body, ANSWER, i % 2 == 0 ? "false" : "true");
        aid_reply r =
            aid_http(http_server_port(a->http), "POST", "/v1/chat/completions", NULL, text);
        if (r.status != 200) {
            fprintf(stderr, "bench_hooks: status %d: %s\n", r.status, r.raw);
            exit(1);
        }
        aid_reply_free(&r);
        free(text);
    }
    return (double)(clock_mono_ns() - start) * 1e-9 / REQUESTS;
}

static void bench_serving(const char *root, const char *dir, double each)
{
    appliance a;
    timing t = {0};
    hone_err e = {0};
    serve(&a, root, dir);
    ask(&a);
    for (int i = 0; i < ROUNDS; i++) {
        keep_best(&t.empty, ask(&a));
        double before = emissions(a.hooks, 0, HOOK_N_POINTS - 1);
        listen_everywhere(a.hooks);
        keep_best(&t.heard, ask(&a));
        t.emitted = (emissions(a.hooks, 0, HOOK_N_POINTS - 1) - before) / REQUESTS;
        check(hook_off(a.hooks, "nobody", 1000, &e), &e);
    }
    report("a served request", &t, each);
    stop(&a);
}

/* ---- a call with a limit ---- */

static loaded *open_trim(hooks *h, int64_t limit_ns)
{
    char self[PATH_MAX] = "";
    hone_err e = {0};
    trust_file f;
    loaded *p;
    if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0)
        abort();
    for (int up = 0; up < 3; up++) /* build/tests/bench/bench_x */
        *strrchr(self, '/') = '\0';
    char *path = mem_printf("%s/plugins/trim.so", self);
    check(trust_open(&f, NULL, path, &e), &e);
    check(loader_open(&p, &(loader_args){.file = &f, .hooks = h, .limit_ns = limit_ns}, &e), &e);
    trust_close(&f);
    free(path);
    return p;
}

static void normalize(void *arg)
{
    hone_err e = {0};
    json_t *data = json_pack("{s:s}", "text", " Turn it on, and wait for the light. ");
    check(hook_emit(arg, HOOK_DATA_NORMALIZE, &data, &e), &e);
    json_decref(data);
}

static void bench_limit(void)
{
    hone_err e = {0};
    hooks *free_run = hook_new(), *limited = hook_new();
    loaded *a = open_trim(free_run, 0), *b = open_trim(limited, INT64_C(10000000000));
    bench("trim, a text", 1, "calls", normalize, free_run);
    bench("the same with a limit", 1, "calls", normalize, limited);
    check(loader_close(a, 1000, &e), &e);
    check(loader_close(b, 1000, &e), &e);
    hook_free(free_run);
    hook_free(limited);
}

int main(int argc, char **argv)
{
    const char *root = argc > 1 ? argv[1] : ".";
    char dir[] = "/tmp/bench-hooks-XXXXXX";
    hone_err e = {0};
    log_setup(LOG_ERROR, false);
    js_start();
    if (sodium_init() < 0 || mkdtemp(dir) == NULL) {
        perror("bench_hooks");
        return 1;
    }
    hooks *h = hook_new();
    bench("emission to nobody", (double)PASSES * HOOK_N_POINTS, "calls", ask_again, h);
    double each = cold_emission(h);
    printf("%-36s %8.1f ns\n", "the same, nothing in the caches", each * 1e9);
    hook_free(h);
    bench_training(root, dir, each);
    bench_serving(root, dir, each);
    bench_limit();
    check(dir_remove(dir, &e), &e);
    return 0;
}
