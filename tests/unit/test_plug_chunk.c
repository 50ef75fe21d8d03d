#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/data/dataset.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_plugin.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct kit {
    hooks *h;
    loaded *p;
} kit;

static kit open_kit(const char *settings)
{
    kit k = {.h = bundled_hooks()};
    k.p = aid_plugin_open(k.h, "chunk", settings);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
}

static json_t *cut(const kit *k, const char *text, size_t n)
{
    return bundled_pass(k->h, HOOK_DATA_RECORD,
                        json_pack("{s:o, s:s}", "text", json_stringn(text, n), "id", "d"));
}

/* Pieces with a bar between. */
static void cuts(const char *settings, const char *text, const char *want)
{
    char got[1024] = "";
    kit k = open_kit(settings);
    json_t *out = cut(&k, text, strlen(text)), *one;
    size_t i;
    if (json_is_object(out))
        strcat(got, "whole");
    json_array_foreach (out, i, one)
        sprintf(got + strlen(got), "%s%s", i > 0 ? "|" : "",
                json_string_value(json_object_get(one, "text")));
    assert_string_equal(got, want);
    json_decref(out);
    close_kit(&k);
}

static void test_places(void **state)
{
    (void)state;
    static const char bytes20[] = "{\"unit\": \"bytes\", \"size\": 20}";
    cuts(bytes20, "short", "whole");
    cuts(bytes20, "Word word. Sentence two.", "Word word.|Sentence two.");
    cuts(bytes20, "one two three four five six", "one two three four|five six");
    cuts(bytes20, "Aaaa bbbb.\n\nCc d. Eeee", "Aaaa bbbb.|Cc d. Eeee");
    cuts(bytes20, "Aaaaaaaaaa.\n# B\n\ncc dddd", "Aaaaaaaaaa.|# B\n\ncc dddd");
    cuts(bytes20, "xxxxxxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxxxxxxxxxxxxx|xxxxx");
    cuts(bytes20,
         "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
         "\xc3\xa9",
         "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9|"
         "\xc3\xa9");
    cuts("{\"unit\": \"bytes\", \"size\": 20, \"overlap\": 10}", "one two three four five six",
         "one two three four|four five six");
    cuts("{\"unit\": \"tokens\", \"size\": 16}", "a b c d e f g h i j k l m n o p q r",
         "a b c d e f g h i j k l m n o p|q r");
}

static void test_pieces_know_where_they_stand(void **state)
{
    (void)state;
    kit k = open_kit("{\"unit\": \"bytes\", \"size\": 20}");
    json_t *out = cut(&k, "one two three four  five six", 28);
    char *text = js_text(out, true);
    assert_string_equal(text, "[{\"chunk_id\":\"d#0-18\",\"id\":\"d\",\"text\":\"one two three "
                              "four\"},{\"chunk_id\":\"d#20-28\",\"id\":\"d\",\"text\":\"five "
                              "six\"}]");
    free(text);
    json_decref(out);
    close_kit(&k);
}

static size_t plain(char *out, const char *s, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        if (!isspace((unsigned char)s[i]))
            out[at++] = s[i];
    return at;
}

/* Without overlap nothing is lost or doubled, and no piece is too long. */
static void whole(const char *text, size_t n, const char *settings, size_t size)
{
    char *a = mem_alloc(n + 1), *b = mem_alloc(n + 1);
    size_t i, at = 0, len = plain(a, text, n);
    kit k = open_kit(settings);
    clock_t start = clock();
    json_t *out = cut(&k, text, n), *one;
    bundled_took(settings, start, 20);
    json_array_foreach (out, i, one) {
        const json_t *t = json_object_get(one, "text");
        assert_true(size == 0 || json_string_length(t) <= size);
        at += plain(b + at, json_string_value(t), json_string_length(t));
    }
    assert_true(i > 1);
    assert_int_equal(at, len);
    assert_memory_equal(a, b, len);
    free(a);
    free(b);
    json_decref(out);
    close_kit(&k);
}

/* With overlap every piece goes beyond the one before it, and none leaves a gap but white space. */
static void grows(const char *text, size_t n, const char *settings)
{
    kit k = open_kit(settings);
    json_t *out = cut(&k, text, n), *one;
    size_t i, past = 0;
    json_array_foreach (out, i, one) {
        size_t from, end;
        const char *id = json_string_value(json_object_get(one, "chunk_id"));
        assert_int_equal(sscanf(id, "d#%zu-%zu", &from, &end), 2);
        assert_true(end > past);
        for (; past < from; past++)
            assert_true(isspace((unsigned char)text[past]));
        past = end;
    }
    assert_true(i > 1);
    for (; past < n; past++)
        assert_true(isspace((unsigned char)text[past]));
    json_decref(out);
    close_kit(&k);
}

static void test_overlaps(void **state)
{
    (void)state;
    static const char gap[] =
        "one two three\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nfour five six seven eight ";
    char *path = aid_shared("data/datasets/tinyshakespeare/input.txt");
    grows(gap, sizeof gap - 1, "{\"unit\": \"bytes\", \"size\": 16, \"overlap\": 8}");
    grows(gap, sizeof gap - 1, "{\"unit\": \"tokens\", \"size\": 16, \"overlap\": 8}");
    if (path == NULL)
        skip();
    char *text = aid_text(path);
    grows(text, strlen(text), "{\"unit\": \"tokens\", \"size\": 16, \"overlap\": 8}");
    grows(text, strlen(text), "{\"unit\": \"bytes\", \"size\": 400, \"overlap\": 200}");
    free(text);
    free(path);
}

static void test_real(void **state)
{
    (void)state;
    char *path = aid_shared("data/datasets/tinyshakespeare/input.txt");
    if (path == NULL)
        skip();
    char *text = aid_text(path);
    whole(text, strlen(text), "{\"unit\": \"bytes\", \"size\": 3000}", 3000);
    whole(text, strlen(text), "{\"unit\": \"tokens\", \"size\": 500}", 0);
    free(text);
    free(path);
}

/* The estimate beside what a real tokenizer makes of it. */
static void test_estimate(void **state)
{
    (void)state;
    hone_err e = {0};
    char *path = aid_shared("data/tokenizers/llama3.json"), *json;
    json_t *texts = bundled_texts("data/datasets/llamafactory/c4_demo.jsonl", "text"), *one, *part;
    if (path == NULL || texts == NULL)
        skip();
    tok *t;
    size_t i, k, len, n = 0, most = 0;
    double sum = 0;
    assert_int_equal(file_read(&json, &len, path, TOK_MAX_FILE, &e), 0);
    assert_int_equal(tok_open_json(&t, json, len, &e), 0);
    kit c = open_kit("{\"unit\": \"tokens\", \"size\": 256}");
    json_array_foreach (texts, i, one) {
        json_t *out = cut(&c, json_string_value(one), json_string_length(one));
        json_array_foreach (out, k, part) {
            const json_t *s = json_object_get(part, "text");
            tok_ids ids = {0};
            if (!json_is_object(part) || k + 1 == json_array_size(out))
                continue;
            assert_int_equal(
                tok_encode(t, json_string_value(s), json_string_length(s), 0, &ids, &e), 0);
            n++;
            sum += (double)ids.n;
            most = ids.n > most ? ids.n : most;
            tok_ids_free(&ids);
        }
        json_decref(out);
    }
    bundled_say("%zu pieces of 256 estimated tokens: %.0f of llama3 on average, %zu at most", n,
                sum / (double)n, most);
    assert_true(n > 100 && most < 2 * 256);
    tok_close(t);
    free(json);
    free(path);
    json_decref(texts);
    close_kit(&c);
}

/* Through the loader of data: all pieces of a document are held out, or none. */
static void test_one_side_of_a_split(void **state)
{
    (void)state;
    hone_err e = {0};
    tok *t;
    dataset *d;
    data_view train, val;
    kit k = open_kit("{\"unit\": \"bytes\", \"size\": 40}");
    char *dir = aid_dir(), *path = path_join(dir, "docs.jsonl"), *text = mem_alloc(65536);
    size_t at = 0, n_val = 0;
    int side[41] = {0};
    for (int i = 1; i <= 40; i++)
        at += (size_t)sprintf(text + at,
                              "{\"text\": \"Document %d has a first sentence. And %d has a second "
                              "one of them. And a third is in %d.\"}\n",
                              i, i, i);
    assert_int_equal(file_write(path, text, at, &e), 0);
    assert_int_equal(tok_open(&t, "tests/golden/train/model", &e), 0);
    json_t *entry = json_string(path);
    data_options o = {.tok = t, .no_chat = "", .sequence_len = 512, .hooks = k.h};
    if (dataset_open(&d, entry, &o, &e) != 0)
        fail_msg("%s", e.msg);
    assert_true(d->n_rows >= 120);
    assert_int_equal(data_view_split(&train, &val, d, 0.3, &e), 0);
    for (size_t i = 0; i < train.n + val.n; i++) {
        const data_view *v = i < train.n ? &train : &val;
        size_t sample = v->sample[i < train.n ? i : i - train.n];
        side[d->rows[d->samples[sample].row].line] |= v == &train ? 1 : 2;
    }
    for (int i = 1; i <= 40; i++) {
        assert_true(side[i] == 1 || side[i] == 2);
        n_val += side[i] == 2;
    }
    assert_true(n_val >= 6 && n_val <= 18);
    data_view_free(&train);
    data_view_free(&val);
    dataset_close(d);
    json_decref(entry);
    tok_close(t);
    free(text);
    free(path);
    aid_dir_remove(dir);
    close_kit(&k);
}

static void test_hostile(void **state)
{
    (void)state;
    size_t len;
    char *line = bundled_long_line(&len);
    whole(line, len, "{\"unit\": \"bytes\", \"size\": 1000}", 1000);
    for (size_t i = 0; i < len; i++)
        line[i] = 'x';
    whole(line, len, "{\"unit\": \"tokens\", \"size\": 100000}", 0);
    for (size_t i = 0; i < len; i++)
        line[i] = i % 10 == 0 ? '\n' : '"';
    whole(line, len, "{\"unit\": \"tokens\", \"size\": 1000}", 0);
    free(line);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),   cmocka_unit_test(test_pieces_know_where_they_stand),
        cmocka_unit_test(test_overlaps), cmocka_unit_test(test_real),
        cmocka_unit_test(test_estimate), cmocka_unit_test(test_one_side_of_a_split),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
