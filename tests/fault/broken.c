/* Writers with one mistake each. The driver must find every one before its verdicts are believed.
 */
#include "core/base/file.h"
#include "core/base/mem.h"
#include "tests/fault/cases.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    IN_PLACE = 1,     /* no temporary file */
    IGNORE_WRITE = 2, /* the result of write() is not looked at */
    NO_SYNC = 4,      /* renamed before it is synced */
    NO_DIR_SYNC = 8,  /* says 0 before the name is on the disk */
    LEAVE = 16,       /* an error leaves the temporary file */
    LEAK = 32,        /* an error leaves the descriptor open */
    SILENT = 64       /* an error without a message */
};

static int failed(const char *tmp, int fd, unsigned mistakes, hone_err *e)
{
    if (!(mistakes & LEAK))
        close(fd);
    if (!(mistakes & (LEAVE | IN_PLACE)))
        unlink(tmp);
    return mistakes & SILENT ? HONE_EIO : file_error(e, tmp, "cannot write");
}

static int sync_dir(const char *dir, unsigned mistakes, hone_err *e)
{
    return mistakes & NO_DIR_SYNC ? 0 : dir_sync(dir, e);
}

static int write_with(const char *dir, unsigned mistakes, hone_err *e)
{
    static const char text[] = "new and longer";
    int rc = 0;
    char *path = path_join(dir, "a"), *tmp = path_join(dir, mistakes & IN_PLACE ? "a" : "a.tmp-1");
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = file_error(e, tmp, "cannot create");
        goto done;
    }
    ssize_t n = write(fd, text, strlen(text));
    if (!(mistakes & IGNORE_WRITE) && n != (ssize_t)strlen(text)) {
        rc = failed(tmp, fd, mistakes, e);
        goto done;
    }
    if (!(mistakes & NO_SYNC) && fsync(fd) != 0) {
        rc = failed(tmp, fd, mistakes, e);
        goto done;
    }
    close(fd);
    if (!(mistakes & IN_PLACE) && rename(tmp, path) != 0) {
        rc = file_error(e, tmp, "cannot rename");
        unlink(tmp);
        goto done;
    }
    rc = sync_dir(dir, mistakes, e);
done:
    free(path);
    free(tmp);
    return rc;
}

static void prepare(const char *dir)
{
    fault_put(dir, "a", "old");
}

static fault_state look(const char *dir)
{
    return fault_holds(dir, "a", "old")              ? FAULT_OLD
           : fault_holds(dir, "a", "new and longer") ? FAULT_NEW
                                                     : FAULT_BROKEN;
}

#define BROKEN(id, mistakes)                                                                       \
    static int act_##id(const char *dir, hone_err *e)                                              \
    {                                                                                              \
        return write_with(dir, mistakes, e);                                                       \
    }                                                                                              \
    static const fault_case case_##id = {                                                          \
        .name = #id, .prepare = prepare, .act = act_##id, .look = look, .durable = true};

/* clang-format off */
BROKEN(in_place, IN_PLACE)
BROKEN(ignores_write, IGNORE_WRITE)
BROKEN(no_sync, NO_SYNC)
BROKEN(no_dir_sync, NO_DIR_SYNC)
BROKEN(leaves_file, LEAVE)
BROKEN(leaks_descriptor, LEAK)
BROKEN(no_message, SILENT)
/* clang-format on */

const fault_case *const fault_broken[] = {
    &case_in_place,    &case_ignores_write,    &case_no_sync,    &case_no_dir_sync,
    &case_leaves_file, &case_leaks_descriptor, &case_no_message, NULL,
};
