#include "tests/unit/aid_dir.h"

#include "core/base/file.h"
#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *make_in(const char *base)
{
    char *dir = mem_printf("%s/hone-test-XXXXXX", base);
    if (mkdtemp(dir) == NULL)
        abort();
    return dir;
}

char *aid_dir_make(void)
{
    const char *base = getenv("TMPDIR");
    return make_in(base != NULL && *base ? base : "/tmp");
}

char *aid_dir_quick(void)
{
    return access("/dev/shm", W_OK | X_OK) == 0 ? make_in("/dev/shm") : aid_dir_make();
}

void aid_dir_drop(char *dir)
{
    if (dir != NULL)
        dir_remove(dir, NULL);
    free(dir);
}

static bool file_holds(const char *path, const char *needle)
{
    char *data;
    size_t len;
    if (file_read(&data, &len, path, 1 << 28, NULL) != 0)
        return false;
    bool found = memmem(data, len, needle, strlen(needle)) != NULL;
    free(data);
    return found;
}

bool aid_dir_holds(const char *dir, const char *needle)
{
    char **names;
    bool found = false;
    if (dir_list(&names, dir, NULL) != 0)
        abort();
    for (size_t i = 0; names[i] != NULL && !found; i++) {
        char *path = path_join(dir, names[i]);
        found = file_is_dir(path) ? aid_dir_holds(path, needle) : file_holds(path, needle);
        free(path);
    }
    dir_list_free(names);
    return found;
}

int aid_dir_setup(void **state)
{
    *state = aid_dir_make();
    return 0;
}

int aid_dir_quick_setup(void **state)
{
    *state = aid_dir_quick();
    return 0;
}

int aid_dir_teardown(void **state)
{
    aid_dir_drop(*state);
    return 0;
}
