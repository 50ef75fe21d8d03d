/* Groups of linear layers, forward and back: the base product over all parts at once, and the
 * low-rank terms as three more products whatever the number of parts.
 *
 * In BF16 the terms are computed as the base is: factors, A x and its gradient rounded to BF16,
 * sums in f32. One kernel stacks the parts' A to one matrix and puts their B, with the scale in, on
 * the diagonal of another, so that products are as large as the card likes them; the zeros beside
 * the diagonal are free, since the sums are shorter than a tile anyway. In F32 nothing is rounded.
 */
#include <string.h>

#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/tune.h"

enum { THREADS = 256 };

/* One call: the terms and where their factors stand. */
typedef struct call {
    kern_dev *d;
    const kern_linear *f;
    cu_lora lora;
    bool drops;
    int64_t width;    /* of the stack: ranks, in BF16 rounded up to 8 (16 bytes) */
    kern_tensor A, B; /* [width, in], [out, width]; compute dtype; rest of the width zero */
} call;

/* ---- checks, as the CPU backend's ------------------------------------------------------------ */

static int check_lora(kern_dev *d, const kern_linear *a, int p, int64_t *ranks)
{
    const kern_lora *l = a->lora[p];
    int64_t out = a->w->at[p + 1] - a->w->at[p], r = l->A.rows;
    int rc = cu_shape_of(d, "linear: lora A", &l->A, KERN_F32, r, a->w->in);
    if (rc == 0)
        rc = cu_shape_of(d, "linear: lora B", &l->B, KERN_F32, out, r);
    if (rc == 0 && l->dA.data != NULL)
        rc = cu_shape_of(d, "linear: lora dA", &l->dA, KERN_F32, r, a->w->in);
    if (rc == 0 && l->dB.data != NULL)
        rc = cu_shape_of(d, "linear: lora dB", &l->dB, KERN_F32, out, r);
    if (rc == 0 && !(l->dropout >= 0 && l->dropout < 1))
        rc = cu_fail(d, KERN_EINVAL, "linear: dropout %g, must be in [0, 1)", (double)l->dropout);
    if (rc == 0 && a->training && l->dropout > 0 && a->rng == NULL)
        rc = cu_fail(d, KERN_EINVAL, "linear: dropout without rng");
    *ranks += r;
    return rc;
}

static int check(kern_dev *d, const kern_linear *a)
{
    int64_t ranks = 0;
    if (a->w == NULL)
        return cu_fail(d, KERN_EINVAL, "linear: no weight");
    int rc = cu_shape_of(d, "linear: x", &a->x, a->w->compute, a->x.rows, a->w->in);
    for (int p = 0; p < KERN_MAX_PARTS && rc == 0; p++) {
        if (a->lora[p] == NULL)
            continue;
        if (p >= a->w->n_parts)
            return cu_fail(d, KERN_EINVAL, "linear: lora for part %d of %d", p, a->w->n_parts);
        rc = check_lora(d, a, p, &ranks);
    }
    if (rc == 0 && ranks > 0)
        rc = cu_shape_of(d, "linear: xa", &a->xa, KERN_F32, a->x.rows, ranks);
    return rc;
}

static int check_grad(kern_dev *d, const kern_linear_grad *a)
{
    int rc = check(d, &a->f);
    if (rc != 0)
        return rc;
    const kern_weight *w = a->f.w;
    int64_t n = a->f.x.rows;
    rc = cu_shape_of(d, "linear_grad: dy", &a->dy, w->compute, n, w->out);
    if (rc == 0 && a->dx.data != NULL)
        rc = cu_shape_of(d, "linear_grad: dx", &a->dx, w->compute, n, w->in);
    if (rc == 0 && a->dx.data != NULL && !w->need_dx)
        rc = cu_fail(d, KERN_EINVAL, "linear_grad: dx of a weight made without need_dx");
    for (int p = 0; p < w->n_parts && rc == 0; p++) {
        int64_t out = w->at[p + 1] - w->at[p];
        if (a->dw[p].data != NULL)
            rc = cu_shape_of(d, "linear_grad: dw", &a->dw[p], KERN_F32, out, w->in);
        if (rc == 0 && a->db[p].data != NULL)
            rc = cu_shape_of(d, "linear_grad: db", &a->db[p], KERN_F32, 1, out);
    }
    return rc;
}

/* ---- the factors ----------------------------------------------------------------------------- */

static call begin(kern_dev *d, const kern_linear *f)
{
    call c;
    memset(&c, 0, sizeof c);
    c.d = d;
    c.f = f;
    for (int p = 0; p < f->w->n_parts; p++) {
        const kern_lora *l = f->lora[p];
        if (l == NULL || l->A.rows == 0)
            continue;
        cu_lora_term t = {(const float *)l->A.data,
                          (const float *)l->B.data,
                          l->A.ld,
                          l->B.ld,
                          l->A.rows,
                          c.lora.ranks,
                          f->w->at[p + 1] - f->w->at[p],
                          f->w->at[p],
                          l->scale};
        c.lora.t[c.lora.n++] = t;
        c.lora.ranks += t.r;
        c.drops |= f->training && l->dropout > 0;
    }
    c.width = f->w->compute == KERN_F32 ? c.lora.ranks : (c.lora.ranks + 7) / 8 * 8;
    return c;
}

/* The layer's term behind term i. */
static const kern_lora *lora_of(const call *c, int i)
{
    int p = 0;
    while (c->f->w->at[p] != c->lora.t[i].out0)
        p++;
    return c->f->lora[p];
}

/* A [width, in] stacked and B [out, width] on the diagonal with the scale in; zeros elsewhere. An
 * element a thread. Bytes: 4 ranks (in + out / parts) read, width (in + out) elements written. */
template <typename T>
static __global__ void pack_kernel(cu_lora s, int64_t in, int64_t out, int64_t width, T *A, T *B)
{
    int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x, n_a = width * in;
    if (j >= n_a + out * width)
        return;
    bool is_a = j < n_a;
    int64_t row = is_a ? j / in : (j - n_a) / width, col = is_a ? j % in : (j - n_a) % width;
    float v = 0;
#pragma unroll
    for (int p = 0; p < KERN_MAX_PARTS; p++) {
        const cu_lora_term &t = s.t[p];
        int64_t r = (is_a ? row : col) - t.r0, o = row - t.out0;
        if (p >= s.n || r < 0 || r >= t.r)
            continue;
        if (is_a)
            v = t.A[r * t.lda + col];
        else if (o >= 0 && o < t.out)
            v = t.scale * t.B[o * t.ldb + r];
    }
    (is_a ? A + j : B + (j - n_a))[0] = from_f32<T>(v);
}

static int pack(call *c)
{
    const kern_weight *w = c->f->w;
    size_t e = kern_dtype_size(w->compute);
    size_t a_bytes = ((size_t)(c->width * w->in) * e + 255) / 256 * 256;
    void *p;
    int rc = cu_scratch(c->d, CU_SLOT_LORA, a_bytes + (size_t)(w->out * c->width) * e, &p);
    if (rc != 0)
        return rc;
    c->A = kern_mat(w->compute, c->width, w->in, p);
    c->B = kern_mat(w->compute, w->out, c->width, (char *)p + a_bytes);
    unsigned grid = cu_blocks(c->width * (w->in + w->out), THREADS);
    if (w->compute == KERN_F32)
        return cu_launch(c->d, "linear: pack", pack_kernel<float>, grid, THREADS, c->lora, w->in,
                         w->out, c->width, (float *)c->A.data, (float *)c->B.data);
    return cu_launch(c->d, "linear: pack", pack_kernel<bf16>, grid, THREADS, c->lora, w->in, w->out,
                     c->width, (bf16 *)c->A.data, (bf16 *)c->B.data);
}

/* dst [n, width] = src [n, cols], zeros past cols. */
static __global__ void round_kernel(const float *src, int64_t lds, int64_t cols, bf16 *dst,
                                    int64_t width, int64_t n)
{
    int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = j / width, k = j % width;
    if (r < n)
        dst[j] = from_f32<bf16>(k < cols ? src[r * lds + k] : 0);
}

/* xa as products take it: itself in F32, else rounded into `at`. */
static int round_xa(const call *c, kern_tensor *out, void *at)
{
    const kern_tensor *xa = &c->f->xa;
    *out = *xa;
    if (c->f->w->compute == KERN_F32)
        return 0;
    *out = kern_mat(KERN_BF16, xa->rows, c->width, at);
    return cu_launch(c->d, "linear: round", round_kernel, cu_blocks(xa->rows * c->width, THREADS),
                     THREADS, (const float *)xa->data, xa->ld, xa->cols, (bf16 *)at, c->width,
                     xa->rows);
}

/* ---- dropout --------------------------------------------------------------------------------- */

typedef struct mask {
    const uint64_t *rng; /* seed and row offset, read by the kernel */
    uint64_t stream;
    float p, keep; /* keep: 1 / (1 - p) */
    bool quads;    /* rows begin with a counter, and may be moved four elements at a time */
} mask;

/* dst[r, c] = src[r, c] through the mask, or += where ADD. A thread has one counter of Philox, four
 * words; a row may begin in the middle of one. Bytes: src and dst once; 10 rounds for 4 elements.
 */
template <typename S, typename D, bool ADD>
static __global__ void mask_kernel(mask m, const S *src, int64_t lds, D *dst, int64_t ldd,
                                   int64_t n, int64_t cols, int64_t groups)
{
    int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = j / groups;
    if (r >= n)
        return;
    uint64_t first = (m.rng[1] + (uint64_t)r) * (uint64_t)cols;
    uint64_t index = first / 4 + (uint64_t)(j % groups);
    uint4 q = philox(m.rng[0], m.stream, index);
    const unsigned word[4] = {q.x, q.y, q.z, q.w};
    int64_t c0 = (int64_t)(index * 4 - first);
    if (m.quads && c0 < cols) {
        float v[4], to[4] = {0, 0, 0, 0};
        load4(v, src + r * lds + c0);
        if (ADD)
            load4(to, dst + r * ldd + c0);
#pragma unroll
        for (int i = 0; i < 4; i++)
            to[i] += philox_keeps(word[i], m.p) ? m.keep * v[i] : 0.0F;
        store4(dst + r * ldd + c0, to);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int64_t c = c0 + i;
        if (c < 0 || c >= cols)
            continue;
        float v = philox_keeps(word[i], m.p) ? m.keep * to_f32(src[r * lds + c]) : 0.0F;
        D *to = dst + r * ldd + c;
        *to = from_f32<D>(ADD ? to_f32(*to) + v : v);
    }
}

static bool quads(const kern_tensor *x)
{
    return x->cols % 4 == 0 && x->ld % 4 == 0 &&
           (uintptr_t)x->data % (4 * kern_dtype_size(x->dtype)) == 0;
}

template <typename S, typename D, bool ADD>
static int launch_mask(const call *c, const kern_lora *l, const kern_tensor *src,
                       const kern_tensor *dst)
{
    /* Not training: nothing falls, and the words are of no account. */
    float p = c->f->training ? l->dropout : 0.0F;
    mask m = {c->f->rng, l->stream, p, 1.0F / (1.0F - p), quads(src) && quads(dst)};
    int64_t groups = (src->cols + 3) / 4 + 1;
    return cu_launch(c->d, "linear: dropout", mask_kernel<S, D, ADD>,
                     cu_blocks(src->rows * groups, THREADS), THREADS, m, (const S *)src->data,
                     src->ld, (D *)dst->data, dst->ld, src->rows, src->cols, groups);
}

static bool drops(const call *c, int i)
{
    return c->f->training && lora_of(c, i)->dropout > 0;
}

/* x as term i sees it: itself, or its masked copy in scratch. */
static int masked_x(const call *c, int i, kern_tensor *out)
{
    const kern_tensor *x = &c->f->x;
    void *p;
    *out = *x;
    if (!drops(c, i))
        return 0;
    int rc = cu_scratch(c->d, CU_SLOT_X, (size_t)(x->rows * x->cols) * 4, &p);
    *out = kern_mat(x->dtype, x->rows, x->cols, p);
    if (rc != 0)
        return rc;
    return x->dtype == KERN_F32 ? launch_mask<float, float, false>(c, lora_of(c, i), x, out)
                                : launch_mask<bf16, bf16, false>(c, lora_of(c, i), x, out);
}

/* dst += mask of term i over src (F32). */
static int add_masked(const call *c, int i, const kern_tensor *src, const kern_tensor *dst)
{
    return dst->dtype == KERN_F32 ? launch_mask<float, float, true>(c, lora_of(c, i), src, dst)
                                  : launch_mask<float, bf16, true>(c, lora_of(c, i), src, dst);
}

/* ---- forward --------------------------------------------------------------------------------- */

/* xa = x A^T: one product, or one a term where each has a mask of its own. */
static int shrink(const call *c)
{
    cu_gemm_args g = cu_gemm_of("linear: xa", c->f->x, false, kern_rows(&c->A, 0, c->lora.ranks),
                                true, c->f->xa, false);
    if (!c->drops)
        return cu_gemm(c->d, &g);
    int rc = 0;
    for (int i = 0; i < c->lora.n && rc == 0; i++) {
        const cu_lora_term *t = &c->lora.t[i];
        g.b = kern_rows(&c->A, t->r0, t->r);
        g.c = kern_cols(&c->f->xa, t->r0, t->r);
        rc = masked_x(c, i, &g.a);
        if (rc == 0)
            rc = cu_gemm(c->d, &g);
    }
    return rc;
}

static int expand(const call *c)
{
    void *p = NULL;
    kern_tensor xa;
    int rc = cu_scratch(c->d, CU_SLOT_A, (size_t)(c->f->x.rows * c->width) * 2, &p);
    if (rc == 0)
        rc = round_xa(c, &xa, p);
    if (rc != 0)
        return rc;
    cu_gemm_args g = cu_gemm_of("linear: lora y", xa, false, c->B, true, c->f->y, true);
    return cu_gemm(c->d, &g);
}

/* Few rows: the weight is read once, the terms are added on the way out. */
static int few_rows(const call *c)
{
    const kern_linear *f = c->f;
    cu_gemv_args g = {"linear: y", f->w, f->x, NULL, f->x.rows, f->y, f->add_to_y, &c->lora, f->xa};
    int rc = 0;
    if (c->lora.n > 0)
        rc = cu_gemv_lora(c->d, &c->lora, &f->x, &f->xa);
    return rc == 0 ? cu_gemv(c->d, &g) : rc;
}

int cu_op_linear(kern_dev *d, const kern_linear *a)
{
    int rc = check(d, a);
    if (rc == 0)
        rc = cu_shape_of(d, "linear: y", &a->y, a->w->compute, a->x.rows, a->w->out);
    if (rc != 0 || a->x.rows == 0)
        return rc;
    call c = begin(d, a);
    if (cu_gemv_fits(a->w, a->x.rows) && !c.drops)
        return few_rows(&c);
    cu_gemm_args g = cu_gemm_of("linear: y", a->x, false, a->w->w, true, a->y, a->add_to_y);
    g.bias = a->w->bias_c;
    rc = cu_gemm(d, &g);
    if (rc != 0 || c.lora.n == 0)
        return rc;
    rc = pack(&c);
    if (rc == 0)
        rc = shrink(&c);
    return rc == 0 ? expand(&c) : rc;
}

/* ---- gradients of the terms ------------------------------------------------------------------ */

/* Where the rows [r0, r0 + r) of the stacked gradient belong; data NULL: nowhere. */
typedef struct scatter {
    int n;
    struct {
        float *to;
        int64_t ld, r0, r;
    } t[KERN_MAX_PARTS];
} scatter;

/* Adds the parts of stack [ranks, in] to where they belong; an element a thread. */
static __global__ void scatter_kernel(scatter s, const float *stack, int64_t ranks, int64_t in)
{
    int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = j / in;
    if (row >= ranks)
        return;
#pragma unroll
    for (int p = 0; p < KERN_MAX_PARTS; p++)
        if (p < s.n && s.t[p].to != NULL && row >= s.t[p].r0 && row < s.t[p].r0 + s.t[p].r)
            s.t[p].to[(row - s.t[p].r0) * s.t[p].ld + j % in] += stack[j];
}

static bool wants(const call *c, bool dA)
{
    for (int i = 0; i < c->lora.n; i++)
        if ((dA ? lora_of(c, i)->dA.data : lora_of(c, i)->dB.data) != NULL)
            return true;
    return false;
}

/* dA_p += dxa_p^T x_p, a term at a time. */
static int grad_a_each(const call *c, const kern_tensor *dxa)
{
    int rc = 0;
    for (int i = 0; i < c->lora.n && rc == 0; i++) {
        const cu_lora_term *t = &c->lora.t[i];
        kern_tensor x;
        if (lora_of(c, i)->dA.data == NULL)
            continue;
        rc = masked_x(c, i, &x);
        if (rc != 0)
            return rc;
        cu_gemm_args g = cu_gemm_of("linear_grad: dA", kern_cols(dxa, t->r0, t->r), true, x, false,
                                    lora_of(c, i)->dA, true);
        rc = cu_gemm(c->d, &g);
    }
    return rc;
}

/* All of them by one product that reads x once, then added to where they belong. */
static int grad_a(const call *c, const kern_tensor *dxa)
{
    int64_t in = c->f->w->in, ranks = c->lora.ranks;
    if (c->drops || c->lora.n == 1)
        return grad_a_each(c, dxa);
    void *p;
    int rc = cu_scratch(c->d, CU_SLOT_B, (size_t)(ranks * in) * 4, &p);
    cu_gemm_args g = cu_gemm_of("linear_grad: dA", kern_cols(dxa, 0, ranks), true, c->f->x, false,
                                kern_mat(KERN_F32, ranks, in, p), false);
    if (rc == 0)
        rc = cu_gemm(c->d, &g);
    scatter s = {};
    s.n = c->lora.n;
    for (int i = 0; i < s.n; i++) {
        const kern_tensor *dA = &lora_of(c, i)->dA;
        s.t[i].to = (float *)dA->data;
        s.t[i].ld = dA->ld;
        s.t[i].r0 = c->lora.t[i].r0;
        s.t[i].r = c->lora.t[i].r;
    }
    if (rc != 0)
        return rc;
    return cu_launch(c->d, "linear_grad: dA", scatter_kernel, cu_blocks(ranks * in, THREADS),
                     THREADS, s, (const float *)p, ranks, in);
}

/* dB_p += scale dy_p^T xa_p. */
static int grad_b(const call *c, const kern_tensor *dy, const kern_tensor *xa)
{
    int rc = 0;
    for (int i = 0; i < c->lora.n && rc == 0; i++) {
        const cu_lora_term *t = &c->lora.t[i];
        cu_gemm_args g = cu_gemm_of("linear_grad: dB", kern_cols(dy, t->out0, t->out), true,
                                    kern_cols(xa, t->r0, t->r), false, lora_of(c, i)->dB, true);
        g.alpha = t->scale;
        if (g.c.data != NULL)
            rc = cu_gemm(c->d, &g);
    }
    return rc;
}

/* dx += dxa A, through the masks where there are any. */
static int expand_dx(const call *c, const kern_tensor *dxa, const kern_tensor *dx)
{
    cu_gemm_args g = cu_gemm_of("linear_grad: lora dx", *dxa, false, c->A, false, *dx, true);
    if (!c->drops)
        return cu_gemm(c->d, &g);
    void *p;
    int rc = cu_scratch(c->d, CU_SLOT_X, (size_t)(dx->rows * dx->cols) * 4, &p);
    for (int i = 0; i < c->lora.n && rc == 0; i++) {
        const cu_lora_term *t = &c->lora.t[i];
        g.a = kern_cols(dxa, t->r0, t->r);
        g.b = kern_rows(&c->A, t->r0, t->r);
        g.c = drops(c, i) ? kern_mat(KERN_F32, dx->rows, dx->cols, p) : *dx;
        g.beta = drops(c, i) ? 0 : 1;
        rc = cu_gemm(c->d, &g);
        if (rc == 0 && drops(c, i))
            rc = add_masked(c, i, &g.c, dx);
    }
    return rc;
}

static int lora_grad(call *c, const kern_linear_grad *a)
{
    int64_t n = a->dy.rows;
    bool dA = wants(c, true), dB = wants(c, false), dx = a->dx.data != NULL;
    kern_dtype t = c->f->w->compute;
    size_t bytes = ((size_t)(n * c->width) * kern_dtype_size(t) + 255) / 256 * 256;
    void *p;
    int rc = cu_scratch(c->d, CU_SLOT_A, bytes * 2, &p);
    kern_tensor dxa = kern_mat(t, n, c->width, p), xa;
    if (rc == 0 && dB)
        rc = round_xa(c, &xa, (char *)p + bytes);
    if (rc == 0 && dB)
        rc = grad_b(c, &a->dy, &xa);
    if (rc != 0 || (!dA && !dx))
        return rc;
    rc = pack(c);
    cu_gemm_args g = cu_gemm_of("linear_grad: dxa", a->dy, false, c->B, false, dxa, false);
    if (rc == 0)
        rc = cu_gemm(c->d, &g);
    if (rc == 0 && dA)
        rc = grad_a(c, &dxa);
    return rc == 0 && dx ? expand_dx(c, &dxa, &a->dx) : rc;
}

/* ---- gradients of the base ------------------------------------------------------------------- */

/* part[s, c] = sum of dy[r, c] over the rows of share s, in order; a column a thread. */
template <typename T>
static __global__ void column_kernel(const T *dy, int64_t ld, int64_t n, int64_t cols, float *part)
{
    int64_t c = (int64_t)blockIdx.x * THREADS + threadIdx.x, shares = gridDim.y;
    if (c >= cols)
        return;
    float sum = 0;
    for (int64_t r = n * blockIdx.y / shares, end = n * (blockIdx.y + 1) / shares; r < end; r++)
        sum += to_f32(dy[r * ld + c]);
    part[blockIdx.y * cols + c] = sum;
}

static int grad_bias(kern_dev *d, const kern_tensor *dy, float *db)
{
    int shares = tune_shares(dy->rows);
    dim3 grid(cu_blocks(dy->cols, THREADS), (unsigned)shares);
    void *p;
    int rc = cu_scratch(d, CU_SLOT_C, (size_t)(shares * dy->cols) * 4, &p);
    if (rc == 0 && dy->dtype == KERN_F32)
        rc = cu_launch(d, "linear_grad: db", column_kernel<float>, grid, THREADS,
                       (const float *)dy->data, dy->ld, dy->rows, dy->cols, (float *)p);
    else if (rc == 0)
        rc = cu_launch(d, "linear_grad: db", column_kernel<bf16>, grid, THREADS,
                       (const bf16 *)dy->data, dy->ld, dy->rows, dy->cols, (float *)p);
    if (rc != 0)
        return rc;
    return cu_add_rows(d, "linear_grad: db", (const float *)p, shares, dy->cols, dy->cols, db);
}

static int grad_part(kern_dev *d, const kern_linear_grad *a, int p)
{
    const kern_weight *w = a->f.w;
    kern_tensor dy = kern_cols(&a->dy, w->at[p], w->at[p + 1] - w->at[p]);
    cu_gemm_args g = cu_gemm_of("linear_grad: dw", dy, true, a->f.x, false, a->dw[p], true);
    int rc = 0;
    if (g.c.data != NULL)
        rc = cu_gemm(d, &g);
    if (rc == 0 && a->db[p].data != NULL)
        rc = grad_bias(d, &dy, (float *)a->db[p].data);
    return rc;
}

int cu_op_linear_grad(kern_dev *d, const kern_linear_grad *a)
{
    int rc = check_grad(d, a);
    if (rc != 0 || a->f.x.rows == 0)
        return rc;
    call c = begin(d, &a->f);
    if (a->dx.data != NULL) {
        cu_gemm_args g =
            cu_gemm_of("linear_grad: dx", a->dy, false, a->f.w->w, false, a->dx, a->add_to_dx);
        rc = cu_gemm(d, &g);
    }
    if (rc == 0 && c.lora.n > 0)
        rc = lora_grad(&c, a);
    for (int p = 0; p < a->f.w->n_parts && rc == 0; p++)
        rc = grad_part(d, a, p);
    return rc;
}
