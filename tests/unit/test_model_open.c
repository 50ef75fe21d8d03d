/* Opening, making and saving models; what is refused, and how. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/stdtype.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LLAMA "tests/golden/model/llama"
#define TIED "tests/golden/model/qwen2"

static kern_dev *dev;
static char *dir;

static int set_up(void **state)
{
    (void)state;
    dev = aid_device();
    dir = aid_dir();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    aid_dir_remove(dir);
    kern_close(dev);
    return 0;
}

/* ---- binding ---- */

/* Rewrites the checkpoint `from` into dir: `drop` left out, and `extra` added with n values. */
static void rewrite(const char *from, const char *drop, const char *extra, st_dtype t, int n_dims,
                    const int64_t *dim, const void *data)
{
    safetensors *st;
    st_writer *w;
    size_t bytes = st_dtype_size(t);
    for (int i = 0; i < n_dims; i++)
        bytes *= (size_t)dim[i];
    char *config = path_join(from, "config.json"), *copy = path_join(dir, "config.json");
    char *path = path_join(dir, "model.safetensors");
    assert_int_equal(file_copy(config, copy, NULL), 0);
    assert_int_equal(safetensors_open(&st, from, NULL), 0);
    assert_int_equal(st_writer_open(&w, path, NULL, NULL), 0);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < safetensors_count(st); i++) {
            const st_tensor *s = safetensors_at(st, i);
            if (drop != NULL && strcmp(s->name, drop) == 0)
                continue;
            if (pass == 0)
                assert_int_equal(st_writer_declare(w, s->name, s->dtype, s->n_dims, s->dim, NULL),
                                 0);
            else
                assert_int_equal(st_writer_data(w, s->data, s->bytes, NULL), 0);
        }
        if (extra == NULL)
            continue;
        if (pass == 0)
            assert_int_equal(st_writer_declare(w, extra, t, n_dims, dim, NULL), 0);
        else
            assert_int_equal(st_writer_data(w, data, bytes, NULL), 0);
    }
    assert_int_equal(st_writer_commit(w, NULL), 0);
    safetensors_close(st);
    free(config);
    free(copy);
    free(path);
}

/* Opens dir; the message without the directory, or "" when it opens. */
static const char *opened(hone_err *e)
{
    model *m;
    const model_options o = {.dev = dev, .dtype = KERN_F32};
    *e = (hone_err){0};
    if (model_open(&m, dir, &o, e) == 0) {
        model_close(m);
        return "";
    }
    assert_null(m);
    assert_memory_equal(e->msg, dir, strlen(dir));
    return e->msg + strlen(dir) + 2;
}

static void test_every_tensor_must_bind(void **state)
{
    (void)state;
    static const float zeros[67 * 48];
    const int64_t one[] = {6}, up[] = {48, 53};
    hone_err e;
    rewrite(LLAMA, "model.layers.1.mlp.up_proj.weight", NULL, ST_F32, 0, NULL, NULL);
    assert_string_equal(opened(&e), "tensor 'model.layers.1.mlp.up_proj.weight' is missing");
    rewrite(LLAMA, "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", ST_F32,
            2, up, zeros);
    assert_string_equal(opened(&e), "tensor 'model.layers.1.mlp.up_proj.weight' has shape [48, "
                                    "53], config.json calls for [53, 48]");
    rewrite(LLAMA, "model.norm.weight", "model.norm.weight", ST_I32, 1, (const int64_t[]){48},
            zeros);
    assert_string_equal(
        opened(&e), "tensor 'model.norm.weight' is stored as I32; weights are F32, F16 or BF16");
    rewrite(LLAMA, NULL, "model.layers.0.self_attn.q_proj.bias", ST_F32, 1, (const int64_t[]){48},
            zeros);
    assert_string_equal(opened(&e), "tensor 'model.layers.0.self_attn.q_proj.bias' belongs to "
                                    "nothing in a LlamaForCausalLM");
    rewrite(LLAMA, NULL, "model.layers.0.self_attn.rotary_emb.inv_freq", ST_F32, 1, one, zeros);
    assert_string_equal(opened(&e), "");
}

static void test_a_tied_head_stored_twice(void **state)
{
    (void)state;
    safetensors *st;
    hone_err e;
    assert_int_equal(safetensors_open(&st, TIED, NULL), 0);
    const st_tensor *embed = safetensors_find(st, "model.embed_tokens.weight");
    char *other = mem_alloc(embed->bytes);
    rewrite(TIED, NULL, "lm_head.weight", embed->dtype, 2, embed->dim, embed->data);
    assert_string_equal(opened(&e), "");
    rewrite(TIED, NULL, "lm_head.weight", embed->dtype, 2, embed->dim, other);
    assert_string_equal(opened(&e),
                        "tensor 'lm_head.weight' belongs to nothing in a Qwen2ForCausalLM with "
                        "tie_word_embeddings (it differs from the embedding)");
    free(other);
    safetensors_close(st);
}

static void test_data_at_odd_addresses(void **state)
{
    (void)state;
    /* One byte in front moves every tensor after it off its alignment. */
    safetensors *st;
    aid_golden g;
    float a[64], b[64];
    aid_golden_open(&g, "llama");
    const model_batch batch = aid_batch(&g);
    model *m = aid_open(dev, LLAMA, KERN_F32, false, RECOMPUTE_NONE);
    assert_int_equal(model_score(m, &batch, a, NULL), 0);
    model_close(m);
    rewrite(LLAMA, NULL, NULL, ST_F32, 0, NULL, NULL);
    char *path = path_join(dir, "model.safetensors");
    char *text;
    size_t len;
    assert_int_equal(file_read(&text, &len, path, 1 << 20, NULL), 0);
    char *moved = mem_alloc(len + 1);
    uint64_t header = 0;
    memcpy(&header, text, 8);
    memcpy(moved + 8, text + 8, header);
    moved[8 + header] = ' ';
    memcpy(moved + 9 + header, text + 8 + header, len - 8 - header);
    header++;
    memcpy(moved, &header, 8);
    assert_int_equal(file_write(path, moved, len + 1, NULL), 0);
    assert_int_equal(safetensors_open(&st, dir, NULL), 0);
    assert_int_equal((uintptr_t)safetensors_at(st, 0)->data % 4, 1);
    safetensors_close(st);
    m = aid_open(dev, dir, KERN_F32, false, RECOMPUTE_NONE);
    assert_int_equal(model_score(m, &batch, b, NULL), 0);
    assert_memory_equal(a, b, (size_t)g.n * sizeof *a);
    model_close(m);
    aid_golden_close(&g);
    free(text);
    free(moved);
    free(path);
}

/* ---- made, saved, changed ---- */

static model *make(const json_t *config, uint64_t seed, kern_dtype dtype)
{
    hone_err e = {0};
    model *m;
    const model_options o = {.dev = dev, .dtype = dtype, .backward = true, .train_base = true};
    if (model_create(&m, config, seed, &o, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static void score(model *m, const aid_golden *g, float *logp)
{
    const model_batch b = aid_batch(g);
    hone_err e = {0};
    if (model_score(m, &b, logp, &e) != 0)
        fail_msg("%s", e.msg);
}

static void test_a_new_model_is_its_seed(void **state)
{
    (void)state;
    json_t *config;
    aid_golden g;
    float a[64], b[64];
    aid_golden_open(&g, "qwen2");
    size_t n = (size_t)g.n * sizeof *a;
    assert_int_equal(js_load(&config, TIED "/config.json", NULL), 0);
    json_object_set_new(config, "pad_token_id", json_integer(3));
    model *m = make(config, 5, KERN_F32), *same = make(config, 5, KERN_F32);
    model *other = make(config, 6, KERN_F32);
    score(m, &g, a);
    score(same, &g, b);
    assert_memory_equal(a, b, n);
    score(other, &g, b);
    assert_memory_not_equal(a, b, n);

    param_list *l = model_params(m);
    static const struct {
        const char *name;
        double mean, std;
    } rows[] = {{"model.embed_tokens.weight", 0, 0.02},
                {"model.layers.1.mlp.gate_proj.weight", 0, 0.02},
                {"model.layers.0.input_layernorm.weight", 1, 0},
                {"model.layers.0.self_attn.k_proj.bias", 0, 0}};
    for (size_t i = 0; i < 4; i++) {
        int64_t at = param_find(l, rows[i].name);
        assert_true(at >= 0);
        size_t len = (size_t)(l->items[at].rows * l->items[at].cols);
        float *v = mem_array(len, sizeof *v);
        double sum = 0, square = 0;
        assert_int_equal(param_read(l, (size_t)at, v, NULL), 0);
        for (size_t k = 0; k < len; k++) {
            sum += v[k];
            square += (v[k] - rows[i].mean) * (v[k] - rows[i].mean);
        }
        assert_true(fabs(sum / (double)len - rows[i].mean) < 0.002);
        assert_true(fabs(sqrt(square / (double)len) - rows[i].std) < 0.05 * rows[i].std + 1e-9);
        assert_true(i != 0 || (v[3 * 48] == 0 && v[4 * 48 - 1] == 0 && v[4 * 48] != 0));
        free(v);
    }
    assert_true(l->items[0].decay);
    assert_false(l->items[param_find(l, "model.norm.weight")].decay);
    assert_int_equal(param_find(l, "lm_head.weight"), -1);
    model_close(m);
    model_close(same);
    model_close(other);
    json_decref(config);
    aid_golden_close(&g);
}

static void save_and_compare(model *m, const aid_golden *g, kern_dtype stored, kern_dtype compute)
{
    hone_err e = {0};
    float a[64], b[64];
    assert_int_equal(model_save(m, dir, stored, 0, &e), 0);
    model *back = aid_open(dev, dir, compute, true, RECOMPUTE_NONE);
    score(m, g, a);
    score(back, g, b);
    assert_memory_equal(a, b, (size_t)g->n * sizeof *a);
    model_close(back);
}

static void test_saved_models_open_as_they_were(void **state)
{
    (void)state;
    static const char *const cases[] = {"llama_bias", "qwen3"};
    for (size_t i = 0; i < 2; i++) {
        json_t *config;
        aid_golden g;
        char *from = mem_printf("tests/golden/model/%s/config.json", cases[i]);
        aid_golden_open(&g, cases[i]);
        assert_int_equal(js_load(&config, from, NULL), 0);
        model *m = make(config, 7, KERN_F32);
        save_and_compare(m, &g, KERN_F32, KERN_F32);
        model_close(m);
        m = make(config, 8, KERN_BF16); /* computes with rounded weights, keeps them whole */
        save_and_compare(m, &g, KERN_F32, KERN_BF16);
        save_and_compare(m, &g, KERN_BF16, KERN_BF16);
        model_close(m);
        json_decref(config);
        char *saved = path_join(dir, "config.json");
        assert_int_equal(js_load(&config, saved, NULL), 0);
        assert_string_equal(json_string_value(json_object_get(config, "dtype")), "bfloat16");
        json_decref(config);
        aid_golden_close(&g);
        free(saved);
        free(from);
    }
}

static bool saved(const char *name)
{
    char *path = path_join(dir, name);
    bool there = file_exists(path);
    free(path);
    return there;
}

/* One file, then shards of two counts, then one file again: each opens as the same model, and
 * nothing of the one before is left. */
static void test_shards(void **state)
{
    (void)state;
    aid_golden g;
    hone_err e = {0};
    json_t *config;
    float a[64], b[64];
    aid_golden_open(&g, "llama_bias");
    assert_int_equal(js_load(&config, "tests/golden/model/llama_bias/config.json", NULL), 0);
    model *m = make(config, 7, KERN_F32);
    score(m, &g, a);
    static const int64_t limits[] = {0, 20000, 60000, 1, INT64_MAX};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        bool single = limits[i] == 0 || limits[i] == INT64_MAX;
        assert_int_equal(model_save(m, dir, KERN_F32, limits[i], &e), 0);
        assert_true(saved("model.safetensors") == single);
        assert_true(saved("model.safetensors.index.json") == !single);
        safetensors *st;
        assert_int_equal(safetensors_open(&st, dir, &e), 0);
        size_t n = 0;
        for (const char *const *f = safetensors_files(st); *f != NULL; f++, n++) {
            file_map map;
            assert_int_equal(file_map_open(&map, *f, &e), 0);
            assert_true(single || limits[i] == 1 || map.len < (size_t)limits[i] + 4000);
            file_map_close(&map);
        }
        assert_int_equal(safetensors_count(st), limits[i] == 1 ? n : safetensors_count(st));
        safetensors_close(st);
        char **names;
        assert_int_equal(dir_list(&names, dir, &e), 0);
        size_t files = 0;
        for (size_t k = 0; names[k] != NULL; k++)
            files += strncmp(names[k], "model", 5) == 0;
        assert_int_equal(files, single ? 1 : n + 1);
        dir_list_free(names);
        model *back = aid_open(dev, dir, KERN_F32, true, RECOMPUTE_NONE);
        score(back, &g, b);
        assert_memory_equal(a, b, (size_t)g.n * sizeof *a);
        model_close(back);
    }
    model_close(m);
    json_decref(config);
    aid_golden_close(&g);
}

/* Saved as f16 it opens as what f16 holds, and again without a change; what f16 does not hold is
 * refused. */
static void test_f16(void **state)
{
    (void)state;
    hone_err e = {0};
    json_t *config;
    aid_golden g;
    aid_golden_open(&g, "llama_bias");
    assert_int_equal(js_load(&config, "tests/golden/model/llama_bias/config.json", NULL), 0);
    model *m = make(config, 7, KERN_F32);
    assert_int_equal(model_save(m, dir, KERN_F16, 0, &e), 0);
    model_close(m);
    json_decref(config);
    char *path = path_join(dir, "config.json");
    assert_int_equal(js_load(&config, path, NULL), 0);
    assert_string_equal(json_string_value(json_object_get(config, "dtype")), "float16");
    json_decref(config);
    free(path);
    m = aid_open(dev, dir, KERN_F32, true, RECOMPUTE_NONE);
    save_and_compare(m, &g, KERN_F16, KERN_F32);
    param_list *l = model_params(m);
    size_t n = (size_t)(l->items[1].rows * l->items[1].cols);
    float *v = mem_array(n, sizeof *v);
    assert_int_equal(param_read(l, 1, v, &e), 0);
    v[n - 1] = 65519;
    assert_int_equal(param_write(l, 1, v, &e), 0);
    assert_int_equal(model_save(m, dir, KERN_F16, 0, &e), 0);
    v[n - 1] = -65520;
    assert_int_equal(param_write(l, 1, v, &e), 0);
    assert_int_equal(model_save(m, dir, KERN_F16, 0, &e), HONE_ENUMERIC);
    char *want =
        mem_printf("tensor '%s' holds -65520, which float16 cannot; save it as bfloat16 or "
                   "float32",
                   l->items[1].name);
    assert_string_equal(e.msg, want);
    free(want);
    free(v);
    model_close(m);
    aid_golden_close(&g);
}

static void test_refresh_takes_new_values(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        kern_dtype dtype = k ? KERN_BF16 : KERN_F32;
        aid_golden g;
        hone_err e = {0};
        aid_golden_open(&g, "qwen2");
        model *from = aid_open(dev, "tests/golden/model/qwen2", dtype, true, RECOMPUTE_NONE);
        json_t *config;
        assert_int_equal(js_load(&config, TIED "/config.json", NULL), 0);
        model *m = make(config, 5, dtype);
        param_list *l = model_params(m), *other = model_params(from);
        for (size_t i = 0; i < l->n; i++) {
            float *v = mem_array((size_t)(l->items[i].rows * l->items[i].cols), sizeof *v);
            assert_int_equal(param_read(other, i, v, NULL), 0);
            assert_int_equal(param_write(l, i, v, NULL), 0);
            free(v);
        }
        float a[64], b[64];
        assert_int_equal(model_refresh(m, &e), 0);
        score(m, &g, a);
        score(from, &g, b);
        assert_memory_equal(a, b, (size_t)g.n * sizeof *a);
        model_close(m);
        model_close(from);
        json_decref(config);
        aid_golden_close(&g);
    }
}

/* ---- plans and batches ---- */

static void test_a_plan_is_kept(void **state)
{
    (void)state;
    aid_golden g;
    hone_err e = {0};
    aid_golden_open(&g, "llama");
    const model_batch b = aid_batch(&g);
    model *m = aid_open(dev, LLAMA, KERN_F32, true, RECOMPUTE_SELECTIVE);
    size_t before = dev->mem_used;
    model_plan plan = model_plan_for(m, g.n);
    assert_true(plan.parameters >= 2 * sizeof(float) * (size_t)model_n_params(m));
    assert_int_equal(model_reserve(m, g.n, &e), 0);
    size_t tables = 2 * 64 * 6 * sizeof(float); /* rope, for the whole context */
    assert_true(dev->mem_used >= before + plan.activations + tables);
    assert_true(dev->mem_used < before + plan.activations + tables + 1024);
    assert_int_equal(model_backward(m, &b, NULL, &e), 0);
    size_t used = dev->mem_used;
    assert_int_equal(model_backward(m, &b, NULL, &e), 0);
    assert_int_equal(dev->mem_used, used);
    assert_int_equal(model_reserve(m, g.n - 1, &e), 0);
    assert_int_equal(model_backward(m, &b, NULL, &e), HONE_ELIMIT);
    assert_string_equal(e.msg, "a batch of 29 tokens, the plan has room for 28");
    model_close(m);
    aid_golden_close(&g);
}

static void test_batches_that_cannot_be(void **state)
{
    (void)state;
    aid_golden g;
    aid_golden_open(&g, "llama");
    const model_batch sound = aid_batch(&g);
    int32_t ids[64], pos[64], target[64], cu[] = {0, 0, 18, 29}, few[] = {0, 17, 18, 28};
    model_batch b[6] = {sound, sound, sound, sound, sound, sound};
    static const char *const want[] = {
        "row 4: id -1 is outside the vocabulary of 67",
        "row 28: position 64, the model has 64 positions",
        "row 2: target 67 is outside the vocabulary of 67",
        "segment 0 has 0 rows",
        "3 segments do not cover 29 rows",
        "0 segments do not cover 29 rows",
    };
    memcpy(ids, g.ids, (size_t)g.n * sizeof *ids);
    memcpy(pos, g.pos, (size_t)g.n * sizeof *pos);
    memcpy(target, g.target, (size_t)g.n * sizeof *target);
    ids[4] = -1;
    pos[28] = 64;
    target[2] = 67;
    b[0].ids = ids;
    b[1].pos = pos;
    b[2].target = target;
    b[3].cu = cu;
    b[4].cu = few;
    b[5].n_seg = 0;
    model *m = aid_open(dev, LLAMA, KERN_F32, false, RECOMPUTE_NONE);
    for (size_t i = 0; i < 6; i++) {
        hone_err e = {0};
        assert_int_not_equal(model_score(m, &b[i], NULL, &e), 0);
        assert_string_equal(e.msg, want[i]);
    }
    int32_t long_ids[65] = {0}, long_pos[65] = {0}, long_cu[] = {0, 65};
    const model_batch longer = {
        .n = 65, .ids = long_ids, .pos = long_pos, .target = long_ids, .cu = long_cu, .n_seg = 1};
    hone_err e = {0};
    assert_int_equal(model_score(m, &longer, NULL, &e), HONE_ELIMIT);
    assert_string_equal(e.msg, "segment 0 has 65 tokens, the model takes 64");
    model_close(m);
    aid_golden_close(&g);
}

static void test_terms_that_do_not_fit(void **state)
{
    (void)state;
    float v[48];
    hone_err e = {0};
    model *m = aid_open(dev, LLAMA, KERN_F32, false, RECOMPUTE_NONE);
    kern_lora l = {.A = kern_mat(KERN_F32, 1, 48, v), .B = kern_mat(KERN_F32, 24, 1, v)};
    assert_string_equal(model_site_at(m, 0)->name, "model.layers.0.self_attn.q_proj");
    assert_int_equal(model_attach(m, 1, &l, &e), 0);
    assert_int_equal(model_attach(m, 0, &l, &e), HONE_EINVAL);
    assert_string_equal(e.msg, "model.layers.0.self_attn.q_proj: a term of A [1, 48] and B [24, 1] "
                               "does not fit a product of [48, 48]");
    l.dA = l.A;
    assert_int_equal(model_attach(m, 1, &l, &e), HONE_EINVAL);
    assert_string_equal(e.msg,
                        "model.layers.0.self_attn.k_proj: gradients of a term have another shape");
    assert_int_equal(model_n_sites(m), 14);
    assert_int_equal(model_attach(m, 14, &l, &e), HONE_EINVAL);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_tensor_must_bind),
        cmocka_unit_test(test_a_tied_head_stored_twice),
        cmocka_unit_test(test_data_at_odd_addresses),
        cmocka_unit_test(test_a_new_model_is_its_seed),
        cmocka_unit_test(test_saved_models_open_as_they_were),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_refresh_takes_new_values),
        cmocka_unit_test(test_a_plan_is_kept),
        cmocka_unit_test(test_batches_that_cannot_be),
        cmocka_unit_test(test_terms_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
