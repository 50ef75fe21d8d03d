/* The CPU backend: what the machine has, the op table, open and close.
 *
 * Features are read from CPUID bits and from what the system saves on a switch (XCR0), never from a
 * model number. */
#include "kernels/cpu/cpu.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/cpu/backend.h"
#include "kernels/cpu/compact.h"
#include "kernels/cpu/dnnl.h"

static const kern_ops ops = {
#define CPU_SLOT(name, args) .name = cpu_##name,
    KERN_OPS(CPU_SLOT)
#undef CPU_SLOT
};

int cpu_fail(kern_dev *d, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->err, sizeof d->err, fmt, ap);
    va_end(ap);
    return code;
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { WORTH_WAKING = 8192, SPAN_WORK = 8192 };

void cpu_run(kern_dev *d, int64_t work, int64_t n, cpu_piece f, void *arg)
{
    if (work >= WORTH_WAKING) {
        cpu_pool_run(cpu_of(d)->pool, n, f, arg);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        f(arg, i, 0);
}

typedef struct spans {
    int64_t n, len;
    cpu_span f;
    void *arg;
} spans;

static void one_span(void *arg, int64_t i, int thread)
{
    const spans *s = arg;
    int64_t end = (i + 1) * s->len < s->n ? (i + 1) * s->len : s->n;
    s->f(s->arg, i * s->len, end, thread);
}

void cpu_rows(kern_dev *d, int64_t n, int64_t work, cpu_span f, void *arg)
{
    spans s = {.n = n, .len = SPAN_WORK / (work > 0 ? work : 1) + 1, .f = f, .arg = arg};
    cpu_run(d, n * work, (n + s.len - 1) / s.len, one_span, &s);
}

int cpu_thread_mem(kern_dev *d, size_t bytes, void **out, size_t *each)
{
    *each = (bytes + 63) / 64 * 64;
    return cpu_scratch(d, CPU_SLOT_THREADS, (size_t)d->threads * *each, out);
}

/* ---- checks ---------------------------------------------------------------------------------- */

int cpu_shape(kern_dev *d, const char *field, const kern_tensor *x, int64_t rows, int64_t cols)
{
    if (x->rows != rows || x->cols != cols)
        return cpu_fail(d, KERN_EINVAL, "%s is [%lld, %lld], must be [%lld, %lld]", field,
                        (long long)x->rows, (long long)x->cols, (long long)rows, (long long)cols);
    if (x->data == NULL && rows * cols > 0)
        return cpu_fail(d, KERN_EINVAL, "%s has no data", field);
    if (x->ld < cols)
        return cpu_fail(d, KERN_EINVAL, "%s has %lld columns and a leading dimension of %lld",
                        field, (long long)cols, (long long)x->ld);
    return 0;
}

int cpu_shape_of(kern_dev *d, const char *field, const kern_tensor *x, kern_dtype t, int64_t rows,
                 int64_t cols)
{
    if (x->dtype != t)
        return cpu_fail(d, KERN_EINVAL, "%s is %s, must be %s", field, kern_dtype_name(x->dtype),
                        kern_dtype_name(t));
    return cpu_shape(d, field, x, rows, cols);
}

int cpu_activation(kern_dev *d, const char *field, const kern_tensor *x)
{
    if (x->dtype != KERN_F32 && x->dtype != KERN_BF16)
        return cpu_fail(d, KERN_EUNSUPPORTED, "%s is %s; the CPU computes in f32 and bf16", field,
                        kern_dtype_name(x->dtype));
    return 0;
}

/* ---- features -------------------------------------------------------------------------------- */

#if defined(__x86_64__)
static uint64_t saved_state(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool has(uint32_t reg, int bit)
{
    return (reg >> bit & 1U) != 0;
}

static cpu_isa detect(void)
{
    uint32_t a, b, c, d, a7, b7, c7, d7, a71 = 0, r;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, 27)) /* OSXSAVE */
        return CPU_GENERIC;
    uint64_t xcr0 = saved_state();
    bool f16c = has(c, 29), fma = has(c, 12);
    if (!__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7))
        return CPU_GENERIC;
    if (a7 >= 1)
        __get_cpuid_count(7, 1, &a71, &r, &r, &r);
    if (!has(b7, 5) || !fma || !f16c || (xcr0 & 0x6U) != 0x6U)
        return CPU_GENERIC;
    bool avx512 = has(b7, 16) && has(b7, 17) && has(b7, 30) && has(b7, 31); /* F, DQ, BW, VL */
    if (!avx512 || (xcr0 & 0xE6U) != 0xE6U)
        return CPU_AVX2;
    if (!has(a71, 5))
        return CPU_AVX512;
    bool amx = has(d7, 22) && has(d7, 24) && (xcr0 & 0x60000U) == 0x60000U;
    return amx ? CPU_AMX : CPU_AVX512_BF16;
}
#else
static cpu_isa detect(void)
{
    return CPU_GENERIC;
}
#endif

static const struct {
    const char *name;
    const cpu_vec *vec;
} isas[] = {
    [CPU_GENERIC] = {"generic", &cpu_vec_generic},
    [CPU_AVX2] = {"avx2", &cpu_vec_avx2},
    /* The wide table uses bf16 conversions, so AVX-512 without them runs the narrower one. */
    [CPU_AVX512] = {"avx512", &cpu_vec_avx2},
    [CPU_AVX512_BF16] = {"avx512_bf16", &cpu_vec_avx512},
    [CPU_AMX] = {"amx_bf16", &cpu_vec_avx512},
};

/* The set asked for, when the machine has it. */
static int pick_isa(cpu_isa *out, const char *features, char err[256])
{
    *out = detect();
    if (features == NULL)
        return 0;
    for (int i = 0; i <= (int)*out; i++) {
        if (strcmp(isas[i].name, features) == 0) {
            *out = (cpu_isa)i;
            return 0;
        }
    }
    snprintf(err, 256, "cpu: features '%.60s' asked for, this machine has up to %s", features,
             isas[*out].name);
    return KERN_EUNSUPPORTED;
}

static void brand(char name[64])
{
    snprintf(name, 64, "CPU");
#if defined(__x86_64__)
    uint32_t r[12];
    for (size_t i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002U + (uint32_t)i, &r[i * 4], &r[i * 4 + 1], &r[i * 4 + 2],
                         &r[i * 4 + 3]))
            return;
    memcpy(name, r, 48);
    name[48] = '\0';
    for (size_t n = strlen(name); n > 0 && name[n - 1] == ' '; n--)
        name[n - 1] = '\0';
#endif
}

/* CPUs that this process may run on. */
static int usable_cpus(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

/* ---- open and close -------------------------------------------------------------------------- */

static int probe(char err[256])
{
    (void)err;
    return 0;
}

static void close_cpu(kern_dev *d)
{
    cpu_pool_close(cpu_of(d)->pool);
    for (int i = 0; i < CPU_SCRATCH_SLOTS; i++)
        cpu_give(d, cpu_of(d)->scratch[i].p);
    cpu_dnnl_close(cpu_of(d)->dnnl);
    free(d);
}

static int open_cpu(kern_dev **out, const kern_open_args *a, char err[256])
{
    cpu_isa isa;
    *out = NULL;
    if (a->threads < 0 || a->threads > 1024) {
        snprintf(err, 256, "cpu: %d threads; must be 0 to 1024", a->threads);
        return KERN_EINVAL;
    }
    int rc = pick_isa(&isa, a->features, err);
    if (rc != 0)
        return rc;
    cpu_dev *c = calloc(1, sizeof *c);
    if (c == NULL) {
        snprintf(err, 256, "cpu: no memory");
        return KERN_ENOMEM;
    }
    kern_dev *d = &c->base;
    c->isa = isa;
    c->vec = isas[isa].vec;
    /* AMX multiplies so fast that expanding would take a good part of a prefill. */
    c->compact = isa == CPU_AVX512_BF16 && cpu_compact_here();
    d->ops = &ops;
    d->backend = "cpu";
    d->threads = a->threads > 0 ? a->threads : usable_cpus();
    d->mem_total = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGE_SIZE);
    char cpu[64];
    brand(cpu);
    snprintf(d->name, sizeof d->name, "%s (%d threads, %s)", cpu, d->threads, isas[isa].name);
    c->pool = cpu_pool_open(d->threads);
    c->dnnl = cpu_dnnl_open(d->threads);
    if (c->pool == NULL || c->dnnl == NULL) {
        snprintf(err, 256, "cpu: cannot start %s", c->pool == NULL ? "its threads" : "oneDNN");
        close_cpu(d);
        return KERN_EDEVICE;
    }
    *out = d;
    return 0;
}

const kern_backend cpu_backend = {
    .abi = KERN_ABI, .name = "cpu", .probe = probe, .open = open_cpu, .close = close_cpu};

/* ---- capture: every op runs at once, so there is nothing to record --------------------------- */

int cpu_capture_begin(kern_dev *d)
{
    (void)d;
    return 0;
}

int cpu_capture_end(kern_dev *d, kern_graph **out)
{
    (void)d;
    *out = NULL;
    return 0;
}

int cpu_graph_run(kern_dev *d, kern_graph *g)
{
    (void)g;
    return cpu_fail(d, KERN_EUNSUPPORTED, "graph_run: the CPU runs ops at once and records none");
}

int cpu_graph_free(kern_dev *d, kern_graph *g)
{
    (void)d;
    (void)g;
    return 0;
}
