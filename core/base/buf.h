#pragma once
/* Growable byte buffer that names its maximum at init. Data is always NUL-terminated past len, so
 * that text may be read as a C string; it may hold NULs itself. Growth past the maximum or out of
 * memory sets `failed` and drops these bytes and all that follow: check once at the end with
 * buf_check. What is added must not lie in the buffer itself. */
#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct buf {
    char *data;      /* read-only outside buf.c; never NULL after buf_init */
    size_t len;      /* bytes */
    size_t cap, max; /* private */
    bool failed;     /* read-only: something did not fit */
    bool no_memory;  /* private: into memory, not into max */
} buf;

void buf_init(buf *b, size_t max);
void buf_free(buf *b); /* safe on a zeroed buf */
void buf_reset(buf *b);
void buf_add(buf *b, const void *p, size_t n);
void buf_str(buf *b, const char *s);
void buf_char(buf *b, char c);
void buf_printf(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_utf8(buf *b, unsigned cp); /* what is no character (a surrogate) becomes U+FFFD */

/* 0, ELIMIT with "<what>: longer than <max> bytes", or ENOMEM. */
int buf_check(const buf *b, const char *what, hone_err *e);

/* Moves the bytes out (caller frees, never NULL); *len may be NULL. The buffer is empty after. */
char *buf_take(buf *b, size_t *len);
