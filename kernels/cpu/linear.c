/* Groups of linear layers: checks, then the base product and the low-rank terms. */
#include <string.h>

#include "kernels/cpu/lora.h"

static int check_lora(kern_dev *d, const kern_linear *a, int p, int64_t *ranks)
{
    const kern_lora *l = a->lora[p];
    int64_t out = a->w->at[p + 1] - a->w->at[p], r = l->A.rows;
    int rc = cpu_shape_of(d, "linear: lora A", &l->A, KERN_F32, r, a->w->in);
    if (rc == 0)
        rc = cpu_shape_of(d, "linear: lora B", &l->B, KERN_F32, out, r);
    if (rc == 0 && l->dA.data != NULL)
        rc = cpu_shape_of(d, "linear: lora dA", &l->dA, KERN_F32, r, a->w->in);
    if (rc == 0 && l->dB.data != NULL)
        rc = cpu_shape_of(d, "linear: lora dB", &l->dB, KERN_F32, out, r);
    if (rc == 0 && !(l->dropout >= 0 && l->dropout < 1))
        rc = cpu_fail(d, KERN_EINVAL, "linear: dropout %g, must be in [0, 1)", (double)l->dropout);
    if (rc == 0 && a->training && l->dropout > 0 && a->rng == NULL)
        rc = cpu_fail(d, KERN_EINVAL, "linear: dropout without rng");
    *ranks += r;
    return rc;
}

/* What forward and backward have in common; *ranks is the width of xa. */
static int check(kern_dev *d, const kern_linear *a, int64_t *ranks)
{
    *ranks = 0;
    if (a->w == NULL)
        return cpu_fail(d, KERN_EINVAL, "linear: no weight");
    int rc = cpu_shape_of(d, "linear: x", &a->x, a->w->compute, a->x.rows, a->w->in);
    for (int p = 0; p < KERN_MAX_PARTS && rc == 0; p++) {
        if (a->lora[p] == NULL)
            continue;
        if (p >= a->w->n_parts)
            return cpu_fail(d, KERN_EINVAL, "linear: lora for part %d of %d", p, a->w->n_parts);
        rc = check_lora(d, a, p, ranks);
    }
    if (rc == 0 && *ranks > 0)
        rc = cpu_shape_of(d, "linear: xa", &a->xa, KERN_F32, a->x.rows, *ranks);
    return rc;
}

int cpu_linear(kern_dev *d, const kern_linear *a)
{
    int64_t ranks;
    int rc = check(d, a, &ranks);
    if (rc == 0)
        rc = cpu_shape_of(d, "linear: y", &a->y, a->w->compute, a->x.rows, a->w->out);
    if (rc != 0 || a->x.rows == 0)
        return rc;
    lora s;
    cpu_mul m = {.x = &a->x, .b = &a->w->fwd, .bias = a->w->bias, .y = &a->y, .add = a->add_to_y};
    if (ranks > 0) {
        const lora_way *way = lora_start(&s, d, a, NULL);
        rc = way->forward(&s);
        m.after = way->expand_y;
        m.arg = &s;
    }
    return rc != 0 ? rc : cpu_product(d, &m);
}

static int check_grad(kern_dev *d, const kern_linear_grad *a, int64_t *ranks)
{
    const kern_weight *w = a->f.w;
    int64_t n = a->f.x.rows;
    int rc = check(d, &a->f, ranks);
    if (rc == 0)
        rc = cpu_shape_of(d, "linear_grad: dy", &a->dy, w->compute, n, w->out);
    if (rc == 0 && a->dx.data != NULL)
        rc = cpu_shape_of(d, "linear_grad: dx", &a->dx, w->compute, n, w->in);
    if (rc == 0 && a->dx.data != NULL && !w->need_dx)
        rc = cpu_fail(d, KERN_EINVAL, "linear_grad: dx of a weight made without need_dx");
    for (int p = 0; p < w->n_parts && rc == 0; p++) {
        int64_t out = w->at[p + 1] - w->at[p];
        if (a->dw[p].data != NULL)
            rc = cpu_shape_of(d, "linear_grad: dw", &a->dw[p], KERN_F32, out, w->in);
        if (rc == 0 && a->db[p].data != NULL)
            rc = cpu_shape_of(d, "linear_grad: db", &a->db[p], KERN_F32, 1, out);
    }
    return rc;
}

/* db += column sums of dy, rows in order. */
static int grad_bias(kern_dev *d, const kern_tensor *dy, float *db)
{
    const cpu_vec *v = cpu_of(d)->vec;
    void *tmp;
    int rc = cpu_scratch(d, CPU_SLOT_A, (size_t)dy->cols * 4, &tmp);
    for (int64_t r = 0; r < dy->rows && rc == 0; r++) {
        v->to_f32(dy->dtype, cpu_at(dy, r, 0), tmp, dy->cols);
        v->axpy(1.0F, tmp, db, dy->cols);
    }
    return rc;
}

int cpu_linear_grad(kern_dev *d, const kern_linear_grad *a)
{
    int64_t ranks;
    const kern_weight *w = a->f.w;
    int rc = check_grad(d, a, &ranks);
    if (rc != 0 || a->f.x.rows == 0)
        return rc;
    lora s;
    const lora_way *way = NULL;
    cpu_mul m = {.x = &a->dy, .b = &w->bwd, .y = &a->dx, .add = a->add_to_dx};
    if (ranks > 0) {
        way = lora_start(&s, d, &a->f, a);
        rc = way->backward(&s);
        m.after = way->expand_dx;
        m.arg = &s;
    }
    if (rc == 0 && a->dx.data != NULL)
        rc = cpu_product(d, &m);
    if (rc == 0 && way != NULL)
        way->outer(&s);
    for (int p = 0; p < w->n_parts && rc == 0; p++) {
        kern_tensor dy = kern_cols(&a->dy, w->at[p], w->at[p + 1] - w->at[p]);
        if (a->dw[p].data != NULL)
            rc = cpu_product_dw(d, &dy, &a->f.x, &a->dw[p]);
        if (rc == 0 && a->db[p].data != NULL)
            rc = grad_bias(d, &dy, a->db[p].data);
    }
    return rc;
}
