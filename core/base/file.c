#include "core/base/file.h"

#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int file_error(hone_err *e, const char *path, const char *verb)
{
    static const struct {
        int system, ours;
    } codes[] = {
        {ENOENT, HONE_ENOTFOUND}, {ENOTDIR, HONE_ENOTFOUND}, {EACCES, HONE_EDENIED},
        {EPERM, HONE_EDENIED},    {EEXIST, HONE_EEXIST},     {ENOTEMPTY, HONE_EEXIST},
        {ENOMEM, HONE_ENOMEM},    {EFBIG, HONE_ELIMIT},
    };
    int why = errno, code = HONE_EIO;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].system == why)
            code = codes[i].ours;
    return hone_fail(e, code, "%s: %s: %s", path, verb, strerror(why));
}

static int read_all(int fd, char *dst, size_t len, size_t *got)
{
    *got = 0;
    while (*got < len) {
        ssize_t n = read(fd, dst + *got, len - *got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        *got += (size_t)n;
    }
    return 0;
}

/* Reads to the end of fd into *p of *cap bytes, which grows up to max + 1. ELIMIT past max: a file
 * may be longer than it was when its size was taken, and /proc says 0. */
static int read_rest(int fd, char **p, size_t *cap, size_t *len, size_t max, const char *path,
                     hone_err *e)
{
    for (;;) {
        size_t got;
        if (read_all(fd, *p + *len, *cap - *len, &got) != 0)
            return file_error(e, path, "cannot read");
        *len += got;
        if (*len < *cap)
            return 0;
        if (*len > max)
            return hone_fail(e, HONE_ELIMIT, "%s: more than %zu bytes", path, max);
        size_t next = *cap < max / 2 ? *cap * 2 : max + 1;
        char *grown = realloc(*p, next);
        if (grown == NULL)
            return hone_fail(e, HONE_ENOMEM, "%s: no memory for %zu bytes", path, next);
        *p = grown;
        *cap = next;
    }
}

int file_read(char **out, size_t *len, const char *path, size_t max, hone_err *e)
{
    int rc = 0;
    struct stat st;
    char *p = NULL;
    *out = NULL;
    *len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_error(e, path, "cannot open");
    if (fstat(fd, &st) != 0) {
        rc = file_error(e, path, "cannot stat");
        goto done;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = hone_fail(e, HONE_EIO, "%s: not a regular file", path);
        goto done;
    }
    if ((uint64_t)st.st_size > max) {
        rc = hone_fail(e, HONE_ELIMIT, "%s: %lld bytes, at most %zu are read", path,
                       (long long)st.st_size, max);
        goto done;
    }
    size_t cap = (size_t)st.st_size + 1, got = 0;
    p = malloc(cap);
    if (p == NULL) {
        rc = hone_fail(e, HONE_ENOMEM, "%s: no memory for %zu bytes", path, cap);
        goto done;
    }
    rc = read_rest(fd, &p, &cap, &got, max, path, e);
    if (rc != 0)
        goto done;
    p[got] = '\0';
    *len = got;
    *out = p;
    p = NULL;
done:
    free(p);
    close(fd);
    return rc;
}

int file_map_open(file_map *m, const char *path, hone_err *e)
{
    struct stat st;
    *m = (file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_error(e, path, "cannot open");
    int rc = 0;
    if (fstat(fd, &st) != 0) {
        rc = file_error(e, path, "cannot stat");
    } else if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        rc = hone_fail(e, HONE_EFORMAT, "%s: %s", path,
                       S_ISREG(st.st_mode) ? "the file is empty" : "not a regular file");
    } else {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = file_error(e, path, "cannot map");
        else
            *m = (file_map){p, (size_t)st.st_size};
    }
    close(fd);
    return rc;
}

void file_map_close(file_map *m)
{
    if (m->data != NULL)
        munmap((void *)m->data, m->len);
    *m = (file_map){0};
}

/* nettle's, which uses the processor's SHA instructions: libsodium's has none and takes ten times
 * as long over a large model. */
static void digest_hex(char out[65], struct sha256_ctx *c)
{
    unsigned char d[SHA256_DIGEST_SIZE];
    sha256_digest(c, sizeof d, d);
    sodium_bin2hex(out, 65, d, sizeof d);
}

void bytes_sha256(char out[65], const void *data, size_t len)
{
    struct sha256_ctx c;
    sha256_init(&c);
    sha256_update(&c, len, data);
    digest_hex(out, &c);
}

int file_sha256(char out[65], const char *path, hone_err *e)
{
    struct sha256_ctx c;
    char chunk[1 << 16];
    size_t got = 0;
    int rc = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_error(e, path, "cannot open");
    sha256_init(&c);
    do {
        if (read_all(fd, chunk, sizeof chunk, &got) != 0) {
            rc = file_error(e, path, "cannot read");
            break;
        }
        sha256_update(&c, got, (const uint8_t *)chunk);
    } while (got == sizeof chunk);
    close(fd);
    digest_hex(out, &c);
    return rc;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool file_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int file_size(int64_t *out, const char *path, hone_err *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return file_error(e, path, "cannot stat");
    *out = st.st_size;
    return 0;
}

int file_remove(const char *path, hone_err *e)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return file_error(e, path, "cannot remove");
    return 0;
}
