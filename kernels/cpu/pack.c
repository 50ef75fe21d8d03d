/* Laying weights out for the products that read them. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/weight.h"

enum { PANEL = 64 };

/* Panels where oneDNN has its blocked products (AVX-512), else rows. */
cpu_layout cpu_layout_of(const kern_dev *d, kern_dtype t, int64_t depth, int64_t cols,
                         bool transposed)
{
    cpu_isa isa = ((const cpu_dev *)d)->isa;
    cpu_layout l = {.depth = depth, .cols = cols, .transposed = transposed};
    if (isa < (t == KERN_F32 ? CPU_AVX512 : CPU_AVX512_BF16))
        return l;
    l.transposed = false;
    l.width = cols >= PANEL ? PANEL : (int)(cols + 15) / 16 * 16;
    l.group = t == KERN_F32 ? 1 : 2;
    int64_t step = (int64_t)16 * l.group;
    l.depth_pad = (depth + step - 1) / step * step;
    return l;
}

size_t cpu_layout_bytes(const cpu_layout *l, kern_dtype t)
{
    int64_t n = l->depth * l->cols;
    if (l->width > 0)
        n = l->depth_pad * ((l->cols + l->width - 1) / l->width * l->width);
    return (size_t)n * kern_dtype_size(t);
}

/* ---- one panel's rows ------------------------------------------------------------------------ */

/* n rows of W in the compute dtype, from output o0 on; row r at rows + r * in. */
typedef struct slab {
    const void *rows;
    int64_t o0, n, in;
} slab;

/* W^T [in, out]: outputs are columns. The slab lies inside one panel. */
static void pack_columns(const cpu_matrix *m, const slab *s)
{
    const cpu_layout *l = &m->l;
    int64_t w = l->width, p = s->o0 / w, c0 = s->o0 % w;
    if (l->group == 1) {
        const float *src = s->rows;
        float *dst = (float *)m->data + p * w * l->depth_pad + c0;
        for (int64_t k = 0; k < s->in; k++)
            for (int64_t r = 0; r < s->n; r++)
                dst[k * w + r] = src[r * s->in + k];
        return;
    }
    const uint16_t *src = s->rows;
    uint16_t *dst = (uint16_t *)m->data + p * w * l->depth_pad + c0 * 2;
    for (int64_t k = 0; k < s->in; k += 2)
        for (int64_t r = 0; r < s->n; r++) {
            const uint16_t *e = src + r * s->in + k;
            dst[k * w + r * 2] = e[0];
            dst[k * w + r * 2 + 1] = k + 1 < s->in ? e[1] : 0;
        }
}

/* W [out, in]: outputs are the depth. */
static void pack_depth(const cpu_matrix *m, const slab *s)
{
    const cpu_layout *l = &m->l;
    int64_t w = l->width, g = l->group;
    size_t e = kern_dtype_size(m->dtype);
    for (int64_t r = 0; r < s->n; r++) {
        int64_t o = s->o0 + r;
        const char *src = (const char *)s->rows + (size_t)(r * s->in) * e;
        for (int64_t i = 0; i < s->in; i++) {
            int64_t at = i / w * w * l->depth_pad + o / g * w * g + i % w * g + o % g;
            memcpy((char *)m->data + (size_t)at * e, src + (size_t)i * e, e);
        }
    }
}

static void pack_slab(kern_weight *w, const slab *s)
{
    if (w->fwd.l.width == 0) {
        size_t row = (size_t)s->in * kern_dtype_size(w->compute);
        memcpy((char *)w->fwd.data + (size_t)s->o0 * row, s->rows, (size_t)s->n * row);
        return;
    }
    pack_columns(&w->fwd, s);
    if (w->bwd.data != NULL)
        pack_depth(&w->bwd, s);
}

typedef struct job {
    const cpu_vec *v;
    kern_weight *w;
    const kern_tensor *src;
    int64_t o0, first; /* first output; first slab */
    char *mem;
    size_t each;
} job;

/* Slabs end where panels do, so that no two threads write the same panel. */
static void pack_piece(void *arg, int64_t i, int thread)
{
    const job *j = arg;
    kern_weight *w = j->w;
    int64_t p = j->first + i, end = j->o0 + j->src->rows;
    int64_t a = p * PANEL > j->o0 ? p * PANEL : j->o0;
    int64_t b = (p + 1) * PANEL < end ? (p + 1) * PANEL : end;
    size_t row = (size_t)w->in * kern_dtype_size(w->compute);
    char *rows = j->mem + (size_t)thread * j->each;
    float *tmp = (float *)(void *)(rows + PANEL * row);
    for (int64_t o = a; o < b; o++) {
        j->v->to_f32(j->src->dtype, cpu_at(j->src, o - j->o0, 0), tmp, w->in);
        j->v->from_f32(w->compute, tmp, rows + (size_t)(o - a) * row, w->in);
    }
    slab s = {rows, a, b - a, w->in};
    pack_slab(w, &s);
}

int cpu_pack(kern_dev *d, kern_weight *w, int64_t o0, const kern_tensor *src)
{
    job j = {.v = cpu_of(d)->vec, .w = w, .src = src, .o0 = o0, .first = o0 / PANEL};
    size_t row = (size_t)w->in * kern_dtype_size(w->compute);
    void *mem;
    int rc = cpu_thread_mem(d, PANEL * row + (size_t)w->in * 4, &mem, &j.each);
    if (rc != 0)
        return rc;
    j.mem = mem;
    int64_t slabs = (o0 + src->rows + PANEL - 1) / PANEL - j.first;
    cpu_run(d, src->rows * w->in, slabs, pack_piece, &j);
    return 0;
}
