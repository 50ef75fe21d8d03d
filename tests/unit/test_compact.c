/* Compact weights give the bits of whole ones. */
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "kernels/cpu/compact.h"
#include "kernels/cpu/simd.h"
#include "tests/unit/aid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OUT = 200, IN = 97, MAX_ROWS = 150 };

/* What trained weights look like, and the values that their tables have no room for. */
static void fill(uint16_t *w, int64_t n, bool odd)
{
    static const uint16_t values[] = {0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x7F7F, 0xFF7F,
                                      0x3F80, 0xBF80, 0x2000, 0x5FFF, 0x1234, 0x9234};
    rng r = {.seed = 7, .stream = 1};
    for (int64_t i = 0; i < n; i++) {
        w[i] = bf16_from_f32((float)(0.02 * rng_normal(&r)));
        if (odd && i % 29 == 3)
            w[i] = values[i / 29 % (int64_t)(sizeof values / sizeof *values)];
    }
}

typedef struct setup {
    kern_dev *d;
    uint16_t *w; /* [OUT, IN] */
} setup;

static kern_weight *weight_of(kern_dev *d, uint16_t *w, int64_t out, int64_t in, bool need_dx)
{
    kern_weight_desc desc = {.n_parts = 1,
                             .part = {kern_mat(KERN_BF16, out, in, w)},
                             .compute = KERN_BF16,
                             .need_dx = need_dx};
    kern_weight *k;
    kern_weight_new_args a = {&desc, &k};
    assert_int_equal(kern_do(d, weight_new, &a), 0);
    return k;
}

static void product(kern_dev *d, const kern_weight *w, kern_tensor x, kern_tensor y)
{
    kern_linear a = {.w = w, .x = x, .y = y};
    if (kern_do(d, linear, &a) != 0)
        fail_msg("%s", d->err);
}

static int open_all(void **state)
{
    setup *s = mem_alloc(sizeof *s);
    char err[256];
    assert_int_equal(kern_open(&s->d, "cpu", NULL, err), 0);
    s->w = mem_alloc(sizeof *s->w * OUT * IN);
    fill(s->w, OUT * IN, true);
    *state = s;
    return 0;
}

static int close_all(void **state)
{
    setup *s = *state;
    kern_close(s->d);
    free(s->w);
    free(s);
    return 0;
}

static void need_compact(const setup *s)
{
    if (!((const cpu_dev *)s->d)->compact) {
        print_message("skipped: this machine keeps weights whole\n");
        skip();
    }
}

static void test_a_few_rows_give_the_same_bits(void **state)
{
    setup *s = *state;
    need_compact(s);
    kern_weight *whole = weight_of(s->d, s->w, OUT, IN, true),
                *compact = weight_of(s->d, s->w, OUT, IN, false);
    uint16_t x[CPU_SMALL * IN], want[CPU_SMALL * OUT], got[CPU_SMALL * OUT];
    assert_null(whole->fwd.compact);
    assert_non_null(compact->fwd.compact);
    fill(x, CPU_SMALL * IN, false);
    for (int n = 1; n <= CPU_SMALL; n++) {
        kern_tensor tx = kern_mat(KERN_BF16, n, IN, x);
        product(s->d, whole, tx, kern_mat(KERN_BF16, n, OUT, want));
        product(s->d, compact, tx, kern_mat(KERN_BF16, n, OUT, got));
        assert_memory_equal(want, got, sizeof *want * (size_t)(n * OUT));
    }
    kern_do(s->d, weight_free, whole);
    kern_do(s->d, weight_free, compact);
}

/* Rows of the unit matrix pick the weights themselves. */
static void test_many_rows_read_every_weight(void **state)
{
    setup *s = *state;
    need_compact(s);
    kern_weight *compact = weight_of(s->d, s->w, OUT, IN, false);
    uint16_t *x = mem_alloc(sizeof *x * MAX_ROWS * IN), *y = mem_alloc(sizeof *y * MAX_ROWS * OUT);
    for (int n = 9; n <= MAX_ROWS; n += 47) {
        memset(x, 0, sizeof *x * (size_t)(n * IN));
        for (int r = 0; r < n; r++)
            x[r * IN + (r * 5 + n) % IN] = 0x3F80;
        product(s->d, compact, kern_mat(KERN_BF16, n, IN, x), kern_mat(KERN_BF16, n, OUT, y));
        for (int r = 0; r < n; r++)
            for (int o = 0; o < OUT; o++) {
                float want = bf16_to_f32(s->w[o * IN + (r * 5 + n) % IN]);
                float got = bf16_to_f32(y[r * OUT + o]);
                /* Numbers below the normal ones may count as zero in a product. */
                if (fabsf(want) < 1.2e-38F ? fabsf(got) > 1.2e-38F : want != got)
                    fail_msg("row %d, output %d: %g, must be %g", r, o, (double)got, (double)want);
            }
    }
    free(x);
    free(y);
    kern_do(s->d, weight_free, compact);
}

/* A panel comes back bit for bit, whatever its numbers are. */
static void test_panels_come_back(void **state)
{
    setup *s = *state;
    need_compact(s);
    enum { N = 64, DEPTH = 64 };
    uint16_t w[N * DEPTH], panel[N * DEPTH];
    fill(w, N * DEPTH, true);
    w[17] = 0x7F80; /* infinities and not numbers */
    w[1800] = 0xFF80;
    w[4000] = 0x7FC1;
    kern_weight *whole = weight_of(s->d, w, N, DEPTH, true),
                *compact = weight_of(s->d, w, N, DEPTH, false);
    assert_non_null(compact->fwd.compact);
    cpu_compact_panel p = cpu_compact_at(&compact->fwd, 0);
    cpu_compact_expand(&p, DEPTH / 2, panel);
    assert_memory_equal(panel, whole->fwd.data, sizeof panel);
    kern_do(s->d, weight_free, whole);
    kern_do(s->d, weight_free, compact);
}

static size_t bytes_of(kern_dev *d, uint16_t *w, int64_t out, int64_t in, bool need_dx)
{
    size_t before = d->mem_used;
    kern_weight *k = weight_of(d, w, out, in, need_dx);
    size_t bytes = d->mem_used - before;
    kern_do(d, weight_free, k);
    assert_int_equal(d->mem_used, before);
    return bytes;
}

static void test_it_takes_seven_tenths_or_is_left(void **state)
{
    setup *s = *state;
    need_compact(s);
    enum { N = 1024, DEPTH = 512 };
    uint16_t *w = mem_alloc(sizeof *w * N * DEPTH);
    fill(w, N * DEPTH, false);
    kern_do(s->d, weight_free, weight_of(s->d, w, N, DEPTH, false)); /* scratch has grown now */
    size_t whole = (size_t)N * DEPTH * 2, got = bytes_of(s->d, w, N, DEPTH, false);
    if (got > whole * 72 / 100)
        fail_msg("%zu bytes of %zu", got, whole);
    rng r = {.seed = 3, .stream = 1};
    for (int64_t i = 0; i < N * DEPTH; i++)
        w[i] = (uint16_t)rng_u32(&r);
    assert_int_equal(bytes_of(s->d, w, N, DEPTH, false), whole);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_few_rows_give_the_same_bits, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_many_rows_read_every_weight, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_panels_come_back, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_it_takes_seven_tenths_or_is_left, open_all, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
