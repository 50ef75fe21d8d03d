#pragma once
/* Published model shapes, for benches with random weights. */
#include <stdint.h>

typedef struct bench_shape {
    const char *name; /* "llama-3.2-1b" */
    const char *arch; /* architectures[0] of the config.json */
    int64_t hidden, inter, layers, heads, kv_heads, head_dim, vocab;
    double rope_theta;
    int tied;
} bench_shape;

extern const bench_shape bench_shapes[]; /* ends with a row whose name is NULL */

const bench_shape *bench_shape_find(const char *name); /* NULL: no such shape */

/* Its config.json, for the caller to free. */
char *bench_shape_config(const bench_shape *s);

/* Weights of the linear layers of all blocks, and of the output head. */
double bench_shape_linear(const bench_shape *s);
double bench_shape_head(const bench_shape *s);
