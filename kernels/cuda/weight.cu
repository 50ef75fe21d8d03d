/* Making, changing and freeing prepared weights: the parts one under the other, row-major, in the
 * compute dtype. Forward and backward read the same matrix, so nothing is packed twice. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/device.cuh"

static int check_part(kern_dev *d, const kern_weight_desc *s, int p)
{
    const kern_tensor *w = &s->part[p], *b = &s->bias[p];
    if (w->dtype != KERN_F32 && w->dtype != KERN_BF16 && w->dtype != KERN_F16)
        return cu_fail(d, KERN_EUNSUPPORTED, "weight_new: part %d is %s", p,
                       kern_dtype_name(w->dtype));
    int rc = cu_shape(d, "weight_new: part", w, w->rows, s->part[0].cols);
    if (rc == 0 && (w->rows < 1 || w->cols < 1))
        rc = cu_fail(d, KERN_EINVAL, "weight_new: part %d is [%lld, %lld]", p, (long long)w->rows,
                     (long long)w->cols);
    if (rc == 0 && b->data != NULL)
        rc = cu_shape(d, "weight_new: bias", b, 1, w->rows);
    return rc;
}

static int check_desc(kern_dev *d, const kern_weight_desc *s)
{
    if (cu_of(d)->capturing)
        return cu_fail(d, KERN_EINVAL, "weight_new: host data cannot be recorded");
    if (s->n_parts < 1 || s->n_parts > KERN_MAX_PARTS)
        return cu_fail(d, KERN_EINVAL, "weight_new: %d parts, must be 1 to %d", s->n_parts,
                       KERN_MAX_PARTS);
    if (s->compute != KERN_F32 && s->compute != KERN_BF16)
        return cu_fail(d, KERN_EUNSUPPORTED,
                       "weight_new: the card computes in f32 and bf16, not %s",
                       kern_dtype_name(s->compute));
    int rc = 0;
    for (int p = 0; p < s->n_parts && rc == 0; p++)
        rc = check_part(d, s, p);
    return rc;
}

/* Rows of dst from host memory. Without gaps and of the same dtype they go as they are; else they
 * go, gaps and all, to scratch memory a piece at a time, where a kernel takes them apart: the host
 * never touches an element. */
static int upload(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    enum { PIECE = 32 << 20 };
    size_t e = kern_dtype_size(src->dtype), pitch = (size_t)src->ld * e;
    if (src->dtype == dst->dtype && (src->ld == src->cols || src->rows == 1))
        return cu_op_write(d, dst->data, src->data, (size_t)(src->rows * src->cols) * e);
    int64_t some = (int64_t)(PIECE / pitch);
    some = some < 1 ? 1 : some > src->rows ? src->rows : some;
    void *raw;
    int rc = cu_scratch(d, CU_SLOT_X, (size_t)some * pitch, &raw);
    for (int64_t r = 0; r < src->rows && rc == 0; r += some) {
        int64_t n = src->rows - r < some ? src->rows - r : some;
        kern_tensor from = {src->dtype, n, src->cols, src->ld, raw}, to = kern_rows(dst, r, n);
        rc = cu_op_write(d, raw, cu_at(src, r, 0), (size_t)(n - 1) * pitch + (size_t)src->cols * e);
        if (rc == 0)
            rc = cu_op_copy(d, &from, &to);
    }
    return rc;
}

/* Entries [o0, o0 + n) of the bias, f32 and as products take it. */
static kern_tensor bias_part(const kern_weight *w, kern_dtype t, int64_t o0, int64_t n)
{
    char *at = (char *)(t == KERN_F32 ? (void *)w->bias : w->bias_c);
    return kern_mat(t, 1, n, at + (size_t)o0 * kern_dtype_size(t));
}

static int round_bias(kern_dev *d, const kern_weight *w, int64_t o0, int64_t n)
{
    kern_tensor f = bias_part(w, KERN_F32, o0, n), c = bias_part(w, w->compute, o0, n);
    return w->compute == KERN_F32 ? 0 : cu_op_copy(d, &f, &c);
}

static int take_bias(kern_dev *d, kern_weight *w)
{
    size_t n = (size_t)w->out;
    void *p;
    int rc = cu_take(d, "weight_new", n * (w->compute == KERN_F32 ? 4 : 6), &p);
    w->bias = (float *)p;
    w->bias_c = rc == 0 && w->compute != KERN_F32 ? (char *)p + n * 4 : p;
    return rc == 0 ? cu_op_zero(d, p, n * (w->compute == KERN_F32 ? 4 : 6)) : rc;
}

static int fill(kern_dev *d, kern_weight *w, const kern_weight_desc *s)
{
    void *p;
    bool any = false;
    int rc = cu_take(d, "weight_new", (size_t)(w->out * w->in) * kern_dtype_size(w->compute), &p);
    w->w = kern_mat(w->compute, w->out, w->in, p);
    for (int i = 0; i < s->n_parts; i++)
        any |= s->bias[i].data != NULL;
    if (rc == 0 && any)
        rc = take_bias(d, w);
    for (int i = 0; i < s->n_parts && rc == 0; i++) {
        int64_t n = s->part[i].rows;
        kern_tensor rows = kern_rows(&w->w, w->at[i], n);
        rc = upload(d, &s->part[i], &rows);
        if (rc != 0 || s->bias[i].data == NULL)
            continue;
        kern_tensor f = bias_part(w, KERN_F32, w->at[i], n);
        rc = upload(d, &s->bias[i], &f);
        if (rc == 0)
            rc = round_bias(d, w, w->at[i], n);
    }
    return rc;
}

int cu_op_weight_new(kern_dev *d, const kern_weight_new_args *a)
{
    const kern_weight_desc *s = a->desc;
    *a->out = NULL;
    int rc = check_desc(d, s);
    if (rc != 0)
        return rc;
    kern_weight *w = (kern_weight *)calloc(1, sizeof *w);
    if (w == NULL)
        return cu_fail(d, KERN_ENOMEM, "weight_new: no memory for %zu bytes", sizeof *w);
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
        char why[sizeof d->err];
        memcpy(why, d->err, sizeof why);
        (void)cu_op_weight_free(d, w);
        memcpy(d->err, why, sizeof why);
        return rc;
    }
    *a->out = w;
    return 0;
}

int cu_op_weight_update(kern_dev *d, const kern_weight_update_args *a)
{
    kern_weight *w = a->w;
    if (!w->trainable)
        return cu_fail(d, KERN_EINVAL, "weight_update: the weight was made as not trainable");
    if (a->part < 0 || a->part >= w->n_parts)
        return cu_fail(d, KERN_EINVAL, "weight_update: part %d of %d", a->part, w->n_parts);
    int64_t o0 = w->at[a->part], out = w->at[a->part + 1] - o0;
    kern_tensor rows = kern_rows(&w->w, o0, out);
    int rc = cu_shape_of(d, "weight_update: src", &a->src, KERN_F32, out, w->in);
    if (rc == 0 && a->bias.data != NULL)
        rc = cu_shape_of(d, "weight_update: bias", &a->bias, KERN_F32, 1, out);
    if (rc == 0 && a->bias.data != NULL && w->bias == NULL)
        rc = cu_fail(d, KERN_EINVAL, "weight_update: the weight was made without bias");
    if (rc == 0)
        rc = cu_op_copy(d, &a->src, &rows);
    if (rc != 0 || a->bias.data == NULL)
        return rc;
    kern_tensor f = bias_part(w, KERN_F32, o0, out);
    rc = cu_op_copy(d, &a->bias, &f);
    return rc == 0 ? round_bias(d, w, o0, out) : rc;
}

int cu_op_weight_free(kern_dev *d, kern_weight *w)
{
    if (w == NULL)
        return 0;
    int rc = cu_op_sync(d); /* what is queued may read it */
    cu_give(d, w->w.data);
    cu_give(d, w->bias);
    free(w);
    return rc;
}
