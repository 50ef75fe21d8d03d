#pragma once
/* Passes that a device has recorded and runs again as one (CUDA graphs). Private to core/model.
 *
 * A record holds addresses and shapes, no contents: it is right for every pass of the same key as
 * long as no buffer moves. What moves or frees one calls record_drop first. A pass of a new key
 * runs by itself twice (buffers of ops grow, product algorithms are chosen) before it is recorded.
 * On a device that records nothing every pass runs by itself. */
#include "core/base/err.h"
#include "kernels/kern.h"

struct model;
struct pass;

typedef enum { RECORD_FORWARD, RECORD_BACKWARD, RECORD_DECODE } record_kind;

typedef struct record_key {
    record_kind kind;
    bool training;
    int64_t n, n_seg, max_blocks, floor;
    const void *kv;
} record_key;

typedef struct record_entry {
    record_key key;
    int64_t runs;      /* so far */
    kern_graph *graph; /* NULL: not recorded yet */
} record_entry;

enum { RECORD_MAX = 48 };

/* Zero-initialise. */
typedef struct record_set {
    record_entry entry[RECORD_MAX];
    int n, next; /* next: the one that goes when all are taken */
} record_set;

typedef int record_fn(struct model *m, const struct pass *p, hone_err *e);

/* fn(m, p), now or from its record. fn queues ops on the device and does nothing else. */
int record_run(struct model *m, const record_key *key, record_fn *fn, const struct pass *p,
               hone_err *e);
void record_drop(struct model *m);
