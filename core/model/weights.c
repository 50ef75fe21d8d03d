#include "core/model/weights.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/model/model_int.h"
#include "core/model/stdtype.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEND_CHUNK = 1 << 20 }; /* elements converted at a time; a multiple of 4 */

typedef enum { DIM_ONE, DIM_HIDDEN, DIM_Q, DIM_KV, DIM_HEAD, DIM_INTER, DIM_VOCAB } dim_kind;
typedef enum { ALWAYS, QKV_BIAS, O_BIAS, MLP_BIAS, QK_NORM, UNTIED } condition;
typedef enum { EMBED, MATRIX, BIAS, NORM, FINAL_NORM, HEAD } weight_place;

struct weight_row {
    const char *name; /* of a layer's: what follows "model.layers.N." */
    dim_kind rows, cols;
    condition when;
    weight_place place;
    int index, part; /* GROUP_* and part in it, or VEC_* */
};

/* clang-format off */
static const weight_row embed_row =
    {"model.embed_tokens.weight",       DIM_VOCAB,  DIM_HIDDEN, ALWAYS,   EMBED,      0,              0};

static const weight_row layer_rows[] = {
    {"input_layernorm.weight",          DIM_ONE,    DIM_HIDDEN, ALWAYS,   NORM,       VEC_ATTN_NORM,  0},
    {"self_attn.q_proj.weight",         DIM_Q,      DIM_HIDDEN, ALWAYS,   MATRIX,     GROUP_QKV,      0},
    {"self_attn.q_proj.bias",           DIM_ONE,    DIM_Q,      QKV_BIAS, BIAS,       GROUP_QKV,      0},
    {"self_attn.k_proj.weight",         DIM_KV,     DIM_HIDDEN, ALWAYS,   MATRIX,     GROUP_QKV,      1},
    {"self_attn.k_proj.bias",           DIM_ONE,    DIM_KV,     QKV_BIAS, BIAS,       GROUP_QKV,      1},
    {"self_attn.v_proj.weight",         DIM_KV,     DIM_HIDDEN, ALWAYS,   MATRIX,     GROUP_QKV,      2},
    {"self_attn.v_proj.bias",           DIM_ONE,    DIM_KV,     QKV_BIAS, BIAS,       GROUP_QKV,      2},
    {"self_attn.q_norm.weight",         DIM_ONE,    DIM_HEAD,   QK_NORM,  NORM,       VEC_Q_NORM,     0},
    {"self_attn.k_norm.weight",         DIM_ONE,    DIM_HEAD,   QK_NORM,  NORM,       VEC_K_NORM,     0},
    {"self_attn.o_proj.weight",         DIM_HIDDEN, DIM_Q,      ALWAYS,   MATRIX,     GROUP_O,        0},
    {"self_attn.o_proj.bias",           DIM_ONE,    DIM_HIDDEN, O_BIAS,   BIAS,       GROUP_O,        0},
    {"post_attention_layernorm.weight", DIM_ONE,    DIM_HIDDEN, ALWAYS,   NORM,       VEC_MLP_NORM,   0},
    {"mlp.gate_proj.weight",            DIM_INTER,  DIM_HIDDEN, ALWAYS,   MATRIX,     GROUP_GU,       0},
    {"mlp.gate_proj.bias",              DIM_ONE,    DIM_INTER,  MLP_BIAS, BIAS,       GROUP_GU,       0},
    {"mlp.up_proj.weight",              DIM_INTER,  DIM_HIDDEN, ALWAYS,   MATRIX,     GROUP_GU,       1},
    {"mlp.up_proj.bias",                DIM_ONE,    DIM_INTER,  MLP_BIAS, BIAS,       GROUP_GU,       1},
    {"mlp.down_proj.weight",            DIM_HIDDEN, DIM_INTER,  ALWAYS,   MATRIX,     GROUP_DOWN,     0},
    {"mlp.down_proj.bias",              DIM_ONE,    DIM_HIDDEN, MLP_BIAS, BIAS,       GROUP_DOWN,     0},
};

static const weight_row last_rows[] = {
    {"model.norm.weight",               DIM_ONE,    DIM_HIDDEN, ALWAYS,   FINAL_NORM, 0,              0},
    {"lm_head.weight",                  DIM_VOCAB,  DIM_HIDDEN, UNTIED,   HEAD,       0,              0},
};
/* clang-format on */

enum {
    N_LAYER_ROWS = sizeof layer_rows / sizeof *layer_rows,
    N_LAST_ROWS = sizeof last_rows / sizeof *last_rows,
    SITES_PER_LAYER = 7,
};

static const char HEAD_NAME[] = "lm_head.weight";

static int64_t dim_of(const arch_config *c, dim_kind k)
{
    const int64_t dims[] = {
        [DIM_ONE] = 1,
        [DIM_HIDDEN] = c->hidden,
        [DIM_Q] = (int64_t)c->n_q * c->head_dim,
        [DIM_KV] = (int64_t)c->n_kv * c->head_dim,
        [DIM_HEAD] = c->head_dim,
        [DIM_INTER] = c->inter,
        [DIM_VOCAB] = c->vocab,
    };
    return dims[k];
}

static bool holds(const arch_config *c, condition when)
{
    const bool holds[] = {
        [ALWAYS] = true,          [QKV_BIAS] = c->qkv_bias, [O_BIAS] = c->o_bias,
        [MLP_BIAS] = c->mlp_bias, [QK_NORM] = c->qk_norm,   [UNTIED] = !c->tied,
    };
    return holds[when];
}

/* ---- the list ---- */

static void hang_matrix(struct model *m, const weight *w)
{
    product *p = &m->layers[w->layer].group[w->row->index];
    model_site *site = &m->sites[m->n_sites++];
    *site = (model_site){
        .name = mem_strndup(w->name, strlen(w->name) - strlen(".weight")),
        .in = w->cols,
        .out = w->rows,
    };
    p->matrix[w->row->part] = w;
    p->site[w->row->part] = site;
    p->n_parts++;
    p->in = w->cols;
    p->out += w->rows;
}

static void hang_head(struct model *m, const weight *w)
{
    m->head = (product){.n_parts = 1, .in = w->cols, .out = w->rows, .matrix = {w}};
}

static void hang(struct model *m, const weight *w)
{
    switch (w->row->place) {
    case EMBED:
        m->embed = w;
        hang_head(m, w); /* replaced when the head has a matrix of its own */
        break;
    case MATRIX:
        hang_matrix(m, w);
        break;
    case BIAS:
        m->layers[w->layer].group[w->row->index].bias[w->row->part] = w;
        break;
    case NORM:
        m->layers[w->layer].vec[w->row->index] = w;
        break;
    case FINAL_NORM:
        m->final_norm = w;
        break;
    case HEAD:
        hang_head(m, w);
        break;
    }
}

static void list_row(struct model *m, const weight_row *row, int64_t l)
{
    if (!holds(&m->cfg, row->when))
        return;
    weight *w = &m->weights[m->n_weights++];
    *w = (weight){
        .row = row,
        .layer = l,
        .rows = dim_of(&m->cfg, row->rows),
        .cols = dim_of(&m->cfg, row->cols),
        .param = -1,
    };
    w->name =
        l < 0 ? mem_strdup(row->name) : mem_printf("model.layers.%lld.%s", (long long)l, row->name);
    hang(m, w);
}

void weights_list(struct model *m)
{
    size_t n_layers = (size_t)m->cfg.n_layers;
    m->layers = mem_array(n_layers, sizeof *m->layers);
    m->sites = mem_array(n_layers * SITES_PER_LAYER, sizeof *m->sites);
    m->weights = mem_array(1 + n_layers * N_LAYER_ROWS + N_LAST_ROWS, sizeof *m->weights);
    list_row(m, &embed_row, -1);
    for (int64_t l = 0; l < m->cfg.n_layers; l++)
        for (size_t i = 0; i < N_LAYER_ROWS; i++)
            list_row(m, &layer_rows[i], l);
    for (size_t i = 0; i < N_LAST_ROWS; i++)
        list_row(m, &last_rows[i], -1);
}

void weights_free(struct model *m)
{
    for (size_t i = 0; i < m->n_weights; i++) {
        if (m->weights[i].param < 0 || m->weights[i].value.dtype != KERN_F32)
            kern_do(m->dev, release, m->weights[i].value.data);
        free(m->weights[i].name);
    }
    for (size_t i = 0; i < m->n_sites; i++)
        free((char *)m->sites[i].name);
    for (int64_t l = 0; m->layers != NULL && l < m->cfg.n_layers; l++)
        for (int g = 0; g < N_GROUPS; g++)
            kern_do(m->dev, weight_free, m->layers[l].group[g].w);
    kern_do(m->dev, weight_free, m->head.w);
    free(m->weights);
    free(m->sites);
    free(m->layers);
}

/* ---- binding ---- */

static void shape_text(char *dst, size_t cap, const int64_t *dim, int n)
{
    size_t at = 0;
    dst[0] = '\0';
    for (int i = 0; i < n && at < cap; i++)
        at += (size_t)snprintf(dst + at, cap - at, "%s%lld", i ? ", " : "", (long long)dim[i]);
}

int weight_dims(const weight *w, int64_t dim[2])
{
    int n = 0;
    if (w->row->rows != DIM_ONE)
        dim[n++] = w->rows;
    dim[n++] = w->cols;
    return n;
}

static int check_tensor(const weight *w, const st_tensor *t, hone_err *e)
{
    char has[200], needs[64];
    int64_t dim[2];
    int n = weight_dims(w, dim);
    if (t->n_dims != n || memcmp(t->dim, dim, (size_t)n * sizeof *dim) != 0) {
        shape_text(has, sizeof has, t->dim, t->n_dims);
        shape_text(needs, sizeof needs, dim, n);
        return hone_fail(e, HONE_EFORMAT, "tensor '%s' has shape [%s], config.json calls for [%s]",
                         w->name, has, needs);
    }
    if (t->dtype != ST_F32 && t->dtype != ST_F16 && t->dtype != ST_BF16)
        return hone_fail(e, HONE_EUNSUPPORTED,
                         "tensor '%s' is stored as %s; weights are F32, F16 or BF16", w->name,
                         st_dtype_name(t->dtype));
    return 0;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

/* Old files carry rope's buffers, and some writers store a tied head beside the embedding: the same
 * bytes twice are let be, other bytes would be a head that is lost. */
static bool may_be_left(const struct model *m, const st_tensor *t)
{
    if (ends_with(t->name, ".rotary_emb.inv_freq"))
        return true;
    const st_tensor *embed = m->embed->stored;
    return m->cfg.tied && strcmp(t->name, HEAD_NAME) == 0 && t->dtype == embed->dtype &&
           t->bytes == embed->bytes && memcmp(t->data, embed->data, t->bytes) == 0;
}

static int by_stored(const void *a, const void *b)
{
    const st_tensor *x = *(const st_tensor *const *)a, *y = *(const st_tensor *const *)b;
    return (x > y) - (x < y);
}

static int check_left_over(const struct model *m, const safetensors *st, hone_err *e)
{
    int rc = 0;
    size_t n = safetensors_count(st), next = 0;
    const st_tensor **used = mem_array(m->n_weights, sizeof(st_tensor *));
    for (size_t i = 0; i < m->n_weights; i++)
        used[i] = m->weights[i].stored;
    qsort(used, m->n_weights, sizeof *used, by_stored);
    for (size_t i = 0; i < n && rc == 0; i++) {
        const st_tensor *t = safetensors_at(st, i);
        if (next < m->n_weights && used[next] == t)
            next++;
        else if (!may_be_left(m, t))
            rc = hone_fail(e, HONE_EFORMAT, "tensor '%s' belongs to nothing in a %s%s", t->name,
                           m->cfg.row->hf_name,
                           strcmp(t->name, HEAD_NAME) == 0
                               ? " with tie_word_embeddings (it differs from the embedding)"
                               : "");
    }
    free(used);
    return rc;
}

int weights_bind(struct model *m, const safetensors *st, hone_err *e)
{
    for (size_t i = 0; i < m->n_weights; i++) {
        weight *w = &m->weights[i];
        w->stored = safetensors_find(st, w->name);
        if (w->stored == NULL)
            return hone_fail(e, HONE_EFORMAT, "tensor '%s' is missing", w->name);
        int rc = check_tensor(w, w->stored, e);
        if (rc != 0)
            return rc;
    }
    return check_left_over(m, st, e);
}

/* ---- values ---- */

/* Four normal numbers from one turn of the generator (Box-Muller). */
static void normal4(float v[4], const weight_source *src, uint64_t stream, uint64_t index)
{
    uint32_t r[4];
    rng_philox(r, src->seed, stream, index);
    for (int k = 0; k < 4; k += 2) {
        float u = (float)((r[k] >> 8) + 1) * 0x1p-24F;
        float angle = (float)(r[k + 1] >> 8) * 0x1p-24F * 6.28318530718F;
        float radius = sqrtf(-2.0F * logf(u)) * (float)src->std;
        v[k] = radius * cosf(angle);
        v[k + 1] = radius * sinf(angle);
    }
}

/* Element i is a function of (seed, name, i) alone. start is a multiple of 4. */
static void random_normal(float *dst, const weight *w, const weight_source *src, int64_t start,
                          int64_t n)
{
    uint64_t stream = rng_stream(w->name);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += 4) {
        float v[4];
        normal4(v, src, stream, (uint64_t)(start + i) / 4);
        memcpy(dst + i, v, (size_t)(n - i < 4 ? n - i : 4) * sizeof *v);
    }
    if (w->row->place != EMBED || src->pad_row < 0)
        return;
    int64_t from = src->pad_row * w->cols - start, to = from + w->cols;
    for (int64_t i = from < 0 ? 0 : from; i < to && i < n; i++)
        dst[i] = 0;
}

/* Elements [start, start + n) of a weight in F32. */
static int read_values(float *dst, const weight *w, const weight_source *src, int64_t start,
                       int64_t n, hone_err *e)
{
    if (src->st != NULL) {
        st_tensor part = *w->stored;
        part.n_dims = 1;
        part.dim[0] = n;
        part.data = (const char *)part.data + (size_t)start * st_dtype_size(part.dtype);
        part.bytes = (size_t)n * st_dtype_size(part.dtype);
        return st_to_f32(dst, &part, e);
    }
    bool norm = w->row->place == NORM || w->row->place == FINAL_NORM;
    if (!norm && w->row->place != BIAS)
        random_normal(dst, w, src, start, n);
    for (int64_t i = 0; i < n && (norm || w->row->place == BIAS); i++)
        dst[i] = norm ? 1.0F : 0.0F;
    return 0;
}

/* Converts a weight into device memory, a chunk at a time. */
static int send_weight(const struct model *m, kern_tensor dst, const weight *w,
                       const weight_source *src, hone_err *e)
{
    int rc = 0;
    int64_t total = w->rows * w->cols;
    size_t size = kern_dtype_size(dst.dtype);
    size_t chunk = (size_t)(total < SEND_CHUNK ? total : SEND_CHUNK);
    float *wide = mem_array(chunk, sizeof *wide);
    void *stored = mem_array(chunk, size);
    for (int64_t at = 0; at < total && rc == 0; at += SEND_CHUNK) {
        int64_t n = total - at < SEND_CHUNK ? total - at : SEND_CHUNK;
        rc = read_values(wide, w, src, at, n, e);
        if (rc == 0)
            rc = st_from_f32(stored, dst.dtype == KERN_F32 ? ST_F32 : ST_BF16, wide, n, e);
        if (rc == 0)
            rc = model_failed(m,
                              kern_do(m->dev, write, (char *)dst.data + (size_t)at * size, stored,
                                      (size_t)n * size),
                              w->name, e);
    }
    free(wide);
    free(stored);
    return rc;
}

/* A matrix or bias on the host as weight_new takes it. */
typedef struct host_weight {
    kern_tensor t;
    void *owned;
} host_weight;

static int fetch(host_weight *h, const weight *w, const weight_source *src, hone_err *e)
{
    static const kern_dtype dtypes[] = {
        [ST_F32] = KERN_F32, [ST_F16] = KERN_F16, [ST_BF16] = KERN_BF16};
    size_t n = (size_t)(w->rows * w->cols);
    *h = (host_weight){0};
    if (src->st == NULL) {
        h->owned = mem_try_array(n, sizeof(float));
        if (h->owned == NULL)
            return hone_fail(e, HONE_ENOMEM, "tensor '%s': no memory for %zu values", w->name, n);
        h->t = kern_mat(KERN_F32, w->rows, w->cols, h->owned);
        return read_values(h->owned, w, src, 0, (int64_t)n, e);
    }
    const st_tensor *t = w->stored;
    h->t = kern_mat(dtypes[t->dtype], w->rows, w->cols, (void *)t->data);
    if ((uintptr_t)t->data % st_dtype_size(t->dtype) == 0)
        return 0;
    h->owned = mem_try(t->bytes);
    if (h->owned == NULL)
        return hone_fail(e, HONE_ENOMEM, "tensor '%s': no memory for %zu bytes", w->name, t->bytes);
    memcpy(h->owned, t->data, t->bytes);
    h->t.data = h->owned;
    return 0;
}

static int load_product(struct model *m, product *p, const weight_source *src, hone_err *e)
{
    host_weight part[KERN_MAX_PARTS] = {0}, bias[KERN_MAX_PARTS] = {0};
    kern_weight_desc desc = {
        .n_parts = p->n_parts,
        .compute = m->opt.dtype,
        .need_dx = m->opt.backward,
        .trainable = m->opt.train_base,
    };
    int rc = 0;
    for (int i = 0; i < p->n_parts && rc == 0; i++) {
        rc = fetch(&part[i], p->matrix[i], src, e);
        if (rc == 0 && p->bias[i] != NULL)
            rc = fetch(&bias[i], p->bias[i], src, e);
        desc.part[i] = part[i].t;
        desc.bias[i] = bias[i].t;
    }
    kern_weight_new_args args = {.desc = &desc, .out = &p->w};
    if (rc == 0)
        rc = model_failed(m, kern_do(m->dev, weight_new, &args), p->matrix[0]->name, e);
    for (int i = 0; i < p->n_parts; i++) {
        free(part[i].owned);
        free(bias[i].owned);
    }
    return rc;
}

/* Norms are read in F32, the embedding table in the dtype of the activations. A parameter is read
 * where it lies. */
static int load_value(struct model *m, weight *w, const weight_source *src, hone_err *e)
{
    void *data = NULL;
    kern_dtype t = w->row->place == EMBED ? m->opt.dtype : KERN_F32;
    if (w->param >= 0 && t == KERN_F32) {
        w->value = param_value(&m->params, (size_t)w->param);
        return 0;
    }
    size_t bytes = (size_t)(w->rows * w->cols) * kern_dtype_size(t);
    int rc = model_failed(m, kern_do(m->dev, alloc, bytes, &data), w->name, e);
    if (rc != 0)
        return rc;
    w->value = kern_mat(t, w->rows, w->cols, data);
    return send_weight(m, w->value, w, src, e);
}

static int load_params(struct model *m, const weight_source *src, hone_err *e)
{
    for (size_t i = 0; i < m->n_weights; i++) {
        weight *w = &m->weights[i];
        weight_place place = w->row->place;
        bool decay = place == EMBED || place == MATRIX || place == HEAD;
        w->param = (int64_t)param_list_add(&m->params, w->name, w->rows, w->cols, decay, 1.0F);
    }
    int rc = param_list_alloc(&m->params, e);
    for (size_t i = 0; i < m->n_weights && rc == 0; i++)
        rc = send_weight(m, param_value(&m->params, i), &m->weights[i], src, e);
    return rc;
}

int weights_load(struct model *m, const weight_source *src, hone_err *e)
{
    int rc = m->opt.train_base ? load_params(m, src, e) : 0;
    for (size_t i = 0; i < m->n_weights && rc == 0; i++) {
        weight_place place = m->weights[i].row->place;
        if (place == EMBED || place == NORM || place == FINAL_NORM)
            rc = load_value(m, &m->weights[i], src, e);
    }
    for (int64_t l = 0; l < m->cfg.n_layers && rc == 0; l++)
        for (int g = 0; g < N_GROUPS && rc == 0; g++)
            rc = load_product(m, &m->layers[l].group[g], src, e);
    return rc == 0 ? load_product(m, &m->head, src, e) : rc;
}

static int refresh_product(const struct model *m, const product *p, hone_err *e)
{
    int rc = 0;
    for (int i = 0; i < p->n_parts && rc == 0; i++) {
        kern_weight_update_args a = {.w = p->w, .part = i};
        a.src = param_value(&m->params, (size_t)p->matrix[i]->param);
        if (p->bias[i] != NULL)
            a.bias = param_value(&m->params, (size_t)p->bias[i]->param);
        rc = model_failed(m, kern_do(m->dev, weight_update, &a), p->matrix[i]->name, e);
    }
    return rc;
}

int weights_refresh(struct model *m, hone_err *e)
{
    int rc = 0;
    if (m->embed->value.dtype != KERN_F32) {
        kern_tensor src = param_value(&m->params, (size_t)m->embed->param);
        rc = model_failed(m, kern_do(m->dev, copy, &src, &m->embed->value), m->embed->name, e);
    }
    for (int64_t l = 0; l < m->cfg.n_layers && rc == 0; l++)
        for (int g = 0; g < N_GROUPS && rc == 0; g++)
            rc = refresh_product(m, &m->layers[l].group[g], e);
    return rc == 0 ? refresh_product(m, &m->head, e) : rc;
}
