#include "core/base/err.h"

#include "core/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void one_line(char *s)
{
    uint32_t cp = 0;
    for (size_t n = strlen(s); n > 0;) {
        size_t used = utf8_next(s, n, &cp);
        if (used == 0 || cp < 0x20 || cp == 0x7F) {
            *s = '?';
            used = 1;
        }
        s += used;
        n -= used;
    }
}

/* Marks a text that was cut to fill `cap` bytes, and leaves no half character in it. */
static void mark_cut(char *s, size_t cap)
{
    static const char dots[] = "...";
    size_t n = cap - sizeof dots;
    n -= utf8_partial(s, n);
    memcpy(s + n, dots, sizeof dots);
}

__attribute__((format(printf, 3, 0))) static void format(char *dst, size_t cap, const char *fmt,
                                                         va_list ap)
{
    int n = vsnprintf(dst, cap, fmt, ap);
    if (n < 0)
        snprintf(dst, cap, "a message that cannot be printed");
    else if ((size_t)n >= cap)
        mark_cut(dst, cap);
    one_line(dst);
}

int hone_fail(hone_err *e, int code, const char *fmt, ...)
{
    if (e == NULL)
        return code;
    char msg[sizeof e->msg]; /* the arguments may point into e->msg */
    va_list ap;
    va_start(ap, fmt);
    format(msg, sizeof msg, fmt, ap);
    va_end(ap);
    e->code = code;
    memcpy(e->msg, msg, sizeof msg);
    return code;
}

int hone_fail_at(hone_err *e, const char *fmt, ...)
{
    if (e == NULL)
        return HONE_EINTERNAL;
    char where[sizeof e->msg / 2], msg[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    format(where, sizeof where, fmt, ap);
    va_end(ap);
    int n = snprintf(msg, sizeof msg, "%s: %s", where, e->msg);
    if ((size_t)n >= sizeof msg)
        mark_cut(msg, sizeof msg);
    memcpy(e->msg, msg, sizeof msg);
    if (e->code == 0)
        e->code = HONE_EINTERNAL;
    return e->code;
}

const char *hone_strerror(int code)
{
    switch (code) {
    case 0:
        return "done";
#define HONE_ERRNO_TEXT(name, n, text)                                                             \
    case HONE_##name:                                                                              \
        return text;
        HONE_ERRNO_MAP(HONE_ERRNO_TEXT)
#undef HONE_ERRNO_TEXT
    default:
        return "unknown error";
    }
}

const char *hone_errname(int code)
{
    switch (code) {
    case 0:
        return "OK";
#define HONE_ERRNO_NAME(name, n, text)                                                             \
    case HONE_##name:                                                                              \
        return #name;
        HONE_ERRNO_MAP(HONE_ERRNO_NAME)
#undef HONE_ERRNO_NAME
    default:
        return "?";
    }
}
