/* What a tokenizer's files say and how they are refused: each component that is not supported by
 * its name, each inconsistency with the values. */
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/text/tok.h"
#include "tests/unit/aid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL                                                                                      \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"c\":5},\"merges\":[[\"a\"," \
    "\"b\"]]}"
#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"

static const struct {
    const char *json;
    int code;
    const char *msg;
} refused[] = {
    {"", HONE_EFORMAT, "JSON: line 1, column 0: unexpected token near end of file"},
    {"[]", HONE_EFORMAT, "it is not a JSON object"},
    {"{}", HONE_EFORMAT, "field 'model' is missing"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", HONE_EUNSUPPORTED,
     "model 'Unigram' is not supported"},
    {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", HONE_EUNSUPPORTED,
     "model 'WordPiece' is not supported"},
    {"{\"model\":{\"vocab\":{\"a\":0}}}", HONE_EUNSUPPORTED, "model '?' is not supported"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", HONE_EFORMAT,
     "the vocabulary is empty"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", HONE_EFORMAT,
     "model: field 'vocab' is not an object"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", HONE_EFORMAT,
     "model: field 'merges' is missing"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", HONE_EFORMAT,
     "piece 'a' has an id that is not 0 to 16777215"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":16777216},\"merges\":[]}}", HONE_EFORMAT,
     "piece 'a' has an id that is not 0 to 16777215"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", HONE_EFORMAT,
     "piece 'a' has an id that is not 0 to 16777215"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}", HONE_EFORMAT,
     "id 1 has two pieces, 'a' and 'b'"},
    {"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a c\"]}}", HONE_EFORMAT,
     "model: merge 0: piece 'c' is not in the vocabulary"},
    {"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\",\"b a\"]}}", HONE_EFORMAT,
     "model: merge 1: piece 'ba' is not in the vocabulary"},
    {"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"ab\"]}}", HONE_EFORMAT,
     "model: merge 0: it is not a pair of pieces"},
    {"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[\"a\",\"b\",\"a\"]]}}", HONE_EFORMAT,
     "model: merge 0: it is not a pair of pieces"},
    {"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[],\"dropout\":0.1}}", HONE_EUNSUPPORTED,
     "model: dropout 0.1 is not supported"},
    {"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}",
     HONE_EUNSUPPORTED, "model: end_of_word_suffix '</w>' is not supported"},
    {"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[],\"continuing_subword_prefix\":\"##\"}}",
     HONE_EUNSUPPORTED, "model: continuing_subword_prefix '##' is not supported"},
    {"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[],\"ignore_merge\":true}}", HONE_EFORMAT,
     "model: unknown field 'ignore_merge' (did you mean 'ignore_merges'?)"},
    {"{" MODEL ",\"normaliser\":null}", HONE_EFORMAT,
     "unknown field 'normaliser' (did you mean 'normalizer'?)"},
    {"{" MODEL ",\"normalizer\":{\"type\":\"BertNormalizer\"}}", HONE_EUNSUPPORTED,
     "normalizer 'BertNormalizer' is not supported"},
    {"{" MODEL ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\"}]"
     "}}",
     HONE_EUNSUPPORTED, "normalizer 'Precompiled' is not supported"},
    {"{" MODEL ",\"normalizer\":\"NFC\"}", HONE_EFORMAT, "normalizer is not an object"},
    {"{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{\"String\":"
     "\"\"}}}",
     HONE_EFORMAT, "normalizer 'Replace': pattern of 0 bytes"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}}", HONE_EUNSUPPORTED,
     "pre_tokenizer 'BertPreTokenizer' is not supported"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
     "\"ByteLevel\"},{\"type\":\"Digits\"}]}}",
     HONE_EUNSUPPORTED, "pre_tokenizer 'Digits' after 'ByteLevel' is not supported"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{"
     "\"Regex\":\"(?<x>a)\"}}}",
     HONE_EUNSUPPORTED,
     "pre_tokenizer 'Split': Regex '(?<x>a)': pattern construct '(?<x' is not supported"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{"
     "\"Regex\":\"[a[bc]]\"}}}",
     HONE_EUNSUPPORTED,
     "pre_tokenizer 'Split': Regex '[a[bc]]': pattern construct '[b' is not supported"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{"
     "\"Regex\":\"a*\"}}}",
     HONE_EUNSUPPORTED,
     "pre_tokenizer 'Split': Regex 'a*': a pattern that matches nothing is not supported"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{"
     "\"Regex\":\"(a\"}}}",
     HONE_EUNSUPPORTED, "pre_tokenizer 'Split': Regex '(a': pattern: missing closing parenthesis"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Joined\",\"pattern\":{"
     "\"String\":\"a\"}}}",
     HONE_EUNSUPPORTED, "pre_tokenizer 'Split': behavior 'Joined' is not supported"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"__\"}}", HONE_EFORMAT,
     "pre_tokenizer 'Metaspace': replacement '__' is not one character"},
    {"{" MODEL ",\"decoder\":{\"type\":\"CTC\"}}", HONE_EUNSUPPORTED,
     "decoder 'CTC' is not supported"},
    {"{" MODEL ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":"
     "\"ByteFallback\"}]}}",
     HONE_EUNSUPPORTED, "decoder 'ByteFallback' after 'Fuse' is not supported"},
    {"{" MODEL ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":"
     "\"Strip\",\"content\":\" \",\"start\":0,\"stop\":1}]}}",
     HONE_EUNSUPPORTED, "decoder 'Strip': at the end of a text it is not supported"},
    {"{" MODEL ",\"post_processor\":{\"type\":\"BertProcessing\"}}", HONE_EUNSUPPORTED,
     "post_processor 'BertProcessing' is not supported"},
    {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{"
     "\"id\":\"B\"}}],\"special_tokens\":{}}}",
     HONE_EUNSUPPORTED, "post_processor 'TemplateProcessing': part 0 of 'single' is not supported"},
    {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
     "{\"id\":\"x\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"x\":{\"ids\":[4]}}}}",
     HONE_EFORMAT, "post_processor 'TemplateProcessing': special token 'x' has no piece"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]}", HONE_EFORMAT,
     "added token 0: id 0 has two pieces, 'a' and 'x'"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":6,\"content\":\"a\"}]}", HONE_EFORMAT,
     "added token 0: piece 'a' has two ids, 0 and 6"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":6,\"content\":\"\"}]}", HONE_EFORMAT,
     "added token 0: added token 6 is empty"},
    {"{" MODEL ",\"added_tokens\":[{\"content\":\"x\"}]}", HONE_EFORMAT,
     "piece 'x' has an id that is not 0 to 16777215"},
    {"{" MODEL ",\"added_tokens\":{}}", HONE_EFORMAT, "field 'added_tokens' is not an array"},
};

static void test_what_is_not_supported_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        hone_err e = {0};
        tok *t;
        int rc = tok_open_json(&t, refused[i].json, strlen(refused[i].json), &e);
        char *want = mem_printf("tokenizer.json: %s", refused[i].msg);
        assert_string_equal(e.msg, want);
        assert_int_equal(rc, refused[i].code);
        assert_null(t);
        free(want);
    }
}

/* Every beginning of a good file is refused, and none of them breaks anything. */
static void test_cut_files_are_refused(void **state)
{
    (void)state;
    static const char json[] = "{" MODEL ",\"added_tokens\":[{\"id\":6,\"content\":\"x\"}]}";
    tok *t;
    hone_err e = {0};
    assert_int_equal(tok_open_json(&t, json, strlen(json), &e), 0);
    assert_int_equal(tok_n_vocab(t), 7);
    assert_null(tok_piece(t, 4, NULL)); /* holes are no error */
    tok_close(t);
    for (size_t i = 0; i + 1 < sizeof json - 1; i++) {
        assert_true(tok_open_json(&t, json, i, &e) < 0);
        assert_null(t);
    }
}

static void test_a_character_that_nothing_covers(void **state)
{
    (void)state;
    hone_err e = {0};
    tok_ids ids = {0};
    tok *t;
    assert_int_equal(tok_open_json(&t, "{" MODEL "}", strlen("{" MODEL "}"), &e), 0);
    assert_int_equal(tok_encode(t, "ab\xC3\xA9", 4, 0, &ids, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "character U+00E9 at offset 2 is not in the vocabulary, which has "
                               "neither byte fallback nor an unknown token");
    assert_int_equal(ids.n, 0);
    tok_close(t);
    static const char bytes[] = "{" MODEL ",\"pre_tokenizer\":{\"type\":\"ByteLevel\","
                                "\"add_prefix_space\":false}}";
    assert_int_equal(tok_open_json(&t, bytes, strlen(bytes), &e), 0);
    assert_int_equal(tok_encode(t, "abx", 3, 0, &ids, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "byte 0x78 at offset 2 is not in the vocabulary");
    tok_close(t);
    tok_ids_free(&ids);
}

/* ---- the files beside it ---- */

#define SPECIALS                                                                                   \
    ",\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true},{\"id\":7,\"content\":"    \
    "\"</s>\",\"special\":true},{\"id\":8,\"content\":\"<pad>\",\"special\":true}]"
#define TEMPLATE                                                                                   \
    ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"  \
    "\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[6]}}}"

static char *dir;

static int make_dir(void **state)
{
    (void)state;
    dir = aid_dir();
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    aid_dir_remove(dir);
    return 0;
}

static void put(const char *name, const char *text)
{
    hone_err e = {0};
    char *path = path_join(dir, name);
    int rc = text != NULL ? file_write(path, text, strlen(text), &e) : file_remove(path, &e);
    assert_int_equal(rc, 0);
    free(path);
}

static tok *open_dir(const char *config, const char *map, const char *generation)
{
    hone_err e = {0};
    tok *t;
    put("tokenizer_config.json", config);
    put("special_tokens_map.json", map);
    put("generation_config.json", generation);
    if (tok_open(&t, dir, &e) != 0)
        fail_msg("%s", e.msg);
    return t;
}

static void test_roles_come_from_the_files_beside(void **state)
{
    (void)state;
    const int32_t *stop;
    put("tokenizer.json", "{" MODEL SPECIALS "}");
    tok *t = open_dir(NULL, NULL, NULL);
    assert_int_equal(tok_bos(t), -1);
    assert_int_equal(tok_stop_ids(t, &stop), 0);
    assert_int_equal(strlen(tok_digest(t)), 64);
    tok_close(t);
    t = open_dir("{\"bos_token\":{\"content\":\"<s>\"},\"pad_token\":null}",
                 "{\"eos_token\":\"</s>\",\"bos_token\":\"</s>\"}",
                 "{\"eos_token_id\":[8,7,8],\"pad_token_id\":8}");
    assert_int_equal(tok_bos(t), 6);
    assert_int_equal(tok_eos(t), 7);
    assert_int_equal(tok_pad(t), 8);
    assert_int_equal(tok_stop_ids(t, &stop), 2);
    assert_int_equal(stop[0], 7);
    assert_int_equal(stop[1], 8);
    assert_true(tok_is_special(t, 6) && tok_is_added(t, 6));
    assert_false(tok_is_special(t, 0) || tok_is_added(t, 0));
    tok_close(t);
    t = open_dir(NULL, NULL, "{\"eos_token_id\":7,\"bos_token_id\":6,\"pad_token_id\":-1}");
    assert_int_equal(tok_pad(t), -1);
    assert_int_equal(tok_eos(t), 7);
    assert_int_equal(tok_bos(t), 6);
    tok_close(t);
}

/* What a text gets around it, as ids with 'a' for the text. */
static void edges(const char *json, const char *config, const char *want)
{
    hone_err e = {0};
    tok_ids ids = {0};
    char got[64] = "";
    put("tokenizer.json", json);
    tok *t = open_dir(config, NULL, NULL);
    assert_int_equal(tok_encode(t, "a", 1, TOK_ADD_SPECIAL, &ids, &e), 0);
    for (size_t i = 0; i < ids.n; i++)
        strcat(got, tok_piece(t, ids.id[i], NULL));
    assert_string_equal(got, want);
    assert_int_equal(tok_adds_bos(t), strncmp(want, "<s>", 3) == 0);
    tok_ids_free(&ids);
    tok_close(t);
}

static void test_add_bos_token_wins_over_the_template(void **state)
{
    (void)state;
#define NAMES "\"bos_token\":\"<s>\",\"eos_token\":\"</s>\""
    edges("{" MODEL SPECIALS "}", "{" NAMES "}", "a");
    edges("{" MODEL SPECIALS "}", "{" NAMES ",\"add_bos_token\":true}", "<s>a");
    edges("{" MODEL SPECIALS "}", "{" NAMES ",\"add_bos_token\":true,\"add_eos_token\":true}",
          "<s>a</s>");
    edges("{" MODEL SPECIALS TEMPLATE "}", "{" NAMES "}", "<s>a");
    edges("{" MODEL SPECIALS TEMPLATE "}", "{" NAMES ",\"add_bos_token\":true}", "<s>a");
    edges("{" MODEL SPECIALS TEMPLATE "}", "{" NAMES ",\"add_bos_token\":false}", "a");
}

static void refuse_config(const char *name, const char *text, const char *want)
{
    hone_err e = {0};
    tok *t;
    put("tokenizer_config.json", NULL);
    put("special_tokens_map.json", NULL);
    put("generation_config.json", NULL);
    put(name, text);
    assert_true(tok_open(&t, dir, &e) < 0);
    assert_null(t);
    assert_non_null(strstr(e.msg, want));
}

static void test_names_that_are_not_there(void **state)
{
    (void)state;
    put("tokenizer.json", "{" MODEL SPECIALS "}");
    refuse_config("tokenizer_config.json", "{\"eos_token\":\"<|end|>\"}",
                  "tokenizer_config.json: eos_token '<|end|>' is not in tokenizer.json");
    refuse_config("tokenizer_config.json", "{\"add_bos_token\":true}",
                  "tokenizer_config.json: add_bos_token is true but there is no bos_token");
    refuse_config("tokenizer_config.json", "{\"added_tokens_decoder\":{\"6\":{\"content\":\"q\"}}}",
                  "added_tokens_decoder: 6: id 6 has two pieces, '<s>' and 'q'");
    refuse_config("tokenizer_config.json", "[]", "tokenizer_config.json: it is not a JSON object");
    refuse_config("special_tokens_map.json", "{\"bos_token\":5}",
                  "special_tokens_map.json: field 'bos_token' is not a token");
    refuse_config("generation_config.json", "{\"eos_token_id\":[7,99]}",
                  "generation_config.json: field 'eos_token_id' is not an id of tokenizer.json");
    put("tokenizer.json", NULL);
    refuse_config("tokenizer_config.json", "{}", "tokenizer.json: cannot open");
}

/* Tokens that only tokenizer_config.json lists are added, as transformers does. */
static void test_added_tokens_decoder_adds(void **state)
{
    (void)state;
    put("tokenizer.json", "{" MODEL SPECIALS "}");
    tok *t = open_dir("{\"added_tokens_decoder\":{\"6\":{\"content\":\"<s>\",\"special\":true},"
                      "\"9\":{\"content\":\"<|im_end|>\",\"special\":true}},"
                      "\"eos_token\":\"<|im_end|>\"}",
                      NULL, NULL);
    hone_err e = {0};
    tok_ids ids = {0};
    assert_int_equal(tok_encode(t, "a<|im_end|>", 11, 0, &ids, &e), 0);
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.id[1], 9);
    assert_int_equal(tok_eos(t), 9);
    tok_ids_free(&ids);
    tok_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_not_supported_is_named),
        cmocka_unit_test(test_cut_files_are_refused),
        cmocka_unit_test(test_a_character_that_nothing_covers),
        cmocka_unit_test_setup_teardown(test_roles_come_from_the_files_beside, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(test_add_bos_token_wins_over_the_template, make_dir,
                                        drop_dir),
        cmocka_unit_test_setup_teardown(test_names_that_are_not_there, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(test_added_tokens_decoder_adds, make_dir, drop_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
