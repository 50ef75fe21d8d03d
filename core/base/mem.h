#pragma once
/* Two verbs for memory: mem_* abort when none is left (our own small allocations), mem_try* may
 * return NULL (sizes that came from outside, and anything large). Everything is released with
 * free(). */
#include <stddef.h>

_Noreturn void mem_none(void);          /* "hone: out of memory", and aborts */
void *mem_alloc(size_t n);              /* zeroed; n = 0 gives a pointer that may be freed */
void *mem_array(size_t n, size_t size); /* zeroed; aborts on overflow too */
void *mem_resize(void *p, size_t n);    /* contents past the old size are not zeroed */
char *mem_strdup(const char *s);        /* NULL gives NULL */
char *mem_strndup(const char *s, size_t n);
/* Makes room for `need` items of `size` bytes, doubling *cap; new items are not zeroed. */
void *mem_grow(void *p, size_t *cap, size_t need, size_t size);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void *mem_try(size_t n);                    /* zeroed; NULL when there is none */
void *mem_try_array(size_t n, size_t size); /* zeroed; NULL on overflow too */
