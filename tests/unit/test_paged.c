/* The serving forward over a paged cache against the full forward and the golden logits. */
#include "core/model/model.h"

#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_model.h"

#include <stdlib.h>
#include <string.h>

static const char *const cases[] = {"llama", "llama_bias", "mistral", "qwen2", "qwen3"};
enum { N_CASES = sizeof cases / sizeof *cases, BLOCK = 4, MAX_BLOCKS = 8, N_BLOCKS = 32 };

static model *open_case(const char *name)
{
    hone_err e = {0};
    model *m;
    const model_options o = {.dev = aid_dev, .dtype = KERN_F32};
    char *dir = mem_printf("tests/golden/model/%s", name);
    if (model_open(&m, dir, &o, &e) != 0)
        fail_msg("%s", e.msg);
    free(dir);
    return m;
}

/* Runs all segments of the case side by side, `chunk` tokens a sequence a step, over blocks that
 * lie scattered; rows [n, vocab] of logits, caller frees. */
static float *run_chunks(model *m, const aid_golden *g, int chunk)
{
    hone_err e = {0};
    model_kv *kv;
    int32_t blocks[8 * MAX_BLOCKS], ids[64], pos[64], q_start[9], kv_len[8], rows[64];
    float *out = mem_array((size_t)(g->n * g->vocab), sizeof *out);
    int at[8] = {0};
    assert_int_equal(model_kv_open(&kv, m, N_BLOCKS, BLOCK, &e), 0);
    for (int64_t left = g->n; left > 0;) {
        model_step s = {.ids = ids, .pos = pos, .q_start = q_start, .kv_len = kv_len};
        int32_t from[64];
        s.blocks = blocks;
        s.max_blocks = MAX_BLOCKS;
        s.out_row = rows;
        q_start[0] = 0;
        for (int q = 0; q < g->n_seg; q++) {
            int len = g->cu[q + 1] - g->cu[q], take = len - at[q] < chunk ? len - at[q] : chunk;
            if (take == 0)
                continue;
            for (int i = 0; i < take; i++) {
                from[s.n] = g->cu[q] + at[q];
                ids[s.n] = g->ids[from[s.n]];
                rows[s.n] = (int32_t)s.n;
                pos[s.n++] = at[q]++;
            }
            for (int b = 0; b < MAX_BLOCKS; b++) /* every block of the pool is somebody's, once */
                blocks[s.n_seq * MAX_BLOCKS + b] = (5 * (q * MAX_BLOCKS + b) + 3) % N_BLOCKS;
            kv_len[s.n_seq++] = at[q];
            q_start[s.n_seq] = (int32_t)s.n;
        }
        kern_tensor logits;
        s.n_out = (int)s.n;
        if (model_forward(m, kv, &s, &logits, &e) != 0)
            fail_msg("%s", e.msg);
        float *host = mem_array((size_t)(s.n * g->vocab), sizeof *host);
        kern_do(aid_dev, read, host, logits.data, (size_t)(s.n * g->vocab) * sizeof *host);
        for (int64_t i = 0; i < s.n; i++)
            memcpy(out + from[i] * g->vocab, host + i * g->vocab, (size_t)g->vocab * sizeof *host);
        free(host);
        left -= s.n;
    }
    model_kv_close(kv);
    return out;
}

static void test_chunks_of_any_size_give_the_same_logits(void **state)
{
    (void)state;
    static const int chunks[] = {1, 3, 4, 16, 17};
    for (size_t i = 0; i < N_CASES; i++) {
        aid_golden g;
        aid_golden_open(&g, cases[i]);
        model *m = open_case(cases[i]);
        for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
            float *got = run_chunks(m, &g, chunks[c]);
            double diff = aid_max_diff(got, g.logits, (size_t)(g.n * g.vocab));
            if (!(diff < 1e-4))
                fail_msg("%s in chunks of %d: logits differ by %g", cases[i], chunks[c], diff);
            free(got);
        }
        model_close(m);
        aid_golden_close(&g);
    }
}

/* The CPU records nothing, but padded steps run there all the same. */
static void test_padded_steps_give_the_same_logits(void **state)
{
    (void)state;
    bool records = aid_dev->records;
    for (size_t i = 0; i < N_CASES; i++) {
        aid_golden g;
        aid_golden_open(&g, cases[i]);
        model *m = open_case(cases[i]);
        aid_dev->records = true;
        float *got = run_chunks(m, &g, 1);
        aid_dev->records = records;
        double diff = aid_max_diff(got, g.logits, (size_t)(g.n * g.vocab));
        if (!(diff < 1e-4))
            fail_msg("%s: logits differ by %g", cases[i], diff);
        free(got);
        model_close(m);
        aid_golden_close(&g);
    }
}

static void test_a_term_that_is_not_merged_serves(void **state)
{
    (void)state;
    aid_golden g;
    aid_lora lora;
    size_t len;
    aid_golden_open(&g, "qwen3");
    model *m = open_case("qwen3");
    float *before = run_chunks(m, &g, 5);
    aid_lora_attach(&lora, m, &g);
    float *got = run_chunks(m, &g, 5);
    const float *want = aid_golden_array(&g, "lora_logits", "", &len);
    assert_true(aid_max_diff(got, want, len) < 1e-4);
    aid_lora_detach(&lora);
    free(got);
    got = run_chunks(m, &g, 5);
    assert_memory_equal(got, before, len * sizeof *got);
    free(got);
    free(before);
    model_close(m);
    aid_golden_close(&g);
}

static void test_steps_that_cannot_be(void **state)
{
    (void)state;
    static const int32_t ids[] = {1, 2, 3}, bad_ids[] = {1, 67, 3}, pos[] = {0, 1, 2};
    static const int32_t bad_pos[] = {0, 1, 3}, q_start[] = {0, 3}, short_start[] = {0, 2};
    static const int32_t kv_len[] = {3}, long_len[] = {65}, blocks[17] = {0}, bad_blocks[] = {9};
    static const int32_t rows[] = {0}, bad_rows[] = {3};
    const model_step sound = {.n = 3,
                              .ids = ids,
                              .pos = pos,
                              .n_seq = 1,
                              .q_start = q_start,
                              .kv_len = kv_len,
                              .blocks = blocks,
                              .max_blocks = 1,
                              .n_out = 1,
                              .out_row = rows};
    model_step s[6] = {sound, sound, sound, sound, sound, sound};
    static const char *const want[] = {
        "row 1: id 67 is outside the vocabulary of 67",
        "row 2: position 3, the cache calls for 2",
        "1 sequences do not cover 3 rows",
        "sequence 0 has 65 tokens, the model takes 64",
        "sequence 0: block 9 of 4",
        "logits of row 3 of 3",
    };
    s[0].ids = bad_ids;
    s[1].pos = bad_pos;
    s[2].q_start = short_start;
    s[3].kv_len = long_len;
    s[3].max_blocks = 17;
    s[4].blocks = bad_blocks;
    s[5].out_row = bad_rows;
    model *m = open_case("llama");
    model_kv *kv;
    hone_err e = {0};
    kern_tensor logits;
    assert_int_equal(model_kv_open(&kv, m, 4, BLOCK, &e), 0);
    assert_int_equal(model_forward(m, kv, &sound, &logits, &e), 0);
    for (size_t i = 0; i < 6; i++) {
        assert_int_not_equal(model_forward(m, kv, &s[i], &logits, &e), 0);
        assert_string_equal(e.msg, want[i]);
        assert_null(logits.data);
    }
    model_kv_close(kv);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_of_any_size_give_the_same_logits),
        cmocka_unit_test(test_padded_steps_give_the_same_logits),
        cmocka_unit_test(test_a_term_that_is_not_merged_serves),
        cmocka_unit_test(test_steps_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, aid_dev_open, aid_dev_close);
}
