#pragma once
/* One log, to standard error, a line an event: `ts=... level=... sys=... msg="..."`, or the same as
 * a JSON object. Libraries return errors; commands, request handlers and long-running threads log
 * them. Thread-safe. Never put a secret or a user's text into a line. */
#include <stdbool.h>

typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level;

void log_setup(log_level min, bool json); /* default: LOG_INFO, key=value */

/* `sys` is one of our own words ("serve"). The message is quoted: whatever it holds, it stays one
 * line, and valid UTF-8. A message past 2,000 bytes ends in "...". */
void log_line(log_level level, const char *sys, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
