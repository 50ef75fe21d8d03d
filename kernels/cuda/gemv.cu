/* Products of few rows (decoding): the weight is read once, and that is the time they take.
 *
 * In BF16 tensor cores do the arithmetic even for one row: an m16n8k16 has 16 outputs for 8 rows of
 * x, so that up to 8 rows cost what one does. At 8 rows plain multiply-adds would need 84 of a
 * multiprocessor's 128 lanes for what 4.8 TB/s bring in, and as much again for conversions. F32,
 * the reference, has plain multiply-adds: half as many numbers come in at a time. */
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tune.h"

enum { ROWS = TUNE_GEMV_ROWS, TILE = TUNE_GEMV_TILE, SUMS = ROWS * TILE };

typedef struct gemv_args {
    const void *w; /* [out, in] BF16 or F32, as x */
    const void *x;
    int64_t ldx;
    const int32_t *row;
    int64_t in, out;
    int n;
    bool aligned; /* x may be read 16 bytes at a time */
    const float *bias;
    void *y;
    int64_t ldy;
    bool add;
    cu_lora lora;
    const float *xa;
    int64_t ldxa;
    float *part; /* [splits, n, out] where there are several */
} gemv_args;

/* 16 bytes that are read once: they shall not push x out of the cache. */
static __device__ __forceinline__ uint4 stream16(const bf16 *p)
{
#ifdef EMU
    return *reinterpret_cast<const uint4 *>(p);
#else
    uint4 q;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(q.x), "=r"(q.y), "=r"(q.z), "=r"(q.w)
        : "l"(p));
    return q;
#endif
}

/* 8 elements from k0 on as words of two, zeros past the end. */
static __device__ __forceinline__ uint4 take_w(const bf16 *p, int64_t k0, int64_t in)
{
    return p == NULL || k0 >= in ? make_uint4(0, 0, 0, 0) : stream16(p + k0);
}
static __device__ __forceinline__ uint4 take_x(const bf16 *p, int64_t k0, int64_t in, bool aligned)
{
    uint4 q = make_uint4(0, 0, 0, 0);
    if (p == NULL || k0 >= in)
        return q;
    if (aligned)
        return *reinterpret_cast<const uint4 *>(p + k0);
    const unsigned short *h = reinterpret_cast<const unsigned short *>(p + k0);
    q.x = h[0] | (unsigned)h[1] << 16;
    q.y = h[2] | (unsigned)h[3] << 16;
    q.z = h[4] | (unsigned)h[5] << 16;
    q.w = h[6] | (unsigned)h[7] << 16;
    return q;
}

/* y[i, o] from its sum. */
template <typename Y>
static __device__ void finish(const gemv_args &a, float sum, int64_t i, int64_t o)
{
    if (a.bias != NULL)
        sum += a.bias[o];
#pragma unroll
    for (int p = 0; p < KERN_MAX_PARTS; p++) {
        const cu_lora_term &t = a.lora.t[p];
        if (p >= a.lora.n || o < t.out0 || o >= t.out0 + t.out)
            continue;
        const float *b = t.B + (o - t.out0) * t.ldb, *xa = a.xa + i * a.ldxa + t.r0;
        float s = 0;
        for (int64_t r = 0; r < t.r; r++)
            s += b[r] * xa[r];
        sum += t.scale * s;
    }
    Y *y = (Y *)a.y + i * a.ldy + o;
    *y = from_f32<Y>(a.add ? sum + to_f32(*y) : sum);
}

/* y [n, out] = x [n, in] w [out, in]^T. A block has 16 outputs, its warps take steps of 128 of k in
 * turn, together with those of the blocks of the same outputs (grid.y of them). Lane (g, t) = (lane
 * / 4, lane % 4) reads 16 bytes of rows g and g + 8 of w and of row g of x at k0 + 8t: four lanes
 * read 64 bytes in a row, and the products see k in another order, the same on both sides.
 * Bytes: 2 in out, once; x again for each block, from the caches. In flight: 128 bytes a lane.
 * Expected share of an H200's 4.8 TB/s: 85 % from 16 MB on (a layer of 8B has 33 to 117 MB a
 * matrix), half of that for 2 MB, where the launch is as long; not run on a card yet. */
template <typename Y> static __global__ void __launch_bounds__(512) gemv_kernel(gemv_args a)
{
    CU_SHARED(float, share); /* [warps, 8, 16] */
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    int g = lane >> 2, t = lane & 3;
    int64_t o0 = (int64_t)blockIdx.x * TILE;
    const bf16 *w = (const bf16 *)a.w, *all = (const bf16 *)a.x;
    const bf16 *w0 = o0 + g < a.out ? w + (o0 + g) * a.in : NULL;
    const bf16 *w1 = o0 + g + 8 < a.out ? w + (o0 + g + 8) * a.in : NULL;
    const bf16 *x = g < a.n ? all + (a.row != NULL ? (int64_t)a.row[g] : g) * a.ldx : NULL;
    float d[4] = {0, 0, 0, 0};
    int64_t first = (int64_t)blockIdx.y * warps + warp, stride = (int64_t)gridDim.y * warps;
    for (int64_t k0 = first * TUNE_GEMV_STEP + 8 * t; k0 - 8 * t < a.in;
         k0 += stride * TUNE_GEMV_STEP) {
        uint4 u[4], v[4], z[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u[i] = take_w(w0, k0 + 32 * i, a.in);
            v[i] = take_w(w1, k0 + 32 * i, a.in);
            z[i] = take_x(x, k0 + 32 * i, a.in, a.aligned);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned front[4] = {u[i].x, v[i].x, u[i].y, v[i].y};
            const unsigned back[4] = {u[i].z, v[i].z, u[i].w, v[i].w};
            const unsigned x_front[2] = {z[i].x, z[i].y}, x_back[2] = {z[i].z, z[i].w};
            mma_bf16(d, front, x_front);
            mma_bf16(d, back, x_back);
        }
    }
    float *mine = share + warp * SUMS;
    mine[2 * t * TILE + g] = d[0];
    mine[(2 * t + 1) * TILE + g] = d[1];
    mine[2 * t * TILE + g + 8] = d[2];
    mine[(2 * t + 1) * TILE + g + 8] = d[3];
    __syncthreads();
    for (int j = threadIdx.x; j < SUMS; j += blockDim.x) {
        int64_t i = j / TILE, o = o0 + j % TILE;
        float sum = 0;
        for (int v = 0; v < warps; v++)
            sum += share[v * SUMS + j];
        if (i >= a.n || o >= a.out)
            continue;
        if (gridDim.y > 1)
            a.part[((int64_t)blockIdx.y * a.n + i) * a.out + o] = sum;
        else
            finish<Y>(a, sum, i, o);
    }
}

/* Adds the parts in order; an output a thread. */
template <typename Y> static __global__ void finish_kernel(gemv_args a, int splits)
{
    int64_t j = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (j >= a.n * a.out)
        return;
    float sum = 0;
    for (int s = 0; s < splits; s++)
        sum += a.part[s * (a.n * a.out) + j];
    finish<Y>(a, sum, j / a.out, j % a.out);
}

template <typename Y> static int run(kern_dev *d, const char *what, gemv_args a)
{
    tune_gemv_plan p = tune_gemv(a.out, a.in);
    void *part = NULL;
    int rc = 0;
    if (p.splits > 1)
        rc = cu_scratch(d, CU_SLOT_C, (size_t)(p.splits * a.n * a.out) * 4, &part);
    a.part = (float *)part;
    if (rc == 0)
        rc = cu_launch_smem(d, what, gemv_kernel<Y>,
                            dim3(cu_blocks(a.out, TILE), (unsigned)p.splits),
                            (unsigned)p.warps * 32, (size_t)(p.warps * SUMS) * 4, a);
    if (rc == 0 && p.splits > 1)
        rc = cu_launch(d, what, finish_kernel<Y>, cu_blocks(a.n * a.out, 256), 256, a, p.splits);
    return rc;
}

/* ---- in F32 ---------------------------------------------------------------------------------- */

enum { F32_WARPS = 4, PAIR = 2 };

static __device__ __forceinline__ void take_f32(vec16<float> &v, const float *p, bool aligned)
{
    if (aligned) {
        load16(v, p);
        return;
    }
    for (int i = 0; i < 4; i++)
        v.v[i] = p[i];
}

/* The same in F32: a warp has PAIR outputs, its lanes four elements of k each at a time; x comes
 * from the caches. Bytes: 4 in out, once; 128 a lane in flight. Not run on a card yet. */
static __global__ void __launch_bounds__(32 * F32_WARPS) gemv_f32_kernel(gemv_args a)
{
    int lane = threadIdx.x & 31;
    int64_t o0 = ((int64_t)blockIdx.x * F32_WARPS + (threadIdx.x >> 5)) * PAIR;
    if (o0 >= a.out)
        return;
    const float *w0 = (const float *)a.w + o0 * a.in, *w1 = o0 + 1 < a.out ? w0 + a.in : w0;
    const float *x[ROWS];
    float sum[PAIR][ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int64_t r = i < a.n && a.row != NULL ? a.row[i] : i < a.n ? i : 0;
        x[i] = (const float *)a.x + r * a.ldx;
        sum[0][i] = sum[1][i] = 0;
    }
#pragma unroll 4
    for (int64_t k = 4 * lane; k < a.in; k += 128) {
        vec16<float> u, v, z;
        load16(u, w0 + k);
        load16(v, w1 + k);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            if (i >= a.n)
                break;
            take_f32(z, x[i] + k, a.aligned);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                sum[0][i] = fmaf(u.v[j], z.v[j], sum[0][i]);
                sum[1][i] = fmaf(v.v[j], z.v[j], sum[1][i]);
            }
        }
    }
    float mine = 0; /* lane l has output l / ROWS of row l % ROWS */
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        if (i >= a.n)
            break;
        float first = warp_sum(sum[0][i]), second = warp_sum(sum[1][i]);
        mine = lane == i ? first : lane == ROWS + i ? second : mine;
    }
    int64_t i = lane % ROWS, o = o0 + lane / ROWS;
    if (lane < PAIR * ROWS && i < a.n && o < a.out)
        finish<float>(a, mine, i, o);
}

static int run_f32(kern_dev *d, const char *what, const gemv_args &a)
{
    return cu_launch(d, what, gemv_f32_kernel, cu_blocks(a.out, F32_WARPS * PAIR), 32 * F32_WARPS,
                     a);
}

/* ---- the calls ------------------------------------------------------------------------------- */

bool cu_gemv_fits(const kern_weight *w, int64_t n)
{
    return n <= TUNE_GEMV_ROWS && w->in % (w->compute == KERN_BF16 ? 8 : 4) == 0;
}

int cu_gemv(kern_dev *d, const cu_gemv_args *g)
{
    const kern_weight *w = g->w;
    gemv_args a = {};
    if (g->n == 0)
        return 0;
    a.w = w->w.data;
    a.x = g->x.data;
    a.ldx = g->x.ld;
    a.row = g->row;
    a.in = w->in;
    a.out = w->out;
    a.n = (int)g->n;
    a.aligned = cu_aligned16(&g->x);
    a.bias = w->bias;
    a.y = g->y.data;
    a.ldy = g->y.ld;
    a.add = g->add;
    if (g->lora != NULL)
        a.lora = *g->lora;
    a.xa = (const float *)g->xa.data;
    a.ldxa = g->xa.ld;
    if (w->compute == KERN_F32)
        return run_f32(d, g->what, a);
    return g->y.dtype == KERN_F32 ? run<float>(d, g->what, a) : run<bf16>(d, g->what, a);
}

/* xa [n, ranks] = x [n, in] A^T, A in f32 as the adapter has it. A block a row of A. Bytes: 4 ranks
 * in, once. */
template <typename T>
static __global__ void shrink_kernel(cu_lora lora, const T *x, int64_t ldx, int64_t in, int n,
                                     float *xa, int64_t ldxa)
{
    __shared__ float share[32];
    int64_t j = blockIdx.x;
    float sum[ROWS];
    const float *A = NULL;
#pragma unroll
    for (int p = 0; p < KERN_MAX_PARTS; p++)
        if (p < lora.n && j >= lora.t[p].r0 && j < lora.t[p].r0 + lora.t[p].r)
            A = lora.t[p].A + (j - lora.t[p].r0) * lora.t[p].lda;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
        sum[i] = 0;
    for (int64_t c = threadIdx.x; c < in; c += blockDim.x) {
        float f = A[c];
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            if (i < n)
                sum[i] += f * to_f32(x[i * ldx + c]);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        if (i >= n)
            continue;
        float s = block_sum(sum[i], share);
        if (threadIdx.x == 0)
            xa[i * ldxa + j] = s;
    }
}

int cu_gemv_lora(kern_dev *d, const cu_lora *lora, const kern_tensor *x, const kern_tensor *xa)
{
    unsigned grid = (unsigned)lora->ranks;
    float *to = (float *)xa->data;
    if (x->dtype == KERN_F32)
        return cu_launch(d, "linear: xa", shrink_kernel<float>, grid, 256, *lora,
                         (const float *)x->data, x->ld, x->cols, (int)x->rows, to, xa->ld);
    return cu_launch(d, "linear: xa", shrink_kernel<bf16>, grid, 256, *lora, (const bf16 *)x->data,
                     x->ld, x->cols, (int)x->rows, to, xa->ld);
}
