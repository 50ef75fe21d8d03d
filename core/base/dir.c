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

int dir_make(const char *path, hone_err *e)
{
    char *p = mem_strdup(path);
    int rc = 0;
    for (char *s = p + 1; rc == 0 && *p != '\0'; s++) {
        if (*s != '/' && *s != '\0')
            continue;
        char c = *s;
        *s = '\0';
        if (mkdir(p, 0755) != 0 && errno != EEXIST)
            rc = file_error(e, p, "cannot make the directory");
        *s = c;
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

int dir_rename(const char *from, const char *to, hone_err *e)
{
    if (file_exists(to))
        return hone_fail(e, HONE_EEXIST, "%s: exists already", to);
    if (rename(from, to) != 0)
        return file_error(e, to, "cannot rename into place");
    char *dir = path_dir(to);
    int rc = dir_sync(dir, e);
    free(dir);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int dir_list(char ***out, const char *path, hone_err *e)
{
    size_t n = 0, cap = 0;
    *out = NULL;
    DIR *d = opendir(path);
    if (d == NULL)
        return file_error(e, path, "cannot list");
    char **names = mem_grow(NULL, &cap, 16, sizeof *names);
    for (struct dirent *it = readdir(d); it != NULL; it = readdir(d)) {
        if (strcmp(it->d_name, ".") == 0 || strcmp(it->d_name, "..") == 0)
            continue;
        names = mem_grow(names, &cap, n + 2, sizeof *names);
        names[n++] = mem_strdup(it->d_name);
    }
    closedir(d);
    names[n] = NULL;
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
    return mem_printf("%s%s%s", dir, n > 0 && dir[n - 1] == '/' ? "" : "/", name);
}

const char *path_base(const char *path)
{
    const char *s = strrchr(path, '/');
    return s == NULL ? path : s + 1;
}

char *path_dir(const char *path)
{
    const char *s = strrchr(path, '/');
    if (s == NULL)
        return mem_strdup(".");
    return mem_strndup(path, s == path ? 1 : (size_t)(s - path));
}
