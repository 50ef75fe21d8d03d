#include "core/base/file.h"
#include "core/model/digest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

static char dir[] = "/tmp/hone-digest-XXXXXX";

static void put(const char *name, const char *text, size_t n)
{
    char *path = path_join(dir, name);
    assert_int_equal(file_write(path, text, n, NULL), 0);
    free(path);
}

/* The expected value is what `sha256sum *.safetensors | sha256sum` prints for these two files. */
static void test_known_answer(void **state)
{
    (void)state;
    char digest[65], again[65];
    hone_err e = {0};
    assert_int_equal(model_dir_digest(digest, dir, &e), HONE_ENOTFOUND);
    put("b.safetensors", "beta", 4);
    put("a.safetensors", "alpha", 5);
    put("config.json", "{}", 2);
    assert_int_equal(model_dir_digest(digest, dir, &e), 0);
    assert_string_equal(digest, "ea5ec070296210656cdc250decde6861cdd1875c2f71e72db4c31f96e8320f67");
    put("config.json", "{ }", 3);
    assert_int_equal(model_dir_digest(again, dir, &e), 0);
    assert_string_equal(again, digest);
    put("b.safetensors", "bets", 4);
    assert_int_equal(model_dir_digest(again, dir, &e), 0);
    assert_string_not_equal(again, digest);
}

int main(void)
{
    if (mkdtemp(dir) == NULL)
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known_answer)};
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    dir_remove(dir, NULL);
    return rc;
}
