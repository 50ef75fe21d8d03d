#include "core/base/trust.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LOCK_BYTES = 1 << 20, HEX_DIGEST = 64 };

/* ---- who may have written it ---- */

static int check_hands(const struct stat *st, const char *what, const char *path, hone_err *e)
{
    if (st->st_uid != geteuid() && st->st_uid != 0)
        return hone_fail(e, HONE_EDENIED,
                         "%s: the %s belongs to user %u, must belong to user %u or root", path,
                         what, (unsigned)st->st_uid, (unsigned)geteuid());
    if ((st->st_mode & S_IWOTH) != 0)
        return hone_fail(e, HONE_EDENIED, "%s: anyone may write the %s (mode %04o): chmod o-w",
                         path, what, (unsigned)st->st_mode & 07777);
    if ((st->st_mode & S_IWGRP) != 0)
        return hone_fail(e, HONE_EDENIED, "%s: its group may write the %s (mode %04o): chmod g-w",
                         path, what, (unsigned)st->st_mode & 07777);
    return 0;
}

/* The real folder and the name in it; a link as the last step is not followed. */
static int resolve(char **out, const char *dir, const char *path, hone_err *e)
{
    char *full = path[0] == '/' || dir == NULL ? mem_strdup(path) : path_join(dir, path);
    char *folder = path_dir(full), real[PATH_MAX];
    int rc = 0;
    if (path_base(full)[0] == '\0')
        rc = hone_fail(e, HONE_EINVAL, "%s: names a folder, not a file", full);
    else if (realpath(folder, real) == NULL)
        rc = file_error(e, full, "cannot find");
    else
        *out = path_join(strcmp(real, "/") == 0 ? "" : real, path_base(full));
    free(folder);
    free(full);
    return rc;
}

static int check_folder(const char *path, hone_err *e)
{
    struct stat st;
    char *folder = path_dir(path);
    int rc = stat(folder, &st) != 0 ? file_error(e, folder, "cannot look at")
                                    : check_hands(&st, "folder", folder, e);
    free(folder);
    return rc;
}

static int open_plain(trust_file *f, struct stat *st, hone_err *e)
{
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (f->fd < 0 && errno == ELOOP)
        return hone_fail(e, HONE_EDENIED, "%s: is a symbolic link; name the file itself", f->path);
    if (f->fd < 0)
        return file_error(e, f->path, "cannot open");
    if (fstat(f->fd, st) != 0)
        return file_error(e, f->path, "cannot look at");
    if (!S_ISREG(st->st_mode))
        return hone_fail(e, HONE_EDENIED, "%s: is not a regular file", f->path);
    if (st->st_size > TRUST_MAX_BYTES)
        return hone_fail(e, HONE_ELIMIT, "%s: %lld bytes, at most %d", f->path,
                         (long long)st->st_size, TRUST_MAX_BYTES);
    return 0;
}

static int read_all(trust_file *f, size_t size, hone_err *e)
{
    f->data = mem_try(size + 1);
    if (f->data == NULL)
        return hone_fail(e, HONE_ENOMEM, "%s: no memory for %zu bytes", f->path, size);
    while (f->len < size) {
        ssize_t n = pread(f->fd, f->data + f->len, size - f->len, (off_t)f->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_error(e, f->path, "cannot read");
        if (n == 0)
            return hone_fail(e, HONE_EIO, "%s: became shorter while it was read", f->path);
        f->len += (size_t)n;
    }
    bytes_sha256(f->sha256, f->data, f->len);
    return 0;
}

int trust_open(trust_file *out, const char *dir, const char *path, hone_err *e)
{
    struct stat st;
    *out = (trust_file){.fd = -1};
    int rc = resolve(&out->path, dir, path, e);
    if (rc == 0)
        rc = open_plain(out, &st, e);
    if (rc == 0)
        rc = check_hands(&st, "file", out->path, e);
    if (rc == 0)
        rc = check_folder(out->path, e);
    if (rc == 0)
        rc = read_all(out, (size_t)st.st_size, e);
    if (rc != 0)
        trust_close(out);
    return rc;
}

void trust_close(trust_file *f)
{
    if (f->path != NULL && f->fd >= 0)
        close(f->fd);
    free(f->path);
    free(f->data);
    *f = (trust_file){.fd = -1};
}

/* ---- is it what was approved ---- */

static bool is_hex(const char *s, size_t n)
{
    return strlen(s) == n && strspn(s, "0123456789abcdef") == n;
}

static int same_digest(const trust_file *f, const char *want, const char *from, hone_err *e)
{
    if (!is_hex(want, HEX_DIGEST))
        return hone_fail(e, HONE_EINVAL, "%s: '%s' of %s is no SHA-256 (64 hex digits)", f->path,
                         want, from);
    if (strcmp(want, f->sha256) != 0)
        return hone_fail(e, HONE_EDENIED, "%s: its SHA-256 is %s, but %s says %s", f->path,
                         f->sha256, from, want);
    return 0;
}

static int check_signature(const trust_file *f, const char *key_hex, hone_err *e)
{
    unsigned char key[crypto_sign_PUBLICKEYBYTES], sig[crypto_sign_BYTES];
    char *text = NULL, *path = mem_printf("%s.sig", f->path);
    char *signed_text = mem_printf("hone-plugin-v1:%s", f->sha256);
    size_t len, n = 0;
    int rc = file_read(&text, &len, path, 4096, e);
    if (rc == 0)
        text[strcspn(text, " \r\n")] = '\0';
    if (rc == 0 && (!is_hex(key_hex, 2 * sizeof key) ||
                    sodium_hex2bin(key, sizeof key, key_hex, 2 * sizeof key, NULL, &n, NULL) != 0))
        rc =
            hone_fail(e, HONE_EINVAL, "signed_by: '%s' is no Ed25519 key (64 hex digits)", key_hex);
    if (rc == 0 && (!is_hex(text, 2 * sizeof sig) ||
                    sodium_hex2bin(sig, sizeof sig, text, 2 * sizeof sig, NULL, &n, NULL) != 0))
        rc = hone_fail(e, HONE_EFORMAT, "%s: is no Ed25519 signature (128 hex digits)", path);
    if (rc == 0 && crypto_sign_verify_detached(sig, (const unsigned char *)signed_text,
                                               strlen(signed_text), key) != 0)
        rc = hone_fail(e, HONE_EDENIED, "%s: was not signed by %s", f->path, key_hex);
    free(signed_text);
    free(path);
    free(text);
    return rc;
}

/* One line of the lock: its digest (in place) and its path, as ours are. False, *path NULL, for a
 * line of another shape (a comment, an empty one). */
static bool parse_line(char *line, const char *folder, char **path)
{
    *path = NULL;
    if (strlen(line) < HEX_DIGEST + 3 || line[HEX_DIGEST] != ' ')
        return false;
    line[HEX_DIGEST] = '\0';
    const char *name = line + HEX_DIGEST + 2; /* sha256sum writes two spaces, or " *" */
    char *full = name[0] == '/' ? mem_strdup(name) : path_join(folder, name);
    char *real = realpath(full, NULL);
    *path = real != NULL ? real : full;
    if (real != NULL)
        free(full);
    return true;
}

static char *real_folder(const char *lock)
{
    char *folder = path_dir(lock), *real = realpath(folder, NULL);
    if (real == NULL)
        return folder;
    free(folder);
    return real;
}

static int read_lock(char **text, const char *lock, hone_err *e)
{
    size_t len;
    struct stat st;
    *text = NULL;
    if (lstat(lock, &st) != 0 && errno == ENOENT)
        return 0;
    int rc = check_hands(&st, "file", lock, e);
    return rc == 0 ? file_read(text, &len, lock, MAX_LOCK_BYTES, e) : rc;
}

/* *found: the lock names this file. */
static int check_lock(const trust_file *f, const char *lock, bool *found, hone_err *e)
{
    char *text, *rest = NULL, *path;
    char *folder = real_folder(lock);
    int rc = read_lock(&text, lock, e);
    *found = false;
    for (char *line = text != NULL ? strtok_r(text, "\n", &rest) : NULL; rc == 0 && line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        if (parse_line(line, folder, &path) && strcmp(path, f->path) == 0) {
            *found = true;
            rc = same_digest(f, line, lock, e);
        }
        free(path);
    }
    free(folder);
    free(text);
    return rc;
}

int trust_check(const trust_file *f, const trust_rule *r, hone_err *e)
{
    bool locked = false;
    int rc = 0;
    if (r->sha256 != NULL)
        rc = same_digest(f, r->sha256, "the settings file", e);
    if (rc == 0 && r->signed_by != NULL)
        rc = check_signature(f, r->signed_by, e);
    if (rc == 0 && r->lock != NULL && !r->unpinned)
        rc = check_lock(f, r->lock, &locked, e);
    if (rc != 0 || r->sha256 != NULL || r->signed_by != NULL || locked || r->bundled || r->unpinned)
        return rc;
    return hone_fail(e, HONE_EDENIED,
                     "%s: nothing approves it (its SHA-256 is %s): read it, then run `hone plugin "
                     "pin` on the settings file",
                     f->path, f->sha256);
}

int trust_pin(const trust_file *f, const char *lock, hone_err *e)
{
    char *text, *rest = NULL, *path, *folder = real_folder(lock);
    size_t n = strlen(folder);
    buf b;
    buf_init(&b, MAX_LOCK_BYTES);
    int rc = read_lock(&text, lock, e);
    for (char *line = text != NULL ? strtok_r(text, "\n", &rest) : NULL; rc == 0 && line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *kept = mem_strdup(line);
        if (!parse_line(line, folder, &path) || strcmp(path, f->path) != 0)
            buf_printf(&b, "%s\n", kept);
        free(path);
        free(kept);
    }
    bool below = strncmp(f->path, folder, n) == 0 && f->path[n] == '/';
    buf_printf(&b, "%s  %s\n", f->sha256, below ? f->path + n + 1 : f->path);
    if (rc == 0)
        rc = buf_check(&b, lock, e);
    if (rc == 0)
        rc = file_write(lock, b.data, b.len, e);
    buf_free(&b);
    free(text);
    free(folder);
    return rc;
}
