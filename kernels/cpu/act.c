/* Gated activations. */
#include "kernels/cpu/cpu.h"

static int check(kern_dev *d, const kern_act *a)
{
    if (a->kind != KERN_SILU && a->kind != KERN_GELU_TANH && a->kind != KERN_GELU)
        return cpu_fail(d, KERN_EUNSUPPORTED, "act: kind %d", (int)a->kind);
    if (a->gu.cols % 2 != 0)
        return cpu_fail(d, KERN_EINVAL, "act: gu has %lld columns", (long long)a->gu.cols);
    int rc = cpu_activation(d, "act: gu", &a->gu);
    return rc != 0 ? rc : cpu_shape(d, "act: gu", &a->gu, a->gu.rows, a->gu.cols);
}

typedef struct job {
    const cpu_vec *v;
    const kern_act *f;
    const kern_act_grad *g;
} job;

static void forward_rows(void *arg, int64_t r0, int64_t r1, int thread)
{
    const job *j = arg;
    const kern_act *a = j->f;
    int64_t i = a->gu.cols / 2;
    (void)thread;
    for (int64_t r = r0; r < r1; r++)
        j->v->act(a->kind, a->gu.dtype, cpu_at(&a->gu, r, 0), cpu_at(&a->gu, r, i),
                  cpu_at(&a->h, r, 0), i);
}

static void backward_rows(void *arg, int64_t r0, int64_t r1, int thread)
{
    const job *j = arg;
    const kern_act_grad *a = j->g;
    const kern_tensor *gu = &a->f.gu, *h = &a->f.h;
    int64_t i = gu->cols / 2;
    (void)thread;
    for (int64_t r = r0; r < r1; r++)
        j->v->act_grad(a->f.kind, gu->dtype, cpu_at(gu, r, 0), cpu_at(gu, r, i),
                       cpu_at(&a->dh, r, 0), cpu_at(&a->dgu, r, 0), cpu_at(&a->dgu, r, i),
                       h->data != NULL ? cpu_at(h, r, 0) : NULL, i);
}

int cpu_act(kern_dev *d, const kern_act *a)
{
    int64_t n = a->gu.rows, i = a->gu.cols / 2;
    int rc = check(d, a);
    if (rc == 0)
        rc = cpu_shape_of(d, "act: h", &a->h, a->gu.dtype, n, i);
    if (rc != 0)
        return rc;
    job j = {.v = cpu_of(d)->vec, .f = a};
    cpu_rows(d, n, i, forward_rows, &j);
    return 0;
}

int cpu_act_grad(kern_dev *d, const kern_act_grad *a)
{
    const kern_tensor *gu = &a->f.gu, *h = &a->f.h;
    int64_t n = gu->rows, i = gu->cols / 2;
    int rc = check(d, &a->f);
    if (rc == 0)
        rc = cpu_shape_of(d, "act_grad: dh", &a->dh, gu->dtype, n, i);
    if (rc == 0)
        rc = cpu_shape_of(d, "act_grad: dgu", &a->dgu, gu->dtype, n, 2 * i);
    if (rc == 0 && h->data != NULL)
        rc = cpu_shape_of(d, "act_grad: h", h, gu->dtype, n, i);
    if (rc != 0)
        return rc;
    job j = {.v = cpu_of(d)->vec, .g = a};
    cpu_rows(d, n, 2 * i, backward_rows, &j);
    return 0;
}
