#include "core/model/digest.h"

#include "core/base/buf.h"
#include "core/base/file.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 1 << 20 };

static bool is_weights(const char *name)
{
    static const char ending[] = ".safetensors";
    size_t n = strlen(name), k = sizeof ending - 1;
    return n > k && strcmp(name + n - k, ending) == 0;
}

int model_dir_digest(char out[65], const char *dir, hone_err *e)
{
    char **names = NULL;
    buf list;
    buf_init(&list, MAX_LIST);
    int rc = dir_list(&names, dir, e);
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        char one[65];
        if (!is_weights(names[i]))
            continue;
        char *path = path_join(dir, names[i]);
        rc = file_sha256(one, path, e);
        buf_printf(&list, "%s  %s\n", one, names[i]);
        free(path);
    }
    if (rc == 0)
        rc = buf_check(&list, dir, e);
    if (rc == 0 && list.len == 0)
        rc = hone_fail(e, HONE_ENOTFOUND, "%s: no .safetensors file", dir);
    if (rc == 0)
        bytes_sha256(out, list.data, list.len);
    dir_list_free(names);
    buf_free(&list);
    return rc;
}
