#pragma once
/* Read before each source by tests/lint/tidy alone: tells the analyzer, which sees one file at a
 * time, that what reports a failure never returns 0. */
#include "core/base/err.h"

#define hone_fail(e, code, ...) (hone_fail(e, code, __VA_ARGS__), (code))
#define hone_fail_at(e, ...) (hone_fail_at(e, __VA_ARGS__), HONE_EINTERNAL)
#ifndef ANALYZE_FILE
#include "core/base/file.h"
#define file_error(e, path, verb) (file_error(e, path, verb), HONE_EIO)
#endif
#ifdef ANALYZE_JINJA
#include "core/text/jinja_int.h"
#define jrt_fail(r, ...) (jrt_fail(r, __VA_ARGS__), HONE_EINVAL)
#define jrt_fail_code(r, code, ...) (jrt_fail_code(r, code, __VA_ARGS__), (code))
#define jparse_fail(p, code, ...) (jparse_fail(p, code, __VA_ARGS__), (code))
#endif
