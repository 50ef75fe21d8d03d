#include "kernels/cuda/gemm_cache.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- keys ------------------------------------------------------------------------------------ */

unsigned gemm_alignment(const kern_tensor *x)
{
    uintptr_t bits = (uintptr_t)x->data | 16U;
    if (x->rows > 1)
        bits |= (uintptr_t)x->ld * kern_dtype_size(x->dtype);
    return (unsigned)(bits & (~bits + 1));
}

gemm_key gemm_key_of(const kern_tensor *a, const kern_tensor *b, const kern_tensor *c, bool ta,
                     bool tb, bool beta, bool bias)
{
    gemm_key key = {.m = c->rows, .n = c->cols, .k = ta ? a->rows : a->cols};
    const uint32_t fields[] = {
        a->dtype, c->dtype, gemm_alignment(a), gemm_alignment(b), gemm_alignment(c), ta, tb,
        beta,     bias};
    static const unsigned bits[] = {3, 3, 5, 5, 5, 1, 1, 1, 1};
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++)
        key.kind = key.kind << bits[i] | fields[i];
    return key;
}

static int64_t round_size(int64_t n)
{
    int64_t step = 1;
    while (n > step * 8)
        step *= 2;
    return (n + step - 1) / step * step;
}

gemm_key gemm_key_round(gemm_key k)
{
    return (gemm_key){round_size(k.m), round_size(k.n), round_size(k.k), k.kind};
}

bool gemm_key_same(const gemm_key *a, const gemm_key *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->kind == b->kind;
}

/* ---- choices --------------------------------------------------------------------------------- */

const gemm_algo *gemm_choices_find(const gemm_choices *t, const gemm_key *k)
{
    for (size_t i = 0; i < t->n; i++)
        if (gemm_key_same(&t->at[i].key, k))
            return &t->at[i].algo;
    return NULL;
}

int gemm_choices_add(gemm_choices *t, const gemm_key *k, const gemm_algo *a)
{
    if (gemm_choices_find(t, k) != NULL)
        return 0;
    if (t->n == t->cap) {
        size_t cap = t->cap > 0 ? t->cap * 2 : 64;
        gemm_choice *at = cap > GEMM_MAX_CHOICES ? NULL : realloc(t->at, cap * sizeof *at);
        if (at == NULL)
            return KERN_ENOMEM;
        t->at = at;
        t->cap = cap;
    }
    t->at[t->n++] = (gemm_choice){*k, *a};
    return 0;
}

void gemm_choices_free(gemm_choices *t)
{
    free(t->at);
    *t = (gemm_choices){0};
}

/* ---- text ------------------------------------------------------------------------------------ */

static const char heading[] = "hone matrix products 1\n";
enum { LINE = 256, WORDS = 8 };

/* FNV-1a: a file that a disk or an editor has damaged must not reach the library. */
static uint64_t checksum(const char *text, size_t len)
{
    uint64_t h = 0xCBF29CE484222325U;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001B3U;
    return h;
}

char *gemm_choices_format(const gemm_choices *t, size_t *len)
{
    char *out = malloc((t->n + 2) * LINE);
    if (out == NULL)
        return NULL;
    char *p = out + sprintf(out, "%s", heading);
    for (size_t i = 0; i < t->n; i++) {
        const gemm_choice *c = &t->at[i];
        p += sprintf(p, "%" PRId64 " %" PRId64 " %" PRId64 " %08" PRIx32, c->key.m, c->key.n,
                     c->key.k, c->key.kind);
        for (int w = 0; w < WORDS; w++)
            p += sprintf(p, " %016" PRIx64, c->algo.data[w]);
        *p++ = '\n';
    }
    p += sprintf(p, "sum %016" PRIx64 "\n", checksum(out, (size_t)(p - out)));
    *len = (size_t)(p - out);
    return out;
}

static bool take(const char **p, int base, uint64_t most, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(*p, &end, base);
    bool ok = end != *p && errno == 0 && *out <= most;
    *p = end;
    return ok;
}

static bool read_line(gemm_choice *c, const char *line)
{
    uint64_t size[3], kind;
    for (int i = 0; i < 3; i++)
        if (!take(&line, 10, INT64_MAX, &size[i]))
            return false;
    if (!take(&line, 16, UINT32_MAX, &kind))
        return false;
    c->key = (gemm_key){.m = (int64_t)size[0],
                        .n = (int64_t)size[1],
                        .k = (int64_t)size[2],
                        .kind = (uint32_t)kind};
    for (int w = 0; w < WORDS; w++)
        if (!take(&line, 16, UINT64_MAX, &c->algo.data[w]))
            return false;
    return *line == '\0' && c->key.m > 0 && c->key.n > 0 && c->key.k > 0;
}

/* The lines between the heading and the sum; false when there is something else. */
static bool read_body(gemm_choices *t, const char *p, const char *end)
{
    while (p < end) {
        char line[LINE];
        gemm_choice c;
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = nl != NULL ? (size_t)(nl - p) : LINE;
        if (n >= LINE)
            return false;
        memcpy(line, p, n);
        line[n] = '\0';
        if (!read_line(&c, line) || gemm_choices_add(t, &c.key, &c.algo) != 0)
            return false;
        p = nl + 1;
    }
    return true;
}

int gemm_choices_parse(gemm_choices *t, const char *text, size_t len)
{
    enum { SUM = 21 }; /* "sum " and 16 digits and a newline */
    char want[SUM + 1];
    size_t head = strlen(heading);
    if (len < head + SUM || memcmp(text, heading, head) != 0)
        return KERN_EINVAL;
    snprintf(want, sizeof want, "sum %016" PRIx64 "\n", checksum(text, len - SUM));
    if (memcmp(text + len - SUM, want, SUM) != 0)
        return KERN_EINVAL;
    size_t before = t->n;
    if (read_body(t, text + head, text + len - SUM))
        return 0;
    t->n = before;
    return KERN_EINVAL;
}

/* ---- the file -------------------------------------------------------------------------------- */

bool gemm_cache_off(void)
{
    const char *s = getenv("HONE_GEMM_CACHE");
    return s != NULL && strcmp(s, "off") == 0;
}

int gemm_cache_path(char *out, size_t cap, const char *card, const char *version)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char name[64];
    size_t n = 0;
    for (; card[n] != '\0' && n < sizeof name - 1; n++)
        name[n] = (char)(isalnum((unsigned char)card[n]) ? card[n] : '-');
    name[n] = '\0';
    int len = -1;
    if (xdg != NULL && xdg[0] == '/') /* the XDG base directory specification: else ignored */
        len = snprintf(out, cap, "%s/hone/gemm-%s-%s.txt", xdg, name, version);
    else if (home != NULL && home[0] == '/')
        len = snprintf(out, cap, "%s/.cache/hone/gemm-%s-%s.txt", home, name, version);
    return len > 0 && (size_t)len < cap ? 0 : KERN_EUNSUPPORTED;
}

void gemm_cache_load(gemm_choices *t, const char *path)
{
    enum { MAX = (GEMM_MAX_CHOICES + 2) * LINE };
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size <= MAX) {
        char *text = malloc((size_t)st.st_size);
        if (text != NULL && read(fd, text, (size_t)st.st_size) == st.st_size)
            (void)gemm_choices_parse(t, text, (size_t)st.st_size);
        free(text);
    }
    close(fd);
}

/* Every directory above the file. */
static void make_parents(const char *path)
{
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", path);
    for (char *p = dir + 1; *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        (void)mkdir(dir, 0700);
        *p = '/';
    }
}

static bool write_whole(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        text += n;
        len -= (size_t)n;
    }
    return fsync(fd) == 0;
}

/* Written beside it and renamed. */
static void replace(const gemm_choices *t, const char *path)
{
    char tmp[1100];
    size_t len;
    char *text = gemm_choices_format(t, &len);
    snprintf(tmp, sizeof tmp, "%s.tmp-%ld", path, (long)getpid());
    int fd = text != NULL ? open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        bool ok = write_whole(fd, text, len);
        if (close(fd) != 0 || !ok || rename(tmp, path) != 0)
            (void)unlink(tmp);
    }
    free(text);
}

int gemm_cache_add(gemm_choices *t, const char *path, const gemm_key *k, const gemm_algo *a)
{
    char lock[1100];
    gemm_choices file = {0};
    make_parents(path);
    snprintf(lock, sizeof lock, "%s.lock", path);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) {
        if (fd >= 0)
            close(fd);
        return gemm_choices_add(t, k, a);
    }
    gemm_cache_load(&file, path);
    const gemm_algo *there = gemm_choices_find(&file, k);
    if (there != NULL)
        a = there;
    else if (gemm_choices_add(&file, k, a) == 0)
        replace(&file, path);
    int rc = gemm_choices_add(t, k, a);
    gemm_choices_free(&file);
    close(fd);
    return rc;
}
