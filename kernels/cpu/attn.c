/* Attention inside the segments of a packed batch, forward; and the forward pass of one tile that
 * the paged cache uses too. */
#include "kernels/cpu/attn.h"

#include <math.h>
#include <string.h>

/* Segments lie one after the other and cover all rows. */
static int check_segments(kern_dev *d, const kern_attn *a)
{
    int64_t n = a->q.rows;
    int rc = 0;
    if (a->n_seg < 1 && n > 0)
        rc = cpu_fail(d, KERN_EINVAL, "attn: %d segments of %lld rows", a->n_seg, (long long)n);
    for (int s = 0; s < a->n_seg && rc == 0; s++) {
        int64_t len = (int64_t)a->cu[s + 1] - a->cu[s];
        if (len < 0 || len > a->max_len)
            rc = cpu_fail(d, KERN_EINVAL, "attn: segment %d has %lld rows, max_len is %lld", s,
                          (long long)len, (long long)a->max_len);
    }
    if (rc == 0 && n > 0 && (a->cu[0] != 0 || a->cu[a->n_seg] != n))
        rc = cpu_fail(d, KERN_EINVAL, "attn: segments cover rows %d to %d of %lld", a->cu[0],
                      a->cu[a->n_seg], (long long)n);
    return rc;
}

int cpu_attn_check(kern_dev *d, const kern_attn *a)
{
    int64_t n = a->q.rows;
    kern_dtype t = a->q.dtype;
    if (a->d < 1 || a->n_q < 1 || a->n_kv < 1 || a->n_q % a->n_kv != 0 || a->window < 0)
        return cpu_fail(d, KERN_EINVAL, "attn: %d query and %d key heads of %d, window %lld",
                        a->n_q, a->n_kv, a->d, (long long)a->window);
    if (a->n_q / a->n_kv > ATTN_TILE)
        return cpu_fail(d, KERN_EUNSUPPORTED,
                        "attn: %d query heads on %d key heads; at most %d on one", a->n_q, a->n_kv,
                        ATTN_TILE);
    int rc = cpu_activation(d, "attn: q", &a->q);
    if (rc == 0)
        rc = cpu_shape(d, "attn: q", &a->q, n, (int64_t)a->n_q * a->d);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn: k", &a->k, t, n, (int64_t)a->n_kv * a->d);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn: v", &a->v, t, n, (int64_t)a->n_kv * a->d);
    if (rc == 0)
        rc = cpu_shape_of(d, "attn: out", &a->out, t, n, a->q.cols);
    if (rc == 0 && a->lse.data != NULL)
        rc = cpu_shape_of(d, "attn: lse", &a->lse, KERN_F32, n, a->n_q);
    return rc == 0 ? check_segments(d, a) : rc;
}

/* ---- one tile of rows ------------------------------------------------------------------------ */

typedef struct forward_mem {
    float *q, *stage, *packed, *o, *s, *p;
    float max[ATTN_TILE], sum[ATTN_TILE], keep[ATTN_TILE];
    int lo[ATTN_TILE], hi[ATTN_TILE];
} forward_mem;

/* Tiles stand on cache lines. */
enum { HEAD = (sizeof(forward_mem) + 63) / 64 * 64 };

size_t attn_forward_bytes(const attn_form *f)
{
    int64_t row = 2 * (int64_t)f->words + f->wide + 2 * (int64_t)ATTN_TILE;
    return HEAD + (size_t)(ATTN_TILE * row + attn_packed_size(f)) * 4;
}

static void divide(const attn_form *f, forward_mem *m)
{
    float *next = (float *)(void *)((char *)m + HEAD);
    int64_t words = (int64_t)ATTN_TILE * f->words, wide = (int64_t)ATTN_TILE * f->wide;
    int64_t tile = (int64_t)ATTN_TILE * ATTN_TILE;
    float **part[] = {&m->q, &m->stage, &m->packed, &m->o, &m->s, &m->p};
    int64_t size[] = {words, words, attn_packed_size(f), wide, tile, tile};
    for (int i = 0; i < 6; i++) {
        *part[i] = next;
        next += size[i];
    }
}

/* The packed tile of keys from j0 on. */
static const float *keys_at(const attn_form *f, const attn_block *b, forward_mem *m, int64_t j0,
                            int n)
{
    if (b->packed != NULL)
        return b->packed + j0 / ATTN_TILE * b->next;
    attn_pack(f, &b->kv, j0, n, m->stage, m->packed);
    return m->packed;
}

static int within(int64_t x)
{
    return x < 0 ? 0 : x > ATTN_TILE ? ATTN_TILE : (int)x;
}

/* Scores of all rows against the tile of keys from j0 on become probabilities. */
static void soften(const attn_form *f, const attn_block *b, forward_mem *m, int64_t j0, int rows,
                   int cols)
{
    for (int r = 0; r < rows; r++) {
        int64_t pos = b->pos + r / f->heads;
        m->lo[r] = b->window > 0 ? within(pos - b->window + 1 - j0) : 0;
        m->hi[r] = within(pos + 1 - j0);
    }
    vec_soft s = {.s = m->s,
                  .rows = rows,
                  .cols = cols,
                  .scale = b->scale,
                  .lo = m->lo,
                  .hi = m->hi,
                  .max = m->max,
                  .sum = m->sum,
                  .keep = m->keep,
                  .p = m->p};
    f->v->soft(f->t, &s);
    for (int r = 0; r < rows; r++)
        if (m->keep[r] != 1.0F)
            f->v->scale(m->keep[r], m->o + (int64_t)r * f->wide, f->wide);
}

static void finish(const attn_form *f, const attn_block *b, forward_mem *m, int rows)
{
    for (int r = 0; r < rows; r++) {
        float *o = m->o + (int64_t)r * f->wide;
        int64_t t = r / f->heads, h = r % f->heads;
        f->v->scale(1.0F / m->sum[r], o, f->d);
        f->v->from_f32(b->out.dtype, o, cpu_at(&b->out, t, h * f->d), f->d);
        if (b->lse.data != NULL)
            *(float *)cpu_at(&b->lse, t, h) = m->max[r] + logf(m->sum[r]);
    }
}

static void load_queries(const attn_form *f, const attn_block *b, forward_mem *m)
{
    for (int t = 0; t < b->tokens; t++)
        attn_put_rows(f, m->q, t * f->heads, f->heads, b->q.dtype, cpu_at(&b->q, t, 0), f->d);
    for (int r = 0; r < b->tokens * f->heads; r++) {
        m->max[r] = -INFINITY;
        m->sum[r] = 0;
    }
    memset(m->o, 0, (size_t)b->tokens * (size_t)(f->heads * f->wide) * 4);
}

/* The first position that is looked at; packed tiles begin at multiples of ATTN_TILE. */
static int64_t first_key(const attn_block *b)
{
    int64_t j0 = b->window > 0 && b->pos >= b->window ? b->pos - b->window + 1 : 0;
    return b->packed != NULL ? j0 / ATTN_TILE * ATTN_TILE : j0;
}

/* Keys that no row sees are left out of a tile's products, in steps of 16 and of a pair. */
void attn_forward(const attn_form *f, const attn_block *b, void *mem)
{
    forward_mem *m = mem;
    int rows = b->tokens * f->heads, steps = (f->d + f->group - 1) / f->group;
    int64_t end = b->pos + b->tokens;
    divide(f, m);
    load_queries(f, b, m);
    for (int64_t j0 = first_key(b); j0 < end; j0 += ATTN_TILE) {
        int n = end - j0 < ATTN_TILE ? (int)(end - j0) : ATTN_TILE, cols = (n + 15) / 16 * 16;
        const float *k = keys_at(f, b, m, j0, n);
        attn_mm(f, rows, cols, steps, m->q, f->words, 1, k, ATTN_TILE, m->s, ATTN_TILE, false);
        soften(f, b, m, j0, rows, cols);
        attn_mm(f, rows, f->wide, (n + f->group - 1) / f->group, m->p, ATTN_TILE / f->group, 1,
                k + attn_keys_size(f), f->wide, m->o, f->wide, true);
    }
    finish(f, b, m, rows);
}

/* ---- a packed batch -------------------------------------------------------------------------- */

typedef struct segment_arg {
    kern_tensor k, v; /* rows of one segment, columns of one head */
} segment_arg;

static const void *segment_at(const void *arg, int64_t pos, int which, int64_t *ld, int64_t *n)
{
    const segment_arg *s = arg;
    const kern_tensor *t = which == 0 ? &s->k : &s->v;
    *ld = t->ld;
    *n = t->rows - pos;
    return cpu_at(t, pos, 0);
}

typedef struct job {
    const kern_attn *a;
    attn_form f;
    int64_t blocks; /* of the longest segment: all get as many */
    int64_t tiles;  /* the same of keys */
    float *packed;  /* all tiles of keys, see packed_at */
    char *mem;
    size_t each;
} job;

/* The packed tiles of segment s and key head kh: n_kv apart. A segment begins where no tile of the
 * one before it lies. */
static float *packed_at(const job *j, int s, int kh)
{
    int64_t first = j->a->cu[s] / ATTN_TILE + s;
    return j->packed + (first * j->a->n_kv + kh) * attn_packed_size(&j->f);
}

static int64_t length(const kern_attn *a, int s)
{
    return (int64_t)a->cu[s + 1] - a->cu[s];
}

/* Keys and values of segment s, key head kh. */
static segment_arg segment_of(const kern_attn *a, int s, int kh)
{
    kern_tensor k = kern_cols(&a->k, (int64_t)kh * a->d, a->d);
    kern_tensor v = kern_cols(&a->v, (int64_t)kh * a->d, a->d);
    return (segment_arg){kern_rows(&k, a->cu[s], length(a, s)),
                         kern_rows(&v, a->cu[s], length(a, s))};
}

static void pack_unit(void *arg, int64_t u, int thread)
{
    const job *j = arg;
    const kern_attn *a = j->a;
    int64_t heads = (int64_t)a->n_seg * a->n_kv, j0 = u / heads * ATTN_TILE;
    int s = (int)(u % heads / a->n_kv), kh = (int)(u % a->n_kv);
    int64_t left = length(a, s) - j0;
    if (left <= 0)
        return;
    segment_arg seg = segment_of(a, s, kh);
    attn_source kv = {segment_at, &seg, a->k.dtype};
    attn_pack(&j->f, &kv, j0, left < ATTN_TILE ? (int)left : ATTN_TILE,
              (float *)(void *)(j->mem + (size_t)thread * j->each),
              packed_at(j, s, kh) + u / heads * a->n_kv * attn_packed_size(&j->f));
}

/* Tokens [t0, t0 + tokens) of segment s, key head kh. */
static void run_block(const job *j, int s, int64_t t0, int kh, void *mem)
{
    const kern_attn *a = j->a;
    const attn_form *f = &j->f;
    int64_t c0 = a->cu[s], left = length(a, s) - t0;
    int tokens = left < f->tokens ? (int)left : f->tokens;
    kern_tensor q = kern_cols(&a->q, (int64_t)kh * f->heads * a->d, (int64_t)f->heads * a->d);
    kern_tensor out = kern_cols(&a->out, (int64_t)kh * f->heads * a->d, (int64_t)f->heads * a->d);
    attn_block b = {.packed = packed_at(j, s, kh),
                    .next = a->n_kv * attn_packed_size(f),
                    .q = kern_rows(&q, c0 + t0, tokens),
                    .out = kern_rows(&out, c0 + t0, tokens),
                    .pos = t0,
                    .tokens = tokens,
                    .scale = a->scale,
                    .window = a->window};
    if (a->lse.data != NULL) {
        kern_tensor lse = kern_cols(&a->lse, (int64_t)kh * f->heads, f->heads);
        b.lse = kern_rows(&lse, c0 + t0, tokens);
    }
    attn_forward(f, &b, mem);
}

/* One segment and key head after the other, so that its keys stay in the cache; the last blocks,
 * which see most of them, first. */
static void run_unit(void *arg, int64_t u, int thread)
{
    const job *j = arg;
    const kern_attn *a = j->a;
    int64_t head = u / j->blocks, t0 = (j->blocks - 1 - u % j->blocks) * j->f.tokens;
    int s = (int)(head / a->n_kv);
    if (t0 < length(a, s))
        run_block(j, s, t0, (int)(head % a->n_kv), j->mem + (size_t)thread * j->each);
}

int cpu_attn(kern_dev *d, const kern_attn *a)
{
    int rc = cpu_attn_check(d, a);
    if (rc != 0 || a->q.rows == 0)
        return rc;
    job j = {.a = a, .f = attn_form_of(d, a->q.dtype, a->n_q, a->n_kv, a->d)};
    void *mem, *packed;
    int64_t places = (a->q.rows / ATTN_TILE + a->n_seg) * a->n_kv;
    rc = cpu_thread_mem(d, attn_forward_bytes(&j.f), &mem, &j.each);
    if (rc == 0)
        rc = cpu_scratch(d, CPU_SLOT_A, (size_t)(places * attn_packed_size(&j.f)) * 4, &packed);
    if (rc != 0)
        return rc;
    j.mem = mem;
    j.packed = packed;
    j.blocks = (a->max_len + j.f.tokens - 1) / j.f.tokens;
    j.tiles = (a->max_len + ATTN_TILE - 1) / ATTN_TILE;
    cpu_run(d, a->k.rows * a->k.cols / 4, j.tiles * a->n_seg * a->n_kv, pack_unit, &j);
    cpu_run(d, a->q.rows * a->max_len * a->n_q, j.blocks * a->n_seg * a->n_kv, run_unit, &j);
    return 0;
}
