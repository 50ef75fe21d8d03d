/* Making a primitive compiles code, so primitives are kept by shape, the least recently used going
 * first; all layers of a model have the same few shapes. */
#include "kernels/cpu/dnnl.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/weight.h"

enum { MAX_PRIMITIVES = 256 };

/* y [m, n] = a [m, k] b [k, n]. Strides in elements; b_width > 0: panels of that width. Compared as
 * bytes, so all fields are of one size. */
typedef struct shape {
    int64_t m, n, k;
    int64_t a_row, a_col, b_row, b_col, y_row;
    int64_t a_type, y_type, b_width, bias, add;
} shape;

enum { ARG_A, ARG_B, ARG_BIAS, ARG_Y, ARG_PAD, N_ARGS };

typedef struct entry {
    shape s;
    uint64_t used;
    dnnl_primitive_t p;
    dnnl_memory_desc_t md[N_ARGS];
    dnnl_memory_t (
        *memory)[N_ARGS]; /* [threads]; they carry pointers, so each thread has its own */
} entry;

struct cpu_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int threads;
    uint64_t clock;
    char *pad; /* for each thread: pad_each bytes of primitives' scratch, then the stage */
    size_t pad_each, thread_each;
    int n;
    entry e[MAX_PRIMITIVES];
};

cpu_dnnl *cpu_dnnl_open(int threads)
{
    cpu_dnnl *x = calloc(1, sizeof *x);
    if (x == NULL)
        return NULL;
    x->threads = threads;
    if (dnnl_engine_create(&x->engine, dnnl_cpu, 0) == dnnl_success &&
        dnnl_stream_create(&x->stream, x->engine, dnnl_stream_default_flags) == dnnl_success)
        return x;
    cpu_dnnl_close(x);
    return NULL;
}

static void entry_drop(const cpu_dnnl *x, entry *e)
{
    for (int t = 0; t < x->threads && e->memory != NULL; t++)
        for (int i = 0; i < N_ARGS; i++)
            if (e->memory[t][i] != NULL)
                dnnl_memory_destroy(e->memory[t][i]);
    free(e->memory);
    if (e->p != NULL)
        dnnl_primitive_destroy(e->p);
    memset(e, 0, sizeof *e);
}

void cpu_dnnl_close(cpu_dnnl *x)
{
    if (x == NULL)
        return;
    for (int i = 0; i < x->n; i++)
        entry_drop(x, &x->e[i]);
    if (x->stream != NULL)
        dnnl_stream_destroy(x->stream);
    if (x->engine != NULL)
        dnnl_engine_destroy(x->engine);
    free(x);
}

/* ---- making a primitive ---------------------------------------------------------------------- */

static dnnl_data_type_t type_of(int64_t t)
{
    return t == KERN_F32 ? dnnl_f32 : dnnl_bf16;
}

static dnnl_status_t strided(dnnl_memory_desc_t *md, int64_t rows, int64_t cols, int64_t t,
                             int64_t rs, int64_t cs)
{
    dnnl_dims_t dims = {rows, cols}, strides = {rs, cs};
    return dnnl_memory_desc_init_by_strides(md, 2, dims, type_of(t), strides);
}

static dnnl_status_t matrix_b(dnnl_memory_desc_t *md, const shape *s)
{
    static const dnnl_format_tag_t f32[] = {dnnl_BA16a16b, dnnl_BA16a32b, dnnl_BA16a48b,
                                            dnnl_BA16a64b};
    static const dnnl_format_tag_t bf16[] = {dnnl_BA16a16b2a, dnnl_BA16a32b2a, dnnl_BA16a48b2a,
                                             dnnl_BA16a64b2a};
    if (s->b_width == 0)
        return strided(md, s->k, s->n, s->a_type, s->b_row, s->b_col);
    dnnl_dims_t dims = {s->k, s->n};
    int64_t i = s->b_width / 16 - 1;
    return dnnl_memory_desc_init_by_tag(md, 2, dims, type_of(s->a_type),
                                        s->a_type == KERN_F32 ? f32[i] : bf16[i]);
}

static dnnl_status_t attributes(dnnl_primitive_attr_t *attr, bool add)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t st = dnnl_primitive_attr_create(attr);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (st != dnnl_success || !add)
        return st;
    st = dnnl_post_ops_create(&ops);
    if (st == dnnl_success)
        st = dnnl_post_ops_append_sum(ops, 1.0F);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_post_ops(*attr, ops);
    if (ops != NULL)
        dnnl_post_ops_destroy(ops);
    return st;
}

static dnnl_status_t make(const cpu_dnnl *x, entry *e)
{
    const shape *s = &e->s;
    dnnl_matmul_desc_t md;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t st = strided(&e->md[ARG_A], s->m, s->k, s->a_type, s->a_row, s->a_col);
    if (st == dnnl_success)
        st = matrix_b(&e->md[ARG_B], s);
    if (st == dnnl_success)
        st = strided(&e->md[ARG_Y], s->m, s->n, s->y_type, s->y_row, 1);
    if (st == dnnl_success)
        st = strided(&e->md[ARG_BIAS], 1, s->n, KERN_F32, s->n, 1);
    if (st == dnnl_success)
        st = dnnl_matmul_desc_init(&md, &e->md[ARG_A], &e->md[ARG_B],
                                   s->bias ? &e->md[ARG_BIAS] : NULL, &e->md[ARG_Y]);
    if (st == dnnl_success)
        st = attributes(&attr, s->add);
    if (st == dnnl_success)
        st = dnnl_primitive_desc_create(&pd, &md, attr, x->engine, NULL);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&e->p, pd);
    if (st == dnnl_success)
        e->md[ARG_PAD] = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    if (attr != NULL)
        dnnl_primitive_attr_destroy(attr);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    e->memory = calloc((size_t)x->threads, sizeof *e->memory);
    return st == dnnl_success && e->memory == NULL ? dnnl_out_of_memory : st;
}

static int entry_make(kern_dev *d, entry *e, const shape *s)
{
    cpu_dnnl *x = cpu_of(d)->dnnl;
    entry_drop(x, e);
    e->s = *s;
    dnnl_status_t st = make(x, e);
    if (st == dnnl_success)
        return 0;
    entry_drop(x, e);
    return cpu_fail(d, st == dnnl_out_of_memory ? KERN_ENOMEM : KERN_EDEVICE,
                    "linear: oneDNN has no product [%lld, %lld] x [%lld, %lld] (status %d)",
                    (long long)s->m, (long long)s->k, (long long)s->k, (long long)s->n, (int)st);
}

static int find(kern_dev *d, const shape *s, entry **out)
{
    cpu_dnnl *x = cpu_of(d)->dnnl;
    int oldest = 0;
    x->clock++;
    for (int i = 0; i < x->n; i++) {
        *out = &x->e[i];
        if (memcmp(&(*out)->s, s, sizeof *s) == 0) {
            (*out)->used = x->clock;
            return 0;
        }
        if (x->e[i].used < x->e[oldest].used)
            oldest = i;
    }
    *out = x->n < MAX_PRIMITIVES ? &x->e[x->n++] : &x->e[oldest];
    int rc = entry_make(d, *out, s);
    (*out)->used = rc == 0 ? x->clock : 0;
    return rc;
}

/* ---- a product in blocks --------------------------------------------------------------------- */

typedef struct job {
    cpu_dnnl *x;
    shape s; /* the whole product */
    const char *a, *b, *bias;
    char *y;
    int64_t mb, nb; /* rows and columns of a block */
    entry *e[2][2]; /* [last rows][last columns] */
    const cpu_mul *m;
    const cpu_vec *v;
    atomic_int status;
} job;

static size_t size_of(int64_t t)
{
    return t == KERN_F32 ? 4 : 2;
}

/* Where column c of b begins. A block starts at a whole panel. */
static const char *column_of(const job *j, int64_t c)
{
    const cpu_layout *l = j->m != NULL ? &j->m->b->l : NULL;
    int64_t step = l != NULL && l->width > 0 ? l->depth_pad : j->s.b_col;
    return j->b + (size_t)(c * step) * size_of(j->s.a_type);
}

static dnnl_status_t execute(const job *j, entry *e, int thread, const void *const p[N_ARGS])
{
    static const int names[N_ARGS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST,
                                      DNNL_ARG_SCRATCHPAD};
    dnnl_exec_arg_t args[N_ARGS];
    dnnl_memory_t *memory = e->memory[thread];
    int n = 0;
    for (int i = 0; i < N_ARGS; i++) {
        if (i == ARG_BIAS && !e->s.bias)
            continue;
        dnnl_status_t st = dnnl_success;
        if (memory[i] == NULL)
            st = dnnl_memory_create(&memory[i], &e->md[i], j->x->engine, DNNL_MEMORY_NONE);
        if (st != dnnl_success)
            return st;
        /* oneDNN takes inputs as pointers to what may change, too. */
        dnnl_memory_set_data_handle(memory[i], (void *)(uintptr_t)p[i]);
        args[n++] = (dnnl_exec_arg_t){names[i], memory[i]};
    }
    return dnnl_primitive_execute(e->p, j->x->stream, n, args);
}

/* oneDNN 2.6's blocked products write only rows without gaps (others go to its reference code, a
 * hundred times slower), so a block that is narrower than its result is written to a stage first.
 */
static bool staged(const job *j, int64_t cols)
{
    return cols != j->s.y_row;
}

/* From the stage to its place, or added to what stands there: the stage is then in F32. */
static void unstage(const job *j, const cpu_block *b, char *stage)
{
    const cpu_vec *v = j->v;
    kern_dtype t = (kern_dtype)j->s.y_type;
    int64_t n = b->c1 - b->c0;
    float *row = (float *)(void *)(stage + (size_t)((b->r1 - b->r0) * n) * 4);
    for (int64_t r = b->r0; r < b->r1; r++) {
        char *y = j->y + (size_t)(r * j->s.y_row + b->c0) * size_of(t);
        if (!j->s.add) {
            memcpy(y, stage + (size_t)((r - b->r0) * n) * size_of(t), (size_t)n * size_of(t));
            continue;
        }
        const float *from = (const float *)(const void *)stage + (r - b->r0) * n;
        v->to_f32(t, y, row, n);
        v->axpy(1.0F, from, row, n);
        v->from_f32(t, row, y, n);
    }
}

static void run_block(void *arg, int64_t i, int thread)
{
    job *j = arg;
    const shape *s = &j->s;
    int64_t down = (s->m + j->mb - 1) / j->mb;
    cpu_block b = {.r0 = i % down * j->mb, .c0 = i / down * j->nb};
    b.r1 = b.r0 + j->mb < s->m ? b.r0 + j->mb : s->m;
    b.c1 = b.c0 + j->nb < s->n ? b.c0 + j->nb : s->n;
    entry *e = j->e[b.r1 - b.r0 != j->mb][b.c1 - b.c0 != j->nb];
    char *pad = j->x->pad + (size_t)thread * j->x->thread_each;
    const void *p[N_ARGS] = {j->a + (size_t)(b.r0 * s->a_row) * size_of(s->a_type),
                             column_of(j, b.c0), j->bias != NULL ? j->bias + b.c0 * 4 : NULL,
                             j->y + (size_t)(b.r0 * s->y_row + b.c0) * size_of(s->y_type), pad};
    if (staged(j, b.c1 - b.c0))
        p[ARG_Y] = pad + j->x->pad_each;
    dnnl_status_t st = execute(j, e, thread, p);
    if (st == dnnl_success && staged(j, b.c1 - b.c0))
        unstage(j, &b, pad + j->x->pad_each);
    if (st != dnnl_success)
        atomic_store(&j->status, (int)st);
    else if (j->m != NULL && j->m->after != NULL)
        j->m->after(j->m->arg, &b, thread);
}

/* The primitives of whole and last blocks. */
static int prepare(kern_dev *d, job *j)
{
    int64_t rows[2] = {j->mb, j->s.m % j->mb}, cols[2] = {j->nb, j->s.n % j->nb};
    size_t pad = 64, stage = 0;
    for (int i = 0; i < 4; i++) {
        shape s = j->s;
        s.m = rows[i / 2];
        s.n = cols[i % 2];
        if (s.m == 0 || s.n == 0 || s.m > j->s.m || s.n > j->s.n)
            continue;
        if (staged(j, s.n)) {
            s.y_row = s.n;
            s.y_type = s.add ? KERN_F32 : s.y_type;
            s.add = 0;
            stage = (size_t)(j->mb + 1) * (size_t)j->nb * 4;
        }
        int rc = find(d, &s, &j->e[i / 2][i % 2]);
        if (rc != 0)
            return rc;
        size_t need = dnnl_memory_desc_get_size(&j->e[i / 2][i % 2]->md[ARG_PAD]);
        pad = need > pad ? need : pad;
    }
    void *mem;
    j->x->pad_each = pad = (pad + 63) / 64 * 64;
    j->x->thread_each = pad + (stage + 63) / 64 * 64;
    int rc = cpu_scratch(d, CPU_SLOT_DNNL, j->x->thread_each * (size_t)d->threads, &mem);
    j->x->pad = mem;
    return rc;
}

static int run(kern_dev *d, job *j)
{
    /* oneDNN asks OpenMP how many threads to use; that belongs to the calling thread. */
    omp_set_num_threads(1);
    j->x = cpu_of(d)->dnnl;
    j->v = cpu_of(d)->vec;
    int rc = prepare(d, j);
    if (rc != 0)
        return rc;
    int64_t down = (j->s.m + j->mb - 1) / j->mb, across = (j->s.n + j->nb - 1) / j->nb;
    cpu_run(d, j->s.m * j->s.n * j->s.k / 64, down * across, run_block, j);
    int st = atomic_load(&j->status);
    return st == 0 ? 0 : cpu_fail(d, KERN_EDEVICE, "linear: oneDNN failed (status %d)", st);
}

enum {
    BLOCK_ROWS = 64,
    FAR_ROWS = 256,        /* rows of a block when B is read from memory each time */
    FAR_BYTES = 8 << 20,   /* a B so large */
    NEAR_BYTES = 512 << 10 /* what of it stays in the second-level cache */
};

/* A block is many rows by all columns, so that B is read from the shared cache; with a B that no
 * cache holds, all rows by a few columns, so that it is read once. */
static void cut(const kern_dev *d, job *j)
{
    int64_t column = j->s.k * (int64_t)size_of(j->s.a_type), want = 3 * (int64_t)d->threads;
    bool far = j->s.n * column > FAR_BYTES;
    j->mb = far ? FAR_ROWS : BLOCK_ROWS;
    j->nb = far ? NEAR_BYTES / column / 64 * 64 : (j->s.n + 63) / 64 * 64;
    int64_t down = (j->s.m + j->mb - 1) / j->mb;
    if (!far && down < want)
        j->nb = (j->s.n * down / want + 63) / 64 * 64;
    j->nb = j->nb < 64 ? 64 : j->nb;
    j->nb = j->nb > j->s.n ? j->s.n : j->nb;
    j->mb = j->mb > j->s.m ? j->s.m : j->mb;
}

int cpu_product_dnnl(kern_dev *d, const cpu_mul *m)
{
    const cpu_layout *l = &m->b->l;
    job j = {.s = {.m = m->x->rows,
                   .n = l->cols,
                   .k = l->depth,
                   .a_row = m->x->ld,
                   .a_col = 1,
                   .b_row = l->transposed ? 1 : l->cols,
                   .b_col = l->transposed ? l->depth : 1,
                   .y_row = m->y->ld,
                   .a_type = m->x->dtype,
                   .y_type = m->y->dtype,
                   .b_width = l->width,
                   .bias = m->bias != NULL,
                   .add = m->add},
             .a = m->x->data,
             .b = m->b->data,
             .bias = (const char *)m->bias,
             .y = m->y->data,
             .m = m};
    cut(d, &j);
    return run(d, &j);
}

int cpu_dw_dnnl(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw)
{
    job j = {.s = {.m = dw->rows,
                   .n = dw->cols,
                   .k = dy->rows,
                   .a_row = 1,
                   .a_col = dy->ld,
                   .b_row = x->ld,
                   .b_col = 1,
                   .y_row = dw->ld,
                   .a_type = x->dtype,
                   .y_type = KERN_F32,
                   .add = 1},
             .a = dy->data,
             .b = x->data,
             .y = dw->data};
    j.mb = dw->rows < 2 * BLOCK_ROWS ? dw->rows : 2 * BLOCK_ROWS;
    j.nb = dw->cols < 512 ? dw->cols : 512;
    return run(d, &j);
}
