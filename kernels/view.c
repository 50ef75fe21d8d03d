/* Views of tensors: what every backend needs too, so this file is part of each. */
#include "kernels/kern.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [KERN_F32] = {"f32", 4}, [KERN_BF16] = {"bf16", 2}, [KERN_F16] = {"f16", 2},
    [KERN_I32] = {"i32", 4}, [KERN_U8] = {"u8", 1},
};

size_t kern_dtype_size(kern_dtype t)
{
    return dtypes[t].size;
}

const char *kern_dtype_name(kern_dtype t)
{
    return dtypes[t].name;
}

kern_tensor kern_cols(const kern_tensor *x, int64_t c0, int64_t cols)
{
    char *p = (char *)x->data + (size_t)c0 * kern_dtype_size(x->dtype);
    return (kern_tensor){x->dtype, x->rows, cols, x->ld, p};
}

kern_tensor kern_rows(const kern_tensor *x, int64_t r0, int64_t rows)
{
    char *p = (char *)x->data + (size_t)(r0 * x->ld) * kern_dtype_size(x->dtype);
    return (kern_tensor){x->dtype, rows, x->cols, x->ld, p};
}
