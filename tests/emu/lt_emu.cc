/* cuBLASLt of the emulated card: column-major products by plain loops, and a choice of algorithms
 * to choose from. The backend opens its own file under the library's name and finds them in it. */
#include <stdlib.h>

#include <algorithm>

#include "tests/emu/cublasLt.h"
#include "kernels/cuda/device.cuh"

#define EXPORT extern "C" __attribute__((visibility("default")))

/* What an algorithm does; data[0] of it. */
enum { FORWARD = 1, REFUSES, BACKWARD, N_KINDS };

struct lt_desc {
    bool ta, tb;
    cublasLtEpilogue_t epilogue;
    const void *bias;
};
struct lt_layout {
    cudaDataType_t t;
    int64_t rows, cols, ld;
};
struct lt_preference {
    uint32_t align[4];
    uint64_t space;
};

EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t *out)
{
    static char handle;
    if (getenv("EMU_NO_LT") != nullptr) /* as where the card has no memory left */
        return CUBLAS_STATUS_NOT_INITIALIZED;
    *out = (cublasLtHandle_t)(void *)&handle;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t)
{
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT size_t cublasLtGetVersion(void)
{
    return 0;
}
EXPORT const char *cublasLtGetStatusString(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_SUCCESS           ? "success"
           : s == CUBLAS_STATUS_NOT_SUPPORTED   ? "not supported"
           : s == CUBLAS_STATUS_NOT_INITIALIZED ? "not initialised"
                                                : "a value that cannot be";
}

EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t c,
                                               cudaDataType_t scale)
{
    if (c != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = new lt_desc{false, false, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op)
{
    delete op;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t op,
                                                     cublasLtMatmulDescAttributes_t a,
                                                     const void *v, size_t n)
{
    if (n != (a == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof(void *) : 4U))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a == CUBLASLT_MATMUL_DESC_TRANSA)
        op->ta = *(const cublasOperation_t *)v == CUBLAS_OP_T;
    else if (a == CUBLASLT_MATMUL_DESC_TRANSB)
        op->tb = *(const cublasOperation_t *)v == CUBLAS_OP_T;
    else if (a == CUBLASLT_MATMUL_DESC_EPILOGUE)
        op->epilogue = *(const cublasLtEpilogue_t *)v;
    else
        op->bias = *(const void *const *)v;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType_t t,
                                                 uint64_t rows, uint64_t cols, int64_t ld)
{
    if (rows < 1 || cols < 1 || ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = new lt_layout{t, (int64_t)rows, (int64_t)cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = new lt_preference{{256, 256, 256, 256}, 0};
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t f)
{
    delete f;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t f,
                                                           cublasLtMatmulPreferenceAttributes_t a,
                                                           const void *v, size_t n)
{
    if (n != (a == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8U : 4U))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        f->space = *(const uint64_t *)v;
    else if (a >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES)
        f->align[a - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] = *(const uint32_t *)v;
    else if (*(const uint32_t *)v != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        return CUBLAS_STATUS_NOT_SUPPORTED; /* sums in no fixed order */
    return CUBLAS_STATUS_SUCCESS;
}

/* Whether the layouts are those of one product d = op(a) op(b). */
static bool agree(const lt_desc *op, const lt_layout *a, const lt_layout *b, const lt_layout *c,
                  const lt_layout *d)
{
    int64_t m = op->ta ? a->cols : a->rows, k = op->ta ? a->rows : a->cols;
    int64_t n = op->tb ? b->rows : b->cols;
    return k == (op->tb ? b->cols : b->rows) && d->rows == m && d->cols == n && c->rows == m &&
           c->cols == n && a->t == b->t && c->t == d->t && (d->t == a->t || d->t == CUDA_R_32F);
}

/* BACKWARD wants rows aligned to 16 bytes, as fast algorithms do. */
EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t f, int want,
    cublasLtMatmulHeuristicResult_t *list, int *n)
{
    *n = 0;
    if (!agree(op, a, b, c, d))
        return CUBLAS_STATUS_INVALID_VALUE;
    bool aligned = *std::min_element(f->align, f->align + 4) >= 16;
    for (uint64_t kind = FORWARD; kind < (aligned ? N_KINDS : BACKWARD) && *n < want; kind++) {
        cublasLtMatmulHeuristicResult_t r = {};
        r.algo.data[0] = kind;
        r.workspaceSize = 64;
        list[(*n)++] = r;
    }
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              const cublasLtMatmulAlgo_t *algo,
                                              cublasLtMatmulHeuristicResult_t *r)
{
    if (!agree(op, a, b, c, d) || algo->data[0] < FORWARD || algo->data[0] >= N_KINDS)
        return CUBLAS_STATUS_INVALID_VALUE;
    r->workspaceSize = 64;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ----------------------------------------------------------------------------- */

struct product {
    lt_desc op;
    lt_layout la, lb, ld;
    const void *a, *b, *c;
    void *d, *space;
    float alpha, beta;
    bool backward;
};

static float get(const lt_layout &l, const void *p, int64_t r, int64_t c)
{
    int64_t i = r + c * l.ld;
    return l.t == CUDA_R_32F ? ((const float *)p)[i] : to_f32(((const bf16 *)p)[i]);
}

static void element(const product &g, int64_t r, int64_t c, int64_t k)
{
    float sum = 0;
    for (int64_t j = 0; j < k; j++) {
        int64_t i = g.backward ? k - 1 - j : j;
        sum += (g.op.ta ? get(g.la, g.a, i, r) : get(g.la, g.a, r, i)) *
               (g.op.tb ? get(g.lb, g.b, c, i) : get(g.lb, g.b, i, c));
    }
    sum *= g.alpha;
    if (g.beta != 0)
        sum += g.beta * get(g.ld, g.c, r, c);
    if (g.op.epilogue == CUBLASLT_EPILOGUE_BIAS)
        sum += get({g.ld.t, g.ld.rows, 1, g.ld.rows}, g.op.bias, r, 0);
    if (g.ld.t == CUDA_R_32F)
        ((float *)g.d)[r + c * g.ld.ld] = sum;
    else
        ((bf16 *)g.d)[r + c * g.ld.ld] = from_f32<bf16>(sum);
}

static void multiply(product g)
{
    memset(g.space, 0xFF, 64); /* what stood there is lost */
    for (int64_t c = 0; c < g.ld.cols; c++)
        for (int64_t r = 0; r < g.ld.rows; r++)
            element(g, r, c, g.op.ta ? g.la.rows : g.la.cols);
}

static bool aligned16(const void *p, const lt_layout *l)
{
    size_t e = l->t == CUDA_R_32F ? 4 : 2;
    return (uintptr_t)p % 16 == 0 && (l->cols == 1 || (size_t)l->ld * e % 16 == 0);
}

EXPORT cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t op, const void *alpha,
                                     const void *a, cublasLtMatrixLayout_t la, const void *b,
                                     cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                                     cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                                     const cublasLtMatmulAlgo_t *algo, void *space, size_t bytes,
                                     cudaStream_t)
{
    if (!agree(op, la, lb, lc, ld) || bytes < 64 || space == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (algo->data[0] == REFUSES)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (algo->data[0] == BACKWARD && !(aligned16(a, la) && aligned16(b, lb) && aligned16(d, ld)))
        return CUBLAS_STATUS_INVALID_VALUE;
    product g = {*op,
                 *la,
                 *lb,
                 *ld,
                 a,
                 b,
                 c,
                 d,
                 space,
                 *(const float *)alpha,
                 *(const float *)beta,
                 algo->data[0] == BACKWARD};
    emu::submit([=] { emu::run("cublasLtMatmul", 1, 1, 0, [=] { multiply(g); }); });
    return CUBLAS_STATUS_SUCCESS;
}
