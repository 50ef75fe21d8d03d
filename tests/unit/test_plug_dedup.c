#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct kit {
    hooks *h;
    loaded *p;
} kit;

static kit open_kit(const char *settings)
{
    kit k = {.h = bundled_hooks()};
    k.p = aid_plugin_open(k.h, "dedup", settings);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
}

/* "" where the record stays. */
static const char *say(const kit *k, const char *text, int64_t line)
{
    static hone_err e;
    return bundled_filter(k->h, text, strlen(text), line, &e) == 0 ? "" : e.msg;
}

static void test_exact(void **state)
{
    (void)state;
    kit k = open_kit(NULL);
    assert_string_equal(say(&k, "a b", 1), "");
    assert_string_equal(say(&k, "a b", 2), "the same as t.jsonl:1 (cluster 0)");
    assert_string_equal(say(&k, " a\n\n b ", 3), "the same as t.jsonl:1 (cluster 0)");
    assert_string_equal(say(&k, "2 + 3 = 5", 4), "");
    assert_string_equal(say(&k, "2 + 3 = 6", 5), "nearly the same as t.jsonl:4 (Jaccard 1.0000, "
                                                 "cluster 1)");
    assert_string_equal(say(&k, "?!", 6), "");
    assert_string_equal(say(&k, "!?", 7), "");  /* no words: nothing to be near of */
    assert_string_equal(say(&k, "a b", 1), ""); /* itself, read again */
    assert_true(bundled_count(k.h, "dedup", "exact") == 2);
    assert_true(bundled_count(k.h, "dedup", "near") == 1);
    assert_true(bundled_count(k.h, "dedup", "clusters") == 2);
    close_kit(&k);
    k = open_kit("{\"near\": false, \"exact\": \"bytes\"}");
    assert_string_equal(say(&k, "a b", 1), "");
    assert_string_equal(say(&k, "a  b", 2), "");
    assert_string_equal(say(&k, "a b", 3), "the same as t.jsonl:1 (cluster 0)");
    close_kit(&k);
    k = open_kit("{\"numbers\": \"keep\"}");
    assert_string_equal(say(&k, "2 + 3 = 5", 4), "");
    assert_string_equal(say(&k, "2 + 3 = 6", 5), "");
    close_kit(&k);
}

/* The texts of a conversation are told apart: the end of one is not the beginning of another. */
static void test_fields(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "{\"record\": {\"prompt\": \"a b\", \"completion\": \"c\"}, \"source\": \"x\", \"line\": "
        "1}",
        "{\"record\": {\"prompt\": \"a\", \"completion\": \"b c\"}, \"source\": \"x\", \"line\": "
        "2}",
        "{\"record\": {\"messages\": [{\"role\": \"user\", \"content\": \"a b\"}, {\"role\": "
        "\"assistant\", \"content\": \"c\"}]}, \"source\": \"x\", \"line\": 3}"};
    static const int want[] = {0, 0, HONE_EVETO};
    kit k = open_kit("{\"near\": false}");
    hone_err e = {0};
    int rc;
    for (size_t i = 0; i < 3; i++) {
        free(aid_emit(k.h, HOOK_DATA_FILTER, rows[i], &rc, &e));
        assert_int_equal(rc, want[i]);
    }
    close_kit(&k);
}

/* As plain sets of strings make it: tests/golden/dedup/gen_dedup.py. */
static void test_similarity(void **state)
{
    (void)state;
    char *text = aid_text("tests/golden/dedup/pairs.jsonl");
    hone_err e = {0};
    int64_t n = 0;
    for (char *s = strtok(text, "\n"); s != NULL; s = strtok(NULL, "\n"), n++) {
        json_t *row;
        assert_int_equal(js_parse(&row, s, strlen(s), &e), 0);
        kit k = open_kit("{\"threshold\": 0.1, \"bands\": 128, \"rows\": 1, \"action\": \"tag\"}");
        const char *a = json_string_value(json_object_get(row, "a"));
        const char *b = json_string_value(json_object_get(row, "b"));
        json_decref(bundled_pass(k.h, HOOK_DATA_TAG, bundled_record(a, strlen(a), 2 * n + 1)));
        json_t *out = bundled_pass(k.h, HOOK_DATA_TAG, bundled_record(b, strlen(b), 2 * n + 2));
        json_t *dup = json_object_get(json_object_get(out, "tags"), "duplicate");
        double want = json_number_value(json_object_get(row, "jaccard"));
        double got = json_number_value(json_object_get(dup, "jaccard"));
        if (fabs(want - got) > 1e-6)
            fail_msg("pair %lld: %.6f, must be %.6f", (long long)n, got, want);
        json_decref(out);
        json_decref(row);
        close_kit(&k);
    }
    assert_int_equal(n, 42);
    free(text);
}

static int letter(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint32_t x[4];
    rng_philox(x, seed, stream, i);
    return 'a' + (int)(x[0] % 26);
}

/* A text of n words, and the same with its first words changed. */
static void pair(char *a, char *b, uint64_t seed, size_t n, size_t n_changed)
{
    *a = *b = '\0';
    for (size_t i = 0; i < n; i++) {
        a += sprintf(a, "w%c%c%c ", letter(seed, 1, i), letter(seed, 2, i), letter(seed, 3, i));
        size_t k = i < n_changed ? 4 : 1;
        b += sprintf(b, "w%c%c%c ", letter(seed, k, i), letter(seed, 2, i), letter(seed, 3, i));
    }
}

/* The share of pairs that are compared at all is what the formula says: the permutations are
 * independent. */
static void test_catch_probability(void **state)
{
    (void)state;
    enum { PAIRS = 600, WORDS = 300 };
    static char a[WORDS * 8], b[WORDS * 8];
    static const size_t changed[] = {48, 32, 15};
    hone_err e;
    for (size_t c = 0; c < 3; c++) {
        kit k = open_kit("{\"threshold\": 0.1}");
        double same = WORDS - 4 - (double)changed[c], s = same / (2.0 * (WORDS - 4) - same);
        int caught = 0;
        for (int i = 0; i < PAIRS; i++) {
            pair(a, b, (uint64_t)i + 1, WORDS, changed[c]);
            assert_int_equal(bundled_filter(k.h, a, strlen(a), 2 * i, &e), 0);
            caught += bundled_filter(k.h, b, strlen(b), 2 * i + 1, &e) != 0;
        }
        double want = 1 - pow(1 - pow(s, 8), 14), got = (double)caught / PAIRS;
        bundled_say("similarity %.3f: %.3f caught, %.3f by the formula", s, got, want);
        assert_true(fabs(got - want) < 4.5 * sqrt(want * (1 - want) / PAIRS) + 0.002);
        close_kit(&k);
    }
}

static const char *nth(const json_t *texts, size_t i)
{
    return json_string_value(json_array_get(texts, i));
}

/* Real documents: each twice, the second time without its first word. */
static void test_real(void **state)
{
    (void)state;
    json_t *texts = bundled_texts("data/datasets/llamafactory/c4_demo.jsonl", "text");
    if (texts == NULL)
        skip();
    kit k = open_kit(NULL);
    hone_err e;
    size_t n = json_array_size(texts), caught = 0, kept = 0;
    for (size_t i = 0; i < n; i++)
        kept += *say(&k, nth(texts, i), (int64_t)i + 1) == '\0';
    bundled_say("c4_demo: %zu of %zu documents stay", kept, n);
    assert_true(kept == n);
    for (size_t i = 0; i < n; i++) {
        const char *s = nth(texts, i), *rest = strchr(s, ' ');
        caught += rest != NULL && bundled_filter(k.h, rest, strlen(rest), (int64_t)(n + i), &e);
    }
    bundled_say("c4_demo: %zu of %zu documents without their first word are caught", caught, n);
    assert_true(caught >= n * 98 / 100);
    close_kit(&k);
    json_decref(texts);
}

static void put_index(const char *dir, const char *text, const char *more)
{
    char *s = mem_printf("{\"write_index\": \"%s/index\"%s}", dir, more);
    kit k = open_kit(s);
    hone_err e = {0};
    int rc;
    say(&k, text, 7);
    free(aid_emit(k.h, HOOK_TRAIN_START, "{}", &rc, &e));
    assert_int_equal(rc, 0);
    close_kit(&k);
    free(s);
}

/* What loading with this index says. */
static void refused(const char *dir, const char *more, const char *want)
{
    hone_err e = {0};
    trust_file f;
    loaded *p;
    hooks *h = bundled_hooks();
    char *path = aid_plugin_copy(dir, "dedup");
    char *s = mem_printf("{\"index\": \"%s/index\"%s}", dir, more);
    json_t *given;
    assert_int_equal(js_parse(&given, s, strlen(s), &e), 0);
    assert_int_equal(trust_open(&f, NULL, path, &e), 0);
    assert_int_equal(loader_open(&p, &(loader_args){.file = &f, .settings = given, .hooks = h}, &e),
                     HONE_EINVAL);
    if (strstr(e.msg, want) == NULL)
        fail_msg("'%s' is not in: %s", want, e.msg);
    trust_close(&f);
    json_decref(given);
    hook_free(h);
    free(path);
    free(s);
}

static void test_index(void **state)
{
    (void)state;
    static const char text[] = "the pump of the machine is loud when it has been cleaned twice";
    char *dir = aid_dir(), *path = path_join(dir, "index"), *bytes;
    char *s = mem_printf("{\"index\": \"%s/index\"}", dir);
    size_t len;
    hone_err e = {0};
    put_index(dir, text, "");
    kit k = open_kit(s);
    assert_string_equal(say(&k, text, 1), "the same as t.jsonl:7 (cluster 0)");
    assert_string_equal(
        say(&k, "The pump of the machine is loud, when it has been cleaned twice!", 1),
        "nearly the same as t.jsonl:7 (Jaccard 1.0000, cluster 0)");
    assert_string_equal(say(&k, "something else", 2), "");
    close_kit(&k);
    refused(dir, ", \"rows\": 4", "was made with other settings");
    assert_int_equal(file_read(&bytes, &len, path, 1 << 20, &e), 0);
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 0x10;
        assert_int_equal(file_write(path, bytes, len, &e), 0);
        refused(dir, "", i < 8 ? "is no index" : i < 56 ? "other settings" : "is damaged");
        bytes[i] ^= 0x10;
    }
    assert_int_equal(file_write(path, bytes, len - 1, &e), 0);
    refused(dir, "", "is damaged");
    free(bytes);
    free(path);
    free(s);
    aid_dir_remove(dir);
}

static void test_memory_is_bounded(void **state)
{
    (void)state;
    kit k = open_kit("{\"memory_mb\": 1, \"numbers\": \"keep\"}");
    hone_err e = {0};
    char text[64];
    int rc = 0, i;
    for (i = 0; rc == 0 && i < 20000; i++) {
        int n = sprintf(text, "x%dy a%d b", i, i);
        json_t *data = bundled_record(text, (size_t)n, i);
        rc = hook_emit(k.h, HOOK_DATA_FILTER, &data, &e);
        json_decref(data);
    }
    assert_true(i > 100 && i < 20000);
    assert_non_null(strstr(e.msg, "needs more than memory_mb = 1; raise it, or set near to false"));
    close_kit(&k);
}

/* A long line, many equal records, and a family of records that share every band but are too far
 * apart to be duplicates: none of it takes more than its length. */
static void test_hostile(void **state)
{
    (void)state;
    enum { EQUAL = 200000, FAMILY = 4000 };
    kit k = open_kit("{\"bands\": 64, \"rows\": 1}");
    hone_err e;
    size_t len, kept = 0;
    char *line = bundled_long_line(&len);
    clock_t start = clock();
    assert_int_equal(bundled_filter(k.h, line, len, 1, &e), 0);
    assert_int_equal(bundled_filter(k.h, line, len, 2, &e), HONE_EVETO);
    for (size_t i = 0; i < len; i++)
        line[i] = i % 10 == 0 ? '\n' : 'x'; /* a million equal lines */
    assert_int_equal(bundled_filter(k.h, line, len, 3, &e), 0);
    free(line);
    json_t *data = bundled_record("equal", 5, 4);
    for (int i = 0; i < EQUAL; i++) {
        json_object_set_new(data, "line", json_integer(i + 10));
        assert_int_equal(hook_emit(k.h, HOOK_DATA_FILTER, &data, &e), i == 0 ? 0 : HONE_EVETO);
    }
    json_decref(data);
    for (int i = 0; i < FAMILY; i++) {
        char text[1024], *at = text;
        for (int w = 0; w < 60; w++)
            at += sprintf(at, "w%c%c ", 'a' + w % 26,
                          w >= 30 ? letter((uint64_t)i, 0, (uint64_t)w) : 'A');
        kept += bundled_filter(k.h, text, strlen(text), 1000000 + i, &e) == 0;
    }
    assert_true(kept == FAMILY);
    bundled_took("hostile input", start, 20);
    close_kit(&k);
}

/* The key of a row at data.split after it was tagged; caller frees. */
static char *key_of(hooks *h, const char *text, int line, const char *key)
{
    json_t *data = bundled_record(text, strlen(text), line);
    json_decref(bundled_pass(h, HOOK_DATA_TAG, data));
    data = bundled_record(text, strlen(text), line);
    json_object_set_new(data, "key", json_string(key));
    data = bundled_pass(h, HOOK_DATA_SPLIT, data);
    char *got = mem_strdup(json_string_value(json_object_get(data, "key")));
    json_decref(data);
    return got;
}

/* With action tag the members of a cluster have the key of the first, and others their own. */
static void test_clusters_are_not_split(void **state)
{
    (void)state;
    static const struct {
        const char *text, *key, *want;
    } rows[] = {
        {"Turn the valve to the left, and wait until the light is green.", "1111111111111111",
         "1111111111111111"},
        {"Turn the  valve to the left, and wait until the light is green.", "2222222222222222",
         "1111111111111111"},
        {"Something else is the case with this machine today.", "3333333333333333",
         "3333333333333333"},
        {"TURN THE VALVE TO THE LEFT, AND WAIT UNTIL THE LIGHT IS GREEN!", "4444444444444444",
         "1111111111111111"},
        {"Something else is the case with this machine today!", "5555555555555555",
         "3333333333333333"},
    };
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "dedup", "{\"action\": \"tag\"}");
    for (int i = 0; i < 5; i++) {
        char *key = key_of(h, rows[i].text, i + 1, rows[i].key);
        assert_string_equal(key, rows[i].want);
        free(key);
    }
    /* A row that was not tagged last is left alone. */
    json_t *data = bundled_record(rows[0].text, strlen(rows[0].text), 99);
    json_object_set_new(data, "key", json_string("6666666666666666"));
    data = bundled_pass(h, HOOK_DATA_SPLIT, data);
    assert_string_equal(json_string_value(json_object_get(data, "key")), "6666666666666666");
    json_decref(data);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clusters_are_not_split),
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_similarity),
        cmocka_unit_test(test_catch_probability),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
