#include "kernels/cpu/table.h"

const cpu_vec cpu_vec_generic = ROWS_TABLE("generic");
