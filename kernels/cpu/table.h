#pragma once
/* The table of one instruction set. Only the vec_*.c files include this. */
#include "kernels/cpu/drop.h"
#include "kernels/cpu/mm.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/tiles.h"

/* clang-format off */
#define ROWS_TABLE(label)                                                                          \
    {                                                                                              \
        .name = label, .to_f32 = row_to_f32, .from_f32 = row_from_f32,                             \
        .mm = row_mm, .mm_pairs = ROWS_MM_PAIRS, .mv_f32 = row_mv_f32, .mv_bf16 = ROWS_MV_BF16,    \
        .dots = row_dots, .dot = row_dot, .axpy = row_axpy, .scale = row_scale,                    \
        .add_to = row_add_to, .norm = row_norm, .norm_grad = row_norm_grad, .head = row_head, .head_grad = row_head_grad,                        \
        .act = row_act, .act_grad = row_act_grad, .exp_sum = row_exp_sum, .max = row_max,          \
        .sum_exp = row_sum_exp, .scaled_exp = row_scaled_exp,                                      \
        .tile_rows = tile_rows, .transpose = tile_transpose, .weave = TILES_WEAVE, .soft = tile_soft,                      \
        .soft_grad = tile_soft_grad, .soft_grad_pairs = TILES_SOFT_GRAD_PAIRS,                     \
        .drop = row_drop, .adamw = row_adamw, .sumsq = row_sumsq,                                                    \
    }
/* clang-format on */
