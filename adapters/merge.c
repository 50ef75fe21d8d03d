/* The merge itself: shard by shard, so that memory holds one tensor at a time beside the adapter.
 * merge_proof.c shows that the result is what the pair of base and adapter was. */
#include "adapters/merge.h"

#include "adapters/lora.h"
#include "adapters/manifest.h"
#include "adapters/merge_proof.h"
#include "adapters/sign.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/digest.h"
#include "core/model/safetensors.h"
#include "core/model/stdtype.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One pair on the host, kept while the shards are written. */
typedef struct host_pair {
    char *weight; /* "<site>.weight" */
    int64_t r, in, out;
    float *A, *B, scale;
    bool used;
} host_pair;

typedef struct merge {
    const merge_options *o;
    merge_report *report;
    host_pair *pairs;
    size_t n_pairs, cap_pairs;
} merge;

static int keep_pair(void *user, const char *site, int64_t r, int64_t in, int64_t out,
                     const float *A, const float *B, float scale, hone_err *e)
{
    merge *g = user;
    size_t na = (size_t)(r * in), nb = (size_t)(out * r);
    g->pairs = mem_grow(g->pairs, &g->cap_pairs, g->n_pairs + 1, sizeof *g->pairs);
    host_pair *p = &g->pairs[g->n_pairs++];
    *p = (host_pair){.weight = mem_printf("%s.weight", site),
                     .r = r,
                     .in = in,
                     .out = out,
                     .A = mem_try_array(na, sizeof(float)),
                     .B = mem_try_array(nb, sizeof(float)),
                     .scale = scale};
    if (p->A == NULL || p->B == NULL)
        return hone_fail(e, HONE_ENOMEM, "%s: no memory for its pair", site);
    memcpy(p->A, A, na * sizeof(float));
    memcpy(p->B, B, nb * sizeof(float));
    return 0;
}

static void free_pairs(merge *g)
{
    for (size_t i = 0; i < g->n_pairs; i++) {
        free(g->pairs[i].weight);
        free(g->pairs[i].A);
        free(g->pairs[i].B);
    }
    free(g->pairs);
}

static host_pair *find_pair(merge *g, const char *name)
{
    for (size_t i = 0; i < g->n_pairs; i++)
        if (strcmp(g->pairs[i].weight, name) == 0)
            return &g->pairs[i];
    return NULL;
}

/* w += scale * B A, summed in double and rounded to F32 once. */
static void add_product(float *w, const host_pair *p, double *row)
{
    for (int64_t o = 0; o < p->out; o++) {
        memset(row, 0, (size_t)p->in * sizeof *row);
        for (int64_t k = 0; k < p->r; k++) {
            double b = (double)p->B[o * p->r + k] * (double)p->scale;
            for (int64_t i = 0; i < p->in; i++)
                row[i] += b * (double)p->A[k * p->in + i];
        }
        for (int64_t i = 0; i < p->in; i++)
            w[o * p->in + i] = (float)((double)w[o * p->in + i] + row[i]);
    }
}

static int check_finite(const float *w, int64_t n, st_dtype t, const char *name, hone_err *e)
{
    float limit = t == ST_F16 ? 65504.0F : INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(w[i]) || fabsf(w[i]) > limit)
            return hone_fail(e, HONE_ENUMERIC,
                             "tensor '%s': a value is out of the range of %s after the merge", name,
                             st_dtype_name(t));
    return 0;
}

static int write_merged(st_writer *w, const st_tensor *t, const host_pair *p, hone_err *e)
{
    int64_t n = p->out * p->in;
    if (t->n_dims != 2 || t->dim[0] != p->out || t->dim[1] != p->in)
        return hone_fail(e, HONE_EFORMAT, "tensor '%s': its shape is not the adapter's", t->name);
    float *values = mem_try_array((size_t)n, sizeof *values);
    double *row = mem_try_array((size_t)p->in, sizeof *row);
    int rc = values != NULL && row != NULL
                 ? st_to_f32(values, t, e)
                 : hone_fail(e, HONE_ENOMEM, "tensor '%s': no memory", t->name);
    if (rc == 0) {
        add_product(values, p, row);
        rc = check_finite(values, n, t->dtype, t->name, e);
    }
    if (rc == 0) { /* in place: a stored element is never larger than an F32 */
        rc = st_from_f32(values, t->dtype, values, n, e);
        if (rc == 0)
            rc = st_writer_data(w, values, t->bytes, e);
    }
    free(values);
    free(row);
    return rc;
}

static int write_tensors(merge *g, st_writer *w, const safetensors *st, hone_err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < safetensors_count(st); i++) {
        const st_tensor *t = safetensors_at(st, i);
        host_pair *p = find_pair(g, t->name);
        g->report->n_tensors++;
        if (p == NULL) {
            rc = st_writer_data(w, t->data, t->bytes, e);
            continue;
        }
        p->used = true;
        g->report->n_merged++;
        rc = write_merged(w, t, p, e);
    }
    return rc;
}

/* One file of the checkpoint, under the same name in dir. */
static int merge_shard(merge *g, const char *file, const char *dir, hone_err *e)
{
    safetensors *st = NULL;
    st_writer *w = NULL;
    char *to = path_join(dir, path_base(file));
    int rc = safetensors_open(&st, file, e);
    if (rc == 0)
        rc = st_writer_open(&w, to, safetensors_metadata(st), e);
    for (size_t i = 0; rc == 0 && i < safetensors_count(st); i++) {
        const st_tensor *t = safetensors_at(st, i);
        if (t->dtype == ST_OTHER)
            rc = hone_fail(e, HONE_EUNSUPPORTED, "tensor '%s': its stored form cannot be copied",
                           t->name);
        else
            rc = st_writer_declare(w, t->name, t->dtype, t->n_dims, t->dim, e);
    }
    if (rc == 0)
        rc = write_tensors(g, w, st, e);
    if (rc == 0)
        rc = st_writer_commit(w, e);
    else
        st_writer_abort(w);
    safetensors_close(st);
    free(to);
    return rc;
}

static bool is_weight_file(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL && (strcmp(dot, ".safetensors") == 0 || strcmp(dot, ".bin") == 0 ||
                           strcmp(dot, ".gguf") == 0 || strcmp(dot, ".pth") == 0);
}

/* What says where the base comes from is not true of what is made of it. */
static bool is_of_base(const char *name)
{
    static const char *const names[] = {MANIFEST_NAME, MANIFEST_ROUND, SIGN_FILE, "model.sig"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* Tokenizer, template, settings, index and licence files: everything that is not weights. */
static int copy_others(const char *from, const char *to, hone_err *e)
{
    char **names;
    int rc = dir_list(&names, from, e);
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        char *a = path_join(from, names[i]), *b = path_join(to, names[i]);
        if (!file_is_dir(a) && !is_weight_file(names[i]) && !is_of_base(names[i]))
            rc = file_copy(a, b, e);
        free(a);
        free(b);
    }
    if (rc == 0)
        dir_list_free(names);
    return rc;
}

/* The template that the adapter was trained with wins over the base's. */
static int copy_template(const merge_options *o, const char *to, hone_err *e)
{
    char *a = path_join(o->adapter_dir, "chat_template.jinja");
    char *b = path_join(to, "chat_template.jinja");
    int rc = file_exists(a) ? file_copy(a, b, e) : 0;
    free(a);
    free(b);
    return rc;
}

static int all_used(const merge *g, hone_err *e)
{
    for (size_t i = 0; i < g->n_pairs; i++)
        if (!g->pairs[i].used)
            return hone_fail(e, HONE_EFORMAT, "tensor '%s' stands in no shard of the base model",
                             g->pairs[i].weight);
    return 0;
}

static int write_shards(merge *g, const char *dir, hone_err *e)
{
    safetensors *st = NULL;
    int rc = safetensors_open(&st, g->o->model_dir, e);
    for (const char *const *f = rc == 0 ? safetensors_files(st) : NULL; rc == 0 && *f != NULL; f++)
        rc = merge_shard(g, *f, dir, e);
    safetensors_close(st);
    return rc == 0 ? all_used(g, e) : rc;
}

static int write_manifest(const merge *g, const char *dir, hone_err *e)
{
    char base[65] = "", pair[65] = "";
    const merge_report *r = g->report;
    int rc = model_dir_digest(base, g->o->model_dir, e);
    if (rc == 0)
        rc = model_dir_digest(pair, g->o->adapter_dir, e);
    if (rc != 0)
        return rc;
    char *path = path_join(dir, MANIFEST_NAME);
    json_t *m = json_pack("{s:s, s:s, s:s, s:{s:I, s:f, s:f, s:f}}", "kind", "merged",
                          "merged_base_digest", base, "merged_adapter_digest", pair, "proof",
                          "positions", (json_int_t)r->n_positions, "max_abs_diff", r->max_abs_diff,
                          "mean_kl", r->mean_kl, "agreement", r->agreement);
    if (hook_is_used(g->o->hooks))
        json_object_set_new(m, "plugins", hook_manifest(g->o->hooks));
    rc = js_save(m, path, true, e);
    json_decref(m);
    free(path);
    return rc;
}

static int emit(hooks *h, hook_point p, json_t *data, hone_err *e)
{
    int rc = hook_emit(h, p, &data, e);
    json_decref(data);
    return rc;
}

static int announce(const merge_options *o, hone_err *e)
{
    if (!hook_wanted(o->hooks, HOOK_MERGE_PRE))
        return 0;
    return emit(o->hooks, HOOK_MERGE_PRE,
                json_pack("{s:s, s:s}", "model", o->model_dir, "adapter", o->adapter_dir), e);
}

static int conclude(const merge_options *o, const merge_report *r, hone_err *e)
{
    if (!hook_wanted(o->hooks, HOOK_MERGE_POST))
        return 0;
    return emit(o->hooks, HOOK_MERGE_POST,
                json_pack("{s:f, s:f, s:f}", "max_abs_diff", r->max_abs_diff, "mean_kl", r->mean_kl,
                          "agreement", r->agreement),
                e);
}

static int build_and_prove(merge *g, const char *tmp, hone_err *e)
{
    proof *proven = NULL;
    int rc = proof_begin(&proven, g->o, keep_pair, g, e);
    if (rc == 0)
        rc = write_shards(g, tmp, e);
    if (rc == 0)
        rc = copy_others(g->o->model_dir, tmp, e);
    if (rc == 0)
        rc = copy_template(g->o, tmp, e);
    if (rc == 0)
        rc = proof_end(proven, tmp, g->report, e);
    proof_free(proven);
    if (rc == 0)
        rc = conclude(g->o, g->report, e);
    if (rc == 0)
        rc = write_manifest(g, tmp, e);
    sign_report signed_as;
    return rc == 0 && g->o->key_dir != NULL
               ? sign_dir(tmp, path_base(g->o->out_dir), g->o->key_dir, &signed_as, e)
               : rc;
}

int merge_run(const merge_options *o, merge_report *report, hone_err *e)
{
    *report = (merge_report){0};
    merge g = {.o = o, .report = report};
    if (file_exists(o->out_dir))
        return hone_fail(e, HONE_EEXIST, "%s: exists already; a merge does not overwrite",
                         o->out_dir);
    char *tmp = mem_printf("%s.tmp", o->out_dir);
    int rc = announce(o, e);
    if (rc == 0)
        rc = dir_remove(tmp, e);
    if (rc == 0)
        rc = dir_make(tmp, e);
    if (rc == 0)
        rc = build_and_prove(&g, tmp, e);
    if (rc == 0)
        rc = dir_sync(tmp, e);
    if (rc == 0)
        rc = dir_rename(tmp, o->out_dir, e);
    if (rc != 0)
        dir_remove(tmp, NULL);
    free_pairs(&g);
    free(tmp);
    return rc;
}
