#include "core/model/model.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/model_int.h"

#include <stdlib.h>
#include <string.h>

int model_failed(const model *m, int rc, const char *what, hone_err *e)
{
    return rc == 0 ? 0 : hone_fail(e, rc, "%s: %s", what, m->dev->err);
}

/* ---- open and close ---- */

static int check_options(const model_options *o, hone_err *e)
{
    if (o->dtype != KERN_F32 && o->dtype != KERN_BF16)
        return hone_fail(e, HONE_EINVAL, "a model computes in f32 or bf16, not in %s",
                         kern_dtype_name(o->dtype));
    if (o->train_base && !o->backward)
        return hone_fail(e, HONE_EINVAL, "training the base needs the backward pass");
    return 0;
}

/* A model without values yet; takes the reference to config. */
static int begin(model **out, json_t *config, const model_options *o, hone_err *e)
{
    model *m = mem_alloc(sizeof *m);
    m->config = config;
    m->opt = *o;
    m->dev = o->dev;
    param_list_init(&m->params, m->dev);
    int rc = check_options(o, e);
    if (rc == 0 && (rc = arch_read(&m->cfg, config, e)) != 0)
        hone_fail_at(e, "config.json");
    if (rc == 0)
        weights_list(m);
    *out = m;
    return rc;
}

static int load(model *m, const weight_source *src, hone_err *e)
{
    size_t before = m->dev->mem_used;
    int rc = weights_load(m, src, e);
    m->weight_bytes = m->dev->mem_used - before;
    for (size_t i = 0; i < m->n_weights; i++)
        m->weights[i].stored = NULL;
    return rc;
}

int model_open(model **out, const char *dir, const model_options *o, hone_err *e)
{
    model *m = NULL;
    json_t *config = NULL;
    safetensors *st = NULL;
    *out = NULL;
    char *path = path_join(dir, "config.json");
    int rc = js_load(&config, path, e);
    free(path);
    if (rc != 0)
        return rc;
    if ((rc = begin(&m, config, o, e)) != 0)
        goto fail;
    if ((rc = safetensors_open(&st, dir, e)) != 0)
        goto done;
    weight_source src = {.st = st};
    if ((rc = weights_bind(m, st, e)) == 0 && (rc = load(m, &src, e)) == 0) {
        *out = m;
        m = NULL;
        goto done;
    }
fail:
    hone_fail_at(e, "%s", dir);
done:
    safetensors_close(st);
    model_close(m);
    return rc;
}

int model_create(model **out, const json_t *config, uint64_t seed, const model_options *o,
                 hone_err *e)
{
    model *m = NULL;
    int64_t pad = -1;
    *out = NULL;
    int rc = begin(&m, json_deep_copy(config), o, e);
    if (rc == 0)
        rc = js_opt_int(config, "pad_token_id", &pad, e);
    weight_source src = {.seed = seed, .std = m->cfg.init_range, .pad_row = pad};
    if (rc == 0)
        rc = load(m, &src, e);
    if (rc != 0)
        model_close(m);
    else
        *out = m;
    return rc;
}

void model_close(model *m)
{
    if (m == NULL)
        return;
    record_drop(m);
    acts_free(m);
    upload_free(&m->upload, m->dev);
    kern_do(m->dev, release, m->logits.data);
    rope_free(&m->rope, m->dev);
    weights_free(m);
    param_list_free(&m->params);
    json_decref(m->config);
    free(m);
}

const arch_config *model_config(const model *m)
{
    return &m->cfg;
}

kern_dev *model_device(const model *m)
{
    return m->dev;
}

int64_t model_n_params(const model *m)
{
    int64_t n = 0;
    for (size_t i = 0; i < m->n_weights; i++)
        n += m->weights[i].rows * m->weights[i].cols;
    return n;
}

/* ---- sites ---- */

size_t model_n_sites(const model *m)
{
    return m->n_sites;
}

const model_site *model_site_at(const model *m, size_t i)
{
    return i < m->n_sites ? &m->sites[i] : NULL;
}

static bool is_f32(const kern_tensor *t, int64_t rows, int64_t cols)
{
    return t->data != NULL && t->dtype == KERN_F32 && t->rows == rows && t->cols == cols;
}

int model_attach(model *m, size_t site, kern_lora *l, hone_err *e)
{
    if (site >= m->n_sites)
        return hone_fail(e, HONE_EINVAL, "site %zu of %zu", site, m->n_sites);
    model_site *s = &m->sites[site];
    if (l != NULL) {
        int64_t r = l->A.rows;
        bool trained = l->dA.data != NULL;
        if (r < 1 || !is_f32(&l->A, r, s->in) || !is_f32(&l->B, s->out, r))
            return hone_fail(e, HONE_EINVAL,
                             "%s: a term of A [%lld, %lld] and B [%lld, %lld] does not fit a "
                             "product of [%lld, %lld]",
                             s->name, (long long)l->A.rows, (long long)l->A.cols,
                             (long long)l->B.rows, (long long)l->B.cols, (long long)s->out,
                             (long long)s->in);
        if (trained != (l->dB.data != NULL) ||
            (trained && (!is_f32(&l->dA, r, s->in) || !is_f32(&l->dB, s->out, r))))
            return hone_fail(e, HONE_EINVAL, "%s: gradients of a term have another shape", s->name);
    }
    record_drop(m);
    s->lora = l;
    return 0;
}

/* ---- parameters ---- */

param_list *model_params(model *m)
{
    return &m->params;
}

int model_refresh(model *m, hone_err *e)
{
    if (!m->opt.train_base)
        return hone_fail(e, HONE_EINVAL, "the base of this model is frozen");
    return weights_refresh(m, e);
}

/* ---- memory ---- */

model_plan model_plan_for(const model *m, int64_t n)
{
    size_t params = (size_t)m->params.total * 2 * sizeof(float);
    return (model_plan){
        .weights = m->weight_bytes - params,
        .parameters = params,
        .activations = acts_bytes(m, n),
        .logits = (size_t)m->logits.rows * (size_t)m->cfg.vocab * sizeof(float),
        .kv = m->kv_bytes,
    };
}

int model_reserve(model *m, int64_t n_max, hone_err *e)
{
    if (n_max < 1)
        return hone_fail(e, HONE_EINVAL, "a plan for %lld tokens", (long long)n_max);
    m->acts.fixed = true;
    int rc = acts_make(m, n_max, e);
    return rc == 0 ? model_positions(m, n_max, e) : rc;
}

void model_recompute_set(model *m, model_recompute r)
{
    if (m->opt.recompute == r)
        return;
    record_drop(m);
    acts_free(m);
    m->opt.recompute = r;
}

int model_positions(model *m, int64_t n, hone_err *e)
{
    if (n > m->rope.n)
        record_drop(m);
    return rope_reserve(&m->rope, m->dev, &m->cfg, n, e);
}

int model_ensure(model *m, int64_t n, hone_err *e)
{
    const acts *a = &m->acts;
    bool wide = true;
    for (int g = 0; g < N_GROUPS; g++)
        for (int64_t l = 0; l < m->cfg.n_layers; l++)
            wide = wide && product_rank(&m->layers[l].group[g]) <= a->rank[g];
    if (n <= a->n_max && wide)
        return 0;
    if (a->fixed && a->n_max > 0 && n > a->n_max)
        return hone_fail(e, HONE_ELIMIT, "a batch of %lld tokens, the plan has room for %lld",
                         (long long)n, (long long)a->n_max);
    return acts_make(m, n > a->n_max ? n : a->n_max, e);
}
