/* Generation: what is shown when, where an answer ends, and that company changes nothing. */
#include "core/model/gen.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_model.h"

#include <stdlib.h>
#include <string.h>

static kern_dev *dev;
static model *m; /* 67 tokens, a context of 64 */
static tok *letters;

enum { EOS = 2, A = 3, C3 = 29, A9 = 30 };

/* A tokenizer of single letters: a to z from A on, then the two bytes of "é", A to Z and 0 to 9. */
static tok *make_tokenizer(const char *dir)
{
    hone_err e = {0};
    tok *t;
    buf b;
    buf_init(&b, 1 << 16);
    buf_str(&b, "{\"added_tokens\":[{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
                "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"merges\":[],"
                "\"vocab\":{\"!\":0,\"?\":1,\"</s>\":2");
    int id = A;
    for (char c = 'a'; c <= 'z'; c++)
        buf_printf(&b, ",\"%c\":%d", c, id++);
    buf_printf(&b, ",\"\xC3\x83\":%d,\"\xC2\xA9\":%d", C3, A9);
    id = A9 + 1;
    for (char c = 'A'; c <= 'Z'; c++)
        buf_printf(&b, ",\"%c\":%d", c, id++);
    for (char c = '0'; c <= '9'; c++)
        buf_printf(&b, ",\"%c\":%d", c, id++);
    buf_str(&b, "}}}");
    char *path = path_join(dir, "tokenizer.json"), *conf = path_join(dir, "tokenizer_config.json");
    assert_int_equal(file_write(path, b.data, b.len, NULL), 0);
    assert_int_equal(file_write(conf, "{\"eos_token\":\"</s>\"}", 20, NULL), 0);
    if (tok_open(&t, dir, &e) != 0)
        fail_msg("%s", e.msg);
    buf_free(&b);
    free(path);
    free(conf);
    return t;
}

static int set_up(void **state)
{
    (void)state;
    char *dir = aid_dir();
    letters = make_tokenizer(dir);
    aid_dir_remove(dir);
    dev = aid_device();
    m = aid_open(dev, "tests/golden/model/llama", KERN_F32, false, RECOMPUTE_NONE);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    model_close(m);
    kern_close(dev);
    tok_close(letters);
    return 0;
}

/* ---- one answer ---- */

/* Takes the ids of `text` ("=" is the first and "~" the second byte of "é", "$" the end) one by one
 * and joins what each shows with "|". */
static void shows(const gen_params *p, const char *text, const char *want, gen_finish finish,
                  size_t n_ids)
{
    hone_err e = {0};
    buf all;
    const int32_t prompt[] = {A};
    size_t n;
    gen_state *s = gen_state_new(letters, p, prompt, 1, 0);
    buf_init(&all, 1000);
    for (const char *c = text; *c != '\0'; c++) {
        kern_sample_row row;
        gen_state_row(s, &row);
        row.id = *c == '=' ? C3 : *c == '~' ? A9 : *c == '$' ? EOS : A + *c - 'a';
        if (c != text)
            buf_char(&all, '|');
        assert_int_equal(gen_state_take(s, &row, &all, &e), 0);
    }
    assert_string_equal(all.data, want);
    assert_int_equal(gen_state_finish(s), finish);
    gen_state_ids(s, &n);
    assert_int_equal(n, n_ids);
    buf_free(&all);
    gen_state_free(s);
}

static void test_what_is_shown_when(void **state)
{
    (void)state;
    gen_params p;
    char *stop[] = {"abc", "cd"};
    int32_t stop_ids[] = {A + 25};
    gen_defaults(&p);
    shows(&p, "xy$", "x|y|", GEN_STOP, 2);
    shows(&p, "x=~y", "x||\xC3\xA9|y", GEN_RUNNING, 4);
    shows(&p, "x=$", "x||\xEF\xBF\xBD", GEN_STOP, 2);
    p.n_stop = 2;
    p.stop = stop;
    shows(&p, "xab", "x||", GEN_RUNNING, 3);
    shows(&p, "xabab", "x|||ab|", GEN_RUNNING, 5);
    shows(&p, "xabxab$", "x|||abx|||ab", GEN_STOP, 6);
    shows(&p, "xabc", "x|||", GEN_STOP, 4);
    shows(&p, "xacd", "x||a|", GEN_STOP, 4);
    shows(&p, "xaz", "x||az", GEN_RUNNING, 3);
    p.n_stop_ids = 1;
    p.stop_ids = stop_ids;
    shows(&p, "xaz", "x||a", GEN_STOP, 2);
    p.ignore_eos = true;
    shows(&p, "x$yz", "x||y|", GEN_STOP, 3);
    p.max_tokens = 3;
    shows(&p, "xya", "x|y|a", GEN_LENGTH, 3);
    shows(&p, "abc", "||", GEN_STOP, 3);
}

static void test_the_row_is_a_function_of_the_place(void **state)
{
    (void)state;
    gen_params p;
    kern_sample_row a, b, next;
    const int32_t prompt[] = {A, A + 1};
    gen_defaults(&p);
    p.seed = 9;
    p.temperature = 0.5F;
    p.top_k = 7;
    gen_state *s = gen_state_new(letters, &p, prompt, 2, 4);
    gen_state_row(s, &a);
    gen_state_row(s, &b);
    assert_true(a.u == b.u && a.u >= 0 && a.u < 1);
    assert_true(a.temperature == 0.5F && a.top_k == 7 && a.top_p == 1);
    assert_int_equal(a.n_context, 2);
    assert_int_equal(a.n_answer, 0);
    a.id = A + 2;
    assert_int_equal(gen_state_take(s, &a, NULL, NULL), 0);
    gen_state_row(s, &next);
    assert_true(next.u != b.u);
    assert_int_equal(next.n_context, 3);
    assert_int_equal(next.n_answer, 1);
    assert_int_equal(next.answer[0], A + 2);
    gen_state_free(s);
    s = gen_state_new(letters, &p, prompt, 2, 5);
    gen_state_row(s, &a);
    assert_true(a.u != b.u);
    hone_err e = {0};
    assert_int_equal(gen_state_flush(s, NULL, &e), 0);
    assert_int_equal(gen_state_finish(s), GEN_CANCELLED);
    assert_int_equal(gen_state_take(s, &a, NULL, &e), HONE_EINVAL);
    gen_state_free(s);
}

/* ---- runs ---- */

enum { N_PROMPTS = 20 };

static int32_t ids[N_PROMPTS][40];
static gen_prompt prompts[N_PROMPTS];

static void make_prompts(void)
{
    for (int i = 0; i < N_PROMPTS; i++) {
        size_t n = (size_t)(i < 3 ? 1 + 5 * i : 40); /* together more than one step reads */
        for (size_t k = 0; k < n; k++)
            ids[i][k] = (int32_t)(((size_t)i * 13 + k * k * 5 + 3) % 67);
        prompts[i] = (gen_prompt){.ids = ids[i], .n = n, .stream = (uint64_t)i};
    }
}

static int collect(void *user, size_t prompt, const char *text, size_t len)
{
    buf_add((buf *)user + prompt, text, len);
    return 0;
}

static void test_company_changes_nothing(void **state)
{
    (void)state;
    gen_params p;
    gen_result together[N_PROMPTS], alone;
    buf streamed[N_PROMPTS];
    hone_err e = {0};
    make_prompts();
    gen_defaults(&p);
    p.seed = 3;
    p.max_tokens = 15;
    p.repetition = 1.1F;
    p.frequency = 0.3F;
    for (int i = 0; i < N_PROMPTS; i++)
        buf_init(&streamed[i], 1000);
    if (gen_run(m, letters, &p, prompts, N_PROMPTS, together, collect, streamed, &e) != 0)
        fail_msg("%s", e.msg);
    int distinct = 0;
    for (int i = 0; i < N_PROMPTS; i++) {
        assert_int_equal(gen_run(m, letters, &p, &prompts[i], 1, &alone, NULL, NULL, &e), 0);
        assert_int_equal(alone.n, together[i].n);
        assert_memory_equal(alone.ids, together[i].ids, alone.n * sizeof *alone.ids);
        assert_string_equal(alone.text, together[i].text);
        assert_string_equal(streamed[i].data, together[i].text);
        assert_int_equal(alone.finish, together[i].finish);
        assert_true(alone.total_s >= alone.first_token_s && alone.first_token_s > 0);
        for (size_t k = 0; k < alone.n; k++)
            assert_true(alone.logp[k] < 0 &&
                        aid_max_diff(alone.logp + k, together[i].logp + k, 1) < 1e-4);
        distinct += i > 0 && strcmp(together[i].text, together[i - 1].text) != 0;
        gen_result_free(&alone);
    }
    assert_true(distinct > N_PROMPTS / 2);
    for (int i = 0; i < N_PROMPTS; i++) {
        gen_result_free(&together[i]);
        buf_free(&streamed[i]);
    }
}

/* Greedy decoding over the cache gives the ids that whole passes give. */
static void test_greedy_is_the_best_of_each_row(void **state)
{
    (void)state;
    gen_params p;
    gen_result r;
    hone_err e = {0};
    make_prompts();
    gen_defaults(&p);
    p.temperature = 0;
    p.ignore_eos = true;
    assert_int_equal(gen_run(m, letters, &p, &prompts[4], 1, &r, NULL, NULL, &e), 0);
    size_t n = prompts[4].n;
    assert_int_equal(r.finish, GEN_LENGTH);
    assert_int_equal(n + r.n, 64); /* up to the context */
    int32_t all[64], pos[64], cu[] = {0, 64};
    memcpy(all, prompts[4].ids, n * sizeof *all);
    memcpy(all + n, r.ids, r.n * sizeof *all);
    for (int i = 0; i < 64; i++)
        pos[i] = i;
    const model_batch b = {.n = 64, .ids = all, .pos = pos, .target = all, .cu = cu, .n_seg = 1};
    float *rows = aid_logprobs(m, &b);
    for (size_t i = n; i < 64; i++) {
        const float *row = rows + (i - 1) * 67;
        for (int k = 0; k < 67; k++)
            assert_true(row[all[i]] >= row[k] - 1e-5F);
        assert_true(aid_max_diff(&row[all[i]], &r.logp[i - n], 1) < 1e-4);
    }
    free(rows);
    gen_result_free(&r);
}

static int cancel_second(void *user, size_t prompt, const char *text, size_t len)
{
    (void)text;
    *(size_t *)user += len;
    return prompt == 1;
}

static void test_a_caller_may_stop_one_answer(void **state)
{
    (void)state;
    gen_params p;
    gen_result r[3];
    hone_err e = {0};
    size_t shown = 0;
    make_prompts();
    gen_defaults(&p);
    p.max_tokens = 8;
    p.ignore_eos = true;
    assert_int_equal(gen_run(m, letters, &p, prompts, 3, r, cancel_second, &shown, &e), 0);
    assert_int_equal(r[0].finish, GEN_LENGTH);
    assert_int_equal(r[0].n, 8);
    assert_int_equal(r[1].finish, GEN_CANCELLED);
    assert_true(r[1].n < 8);
    assert_int_equal(r[2].finish, GEN_LENGTH);
    for (int i = 0; i < 3; i++)
        gen_result_free(&r[i]);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const int32_t many[64];
    gen_prompt one = {.ids = many, .n = 64};
    gen_params p;
    gen_result r;
    hone_err e = {0};
    gen_defaults(&p);
    assert_int_equal(gen_run(m, letters, &p, &one, 1, &r, NULL, NULL, &e), HONE_ELIMIT);
    assert_string_equal(e.msg, "prompt 0 has 64 tokens, the context is 64");
    one.n = 0;
    assert_int_equal(gen_run(m, letters, &p, &one, 1, &r, NULL, NULL, &e), HONE_EINVAL);
    assert_string_equal(e.msg, "prompt 0 is empty");

    gen_params bad[7] = {p, p, p, p, p, p, p};
    static const char *const want[] = {
        "temperature is -1, from 0 to 100 is taken",
        "top_p is 0, above 0 to 1 is taken",
        "min_p is nan, from 0 to 1 is taken",
        "top log-probabilities is 21, from 0 to 20 is taken",
        "max_tokens is 0, -1 or from 1 is taken",
        "a stop string is empty",
        "logit bias: id 67 is outside the vocabulary of 67",
    };
    char *empty[] = {""};
    int32_t id[] = {67};
    float bias[] = {1};
    bad[0].temperature = -1;
    bad[1].top_p = 0;
    bad[2].min_p = __builtin_nanf("");
    bad[3].n_top = 21;
    bad[4].max_tokens = 0;
    bad[5].n_stop = 1;
    bad[5].stop = empty;
    bad[6].n_bias = 1;
    bad[6].bias_id = id;
    bad[6].bias = bias;
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(gen_check(&bad[i], 67, &e), HONE_EINVAL);
        assert_string_equal(e.msg, want[i]);
    }
    assert_int_equal(gen_check(&p, 67, &e), 0);
}

/* ---- settings of the model ---- */

static void test_settings_of_the_model(void **state)
{
    (void)state;
    gen_params p;
    hone_err e = {0};
    char *dir = aid_dir(), *path = path_join(dir, "generation_config.json");
    gen_defaults(&p);
    assert_int_equal(gen_load_defaults(&p, dir, &e), 0);
    assert_true(p.temperature == 1 && p.max_tokens == -1);
    static const char text[] = "{\"do_sample\":true,\"temperature\":0.7,\"top_k\":20,\"top_p\":0.8,"
                               "\"repetition_penalty\":1.1,\"max_new_tokens\":77}";
    assert_int_equal(file_write(path, text, strlen(text), NULL), 0);
    assert_int_equal(gen_load_defaults(&p, dir, &e), 0);
    assert_true(p.temperature == 0.7F && p.top_k == 20 && p.top_p == 0.8F);
    assert_true(p.repetition == 1.1F && p.max_tokens == 77);
    assert_int_equal(file_write(path, "{\"do_sample\":false}", 19, NULL), 0);
    assert_int_equal(gen_load_defaults(&p, dir, &e), 0);
    assert_true(p.temperature == 0);
    assert_int_equal(file_write(path, "{\"top_k\":\"x\"}", 13, NULL), 0);
    assert_int_equal(gen_load_defaults(&p, dir, &e), HONE_EFORMAT);
    assert_non_null(strstr(e.msg, "generation_config.json: field 'top_k' is not an integer"));
    free(path);
    aid_dir_remove(dir);
}

/* ---- the real checkpoint ---- */

static void test_the_published_story(void **state)
{
    (void)state;
    char *dir = aid_shared("data/checkpoints/stories260k-f32");
    char *golden = aid_shared("data/checkpoints/stories260k-reference/upstream_golden.txt");
    if (dir == NULL || golden == NULL)
        skip();
    hone_err e = {0};
    tok *t;
    gen_params p;
    gen_result r;
    const int32_t bos[] = {1};
    const gen_prompt prompt = {.ids = bos, .n = 1};
    if (tok_open(&t, dir, &e) != 0)
        fail_msg("%s", e.msg);
    model *story = aid_open(dev, dir, KERN_F32, false, RECOMPUTE_NONE);
    gen_defaults(&p);
    p.temperature = 0;
    p.max_tokens = 200;
    assert_int_equal(gen_run(story, t, &p, &prompt, 1, &r, NULL, NULL, &e), 0);
    char *want = aid_text(golden);
    size_t n = strlen(want);
    while (n > 0 && want[n - 1] == '\n')
        want[--n] = '\0';
    const char *text = r.text + (*r.text == ' '), *story_text = want + (*want == ' ');
    assert_memory_equal(text, story_text, strlen(story_text));
    gen_result_free(&r);

    /* An answer goes on from its prompt, space and all. */
    tok_ids more = {0};
    assert_int_equal(tok_encode(t, "Once upon", 9, TOK_ADD_SPECIAL, &more, &e), 0);
    const gen_prompt half = {.ids = more.id, .n = more.n};
    p.max_tokens = 5;
    assert_int_equal(gen_run(story, t, &p, &half, 1, &r, NULL, NULL, &e), 0);
    assert_string_equal(r.text, " a time, there was");
    gen_result_free(&r);
    tok_ids_free(&more);
    model_close(story);
    tok_close(t);
    free(want);
    free(dir);
    free(golden);
}

/* ---- a conversation ---- */

static gen_result answer(const int32_t *prompt_ids, size_t n, gen_cache *cache)
{
    gen_params p;
    gen_result r;
    hone_err e = {0};
    const gen_prompt prompt = {.ids = prompt_ids, .n = n, .stream = 1, .cache = cache};
    gen_defaults(&p);
    p.temperature = 1;
    p.seed = 7;
    p.max_tokens = 6;
    p.ignore_eos = true;
    if (gen_run(m, letters, &p, &prompt, 1, &r, NULL, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    return r;
}

static void same_as_alone(const int32_t *asked, size_t n, gen_cache *cache, size_t kept,
                          gen_result *with)
{
    gen_result alone = answer(asked, n, NULL);
    *with = answer(asked, n, cache);
    assert_int_equal(gen_cache_kept(cache), kept);
    assert_string_equal(with->text, alone.text);
    assert_int_equal(with->n, alone.n);
    assert_memory_equal(with->ids, alone.ids, alone.n * sizeof *alone.ids);
    gen_result_free(&alone);
}

/* Turn by turn only what is new is read; a history that was changed is read from there on. */
static void test_a_conversation_is_not_read_again(void **state)
{
    (void)state;
    int32_t said[64] = {A, A + 1, A + 2, A + 3};
    size_t n = 4;
    gen_cache *cache = gen_cache_new();
    gen_result r;
    same_as_alone(said, n, cache, 0, &r);
    /* The last sampled token has not been read yet. */
    for (int turn = 0; turn < 3; turn++) {
        size_t known = n + r.n - 1;
        memcpy(said + n, r.ids, r.n * sizeof *r.ids);
        n += r.n;
        said[n++] = A + 5;
        said[n++] = A + turn;
        gen_result_free(&r);
        same_as_alone(said, n, cache, known, &r);
    }
    gen_result_free(&r);
    said[6] = said[6] == A ? A + 1 : A;
    same_as_alone(said, n, cache, 6, &r);
    gen_result_free(&r);
    same_as_alone(said, n, cache, n - 1, &r); /* the same again: its last token only */
    gen_result_free(&r);
    /* A prompt that cannot run loses nothing. */
    gen_params p;
    hone_err e = {0};
    int32_t *longer = mem_array(70, sizeof *longer);
    const gen_prompt bad = {.ids = longer, .n = 70, .cache = cache};
    gen_defaults(&p);
    assert_int_equal(gen_run(m, letters, &p, &bad, 1, &r, NULL, NULL, &e), HONE_ELIMIT);
    same_as_alone(said, n, cache, n - 1, &r);
    gen_result_free(&r);
    free(longer);
    gen_cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_conversation_is_not_read_again),
        cmocka_unit_test(test_what_is_shown_when),
        cmocka_unit_test(test_the_row_is_a_function_of_the_place),
        cmocka_unit_test(test_company_changes_nothing),
        cmocka_unit_test(test_greedy_is_the_best_of_each_row),
        cmocka_unit_test(test_a_caller_may_stop_one_answer),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_settings_of_the_model),
        cmocka_unit_test(test_the_published_story),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
