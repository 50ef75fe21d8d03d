#include "kernels/cpu/vec.h"

#include "kernels/cpu/rows.h"

const cpu_vec cpu_vec_generic = ROWS_TABLE("generic");
