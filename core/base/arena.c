#include "core/base/arena.h"

#include "core/base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 16 * 1024, ALIGN = 16 };

typedef struct block {
    struct block *next;
    size_t cap, len;
    _Alignas(ALIGN) char data[];
} block;

struct arena {
    block *head; /* newest first; the first block made is last */
    size_t used;
};

static block *block_new(size_t cap, block *next)
{
    block *b = mem_alloc(sizeof *b + cap);
    b->next = next;
    b->cap = cap;
    return b;
}

arena *arena_new(void)
{
    arena *a = mem_alloc(sizeof *a);
    a->head = block_new(BLOCK_BYTES, NULL);
    return a;
}

void arena_free(arena *a)
{
    if (a == NULL)
        return;
    for (block *b = a->head; b != NULL;) {
        block *next = b->next;
        free(b);
        b = next;
    }
    free(a);
}

void arena_reset(arena *a)
{
    while (a->head->next != NULL) {
        block *b = a->head;
        a->head = b->next;
        free(b);
    }
    memset(a->head->data, 0, a->head->len);
    a->head->len = 0;
    a->used = 0;
}

void *arena_alloc(arena *a, size_t n)
{
    if (n > SIZE_MAX / 2)
        n = SIZE_MAX / 2; /* there is no such block: mem_alloc says so and aborts */
    n = (n + ALIGN - 1) / ALIGN * ALIGN;
    block *b = a->head;
    if (b->cap - b->len < n)
        b = a->head = block_new(n > BLOCK_BYTES ? n : BLOCK_BYTES, a->head);
    void *p = b->data + b->len;
    b->len += n;
    a->used += n;
    return p;
}

char *arena_strndup(arena *a, const char *s, size_t n)
{
    char *p = arena_alloc(a, n + 1);
    if (n != 0)
        memcpy(p, s, n);
    return p;
}

char *arena_strdup(arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = arena_alloc(a, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}

size_t arena_used(const arena *a)
{
    return a->used;
}
