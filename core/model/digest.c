#include "core/model/digest.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 1 << 20 };

static bool is_weights(const char *name)
{
    static const char ending[] = ".safetensors";
    size_t n = strlen(name), k = sizeof ending - 1;
    return n > k && strcmp(name + n - k, ending) == 0 && strchr(name, '/') == NULL;
}

int model_digest_of(char out[65], const digest_file *files, size_t n, const char *dir, hone_err *e)
{
    buf list;
    buf_init(&list, MAX_LIST);
    for (size_t i = 0; i < n; i++)
        if (is_weights(files[i].name))
            buf_printf(&list, "%s  %s\n", files[i].sha256, files[i].name);
    int rc = buf_check(&list, dir, e);
    if (rc == 0 && list.len == 0)
        rc = hone_fail(e, HONE_ENOTFOUND, "%s: no .safetensors file", dir);
    if (rc == 0)
        bytes_sha256(out, list.data, list.len);
    buf_free(&list);
    return rc;
}

int model_dir_digest(char out[65], const char *dir, hone_err *e)
{
    char **names = NULL;
    digest_file *files = NULL;
    size_t n = 0, cap = 0;
    int rc = dir_list(&names, dir, e);
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        if (!is_weights(names[i]))
            continue;
        char *path = path_join(dir, names[i]);
        files = mem_grow(files, &cap, n + 1, sizeof *files);
        files[n].name = names[i];
        rc = file_sha256(files[n++].sha256, path, e);
        free(path);
    }
    if (rc == 0)
        rc = model_digest_of(out, files, n, dir, e);
    dir_list_free(names);
    free(files);
    return rc;
}
