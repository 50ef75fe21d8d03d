/* Making, changing and freeing prepared weights. */
#include "kernels/cpu/weight.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/compact.h"

static int check_part(kern_dev *d, const kern_weight_desc *s, int p)
{
    const kern_tensor *w = &s->part[p], *b = &s->bias[p];
    if (w->dtype != KERN_F32 && w->dtype != KERN_BF16 && w->dtype != KERN_F16)
        return cpu_fail(d, KERN_EUNSUPPORTED, "weight_new: part %d is %s", p,
                        kern_dtype_name(w->dtype));
    int rc = cpu_shape(d, "weight_new: part", w, w->rows, s->part[0].cols);
    if (rc == 0 && (w->rows < 1 || w->cols < 1))
        rc = cpu_fail(d, KERN_EINVAL, "weight_new: part %d is [%lld, %lld]", p, (long long)w->rows,
                      (long long)w->cols);
    if (rc == 0 && b->data != NULL)
        rc = cpu_shape(d, "weight_new: bias", b, 1, w->rows);
    return rc;
}

static int check_desc(kern_dev *d, const kern_weight_desc *s)
{
    if (s->n_parts < 1 || s->n_parts > KERN_MAX_PARTS)
        return cpu_fail(d, KERN_EINVAL, "weight_new: %d parts, must be 1 to %d", s->n_parts,
                        KERN_MAX_PARTS);
    if (s->compute != KERN_F32 && s->compute != KERN_BF16)
        return cpu_fail(d, KERN_EUNSUPPORTED,
                        "weight_new: the CPU computes in f32 and bf16, not %s",
                        kern_dtype_name(s->compute));
    for (int p = 0; p < s->n_parts; p++) {
        int rc = check_part(d, s, p);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static bool any_bias(const kern_weight_desc *s)
{
    for (int p = 0; p < s->n_parts; p++)
        if (s->bias[p].data != NULL)
            return true;
    return false;
}

static int take_matrix(kern_dev *d, cpu_matrix *m, kern_dtype t, int64_t depth, int64_t cols,
                       bool transposed, bool may_be_compact)
{
    m->dtype = t;
    m->l = cpu_layout_of(d, t, depth, cols, transposed);
    size_t bytes = cpu_layout_bytes(&m->l, t);
    bool passing = may_be_compact && cpu_compact_fits(d, m);
    int rc = (passing ? cpu_take : cpu_take_lasting)(d, "weight_new", bytes, &m->data);
    if (rc == 0)
        memset(m->data, 0, bytes);
    return rc;
}

static int fill(kern_dev *d, kern_weight *w, const kern_weight_desc *s)
{
    /* Weights that only answer are read for a row or two at a time. In training, where all products
     * have many rows, expanding would cost more than it saves. */
    bool answers = !w->need_dx && !w->trainable;
    int rc = take_matrix(d, &w->fwd, w->compute, w->in, w->out, true, answers);
    if (rc == 0 && w->fwd.l.width == 0) {
        w->bwd = w->fwd; /* the same rows, read the other way */
        w->bwd.l.depth = w->out;
        w->bwd.l.cols = w->in;
        w->bwd.l.transposed = false;
    } else if (rc == 0 && w->need_dx) {
        rc = take_matrix(d, &w->bwd, w->compute, w->out, w->in, false, false);
    }
    if (rc == 0 && any_bias(s)) {
        void *bias;
        rc = cpu_alloc(d, (size_t)w->out * 4, &bias);
        w->bias = bias;
    }
    const cpu_vec *v = cpu_of(d)->vec;
    for (int p = 0; p < s->n_parts && rc == 0; p++) {
        rc = cpu_pack(d, w, w->at[p], &s->part[p]);
        if (rc == 0 && s->bias[p].data != NULL)
            v->to_f32(s->bias[p].dtype, s->bias[p].data, w->bias + w->at[p], s->part[p].rows);
    }
    if (rc == 0 && answers && cpu_compact_fits(d, &w->fwd))
        rc = cpu_compact_make(d, &w->fwd);
    return rc;
}

int cpu_weight_new(kern_dev *d, const kern_weight_new_args *a)
{
    const kern_weight_desc *s = a->desc;
    *a->out = NULL;
    int rc = check_desc(d, s);
    if (rc != 0)
        return rc;
    kern_weight *w = calloc(1, sizeof *w);
    if (w == NULL)
        return cpu_fail(d, KERN_ENOMEM, "weight_new: no memory for %zu bytes", sizeof *w);
    w->n_parts = s->n_parts;
    w->in = s->part[0].cols;
    for (int p = 0; p < s->n_parts; p++)
        w->at[p + 1] = w->at[p] + s->part[p].rows;
    w->out = w->at[s->n_parts];
    w->compute = s->compute;
    w->need_dx = s->need_dx;
    w->trainable = s->trainable;
    rc = fill(d, w, s);
    if (rc != 0) {
        cpu_weight_free(d, w);
        return rc;
    }
    *a->out = w;
    return 0;
}

int cpu_weight_update(kern_dev *d, const kern_weight_update_args *a)
{
    kern_weight *w = a->w;
    if (!w->trainable)
        return cpu_fail(d, KERN_EINVAL, "weight_update: the weight was made as not trainable");
    if (a->part < 0 || a->part >= w->n_parts)
        return cpu_fail(d, KERN_EINVAL, "weight_update: part %d of %d", a->part, w->n_parts);
    int64_t o0 = w->at[a->part], out = w->at[a->part + 1] - o0;
    int rc = cpu_shape_of(d, "weight_update: src", &a->src, KERN_F32, out, w->in);
    if (rc == 0 && a->bias.data != NULL)
        rc = cpu_shape_of(d, "weight_update: bias", &a->bias, KERN_F32, 1, out);
    if (rc == 0 && a->bias.data != NULL && w->bias == NULL)
        rc = cpu_fail(d, KERN_EINVAL, "weight_update: the weight was made without bias");
    if (rc == 0)
        rc = cpu_pack(d, w, o0, &a->src);
    if (rc == 0 && a->bias.data != NULL)
        memcpy(w->bias + o0, a->bias.data, (size_t)out * 4);
    return rc;
}

int cpu_weight_free(kern_dev *d, kern_weight *w)
{
    if (w == NULL)
        return 0;
    cpu_compact_free(d, &w->fwd);
    if (w->bwd.data != w->fwd.data)
        cpu_give(d, w->bwd.data);
    cpu_give(d, w->fwd.data);
    cpu_give(d, w->bias);
    free(w);
    return 0;
}
