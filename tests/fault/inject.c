#include "tests/fault/inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* glibc's allocator under its other names: dlsym itself allocates. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static struct {
    atomic_bool armed, fired;
    atomic_int left; /* calls until the one that fails */
    bool for_ever;
    inject_kind kind;
} plan;

const char *inject_name(inject_kind k)
{
    static const char *const names[] = {
#define INJECT_NAME(id, name, error) name,
        INJECT_KINDS(INJECT_NAME)
#undef INJECT_NAME
    };
    return names[k];
}

void inject_plan(inject_kind k, int nth, bool for_ever)
{
    plan.kind = k;
    plan.for_ever = for_ever;
    plan.left = nth;
}

void inject_on(void)
{
    plan.armed = true;
}

void inject_off(void)
{
    plan.armed = false;
}

bool inject_fired(void)
{
    return plan.fired;
}

/* One call of this kind: must it fail? Sets errno. */
static bool hit(inject_kind k, bool needs_room)
{
    static const int errors[] = {
#define INJECT_ERRNO(id, name, error) error,
        INJECT_KINDS(INJECT_ERRNO)
#undef INJECT_ERRNO
    };
    if (!plan.armed)
        return false;
    bool counts = plan.kind == k || (plan.kind == INJECT_DISK && needs_room) ||
                  (plan.kind == INJECT_KILL && k != INJECT_ALLOC);
    if (!counts)
        return false;
    int left = atomic_fetch_sub(&plan.left, 1);
    if (left > 1 || (left < 1 && !plan.for_ever))
        return false;
    if (plan.kind == INJECT_KILL)
        raise(SIGKILL);
    plan.fired = true;
    errno = errors[plan.kind];
    return true;
}

/* A short write is one that takes half of what it was given; so does the last one on a disk that
 * fills up. */
static size_t shortened(size_t n)
{
    if (!plan.armed || n < 2)
        return n;
    if (plan.kind == INJECT_SHORT_WRITE && hit(INJECT_SHORT_WRITE, false))
        return n / 2;
    if (plan.kind == INJECT_DISK && plan.for_ever && plan.left == 1) {
        hit(INJECT_DISK, false);
        return n / 2;
    }
    return n;
}

/* Files (and directories, for their names) that were changed since they were last synced. */
enum { MAX_DIRTY = 256 };

static struct {
    pthread_mutex_t lock;
    struct {
        dev_t dev;
        ino_t ino;
    } items[MAX_DIRTY];
    size_t n;
    bool renamed_unsynced;
} dirty = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t dirty_at(const struct stat *st)
{
    size_t i = 0;
    while (i < dirty.n && (dirty.items[i].dev != st->st_dev || dirty.items[i].ino != st->st_ino))
        i++;
    return i;
}

static void mark(const struct stat *st, bool changed)
{
    pthread_mutex_lock(&dirty.lock);
    size_t i = dirty_at(st);
    if (changed && i == dirty.n && i < MAX_DIRTY) {
        dirty.items[i].dev = st->st_dev;
        dirty.items[i].ino = st->st_ino;
        dirty.n++;
    } else if (!changed && i < dirty.n) {
        dirty.items[i] = dirty.items[--dirty.n];
    }
    pthread_mutex_unlock(&dirty.lock);
}

static void mark_fd(int fd, bool changed)
{
    struct stat st;
    int why = errno;
    if (plan.armed && fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
        mark(&st, changed);
    errno = why;
}

/* The directory that holds path has a new name in it, or one less. */
static void mark_parent(const char *path)
{
    struct stat st;
    char dir[PATH_MAX];
    int why = errno;
    if (!plan.armed)
        return;
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    snprintf(slash != NULL ? slash + 1 : dir, 2, ".");
    if (stat(dir, &st) == 0)
        mark(&st, true);
    errno = why;
}

static int look_for_dirty(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)path;
    (void)type;
    (void)at;
    pthread_mutex_lock(&dirty.lock);
    if (dirty_at(st) < dirty.n)
        dirty.renamed_unsynced = true;
    pthread_mutex_unlock(&dirty.lock);
    return 0;
}

static void before_rename(const char *from)
{
    int why = errno;
    if (!plan.armed)
        return;
    plan.armed = false; /* the walk must not meet faults */
    nftw(from, look_for_dirty, 16, FTW_PHYS);
    plan.armed = true;
    errno = why;
}

bool inject_renamed_unsynced(void)
{
    return dirty.renamed_unsynced;
}

bool inject_unsynced(void)
{
    return dirty.n != 0;
}

static ssize_t wrote(int fd, ssize_t n)
{
    if (n > 0)
        mark_fd(fd, true);
    return n;
}

static int synced(int fd, int rc)
{
    if (rc == 0)
        mark_fd(fd, false);
    return rc;
}

static int named(const char *path, int rc)
{
    if (rc == 0)
        mark_parent(path);
    return rc;
}

/* Seen from the libraries, so that their calls come here. */
#pragma GCC visibility push(default)

void *malloc(size_t n)
{
    return hit(INJECT_ALLOC, false) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return hit(INJECT_ALLOC, false) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return hit(INJECT_ALLOC, false) ? NULL : __libc_realloc(p, n);
}

/* REAL(write) is libc's own. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;               \
        va_end(ap);                                                                                \
        if (hit(INJECT_OPEN, (flags & O_CREAT) != 0))                                              \
            return -1;                                                                             \
        bool new = (flags & O_CREAT) != 0 && plan.armed &&access(path, F_OK) != 0;                 \
        int fd = REAL(name)(path, flags, mode);                                                    \
        if (new &&fd >= 0)                                                                         \
            mark_parent(path);                                                                     \
        return fd;                                                                                 \
    }

/* `before` runs ahead of the real call, `after` takes its result. */
#define CALL(type, name, kind, room, params, before, after)                                        \
    type name params                                                                               \
    {                                                                                              \
        if (hit(INJECT_##kind, room))                                                              \
            return (type)-1;                                                                       \
        before;                                                                                    \
        return after;                                                                              \
    }

/* close() closes even where it reports an error. */
int close(int fd)
{
    bool fails = hit(INJECT_CLOSE, false);
    int why = errno, rc = REAL(close)(fd);
    if (!fails)
        return rc;
    errno = why;
    return -1;
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t from)
{
    return hit(INJECT_MAP, false) ? MAP_FAILED : REAL(mmap)(at, n, prot, flags, fd, from);
}

/* clang-format off */
#define R(name, ...) REAL(name)(__VA_ARGS__)
OPEN(open)
OPEN(open64)
CALL(ssize_t, read, READ, 0, (int fd, void *p, size_t n), , R(read, fd, p, n))
CALL(ssize_t, pread, READ, 0, (int fd, void *p, size_t n, off_t at), , R(pread, fd, p, n, at))
CALL(ssize_t, pread64, READ, 0, (int fd, void *p, size_t n, off64_t at), , R(pread64, fd, p, n, at))
CALL(ssize_t, write, WRITE, 1, (int fd, const void *p, size_t n), n = shortened(n),
     wrote(fd, R(write, fd, p, n)))
CALL(ssize_t, pwrite, WRITE, 1, (int fd, const void *p, size_t n, off_t at), n = shortened(n),
     wrote(fd, R(pwrite, fd, p, n, at)))
CALL(ssize_t, pwrite64, WRITE, 1, (int fd, const void *p, size_t n, off64_t at), n = shortened(n),
     wrote(fd, R(pwrite64, fd, p, n, at)))
CALL(int, fsync, SYNC, 0, (int fd), , synced(fd, R(fsync, fd)))
CALL(int, fdatasync, SYNC, 0, (int fd), , synced(fd, R(fdatasync, fd)))
CALL(int, rename, RENAME, 1, (const char *a, const char *b), before_rename(a),
     named(b, R(rename, a, b)))
CALL(int, renameat2, RENAME, 1, (int da, const char *a, int db, const char *b, unsigned flags),
     before_rename(a), named(b, R(renameat2, da, a, db, b, flags)))
CALL(int, mkdir, MKDIR, 1, (const char *path, mode_t mode), , named(path, R(mkdir, path, mode)))
CALL(int, ftruncate, TRUNCATE, 0, (int fd, off_t n), , R(ftruncate, fd, n))
CALL(int, ftruncate64, TRUNCATE, 0, (int fd, off64_t n), , R(ftruncate64, fd, n))
CALL(int, unlink, UNLINK, 0, (const char *path), , R(unlink, path))
/* clang-format on */
#pragma GCC visibility pop
