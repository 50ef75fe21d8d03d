#include "kernels/kern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int setup(void **state)
{
    char err[256];
    return kern_open((kern_dev **)state, "cpu", NULL, err);
}

static int teardown(void **state)
{
    kern_close(*state);
    return 0;
}

static void test_views_keep_the_leading_dimension(void **state)
{
    (void)state;
    float m[12];
    kern_tensor x = kern_mat(KERN_F32, 3, 4, m);
    kern_tensor c = kern_cols(&x, 1, 2), r = kern_rows(&c, 2, 1);
    assert_int_equal(c.ld, 4);
    assert_ptr_equal(c.data, m + 1);
    assert_ptr_equal(r.data, m + 9);
    assert_int_equal(r.rows, 1);
    assert_int_equal(r.cols, 2);
}

static void test_dtypes_have_sizes_and_names(void **state)
{
    (void)state;
    assert_int_equal(kern_dtype_size(KERN_BF16), 2);
    assert_int_equal(kern_dtype_size(KERN_I32), 4);
    assert_string_equal(kern_dtype_name(KERN_F16), "f16");
}

static void test_an_unknown_device_is_refused_by_name(void **state)
{
    (void)state;
    char err[256];
    kern_dev *d = (kern_dev *)1;
    assert_int_equal(kern_open(&d, "tpu", NULL, err), KERN_EUNSUPPORTED);
    assert_null(d);
    assert_string_equal(err, "no device 'tpu'; there are cpu, cuda and auto");
    kern_open_args a = {.features = "avx9"};
    assert_int_equal(kern_open(&d, "cpu", &a, err), KERN_EUNSUPPORTED);
    assert_null(d);
    assert_memory_equal(err, "cpu: features 'avx9' asked for", 30);
    kern_open_args b = {.threads = -1};
    assert_int_equal(kern_open(&d, "cpu", &b, err), KERN_EINVAL);
    assert_string_equal(err, "cpu: -1 threads; must be 0 to 1024");
}

static void test_auto_says_what_it_has_passed_over(void **state)
{
    (void)state;
    char err[256];
    kern_dev *d;
    setenv("HONE_CUDA_LIB", "/nowhere/libhone_cuda.so", 1);
    assert_int_equal(kern_open(&d, "cuda", NULL, err), KERN_EUNSUPPORTED);
    assert_null(d);
    assert_non_null(strstr(err, "use --device cpu"));
    assert_int_equal(kern_open(&d, "auto", NULL, err), 0);
    assert_string_equal(d->backend, "cpu");
    assert_memory_equal(err, "cuda: /nowhere/libhone_cuda.so", 30);
    kern_close(d);
    assert_int_equal(kern_open(&d, "cpu", NULL, err), 0);
    assert_string_equal(err, "");
    kern_close(d);
    unsetenv("HONE_CUDA_LIB");
}

static void test_memory_is_zeroed_aligned_and_counted(void **state)
{
    kern_dev *d = *state;
    size_t before = d->mem_used;
    void *p;
    assert_int_equal(kern_do(d, alloc, 1000, &p), 0);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(((char *)p)[i], 0);
    assert_int_equal(d->mem_used, before + 1000);
    kern_do(d, release, p);
    assert_int_equal(d->mem_used, before);
    assert_true(d->mem_peak >= before + 1000);
    assert_int_equal(kern_do(d, alloc, (size_t)-1 / 2, &p), KERN_ENOMEM);
    assert_null(p);
    assert_non_null(strstr(d->err, "9223372036854775807 bytes"));
}

static void test_a_wrong_shape_is_refused_with_both(void **state)
{
    kern_dev *d = *state;
    float x[12], w[3] = {1, 1, 1}, y[12];
    kern_norm a = {.x = kern_mat(KERN_F32, 4, 3, x),
                   .weight = kern_mat(KERN_F32, 1, 3, w),
                   .y = kern_mat(KERN_F32, 3, 4, y)};
    assert_int_equal(kern_do(d, norm, &a), KERN_EINVAL);
    assert_string_equal(d->err, "norm: y is [3, 4], must be [4, 3]");
    a.y = kern_mat(KERN_BF16, 4, 3, y);
    assert_int_equal(kern_do(d, norm, &a), KERN_EINVAL);
    assert_string_equal(d->err, "norm: y is bf16, must be f32");
}

static void test_a_linear_layer_by_hand(void **state)
{
    kern_dev *d = *state;
    float w[4] = {1, 2, 3, 4}, x[2] = {10, 1}, y[2], bias[2] = {0.5F, -0.5F};
    kern_weight_desc desc = {.n_parts = 1,
                             .part = {kern_mat(KERN_F32, 2, 2, w)},
                             .bias = {kern_mat(KERN_F32, 1, 2, bias)},
                             .compute = KERN_F32};
    kern_weight *kw;
    kern_weight_new_args na = {&desc, &kw};
    assert_int_equal(kern_do(d, weight_new, &na), 0);
    kern_linear a = {.w = kw, .x = kern_mat(KERN_F32, 1, 2, x), .y = kern_mat(KERN_F32, 1, 2, y)};
    assert_int_equal(kern_do(d, linear, &a), 0);
    assert_float_equal(y[0], 12.5, 1e-6);
    assert_float_equal(y[1], 33.5, 1e-6);
    kern_do(d, weight_free, kw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views_keep_the_leading_dimension),
        cmocka_unit_test(test_dtypes_have_sizes_and_names),
        cmocka_unit_test(test_an_unknown_device_is_refused_by_name),
        cmocka_unit_test(test_auto_says_what_it_has_passed_over),
        cmocka_unit_test_setup_teardown(test_memory_is_zeroed_aligned_and_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_wrong_shape_is_refused_with_both, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_linear_layer_by_hand, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
