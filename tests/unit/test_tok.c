/* Ids, byte ranges and decoded text against Hugging Face tokenizers (tests/golden/tok/gen_tok.py),
 * and against the makers' own ids for the real tokenizers. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/utf8.h"
#include "core/text/tok_int.h"
#include "tests/unit/aid.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static json_t *golden(const char *name)
{
    hone_err e = {0};
    json_t *v;
    char *path = mem_printf("tests/golden/tok/%s", name);
    if (js_load(&v, path, &e) != 0)
        fail_msg("%s", e.msg);
    free(path);
    return v;
}

static tok *open_text(const char *json)
{
    hone_err e = {0};
    tok *t;
    if (tok_open_json(&t, json, strlen(json), &e) != 0)
        fail_msg("%s", e.msg);
    return t;
}

static json_t *cases; /* tests/golden/tok/cases.json */

static int load_cases(void **state)
{
    (void)state;
    cases = golden("cases.json");
    return 0;
}

static int drop_cases(void **state)
{
    (void)state;
    json_decref(cases);
    return 0;
}

/* The tokenizer that a row of cases.json describes. */
static tok *open_case(const json_t *row)
{
    static const char *const copied[] = {"added_tokens", "normalizer", "pre_tokenizer",
                                         "post_processor", "decoder"};
    json_t *o = json_object();
    for (size_t i = 0; i < 5; i++)
        json_object_set(o, copied[i], json_object_get(row, copied[i]));
    if (json_is_string(json_object_get(row, "decoder"))) /* "none" */
        json_object_set_new(o, "decoder", json_null());
    const char *base = json_string_value(json_object_get(row, "base"));
    json_t *model = json_copy(json_object_get(json_object_get(cases, "bases"), base));
    json_object_update(model, json_object_get(row, "model"));
    json_object_set_new(o, "model", model);
    char *text = js_text(o, false);
    tok *t = open_text(text);
    free(text);
    json_decref(o);
    return t;
}

static tok *open_named(const char *name)
{
    json_t *row;
    size_t i;
    tok *t = NULL;
    json_array_foreach (json_object_get(cases, "tokenizers"), i, row) {
        if (strcmp(json_string_value(json_object_get(row, "name")), name) == 0)
            t = open_case(row);
    }
    assert_non_null(t);
    return t;
}

static tok_ids encode(const tok *t, const char *text, size_t len, unsigned flags)
{
    hone_err e = {0};
    tok_ids ids = {0};
    if (tok_encode(t, text, len, flags, &ids, &e) != 0)
        fail_msg("%s", e.msg);
    return ids;
}

static void same_ids(const char *name, const char *text, const tok_ids *got, const json_t *want)
{
    bool same = got->n == json_array_size(want);
    for (size_t i = 0; same && i < got->n; i++)
        same = got->id[i] == json_integer_value(json_array_get(want, i));
    if (same)
        return;
    for (size_t i = 0; i < got->n; i++)
        fprintf(stderr, "%d%s", got->id[i], i + 1 < got->n ? "," : "\n");
    char *expected = js_text(want, false);
    fail_msg("%s: '%s': want %s", name, text, expected);
}

static char *decode(const tok *t, const tok_ids *ids, bool skip)
{
    hone_err e = {0};
    buf out;
    buf_init(&out, 1 << 24);
    if (tok_decode(t, ids->id, ids->n, skip, &out, &e) != 0)
        fail_msg("%s", e.msg);
    return buf_take(&out, NULL);
}

/* Every piece that the stream gives ends at a character border, and together they are the text. */
static void stream_is_whole(const tok *t, const tok_ids *ids, bool skip, const char *whole)
{
    hone_err e = {0};
    buf out;
    buf_init(&out, 1 << 24);
    tok_stream *s = tok_stream_new(t, skip);
    for (size_t i = 0; i < ids->n; i++) {
        size_t before = out.len;
        assert_int_equal(tok_stream_push(s, ids->id[i], &out, &e), 0);
        assert_int_equal(utf8_valid(out.data + before, out.len - before), out.len - before);
    }
    assert_int_equal(tok_stream_end(s, &out), 0);
    assert_string_equal(out.data, whole);
    tok_stream_free(s);
    buf_free(&out);
}

static bool border(const char *text, size_t len, uint32_t at)
{
    return at == len || ((unsigned char)text[at] & 0xC0) != 0x80;
}

/* Hugging Face gives whole characters, and of characters that normalisation joined only the first;
 * ours are the exact bytes, and all that took part. What the tokenizer inserted is empty here and
 * the next character there. */
static void same_spans(const char *name, const char *text, size_t len, const tok_ids *got,
                       const json_t *spans, bool exact)
{
    for (size_t i = 0; i < got->n; i++) {
        uint32_t a = got->start[i], b = got->end[i];
        json_int_t x = json_integer_value(json_array_get(spans, 2 * i));
        json_int_t y = json_integer_value(json_array_get(spans, 2 * i + 1));
        assert_true(a <= b && b <= len);
        if (a == b)
            continue;
        while (!border(text, len, a))
            a--;
        while (!border(text, len, b))
            b++;
        if (exact ? a != x || b != y : a > x || b < y)
            fail_msg("%s: '%s': token %zu is [%u, %u), want [%d, %d)", name, text, i, a, b, (int)x,
                     (int)y);
    }
}

static void check_decode(const tok *t, const tok_ids *ids, const char *text, const json_t *c)
{
    if (json_is_null(json_object_get(c, "decoded")))
        return;
    const char *want = json_string_value(json_object_get(c, "decoded"));
    if (want == NULL)
        want = text;
    char *got = decode(t, ids, false);
    assert_string_equal(got, want);
    stream_is_whole(t, ids, false, got);
    const char *skipped = json_string_value(json_object_get(c, "skipped"));
    char *got_skipped = decode(t, ids, true);
    assert_string_equal(got_skipped, skipped != NULL ? skipped : want);
    stream_is_whole(t, ids, true, got_skipped);
    free(got);
    free(got_skipped);
}

static void test_small_tokenizers(void **state)
{
    (void)state;
    json_t *row, *c;
    size_t i, k;
    json_array_foreach (json_object_get(cases, "tokenizers"), i, row) {
        tok *t = open_case(row);
        const char *name = json_string_value(json_object_get(row, "name"));
        bool exact = json_is_null(json_object_get(row, "normalizer"));
        json_array_foreach (json_object_get(row, "cases"), k, c) {
            const json_t *text =
                json_array_get(json_object_get(cases, "texts"),
                               (size_t)json_integer_value(json_object_get(c, "text")));
            const char *s = json_string_value(text);
            size_t len = json_string_length(text);
            tok_ids ids = encode(t, s, len, TOK_ADD_SPECIAL);
            same_ids(name, s, &ids, json_object_get(c, "ids"));
            same_spans(name, s, len, &ids, json_object_get(c, "spans"), exact);
            if (strlen(s) == len)
                check_decode(t, &ids, s, c);
            tok_ids_free(&ids);
        }
        tok_close(t);
    }
}

/* ---- the real tokenizers ---- */

static tok *open_shared(const char *name)
{
    hone_err e = {0};
    char *json, *file = mem_printf("data/tokenizers/%s.json", name), *path = aid_shared(file);
    size_t len;
    tok *t;
    free(file);
    if (path == NULL)
        skip();
    assert_int_equal(file_read(&json, &len, path, TOK_MAX_FILE, &e), 0);
    if (tok_open_json(&t, json, len, &e) != 0)
        fail_msg("%s", e.msg);
    free(json);
    free(path);
    return t;
}

/* The next line of *at, with \n, \s and \x as what they stand for; NULL at the end. Caller frees.
 */
static char *next_line(const char **at)
{
    if (**at == '\0')
        return NULL;
    const char *end = strchrnul(*at, '\n');
    buf out;
    buf_init(&out, 1 << 20);
    for (const char *p = *at; p < end; p++) {
        if (p[0] == '\\' && p + 1 < end && strchr("nsx", p[1]) != NULL) {
            buf_str(&out, p[1] == 'n' ? "\n" : p[1] == 's' ? " " : "");
            p++;
        } else {
            buf_char(&out, *p);
        }
    }
    *at = *end == '\0' ? end : end + 1;
    return buf_take(&out, NULL);
}

static char *case_file(const char *kind, const char *name)
{
    char *dir = aid_shared("data/tokenizers/cases");
    assert_non_null(dir);
    char *path = mem_printf("%s/small_%s%s%s.txt", dir, kind, *name ? "_" : "", name);
    char *text = file_exists(path) ? aid_text(path) : NULL;
    free(path);
    free(dir);
    return text;
}

static void check_line(const tok *t, const char *name, const char *text, const char *want)
{
    tok_ids ids = encode(t, text, strlen(text), 0);
    json_t *list;
    hone_err e = {0};
    char *json = mem_printf("[%s]", want);
    assert_int_equal(js_parse(&list, json, strlen(json), &e), 0);
    same_ids(name, text, &ids, list);
    json_decref(list);
    free(json);
    tok_ids_free(&ids);
}

static void check_cases(const tok *t, const char *name)
{
    char *input = case_file("input", ""), *tokens = case_file("tokens", name);
    char *output = case_file("output", name);
    assert_non_null(input);
    assert_non_null(tokens);
    const char *in = input, *want = tokens, *out = output != NULL ? output : input;
    char *text, *line;
    size_t n = 0;
    for (; (text = next_line(&in)) != NULL; n++) {
        line = next_line(&want);
        assert_non_null(line);
        check_line(t, name, text, line);
        tok_ids ids = encode(t, text, strlen(text), 0);
        char *got = decode(t, &ids, false), *expected = next_line(&out);
        assert_string_equal(got, expected);
        stream_is_whole(t, &ids, false, got);
        free(got);
        free(expected);
        free(text);
        free(line);
        tok_ids_free(&ids);
    }
    assert_int_equal(n, 20);
    free(input);
    free(tokens);
    free(output);
}

/* The makers' cases where there are any, and the texts of shared.json. */
static void check_real(const char *file, const char *makers)
{
    tok *t = open_shared(file);
    json_t *root = golden("shared.json"), *want;
    size_t i;
    if (makers != NULL)
        check_cases(t, makers);
    json_array_foreach (json_object_get(json_object_get(root, "ids"), file), i, want) {
        const json_t *text = json_array_get(json_object_get(root, "texts"), i);
        tok_ids ids = encode(t, json_string_value(text), json_string_length(text), 0);
        same_ids(file, json_string_value(text), &ids, want);
        tok_ids_free(&ids);
    }
    assert_true(i > 40);
    json_decref(root);
    tok_close(t);
}

static void test_gpt2(void **state)
{
    (void)state;
    check_real("gpt2", "gpt2");
}

static void test_llama2(void **state)
{
    (void)state;
    check_real("llama2", "llama2");
}

static void test_mistral(void **state)
{
    (void)state;
    check_real("mistral03", "mistral03");
}

static void test_llama3(void **state)
{
    (void)state;
    check_real("llama3", "llama32");
}

static void test_gpt_neox(void **state)
{
    (void)state;
    check_real("gpt_neox", "gpt_neox");
}

static void test_qwen2(void **state)
{
    (void)state;
    check_real("qwen2", NULL);
}

/* ---- scanners and cuts ---- */

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(*seed >> 33);
}

/* A character, mostly of the kinds that the patterns look at. Unassigned ones are left out: the
 * libraries know different versions of Unicode. */
static uint32_t random_char(uint64_t *seed)
{
    static const uint32_t telling[] = {' ',  ' ',  '\n', '\r', '\t', '\'',  's',   'S',    't',
                                       'r',  'e',  'l',  'L',  'v',  'D',   '1',   '2',    '!',
                                       0x85, 0xA0, 'm',  'a',  0xE9, 0x301, 0x17F, 0x3000, 0x180E};
    uint32_t kind = next_random(seed) % 4, cp;
    if (kind < 2)
        return telling[next_random(seed) % (sizeof telling / sizeof *telling)];
    do {
        cp = next_random(seed) % (kind == 2 ? 0x800 : 0x30000);
    } while (cp == 0 || (cp >= 0xD800 && cp < 0xE000));
    return cp;
}

static bool assigned(const tok_match *cn, void *data, uint32_t cp)
{
    buf one;
    size_t a, b;
    buf_init(&one, 8);
    buf_utf8(&one, cp);
    bool unassigned = tok_match_next(cn, data, one.data, one.len, 0, &a, &b, NULL) == 1;
    buf_free(&one);
    return !unassigned;
}

static char *random_text(uint64_t *seed, const tok_match *cn, void *data, size_t chars)
{
    buf out;
    buf_init(&out, 8 * chars);
    while (chars > 0) {
        uint32_t cp = random_char(seed);
        if (!assigned(cn, data, cp))
            continue;
        buf_utf8(&out, cp);
        chars--;
    }
    return buf_take(&out, NULL);
}

static void test_scanners_cut_as_the_patterns_do(void **state)
{
    (void)state;
    const char *const patterns[] = {tok_pattern_gpt2, tok_pattern_llama3, tok_pattern_qwen2};
    hone_err e = {0};
    tok *t = open_named("gpt2");
    tok_work *w = tok_work_new(t);
    tok_match cn;
    assert_int_equal(tok_match_regex(&cn, "\\p{Cn}", 6, false, &e), 0);
    for (size_t k = 0; k < 3; k++) {
        tok_match m;
        tok_scan *scan = tok_scan_find(patterns[k]);
        assert_non_null(scan);
        assert_int_equal(tok_match_regex(&m, patterns[k], strlen(patterns[k]), false, &e), 0);
        assert_null(m.scan);
        for (uint64_t seed = 1; seed < 2000; seed++) {
            uint64_t s = seed;
            char *text = random_text(&s, &cn, w->match, 40);
            size_t n = strlen(text), a, b;
            for (size_t i = 0; i < n; i = b) {
                assert_int_equal(tok_match_next(&m, w->match, text, n, i, &a, &b, &e), 1);
                if (a != i || b - i != scan(text + i, n - i))
                    fail_msg("pattern %zu, seed %d: at %zu of '%s'", k, (int)seed, i, text);
            }
            free(text);
        }
        tok_match_free(&m);
    }
    tok_match_free(&cn);
    tok_work_free(w);
    tok_close(t);
}

/* Texts that are cut where no merge joins get the ids that they get whole. */
static void test_cutting_changes_nothing(void **state)
{
    (void)state;
    const char *const names[] = {"llama2", "mistral", "gemma", "no fusing", "metaspace never"};
    hone_err e = {0};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        tok *t = open_named(names[k]);
        tok_work *w = tok_work_new(t);
        tok_match cn;
        assert_int_equal(tok_match_regex(&cn, "\\p{Cn}", 6, false, &e), 0);
        assert_true(t->bpe.cut);
        for (uint64_t seed = 1; seed < 100; seed++) {
            uint64_t s = seed;
            char *text = random_text(&s, &cn, w->match, 200);
            tok_ids cut = encode(t, text, strlen(text), 0);
            t->bpe.cut = false;
            tok_ids whole = encode(t, text, strlen(text), 0);
            t->bpe.cut = true;
            assert_int_equal(cut.n, whole.n);
            assert_memory_equal(cut.id, whole.id, cut.n * sizeof *cut.id);
            assert_memory_equal(cut.start, whole.start, cut.n * sizeof *cut.start);
            assert_memory_equal(cut.end, whole.end, cut.n * sizeof *cut.end);
            tok_ids_free(&cut);
            tok_ids_free(&whole);
            free(text);
        }
        tok_match_free(&cn);
        tok_work_free(w);
        tok_close(t);
    }
}

/* ---- properties ---- */

/* Without a normalizer the ranges of a text follow each other without a gap. */
static void test_ranges_cover_the_text(void **state)
{
    (void)state;
    static const char text[] = "caf\xC3\xA9 \xF0\x9F\x98\x80 x\xE4\xB8\xAD 12";
    const char *const names[] = {"gpt2", "llama3", "mistral"};
    for (size_t k = 0; k < 3; k++) {
        tok *t = open_named(names[k]);
        tok_ids ids = encode(t, text, strlen(text), 0);
        uint32_t at = 0;
        for (size_t i = 0; i < ids.n; i++) {
            assert_int_equal(ids.start[i], at);
            at = ids.end[i];
        }
        assert_int_equal(at, strlen(text));
        tok_ids_free(&ids);
        tok_close(t);
    }
}

static double cpu_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static void test_long_word_is_not_quadratic(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    const char *const names[] = {"gpt2", "llama2"};
    char *text = mem_alloc(N + 1);
    uint64_t seed = 7;
    for (size_t i = 0; i < N; i++)
        text[i] = (char)('a' + next_random(&seed) % 26);
    for (size_t k = 0; k < 2; k++) {
        tok *t = open_named(names[k]);
        double start = cpu_seconds();
        tok_ids ids = encode(t, text, N, 0);
        double took = cpu_seconds() - start;
        char *back = decode(t, &ids, false);
        assert_string_equal(back, text);
        if (took > 10) /* a quadratic merge takes hours */
            fail_msg("%s: %.1f s", names[k], took);
        free(back);
        tok_ids_free(&ids);
        tok_close(t);
    }
    free(text);
}

/* A million marks on one letter, in the order that costs most to sort. */
static void test_long_run_of_marks_is_not_quadratic(void **state)
{
    (void)state;
    enum { N = 1 << 19 };
    buf text;
    buf_init(&text, 4 * N);
    buf_char(&text, 'a');
    for (size_t i = 0; i < N; i++)
        buf_utf8(&text, i < N / 2 ? 0x301 : 0x323);
    tok *t = open_named("qwen2");
    double start = cpu_seconds();
    tok_ids ids = encode(t, text.data, text.len, 0);
    assert_true(cpu_seconds() - start < 10);
    char *back = decode(t, &ids, false);
    assert_memory_equal(back, "\xE1\xBA\xA1\xCC\xA3", 5); /* the lower marks come first */
    free(back);
    tok_ids_free(&ids);
    tok_close(t);
    buf_free(&text);
}

static void test_user_text_cannot_forge_specials(void **state)
{
    (void)state;
    static const char text[] = "a<s>b</s><|im_start|>";
    const char *const names[] = {"bytes flags", "llama2", "llama3"};
    for (size_t k = 0; k < 3; k++) {
        tok *t = open_named(names[k]);
        tok_ids parsed = encode(t, text, strlen(text), 0), plain;
        size_t specials = 0;
        for (size_t i = 0; i < parsed.n; i++)
            specials += tok_is_special(t, parsed.id[i]);
        assert_true(specials >= 2);
        plain = encode(t, text, strlen(text), TOK_NO_PARSE_SPECIAL);
        for (size_t i = 0; i < plain.n; i++)
            assert_false(tok_is_special(t, plain.id[i]));
        char *back = decode(t, &plain, true);
        assert_string_equal(back, text);
        free(back);
        tok_ids_free(&parsed);
        tok_ids_free(&plain);
        tok_close(t);
    }
}

static void test_encode_appends_and_keeps_on_error(void **state)
{
    (void)state;
    hone_err e = {0};
    tok *t = open_named("gpt2");
    tok_ids ids = encode(t, "one", 3, 0);
    size_t n = ids.n;
    assert_int_equal(tok_encode(t, " two\xFFthree", 10, 0, &ids, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "the text is not UTF-8 at byte 4");
    assert_int_equal(ids.n, n);
    assert_int_equal(tok_encode(t, " two", 4, 0, &ids, &e), 0);
    assert_true(ids.n > n);
    tok_ids_free(&ids);
    tok_close(t);
}

/* ---- decoding ---- */

static void push(tok_ids *ids, const tok *t, const char *piece)
{
    hone_err e = {0};
    int32_t id = tok_find(t, piece);
    assert_true(id >= 0);
    assert_int_equal(tok_ids_push(ids, id, 0, 0, &e), 0);
}

static void test_broken_characters_are_marked(void **state)
{
    (void)state;
    static const struct {
        const char *tokenizer, *piece[5], *want;
    } rows[] = {
        /* byte level: one mark for the beginning of a character */
        {"gpt2", {"\xC3\xA4", "\xC2\xB8"}, "\xEF\xBF\xBD"},
        {"gpt2",
         {"\xC3\xA4", "\xC2\xB8", "a"},
         "\xEF\xBF\xBD"
         "a"},
        {"gpt2", {"\xC2\xB8", "\xC2\xB8"}, "\xEF\xBF\xBD\xEF\xBF\xBD"},
        /* byte fallback: one for each byte; characters that are whole stay */
        {"llama2", {"<0xE4>", "<0xB8>"}, "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"llama2", {"<0xE4>", "<0xB8>", "<0xAD>"}, "\xE4\xB8\xAD"},
        {"llama2", {"<0xE4>", "<0xE4>", "<0xB8>", "<0xAD>"}, "\xEF\xBF\xBD\xE4\xB8\xAD"},
        {"llama2",
         {"<0x0A>", "<0xFF>", "a"},
         "\n\xEF\xBF\xBD"
         "a"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tok *t = open_named(rows[i].tokenizer);
        tok_ids ids = {0};
        for (size_t k = 0; k < 5 && rows[i].piece[k] != NULL; k++)
            push(&ids, t, rows[i].piece[k]);
        char *got = decode(t, &ids, false);
        assert_string_equal(got, rows[i].want);
        stream_is_whole(t, &ids, false, got);
        free(got);
        tok_ids_free(&ids);
        tok_close(t);
    }
}

static void test_unknown_id_is_refused(void **state)
{
    (void)state;
    hone_err e = {0};
    tok *t = open_named("gpt2");
    int32_t id = tok_n_vocab(t);
    buf out;
    buf_init(&out, 100);
    assert_int_equal(tok_decode(t, &id, 1, false, &out, &e), HONE_EINVAL);
    assert_string_equal(e.msg, "id 420 is not in the vocabulary");
    id = -1;
    assert_int_equal(tok_token_bytes(t, id, &out, &e), HONE_EINVAL);
    assert_null(tok_piece(t, id, NULL));
    buf_free(&out);
    tok_close(t);
}

static void bytes_of(const char *tokenizer, const char *piece, const char *want)
{
    hone_err e = {0};
    tok *t = open_named(tokenizer);
    buf out;
    buf_init(&out, 100);
    assert_int_equal(tok_token_bytes(t, tok_find(t, piece), &out, &e), 0);
    assert_string_equal(out.data, want);
    buf_free(&out);
    tok_close(t);
}

static void test_bytes_of_one_token(void **state)
{
    (void)state;
    bytes_of("gpt2", "\xC4\xA0t", " t");
    bytes_of("gpt2", "\xC3\xA4", "\xE4");
    bytes_of("llama2", "<0xE4>", "\xE4");
    bytes_of("llama2", "\xE2\x96\x81t", " t");
    bytes_of("metaspace always", "\xE2\x96\x81t", " t");
}

/* ---- threads ---- */

static void *encode_many(void *arg)
{
    const tok *t = arg;
    uintptr_t sum = 0;
    for (size_t i = 0; i < 300; i++) {
        char text[64];
        hone_err e = {0};
        tok_ids ids = {0};
        int len = snprintf(text, sizeof text, "the %zu quick br\xC3\xB6wn e\xCC\x81 foxes", i);
        if (tok_encode(t, text, (size_t)len, 0, &ids, &e) != 0)
            return NULL;
        for (size_t k = 0; k < ids.n; k++)
            sum = sum * 31 + (uintptr_t)ids.id[k];
        tok_ids_free(&ids);
    }
    return (void *)sum;
}

static void test_many_threads_share_a_tokenizer(void **state)
{
    (void)state;
    tok *t = open_named("qwen2");
    pthread_t thread[4];
    void *alone = encode_many(t), *got;
    assert_non_null(alone);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, encode_many, t), 0);
    for (size_t i = 0; i < 4; i++) {
        pthread_join(thread[i], &got);
        assert_ptr_equal(got, alone);
    }
    tok_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_tokenizers),
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_llama2),
        cmocka_unit_test(test_mistral),
        cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_gpt_neox),
        cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_scanners_cut_as_the_patterns_do),
        cmocka_unit_test(test_cutting_changes_nothing),
        cmocka_unit_test(test_ranges_cover_the_text),
        cmocka_unit_test(test_long_word_is_not_quadratic),
        cmocka_unit_test(test_long_run_of_marks_is_not_quadratic),
        cmocka_unit_test(test_user_text_cannot_forge_specials),
        cmocka_unit_test(test_encode_appends_and_keeps_on_error),
        cmocka_unit_test(test_broken_characters_are_marked),
        cmocka_unit_test(test_unknown_id_is_refused),
        cmocka_unit_test(test_bytes_of_one_token),
        cmocka_unit_test(test_many_threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, load_cases, drop_cases);
}
