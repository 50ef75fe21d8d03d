/* Output head with loss: only rows with a target, a bounded chunk of logits at a time. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/weight.h"

enum { CHUNK_BYTES = 48 << 20 };

static int64_t chunk_rows(int64_t vocab)
{
    int64_t n = CHUNK_BYTES / (vocab * 4);
    return n < 1 ? 1 : n;
}

static int check(kern_dev *d, const kern_head *a)
{
    int64_t n = a->x.rows, h = a->w->in;
    int rc = cpu_shape_of(d, "head: x", &a->x, a->w->compute, n, h);
    if (rc == 0 && a->dx.data != NULL)
        rc = cpu_shape_of(d, "head: dx", &a->dx, a->w->compute, n, h);
    if (rc == 0 && a->dw.data != NULL)
        rc = cpu_shape_of(d, "head: dw", &a->dw, KERN_F32, a->w->out, h);
    if (rc == 0 && (a->dx.data != NULL || a->dw.data != NULL) && a->coef == NULL)
        rc = cpu_fail(d, KERN_EINVAL, "head: a gradient is wanted and coef is missing");
    if (rc == 0 && a->dx.data != NULL && !a->w->need_dx)
        rc = cpu_fail(d, KERN_EINVAL, "head: dx of a weight made without need_dx");
    for (int64_t i = 0; i < a->n_rows && rc == 0; i++) {
        int64_t r = a->row[i];
        if (r < 0 || r >= n || (i > 0 && r <= a->row[i - 1]))
            rc = cpu_fail(d, KERN_EINVAL, "head: row %lld of %lld", (long long)r, (long long)n);
        else if (a->target[r] < 0 || a->target[r] >= a->w->out)
            rc = cpu_fail(d, KERN_EINVAL, "head: target %d of row %lld, the vocabulary has %lld",
                          a->target[r], (long long)r, (long long)a->w->out);
    }
    return rc;
}

typedef struct chunk {
    kern_dev *d;
    const kern_head *a;
    const int32_t *row; /* of a's rows */
    int64_t n;
    kern_tensor x, dx, logits,
        dl; /* gathered rows; dl: gradient of the logits in the compute dtype */
} chunk;

static void softmax_row(const chunk *c, int64_t i)
{
    const cpu_vec *v = cpu_of(c->d)->vec;
    int64_t r = c->row[i], vocab = c->logits.cols;
    int32_t target = c->a->target[r];
    kern_dtype t = c->a->w->compute;
    float *l = cpu_at(&c->logits, i, 0), mine = l[target];
    float max = v->max(l, vocab), sum = v->sum_exp(t, l, max, vocab);
    c->a->logp[r] = mine - max - logf(sum);
    if (c->dl.data == NULL)
        return;
    float coef = c->a->coef[r], of_target = coef * expf(mine - max) / sum - coef;
    v->scaled_exp(t, l, max, coef / sum, cpu_at(&c->dl, i, 0), vocab);
    v->from_f32(t, &of_target, cpu_at(&c->dl, i, target), 1);
}

static void softmax_rows(void *arg, int64_t r0, int64_t r1, int thread)
{
    (void)thread;
    for (int64_t i = r0; i < r1; i++)
        softmax_row(arg, i);
}

static int run_chunk(chunk *c)
{
    kern_dev *d = c->d;
    const kern_head *a = c->a;
    size_t bytes = (size_t)a->w->in * kern_dtype_size(a->w->compute);
    for (int64_t i = 0; i < c->n; i++)
        memcpy(cpu_at(&c->x, i, 0), cpu_at(&a->x, c->row[i], 0), bytes);
    cpu_mul l = {.x = &c->x, .b = &a->w->fwd, .bias = a->w->bias, .y = &c->logits};
    cpu_mul dx = {.x = &c->dl, .b = &a->w->bwd, .y = &c->dx};
    int rc = cpu_product(d, &l);
    if (rc != 0)
        return rc;
    cpu_rows(d, c->n, a->w->out, softmax_rows, c);
    if (a->dx.data != NULL) {
        rc = cpu_product(d, &dx);
        for (int64_t i = 0; i < c->n && rc == 0; i++)
            memcpy(cpu_at(&a->dx, c->row[i], 0), cpu_at(&c->dx, i, 0), bytes);
    }
    if (rc == 0 && a->dw.data != NULL)
        rc = cpu_product_dw(d, &c->dl, &c->x, &a->dw);
    return rc;
}

/* Where the gathered rows, the logits and their gradient stand. */
static int take(kern_dev *d, const kern_head *a, int64_t n, kern_tensor t[4])
{
    int64_t vocab = a->w->out, h = a->w->in;
    kern_dtype ty = a->w->compute;
    bool grad = a->dx.data != NULL || a->dw.data != NULL;
    size_t e = kern_dtype_size(ty);
    void *x, *l, *dl = NULL;
    int rc = cpu_scratch(d, CPU_SLOT_A, (size_t)(2 * n * h) * e, &x);
    if (rc == 0)
        rc = cpu_scratch(d, CPU_SLOT_B, (size_t)(n * vocab) * 4, &l);
    if (rc == 0 && grad && ty == KERN_F32)
        dl = l;
    if (rc == 0 && grad && ty != KERN_F32)
        rc = cpu_scratch(d, CPU_SLOT_C, (size_t)(n * vocab) * e, &dl);
    if (rc != 0)
        return rc;
    t[0] = kern_mat(ty, n, h, x);
    t[1] = kern_mat(ty, n, h, (char *)x + (size_t)(n * h) * e);
    t[2] = kern_mat(KERN_F32, n, vocab, l);
    t[3] = kern_mat(ty, n, vocab, dl);
    return 0;
}

/* What rows without a target get. */
static void clear(const kern_head *a)
{
    memset(a->logp, 0, (size_t)a->x.rows * sizeof *a->logp);
    for (int64_t r = 0; r < a->x.rows && a->dx.data != NULL; r++)
        memset(cpu_at(&a->dx, r, 0), 0, (size_t)a->dx.cols * kern_dtype_size(a->dx.dtype));
}

int cpu_head(kern_dev *d, const kern_head *a)
{
    int64_t max = chunk_rows(a->w->out);
    kern_tensor t[4];
    int rc = check(d, a);
    if (max > 256)
        max = 256;
    if (rc == 0)
        rc = take(d, a, a->n_rows < max ? a->n_rows : max, t);
    if (rc == 0)
        clear(a);
    for (int64_t i = 0; i < a->n_rows && rc == 0; i += max) {
        int64_t m = a->n_rows - i < max ? a->n_rows - i : max;
        chunk c = {d, a, a->row + i, m, t[0], t[1], t[2], t[3]};
        c.x.rows = c.dx.rows = c.logits.rows = c.dl.rows = m;
        rc = run_chunk(&c);
    }
    return rc;
}

int cpu_logits(kern_dev *d, const kern_logits *a)
{
    const kern_weight *w = a->w;
    int rc = cpu_shape_of(d, "logits: x", &a->x, w->compute, a->x.rows, w->in);
    if (rc == 0)
        rc = cpu_shape_of(d, "logits: logits", &a->logits, KERN_F32, a->n_rows, w->out);
    if (rc == 0 && a->row == NULL && a->n_rows != a->x.rows)
        rc = cpu_fail(d, KERN_EINVAL, "logits: %lld rows wanted of %lld and none named",
                      (long long)a->n_rows, (long long)a->x.rows);
    void *mem;
    size_t e = kern_dtype_size(w->compute);
    if (rc == 0)
        rc = cpu_scratch(d, CPU_SLOT_A, (size_t)(a->n_rows * w->in) * e, &mem);
    if (rc != 0 || a->n_rows == 0)
        return rc;
    kern_tensor x = kern_mat(w->compute, a->n_rows, w->in, mem);
    for (int64_t i = 0; i < a->n_rows; i++) {
        int64_t r = a->row != NULL ? a->row[i] : i;
        if (r < 0 || r >= a->x.rows)
            return cpu_fail(d, KERN_EINVAL, "logits: row %lld of %lld", (long long)r,
                            (long long)a->x.rows);
        memcpy(cpu_at(&x, i, 0), cpu_at(&a->x, r, 0), (size_t)w->in * e);
    }
    cpu_mul m = {.x = &x, .b = &w->fwd, .bias = w->bias, .y = &a->logits};
    return cpu_product(d, &m);
}
