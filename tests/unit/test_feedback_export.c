/* Exports: nothing twice, what users agree on, and two sides that never mix. */
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/store/feedback_export.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static store *st;

static int set_up(void **state)
{
    return aid_dir_quick_setup(state) != 0 || store_open(&st, *state, NULL, NULL) != 0;
}

static int tear_down(void **state)
{
    store_close(st);
    return aid_dir_teardown(state);
}

/* One opinion of a user on an answer; correction NULL: only a rating. */
static void add(const char *question, const char *answer, int rating, const char *correction,
                const char *user)
{
    hone_err e = {0};
    bool created;
    json_t *line = json_pack("{s:[{s:s, s:s}], s:s, s:i, s:s}", "messages", "role", "user",
                             "content", question, "answer", answer, "rating", rating, "user", user);
    if (correction != NULL)
        json_object_set_new(line, "correction", json_string(correction));
    if (feedback_import(st, line, "test", &created, &e) != 0)
        fail_msg("%s", e.msg);
    json_decref(line);
}

static void say(const char *question, int rating, const char *user)
{
    char comment[64];
    hone_err e = {0};
    bool created;
    snprintf(comment, sizeof comment, "says %s", user);
    json_t *line =
        json_pack("{s:[{s:s, s:s}], s:s, s:i, s:s, s:s}", "messages", "role", "user", "content",
                  question, "answer", "blue", "rating", rating, "user", user, "comment", comment);
    if (feedback_import(st, line, "test", &created, &e) != 0 || !created)
        fail_msg("%s", e.msg);
    json_decref(line);
}

static json_t *export_all(const feedback_export_options *o)
{
    feedback_export *x;
    hone_err e = {0};
    json_t *rows = json_array();
    int rc = feedback_export_open(&x, st, o, &e);
    while (rc == 0)
        rc = feedback_export_next(x, rows, &e);
    if (rc < 0)
        fail_msg("%s", e.msg);
    feedback_export_close(x);
    return rows;
}

static size_t count(const feedback_export_options *o)
{
    json_t *rows = export_all(o);
    size_t n = json_array_size(rows);
    json_decref(rows);
    return n;
}

static void test_nothing_twice(void **state)
{
    (void)state;
    feedback_export_options o = {.format = FEEDBACK_KTO};
    say("sky?", 1, "ann");
    say("sky?", 1, "bob");
    say("sky?", -1, "eve");
    say("sea?", 1, "ann");
    assert_int_equal(count(&o), 4);
    o.dedupe = true;
    assert_int_equal(count(&o), 3); /* one label of each kind for the sky */
    o.format = FEEDBACK_SFT;
    assert_int_equal(count(&o), 2);
    o.filter.limit = 2; /* of feedback, not of rows */
    assert_int_equal(count(&o), 1);
}

static void test_agreement(void **state)
{
    (void)state;
    feedback_export_options o = {.format = FEEDBACK_KTO, .min_agreement = 0.6};
    say("sky?", 1, "ann");
    say("sky?", 1, "bob");
    say("sky?", -1, "eve");
    say("sea?", 1, "ann");
    say("sea?", -1, "bob");
    json_t *rows = export_all(&o), *row;
    size_t i;
    assert_int_equal(json_array_size(rows), 2); /* two of three; one of two is too few */
    json_array_foreach (rows, i, row) {
        assert_true(json_is_true(json_object_get(row, "label")));
    }
    json_decref(rows);
    o.dedupe = true;
    assert_int_equal(count(&o), 1);
    o.min_agreement = 0.5;
    assert_int_equal(count(&o), 3);
    o.min_agreement = 1;
    assert_int_equal(count(&o), 0);
    add("sun?", "blue", -1, "yellow", "ann");
    add("sun?", "red", -1, "yellow", "bob");
    add("sun?", "black", -1, "white", "eve");
    o = (feedback_export_options){.format = FEEDBACK_SFT, .min_agreement = 0.6, .dedupe = true};
    o.filter.corrected = true;
    assert_int_equal(count(&o), 1); /* two of three say yellow */
}

static void put_questions(int n)
{
    for (int i = 0; i < n; i++) {
        char question[32];
        snprintf(question, sizeof question, "question %d", i);
        add(question, "a", 1, NULL, "ann");
        add(question, "b", -1, NULL, "bob");
    }
}

/* Both rows of a question lie on one side; the sides together are everything, in pages or not. */
static void test_two_sides(void **state)
{
    (void)state;
    feedback_export_options o = {.format = FEEDBACK_KTO, .split = 0.7};
    put_questions(150);
    json_t *all = export_all(&o), *row, *sides = json_object();
    size_t i, train = 0;
    assert_int_equal(json_array_size(all), 300);
    json_array_foreach (all, i, row) {
        const json_t *prompt = json_array_get(json_object_get(row, "prompt"), 0);
        const char *question = json_string_value(json_object_get(prompt, "content"));
        json_t *side = json_object_get(row, "split");
        json_t *before = json_object_get(sides, question);
        assert_true(before == NULL || json_equal(before, side));
        json_object_set(sides, question, side);
        train += strcmp(json_string_value(side), "train") == 0;
    }
    assert_in_range(train, 180, 240);
    o.part = FEEDBACK_TRAIN;
    assert_int_equal(count(&o), train);
    o.part = FEEDBACK_HOLDOUT;
    json_t *held = export_all(&o);
    assert_int_equal(json_array_size(held), 300 - train);
    assert_null(json_object_get(json_array_get(held, 0), "split"));
    json_decref(held);
    json_decref(all);
    json_decref(sides);
}

static void refused(const char *format, const char *split, const char *part, const char *agreement,
                    bool dedupe, const char *says)
{
    feedback_export_options o = {.dedupe = dedupe};
    feedback_export *x = NULL;
    hone_err e = {0};
    int rc = feedback_export_take(&o, format, split, part, agreement, &e);
    if (rc == 0)
        rc = feedback_export_open(&x, st, &o, &e);
    assert_int_equal(rc, HONE_EINVAL);
    assert_null(x);
    assert_string_equal(e.msg, says);
}

static void test_errors(void **state)
{
    (void)state;
    refused("kto", "0.9", NULL, NULL, false,
            "split '0.9': expected hash:SHARE, such as hash:0.9 (for training)");
    refused("kto", "hash:2", NULL, NULL, false,
            "split '2': a share above 0 and up to 1 is expected");
    refused("kto", "hash:0.9", "test", NULL, false, "part 'test': it is train or holdout");
    refused("kto", NULL, "train", NULL, false, "a part needs a split, such as hash:0.9");
    refused("kto", NULL, NULL, "0", false,
            "min_agreement '0': a share above 0 and up to 1 is expected");
    refused("raw", NULL, NULL, NULL, true,
            "dedupe and min_agreement are for kto, dpo and sft: raw records are all different");
    refused("xml", NULL, NULL, NULL, true, "no format 'xml'; there are raw, kto, dpo, sft");
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_twice),
        TEST(test_agreement),
        TEST(test_two_sides),
        TEST(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
