/* Weights to files: one, or shards with an index, as transformers writes them. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/model_int.h"
#include "core/model/stdtype.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"

enum { SAVE_CHUNK = 1 << 20 }; /* elements */
static const float F16_MAX = 65504.0F;

/* How a dtype is called in config.json, and stored. */
static const struct {
    kern_dtype t;
    st_dtype stored;
    const char *name;
} forms[] = {
    {KERN_F32, ST_F32, "float32"}, {KERN_BF16, ST_BF16, "bfloat16"}, {KERN_F16, ST_F16, "float16"}};

typedef struct saver {
    const model *m;
    const char *dir;
    st_dtype t;
    float *wide;  /* SAVE_CHUNK elements */
    void *stored; /* as much */
} saver;

static size_t bytes_of(const saver *s, size_t i)
{
    const weight *w = &s->m->weights[i];
    return (size_t)(w->rows * w->cols) * st_dtype_size(s->t);
}

/* ---- one weight ------------------------------------------------------------------------------ */

/* Rounded up to f16 counts: 65520 and above would become infinity. */
static int check_range(const saver *s, int64_t n, const char *name, hone_err *e)
{
    for (int64_t i = 0; i < n && s->t == ST_F16; i++)
        if (isfinite(s->wide[i]) && fabsf(s->wide[i]) >= F16_MAX + 16)
            return hone_fail(e, HONE_ENUMERIC,
                             "tensor '%s' holds %g, which float16 cannot; save it as bfloat16 or "
                             "float32",
                             name, (double)s->wide[i]);
    return 0;
}

static int save_weight(const saver *s, st_writer *w, size_t i, hone_err *e)
{
    const model *m = s->m;
    kern_tensor v = param_value(&m->params, i);
    int64_t total = v.rows * v.cols;
    int rc = 0;
    for (int64_t at = 0; at < total && rc == 0; at += SAVE_CHUNK) {
        int64_t n = total - at < SAVE_CHUNK ? total - at : SAVE_CHUNK;
        rc = kern_do(m->dev, read, s->wide, (float *)v.data + at, (size_t)n * sizeof *s->wide);
        rc = model_failed(m, rc, m->weights[i].name, e);
        if (rc == 0)
            rc = check_range(s, n, m->weights[i].name, e);
        if (rc == 0)
            rc = st_from_f32(s->stored, s->t, s->wide, n, e);
        if (rc == 0)
            rc = st_writer_data(w, s->stored, (size_t)n * st_dtype_size(s->t), e);
    }
    return rc;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Weights [first, end) to one file. */
static int save_file(const saver *s, const char *name, size_t first, size_t end, hone_err *e)
{
    st_writer *w = NULL;
    char *path = path_join(s->dir, name);
    json_t *meta = json_pack("{s:s}", "format", "pt"); /* transformers asks for it */
    int rc = st_writer_open(&w, path, meta, e);
    for (size_t i = first; i < end && rc == 0; i++) {
        int64_t dim[2];
        int n_dims = weight_dims(&s->m->weights[i], dim);
        rc = st_writer_declare(w, s->m->weights[i].name, s->t, n_dims, dim, e);
    }
    for (size_t i = first; i < end && rc == 0; i++)
        rc = save_weight(s, w, i, e);
    if (rc == 0)
        rc = st_writer_commit(w, e);
    else
        st_writer_abort(w);
    json_decref(meta);
    free(path);
    return rc;
}

/* The end of the shard that begins at a weight: at least one, and no more bytes than max. */
static size_t shard_end(const saver *s, size_t first, uint64_t max)
{
    uint64_t bytes = 0;
    size_t i = first;
    while (i < s->m->n_weights && (i == first || bytes + bytes_of(s, i) <= max))
        bytes += bytes_of(s, i++);
    return i;
}

static size_t count_shards(const saver *s, uint64_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < s->m->n_weights; n++)
        i = shard_end(s, i, max);
    return n;
}

static int save_shards(const saver *s, size_t n, uint64_t max, hone_err *e)
{
    uint64_t total = 0;
    json_t *map = json_object();
    char *path = path_join(s->dir, INDEX);
    int rc = file_remove(path, e); /* of an earlier save, whose shards are about to change */
    for (size_t k = 0, i = 0; k < n && rc == 0; k++) {
        char *name = mem_printf("model-%05zu-of-%05zu.safetensors", k + 1, n);
        size_t end = shard_end(s, i, max);
        rc = save_file(s, name, i, end, e);
        for (; i < end; i++) {
            json_object_set_new(map, s->m->weights[i].name, json_string(name));
            total += bytes_of(s, i);
        }
        free(name);
    }
    json_t *index =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (rc == 0)
        rc = js_save(index, path, true, e);
    json_decref(index);
    free(path);
    return rc;
}

/* Is it a shard of another count than n? */
static bool old_shard(const char *name, size_t n)
{
    char *end;
    if (strncmp(name, "model-", 6) != 0)
        return false;
    strtoul(name + 6, &end, 10);
    if (end == name + 6 || strncmp(end, "-of-", 4) != 0)
        return false;
    const char *count = end + 4;
    size_t of = strtoul(count, &end, 10);
    return end != count && strcmp(end, ".safetensors") == 0 && of != n;
}

/* What an earlier save left beside n shards (1: the one file): a reader would find two models. */
static int remove_others(const char *dir, size_t n, hone_err *e)
{
    char **names;
    int rc = dir_list(&names, dir, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; names[i] != NULL && rc == 0; i++) {
        bool other = strcmp(names[i], n > 1 ? SINGLE : INDEX) == 0;
        char *path = path_join(dir, names[i]);
        if (other || old_shard(names[i], n > 1 ? n : 0))
            rc = file_remove(path, e);
        free(path);
    }
    dir_list_free(names);
    return rc;
}

static int save_config(const model *m, const char *dir, const char *dtype, hone_err *e)
{
    char *path = path_join(dir, "config.json");
    json_t *o = json_deep_copy(m->config);
    const char *key = json_object_get(o, "dtype") != NULL ? "dtype" : "torch_dtype";
    json_object_set_new(o, key, json_string(dtype));
    int rc = js_save(o, path, true, e);
    json_decref(o);
    free(path);
    return rc;
}

int model_save(const model *m, const char *dir, kern_dtype dtype, int64_t max_shard, hone_err *e)
{
    size_t form = 0;
    while (form < sizeof forms / sizeof *forms && forms[form].t != dtype)
        form++;
    if (!m->opt.train_base)
        return hone_fail(e, HONE_EINVAL, "the base of this model is frozen");
    if (form == sizeof forms / sizeof *forms)
        return hone_fail(e, HONE_EINVAL, "weights are saved as f32, bf16 or f16, not as %s",
                         kern_dtype_name(dtype));
    saver s = {.m = m,
               .dir = dir,
               .t = forms[form].stored,
               .wide = mem_array(SAVE_CHUNK, sizeof(float)),
               .stored = mem_array(SAVE_CHUNK, sizeof(float))};
    uint64_t max = max_shard > 0 ? (uint64_t)max_shard : UINT64_MAX;
    size_t n = count_shards(&s, max);
    int rc = n > 1 ? save_shards(&s, n, max, e) : save_file(&s, SINGLE, 0, m->n_weights, e);
    if (rc == 0)
        rc = remove_others(dir, n, e);
    if (rc == 0)
        rc = save_config(m, dir, forms[form].name, e);
    free(s.wide);
    free(s.stored);
    return rc;
}
