/* Runs op_check in its modes, on every instruction set of this machine. */
#include "kernels/kern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* op_check stands two folders above this program. */
static void op_check(const char *args)
{
    char self[512], cmd[1024];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    for (int up = 0; up < 3; up++)
        *strrchr(self, '/') = '\0';
    snprintf(cmd, sizeof cmd, "'%s/op_check' %s", self, args);
    FILE *p = popen(cmd, "r");
    assert_non_null(p);
    char line[512];
    while (fgets(line, sizeof line, p) != NULL)
        if (strncmp(line, "[       OK", 10) != 0)
            print_message("%s", line);
    assert_int_equal(pclose(p), 0);
}

static void with_features(const char *mode, const char *features)
{
    kern_open_args a = {.features = features};
    kern_dev *d;
    char err[256], args[96];
    if (kern_open(&d, "cpu", &a, err) != 0) {
        print_message("%s\n", err);
        skip();
    }
    kern_close(d);
    snprintf(args, sizeof args, "%s --device cpu:%s", mode, features);
    op_check(args);
}

static void test_all_features(void **state)
{
    (void)state;
    op_check("test --guard");
}

static void test_avx2(void **state)
{
    (void)state;
    with_features("test", "avx2");
}

static void test_generic(void **state)
{
    (void)state;
    with_features("test", "generic");
}

static void test_a_wrong_result_is_noticed(void **state)
{
    (void)state;
    op_check("self");
}

static void test_gradients(void **state)
{
    (void)state;
    op_check("grad");
}

static void test_threads(void **state)
{
    (void)state;
    op_check("threads");
}

static void test_threads_avx2(void **state)
{
    (void)state;
    with_features("threads linear", "avx2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_wrong_result_is_noticed),
        cmocka_unit_test(test_all_features),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_generic),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_threads_avx2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
