/* mem and arena. */
#include "core/base/arena.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static void test_zeroed_and_never_null(void **state)
{
    (void)state;
    unsigned char *p = mem_alloc(100);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(p[i], 0);
    free(p);
    p = mem_alloc(0);
    assert_non_null(p);
    free(p);
    p = mem_array(0, 8);
    assert_non_null(p);
    free(p);
}

static void test_try_returns_null_where_there_is_none(void **state)
{
    (void)state;
    assert_null(mem_try(SIZE_MAX / 2));
    assert_null(mem_try_array(SIZE_MAX / 4, 8));
    void *p = mem_try_array(3, 5);
    assert_non_null(p);
    free(p);
}

static void overflow_array(void *arg)
{
    (void)arg;
    free(mem_array(SIZE_MAX / 4, 8));
}

static void overflow_grow(void *arg)
{
    (void)arg;
    size_t cap = 0;
    free(mem_grow(NULL, &cap, SIZE_MAX / 4, 8));
}

static void overflow_arena(void *arg)
{
    (void)arg;
    arena *a = arena_new();
    arena_alloc(a, SIZE_MAX - 3); /* rounded up, this would be 0 */
    arena_free(a);
}

static void test_overflow_aborts_and_says_so(void **state)
{
    (void)state;
    void (*cases[])(void *) = {overflow_array, overflow_grow, overflow_arena};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = 0;
        char *said = aid_stderr(cases[i], NULL, &status);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        assert_non_null(strstr(said, "hone: out of memory"));
        free(said);
    }
}

static void test_grow_keeps_the_contents(void **state)
{
    (void)state;
    int *p = NULL;
    size_t cap = 0;
    for (int i = 0; i < 1000; i++) {
        p = mem_grow(p, &cap, (size_t)i + 1, sizeof *p);
        p[i] = i;
    }
    assert_int_equal(cap, 1024);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(p[i], i);
    free(p);
}

static void test_strings(void **state)
{
    (void)state;
    assert_null(mem_strdup(NULL));
    char *s = mem_strndup("abcdef", 3);
    assert_string_equal(s, "abc");
    free(s);
    s = mem_strndup(NULL, 0);
    assert_string_equal(s, "");
    free(s);
    s = mem_printf("%s-%d", "x", 7);
    assert_string_equal(s, "x-7");
    free(s);
}

static void test_arena_aligns_zeroes_and_grows(void **state)
{
    (void)state;
    arena *a = arena_new();
    unsigned char *first = arena_alloc(a, 1);
    for (size_t n = 1; n < 3000; n = n * 2 + 1) {
        unsigned char *p = arena_alloc(a, n);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xAB, n);
    }
    assert_int_equal(*first, 0);
    char *large = arena_alloc(a, 1 << 20);
    large[(1 << 20) - 1] = 1;
    assert_true(arena_used(a) >= (1 << 20));
    arena_free(a);
    arena_free(NULL);
}

static void test_arena_reset_forgets_and_zeroes(void **state)
{
    (void)state;
    arena *a = arena_new();
    char *p = arena_strdup(a, "kept until reset");
    assert_string_equal(p, "kept until reset");
    for (int i = 0; i < 100; i++)
        memset(arena_alloc(a, 1000), 0xFF, 1000);
    arena_reset(a);
    assert_int_equal(arena_used(a), 0);
    for (int i = 0; i < 100; i++) {
        const unsigned char *q = arena_alloc(a, 1000);
        for (size_t k = 0; k < 1000; k++)
            assert_int_equal(q[k], 0);
    }
    assert_string_equal(arena_printf(a, "%05d", 42), "00042");
    assert_string_equal(arena_strndup(a, "abc", 2), "ab");
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeroed_and_never_null),
        cmocka_unit_test(test_try_returns_null_where_there_is_none),
        cmocka_unit_test(test_overflow_aborts_and_says_so),
        cmocka_unit_test(test_grow_keeps_the_contents),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_arena_aligns_zeroes_and_grows),
        cmocka_unit_test(test_arena_reset_forgets_and_zeroes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
