#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/data/dataset.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static void close_with(hooks *h, loaded *p)
{
    hone_err e = {0};
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

/* Every line of a source that hooks leave, read as training reads it. */
static dataset *load(hooks *h, const char *lines)
{
    hone_err e = {0};
    tok *t;
    dataset *d;
    char *path = path_join(dir, "rows.jsonl");
    if (tok_open(&t, "tests/golden/train/model", &e) != 0)
        fail_msg("%s", e.msg);
    const data_options o = {.tok = t, .no_chat = "", .sequence_len = 512, .hooks = h};
    assert_int_equal(file_write(path, lines, strlen(lines), &e), 0);
    json_t *entry = json_string(path);
    if (dataset_open(&d, entry, &o, &e) != 0)
        fail_msg("%s", e.msg);
    json_decref(entry);
    free(path);
    tok_close(t);
    return d;
}

/* n rows of d from the first on as one batch, one token each; w has the weights. */
static int weigh_some(hooks *h, const dataset *d, size_t first, size_t n, float *w, hone_err *e)
{
    int32_t ids[32] = {0};
    uint8_t mask[32] = {0};
    uint64_t bound[33], row[32], id[32];
    assert_true(n <= 32);
    for (size_t i = 0; i <= n; i++)
        bound[i] = i;
    for (size_t i = 0; i < n; i++) {
        row[i] = first + i;
        id[i] = d->rows[first + i].id;
        w[i] = 1;
    }
    const hook_batch b = {.ids = ids,
                          .mask = mask,
                          .n = n,
                          .n_examples = n,
                          .bound = bound,
                          .row = row,
                          .step = 1,
                          .id = id};
    const hook_view view = {.batch = &b, .values = w, .n_values = n};
    return hook_emit_view(h, HOOK_TRAIN_BATCH, &view, e);
}

static int weigh(hooks *h, const dataset *d, float *w, hone_err *e)
{
    return weigh_some(h, d, 0, d->n_rows, w, e);
}

static void weigh_or_fail(hooks *h, const dataset *d, float *w)
{
    hone_err e = {0};
    if (weigh(h, d, w, &e) != 0)
        fail_msg("%s", e.msg);
}

/* 6 of a: 4 good, 2 bad; 2 of b: 1 good, 1 bad; 2 of c, both bad. The order is not that of the
 * data, and one line is of a record that is in no data. */
static const char labels[] = "9\tc\tbad\nr0\ta\tgood\r\nr1\ta\tgood\nr2\ta\tgood\nr3\ta\tgood\n"
                             "r4\ta\tbad\nr5\ta\tbad\nr6\tb\tgood\nr7\tb\tbad\nr8\tc\tbad\n"
                             "elsewhere\tc\tgood";
static const char rows[] =
    "{\"id\": \"r0\", \"text\": \"zero\"}\n{\"id\": \"r1\", \"text\": \"one\"}\n"
    "{\"id\": \"r2\", \"text\": \"two\"}\n{\"id\": \"r3\", \"text\": \"three\"}\n"
    "{\"id\": \"r4\", \"text\": \"four\"}\n{\"id\": \"r5\", \"text\": \"five\"}\n"
    "{\"id\": \"r6\", \"text\": \"six\"}\n{\"id\": \"r7\", \"text\": \"seven\"}\n"
    "{\"id\": \"r8\", \"text\": \"eight\"}\n{\"id\": 9, \"text\": \"nine\"}\n";

static void expect(const float *w, const double *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fabs((double)w[i] - want[i]) > 1e-6)
            fail_msg("weight %zu is %.7f, must be %.7f", i, (double)w[i], want[i]);
}

static void test_weights_by_hand(void **state)
{
    (void)state;
    /* P(s) P(y) / P(s, y): of 10 rows 5 are good */
    const double ag = 6. * 5 / (10 * 4), ab = 6. * 5 / (10 * 2), b = 2. * 5 / (10 * 1),
                 c = 2. * 5 / (10 * 2);
    const double want[] = {ag, ag, ag, ag, ab, ab, b, b, c, c};
    float w[10];
    hooks *h = bundled_hooks();
    loaded *p = open_with(h, labels);
    dataset *d = load(h, rows);
    weigh_or_fail(h, d, w);
    expect(w, want, 10);
    dataset_close(d);
    close_with(h, p);
}

static int refuse(hook_call *c, void *user, hone_err *e)
{
    const char *text =
        json_string_value(json_object_get(json_object_get(c->data, "record"), "text"));
    (void)user;
    (void)e;
    if (strcmp(text, "one") != 0 && strcmp(text, "eight") != 0)
        return HOOK_CONTINUE;
    strcpy(c->reason, "not this one");
    return HOOK_VETO;
}

/* A filter before it takes a row out of the beginning: everybody keeps the own weight, which is
 * that of what is left. */
static void test_a_filter_in_between(void **state)
{
    (void)state;
    /* of 8 rows 4 are good: a 3 good, 2 bad; b 1 and 1; c 1 bad */
    const double ag = 5. * 4 / (8 * 3), ab = 5. * 4 / (8 * 2), b = 2. * 4 / (8 * 1),
                 c = 1. * 4 / (8 * 1);
    const double want[] = {ag, ag, ag, ab, ab, b, b, c};
    float w[8];
    hooks *h = bundled_hooks();
    hook_on(h, HOOK_DATA_FILTER, "filter", 0, refuse, NULL, NULL);
    loaded *p = open_with(h, labels);
    dataset *d = load(h, rows);
    assert_int_equal(d->n_rows, 8);
    weigh_or_fail(h, d, w);
    expect(w, want, 8);
    dataset_close(d);
    close_with(h, p);
}

/* Where every pair of group and label occurs, the weighted rows have no dependence left; a record
 * without id is known by its digest, and may stand there more than once. */
static void test_what_it_is_for(void **state)
{
    (void)state;
    static const char *const texts[] = {"ay", "an", "by", "bn"};
    static const char *const cells[] = {"a\ty", "a\tn", "b\ty", "b\tn"};
    static const int counts[] = {3, 1, 1, 3};
    char *lines = mem_strdup(""), *data = mem_strdup("");
    for (int i = 0; i < 4; i++) {
        char *record = mem_printf("{\"text\":\"%s\"}", texts[i]), hex[65];
        bytes_sha256(hex, record, strlen(record));
        char *more = mem_printf("%ssha256:%s\t%s\n", lines, hex, cells[i]);
        free(lines);
        lines = more;
        for (int k = 0; k < counts[i]; k++) {
            more = mem_printf("%s%s\n", data, record);
            free(data);
            data = more;
        }
        free(record);
    }
    float w[8];
    hooks *h = bundled_hooks();
    loaded *p = open_with(h, lines);
    dataset *d = load(h, data);
    weigh_or_fail(h, d, w);
    double a_yes = (double)(w[0] + w[1] + w[2]), a = a_yes + (double)w[3];
    double b_yes = (double)w[4], b = b_yes + (double)(w[5] + w[6] + w[7]);
    assert_true(fabs(a_yes / a - b_yes / b) < 1e-6);
    assert_true(fabs(a + b - 8) < 1e-5); /* the loss keeps its scale */
    dataset_close(d);
    close_with(h, p);
    free(lines);
    free(data);
}

/* The next run counts its own rows. */
static void test_counts_are_of_one_run(void **state)
{
    (void)state;
    static const char first[] = "{\"id\": \"r0\", \"text\": \"zero\"}\n";
    float w[10];
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = open_with(h, labels);
    dataset *d = load(h, rows);
    json_t *data = json_object();
    assert_int_equal(hook_emit(h, HOOK_TRAIN_END, &data, &e), 0);
    json_decref(data);
    assert_true(weigh(h, d, w, &e) < 0);
    assert_non_null(strstr(e.msg, "row 1 was not counted"));
    dataset_close(d);
    d = load(h, first);
    weigh_or_fail(h, d, w);
    assert_true(w[0] == 1);
    dataset_close(d);
    close_with(h, p);
}

static void test_a_row_without_label(void **state)
{
    (void)state;
    float w[2];
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = open_with(h, labels);
    dataset *d =
        load(h, "{\"id\": \"r0\", \"text\": \"zero\"}\n{\"id\": \"-7\", \"text\": \"x\"}\n");
    assert_true(bundled_count(h, "reweigh", "without_label") == 1);
    assert_true(weigh(h, d, w, &e) < 0);
    if (strstr(e.msg, "row 2 (sha256:a770d3270c9dcded) has no line in the file of labels") == NULL)
        fail_msg("%s", e.msg);
    assert_true(w[0] == 1 && w[1] == 1);
    dataset_close(d);
    close_with(h, p);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } bad[] = {
        {"x\ta\tb\nc\n", "line 2 is not id, tab, group, tab, label"},
        {"x\ta\tb\n\n", "line 2 is not id, tab, group, tab, label"},
        {"a\tb\n", "line 1 is not id, tab, group, tab, label"},
        {"x\t\tb\n", "line 1 is not id, tab, group, tab, label"},
        {"x\ta\tb\tc\n", "line 1 is not id, tab, group, tab, label"},
        {"x\ta\tb\nx\ta\tc\n", "line 2: 'x' was there before"},
        {"sha256:0123456789abcde\ta\tb\n", "after sha256: there must be 16 hex digits or more"},
        {"sha256:0123456789abcdeg\ta\tb\n", "after sha256: there must be 16 hex digits or more"},
        {"", "there are no lines in it"},
        {NULL, "there is no reweighing without labels"},
    };
    char *plugin = aid_plugin_copy(dir, "reweigh");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        hone_err e = {0};
        trust_file f;
        loaded *p = NULL;
        hooks *h = bundled_hooks();
        const char *text = bad[i].text;
        if (text != NULL)
            assert_int_equal(file_write(file, text, strlen(text), NULL), 0);
        json_t *s = text != NULL ? json_pack("{s:s}", "labels", file) : json_object();
        assert_int_equal(trust_open(&f, NULL, plugin, &e), 0);
        assert_true(loader_open(&p, &(loader_args){.file = &f, .settings = s, .hooks = h}, &e) < 0);
        if (strstr(e.msg, bad[i].want) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, bad[i].want);
        trust_close(&f);
        json_decref(s);
        hook_free(h);
    }
    free(plugin);
}

/* Questions of GSM8K by who they speak of and how long they are: weighted, one says nothing of the
 * other. */
enum { QUESTIONS = 2000, GROUPS = 3 };

static int group_of(const char *q)
{
    return strstr(q, " she ") != NULL ? 0 : strstr(q, " he ") != NULL ? 1 : 2;
}

static void check_independent(double cell[GROUPS][2])
{
    double all = 0, group[GROUPS] = {0}, label[2] = {0};
    for (int g = 0; g < GROUPS; g++)
        for (int l = 0; l < 2; l++) {
            all += cell[g][l];
            group[g] += cell[g][l];
            label[l] += cell[g][l];
        }
    for (int g = 0; g < GROUPS; g++)
        for (int l = 0; l < 2; l++)
            if (fabs(cell[g][l] / all - group[g] / all * label[l] / all) > 1e-6)
                fail_msg("group %d, label %d: %.6f of all, must be %.6f", g, l, cell[g][l] / all,
                         group[g] / all * label[l] / all);
}

static void test_public_questions(void **state)
{
    (void)state;
    json_t *texts = bundled_texts("data/datasets/gsm8k/train.jsonl", "question"), *one;
    size_t i;
    if (texts == NULL) {
        print_message("skipped: no shared data\n");
        skip();
    }
    buf table, lines;
    buf_init(&table, 1 << 20);
    buf_init(&lines, 4 << 20);
    int cell[QUESTIONS][2];
    json_array_foreach (texts, i, one) {
        if (i == QUESTIONS)
            break;
        const char *q = json_string_value(one);
        cell[i][0] = group_of(q);
        cell[i][1] = strlen(q) > 220;
        buf_printf(&table, "q%zu\t%d\t%d\n", i, cell[i][0], cell[i][1]);
        json_t *row = json_pack("{s:o, s:s}", "id", json_sprintf("q%zu", i), "text", "a question");
        char *line = js_text(row, false);
        buf_printf(&lines, "%s\n", line);
        free(line);
        json_decref(row);
    }
    hooks *h = bundled_hooks();
    loaded *p = open_with(h, table.data);
    dataset *d = load(h, lines.data);
    double weighted[GROUPS][2] = {{0}};
    assert_int_equal(d->n_rows, QUESTIONS);
    for (size_t first = 0; first < QUESTIONS; first += 32) {
        size_t n = QUESTIONS - first < 32 ? QUESTIONS - first : 32;
        float w[32];
        hone_err e = {0};
        if (weigh_some(h, d, first, n, w, &e) != 0)
            fail_msg("%s", e.msg);
        for (size_t k = 0; k < n; k++)
            weighted[cell[first + k][0]][cell[first + k][1]] += (double)w[k];
    }
    check_independent(weighted);
    dataset_close(d);
    close_with(h, p);
    buf_free(&table);
    buf_free(&lines);
    json_decref(texts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_by_hand),     cmocka_unit_test(test_a_filter_in_between),
        cmocka_unit_test(test_what_it_is_for),      cmocka_unit_test(test_counts_are_of_one_run),
        cmocka_unit_test(test_a_row_without_label), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_public_questions),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
