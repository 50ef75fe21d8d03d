/* The memory of a run: planned, chosen so that it fits, and proved before step 1. */
#include "core/train/run.h"

typedef struct need {
    size_t weights, trainable, activations, logits, total;
} need;

static need need_of(const train_run *r)
{
    model_plan p = model_plan_for(r->t->model, r->len.max_tokens);
    int64_t n = r->t->params->total;
    need out = {.weights = p.weights, .activations = p.activations, .logits = p.logits};
    out.trainable = 2 * (size_t)n * sizeof(float) + optim_bytes(r->c->optimizer, n);
    out.total = out.weights + out.trainable + out.activations + out.logits;
    return out;
}

static bool fits(const train_run *r, const need *n)
{
    const kern_dev *dev = model_device(r->t->model);
    return dev->mem_total == 0 || n->total <= dev->mem_total;
}

static int no_room(const train_run *r, size_t total, const char *why, hone_err *e)
{
    char want[16], have[16];
    progress_bytes(want, sizeof want, (double)total);
    progress_bytes(have, sizeof have, (double)model_device(r->t->model)->mem_total);
    return hone_fail(e, HONE_ELIMIT,
                     "training needs %s%s and the device has %s; lower micro_batch_size or "
                     "sequence_len, or set gradient_checkpointing: true or bf16: true",
                     want, why, have);
}

/* As asked for; by itself the least that fits. */
static need choose(train_run *r)
{
    model *m = r->t->model;
    int asked = r->c->checkpointing;
    int from = asked == TRAIN_RECOMPUTE_AUTO ? RECOMPUTE_NONE : asked - TRAIN_RECOMPUTE_NONE;
    int to = asked == TRAIN_RECOMPUTE_AUTO ? RECOMPUTE_FULL : from;
    need n;
    for (;; from++) {
        model_recompute_set(m, (model_recompute)from);
        n = need_of(r);
        if (fits(r, &n) || from == to)
            break;
    }
    r->recompute = from;
    return n;
}

int train_memory_plan(train_run *r, hone_err *e)
{
    static const char *const again[] = {"nothing", "norms and gates", "whole layers"};
    char w[16], a[16], t[16], l[16], all[16];
    need n = choose(r);
    progress_bytes(w, sizeof w, (double)n.weights);
    progress_bytes(t, sizeof t, (double)n.trainable);
    progress_bytes(a, sizeof a, (double)n.activations);
    progress_bytes(l, sizeof l, (double)n.logits);
    progress_bytes(all, sizeof all, (double)n.total);
    progress_line(r->show,
                  "memory      %s: weights %s, trained values, gradients and optimizer %s, "
                  "activations %s, logits %s; computed again: %s",
                  all, w, t, a, l, again[r->recompute]);
    if (!fits(r, &n))
        return no_room(r, n.total, "", e);
    int rc = model_reserve(r->t->model, r->len.max_tokens, e);
    return rc == HONE_ENOMEM ? no_room(r, n.total, "", e) : rc;
}

int train_memory_prove(train_run *r, hone_err *e)
{
    const kern_dev *dev = model_device(r->t->model);
    char used[16], have[16];
    int rc = model_warm(r->t->model, r->len.max_tokens, true, e);
    if (rc == HONE_ENOMEM)
        return no_room(r, need_of(r).total, " and workspace,", e);
    if (rc == 0)
        rc = param_zero_grad(r->t->params, e);
    if (rc != 0 || !dev->records)
        return rc;
    progress_bytes(used, sizeof used, (double)dev->mem_used);
    progress_bytes(have, sizeof have, (double)dev->mem_total);
    progress_line(r->show, "card        %s in use with workspace, of %s", used, have);
    return 0;
}
