/* A real pretrained checkpoint, in each of its forms, against a reference in float64. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_model.h"

#include <math.h>
#include <stdlib.h>

static const struct {
    const char *dir;
    double tolerance; /* of a loss and of a logit; the bf16 file holds rounded weights */
    int wrong;        /* of 200 greedy steps may choose another token */
} forms[] = {
    {"data/checkpoints/stories260k-f32", 1e-4, 0},
    {"data/checkpoints/stories260k-f32-sharded", 1e-4, 0},
    {"data/checkpoints/stories260k-bf16", 0.15, 2},
};

static json_t *reference(const char *name)
{
    hone_err e = {0};
    json_t *o;
    char *part = mem_printf("data/checkpoints/stories260k-reference/%s", name);
    char *path = aid_shared(part);
    free(part);
    if (path == NULL)
        return NULL;
    if (js_load(&o, path, &e) != 0)
        fail_msg("%s", e.msg);
    free(path);
    return o;
}

/* The batch of one text; arrays are the caller's. */
static model_batch one_text(const int32_t *ids, int64_t n, int32_t *pos, int32_t *target,
                            int32_t cu[2])
{
    for (int64_t i = 0; i < n; i++) {
        pos[i] = (int32_t)i;
        target[i] = i + 1 < n ? ids[i + 1] : -1;
    }
    cu[0] = 0;
    cu[1] = (int32_t)n;
    return (model_batch){.n = n, .ids = ids, .pos = pos, .target = target, .cu = cu, .n_seg = 1};
}

static double worst_loss(model *m, const json_t *texts)
{
    double worst = 0;
    for (size_t t = 0; t < json_array_size(texts); t++) {
        const json_t *ids = json_object_get(json_array_get(texts, t), "ids");
        const json_t *nll = json_object_get(json_array_get(texts, t), "nll");
        int32_t id[512], pos[512], target[512], cu[2];
        float logp[512];
        size_t n = json_array_size(ids);
        for (size_t i = 0; i < n; i++)
            id[i] = (int32_t)json_integer_value(json_array_get(ids, i));
        const model_batch b = one_text(id, (int64_t)n, pos, target, cu);
        assert_int_equal(model_score(m, &b, logp, NULL), 0);
        for (size_t i = 0; i < json_array_size(nll); i++) {
            double d = fabs(-(double)logp[i] - json_number_value(json_array_get(nll, i)));
            worst = d <= worst ? worst : d;
        }
    }
    return worst;
}

/* One row of the reference: the top five logits, with logsumexp, as log-probabilities. */
typedef struct greedy {
    const json_t *steps;
    double worst;
    int wrong; /* steps whose most likely token is another */
} greedy;

static int compare_row(void *user, int64_t row, const float *logprobs, int64_t vocab, hone_err *e)
{
    greedy *g = user;
    const json_t *step = json_array_get(g->steps, (size_t)row);
    const json_t *top = json_object_get(step, "top5");
    double sum = json_number_value(json_object_get(step, "logsumexp"));
    int64_t best = 0;
    (void)e;
    for (size_t i = 0; i < json_array_size(top); i++) {
        const json_t *pair = json_array_get(top, i);
        int64_t id = json_integer_value(json_array_get(pair, 0));
        double want = json_number_value(json_array_get(pair, 1)) - sum;
        double d = fabs(logprobs[id] - want);
        g->worst = d <= g->worst ? g->worst : d;
    }
    for (int64_t i = 1; i < vocab; i++)
        best = logprobs[i] > logprobs[best] ? i : best;
    g->wrong += best != json_integer_value(json_object_get(step, "next"));
    return 0;
}

static void check_greedy(model *m, const json_t *steps, size_t form)
{
    int32_t id[512], pos[512], target[512], cu[2];
    size_t n = json_array_size(steps);
    greedy g = {.steps = steps};
    for (size_t i = 0; i < n; i++)
        id[i] = (int32_t)json_integer_value(json_object_get(json_array_get(steps, i), "in"));
    const model_batch b = one_text(id, (int64_t)n, pos, target, cu);
    assert_int_equal(model_logprobs(m, &b, compare_row, &g, NULL), 0);
    if (!(g.worst < forms[form].tolerance) || g.wrong > forms[form].wrong)
        fail_msg("%s: logits differ by %g, %d of %zu steps choose another token", forms[form].dir,
                 g.worst, g.wrong, n);
}

static void test_every_form_matches_the_reference(void **state)
{
    (void)state;
    json_t *texts = reference("nll.json"), *run = reference("greedy200.json");
    if (texts == NULL || run == NULL)
        skip();
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char *dir = aid_shared(forms[i].dir);
        assert_non_null(dir);
        model *m = aid_open(aid_dev, dir, KERN_F32, false, RECOMPUTE_NONE);
        assert_int_equal(model_n_params(m), 260032);
        double worst = worst_loss(m, texts);
        if (!(worst < forms[i].tolerance))
            fail_msg("%s: losses differ by %g", dir, worst);
        check_greedy(m, json_object_get(run, "greedy"), i);
        model_close(m);
        free(dir);
    }
    json_decref(texts);
    json_decref(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_form_matches_the_reference)};
    return cmocka_run_group_tests(tests, aid_dev_open, aid_dev_close);
}
