#include "core/model/arch.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/js.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Far above any model that exists; they keep products of sizes inside int64. */
enum {
    MAX_VOCAB = 1 << 22,
    MAX_WIDTH = 1 << 20,
    MAX_LAYERS = 4096,
    MAX_HEADS = 4096,
    MAX_HEAD_DIM = 4096,
    MAX_POSITIONS = 1 << 28,
};

static int unknown_arch(const char *name, hone_err *e)
{
    buf b;
    buf_init(&b, 1 << 12);
    for (size_t i = 0; archs[i] != NULL; i++)
        buf_printf(&b, "%s%s", i ? ", " : "", archs[i]->hf_name);
    int rc = hone_fail(e, HONE_EUNSUPPORTED, "architecture '%s' is not supported (known: %s)", name,
                       b.data);
    buf_free(&b);
    return rc;
}

static int find_row(const arch **row, const json_t *config, hone_err *e)
{
    const json_t *list = json_object_get(config, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    const char *type = NULL;
    int rc = js_opt_str(config, "model_type", &type, e);
    if (rc != 0)
        return rc;
    if (name == NULL && type == NULL)
        return hone_fail(e, HONE_EFORMAT, "field 'architectures' is missing");
    for (size_t i = 0; archs[i] != NULL; i++) {
        if (strcmp(name ? name : type, name ? archs[i]->hf_name : archs[i]->model_type) == 0) {
            *row = archs[i];
            return 0;
        }
    }
    return unknown_arch(name ? name : type, e);
}

/* ---- sizes ---- */

static int in_range(const char *key, int64_t v, int64_t max, hone_err *e)
{
    if (v >= 1 && v <= max)
        return 0;
    return hone_fail(e, HONE_ELIMIT, "%s is %lld, 1 to %lld are read", key, (long long)v,
                     (long long)max);
}

static int need_size(const json_t *o, const char *key, int64_t *out, int64_t max, hone_err *e)
{
    int rc = js_get_int(o, key, out, e);
    return rc != 0 ? rc : in_range(key, *out, max, e);
}

static int need_heads(const json_t *o, const char *key, int *out, int64_t def, int64_t max,
                      hone_err *e)
{
    int64_t v = def;
    int rc = def != 0 ? js_opt_int(o, key, &v, e) : js_get_int(o, key, &v, e);
    if (rc == 0)
        rc = in_range(key, v, max, e);
    if (rc == 0)
        *out = (int)v;
    return rc;
}

static int read_sizes(arch_config *c, const json_t *o, hone_err *e)
{
    int rc;
    if ((rc = need_size(o, "vocab_size", &c->vocab, MAX_VOCAB, e)) != 0 ||
        (rc = need_size(o, "hidden_size", &c->hidden, MAX_WIDTH, e)) != 0 ||
        (rc = need_size(o, "intermediate_size", &c->inter, MAX_WIDTH, e)) != 0 ||
        (rc = need_size(o, "num_hidden_layers", &c->n_layers, MAX_LAYERS, e)) != 0 ||
        (rc = need_size(o, "max_position_embeddings", &c->max_positions, MAX_POSITIONS, e)) != 0 ||
        (rc = need_heads(o, "num_attention_heads", &c->n_q, 0, MAX_HEADS, e)) != 0 ||
        (rc = need_heads(o, "num_key_value_heads", &c->n_kv, c->n_q, MAX_HEADS, e)) != 0)
        return rc;
    if (c->n_q % c->n_kv != 0)
        return hone_fail(e, HONE_EFORMAT,
                         "num_attention_heads (%d) is not a multiple of num_key_value_heads (%d)",
                         c->n_q, c->n_kv);
    int64_t def = c->row->head_dim_default;
    const json_t *given = json_object_get(o, "head_dim");
    if ((given == NULL || json_is_null(given)) && def == 0) {
        if (c->hidden % c->n_q != 0)
            return hone_fail(e, HONE_EFORMAT,
                             "hidden_size (%lld) is not a multiple of num_attention_heads (%d), "
                             "and there is no head_dim",
                             (long long)c->hidden, c->n_q);
        def = c->hidden / c->n_q;
    }
    rc = need_heads(o, "head_dim", &c->head_dim, def ? def : 1, MAX_HEAD_DIM, e);
    if (rc == 0 && c->head_dim % 2 != 0)
        rc = hone_fail(e, HONE_EFORMAT, "head_dim (%d) is odd", c->head_dim);
    return rc;
}

/* ---- rope ---- */

static int positive(const char *key, double v, hone_err *e)
{
    if (isfinite(v) && v > 0)
        return 0;
    return hone_fail(e, HONE_EFORMAT, "%s is %g, it must be positive", key, v);
}

static int need_positive(const json_t *o, const char *key, double *out, hone_err *e)
{
    int rc = js_get_num(o, key, out, e);
    return rc != 0 ? rc : positive(key, *out, e);
}

static int read_linear(arch_config *c, const json_t *o, hone_err *e)
{
    return need_positive(o, "factor", &c->rope_factor, e);
}

static int read_llama3(arch_config *c, const json_t *o, hone_err *e)
{
    int rc;
    if ((rc = need_positive(o, "factor", &c->rope_factor, e)) != 0 ||
        (rc = need_positive(o, "low_freq_factor", &c->rope_low, e)) != 0 ||
        (rc = need_positive(o, "high_freq_factor", &c->rope_high, e)) != 0 ||
        (rc = need_size(o, "original_max_position_embeddings", &c->rope_original, MAX_POSITIONS,
                        e)) != 0)
        return rc;
    if (c->rope_high <= c->rope_low)
        return hone_fail(e, HONE_EFORMAT, "high_freq_factor (%g) is not above low_freq_factor (%g)",
                         c->rope_high, c->rope_low);
    return 0;
}

static const struct rope_row {
    const char *name;
    rope_kind kind;
    int (*read)(arch_config *c, const json_t *o, hone_err *e);
} rope_rows[] = {
    {"default", ROPE_PLAIN, NULL},
    {"linear", ROPE_LINEAR, read_linear},
    {"llama3", ROPE_LLAMA3, read_llama3},
};

static int read_rope_kind(arch_config *c, const json_t *o, hone_err *e)
{
    const char *type = "default";
    int rc = js_opt_str(o, "type", &type, e); /* the older name */
    if (rc == 0)
        rc = js_opt_str(o, "rope_type", &type, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < sizeof rope_rows / sizeof *rope_rows; i++) {
        if (strcmp(rope_rows[i].name, type) != 0)
            continue;
        c->rope = rope_rows[i].kind;
        return rope_rows[i].read == NULL ? 0 : rope_rows[i].read(c, o, e);
    }
    return hone_fail(e, HONE_EUNSUPPORTED,
                     "rope type '%s' is not supported (known: default, linear, llama3)", type);
}

static int read_rope(arch_config *c, const json_t *config, hone_err *e)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    double partial = 1;
    int rc;
    c->rope = ROPE_PLAIN;
    c->rope_theta = 10000;
    if ((rc = js_opt_num(config, "rope_theta", &c->rope_theta, e)) != 0 ||
        (rc = js_opt_num(config, "partial_rotary_factor", &partial, e)) != 0)
        return rc;
    for (size_t i = 0; i < 2; i++) {
        const json_t *o = json_object_get(config, names[i]);
        if (o == NULL || json_is_null(o))
            continue;
        if (!json_is_object(o))
            return hone_fail(e, HONE_EFORMAT, "field '%s' is not an object", names[i]);
        if ((rc = js_opt_num(o, "rope_theta", &c->rope_theta, e)) != 0 ||
            (rc = js_opt_num(o, "partial_rotary_factor", &partial, e)) != 0 ||
            (rc = read_rope_kind(c, o, e)) != 0) {
            hone_fail_at(e, "%s", names[i]);
            return rc;
        }
    }
    if (partial != 1)
        return hone_fail(e, HONE_EUNSUPPORTED, "partial_rotary_factor %g is not supported",
                         partial);
    return positive("rope_theta", c->rope_theta, e);
}

/* ---- flags ---- */

static int read_flag(bool *out, arch_flag flag, const json_t *o, const char *key, hone_err *e)
{
    *out = flag == ARCH_YES;
    return flag == ARCH_ASK ? js_opt_bool(o, key, out, e) : 0;
}

static int read_act(arch_config *c, const json_t *o, hone_err *e)
{
    static const struct {
        const char *name;
        kern_act_kind kind;
    } rows[] = {
        {"silu", KERN_SILU},          {"swish", KERN_SILU},
        {"gelu", KERN_GELU},          {"gelu_pytorch_tanh", KERN_GELU_TANH},
        {"gelu_new", KERN_GELU_TANH},
    };
    const char *name = "silu";
    int rc = js_opt_str(o, "hidden_act", &name, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            c->hidden_act = rows[i].kind;
            return 0;
        }
    }
    return hone_fail(e, HONE_EUNSUPPORTED,
                     "hidden_act '%s' is not supported (known: silu, gelu, gelu_pytorch_tanh)",
                     name);
}

/* layer_types must say what window and window_layers say: full attention first, then windows. */
static int check_layer_types(const arch_config *c, const json_t *o, hone_err *e)
{
    const json_t *list = json_object_get(o, "layer_types");
    if (list == NULL || json_is_null(list))
        return 0;
    if (!json_is_array(list) || (int64_t)json_array_size(list) != c->n_layers)
        return hone_fail(e, HONE_EFORMAT, "field 'layer_types' is not an array of %lld",
                         (long long)c->n_layers);
    for (int64_t i = 0; i < c->n_layers; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        const char *want = arch_window(c, i) != 0 ? "sliding_attention" : "full_attention";
        if (type == NULL || strcmp(type, want) != 0)
            return hone_fail(e, HONE_EUNSUPPORTED, "layer_types: layer %lld is '%s', not '%s'",
                             (long long)i, type ? type : "?", want);
    }
    return 0;
}

static int read_window(arch_config *c, const json_t *o, hone_err *e)
{
    bool used;
    int64_t window = c->row->window_default, from = 0;
    int rc = read_flag(&used, c->row->window, o, "use_sliding_window", e);
    if (rc != 0)
        return rc;
    const json_t *given = json_object_get(o, "sliding_window");
    if (given != NULL && json_is_null(given))
        used = false;
    if ((rc = js_opt_int(o, "sliding_window", &window, e)) != 0)
        return rc;
    if (c->row->window == ARCH_ASK) {
        from = 28; /* transformers' default */
        if ((rc = js_opt_int(o, "max_window_layers", &from, e)) != 0)
            return rc;
    }
    if (used && (rc = in_range("sliding_window", window, MAX_POSITIONS, e)) != 0)
        return rc;
    if (used && from < 0)
        return hone_fail(e, HONE_EFORMAT, "max_window_layers is %lld", (long long)from);
    c->window = used ? window : 0;
    c->window_layers = used ? from : 0;
    return check_layer_types(c, o, e);
}

static int read_flags(arch_config *c, const json_t *o, hone_err *e)
{
    const arch *row = c->row;
    double dropout = 0;
    int rc;
    c->qk_norm = row->qk_norm;
    if ((rc = read_flag(&c->qkv_bias, row->qkv_bias, o, "attention_bias", e)) != 0 ||
        (rc = read_flag(&c->o_bias, row->o_bias, o, "attention_bias", e)) != 0 ||
        (rc = read_flag(&c->mlp_bias, row->mlp_bias, o, "mlp_bias", e)) != 0 ||
        (rc = js_opt_bool(o, "tie_word_embeddings", &c->tied, e)) != 0 ||
        (rc = js_opt_num(o, "attention_dropout", &dropout, e)) != 0)
        return rc;
    if (dropout != 0)
        return hone_fail(e, HONE_EUNSUPPORTED, "attention_dropout %g is not supported", dropout);
    const json_t *quant = json_object_get(o, "quantization_config");
    if (quant != NULL && !json_is_null(quant))
        return hone_fail(e, HONE_EUNSUPPORTED,
                         "quantization_config: quantised checkpoints are not supported");
    return 0;
}

int arch_read(arch_config *out, const json_t *config, hone_err *e)
{
    int rc;
    arch_config c = {.init_range = 0.02};
    *out = c;
    if (!json_is_object(config))
        return hone_fail(e, HONE_EFORMAT, "is not an object");
    if ((rc = find_row(&c.row, config, e)) != 0 || (rc = read_sizes(&c, config, e)) != 0 ||
        (rc = read_rope(&c, config, e)) != 0 || (rc = read_act(&c, config, e)) != 0 ||
        (rc = read_flags(&c, config, e)) != 0 || (rc = read_window(&c, config, e)) != 0)
        return rc;
    double eps = 0;
    if ((rc = need_positive(config, "rms_norm_eps", &eps, e)) != 0 ||
        (rc = js_opt_num(config, "initializer_range", &c.init_range, e)) != 0 ||
        (rc = positive("initializer_range", c.init_range, e)) != 0)
        return rc;
    c.norm_eps = (float)eps;
    *out = c;
    return 0;
}

int arch_load(arch_config *out, const char *dir, hone_err *e)
{
    json_t *config = NULL;
    char *path = path_join(dir, "config.json");
    int rc = js_load(&config, path, e);
    if (rc == 0 && (rc = arch_read(out, config, e)) != 0)
        hone_fail_at(e, "%s", path);
    json_decref(config);
    free(path);
    return rc;
}

int64_t arch_window(const arch_config *c, int64_t layer)
{
    return c->window != 0 && layer >= c->window_layers ? c->window : 0;
}
