#include "core/base/file.h"

#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int file_error(hone_err *e, const char *path, const char *verb)
{
    int code = errno == ENOENT ? HONE_ENOTFOUND : errno == EACCES ? HONE_EDENIED : HONE_EIO;
    return hone_fail(e, code, "%s: %s: %s", path, verb, strerror(errno));
}

static int write_all(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        len -= (size_t)n;
    }
    return 0;
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
    p = mem_try((size_t)st.st_size + 1);
    if (p == NULL) {
        rc = hone_fail(e, HONE_ENOMEM, "%s: no memory for %lld bytes", path,
                       (long long)st.st_size);
        goto done;
    }
    if (read_all(fd, p, (size_t)st.st_size, len) != 0) {
        rc = file_error(e, path, "cannot read");
        goto done;
    }
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

struct file_out {
    char *path, *tmp;
    int fd;
};

int file_out_open(file_out **out, const char *path, unsigned mode, hone_err *e)
{
    *out = NULL;
    file_out *f = mem_alloc(sizeof *f);
    f->path = mem_strdup(path);
    f->tmp = mem_printf("%s.tmp-%d", path, (int)getpid());
    f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, (mode_t)mode);
    if (f->fd < 0) {
        int rc = file_error(e, f->tmp, "cannot create");
        free(f->path);
        free(f->tmp);
        free(f);
        return rc;
    }
    *out = f;
    return 0;
}

int file_out_write(file_out *f, const void *data, size_t len, hone_err *e)
{
    return write_all(f->fd, data, len) == 0 ? 0 : file_error(e, f->path, "cannot write");
}

static void file_out_free(file_out *f)
{
    free(f->path);
    free(f->tmp);
    free(f);
}

int file_out_commit(file_out *f, hone_err *e)
{
    int rc = 0;
    if (fsync(f->fd) != 0)
        rc = file_error(e, f->path, "cannot sync");
    if (close(f->fd) != 0 && rc == 0)
        rc = file_error(e, f->path, "cannot close");
    if (rc == 0 && rename(f->tmp, f->path) != 0)
        rc = file_error(e, f->path, "cannot rename into place");
    if (rc != 0) {
        unlink(f->tmp);
    } else {
        char *dir = path_dir(f->path);
        rc = dir_sync(dir, e);
        free(dir);
    }
    file_out_free(f);
    return rc;
}

void file_out_abort(file_out *f)
{
    if (f == NULL)
        return;
    close(f->fd);
    unlink(f->tmp);
    file_out_free(f);
}

int file_write(const char *path, const void *data, size_t len, hone_err *e)
{
    file_out *f;
    int rc = file_out_open(&f, path, 0644, e);
    if (rc != 0)
        return rc;
    rc = file_out_write(f, data, len, e);
    if (rc != 0) {
        file_out_abort(f);
        return rc;
    }
    return file_out_commit(f, e);
}

int file_append(const char *path, const void *data, size_t len, bool sync, hone_err *e)
{
    int rc = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return file_error(e, path, "cannot open");
    if (write_all(fd, data, len) != 0)
        rc = file_error(e, path, "cannot write");
    else if (sync && fdatasync(fd) != 0)
        rc = file_error(e, path, "cannot sync");
    if (close(fd) != 0 && rc == 0)
        rc = file_error(e, path, "cannot close");
    return rc;
}

void bytes_sha256(char out[65], const void *data, size_t len)
{
    unsigned char d[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(d, data, len);
    sodium_bin2hex(out, 65, d, sizeof d);
}

int file_sha256(char out[65], const char *path, hone_err *e)
{
    crypto_hash_sha256_state st;
    unsigned char d[crypto_hash_sha256_BYTES];
    char chunk[1 << 16];
    size_t got = 0;
    int rc = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_error(e, path, "cannot open");
    crypto_hash_sha256_init(&st);
    do {
        if (read_all(fd, chunk, sizeof chunk, &got) != 0) {
            rc = file_error(e, path, "cannot read");
            break;
        }
        crypto_hash_sha256_update(&st, (unsigned char *)chunk, got);
    } while (got == sizeof chunk);
    close(fd);
    crypto_hash_sha256_final(&st, d);
    sodium_bin2hex(out, 65, d, sizeof d);
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

int file_copy(const char *from, const char *to, hone_err *e)
{
    char chunk[1 << 16];
    size_t got = 0;
    file_out *f = NULL;
    int rc;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_error(e, from, "cannot open");
    rc = file_out_open(&f, to, 0644, e);
    while (rc == 0) {
        if (read_all(fd, chunk, sizeof chunk, &got) != 0)
            rc = file_error(e, from, "cannot read");
        else if (got == 0)
            break;
        else
            rc = file_out_write(f, chunk, got, e);
    }
    close(fd);
    if (rc == 0)
        return file_out_commit(f, e);
    file_out_abort(f);
    return rc;
}

int file_remove(const char *path, hone_err *e)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return file_error(e, path, "cannot remove");
    return 0;
}
