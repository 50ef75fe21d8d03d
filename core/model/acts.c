#include "core/model/acts.h"

#include "core/base/mem.h"
#include "core/model/model_int.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256 };

typedef enum { W_ONE, W_HIDDEN, W_Q, W_QK, W_QKV, W_HEADS, W_INTER, W_GU, W_RANK } width_kind;

/* One buffer: where its tensor stands in layer_acts or acts, its width, and the recomputation up to
 * which each layer keeps its own. */
typedef struct act_row {
    size_t offset;
    width_kind width;
    bool wide; /* F32 whatever the activations are */
    model_recompute kept;
    int group; /* of W_RANK */
} act_row;

/* clang-format off */
#define L(field) offsetof(layer_acts, field)
static const act_row layer_table[] = {
    {L(res1),  W_HIDDEN, false, RECOMPUTE_FULL,      0},
    {L(n1),    W_HIDDEN, false, RECOMPUTE_NONE,      0},
    {L(rstd1), W_ONE,    true,  RECOMPUTE_SELECTIVE, 0},
    {L(qkv),   W_QKV,    false, RECOMPUTE_SELECTIVE, 0},
    {L(qk),    W_QK,     false, RECOMPUTE_SELECTIVE, 0},
    {L(attn),  W_Q,      false, RECOMPUTE_SELECTIVE, 0},
    {L(lse),   W_HEADS,  true,  RECOMPUTE_SELECTIVE, 0},
    {L(res2),  W_HIDDEN, false, RECOMPUTE_SELECTIVE, 0},
    {L(n2),    W_HIDDEN, false, RECOMPUTE_NONE,      0},
    {L(rstd2), W_ONE,    true,  RECOMPUTE_SELECTIVE, 0},
    {L(gu),    W_GU,     false, RECOMPUTE_SELECTIVE, 0},
    {L(h),     W_INTER,  false, RECOMPUTE_NONE,      0},
    {L(xa[GROUP_QKV]),  W_RANK, true, RECOMPUTE_SELECTIVE, GROUP_QKV},
    {L(xa[GROUP_O]),    W_RANK, true, RECOMPUTE_SELECTIVE, GROUP_O},
    {L(xa[GROUP_GU]),   W_RANK, true, RECOMPUTE_SELECTIVE, GROUP_GU},
    {L(xa[GROUP_DOWN]), W_RANK, true, RECOMPUTE_SELECTIVE, GROUP_DOWN},
};
#undef L
#define A(field) offsetof(acts, field)
static const act_row forward_table[] = {
    {A(mix),  W_HIDDEN, false, 0, 0},
    {A(res),  W_HIDDEN, false, 0, 0},
    {A(y),    W_HIDDEN, false, 0, 0},
    {A(rstd), W_ONE,    true,  0, 0},
    {A(logp), W_ONE,    true,  0, 0},
};
static const act_row backward_table[] = {
    {A(d),     W_HIDDEN, false, 0, 0},
    {A(dn),    W_HIDDEN, false, 0, 0},
    {A(dqkv),  W_QKV,    false, 0, 0},
    {A(dattn), W_Q,      false, 0, 0},
    {A(dh),    W_INTER,  false, 0, 0},
};
#undef A
/* clang-format on */
#define LENGTH(a) (sizeof(a) / sizeof *(a))

int64_t product_rank(const product *p)
{
    int64_t rank = 0;
    for (int i = 0; i < p->n_parts; i++)
        if (p->site[i] != NULL && p->site[i]->lora != NULL)
            rank += p->site[i]->lora->A.rows;
    return rank;
}

static int64_t widest_rank(const struct model *m, int group)
{
    int64_t widest = 0;
    for (int64_t l = 0; l < m->cfg.n_layers; l++) {
        int64_t rank = product_rank(&m->layers[l].group[group]);
        widest = rank > widest ? rank : widest;
    }
    return widest;
}

static int64_t width_of(const struct model *m, const act_row *row)
{
    const arch_config *c = &m->cfg;
    int64_t d = c->head_dim, q = c->n_q * d, kv = c->n_kv * d;
    const int64_t widths[] = {
        [W_ONE] = 1,
        [W_HIDDEN] = c->hidden,
        [W_Q] = q,
        [W_QKV] = q + 2 * kv,
        [W_HEADS] = c->n_q,
        [W_INTER] = c->inter,
        [W_GU] = 2 * c->inter,
        [W_QK] = c->qk_norm ? q + kv : 0,
        [W_RANK] = 0,
    };
    return row->width == W_RANK ? widest_rank(m, row->group) : widths[row->width];
}

/* Takes the next piece of the block. With base NULL it only counts. */
static void place(const struct model *m, const act_row *row, void *owner, char *base, size_t *at,
                  int64_t n)
{
    kern_dtype t = row->wide ? KERN_F32 : m->opt.dtype;
    int64_t width = width_of(m, row);
    size_t bytes = (size_t)n * (size_t)width * kern_dtype_size(t);
    if (base != NULL && width > 0)
        *(kern_tensor *)((char *)owner + row->offset) = kern_mat(t, n, width, base + *at);
    *at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static void place_layer(const struct model *m, layer_acts *a, char *base, size_t *at, int64_t n)
{
    for (size_t i = 0; i < LENGTH(layer_table); i++) {
        const act_row *row = &layer_table[i];
        if (m->opt.recompute <= row->kept)
            place(m, row, a, base, at, n);
        else if (base != NULL)
            *(kern_tensor *)((char *)a + row->offset) =
                *(const kern_tensor *)((const char *)&m->acts.shared + row->offset);
    }
}

/* Lays everything out; the bytes that it takes. */
static size_t lay_out(const struct model *m, acts *a, char *base, int64_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < LENGTH(layer_table); i++)
        place(m, &layer_table[i], &a->shared, base, &at, n);
    for (size_t i = 0; i < LENGTH(forward_table); i++)
        place(m, &forward_table[i], a, base, &at, n);
    if (!m->opt.backward)
        return at;
    for (size_t i = 0; i < LENGTH(backward_table); i++)
        place(m, &backward_table[i], a, base, &at, n);
    for (int64_t l = 0; l < m->cfg.n_layers; l++)
        place_layer(m, base != NULL ? &a->layer[l] : NULL, base, &at, n);
    return at;
}

size_t acts_bytes(const struct model *m, int64_t n)
{
    acts scratch = {0};
    return lay_out(m, &scratch, NULL, n);
}

int acts_make(struct model *m, int64_t n, hone_err *e)
{
    void *block = NULL;
    record_drop(m);
    acts_free(m);
    size_t bytes = acts_bytes(m, n);
    int rc = kern_do(m->dev, alloc, bytes, &block);
    if (rc != 0)
        return hone_fail(e, rc, "activations of %lld tokens need %zu bytes: %s", (long long)n,
                         bytes, m->dev->err);
    acts *a = &m->acts;
    a->block = block;
    if (m->opt.backward)
        a->layer = mem_array((size_t)m->cfg.n_layers, sizeof *a->layer);
    lay_out(m, a, block, n);
    for (int g = 0; g < N_GROUPS; g++)
        a->rank[g] = widest_rank(m, g);
    a->n_max = n;
    return 0;
}

void acts_free(struct model *m)
{
    bool fixed = m->acts.fixed;
    kern_do(m->dev, release, m->acts.block);
    free(m->acts.layer);
    m->acts = (acts){.fixed = fixed};
}

kern_tensor acts_rows(const kern_tensor *t, int64_t n)
{
    kern_tensor v = *t;
    v.rows = n;
    return v;
}

layer_acts acts_layer(const struct model *m, int64_t l, int64_t n, bool keep)
{
    layer_acts a = keep ? m->acts.layer[l] : m->acts.shared;
    for (size_t i = 0; i < LENGTH(layer_table); i++)
        ((kern_tensor *)((char *)&a + layer_table[i].offset))->rows = n;
    for (int g = 0; g < N_GROUPS; g++) /* this layer's own ranks may be narrower */
        a.xa[g].cols = product_rank(&m->layers[l].group[g]);
    return a;
}

/* ---- host arrays to the device ---- */

size_t upload_add(acts_upload *u, const void *data, size_t bytes)
{
    if (data == NULL)
        return SIZE_MAX;
    size_t ticket = (u->len + ALIGN - 1) / ALIGN * ALIGN;
    u->host = mem_grow(u->host, &u->host_cap, ticket + bytes, 1);
    memcpy(u->host + ticket, data, bytes);
    u->len = ticket + bytes;
    return ticket;
}

int upload_send(acts_upload *u, struct model *m, hone_err *e)
{
    kern_dev *dev = m->dev;
    int rc = 0;
    if (u->len > u->device_cap) {
        void *p = NULL;
        record_drop(m);
        kern_do(dev, release, u->device);
        u->device = NULL;
        u->device_cap = 0;
        rc = kern_do(dev, alloc, u->host_cap, &p);
        if (rc == 0) {
            u->device = p;
            u->device_cap = u->host_cap;
        }
    }
    if (rc == 0)
        rc = kern_do(dev, write, u->device, u->host, u->len);
    u->len = 0;
    return rc == 0 ? 0 : hone_fail(e, rc, "sending a batch: %s", dev->err);
}

const void *upload_at(const acts_upload *u, size_t ticket)
{
    return ticket == SIZE_MAX ? NULL : u->device + ticket;
}

void upload_free(acts_upload *u, kern_dev *dev)
{
    kern_do(dev, release, u->device);
    free(u->host);
    *u = (acts_upload){0};
}
