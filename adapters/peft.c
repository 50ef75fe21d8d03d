/* The PEFT directory: adapter_config.json and adapter_model.safetensors, as PEFT 0.6 and later
 * write them. Only what changes no number is let be; everything else that this program does not
 * compute is refused by name. */
#include "adapters/lora_int.h"
#include "adapters/target.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/safetensors.h"
#include "core/model/stdtype.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "base_model.model."

/* ---- reading the configuration ---- */

typedef struct config {
    json_t *json;
    int64_t r;
    double alpha, dropout;
    bool rslora;
    json_t *targets; /* in target.h's form; new reference */
} config;

static bool is_plain(const json_t *v)
{
    return v == NULL || json_is_null(v) || json_is_false(v) ||
           ((json_is_array(v) || json_is_object(v)) &&
            json_array_size(v) + json_object_size(v) == 0);
}

/* Fields that we read, or that say how an adapter was begun and change no number any more. Any
 * other that is set might change the numbers: refused, also when it is newer than this program. */
static bool is_known(const char *field)
{
    static const char *const known[] = {"peft_type",
                                        "task_type",
                                        "auto_mapping",
                                        "base_model_name_or_path",
                                        "revision",
                                        "inference_mode",
                                        "r",
                                        "target_modules",
                                        "exclude_modules",
                                        "lora_alpha",
                                        "lora_dropout",
                                        "bias",
                                        "use_rslora",
                                        "init_lora_weights",
                                        "layers_to_transform",
                                        "layers_pattern",
                                        "rank_pattern",
                                        "alpha_pattern",
                                        "megatron_core",
                                        "peft_version",
                                        "qalora_group_size",
                                        "loftq_config",
                                        "eva_config",
                                        "corda_config",
                                        "lora_ga_config",
                                        "ensure_weight_tying",
                                        NULL};
    for (size_t i = 0; known[i] != NULL; i++)
        if (strcmp(known[i], field) == 0)
            return true;
    return false;
}

static int refuse_unsupported(const json_t *c, hone_err *e)
{
    const char *field;
    json_t *v;
    json_object_foreach ((json_t *)c, field, v) {
        if (!is_known(field) && !is_plain(v))
            return hone_fail(e, HONE_EUNSUPPORTED, "'%s' is not supported", field);
    }
    const char *type = "LORA", *bias = "none";
    int rc = js_get_str(c, "peft_type", &type, e);
    if (rc == 0)
        rc = js_opt_str(c, "bias", &bias, e);
    if (rc != 0)
        return rc;
    if (strcmp(type, "LORA") != 0)
        return hone_fail(e, HONE_EUNSUPPORTED, "peft_type '%s' is not supported (LORA is)", type);
    if (strcmp(bias, "none") != 0)
        return hone_fail(e, HONE_EUNSUPPORTED, "bias '%s' is not supported (none is)", bias);
    const char *init = json_string_value(json_object_get(c, "init_lora_weights"));
    if (init != NULL && strcmp(init, "gaussian") != 0 && strcmp(init, "eva") != 0 &&
        strcmp(init, "orthogonal") != 0)
        return hone_fail(e, HONE_EUNSUPPORTED,
                         "init_lora_weights '%s' changes the base weights; convert the adapter to "
                         "plain LoRA with PEFT first",
                         init);
    return 0;
}

static int read_targets(config *c, hone_err *e)
{
    json_t *v = json_object_get(c->json, "target_modules");
    if (json_is_array(v)) {
        c->targets = json_incref(v);
    } else if (json_is_string(v)) {
        const char *s = json_string_value(v);
        bool all = strcmp(s, "all-linear") == 0;
        char *entry = mem_printf("%s%s", all ? "" : "regex:", s);
        c->targets = json_pack("[s]", entry);
        free(entry);
    } else {
        return hone_fail(e, HONE_EFORMAT, "field 'target_modules' is missing");
    }
    return 0;
}

/* A rank and a scale that a pair may have, whether for all or by a pattern. */
static int check_pair(const char *where, double r, double alpha, hone_err *e)
{
    if (!(r >= 1 && r <= LORA_MAX_RANK) || r != floor(r))
        return hone_fail(e, HONE_EFORMAT, "%s: rank %g, a whole number from 1 to %d is taken",
                         where, r, LORA_MAX_RANK);
    if (!isfinite((float)alpha))
        return hone_fail(e, HONE_EFORMAT, "%s: lora_alpha %g is beyond what F32 holds", where,
                         alpha);
    return 0;
}

static int check_numbers(const config *c, hone_err *e)
{
    const json_t *layers = json_object_get(c->json, "layers_to_transform"), *v;
    size_t i;
    if (!(c->dropout >= 0 && c->dropout < 1))
        return hone_fail(e, HONE_EFORMAT, "lora_dropout %g, must lie in [0, 1)", c->dropout);
    if (layers != NULL && !json_is_null(layers) && !json_is_integer(layers) &&
        !json_is_array(layers))
        return hone_fail(e, HONE_EFORMAT, "field 'layers_to_transform' is no number and no list");
    json_array_foreach (layers, i, v) {
        if (!json_is_integer(v))
            return hone_fail(e, HONE_EFORMAT,
                             "field 'layers_to_transform' holds something that is no whole number");
    }
    return check_pair("adapter", (double)c->r, c->alpha, e);
}

static int config_read(config *c, const char *dir, hone_err *e)
{
    char *path = path_join(dir, "adapter_config.json");
    *c = (config){.r = 8, .alpha = 8};
    int rc = js_load(&c->json, path, e);
    if (rc == 0) {
        rc = refuse_unsupported(c->json, e);
        if (rc == 0)
            rc = js_opt_int(c->json, "r", &c->r, e);
        if (rc == 0)
            rc = js_opt_num(c->json, "lora_alpha", &c->alpha, e);
        if (rc == 0)
            rc = js_opt_num(c->json, "lora_dropout", &c->dropout, e);
        if (rc == 0)
            rc = js_opt_bool(c->json, "use_rslora", &c->rslora, e);
        if (rc == 0)
            rc = check_numbers(c, e);
        if (rc == 0)
            rc = read_targets(c, e);
        if (rc != 0)
            hone_fail_at(e, "%s", path);
    }
    free(path);
    return rc;
}

static void config_free(config *c)
{
    json_decref(c->json);
    json_decref(c->targets);
}

/* ---- binding tensors to sites ---- */

static char *pair_name(const char *site, char half)
{
    return mem_printf(PREFIX "%s.lora_%c.weight", site, half);
}

/* Is the layer of this site among layers_to_transform (absent: all)? */
static bool layer_chosen(const json_t *c, const char *site)
{
    const json_t *layers = json_object_get(c, "layers_to_transform");
    const char *s = strstr(site, ".layers.");
    if (layers == NULL || json_is_null(layers) || s == NULL)
        return true;
    json_int_t layer = strtoll(s + strlen(".layers."), NULL, 10);
    if (json_is_integer(layers))
        return json_integer_value(layers) == layer;
    for (size_t i = 0; i < json_array_size(layers); i++)
        if (json_integer_value(json_array_get(layers, i)) == layer)
            return true;
    return false;
}

/* 0 with *has set, or an error where half a pair, or a pair that the configuration promises, is
 * missing. */
static int site_has_pair(const config *c, const safetensors *st, const char *site, bool *has,
                         hone_err *e)
{
    bool wanted = false;
    char *na = pair_name(site, 'A'), *nb = pair_name(site, 'B');
    bool a = safetensors_find(st, na) != NULL, b = safetensors_find(st, nb) != NULL;
    int rc = target_match(c->targets, site, &wanted, e);
    wanted = wanted && layer_chosen(c->json, site);
    *has = a && b;
    if (rc == 0 && a != b)
        rc = hone_fail(e, HONE_EFORMAT, "tensor '%s' is missing", a ? nb : na);
    else if (rc == 0 && wanted && !a && json_is_null(json_object_get(c->json, "exclude_modules")))
        rc = hone_fail(e, HONE_EFORMAT, "tensor '%s' is missing (target_modules asks for it)", na);
    free(na);
    free(nb);
    return rc;
}

static int left_over(const safetensors *st, size_t n_bound, const adapter *a, hone_err *e)
{
    if (safetensors_count(st) == n_bound)
        return 0;
    for (size_t i = 0; i < safetensors_count(st); i++) {
        const char *name = safetensors_at(st, i)->name;
        if (param_find(&a->params, name) < 0)
            return hone_fail(e, HONE_EFORMAT,
                             "tensor '%s' belongs to no linear layer of this model (another base?)",
                             name);
    }
    return hone_fail(e, HONE_EFORMAT, "a tensor is there twice");
}

static int pattern_number(const config *c, const char *key, const char *site, double *v,
                          hone_err *e)
{
    const json_t *found = NULL;
    int rc = target_pattern(json_object_get(c->json, key), site, &found, e);
    if (rc == 0 && found != NULL) {
        if (!json_is_number(found))
            return hone_fail(e, HONE_EFORMAT, "%s of '%s' is not a number", key, site);
        *v = json_number_value(found);
    }
    return rc;
}

static int declare_pairs(adapter *a, const config *c, const safetensors *st, const size_t *sites,
                         hone_err *e)
{
    for (size_t i = 0; i < a->n_pairs; i++) {
        const char *site = model_site_at(a->m, sites[i])->name;
        char *na = pair_name(site, 'A');
        const st_tensor *t = safetensors_find(st, na);
        free(na);
        double r = (double)c->r, alpha = c->alpha;
        int rc = pattern_number(c, "rank_pattern", site, &r, e);
        if (rc == 0)
            rc = pattern_number(c, "alpha_pattern", site, &alpha, e);
        if (rc == 0)
            rc = check_pair(site, r, alpha, e);
        if (rc != 0)
            return rc;
        if (t->n_dims != 2 || t->dim[0] != (int64_t)r)
            return hone_fail(e, HONE_EFORMAT, "tensor '%s': rank %lld, the configuration says %g",
                             t->name, (long long)(t->n_dims == 2 ? t->dim[0] : -1), r);
        lora_declare(a, i, sites[i], (int64_t)r, alpha, 1.0F);
    }
    return 0;
}

static int load_values(adapter *a, const safetensors *st, hone_err *e)
{
    for (size_t i = 0; i < a->params.n; i++) {
        const param *p = &a->params.items[i];
        const st_tensor *t = safetensors_find(st, p->name);
        if (t->n_dims != 2 || t->dim[0] != p->rows || t->dim[1] != p->cols)
            return hone_fail(e, HONE_EFORMAT,
                             "tensor '%s': [%lld, %lld], this model wants [%lld, %lld]", t->name,
                             (long long)t->dim[0], (long long)t->dim[1], (long long)p->rows,
                             (long long)p->cols);
        float *host = mem_try_array((size_t)(p->rows * p->cols), sizeof *host);
        if (host == NULL)
            return hone_fail(e, HONE_ENOMEM, "tensor '%s': no memory", t->name);
        int rc = st_to_f32(host, t, e);
        for (int64_t k = 0; rc == 0 && k < p->rows * p->cols; k++)
            if (!isfinite(host[k]))
                rc = hone_fail(e, HONE_ENUMERIC, "tensor '%s' holds a value that is not finite",
                               t->name);
        if (rc == 0)
            rc = param_write(&a->params, i, host, e);
        free(host);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int bind(adapter **out, const config *c, const safetensors *st, model *m, bool train,
                hone_err *e)
{
    size_t n = 0;
    size_t *sites = mem_array(model_n_sites(m), sizeof *sites);
    adapter *a = NULL;
    int rc = 0;
    for (size_t s = 0; rc == 0 && s < model_n_sites(m); s++) {
        bool has = false;
        rc = site_has_pair(c, st, model_site_at(m, s)->name, &has, e);
        if (has)
            sites[n++] = s;
    }
    if (rc == 0) {
        a = lora_make(m, n);
        a->r = c->r;
        a->alpha = c->alpha;
        a->dropout = c->dropout;
        a->rslora = c->rslora;
        a->train = train;
        rc = declare_pairs(a, c, st, sites, e);
    }
    if (rc == 0)
        rc = left_over(st, n * 2, a, e);
    if (rc == 0 && n == 0)
        rc = hone_fail(e, HONE_EFORMAT, "no tensor binds to this model");
    if (rc == 0)
        rc = lora_commit(a, e);
    if (rc == 0)
        rc = load_values(a, st, e);
    free(sites);
    if (rc != 0) {
        adapter_close(a);
        return rc;
    }
    *out = a;
    return 0;
}

/* ---- the digests that travel with an adapter ---- */

static int digest_is(const json_t *manifest, const char *key, const char *what, const char *want,
                     hone_err *e)
{
    const char *have = json_string_value(json_object_get(manifest, key));
    if (want == NULL || have == NULL || *have == '\0' || strcmp(have, want) == 0)
        return 0;
    return hone_fail(e, HONE_EINVAL, "trained with %s %.12s..., this is %.12s...", what, have,
                     want);
}

static int check_manifest(const char *dir, const char *base, const char *template, hone_err *e)
{
    char *path = path_join(dir, "hone_manifest.json");
    json_t *manifest = NULL;
    int rc = 0;
    if (file_exists(path)) {
        rc = js_load(&manifest, path, e);
        if (rc == 0)
            rc = digest_is(manifest, "base_digest", "base model", base, e);
        if (rc == 0)
            rc = digest_is(manifest, "template_digest", "chat template", template, e);
    }
    json_decref(manifest);
    free(path);
    return rc;
}

int adapter_open(adapter **out, const char *dir, model *m, bool train, const char *base_digest,
                 const char *template_digest, hone_err *e)
{
    config c = {0};
    safetensors *st = NULL;
    char *weights = path_join(dir, "adapter_model.safetensors");
    *out = NULL;
    int rc = check_manifest(dir, base_digest, template_digest, e);
    if (rc == 0)
        rc = config_read(&c, dir, e);
    if (rc == 0)
        rc = safetensors_open(&st, weights, e);
    if (rc == 0)
        rc = bind(out, &c, st, m, train, e);
    if (rc != 0)
        hone_fail_at(e, "adapter %s", dir);
    safetensors_close(st);
    config_free(&c);
    free(weights);
    return rc;
}

/* ---- writing ---- */

/* The last part of each site's name, once: what target_modules lists. */
static json_t *target_names(const adapter *a)
{
    json_t *names = json_array();
    for (size_t i = 0; i < a->n_pairs; i++) {
        const char *site = model_site_at(a->m, a->pairs[i].site)->name;
        const char *dot = strrchr(site, '.');
        const char *last = dot != NULL ? dot + 1 : site;
        size_t k = 0;
        while (k < json_array_size(names) &&
               strcmp(json_string_value(json_array_get(names, k)), last) != 0)
            k++;
        if (k == json_array_size(names))
            json_array_append_new(names, json_string(last));
    }
    return names;
}

/* Does every site whose name ends like a chosen one carry a pair? If not, the names alone would
 * promise more than there is, and full names are written instead. */
static json_t *targets_for_config(const adapter *a)
{
    json_t *names = target_names(a);
    size_t promised = 0;
    for (size_t s = 0; s < model_n_sites(a->m); s++) {
        bool matches = false;
        target_match(names, model_site_at(a->m, s)->name, &matches, NULL);
        promised += matches;
    }
    if (promised == a->n_pairs)
        return names;
    json_array_clear(names);
    for (size_t i = 0; i < a->n_pairs; i++)
        json_array_append_new(names, json_string(model_site_at(a->m, a->pairs[i].site)->name));
    return names;
}

static json_t *whole_or_real(double v)
{
    return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

/* Pairs whose rank or alpha differs from the configuration's get a pattern of their own. */
static void add_patterns(const adapter *a, json_t *c)
{
    json_t *ranks = json_object(), *alphas = json_object();
    for (size_t i = 0; i < a->n_pairs; i++) {
        const lora_pair *p = &a->pairs[i];
        const char *site = model_site_at(a->m, p->site)->name;
        int64_t r = a->params.items[p->a].rows;
        if (r != a->r)
            json_object_set_new(ranks, site, json_integer(r));
        if (p->alpha != a->alpha)
            json_object_set_new(alphas, site, whole_or_real(p->alpha));
    }
    json_object_set_new(c, "rank_pattern", ranks);
    json_object_set_new(c, "alpha_pattern", alphas);
}

/* The field set of PEFT 0.10: older releases refuse fields that they do not know, newer ones fill
 * in the rest. */
static json_t *make_config(const adapter *a, const char *base_name)
{
    json_t *c = json_pack(
        "{s:s, s:s, s:n, s:s, s:n, s:b, s:I, s:o, s:o, s:o, s:b, s:s, s:b, s:n, s:b, s:n, s:n}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "auto_mapping", "base_model_name_or_path",
        base_name, "revision", "inference_mode", 1, "r", (json_int_t)a->r, "target_modules",
        targets_for_config(a), "lora_alpha", whole_or_real(a->alpha), "lora_dropout",
        json_real(a->dropout), "fan_in_fan_out", 0, "bias", "none", "use_rslora", a->rslora,
        "modules_to_save", "init_lora_weights", 1, "layers_to_transform", "layers_pattern");
    add_patterns(a, c);
    return c;
}

static int write_values(const adapter *a, st_writer *w, hone_err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < a->params.n; i++) {
        const param *p = &a->params.items[i];
        int64_t dim[2] = {p->rows, p->cols};
        rc = st_writer_declare(w, p->name, ST_F32, 2, dim, e);
    }
    for (size_t i = 0; rc == 0 && i < a->params.n; i++) {
        const param *p = &a->params.items[i];
        size_t n = (size_t)(p->rows * p->cols);
        float *host = mem_try_array(n, sizeof *host);
        if (host == NULL)
            return hone_fail(e, HONE_ENOMEM, "%s: no memory", p->name);
        rc = param_read(&a->params, i, host, e);
        if (rc == 0)
            rc = st_writer_data(w, host, n * sizeof *host, e);
        free(host);
    }
    return rc;
}

int adapter_save(const adapter *a, const char *dir, const char *base_name, hone_err *e)
{
    st_writer *w = NULL;
    char *weights = path_join(dir, "adapter_model.safetensors");
    char *config_path = path_join(dir, "adapter_config.json");
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    int rc = st_writer_open(&w, weights, metadata, e);
    if (rc == 0) {
        rc = write_values(a, w, e);
        if (rc == 0)
            rc = st_writer_commit(w, e);
        else
            st_writer_abort(w);
    }
    if (rc == 0) {
        json_t *c = make_config(a, base_name);
        rc = c != NULL ? js_save(c, config_path, true, e)
                       : hone_fail(e, HONE_EINVAL, "%s: '%s' is not UTF-8", config_path, base_name);
        json_decref(c);
    }
    json_decref(metadata);
    free(weights);
    free(config_path);
    return rc;
}
