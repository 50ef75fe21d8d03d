/* The matrix product by cuBLASLt, which is opened at run time: the backend starts, and says what is
 * missing, on a machine without it.
 *
 * Row-major c [m, n] = op(a) op(b) is column-major c' [n, m] = op(b)' op(a)' of the same memory, so
 * b is the library's first operand and a its second. Sums are in f32 (COMPUTE_32F), which for F32
 * operands is f32 throughout: tf32 would be another compute type.
 *
 * A plan (descriptors and an algorithm) is kept for every shape that has been met. The algorithm is
 * the fastest of those that the library proposes, timed on the operands themselves when the shape
 * is first met outside of a recording; only algorithms whose sums have a fixed order are asked for.
 * Not run on a card yet. */
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_cache.h"

/* What we use of the library. */
#define LT_FUNCTIONS(X)                                                                            \
    X(Create)                                                                                      \
    X(Destroy)                                                                                     \
    X(GetVersion)                                                                                  \
    X(GetStatusString)                                                                             \
    X(MatmulDescCreate)                                                                            \
    X(MatmulDescDestroy)                                                                           \
    X(MatmulDescSetAttribute)                                                                      \
    X(MatrixLayoutCreate)                                                                          \
    X(MatrixLayoutDestroy)                                                                         \
    X(MatmulPreferenceCreate)                                                                      \
    X(MatmulPreferenceDestroy)                                                                     \
    X(MatmulPreferenceSetAttribute)                                                                \
    X(MatmulAlgoGetHeuristic)                                                                      \
    X(MatmulAlgoCheck)                                                                             \
    X(Matmul)

struct lt_api {
#define LT_SLOT(name) decltype(&cublasLt##name) name;
    LT_FUNCTIONS(LT_SLOT)
#undef LT_SLOT
};

static_assert(sizeof(gemm_algo) == sizeof(cublasLtMatmulAlgo_t), "an algorithm is stored whole");

/* Plans are dropped all at once when there are MAX_PLANS: batches of ever new lengths. */
enum { PLAN_SLOTS = 8192, MAX_PLANS = 4096, PROPOSALS = 16, REPEATS = 4 };

typedef struct plan_key {
    gemm_key shape;
    int64_t lda, ldb, ldc;
} plan_key;

typedef struct plan {
    plan_key key;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
} plan;

struct cu_gemm_state {
    void *lib;
    lt_api lt;
    cublasLtHandle_t handle;
    size_t workspace;
    bool search;
    char path[512]; /* of the choices; empty: nowhere */
    gemm_choices choices;
    plan *plans[PLAN_SLOTS];
    int n_plans;
    cudaEvent_t start, stop;
};

static int lt_check(kern_dev *d, cublasStatus_t rc, const char *what)
{
    if (rc == CUBLAS_STATUS_SUCCESS)
        return 0;
    return cu_fail(d, KERN_EDEVICE, "%s: cuBLASLt: %s", what,
                   cu_of(d)->gemm->lt.GetStatusString(rc));
}

/* ---- the library ----------------------------------------------------------------------------- */

static const char *const library_names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

/* Beside the backend, where the loader looks, and where the toolkit puts it. */
static void *open_library(void)
{
    char file[1024];
    Dl_info me = {};
    (void)dladdr((void *)library_names, &me);
    const char *slash = me.dli_fname != NULL ? strrchr(me.dli_fname, '/') : NULL;
    int dir = slash != NULL ? (int)(slash - me.dli_fname) : 0;
    for (const char *name : library_names) {
        void *lib = NULL;
        snprintf(file, sizeof file, "%.*s/%s", dir, slash != NULL ? me.dli_fname : "", name);
        if (slash != NULL)
            lib = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        if (lib == NULL)
            lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        snprintf(file, sizeof file, "/usr/local/cuda/lib64/%s", name);
        if (lib == NULL)
            lib = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        if (lib != NULL)
            return lib;
    }
    return NULL;
}

static int find_functions(kern_dev *d, cu_gemm_state *s)
{
#define LT_FIND(name)                                                                              \
    *(void **)&s->lt.name = dlsym(s->lib, "cublasLt" #name);                                       \
    if (s->lt.name == NULL)                                                                        \
        return cu_fail(d, KERN_EUNSUPPORTED,                                                       \
                       "cuBLASLt has no cublasLt" #name "; install cuBLAS 12 or 13");
    LT_FUNCTIONS(LT_FIND)
#undef LT_FIND
    return 0;
}

static void open_choices(cu_gemm_state *s, int card)
{
    char version[32];
    cudaDeviceProp p;
    s->search = !gemm_cache_off();
    if (!s->search || cudaGetDeviceProperties(&p, card) != cudaSuccess)
        return;
    snprintf(version, sizeof version, "%zu", s->lt.GetVersion());
    if (gemm_cache_path(s->path, sizeof s->path, p.name, version) != 0)
        s->path[0] = '\0';
    else
        gemm_cache_load(&s->choices, s->path);
}

int cu_gemm_open(kern_dev *d)
{
    cu_dev *c = cu_of(d);
    cu_gemm_state *s = (cu_gemm_state *)calloc(1, sizeof *s);
    if (s == NULL)
        return cu_fail(d, KERN_ENOMEM, "no memory");
    c->gemm = s;
    s->workspace = (size_t)(c->cc >= 90 ? 32 : 8) << 20;
    s->lib = open_library();
    if (s->lib == NULL)
        return cu_fail(d, KERN_EUNSUPPORTED,
                       "%s is missing: install NVIDIA's cuBLAS (package libcublas-13-0 or "
                       "libcublas-12-8), put the file beside the backend, or use --device cpu",
                       library_names[0]);
    int rc = find_functions(d, s);
    cublasStatus_t started = rc == 0 ? s->lt.Create(&s->handle) : CUBLAS_STATUS_SUCCESS;
    if (started != CUBLAS_STATUS_SUCCESS)
        rc =
            cu_fail(d, KERN_EDEVICE,
                    "cuBLASLt does not start (%s); see with nvidia-smi whether the card has memory "
                    "left, or use --device cpu",
                    s->lt.GetStatusString(started));
    if (rc == 0)
        rc = cu_check(d, cudaEventCreateWithFlags(&s->start, 0), "event");
    if (rc == 0)
        rc = cu_check(d, cudaEventCreateWithFlags(&s->stop, 0), "event");
    if (rc == 0)
        open_choices(s, c->index);
    return rc;
}

/* ---- plans ----------------------------------------------------------------------------------- */

static void plan_free(const lt_api *lt, plan *p)
{
    if (p == NULL)
        return;
    if (p->op != NULL)
        (void)lt->MatmulDescDestroy(p->op);
    for (cublasLtMatrixLayout_t l : {p->a, p->b, p->c})
        if (l != NULL)
            (void)lt->MatrixLayoutDestroy(l);
    free(p);
}

static void drop_plans(cu_gemm_state *s)
{
    for (plan *&p : s->plans) {
        plan_free(&s->lt, p);
        p = NULL;
    }
    s->n_plans = 0;
}

void cu_gemm_close(kern_dev *d)
{
    cu_gemm_state *s = cu_of(d)->gemm;
    if (s == NULL)
        return;
    drop_plans(s);
    gemm_choices_free(&s->choices);
    if (s->start != NULL)
        (void)cudaEventDestroy(s->start);
    if (s->stop != NULL)
        (void)cudaEventDestroy(s->stop);
    if (s->handle != NULL)
        (void)s->lt.Destroy(s->handle);
    free(s); /* the library stays: it has told the driver of its kernels */
    cu_of(d)->gemm = NULL;
}

static plan_key key_of(const cu_gemm_args *g)
{
    plan_key k;
    memset(&k, 0, sizeof k);
    k.shape = gemm_key_of(&g->a, &g->b, &g->c, g->ta, g->tb, g->beta != 0, g->bias != NULL);
    k.lda = g->a.ld;
    k.ldb = g->b.ld;
    k.ldc = g->c.ld;
    return k;
}

/* Where the plan stands or would stand. */
static plan **slot_of(cu_gemm_state *s, const plan_key *k)
{
    const int64_t words[] = {k->shape.m, k->shape.n, k->shape.k, k->shape.kind,
                             k->lda,     k->ldb,     k->ldc};
    uint64_t h = 0;
    for (int64_t w : words)
        h = (h ^ (uint64_t)w) * 0x9E3779B97F4A7C15U, h ^= h >> 29;
    size_t i = h % PLAN_SLOTS;
    for (; s->plans[i] != NULL; i = (i + 1) % PLAN_SLOTS) {
        const plan_key *o = &s->plans[i]->key;
        if (gemm_key_same(&o->shape, &k->shape) && o->lda == k->lda && o->ldb == k->ldb &&
            o->ldc == k->ldc)
            break;
    }
    return &s->plans[i];
}

static cudaDataType_t type_of(kern_dtype t)
{
    return t == KERN_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static int layout(kern_dev *d, cublasLtMatrixLayout_t *out, const kern_tensor *x, const char *what)
{
    const lt_api *lt = &cu_of(d)->gemm->lt;
    return lt_check(
        d,
        lt->MatrixLayoutCreate(out, type_of(x->dtype), (uint64_t)x->cols, (uint64_t)x->rows, x->ld),
        what);
}

static int describe(kern_dev *d, plan *p, const cu_gemm_args *g)
{
    const lt_api *lt = &cu_of(d)->gemm->lt;
    cublasOperation_t first = g->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = g->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    int rc = lt_check(d, lt->MatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), g->what);
    if (rc == 0)
        rc = lt_check(
            d, lt->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first),
            g->what);
    if (rc == 0)
        rc = lt_check(
            d,
            lt->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second),
            g->what);
    if (rc == 0 && g->bias != NULL)
        rc = lt_check(
            d, lt->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias, sizeof bias),
            g->what);
    if (rc == 0)
        rc = layout(d, &p->a, &g->a, g->what);
    if (rc == 0)
        rc = layout(d, &p->b, &g->b, g->what);
    return rc == 0 ? layout(d, &p->c, &g->c, g->what) : rc;
}

/* The bias belongs to the weight, not to the shape. */
static int set_bias(kern_dev *d, const plan *p, const cu_gemm_args *g)
{
    if (g->bias == NULL)
        return 0;
    return lt_check(d,
                    cu_of(d)->gemm->lt.MatmulDescSetAttribute(
                        p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias, sizeof g->bias),
                    g->what);
}

/* out: where the result goes; g's c, but for timing. */
static cublasStatus_t multiply(kern_dev *d, const plan *p, const cu_gemm_args *g,
                               const cublasLtMatmulAlgo_t *algo, void *out)
{
    cu_gemm_state *s = cu_of(d)->gemm;
    void *space = cu_of(d)->scratch[CU_SLOT_GEMM].p;
    return s->lt.Matmul(s->handle, p->op, &g->alpha, g->b.data, p->b, g->a.data, p->a, &g->beta,
                        g->c.data, p->c, out, p->c, algo, space, s->workspace, cu_of(d)->stream);
}

/* ---- choosing an algorithm ------------------------------------------------------------------- */

typedef cublasLtMatmulHeuristicResult_t proposal;

static int prefer(kern_dev *d, cublasLtMatmulPreference_t f, const cu_gemm_args *g)
{
    const cu_gemm_state *s = cu_of(d)->gemm;
    /* No scheme that adds in the order in which blocks finish. */
    uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* and NONE, which is no bit */
    uint32_t a = gemm_alignment(&g->a), b = gemm_alignment(&g->b), c = gemm_alignment(&g->c);
    uint64_t space = s->workspace;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } all[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &space, sizeof space},
               {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof sums},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &b, sizeof b},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &a, sizeof a},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof c}};
    int rc = 0;
    for (const auto &p : all)
        if (rc == 0)
            rc = lt_check(d, s->lt.MatmulPreferenceSetAttribute(f, p.name, p.value, p.size),
                          g->what);
    return rc;
}

/* What the library proposes, best first by its own reckoning; at least one. */
static int propose(kern_dev *d, const plan *p, const cu_gemm_args *g, proposal list[PROPOSALS],
                   int *n)
{
    const cu_gemm_state *s = cu_of(d)->gemm;
    cublasLtMatmulPreference_t f = NULL;
    int found = 0;
    *n = 0;
    int rc = lt_check(d, s->lt.MatmulPreferenceCreate(&f), g->what);
    if (rc == 0)
        rc = prefer(d, f, g);
    if (rc == 0)
        rc = lt_check(d,
                      s->lt.MatmulAlgoGetHeuristic(s->handle, p->op, p->b, p->a, p->c, p->c, f,
                                                   PROPOSALS, list, &found),
                      g->what);
    if (f != NULL)
        (void)s->lt.MatmulPreferenceDestroy(f);
    for (int i = 0; i < found && rc == 0; i++)
        if (list[i].state == CUBLAS_STATUS_SUCCESS)
            list[(*n)++] = list[i];
    if (rc == 0 && *n == 0)
        rc = cu_fail(d, KERN_EUNSUPPORTED,
                     "%s: cuBLASLt has no algorithm for [%lld, %lld] by %lld from %s to %s",
                     g->what, (long long)g->c.rows, (long long)g->c.cols, (long long)p->key.shape.k,
                     kern_dtype_name(g->a.dtype), kern_dtype_name(g->c.dtype));
    return rc;
}

/* Milliseconds for REPEATS products; negative when the algorithm fails. */
static float time_of(kern_dev *d, const plan *p, const cu_gemm_args *g,
                     const cublasLtMatmulAlgo_t *algo, void *out)
{
    cu_gemm_state *s = cu_of(d)->gemm;
    float ms = -1;
    if (multiply(d, p, g, algo, out) != CUBLAS_STATUS_SUCCESS)
        return -1;
    (void)cudaEventRecord(s->start, cu_of(d)->stream);
    for (int i = 0; i < REPEATS; i++)
        if (multiply(d, p, g, algo, out) != CUBLAS_STATUS_SUCCESS)
            return -1;
    (void)cudaEventRecord(s->stop, cu_of(d)->stream);
    if (cudaEventSynchronize(s->stop) != cudaSuccess ||
        cudaEventElapsedTime(&ms, s->start, s->stop) != cudaSuccess)
        return -1;
    return ms;
}

/* The fastest; a later one must be 2 % faster than an earlier one, so that noise decides little. A
 * product that is written is timed in place; one that adds goes to memory of its own for the while,
 * which is not accounted: without it nothing is timed. -1: none was. */
static int fastest(kern_dev *d, const plan *p, const cu_gemm_args *g, const proposal *list, int n)
{
    void *out = g->c.data, *own = NULL;
    if (g->beta != 0) {
        size_t bytes = (size_t)(g->c.rows * g->c.ld) * kern_dtype_size(g->c.dtype);
        if (cudaMalloc(&own, bytes) != cudaSuccess) {
            (void)cudaGetLastError();
            return -1;
        }
        out = own;
    }
    int best = -1;
    float least = 0;
    for (int i = 0; i < n; i++) {
        float ms = time_of(d, p, g, &list[i].algo, out);
        if (ms < 0 || (best >= 0 && ms > least * 0.98F))
            continue;
        best = i;
        least = ms;
    }
    (void)cudaFree(own);
    return best;
}

/* Whether a stored algorithm runs this very shape with our workspace. */
static bool fits(kern_dev *d, const plan *p, const gemm_algo *a, cublasLtMatmulAlgo_t *out)
{
    const cu_gemm_state *s = cu_of(d)->gemm;
    proposal r = {};
    memcpy(out, a, sizeof *out);
    return s->lt.MatmulAlgoCheck(s->handle, p->op, p->b, p->a, p->c, p->c, out, &r) ==
               CUBLAS_STATUS_SUCCESS &&
           r.workspaceSize <= s->workspace;
}

/* Keeps algorithm i for shapes like this one, or takes what another process has kept. */
static int keep(kern_dev *d, plan *p, const gemm_key *k, const proposal *chosen)
{
    cu_gemm_state *s = cu_of(d)->gemm;
    cublasLtMatmulAlgo_t kept;
    gemm_algo a;
    memcpy(&a, &chosen->algo, sizeof a);
    p->algo = chosen->algo;
    int rc = s->path[0] != '\0' ? gemm_cache_add(&s->choices, s->path, k, &a)
                                : gemm_choices_add(&s->choices, k, &a);
    const gemm_algo *there = gemm_choices_find(&s->choices, k);
    if (rc == 0 && there != NULL && fits(d, p, there, &kept))
        p->algo = kept;
    return 0; /* a choice that is not kept serves this plan all the same */
}

static int choose(kern_dev *d, plan *p, const cu_gemm_args *g)
{
    cu_gemm_state *s = cu_of(d)->gemm;
    proposal list[PROPOSALS];
    gemm_key k = gemm_key_round(p->key.shape);
    const gemm_algo *known = s->search ? gemm_choices_find(&s->choices, &k) : NULL;
    int n = 0, best = -1;
    if (known != NULL && fits(d, p, known, &p->algo))
        return 0;
    int rc = propose(d, p, g, list, &n);
    if (rc != 0)
        return rc;
    p->algo = list[0].algo;
    if (s->search && known == NULL && !cu_of(d)->capturing)
        best = fastest(d, p, g, list, n);
    return best >= 0 ? keep(d, p, &k, &list[best]) : 0;
}

static int plan_new(kern_dev *d, plan **out, const plan_key *k, const cu_gemm_args *g)
{
    plan *p = (plan *)calloc(1, sizeof *p);
    *out = NULL;
    if (p == NULL)
        return cu_fail(d, KERN_ENOMEM, "%s: no memory", g->what);
    p->key = *k;
    int rc = describe(d, p, g);
    if (rc == 0)
        rc = set_bias(d, p, g);
    if (rc == 0)
        rc = choose(d, p, g);
    if (rc != 0) {
        plan_free(&cu_of(d)->gemm->lt, p);
        return rc;
    }
    *out = p;
    return 0;
}

static int find_plan(kern_dev *d, plan **out, const cu_gemm_args *g)
{
    cu_gemm_state *s = cu_of(d)->gemm;
    plan_key k = key_of(g);
    plan **slot = slot_of(s, &k);
    *out = *slot;
    if (*out != NULL)
        return 0;
    if (s->n_plans == MAX_PLANS) {
        drop_plans(s);
        slot = slot_of(s, &k);
    }
    int rc = plan_new(d, out, &k, g);
    if (rc == 0) {
        *slot = *out;
        s->n_plans++;
    }
    return rc;
}

/* ---- the product ----------------------------------------------------------------------------- */

/* c = beta c: a product over nothing. An element a thread. */
template <typename T>
static __global__ void scale_kernel(T *c, int64_t ld, int64_t rows, int64_t cols, float beta)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= rows * cols)
        return;
    T *p = c + i / cols * ld + i % cols;
    *p = from_f32<T>(beta == 0 ? 0 : beta * to_f32(*p));
}

static int scale(kern_dev *d, const cu_gemm_args *g)
{
    const kern_tensor *c = &g->c;
    unsigned grid = cu_blocks(c->rows * c->cols, 256);
    if (c->dtype == KERN_F32)
        return cu_launch(d, g->what, scale_kernel<float>, grid, 256, (float *)c->data, c->ld,
                         c->rows, c->cols, g->beta);
    return cu_launch(d, g->what, scale_kernel<bf16>, grid, 256, (bf16 *)c->data, c->ld, c->rows,
                     c->cols, g->beta);
}

/* *k is the length of the sums. */
static int check(kern_dev *d, const cu_gemm_args *g, int64_t *k)
{
    int64_t m = g->c.rows, n = g->c.cols;
    *k = g->ta ? g->a.rows : g->a.cols;
    int rc = cu_shape(d, g->what, &g->a, g->ta ? *k : m, g->ta ? m : *k);
    if (rc == 0)
        rc = cu_shape_of(d, g->what, &g->b, g->a.dtype, g->tb ? n : *k, g->tb ? *k : n);
    if (rc == 0)
        rc = cu_shape(d, g->what, &g->c, m, n);
    if (rc == 0 && g->c.dtype != g->a.dtype && g->c.dtype != KERN_F32)
        rc = cu_fail(d, KERN_EUNSUPPORTED, "%s: %s from %s", g->what, kern_dtype_name(g->c.dtype),
                     kern_dtype_name(g->a.dtype));
    if (rc == 0 && *k == 0 && g->bias != NULL)
        rc = cu_fail(d, KERN_EINVAL, "%s: a bias on a product over nothing", g->what);
    return rc;
}

int cu_gemm(kern_dev *d, const cu_gemm_args *g)
{
    int64_t k;
    plan *p;
    void *space;
    int rc = check(d, g, &k);
    if (rc != 0 || g->c.rows == 0 || g->c.cols == 0)
        return rc;
    if (k == 0)
        return scale(d, g);
    rc = cu_scratch(d, CU_SLOT_GEMM, cu_of(d)->gemm->workspace, &space);
    if (rc == 0)
        rc = find_plan(d, &p, g);
    if (rc == 0)
        rc = set_bias(d, p, g);
    return rc == 0 ? lt_check(d, multiply(d, p, g, &p->algo, g->c.data), g->what) : rc;
}
