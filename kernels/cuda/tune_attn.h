#pragma once
/* How attention cuts its work on a card: pure functions of shapes and of the shared memory that a
 * block may have, tested on the host (tests/unit/test_tune_attn.c).
 *
 * Tiles and splits change who computes a number, never the order in which it is summed, except
 * where tune_paged_splits says so. */
#include <stddef.h>
#include <stdint.h>

/* Warps of a block on tensor cores, and the rows that one of their products has. */
enum { TUNE_ATTN_WARPS = 4, TUNE_ATTN_ROWS = 16, TUNE_ATTN_MOST = 256 };

/* The head size whose kernels serve heads of d: what is missing is filled with zeros. 0: none. */
static inline int tune_attn_head(int d)
{
    static const int sizes[] = {64, 80, 96, 128, TUNE_ATTN_MOST};
    for (int i = 0; i < 5 && d > 0; i++)
        if (d <= sizes[i])
            return sizes[i];
    return 0;
}

/* Keys in a tile of the forward pass and of the one that makes dq, queries in a tile of the one
 * that makes dk and dv: as many as registers hold beside the sums of the rows that stay. A macro,
 * for the kernels too, which may not call functions of the host. */
#define TUNE_ATTN_STEP(head) ((head) <= 128 ? 32 : 16)

/* Bytes of shared memory: queries of `tiles` times 16 rows a warp stay, keys and values come in two
 * stages (2 bytes an element). */
static inline size_t tune_attn_bytes(int head, int tiles)
{
    int rows = TUNE_ATTN_ROWS * TUNE_ATTN_WARPS * tiles;
    return (size_t)(rows + 4 * TUNE_ATTN_STEP(head)) * (size_t)head * 2;
}

/* dq: queries and gradients of outputs stay, with two floats each, keys and values come in two
 * stages. */
static inline size_t tune_attn_dq_bytes(int head, int tiles)
{
    int rows = TUNE_ATTN_ROWS * TUNE_ATTN_WARPS * tiles;
    return (size_t)(2 * rows + 4 * TUNE_ATTN_STEP(head)) * (size_t)head * 2 + (size_t)rows * 8;
}

/* dk and dv: keys and values stay, queries and gradients of outputs come in two stages, with two
 * floats each. */
static inline size_t tune_attn_dkv_bytes(int head, int tiles)
{
    int rows = TUNE_ATTN_ROWS * TUNE_ATTN_WARPS * tiles, step = TUNE_ATTN_STEP(head);
    return (size_t)(2 * rows + 4 * step) * (size_t)head * 2 + (size_t)(2 * step) * 8;
}

/* Two blocks a multiprocessor hide each other's waits. It has 1 KiB more than one block may have,
 * and keeps 1 KiB for itself for each block. */
static inline int tune_attn_pair(size_t bytes, size_t shared_max)
{
    return 2 * (bytes + 1024) <= shared_max + 1024;
}

/* Tiles of 16 rows a warp, 1 or 2, in the forward pass. Two halve what is read from shared memory
 * for each product; with heads of 256 their sums do not fit the registers. Heads of 128 take 64 KiB
 * with two tiles, 48 KiB with one: two on sm_80 and sm_90 (163 and 227 KiB), one on sm_89 (99). */
static inline int tune_attn(int head, size_t shared_max)
{
    return head <= 128 && tune_attn_pair(tune_attn_bytes(head, 2), shared_max) ? 2 : 1;
}

/* The same for dq. Heads of 128: 96 KiB with two tiles (sm_90), 64 KiB with one (sm_80, sm_89). */
static inline int tune_attn_dq(int head, size_t shared_max)
{
    return head <= 128 && tune_attn_pair(tune_attn_dq_bytes(head, 2), shared_max) ? 2 : 1;
}

/* The same for dk and dv, where sums of both fill the registers beyond heads of 64, and only when
 * enough blocks are left to even out the triangle (the first keys of a segment are seen by all
 * queries, the last by few). */
static inline int tune_attn_dkv(int head, int64_t n, int n_kv)
{
    return head <= 64 && n / 128 * n_kv >= 384 ? 2 : 1;
}

/* Tiles of 16 rows a warp for rows over the paged cache: two where sequences bring enough rows. */
static inline int tune_paged(int head, size_t shared_max, int64_t rows, int64_t n_seq)
{
    return rows >= 128 * n_seq ? tune_attn(head, shared_max) : 1;
}

/* One row over the paged cache: two stages of 16 keys and values a warp, the row's query heads, and
 * two floats for each warp's share of them. The stages become the warps' sums in f32. */
static inline size_t tune_paged_bytes(int head, int warps)
{
    return (size_t)(4 * 16 * warps + 16) * (size_t)head * 2 + (size_t)(16 * warps) * 8;
}

enum { TUNE_PAGED_BLOCKS = 512, TUNE_PAGED_LEAST = 256, TUNE_PAGED_SPLITS = 64 };

/* Pieces in which the keys of one row are attended to side by side, when each sequence brings about
 * one row: enough that some four blocks a multiprocessor of a large card are there, none with less
 * than LEAST tokens when the cache is as full as it can be. groups: blocks that share a row's keys.
 * Sums of pieces are added in order; how many there are depends on n and most, so the same row may
 * round differently in a batch of another size. */
static inline int tune_paged_splits(int64_t n, int groups, int64_t most)
{
    int64_t blocks = n * groups;
    int64_t want = blocks > 0 ? (TUNE_PAGED_BLOCKS + blocks - 1) / blocks : 1;
    int64_t room = most / TUNE_PAGED_LEAST;
    want = want < room ? want : room;
    return want < 1 ? 1 : want > TUNE_PAGED_SPLITS ? TUNE_PAGED_SPLITS : (int)want;
}
