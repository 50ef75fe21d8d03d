#include "tests/unit/aid_dir.h"

#include "core/base/file.h"
#include "core/base/mem.h"

#include <stdlib.h>
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
