#pragma once
/* oneDNN behind one door: an engine, a stream, and primitives kept by shape. */
#include "kernels/cpu/cpu.h"

typedef struct cpu_dnnl cpu_dnnl;

/* NULL when oneDNN cannot start. */
cpu_dnnl *cpu_dnnl_open(void);
void cpu_dnnl_close(cpu_dnnl *x);
