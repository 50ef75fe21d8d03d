#pragma once
/* What attention's forward and backward share. */
#include "kernels/cpu/cpu.h"

int cpu_attn_check(kern_dev *d, const kern_attn *a);
