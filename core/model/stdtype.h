#pragma once
/* Stored number formats to and from F32. Rounding is to the nearest, ties to even; bf16 and f16 NaN
 * stay NaN. */
#include "core/base/err.h"
#include "core/model/safetensors.h"

#include <stdint.h>

float bf16_to_f32(uint16_t v);
uint16_t f32_to_bf16(float v);
float f16_to_f32(uint16_t v);
uint16_t f32_to_f16(float v); /* overflow gives infinity */

/* Bytes of one element; 0 for ST_OTHER. */
size_t st_dtype_size(st_dtype t);
const char *st_dtype_name(st_dtype t); /* "F32", as the header writes it */

/* The whole tensor to F32 (ST_F32, ST_F16, ST_BF16; EUNSUPPORTED names any other). dst holds the
 * product of dims. */
int st_to_f32(float *dst, const st_tensor *t, hone_err *e);
/* n values to a stored form, in dst. */
int st_from_f32(void *dst, st_dtype t, const float *src, int64_t n, hone_err *e);
