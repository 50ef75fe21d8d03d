/* Which product a shape and machine get. */
#include "kernels/cpu/weight.h"

/* oneDNN's bf16 is fast from AVX-512 BF16 on; its f32 everywhere. Held-back features keep to our
 * own code. */
static bool use_dnnl(const kern_dev *d, kern_dtype t)
{
    cpu_isa isa = ((const cpu_dev *)d)->isa;
    return isa >= (t == KERN_F32 ? CPU_AVX2 : CPU_AVX512_BF16);
}

int cpu_product(kern_dev *d, const cpu_mul *m)
{
    /* Rows that are read across, not along, are no matrix-vector product. */
    bool streams = m->b->l.width > 0 || m->b->l.transposed;
    if (m->x->rows <= CPU_SMALL && streams)
        return cpu_product_small(d, m);
    return use_dnnl(d, m->b->dtype) ? cpu_product_dnnl(d, m) : cpu_product_plain(d, m);
}

int cpu_product_dw(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw)
{
    /* oneDNN writes matrices without gaps only. */
    bool fits = use_dnnl(d, x->dtype) && dw->ld == dw->cols;
    return fits ? cpu_dw_dnnl(d, dy, x, dw) : cpu_dw_plain(d, dy, x, dw);
}
