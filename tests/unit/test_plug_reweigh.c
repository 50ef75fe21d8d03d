#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* 6 rows of a: 4 good, 2 bad; 2 rows of b: 1 good, 1 bad; 2 of c, both bad. */
static const char labels[] = "a\tgood\r\na\tgood\na\tgood\na\tgood\na\tbad\na\tbad\nb\tgood\nb\tbad"
                             "\nc\tbad\nc\tbad";
static char *dir, *file;

static int set_up(void **state)
{
    (void)state;
    dir = aid_dir();
    file = path_join(dir, "labels.tsv");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(file);
    aid_dir_remove(dir);
    return 0;
}

static loaded *open_with(hooks *h, const char *text)
{
    assert_int_equal(file_write(file, text, strlen(text), NULL), 0);
    char *s = mem_printf("{\"labels\": \"%s\"}", file);
    loaded *p = aid_plugin_open(h, "reweigh", s);
    free(s);
    return p;
}

/* A batch of these rows, one token each. */
static int weigh(hooks *h, const uint64_t *row, float *weights, size_t n, hone_err *e)
{
    int32_t ids[16] = {0};
    uint8_t mask[16] = {0};
    uint64_t bound[17];
    for (size_t i = 0; i <= n; i++)
        bound[i] = i;
    const hook_batch b = {
        .ids = ids, .mask = mask, .n = n, .n_examples = n, .bound = bound, .row = row, .step = 1};
    const hook_view view = {.batch = &b, .values = weights, .n_values = n};
    return hook_emit_view(h, HOOK_TRAIN_BATCH, &view, e);
}

static void test_weights_by_hand(void **state)
{
    (void)state;
    static const uint64_t rows[] = {9, 0, 5, 6, 7, 0};
    /* P(s) P(y) / P(s, y): of 10 rows 5 are good */
    static const double want[] = {2. * 5 / (10 * 2), 6. * 5 / (10 * 4), 6. * 5 / (10 * 2),
                                  2. * 5 / (10 * 1), 2. * 5 / (10 * 1), 2 * 6. * 5 / (10 * 4)};
    float w[6] = {1, 1, 1, 1, 1, 2}; /* another subscriber's factor stays */
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = open_with(h, labels);
    if (weigh(h, rows, w, 6, &e) != 0)
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < 6; i++)
        assert_true(fabs((double)w[i] - want[i]) < 1e-6);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

/* Where every pair of group and label occurs, the weighted rows have no dependence left. */
static void test_what_it_is_for(void **state)
{
    (void)state;
    static const uint64_t rows[] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const char eight[] = "a\ty\na\ty\na\ty\na\tn\nb\ty\nb\tn\nb\tn\nb\tn\n";
    float w[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = open_with(h, eight);
    assert_int_equal(weigh(h, rows, w, 8, &e), 0);
    double a_yes = (double)(w[0] + w[1] + w[2]), a = a_yes + (double)w[3];
    double b_yes = (double)w[4], b = b_yes + (double)(w[5] + w[6] + w[7]);
    assert_true(fabs(a_yes / a - b_yes / b) < 1e-6);
    assert_true(fabs(a + b - 8) < 1e-5); /* the loss keeps its scale */
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

static void test_a_row_without_label(void **state)
{
    (void)state;
    static const uint64_t rows[] = {9, 10};
    float w[2] = {1, 1};
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = open_with(h, labels);
    assert_true(weigh(h, rows, w, 2, &e) < 0);
    assert_non_null(strstr(e.msg, "row 11 has no group and label: the file of labels ends at 10"));
    assert_true(w[0] == 1 && w[1] == 1);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"a\tb\nc\n", "line 2 is not group, tab, label"},
        {"a\tb\n\n", "line 2 is not group, tab, label"},
        {"a\t\n", "line 1 is not group, tab, label"},
        {"a\tb\tc\n", "line 1 is not group, tab, label"},
        {"", "there are no rows in it"},
        {NULL, "there is no reweighing without labels"},
    };
    char *plugin = aid_plugin_copy(dir, "reweigh");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        trust_file f;
        loaded *p = NULL;
        hooks *h = bundled_hooks();
        const char *text = rows[i].text;
        if (text != NULL)
            assert_int_equal(file_write(file, text, strlen(text), NULL), 0);
        json_t *s = text != NULL ? json_pack("{s:s}", "labels", file) : json_object();
        assert_int_equal(trust_open(&f, NULL, plugin, &e), 0);
        assert_true(loader_open(&p, &(loader_args){.file = &f, .settings = s, .hooks = h}, &e) < 0);
        if (strstr(e.msg, rows[i].want) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, rows[i].want);
        trust_close(&f);
        json_decref(s);
        hook_free(h);
    }
    free(plugin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_by_hand),
        cmocka_unit_test(test_what_it_is_for),
        cmocka_unit_test(test_a_row_without_label),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
