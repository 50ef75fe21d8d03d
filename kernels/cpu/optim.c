/* AdamW, sums of squares and clipping over flat ranges. Ranges are cut at fixed places, whatever
 * the number of threads. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { CUT = 16384 };

typedef struct adamw_job {
    const cpu_vec *v;
    const kern_adamw *a;
    vec_adamw row;
} adamw_job;

static void adamw_cut(void *arg, int64_t c, int thread)
{
    const adamw_job *j = arg;
    const kern_adamw *a = j->a;
    int64_t i = c * CUT;
    vec_adamw s = j->row;
    (void)thread;
    s.p = a->p + i;
    s.m = a->m + i;
    s.v = a->v + i;
    s.g = a->g + i;
    j->v->adamw(&s, a->n - i < CUT ? a->n - i : CUT);
}

int cpu_adamw(kern_dev *d, const kern_adamw *a)
{
    if (a->n < 0 || a->step < 1)
        return cpu_fail(d, KERN_EINVAL, "adamw: %lld elements, step %lld", (long long)a->n,
                        (long long)a->step);
    float scale = a->scale != NULL ? *a->scale : 1.0F;
    if (isnan(scale))
        return 0;
    double c1 = 1.0 - pow((double)a->beta1, (double)a->step);
    double c2 = 1.0 - pow((double)a->beta2, (double)a->step);
    adamw_job j = {.v = cpu_of(d)->vec,
                   .a = a,
                   .row = {.beta1 = a->beta1,
                           .beta2 = a->beta2,
                           .grad_scale = scale,
                           .decay = (float)(1.0 - (double)a->lr * (double)a->weight_decay),
                           .step_size = (float)((double)a->lr / c1),
                           .inv_sqrt_c2 = (float)(1.0 / sqrt(c2)),
                           .eps = a->eps}};
    cpu_run(d, a->n, (a->n + CUT - 1) / CUT, adamw_cut, &j);
    return 0;
}

typedef struct sumsq_job {
    const cpu_vec *v;
    const kern_sumsq *a;
    double *part;
} sumsq_job;

static void sumsq_cut(void *arg, int64_t c, int thread)
{
    const sumsq_job *j = arg;
    int64_t i = c * CUT;
    (void)thread;
    j->part[c] = j->v->sumsq(j->a->g + i, j->a->n - i < CUT ? j->a->n - i : CUT);
}

int cpu_sumsq(kern_dev *d, const kern_sumsq *a)
{
    int64_t cuts = (a->n + CUT - 1) / CUT;
    void *mem;
    int rc = cpu_scratch(d, CPU_SLOT_A, (size_t)(cuts + 1) * sizeof(double), &mem);
    if (rc != 0)
        return rc;
    double s = 0;
    sumsq_job j = {cpu_of(d)->vec, a, mem};
    cpu_run(d, a->n, cuts, sumsq_cut, &j);
    for (int64_t c = 0; c < cuts; c++)
        s += j.part[c];
    *a->out = s;
    return 0;
}

int cpu_clip(kern_dev *d, const kern_clip *a)
{
    bool finite = !isnan(*a->scale);
    if (a->n < 1)
        return cpu_fail(d, KERN_EINVAL, "clip: %d sums", a->n);
    for (int i = 0; i < a->n; i++)
        finite = finite && isfinite(a->sum[i]);
    double scale = a->max_norm / (sqrt(a->sum[0]) + 1e-6);
    *a->scale = !finite ? NAN : a->max_norm > 0 && scale < 1 ? (float)scale : 1.0F;
    return 0;
}
