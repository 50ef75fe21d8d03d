/* Merge against PEFT's own adapter outputs, its proof, and what it refuses. */
#include "adapters/merge.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/safetensors.h"
#include "core/model/stdtype.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_model.h"
#include "tests/unit/aid_tiny.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ADAPTER "tests/golden/adapters/plain"
enum { VOCAB = 67 };

static char *base_dir, *out_dir;

static int set_up(void **state)
{
    if (aid_dir_setup(state) != 0)
        return -1;
    base_dir = path_join(*state, "base");
    out_dir = path_join(*state, "out");
    aid_tiny_make(base_dir);
    return 0;
}

static int tear_down(void **state)
{
    free(base_dir);
    free(out_dir);
    return aid_dir_teardown(state);
}

static merge_options options(void)
{
    return (merge_options){.model_dir = base_dir,
                           .adapter_dir = ADAPTER,
                           .out_dir = out_dir,
                           .device = aid_device_name(),
                           .threads = 2};
}

static void merge_or_fail(merge_report *r)
{
    hone_err e = {0};
    merge_options o = options();
    if (merge_run(&o, r, &e) != 0)
        fail_msg("%s", e.msg);
}

/* Log-probabilities of the merged model against the logits that PEFT computed with the pair. */
static double diff_to_peft(void)
{
    kern_dev *dev = aid_device();
    model *m = aid_open(dev, out_dir, KERN_F32, false, RECOMPUTE_NONE);
    safetensors *st;
    assert_int_equal(safetensors_open(&st, ADAPTER "/golden.st", NULL), 0);
    const st_tensor *ids = safetensors_find(st, "ids");
    const float *want = safetensors_find(st, "logits")->data;
    int32_t n = (int32_t)ids->dim[0], cu[2] = {0, n}, pos[64], target[64] = {0};
    for (int32_t i = 0; i < n; i++)
        pos[i] = i;
    const model_batch b = {
        .n = n, .ids = ids->data, .pos = pos, .target = target, .cu = cu, .n_seg = 1};
    float *rows = aid_logprobs(m, &b);
    double worst = 0;
    for (int32_t r = 0; r < n; r++) {
        double sum = 0;
        for (int i = 0; i < VOCAB; i++)
            sum += exp((double)want[r * VOCAB + i]);
        for (int i = 0; i < VOCAB; i++)
            worst = fmax(worst, fabs(rows[r * VOCAB + i] - (want[r * VOCAB + i] - log(sum))));
    }
    free(rows);
    safetensors_close(st);
    model_close(m);
    kern_close(dev);
    return worst;
}

static void test_merged_is_the_pair(void **state)
{
    (void)state;
    merge_report r;
    merge_or_fail(&r);
    assert_int_equal(r.n_merged, 14);
    assert_true(r.n_positions > 50);
    assert_true(r.max_abs_diff < 1e-3 && r.max_abs_diff > 0);
    assert_true(r.agreement == 1.0);
    assert_true(diff_to_peft() < 1e-3);
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "config.json",
                                        "hone_manifest.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = path_join(out_dir, files[i]);
        assert_true(file_exists(path));
        free(path);
    }
}

/* Tensors without a pair keep their bytes; the others are base + scale * B A, rounded once. */
static void test_rounded_once(void **state)
{
    (void)state;
    merge_report r;
    safetensors *base, *merged, *ad;
    merge_or_fail(&r);
    assert_int_equal(safetensors_open(&base, base_dir, NULL), 0);
    assert_int_equal(safetensors_open(&merged, out_dir, NULL), 0);
    assert_int_equal(safetensors_open(&ad, ADAPTER "/adapter_model.safetensors", NULL), 0);
    for (size_t i = 0; i < safetensors_count(base); i++) {
        const st_tensor *x = safetensors_at(base, i), *y = safetensors_find(merged, x->name);
        assert_non_null(y);
        assert_int_equal(x->dtype, y->dtype);
        if (strstr(x->name, "_proj") == NULL)
            assert_memory_equal(x->data, y->data, x->bytes);
    }
    const char *site = "model.layers.1.mlp.down_proj";
    char *wn = mem_printf("%s.weight", site),
         *an = mem_printf("base_model.model.%s.lora_A.weight", site);
    char *bn = mem_printf("base_model.model.%s.lora_B.weight", site);
    const st_tensor *w = safetensors_find(base, wn), *m = safetensors_find(merged, wn);
    const float *A = safetensors_find(ad, an)->data, *B = safetensors_find(ad, bn)->data;
    int64_t out = w->dim[0], in = w->dim[1], rank = 3;
    for (int64_t o = 0; o < out; o++) {
        for (int64_t c = 0; c < in; c++) {
            double want = (double)((const float *)w->data)[o * in + c];
            for (int64_t k = 0; k < rank; k++)
                want += (double)(5.0F / 3.0F) * (double)B[o * rank + k] * (double)A[k * in + c];
            double got = (double)((const float *)m->data)[o * in + c];
            assert_true(fabs(got - want) <= 1e-6 * (1 + fabs(want)));
        }
    }
    free(wn);
    free(an);
    free(bn);
    safetensors_close(base);
    safetensors_close(merged);
    safetensors_close(ad);
}

static void test_proof_can_fail(void **state)
{
    hone_err e = {0};
    merge_report r;
    merge_options o = options();
    o.max_diff = 1e-12;
    assert_int_equal(merge_run(&o, &r, &e), HONE_ENUMERIC);
    assert_non_null(strstr(
        e.msg, "the merged model is not the adapted one: largest log-probability difference"));
    assert_false(file_exists(out_dir));
    char **left;
    assert_int_equal(dir_list(&left, *state, NULL), 0);
    assert_string_equal(left[0], "base");
    assert_null(left[1]);
    dir_list_free(left);
}

static void test_never_overwrites(void **state)
{
    (void)state;
    hone_err e = {0};
    merge_report r;
    merge_options o = options();
    assert_int_equal(dir_make(out_dir, NULL), 0);
    assert_int_equal(merge_run(&o, &r, &e), HONE_EEXIST);
    assert_non_null(strstr(e.msg, "exists already; a merge does not overwrite"));
}

static int veto(hook_call *c, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    strcpy(c->reason, "not today");
    return HOOK_VETO;
}

static void test_hooks_may_refuse(void **state)
{
    (void)state;
    for (int p = 0; p < 2; p++) {
        hooks *h = hook_new();
        hone_err e = {0};
        merge_report r;
        merge_options o = options();
        o.hooks = h;
        hook_on(h, p == 0 ? HOOK_MERGE_PRE : HOOK_MERGE_POST, "test", 0, veto, NULL, NULL);
        assert_int_equal(merge_run(&o, &r, &e), HONE_EVETO);
        assert_false(file_exists(out_dir));
        hook_free(h);
    }
}

static void test_prompts_of_the_user(void **state)
{
    hone_err e = {0};
    merge_report r;
    merge_options o = options();
    char *path = path_join(*state, "prompts.jsonl");
    const char good[] = "{\"text\": \"hello you\"}\n\n"
                        "{\"messages\": [{\"role\": \"user\", \"content\": \"what is it?\"}]}\n";
    const char bad[] = "{\"text\": \"hello\"}\n{\"question\": 1}\n";
    o.prompts_file = path;
    assert_int_equal(file_write(path, good, strlen(good), NULL), 0);
    if (merge_run(&o, &r, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(r.n_positions, 9 + 13);
    assert_int_equal(dir_remove(out_dir, NULL), 0);
    assert_int_equal(file_write(path, bad, strlen(bad), NULL), 0);
    assert_int_equal(merge_run(&o, &r, &e), HONE_EFORMAT);
    assert_non_null(strstr(e.msg, "line 2: expected a field 'text'"));
    free(path);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_merged_is_the_pair), TEST(test_rounded_once),     TEST(test_proof_can_fail),
        TEST(test_never_overwrites),   TEST(test_hooks_may_refuse), TEST(test_prompts_of_the_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
