#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_plugin.h"

#include <stdlib.h>
#include <string.h>

typedef struct kit {
    hooks *h;
    loaded *p;
} kit;

static kit open_kit(const char *settings)
{
    kit k = {.h = bundled_hooks()};
    k.p = aid_plugin_open(k.h, "pii", settings);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
}

/* ---- labelled texts ---- */

typedef struct mark {
    size_t start, end;
    char kind[20];
} mark;

/* Kinds as the shared files call them, and ours. */
static const struct {
    const char *tag, *kind;
} names[] = {
    {"email", "email"},   {"phone", "phone"}, {"phone_number", "phone"},      {"ip", "ip"},
    {"ip_address", "ip"}, {"card", "card"},   {"credit_card_number", "card"}, {"iban", "iban"}};

static const char *kind_of(const char *tag, size_t n)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i].tag) == n && memcmp(names[i].tag, tag, n) == 0)
            return names[i].kind;
    return NULL;
}

/* Takes the marks out of a line; those of kinds that nobody looks for leave their text. */
static size_t unmark(char *line, mark *out)
{
    size_t n = 0, at = 0;
    mark open = {0, 0, ""};
    for (const char *s = line; *s != '\0';) {
        const char *end = *s == '<' ? strchr(s, '>') : NULL;
        int close = end != NULL && s[1] == '/';
        if (end == NULL || end - s > 22) {
            line[at++] = *s++;
            continue;
        }
        const char *kind = kind_of(s + 1 + close, (size_t)(end - s) - 1 - (size_t)close);
        if (kind != NULL && !close) {
            open.start = at;
            snprintf(open.kind, sizeof open.kind, "%s", kind);
        } else if (kind != NULL) {
            open.end = at;
            out[n++] = open;
        }
        s = end + 1;
    }
    line[at] = '\0';
    return n;
}

typedef struct score {
    const char *kind;
    int hit, missed, wrong;
} score;

static score *of_kind(score *s, const char *kind)
{
    while (strcmp(s->kind, kind) != 0)
        s++;
    return s;
}

/* A span counts when it is exactly the labelled one. */
static void judge(score *scores, const char *text, const mark *want, size_t n, const json_t *got,
                  int show)
{
    int used[64] = {0};
    for (size_t i = 0; i < json_array_size(got); i++) {
        const json_t *g = json_array_get(got, i);
        size_t start = (size_t)json_integer_value(json_object_get(g, "start"));
        size_t end = (size_t)json_integer_value(json_object_get(g, "end"));
        const char *kind = json_string_value(json_object_get(g, "kind"));
        size_t k = 0;
        while (k < n &&
               (want[k].start != start || want[k].end != end || strcmp(want[k].kind, kind) != 0))
            k++;
        if (k < n)
            used[k] = 1;
        else if (show)
            bundled_say("wrong %s '%.*s' in: %s", kind, (int)(end - start), text + start, text);
        (k < n ? &of_kind(scores, kind)->hit : &of_kind(scores, kind)->wrong)[0]++;
    }
    for (size_t k = 0; k < n; k++) {
        of_kind(scores, want[k].kind)->missed += !used[k];
        if (!used[k] && show)
            bundled_say("missed %s in: %s", want[k].kind, text);
    }
}

static void score_file(score *scores, char *text, const char *settings)
{
    kit k = open_kit(settings);
    char *save = NULL;
    for (char *s = strtok_r(text, "\n", &save); s != NULL; s = strtok_r(NULL, "\n", &save)) {
        mark want[64];
        size_t n = unmark(s, want);
        json_t *out = bundled_pass(k.h, HOOK_DATA_TAG, bundled_record(s, strlen(s), 1));
        judge(scores, s, want, n, json_object_get(json_object_get(out, "tags"), "pii"), 1);
        json_decref(out);
    }
    close_kit(&k);
}

/* Prints precision and recall by kind; returns the least of all. */
static double report(const char *what, const score *s)
{
    double least = 1;
    for (; s->kind[0] != '\0'; s++) {
        double found = s->hit + s->wrong, there = s->hit + s->missed;
        double precision = found > 0 ? s->hit / found : 1, recall = there > 0 ? s->hit / there : 1;
        bundled_say("%s, %-5s: precision %.3f recall %.3f (%d of %.0f, %d wrong)", what, s->kind,
                    precision, recall, s->hit, there, s->wrong);
        least = precision < least ? precision : least;
        least = recall < least ? recall : least;
    }
    return least;
}

#define SCORES                                                                                     \
    {                                                                                              \
        {"email", 0, 0, 0}, {"phone", 0, 0, 0}, {"ip", 0, 0, 0}, {"card", 0, 0, 0},                \
            {"iban", 0, 0, 0},                                                                     \
        {                                                                                          \
            "", 0, 0, 0                                                                            \
        }                                                                                          \
    }

static void test_own_labels(void **state)
{
    (void)state;
    score scores[] = SCORES;
    char *text = aid_text("tests/golden/pii/labelled.txt");
    score_file(scores, text, NULL);
    free(text);
    assert_true(report("labelled.txt", scores) >= 0.95);
}

/* What is personal there by its words alone (a bare number of ten digits) is not found, as the page
 * says; nothing that is not personal is. */
static void test_shared_labels(void **state)
{
    (void)state;
    static const char *const files[] = {"emails",     "phone_numbers", "card_no",
                                        "ip_address", "multiple",      "names",
                                        "ssn",        "address",       "birthdates"};
    score scores[] = SCORES;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *name = mem_printf("data/datasets/pii/%s.txt", files[i]), *path = aid_shared(name);
        free(name);
        if (path == NULL)
            skip();
        char *text = aid_text(path);
        score_file(scores, text, "{\"private_ips\": true}");
        free(text);
        free(path);
    }
    report("shared pii", scores);
    for (score *s = scores; s->kind[0] != '\0'; s++) {
        assert_int_equal(s->wrong, 0);
        assert_int_equal(s->missed, strcmp(s->kind, "phone") == 0 ? 1 : 0);
    }
}

/* ---- what is made of them ---- */

static const char *const conversation =
    "{\"record\": {\"messages\": [{\"role\": \"user\", \"content\": \"I am bob@example.org, my "
    "friend is ann@example.org\"}, {\"role\": \"assistant\", \"content\": \"Hello "
    "BOB@example.org, is 8.8.8.8 yours?\"}]}, \"source\": \"x\", \"line\": 1, \"tags\": {}}";

/* The name that data.pii gives a value of the record that was tagged last; caller frees. */
static char *name_of(const kit *k, const char *kind, const char *value)
{
    json_t *data = json_pack("{s:s, s:s, s:s, s:s, s:i}", "kind", kind, "span", value,
                             "replacement", "<X>", "source", "x", "line", 1);
    data = bundled_pass(k->h, HOOK_DATA_PII, data);
    char *out = mem_strdup(json_string_value(json_object_get(data, "replacement")));
    json_decref(data);
    return out;
}

static void is_named(const kit *k, const char *kind, const char *value, const char *want)
{
    char *got = name_of(k, kind, value);
    assert_string_equal(got, want);
    free(got);
}

static void test_names_are_numbered_by_value(void **state)
{
    (void)state;
    kit k = open_kit(NULL);
    hone_err e = {0};
    int rc;
    char *out = aid_emit(k.h, HOOK_DATA_TAG, conversation, &rc, &e);
    assert_non_null(strstr(out, "{\"end\":20,\"field\":\"messages[0].content\",\"kind\":\"email\","
                                "\"start\":5}"));
    assert_non_null(strstr(out, "\"pii_found\":4"));
    free(out);
    is_named(&k, "ip", "8.8.8.8", "<IP_1>"); /* the host asks from back to front */
    is_named(&k, "email", "BOB@example.org", "<EMAIL_1>");
    is_named(&k, "email", "ann@example.org", "<EMAIL_2>");
    is_named(&k, "email", "bob@example.org", "<EMAIL_1>");
    is_named(&k, "name", "Bob", "<X>"); /* somebody else's kind */
    free(aid_emit(k.h, HOOK_DATA_TAG,
                  "{\"record\": {\"text\": \"ann@example.org\"}, \"source\": \"x\", \"line\": 2, "
                  "\"tags\": {}}",
                  &rc, &e));
    is_named(&k, "email", "ann@example.org", "<EMAIL_1>");
    assert_true(bundled_count(k.h, "pii", "email") == 4);
    close_kit(&k);
}

static void test_pseudonyms(void **state)
{
    (void)state;
    hone_err e = {0};
    char *dir = aid_dir(), *path = path_join(dir, "key"), *first = NULL;
    char *s = mem_printf("{\"key_file\": \"%s\"}", path);
    for (int i = 0; i < 3; i++) {
        const char *key = i < 2 ? "0123456789abcdef\n" : "0123456789abcdeg\n";
        assert_int_equal(file_write(path, key, strlen(key), &e), 0);
        kit k = open_kit(s);
        char *a = name_of(&k, "phone", "+49 30 1234567"),
             *b = name_of(&k, "phone", "+49-30-1234567");
        assert_string_equal(a, b);
        /* HMAC-SHA-256 of "1" + "49301234567" by another program. */
        if (i == 0)
            assert_string_equal(a, "<PHONE_a4aab27cb3fb>");
        assert_true(i == 0 || (strcmp(a, first) == 0) == (i == 1));
        free(b);
        if (i == 0)
            first = a;
        else
            free(a);
        close_kit(&k);
    }
    free(first);
    free(s);
    free(path);
    aid_dir_remove(dir);
}

static void test_kinds_and_report(void **state)
{
    (void)state;
    hone_err e = {0};
    int rc;
    kit k = open_kit("{\"mode\": \"report\", \"ip\": false}");
    char *out = aid_emit(k.h, HOOK_DATA_TAG, conversation, &rc, &e);
    assert_null(strstr(out, "\"pii\""));
    assert_non_null(strstr(out, "\"pii_found\":3"));
    free(out);
    assert_true(bundled_count(k.h, "pii", "email") == 3);
    assert_true(bundled_count(k.h, "pii", "ip") == 0);
    close_kit(&k);
}

static void test_log_and_feedback(void **state)
{
    (void)state;
    static const char record[] =
        "{\"response_id\": \"1-202-555-0143\", \"answer\": \"Ask ann@example.org\", \"n\": 1, "
        "\"messages\": [{\"content\": \"ann@example.org or 202-555-0143\"}], \"tags\": "
        "[\"x@example.org\"]}";
    static const char want[] =
        "{\"answer\":\"Ask <EMAIL_1>\",\"messages\":[{\"content\":\"<EMAIL_1> or <PHONE_1>\"}],"
        "\"n\":1,\"response_id\":\"1-202-555-0143\",\"tags\":[\"<EMAIL_2>\"]}";
    static const hook_point points[] = {HOOK_SERVE_LOG, HOOK_FEEDBACK_INGEST};
    kit k = open_kit(NULL);
    hone_err e = {0};
    int rc;
    for (size_t i = 0; i < 2; i++) {
        char *out = aid_emit(k.h, points[i], record, &rc, &e);
        assert_int_equal(rc, 0);
        assert_string_equal(out, want);
        free(out);
    }
    close_kit(&k);
}

/* Real texts hold few of them; what is found there is printed as counts. */
static void test_real(void **state)
{
    (void)state;
    static const struct {
        const char *file, *field;
        int most; /* spans; looked at by hand */
    } rows[] = {{"gsm8k/train.jsonl", "question", 0},
                {"gsm8k/train.jsonl", "answer", 0},
                {"wikisql/train.jsonl", "text", 12},
                {"llamafactory/c4_demo.jsonl", "text", 40}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *name = mem_printf("data/datasets/%s", rows[i].file);
        json_t *texts = bundled_texts(name, rows[i].field);
        free(name);
        if (texts == NULL)
            skip();
        kit k = open_kit(NULL);
        size_t n, found = 0;
        json_t *one;
        json_array_foreach (texts, n, one) {
            json_t *out = bundled_pass(
                k.h, HOOK_DATA_TAG,
                bundled_record(json_string_value(one), json_string_length(one), (int64_t)n));
            json_t *list = json_object_get(json_object_get(out, "tags"), "pii");
            found += json_array_size(list);
            json_decref(out);
        }
        bundled_say("%s %s: %zu spans in %zu texts", rows[i].file, rows[i].field, found, n);
        assert_true(found <= (size_t)rows[i].most);
        json_decref(texts);
        close_kit(&k);
    }
}

/* Ten megabytes of what looks like the beginning of something. */
static void test_hostile(void **state)
{
    (void)state;
    static const char *const rows[] = {"1",    "@",     "a@",      "a@a.",  "1 ",   "+1-",
                                       "a.",   "f:",    "::",      "DE00 ", "1.1.", "tel 1234567 ",
                                       "(1) ", "4444 ", "u1@a.bc "};
    kit k = open_kit(NULL);
    enum { BYTES = 10 * 1000 * 1000 };
    char *text = mem_alloc(BYTES + 16);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        size_t n = strlen(rows[r]), len = r + 1 < sizeof rows / sizeof *rows ? BYTES : BYTES / 50;
        for (size_t i = 0; i < len; i++)
            text[i] = rows[r][i % n];
        clock_t start = clock();
        json_decref(bundled_pass(k.h, HOOK_DATA_TAG, bundled_record(text, len, (int64_t)r)));
        bundled_took(rows[r], start, 30);
    }
    char *at = text; /* as many names as fit */
    for (int i = 0; i < 100000; i++)
        at += sprintf(at, "u%d@example.org ", i);
    clock_t start = clock();
    json_decref(bundled_pass(k.h, HOOK_DATA_TAG, bundled_record(text, (size_t)(at - text), 99)));
    bundled_took("100,000 addresses", start, 30);
    free(text);
    close_kit(&k);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_labels),
        cmocka_unit_test(test_shared_labels),
        cmocka_unit_test(test_names_are_numbered_by_value),
        cmocka_unit_test(test_pseudonyms),
        cmocka_unit_test(test_kinds_and_report),
        cmocka_unit_test(test_log_and_feedback),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
