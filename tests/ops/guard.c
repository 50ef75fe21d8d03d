#include "tests/ops/guard.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MAX_GUARDS = 64, MAX_REGIONS = 4096, PAGE = 4096 };

typedef struct region {
    char *p;
    size_t bytes;
} region;

/* One device; d NULL: free. Different devices may be used by different threads. */
static struct guard {
    kern_dev *d;
    const kern_ops *ops;
    const kern_backend *from;
    region region[MAX_REGIONS];
    int n;
} guards[MAX_GUARDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct guard *find(const kern_dev *d)
{
    struct guard *found = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_GUARDS && found == NULL; i++)
        if (guards[i].d == d)
            found = &guards[i];
    pthread_mutex_unlock(&lock);
    if (found == NULL)
        abort();
    return found;
}

static size_t pages(size_t bytes)
{
    return bytes / PAGE * PAGE + PAGE;
}

static void protect(const struct guard *g, int how)
{
    for (int i = 0; i < g->n; i++)
        if (mprotect(g->region[i].p, pages(g->region[i].bytes), how) != 0)
            abort();
}

static bool inside(const struct guard *g, const void *p)
{
    for (int i = 0; i < g->n; i++)
        if ((const char *)p >= g->region[i].p &&
            (const char *)p <= g->region[i].p + g->region[i].bytes)
            return true;
    return p == NULL;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static int guard_alloc(kern_dev *d, size_t bytes, void **out)
{
    struct guard *g = find(d);
    *out = NULL;
    void *p = mmap(NULL, pages(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || g->n == MAX_REGIONS) {
        snprintf(d->err, sizeof d->err, "alloc: no memory for %zu bytes", bytes);
        return KERN_ENOMEM;
    }
    g->region[g->n++] = (region){p, bytes};
    d->mem_used += bytes;
    d->mem_peak = d->mem_used > d->mem_peak ? d->mem_used : d->mem_peak;
    *out = p;
    return 0;
}

static int guard_release(kern_dev *d, void *p)
{
    struct guard *g = find(d);
    for (int i = 0; i < g->n; i++) {
        if (g->region[i].p != p)
            continue;
        munmap(p, pages(g->region[i].bytes));
        d->mem_used -= g->region[i].bytes;
        g->region[i] = g->region[--g->n];
        return 0;
    }
    if (p != NULL)
        abort();
    return 0;
}

/* ---- ops ------------------------------------------------------------------------------------- */

/* A field of an op's arguments that points to the device: a tensor, or a plain pointer. */
typedef struct field {
    const char *name;
    size_t offset;
    bool tensor;
} field;

#define T(type, f)                                                                                 \
    {                                                                                              \
#type "." #f, offsetof(type, f), true                                                      \
    }
#define P(type, f)                                                                                 \
    {                                                                                              \
#type "." #f, offsetof(type, f), false                                                     \
    }
#define END                                                                                        \
    {                                                                                              \
        NULL, 0, false                                                                             \
    }

/* clang-format off */
static const field weight_update_f[] = {T(kern_weight_update_args, src), T(kern_weight_update_args, bias), END};
static const field linear_f[] = {T(kern_linear, x), T(kern_linear, y), T(kern_linear, xa), P(kern_linear, rng), END};
static const field linear_grad_f[] = {
    T(kern_linear_grad, f.x), T(kern_linear_grad, f.xa), P(kern_linear_grad, f.rng), T(kern_linear_grad, dy), T(kern_linear_grad, dx),
    T(kern_linear_grad, dw[0]), T(kern_linear_grad, dw[1]), T(kern_linear_grad, dw[2]), T(kern_linear_grad, dw[3]),
    T(kern_linear_grad, db[0]), T(kern_linear_grad, db[1]), T(kern_linear_grad, db[2]), T(kern_linear_grad, db[3]), END};
static const field embed_f[] = {T(kern_embed, table), P(kern_embed, ids), T(kern_embed, x), END};
static const field embed_grad_f[] = {P(kern_embed_grad, ids), T(kern_embed_grad, dx), T(kern_embed_grad, dtable), END};
static const field norm_f[] = {T(kern_norm, x), T(kern_norm, add), T(kern_norm, weight), T(kern_norm, res), T(kern_norm, y), T(kern_norm, rstd), END};
static const field norm_grad_f[] = {
    T(kern_norm_grad, dy), T(kern_norm_grad, res), T(kern_norm_grad, weight), T(kern_norm_grad, rstd),
    T(kern_norm_grad, dres), T(kern_norm_grad, dx), T(kern_norm_grad, dweight), END};
static const field qk_f[] = {
    T(kern_qk, q), T(kern_qk, k), T(kern_qk, v), T(kern_qk, q_norm), T(kern_qk, k_norm), P(kern_qk, pos),
    T(kern_qk, cos), T(kern_qk, sin), T(kern_qk, q_out), T(kern_qk, k_out), P(kern_qk, slot), END};
static const field qk_grad_f[] = {
    T(kern_qk_grad, f.q), T(kern_qk_grad, f.k), T(kern_qk_grad, f.q_norm), T(kern_qk_grad, f.k_norm),
    P(kern_qk_grad, f.pos), T(kern_qk_grad, f.cos), T(kern_qk_grad, f.sin), T(kern_qk_grad, dq),
    T(kern_qk_grad, dk), T(kern_qk_grad, dq_norm), T(kern_qk_grad, dk_norm), END};
static const field attn_f[] = {
    T(kern_attn, q), T(kern_attn, k), T(kern_attn, v), P(kern_attn, cu), T(kern_attn, out), T(kern_attn, lse), END};
static const field attn_grad_f[] = {
    T(kern_attn_grad, f.q), T(kern_attn_grad, f.k), T(kern_attn_grad, f.v), P(kern_attn_grad, f.cu),
    T(kern_attn_grad, f.out), T(kern_attn_grad, f.lse), T(kern_attn_grad, dout), T(kern_attn_grad, dq),
    T(kern_attn_grad, dk), T(kern_attn_grad, dv), END};
static const field paged_f[] = {
    T(kern_paged, q), P(kern_paged, q_start), P(kern_paged, kv_len), P(kern_paged, blocks), T(kern_paged, out), END};
static const field act_f[] = {T(kern_act, gu), T(kern_act, h), END};
static const field act_grad_f[] = {T(kern_act_grad, f.gu), T(kern_act_grad, f.h), T(kern_act_grad, dh), T(kern_act_grad, dgu), END};
static const field head_f[] = {
    T(kern_head, x), P(kern_head, row), P(kern_head, target), P(kern_head, coef), P(kern_head, logp), T(kern_head, dx), T(kern_head, dw), END};
static const field logits_f[] = {T(kern_logits, x), P(kern_logits, row), T(kern_logits, logits), END};
static const field sample_f[] = {T(kern_sample, logits), END};
static const field adamw_f[] = {P(kern_adamw, p), P(kern_adamw, m), P(kern_adamw, v), P(kern_adamw, g), P(kern_adamw, scale), END};
static const field sumsq_f[] = {P(kern_sumsq, g), P(kern_sumsq, out), END};
static const field clip_f[] = {P(kern_clip, sum), P(kern_clip, scale), END};
static const field lora_f[] = {T(kern_lora, A), T(kern_lora, B), T(kern_lora, dA), T(kern_lora, dB), END};
static const field none_f[] = {END};
static const field tensor_f[] = {{"tensor", 0, true}, END};
/* clang-format on */

static int check(kern_dev *d, const char *op, const field *f, const void *a)
{
    const struct guard *g = find(d);
    for (; f->name != NULL; f++) {
        const char *at = (const char *)a + f->offset;
        const void *p =
            f->tensor ? ((const kern_tensor *)(const void *)at)->data : *(void *const *)at;
        if (inside(g, p))
            continue;
        snprintf(d->err, sizeof d->err, "%s: %s points to host memory", op, f->name);
        fprintf(stderr, "guard: %s\n", d->err);
        return KERN_EINVAL;
    }
    return 0;
}

static int check_loras(kern_dev *d, const char *op, const kern_linear *a)
{
    int rc = 0;
    for (int i = 0; i < KERN_MAX_PARTS && rc == 0; i++)
        rc = a->lora[i] != NULL ? check(d, op, lora_f, a->lora[i]) : 0;
    return rc;
}

#define OPENED(name, ...)                                                                          \
    struct guard *g = find(d);                                                                     \
    protect(g, PROT_READ | PROT_WRITE);                                                            \
    int rc = g->ops->name(d, ##__VA_ARGS__);                                                       \
    protect(g, PROT_NONE);                                                                         \
    return rc;

#define GUARDED(name, type, fields)                                                                \
    static int guard_##name(kern_dev *d, const type *a)                                            \
    {                                                                                              \
        int bad = check(d, #name, fields, a);                                                      \
        if (bad != 0)                                                                              \
            return bad;                                                                            \
        OPENED(name, a)                                                                            \
    }

#define GUARDED_PAIR(name)                                                                         \
    static int guard_##name(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)           \
    {                                                                                              \
        int bad = check(d, #name, tensor_f, src);                                                  \
        if (bad == 0)                                                                              \
            bad = check(d, #name, tensor_f, dst);                                                  \
        if (bad != 0)                                                                              \
            return bad;                                                                            \
        OPENED(name, src, dst)                                                                     \
    }

GUARDED(weight_new, kern_weight_new_args, none_f)
GUARDED(weight_update, kern_weight_update_args, weight_update_f)
GUARDED(embed, kern_embed, embed_f)
GUARDED(embed_grad, kern_embed_grad, embed_grad_f)
GUARDED(norm, kern_norm, norm_f)
GUARDED(norm_grad, kern_norm_grad, norm_grad_f)
GUARDED(qk, kern_qk, qk_f)
GUARDED(qk_grad, kern_qk_grad, qk_grad_f)
GUARDED(attn, kern_attn, attn_f)
GUARDED(attn_grad, kern_attn_grad, attn_grad_f)
GUARDED(paged, kern_paged, paged_f)
GUARDED(act, kern_act, act_f)
GUARDED(act_grad, kern_act_grad, act_grad_f)
GUARDED(head, kern_head, head_f)
GUARDED(logits, kern_logits, logits_f)
GUARDED(sample, kern_sample, sample_f)
GUARDED(adamw, kern_adamw, adamw_f)
GUARDED(sumsq, kern_sumsq, sumsq_f)
GUARDED(clip, kern_clip, clip_f)
GUARDED_PAIR(copy)
GUARDED_PAIR(add)

static int guard_linear(kern_dev *d, const kern_linear *a)
{
    int bad = check(d, "linear", linear_f, a);
    if (bad == 0)
        bad = check_loras(d, "linear", a);
    if (bad != 0)
        return bad;
    OPENED(linear, a)
}

static int guard_linear_grad(kern_dev *d, const kern_linear_grad *a)
{
    int bad = check(d, "linear_grad", linear_grad_f, a);
    if (bad == 0)
        bad = check_loras(d, "linear_grad", &a->f);
    if (bad != 0)
        return bad;
    OPENED(linear_grad, a)
}

static int refuse(kern_dev *d, const char *op)
{
    snprintf(d->err, sizeof d->err, "%s: points to host memory", op);
    fprintf(stderr, "guard: %s\n", d->err);
    return KERN_EINVAL;
}

static int guard_write(kern_dev *d, void *dst, const void *host, size_t bytes)
{
    if (!inside(find(d), dst))
        return refuse(d, "write");
    OPENED(write, dst, host, bytes)
}

static int guard_read(kern_dev *d, void *host, const void *src, size_t bytes)
{
    if (!inside(find(d), src))
        return refuse(d, "read");
    OPENED(read, host, src, bytes)
}

static int guard_read_begin(kern_dev *d, const void *src, size_t bytes, kern_read **out)
{
    if (!inside(find(d), src))
        return refuse(d, "read_begin");
    OPENED(read_begin, src, bytes, out)
}

static int guard_zero(kern_dev *d, void *p, size_t bytes)
{
    if (!inside(find(d), p))
        return refuse(d, "zero");
    OPENED(zero, p, bytes)
}

static void guard_close(kern_dev *d)
{
    struct guard *g = find(d);
    const kern_backend *from = g->from;
    if (g->n > 0)
        fprintf(stderr, "guard: %d blocks were not released\n", g->n);
    pthread_mutex_lock(&lock);
    g->d = NULL;
    pthread_mutex_unlock(&lock);
    from->close(d);
}

/* The table and backend that guarded devices show; filled from the first one. */
static kern_ops shown_ops;
static kern_backend shown;

static void fill(const kern_dev *d)
{
    shown = *d->from;
    shown.close = guard_close;
    shown_ops = *d->ops;
/* clang-format off */
#define PUT(name) shown_ops.name = guard_##name;
    PUT(alloc) PUT(release) PUT(write) PUT(read) PUT(read_begin) PUT(zero) PUT(copy) PUT(add)
    PUT(weight_new) PUT(weight_update) PUT(linear) PUT(linear_grad) PUT(embed) PUT(embed_grad)
    PUT(norm) PUT(norm_grad) PUT(qk) PUT(qk_grad) PUT(attn) PUT(attn_grad) PUT(paged)
    PUT(act) PUT(act_grad) PUT(head) PUT(logits) PUT(sample) PUT(adamw) PUT(sumsq)
    PUT(clip)
#undef PUT
    /* clang-format on */
}

void guard_device(kern_dev *d)
{
    struct guard *g = NULL;
    pthread_mutex_lock(&lock);
    if (shown.close == NULL)
        fill(d);
    for (int i = 0; i < MAX_GUARDS && g == NULL; i++)
        g = guards[i].d == NULL ? &guards[i] : NULL;
    if (g == NULL)
        abort();
    g->d = d;
    g->ops = d->ops;
    g->from = d->from;
    g->n = 0;
    d->ops = &shown_ops;
    d->from = &shown;
    pthread_mutex_unlock(&lock);
}
