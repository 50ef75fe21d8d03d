/* Memory of the card, traffic to and from it, and recorded steps. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/device.cuh"

/* ---- blocks ---------------------------------------------------------------------------------- */

/* Room for one more element; false without memory. */
static bool room(void **list, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    size_t more = *cap > 0 ? *cap * 2 : 64;
    void *p = realloc(*list, more * size);
    if (p == NULL)
        return false;
    *list = p;
    *cap = more;
    return true;
}

int cu_take(kern_dev *d, const char *what, size_t bytes, void **out)
{
    cu_dev *c = cu_of(d);
    *out = NULL;
    if (c->capturing)
        return cu_fail(d, KERN_EINVAL, "%s: memory is asked for while a step is recorded", what);
    if (!room((void **)&c->blocks, c->n_blocks, &c->cap_blocks, sizeof *c->blocks))
        return cu_fail(d, KERN_ENOMEM, "%s: no memory", what);
    cudaError_t rc = cudaMalloc(out, bytes > 0 ? bytes : 1);
    if (rc != cudaSuccess) {
        *out = NULL;
        (void)cudaGetLastError();
        if (rc != cudaErrorMemoryAllocation)
            return cu_check(d, rc, what);
        return cu_fail(d, KERN_ENOMEM,
                       "%s: no memory on the card for %zu bytes (%zu in use of %zu)", what, bytes,
                       d->mem_used, d->mem_total);
    }
    c->blocks[c->n_blocks].p = *out;
    c->blocks[c->n_blocks++].bytes = bytes;
    d->mem_used += bytes;
    if (d->mem_used > d->mem_peak)
        d->mem_peak = d->mem_used;
    return 0;
}

void cu_give(kern_dev *d, void *p)
{
    cu_dev *c = cu_of(d);
    for (size_t i = c->n_blocks; p != NULL && i-- > 0;) {
        if (c->blocks[i].p != p)
            continue;
        d->mem_used -= c->blocks[i].bytes;
        c->blocks[i] = c->blocks[--c->n_blocks];
        (void)cudaFree(p);
        return;
    }
}

/* A recorded step may hold the old buffer's address, so it stays until no record does. */
static int retire(cu_dev *c, void *p)
{
    kern_dev *d = &c->base;
    if (p == NULL)
        return 0;
    if (c->graphs == 0) {
        int rc = cu_op_sync(d); /* what is queued may use it */
        cu_give(d, p);
        return rc;
    }
    if (!room((void **)&c->retired, c->n_retired, &c->cap_retired, sizeof *c->retired))
        return cu_fail(d, KERN_ENOMEM, "scratch: no memory");
    c->retired[c->n_retired++] = p;
    return 0;
}

void cu_retired_free(kern_dev *d)
{
    cu_dev *c = cu_of(d);
    while (c->n_retired > 0)
        cu_give(d, c->retired[--c->n_retired]);
}

int cu_scratch(kern_dev *d, int slot, size_t bytes, void **out)
{
    cu_dev *c = cu_of(d);
    int rc = 0;
    if (bytes > c->scratch[slot].bytes) {
        if (c->capturing)
            return cu_fail(d, KERN_EINVAL,
                           "scratch: %zu bytes are asked for while a step is recorded", bytes);
        rc = retire(c, c->scratch[slot].p);
        c->scratch[slot].p = NULL;
        c->scratch[slot].bytes = 0;
        if (rc == 0)
            rc = cu_take(d, "scratch", bytes, &c->scratch[slot].p);
        if (rc == 0)
            c->scratch[slot].bytes = bytes;
    }
    *out = c->scratch[slot].p;
    return rc;
}

int cu_op_alloc(kern_dev *d, size_t bytes, void **out)
{
    int rc = cu_take(d, "alloc", bytes, out);
    return rc == 0 && bytes > 0 ? cu_op_zero(d, *out, bytes) : rc;
}

int cu_op_release(kern_dev *d, void *p)
{
    if (p == NULL)
        return 0;
    int rc = cu_op_sync(d); /* what is queued may use it */
    cu_give(d, p);
    return rc;
}

/* ---- to and from the host -------------------------------------------------------------------- */

/* Through pinned memory, so that the caller may use its own again at once and nothing waits unless
 * all stages are on their way. */
int cu_op_write(kern_dev *d, void *dst, const void *host, size_t bytes)
{
    cu_dev *c = cu_of(d);
    if (c->capturing)
        return cu_fail(d, KERN_EINVAL, "write: host data cannot be recorded");
    for (size_t at = 0; at < bytes; at += CU_STAGE_BYTES) {
        size_t n = bytes - at < CU_STAGE_BYTES ? bytes - at : (size_t)CU_STAGE_BYTES;
        int i = c->next_stage;
        int rc = 0;
        c->next_stage = (i + 1) % CU_STAGES;
        if (c->stage[i].busy)
            rc = cu_check(d, cudaEventSynchronize(c->stage[i].done), "write");
        c->stage[i].busy = false;
        if (rc != 0)
            return rc;
        memcpy(c->stage[i].host, (const char *)host + at, n);
        rc = cu_check(d,
                      cudaMemcpyAsync((char *)dst + at, c->stage[i].host, n, cudaMemcpyHostToDevice,
                                      c->stream),
                      "write");
        if (rc == 0)
            rc = cu_check(d, cudaEventRecord(c->stage[i].done, c->stream), "write");
        if (rc != 0)
            return rc;
        c->stage[i].busy = true;
    }
    return 0;
}

int cu_op_read(kern_dev *d, void *host, const void *src, size_t bytes)
{
    cu_dev *c = cu_of(d);
    if (c->capturing)
        return cu_fail(d, KERN_EINVAL, "read: it waits, so it cannot be recorded");
    if (bytes == 0)
        return 0;
    int rc =
        cu_check(d, cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, c->stream), "read");
    return rc == 0 ? cu_op_sync(d) : rc;
}

/* ---- reads that are waited for later --------------------------------------------------------- */

/* Pinned memory that a copy goes to, and the event after it. */
struct kern_read {
    void *host;
    size_t bytes, room;
    cudaEvent_t done;
    struct kern_read *next; /* of those that may be used again */
};

static void read_free(kern_read *r)
{
    if (r->host != NULL)
        (void)cudaFreeHost(r->host);
    if (r->done != NULL)
        (void)cudaEventDestroy(r->done);
    free(r);
}

void cu_reads_free(kern_dev *d)
{
    cu_dev *c = cu_of(d);
    while (c->reads != NULL) {
        kern_read *r = c->reads;
        c->reads = r->next;
        read_free(r);
    }
}

/* One that is free and large enough, else a new one. */
static int read_take(kern_dev *d, size_t bytes, kern_read **out)
{
    kern_read **at = &cu_of(d)->reads;
    while (*at != NULL && (*at)->room < bytes)
        at = &(*at)->next;
    kern_read *r = *out = *at;
    if (r != NULL) {
        *at = r->next;
        return 0;
    }
    r = (kern_read *)calloc(1, sizeof *r);
    if (r == NULL)
        return cu_fail(d, KERN_ENOMEM, "read: no memory");
    r->room = bytes;
    int rc = cu_check(d, cudaHostAlloc(&r->host, bytes, cudaHostAllocDefault), "pinned memory");
    if (rc == 0)
        rc = cu_check(d, cudaEventCreateWithFlags(&r->done, cudaEventDisableTiming), "event");
    if (rc != 0)
        read_free(r);
    else
        *out = r;
    return rc;
}

int cu_op_read_begin(kern_dev *d, const void *src, size_t bytes, kern_read **out)
{
    cu_dev *c = cu_of(d);
    *out = NULL;
    if (c->capturing)
        return cu_fail(d, KERN_EINVAL, "read_begin: host memory cannot be recorded");
    int rc = read_take(d, bytes > 0 ? bytes : 1, out);
    if (rc != 0)
        return rc;
    kern_read *r = *out;
    r->bytes = bytes;
    if (bytes > 0)
        rc = cu_check(d, cudaMemcpyAsync(r->host, src, bytes, cudaMemcpyDeviceToHost, c->stream),
                      "read");
    if (rc == 0)
        rc = cu_check(d, cudaEventRecord(r->done, c->stream), "read");
    if (rc != 0) {
        read_free(r);
        *out = NULL;
    }
    return rc;
}

int cu_op_read_end(kern_dev *d, kern_read *r, void *host)
{
    cu_dev *c = cu_of(d);
    if (r == NULL)
        return 0;
    int rc = c->capturing ? cu_fail(d, KERN_EINVAL, "read_end: it waits, so it cannot be recorded")
                          : cu_check(d, cudaEventSynchronize(r->done), "read");
    if (rc == 0 && host != NULL)
        memcpy(host, r->host, r->bytes);
    r->next = c->reads;
    c->reads = r;
    return rc;
}

int cu_op_zero(kern_dev *d, void *p, size_t bytes)
{
    return bytes == 0 ? 0 : cu_check(d, cudaMemsetAsync(p, 0, bytes, cu_of(d)->stream), "zero");
}

int cu_op_sync(kern_dev *d)
{
    if (cu_of(d)->capturing)
        return cu_fail(d, KERN_EINVAL, "sync: it waits, so it cannot be recorded");
    return cu_check(d, cudaStreamSynchronize(cu_of(d)->stream), "sync");
}

/* ---- copy and add ---------------------------------------------------------------------------- */

enum { THREADS = 256 };

/* dst[r, c] = src[r, c] (ADD: += ), an element a thread. */
template <typename S, typename D, bool ADD>
static __global__ void move_kernel(const S *src, int64_t lds, D *dst, int64_t ldd, int64_t rows,
                                   int64_t cols)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= rows * cols)
        return;
    int64_t r = i / cols, c = i % cols;
    float x = to_f32(src[r * lds + c]);
    D *to = dst + r * ldd + c;
    *to = from_f32<D>(ADD ? to_f32(*to) + x : x);
}

template <typename S, typename D, bool ADD>
static int move(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    int64_t n = src->rows * src->cols;
    return cu_launch(d, ADD ? "add" : "copy", move_kernel<S, D, ADD>, cu_blocks(n, THREADS),
                     THREADS, (const S *)src->data, src->ld, (D *)dst->data, dst->ld, src->rows,
                     src->cols);
}

template <typename D, bool ADD>
static int move_from(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    switch (src->dtype) {
    case KERN_F32:
        return move<float, D, ADD>(d, src, dst);
    case KERN_BF16:
        return move<bf16, D, ADD>(d, src, dst);
    case KERN_F16:
        return move<f16, D, ADD>(d, src, dst);
    default:
        return cu_fail(d, KERN_EUNSUPPORTED, "%s: from %s", ADD ? "add" : "copy",
                       kern_dtype_name(src->dtype));
    }
}

template <bool ADD> static int run_move(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    int rc = cu_shape(d, ADD ? "add: dst" : "copy: dst", dst, src->rows, src->cols);
    if (rc == 0)
        rc = cu_shape(d, ADD ? "add: src" : "copy: src", src, src->rows, src->cols);
    if (rc != 0 || src->rows * src->cols == 0)
        return rc;
    switch (dst->dtype) {
    case KERN_F32:
        return move_from<float, ADD>(d, src, dst);
    case KERN_BF16:
        return move_from<bf16, ADD>(d, src, dst);
    case KERN_F16:
        return move_from<f16, ADD>(d, src, dst);
    default:
        return cu_fail(d, KERN_EUNSUPPORTED, "%s: to %s", ADD ? "add" : "copy",
                       kern_dtype_name(dst->dtype));
    }
}

int cu_op_copy(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    return run_move<false>(d, src, dst);
}

int cu_op_add(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    return run_move<true>(d, src, dst);
}

/* ---- recorded steps -------------------------------------------------------------------------- */

struct kern_graph {
    cudaGraphExec_t exec;
};

int cu_op_capture_begin(kern_dev *d)
{
    cu_dev *c = cu_of(d);
    if (c->capturing)
        return cu_fail(d, KERN_EINVAL, "capture_begin: a step is being recorded");
    int rc = cu_check(d, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal),
                      "capture_begin");
    c->capturing = rc == 0;
    return rc;
}

int cu_op_capture_end(kern_dev *d, kern_graph **out)
{
    cu_dev *c = cu_of(d);
    cudaGraph_t recorded = NULL;
    *out = NULL;
    if (!c->capturing)
        return cu_fail(d, KERN_EINVAL, "capture_end: no step is being recorded");
    c->capturing = false;
    int rc = cu_check(d, cudaStreamEndCapture(c->stream, &recorded), "capture_end");
    if (rc != 0)
        return rc;
    kern_graph *g = (kern_graph *)calloc(1, sizeof *g);
    if (g == NULL)
        rc = cu_fail(d, KERN_ENOMEM, "capture_end: no memory");
    if (rc == 0)
        rc = cu_check(d, cudaGraphInstantiate(&g->exec, recorded, 0), "capture_end");
    (void)cudaGraphDestroy(recorded);
    if (rc != 0) {
        free(g);
        return rc;
    }
    c->graphs++;
    *out = g;
    return 0;
}

int cu_op_graph_run(kern_dev *d, kern_graph *g)
{
    return cu_check(d, cudaGraphLaunch(g->exec, cu_of(d)->stream), "graph_run");
}

int cu_op_graph_free(kern_dev *d, kern_graph *g)
{
    cu_dev *c = cu_of(d);
    if (g == NULL)
        return 0;
    int rc = cu_op_sync(d);
    (void)cudaGraphExecDestroy(g->exec);
    free(g);
    if (--c->graphs == 0)
        cu_retired_free(d);
    return rc;
}
