/* Attention inside the segments of a packed batch, backward: probabilities are computed again from
 * lse.
 *
 * A unit of work is one segment, one key head and one tile of keys. It sums the gradients of its
 * keys and values itself. The gradient of a query is a sum over tiles of keys, and is taken in
 * their order whatever the number of threads: a unit waits with each tile of rows until the one
 * before it has done it. Units begin in the order of their keys and the first of them never waits,
 * so that all come to an end; and since the next tile of keys has fewer rows to see, they hardly
 * wait. */
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "kernels/cpu/attn.h"

enum { SPINS = 4000 };

/* How far a unit is: rows of its segment before `rows` have its part of dq. On a line of its own.
 */
typedef struct progress {
    _Alignas(64) _Atomic int64_t rows;
} progress;

typedef struct plan {
    kern_dev *d;
    const kern_attn_grad *a;
    attn_form f;
    float *delta;   /* [n, n_q] rows of out . dout */
    float *dq;      /* [n_kv, n, heads, wide] */
    progress *done; /* [n_seg, n_kv, tiles] */
    int64_t tiles;  /* of keys, of the longest segment */
    char *mem;
    size_t each;
} plan;

typedef struct grad_mem {
    float *k, *kt, *v, *vt, *q, *dout; /* [TILE, words] */
    float *kw, *qw, *dw, *dk, *dv;     /* [TILE, wide] */
    float *s, *dp, *p, *ds, *dsw;      /* [TILE, TILE] */
} grad_mem;

/* Tiles stand on cache lines. */
enum { HEAD = (sizeof(grad_mem) + 63) / 64 * 64 };

static size_t grad_bytes(const attn_form *f)
{
    int64_t row = 6 * (int64_t)f->words + 5 * (int64_t)f->wide + 5 * (int64_t)ATTN_TILE;
    return HEAD + (size_t)(ATTN_TILE * row) * 4;
}

static void divide(const attn_form *f, grad_mem *m)
{
    float *next = (float *)(void *)((char *)m + HEAD);
    float **part[] = {&m->k,  &m->kt, &m->v,  &m->vt, &m->q,  &m->dout, &m->kw, &m->qw,
                      &m->dw, &m->dk, &m->dv, &m->s,  &m->dp, &m->p,    &m->ds, &m->dsw};
    for (int i = 0; i < 16; i++) {
        *part[i] = next;
        next += (int64_t)ATTN_TILE * (i < 6 ? f->words : i < 11 ? f->wide : ATTN_TILE);
    }
}

/* ---- one tile of keys against one tile of rows ----------------------------------------------- */

typedef struct tile {
    const plan *p;
    grad_mem *m;
    int64_t c0, len; /* the segment */
    int kh;
    int64_t j0, t0; /* first key, first token, in the segment */
    int keys, tokens;
    progress *done;         /* of this unit */
    const progress *before; /* of the tile of keys before it; NULL: it is the first */
} tile;

static void load_rows(const tile *t)
{
    const attn_form *f = &t->p->f;
    const kern_attn_grad *a = t->p->a;
    int rows = t->tokens * f->heads;
    for (int i = 0; i < t->tokens; i++) {
        int64_t row = t->c0 + t->t0 + i, col = (int64_t)t->kh * f->heads * f->d;
        int r = i * f->heads;
        attn_put_rows(f, t->m->q, r, f->heads, a->f.q.dtype, cpu_at(&a->f.q, row, col), f->d);
        attn_put_rows(f, t->m->dout, r, f->heads, a->dout.dtype, cpu_at(&a->dout, row, col), f->d);
    }
    attn_clear_rows(f, t->m->q, rows);
    attn_clear_rows(f, t->m->dout, rows);
}

/* Fills the limits, lse and delta of row r; a row past the tile has no columns. */
static void row_limits(const tile *t, vec_soft_grad *g, int i, int64_t r)
{
    const attn_form *f = &t->p->f;
    const kern_attn *a = &t->p->a->f;
    int64_t pos = t->t0 + r / f->heads, from = a->window > 0 ? pos - a->window + 1 : 0;
    int64_t lo = from - t->j0, hi = pos - t->j0 + 1;
    if (r >= (int64_t)t->tokens * f->heads)
        hi = lo = 0;
    g->lo[i] = lo < 0 ? 0 : lo > ATTN_TILE ? ATTN_TILE : (int)lo;
    g->hi[i] = hi < 0 ? 0 : hi > t->keys ? t->keys : (int)hi;
    if (r >= (int64_t)t->tokens * f->heads)
        return;
    int64_t h = (int64_t)t->kh * f->heads + r % f->heads, row = t->c0 + pos;
    g->lse[i] = *(const float *)cpu_at(&a->lse, row, h);
    g->delta[i] = t->p->delta[row * a->n_q + h];
}

static void soften(const tile *t, int rows, int cols)
{
    const attn_form *f = &t->p->f;
    grad_mem *m = t->m;
    bool pairs = f->group == 2;
    for (int64_t r = 0; r < rows; r += 2) {
        vec_soft_grad g = {.s = m->s + r * ATTN_TILE,
                           .dp = m->dp + r * ATTN_TILE,
                           .ld = ATTN_TILE,
                           .cols = cols,
                           .scale = t->p->a->f.scale,
                           .p = m->p + (pairs ? r / 2 : r) * ATTN_TILE,
                           .ds = m->ds + r * (ATTN_TILE / f->group),
                           .ds_woven = m->dsw + r / 2 * ATTN_TILE};
        row_limits(t, &g, 0, r);
        row_limits(t, &g, 1, r + 1);
        pairs ? f->v->soft_grad_pairs(&g) : f->v->soft_grad(&g);
    }
}

/* Tokens before this one see the tile of keys from j0 on. */
static int64_t seen_until(const tile *t, int64_t j0)
{
    int64_t window = t->p->a->f.window;
    return window > 0 && j0 + ATTN_TILE - 1 + window < t->len ? j0 + ATTN_TILE - 1 + window
                                                              : t->len;
}

static void await_turn(const tile *t)
{
    if (t->before == NULL)
        return;
    int64_t end = t->t0 + t->tokens, last = seen_until(t, t->j0 - ATTN_TILE);
    end = end < last ? end : last;
    for (int i = 0; atomic_load_explicit(&t->before->rows, memory_order_acquire) < end; i++)
        if (i >= SPINS)
            sched_yield();
}

/* The rows of the next tile are far apart, and no machine guesses where. */
static void fetch_next(const tile *t)
{
    const attn_form *f = &t->p->f;
    const kern_attn_grad *a = t->p->a;
    int64_t from = t->t0 + t->tokens, to = from + f->tokens < t->len ? from + f->tokens : t->len;
    int64_t col = (int64_t)t->kh * f->heads * f->d;
    size_t bytes = (size_t)(f->heads * f->d) * kern_dtype_size(a->dout.dtype);
    for (int64_t i = from; i < to; i++) {
        const char *q = cpu_at(&a->f.q, t->c0 + i, col), *dout = cpu_at(&a->dout, t->c0 + i, col);
        for (size_t b = 0; b < bytes; b += 64) {
            __builtin_prefetch(q + b);
            __builtin_prefetch(dout + b);
        }
    }
}

/* Keys that no row of the tile sees are left out, in steps of 16 or of a pair. */
static void tile_rows(const tile *t)
{
    const attn_form *f = &t->p->f;
    const kern_attn *a = &t->p->a->f;
    grad_mem *m = t->m;
    int64_t seen = t->t0 + t->tokens - t->j0;
    int rows = t->tokens * f->heads, dim = (f->d + f->group - 1) / f->group;
    int keys = seen < t->keys ? (int)seen : t->keys, cols = (keys + 15) / 16 * 16;
    int rs = (rows + f->group - 1) / f->group, ks = (keys + f->group - 1) / f->group;
    load_rows(t);
    fetch_next(t);
    attn_mm(f, rows, cols, dim, m->q, f->words, 1, m->kt, ATTN_TILE, m->s, ATTN_TILE, false);
    attn_mm(f, rows, cols, dim, m->dout, f->words, 1, m->vt, ATTN_TILE, m->dp, ATTN_TILE, false);
    soften(t, rows, cols);
    attn_mm(f, keys, f->wide, rs, m->p, 1, ATTN_TILE, attn_rows_as_b(f, m->dout, m->dw), f->wide,
            m->dv, f->wide, true);
    attn_mm(f, keys, f->wide, rs, f->group == 2 ? m->dsw : m->ds, 1, ATTN_TILE,
            attn_rows_as_b(f, m->q, m->qw), f->wide, m->dk, f->wide, true);
    int64_t at = ((int64_t)t->kh * a->q.rows + t->c0 + t->t0) * f->heads;
    await_turn(t);
    attn_mm(f, rows, f->wide, ks, m->ds, ATTN_TILE / f->group, 1, f->group == 2 ? m->kw : m->k,
            f->wide, t->p->dq + at * f->wide, f->wide, true);
    atomic_store_explicit(&t->done->rows, t->t0 + t->tokens, memory_order_release);
}

/* ---- one tile of keys ------------------------------------------------------------------------ */

static void load_keys(tile *t)
{
    const attn_form *f = &t->p->f;
    const kern_attn *a = &t->p->a->f;
    grad_mem *m = t->m;
    int64_t row = t->c0 + t->j0, col = (int64_t)t->kh * f->d;
    attn_put_rows(f, m->k, 0, t->keys, a->k.dtype, cpu_at(&a->k, row, col), a->k.ld);
    attn_put_rows(f, m->v, 0, t->keys, a->v.dtype, cpu_at(&a->v, row, col), a->v.ld);
    attn_clear_rows(f, m->k, t->keys);
    attn_clear_rows(f, m->v, t->keys);
    f->v->transpose(m->k, f->words, ATTN_TILE, f->words, m->kt, ATTN_TILE);
    f->v->transpose(m->v, f->words, ATTN_TILE, f->words, m->vt, ATTN_TILE);
    (void)attn_rows_as_b(f, m->k, m->kw);
    memset(m->dk, 0, (size_t)(ATTN_TILE * f->wide) * 4);
    memset(m->dv, 0, (size_t)(ATTN_TILE * f->wide) * 4);
}

static void tile_keys(tile *t)
{
    const attn_form *f = &t->p->f;
    const kern_attn_grad *a = t->p->a;
    load_keys(t);
    int64_t end = seen_until(t, t->j0);
    for (t->t0 = t->j0; t->t0 < end; t->t0 += f->tokens) {
        t->tokens = end - t->t0 < f->tokens ? (int)(end - t->t0) : f->tokens;
        tile_rows(t);
    }
    for (int64_t j = 0; j < t->keys; j++) {
        int64_t row = t->c0 + t->j0 + j, col = (int64_t)t->kh * f->d;
        f->v->from_f32(a->dk.dtype, t->m->dk + j * f->wide, cpu_at(&a->dk, row, col), f->d);
        f->v->from_f32(a->dv.dtype, t->m->dv + j * f->wide, cpu_at(&a->dv, row, col), f->d);
    }
}

/* ---- units -----------------------------------------------------------------------------------
 */

/* Unit u: a segment and key head, and a tile of keys. As many segments and heads as there are
 * threads go through their tiles side by side, so that what a thread reads again stays in its
 * cache. */
static void find_unit(const plan *p, int64_t u, int64_t *head, int64_t *keys)
{
    int64_t heads = (int64_t)p->a->f.n_seg * p->a->f.n_kv, side = p->d->threads;
    int64_t batch = u / (side * p->tiles) * side, n = heads - batch < side ? heads - batch : side;
    int64_t i = u - batch * p->tiles;
    *head = batch + i % n;
    *keys = i / n;
}

static void run_unit(void *arg, int64_t u, int thread)
{
    const plan *p = arg;
    const kern_attn *a = &p->a->f;
    int64_t head, i;
    find_unit(p, u, &head, &i);
    int s = (int)(head / a->n_kv);
    progress *done = p->done + head * p->tiles + i;
    tile t = {.p = p,
              .m = (grad_mem *)(void *)(p->mem + (size_t)thread * p->each),
              .c0 = a->cu[s],
              .len = (int64_t)a->cu[s + 1] - a->cu[s],
              .kh = (int)(head % a->n_kv),
              .j0 = i * ATTN_TILE,
              .done = done,
              .before = i > 0 ? done - 1 : NULL};
    if (t.j0 >= t.len)
        return;
    divide(&p->f, t.m);
    t.keys = t.len - t.j0 < ATTN_TILE ? (int)(t.len - t.j0) : ATTN_TILE;
    tile_keys(&t);
}

static void row_delta(const plan *p, int64_t r, float *tmp)
{
    const kern_attn_grad *a = p->a;
    int dim = a->f.d;
    for (int h = 0; h < a->f.n_q; h++) {
        p->f.v->to_f32(a->f.out.dtype, cpu_at(&a->f.out, r, (int64_t)h * dim), tmp, dim);
        p->f.v->to_f32(a->dout.dtype, cpu_at(&a->dout, r, (int64_t)h * dim), tmp + dim, dim);
        p->delta[r * a->f.n_q + h] = p->f.v->dot(tmp, tmp + dim, dim);
    }
}

static void row_dq(const plan *p, int64_t r)
{
    const kern_attn_grad *a = p->a;
    const attn_form *f = &p->f;
    for (int h = 0; h < a->f.n_q; h++) {
        int64_t at = ((int64_t)(h / f->heads) * a->f.q.rows + r) * f->heads + h % f->heads;
        f->v->from_f32(a->dq.dtype, p->dq + at * f->wide, cpu_at(&a->dq, r, (int64_t)h * f->d),
                       f->d);
    }
}

/* Before the units: what they need of each row. */
static void delta_rows(void *arg, int64_t r0, int64_t r1, int thread)
{
    const plan *p = arg;
    const attn_form *f = &p->f;
    size_t row = (size_t)f->heads * (size_t)f->wide;
    for (int64_t r = r0; r < r1; r++) {
        row_delta(p, r, (float *)(void *)(p->mem + (size_t)thread * p->each));
        for (int64_t kh = 0; kh < p->a->f.n_kv; kh++)
            memset(p->dq + (size_t)(kh * p->a->f.q.rows + r) * row, 0, row * sizeof *p->dq);
    }
}

static void dq_rows(void *arg, int64_t r0, int64_t r1, int thread)
{
    const plan *p = arg;
    (void)thread;
    for (int64_t r = r0; r < r1; r++)
        row_dq(p, r);
}

/* ---- the op ---------------------------------------------------------------------------------- */

static int check(kern_dev *d, const kern_attn_grad *a)
{
    const kern_attn *f = &a->f;
    kern_dtype t = f->q.dtype;
    int64_t n = f->q.rows;
    int rc = cpu_attn_check(d, f);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: lse", &f->lse, KERN_F32, n, f->n_q);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: dout", &a->dout, t, n, f->q.cols);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: dq", &a->dq, t, n, f->q.cols);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: dk", &a->dk, t, n, f->k.cols);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn_grad: dv", &a->dv, t, n, f->k.cols);
    return rc;
}

static int plan_make(kern_dev *d, const kern_attn_grad *a, int64_t tiles, plan *p)
{
    void *mem, *delta, *dq, *done;
    int64_t n = a->f.q.rows, units = tiles * a->f.n_seg * a->f.n_kv;
    *p = (plan){.d = d, .a = a, .tiles = tiles};
    p->f = attn_form_of(d, a->f.q.dtype, a->f.n_q, a->f.n_kv, a->f.d);
    int rc = cpu_thread_mem(d, grad_bytes(&p->f), &mem, &p->each);
    if (rc == 0)
        rc = cpu_scratch(d, CPU_SLOT_A, (size_t)(n * a->f.n_q) * 4, &delta);
    if (rc == 0)
        rc = cpu_scratch(d, CPU_SLOT_B, (size_t)(n * a->f.n_q * p->f.wide) * 4, &dq);
    if (rc == 0)
        rc = cpu_scratch(d, CPU_SLOT_C, (size_t)units * sizeof *p->done, &done);
    if (rc != 0)
        return rc;
    p->mem = mem;
    p->delta = delta;
    p->dq = dq;
    p->done = done;
    for (int64_t u = 0; u < units; u++)
        atomic_init(&p->done[u].rows, 0);
    return 0;
}

int cpu_attn_grad(kern_dev *d, const kern_attn_grad *a)
{
    plan p;
    int64_t n = a->f.q.rows, tiles = (a->f.max_len + ATTN_TILE - 1) / ATTN_TILE;
    int64_t units = tiles * a->f.n_seg * a->f.n_kv;
    int rc = check(d, a);
    if (rc != 0 || n == 0)
        return rc;
    rc = plan_make(d, a, tiles, &p);
    if (rc != 0)
        return rc;
    cpu_rows(d, n, a->f.q.cols / 4, delta_rows, &p);
    cpu_run(d, n * a->f.max_len * a->f.n_q, units, run_unit, &p);
    cpu_rows(d, n, a->f.q.cols / 4, dq_rows, &p);
    return 0;
}
