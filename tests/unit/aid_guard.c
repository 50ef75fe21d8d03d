/* The linker puts wrapped_open in the place of kern_open in every unit test: with HONE_TEST_GUARD
 * set, devices are guarded (tests/ops/guard.h), those that the product opens too. */
#include <stdlib.h>
#include <string.h>

#include "tests/ops/guard.h"

int real_open(kern_dev **out, const char *name, const kern_open_args *a,
              char err[256]) __asm__("__real_kern_open");
int wrapped_open(kern_dev **out, const char *name, const kern_open_args *a,
                 char err[256]) __asm__("__wrap_kern_open");

int wrapped_open(kern_dev **out, const char *name, const kern_open_args *a, char err[256])
{
    int rc = real_open(out, name, a, err);
    if (rc == 0 && getenv("HONE_TEST_GUARD") != NULL)
        guard_device(*out);
    return rc;
}
