#include "adapters/lora_int.h"

#include "adapters/target.h"
#include "core/base/mem.h"
#include "core/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

adapter *lora_make(model *m, size_t n_pairs)
{
    adapter *a = mem_alloc(sizeof *a);
    a->m = m;
    a->n_pairs = n_pairs;
    a->pairs = mem_array(n_pairs, sizeof *a->pairs);
    param_list_init(&a->params, model_device(m));
    return a;
}

void lora_declare(adapter *a, size_t i, size_t site, int64_t r, double alpha, float b_lr_scale)
{
    const model_site *s = model_site_at(a->m, site);
    char *name_a = mem_printf("base_model.model.%s.lora_A.weight", s->name);
    char *name_b = mem_printf("base_model.model.%s.lora_B.weight", s->name);
    lora_pair *p = &a->pairs[i];
    p->site = site;
    p->alpha = alpha;
    p->a = param_list_add(&a->params, name_a, r, s->in, true, 1.0F);
    p->b = param_list_add(&a->params, name_b, s->out, r, true, b_lr_scale);
    free(name_a);
    free(name_b);
}

static kern_tensor no_gradient(kern_tensor t)
{
    t.data = NULL;
    return t;
}

int lora_commit(adapter *a, hone_err *e)
{
    int rc = param_list_alloc(&a->params, e);
    for (size_t i = 0; rc == 0 && i < a->n_pairs; i++) {
        lora_pair *p = &a->pairs[i];
        kern_tensor dA = param_grad(&a->params, p->a), dB = param_grad(&a->params, p->b);
        double rank = (double)a->params.items[p->a].rows;
        p->term = (kern_lora){
            .A = param_value(&a->params, p->a),
            .B = param_value(&a->params, p->b),
            .dA = a->train ? dA : no_gradient(dA),
            .dB = a->train ? dB : no_gradient(dB),
            .scale = (float)(p->alpha / (a->rslora ? sqrt(rank) : rank)),
            .dropout = (float)a->dropout,
            .stream = rng_stream(model_site_at(a->m, p->site)->name),
        };
        rc = model_attach(a->m, p->site, &p->term, e);
    }
    return rc;
}

/* A uniform in +-1/sqrt(in): what kaiming_uniform with a = sqrt(5) comes to. B stays zero. */
static int init_pair(adapter *a, const lora_pair *p, uint64_t seed, hone_err *e)
{
    const param *pa = &a->params.items[p->a];
    size_t n = (size_t)(pa->rows * pa->cols);
    float *host = mem_try_array(n, sizeof *host);
    if (host == NULL)
        return hone_fail(e, HONE_ENOMEM, "%s: no memory for %zu values", pa->name, n);
    float bound = 1.0F / sqrtf((float)pa->cols);
    rng r = {.seed = seed, .stream = rng_stream(pa->name)};
    for (size_t i = 0; i < n; i++)
        host[i] = (2.0F * rng_uniform(&r) - 1.0F) * bound;
    int rc = param_write(&a->params, p->a, host, e);
    free(host);
    return rc;
}

static int check_spec(const lora_spec *s, hone_err *e)
{
    if (s->r < 1 || s->r > LORA_MAX_RANK)
        return hone_fail(e, HONE_EINVAL, "LoRA rank %lld, must lie between 1 and %d",
                         (long long)s->r, LORA_MAX_RANK);
    if (!(s->alpha > 0) || !isfinite(s->alpha))
        return hone_fail(e, HONE_EINVAL, "LoRA alpha %g, must be above 0", s->alpha);
    if (!(s->dropout >= 0 && s->dropout < 1))
        return hone_fail(e, HONE_EINVAL, "LoRA dropout %g, must lie in [0, 1)", s->dropout);
    return 0;
}

/* Every name that was asked for must match at least one site. */
static int check_targets(const json_t *targets, const model *m, hone_err *e)
{
    for (size_t i = 0; i < json_array_size(targets); i++) {
        json_t *one = json_pack("[O]", json_array_get(targets, i));
        bool any = false;
        int rc = 0;
        for (size_t s = 0; rc == 0 && !any && s < model_n_sites(m); s++)
            rc = target_match(one, model_site_at(m, s)->name, &any, e);
        json_decref(one);
        if (rc != 0)
            return rc;
        if (!any)
            return hone_fail(e, HONE_EINVAL,
                             "LoRA target '%s' matches no linear layer; this model has names such "
                             "as '%s' (or use all-linear)",
                             json_string_value(json_array_get(targets, i)),
                             model_n_sites(m) != 0 ? model_site_at(m, 0)->name : "none");
    }
    return 0;
}

static int choose_sites(size_t **out, size_t *n, const json_t *targets, const model *m, hone_err *e)
{
    *n = 0;
    *out = mem_array(model_n_sites(m), sizeof **out);
    for (size_t s = 0; s < model_n_sites(m); s++) {
        bool matches = false;
        int rc = target_match(targets, model_site_at(m, s)->name, &matches, e);
        if (rc != 0)
            return rc;
        if (matches)
            (*out)[(*n)++] = s;
    }
    return 0;
}

int adapter_new(adapter **out, model *m, const lora_spec *spec, hone_err *e)
{
    size_t *sites = NULL, n = 0;
    adapter *a = NULL;
    *out = NULL;
    int rc = check_spec(spec, e);
    if (rc == 0)
        rc = check_targets(spec->targets, m, e);
    if (rc == 0)
        rc = choose_sites(&sites, &n, spec->targets, m, e);
    if (rc != 0)
        goto fail;
    a = lora_make(m, n);
    a->r = spec->r;
    a->alpha = spec->alpha;
    a->dropout = spec->dropout;
    a->rslora = spec->rslora;
    a->train = true;
    float b_scale = spec->loraplus_ratio > 0 ? (float)spec->loraplus_ratio : 1.0F;
    for (size_t i = 0; i < n; i++)
        lora_declare(a, i, sites[i], spec->r, spec->alpha, b_scale);
    rc = lora_commit(a, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = init_pair(a, &a->pairs[i], spec->seed, e);
    if (rc != 0)
        goto fail;
    free(sites);
    *out = a;
    return 0;
fail:
    free(sites);
    adapter_close(a);
    return rc;
}

void adapter_close(adapter *a)
{
    if (a == NULL)
        return;
    for (size_t i = 0; i < a->n_pairs; i++) {
        const kern_lora *term = &a->pairs[i].term;
        if (term->A.data != NULL && model_site_at(a->m, a->pairs[i].site)->lora == term)
            model_attach(a->m, a->pairs[i].site, NULL, NULL);
    }
    param_list_free(&a->params);
    free(a->pairs);
    free(a);
}

param_list *adapter_params(adapter *a)
{
    return &a->params;
}

double adapter_dropout(const adapter *a)
{
    return a->dropout;
}

int adapter_pairs(const adapter *a, adapter_pair_fn *fn, void *user, hone_err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < a->n_pairs; i++) {
        const lora_pair *p = &a->pairs[i];
        const model_site *s = model_site_at(a->m, p->site);
        int64_t r = a->params.items[p->a].rows;
        float *A = mem_try_array((size_t)(r * s->in), sizeof *A);
        float *B = mem_try_array((size_t)(r * s->out), sizeof *B);
        if (A == NULL || B == NULL)
            rc = hone_fail(e, HONE_ENOMEM, "%s: no memory for its pair", s->name);
        if (rc == 0)
            rc = param_read(&a->params, p->a, A, e);
        if (rc == 0)
            rc = param_read(&a->params, p->b, B, e);
        if (rc == 0)
            rc = fn(user, s->name, r, s->in, s->out, A, B, p->term.scale, e);
        free(A);
        free(B);
    }
    return rc;
}
