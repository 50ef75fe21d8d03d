/* Memory of the CPU device: counted, aligned, and an ordinary error when there is none. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"

/* Before every block stands its size; 64 bytes keep the block aligned. */
typedef struct block {
    size_t bytes;
    struct cpu_shelf *shelf; /* NULL: memory of its own */
    char pad[48];
} block;

/* Blocks one after the other on huge pages; freed when the last of them goes. */
struct cpu_shelf {
    size_t used;
    int live;
    char pad[48];
};

enum { ALIGN = 64, SHELF_FROM = 256 << 10, HUGE_FROM = 4 << 20, SHELF = 32 << 20 };

static void *reserve(size_t bytes)
{
    void *p = NULL;
    size_t align = bytes >= HUGE_FROM ? (size_t)2 << 20 : ALIGN;
    if (bytes > PTRDIFF_MAX - 2 * align || posix_memalign(&p, align, bytes) != 0)
        return NULL;
    if (bytes >= HUGE_FROM)
        (void)madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

/* b is the block's memory, NULL where there was none. */
static int counted(kern_dev *d, const char *what, size_t bytes, block *b, void **out)
{
    *out = NULL;
    if (b == NULL)
        return cpu_fail(d, KERN_ENOMEM, "%s: no memory for %zu bytes (%zu in use)", what, bytes,
                        d->mem_used);
    b->bytes = bytes;
    d->mem_used += bytes;
    if (d->mem_used > d->mem_peak)
        d->mem_peak = d->mem_used;
    *out = b + 1;
    return 0;
}

int cpu_take(kern_dev *d, const char *what, size_t bytes, void **out)
{
    block *b = bytes < SIZE_MAX - sizeof *b ? reserve(bytes + sizeof *b) : NULL;
    if (b != NULL)
        b->shelf = NULL;
    return counted(d, what, bytes, b, out);
}

int cpu_take_lasting(kern_dev *d, const char *what, size_t bytes, void **out)
{
    if (bytes < SHELF_FROM || bytes >= HUGE_FROM)
        return cpu_take(d, what, bytes, out);
    cpu_dev *c = cpu_of(d);
    size_t need = (bytes + sizeof(block) + ALIGN - 1) / ALIGN * ALIGN;
    if (c->shelf == NULL || c->shelf->used + need > SHELF) {
        struct cpu_shelf *s = reserve(SHELF);
        if (s == NULL)
            return counted(d, what, bytes, NULL, out);
        *s = (struct cpu_shelf){.used = sizeof *s};
        c->shelf = s;
    }
    block *b = (block *)(void *)((char *)c->shelf + c->shelf->used);
    b->shelf = c->shelf;
    c->shelf->used += need;
    c->shelf->live++;
    return counted(d, what, bytes, b, out);
}

void cpu_give(kern_dev *d, void *p)
{
    if (p == NULL)
        return;
    block *b = (block *)p - 1;
    struct cpu_shelf *s = b->shelf;
    d->mem_used -= b->bytes;
    if (s == NULL) {
        free(b);
        return;
    }
    if (--s->live > 0)
        return;
    if (cpu_of(d)->shelf == s)
        cpu_of(d)->shelf = NULL;
    free(s);
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
    if (*out != NULL)
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

/* ---- reads that are waited for later: done at once ---- */

struct kern_read {
    size_t bytes;
    char data[];
};

int cpu_read_begin(kern_dev *d, const void *src, size_t bytes, kern_read **out)
{
    kern_read *r = bytes < PTRDIFF_MAX ? malloc(sizeof *r + bytes) : NULL;
    *out = r;
    if (r == NULL)
        return cpu_fail(d, KERN_ENOMEM, "read: no memory for %zu bytes", bytes);
    r->bytes = bytes;
    return cpu_read(d, r->data, src, bytes);
}

int cpu_read_end(kern_dev *d, kern_read *r, void *host)
{
    if (r != NULL && host != NULL)
        cpu_read(d, host, r->data, r->bytes);
    free(r);
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

/* Rows in pieces of so many columns, each by one thread. */
enum { PIECE = 8192 };

typedef struct pair_job {
    const cpu_vec *v;
    const kern_tensor *src, *dst;
    int64_t cuts; /* pieces of a row */
    char *mem;    /* of each thread 2 x PIECE floats */
    size_t each;
} pair_job;

/* The piece's row, first column and length. */
static void find_piece(const pair_job *j, int64_t i, int64_t *r, int64_t *c, int64_t *n)
{
    *r = i / j->cuts;
    *c = i % j->cuts * PIECE;
    *n = j->src->cols - *c < PIECE ? j->src->cols - *c : PIECE;
}

static int run_pair(kern_dev *d, const kern_tensor *src, const kern_tensor *dst, cpu_piece f)
{
    pair_job j = {.v = cpu_of(d)->vec, .src = src, .dst = dst};
    j.cuts = (src->cols + PIECE - 1) / PIECE;
    void *mem;
    int rc = cpu_thread_mem(d, sizeof(float) * 2 * PIECE, &mem, &j.each);
    if (rc != 0)
        return rc;
    j.mem = mem;
    cpu_run(d, src->rows * src->cols / 8, src->rows * j.cuts, f, &j);
    return 0;
}

static void copy_piece(void *arg, int64_t i, int thread)
{
    const pair_job *j = arg;
    int64_t r, c, n;
    find_piece(j, i, &r, &c, &n);
    float *tmp = (float *)(void *)(j->mem + (size_t)thread * j->each);
    if (j->src->dtype == j->dst->dtype) {
        memmove(cpu_at(j->dst, r, c), cpu_at(j->src, r, c),
                (size_t)n * kern_dtype_size(j->src->dtype));
        return;
    }
    j->v->to_f32(j->src->dtype, cpu_at(j->src, r, c), tmp, n);
    j->v->from_f32(j->dst->dtype, tmp, cpu_at(j->dst, r, c), n);
}

int cpu_copy(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    int rc = check_pair(d, "copy", src, dst);
    return rc == 0 ? run_pair(d, src, dst, copy_piece) : rc;
}

static void add_piece(void *arg, int64_t i, int thread)
{
    const pair_job *j = arg;
    int64_t r, c, n;
    find_piece(j, i, &r, &c, &n);
    float *x = (float *)(void *)(j->mem + (size_t)thread * j->each), *y = x + PIECE;
    j->v->to_f32(j->src->dtype, cpu_at(j->src, r, c), x, n);
    j->v->to_f32(j->dst->dtype, cpu_at(j->dst, r, c), y, n);
    j->v->axpy(1.0F, x, y, n);
    j->v->from_f32(j->dst->dtype, y, cpu_at(j->dst, r, c), n);
}

int cpu_add(kern_dev *d, const kern_tensor *src, const kern_tensor *dst)
{
    int rc = check_pair(d, "add", src, dst);
    if (rc == 0 && !is_float(dst->dtype))
        rc = cpu_fail(d, KERN_EINVAL, "add: dtype %s", kern_dtype_name(dst->dtype));
    return rc == 0 ? run_pair(d, src, dst, add_piece) : rc;
}
