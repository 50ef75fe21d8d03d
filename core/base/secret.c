#include "core/base/secret.h"

#include "core/base/file.h"
#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* link() fails where the name stands, so the first process wins and the others read what it wrote.
 */
static int make(const char *path, const char *dir, hone_err *e)
{
    unsigned char bytes[SECRET_BYTES];
    char *tmp = mem_printf("%s.tmp-%d-%08x", path, (int)getpid(), randombytes_random());
    int rc = 0;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = file_error(e, tmp, "cannot create");
        free(tmp);
        return rc;
    }
    randombytes_buf(bytes, sizeof bytes);
    if (write(fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes || fsync(fd) != 0)
        rc = file_error(e, tmp, "cannot write");
    close(fd);
    sodium_memzero(bytes, sizeof bytes);
    if (rc == 0 && link(tmp, path) != 0 && errno != EEXIST)
        rc = file_error(e, path, "cannot create");
    unlink(tmp);
    free(tmp);
    return rc == 0 ? dir_sync(dir, e) : rc;
}

static int load(unsigned char out[SECRET_BYTES], const char *path, hone_err *e)
{
    unsigned char bytes[SECRET_BYTES + 1];
    struct stat st;
    ssize_t n = 0;
    int rc = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return file_error(e, path, "cannot open");
    if (fstat(fd, &st) != 0)
        rc = file_error(e, path, "cannot stat");
    else if ((st.st_mode & 077) != 0)
        rc = hone_fail(e, HONE_EDENIED, "%s: mode %03o, others may read it; chmod 600", path,
                       (unsigned)st.st_mode & 0777);
    else if ((n = read(fd, bytes, sizeof bytes)) < 0)
        rc = file_error(e, path, "cannot read");
    else if (n != SECRET_BYTES)
        rc = hone_fail(e, HONE_EFORMAT, "%s: not %d bytes long", path, SECRET_BYTES);
    close(fd);
    for (size_t i = 0; rc == 0 && i < SECRET_BYTES; i++)
        out[i] = bytes[i];
    sodium_memzero(bytes, sizeof bytes);
    return rc;
}

int secret_load(unsigned char out[SECRET_BYTES], const char *dir, const char *name, hone_err *e)
{
    char *path = path_join(dir, name);
    int rc = file_exists(path) ? 0 : make(path, dir, e);
    if (rc == 0)
        rc = load(out, path, e);
    free(path);
    return rc;
}
