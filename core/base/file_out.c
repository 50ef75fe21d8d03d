/* The writes of file.h: complete, or as if they had not been tried. */
#include "core/base/file.h"
#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n == 0 ? EIO : errno; /* nothing taken and no reason: do not try for ever */
            return -1;
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

struct file_out {
    char *path, *tmp;
    int fd;
    bool failed; /* a write did: what is there must never be put into place */
};

/* A name beside path that nobody else has, whichever process or thread asks. */
static int open_beside(char *tmp, const char *path, size_t cap, mode_t mode)
{
    enum { TRIES = 100 };
    for (int i = 0; i < TRIES; i++) {
        snprintf(tmp, cap, "%s.tmp-%08x", path, randombytes_random());
        int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

static void file_out_free(file_out *f)
{
    free(f->path);
    free(f->tmp);
    free(f);
}

int file_out_open(file_out **out, const char *path, unsigned mode, hone_err *e)
{
    enum { SUFFIX_BYTES = 16 };
    *out = NULL;
    size_t cap = strlen(path) + SUFFIX_BYTES;
    file_out *f = mem_alloc(sizeof *f);
    f->path = mem_strdup(path);
    f->tmp = mem_alloc(cap);
    f->fd = open_beside(f->tmp, path, cap, (mode_t)mode);
    if (f->fd < 0) {
        int rc = file_error(e, path, "cannot create");
        file_out_free(f);
        return rc;
    }
    *out = f;
    return 0;
}

int file_out_write(file_out *f, const void *data, size_t len, hone_err *e)
{
    if (!f->failed && write_all(f->fd, data, len) == 0)
        return 0;
    if (f->failed)
        return hone_fail(e, HONE_EIO, "%s: an earlier write failed", f->path);
    f->failed = true;
    return file_error(e, f->path, "cannot write");
}

/* Opened before the rename, so that all that can fail after it is the disk itself. */
static int open_dir_of(const char *path)
{
    char *dir = path_dir(path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int why = errno;
    free(dir);
    errno = why;
    return fd;
}

static int put_into_place(file_out *f, hone_err *e)
{
    int rc = 0;
    int dir = open_dir_of(f->path);
    if (dir < 0)
        return file_error(e, f->path, "cannot open its directory");
    if (rename(f->tmp, f->path) != 0)
        rc = file_error(e, f->path, "cannot rename into place");
    else if (fsync(dir) != 0)
        rc = file_error(e, f->path, "cannot sync its directory");
    close(dir);
    return rc;
}

int file_out_commit(file_out *f, hone_err *e)
{
    int rc = 0;
    if (f->failed)
        rc = hone_fail(e, HONE_EIO, "%s: an earlier write failed", f->path);
    else if (fsync(f->fd) != 0)
        rc = file_error(e, f->path, "cannot sync");
    if (close(f->fd) != 0 && rc == 0)
        rc = file_error(e, f->path, "cannot close");
    if (rc == 0)
        rc = put_into_place(f, e);
    if (rc != 0)
        unlink(f->tmp); /* gone already where only the last sync failed */
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

/* With the permission of another file, which the umask has no say in. */
static int open_like(file_out **out, const char *path, const struct stat *other, hone_err *e)
{
    mode_t mode = other->st_mode & 0777;
    int rc = file_out_open(out, path, mode, e);
    if (rc == 0 && fchmod((*out)->fd, mode) != 0) {
        rc = file_error(e, path, "cannot set the permission of");
        file_out_abort(*out);
        *out = NULL;
    }
    return rc;
}

int file_write(const char *path, const void *data, size_t len, hone_err *e)
{
    struct stat st;
    file_out *f;
    int rc = stat(path, &st) == 0 ? open_like(&f, path, &st, e) : file_out_open(&f, path, 0644, e);
    if (rc != 0)
        return rc;
    rc = file_out_write(f, data, len, e);
    if (rc != 0) {
        file_out_abort(f);
        return rc;
    }
    return file_out_commit(f, e);
}

/* rename() that never replaces. A file system without RENAME_NOREPLACE gets a look and a rename. */
static int rename_to_free(const char *from, const char *to)
{
    struct stat st;
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    if (lstat(to, &st) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

int dir_rename(const char *from, const char *to, hone_err *e)
{
    int rc = file_is_dir(from) ? dir_sync(from, e) : 0;
    if (rc != 0)
        return rc;
    int dir = open_dir_of(to);
    if (dir < 0)
        return file_error(e, to, "cannot open its directory");
    if (rename_to_free(from, to) != 0)
        rc = errno == EEXIST ? hone_fail(e, HONE_EEXIST, "%s: exists already", to)
                             : file_error(e, to, "cannot rename into place");
    else if (fsync(dir) != 0)
        rc = file_error(e, to, "cannot sync its directory");
    close(dir);
    return rc;
}

/* Writes the lines at the end of fd, `size` bytes long; after an error the file has that size
 * again. */
static int append_at(int fd, off_t size, const void *data, size_t len, bool sync, const char *path,
                     hone_err *e)
{
    int rc = 0;
    char last = '\n', *joined = NULL;
    if (size > 0 && pread(fd, &last, 1, size - 1) != 1)
        return file_error(e, path, "cannot read");
    if (last != '\n') { /* a line that a crash cut short stays a line of its own */
        joined = mem_array(len + 1, 1);
        joined[0] = '\n';
        memcpy(joined + 1, data, len++);
        data = joined;
    }
    if (write_all(fd, data, len) != 0)
        rc = file_error(e, path, "cannot write");
    else if (sync && fdatasync(fd) != 0)
        rc = file_error(e, path, "cannot sync");
    if (rc != 0 && ftruncate(fd, size) != 0)
        hone_fail_at(e, "%s: a part of a line may be left at its end", path);
    free(joined);
    return rc;
}

int file_append(const char *path, const void *data, size_t len, bool sync, hone_err *e)
{
    int rc = 0;
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return file_error(e, path, "cannot open");
    if (fstat(fd, &st) != 0)
        rc = file_error(e, path, "cannot stat");
    if (rc == 0 && sync && st.st_size == 0) { /* the name of a new file must last too */
        char *dir = path_dir(path);
        rc = dir_sync(dir, e);
        free(dir);
    }
    if (rc == 0)
        rc = append_at(fd, st.st_size, data, len, sync, path, e);
    close(fd); /* too late to take the lines back: whoever must know asks for sync */
    return rc;
}

int file_copy(const char *from, const char *to, hone_err *e)
{
    char chunk[1 << 16];
    struct stat st;
    file_out *f = NULL;
    int rc;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_error(e, from, "cannot open");
    if (fstat(fd, &st) != 0)
        rc = file_error(e, from, "cannot stat");
    else
        rc = open_like(&f, to, &st, e);
    while (rc == 0) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n == 0)
            break;
        if (n > 0)
            rc = file_out_write(f, chunk, (size_t)n, e);
        else if (errno != EINTR)
            rc = file_error(e, from, "cannot read");
    }
    close(fd);
    if (rc == 0)
        return file_out_commit(f, e);
    file_out_abort(f);
    return rc;
}
