#include "kernels/cpu/table.h"

const cpu_vec cpu_vec_avx2 = ROWS_TABLE("avx2");
