#pragma once
/* Strict UTF-8 decoding (no overlong forms, no surrogates, at most U+10FFFF). */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes one code point of s[0..n). Returns the bytes used (1 to 4), or 0 where the bytes are not
 * valid. */
size_t utf8_next(const char *s, size_t n, uint32_t *cp);

/* Length in bytes of the longest prefix of s[0..n) that is valid; == n when all of it is. */
size_t utf8_valid(const char *s, size_t n);

/* Bytes at the end of s[0..n) that begin a character which is not complete yet (0 to 3). Bytes that
 * can never become one count as 0. */
size_t utf8_partial(const char *s, size_t n);
