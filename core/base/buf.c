#include "core/base/buf.h"

#include "core/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What an empty buffer shows. Never written: nothing writes to data while cap is 0. */
static const char empty[1] = "";

void buf_init(buf *b, size_t max)
{
    *b = (buf){.data = (char *)empty, .max = max};
}

void buf_free(buf *b)
{
    if (b->cap != 0)
        free(b->data);
    buf_init(b, b->max);
}

void buf_reset(buf *b)
{
    b->len = 0;
    b->failed = b->no_memory = false;
    if (b->cap != 0)
        b->data[0] = '\0';
}

/* Makes room for n more bytes and the terminator. */
static bool reserve(buf *b, size_t n)
{
    if (b->failed || n > b->max || b->len > b->max - n) {
        b->failed = true;
        return false;
    }
    size_t need = b->len + n + 1;
    if (need <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap * 2 : 64;
    if (cap < need)
        cap = need;
    if (cap - 1 > b->max)
        cap = b->max + 1;
    char *p = realloc(b->cap ? b->data : NULL, cap);
    if (p == NULL) {
        b->failed = b->no_memory = true;
        return false;
    }
    b->data = p;
    b->cap = cap;
    return true;
}

void buf_add(buf *b, const void *p, size_t n)
{
    if (n == 0 || !reserve(b, n))
        return;
    memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_str(buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_char(buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_printf(buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        b->failed = b->no_memory = true;
    if (n <= 0 || !reserve(b, (size_t)n))
        return;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

void buf_utf8(buf *b, unsigned cp)
{
    char s[4];
    size_t n = 0;
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
        cp = 0xFFFD;
    if (cp < 0x80) {
        s[n++] = (char)cp;
    } else if (cp < 0x800) {
        s[n++] = (char)(0xC0 | cp >> 6);
        s[n++] = (char)(0x80 | (cp & 0x3F));
    } else if (cp < 0x10000) {
        s[n++] = (char)(0xE0 | cp >> 12);
        s[n++] = (char)(0x80 | (cp >> 6 & 0x3F));
        s[n++] = (char)(0x80 | (cp & 0x3F));
    } else {
        s[n++] = (char)(0xF0 | (cp >> 18 & 0x07));
        s[n++] = (char)(0x80 | (cp >> 12 & 0x3F));
        s[n++] = (char)(0x80 | (cp >> 6 & 0x3F));
        s[n++] = (char)(0x80 | (cp & 0x3F));
    }
    buf_add(b, s, n);
}

int buf_check(const buf *b, const char *what, hone_err *e)
{
    if (b->no_memory)
        return hone_fail(e, HONE_ENOMEM, "%s: no memory past %zu bytes", what, b->len);
    if (b->failed)
        return hone_fail(e, HONE_ELIMIT, "%s: longer than %zu bytes", what, b->max);
    return 0;
}

char *buf_take(buf *b, size_t *len)
{
    char *p = b->cap ? b->data : mem_alloc(1);
    if (len != NULL)
        *len = b->len;
    buf_init(b, b->max);
    return p;
}
