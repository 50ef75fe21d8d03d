/* The directory verbs of file.h. */
#include "core/base/file.h"
#include "core/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int sync_parent(const char *path, hone_err *e)
{
    char *dir = path_dir(path);
    int rc = dir_sync(dir, e);
    free(dir);
    return rc;
}

static int make_one(const char *path, hone_err *e)
{
    if (mkdir(path, 0755) == 0)
        return sync_parent(path, e);
    return errno == EEXIST ? 0 : file_error(e, path, "cannot make the directory");
}

int dir_make(const char *path, hone_err *e)
{
    char *p = mem_strdup(path);
    int rc = 0;
    for (size_t i = 1; rc == 0 && *p != '\0'; i++) {
        char c = p[i];
        if (c != '/' && c != '\0')
            continue;
        p[i] = '\0';
        rc = make_one(p, e);
        p[i] = c;
        if (c == '\0')
            break;
    }
    if (rc == 0 && !file_is_dir(path))
        rc = hone_fail(e, HONE_EIO, "%s: not a directory", path);
    free(p);
    return rc;
}

int dir_sync(const char *path, hone_err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return file_error(e, path, "cannot open");
    int rc = fsync(fd) == 0 ? 0 : file_error(e, path, "cannot sync");
    close(fd);
    return rc;
}

int dir_remove(const char *path, hone_err *e)
{
    char **names;
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? 0 : file_error(e, path, "cannot stat");
    if (!S_ISDIR(st.st_mode))
        return file_remove(path, e);
    int rc = dir_list(&names, path, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        char *child = path_join(path, names[i]);
        rc = dir_remove(child, e);
        free(child);
    }
    dir_list_free(names);
    if (rc == 0 && rmdir(path) != 0)
        rc = file_error(e, path, "cannot remove");
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The next name that is not . or .., or NULL; then errno is 0 at the end and says why otherwise. */
static const char *next_name(DIR *d)
{
    for (;;) {
        errno = 0;
        struct dirent *it = readdir(d);
        if (it == NULL)
            return NULL;
        if (strcmp(it->d_name, ".") != 0 && strcmp(it->d_name, "..") != 0)
            return it->d_name;
    }
}

int dir_list(char ***out, const char *path, hone_err *e)
{
    size_t n = 0, cap = 0;
    int rc = 0;
    *out = NULL;
    DIR *d = opendir(path);
    if (d == NULL)
        return file_error(e, path, "cannot list");
    char **names = mem_grow(NULL, &cap, 16, sizeof *names);
    for (const char *name = next_name(d); name != NULL; name = next_name(d)) {
        names = mem_grow(names, &cap, n + 2, sizeof *names);
        names[n++] = mem_strdup(name);
    }
    if (errno != 0)
        rc = file_error(e, path, "cannot list");
    closedir(d);
    names[n] = NULL;
    if (rc != 0) {
        dir_list_free(names);
        return rc;
    }
    qsort(names, n, sizeof *names, by_name);
    *out = names;
    return 0;
}

void dir_list_free(char **names)
{
    for (size_t i = 0; names != NULL && names[i] != NULL; i++)
        free(names[i]);
    free(names);
}

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return mem_printf("%s%s%s", dir, n == 0 || dir[n - 1] == '/' ? "" : "/", name);
}

const char *path_base(const char *path)
{
    const char *s = strrchr(path, '/');
    return s == NULL ? path : s + 1;
}

char *path_dir(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n > 0 && path[n - 1] != '/')
        n--;
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n == 0 ? mem_strdup(".") : mem_strndup(path, n);
}
