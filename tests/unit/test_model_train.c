/* Properties of the backward pass that hold whatever the numbers are. */
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void backward(model *m, const model_batch *b, float *logp)
{
    hone_err e = {0};
    if (model_backward(m, b, logp, &e) != 0)
        fail_msg("%s", e.msg);
}

static float *read_grads(const param_list *l)
{
    float *all = mem_array((size_t)l->total, sizeof *all);
    kern_do(aid_dev, read, all, l->grad, (size_t)l->total * sizeof *all);
    return all;
}

/* Gradients of a case with low-rank terms under dropout, of the base too; caller frees. */
static float *gradients(const char *name, kern_dtype dtype, model_recompute r, bool base,
                        size_t *bytes)
{
    aid_golden g;
    aid_lora lora;
    char *dir = mem_printf("tests/golden/model/%s", name);
    aid_golden_open(&g, name);
    model *m = aid_open(aid_dev, dir, dtype, base, r);
    aid_lora_attach(&lora, m, &g);
    for (size_t i = 0; i < model_n_sites(m); i++)
        lora.terms[i].dropout = 0.3F;
    model_batch b = aid_batch(&g);
    b.training = true;
    b.seed = 11;
    b.offset = 1000;
    backward(m, &b, NULL);
    const param_list *l = base ? model_params(m) : &lora.params;
    float *grads = read_grads(l);
    *bytes = (size_t)l->total * sizeof *grads;
    aid_lora_detach(&lora);
    model_close(m);
    aid_golden_close(&g);
    free(dir);
    return grads;
}

static void test_recomputing_changes_no_bit(void **state)
{
    (void)state;
    static const char *const cases[] = {"llama_bias", "qwen3"};
    for (int k = 0; k < 8; k++) {
        size_t n;
        const char *name = cases[k % 2];
        kern_dtype dtype = k / 2 % 2 ? KERN_BF16 : KERN_F32;
        bool base = k / 4 != 0;
        float *want = gradients(name, dtype, RECOMPUTE_NONE, base, &n);
        for (int r = RECOMPUTE_SELECTIVE; r <= RECOMPUTE_FULL; r++) {
            float *got = gradients(name, dtype, (model_recompute)r, base, &n);
            if (memcmp(got, want, n) != 0)
                fail_msg("%s, %s, base %d: recompute %d differs by %g", name,
                         kern_dtype_name(dtype), base, r, aid_max_diff(got, want, n / sizeof *got));
            free(got);
        }
        free(want);
    }
}

/* ---- finite differences ---- */

static double loss_of(model *m, const model_batch *b)
{
    hone_err e = {0};
    double loss = 0;
    float logp[64];
    assert_int_equal(model_refresh(m, &e), 0);
    assert_int_equal(model_score(m, b, logp, &e), 0);
    for (int64_t i = 0; i < b->n; i++)
        if (b->target[i] >= 0)
            loss -= (double)b->coef[i] * logp[i];
    return loss;
}

/* Moves parameter i by `by` times the direction. */
static void move(param_list *l, size_t i, const float *at, const float *direction, double by)
{
    size_t n = (size_t)(l->items[i].rows * l->items[i].cols);
    float *v = mem_array(n, sizeof *v);
    for (size_t k = 0; k < n; k++)
        v[k] = (float)(at[k] + by * direction[k]);
    assert_int_equal(param_write(l, i, v, NULL), 0);
    free(v);
}

/* The slope along a random direction of every parameter is what its gradient says. */
static void test_slopes_by_finite_differences(void **state)
{
    (void)state;
    aid_golden g;
    aid_golden_open(&g, "qwen3");
    model *m = aid_open(aid_dev, "tests/golden/model/qwen3", KERN_F32, true, RECOMPUTE_NONE);
    const model_batch b = aid_batch(&g);
    param_list *l = model_params(m);
    backward(m, &b, NULL);
    float *grads = read_grads(l);
    for (size_t i = 0; i < l->n; i++) {
        size_t n = (size_t)(l->items[i].rows * l->items[i].cols);
        float *at = mem_array(n, sizeof *at), *direction = mem_array(n, sizeof *at);
        rng r = {.seed = 5, .stream = i};
        double slope = 0, size = 0;
        assert_int_equal(param_read(l, i, at, NULL), 0);
        for (size_t k = 0; k < n; k++) {
            float grad = grads[l->items[i].offset + (int64_t)k];
            direction[k] = 0.3F * rng_normal(&r) * fabsf(grad) + grad; /* not orthogonal to it */
            slope += (double)direction[k] * grad;
            size += (double)direction[k] * direction[k];
        }
        double by = 0.01 / sqrt(size);
        move(l, i, at, direction, by);
        double up = loss_of(m, &b);
        move(l, i, at, direction, -by);
        double down = loss_of(m, &b);
        assert_int_equal(param_write(l, i, at, NULL), 0);
        double found = (up - down) / (2 * by);
        if (!(fabs(found - slope) < 5e-3 * fabs(slope)))
            fail_msg("%s: slope %g, gradient says %g", l->items[i].name, found, slope);
        free(at);
        free(direction);
    }
    free(grads);
    model_close(m);
    aid_golden_close(&g);
}

/* ---- packing, gradients added, dropout ---- */

static void test_packed_is_separate_and_gradients_add(void **state)
{
    (void)state;
    aid_golden g;
    aid_golden_open(&g, "mistral");
    model *m = aid_open(aid_dev, "tests/golden/model/mistral", KERN_F32, true, RECOMPUTE_NONE);
    param_list *l = model_params(m);
    const model_batch all = aid_batch(&g);
    float packed[64], separate[64];
    backward(m, &all, packed);
    float *want = read_grads(l);
    assert_int_equal(param_zero_grad(l, NULL), 0);
    for (int s = 0; s < g.n_seg; s++) {
        int64_t at = g.cu[s];
        const int32_t cu[] = {0, g.cu[s + 1] - g.cu[s]};
        const model_batch one = {.n = cu[1],
                                 .ids = g.ids + at,
                                 .pos = g.pos + at,
                                 .target = g.target + at,
                                 .coef = g.coef + at,
                                 .cu = cu,
                                 .n_seg = 1};
        backward(m, &one, separate + at);
    }
    float *got = read_grads(l);
    assert_true(aid_max_diff(packed, separate, (size_t)g.n) < 1e-5);
    assert_true(aid_rel_diff(got, want, (size_t)l->total) < 1e-5);
    free(got);
    free(want);
    model_close(m);
    aid_golden_close(&g);
}

/* Padding to the size of a plan, and a batch without effect, change no loss and no gradient. */
static void test_padding_has_no_effect(void **state)
{
    (void)state;
    aid_golden g;
    hone_err e = {0};
    bool records = aid_dev->records;
    float plain[64], padded[64];
    aid_golden_open(&g, "qwen2");
    model *m = aid_open(aid_dev, "tests/golden/model/qwen2", KERN_F32, true, RECOMPUTE_NONE);
    param_list *l = model_params(m);
    const model_batch b = aid_batch(&g);
    backward(m, &b, plain);
    float *want = read_grads(l);
    assert_int_equal(param_zero_grad(l, &e), 0);
    aid_dev->records = true;
    assert_int_equal(model_reserve(m, 3 * g.n + 1, &e), 0);
    assert_int_equal(model_warm(m, 3 * g.n + 1, false, &e), 0);
    for (int run = 0; run < 4; run++) {
        assert_int_equal(param_zero_grad(l, &e), 0);
        backward(m, &b, padded);
        float *got = read_grads(l);
        assert_true(aid_max_diff(padded, plain, (size_t)g.n) < 1e-5);
        assert_true(aid_rel_diff(got, want, (size_t)l->total) < 1e-5);
        free(got);
    }
    aid_dev->records = records;
    free(want);
    model_close(m);
    aid_golden_close(&g);
}

static void test_dropout_follows_its_key(void **state)
{
    (void)state;
    aid_golden g;
    aid_lora lora;
    float a[64], b[64];
    aid_golden_open(&g, "llama");
    model *m = aid_open(aid_dev, "tests/golden/model/llama", KERN_F32, false, RECOMPUTE_NONE);
    aid_lora_attach(&lora, m, &g);
    for (size_t i = 0; i < model_n_sites(m); i++)
        lora.terms[i].dropout = 0.5F;
    model_batch batch = aid_batch(&g);
    size_t n = (size_t)g.n * sizeof *a;
    assert_int_equal(model_score(m, &batch, a, NULL), 0);
    batch.training = true;
    batch.seed = 3;
    assert_int_equal(model_score(m, &batch, b, NULL), 0);
    assert_memory_not_equal(a, b, n);
    assert_int_equal(model_score(m, &batch, a, NULL), 0);
    assert_memory_equal(a, b, n);
    batch.offset = 1;
    assert_int_equal(model_score(m, &batch, a, NULL), 0);
    assert_memory_not_equal(a, b, n);
    batch.offset = 0;
    batch.seed = 4;
    assert_int_equal(model_score(m, &batch, a, NULL), 0);
    assert_memory_not_equal(a, b, n);
    aid_lora_detach(&lora);
    model_close(m);
    aid_golden_close(&g);
}

/* ---- what is not computed ---- */

static kern_ops counted;
static const kern_ops *real_ops;
static int n_grads, n_without_dx;

static int count_linear_grad(kern_dev *d, const kern_linear_grad *a)
{
    n_grads++;
    n_without_dx += a->dx.data == NULL;
    return real_ops->linear_grad(d, a);
}

/* Trains only the terms whose site name holds `what`, and counts the products that are gone
 * back through. */
static float *train_only(model *m, aid_lora *l, const model_batch *b, const char *what)
{
    n_grads = n_without_dx = 0;
    for (size_t i = 0; i < model_n_sites(m); i++) {
        bool on = strstr(model_site_at(m, i)->name, what) != NULL;
        l->terms[i].dA = on ? param_grad(&l->params, 2 * i) : (kern_tensor){0};
        l->terms[i].dB = on ? param_grad(&l->params, 2 * i + 1) : (kern_tensor){0};
    }
    param_zero_grad(&l->params, NULL);
    backward(m, b, NULL);
    return read_grads(&l->params);
}

static void test_nothing_is_computed_below_the_lowest_term(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        int grads; /* of 2 layers with 4 products */
    } rows[] = {{"layers.", 8},          {"q_proj", 8},    {"o_proj", 7},
                {"up_proj", 6},          {"down_proj", 5}, {"layers.1.self_attn.v", 4},
                {"layers.1.mlp.down", 1}};
    aid_golden g;
    aid_lora lora;
    aid_golden_open(&g, "qwen2");
    model *m = aid_open(aid_dev, "tests/golden/model/qwen2", KERN_F32, false, RECOMPUTE_SELECTIVE);
    aid_lora_attach(&lora, m, &g);
    const model_batch b = aid_batch(&g);
    real_ops = aid_dev->ops;
    counted = *aid_dev->ops;
    counted.linear_grad = count_linear_grad;
    aid_dev->ops = &counted;
    float *all = train_only(m, &lora, &b, "layers.");
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        float *some = train_only(m, &lora, &b, rows[k].what);
        assert_int_equal(n_grads, rows[k].grads);
        assert_int_equal(n_without_dx, 1);
        for (size_t i = 0; i < 2 * model_n_sites(m); i++) {
            const param *p = &lora.params.items[i];
            size_t n = (size_t)(p->rows * p->cols);
            bool on = strstr(p->name, rows[k].what) != NULL;
            for (size_t j = 0; j < n && !on; j++)
                assert_true(some[(size_t)p->offset + j] == 0);
            if (on)
                assert_memory_equal(some + p->offset, all + p->offset, n * sizeof *some);
        }
        free(some);
    }
    aid_dev->ops = real_ops;
    free(all);
    hone_err e = {0};
    aid_lora_detach(&lora);
    assert_int_equal(model_backward(m, &b, NULL, &e), HONE_EINVAL);
    assert_string_equal(e.msg, "the model has nothing to train");
    model_close(m);
    aid_golden_close(&g);
}

/* ---- bf16 ---- */

/* The fast mode is off by no more than 1.5 times what transformers itself is off by in bf16. */
static void test_bf16_is_near_f32(void **state)
{
    (void)state;
    static const char *const cases[] = {"llama", "llama_bias", "mistral", "qwen2", "qwen3"};
    for (size_t i = 0; i < 5; i++) {
        aid_golden g;
        aid_lora lora;
        float logp[64];
        size_t len;
        char *dir = mem_printf("tests/golden/model/%s", cases[i]);
        aid_golden_open(&g, cases[i]);
        model *m = aid_open(aid_dev, dir, KERN_BF16, false, RECOMPUTE_NONE);
        const model_batch b = aid_batch(&g);
        assert_int_equal(model_score(m, &b, logp, NULL), 0);
        double diff = aid_max_diff(logp, g.logp, (size_t)g.n), worst = 0;
        aid_lora_attach(&lora, m, &g);
        backward(m, &b, NULL);
        float *grads = read_grads(&lora.params);
        for (size_t s = 0; s < 2 * model_n_sites(m); s++) {
            const char *name = model_site_at(m, s / 2)->name;
            const float *want = aid_golden_array(&g, s % 2 ? "db:" : "da:", name, &len);
            double rel = aid_rel_diff(grads + lora.params.items[s].offset, want, len);
            worst = rel <= worst ? worst : rel;
        }
        const float *theirs = aid_golden_array(&g, "bf16", "", &len);
        if (!(diff < 1.5 * theirs[0] && worst < 1.5 * theirs[1]))
            fail_msg("%s: log-probabilities off by %g (%g), gradients by %g (%g)", cases[i], diff,
                     (double)theirs[0], worst, (double)theirs[1]);
        free(grads);
        aid_lora_detach(&lora);
        model_close(m);
        aid_golden_close(&g);
        free(dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recomputing_changes_no_bit),
        cmocka_unit_test(test_slopes_by_finite_differences),
        cmocka_unit_test(test_packed_is_separate_and_gradients_add),
        cmocka_unit_test(test_padding_has_no_effect),
        cmocka_unit_test(test_dropout_follows_its_key),
        cmocka_unit_test(test_nothing_is_computed_below_the_lowest_term),
        cmocka_unit_test(test_bf16_is_near_f32),
    };
    return cmocka_run_group_tests(tests, aid_dev_open, aid_dev_close);
}
