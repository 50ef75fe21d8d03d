/* The CUDA backend: what the machine has, the op table, open and close, checks. */
#include "kernels/cuda/cu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const kern_ops ops = {
#define CU_SLOT(name, args) cu_op_##name,
    KERN_OPS(CU_SLOT)
#undef CU_SLOT
};

int cu_fail(kern_dev *d, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->err, sizeof d->err, fmt, ap);
    va_end(ap);
    return code;
}

/* What to do about an error. After most of these nothing works any more in this process. */
static const char *advice(cudaError_t rc)
{
    static const char other[] = "; the backend has no code for this card: build it with CUDA_ARCH "
                                "naming it, or use --device cpu";
    static const char held[] = "; another process may hold the card: see nvidia-smi";
    static const char lost[] =
        "; the card has ended this process's work: start it again (training "
        "goes on from its last checkpoint), and see dmesg if it happens twice";
    static const struct {
        cudaError_t rc;
        const char *text;
    } rows[] = {{cudaErrorNoKernelImageForDevice, other},
                {cudaErrorInvalidDeviceFunction, other},
                {cudaErrorUnsupportedPtxVersion, other},
                {cudaErrorDevicesUnavailable, held},
                {cudaErrorSystemNotReady, held},
                {cudaErrorIllegalAddress, lost},
                {cudaErrorMisalignedAddress, lost},
                {cudaErrorIllegalInstruction, lost},
                {cudaErrorInvalidAddressSpace, lost},
                {cudaErrorInvalidPc, lost},
                {cudaErrorHardwareStackError, lost},
                {cudaErrorLaunchFailure, lost},
                {cudaErrorLaunchTimeout, lost},
                {cudaErrorECCUncorrectable, lost},
                {cudaErrorUnknown, lost}};
    for (const auto &r : rows)
        if (r.rc == rc)
            return r.text;
    return "";
}

int cu_check(kern_dev *d, cudaError_t rc, const char *what)
{
    if (rc == cudaSuccess)
        return 0;
    if (rc == cudaErrorMemoryAllocation)
        return cu_fail(d, KERN_ENOMEM, "%s: no memory on the card", what);
    return cu_fail(d, KERN_EDEVICE, "%.60s: %.60s%s", what, cudaGetErrorString(rc), advice(rc));
}

/* ---- checks ---------------------------------------------------------------------------------- */

int cu_shape(kern_dev *d, const char *field, const kern_tensor *x, int64_t rows, int64_t cols)
{
    if (x->rows != rows || x->cols != cols)
        return cu_fail(d, KERN_EINVAL, "%s is [%lld, %lld], must be [%lld, %lld]", field,
                       (long long)x->rows, (long long)x->cols, (long long)rows, (long long)cols);
    if (x->data == NULL && rows * cols > 0)
        return cu_fail(d, KERN_EINVAL, "%s has no data", field);
    if (x->ld < cols)
        return cu_fail(d, KERN_EINVAL, "%s has %lld columns and a leading dimension of %lld", field,
                       (long long)cols, (long long)x->ld);
    return 0;
}

int cu_shape_of(kern_dev *d, const char *field, const kern_tensor *x, kern_dtype t, int64_t rows,
                int64_t cols)
{
    if (x->dtype != t)
        return cu_fail(d, KERN_EINVAL, "%s is %s, must be %s", field, kern_dtype_name(x->dtype),
                       kern_dtype_name(t));
    return cu_shape(d, field, x, rows, cols);
}

int cu_activation(kern_dev *d, const char *field, const kern_tensor *x)
{
    if (x->dtype != KERN_F32 && x->dtype != KERN_BF16)
        return cu_fail(d, KERN_EUNSUPPORTED, "%s is %s; the card computes in f32 and bf16", field,
                       kern_dtype_name(x->dtype));
    return 0;
}

bool cu_aligned16(const kern_tensor *x)
{
    size_t e = kern_dtype_size(x->dtype);
    return x->data == NULL || ((uintptr_t)x->data % 16 == 0 && (size_t)x->cols * e % 16 == 0 &&
                               (x->rows <= 1 || (size_t)x->ld * e % 16 == 0));
}

/* ---- what the machine has -------------------------------------------------------------------- */

enum { LEAST_CC = 80 };

/* Why there is no card that we can use; 0 when there is. */
static int find_cards(int *n, char err[256])
{
    int driver = 0, runtime = 0;
    cudaError_t rc = cudaDriverGetVersion(&driver);
    if (rc == cudaSuccess)
        rc = cudaRuntimeGetVersion(&runtime);
    if (rc != cudaSuccess || driver == 0) {
        snprintf(err, 256, "cuda: no NVIDIA driver is loaded; install it, or use --device cpu");
        return KERN_EDEVICE;
    }
    if (driver / 1000 < runtime / 1000) {
        snprintf(
            err, 256,
            "cuda: the driver speaks CUDA %d.%d, this program needs %d.0; update the driver, or "
            "use --device cpu",
            driver / 1000, driver % 1000 / 10, runtime / 1000);
        return KERN_EDEVICE;
    }
    rc = cudaGetDeviceCount(n);
    if (rc == cudaSuccess && *n > 0)
        return 0;
    snprintf(err, 256, "cuda: no card (%s); use --device cpu",
             rc == cudaSuccess ? "the driver lists none" : cudaGetErrorString(rc));
    return KERN_EDEVICE;
}

static int look_at(int index, cudaDeviceProp *p, char err[256])
{
    int n = 0;
    int rc = find_cards(&n, err);
    if (rc != 0)
        return rc;
    if (index < 0 || index >= n) {
        snprintf(err, 256, "cuda: card %d asked for, there %s %d", index, n == 1 ? "is" : "are", n);
        return KERN_EINVAL;
    }
    cudaError_t e = cudaSetDevice(index);
    if (e == cudaSuccess)
        e = cudaGetDeviceProperties(p, index);
    if (e != cudaSuccess) {
        snprintf(err, 256, "cuda: card %d: %s", index, cudaGetErrorString(e));
        return KERN_EDEVICE;
    }
    if (p->major * 10 + p->minor < LEAST_CC) {
        snprintf(err, 256, "cuda: %.100s has compute capability %d.%d, 8.0 is the least", p->name,
                 p->major, p->minor);
        return KERN_EUNSUPPORTED;
    }
    return 0;
}

static int probe(char err[256])
{
    cudaDeviceProp p;
    return look_at(0, &p, err);
}

/* ---- open and close -------------------------------------------------------------------------- */

static void close_cuda(kern_dev *d)
{
    cu_dev *c = cu_of(d);
    if (c->stream != NULL)
        (void)cudaStreamSynchronize(c->stream);
    cu_gemm_close(d);
    for (int i = 0; i < CU_SCRATCH_SLOTS; i++)
        cu_give(d, c->scratch[i].p);
    cu_retired_free(d);
    cu_reads_free(d);
    free(c->retired);
    free(c->blocks);
    for (int i = 0; i < CU_STAGES; i++) {
        if (c->stage[i].host != NULL)
            (void)cudaFreeHost(c->stage[i].host);
        if (c->stage[i].done != NULL)
            (void)cudaEventDestroy(c->stage[i].done);
    }
    if (c->stream != NULL)
        (void)cudaStreamDestroy(c->stream);
    free(c);
}

static int start(cu_dev *c)
{
    kern_dev *d = &c->base;
    int rc = cu_check(d, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "stream");
    for (int i = 0; i < CU_STAGES && rc == 0; i++) {
        rc = cu_check(
            d, cudaHostAlloc((void **)&c->stage[i].host, CU_STAGE_BYTES, cudaHostAllocDefault),
            "pinned memory");
        if (rc == 0)
            rc = cu_check(d, cudaEventCreateWithFlags(&c->stage[i].done, cudaEventDisableTiming),
                          "event");
    }
    return rc == 0 ? cu_gemm_open(d) : rc;
}

static int open_cuda(kern_dev **out, const kern_open_args *a, char err[256])
{
    cudaDeviceProp p;
    *out = NULL;
    int rc = look_at(a->index, &p, err);
    if (rc != 0)
        return rc;
    cu_dev *c = (cu_dev *)calloc(1, sizeof *c);
    if (c == NULL) {
        snprintf(err, 256, "cuda: no memory");
        return KERN_ENOMEM;
    }
    kern_dev *d = &c->base;
    d->ops = &ops;
    d->backend = "cuda";
    d->threads = 1;
    d->records = true;
    c->index = a->index;
    c->sms = p.multiProcessorCount;
    c->cc = p.major * 10 + p.minor;
    c->shared_max = p.sharedMemPerBlockOptin;
    size_t on_card = 0; /* others may hold some of it */
    (void)cudaMemGetInfo(&d->mem_total, &on_card);
    snprintf(d->name, sizeof d->name, "%.60s (%d SMs, sm_%d, %zu MiB free)", p.name, c->sms, c->cc,
             d->mem_total >> 20);
    rc = start(c);
    if (rc != 0) {
        snprintf(err, 256, "cuda: %.240s", d->err);
        close_cuda(d);
        return rc;
    }
    *out = d;
    return 0;
}

static const kern_backend backend = {KERN_ABI, "cuda", probe, open_cuda, close_cuda};

extern "C" __attribute__((visibility("default"))) const kern_backend *kern_backend_get(void)
{
    return &backend;
}
