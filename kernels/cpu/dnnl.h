#pragma once
/* oneDNN behind one door: an engine, a stream, and primitives kept by shape.
 *
 * A primitive runs on one thread; our own pool cuts products into blocks. So there is one set of
 * threads, blocks can be followed by other work while they are in cache, and the same few block
 * shapes serve every number of rows. */
#include "kernels/cpu/cpu.h"

typedef struct cpu_dnnl cpu_dnnl;

/* NULL when oneDNN cannot start. */
cpu_dnnl *cpu_dnnl_open(int threads);
void cpu_dnnl_close(cpu_dnnl *x); /* NULL is a no-op */
