/* PEFT directories both ways (tests/golden/adapters): read, computed with, written again, refused.
 */
#include "adapters/lora.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/safetensors.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BASE "tests/golden/model/llama"
#define GOLDEN "tests/golden/adapters/"

static const char *const cases[] = {"plain", "rslora", "patterns", "regex"};
enum { N_CASES = sizeof cases / sizeof *cases, VOCAB = 67 };

/* Largest difference of log-probabilities to the golden logits of a case. */
static double diff_to(const char *name, model *m)
{
    char *path = mem_printf(GOLDEN "%s/golden.st", name);
    safetensors *st;
    assert_int_equal(safetensors_open(&st, path, NULL), 0);
    const st_tensor *ids = safetensors_find(st, "ids");
    const float *want = safetensors_find(st, "logits")->data;
    int32_t n = (int32_t)ids->dim[0], cu[2] = {0, n}, pos[64], target[64];
    for (int32_t i = 0; i < n; i++) {
        pos[i] = i;
        target[i] = 0;
    }
    const model_batch b = {
        .n = n, .ids = ids->data, .pos = pos, .target = target, .cu = cu, .n_seg = 1};
    float *rows = aid_logprobs(m, &b);
    double worst = 0;
    for (int32_t r = 0; r < n; r++) {
        double sum = 0;
        for (int i = 0; i < VOCAB; i++)
            sum += exp((double)want[r * VOCAB + i]);
        for (int i = 0; i < VOCAB; i++) {
            double d = fabs(rows[r * VOCAB + i] - (want[r * VOCAB + i] - log(sum)));
            worst = d <= worst ? worst : d;
        }
    }
    free(rows);
    safetensors_close(st);
    free(path);
    return worst;
}

static adapter *open_adapter(const char *dir, model *m)
{
    adapter *a;
    hone_err e = {0};
    if (adapter_open(&a, dir, m, false, NULL, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    return a;
}

static void test_computes_as_peft(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        char *dir = mem_printf(GOLDEN "%s", cases[i]);
        model *m = aid_open(aid_dev, BASE, KERN_F32, false, RECOMPUTE_NONE);
        adapter *a = open_adapter(dir, m);
        double d = diff_to(cases[i], m);
        if (!(d < 1e-4))
            fail_msg("%s: differs by %g", cases[i], d);
        adapter_close(a);
        assert_true(diff_to(cases[i], m) > 1e-2); /* detached: the base again */
        model_close(m);
        free(dir);
    }
}

/* What is written reads back to the same numbers, with the same tensors under the same names. */
static void test_written_as_read(void **state)
{
    for (size_t i = 0; i < N_CASES; i++) {
        char *dir = mem_printf(GOLDEN "%s", cases[i]);
        char *to = mem_printf("%s/%s", (char *)*state, cases[i]);
        model *m = aid_open(aid_dev, BASE, KERN_F32, false, RECOMPUTE_NONE);
        adapter *a = open_adapter(dir, m);
        hone_err e = {0};
        assert_int_equal(dir_make(to, &e), 0);
        if (adapter_save(a, to, "tiny/base", &e) != 0)
            fail_msg("%s", e.msg);
        adapter_close(a);
        a = open_adapter(to, m);
        assert_true(diff_to(cases[i], m) < 1e-4);
        adapter_close(a);
        model_close(m);
        safetensors *x, *y;
        assert_int_equal(safetensors_open(&x, dir, &e) == 0,
                         0); /* a directory of an adapter is no checkpoint */
        char *fx = path_join(dir, "adapter_model.safetensors"),
             *fy = path_join(to, "adapter_model.safetensors");
        assert_int_equal(safetensors_open(&x, fx, &e), 0);
        assert_int_equal(safetensors_open(&y, fy, &e), 0);
        assert_int_equal(safetensors_count(x), safetensors_count(y));
        for (size_t k = 0; k < safetensors_count(x); k++) {
            const st_tensor *t = safetensors_at(x, k), *u = safetensors_find(y, t->name);
            assert_non_null(u);
            assert_int_equal(t->bytes, u->bytes);
            assert_memory_equal(t->data, u->data, t->bytes);
        }
        safetensors_close(x);
        safetensors_close(y);
        free(fx);
        free(fy);
        free(to);
        free(dir);
    }
}

/* A new adapter changes nothing until it is trained, and is a pure function of its seed. */
static void test_new_is_the_base(void **state)
{
    (void)state;
    hone_err e = {0};
    json_t *targets = json_pack("[s, s]", "q_proj", "regex:.*mlp.*");
    const lora_spec spec = {.r = 4, .alpha = 8, .targets = targets, .seed = 7};
    model *m = aid_open(aid_dev, BASE, KERN_F32, false, RECOMPUTE_NONE);
    double before = diff_to("plain", m);
    adapter *a, *b;
    assert_int_equal(adapter_new(&a, m, &spec, &e), 0);
    assert_true(diff_to("plain", m) == before);
    param_list *p = adapter_params(a);
    assert_int_equal(p->n, 2 * (2 + 3 * 2));
    float one[4 * 64], two[4 * 64];
    size_t bytes = (size_t)(p->items[0].rows * p->items[0].cols) * sizeof(float);
    assert_int_equal(param_read(p, 0, one, &e), 0);
    float bound = 1 / sqrtf((float)p->items[0].cols), most = 0;
    for (int64_t i = 0; i < p->items[0].rows * p->items[0].cols; i++)
        most = fabsf(one[i]) > most ? fabsf(one[i]) : most;
    assert_true(most <= bound && most > 0.9F * bound);
    adapter_close(a);
    assert_int_equal(adapter_new(&b, m, &spec, &e), 0);
    assert_int_equal(param_read(adapter_params(b), 0, two, &e), 0);
    assert_memory_equal(one, two, bytes);
    adapter_close(b);
    model_close(m);
    json_decref(targets);
}

static void test_bad_specs(void **state)
{
    (void)state;
    static const struct {
        int64_t r;
        double alpha;
        const char *target, *want;
    } rows[] = {
        {0, 8, "q_proj", "LoRA rank 0, must lie between 1 and 1024"},
        {4, 0, "q_proj", "LoRA alpha 0, must be above 0"},
        {4, 8, "query",
         "LoRA target 'query' matches no linear layer; this model has names such as "
         "'model.layers.0.self_attn.q_proj' (or use all-linear)"},
        {4, 8, "regex:(", "target pattern '(': missing closing parenthesis at character 1"},
    };
    model *m = aid_open(aid_dev, BASE, KERN_F32, false, RECOMPUTE_NONE);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *targets = json_pack("[s]", rows[i].target);
        const lora_spec s = {.r = rows[i].r, .alpha = rows[i].alpha, .targets = targets};
        adapter *a;
        hone_err e = {0};
        assert_int_not_equal(adapter_new(&a, m, &s, &e), 0);
        assert_null(a);
        assert_string_equal(e.msg, rows[i].want);
        json_decref(targets);
    }
    model_close(m);
}

/* A copy of the plain case whose configuration has one field changed. */
static char *with_field(const char *root, const char *field, json_t *value)
{
    char *dir = path_join(root, "changed");
    char *from = path_join(GOLDEN "plain", "adapter_config.json"), *to;
    json_t *c;
    assert_int_equal(dir_make(dir, NULL), 0);
    assert_int_equal(js_load(&c, from, NULL), 0);
    json_object_set_new(c, field, value);
    to = path_join(dir, "adapter_config.json");
    assert_int_equal(js_save(c, to, true, NULL), 0);
    json_decref(c);
    free(from);
    free(to);
    from = path_join(GOLDEN "plain", "adapter_model.safetensors");
    to = path_join(dir, "adapter_model.safetensors");
    assert_int_equal(file_copy(from, to, NULL), 0);
    free(from);
    free(to);
    return dir;
}

static void test_refused_by_name(void **state)
{
    const struct {
        const char *field;
        json_t *value;
        const char *want;
    } rows[] = {
        {"use_dora", json_true(), "adapter_config.json: 'use_dora' is not supported"},
        {"peft_type", json_string("IA3"), "peft_type 'IA3' is not supported (LORA is)"},
        {"bias", json_string("all"), "bias 'all' is not supported (none is)"},
        {"modules_to_save", json_pack("[s]", "lm_head"), "'modules_to_save' is not supported"},
        {"kasa_config", json_pack("{s:i}", "x", 1), "'kasa_config' is not supported"},
        {"init_lora_weights", json_string("pissa"), "'pissa' changes the base weights"},
        {"r", json_integer(4), "q_proj.lora_A.weight': rank 3, the configuration says 4"},
    };
    model *m = aid_open(aid_dev, BASE, KERN_F32, false, RECOMPUTE_NONE);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *dir = with_field(*state, rows[i].field, rows[i].value);
        adapter *a;
        hone_err e = {0};
        assert_int_not_equal(adapter_open(&a, dir, m, false, NULL, NULL, &e), 0);
        assert_null(a);
        if (strstr(e.msg, rows[i].want) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, rows[i].want);
        free(dir);
    }
    model_close(m);
}

/* The whole text, without the directory. */
static void test_bad_configurations(void **state)
{
    const struct {
        const char *field;
        json_t *value;
        const char *want;
    } rows[] = {
        {"r", json_string("3"), "field 'r' is not an integer"},
        {"r", json_integer(0), "adapter: rank 0, a whole number from 1 to 1024 is taken"},
        {"r", json_integer(-9000000000),
         "adapter: rank -9e+09, a whole number from 1 to 1024 is taken"},
        {"lora_alpha", json_real(1e300), "adapter: lora_alpha 1e+300 is beyond what F32 holds"},
        {"lora_alpha", json_true(), "field 'lora_alpha' is not a number"},
        {"lora_dropout", json_real(1), "lora_dropout 1, must lie in [0, 1)"},
        {"lora_dropout", json_real(-0.5), "lora_dropout -0.5, must lie in [0, 1)"},
        {"use_rslora", json_integer(1), "field 'use_rslora' is not true or false"},
        {"layers_to_transform", json_string("0"),
         "field 'layers_to_transform' is no number and no list"},
        {"layers_to_transform", json_pack("[i, s]", 0, "1"),
         "field 'layers_to_transform' holds something that is no whole number"},
        {"target_modules", json_null(), "field 'target_modules' is missing"},
        {"peft_type", json_null(), "field 'peft_type' is missing"},
    };
    model *m = aid_open(aid_dev, BASE, KERN_F32, false, RECOMPUTE_NONE);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *dir = with_field(*state, rows[i].field, rows[i].value);
        char *want = mem_printf("adapter %s: %s/adapter_config.json: %s", dir, dir, rows[i].want);
        adapter *a;
        hone_err e = {0};
        assert_int_not_equal(adapter_open(&a, dir, m, false, NULL, NULL, &e), 0);
        assert_null(a);
        assert_string_equal(e.msg, want);
        free(want);
        free(dir);
    }
    model_close(m);
}

static void test_bad_patterns(void **state)
{
    const struct {
        const char *field;
        json_t *value;
        const char *want;
    } rows[] = {
        {"rank_pattern", json_pack("{s:f}", "q_proj", 1e300),
         "model.layers.0.self_attn.q_proj: rank 1e+300, a whole number from 1 to 1024 is taken"},
        {"rank_pattern", json_pack("{s:f}", "q_proj", 2.5),
         "model.layers.0.self_attn.q_proj: rank 2.5, a whole number from 1 to 1024 is taken"},
        {"rank_pattern", json_pack("{s:s}", "q_proj", "3"),
         "rank_pattern of 'model.layers.0.self_attn.q_proj' is not a number"},
        {"alpha_pattern", json_pack("{s:f}", "q_proj", -1e300),
         "model.layers.0.self_attn.q_proj: lora_alpha -1e+300 is beyond what F32 holds"},
        {"layers_to_transform", json_integer(7), NULL}, /* the pairs are there all the same */
    };
    model *m = aid_open(aid_dev, BASE, KERN_F32, false, RECOMPUTE_NONE);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *dir = with_field(*state, rows[i].field, rows[i].value);
        char *want = mem_printf("adapter %s: %s", dir, rows[i].want != NULL ? rows[i].want : "");
        adapter *a;
        hone_err e = {0};
        int rc = adapter_open(&a, dir, m, false, NULL, NULL, &e);
        assert_true((rc == 0) == (rows[i].want == NULL));
        if (rc != 0)
            assert_string_equal(e.msg, want);
        adapter_close(a);
        free(want);
        free(dir);
    }
    model_close(m);
}

/* The pairs of another base, and half a pair. */
static void test_tensors_must_bind(void **state)
{
    (void)state;
    adapter *a;
    hone_err e = {0};
    model *m = aid_open(aid_dev, "tests/golden/model/qwen3", KERN_F32, false, RECOMPUTE_NONE);
    assert_int_not_equal(adapter_open(&a, GOLDEN "plain", m, false, NULL, NULL, &e), 0);
    assert_non_null(strstr(e.msg, "this model wants"));
    model_close(m);
    m = aid_open(aid_dev, BASE, KERN_F32, false, RECOMPUTE_NONE);
    char *dir = with_field(*state, "target_modules", json_pack("[s]", "q_proj"));
    char *path = path_join(dir, "adapter_model.safetensors");
    safetensors *st;
    st_writer *w;
    assert_int_equal(safetensors_open(&st, GOLDEN "plain/adapter_model.safetensors", &e), 0);
    assert_int_equal(st_writer_open(&w, path, NULL, &e), 0);
    const st_tensor *t =
        safetensors_find(st, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    assert_non_null(t);
    assert_int_equal(st_writer_declare(w, t->name, t->dtype, t->n_dims, t->dim, &e), 0);
    assert_int_equal(st_writer_data(w, t->data, t->bytes, &e), 0);
    assert_int_equal(st_writer_commit(w, &e), 0);
    assert_int_not_equal(adapter_open(&a, dir, m, false, NULL, NULL, &e), 0);
    assert_non_null(strstr(
        e.msg,
        "tensor 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight' is missing"));
    safetensors_close(st);
    free(path);
    free(dir);
    model_close(m);
}

static void test_other_base_is_refused(void **state)
{
    char *dir = with_field(*state, "r", json_integer(3));
    char *path = path_join(dir, "hone_manifest.json");
    json_t *manifest = json_pack("{s:s, s:s}", "base_digest", "aaaaaaaaaaaaaaaa", "template_digest",
                                 "tttttttttttttttt");
    adapter *a;
    hone_err e = {0};
    assert_int_equal(js_save(manifest, path, true, NULL), 0);
    model *m = aid_open(aid_dev, BASE, KERN_F32, false, RECOMPUTE_NONE);
    assert_int_equal(adapter_open(&a, dir, m, false, "bbbbbbbbbbbbbbbb", NULL, &e), HONE_EINVAL);
    assert_non_null(
        strstr(e.msg, "trained with base model aaaaaaaaaaaa..., this is bbbbbbbbbbbb..."));
    assert_int_equal(adapter_open(&a, dir, m, false, "aaaaaaaaaaaaaaaa", "uuuuuuuuuuuuuuuu", &e),
                     HONE_EINVAL);
    assert_non_null(strstr(e.msg, "chat template"));
    assert_int_equal(adapter_open(&a, dir, m, false, "aaaaaaaaaaaaaaaa", NULL, &e), 0);
    adapter_close(a);
    model_close(m);
    json_decref(manifest);
    free(path);
    free(dir);
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, aid_dir_setup, aid_dir_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_computes_as_peft),
        IN_DIR(test_written_as_read),
        cmocka_unit_test(test_new_is_the_base),
        cmocka_unit_test(test_bad_specs),
        IN_DIR(test_refused_by_name),
        IN_DIR(test_bad_configurations),
        IN_DIR(test_bad_patterns),
        IN_DIR(test_tensors_must_bind),
        IN_DIR(test_other_base_is_refused),
    };
    return cmocka_run_group_tests(tests, aid_dev_open, aid_dev_close);
}
