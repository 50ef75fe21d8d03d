#include "core/base/log.h"

#include "core/base/clock.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

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

/* Quotes for both forms: control characters and quotes never reach the line as they are. */
static size_t quote(char *dst, size_t cap, const char *s)
{
    size_t n = 0;
    for (; *s != '\0' && n + 8 < cap; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            dst[n++] = '\\';
            dst[n++] = (char)c;
        } else if (c == '\n') {
            dst[n++] = '\\';
            dst[n++] = 'n';
        } else if (c < 0x20) {
            n += (size_t)snprintf(dst + n, cap - n, "\\u%04x", c);
        } else {
            dst[n++] = (char)c;
        }
    }
    dst[n] = '\0';
    return n;
}

void log_line(log_level level, const char *sys, const char *fmt, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char msg[2048], quoted[4096], line[4608], ts[40];
    pthread_mutex_lock(&out.lock);
    bool skip = level < out.min;
    bool json = out.json;
    pthread_mutex_unlock(&out.lock);
    if (skip)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    quote(quoted, sizeof quoted, msg);
    clock_iso8601(ts, sizeof ts, clock_unix_ms());
    int n = snprintf(line, sizeof line,
                     json ? "{\"ts\":\"%s\",\"level\":\"%s\",\"sys\":\"%s\",\"msg\":\"%s\"}\n"
                          : "ts=%s level=%s sys=%s msg=\"%s\"\n",
                     ts, names[level], sys, quoted);
    pthread_mutex_lock(&out.lock);
    if (n > 0) {
        ssize_t written = write(STDERR_FILENO, line, (size_t)n);
        (void)written; /* a log that fails has nowhere to report it */
    }
    pthread_mutex_unlock(&out.lock);
}
