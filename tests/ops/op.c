#include "tests/ops/op.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/mem.h"

enum { GAP = 5, EVEN_GAP = 8, SAMPLES = 6, DIRECTIONS = 2, GRAD_DIRECTIONS = 8 };

/* ---- operands -------------------------------------------------------------------------------- */

void *op_block(op_ctx *c, size_t bytes)
{
    void *p = mem_alloc(bytes > 0 ? bytes : 1);
    if (c->n_blocks == OP_MAX_ARRAYS)
        abort();
    return c->block[c->n_blocks++] = p;
}

/* Rounds through the backend's own conversion of one number would prove nothing: this one is
 * written out. */
static double round_bf16(double x)
{
    if (x == 0 || !isfinite(x))
        return x;
    int e;
    double m = frexp(x, &e);
    return ldexp(nearbyint(ldexp(m, 8)), e - 8);
}

static double round_f16(double x)
{
    if (x == 0 || !isfinite(x))
        return x;
    int e;
    (void)frexp(x, &e);
    int q = (e < -13 ? -13 : e) - 11;
    return ldexp(nearbyint(ldexp(x, -q)), q);
}

static double rounded(kern_dtype t, double x)
{
    return t == KERN_BF16 ? round_bf16(x) : t == KERN_F16 ? round_f16(x) : (double)(float)x;
}

/* x is a value that the dtype holds. */
static void encode(kern_dtype t, double x, void *p)
{
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, 4);
    if (t == KERN_F32) {
        memcpy(p, &f, 4);
        return;
    }
    uint16_t h = (uint16_t)(u >> 16);
    if (t == KERN_F16) {
        int e;
        double a = fabs(x);
        (void)frexp(a, &e);
        h = x < 0 ? 0x8000U : 0;
        if (a != 0 && e >= -13)
            h = (uint16_t)(h | (unsigned)(e + 14) << 10 | ((unsigned)ldexp(a, 11 - e) & 0x3FFU));
        else if (a != 0)
            h = (uint16_t)(h | (unsigned)ldexp(a, 24));
    }
    memcpy(p, &h, 2);
}

static double decode(kern_dtype t, const void *p)
{
    uint32_t u = 0;
    float f;
    if (t == KERN_F32) {
        memcpy(&f, p, 4);
        return (double)f;
    }
    uint16_t h;
    memcpy(&h, p, 2);
    if (t == KERN_BF16) {
        u = (uint32_t)h << 16;
        memcpy(&f, &u, 4);
        return (double)f;
    }
    int e = h >> 10 & 31;
    double m = h & 0x3FF, s = h & 0x8000U ? -1 : 1;
    if (e == 31)
        return m != 0 ? NAN : s * INFINITY;
    return s * (e == 0 ? ldexp(m, -24) : ldexp(m + 1024, e - 25));
}

static void check(int rc)
{
    if (rc != 0) {
        fprintf(stderr, "op_check: the device gave status %d\n", rc);
        exit(1);
    }
}

static size_t bytes_of(const op_array *a)
{
    return (size_t)(a->rows * a->t.ld) * kern_dtype_size(a->t.dtype);
}

static op_array *array_new(op_ctx *c, kern_dtype t, int64_t rows, int64_t cols)
{
    op_array *a = mem_alloc(sizeof *a);
    if (c->n_arrays == OP_MAX_ARRAYS)
        abort();
    c->array[c->n_arrays++] = a;
    *a = (op_array){.t = kern_mat(t, rows, cols, NULL), .rows = rows, .cols = cols};
    a->t.ld = rows > 1 && !c->dense ? cols + (c->even ? EVEN_GAP : GAP) : cols;
    a->v = mem_alloc((size_t)(rows * cols + 1) * sizeof(double));
    check(kern_do(c->d, alloc, bytes_of(a) + 64, &a->t.data));
    return a;
}

static void upload(op_ctx *c, op_array *a)
{
    size_t e = kern_dtype_size(a->t.dtype), n = bytes_of(a);
    char *h = mem_alloc(n + 1);
    memset(h, 0xFF, n);
    for (int64_t r = 0; r < a->rows; r++)
        for (int64_t j = 0; j < a->cols; j++) {
            double *v = &a->v[r * a->cols + j];
            *v = rounded(a->t.dtype, *v);
            encode(a->t.dtype, *v, h + (size_t)(r * a->t.ld + j) * e);
        }
    check(kern_do(c->d, write, a->t.data, h, n));
    free(h);
}

op_array *op_in(op_ctx *c, kern_dtype t, int64_t rows, int64_t cols, double scale)
{
    op_array *a = array_new(c, t, rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        a->v[i] = scale * (double)rng_normal(&c->r);
    upload(c, a);
    return a;
}

op_array *op_from(op_ctx *c, kern_dtype t, int64_t rows, int64_t cols, const double *v)
{
    op_array *a = array_new(c, t, rows, cols);
    memcpy(a->v, v, (size_t)(rows * cols) * sizeof *v);
    upload(c, a);
    return a;
}

op_array *op_out(op_ctx *c, kern_dtype t, int64_t rows, int64_t cols)
{
    op_array *a = array_new(c, t, rows, cols);
    size_t n = bytes_of(a);
    char *h = mem_alloc(n + 1);
    memset(h, 0xFF, n);
    check(kern_do(c->d, write, a->t.data, h, n));
    free(h);
    for (int64_t i = 0; i < rows * cols; i++)
        a->v[i] = NAN;
    return a;
}

kern_tensor op_host(op_ctx *c, const op_array *a)
{
    kern_tensor t = a->t;
    t.data = op_block(c, bytes_of(a));
    check(kern_do(c->d, read, t.data, a->t.data, bytes_of(a)));
    return t;
}

int32_t *op_ints(op_ctx *c, int64_t n, int32_t lo, int32_t hi)
{
    int32_t *p = op_block(c, (size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++)
        p[i] = lo + (int32_t)rng_below(&c->r, (uint64_t)(hi - lo));
    return p;
}

const void *op_send(op_ctx *c, const void *host, size_t bytes)
{
    void *p = NULL;
    if (c->n_sent == OP_MAX_ARRAYS)
        abort();
    check(kern_do(c->d, alloc, bytes + 1, &p));
    c->sent[c->n_sent++] = p;
    check(kern_do(c->d, write, p, host, bytes));
    return p;
}

static void drop(op_ctx *c)
{
    for (int i = 0; i < c->n_arrays; i++) {
        kern_do(c->d, release, c->array[i]->t.data);
        free(c->array[i]->v);
        free(c->array[i]);
    }
    for (int i = 0; i < c->n_blocks; i++)
        free(c->block[i]);
    for (int i = 0; i < c->n_sent; i++)
        kern_do(c->d, release, c->sent[i]);
    c->n_arrays = c->n_blocks = c->n_sent = 0;
}

/* ---- comparisons ----------------------------------------------------------------------------- */

/* Rounding of the dtype, with room for a handful of steps. Finite differences have an error of
 * their own. */
typedef struct tolerance {
    double nmse, element;
} tolerance;

static tolerance tolerance_of(kern_dtype t, bool gradient)
{
    if (t == KERN_F32)
        return gradient ? (tolerance){1e-8, 2e-4} : (tolerance){1e-11, 3e-5};
    return gradient ? (tolerance){2e-4, 0.06} : (tolerance){5e-5, 0.04};
}

static void fail(op_ctx *c, const char *what, const char *fmt, ...)
{
    va_list ap;
    c->failed++;
    if (c->inject != OP_OFF)
        return;
    printf("         %s[%d] %s %s: ", c->op, c->number, kern_dtype_name(c->t), what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

static void hash(op_ctx *c, const void *p, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++)
        c->hash = (c->hash ^ b[i]) * 0x100000001B3U;
}

static double rms_of(const double *v, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += isfinite(v[i]) ? v[i] * v[i] : 0;
    return n > 0 ? sqrt(s / (double)n) : 0;
}

/* Makes element i wrong when this is the comparison that a self-test asks for. */
static void inject(op_ctx *c, double *got, int64_t n, int64_t i, tolerance tol)
{
    bool me = c->compared++ == c->inject_at;
    if (!me || n == 0 || c->inject == OP_OFF)
        return;
    double step = 3 * tol.element * (rms_of(got, n) + fabs(got[i]));
    got[i] = c->inject == OP_NAN ? NAN : got[i] + (step > 0 ? step : 1);
}

static void compare(op_ctx *c, const char *what, const double *got, const double *want, int64_t n,
                    double rms, tolerance tol)
{
    double err = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(got[i]) != isnan(want[i])) {
            fail(c, what, "element %lld is %g, should be %g", (long long)i, got[i], want[i]);
            return;
        }
        if (isnan(got[i]) || got[i] == want[i])
            continue;
        double e = fabs(got[i] - want[i]);
        if (!(e <= tol.element * (rms + fabs(want[i])))) {
            fail(c, what, "element %lld is %.9g, should be %.9g (rms %.3g)", (long long)i, got[i],
                 want[i], rms);
            return;
        }
        err += e * e;
        sum += want[i] * want[i];
    }
    if (!(err <= tol.nmse * (sum + (double)n * rms * rms)))
        fail(c, what, "normalised error %.3g, allowed %.3g", err / sum, tol.nmse);
}

void op_numbers(op_ctx *c, const char *what, double *got, const double *want, int64_t n, bool exact)
{
    tolerance tol = tolerance_of(KERN_F32, false);
    if (c->mode == OP_PERF)
        return;
    hash(c, got, (size_t)n * sizeof *got);
    if (c->mode == OP_BITS)
        return;
    inject(c, got, n, n / 2, tol);
    if (exact)
        tol = (tolerance){0, 0};
    compare(c, what, got, want, n, rms_of(want, n), tol);
}

/* The values of a result; gaps must be as they were. Freed by the caller. */
static double *fetch(op_ctx *c, const char *what, const op_array *a)
{
    size_t e = kern_dtype_size(a->t.dtype), n = bytes_of(a);
    char *h = mem_alloc(n + 1);
    double *v = mem_alloc((size_t)(a->rows * a->cols + 1) * sizeof *v);
    check(kern_do(c->d, read, h, a->t.data, n));
    hash(c, h, n);
    for (int64_t r = 0; r < a->rows; r++) {
        const char *row = h + (size_t)(r * a->t.ld) * e;
        for (int64_t j = 0; j < a->cols; j++)
            v[r * a->cols + j] = decode(a->t.dtype, row + (size_t)j * e);
        for (size_t b = (size_t)a->cols * e; b < (size_t)a->t.ld * e; b++)
            if ((unsigned char)row[b] != 0xFF) {
                fail(c, what, "wrote between rows, after row %lld", (long long)r);
                b = (size_t)a->t.ld * e;
                r = a->rows;
            }
    }
    free(h);
    return v;
}

void op_equal(op_ctx *c, const char *what, const op_array *got, const double *want)
{
    int64_t n = got->rows * got->cols;
    tolerance tol = tolerance_of(c->t, false);
    if (c->mode == OP_PERF)
        return;
    double *v = fetch(c, what, got);
    if (c->mode != OP_BITS) {
        inject(c, v, n, n / 2, tol);
        compare(c, what, v, want, n, rms_of(want, n), tol);
    }
    free(v);
}

/* ---- gradients ------------------------------------------------------------------------------- */

/* (loss(x + h dir) - loss(x - h dir)) / 2h; dir NULL: along element i. */
static double difference(op_array *x, const double *dir, int64_t i, double h, op_loss loss,
                         void *arg)
{
    int64_t n = x->rows * x->cols;
    double *keep = x->v, side[2];
    double *moved = mem_alloc((size_t)n * sizeof *moved);
    for (int s = 0; s < 2; s++) {
        double step = s == 0 ? h : -h;
        memcpy(moved, keep, (size_t)n * sizeof *moved);
        for (int64_t j = 0; j < n; j++)
            moved[j] += dir != NULL ? step * dir[j] : j == i ? step : 0;
        x->v = moved;
        side[s] = loss(arg);
    }
    x->v = keep;
    free(moved);
    return (side[0] - side[1]) / (2 * h);
}

static void along(op_ctx *c, const char *what, op_array *x, const double *g, op_loss loss,
                  void *arg)
{
    int64_t n = x->rows * x->cols;
    tolerance tol = tolerance_of(c->t, true);
    double *dir = mem_alloc((size_t)n * sizeof *dir), got = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        dir[i] = (double)rng_normal(&c->pick);
        got += dir[i] * g[i];
        norm += g[i] * g[i];
    }
    double want = difference(x, dir, 0, 1e-5, loss, arg);
    if (!(fabs(got - want) <= sqrt(tol.nmse) * 4 * (sqrt(norm) + fabs(want) + 0.01)))
        fail(c, what, "along a direction the gradient is %.9g, should be %.9g (norm %.3g)", got,
             want, sqrt(norm));
    free(dir);
}

/* Elements [0, n) in order, or as many at random. */
static int64_t choose(op_ctx *c, int64_t n, int64_t **at)
{
    bool all = c->mode == OP_GRAD || n <= c->samples;
    int64_t samples = all ? n : c->samples;
    *at = mem_alloc((size_t)(samples + 1) * sizeof **at);
    for (int64_t k = 0; k < samples; k++)
        (*at)[k] = all ? k : (int64_t)rng_below(&c->pick, (uint64_t)n);
    return samples;
}

static void differentiate(op_ctx *c, const char *what, op_array *x, double *v, double least,
                          op_loss loss, void *arg)
{
    int64_t n = x->rows * x->cols, *at, samples = choose(c, n, &at);
    tolerance tol = tolerance_of(c->t, true);
    double *g = mem_alloc((size_t)(samples + 1) * 2 * sizeof *g), *want = g + samples;
    inject(c, v, n, samples > 0 ? at[samples / 2] : 0, tol);
    for (int64_t k = 0; k < samples; k++) {
        g[k] = v[at[k]];
        want[k] = difference(x, NULL, at[k], 1e-5, loss, arg);
    }
    double rms = rms_of(v, n);
    compare(c, what, g, want, samples, rms > least ? rms : least, tol);
    for (int k = 0; k < c->directions && c->failed == 0; k++)
        along(c, what, x, v, loss, arg);
    free(g);
    free(at);
}

void op_grad(op_ctx *c, const char *what, op_array *x, const op_array *got, bool added,
             op_loss loss, void *arg)
{
    int64_t n = got->rows * got->cols;
    if (c->mode == OP_PERF)
        return;
    double *v = fetch(c, what, got);
    for (int64_t i = 0; i < n && added; i++)
        v[i] -= got->v[i];
    /* A gradient that cancels to nothing still has the rounding of what cancelled. */
    if (c->mode != OP_BITS)
        differentiate(c, what, x, v, added && c->t == KERN_F32 ? 0.1 : 0.01, loss, arg);
    free(v);
}

/* ---- calls ----------------------------------------------------------------------------------- */

bool op_ok(op_ctx *c, int rc)
{
    if (rc == 0)
        return true;
    if (rc == KERN_EUNSUPPORTED && c->skip_unsupported) {
        c->unsupported++;
        printf("         %s[%d] %s is unsupported: %s\n", c->op, c->number, kern_dtype_name(c->t),
               c->d->err);
        return false;
    }
    fail(c, "status", "%d: %s", rc, c->d->err);
    return false;
}

/* The clock is read after 1, 2, 4 ... calls, with the queue empty: a look in between would be part
 * of the time. */
bool op_again(op_ctx *c, const char *name, double flops)
{
    if (c->mode != OP_PERF)
        return false;
    if (c->calls++ == 0) {
        check(kern_do(c->d, sync));
        c->started = clock_seconds();
        c->next_look = 2;
        return true;
    }
    if (c->calls < c->next_look)
        return true;
    check(kern_do(c->d, sync));
    double s = clock_seconds() - c->started;
    c->next_look *= 2;
    if (s < 0.05)
        return true;
    s /= (double)(c->calls - 1);
    printf("%-12s %3d %-4s %10.1f us %8.2f GFLOP/s\n", name, c->number, kern_dtype_name(c->t),
           s * 1e6, flops / s * 1e-9);
    c->calls = 0;
    return false;
}

int op_cases(const op_ctx *c, const op_test *t)
{
    return c->mode == OP_GRAD   ? t->n_grads
           : c->mode == OP_BITS ? t->n_cases + t->n_large
                                : t->n_cases;
}

/* The second run only looks at the bits. */
void op_run(op_ctx *c, const op_test *t, int i)
{
    uint64_t first = 0;
    op_mode mode = c->mode;
    bool once = c->once || mode == OP_PERF || mode == OP_BITS || c->inject != OP_OFF;
    int runs = once ? 1 : 2;
    c->op = t->name;
    c->number = i;
    c->failed = 0;
    for (int run = 0; run < runs && c->failed == 0; run++) {
        c->r = (rng){.seed = 7, .stream = (uint64_t)i};
        c->pick = (rng){.seed = 8, .stream = (uint64_t)i};
        c->hash = 0xCBF29CE484222325U;
        c->samples = SAMPLES;
        c->directions = mode == OP_GRAD ? GRAD_DIRECTIONS : DIRECTIONS;
        c->compared = run == 0 ? 0 : c->compared;
        c->dense = false;
        c->even = false;
        c->mode = run == 0 ? mode : OP_BITS;
        if (i >= t->n_cases && mode == OP_BITS)
            t->large(c, i - t->n_cases);
        else
            (mode == OP_GRAD ? t->grad : t->run)(c, i);
        drop(c);
        if (run == 1 && c->hash != first)
            fail(c, "bits", "two runs of the same case differ");
        first = c->hash;
    }
    c->mode = mode;
}
