/* A batch without effect, before the first real one. */
#include "core/base/mem.h"
#include "core/model/model_int.h"

#include <stdlib.h>

enum { RUNS = 3 }; /* by itself twice, then recorded */

/* Segments as long as the model takes. */
static int segments(int32_t *cu, int64_t n, int64_t longest)
{
    int s = 0;
    cu[0] = 0;
    while (cu[s] < n) {
        int64_t end = cu[s] + longest;
        cu[++s] = (int32_t)(end < n ? end : n);
    }
    return s;
}

int model_warm(model *m, int64_t n, bool training, hone_err *e)
{
    if (!m->dev->records)
        return 0;
    size_t size = (size_t)n;
    int64_t longest = m->cfg.max_positions;
    int32_t *zero = mem_array(size, sizeof *zero); /* ids, targets */
    int32_t *pos = mem_array(size, sizeof *pos);
    int32_t *cu = mem_array(size + 1, sizeof *cu);
    float *coef = mem_array(size, sizeof *coef);
    model_batch b = {.n = n,
                     .ids = zero,
                     .pos = pos,
                     .target = zero,
                     .coef = coef,
                     .cu = cu,
                     .n_seg = segments(cu, n, longest),
                     .training = training};
    for (int64_t i = 0; i < n; i++)
        pos[i] = (int32_t)(i % longest);
    int rc = 0;
    for (int i = 0; i < RUNS && rc == 0; i++)
        rc = model_backward(m, &b, NULL, e);
    if (rc == 0)
        rc = model_failed(m, kern_do(m->dev, sync), "a first batch", e);
    free(zero);
    free(pos);
    free(cu);
    free(coef);
    return rc;
}
