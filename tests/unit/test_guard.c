/* Nothing outside the backend touches device memory: what runs a model runs again with guarded
 * devices. */
#include "tests/ops/guard.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static kern_dev *guarded(void)
{
    char err[256];
    kern_dev *d;
    assert_int_equal(kern_open(&d, "cpu", &(kern_open_args){.threads = 1}, err), 0);
    if (getenv("HONE_TEST_GUARD") == NULL)
        guard_device(d);
    return d;
}

static void test_a_touch_is_noticed(void **state)
{
    (void)state;
    kern_dev *d = guarded();
    void *p;
    assert_int_equal(kern_do(d, alloc, 100, &p), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* cmocka catches it */
        _exit(*(volatile char *)p);
    }
    int status;
    waitpid(child, &status, 0);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    kern_do(d, release, p);
    kern_close(d);
}

static void test_host_memory_is_refused(void **state)
{
    (void)state;
    kern_dev *d = guarded();
    float x[8] = {0}, *p;
    void *mem;
    assert_int_equal(kern_do(d, alloc, sizeof x, &mem), 0);
    p = mem;
    kern_act a = {.gu = kern_mat(KERN_F32, 1, 8, x), .h = kern_mat(KERN_F32, 1, 4, p)};
    assert_int_equal(kern_do(d, act, &a), KERN_EINVAL);
    assert_string_equal(d->err, "act: kern_act.gu points to host memory");
    a.gu.data = p;
    assert_int_equal(kern_do(d, act, &a), 0);
    kern_do(d, release, mem);
    kern_close(d);
}

/* Its sibling, with the guard on. */
static void run(const char *name)
{
    char self[512], cmd[1024], line[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(cmd, sizeof cmd, "HONE_TEST_GUARD=1 '%s/test_%s' 2>&1", self, name);
    FILE *p = popen(cmd, "r");
    assert_non_null(p);
    while (fgets(line, sizeof line, p) != NULL)
        if (strncmp(line, "[       OK", 10) != 0 && strncmp(line, "[ RUN", 5) != 0)
            print_message("%s: %s", name, line);
    assert_int_equal(pclose(p), 0);
}

static void test_the_rest(void **state)
{
    static const char *const names[] = {"model", "model_train", "paged",  "gen", "peft",
                                        "merge", "trainer",     "engine", "eval"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        run(names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_touch_is_noticed),
        cmocka_unit_test(test_host_memory_is_refused),
        cmocka_unit_test(test_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
