/* Embedding rows and RMSNorm with its residual. */
#include <string.h>

#include "kernels/cpu/cpu.h"

/* ---- embedding ------------------------------------------------------------------------------- */

typedef struct embed_job {
    const cpu_vec *v;
    const kern_embed *f;
    const kern_embed_grad *g;
    char *mem;
    size_t each;
} embed_job;

static void embed_rows(void *arg, int64_t r0, int64_t r1, int thread)
{
    const embed_job *j = arg;
    const kern_embed *a = j->f;
    const kern_tensor *t = &a->table, *x = &a->x;
    float *tmp = (float *)(void *)(j->mem + (size_t)thread * j->each);
    for (int64_t i = r0; i < r1; i++) {
        const void *src = cpu_at(t, a->ids[i], 0);
        if (t->dtype == x->dtype) {
            memcpy(cpu_at(x, i, 0), src, (size_t)t->cols * kern_dtype_size(t->dtype));
            continue;
        }
        j->v->to_f32(t->dtype, src, tmp, t->cols);
        j->v->from_f32(x->dtype, tmp, cpu_at(x, i, 0), t->cols);
    }
}

int cpu_embed(kern_dev *d, const kern_embed *a)
{
    const kern_tensor *t = &a->table, *x = &a->x;
    int rc = cpu_activation(d, "embed: x", x);
    if (rc == 0)
        rc = cpu_shape(d, "embed: x", x, a->n, t->cols);
    embed_job j = {.v = cpu_of(d)->vec, .f = a};
    void *mem;
    if (rc == 0)
        rc = cpu_thread_mem(d, (size_t)t->cols * 4, &mem, &j.each);
    if (rc != 0)
        return rc;
    j.mem = mem;
    cpu_rows(d, a->n, t->cols / 8, embed_rows, &j);
    return 0;
}

/* An id may come twice, so threads share columns, not rows. */
enum { GRAD_COLS = 64 };

static void embed_grad_cols(void *arg, int64_t piece, int thread)
{
    const embed_job *j = arg;
    const kern_embed_grad *a = j->g;
    float tmp[GRAD_COLS];
    int64_t c0 = piece * GRAD_COLS, left = a->dtable.cols - c0;
    int64_t n = left < GRAD_COLS ? left : GRAD_COLS;
    (void)thread;
    for (int64_t i = 0; i < a->n; i++) {
        j->v->to_f32(a->dx.dtype, cpu_at(&a->dx, i, c0), tmp, n);
        j->v->axpy(1.0F, tmp, cpu_at(&a->dtable, a->ids[i], c0), n);
    }
}

int cpu_embed_grad(kern_dev *d, const kern_embed_grad *a)
{
    const kern_tensor *t = &a->dtable;
    int rc = cpu_activation(d, "embed_grad: dx", &a->dx);
    if (rc == 0)
        rc = cpu_shape(d, "embed_grad: dx", &a->dx, a->n, t->cols);
    if (rc == 0)
        rc = cpu_shape_of(d, "embed_grad: dtable", t, KERN_F32, t->rows, t->cols);
    if (rc != 0)
        return rc;
    embed_job j = {.v = cpu_of(d)->vec, .g = a};
    cpu_run(d, a->n * t->cols / 8, (t->cols + GRAD_COLS - 1) / GRAD_COLS, embed_grad_cols, &j);
    return 0;
}

/* ---- norm ------------------------------------------------------------------------------------ */

static int check_norm(kern_dev *d, const kern_norm *a)
{
    int64_t n = a->x.rows, h = a->x.cols;
    kern_dtype t = a->x.dtype;
    int rc = cpu_activation(d, "norm: x", &a->x);
    if (rc == 0)
        rc = cpu_shape(d, "norm: x", &a->x, n, h);
    if (rc == 0 && a->add.data != NULL)
        rc = cpu_shape_of(d, "norm: add", &a->add, t, n, h);
    if (rc == 0 && a->add.data != NULL && a->res.data == NULL)
        rc = cpu_fail(d, KERN_EINVAL, "norm: add without res");
    if (rc == 0 && a->res.data != NULL)
        rc = cpu_shape_of(d, "norm: res", &a->res, t, n, h);
    if (rc == 0)
        rc = cpu_shape_of(d, "norm: weight", &a->weight, KERN_F32, 1, h);
    if (rc == 0)
        rc = cpu_shape_of(d, "norm: y", &a->y, t, n, h);
    if (rc == 0 && a->rstd.data != NULL)
        rc = cpu_shape_of(d, "norm: rstd", &a->rstd, KERN_F32, n, 1);
    return rc;
}

/* The weight as activations of dtype t meet it, in a scratch buffer. */
static int met_weight(kern_dev *d, const kern_tensor *weight, float offset, kern_dtype t,
                      const float **out)
{
    const cpu_vec *v = cpu_of(d)->vec;
    int64_t h = weight->cols;
    const float *w = weight->data;
    void *mem;
    int rc = cpu_scratch(d, CPU_SLOT_B, (size_t)h * 8, &mem);
    if (rc != 0)
        return rc;
    float *met = mem, *rounded = met + h;
    for (int64_t i = 0; i < h; i++)
        met[i] = w[i] + offset;
    v->from_f32(t, met, rounded, h);
    v->to_f32(t, rounded, met, h);
    *out = met;
    return 0;
}

typedef struct norm_job {
    const cpu_vec *v;
    const kern_norm *a;
    const float *weight;
} norm_job;

static void norm_rows(void *arg, int64_t r0, int64_t r1, int thread)
{
    const norm_job *j = arg;
    const kern_norm *a = j->a;
    (void)thread;
    for (int64_t r = r0; r < r1; r++) {
        vec_norm row = {
            .h = a->x.cols,
            .t = a->x.dtype,
            .x = cpu_at(&a->x, r, 0),
            .add = a->add.data != NULL ? cpu_at(&a->add, r, 0) : NULL,
            .weight = j->weight,
            .eps = a->eps,
            .res = a->res.data != NULL ? cpu_at(&a->res, r, 0) : NULL,
            .y = cpu_at(&a->y, r, 0),
        };
        float rstd = j->v->norm(&row);
        if (a->rstd.data != NULL)
            *(float *)cpu_at(&a->rstd, r, 0) = rstd;
    }
}

int cpu_norm(kern_dev *d, const kern_norm *a)
{
    int rc = check_norm(d, a);
    norm_job j = {cpu_of(d)->vec, a, NULL};
    if (rc == 0)
        rc = met_weight(d, &a->weight, a->weight_offset, a->x.dtype, &j.weight);
    if (rc == 0)
        cpu_rows(d, a->x.rows, a->x.cols / 2, norm_rows, &j);
    return rc;
}

static int check_norm_grad(kern_dev *d, const kern_norm_grad *a)
{
    int64_t n = a->dy.rows, h = a->dy.cols;
    kern_dtype t = a->dy.dtype;
    int rc = cpu_activation(d, "norm_grad: dy", &a->dy);
    if (rc == 0)
        rc = cpu_shape(d, "norm_grad: dy", &a->dy, n, h);
    if (rc == 0)
        rc = cpu_shape_of(d, "norm_grad: res", &a->res, t, n, h);
    if (rc == 0)
        rc = cpu_shape_of(d, "norm_grad: weight", &a->weight, KERN_F32, 1, h);
    if (rc == 0)
        rc = cpu_shape_of(d, "norm_grad: rstd", &a->rstd, KERN_F32, n, 1);
    if (rc == 0 && a->dres.data != NULL)
        rc = cpu_shape_of(d, "norm_grad: dres", &a->dres, t, n, h);
    if (rc == 0)
        rc = cpu_shape_of(d, "norm_grad: dx", &a->dx, t, n, h);
    if (rc == 0 && a->dweight.data != NULL)
        rc = cpu_shape_of(d, "norm_grad: dweight", &a->dweight, KERN_F32, 1, h);
    return rc;
}

/* Sums for dweight are kept for each share of the rows, and added in order: the number of shares is
 * fixed. */
enum { SHARES = 16 };

typedef struct grad_job {
    const cpu_vec *v;
    const kern_norm_grad *a;
    const float *weight;
    float *sums; /* [SHARES, h]; NULL: not wanted */
} grad_job;

static void grad_share(void *arg, int64_t share, int thread)
{
    const grad_job *j = arg;
    const kern_norm_grad *a = j->a;
    int64_t n = a->dy.rows, h = a->dy.cols;
    (void)thread;
    for (int64_t r = n * share / SHARES; r < n * (share + 1) / SHARES; r++) {
        vec_norm_grad row = {
            .h = h,
            .t = a->dy.dtype,
            .dy = cpu_at(&a->dy, r, 0),
            .res = cpu_at(&a->res, r, 0),
            .dres = a->dres.data != NULL ? cpu_at(&a->dres, r, 0) : NULL,
            .weight = j->weight,
            .rstd = *(const float *)cpu_at(&a->rstd, r, 0),
            .dx = cpu_at(&a->dx, r, 0),
            .dweight = j->sums != NULL ? j->sums + share * h : NULL,
        };
        j->v->norm_grad(&row);
    }
}

int cpu_norm_grad(kern_dev *d, const kern_norm_grad *a)
{
    int64_t n = a->dy.rows, h = a->dy.cols;
    grad_job j = {.v = cpu_of(d)->vec, .a = a};
    void *mem = NULL;
    int rc = check_norm_grad(d, a);
    if (rc == 0)
        rc = met_weight(d, &a->weight, a->weight_offset, a->dy.dtype, &j.weight);
    if (rc == 0 && a->dweight.data != NULL) {
        rc = cpu_scratch(d, CPU_SLOT_A, (size_t)(SHARES * h) * 4, &mem);
        if (rc == 0)
            memset(mem, 0, (size_t)(SHARES * h) * 4);
        j.sums = mem;
    }
    if (rc != 0)
        return rc;
    cpu_run(d, n * h, SHARES, grad_share, &j);
    for (int s = 0; s < SHARES && j.sums != NULL; s++)
        j.v->axpy(1.0F, j.sums + s * h, a->dweight.data, h);
    return 0;
}
