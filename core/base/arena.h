#pragma once
/* Bump allocator for things that die together (a process, a model, a step or a request). Made of
 * blocks; what it hands out is ours and small, so that no memory means abort. Not thread-safe. */
#include <stddef.h>

typedef struct arena arena;

arena *arena_new(void);                /* aborts when there is no memory */
void arena_free(arena *a);             /* NULL is a no-op */
void arena_reset(arena *a);            /* forgets everything, keeps the first block */
void *arena_alloc(arena *a, size_t n); /* zeroed, aligned to 16 bytes, valid until reset or free */
char *arena_strndup(arena *a, const char *s, size_t n);
char *arena_strdup(arena *a, const char *s);
char *arena_printf(arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
size_t arena_used(const arena *a); /* bytes handed out, rounded up to the alignment */
