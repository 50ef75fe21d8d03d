#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/eval/eval.h"
#include "serve/engine/served.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_bundled.h"
#include "tests/unit/aid_plugin.h"
#include "tests/unit/aid_tiny.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct kit {
    char *dir;
    hooks *h;
    loaded *p;
} kit;

/* more: further settings, from a comma on. */
static kit open_kit(const char *lines, const char *more)
{
    kit k = {.dir = aid_dir(), .h = bundled_hooks()};
    char *file = path_join(k.dir, "prompts.jsonl");
    assert_int_equal(file_write(file, lines, strlen(lines), NULL), 0);
    char *s = mem_printf("{\"file\": \"%s\"%s}", file, more);
    k.p = aid_plugin_open(k.h, "counterfactual", s);
    free(s);
    free(file);
    return k;
}

static void close_kit(kit *k)
{
    hone_err e = {0};
    assert_int_equal(loader_close(k->p, 1000, &e), 0);
    hook_free(k->h);
    aid_dir_remove(k->dir);
}

static json_t *question(void)
{
    return json_pack("{s:s, s:[], s:{}}", "phase", "items", "items", "scores");
}

static const json_t *text_of(const json_t *data, size_t item, size_t text)
{
    const json_t *it = json_array_get(json_object_get(data, "items"), item);
    return json_array_get(json_object_get(it, "texts"), text);
}

static void test_swaps(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want; /* NULL: left out */
    } rows[] = {
        {"He said she won.", "She said he won."},
        {"THE BOYS' father's car, the gentleman", "THE GIRLS' mother's car, the lady"},
        {"The theme of women: men.", "The theme of men: women."},
        {"A prince\xC3\xA9, a Prince", "A prince\xC3\xA9, a Princess"},
        {"\xE2\x80\x9CHe\xE2\x80\x9D\xE2\x80\x94"
         "a king\xE2\x80\x99s man",
         "\xE2\x80\x9CShe\xE2\x80\x9D\xE2\x80\x94"
         "a queen\xE2\x80\x99s woman"},
        {"he_2, he2, 2he, theman: man", "he_2, he2, 2he, theman: woman"},
        {"a man\xE2\x80\x90like woman", NULL},
        {"the man-made hill and a woman", NULL},
        {"he likes her book", "she likes his book"},
        {"a her-story of her", NULL},
        {"nobody is in here", NULL},
        {"Mr Smith is a man", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *line = json_pack("{s:s}", "text", rows[i].text);
        char *text = json_dumps(line, 0);
        kit k = open_kit(text, "");
        json_t *data = bundled_pass(k.h, HOOK_BIAS_PROBE, question());
        const json_t *it = json_array_get(json_object_get(data, "items"), 0);
        assert_int_equal(it != NULL, rows[i].want != NULL);
        if (it != NULL) {
            const json_t *was = json_object_get(text_of(data, 0, 0), "text");
            const json_t *is = json_object_get(text_of(data, 0, 1), "text");
            assert_string_equal(json_string_value(was), rows[i].text);
            assert_string_equal(json_string_value(is), rows[i].want);
            assert_int_equal(json_array_size(json_object_get(it, "prompts")), 0);
        }
        json_decref(data);
        close_kit(&k);
        free(text);
        json_decref(line);
    }
}

static void test_terms_of_ones_own(void **state)
{
    (void)state;
    kit k = open_kit("{\"prompt\": \"May Anna, his boss, go?\", \"completion\": \" Paul\"}\r\n\n",
                     ", \"builtin\": false, \"terms\": [[\"anna\", \"paul\"], [\"his\", \"its\"]]");
    json_t *data = bundled_pass(k.h, HOOK_BIAS_PROBE, question());
    const json_t *t = text_of(data, 0, 1), *it = json_array_get(json_object_get(data, "items"), 0);
    assert_string_equal(json_string_value(json_object_get(t, "context")),
                        "May Paul, its boss, go?");
    assert_string_equal(json_string_value(json_object_get(t, "text")), " Anna");
    char *prompts = json_dumps(json_object_get(it, "prompts"), JSON_COMPACT);
    assert_string_equal(prompts, "[\"May Anna, his boss, go?\",\"May Paul, its boss, go?\"]");
    free(prompts);
    json_decref(data);
    close_kit(&k);
}

/* A term file: groups of pairs, each exchanged by itself; a line counts for each. Without builtin
 * English words stay as they are. */
static const char table[] =
    "{\"geschlecht\": {\"pairs\": [[\"Mann\", \"Frau\"], [\"er\", \"sie\"], [\"\xC3\x84rztin\", "
    "\"Arzt\"]], \"unsure\": [\"ihr\", \"ihm\"]}, \"alter\": [[\"alt\", \"jung\"], [\"McX\", "
    "\"deY\"]]}";

static char *terms_dir;

static int make_terms_dir(void **state)
{
    (void)state;
    terms_dir = aid_dir();
    return 0;
}

static int remove_terms_dir(void **state)
{
    (void)state;
    aid_dir_remove(terms_dir);
    return 0;
}

/* Settings from a comma on; caller frees. */
static char *table_setting(const char *more)
{
    char *path = path_join(terms_dir, "terms.json");
    assert_int_equal(file_write(path, table, strlen(table), NULL), 0);
    char *s = mem_printf(", \"terms_file\": \"%s\"%s", path, more);
    free(path);
    return s;
}

static void test_a_file_of_terms(void **state)
{
    (void)state;
    static const struct {
        const char *text, *group, *want;
    } rows[] = {
        {"\xC3\x84RZTIN, er ist alt, he.", "geschlecht", "ARZT, sie ist alt, he."},
        {"\xC3\x84RZTIN, er ist alt, he.", "alter", "\xC3\x84RZTIN, er ist jung, he."},
        {"Ein Arzt und McX", "geschlecht", "Ein \xC3\x84rztin und McX"},
        {"Ein Arzt und McX", "alter", "Ein Arzt und deY"},
        {"Gib es ihr, sie ist jung", "alter", "Gib es ihr, sie ist alt"}, /* the other not sure */
    };
    char *more = table_setting("");
    kit k = open_kit("{\"text\": \"\xC3\x84RZTIN, er ist alt, he.\"}\n{\"text\": \"Ein Arzt und "
                     "McX\"}\n{\"text\": \"Gib es ihr, sie ist jung\"}\n{\"text\": \"he\"}",
                     more);
    json_t *data = bundled_pass(k.h, HOOK_BIAS_PROBE, question());
    json_t *items = json_object_get(data, "items");
    assert_int_equal(json_array_size(items), 5);
    for (size_t i = 0; i < 5; i++) {
        const json_t *it = json_array_get(items, i);
        assert_string_equal(json_string_value(json_object_get(it, "group")), rows[i].group);
        assert_string_equal(json_string_value(json_object_get(text_of(data, i, 0), "text")),
                            rows[i].text);
        assert_string_equal(json_string_value(json_object_get(text_of(data, i, 1), "text")),
                            rows[i].want);
    }
    assert_true(bundled_count(k.h, "counterfactual", "unsure") == 1);
    assert_true(bundled_count(k.h, "counterfactual", "no_term") == 1);
    json_decref(data);
    close_kit(&k);
    free(more);
}

static char *dumped(const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT);
    assert_non_null(text);
    return text;
}

static void expect_json(const json_t *v, const char *want)
{
    char *text = dumped(v);
    assert_string_equal(text, want);
    free(text);
}

/* Roles, names and ids stay; an assistant's turn at the end is what is scored, and not asked. */
static void test_conversations(void **state)
{
    (void)state;
    kit k = open_kit("{\"messages\": [{\"role\": \"system\", \"content\": \"men\"}, {\"role\": "
                     "\"user\", \"content\": [{\"type\": \"text\", \"text\": \"Is HE in?\"}]}], "
                     "\"group\": \"door\"}\n"
                     "{\"messages\": [{\"role\": \"user\", \"content\": \"the boy?\"}, {\"role\": "
                     "\"assistant\", \"content\": \"He is.\"}]}\n"
                     "{\"messages\": [{\"role\": \"user\", \"content\": \"who?\"}, {\"role\": "
                     "\"assistant\", \"content\": \"He is.\"}]}\n",
                     ", \"min_pairs\": 1");
    json_t *data = bundled_pass(k.h, HOOK_BIAS_PROBE, question());
    json_t *items = json_object_get(data, "items"), *first = json_array_get(items, 0);
    json_t *second = json_array_get(items, 1);
    assert_int_equal(json_array_size(items), 2); /* a term must be in what is asked */
    assert_string_equal(json_string_value(json_object_get(first, "group")), "door");
    assert_int_equal(json_array_size(json_object_get(first, "texts")), 0);
    expect_json(json_array_get(json_object_get(first, "prompts"), 1),
                "[{\"role\":\"system\",\"content\":\"women\"},{\"role\":\"user\",\"content\":[{"
                "\"type\":\"text\",\"text\":\"Is SHE in?\"}]}]");
    expect_json(json_object_get(second, "prompts"),
                "[[{\"role\":\"user\",\"content\":\"the boy?\"}],[{\"role\":\"user\",\"content\":"
                "\"the girl?\"}]]");
    expect_json(text_of(data, 1, 1),
                "{\"messages\":[{\"role\":\"user\",\"content\":\"the girl?\"},{\"role\":"
                "\"assistant\",\"content\":\"She is.\"}]}");
    for (size_t t = 0; t < 2; t++)
        json_object_set_new(json_array_get(json_object_get(second, "texts"), t), "ll",
                            json_real(-1.0 - (double)t));
    json_object_set_new(first, "answers", json_pack("[s, s]", "He.", "SHE!"));
    json_object_set_new(second, "answers", json_pack("[s, s]", "He.", "She."));
    json_object_set_new(data, "phase", json_string("score"));
    json_t *s = bundled_scores(bundled_pass(k.h, HOOK_BIAS_PROBE, data));
    bundled_expect(s, "counterfactual.flip_rate", "value", 0.5, 1e-12);
    bundled_expect(s, "counterfactual.mean_abs_delta", "n", 1, 0);
    bundled_expect(s, "counterfactual.mean_abs_delta", "value", 1, 1e-12);
    bundled_expect(s, "counterfactual.door.flip_rate", "value", 1, 1e-12);
    bundled_expect(s, "counterfactual.gender.flip_rate", "value", 0, 1e-12);
    json_decref(s);
    close_kit(&k);
}

static void test_figures_by_hand(void **state)
{
    (void)state;
    static const double ll[4][2] = {{-1, -2}, {-3, -1}, {-4, -4}, {-1, -6}};
    static const char *const answers[4][2] = {{"He may.", "She may."},
                                              {"Ask his father", "Ask her mother"},
                                              {"yes", "no"},
                                              {"hers", "theirs"}};
    kit k = open_kit("{\"prompt\": \"he\", \"group\": \"a\"}\n{\"prompt\": \"she\", \"group\": "
                     "\"a\"}\n{\"prompt\": \"men\", \"group\": \"b\"}\n{\"prompt\": \"boy\", "
                     "\"group\": \"a\"}\n{\"prompt\": \"Mr\"}\n{\"prompt\": \"none\"}\n",
                     ", \"min_pairs\": 3");
    json_t *data = bundled_pass(k.h, HOOK_BIAS_PROBE, question());
    json_t *items = json_object_get(data, "items");
    assert_int_equal(json_array_size(items), 4);
    assert_true(bundled_count(k.h, "counterfactual", "unsure") == 1);
    assert_true(bundled_count(k.h, "counterfactual", "no_term") == 1);
    for (size_t i = 0; i < 4; i++) {
        json_t *it = json_array_get(items, i);
        for (size_t t = 0; t < 2; t++)
            json_object_set_new(json_array_get(json_object_get(it, "texts"), t), "ll",
                                json_real(ll[i][t]));
        json_object_set_new(it, "answers", json_pack("[s, s]", answers[i][0], answers[i][1]));
    }
    json_object_set_new(data, "phase", json_string("score"));
    json_t *s = bundled_scores(bundled_pass(k.h, HOOK_BIAS_PROBE, data));
    /* 1, 2, 0, 5: s^2 = 14 / 3 */
    bundled_expect(s, "counterfactual.mean_abs_delta", "value", 2, 1e-12);
    bundled_expect(s, "counterfactual.mean_abs_delta", "high", 2 + 1.959964 * sqrt(14.0 / 12),
                   1e-6);
    bundled_expect(s, "counterfactual.p95_abs_delta", "value", 2 + 0.85 * 3, 1e-9);
    bundled_expect(s, "counterfactual.flip_rate", "value", 0.5, 1e-12);
    bundled_expect(s, "counterfactual.flip_rate", "low", 0.150036, 1e-5);
    bundled_expect(s, "counterfactual.a.flip_rate", "value", 1.0 / 3, 1e-12);
    bundled_expect(s, "counterfactual.a.mean_abs_delta", "value", 8.0 / 3, 1e-12);
    bundled_expect(s, "counterfactual.p95_abs_delta", "low", 1, 1e-12); /* ranks 2 and 4 of 4 */
    bundled_expect(s, "counterfactual.p95_abs_delta", "high", 5, 1e-12);
    bundled_expect_note(s, "counterfactual.b.mean_abs_delta",
                        "insufficient data: 1 of the 3 that are needed");
    bundled_expect_note(s, "counterfactual.b.p95_abs_delta",
                        "insufficient data: 1 of the 3 that are needed");
    char *each = json_dumps(
        json_object_get(json_object_get(s, "examples"), "counterfactual.flip_rate"), JSON_COMPACT);
    assert_string_equal(each, "[0.0,0.0,1.0,1.0]");
    free(each);
    json_decref(s);
    close_kit(&k);
}

static void test_bad_lines(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *want;
    } rows[] = {
        {"{\"text\": \"a\"}\n[1]\n", "line 2 is no JSON object"},
        {"{\"text\": \"a\"\n", "line 1 is no JSON object"},
        {"{\"a\": []}\n",
         "line 1: {\"text\"}, {\"prompt\", \"completion\"} or {\"messages\"} is needed"},
        {"{\"messages\": []}\n", "line 1: messages must be a list of {\"role\", \"content\"}"},
        {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"he\"}]}\n",
         "line 1: before the assistant's message nothing is asked"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        kit k = open_kit(rows[i].lines, "");
        json_t *data = question();
        assert_true(hook_emit(k.h, HOOK_BIAS_PROBE, &data, &e) < 0);
        if (strstr(e.msg, rows[i].want) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, rows[i].want);
        json_decref(data);
        close_kit(&k);
    }
}

static void test_bad_terms(void **state)
{
    (void)state;
    static const struct {
        const char *settings, *want;
    } rows[] = {
        {"{\"file\": \"x\", \"terms\": [[\"he\", \"they\"]]}",
         "'he' stands there twice; builtin: false leaves ours out"},
        {"{\"file\": \"x\", \"terms\": [[\"a b\", \"c\"]]}", "'a b' is not one word"},
        {"{\"file\": \"x\", \"terms\": [[\"a\"]]}", "terms: gender: entry 1 is no pair of words"},
        {"{\"file\": \"x\", \"terms\": {\"a\": 1}}",
         "a must be a list of pairs, or {pairs, unsure}"},
        {"{\"file\": \"x\", \"terms\": {\"a\": {\"pairs\": [], \"unsure\": [1]}}}",
         "terms: a: unsure must be a list of words"},
        {"{\"file\": \"x\", \"terms\": 3}", "terms must be {group: [[a, b]]} or a list of pairs"},
        {"{\"file\": \"x\", \"terms_file\": \"LICENSE\"}", "LICENSE: is no JSON"},
        {"{\"file\": \"x\", \"builtin\": 1}", "builtin must be true or false"},
        {"{\"file\": \"x\", \"builtin\": false}", "terms or terms_file is needed"},
        {"{\"file\": \"/nowhere/x\"}", "No such file"},
        {"{}", "file must name the JSON Lines with your prompts, or augment be true"},
    };
    char *dir = aid_dir(), *plugin = aid_plugin_copy(dir, "counterfactual");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        trust_file f;
        loaded *p = NULL;
        json_t *given;
        hooks *h = bundled_hooks();
        assert_int_equal(js_parse(&given, rows[i].settings, strlen(rows[i].settings), &e), 0);
        assert_int_equal(trust_open(&f, NULL, plugin, &e), 0);
        assert_true(loader_open(&p, &(loader_args){.file = &f, .settings = given, .hooks = h}, &e) <
                    0);
        if (strstr(e.msg, rows[i].want) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, rows[i].want);
        trust_close(&f);
        json_decref(given);
        hook_free(h);
    }
    free(plugin);
    aid_dir_remove(dir);
}

static char *record_twins(hooks *h, const char *record)
{
    hone_err e = {0};
    json_t *data;
    assert_int_equal(js_parse(&data, record, strlen(record), &e), 0);
    data = bundled_pass(h, HOOK_DATA_RECORD, data);
    char *text = json_dumps(data, JSON_COMPACT);
    json_decref(data);
    return text;
}

static void test_twins(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"{\"messages\":[{\"role\":\"he\",\"content\":\"Is he in?\"}],\"n\":1}",
         "[{\"messages\":[{\"role\":\"he\",\"content\":\"Is he in?\"}],\"n\":1},"
         "{\"messages\":[{\"role\":\"he\",\"content\":\"Is she in?\"}],\"n\":1}]"},
        {"{\"text\":\"his son\"}", "[{\"text\":\"his son\"},{\"text\":\"her daughter\"}]"},
        {"{\"text\":\"Mr X\"}", "[{\"text\":\"Mr X\"}]"},
        {"{\"text\":\"a day\"}", "[{\"text\":\"a day\"}]"},
        {"[{\"text\":\"men\"},{\"text\":\"a\"}]",
         "[{\"text\":\"men\"},{\"text\":\"women\"},{\"text\":\"a\"}]"},
    };
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "counterfactual", "{\"augment\": true}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *got = record_twins(h, rows[i][0]);
        assert_string_equal(got, rows[i][1]);
        free(got);
    }
    assert_true(bundled_count(h, "counterfactual", "twins") == 3);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

/* In all groups at once, and only there. */
static void test_twins_by_a_file_of_terms(void **state)
{
    (void)state;
    hone_err e = {0};
    hooks *h = bundled_hooks();
    char *more = table_setting(", \"augment\": true}");
    char *settings = mem_printf("{%s", more + 2);
    loaded *p = aid_plugin_open(h, "counterfactual", settings);
    char *got =
        record_twins(h, "{\"messages\":[{\"role\":\"er\",\"content\":\"Mann, jung: he\"}]}");
    assert_string_equal(got, "[{\"messages\":[{\"role\":\"er\",\"content\":\"Mann, jung: he\"}]},"
                             "{\"messages\":[{\"role\":\"er\",\"content\":\"Frau, alt: he\"}]}]");
    free(got);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
    free(settings);
    free(more);
}

static char *key_of(hooks *h, const char *text)
{
    json_t *data = json_pack("{s:{s:s}, s:s, s:i, s:s, s:n}", "record", "text", text, "source", "t",
                             "line", 1, "key", "5b1f0c3a99d2e481", "split");
    data = bundled_pass(h, HOOK_DATA_SPLIT, data);
    char *key = mem_strdup(json_string_value(json_object_get(data, "key")));
    json_decref(data);
    return key;
}

static void test_twins_stay_together(void **state)
{
    (void)state;
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "counterfactual", "{\"augment\": true}");
    char *a = key_of(h, "He met a girl."), *b = key_of(h, "She met a boy.");
    char *his = key_of(h, "It is his."), *hers = key_of(h, "It is hers.");
    assert_string_equal(his, hers);
    free(his);
    free(hers);
    char *c = key_of(h, "He met a boy!"), *d = key_of(h, "Nobody met.");
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    assert_int_equal(strlen(a), 16);
    assert_string_equal(d, "5b1f0c3a99d2e481"); /* as it was */
    free(a);
    free(b);
    free(c);
    free(d);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

/* The twin of a text; NULL where it has none. Caller frees. */
static char *twin_of(hooks *h, const char *text)
{
    json_t *data = bundled_pass(h, HOOK_DATA_RECORD, json_pack("{s:s}", "text", text));
    const json_t *twin = json_object_get(json_array_get(data, 1), "text");
    char *out = twin != NULL ? mem_strdup(json_string_value(twin)) : NULL;
    json_decref(data);
    return out;
}

static void test_his_and_her(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"I saw him, and his dog saw him.", "I saw her, and her dog saw her."},
        {"I know her. HER book is hers.", "I know him. HIS book is his."},
        {"Give her the book and tell her to go", "Give him the book and tell him to go"},
        {"The book is his; a friend of his", "The book is hers; a friend of hers"},
        {"his is red and hers is blue", "hers is red and his is blue"},
        {"his or her own; to him or her", "her or his own; to her or him"},
        {"ask him/her for his/her name", "ask her/him for her/his name"},
        {"gave her her book", "gave him his book"},
        {"her 3 sons, her in-laws; took her 5 minutes", "his 3 daughters, his in-laws; took him 5 "
                                                        "minutes"},
        {"\xE2\x80\x9CI love her\xE2\x80\x9D, \"near her\"", "\xE2\x80\x9CI love him\xE2\x80\x9D, "
                                                             "\"near him\""},
        {"with her\n\nMother", "with him\n\nFather"},
        {"his (late) wife", "her (late) husband"},
        {"one of his friends", "one of her friends"},
        {"a friend of his helps", NULL},
        {"He made her cry.", NULL},
        {"They gave her books.", NULL},
        {"He saw her running.", NULL},
        {"I want her back.", NULL},
        {"with her\nold book", NULL},
        {"her's", NULL},
        {"her \"best\" book", NULL},
    };
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "counterfactual", "{\"augment\": true}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *got = twin_of(h, rows[i][0]);
        if ((got == NULL) != (rows[i][1] == NULL) || (got != NULL && strcmp(got, rows[i][1]) != 0))
            fail_msg("'%s' becomes '%s'", rows[i][0], got != NULL ? got : "nothing");
        free(got);
    }
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

/* ---- his and her in real sentences ---- */

typedef struct tally {
    size_t right, wrong, undecided;
} tally;

/* The next word of letters from *s on, with its length; NULL at the end. */
static const char *next_word(const char **s, size_t *len)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const char *word = *s + strcspn(*s, letters);
    *len = strspn(word, letters);
    *s = word + *len;
    return *len > 0 ? word : NULL;
}

static int is_one_of(const char *word, size_t len, const char *a, const char *b)
{
    return (strlen(a) == len && strncasecmp(word, a, len) == 0) ||
           (strlen(b) == len && strncasecmp(word, b, len) == 0);
}

static size_t count_of(const char *text, const char *a, const char *b)
{
    size_t len, n = 0;
    for (const char *word; (word = next_word(&text, &len)) != NULL;)
        n += (size_t)is_one_of(word, len, a, b);
    return n;
}

/* With him and his and without her and hers: in the twin both are her, of which that one's twin has
 * to tell again which it was. */
static void judge_sentence(hooks *h, const char *text, tally *t)
{
    size_t n = count_of(text, "him", "his"), len, back_len;
    char *twin = n > 0 && count_of(text, "her", "hers") == 0 ? twin_of(h, text) : NULL;
    char *back = twin != NULL ? twin_of(h, twin) : NULL;
    const char *a = text, *b = back, *word, *other;
    t->undecided += twin != NULL && back == NULL ? n : 0;
    while (back != NULL && (word = next_word(&a, &len)) != NULL) {
        other = next_word(&b, &back_len);
        assert_non_null(other);
        if (!is_one_of(word, len, "him", "his"))
            continue;
        int same = len == back_len && strncmp(word, other, len) == 0;
        t->right += (size_t)same;
        t->wrong += (size_t)!same;
    }
    free(twin);
    free(back);
}

static void judge_text(hooks *h, const char *text, tally *t)
{
    for (const char *s = text; *s != '\0';) {
        size_t n = strcspn(s, ".?!\n");
        n += strspn(s + n, ".?!\n");
        char *sentence = mem_printf("%.*s", (int)n, s);
        judge_sentence(h, sentence, t);
        free(sentence);
        s += n;
    }
}

static void test_his_and_her_in_real_sentences(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        {"data/datasets/gsm8k/train.jsonl", "question"},
        {"data/datasets/llamafactory/c4_demo.jsonl", "text"},
        {"data/datasets/llamafactory/wiki_demo.txt", NULL},
        {"data/bias/winobias/pro_stereotyped_type2.txt.dev", NULL},
    };
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "counterfactual", "{\"augment\": true}");
    int absent = 0;
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        tally t = {0, 0, 0};
        json_t *texts = bundled_texts(files[f][0], files[f][1]), *one;
        size_t i;
        absent |= texts == NULL;
        json_array_foreach (texts, i, one)
            judge_text(h, json_string_value(one), &t);
        json_decref(texts);
        double decided = (double)(t.right + t.wrong);
        if (decided > 0)
            bundled_say("%s: him and his told apart: precision %.4f, %.1f %% left out",
                        strrchr(files[f][0], '/') + 1, (double)t.right / decided,
                        100 * (double)t.undecided / (decided + (double)t.undecided));
        assert_true(texts == NULL || (double)t.right >= 0.99 * decided);
        assert_true(texts == NULL || (double)t.undecided <= 0.4 * decided);
    }
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
    if (absent)
        skip();
}

/* On real questions: the twin of the twin is the record, and both have one key. Where the question
 * has him or his, the twin's her may be told apart wrongly or not at all. */
static void test_twins_of_real_records(void **state)
{
    (void)state;
    json_t *texts = bundled_texts("data/datasets/gsm8k/train.jsonl", "question"), *one;
    size_t i, n = 0, alone = 0, other = 0;
    if (texts == NULL)
        skip();
    hone_err e = {0};
    hooks *h = bundled_hooks();
    loaded *p = aid_plugin_open(h, "counterfactual", "{\"augment\": true}");
    json_array_foreach (texts, i, one) {
        json_t *data = bundled_pass(h, HOOK_DATA_RECORD, json_pack("{s:O}", "text", one));
        json_t *twin = json_array_get(data, 1);
        if (twin != NULL) {
            n++;
            json_t *back = bundled_pass(h, HOOK_DATA_RECORD, json_incref(twin));
            int same = json_equal(json_array_get(back, 1), json_array_get(data, 0));
            const char *text = json_string_value(one);
            alone += json_array_size(back) < 2;
            other += !same && json_array_size(back) == 2;
            assert_true(same || json_array_size(back) < 2 || count_of(text, "him", "his") > 0);
            char *a = key_of(h, json_string_value(one));
            char *b = key_of(h, json_string_value(json_object_get(twin, "text")));
            assert_string_equal(a, b);
            free(a);
            free(b);
            json_decref(back);
        }
        json_decref(data);
    }
    bundled_say("GSM8K: %zu of %zu questions have a twin; of those, %zu have none and %zu another",
                n, json_array_size(texts), alone, other);
    assert_true(n > 2000);
    assert_true((double)other < 0.01 * (double)n);
    json_decref(texts);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    hook_free(h);
}

/* A model scores and answers: the figures are of what it said. */
static void test_with_a_model(void **state)
{
    (void)state;
    hone_err e = {0};
    served *sv = NULL;
    json_t *r = NULL;
    kit k = open_kit("{\"prompt\": \"he is\", \"completion\": \" a man\"}\n"
                     "{\"prompt\": \"the boy is\"}\n"
                     "{\"messages\": [{\"role\": \"user\", \"content\": \"is he in?\"}, "
                     "{\"role\": \"assistant\", \"content\": \"he is.\"}]}\n",
                     ", \"min_pairs\": 1");
    char *model_dir = path_join(k.dir, "model");
    aid_tiny_make(model_dir);
    served_options o = {.model_dir = model_dir, .device = "cpu", .dtype = KERN_F32, .kv_tokens = 1};
    if (served_open(&sv, &o, &e) != 0)
        fail_msg("%s", e.msg);
    eval_options eo = {.m = sv->model, .t = sv->tok, .c = sv->chat, .hooks = k.h, .max_tokens = 4};
    if (eval_run(&r, &eo, &e) != 0)
        fail_msg("%s", e.msg);
    bundled_expect(r, "counterfactual.flip_rate", "n", 3, 0);
    bundled_expect(r, "counterfactual.mean_abs_delta", "n", 3, 0);
    const json_t *each =
        json_object_get(json_object_get(r, "examples"), "counterfactual.mean_abs_delta");
    for (size_t i = 0; i < 3; i++)
        assert_true(json_number_value(json_array_get(each, i)) > 0);
    json_decref(r);
    served_release(sv);
    free(model_dir);
    close_kit(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_swaps),
        cmocka_unit_test(test_terms_of_ones_own),
        cmocka_unit_test(test_a_file_of_terms),
        cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_twins_by_a_file_of_terms),
        cmocka_unit_test(test_figures_by_hand),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_bad_terms),
        cmocka_unit_test(test_twins),
        cmocka_unit_test(test_twins_stay_together),
        cmocka_unit_test(test_his_and_her),
        cmocka_unit_test(test_his_and_her_in_real_sentences),
        cmocka_unit_test(test_twins_of_real_records),
        cmocka_unit_test(test_with_a_model),
    };
    return cmocka_run_group_tests(tests, make_terms_dir, remove_terms_dir);
}
