/* AdamW and sums of squares over flat ranges. Ranges are cut at fixed places, whatever the number
 * of threads. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { CUT = 16384 };

int cpu_adamw(kern_dev *d, const kern_adamw *a)
{
    if (a->n < 0 || a->step < 1)
        return cpu_fail(d, KERN_EINVAL, "adamw: %lld elements, step %lld", (long long)a->n,
                        (long long)a->step);
    double c1 = 1.0 - pow((double)a->beta1, (double)a->step);
    double c2 = 1.0 - pow((double)a->beta2, (double)a->step);
    vec_adamw v = {.beta1 = a->beta1,
                   .beta2 = a->beta2,
                   .grad_scale = a->grad_scale,
                   .decay = (float)(1.0 - (double)a->lr * (double)a->weight_decay),
                   .step_size = (float)((double)a->lr / c1),
                   .inv_sqrt_c2 = (float)(1.0 / sqrt(c2)),
                   .eps = a->eps};
    int nt = cpu_threads(d, a->n);
#pragma omp parallel for num_threads(nt) schedule(static)
    for (int64_t i = 0; i < a->n; i += CUT) {
        vec_adamw s = v;
        s.p = a->p + i;
        s.m = a->m + i;
        s.v = a->v + i;
        s.g = a->g + i;
        cpu_of(d)->vec->adamw(&s, a->n - i < CUT ? a->n - i : CUT);
    }
    return 0;
}

int cpu_sumsq(kern_dev *d, const kern_sumsq *a)
{
    int64_t cuts = (a->n + CUT - 1) / CUT;
    void *mem;
    int rc = cpu_scratch(d, 0, (size_t)(cuts + 1) * sizeof(double), &mem);
    if (rc != 0)
        return rc;
    double *part = mem, s = 0;
    int nt = cpu_threads(d, a->n);
#pragma omp parallel for num_threads(nt) schedule(static)
    for (int64_t c = 0; c < cuts; c++) {
        int64_t i = c * CUT;
        part[c] = cpu_of(d)->vec->sumsq(a->g + i, a->n - i < CUT ? a->n - i : CUT);
    }
    for (int64_t c = 0; c < cuts; c++)
        s += part[c];
    *a->out = s;
    return 0;
}
