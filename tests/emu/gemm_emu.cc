/* The matrix product of the emulated card: plain loops in place of cuBLASLt. */
#include "kernels/cuda/device.cuh"

int cu_gemm_open(kern_dev *d)
{
    (void)d;
    return 0;
}

void cu_gemm_close(kern_dev *d)
{
    (void)d;
}

static float get(const kern_tensor *x, int64_t r, int64_t c, bool t)
{
    const void *p = t ? cu_at(x, c, r) : cu_at(x, r, c);
    return x->dtype == KERN_F32 ? *(const float *)p : to_f32(*(const bf16 *)p);
}

static void run(const cu_gemm_args &g)
{
    int64_t m = g.c.rows, n = g.c.cols, k = g.ta ? g.a.rows : g.a.cols;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += get(&g.a, i, l, g.ta) * get(&g.b, l, j, g.tb);
            sum *= g.alpha;
            if (g.beta != 0)
                sum += g.beta * get(&g.c, i, j, false);
            if (g.bias != nullptr)
                sum += g.c.dtype == KERN_F32 ? ((const float *)g.bias)[j]
                                             : to_f32(((const bf16 *)g.bias)[j]);
            if (g.c.dtype == KERN_F32)
                *(float *)cu_at(&g.c, i, j) = sum;
            else
                *(bf16 *)cu_at(&g.c, i, j) = from_f32<bf16>(sum);
        }
}

int cu_gemm(kern_dev *d, const cu_gemm_args *g)
{
    int64_t k;
    int rc = cu_gemm_check(d, g, &k);
    if (rc != 0)
        return rc;
    cu_gemm_args copy = *g;
    /* One thread, so that the host's guard on device memory opens as for a kernel. */
    return cu_launch(
        d, g->what, +[](cu_gemm_args a) { run(a); }, 1, 1, copy);
}
