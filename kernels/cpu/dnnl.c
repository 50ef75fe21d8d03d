/* Matrix products by oneDNN. Making a primitive compiles code, so they are kept by shape, the least
 * recently used going first; every layer of a model has the same few shapes. */
#include "kernels/cpu/dnnl.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/weight.h"

enum { MAX_PRIMITIVES = 192, SCRATCHPAD = 7 };

/* y [m, n] = a [m, k] b [k, n]. Strides in elements; b_width > 0: panels of that width. Compared as
 * bytes, so all fields are of one size. */
typedef struct shape {
    int64_t m, n, k;
    int64_t a_row, a_col, b_row, b_col, y_row;
    int64_t a_type, y_type, b_width, bias, add;
} shape;

typedef struct entry {
    shape s;
    uint64_t used;
    dnnl_primitive_t p;
    dnnl_memory_t a, b, bias, y, pad;
    size_t pad_bytes;
} entry;

struct cpu_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t clock;
    int n;
    entry e[MAX_PRIMITIVES];
};

cpu_dnnl *cpu_dnnl_open(void)
{
    cpu_dnnl *x = calloc(1, sizeof *x);
    if (x == NULL)
        return NULL;
    if (dnnl_engine_create(&x->engine, dnnl_cpu, 0) == dnnl_success &&
        dnnl_stream_create(&x->stream, x->engine, dnnl_stream_default_flags) == dnnl_success)
        return x;
    cpu_dnnl_close(x);
    return NULL;
}

static void entry_drop(entry *e)
{
    dnnl_memory_t m[] = {e->a, e->b, e->bias, e->y, e->pad};
    for (size_t i = 0; i < sizeof m / sizeof m[0]; i++)
        if (m[i] != NULL)
            dnnl_memory_destroy(m[i]);
    if (e->p != NULL)
        dnnl_primitive_destroy(e->p);
    memset(e, 0, sizeof *e);
}

void cpu_dnnl_close(cpu_dnnl *x)
{
    if (x == NULL)
        return;
    for (int i = 0; i < x->n; i++)
        entry_drop(&x->e[i]);
    if (x->stream != NULL)
        dnnl_stream_destroy(x->stream);
    if (x->engine != NULL)
        dnnl_engine_destroy(x->engine);
    free(x);
}

/* ---- making a primitive
 * -------------------------------------------------------------------------------------- */

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

static dnnl_status_t memory(cpu_dnnl *x, dnnl_memory_t *m, const dnnl_memory_desc_t *md)
{
    return dnnl_memory_create(m, md, x->engine, DNNL_MEMORY_NONE);
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

static dnnl_status_t make(cpu_dnnl *x, entry *e, dnnl_primitive_desc_t *pd)
{
    const shape *s = &e->s;
    dnnl_memory_desc_t a, b, bias, y;
    dnnl_matmul_desc_t md;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t st = strided(&a, s->m, s->k, s->a_type, s->a_row, s->a_col);
    if (st == dnnl_success)
        st = matrix_b(&b, s);
    if (st == dnnl_success)
        st = strided(&y, s->m, s->n, s->y_type, s->y_row, 1);
    if (st == dnnl_success)
        st = strided(&bias, 1, s->n, KERN_F32, s->n, 1);
    if (st == dnnl_success)
        st = dnnl_matmul_desc_init(&md, &a, &b, s->bias ? &bias : NULL, &y);
    if (st == dnnl_success)
        st = attributes(&attr, s->add);
    if (st == dnnl_success)
        st = dnnl_primitive_desc_create(pd, &md, attr, x->engine, NULL);
    if (attr != NULL)
        dnnl_primitive_attr_destroy(attr);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&e->p, *pd);
    if (st == dnnl_success)
        st = memory(x, &e->a, &a);
    if (st == dnnl_success)
        st = memory(x, &e->b, &b);
    if (st == dnnl_success && s->bias)
        st = memory(x, &e->bias, &bias);
    return st == dnnl_success ? memory(x, &e->y, &y) : st;
}

static int entry_make(kern_dev *d, cpu_dnnl *x, entry *e, const shape *s)
{
    dnnl_primitive_desc_t pd = NULL;
    entry_drop(e);
    e->s = *s;
    dnnl_status_t st = make(x, e, &pd);
    if (st == dnnl_success) {
        const dnnl_memory_desc_t *pad =
            dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        e->pad_bytes = dnnl_memory_desc_get_size(pad);
        st = memory(x, &e->pad, pad);
    }
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    if (st == dnnl_success)
        return 0;
    entry_drop(e);
    return cpu_fail(d, KERN_EDEVICE,
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
    int rc = entry_make(d, x, *out, s);
    (*out)->used = rc == 0 ? x->clock : 0;
    return rc;
}

/* ---- running it
 * ---------------------------------------------------------------------------------------------- */

static void point(dnnl_memory_t m, const void *p)
{
    dnnl_memory_set_data_handle(m, (void *)(uintptr_t)p);
}

static int run(kern_dev *d, const shape *s, const void *a, const void *b, const float *bias,
               void *y)
{
    entry *e;
    void *pad = NULL;
    /* oneDNN asks OpenMP, whose setting belongs to the calling thread. */
    omp_set_num_threads(d->threads);
    int rc = find(d, s, &e);
    if (rc == 0 && e->pad_bytes > 0)
        rc = cpu_scratch(d, SCRATCHPAD, e->pad_bytes, &pad);
    if (rc != 0)
        return rc;
    point(e->a, a);
    point(e->b, b);
    point(e->y, y);
    point(e->pad, pad);
    dnnl_exec_arg_t args[5] = {{DNNL_ARG_SRC, e->a},
                               {DNNL_ARG_WEIGHTS, e->b},
                               {DNNL_ARG_DST, e->y},
                               {DNNL_ARG_SCRATCHPAD, e->pad}};
    int n = 4;
    if (s->bias) {
        point(e->bias, bias);
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, e->bias};
    }
    cpu_dnnl *x = cpu_of(d)->dnnl;
    dnnl_status_t st = dnnl_primitive_execute(e->p, x->stream, n, args);
    if (st == dnnl_success)
        st = dnnl_stream_wait(x->stream);
    return st == dnnl_success
               ? 0
               : cpu_fail(d, KERN_EDEVICE, "linear: oneDNN failed (status %d)", (int)st);
}

int cpu_product_dnnl(kern_dev *d, const cpu_mul *m)
{
    const cpu_layout *l = &m->b->l;
    shape s = {.m = m->x->rows,
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
               .add = m->add};
    return run(d, &s, m->x->data, m->b->data, m->bias, m->y->data);
}

int cpu_dw_dnnl(kern_dev *d, const kern_tensor *dy, const kern_tensor *x, const kern_tensor *dw)
{
    shape s = {.m = dw->rows,
               .n = dw->cols,
               .k = dy->rows,
               .a_row = 1,
               .a_col = dy->ld,
               .b_row = x->ld,
               .b_col = 1,
               .y_row = dw->ld,
               .a_type = x->dtype,
               .y_type = KERN_F32,
               .add = 1};
    return run(d, &s, dy->data, x->data, NULL, dw->data);
}
