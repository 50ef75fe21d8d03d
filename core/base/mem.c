#include "core/base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mem_none(void)
{
    fputs("hone: out of memory\n", stderr);
    abort();
}

static void *checked(void *p)
{
    if (p == NULL)
        mem_none();
    return p;
}

void *mem_alloc(size_t n)
{
    return checked(calloc(1, n ? n : 1));
}

void *mem_array(size_t n, size_t size)
{
    return checked(calloc(n ? n : 1, size ? size : 1));
}

void *mem_resize(void *p, size_t n)
{
    return checked(realloc(p, n ? n : 1));
}

void *mem_grow(void *p, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return p;
    size_t n = *cap ? *cap : 16;
    while (n < need)
        n = n > SIZE_MAX / 2 ? need : n * 2;
    if (size != 0 && n > SIZE_MAX / size)
        mem_none();
    p = mem_resize(p, n * size);
    *cap = n;
    return p;
}

char *mem_strndup(const char *s, size_t n)
{
    char *p = mem_array(n + 1, 1);
    if (n != 0)
        memcpy(p, s, n);
    return p;
}

char *mem_strdup(const char *s)
{
    return s == NULL ? NULL : mem_strndup(s, strlen(s));
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) /* a wrong format or a wide string that has no encoding: a bug of ours */
        mem_none();
    char *p = mem_alloc((size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}

void *mem_try(size_t n)
{
    return calloc(1, n ? n : 1);
}

void *mem_try_array(size_t n, size_t size)
{
    return calloc(n ? n : 1, size ? size : 1);
}
