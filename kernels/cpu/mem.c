/* Memory of the CPU device: counted, aligned, and an ordinary error when there is none. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"

/* Before every block stands its size; 64 bytes keep the block aligned. */
typedef struct block {
    size_t bytes;
    char pad[56];
} block;

enum { ALIGN = 64, HUGE_FROM = 4 << 20 };

int cpu_take(kern_dev *d, const char *what, size_t bytes, void **out)
{
    *out = NULL;
    block *b = NULL;
    size_t align = bytes >= HUGE_FROM ? (size_t)2 << 20 : ALIGN;
    if (bytes > PTRDIFF_MAX - 2 * align || posix_memalign((void **)&b, align, bytes + sizeof *b))
        return cpu_fail(d, KERN_ENOMEM, "%s: no memory for %zu bytes (%zu in use)", what, bytes,
                        d->mem_used);
    if (bytes >= HUGE_FROM)
        (void)madvise(b, bytes + sizeof *b, MADV_HUGEPAGE);
    b->bytes = bytes;
    d->mem_used += bytes;
    if (d->mem_used > d->mem_peak)
        d->mem_peak = d->mem_used;
    *out = b + 1;
    return 0;
}

void cpu_give(kern_dev *d, void *p)
{
    if (p == NULL)
        return;
    block *b = (block *)p - 1;
    d->mem_used -= b->bytes;
    free(b);
}

int cpu_scratch(kern_dev *d, int slot, size_t bytes, void **out)
{
    cpu_dev *c = cpu_of(d);
    *out = c->scratch[slot].p;
    if (bytes <= c->scratch[slot].bytes && *out != NULL)
        return 0;
    cpu_give(d, c->scratch[slot].p);
    c->scratch[slot].bytes = 0;
    int rc = cpu_take(d, "scratch", bytes, &c->scratch[slot].p);
    if (rc == 0)
        c->scratch[slot].bytes = bytes;
    *out = c->scratch[slot].p;
    return rc;
}

int cpu_alloc(kern_dev *d, size_t bytes, void **out)
{
    int rc = cpu_take(d, "alloc", bytes, out);
    if (rc == 0)
        memset(*out, 0, bytes);
    return rc;
}

int cpu_release(kern_dev *d, void *p)
{
    cpu_give(d, p);
    return 0;
}

int cpu_write(kern_dev *d, void *dst, const void *host, size_t bytes)
{
    (void)d;
    if (bytes > 0)
        memcpy(dst, host, bytes);
    return 0;
}

int cpu_read(kern_dev *d, void *host, const void *src, size_t bytes)
{
    (void)d;
    if (bytes > 0)
        memcpy(host, src, bytes);
    return 0;
}

int cpu_zero(kern_dev *d, void *p, size_t bytes)
{
    (void)d;
    if (bytes > 0)
        memset(p, 0, bytes);
    return 0;
}

int cpu_sync(kern_dev *d)
{
    (void)d;
    return 0;
}

static bool is_float(kern_dtype t)
{
    return t == KERN_F32 || t == KERN_BF16 || t == KERN_F16;
}

static int check_pair(kern_dev *d, const char *op, const kern_tensor *src, const kern_tensor *dst)
{
    if (src->rows != dst->rows || src->cols != dst->cols)
        return cpu_fail(d, KERN_EINVAL, "%s: src is [%lld, %lld], dst [%lld, %lld]", op,
                        (long long)src->rows, (long long)src->cols, (long long)dst->rows,
                        (long long)dst->cols);
    if (src->dtype != dst->dtype && !(is_float(src->dtype) && is_float(dst->dtype)))
        return cpu_fail(d, KERN_EINVAL, "%s: cannot turn %s into %s", op,
                        kern_dtype_name(src->dtype), kern_dtype_name(dst->dtype));
    return 0;
}

int cpu_copy(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    int rc = check_pair(d, "copy", src, dst);
    if (rc != 0)
        return rc;
    const cpu_vec *v = cpu_of(d)->vec;
    void *tmp = NULL;
    if (src->dtype != dst->dtype && cpu_scratch(d, CPU_SLOT_A, (size_t)src->cols * 4, &tmp) != 0)
        return KERN_ENOMEM;
    for (int64_t r = 0; r < src->rows; r++) {
        if (src->dtype == dst->dtype) {
            memmove(cpu_at(dst, r, 0), cpu_at(src, r, 0),
                    (size_t)src->cols * kern_dtype_size(src->dtype));
            continue;
        }
        v->to_f32(src->dtype, cpu_at(src, r, 0), tmp, src->cols);
        v->from_f32(dst->dtype, tmp, cpu_at(dst, r, 0), src->cols);
    }
    return 0;
}

int cpu_add(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    int rc = check_pair(d, "add", src, dst);
    if (rc != 0)
        return rc;
    if (!is_float(dst->dtype))
        return cpu_fail(d, KERN_EINVAL, "add: dtype %s", kern_dtype_name(dst->dtype));
    const cpu_vec *v = cpu_of(d)->vec;
    void *tmp;
    size_t cols = (size_t)src->cols;
    if (cpu_scratch(d, CPU_SLOT_A, cols * 8, &tmp) != 0)
        return KERN_ENOMEM;
    float *x = tmp, *y = x + cols;
    for (int64_t r = 0; r < src->rows; r++) {
        v->to_f32(src->dtype, cpu_at(src, r, 0), x, src->cols);
        v->to_f32(dst->dtype, cpu_at(dst, r, 0), y, src->cols);
        v->axpy(1.0F, x, y, src->cols);
        v->from_f32(dst->dtype, y, cpu_at(dst, r, 0), src->cols);
    }
    return 0;
}
