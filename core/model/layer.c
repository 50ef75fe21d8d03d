#include "core/model/layer.h"

#include <math.h>

static const kern_tensor none = {0};

/* What the steps of one layer share. */
typedef struct step {
    model *m;
    const pass *p;
    const layer *layer;
    layer_acts a;
    int64_t index;
} step;

static step step_of(model *m, int64_t l, const pass *p)
{
    return (step){
        .m = m,
        .p = p,
        .layer = &m->layers[l],
        .a = acts_layer(m, l, p->n, p->keep),
        .index = l,
    };
}

static kern_linear linear_of(const step *s, int g, kern_tensor x, kern_tensor y)
{
    const product *p = &s->layer->group[g];
    kern_linear k = {
        .w = p->w,
        .x = x,
        .y = y,
        .xa = s->a.xa[g],
        .training = s->p->training,
        .rng = s->p->rng,
    };
    for (int i = 0; i < p->n_parts; i++)
        k.lora[i] = p->site[i]->lora;
    return k;
}

static int run_product(const step *s, int g, kern_tensor x, kern_tensor y, hone_err *e)
{
    kern_linear k = linear_of(s, g, x, y);
    return model_failed(s->m, kern_do(s->m->dev, linear, &k), s->layer->group[g].matrix[0]->name,
                        e);
}

static int run_norm(const step *s, int vec, kern_tensor x, kern_tensor add, kern_tensor res,
                    kern_tensor y, kern_tensor rstd, hone_err *e)
{
    const weight *w = s->layer->vec[vec];
    kern_norm k = {
        .x = x,
        .add = add,
        .weight = w->value,
        .eps = s->m->cfg.norm_eps,
        .res = res,
        .y = y,
        .rstd = rstd,
    };
    return model_failed(s->m, kern_do(s->m->dev, norm, &k), w->name, e);
}

/* ---- attention ---- */

/* Where q, k and v stand: before norm and rope in qkv; after, in qk when it is there, else in
 * place. */
static kern_qk qk_of(const step *s)
{
    const arch_config *c = &s->m->cfg;
    int64_t q = (int64_t)c->n_q * c->head_dim, kv = (int64_t)c->n_kv * c->head_dim;
    const layer_acts *a = &s->a;
    const weight *qn = s->layer->vec[VEC_Q_NORM], *kn = s->layer->vec[VEC_K_NORM];
    bool apart = s->p->keep && qn != NULL; /* the backward pass needs q and k before their norm */
    kern_qk k = {
        .q = kern_cols(&a->qkv, 0, q),
        .k = kern_cols(&a->qkv, q, kv),
        .v = kern_cols(&a->qkv, q + kv, kv),
        .n_q = c->n_q,
        .n_kv = c->n_kv,
        .d = c->head_dim,
        .q_norm = qn != NULL ? qn->value : none,
        .k_norm = kn != NULL ? kn->value : none,
        .eps = c->norm_eps,
        .pos = s->p->pos,
        .cos = s->m->rope.cos,
        .sin = s->m->rope.sin,
        .kv = s->p->kv,
        .layer = (int)s->index,
        .slot = s->p->slot,
    };
    k.q_out = apart ? kern_cols(&a->qk, 0, q) : k.q;
    k.k_out = apart ? kern_cols(&a->qk, q, kv) : k.k;
    return k;
}

static kern_attn attn_of(const step *s, const kern_qk *qk)
{
    return (kern_attn){
        .q = qk->q_out,
        .k = qk->k_out,
        .v = qk->v,
        .n_q = qk->n_q,
        .n_kv = qk->n_kv,
        .d = qk->d,
        .cu = s->p->cu,
        .n_seg = s->p->n_seg,
        .max_len = s->p->max_len,
        .scale = 1.0F / sqrtf((float)qk->d),
        .window = arch_window(&s->m->cfg, s->index),
        .out = s->a.attn,
        .lse = s->p->keep ? s->a.lse : none,
    };
}

static int attend_paged(const step *s, const kern_qk *qk, hone_err *e)
{
    const pass *p = s->p;
    kern_paged k = {
        .q = qk->q_out,
        .n_q = qk->n_q,
        .n_kv = qk->n_kv,
        .d = qk->d,
        .kv = p->kv,
        .layer = (int)s->index,
        .n_seq = p->n_seq,
        .q_start = p->q_start,
        .kv_len = p->kv_len,
        .blocks = p->blocks,
        .max_blocks = p->max_blocks,
        .scale = 1.0F / sqrtf((float)qk->d),
        .window = arch_window(&s->m->cfg, s->index),
        .out = s->a.attn,
    };
    return model_failed(s->m, kern_do(s->m->dev, paged, &k), "paged attention", e);
}

static int attend(const step *s, hone_err *e)
{
    kern_qk qk = qk_of(s);
    int rc = model_failed(s->m, kern_do(s->m->dev, qk, &qk), "rope", e);
    if (rc != 0 || s->p->kv != NULL)
        return rc != 0 ? rc : attend_paged(s, &qk, e);
    kern_attn k = attn_of(s, &qk);
    return model_failed(s->m, kern_do(s->m->dev, attn, &k), "attention", e);
}

/* ---- forward ---- */

static int gate(const step *s, hone_err *e)
{
    kern_act k = {.kind = s->m->cfg.hidden_act, .gu = s->a.gu, .h = s->a.h};
    return model_failed(s->m, kern_do(s->m->dev, act, &k), "gated activation", e);
}

/* From the normed input n1 to the gated activation. */
static int run_to_gate(const step *s, hone_err *e)
{
    const layer_acts *a = &s->a;
    kern_tensor mix = acts_rows(&s->m->acts.mix, s->p->n);
    int rc;
    if ((rc = run_product(s, GROUP_QKV, a->n1, a->qkv, e)) != 0 || (rc = attend(s, e)) != 0 ||
        (rc = run_product(s, GROUP_O, a->attn, mix, e)) != 0 ||
        (rc = run_norm(s, VEC_MLP_NORM, a->res1, mix, a->res2, a->n2, a->rstd2, e)) != 0 ||
        (rc = run_product(s, GROUP_GU, a->n2, a->gu, e)) != 0)
        return rc;
    return gate(s, e);
}

int layer_forward(model *m, int64_t l, const pass *p, kern_tensor x, kern_tensor add, hone_err *e)
{
    step s = step_of(m, l, p);
    const layer_acts *a = &s.a;
    kern_tensor res = add.data != NULL ? a->res1 : none;
    int rc = run_norm(&s, VEC_ATTN_NORM, x, add, res, a->n1, a->rstd1, e);
    if (rc == 0)
        rc = run_to_gate(&s, e);
    return rc != 0 ? rc : run_product(&s, GROUP_DOWN, a->h, acts_rows(&m->acts.mix, p->n), e);
}

/* The layer again from its input. Its last product is needed only for what its low-rank term leaves
 * in xa. */
static int run_again(const step *s, hone_err *e)
{
    const layer_acts *a = &s->a;
    int rc = run_norm(s, VEC_ATTN_NORM, a->res1, none, none, a->n1, a->rstd1, e);
    if (rc == 0)
        rc = run_to_gate(s, e);
    if (rc != 0 || product_rank(&s->layer->group[GROUP_DOWN]) == 0)
        return rc;
    return run_product(s, GROUP_DOWN, a->h, acts_rows(&s->m->acts.mix, s->p->n), e);
}

/* ---- backward ---- */

/* Whether a product has a gradient of its own to give, so that its input is needed. */
static bool trains(const model *m, const product *p)
{
    bool any = m->opt.train_base;
    for (int i = 0; i < p->n_parts; i++)
        any = any || (p->site[i]->lora != NULL && p->site[i]->lora->dA.data != NULL);
    return any;
}

int64_t layer_floor(const model *m)
{
    if (m->opt.train_base)
        return -1;
    for (int64_t l = 0; l < m->cfg.n_layers; l++)
        for (int g = 0; g < N_GROUPS; g++)
            if (trains(m, &m->layers[l].group[g]))
                return l * N_GROUPS + g;
    return INT64_MAX;
}

static bool above_floor(const step *s, int g)
{
    return s->index * N_GROUPS + g > s->p->floor;
}

static kern_tensor gradient_of(const model *m, const weight *w)
{
    return w != NULL && w->param >= 0 ? param_grad(&m->params, (size_t)w->param) : none;
}

/* dx is left alone at the floor. */
static int product_grad(const step *s, int g, kern_tensor x, kern_tensor dy, kern_tensor dx,
                        hone_err *e)
{
    const product *p = &s->layer->group[g];
    kern_linear_grad k = {
        .f = linear_of(s, g, x, none),
        .dy = dy,
        .dx = above_floor(s, g) ? dx : none,
    };
    for (int i = 0; i < p->n_parts; i++) {
        k.dw[i] = gradient_of(s->m, p->matrix[i]);
        k.db[i] = gradient_of(s->m, p->bias[i]);
    }
    return model_failed(s->m, kern_do(s->m->dev, linear_grad, &k), p->matrix[0]->name, e);
}

static int norm_grad(const step *s, int vec, kern_tensor dy, kern_tensor res, kern_tensor rstd,
                     hone_err *e)
{
    const weight *w = s->layer->vec[vec];
    kern_tensor d = acts_rows(&s->m->acts.d, s->p->n);
    kern_norm_grad k = {
        .dy = dy,
        .res = res,
        .weight = w->value,
        .rstd = rstd,
        .dres = d,
        .dx = d,
        .dweight = gradient_of(s->m, w),
    };
    return model_failed(s->m, kern_do(s->m->dev, norm_grad, &k), w->name, e);
}

/* Under RECOMPUTE_SELECTIVE the normed values are gone; the norm of the kept stream gives the same
 * bits. */
static int normed_again(const step *s, int g, int vec, kern_tensor res, kern_tensor y,
                        kern_tensor rstd, hone_err *e)
{
    if (s->m->opt.recompute != RECOMPUTE_SELECTIVE || !trains(s->m, &s->layer->group[g]))
        return 0;
    return run_norm(s, vec, res, none, none, y, rstd, e);
}

static int down_grad(const step *s, hone_err *e)
{
    const layer_acts *a = &s->a;
    const acts *b = &s->m->acts;
    kern_tensor dh = acts_rows(&b->dh, s->p->n);
    int rc = 0;
    if (s->m->opt.recompute == RECOMPUTE_SELECTIVE && trains(s->m, &s->layer->group[GROUP_DOWN]))
        rc = gate(s, e);
    if (rc == 0)
        rc = product_grad(s, GROUP_DOWN, a->h, acts_rows(&b->d, s->p->n), dh, e);
    if (rc != 0 || !above_floor(s, GROUP_DOWN))
        return rc;
    kern_act_grad k = {
        .f = {.kind = s->m->cfg.hidden_act, .gu = a->gu},
        .dh = dh,
        .dgu = a->gu,
    };
    return model_failed(s->m, kern_do(s->m->dev, act_grad, &k), "gated activation", e);
}

static int gu_grad(const step *s, hone_err *e)
{
    const layer_acts *a = &s->a;
    kern_tensor dn = acts_rows(&s->m->acts.dn, s->p->n);
    int rc = normed_again(s, GROUP_GU, VEC_MLP_NORM, a->res2, a->n2, a->rstd2, e);
    if (rc == 0)
        rc = product_grad(s, GROUP_GU, a->n2, a->gu, dn, e);
    if (rc != 0 || !above_floor(s, GROUP_GU))
        return rc;
    return norm_grad(s, VEC_MLP_NORM, dn, a->res2, a->rstd2, e);
}

static int attention_grad(const step *s, hone_err *e)
{
    kern_qk qk = qk_of(s);
    kern_tensor dqkv = acts_rows(&s->m->acts.dqkv, s->p->n);
    kern_attn_grad k = {
        .f = attn_of(s, &qk),
        .dout = acts_rows(&s->m->acts.dattn, s->p->n),
        .dq = kern_cols(&dqkv, 0, qk.q.cols),
        .dk = kern_cols(&dqkv, qk.q.cols, qk.k.cols),
        .dv = kern_cols(&dqkv, qk.q.cols + qk.k.cols, qk.v.cols),
    };
    int rc = model_failed(s->m, kern_do(s->m->dev, attn_grad, &k), "attention", e);
    kern_qk_grad r = {
        .f = qk,
        .dq = k.dq,
        .dk = k.dk,
        .dq_norm = gradient_of(s->m, s->layer->vec[VEC_Q_NORM]),
        .dk_norm = gradient_of(s->m, s->layer->vec[VEC_K_NORM]),
    };
    return rc != 0 ? rc : model_failed(s->m, kern_do(s->m->dev, qk_grad, &r), "rope", e);
}

static int o_grad(const step *s, hone_err *e)
{
    const acts *b = &s->m->acts;
    kern_tensor d = acts_rows(&b->d, s->p->n), dattn = acts_rows(&b->dattn, s->p->n);
    int rc = product_grad(s, GROUP_O, s->a.attn, d, dattn, e);
    return rc != 0 || !above_floor(s, GROUP_O) ? rc : attention_grad(s, e);
}

static int qkv_grad(const step *s, hone_err *e)
{
    const layer_acts *a = &s->a;
    const acts *b = &s->m->acts;
    kern_tensor dn = acts_rows(&b->dn, s->p->n);
    int rc = normed_again(s, GROUP_QKV, VEC_ATTN_NORM, a->res1, a->n1, a->rstd1, e);
    if (rc == 0)
        rc = product_grad(s, GROUP_QKV, a->n1, acts_rows(&b->dqkv, s->p->n), dn, e);
    if (rc != 0 || !above_floor(s, GROUP_QKV))
        return rc;
    return norm_grad(s, VEC_ATTN_NORM, dn, a->res1, a->rstd1, e);
}

int layer_backward(model *m, int64_t l, const pass *p, hone_err *e)
{
    static int (*const grads[])(const step *s, hone_err *e) = {
        [GROUP_DOWN] = down_grad,
        [GROUP_GU] = gu_grad,
        [GROUP_O] = o_grad,
        [GROUP_QKV] = qkv_grad,
    };
    step s = step_of(m, l, p);
    int rc = m->opt.recompute == RECOMPUTE_FULL ? run_again(&s, e) : 0;
    for (int g = N_GROUPS - 1; g >= 0 && rc == 0 && l * N_GROUPS + g >= p->floor; g--)
        rc = grads[g](&s, e);
    return rc;
}
