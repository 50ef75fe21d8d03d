#include "core/train/progress.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct progress {
    progress_mode mode;
    bool drawn;  /* a bar stands on the current line */
    double last; /* when it was drawn */
};

progress *progress_new(progress_mode mode)
{
    progress *p = mem_alloc(sizeof *p);
    p->mode = mode;
    if (mode == PROGRESS_AUTO)
        p->mode = isatty(STDERR_FILENO) ? PROGRESS_BAR : PROGRESS_LINES;
    return p;
}

void progress_free(progress *p)
{
    if (p == NULL)
        return;
    if (p->drawn)
        fputc('\n', stderr);
    free(p);
}

void progress_time(char *dst, int cap, double seconds)
{
    long long s = seconds > 0 ? (long long)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(dst, (size_t)cap, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(dst, (size_t)cap, "%lld:%02lld", s / 60, s % 60);
}

void progress_bytes(char *dst, int cap, double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    for (; bytes >= 1024 && u < 4; u++)
        bytes /= 1024;
    snprintf(dst, (size_t)cap, u == 0 ? "%.0f %s" : "%.1f %s", bytes, units[u]);
}

static int columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

static void eta_text(char *dst, int cap, const progress_now *now)
{
    if (now->eta_s > 0 || now->step == now->total)
        progress_time(dst, cap, now->eta_s);
    else
        snprintf(dst, (size_t)cap, "?");
}

static void draw(progress *p, const progress_now *now)
{
    enum { MAX_BAR = 40 };
    char text[192], eta[24], bar[MAX_BAR * 3 + 1] = "";
    eta_text(eta, sizeof eta, now);
    int n = snprintf(text, sizeof text, " %lld/%lld  loss %.4f  lr %.2e  %.0f tok/s  eta %s",
                     (long long)now->step, (long long)now->total, now->loss, now->lr,
                     now->tokens_per_s, eta);
    int room = columns() - n - 3;
    int width = room > MAX_BAR ? MAX_BAR : room;
    int full = width > 0 ? (int)(width * now->step / (now->total > 0 ? now->total : 1)) : 0;
    size_t at = 0;
    for (int i = 0; i < width; i++)
        at += (size_t)snprintf(bar + at, sizeof bar - at, "%s", i < full ? "█" : "·");
    fprintf(stderr, "\r\033[K%s%s", bar, text);
    fflush(stderr);
    p->drawn = true;
    p->last = clock_seconds();
}

void progress_step(progress *p, const progress_now *now, bool logged)
{
    if (p->mode == PROGRESS_BAR && (clock_seconds() - p->last >= 0.1 || now->step == now->total)) {
        draw(p, now);
    } else if (p->mode == PROGRESS_LINES && logged) {
        char eta[24];
        eta_text(eta, sizeof eta, now);
        fprintf(stderr, "step %lld/%lld  epoch %.2f  loss %.4f  lr %.2e  %.0f tok/s  eta %s\n",
                (long long)now->step, (long long)now->total, now->epoch, now->loss, now->lr,
                now->tokens_per_s, eta);
    }
}

void progress_line(progress *p, const char *fmt, ...)
{
    va_list ap;
    if (p->mode == PROGRESS_NONE)
        return;
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}
