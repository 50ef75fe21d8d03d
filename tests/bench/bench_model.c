/* A whole model of a published shape with random weights: LoRA steps (rank 16 beside every linear,
 * packed segments, loss on every token, clipping and AdamW), prefill and decode.
 *
 *     bench_model                                    SmolLM2-135M on 2 CPU threads, f32 and bf16
 *     bench_model --device cuda --dtype bf16 --shape llama-3.1-8b --tokens 16384 --seq 2048,4096
 *         [--do train,prefill,decode] [--batch 1,8,64] [--context 1024] [--steps 20] [--json]
 *         [--recompute none|selective|full] [--threads N]
 *
 * Lists are gone through one after the other: steps and prefill of each seq, decode of each batch.
 * Where a step does not fit the device without recomputation, the next kind is taken and said.
 * Rates are of the median step after the warm-up, prefill and decode of the best run. "of peak" is
 * the work by the formula 4 N (forward and gradient of the input, no gradient of the frozen
 * weights) over --peak TFLOP/s. */
#include "core/base/clock.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/model/model.h"
#include "core/train/optim.h"
#include "tests/bench/shapes.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { RANK = 16, BLOCK = 16, DECODED = 32, ROUNDS = 5, MAX_STEPS = 1000, MAX_LIST = 8 };

typedef struct list {
    int64_t at[MAX_LIST]; /* 0 after the last */
} list;

typedef struct options {
    const char *device, *dtype, *shape, *doing, *recompute;
    int64_t threads, tokens, context, steps;
    list seq, batch;
    double peak;
    bool json;
} options;

typedef struct job {
    const options *o;
    const bench_shape *shape;
    kern_dev *dev;
    kern_dtype dtype;
    model *m;
    model_kv *kv;
    kern_lora *terms;
    param_list params;
    optim *opt;
    void *sum; /* of the squares of the gradients, on the device */
    kern_read *read;
    int64_t step;
    int32_t *ids, *pos, *target, *cu, *blocks;
    int n_seg;
    int64_t seq, batch, seq_blocks; /* of what is measured now; blocks of a sequence */
    const char *recompute;
} job;

static void check(int rc, const hone_err *e)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench_model: %s\n", e->msg);
    exit(1);
}

/* ---- the model ---- */

static const char *const recomputes[] = {"none", "selective", "full"};

static void make(job *j, bool backward)
{
    hone_err e = {0};
    json_t *config;
    model_options o = {.dev = j->dev, .dtype = j->dtype, .backward = backward};
    char *text = bench_shape_config(j->shape);
    check(js_parse(&config, text, strlen(text), &e), &e);
    double start = clock_seconds();
    check(model_create(&j->m, config, 1, &o, &e), &e);
    if (!j->o->json)
        printf("%-24s %9.2f s\n", "made in", clock_seconds() - start);
    json_decref(config);
    free(text);
}

static void add_terms(job *j)
{
    hone_err e = {0};
    size_t n = model_n_sites(j->m);
    const optim_settings adamw = {0, 0.9, 0.999, 1e-8, 0};
    j->terms = mem_array(n, sizeof *j->terms);
    param_list_init(&j->params, j->dev);
    for (size_t i = 0; i < n; i++) {
        const model_site *s = model_site_at(j->m, i);
        param_list_add(&j->params, s->name, RANK, s->in, true, 1);
        param_list_add(&j->params, s->name, s->out, RANK, true, 1);
    }
    check(param_list_alloc(&j->params, &e), &e);
    for (size_t i = 0; i < n; i++) {
        j->terms[i] = (kern_lora){.A = param_value(&j->params, 2 * i),
                                  .B = param_value(&j->params, 2 * i + 1),
                                  .dA = param_grad(&j->params, 2 * i),
                                  .dB = param_grad(&j->params, 2 * i + 1),
                                  .scale = 2};
        check(model_attach(j->m, i, &j->terms[i], &e), &e);
    }
    check(optim_new(&j->opt, &j->params, &adamw, &e), &e);
    check(kern_do(j->dev, alloc, sizeof(double), &j->sum), &e);
}

static void drop_model(job *j)
{
    kern_do(j->dev, read_end, j->read, NULL);
    kern_do(j->dev, release, j->sum);
    optim_free(j->opt);
    model_kv_close(j->kv);
    model_close(j->m);
    param_list_free(&j->params);
    free(j->terms);
    j->opt = NULL;
    j->sum = NULL;
    j->read = NULL;
    j->kv = NULL;
    j->m = NULL;
    j->terms = NULL;
}

/* ---- what is timed ---- */

/* As the trainer does it: what a step came to is read when the next one is queued. */
static void train_step(job *j)
{
    hone_err e = {0};
    const optim_update u = {++j->step, 1e-4, 1, j->sum, 1};
    const model_batch b = {.n = j->o->tokens,
                           .ids = j->ids,
                           .pos = j->pos,
                           .target = j->target,
                           .cu = j->cu,
                           .n_seg = j->n_seg,
                           .training = true};
    check(param_zero_grad(&j->params, &e), &e);
    check(model_backward(j->m, &b, NULL, &e), &e);
    check(optim_grad_sumsq(j->opt, j->sum, &e), &e);
    check(optim_step(j->opt, &u, &e), &e);
    kern_read *before = j->read;
    check(kern_do(j->dev, read_begin, j->sum, sizeof(double), &j->read), &e);
    check(kern_do(j->dev, read_end, before, NULL), &e);
}

/* n new tokens in each of `batch` sequences whose caches hold `from`; waits for a logit. */
static void forward(job *j, int64_t batch, int64_t from, int64_t n)
{
    hone_err e = {0};
    kern_tensor logits;
    float one;
    int32_t *start = mem_array((size_t)batch + 1, sizeof *start);
    int32_t *len = mem_array((size_t)batch, sizeof *len),
            *row = mem_array((size_t)batch, sizeof *row);
    int32_t *pos = mem_array((size_t)(batch * n), sizeof *pos);
    for (int64_t s = 0; s < batch; s++) {
        start[s + 1] = (int32_t)((s + 1) * n);
        row[s] = start[s + 1] - 1;
        len[s] = (int32_t)(from + n);
        for (int64_t i = 0; i < n; i++)
            pos[s * n + i] = (int32_t)(from + i);
    }
    const model_step s = {.n = batch * n,
                          .ids = j->ids,
                          .pos = pos,
                          .n_seq = (int)batch,
                          .q_start = start,
                          .kv_len = len,
                          .blocks = j->blocks,
                          .max_blocks = j->seq_blocks,
                          .n_out = (int)batch,
                          .out_row = row};
    check(model_forward(j->m, j->kv, &s, &logits, &e), &e);
    kern_do(j->dev, read, &one, logits.data, sizeof one);
    free(start);
    free(len);
    free(row);
    free(pos);
}

static void prefill(job *j)
{
    forward(j, 1, 0, j->seq);
}

static void decode(job *j)
{
    for (int i = 0; i < DECODED; i++)
        forward(j, j->batch, j->o->context + i, 1);
}

static double best_of(void (*fn)(job *j), job *j)
{
    double best = 1e30;
    for (int i = 0; i < ROUNDS + 3; i++) {
        double start = clock_seconds();
        fn(j);
        double t = clock_seconds() - start;
        best = i >= 3 && t < best ? t : best;
    }
    return best;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_step(job *j)
{
    int64_t n = j->o->steps < MAX_STEPS ? j->o->steps : MAX_STEPS;
    double *t = mem_array((size_t)n, sizeof *t);
    for (int i = 0; i < 2; i++)
        train_step(j);
    for (int64_t i = 0; i < n; i++) {
        double start = clock_seconds();
        train_step(j);
        t[i] = clock_seconds() - start;
    }
    qsort(t, (size_t)n, sizeof *t, by_value);
    double median = t[n / 2];
    free(t);
    return median;
}

/* ---- reports ---- */

static void report(const job *j, const char *what, double tokens, double seconds, double share)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    if (!j->o->json) {
        printf("%-8s %5lld x %-8lld %9.1f tokens/s  (%.2f ms)", what, (long long)j->batch,
               (long long)j->seq, tokens / seconds, seconds * 1e3);
        if (share > 0)
            printf("  %.1f %% of peak", 100 * share);
        printf("\n%-24s %9.0f MB device, %.0f MB process\n", "peak memory",
               (double)j->dev->mem_peak / 1e6, (double)use.ru_maxrss / 1e3);
    } else {
        printf("{\"hone\":\"%s\",\"device\":\"%s\",\"shape\":\"%s\",\"dtype\":\"%s\","
               "\"seq\":%lld,\"batch\":%lld,\"tok_s\":%.1f,\"ms\":%.3f,\"share\":%.4f,"
               "\"recompute\":\"%s\",\"peak_gib\":%.3f}\n",
               what, j->dev->name, j->shape->name, kern_dtype_name(j->dtype), (long long)j->seq,
               (long long)j->batch, tokens / seconds, seconds * 1e3, share, j->recompute,
               (double)j->dev->mem_peak / 1073741824.0);
    }
    fflush(stdout);
}

static double train_share(const job *j, double seconds)
{
    double n = bench_shape_linear(j->shape) + bench_shape_head(j->shape);
    return j->o->peak > 0 ? 4 * n * (double)j->o->tokens / seconds / (j->o->peak * 1e12) : 0;
}

/* Segments of `seq` tokens. */
static void cut(job *j, int64_t seq)
{
    const options *o = j->o;
    j->seq = seq;
    j->batch = (o->tokens + seq - 1) / seq;
    j->cu = mem_resize(j->cu, (size_t)(j->batch + 1) * sizeof *j->cu);
    j->n_seg = 0;
    j->cu[0] = 0;
    while (j->cu[j->n_seg] < o->tokens) {
        int64_t end = j->cu[j->n_seg] + seq;
        j->cu[++j->n_seg] = (int32_t)(end < o->tokens ? end : o->tokens);
    }
    for (int64_t i = 0; i < o->tokens; i++)
        j->pos[i] = (int32_t)(i % seq);
}

/* As asked for, or the first kind of recomputation after it that fits. */
static void reserve(job *j)
{
    hone_err e = {0};
    int kind = 0, rc;
    while (kind < RECOMPUTE_FULL && strcmp(recomputes[kind], j->o->recompute) != 0)
        kind++;
    do {
        model_recompute_set(j->m, (model_recompute)kind);
        j->recompute = recomputes[kind];
        rc = model_reserve(j->m, j->o->tokens, &e);
        if (rc == 0)
            rc = model_warm(j->m, j->o->tokens, true, &e);
    } while (rc == HONE_ENOMEM && kind++ < RECOMPUTE_FULL);
    check(rc, &e);
}

static void run_train(job *j)
{
    add_terms(j);
    cut(j, j->o->seq.at[0]);
    reserve(j);
    for (const int64_t *seq = j->o->seq.at; *seq > 0; seq++) {
        cut(j, *seq);
        double t = median_step(j);
        report(j, "train", (double)j->o->tokens, t, train_share(j, t));
    }
}

static void run_serve(job *j, bool pre, bool dec)
{
    hone_err e = {0};
    int64_t most = 1;
    for (const int64_t *b = j->o->batch.at; *b > 0; b++)
        most = *b > most ? *b : most;
    check(model_kv_open(&j->kv, j->m, most * j->seq_blocks, BLOCK, &e), &e);
    j->recompute = "";
    j->batch = 1;
    for (const int64_t *seq = j->o->seq.at; pre && *seq > 0; seq++) {
        j->seq = *seq;
        report(j, "prefill", (double)*seq, best_of(prefill, j), 0);
    }
    j->seq = j->o->context;
    for (const int64_t *b = j->o->batch.at; dec && *b > 0; b++) {
        j->batch = *b;
        report(j, "decode", (double)(DECODED * *b), best_of(decode, j), 0);
    }
    model_kv_close(j->kv);
    j->kv = NULL;
}

/* A card's weights serve both; the CPU packs others where there is a backward pass. */
static void run_all(job *j)
{
    bool train = strstr(j->o->doing, "train") != NULL;
    bool pre = strstr(j->o->doing, "prefill") != NULL, dec = strstr(j->o->doing, "decode") != NULL;
    if (pre || dec) {
        make(j, train && j->dev->records);
        run_serve(j, pre, dec);
    }
    if (train && !j->dev->records)
        drop_model(j);
    if (train && j->m == NULL)
        make(j, true);
    if (train)
        run_train(j);
    drop_model(j);
}

/* ---- set-up ---- */

/* Random ids. */
static void fill(job *j)
{
    const options *o = j->o;
    int64_t longest = o->tokens, reach = o->context + DECODED, most = 1;
    rng r = {.seed = 1};
    for (const int64_t *seq = o->seq.at; *seq > 0; seq++) {
        longest = *seq > longest ? *seq : longest;
        reach = *seq > reach ? *seq : reach;
    }
    for (const int64_t *b = o->batch.at; *b > 0; b++)
        most = *b > most ? *b : most;
    longest = most > longest ? most : longest;
    j->seq_blocks = (reach + BLOCK - 1) / BLOCK;
    j->ids = mem_array((size_t)longest, sizeof *j->ids);
    j->pos = mem_array((size_t)longest, sizeof *j->pos);
    j->target = mem_array((size_t)longest, sizeof *j->target);
    j->blocks = mem_array((size_t)(most * j->seq_blocks), sizeof *j->blocks);
    for (int64_t i = 0; i < longest; i++) {
        j->ids[i] = (int32_t)rng_below(&r, (uint64_t)j->shape->vocab);
        j->target[i] = (int32_t)rng_below(&r, (uint64_t)j->shape->vocab);
    }
    for (int64_t i = 0; i < most * j->seq_blocks; i++)
        j->blocks[i] = (int32_t)i;
}

static void run(const options *o, kern_dtype dtype)
{
    char err[256];
    job j = {.o = o, .shape = bench_shape_find(o->shape), .dtype = dtype};
    const kern_open_args a = {.threads = (int)o->threads};
    if (j.shape == NULL) {
        fprintf(stderr, "bench_model: no shape '%s'\n", o->shape);
        exit(2);
    }
    if (kern_open(&j.dev, o->device, &a, err) != 0) {
        fprintf(stderr, "bench_model: %s\n", err);
        exit(1);
    }
    fill(&j);
    if (!o->json)
        printf("%s, %s, %s\n", j.dev->name, o->shape, kern_dtype_name(dtype));
    run_all(&j);
    kern_close(j.dev);
    free(j.ids);
    free(j.pos);
    free(j.target);
    free(j.cu);
    free(j.blocks);
}

typedef struct row {
    const char *name;
    size_t at;
    char kind; /* s: text, i: whole number above 0, l: some of them, d: number, f: flag */
} row;

/* clang-format off */
static const row rows[] = {
    {"--device",    offsetof(options, device),    's'},
    {"--dtype",     offsetof(options, dtype),     's'},
    {"--shape",     offsetof(options, shape),     's'},
    {"--do",        offsetof(options, doing),     's'},
    {"--recompute", offsetof(options, recompute), 's'},
    {"--threads",   offsetof(options, threads),   'i'},
    {"--tokens",    offsetof(options, tokens),    'i'},
    {"--seq",       offsetof(options, seq),       'l'},
    {"--batch",     offsetof(options, batch),     'l'},
    {"--context",   offsetof(options, context),   'i'},
    {"--steps",     offsetof(options, steps),     'i'},
    {"--peak",      offsetof(options, peak),      'd'},
    {"--json",      offsetof(options, json),      'f'},
};
/* clang-format on */

static bool take_list(list *l, const char *text)
{
    char *end;
    *l = (list){{0}};
    for (int n = 0; n + 1 < MAX_LIST; n++) {
        l->at[n] = strtoll(text, &end, 10);
        if (end == text || l->at[n] < 1)
            return false;
        if (*end == '\0')
            return true;
        text = end + (*end == ',');
    }
    return false;
}

static bool take(options *o, const row *r, const char *value)
{
    char *p = (char *)o + r->at, *end;
    if (r->kind == 'f') {
        *(bool *)p = true;
        return true;
    }
    if (value == NULL)
        return false;
    if (r->kind == 's') {
        *(const char **)(void *)p = value;
        return true;
    }
    if (r->kind == 'l')
        return take_list((list *)(void *)p, value);
    double d = strtod(value, &end);
    if (*end != '\0' || d <= 0)
        return false;
    if (r->kind == 'i')
        *(int64_t *)(void *)p = (int64_t)d;
    else
        *(double *)(void *)p = d;
    return true;
}

static bool parse(options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        size_t k = 0, n = sizeof rows / sizeof *rows;
        while (k < n && strcmp(rows[k].name, argv[i]) != 0)
            k++;
        if (k == n || !take(o, &rows[k], argv[i + 1]))
            return false;
        i += rows[k].kind != 'f';
    }
    return true;
}

int main(int argc, char **argv)
{
    options o = {.device = "cpu",
                 .dtype = "f32,bf16",
                 .shape = "smollm2-135m",
                 .doing = "train,prefill,decode",
                 .recompute = "selective",
                 .threads = 2,
                 .tokens = 512,
                 .seq = {{512}},
                 .batch = {{1}},
                 .context = 256,
                 .steps = 5};
    if (!parse(&o, argc, argv)) {
        fprintf(stderr, "bench_model: see the top of its source for its options\n");
        return 2;
    }
    if (strstr(o.dtype, "f32") != NULL)
        run(&o, KERN_F32);
    if (strstr(o.dtype, "bf16") != NULL)
        run(&o, KERN_BF16);
    return 0;
}
