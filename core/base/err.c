#include "core/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int hone_fail(hone_err *e, int code, const char *fmt, ...)
{
    if (e == NULL)
        return code;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return code;
}

int hone_fail_at(hone_err *e, const char *fmt, ...)
{
    if (e == NULL)
        return HONE_EINTERNAL;
    char head[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head - 2, fmt, ap);
    va_end(ap);
    size_t n = strlen(head);
    head[n++] = ':';
    head[n++] = ' ';
    size_t room = sizeof e->msg - 1 - n;
    size_t kept = strlen(e->msg) < room ? strlen(e->msg) : room;
    memmove(e->msg + n, e->msg, kept);
    memcpy(e->msg, head, n);
    e->msg[n + kept] = '\0';
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
#define HONE_ERRNO_NAME(name, n, text)                                                             \
    case HONE_##name:                                                                              \
        return #name;
        HONE_ERRNO_MAP(HONE_ERRNO_NAME)
#undef HONE_ERRNO_NAME
    default:
        return "OK";
    }
}
