#include "kernels/cpu/table.h"

const cpu_vec cpu_vec_avx512 = ROWS_TABLE("avx512");
