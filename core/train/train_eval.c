#include "core/train/run.h"

#include "core/base/hook.h"

int train_eval_loss(train_run *r, double *loss, hone_err *e)
{
    const dataset *d = r->t->eval->d;
    double sum = 0;
    int64_t targets = 0;
    for (size_t i = 0; i < r->eval_plan.n_batches; i++) {
        micro_batch *b = &r->batch;
        pack_fill(b, d, &r->eval_plan, i);
        model_batch m = {.n = b->n,
                         .ids = b->ids,
                         .pos = b->pos,
                         .target = b->target,
                         .cu = b->cu,
                         .n_seg = b->n_seg};
        int rc = model_score(r->t->model, &m, r->logp, e);
        if (rc != 0)
            return hone_fail_at(e, "evaluation");
        for (int64_t k = 0; k < b->n; k++)
            sum -= (double)r->logp[k];
        targets += b->n_targets;
    }
    *loss = sum / (double)targets;
    return 0;
}
