/* A whole model in the shape of SmolLM2-135M with random weights, on the CPU: a LoRA step (rank 16
 * beside every linear, one packed segment of 512, loss on every token), a prefill of 512 and
 * decoding at a context of 256, with peak memory.
 *
 *     bench_model [f32|bf16] [threads]      both dtypes and 2 threads where nothing is said */
#include "core/base/clock.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { TOKENS = 512, CONTEXT = 256, RANK = 16, BLOCK = 16, DECODED = 32 };

static const char config_text[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":576,\"intermediate_size\":1536,"
    "\"num_hidden_layers\":30,\"num_attention_heads\":9,\"num_key_value_heads\":3,"
    "\"vocab_size\":49152,\"max_position_embeddings\":2048,\"rms_norm_eps\":1e-5,"
    "\"rope_theta\":10000.0,\"tie_word_embeddings\":true}";

typedef struct job {
    model *m;
    model_kv *kv;
    kern_lora *terms;
    param_list params;
    int32_t ids[TOKENS], pos[TOKENS], target[TOKENS], blocks[TOKENS / BLOCK];
} job;

static void check(int rc, const hone_err *e)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s\n", e->msg);
    exit(1);
}

static model *make(kern_dev *dev, kern_dtype dtype, bool backward)
{
    hone_err e = {0};
    json_t *config;
    model *m;
    const model_options o = {
        .dev = dev, .dtype = dtype, .backward = backward, .recompute = RECOMPUTE_SELECTIVE};
    check(js_parse(&config, config_text, strlen(config_text), &e), &e);
    check(model_create(&m, config, 1, &o, &e), &e);
    json_decref(config);
    return m;
}

static void add_terms(job *j)
{
    hone_err e = {0};
    size_t n = model_n_sites(j->m);
    j->terms = mem_array(n, sizeof *j->terms);
    param_list_init(&j->params, model_device(j->m));
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
}

static void train_step(job *j)
{
    hone_err e = {0};
    const int32_t cu[] = {0, TOKENS};
    const model_batch b = {.n = TOKENS,
                           .ids = j->ids,
                           .pos = j->pos,
                           .target = j->target,
                           .cu = cu,
                           .n_seg = 1,
                           .training = true};
    check(model_backward(j->m, &b, NULL, &e), &e);
}

static void forward(job *j, int from, int n)
{
    hone_err e = {0};
    kern_tensor logits;
    float one;
    const int32_t q_start[] = {0, n}, kv_len[] = {from + n}, row[] = {n - 1};
    const model_step s = {.n = n,
                          .ids = j->ids,
                          .pos = j->pos + from,
                          .n_seq = 1,
                          .q_start = q_start,
                          .kv_len = kv_len,
                          .blocks = j->blocks,
                          .max_blocks = TOKENS / BLOCK,
                          .n_out = 1,
                          .out_row = row};
    check(model_forward(j->m, j->kv, &s, &logits, &e), &e);
    kern_do(model_device(j->m), read, &one, logits.data, sizeof one); /* waits */
}

static void prefill(job *j)
{
    forward(j, 0, TOKENS);
}

static void decode(job *j)
{
    for (int i = 0; i < DECODED; i++)
        forward(j, CONTEXT + i, 1);
}

static void report(const char *what, int tokens, void (*fn)(job *j), job *j)
{
    double best = 1e30;
    fn(j);
    for (int i = 0; i < 5; i++) {
        double start = clock_seconds();
        fn(j);
        double t = clock_seconds() - start;
        best = t < best ? t : best;
    }
    printf("%-24s %9.1f tokens/s  (%.1f ms)\n", what, tokens / best, best * 1e3);
    fflush(stdout);
}

static void run(kern_dtype dtype, int threads)
{
    char err[256];
    kern_dev *dev;
    hone_err e = {0};
    struct rusage use;
    job *j = mem_alloc(sizeof *j);
    rng r = {.seed = 1};
    if (kern_open(&dev, "cpu", &(kern_open_args){.threads = threads}, err) != 0) {
        fprintf(stderr, "%s\n", err);
        exit(1);
    }
    for (int i = 0; i < TOKENS; i++) {
        j->ids[i] = (int32_t)rng_below(&r, 49152);
        j->target[i] = (int32_t)rng_below(&r, 49152);
        j->pos[i] = i;
    }
    for (int i = 0; i < TOKENS / BLOCK; i++)
        j->blocks[i] = i;
    printf("%s, %s\n", dev->name, kern_dtype_name(dtype));
    double start = clock_seconds();
    j->m = make(dev, dtype, true);
    printf("%-24s %9.2f s\n", "made in", clock_seconds() - start);
    add_terms(j);
    report("LoRA step", TOKENS, train_step, j);
    getrusage(RUSAGE_SELF, &use);
    printf("%-24s %9.0f MB device, %.0f MB process\n", "peak memory", (double)dev->mem_peak / 1e6,
           (double)use.ru_maxrss / 1e3);
    model_close(j->m);
    param_list_free(&j->params);
    free(j->terms);

    j->m = make(dev, dtype, false);
    check(model_kv_open(&j->kv, j->m, TOKENS / BLOCK, BLOCK, &e), &e);
    report("prefill", TOKENS, prefill, j);
    report("decode", DECODED, decode, j);
    model_kv_close(j->kv);
    model_close(j->m);
    kern_close(dev);
    free(j);
}

int main(int argc, char **argv)
{
    int threads = argc > 2 ? atoi(argv[2]) : 2;
    if (argc < 2 || strcmp(argv[1], "f32") == 0)
        run(KERN_F32, threads);
    if (argc < 2 || strcmp(argv[1], "bf16") == 0)
        run(KERN_BF16, threads);
    return 0;
}
