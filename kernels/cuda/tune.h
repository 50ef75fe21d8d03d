#pragma once
/* How ops cut their work on a card: pure functions of shapes, tested on the host
 * (tests/unit/test_tune_cuda.c). None looks at the card: the same shapes give the same bits on all.
 */
#include <stdint.h>

/* Threads for a row that is held in registers, TUNE_ROW_VECS vectors of `per` elements a thread.
 * The gradient with its sums holds 96 floats a thread, so that 512 threads are what a
 * multiprocessor has registers for. */
enum { TUNE_ROW_VECS = 4, TUNE_ROW_THREADS = 512 };
typedef struct tune_row {
    int threads; /* a row, a multiple of 32; 0: the row is too long */
    int rows;    /* a block */
} tune_row;

static inline tune_row tune_norm(int64_t h, int per)
{
    int64_t each = (int64_t)per * TUNE_ROW_VECS, threads = ((h + each - 1) / each + 31) / 32 * 32;
    tune_row r = {0, 0};
    if (threads > TUNE_ROW_THREADS)
        return r;
    r.threads = threads < 32 ? 32 : (int)threads;
    r.rows = r.threads == 32 ? 4 : 1;
    return r;
}

/* Pieces in which the rows of a batch are summed before the sums of the pieces are. Piece p has
 * rows [n * p / pieces, n * (p + 1) / pieces). */
static inline int tune_shares(int64_t n)
{
    int64_t s = (n + 15) / 16;
    return s < 1 ? 1 : s > 512 ? 512 : (int)s;
}

/* Threads for a head of d elements, `per` of its first half each: a power of two up to 32; 0: the
 * head is too long or is not made of such pieces. A thread takes `passes` heads, with the angles of
 * its elements loaded once, when there are rows enough to fill the card without. */
typedef struct tune_heads {
    int group, passes;
} tune_heads;

static inline tune_heads tune_qk(int d, int per, int64_t n)
{
    tune_heads t = {1, n >= 1024 ? 4 : 1};
    if (d % (2 * per) != 0 || d > 2 * per * 32)
        t.group = 0;
    while (t.group > 0 && t.group * per * 2 < d)
        t.group *= 2;
    return t;
}

/* Pieces of a flat range whose squares are summed by a block each. */
static inline int tune_sumsq(int64_t n)
{
    int64_t parts = (n + 4095) / 4096;
    return parts < 1 ? 1 : parts > 1024 ? 1024 : (int)parts;
}

/* ---- products of few rows ---- */

/* Rows up to which gemv.cu is faster than a product by tiles; outputs of a block (both fixed by the
 * shape of the tensor cores' product); elements of k that a warp takes at once. */
enum { TUNE_GEMV_ROWS = 8, TUNE_GEMV_TILE = 16, TUNE_GEMV_STEP = 128 };

typedef struct tune_gemv_plan {
    int warps;  /* a block */
    int splits; /* blocks that share the sums of the same outputs */
} tune_gemv_plan;

/* Enough warps to keep the memory of a large card busy: 1024 warps have 4 MB in flight, and 4.8
 * TB/s over 0.7 us are 3.4 MB. More warps a block first, since they share at no cost; then more
 * blocks, for which a second launch adds up. No warp without a step of its own. */
static inline tune_gemv_plan tune_gemv(int64_t out, int64_t in)
{
    enum { ENOUGH = 1024 };
    int64_t tiles = (out + TUNE_GEMV_TILE - 1) / TUNE_GEMV_TILE;
    int64_t steps = (in + TUNE_GEMV_STEP - 1) / TUNE_GEMV_STEP;
    tune_gemv_plan p = {4, 1};
    while (p.warps > 1 && p.warps > steps)
        p.warps /= 2;
    while (p.warps < 16 && tiles * p.warps < ENOUGH && p.warps * 2 <= steps)
        p.warps *= 2;
    while (p.splits < 8 && tiles * p.warps * p.splits < ENOUGH && p.warps * p.splits * 2 <= steps)
        p.splits *= 2;
    return p;
}

/* ---- head ---- */

/* Rows whose logits exist at once: at most 512 MiB of f32, in multiples of 128 (tiles of a product)
 * unless fewer rows are wanted or fit; 4096 rows fill any card. */
static inline int64_t tune_head_rows(int64_t n_rows, int64_t vocab)
{
    int64_t most = ((int64_t)512 << 20) / (vocab * 4);
    most = most < 1 ? 1 : most >= 128 ? most / 128 * 128 : most;
    most = most > 4096 ? 4096 : most;
    return n_rows < most ? n_rows : most;
}

/* Threads for a row of logits, four at a time. */
static inline int tune_head_threads(int64_t vocab)
{
    int64_t t = (vocab / 4 + 31) / 32 * 32;
    return t < 32 ? 32 : t > 512 ? 512 : (int)t;
}
