#include "core/base/log.h"

#include "core/base/clock.h"
#include "core/base/utf8.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 2004, QUOTED_BYTES = 6 * MESSAGE_BYTES, LINE_BYTES = QUOTED_BYTES + 256 };

/* The one piece of process-wide state that we allow ourselves: where lines go and how they look. */
static struct {
    pthread_mutex_t lock;
    log_level min;
    bool json;
} out = {PTHREAD_MUTEX_INITIALIZER, LOG_INFO, false};

void log_setup(log_level min, bool json)
{
    pthread_mutex_lock(&out.lock);
    out.min = min;
    out.json = json;
    pthread_mutex_unlock(&out.lock);
}

/* Quotes one character of `used` bytes (0: not UTF-8) for both forms of line; returns what it
 * wrote, at most six bytes for each byte read. */
static size_t quote_one(char *dst, const char *s, size_t used)
{
    unsigned char c = (unsigned char)*s;
    if (used == 0)
        return (size_t)sprintf(dst, "\\ufffd");
    if (c == '"' || c == '\\')
        return (size_t)sprintf(dst, "\\%c", c);
    if (c == '\n')
        return (size_t)sprintf(dst, "\\n");
    if (c < 0x20 || c == 0x7F)
        return (size_t)sprintf(dst, "\\u%04x", c);
    memcpy(dst, s, used);
    return used;
}

static void quote(char dst[QUOTED_BYTES], const char *s)
{
    size_t len = strlen(s), n = 0;
    uint32_t cp;
    for (size_t i = 0; i < len;) {
        size_t used = utf8_next(s + i, len - i, &cp);
        n += quote_one(dst + n, s + i, used);
        i += used != 0 ? used : 1;
    }
    dst[n] = '\0';
}

__attribute__((format(printf, 2, 0))) static void format(char dst[MESSAGE_BYTES], const char *fmt,
                                                         va_list ap)
{
    static const char dots[] = "...";
    int n = vsnprintf(dst, MESSAGE_BYTES, fmt, ap);
    if (n < MESSAGE_BYTES)
        return;
    size_t end = MESSAGE_BYTES - sizeof dots;
    end -= utf8_partial(dst, end);
    memcpy(dst + end, dots, sizeof dots);
}

/* A log that fails has nowhere to report it. */
static void write_out(const char *line, size_t n)
{
    while (n > 0) {
        ssize_t k = write(STDERR_FILENO, line, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return;
        line += k;
        n -= (size_t)k;
    }
}

void log_line(log_level level, const char *sys, const char *fmt, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char msg[MESSAGE_BYTES] = "", quoted[QUOTED_BYTES], line[LINE_BYTES], ts[40];
    pthread_mutex_lock(&out.lock);
    bool skip = level < out.min;
    bool json = out.json;
    pthread_mutex_unlock(&out.lock);
    if (skip)
        return;
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    format(msg, fmt, ap);
    va_end(ap);
    quote(quoted, msg);
    clock_iso8601(ts, sizeof ts, clock_unix_ms());
    int n = snprintf(line, sizeof line,
                     json ? "{\"ts\":\"%s\",\"level\":\"%s\",\"sys\":\"%s\",\"msg\":\"%s\"}\n"
                          : "ts=%s level=%s sys=%s msg=\"%s\"\n",
                     ts, names[level], sys, quoted);
    pthread_mutex_lock(&out.lock);
    if (n > 0)
        write_out(line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
    pthread_mutex_unlock(&out.lock);
    errno = saved;
}
