#include "tests/unit/aid_dir.h"

#include "core/base/file.h"
#include "core/base/mem.h"

#include <stdlib.h>

char *aid_dir_make(void)
{
    const char *base = getenv("TMPDIR");
    char *dir = mem_printf("%s/hone-test-XXXXXX", base != NULL && *base ? base : "/tmp");
    if (mkdtemp(dir) == NULL)
        abort();
    return dir;
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

int aid_dir_teardown(void **state)
{
    aid_dir_drop(*state);
    return 0;
}
