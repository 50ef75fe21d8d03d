#include "core/train/optim.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

struct optim {
    const optim_row *row;
    optim_settings s;
    param_list *params;
    float *state[OPTIM_MAX_STATE]; /* device, [total] */
    int64_t step;
    struct on_device {
        double sum; /* of one parameter's gradient */
        float scale;
    } * own;
};

static int failed(kern_dev *dev, int rc, const char *what, hone_err *e)
{
    return rc == 0 ? 0 : hone_fail(e, rc, "%s: %s", what, dev->err);
}

static int adamw(optim *o, int64_t at, int64_t n, double lr, double decay, hone_err *e)
{
    kern_adamw a = {
        .n = n,
        .p = o->params->value + at,
        .m = o->state[0] + at,
        .v = o->state[1] + at,
        .g = o->params->grad + at,
        .scale = &o->own->scale,
        .lr = (float)lr,
        .beta1 = (float)o->s.beta1,
        .beta2 = (float)o->s.beta2,
        .eps = (float)o->s.eps,
        .weight_decay = (float)decay,
        .step = o->step,
    };
    return failed(o->params->dev, kern_do(o->params->dev, adamw, &a), "optimizer", e);
}

/* clang-format off */
const optim_row optimizers[] = {
    {"adamw_torch",       2, {"exp_avg", "exp_avg_sq"}, adamw},
    {"adamw",             2, {"exp_avg", "exp_avg_sq"}, adamw},
    {"adamw_torch_fused", 2, {"exp_avg", "exp_avg_sq"}, adamw},
    {"adamw_hf",          2, {"exp_avg", "exp_avg_sq"}, adamw},
    {NULL, 0, {NULL, NULL}, NULL},
};
/* clang-format on */

int optim_new(optim **out, param_list *params, const optim_settings *s, hone_err *e)
{
    optim *o = mem_alloc(sizeof *o);
    int rc = 0;
    *out = NULL;
    o->row = &optimizers[s->kind];
    o->s = *s;
    o->params = params;
    for (int k = 0; rc == 0 && k < o->row->n_state; k++) {
        void *p = NULL;
        rc = failed(params->dev,
                    kern_do(params->dev, alloc, (size_t)params->total * sizeof(float), &p),
                    "optimizer state", e);
        o->state[k] = p;
    }
    void *own = NULL;
    if (rc == 0)
        rc = failed(params->dev, kern_do(params->dev, alloc, sizeof *o->own, &own),
                    "optimizer state", e);
    o->own = own;
    if (rc != 0)
        optim_free(o);
    else
        *out = o;
    return rc;
}

void optim_free(optim *o)
{
    if (o == NULL)
        return;
    for (int k = 0; k < OPTIM_MAX_STATE; k++)
        kern_do(o->params->dev, release, o->state[k]);
    kern_do(o->params->dev, release, o->own);
    free(o);
}

const optim_row *optim_kind(const optim *o)
{
    return o->row;
}

size_t optim_bytes(int kind, int64_t total)
{
    return (size_t)optimizers[kind].n_state * (size_t)total * sizeof(float);
}

static int sumsq(const optim *o, int64_t at, int64_t n, double *out, hone_err *e)
{
    kern_sumsq a = {.g = o->params->grad + at, .n = n, .out = out};
    return failed(o->params->dev, kern_do(o->params->dev, sumsq, &a), "gradient norm", e);
}

int optim_grad_sumsq(const optim *o, double *sum, hone_err *e)
{
    return sumsq(o, 0, o->params->total, sum, e);
}

int optim_not_finite(const optim *o, const char **name, hone_err *e)
{
    *name = NULL;
    for (size_t i = 0; i < o->params->n && *name == NULL; i++) {
        const param *p = &o->params->items[i];
        double sum = 0;
        int rc = sumsq(o, p->offset, p->rows * p->cols, &o->own->sum, e);
        if (rc == 0)
            rc = failed(o->params->dev,
                        kern_do(o->params->dev, read, &sum, &o->own->sum, sizeof sum), p->name, e);
        if (rc != 0)
            return rc;
        if (!isfinite(sum))
            *name = p->name;
    }
    return 0;
}

/* Neighbours with the same settings are one range; the padding between them holds zeros and stays
 * so. */
int optim_step(optim *o, const optim_update *u, hone_err *e)
{
    const param_list *l = o->params;
    kern_clip c = {.sum = u->sum, .n = u->n_sums, .max_norm = u->max_norm, .scale = &o->own->scale};
    int done = failed(l->dev, kern_do(l->dev, clip, &c), "clipping", e);
    if (done != 0)
        return done;
    o->step = u->step;
    for (size_t i = 0, j; i < l->n; i = j) {
        const param *p = &l->items[i];
        j = i + 1;
        while (j < l->n && l->items[j].decay == p->decay && l->items[j].lr_scale == p->lr_scale)
            j++;
        int64_t end = j < l->n ? l->items[j].offset : l->total;
        int rc = o->row->step(o, p->offset, end - p->offset, u->lr * (double)p->lr_scale,
                              p->decay ? o->s.weight_decay : 0.0, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int optim_read(const optim *o, int k, size_t i, float *host, hone_err *e)
{
    const param *p = &o->params->items[i];
    kern_dev *dev = o->params->dev;
    size_t bytes = (size_t)(p->rows * p->cols) * sizeof *host;
    return failed(dev, kern_do(dev, read, host, o->state[k] + p->offset, bytes), p->name, e);
}

int optim_write(optim *o, int k, size_t i, const float *host, hone_err *e)
{
    const param *p = &o->params->items[i];
    kern_dev *dev = o->params->dev;
    size_t bytes = (size_t)(p->rows * p->cols) * sizeof *host;
    return failed(dev, kern_do(dev, write, o->state[k] + p->offset, host, bytes), p->name, e);
}
