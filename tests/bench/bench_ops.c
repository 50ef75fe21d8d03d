/* Speed of the CPU's ops in the shape of SmolLM2-135M, beside what the machine can do at best in
 * the same process:
 *
 *     bench_ops [f32|bf16] [threads]
 *
 * Every line is the best of several runs. With one thread the clock is the processor's, so that
 * other programs on the machine do not count (but for what they take from its caches). The last
 * lines add the ops up to tokens a second of a LoRA step (rank 16 on all linears, one segment of
 * 512, loss on every token), of a prefill of 512 and of decoding at a context of 256. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "kernels/kern.h"

enum {
    HIDDEN = 576,
    INTER = 1536,
    HEADS = 9,
    KV_HEADS = 3,
    DIM = 64,
    VOCAB = 49152,
    LAYERS = 30,
    RANK = 16,
    TOKENS = 512,
    CONTEXT = 256,
    SETS = 8, /* different weights in turn, so that no cache holds them all */
};

static double seconds(int threads)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the machine ----------------------------------------------------------------------------- */

#if defined(__x86_64__)
#include <immintrin.h>

#define PEAK(name, isa, type, zero, step)                                                          \
    __attribute__((target(isa))) static float name(long n)                                         \
    {                                                                                              \
        type a[12];                                                                                \
        for (int i = 0; i < 12; i++)                                                               \
            a[i] = zero;                                                                           \
        for (long k = 0; k < n; k++) {                                                             \
            _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = step(a[i]);               \
            __asm__ volatile("" : : "v"(a[0]));                                                    \
        }                                                                                          \
        float s = 0, t[16];                                                                        \
        for (int i = 0; i < 12; i++) {                                                             \
            memcpy(t, &a[i], sizeof a[i]);                                                         \
            s += t[0];                                                                             \
        }                                                                                          \
        return s;                                                                                  \
    }
#define FMA256(a) _mm256_fmadd_ps(_mm256_set1_ps(1e-9F), _mm256_set1_ps(0.5F), a)
#define FMA512(a) _mm512_fmadd_ps(_mm512_set1_ps(1e-9F), _mm512_set1_ps(0.5F), a)
#define DOT512(a)                                                                                  \
    _mm512_dpbf16_ps(a, (__m512bh)_mm512_set1_ps(1e-9F), (__m512bh)_mm512_set1_ps(0.5F))
PEAK(peak_avx2, "avx2,fma", __m256, _mm256_setzero_ps(), FMA256)
PEAK(peak_avx512, "avx512f", __m512, _mm512_setzero_ps(), FMA512)
PEAK(peak_bf16, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), DOT512)
#endif

/* GFLOP/s of a register-only loop on all threads. */
static double peak_of(float (*loop)(long), double flops, int threads)
{
    double best = 0;
    enum { N = 1000000 };
    for (int r = 0; r < 8; r++) {
        double t = seconds(threads);
        float sink = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sink)
        sink += loop(N);
        t = seconds(threads) - t;
        if (sink > -1 && flops * N * 12 * threads / t > best)
            best = flops * N * 12 * threads / t;
    }
    return best * 1e-9;
}

static double peak_flops(kern_dtype t, int threads)
{
#if defined(__x86_64__)
    if (t == KERN_BF16 && __builtin_cpu_supports("avx512bf16"))
        return peak_of(peak_bf16, 64, threads);
    if (__builtin_cpu_supports("avx512f"))
        return peak_of(peak_avx512, 32, threads);
    if (__builtin_cpu_supports("avx2"))
        return peak_of(peak_avx2, 16, threads);
#endif
    (void)t;
    return 1;
}

/* GB/s of reading memory that no cache holds. */
static double peak_read(int threads)
{
    enum { MB = 256 };
    size_t n = (size_t)MB << 17;
    uint64_t *p = mem_alloc(n * 8);
    double best = 0;
    for (size_t i = 0; i < n; i += 8)
        p[i] = i;
    for (int r = 0; r < 5; r++) {
        double t = seconds(threads);
        uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum) schedule(static)
        for (size_t i = 0; i < n; i += 8)
            sum += p[i];
        t = seconds(threads) - t;
        if (sum > 0 && (double)n * 8 / t > best)
            best = (double)n * 8 / t;
    }
    free(p);
    return best * 1e-9;
}

/* ---- the model's operands -------------------------------------------------------------------- */

enum { W_QKV, W_O, W_GU, W_DOWN, N_LINEAR };

static const struct {
    const char *name;
    int parts;
    int64_t in, out[KERN_MAX_PARTS];
} linears[N_LINEAR] = {
    {"q|k|v", 3, HIDDEN, {HEADS * DIM, KV_HEADS *DIM, KV_HEADS *DIM}},
    {"o", 1, HEADS *DIM, {HIDDEN}},
    {"gate|up", 2, HIDDEN, {INTER, INTER}},
    {"down", 1, INTER, {HIDDEN}},
};

typedef struct bench {
    kern_dev *d;
    kern_dtype t;
    double flops, bytes; /* peaks: GFLOP/s, GB/s */
    kern_weight *w[SETS][N_LINEAR], *head;
    kern_lora lora[N_LINEAR][KERN_MAX_PARTS];
    char *x, *y, *z; /* activations, TOKENS x 2 INTER each at most */
    float *f, *norm, *lse;
    int32_t *ints;
    kern_kv *kv;
    int set;
} bench;

static void must(bench *b, int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench_ops: %s\n", b->d->err);
    exit(1);
}

static void *device_random(bench *b, kern_dtype t, size_t n, float scale)
{
    void *p, *host = mem_alloc(n * 4);
    rng r = {.seed = 3, .stream = n};
    for (size_t i = 0; i < n; i++) {
        float f = scale * ((float)(rng_u32(&r) >> 8) * 0x1p-23F - 1);
        uint32_t u;
        memcpy(&u, &f, 4);
        if (t == KERN_F32)
            memcpy((float *)host + i, &f, 4);
        else
            ((uint16_t *)host)[i] = (uint16_t)(u >> 16);
    }
    size_t bytes = n * kern_dtype_size(t);
    must(b, kern_do(b->d, alloc, bytes, &p));
    must(b, kern_do(b->d, write, p, host, bytes));
    free(host);
    return p;
}

static kern_weight *weight(bench *b, int parts, const int64_t *out, int64_t in)
{
    kern_weight *w;
    kern_weight_desc desc = {.n_parts = parts, .compute = b->t, .need_dx = true};
    void *p[KERN_MAX_PARTS];
    for (int i = 0; i < parts; i++) {
        p[i] = device_random(b, b->t, (size_t)(out[i] * in), 0.05F);
        desc.part[i] = kern_mat(b->t, out[i], in, p[i]);
    }
    kern_weight_new_args a = {&desc, &w};
    must(b, kern_do(b->d, weight_new, &a));
    for (int i = 0; i < parts; i++)
        kern_do(b->d, release, p[i]);
    return w;
}

static void loras(bench *b, int l)
{
    for (int p = 0; p < linears[l].parts; p++) {
        int64_t in = linears[l].in, out = linears[l].out[p];
        float *m = device_random(b, KERN_F32, (size_t)(2 * RANK * (in + out)), 0.02F);
        b->lora[l][p] = (kern_lora){.A = kern_mat(KERN_F32, RANK, in, m),
                                    .B = kern_mat(KERN_F32, out, RANK, m + RANK * in),
                                    .dA = kern_mat(KERN_F32, RANK, in, m + RANK * (in + out)),
                                    .dB = kern_mat(KERN_F32, out, RANK, m + RANK * (2 * in + out)),
                                    .scale = 2};
    }
}

static void build(bench *b)
{
    static const int64_t vocab = VOCAB;
    for (int s = 0; s < SETS; s++)
        for (int l = 0; l < N_LINEAR; l++)
            b->w[s][l] = weight(b, linears[l].parts, linears[l].out, linears[l].in);
    b->head = weight(b, 1, &vocab, HIDDEN);
    for (int l = 0; l < N_LINEAR; l++)
        loras(b, l);
    size_t n = (size_t)TOKENS * 2 * INTER;
    b->x = device_random(b, b->t, n, 1);
    b->y = device_random(b, b->t, n, 1);
    b->z = device_random(b, b->t, n, 1);
    b->f = device_random(b, KERN_F32, n, 1);
    b->norm = device_random(b, KERN_F32, HIDDEN, 1);
    b->lse = device_random(b, KERN_F32, (size_t)TOKENS * HEADS, 1);
    must(b, kern_do(b->d, alloc, TOKENS * 4 * sizeof *b->ints, (void **)&b->ints));
    for (int i = 0; i < TOKENS; i++)
        b->ints[i] = i;
    kern_kv_new_args a = {.n_layers = SETS,
                          .n_kv = KV_HEADS,
                          .d = DIM,
                          .block_tokens = 16,
                          .n_blocks = TOKENS / 16,
                          .dtype = b->t,
                          .out = &b->kv};
    must(b, kern_do(b->d, kv_new, &a));
}

/* ---- timing ---------------------------------------------------------------------------------- */

/* One op, ready to run: seconds of the best call; prints a line. */
typedef struct timed {
    const char *name;
    double flops, bytes;
    int (*call)(bench *b, int64_t n, int which);
    int which;
} timed;

static double measure(bench *b, const timed *t, int64_t n)
{
    double best = 1e9, began = seconds(b->d->threads);
    for (int i = 0; i < 3 || (i < 400 && seconds(b->d->threads) - began < 0.05); i++) {
        b->set = (b->set + 1) % SETS;
        double s = seconds(b->d->threads);
        must(b, t->call(b, n, t->which));
        s = seconds(b->d->threads) - s;
        best = s < best ? s : best;
    }
    printf("  %-14s n %4lld %10.1f us", t->name, (long long)n, best * 1e6);
    if (t->flops > 0)
        printf("  %8.1f GFLOP/s  %3.0f %%", t->flops / best * 1e-9,
               t->flops / best * 1e-7 / b->flops);
    if (t->bytes > 0)
        printf("  %8.1f GB/s  %3.0f %%", t->bytes / best * 1e-9, t->bytes / best * 1e-7 / b->bytes);
    printf("\n");
    fflush(stdout);
    return best;
}

/* ---- calls ----------------------------------------------------------------------------------- */

static kern_tensor act_of(const bench *b, char *p, int64_t n, int64_t cols)
{
    return kern_mat(b->t, n, cols, p);
}

static int64_t out_of(int l)
{
    int64_t n = 0;
    for (int p = 0; p < linears[l].parts; p++)
        n += linears[l].out[p];
    return n;
}

static kern_linear linear_of(bench *b, int64_t n, int l, bool lora)
{
    kern_linear a = {.w = b->w[b->set][l],
                     .x = act_of(b, b->x, n, linears[l].in),
                     .y = act_of(b, b->y, n, out_of(l)),
                     .xa = kern_mat(KERN_F32, n, RANK * linears[l].parts, b->f)};
    for (int p = 0; p < linears[l].parts && lora; p++)
        a.lora[p] = &b->lora[l][p];
    return a;
}

static int call_linear(bench *b, int64_t n, int l)
{
    kern_linear a = linear_of(b, n, l, false);
    return kern_do(b->d, linear, &a);
}

static int call_lora(bench *b, int64_t n, int l)
{
    kern_linear a = linear_of(b, n, l, true);
    return kern_do(b->d, linear, &a);
}

static int call_lora_grad(bench *b, int64_t n, int l)
{
    kern_linear_grad a = {.f = linear_of(b, n, l, true),
                          .dy = act_of(b, b->y, n, out_of(l)),
                          .dx = act_of(b, b->z, n, linears[l].in)};
    return kern_do(b->d, linear_grad, &a);
}

static int call_norm(bench *b, int64_t n, int which)
{
    (void)which;
    kern_norm a = {.x = act_of(b, b->x, n, HIDDEN),
                   .add = act_of(b, b->y, n, HIDDEN),
                   .weight = kern_mat(KERN_F32, 1, HIDDEN, b->norm),
                   .eps = 1e-5F,
                   .res = act_of(b, b->z, n, HIDDEN),
                   .y = act_of(b, b->z + (size_t)TOKENS * INTER * 2, n, HIDDEN),
                   .rstd = kern_mat(KERN_F32, n, 1, b->f)};
    return kern_do(b->d, norm, &a);
}

static int call_norm_grad(bench *b, int64_t n, int which)
{
    (void)which;
    kern_norm_grad a = {.dy = act_of(b, b->x, n, HIDDEN),
                        .res = act_of(b, b->y, n, HIDDEN),
                        .weight = kern_mat(KERN_F32, 1, HIDDEN, b->norm),
                        .rstd = kern_mat(KERN_F32, n, 1, b->f),
                        .dres = act_of(b, b->z, n, HIDDEN),
                        .dx = act_of(b, b->z, n, HIDDEN)};
    return kern_do(b->d, norm_grad, &a);
}

enum { QKV = (HEADS + 2 * KV_HEADS) * DIM };

static kern_qk qk_of(bench *b, int64_t n, bool cache)
{
    kern_tensor qkv = act_of(b, b->x, n, QKV), out = act_of(b, b->y, n, QKV);
    kern_qk a = {.q = kern_cols(&qkv, 0, HEADS * DIM),
                 .k = kern_cols(&qkv, HEADS * DIM, KV_HEADS * DIM),
                 .v = kern_cols(&qkv, (HEADS + KV_HEADS) * DIM, KV_HEADS * DIM),
                 .n_q = HEADS,
                 .n_kv = KV_HEADS,
                 .d = DIM,
                 .pos = b->ints,
                 .cos = kern_mat(KERN_F32, TOKENS, DIM / 2, b->f),
                 .sin = kern_mat(KERN_F32, TOKENS, DIM / 2, b->f + TOKENS * DIM),
                 .q_out = kern_cols(&out, 0, HEADS * DIM),
                 .k_out = kern_cols(&out, HEADS * DIM, KV_HEADS * DIM)};
    if (cache) {
        a.kv = b->kv;
        a.layer = b->set;
        a.slot = b->ints;
    }
    return a;
}

static int call_qk(bench *b, int64_t n, int cache)
{
    kern_qk a = qk_of(b, n, cache != 0);
    return kern_do(b->d, qk, &a);
}

static int call_qk_grad(bench *b, int64_t n, int which)
{
    (void)which;
    kern_tensor g = act_of(b, b->z, n, QKV);
    kern_qk_grad a = {.f = qk_of(b, n, false),
                      .dq = kern_cols(&g, 0, HEADS * DIM),
                      .dk = kern_cols(&g, HEADS * DIM, KV_HEADS * DIM)};
    return kern_do(b->d, qk_grad, &a);
}

static const int32_t one_segment[2] = {0, TOKENS};

static kern_attn attn_of(bench *b, int64_t n)
{
    kern_tensor qkv = act_of(b, b->x, n, QKV);
    return (kern_attn){.q = kern_cols(&qkv, 0, HEADS * DIM),
                       .k = kern_cols(&qkv, HEADS * DIM, KV_HEADS * DIM),
                       .v = kern_cols(&qkv, (HEADS + KV_HEADS) * DIM, KV_HEADS * DIM),
                       .n_q = HEADS,
                       .n_kv = KV_HEADS,
                       .d = DIM,
                       .cu = one_segment,
                       .n_seg = 1,
                       .max_len = n,
                       .scale = 0.125F,
                       .out = act_of(b, b->y, n, HEADS * DIM),
                       .lse = kern_mat(KERN_F32, n, HEADS, b->lse)};
}

static int call_attn(bench *b, int64_t n, int which)
{
    (void)which;
    kern_attn a = attn_of(b, n);
    return kern_do(b->d, attn, &a);
}

static int call_attn_grad(bench *b, int64_t n, int which)
{
    (void)which;
    kern_tensor g = act_of(b, b->z, n, QKV);
    kern_attn_grad a = {.f = attn_of(b, n),
                        .dout = act_of(b, b->z + (size_t)TOKENS * QKV * 4, n, HEADS * DIM),
                        .dq = kern_cols(&g, 0, HEADS * DIM),
                        .dk = kern_cols(&g, HEADS * DIM, KV_HEADS * DIM),
                        .dv = kern_cols(&g, (HEADS + KV_HEADS) * DIM, KV_HEADS * DIM)};
    return kern_do(b->d, attn_grad, &a);
}

static int call_paged(bench *b, int64_t n, int which)
{
    (void)which;
    const int32_t start[2] = {0, (int32_t)n}, len = CONTEXT;
    kern_paged a = {.q = act_of(b, b->x, n, HEADS * DIM),
                    .n_q = HEADS,
                    .n_kv = KV_HEADS,
                    .d = DIM,
                    .kv = b->kv,
                    .layer = b->set,
                    .n_seq = 1,
                    .q_start = start,
                    .kv_len = &len,
                    .blocks = b->ints,
                    .max_blocks = TOKENS / 16,
                    .scale = 0.125F,
                    .out = act_of(b, b->y, n, HEADS * DIM)};
    return kern_do(b->d, paged, &a);
}

static int call_act(bench *b, int64_t n, int which)
{
    (void)which;
    kern_act a = {
        .kind = KERN_SILU, .gu = act_of(b, b->x, n, 2 * INTER), .h = act_of(b, b->y, n, INTER)};
    return kern_do(b->d, act, &a);
}

static int call_act_grad(bench *b, int64_t n, int which)
{
    (void)which;
    kern_act_grad a = {.f = {KERN_SILU, act_of(b, b->x, n, 2 * INTER), act_of(b, b->y, n, INTER)},
                       .dh = act_of(b, b->y, n, INTER),
                       .dgu = act_of(b, b->z, n, 2 * INTER)};
    return kern_do(b->d, act_grad, &a);
}

static int call_head(bench *b, int64_t n, int grad)
{
    kern_head a = {.w = b->head,
                   .x = act_of(b, b->x, n, HIDDEN),
                   .n_rows = n,
                   .row = b->ints,
                   .target = b->ints,
                   .coef = b->f,
                   .logp = b->lse};
    if (grad)
        a.dx = act_of(b, b->z, n, HIDDEN);
    return kern_do(b->d, head, &a);
}

static int call_logits(bench *b, int64_t n, int which)
{
    (void)which;
    kern_logits a = {.w = b->head,
                     .x = act_of(b, b->x, n, HIDDEN),
                     .n_rows = n,
                     .logits = kern_mat(KERN_F32, n, VOCAB, b->f)};
    return kern_do(b->d, logits, &a);
}

/* ---- the three workloads --------------------------------------------------------------------- */

static double run_linears(bench *b, int64_t n, int (*call)(bench *b, int64_t n, int which),
                          double times, bool memory)
{
    double s = 0;
    for (int l = 0; l < N_LINEAR; l++) {
        double size = (double)(linears[l].in * out_of(l));
        timed t = {linears[l].name, memory ? 0 : times * 2 * size * (double)n,
                   memory ? size * (double)kern_dtype_size(b->t) : 0, call, l};
        s += measure(b, &t, n);
    }
    return s;
}

static double run_list(bench *b, int64_t n, const timed *t, int count)
{
    double s = 0;
    for (int i = 0; i < count; i++)
        s += measure(b, &t[i], n);
    return s;
}

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static double element_bytes(const bench *b, double cols)
{
    return TOKENS * cols * (double)kern_dtype_size(b->t);
}

static void bench_train(bench *b)
{
    const double pairs = (double)TOKENS * TOKENS / 2 * HEADS * DIM,
                 head = 2.0 * TOKENS * HIDDEN * VOCAB;
    const timed forward[] = {
        {"norm", 0, element_bytes(b, 4.0 * HIDDEN), call_norm, 0},
        {"norm", 0, element_bytes(b, 4.0 * HIDDEN), call_norm, 0},
        {"qk", 0, element_bytes(b, 2.0 * (HEADS + KV_HEADS) * DIM), call_qk, 0},
        {"attn", 4 * pairs, 0, call_attn, 0},
        {"act", 0, element_bytes(b, 3.0 * INTER), call_act, 0},
    };
    const timed backward[] = {
        {"norm_grad", 0, element_bytes(b, 4.0 * HIDDEN), call_norm_grad, 0},
        {"norm_grad", 0, element_bytes(b, 4.0 * HIDDEN), call_norm_grad, 0},
        {"qk_grad", 0, element_bytes(b, 2.0 * (HEADS + KV_HEADS) * DIM), call_qk_grad, 0},
        {"attn_grad", 10 * pairs, 0, call_attn_grad, 0},
        {"act_grad", 0, element_bytes(b, 5.0 * INTER), call_act_grad, 0},
    };
    const timed loss = {"head, grad", 2 * head, 0, call_head, 1};
    printf("train: LoRA r%d\n", RANK);
    double s =
        run_linears(b, TOKENS, call_lora, 1, false) + run_list(b, TOKENS, forward, COUNT(forward));
    printf("train: backward\n");
    double g = run_linears(b, TOKENS, call_lora_grad, 1, false) +
               run_list(b, TOKENS, backward, COUNT(backward));
    double h = measure(b, &loss, TOKENS), all = LAYERS * (s + g) + h;
    printf("  forward %.1f ms, backward %.1f ms, head %.1f ms: %.0f tokens/s; forward run twice: "
           "%.0f\n",
           LAYERS * s * 1e3, LAYERS * g * 1e3, h * 1e3, TOKENS / all, TOKENS / (all + LAYERS * s));
}

static void bench_serve(bench *b)
{
    const double pairs = (double)TOKENS * TOKENS / 2 * HEADS * DIM;
    const timed prefill[] = {
        {"norm", 0, element_bytes(b, 4.0 * HIDDEN), call_norm, 0},
        {"norm", 0, element_bytes(b, 4.0 * HIDDEN), call_norm, 0},
        {"qk, cache", 0, element_bytes(b, 2.0 * (HEADS + KV_HEADS) * DIM), call_qk, 1},
        {"attn", 4 * pairs, 0, call_attn, 0},
        {"act", 0, element_bytes(b, 3.0 * INTER), call_act, 0},
    };
    const timed decode[] = {
        {"norm", 0, 0, call_norm, 0},    {"norm", 0, 0, call_norm, 0},
        {"qk, cache", 0, 0, call_qk, 1}, {"paged", 0, 0, call_paged, 0},
        {"act", 0, 0, call_act, 0},
    };
    const double row = (double)HIDDEN * VOCAB;
    const timed logits = {"logits", 0, row * (double)kern_dtype_size(b->t), call_logits, 0};
    printf("prefill\n");
    double p = run_linears(b, TOKENS, call_linear, 1, false) +
               run_list(b, TOKENS, prefill, COUNT(prefill));
    printf("decode\n");
    double s = run_linears(b, 1, call_linear, 1, true) + run_list(b, 1, decode, COUNT(decode));
    double l = measure(b, &logits, 1);
    printf("  prefill %.0f tokens/s, decode %.0f tokens/s\n", TOKENS / (LAYERS * p + l),
           1 / (LAYERS * s + l));
    s = run_linears(b, 8, call_linear, 1, true) + run_list(b, 8, decode, COUNT(decode));
    l = measure(b, &logits, 8);
    printf("  decode of 8 together %.0f tokens/s\n", 8 / (LAYERS * s + l));
}

int main(int argc, char **argv)
{
    char err[256];
    kern_open_args a = {.threads = argc > 2 ? atoi(argv[2]) : 0};
    bench b = {.t = argc > 1 && strcmp(argv[1], "f32") == 0 ? KERN_F32 : KERN_BF16};
    if (kern_open(&b.d, "cpu", &a, err) != 0) {
        fprintf(stderr, "bench_ops: %s\n", err);
        return 1;
    }
    b.flops = peak_flops(b.t, b.d->threads);
    b.bytes = peak_read(b.d->threads);
    printf("%s, %s: peak %.0f GFLOP/s in registers, %.1f GB/s read\n", b.d->name,
           kern_dtype_name(b.t), b.flops, b.bytes);
    build(&b);
    bench_train(&b);
    bench_serve(&b);
    printf("device memory: %.0f MB at most\n", (double)b.d->mem_peak * 1e-6);
    for (int s = 0; s < SETS; s++)
        for (int l = 0; l < N_LINEAR; l++)
            kern_do(b.d, weight_free, b.w[s][l]);
    kern_do(b.d, weight_free, b.head);
    kern_do(b.d, kv_free, b.kv);
    kern_close(b.d);
    return 0;
}
