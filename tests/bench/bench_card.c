/* Ops at the size of a training step and of decoding, for a card: every op is called many times
 * between two waits, so that what is timed is the device.
 *
 *     bench_card [--device cuda] [--shape llama-3.1-8b] [--tokens 16384] [--seq 2048]
 *         [--peak TFLOP/s] [--bandwidth GB/s]
 *
 * A line: the op, microseconds, TFLOP/s or GB/s and the share of the ceiling that was given (of
 * tests/bench/gpu/ceilings.py in the same run). Bytes are what must move once. Without a card it
 * runs on --device cpu, with a small --shape and --tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "kernels/kern.h"
#include "tests/bench/shapes.h"

enum { RANK = 16, CONTEXT = 1024, BLOCK = 16, MOST_ROWS = 64 };

typedef struct bench {
    kern_dev *d;
    const bench_shape *s;
    int64_t n, seq;         /* tokens, of a segment */
    double peak, bandwidth; /* TFLOP/s, GB/s; 0: not given */
    kern_weight *qkv, *gu, *down, *head;
    kern_lora lora[KERN_MAX_PARTS];
    char *x, *y, *z;       /* BF16 activations, room for [n, widest] each */
    float *norm, *f, *lse; /* f: [n, widest rank or rope] */
    int32_t *seq_ints;     /* 0, 1, 2 ... */
    int32_t *pos, *cu, *start, *len;
    kern_kv *kv;
} bench;

static void must(const bench *b, int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench_card: %s\n", b->d->err);
    exit(1);
}

/* ---- operands -------------------------------------------------------------------------------- */

static void *random_on(bench *b, kern_dtype t, size_t n, float scale)
{
    enum { CHUNK = 1 << 20 };
    void *p;
    uint32_t *host = mem_array(CHUNK, sizeof *host);
    size_t e = kern_dtype_size(t);
    rng r = {.seed = 1, .stream = n};
    must(b, kern_do(b->d, alloc, n * e, &p));
    for (size_t i = 0; i < CHUNK; i++) {
        float v = scale * ((float)(rng_u32(&r) >> 8) * 0x1p-23F - 1);
        uint32_t u;
        memcpy(&u, &v, 4);
        if (t == KERN_F32)
            host[i] = u;
        else
            ((uint16_t *)(void *)host)[i] = (uint16_t)(u >> 16);
    }
    for (size_t at = 0; at < n; at += CHUNK)
        must(b, kern_do(b->d, write, (char *)p + at * e, host,
                        (n - at < CHUNK ? n - at : (size_t)CHUNK) * e));
    free(host);
    return p;
}

static int32_t *ints_on(bench *b, const int32_t *host, size_t n)
{
    void *p;
    must(b, kern_do(b->d, alloc, n * sizeof *host, &p));
    must(b, kern_do(b->d, write, p, host, n * sizeof *host));
    return p;
}

static kern_weight *weight_on(bench *b, int parts, const int64_t *out, int64_t in)
{
    kern_weight *w;
    kern_weight_desc desc = {.n_parts = parts, .compute = KERN_BF16, .need_dx = true};
    uint16_t *host[KERN_MAX_PARTS];
    for (int p = 0; p < parts; p++) {
        host[p] = mem_array((size_t)(out[p] * in), sizeof *host[p]);
        for (int64_t i = 0; i < out[p] * in; i++)
            host[p][i] = (uint16_t)(0x3C00 + (i * 2654435761) % 512 + (i % 2 == 0 ? 0 : 0x8000));
        desc.part[p] = kern_mat(KERN_BF16, out[p], in, host[p]);
    }
    kern_weight_new_args a = {&desc, &w};
    must(b, kern_do(b->d, weight_new, &a));
    for (int p = 0; p < parts; p++)
        free(host[p]);
    return w;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t qkv_of(const bench_shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->head_dim;
}

static void build_ints(bench *b)
{
    int64_t n = most(b->n, MOST_ROWS * (CONTEXT / BLOCK)), segs = (b->n + b->seq - 1) / b->seq;
    int32_t *h = mem_array((size_t)n + 1, sizeof *h);
    for (int64_t i = 0; i <= n; i++)
        h[i] = (int32_t)i;
    b->seq_ints = ints_on(b, h, (size_t)n + 1);
    b->start = b->seq_ints;
    for (int64_t i = 0; i < n; i++)
        h[i] = (int32_t)(i % b->seq);
    b->pos = ints_on(b, h, (size_t)n);
    for (int64_t i = 0; i <= segs; i++)
        h[i] = (int32_t)(i * b->seq < b->n ? i * b->seq : b->n);
    b->cu = ints_on(b, h, (size_t)segs + 1);
    for (int64_t i = 0; i < MOST_ROWS; i++)
        h[i] = CONTEXT;
    b->len = ints_on(b, h, MOST_ROWS);
    free(h);
}

static void build(bench *b)
{
    const bench_shape *s = b->s;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const int64_t qkv[] = {q, kv, kv}, gu[] = {s->inter, s->inter};
    int64_t widest = most(most(qkv_of(s), 2 * s->inter), s->hidden);
    size_t room = (size_t)(most(b->n, MOST_ROWS) * widest);
    b->qkv = weight_on(b, 3, qkv, s->hidden);
    b->gu = weight_on(b, 2, gu, s->hidden);
    b->down = weight_on(b, 1, &s->hidden, s->inter);
    b->head = weight_on(b, 1, &s->vocab, s->hidden);
    for (int p = 0; p < 3; p++) {
        float *m = random_on(b, KERN_F32, (size_t)(2 * RANK * (s->hidden + qkv[p])), 0.05F);
        float *B = m + RANK * s->hidden, *dA = B + RANK * qkv[p], *dB = dA + RANK * s->hidden;
        b->lora[p] = (kern_lora){.A = kern_mat(KERN_F32, RANK, s->hidden, m),
                                 .B = kern_mat(KERN_F32, qkv[p], RANK, B),
                                 .dA = kern_mat(KERN_F32, RANK, s->hidden, dA),
                                 .dB = kern_mat(KERN_F32, qkv[p], RANK, dB),
                                 .scale = 2};
    }
    b->x = random_on(b, KERN_BF16, room, 1);
    b->y = random_on(b, KERN_BF16, room, 1);
    b->z = random_on(b, KERN_BF16, room, 1);
    b->norm = random_on(b, KERN_F32, (size_t)s->hidden, 1);
    b->f = random_on(b, KERN_F32, (size_t)most(MOST_ROWS * s->vocab, b->n * 256), 1);
    b->lse = random_on(b, KERN_F32, (size_t)(b->n * s->heads), 1);
    build_ints(b);
    kern_kv_new_args a = {.n_layers = 1,
                          .n_kv = (int)s->kv_heads,
                          .d = (int)s->head_dim,
                          .block_tokens = BLOCK,
                          .n_blocks = MOST_ROWS * (CONTEXT / BLOCK),
                          .dtype = KERN_BF16,
                          .out = &b->kv};
    must(b, kern_do(b->d, kv_new, &a));
}

/* ---- calls ----------------------------------------------------------------------------------- */

static kern_tensor act_of(char *p, int64_t n, int64_t cols)
{
    return kern_mat(KERN_BF16, n, cols, p);
}

static int call_linear(bench *b, int64_t n, const kern_weight *w, int64_t in, int64_t out)
{
    kern_linear a = {.w = w, .x = act_of(b->x, n, in), .y = act_of(b->y, n, out)};
    return kern_do(b->d, linear, &a);
}
static int do_qkv(bench *b, int64_t n)
{
    return call_linear(b, n, b->qkv, b->s->hidden, qkv_of(b->s));
}
static int do_gu(bench *b, int64_t n)
{
    return call_linear(b, n, b->gu, b->s->hidden, 2 * b->s->inter);
}
static int do_down(bench *b, int64_t n)
{
    return call_linear(b, n, b->down, b->s->inter, b->s->hidden);
}

static kern_linear lora_of(bench *b, int64_t n)
{
    kern_linear a = {.w = b->qkv,
                     .x = act_of(b->x, n, b->s->hidden),
                     .y = act_of(b->y, n, qkv_of(b->s)),
                     .xa = kern_mat(KERN_F32, n, 3 * RANK, b->f)};
    for (int p = 0; p < 3; p++)
        a.lora[p] = &b->lora[p];
    return a;
}
static int do_lora(bench *b, int64_t n)
{
    kern_linear a = lora_of(b, n);
    return kern_do(b->d, linear, &a);
}
static int do_lora_grad(bench *b, int64_t n)
{
    kern_linear_grad a = {.f = lora_of(b, n),
                          .dy = act_of(b->y, n, qkv_of(b->s)),
                          .dx = act_of(b->z, n, b->s->hidden)};
    return kern_do(b->d, linear_grad, &a);
}

static int do_norm(bench *b, int64_t n)
{
    int64_t h = b->s->hidden;
    kern_norm a = {.x = act_of(b->x, n, h),
                   .add = act_of(b->y, n, h),
                   .weight = kern_mat(KERN_F32, 1, h, b->norm),
                   .eps = 1e-5F,
                   .res = act_of(b->x, n, h),
                   .y = act_of(b->z, n, h),
                   .rstd = kern_mat(KERN_F32, n, 1, b->f)};
    return kern_do(b->d, norm, &a);
}
static int do_norm_grad(bench *b, int64_t n)
{
    int64_t h = b->s->hidden;
    kern_norm_grad a = {.dy = act_of(b->x, n, h),
                        .res = act_of(b->y, n, h),
                        .weight = kern_mat(KERN_F32, 1, h, b->norm),
                        .rstd = kern_mat(KERN_F32, n, 1, b->f),
                        .dres = act_of(b->z, n, h),
                        .dx = act_of(b->z, n, h)};
    return kern_do(b->d, norm_grad, &a);
}

static kern_attn attn_of(bench *b, int64_t n)
{
    const bench_shape *s = b->s;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    kern_tensor all = act_of(b->x, n, qkv_of(s));
    return (kern_attn){.q = kern_cols(&all, 0, q),
                       .k = kern_cols(&all, q, kv),
                       .v = kern_cols(&all, q + kv, kv),
                       .n_q = (int)s->heads,
                       .n_kv = (int)s->kv_heads,
                       .d = (int)s->head_dim,
                       .cu = b->cu,
                       .n_seg = (int)((n + b->seq - 1) / b->seq),
                       .max_len = b->seq,
                       .scale = 0.1F,
                       .out = act_of(b->y, n, q),
                       .lse = kern_mat(KERN_F32, n, s->heads, b->lse)};
}
static int do_attn(bench *b, int64_t n)
{
    kern_attn a = attn_of(b, n);
    return kern_do(b->d, attn, &a);
}
static int do_attn_grad(bench *b, int64_t n)
{
    const bench_shape *s = b->s;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    kern_tensor all = act_of(b->z, n, qkv_of(s));
    kern_attn_grad a = {.f = attn_of(b, n),
                        .dout = act_of(b->y, n, q),
                        .dq = kern_cols(&all, 0, q),
                        .dk = kern_cols(&all, q, kv),
                        .dv = kern_cols(&all, q + kv, kv)};
    return kern_do(b->d, attn_grad, &a);
}

static int do_qk(bench *b, int64_t n)
{
    kern_attn t = attn_of(b, n);
    int64_t half = b->s->head_dim / 2;
    kern_qk a = {.q = t.q,
                 .k = t.k,
                 .v = t.v,
                 .n_q = t.n_q,
                 .n_kv = t.n_kv,
                 .d = t.d,
                 .pos = b->pos,
                 .cos = kern_mat(KERN_F32, b->seq, half, b->f),
                 .sin = kern_mat(KERN_F32, b->seq, half, b->f),
                 .q_out = t.q,
                 .k_out = t.k};
    return kern_do(b->d, qk, &a);
}

static int do_act(bench *b, int64_t n)
{
    kern_act a = {KERN_SILU, act_of(b->x, n, 2 * b->s->inter), act_of(b->y, n, b->s->inter)};
    return kern_do(b->d, act, &a);
}
static int do_act_grad(bench *b, int64_t n)
{
    kern_act_grad a = {.f = {KERN_SILU, act_of(b->x, n, 2 * b->s->inter), {0}},
                       .dh = act_of(b->y, n, b->s->inter),
                       .dgu = act_of(b->z, n, 2 * b->s->inter)};
    return kern_do(b->d, act_grad, &a);
}

static int do_head(bench *b, int64_t n)
{
    kern_head a = {.w = b->head,
                   .x = act_of(b->x, n, b->s->hidden),
                   .n_rows = n,
                   .row = b->seq_ints,
                   .target = b->pos,
                   .coef = b->lse,
                   .logp = b->f,
                   .dx = act_of(b->z, n, b->s->hidden)};
    return kern_do(b->d, head, &a);
}
static int do_logits(bench *b, int64_t n)
{
    kern_logits a = {.w = b->head,
                     .x = act_of(b->x, n, b->s->hidden),
                     .n_rows = n,
                     .logits = kern_mat(KERN_F32, n, b->s->vocab, b->f)};
    return kern_do(b->d, logits, &a);
}

static int do_paged(bench *b, int64_t n)
{
    kern_attn t = attn_of(b, n);
    kern_paged a = {.q = t.q,
                    .n_q = t.n_q,
                    .n_kv = t.n_kv,
                    .d = t.d,
                    .kv = b->kv,
                    .n_seq = (int)n,
                    .q_start = b->start,
                    .kv_len = b->len,
                    .blocks = b->seq_ints,
                    .max_blocks = CONTEXT / BLOCK,
                    .scale = t.scale,
                    .out = t.out};
    return kern_do(b->d, paged, &a);
}

/* ---- timing ---------------------------------------------------------------------------------- */

typedef struct row {
    const char *name;
    int (*call)(bench *b, int64_t n);
    double flops, bytes; /* of a call of n rows */
} row;

/* Best of five rounds of as many calls as make 20 ms. */
static double seconds_of(bench *b, const row *r, int64_t n)
{
    double best = 1e30;
    int calls = 1;
    for (int round = -2; round < 5; round++) {
        must(b, kern_do(b->d, sync));
        double start = clock_seconds();
        for (int i = 0; i < calls; i++)
            must(b, r->call(b, n));
        must(b, kern_do(b->d, sync));
        double each = (clock_seconds() - start) / calls;
        if (round < 0)
            calls = each < 0.02 ? (int)(0.02 / each) + 1 : 1;
        else
            best = each < best ? each : best;
    }
    return best;
}

static void show(bench *b, const row *r, int64_t n)
{
    double s = seconds_of(b, r, n);
    printf("  %-14s n %6lld %10.1f us", r->name, (long long)n, s * 1e6);
    if (r->flops > 0)
        printf("  %8.1f TFLOP/s", r->flops / s * 1e-12);
    if (r->flops > 0 && b->peak > 0)
        printf("  %3.0f %%", r->flops / s * 1e-10 / b->peak);
    if (r->bytes > 0)
        printf("  %8.1f GB/s", r->bytes / s * 1e-9);
    if (r->bytes > 0 && b->bandwidth > 0)
        printf("  %3.0f %%", r->bytes / s * 1e-7 / b->bandwidth);
    printf("\n");
    fflush(stdout);
}

static void train(bench *b)
{
    const bench_shape *s = b->s;
    double n = (double)b->n, h = (double)s->hidden, i = (double)s->inter, v = (double)s->vocab;
    double q = (double)(s->heads * s->head_dim), kv = (double)(s->kv_heads * s->head_dim);
    double pairs = n * (double)b->seq / 2 * q, lora = 2 * n * 16 * (3 * h + q + 2 * kv);
    const row rows[] = {
        {"q|k|v", do_qkv, 2 * n * h * (q + 2 * kv), 0},
        {"q|k|v, lora", do_lora, 2 * n * h * (q + 2 * kv) + lora, 0},
        {"its gradient", do_lora_grad, 2 * n * h * (q + 2 * kv) + 2 * lora, 0},
        {"gate|up", do_gu, 4 * n * h * i, 0},
        {"down", do_down, 2 * n * h * i, 0},
        {"norm", do_norm, 0, 8 * n * h},
        {"norm_grad", do_norm_grad, 0, 8 * n * h},
        {"qk", do_qk, 0, 4 * n * (q + kv)},
        {"attn", do_attn, 4 * pairs, 0},
        {"attn_grad", do_attn_grad, 10 * pairs, 0},
        {"act", do_act, 0, 6 * n * i},
        {"act_grad", do_act_grad, 0, 10 * n * i},
        {"head, grad", do_head, 4 * n * h * v, 0},
    };
    printf("train, segments of %lld\n", (long long)b->seq);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        show(b, &rows[k], b->n);
}

static void decode(bench *b, int64_t n)
{
    const bench_shape *s = b->s;
    double h = (double)s->hidden, i = (double)s->inter, v = (double)s->vocab;
    double q = (double)(s->heads * s->head_dim), kv = (double)(s->kv_heads * s->head_dim);
    const row rows[] = {
        {"q|k|v", do_qkv, 0, 2 * h * (q + 2 * kv)},
        {"gate|up", do_gu, 0, 4 * h * i},
        {"down", do_down, 0, 2 * h * i},
        {"norm", do_norm, 0, 8 * (double)n * h},
        {"paged", do_paged, 0, 4 * (double)n * CONTEXT * kv},
        {"logits", do_logits, 0, 2 * h * v},
    };
    printf("decode of %lld at a context of %d\n", (long long)n, CONTEXT);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        show(b, &rows[k], n);
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return otherwise;
}

int main(int argc, char **argv)
{
    char err[256];
    /* Alone it is one of the benches of every machine: small, on the CPU. */
    bench b = {.s = bench_shape_find(option(argc, argv, "--shape", "tiny")),
               .n = atoll(option(argc, argv, "--tokens", "512")),
               .seq = atoll(option(argc, argv, "--seq", "128")),
               .peak = atof(option(argc, argv, "--peak", "0")),
               .bandwidth = atof(option(argc, argv, "--bandwidth", "0"))};
    if (b.s == NULL || b.n < 1 || b.seq < 1 || b.seq > b.n) {
        fprintf(stderr, "bench_card: see the top of its source for its options\n");
        return 2;
    }
    if (kern_open(&b.d, option(argc, argv, "--device", "cpu"), NULL, err) != 0) {
        fprintf(stderr, "bench_card: %s\n", err);
        return 1;
    }
    printf("%s, %s, bf16\n", b.d->name, b.s->name);
    build(&b);
    train(&b);
    for (int64_t n = 1; n <= MOST_ROWS; n *= 8)
        decode(&b, n);
    kern_close(b.d); /* takes the memory with it */
    return 0;
}
