/* The low-rank terms with pairs of bf16, summed in f32. A and B are rounded to bf16, and so are xa
 * and its gradient on their way into a product; x and dy are read as they lie.
 *
 * A "word" is a pair. Ranks are padded with zeros to multiples of 16 ("wide"), so that a product
 * takes whole vectors. */
#include <string.h>

#include "kernels/cpu/lora.h"

/* Rows of a shrink; elements of a row that is copied first; a tile of a gradient's sum. */
enum { ROWS = 48, DEPTH = 512, COLS = 64, TALL = 128 };
/* Rows of A and of B that are packed at once. */
enum { A_ROWS = 16, B_ROWS = 32 };

/* One thread's. */
typedef struct scratch {
    float row[DEPTH];
    float stage[ROWS * DEPTH / 2]; /* words: rows of x, y, A or B */
    float woven[TALL / 2 * COLS];  /* words: pairs of tokens */
    float edge[ROWS * 16];         /* of a result whose columns end within a vector */
    float out[];                   /* [COLS, wide] */
} scratch;

_Static_assert(TALL *COLS <= ROWS * DEPTH && B_ROWS * LORA_MAX_RANK <= ROWS * DEPTH &&
                   (int)LORA_MAX_RANK <= (int)DEPTH && ROWS <= COLS,
               "what is staged fits");

static int64_t up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static scratch *mine(const lora *s, int thread)
{
    return (scratch *)(void *)(s->mem + (size_t)thread * s->each);
}

static uint16_t *halves(float *words)
{
    return (uint16_t *)(void *)words;
}

static const float *words_of(const uint16_t *halves)
{
    return (const float *)(const void *)halves;
}

/* ---- operands -------------------------------------------------------------------------------- */

/* Part of x or dy: its place in the batch, and the mask that it goes through (NULL: none). */
typedef struct side {
    kern_tensor t;
    int64_t r0, c0;
    const lora_term *drop;
} side;

/* Rows of ld elements, zeros after the last column. */
static void copy_rows(const lora *s, const side *x, scratch *m, int64_t ld)
{
    int64_t n = x->t.cols;
    for (int64_t r = 0; r < x->t.rows; r++) {
        uint16_t *to = halves(m->stage) + r * ld;
        const void *from = cpu_at(&x->t, r, 0);
        if (x->drop == NULL) {
            memcpy(to, from, (size_t)n * 2);
        } else {
            s->v->to_f32(KERN_BF16, from, m->row, n);
            lora_drop(s, x->drop, x->r0 + r, x->c0, n, m->row);
            s->v->from_f32(KERN_BF16, m->row, to, n);
        }
        memset(to + n, 0, (size_t)(ld - n) * 2);
    }
}

/* Whether its rows can be read as words where they lie. */
static bool lies_in_pairs(const side *x)
{
    return x->drop == NULL && x->t.cols % 2 == 0 && x->t.ld % 2 == 0 &&
           (uintptr_t)x->t.data % 4 == 0;
}

/* Rows of f32, times alpha, as bf16 in rows of ld elements; zeros to the end of n_rows rows. */
static void narrow_rows(const lora *s, const kern_tensor *t, float alpha, int64_t n_rows,
                        int64_t ld, scratch *m)
{
    memset(m->stage, 0, (size_t)(n_rows * ld) * 2);
    for (int64_t r = 0; r < t->rows; r++) {
        s->v->to_f32(KERN_F32, cpu_at(t, r, 0), m->row, t->cols);
        s->v->scale(alpha, m->row, t->cols);
        s->v->from_f32(KERN_BF16, m->row, halves(m->stage) + r * ld, t->cols);
    }
}

/* Pairs of tokens of a tile of at most TALL by COLS, into m->woven. */
static void weave_tile(const lora *s, const side *x, scratch *m)
{
    const uint16_t *from = x->t.data;
    int64_t ld = x->t.ld, rows = up(x->t.rows, 2);
    if (x->drop != NULL || x->t.cols != COLS || rows != x->t.rows) {
        copy_rows(s, x, m, COLS);
        if (rows != x->t.rows)
            memset(halves(m->stage) + x->t.rows * COLS, 0, COLS * sizeof(uint16_t));
        from = halves(m->stage);
        ld = COLS;
    }
    s->v->weave(from, ld, (int)rows, COLS, halves(m->woven), 2 * (int64_t)COLS);
}

/* C += A B where the columns of C may end within a vector; B is readable to the end of it. */
static void add_product(const lora *s, vec_mm *g, scratch *m)
{
    int64_t n = g->n, whole = n / 16 * 16, e = g->c_bf16 ? 2 : 4;
    g->n = whole;
    g->add = true;
    if (whole > 0)
        s->v->mm_pairs(g);
    for (int64_t r0 = 0; r0 < g->m && n > whole; r0 += ROWS) {
        vec_mm k = *g;
        k.m = g->m - r0 < ROWS ? g->m - r0 : ROWS;
        k.n = k.ldc = 16;
        k.a = (const float *)g->a + r0 * g->ars;
        k.b = (const float *)g->b + whole;
        k.c = m->edge;
        k.add = k.c_bf16 = false;
        s->v->mm_pairs(&k);
        for (int64_t r = 0; r < k.m; r++)
            s->v->add_to(g->c_bf16 ? KERN_BF16 : KERN_F32, m->edge + r * 16,
                         (char *)g->c + ((r0 + r) * g->ldc + whole) * e, n - whole);
    }
}

/* C [rows, n] = x B, whose rows are pairs of x's columns; g has n, B and C. */
static void shrink(const lora *s, const side *x, vec_mm g, scratch *m)
{
    bool lies = lies_in_pairs(x);
    int64_t depth = x->t.cols, step = lies ? depth : DEPTH;
    g.m = x->t.rows;
    g.aks = 1;
    g.alpha = 1.0F;
    for (int64_t k0 = 0; k0 < depth; k0 += step) {
        int64_t n = depth - k0 < step ? depth - k0 : step;
        side part = {kern_cols(&x->t, k0, n), x->r0, x->c0 + k0, x->drop};
        if (!lies)
            copy_rows(s, &part, m, DEPTH);
        g.a = lies ? part.t.data : m->stage;
        g.ars = lies ? x->t.ld / 2 : DEPTH / 2;
        g.steps = (n + 1) / 2;
        s->v->mm_pairs(&g);
        g.b = (const float *)g.b + step / 2 * g.ldb;
        g.add = true;
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Words of a row of part p's B, transposed; a product may read a vector past the last. */
static int64_t y_words(const lora_term *t)
{
    return up(t->out, 16) + 16;
}

/* A of 16 ranks of a part, as words [in / 2, wide]. */
static void pack_a(const lora *s, const lora_term *t, int64_t k0, scratch *m)
{
    int64_t in = s->f->w->in;
    for (int64_t c = 0; c < in; c += DEPTH) {
        int64_t n = in - c < DEPTH ? in - c : DEPTH, words = up(n, 32) / 2;
        kern_tensor a = kern_cols(&t->l->A, c, n);
        a = kern_rows(&a, k0, t->r - k0 < A_ROWS ? t->r - k0 : A_ROWS);
        narrow_rows(s, &a, 1.0F, A_ROWS, 2 * words, m);
        s->v->transpose(m->stage, words, A_ROWS, (int)words, s->at + c / 2 * s->wide + t->q0 + k0,
                        s->wide);
    }
}

/* B of 16 outputs of a part with the scale in, as words [ranks / 2, outputs]. */
static void pack_b(const lora *s, const lora_term *t, int64_t o0, scratch *m)
{
    int64_t words = up(t->q / 2, 16);
    kern_tensor b = kern_rows(&t->l->B, o0, t->out - o0 < 16 ? t->out - o0 : 16);
    narrow_rows(s, &b, t->l->scale, 16, 2 * words, m);
    s->v->transpose(m->stage, words, 16, (int)words, t->b + o0, y_words(t));
}

enum { PACKED = 256 }; /* outputs of a piece of packing */

static void pack_piece(void *arg, int64_t i, int thread)
{
    const lora *s = arg;
    const lora_term *t = &s->t[i % s->n];
    int64_t step = i / s->n;
    scratch *m = mine(s, thread);
    if (step * A_ROWS < t->q)
        pack_a(s, t, step * A_ROWS, m);
    for (int64_t o = step * PACKED; o < (step + 1) * PACKED && o < t->out; o += 16)
        pack_b(s, t, o, m);
}

/* Pieces of packing: as many for each part as the widest needs. */
static int64_t packs(const lora *s)
{
    int64_t n = 0;
    for (int p = 0; p < s->n; p++) {
        int64_t a = s->t[p].q / A_ROWS, b = up(s->t[p].out, PACKED) / PACKED;
        n = a > n ? a : n;
        n = b > n ? b : n;
    }
    return n * s->n;
}

static void xa_piece(void *arg, int64_t i, int thread)
{
    const lora *s = arg;
    const kern_linear *f = s->f;
    scratch *m = mine(s, thread);
    int64_t r0 = i * ROWS, n = f->x.rows - r0 < ROWS ? f->x.rows - r0 : ROWS;
    side x = {kern_rows(&f->x, r0, n), r0, 0, NULL};
    vec_mm g = {.n = s->wide, .b = s->at, .ldb = s->wide, .c = m->out, .ldc = s->wide};
    if (!s->drops)
        shrink(s, &x, g, m);
    for (int p = 0; p < s->n && s->drops; p++) {
        const lora_term *t = &s->t[p];
        x.drop = lora_drops(s, t) ? t : NULL;
        g.n = t->q;
        g.b = s->at + t->q0;
        g.c = m->out + t->q0;
        shrink(s, &x, g, m);
    }
    s->v->from_f32(KERN_BF16, m->out, s->rows + r0 * s->wide, n * s->wide);
    for (int64_t r = 0; r < n; r++)
        for (int p = 0; p < s->n; p++)
            memcpy(cpu_at(&f->xa, r0 + r, s->t[p].r0), m->out + r * s->wide + s->t[p].q0,
                   (size_t)s->t[p].r * 4);
}

/* Memory of each thread, and shared after it so many words. */
static int take(lora *s, int64_t words)
{
    void *shared;
    size_t out = (size_t)(COLS * s->wide) * 4;
    int rc = lora_take(s, sizeof(scratch) + out, (size_t)words * 4, &shared);
    s->at = shared;
    return rc;
}

static int forward(lora *s)
{
    const kern_linear *f = s->f;
    int64_t n = f->x.rows, a = up(f->w->in, 32) / 2 * s->wide, b = 0;
    for (int p = 0; p < s->n; p++)
        b += up(s->t[p].q / 2, 16) * y_words(&s->t[p]);
    int rc = take(s, a + b + n * s->wide / 2);
    if (rc != 0)
        return rc;
    float *next = s->at + a;
    for (int p = 0; p < s->n; p++) {
        s->t[p].b = next;
        next += up(s->t[p].q / 2, 16) * y_words(&s->t[p]);
    }
    s->rows = halves(next);
    cpu_run(s->d, s->wide * (f->w->in + f->w->out) / 8, packs(s), pack_piece, s);
    cpu_run(s->d, n * s->wide * f->w->in / 32, up(n, ROWS) / ROWS, xa_piece, s);
    return 0;
}

static void expand_y(void *arg, const cpu_block *b, int thread)
{
    const lora *s = arg;
    const kern_linear *f = s->f;
    for (int p = 0; p < s->n; p++) {
        const lora_term *t = &s->t[p];
        int64_t c0 = b->c0 > t->out0 ? b->c0 : t->out0;
        int64_t c1 = b->c1 < t->out0 + t->out ? b->c1 : t->out0 + t->out;
        if (c0 >= c1)
            continue;
        vec_mm g = {.m = b->r1 - b->r0,
                    .n = c1 - c0,
                    .steps = (t->r + 1) / 2,
                    .a = words_of(s->rows + b->r0 * s->wide + t->q0),
                    .ars = s->wide / 2,
                    .aks = 1,
                    .b = t->b + (c0 - t->out0),
                    .ldb = y_words(t),
                    .c = cpu_at(&f->y, b->r0, c0),
                    .ldc = f->y.ld,
                    .alpha = 1.0F,
                    .c_bf16 = true};
        add_product(s, &g, mine(s, thread));
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

/* Words of a row of A; a product may read a vector past the last. */
static int64_t x_words(const lora *s)
{
    return up(s->f->w->in, 16) + 16;
}

/* A of 16 ranks of a part, as words [wide / 2, in]. */
static void weave_a(const lora *s, const lora_term *t, int64_t k0, scratch *m)
{
    int64_t in = s->f->w->in, ld = x_words(s);
    for (int64_t c = 0; c < in; c += DEPTH) {
        int64_t n = in - c < DEPTH ? in - c : DEPTH, cols = up(n, 16);
        kern_tensor a = kern_cols(&t->l->A, c, n);
        a = kern_rows(&a, k0, t->r - k0 < A_ROWS ? t->r - k0 : A_ROWS);
        narrow_rows(s, &a, 1.0F, A_ROWS, cols, m);
        s->v->weave(halves(m->stage), cols, A_ROWS, (int)cols,
                    halves(s->at + (t->q0 + k0) / 2 * ld + c), 2 * ld);
    }
}

/* B of some outputs of a part with the scale in, as words [outputs / 2, ranks]. */
static void weave_b(const lora *s, const lora_term *t, int64_t o0, scratch *m)
{
    kern_tensor b = kern_rows(&t->l->B, o0, t->out - o0 < B_ROWS ? t->out - o0 : B_ROWS);
    narrow_rows(s, &b, t->l->scale, B_ROWS, t->q, m);
    s->v->weave(halves(m->stage), t->q, B_ROWS, (int)t->q, halves(t->b + o0 / 2 * t->q), 2 * t->q);
}

static void weave_piece(void *arg, int64_t i, int thread)
{
    const lora *s = arg;
    const lora_term *t = &s->t[i % s->n];
    int64_t step = i / s->n;
    scratch *m = mine(s, thread);
    if (step * A_ROWS < t->q)
        weave_a(s, t, step * A_ROWS, m);
    for (int64_t o = step * PACKED; o < (step + 1) * PACKED && o < t->out; o += B_ROWS)
        weave_b(s, t, o, m);
}

/* Rows of xa as bf16, and theirs and dxa's as pairs of tokens. */
static void weave_rows(const lora *s, int64_t r0, int64_t n, scratch *m)
{
    const kern_tensor *xa = &s->f->xa;
    uint16_t *rows = s->rows + r0 * s->wide;
    int64_t even = up(n, 2), to = r0 / 2 * s->wide;
    memset(rows + n * s->wide, 0, (size_t)((even - n) * s->wide) * 2);
    s->v->weave(rows, s->wide, (int)even, (int)s->wide, halves(s->dxa_words + to), 2 * s->wide);
    memset(m->out, 0, (size_t)(even * s->wide) * 2);
    for (int64_t r = 0; r < n; r++)
        for (int p = 0; p < s->n; p++)
            s->v->from_f32(KERN_BF16, cpu_at(xa, r0 + r, s->t[p].r0),
                           halves(m->out) + r * s->wide + s->t[p].q0, s->t[p].r);
    s->v->weave(halves(m->out), s->wide, (int)even, (int)s->wide, halves(s->xa_words + to),
                2 * s->wide);
}

static void dxa_piece(void *arg, int64_t i, int thread)
{
    const lora *s = arg;
    const kern_tensor *dy = &s->g->dy;
    scratch *m = mine(s, thread);
    int64_t r0 = i * ROWS, n = dy->rows - r0 < ROWS ? dy->rows - r0 : ROWS;
    kern_tensor some = kern_rows(dy, r0, n);
    for (int p = 0; p < s->n; p++) {
        const lora_term *t = &s->t[p];
        side y = {kern_cols(&some, t->out0, t->out), r0, t->out0, NULL};
        vec_mm g = {.n = t->q, .b = t->b, .ldb = t->q, .c = m->out + t->q0, .ldc = s->wide};
        shrink(s, &y, g, m);
    }
    s->v->from_f32(KERN_BF16, m->out, s->rows + r0 * s->wide, n * s->wide);
    weave_rows(s, r0, n, m);
}

static int backward(lora *s)
{
    const kern_linear *f = s->f;
    int64_t n = f->x.rows, a = s->wide / 2 * x_words(s), b = 0, pairs = up(n, 2) / 2 * s->wide;
    for (int p = 0; p < s->n; p++)
        b += up(s->t[p].out, B_ROWS) / 2 * s->t[p].q;
    int rc = take(s, a + b + 3 * pairs);
    if (rc != 0)
        return rc;
    float *next = s->at + a;
    for (int p = 0; p < s->n; p++) {
        s->t[p].b = next;
        next += up(s->t[p].out, B_ROWS) / 2 * s->t[p].q;
    }
    s->rows = halves(next);
    s->xa_words = next + pairs;
    s->dxa_words = next + 2 * pairs;
    cpu_run(s->d, s->wide * (f->w->in + f->w->out) / 8, packs(s), weave_piece, s);
    cpu_run(s->d, n * s->wide * f->w->out / 64, up(n, ROWS) / ROWS, dxa_piece, s);
    return 0;
}

/* dx += dxa A for the ranks [q0, q0 + q) into c. */
static void grow(const lora *s, const cpu_block *b, int64_t q0, int64_t q, vec_mm *g)
{
    g->m = b->r1 - b->r0;
    g->n = b->c1 - b->c0;
    g->steps = q / 2;
    g->a = words_of(s->rows + b->r0 * s->wide + q0);
    g->ars = s->wide / 2;
    g->aks = 1;
    g->b = s->at + q0 / 2 * x_words(s) + b->c0;
    g->ldb = x_words(s);
    g->alpha = 1.0F;
}

/* A part of a block through the mask of term t; at most ROWS rows, COLS columns. */
static void expand_dropped(const lora *s, const lora_term *t, const cpu_block *b, scratch *m)
{
    const kern_tensor *dx = &s->g->dx;
    vec_mm g = {.c = m->stage, .ldc = COLS};
    grow(s, b, t->q0, t->q, &g);
    g.n = up(g.n, 16);
    s->v->mm_pairs(&g);
    for (int64_t r = b->r0; r < b->r1; r++) {
        float *x = m->stage + (r - b->r0) * COLS;
        if (lora_drops(s, t))
            lora_drop(s, t, r, b->c0, b->c1 - b->c0, x);
        s->v->add_to(dx->dtype, x, cpu_at(dx, r, b->c0), b->c1 - b->c0);
    }
}

static void expand_dx(void *arg, const cpu_block *b, int thread)
{
    const lora *s = arg;
    const kern_tensor *dx = &s->g->dx;
    scratch *m = mine(s, thread);
    if (!s->drops) {
        vec_mm g = {.c = cpu_at(dx, b->r0, b->c0), .ldc = dx->ld, .c_bf16 = true};
        grow(s, b, 0, s->wide, &g);
        add_product(s, &g, m);
        return;
    }
    for (int p = 0; p < s->n; p++)
        for (int64_t r = b->r0; r < b->r1; r += ROWS)
            for (int64_t c = b->c0; c < b->c1; c += COLS) {
                cpu_block part = {r, r + ROWS < b->r1 ? r + ROWS : b->r1, c,
                                  c + COLS < b->c1 ? c + COLS : b->c1};
                expand_dropped(s, &s->t[p], &part, m);
            }
}

/* ---- gradients of A and B -------------------------------------------------------------------- */

/* C [r, n] += (the part's columns of small)^T times the tile of tokens in m->woven. */
static void outer_tile(const lora *s, const lora_term *t, const float *small, const side *tile,
                       kern_tensor c, scratch *m)
{
    vec_mm g = {.m = t->r,
                .n = tile->t.cols,
                .steps = (tile->t.rows + 1) / 2,
                .a = small + tile->r0 / 2 * s->wide + t->q0,
                .ars = 1,
                .aks = s->wide,
                .b = m->woven,
                .ldb = COLS,
                .c = c.data,
                .ldc = c.ld,
                .alpha = 1.0F};
    add_product(s, &g, m);
}

static side tile_of(const kern_tensor *t, int64_t r0, int64_t c0, int64_t c1)
{
    kern_tensor some = kern_cols(t, c0, c1 - c0 < COLS ? c1 - c0 : COLS);
    return (side){kern_rows(&some, r0, t->rows - r0 < TALL ? t->rows - r0 : TALL), r0, c0, NULL};
}

/* Columns [c0, c0 + COLS) of all dA. */
static void da_strip(const lora *s, int64_t c0, scratch *m)
{
    const kern_tensor *x = &s->f->x;
    for (int64_t r0 = 0; r0 < x->rows; r0 += TALL) {
        side tile = tile_of(x, r0, c0, x->cols);
        bool woven = false;
        for (int p = 0; p < s->n; p++) {
            const lora_term *t = &s->t[p];
            tile.drop = lora_drops(s, t) ? t : NULL;
            if (t->l->dA.data == NULL)
                continue;
            if (!woven || s->drops)
                weave_tile(s, &tile, m);
            woven = true;
            outer_tile(s, t, s->dxa_words, &tile, kern_cols(&t->l->dA, c0, tile.t.cols), m);
        }
    }
}

/* Rows [c0, c0 + COLS) of the part's dB; summed transposed. */
static void db_strip(const lora *s, const lora_term *t, int64_t c0, scratch *m)
{
    const kern_tensor *dy = &s->g->dy, *db = &t->l->dB;
    kern_tensor sum = kern_mat(KERN_F32, t->q, COLS, m->out);
    int64_t end = t->out0 + t->out;
    memset(m->out, 0, (size_t)(t->q * COLS) * 4);
    for (int64_t r0 = 0; r0 < dy->rows; r0 += TALL) {
        side tile = tile_of(dy, r0, t->out0 + c0, end);
        weave_tile(s, &tile, m);
        outer_tile(s, t, s->xa_words, &tile, kern_cols(&sum, 0, tile.t.cols), m);
    }
    for (int64_t k = 0; k < t->r; k += 16) {
        s->v->transpose(m->out + k * COLS, COLS, 16, COLS, m->stage, 16);
        for (int64_t j = 0; j < COLS && c0 + j < t->out; j++)
            s->v->axpy(t->l->scale, m->stage + j * 16, cpu_at(db, c0 + j, k),
                       t->r - k < 16 ? t->r - k : 16);
    }
}

static int64_t strips(int64_t cols)
{
    return up(cols, COLS) / COLS;
}

static void outer_piece(void *arg, int64_t i, int thread)
{
    const lora *s = arg;
    scratch *m = mine(s, thread);
    if (i < strips(s->f->w->in)) {
        da_strip(s, i * COLS, m);
        return;
    }
    i -= strips(s->f->w->in);
    const lora_term *t = s->t;
    for (; i >= strips(t->out); t++)
        i -= strips(t->out);
    if (t->l->dB.data != NULL)
        db_strip(s, t, i * COLS, m);
}

static void outer(lora *s)
{
    int64_t n = strips(s->f->w->in);
    for (int p = 0; p < s->n; p++)
        n += strips(s->t[p].out);
    cpu_run(s->d, s->f->x.rows * s->ranks * (s->f->w->in + s->f->w->out) / 64, n, outer_piece, s);
}

const lora_way lora_pairs = {forward, backward, expand_y, expand_dx, outer};
