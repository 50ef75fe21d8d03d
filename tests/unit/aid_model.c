#include "tests/unit/aid_model.h"

#include "core/base/mem.h"
#include "tests/unit/aid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *aid_device_name(void)
{
    const char *name = getenv("HONE_TEST_DEVICE");
    return name != NULL && name[0] != '\0' ? name : "cpu";
}

kern_dev *aid_device(void)
{
    char err[256];
    kern_dev *dev;
    const kern_open_args a = {.threads = 2};
    if (kern_open(&dev, aid_device_name(), &a, err) != 0)
        fail_msg("%s", err);
    return dev;
}

kern_dev *aid_dev;

int aid_dev_open(void **state)
{
    (void)state;
    aid_dev = aid_device();
    return 0;
}

int aid_dev_close(void **state)
{
    (void)state;
    kern_close(aid_dev);
    return 0;
}

model *aid_open(kern_dev *dev, const char *dir, kern_dtype dtype, bool train_base,
                model_recompute recompute)
{
    hone_err e = {0};
    model *m;
    const model_options o = {.dev = dev,
                             .dtype = dtype,
                             .backward = true,
                             .train_base = train_base,
                             .recompute = recompute};
    if (model_open(&m, dir, &o, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static const void *array(const aid_golden *g, const char *name)
{
    const st_tensor *t = safetensors_find(g->st, name);
    assert_non_null(t);
    return t->data;
}

void aid_golden_open(aid_golden *g, const char *name)
{
    hone_err e = {0};
    char *path = mem_printf("tests/golden/model/%s/golden.st", name);
    *g = (aid_golden){0};
    if (safetensors_open(&g->st, path, &e) != 0)
        fail_msg("%s", e.msg);
    free(path);
    const st_tensor *logits = safetensors_find(g->st, "logits");
    g->n = logits->dim[0];
    g->vocab = logits->dim[1];
    g->n_seg = (int)safetensors_find(g->st, "cu")->dim[0] - 1;
    g->ids = array(g, "ids");
    g->cu = array(g, "cu");
    g->coef = array(g, "coef");
    g->logits = array(g, "logits");
    g->logp = array(g, "logp");
    g->pos = mem_array((size_t)g->n, sizeof *g->pos);
    g->target = mem_array((size_t)g->n, sizeof *g->target);
    for (int s = 0; s < g->n_seg; s++) {
        for (int32_t r = g->cu[s]; r < g->cu[s + 1]; r++) {
            g->pos[r] = r - g->cu[s];
            g->target[r] = r + 1 < g->cu[s + 1] ? g->ids[r + 1] : -1;
        }
    }
}

void aid_golden_close(aid_golden *g)
{
    safetensors_close(g->st);
    free(g->pos);
    free(g->target);
}

const float *aid_golden_array(const aid_golden *g, const char *prefix, const char *name, size_t *n)
{
    char *key = mem_printf("%s%s", prefix, name);
    const st_tensor *t = safetensors_find(g->st, key);
    free(key);
    if (t == NULL)
        return NULL;
    assert_int_equal(t->dtype, ST_F32);
    *n = t->bytes / sizeof(float);
    return t->data;
}

model_batch aid_batch(const aid_golden *g)
{
    return (model_batch){
        .n = g->n,
        .ids = g->ids,
        .pos = g->pos,
        .target = g->target,
        .coef = g->coef,
        .cu = g->cu,
        .n_seg = g->n_seg,
    };
}

static size_t declare(aid_lora *l, const model_site *s, const aid_golden *g, const char *half)
{
    size_t n = 0;
    assert_non_null(aid_golden_array(g, half, s->name, &n));
    int64_t r = (int64_t)n / (*half == 'a' ? s->in : s->out);
    return *half == 'a' ? param_list_add(&l->params, s->name, r, s->in, true, 1)
                        : param_list_add(&l->params, s->name, s->out, r, true, 1);
}

void aid_lora_attach(aid_lora *l, model *m, const aid_golden *g)
{
    size_t n = model_n_sites(m), len;
    *l = (aid_lora){.m = m, .terms = mem_array(n, sizeof *l->terms)};
    param_list_init(&l->params, model_device(m));
    for (size_t i = 0; i < n; i++) {
        declare(l, model_site_at(m, i), g, "a:");
        declare(l, model_site_at(m, i), g, "b:");
    }
    assert_int_equal(param_list_alloc(&l->params, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        const char *name = model_site_at(m, i)->name;
        param_write(&l->params, 2 * i, aid_golden_array(g, "a:", name, &len), NULL);
        param_write(&l->params, 2 * i + 1, aid_golden_array(g, "b:", name, &len), NULL);
        l->terms[i] = (kern_lora){
            .A = param_value(&l->params, 2 * i),
            .B = param_value(&l->params, 2 * i + 1),
            .dA = param_grad(&l->params, 2 * i),
            .dB = param_grad(&l->params, 2 * i + 1),
            .scale = *aid_golden_array(g, "lora_scale", "", &len),
            .stream = i,
        };
        hone_err e = {0};
        if (model_attach(m, i, &l->terms[i], &e) != 0)
            fail_msg("%s", e.msg);
    }
}

void aid_lora_detach(aid_lora *l)
{
    for (size_t i = 0; i < model_n_sites(l->m); i++)
        model_attach(l->m, i, NULL, NULL);
    param_list_free(&l->params);
    free(l->terms);
}

static int copy_row(void *user, int64_t row, const float *logprobs, int64_t vocab, hone_err *e)
{
    (void)e;
    memcpy((float *)user + row * vocab, logprobs, (size_t)vocab * sizeof(float));
    return 0;
}

float *aid_logprobs(model *m, const model_batch *b)
{
    hone_err e = {0};
    float *rows = mem_array((size_t)(b->n * model_config(m)->vocab), sizeof *rows);
    if (model_logprobs(m, b, copy_row, rows, &e) != 0)
        fail_msg("%s", e.msg);
    return rows;
}

double aid_max_diff(const float *a, const float *b, size_t n)
{
    double top = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        top = d <= top ? top : d; /* a NaN stays */
    }
    return top;
}

double aid_rel_diff(const float *a, const float *b, size_t n)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(diff) / (sqrt(norm) + 1e-30);
}
