/* Merges learned from tests/golden/tok/train.txt against those of Hugging Face's BpeTrainer. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/text/tok.h"
#include "core/text/tok_train.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>

static json_t *load(const char *dir, const char *name)
{
    hone_err e = {0};
    json_t *v;
    char *path = path_join(dir, name);
    if (js_load(&v, path, &e) != 0)
        fail_msg("%s", e.msg);
    free(path);
    return v;
}

static void train_into(const tok_train_opts *o, const char *text, const char *dir)
{
    hone_err e = {0};
    tok_train *t;
    if (tok_train_new(&t, o, &e) != 0 || tok_train_add(t, text, strlen(text), &e) != 0 ||
        tok_train_run(t, &e) != 0 || tok_train_save(t, dir, &e) != 0)
        fail_msg("%s", e.msg);
    tok_train_free(t);
}

static void check_model(const char *dir, const json_t *want)
{
    json_t *root = load(dir, "tokenizer.json"), *m;
    const json_t *model = json_object_get(root, "model");
    const json_t *merges = json_object_get(model, "merges");
    size_t i;
    json_array_foreach (json_object_get(want, "merges"), i, m) {
        assert_string_equal(json_string_value(json_array_get(merges, i)), json_string_value(m));
    }
    assert_int_equal(json_array_size(merges), i);
    assert_int_equal(json_object_size(json_object_get(model, "vocab")),
                     json_integer_value(json_object_get(want, "n_vocab")));
    json_decref(root);
}

/* The trained tokenizer opens, gives the ids that the reference gives, and its ids give the text
 * back. */
static void check_ids(const char *dir, const char *text, const json_t *want)
{
    hone_err e = {0};
    tok_ids ids = {0};
    tok *t;
    buf back;
    buf_init(&back, 1 << 16);
    if (tok_open(&t, dir, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(tok_encode(t, text, strlen(text), 0, &ids, &e), 0);
    assert_int_equal(ids.n, json_array_size(want));
    for (size_t i = 0; i < ids.n; i++)
        assert_int_equal(ids.id[i], json_integer_value(json_array_get(want, i)));
    assert_int_equal(tok_decode(t, ids.id, ids.n, false, &back, &e), 0);
    assert_string_equal(back.data, text);
    tok_ids_free(&ids);
    buf_free(&back);
    tok_close(t);
}

static void test_merges_are_those_of_the_reference(void **state)
{
    (void)state;
    json_t *root = load("tests/golden/tok", "train.json"), *row, *s;
    char *text = aid_text("tests/golden/tok/train.txt");
    size_t i, k;
    json_array_foreach (root, i, row) {
        const char *special[4];
        tok_train_opts o = {
            .pattern = json_string_value(json_object_get(row, "pattern")),
            .vocab_size = (size_t)json_integer_value(json_object_get(row, "vocab_size")),
            .min_frequency = (uint64_t)json_integer_value(json_object_get(row, "min_frequency")),
            .special = special};
        json_array_foreach (json_object_get(row, "special"), k, s) {
            special[o.n_special++] = json_string_value(s);
        }
        char *dir = aid_dir();
        train_into(&o, text, dir);
        check_model(dir, row);
        check_ids(dir, text, json_object_get(row, "ids"));
        aid_dir_remove(dir);
    }
    assert_int_equal(i, 3);
    free(text);
    json_decref(root);
}

static void test_roles_are_written(void **state)
{
    (void)state;
    const char *const special[] = {"<pad>", "<s>", "</s>"};
    tok_train_opts o = {.vocab_size = 300,
                        .pattern = "qwen2",
                        .special = special,
                        .n_special = 3,
                        .bos = "<s>",
                        .eos = "</s>",
                        .pad = "<pad>",
                        .add_bos = true};
    hone_err e = {0};
    tok_ids ids = {0};
    tok *t;
    char *dir = aid_dir();
    train_into(&o, "low lower lowest, new newer newest", dir);
    assert_int_equal(tok_open(&t, dir, &e), 0);
    assert_int_equal(tok_pad(t), 0);
    assert_int_equal(tok_bos(t), 1);
    assert_int_equal(tok_eos(t), 2);
    assert_true(tok_adds_bos(t));
    assert_int_equal(tok_encode(t, "newest</s>", 10, TOK_ADD_SPECIAL, &ids, &e), 0);
    assert_int_equal(ids.id[0], 1);
    assert_int_equal(ids.id[ids.n - 1], 2);
    tok_ids_free(&ids);
    tok_close(t);
    aid_dir_remove(dir);
}

/* Training text cannot make a special token out of pieces. */
static void test_a_special_token_is_never_merged(void **state)
{
    (void)state;
    const char *const special[] = {"abc"};
    tok_train_opts o = {.vocab_size = 300, .pattern = "gpt2", .special = special, .n_special = 1};
    hone_err e = {0};
    tok_ids ids = {0};
    tok *t;
    char *dir = aid_dir();
    train_into(&o, "abc abc abc abc abc abcd abcd", dir);
    assert_int_equal(tok_open(&t, dir, &e), 0);
    assert_int_equal(tok_encode(t, "abc abcd", 8, TOK_NO_PARSE_SPECIAL, &ids, &e), 0);
    for (size_t i = 0; i < ids.n; i++)
        assert_int_not_equal(ids.id[i], 0);
    tok_ids_free(&ids);
    tok_close(t);
    aid_dir_remove(dir);
}

/* One word of a million letters is learned from in time, and a run of one letter merges from the
 * left. */
static void test_a_long_word(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    tok_train_opts o = {.vocab_size = 600, .pattern = "gpt2"};
    char *dir = aid_dir(), *text = mem_alloc(N + 1);
    memset(text, 'a', N / 2);
    for (size_t i = N / 2; i < N; i++)
        text[i] = (char)('a' + i * i % 7);
    train_into(&o, text, dir);
    free(text);
    aid_dir_remove(dir);
}

static void refuse(tok_train_opts o, const char *want)
{
    hone_err e = {0};
    tok_train *t;
    assert_int_equal(tok_train_new(&t, &o, &e), HONE_EINVAL);
    assert_null(t);
    assert_string_equal(e.msg, want);
}

static void test_settings_that_are_not_possible(void **state)
{
    (void)state;
    const char *const one[] = {"<s>"}, *const twice[] = {"<s>", "<s>"}, *const empty[] = {""};
    refuse((tok_train_opts){.vocab_size = 256, .pattern = "gpt2", .special = one, .n_special = 1},
           "vocabulary of 256, allowed are 257 (256 bytes and the special tokens) to 1048576");
    refuse((tok_train_opts){.vocab_size = 300, .pattern = "gpt4"},
           "pattern 'gpt4' is not gpt2, llama3 or qwen2");
    refuse((tok_train_opts){.vocab_size = 300, .pattern = "gpt2", .special = twice, .n_special = 2},
           "special token '<s>' is given twice");
    refuse((tok_train_opts){.vocab_size = 300, .pattern = "gpt2", .special = empty, .n_special = 1},
           "special token 0 is empty or not UTF-8");
    refuse((tok_train_opts){.vocab_size = 300, .pattern = "gpt2", .eos = "</s>"},
           "eos '</s>' is not one of the special tokens");
    refuse((tok_train_opts){.vocab_size = 300, .pattern = "gpt2", .add_bos = true},
           "adding bos needs a bos token");
}

static void test_text_that_is_none(void **state)
{
    (void)state;
    tok_train_opts o = {.vocab_size = 300, .pattern = "gpt2"};
    hone_err e = {0};
    tok_train *t;
    assert_int_equal(tok_train_new(&t, &o, &e), 0);
    assert_int_equal(tok_train_add(t, "ab\xC3", 3, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "the text is not UTF-8 at byte 2");
    assert_int_equal(tok_train_run(t, &e), HONE_EINVAL);
    assert_string_equal(e.msg, "there is no text to learn from");
    tok_train_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_are_those_of_the_reference),
        cmocka_unit_test(test_roles_are_written),
        cmocka_unit_test(test_a_special_token_is_never_merged),
        cmocka_unit_test(test_a_long_word),
        cmocka_unit_test(test_settings_that_are_not_possible),
        cmocka_unit_test(test_text_that_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
