#include "kernels/cpu/vec.h"

#include "kernels/cpu/rows.h"

const cpu_vec cpu_vec_avx2 = ROWS_TABLE("avx2");
