/* The forward and backward pass against transformers and PEFT (tests/golden/model). */
#include "core/model/model.h"

#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STRIDE = 7 }; /* of the gradients in the golden files */

static const char *const cases[] = {"llama", "llama_bias", "mistral", "qwen2", "qwen3"};
enum { N_CASES = sizeof cases / sizeof *cases };

static model *open_case(const char *name, kern_dtype dtype, bool train_base, model_recompute r)
{
    char *dir = mem_printf("tests/golden/model/%s", name);
    model *m = aid_open(aid_dev, dir, dtype, train_base, r);
    free(dir);
    return m;
}

/* Logits up to the constant that softmax takes away: compares log-probabilities. */
static double logits_diff(model *m, const aid_golden *g, const float *logits)
{
    const model_batch b = aid_batch(g);
    double worst = 0;
    float *rows = aid_logprobs(m, &b);
    for (int64_t r = 0; r < g->n; r++) {
        const float *want = logits + r * g->vocab, *got = rows + r * g->vocab;
        double sum = 0;
        for (int64_t i = 0; i < g->vocab; i++)
            sum += exp((double)want[i]);
        for (int64_t i = 0; i < g->vocab; i++) {
            double d = fabs(got[i] - (want[i] - log(sum)));
            worst = d <= worst ? worst : d;
        }
    }
    free(rows);
    return worst;
}

static void test_logits_as_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        aid_golden g;
        aid_golden_open(&g, cases[i]);
        model *m = open_case(cases[i], KERN_F32, false, RECOMPUTE_NONE);
        double diff = logits_diff(m, &g, g.logits);
        if (!(diff < 1e-4))
            fail_msg("%s: logits differ by %g", cases[i], diff);
        float logp[64];
        hone_err e = {0};
        const model_batch b = aid_batch(&g);
        assert_int_equal(model_score(m, &b, logp, &e), 0);
        diff = aid_max_diff(logp, g.logp, (size_t)g.n);
        if (!(diff < 1e-4))
            fail_msg("%s: log-probabilities differ by %g", cases[i], diff);
        model_close(m);
        aid_golden_close(&g);
    }
}

static void check_gradient(const aid_golden *g, const char *name, const float *grad, size_t n)
{
    size_t len;
    const float *norm = aid_golden_array(g, "n:", name, &len);
    assert_non_null(norm);
    const float *sample = aid_golden_array(g, "s:", name, &len);
    double sum = 0;
    float *got = mem_array(len, sizeof *got);
    for (size_t i = 0; i < n; i++) {
        sum += (double)grad[i] * grad[i];
        if (i % STRIDE == 0)
            got[i / STRIDE] = grad[i];
    }
    double rel = aid_rel_diff(got, sample, len), norm_rel = fabs(sqrt(sum) - *norm) / *norm;
    if (!(rel < 1e-4) || !(norm_rel < 1e-4))
        fail_msg("%s: gradient differs by %g, its norm by %g", name, rel, norm_rel);
    free(got);
}

static void test_gradients_of_every_weight(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        aid_golden g;
        hone_err e = {0};
        aid_golden_open(&g, cases[i]);
        model *m = open_case(cases[i], KERN_F32, true, RECOMPUTE_NONE);
        const model_batch b = aid_batch(&g);
        float logp[64];
        if (model_backward(m, &b, logp, &e) != 0)
            fail_msg("%s: %s", cases[i], e.msg);
        assert_true(aid_max_diff(logp, g.logp, (size_t)g.n) < 1e-4);
        param_list *l = model_params(m);
        for (size_t p = 0; p < l->n; p++) {
            size_t n = (size_t)(l->items[p].rows * l->items[p].cols);
            float *grad = mem_array(n, sizeof *grad);
            kern_do(aid_dev, read, grad, param_grad(l, p).data, n * sizeof *grad);
            check_gradient(&g, l->items[p].name, grad, n);
            free(grad);
        }
        model_close(m);
        aid_golden_close(&g);
    }
}

/* Reads the gradients of all pairs, one after the other; caller frees. */
static float *read_grads(const param_list *l)
{
    float *all = mem_array((size_t)l->total, sizeof *all);
    kern_do(aid_dev, read, all, l->grad, (size_t)l->total * sizeof *all);
    return all;
}

static void test_low_rank_terms_as_peft(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        aid_golden g;
        aid_lora lora;
        hone_err e = {0};
        size_t len;
        aid_golden_open(&g, cases[i]);
        model *m = open_case(cases[i], KERN_F32, false, RECOMPUTE_NONE);
        aid_lora_attach(&lora, m, &g);
        double diff = logits_diff(m, &g, aid_golden_array(&g, "lora_logits", "", &len));
        if (!(diff < 1e-4))
            fail_msg("%s: logits differ by %g", cases[i], diff);
        const model_batch b = aid_batch(&g);
        if (model_backward(m, &b, NULL, &e) != 0)
            fail_msg("%s: %s", cases[i], e.msg);
        float *grads = read_grads(&lora.params);
        for (size_t s = 0; s < 2 * model_n_sites(m); s++) {
            const char *name = model_site_at(m, s / 2)->name;
            const float *want = aid_golden_array(&g, s % 2 ? "db:" : "da:", name, &len);
            diff = aid_rel_diff(grads + lora.params.items[s].offset, want, len);
            if (!(diff < 1e-4))
                fail_msg("%s: %s of %s differs by %g", cases[i], s % 2 ? "dB" : "dA", name, diff);
        }
        free(grads);
        aid_lora_detach(&lora);
        model_close(m);
        aid_golden_close(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_as_transformers),
        cmocka_unit_test(test_gradients_of_every_weight),
        cmocka_unit_test(test_low_rank_terms_as_peft),
    };
    return cmocka_run_group_tests(tests, aid_dev_open, aid_dev_close);
}
