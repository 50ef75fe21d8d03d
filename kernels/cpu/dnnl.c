/* Making a primitive compiles code, so primitives are kept by shape, the least recently used going
 * first; all layers of a model have the same few shapes. */
#include "kernels/cpu/dnnl.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/compact.h"

enum { MAX_PRIMITIVES = 256 };

/* y [m, n] = a [m, k] b [k, n] (+ bias) (+ y). a and y have no gaps: oneDNN's fast products take no
 * others. b: panels of b_width columns, or rows with strides. Compared as bytes, so all fields are
 * of one size. */
typedef struct shape {
    int64_t m, n, k;
    int64_t b_row, b_col, b_width;
    int64_t a_type, y_type, bias, add;
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
    dnnl_status_t st = strided(&e->md[ARG_A], s->m, s->k, s->a_type, s->k, 1);
    if (st == dnnl_success)
        st = matrix_b(&e->md[ARG_B], s);
    if (st == dnnl_success)
        st = strided(&e->md[ARG_Y], s->m, s->n, s->y_type, s->n, 1);
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

/* ---- running one ----------------------------------------------------------------------------- */

static size_t size_of(int64_t t)
{
    return t == KERN_F32 ? 4 : 2;
}

static int execute(const cpu_dnnl *x, entry *e, int thread, const void *const p[N_ARGS])
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
            st = dnnl_memory_create(&memory[i], &e->md[i], x->engine, DNNL_MEMORY_NONE);
        if (st != dnnl_success)
            return (int)st;
        /* oneDNN takes inputs as pointers to what may change, too. */
        void *data;
        memcpy(&data, &p[i], sizeof data);
        dnnl_memory_set_data_handle(memory[i], data);
        args[n++] = (dnnl_exec_arg_t){names[i], memory[i]};
    }
    return (int)dnnl_primitive_execute(e->p, x->stream, n, args);
}

/* The primitive of a shape, and the greatest scratch memory so far. */
static int prepare(kern_dev *d, const shape *s, entry **e, size_t *pad)
{
    int rc = find(d, s, e);
    if (rc != 0)
        return rc;
    size_t need = dnnl_memory_desc_get_size(&(*e)->md[ARG_PAD]);
    *pad = need > *pad ? need : *pad;
    return 0;
}

static void copy_rows(char *dst, size_t dst_row, const char *src, size_t src_row, size_t bytes,
                      int64_t rows)
{
    for (int64_t r = 0; r < rows; r++)
        memcpy(dst + (size_t)r * dst_row, src + (size_t)r * src_row, bytes);
}

static size_t line(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* ---- a product in blocks --------------------------------------------------------------------- */

typedef struct job {
    cpu_dnnl *x;
    const cpu_mul *m;
    shape s;               /* the whole product */
    int64_t mb, nb;        /* rows and columns of a block */
    entry *e[2][2];        /* [last rows][last columns] */
    bool stage_x, stage_y; /* they have gaps: a block goes through the thread's own memory */
    size_t pad, x_bytes, y_bytes, each;
    char *mem;
    atomic_int status;
} job;

/* The panels of columns [c0, c1) of a compact b, expanded into `to`. */
static const char *expand(const job *j, int64_t c0, int64_t c1, char *to)
{
    const cpu_layout *l = &j->m->b->l;
    size_t bytes = (size_t)(l->width * l->depth_pad) * 2;
    for (int64_t p = c0 / l->width, i = 0; p * l->width < c1; p++, i++) {
        cpu_compact_panel c = cpu_compact_at(j->m->b, p);
        cpu_compact_expand(&c, l->depth_pad / 2, (uint16_t *)(void *)(to + (size_t)i * bytes));
    }
    return to;
}

/* Where column c of b begins. A block starts at a whole panel. */
static const char *column_of(const job *j, int64_t c)
{
    const cpu_layout *l = &j->m->b->l;
    int64_t step = l->width > 0 ? l->depth_pad : j->s.b_col;
    return (const char *)j->m->b->data + (size_t)(c * step) * size_of(j->s.a_type);
}

static void run_block(void *arg, int64_t i, int thread)
{
    job *j = arg;
    const shape *s = &j->s;
    const kern_tensor *x = j->m->x, *y = j->m->y;
    int64_t down = (s->m + j->mb - 1) / j->mb;
    cpu_block b = {.r0 = i % down * j->mb, .c0 = i / down * j->nb};
    b.r1 = b.r0 + j->mb < s->m ? b.r0 + j->mb : s->m;
    b.c1 = b.c0 + j->nb < s->n ? b.c0 + j->nb : s->n;
    int64_t rows = b.r1 - b.r0;
    size_t ex = size_of(s->a_type), ey = size_of(s->y_type), y_row = (size_t)(b.c1 - b.c0) * ey;
    char *pad = j->mem + (size_t)thread * j->each, *xb = cpu_at(x, b.r0, 0),
         *yb = cpu_at(y, b.r0, b.c0);
    char *ys = j->stage_y ? pad + j->pad + j->x_bytes : yb;
    if (j->stage_x) {
        copy_rows(pad + j->pad, (size_t)s->k * ex, xb, (size_t)x->ld * ex, (size_t)s->k * ex, rows);
        xb = pad + j->pad;
    }
    if (j->stage_y && s->add)
        copy_rows(ys, y_row, yb, (size_t)y->ld * ey, y_row, rows);
    const char *w = j->m->b->compact != NULL
                        ? expand(j, b.c0, b.c1, pad + j->pad + j->x_bytes + j->y_bytes)
                        : column_of(j, b.c0);
    const void *p[N_ARGS] = {xb, w, j->m->bias != NULL ? j->m->bias + b.c0 : NULL, ys, pad};
    int st = execute(j->x, j->e[rows != j->mb][b.c1 - b.c0 != j->nb], thread, p);
    if (st != 0) {
        atomic_store(&j->status, st);
        return;
    }
    if (j->stage_y)
        copy_rows(yb, (size_t)y->ld * ey, ys, y_row, y_row, rows);
    if (j->m->after != NULL)
        j->m->after(j->m->arg, &b, thread);
}

enum {
    BLOCK_ROWS = 64,
    FAR_ROWS = 256,         /* rows of a block when B is read from memory each time */
    FAR_BYTES = 8 << 20,    /* a B so large */
    NEAR_BYTES = 512 << 10, /* what of it stays in the second-level cache */
    BLOCKS = 24             /* that is enough of them to share out */
};

/* A block is some rows by all columns, so that B is read from the shared cache; with a B that no
 * cache holds, all rows by a few columns, so that it is read once. The number of threads has no
 * say: where oneDNN cuts a sum may depend on the shape it is given. */
static void cut(job *j)
{
    int64_t column = j->s.k * (int64_t)size_of(j->s.a_type);
    /* A compact B is expanded for each block: many rows, and what stays in the cache. */
    bool far = j->s.n * column > FAR_BYTES || j->m->b->compact != NULL;
    j->mb = far ? FAR_ROWS : BLOCK_ROWS;
    j->nb = far ? NEAR_BYTES / column / 64 * 64 : j->s.n;
    int64_t down = (j->s.m + j->mb - 1) / j->mb;
    int64_t share = (j->s.n * down / BLOCKS + 63) / 64 * 64;
    if (down < BLOCKS && (!far || (j->m->b->compact != NULL && share < j->nb)))
        j->nb = share;
    j->nb = j->nb < 64 ? 64 : j->nb;
    j->nb = j->nb > j->s.n ? j->s.n : j->nb;
    j->mb = j->mb > j->s.m ? j->s.m : j->mb;
}

/* The primitives of whole and last blocks, and memory for each thread. */
static int ready(kern_dev *d, job *j)
{
    int64_t rows[2] = {j->mb, j->s.m % j->mb}, cols[2] = {j->nb, j->s.n % j->nb};
    for (int i = 0; i < 4; i++) {
        shape s = j->s;
        s.m = rows[i / 2];
        s.n = cols[i % 2];
        int rc = s.m == 0 || s.n == 0 ? 0 : prepare(d, &s, &j->e[i / 2][i % 2], &j->pad);
        if (rc != 0)
            return rc;
    }
    void *mem;
    j->stage_x = j->m->x->ld != j->s.k && j->s.m > 1;
    j->stage_y = j->m->y->ld != j->nb && j->s.m > 1;
    j->pad = line(j->pad);
    j->x_bytes = j->stage_x ? line((size_t)(j->mb * j->s.k) * size_of(j->s.a_type)) : 0;
    j->y_bytes = j->stage_y ? line((size_t)(j->mb * j->nb) * size_of(j->s.y_type)) : 0;
    const cpu_layout *l = &j->m->b->l;
    size_t b_bytes =
        j->m->b->compact != NULL ? (size_t)((j->nb + 63) / 64 * 64 * l->depth_pad) * 2 : 0;
    int rc = cpu_thread_mem(d, j->pad + j->x_bytes + j->y_bytes + b_bytes, &mem, &j->each);
    j->mem = mem;
    return rc;
}

int cpu_product_dnnl(kern_dev *d, const cpu_mul *m)
{
    const cpu_layout *l = &m->b->l;
    job j = {.x = cpu_of(d)->dnnl,
             .m = m,
             .s = {.m = m->x->rows,
                   .n = l->cols,
                   .k = l->depth,
                   .b_row = l->transposed ? 1 : l->cols,
                   .b_col = l->transposed ? l->depth : 1,
                   .b_width = l->width,
                   .a_type = m->x->dtype,
                   .y_type = m->y->dtype,
                   .bias = m->bias != NULL,
                   .add = m->add}};
    /* oneDNN asks OpenMP how many threads to use; that belongs to the calling thread. */
    omp_set_num_threads(1);
    cut(&j);
    int rc = ready(d, &j);
    if (rc != 0)
        return rc;
    int64_t blocks = ((j.s.m + j.mb - 1) / j.mb) * ((j.s.n + j.nb - 1) / j.nb);
    cpu_run(d, j.s.m * j.s.n * j.s.k / 64, blocks, run_block, &j);
    int st = atomic_load(&j.status);
    return st == 0 ? 0 : cpu_fail(d, KERN_EDEVICE, "linear: oneDNN failed (status %d)", st);
}

/* ---- gradient of a weight -------------------------------------------------------------------- */

/* dw [out, in] += dy^T x, in blocks of outputs, over some tokens at a time: dy is transposed into
 * the thread's own memory. */
enum { DW_OUTS = 128, DW_TOKENS = 1024, DW_TILE = 64, DW_AREA = DW_TILE * DW_TILE };

typedef struct dw_job {
    cpu_dnnl *x;
    const cpu_vec *v;
    const kern_tensor *dy, *dw;
    kern_tensor b;  /* x without gaps */
    entry *e[2][2]; /* [last outputs][last tokens] */
    size_t pad, each;
    char *mem;
    atomic_int status;
} dw_job;

/* A tile of dy: rows tokens by cols outputs, into a [outputs, tokens] with leading dimension lda.
 */
static void transpose_tile(const dw_job *j, const kern_tensor *t, char *a, int64_t lda, float *tmp)
{
    size_t e = kern_dtype_size(t->dtype), row = (size_t)t->cols * e;
    float *tile = tmp, *woven = tmp + DW_AREA, *out = woven + DW_AREA;
    bool bf = t->dtype == KERN_BF16;
    memset(tile, 0, DW_AREA * sizeof *tile);
    copy_rows((char *)tile, DW_TILE * e, t->data, (size_t)t->ld * e, row, t->rows);
    if (bf)
        j->v->weave((const uint16_t *)(const void *)tile, DW_TILE, DW_TILE, DW_TILE,
                    (uint16_t *)(void *)woven, 2 * (int64_t)DW_TILE);
    j->v->transpose(bf ? woven : tile, DW_TILE, bf ? DW_TILE / 2 : DW_TILE, DW_TILE, out, DW_TILE);
    copy_rows(a, (size_t)lda * e, (const char *)out, sizeof(float) * DW_TILE, (size_t)t->rows * e,
              t->cols);
}

static void dw_block(void *arg, int64_t i, int thread)
{
    dw_job *j = arg;
    int64_t tokens = j->dy->rows, out = j->dw->rows, o0 = i * DW_OUTS;
    int64_t outs = out - o0 < DW_OUTS ? out - o0 : DW_OUTS;
    char *pad = j->mem + (size_t)thread * j->each, *a = pad + j->pad;
    size_t e = kern_dtype_size(j->b.dtype);
    float *tmp = (float *)(void *)(a + (size_t)(DW_OUTS * DW_TOKENS) * e);
    for (int64_t t0 = 0; t0 < tokens; t0 += DW_TOKENS) {
        int64_t n = tokens - t0 < DW_TOKENS ? tokens - t0 : DW_TOKENS;
        for (int64_t t = 0; t < n; t += DW_TILE)
            for (int64_t o = 0; o < outs; o += DW_TILE) {
                kern_tensor c = kern_cols(j->dy, o0 + o, outs - o < DW_TILE ? outs - o : DW_TILE);
                kern_tensor r = kern_rows(&c, t0 + t, n - t < DW_TILE ? n - t : DW_TILE);
                transpose_tile(j, &r, a + (size_t)(o * n + t) * e, n, tmp);
            }
        const void *p[N_ARGS] = {a, cpu_at(&j->b, t0, 0), NULL, cpu_at(j->dw, o0, 0), pad};
        int st = execute(j->x, j->e[outs != DW_OUTS][n != DW_TOKENS], thread, p);
        if (st != 0)
            atomic_store(&j->status, st);
    }
}

static int dw_ready(kern_dev *d, dw_job *j)
{
    int64_t out = j->dw->rows, in = j->dw->cols, tokens = j->dy->rows;
    int64_t outs[2] = {DW_OUTS, out % DW_OUTS}, depth[2] = {DW_TOKENS, tokens % DW_TOKENS};
    for (int i = 0; i < 4; i++) {
        shape s = {.m = outs[i / 2],
                   .n = in,
                   .k = depth[i % 2],
                   .b_row = in,
                   .b_col = 1,
                   .a_type = j->b.dtype,
                   .y_type = KERN_F32,
                   .add = 1};
        bool none = s.m == 0 || s.k == 0 || s.m > out || s.k > tokens;
        int rc = none ? 0 : prepare(d, &s, &j->e[i / 2][i % 2], &j->pad);
        if (rc != 0)
            return rc;
    }
    void *mem;
    j->pad = line(j->pad);
    size_t a = kern_dtype_size(j->b.dtype) * DW_OUTS * DW_TOKENS,
           tiles = sizeof(float) * 3 * DW_AREA;
    int rc = cpu_thread_mem(d, j->pad + a + tiles, &mem, &j->each);
    j->mem = mem;
    return rc;
}

int cpu_dw_dnnl(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw)
{
    dw_job j = {.x = cpu_of(d)->dnnl, .v = cpu_of(d)->vec, .dy = dy, .dw = dw, .b = *x};
    size_t row = (size_t)x->cols * kern_dtype_size(x->dtype);
    omp_set_num_threads(1);
    int rc = dw_ready(d, &j);
    if (rc == 0 && x->ld != x->cols) {
        rc = cpu_scratch(d, CPU_SLOT_X, (size_t)x->rows * row, &j.b.data);
        j.b.ld = x->cols;
        if (rc == 0)
            copy_rows(j.b.data, row, x->data, (size_t)x->ld * kern_dtype_size(x->dtype), row,
                      x->rows);
    }
    if (rc != 0)
        return rc;
    cpu_run(d, dw->rows * dw->cols * x->rows / 64, (dw->rows + DW_OUTS - 1) / DW_OUTS, dw_block,
            &j);
    int st = atomic_load(&j.status);
    return st == 0 ? 0 : cpu_fail(d, KERN_EDEVICE, "linear: oneDNN failed (status %d)", st);
}
