/* The file in which choices of algorithms stand between runs, and what they are chosen for. */
#include "kernels/cuda/gemm_cache.h"

#include "core/base/file.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static gemm_key key_of_size(int64_t n)
{
    return (gemm_key){n, n + 1, n + 2, (uint32_t)n};
}

static gemm_algo algo_of(uint64_t n)
{
    gemm_algo a;
    for (uint64_t w = 0; w < 8; w++)
        a.data[w] = n * 0x0123456789ABCDEFU + w;
    return a;
}

static void fill(gemm_choices *t, int n)
{
    for (int i = 1; i <= n; i++) {
        gemm_key k = key_of_size(i);
        gemm_algo a = algo_of((uint64_t)i);
        assert_int_equal(gemm_choices_add(t, &k, &a), 0);
    }
}

static void holds(const gemm_choices *t, int64_t size, uint64_t algo)
{
    gemm_key k = key_of_size(size);
    gemm_algo want = algo_of(algo);
    const gemm_algo *a = gemm_choices_find(t, &k);
    assert_non_null(a);
    assert_memory_equal(a, &want, sizeof want);
}

/* ---- keys ------------------------------------------------------------------------------------ */

static void alignment_is_that_of_every_row(void **state)
{
    (void)state;
    kern_tensor x = {KERN_BF16, 4, 8, 8, (void *)4096};
    assert_int_equal(gemm_alignment(&x), 16);
    x.ld = 12;
    assert_int_equal(gemm_alignment(&x), 8);
    x.ld = 13;
    assert_int_equal(gemm_alignment(&x), 2);
    x.rows = 1; /* no second row whose place would count */
    assert_int_equal(gemm_alignment(&x), 16);
    x.data = (void *)4100;
    assert_int_equal(gemm_alignment(&x), 4);
}

static void keys_tell_products_apart(void **state)
{
    (void)state;
    kern_tensor a = {KERN_BF16, 5, 8, 8, (void *)4096}, b = {KERN_BF16, 8, 16, 16, (void *)4096};
    kern_tensor c = {KERN_BF16, 5, 16, 16, (void *)4096}, f = c, odd = c;
    f.dtype = KERN_F32;
    odd.ld = 17;
    kern_tensor at = {KERN_BF16, 8, 5, 8, (void *)4096};
    kern_tensor bt = {KERN_BF16, 16, 8, 8, (void *)4096};
    const gemm_key keys[] = {
        gemm_key_of(&a, &b, &c, false, false, false, false),
        gemm_key_of(&a, &b, &f, false, false, false, false),
        gemm_key_of(&a, &b, &odd, false, false, false, false),
        gemm_key_of(&at, &b, &c, true, false, false, false),
        gemm_key_of(&a, &bt, &c, false, true, false, false),
        gemm_key_of(&a, &b, &c, false, false, true, false),
        gemm_key_of(&a, &b, &c, false, false, false, true),
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        assert_true(keys[i].m == 5 && keys[i].n == 16 && keys[i].k == 8);
        for (size_t j = 0; j < i; j++)
            assert_false(gemm_key_same(&keys[i], &keys[j]));
    }
}

static void sizes_are_rounded_by_at_most_a_quarter(void **state)
{
    (void)state;
    int64_t last = 0;
    for (int64_t n = 1; n <= 300000; n++) {
        int64_t r = gemm_key_round((gemm_key){n, 1, 1, 0}).m;
        assert_true(r >= n && r >= last && 4 * (r - n) < n + (n < 8));
        assert_int_equal(gemm_key_round((gemm_key){r, 1, 1, 0}).m, r);
        last = r;
    }
    /* Widths of models stand for themselves. */
    static const int64_t widths[] = {512, 2048, 4096, 6144, 14336, 28672, 49152, 131072};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        assert_int_equal(gemm_key_round((gemm_key){1, widths[i], 1, 0}).n, widths[i]);
}

/* ---- text ------------------------------------------------------------------------------------ */

static void text_is_read_as_it_was_written(void **state)
{
    (void)state;
    gemm_choices t = {0}, back = {0};
    size_t len;
    fill(&t, 100);
    char *text = gemm_choices_format(&t, &len);
    assert_int_equal(gemm_choices_parse(&back, text, len), 0);
    assert_int_equal(back.n, 100);
    for (int i = 1; i <= 100; i++)
        holds(&back, i, (uint64_t)i);
    free(text);
    gemm_choices_free(&t);
    gemm_choices_free(&back);
}

static void damaged_text_gives_nothing(void **state)
{
    (void)state;
    gemm_choices t = {0}, back = {0};
    size_t len;
    fill(&back, 1);
    fill(&t, 3);
    char *text = gemm_choices_format(&t, &len);
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(gemm_choices_parse(&back, text, i), KERN_EINVAL);
        text[i] ^= 1;
        assert_int_equal(gemm_choices_parse(&back, text, len), KERN_EINVAL);
        text[i] ^= 1;
    }
    assert_int_equal(back.n, 1);
    assert_int_equal(gemm_choices_parse(&back, text, len), 0);
    assert_int_equal(back.n, 3);
    free(text);
    gemm_choices_free(&t);
    gemm_choices_free(&back);
}

static void the_first_choice_stays(void **state)
{
    (void)state;
    gemm_choices t = {0};
    gemm_key k = key_of_size(2);
    gemm_algo other = algo_of(77);
    fill(&t, 3);
    assert_int_equal(gemm_choices_add(&t, &k, &other), 0);
    assert_int_equal(t.n, 3);
    holds(&t, 2, 2);
    gemm_choices_free(&t);
}

static void choices_are_bounded(void **state)
{
    (void)state;
    gemm_choices t = {0};
    fill(&t, GEMM_MAX_CHOICES);
    gemm_key k = key_of_size(GEMM_MAX_CHOICES + 1);
    gemm_algo a = algo_of(1);
    assert_int_equal(gemm_choices_add(&t, &k, &a), KERN_ENOMEM);
    gemm_choices_free(&t);
}

/* ---- the file -------------------------------------------------------------------------------- */

static void add_one(const char *path, int64_t size, uint64_t algo)
{
    gemm_choices t = {0};
    gemm_key k = key_of_size(size);
    gemm_algo a = algo_of(algo);
    assert_int_equal(gemm_cache_add(&t, path, &k, &a), 0);
    gemm_choices_free(&t);
}

static void what_another_process_has_written_wins(void **state)
{
    gemm_choices t = {0}, all = {0};
    gemm_key k = key_of_size(5);
    gemm_algo mine = algo_of(6);
    char *path = mem_printf("%s/a/b/gemm.txt", (char *)*state);
    add_one(path, 5, 5);
    add_one(path, 6, 6);
    assert_int_equal(gemm_cache_add(&t, path, &k, &mine), 0);
    holds(&t, 5, 5);
    gemm_cache_load(&all, path);
    assert_int_equal(all.n, 2);
    holds(&all, 5, 5);
    holds(&all, 6, 6);
    gemm_choices_free(&t);
    gemm_choices_free(&all);
    free(path);
}

static void processes_lose_none_of_each_others(void **state)
{
    enum { CHILDREN = 4, EACH = 8 };
    gemm_choices all = {0};
    char *path = mem_printf("%s/gemm.txt", (char *)*state);
    for (int c = 0; c < CHILDREN; c++)
        if (fork() == 0) {
            for (int i = 1; i <= EACH; i++)
                add_one(path, c * EACH + i, (uint64_t)i);
            _exit(0);
        }
    for (int c = 0; c < CHILDREN; c++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    gemm_cache_load(&all, path);
    assert_int_equal(all.n, CHILDREN * EACH);
    gemm_choices_free(&all);
    free(path);
}

static void a_damaged_file_is_built_anew(void **state)
{
    gemm_choices t = {0};
    char *path = mem_printf("%s/gemm.txt", (char *)*state);
    assert_int_equal(file_write(path, "hone matrix products 1\nnonsense\n", 32, NULL), 0);
    gemm_cache_load(&t, path);
    assert_int_equal(t.n, 0);
    add_one(path, 9, 9);
    gemm_cache_load(&t, path);
    assert_int_equal(t.n, 1);
    holds(&t, 9, 9);
    gemm_choices_free(&t);
    free(path);
}

static void a_place_that_cannot_be_written_is_no_error(void **state)
{
    gemm_choices t = {0};
    gemm_key k = key_of_size(1);
    gemm_algo a = algo_of(1);
    char *file = mem_printf("%s/file", (char *)*state), *path = mem_printf("%s/gemm.txt", file);
    assert_int_equal(file_write(file, "x", 1, NULL), 0);
    assert_int_equal(gemm_cache_add(&t, path, &k, &a), 0);
    holds(&t, 1, 1);
    gemm_choices_free(&t);
    free(file);
    free(path);
}

static void the_path_names_card_and_version(void **state)
{
    (void)state;
    char path[128];
    setenv("XDG_CACHE_HOME", "/c", 1);
    assert_int_equal(gemm_cache_path(path, sizeof path, "NVIDIA H200", "130100"), 0);
    assert_string_equal(path, "/c/hone/gemm-NVIDIA-H200-130100.txt");
    setenv("XDG_CACHE_HOME", "relative", 1);
    setenv("HOME", "/h", 1);
    assert_int_equal(gemm_cache_path(path, sizeof path, "../x", "1"), 0);
    assert_string_equal(path, "/h/.cache/hone/gemm----x-1.txt");
    assert_int_equal(gemm_cache_path(path, 20, "card", "1"), KERN_EUNSUPPORTED);
    unsetenv("HOME");
    assert_int_equal(gemm_cache_path(path, sizeof path, "card", "1"), KERN_EUNSUPPORTED);
    assert_false(gemm_cache_off());
    setenv("HONE_GEMM_CACHE", "off", 1);
    assert_true(gemm_cache_off());
    unsetenv("HONE_GEMM_CACHE");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(alignment_is_that_of_every_row),
        cmocka_unit_test(keys_tell_products_apart),
        cmocka_unit_test(sizes_are_rounded_by_at_most_a_quarter),
        cmocka_unit_test(text_is_read_as_it_was_written),
        cmocka_unit_test(damaged_text_gives_nothing),
        cmocka_unit_test(the_first_choice_stays),
        cmocka_unit_test(choices_are_bounded),
        cmocka_unit_test_setup_teardown(what_another_process_has_written_wins, aid_dir_quick_setup,
                                        aid_dir_teardown),
        cmocka_unit_test_setup_teardown(processes_lose_none_of_each_others, aid_dir_quick_setup,
                                        aid_dir_teardown),
        cmocka_unit_test_setup_teardown(a_damaged_file_is_built_anew, aid_dir_quick_setup,
                                        aid_dir_teardown),
        cmocka_unit_test_setup_teardown(a_place_that_cannot_be_written_is_no_error,
                                        aid_dir_quick_setup, aid_dir_teardown),
        cmocka_unit_test(the_path_names_card_and_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
