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
