#include "plugins/image.h"

#include "core/base/file.h"
#include "core/base/mem.h"
#include "plugins/crash.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Sizes of 1.0: no plugin has less. */
enum { MIN_DESCRIPTOR = 88, MIN_SETTING = 56, MAX_SETTINGS = 256, MAX_NAME = 63 };

_Static_assert(sizeof(hone_setting) >= MIN_SETTING, "a setting never shrinks");
_Static_assert(sizeof(hone_descriptor) >= MIN_DESCRIPTOR, "a descriptor never shrinks");

/* The descriptor in memory of the bytes; it stays open, as the name must never mean another file to
 * the dynamic linker. */
static int memory_file(int *fd, const trust_file *f, hone_err *e)
{
    *fd = memfd_create(path_base(f->path), MFD_CLOEXEC);
    if (*fd < 0)
        return file_error(e, f->path, "cannot copy into memory");
    for (size_t at = 0; at < f->len;) {
        ssize_t n = write(*fd, f->data + at, f->len - at);
        if (n < 0 && errno != EINTR)
            return file_error(e, f->path, "cannot copy into memory");
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int check_numbers(const hone_descriptor *d, hone_err *e)
{
    if (d->struct_size < MIN_DESCRIPTOR)
        return hone_fail(e, HONE_EUNSUPPORTED, "struct_size of its descriptor is %u, at least %d",
                         d->struct_size, MIN_DESCRIPTOR);
    if (d->magic != HONE_PLUGIN_MAGIC)
        return hone_fail(e, HONE_EUNSUPPORTED, "magic is 0x%08x, must be 0x%08x", d->magic,
                         HONE_PLUGIN_MAGIC);
    if (d->abi_major != HONE_ABI_MAJOR)
        return hone_fail(e, HONE_EUNSUPPORTED, "abi_major: needs ABI %u.%u, host has %d.%d",
                         d->abi_major, d->abi_minor, HONE_ABI_MAJOR, HONE_ABI_MINOR);
    if (d->abi_minor > HONE_ABI_MINOR)
        return hone_fail(e, HONE_EUNSUPPORTED, "abi_minor: needs ABI %u.%u, host has %d.%d",
                         d->abi_major, d->abi_minor, HONE_ABI_MAJOR, HONE_ABI_MINOR);
    if (d->n_settings > MAX_SETTINGS)
        return hone_fail(e, HONE_EFORMAT, "n_settings is %u, at most %d", d->n_settings,
                         MAX_SETTINGS);
    if (d->n_settings > 0 && (d->settings == NULL || d->setting_size < MIN_SETTING))
        return hone_fail(e, HONE_EUNSUPPORTED, "setting_size is %u, at least %d",
                         d->settings != NULL ? d->setting_size : 0, MIN_SETTING);
    return 0;
}

static int check_words(const hone_descriptor *d, hone_err *e)
{
    const char *texts[] = {d->name, d->version, d->license, d->summary};
    static const char *const fields[] = {"name", "version", "license", "summary"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i] == NULL || texts[i][0] == '\0')
            return hone_fail(e, HONE_EFORMAT, "%s of its descriptor is missing", fields[i]);
    size_t n = strlen(d->name);
    if (n > MAX_NAME || strspn(d->name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != n)
        return hone_fail(e, HONE_EFORMAT, "name is '%.80s', must be [a-z0-9_-], at most %d",
                         d->name, MAX_NAME);
    if (d->init == NULL)
        return hone_fail(e, HONE_EFORMAT, "init of its descriptor is missing");
    return 0;
}

static int read_descriptor(hone_descriptor *out, const hone_descriptor *theirs, hone_err *e)
{
    uint32_t size = theirs != NULL ? theirs->struct_size : 0;
    memset(out, 0, sizeof *out);
    out->struct_size = size;
    if (size >= MIN_DESCRIPTOR)
        memcpy(out, theirs, size < sizeof *out ? size : sizeof *out);
    int rc = check_numbers(out, e);
    return rc == 0 ? check_words(out, e) : rc;
}

/* What runs of the plugin before it can be asked anything. Of one that hangs it stays. */
typedef struct loading {
    char file[128]; /* what the messages call it */
    char path[64];  /* of the bytes in memory */
    char why[512];  /* the linker's */
    void *handle;
    hone_descriptor_fn *describe;
    const hone_descriptor *theirs;
} loading;

/* The linker's message, without the name that only this process knows. */
static void keep_message(loading *l)
{
    const char *s = dlerror(); /* of this thread */
    const char *colon = s != NULL ? strstr(s, ": ") : NULL;
    s = s == NULL ? "unknown error" : strncmp(s, "/proc/", 6) == 0 && colon ? colon + 2 : s;
    snprintf(l->why, sizeof l->why, "%s", s);
}

static void enter_load(void *arg)
{
    loading *l = arg;
    crash_place before = crash_enter(l->file, "its constructors");
    l->handle = dlopen(l->path, RTLD_NOW | RTLD_LOCAL);
    crash_leave(before);
    if (l->handle == NULL)
        keep_message(l);
}

static void enter_describe(void *arg)
{
    loading *l = arg;
    crash_place before = crash_enter(l->file, "its descriptor");
    l->theirs = l->describe();
    crash_leave(before);
}

/* exit() would wait for the linker, which waits for the constructor. */
static void leave(int status, void *arg)
{
    (void)arg;
    fflush(NULL);
    _exit(status);
}

static int load(loading *l, runner *r, hone_err *e)
{
    int rc = runner_call(r, enter_load, l, 0, e);
    if (rc == HONE_ETIMEOUT)
        on_exit(leave, NULL);
    if (rc != 0)
        return hone_fail_at(e, "its constructors");
    if (l->handle == NULL)
        return hone_fail(e, HONE_EFORMAT, "cannot be loaded: %s", l->why);
    void *symbol = dlsym(l->handle, "hone_plugin_descriptor_v1");
    if (symbol == NULL)
        return hone_fail(e, HONE_EFORMAT,
                         "is no plugin: it does not export hone_plugin_descriptor_v1");
    memcpy(&l->describe, &symbol, sizeof l->describe); /* ISO C has no cast for it */
    rc = runner_call(r, enter_describe, l, 0, e);
    return rc == 0 ? 0 : hone_fail_at(e, "its descriptor");
}

int image_open(hone_descriptor *d, const trust_file *f, runner *r, hone_err *e)
{
    int fd = -1, rc = memory_file(&fd, f, e);
    if (rc != 0) {
        close(fd);
        return rc;
    }
    loading *l = mem_alloc(sizeof *l);
    snprintf(l->file, sizeof l->file, "%s", path_base(f->path));
    snprintf(l->path, sizeof l->path, "/proc/self/fd/%d", fd);
    crash_watch();
    rc = load(l, r, e);
    if (rc == 0)
        rc = read_descriptor(d, l->theirs, e);
    if (rc != HONE_ETIMEOUT && l->handle == NULL)
        close(fd);
    if (rc != HONE_ETIMEOUT)
        free(l);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", f->path);
}

hone_setting image_setting(const hone_descriptor *d, uint32_t i)
{
    hone_setting s = {0};
    const char *at = (const char *)d->settings + (size_t)i * d->setting_size;
    memcpy(&s, at, d->setting_size < sizeof s ? d->setting_size : sizeof s);
    return s;
}
