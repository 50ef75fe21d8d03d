/* One or many safetensors files as one set of names. Everything is checked at open, so that what is
 * handed out later lies inside its map: dtype, shape against size, and a data section covered
 * exactly once. */
#include "core/model/safetensors.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ST_MAX_HEADER = 100 << 20, ST_MAX_SHARDS = 10000 };

typedef struct dtype_row {
    const char *name;
    st_dtype dtype;
    size_t size;
} dtype_row;

static const dtype_row dtype_rows[] = {
    {"F32", ST_F32, 4},   {"F16", ST_F16, 2},       {"BF16", ST_BF16, 2},     {"I32", ST_I32, 4},
    {"I64", ST_I64, 8},   {"U8", ST_U8, 1},         {"BOOL", ST_OTHER, 1},    {"I8", ST_OTHER, 1},
    {"I16", ST_OTHER, 2}, {"U16", ST_OTHER, 2},     {"U32", ST_OTHER, 4},     {"U64", ST_OTHER, 8},
    {"F64", ST_OTHER, 8}, {"F8_E4M3", ST_OTHER, 1}, {"F8_E5M2", ST_OTHER, 1},
};

typedef struct shard {
    char *path;
    file_map map;
    json_t *header;
    size_t first, n; /* its tensors */
} shard;

struct safetensors {
    shard *shards;
    size_t n_shards;
    char **files; /* borrowed from shards, NULL-ended */
    st_tensor *tensors;
    size_t n, cap;
    const st_tensor **by_name;
};

static const dtype_row *dtype_find(const char *name)
{
    for (size_t i = 0; i < sizeof dtype_rows / sizeof *dtype_rows; i++)
        if (strcmp(dtype_rows[i].name, name) == 0)
            return &dtype_rows[i];
    return NULL;
}

/* ---- one header ---- */

/* Reads the shape and multiplies it out; every product is checked against the bytes that there are.
 */
static int read_shape(st_tensor *t, const json_t *entry, size_t item, size_t limit, size_t *bytes,
                      hone_err *e)
{
    json_t *shape;
    int rc = js_get_array(entry, "shape", &shape, e);
    if (rc != 0)
        return rc;
    if (json_array_size(shape) > ST_MAX_DIMS)
        return hone_fail(e, HONE_ELIMIT, "%zu dimensions, at most %d are read",
                         json_array_size(shape), ST_MAX_DIMS);
    t->n_dims = (int)json_array_size(shape);
    bool empty = false;
    for (int i = 0; i < t->n_dims; i++) {
        const json_t *v = json_array_get(shape, (size_t)i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return hone_fail(e, HONE_EFORMAT, "dimension %d is not a count", i);
        t->dim[i] = json_integer_value(v);
        empty = empty || t->dim[i] == 0;
    }
    *bytes = empty ? 0 : item;
    for (int i = 0; i < t->n_dims && !empty; i++) {
        if ((uint64_t)t->dim[i] > limit / *bytes)
            return hone_fail(e, HONE_EFORMAT, "its shape needs more bytes than the %zu of the file",
                             limit);
        *bytes *= (size_t)t->dim[i];
    }
    return 0;
}

static int read_offsets(size_t *begin, size_t *end, const json_t *entry, size_t limit, hone_err *e)
{
    json_t *pair;
    int rc = js_get_array(entry, "data_offsets", &pair, e);
    if (rc != 0)
        return rc;
    const json_t *b = json_array_get(pair, 0), *n = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_integer(b) || !json_is_integer(n) ||
        json_integer_value(b) < 0 || json_integer_value(n) < json_integer_value(b))
        return hone_fail(e, HONE_EFORMAT, "data_offsets are not a begin and an end");
    *begin = (size_t)json_integer_value(b);
    *end = (size_t)json_integer_value(n);
    if (*end > limit)
        return hone_fail(e, HONE_EFORMAT, "data ends at byte %zu of %zu", *end, limit);
    return 0;
}

static int read_tensor(st_tensor *t, const char *name, const json_t *entry,
                       const unsigned char *data, size_t data_len, hone_err *e)
{
    static const char *const keys[] = {"dtype", "shape", "data_offsets", NULL};
    const char *dtype = NULL;
    size_t begin = 0, end = 0, bytes = 0;
    *t = (st_tensor){.name = name};
    if (!json_is_object(entry))
        return hone_fail(e, HONE_EFORMAT, "is not an object");
    int rc = js_only_keys(entry, keys, e);
    if (rc == 0)
        rc = js_get_str(entry, "dtype", &dtype, e);
    if (rc != 0)
        return rc;
    const dtype_row *row = dtype_find(dtype);
    if (row == NULL)
        return hone_fail(e, HONE_EUNSUPPORTED, "unknown dtype '%s'", dtype);
    if ((rc = read_shape(t, entry, row->size, data_len, &bytes, e)) != 0 ||
        (rc = read_offsets(&begin, &end, entry, data_len, e)) != 0)
        return rc;
    if (end - begin != bytes)
        return hone_fail(e, HONE_EFORMAT, "%zu bytes, its shape needs %zu", end - begin, bytes);
    t->dtype = row->dtype;
    t->data = data + begin;
    t->bytes = bytes;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const st_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The tensors, sorted by place, must cover the data exactly once. */
static int check_cover(const st_tensor *t, size_t n, const unsigned char *data, size_t data_len,
                       hone_err *e)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *p = t[i].data;
        if (p < at)
            return hone_fail(e, HONE_EFORMAT, "tensors '%s' and '%s' overlap", t[i - 1].name,
                             t[i].name);
        if (p > at)
            return hone_fail(e, HONE_EFORMAT, "a gap of %zu bytes before tensor '%s'",
                             (size_t)(p - at), t[i].name);
        at = p + t[i].bytes;
    }
    size_t rest = (size_t)(data + data_len - at);
    if (rest != 0)
        return hone_fail(e, HONE_EFORMAT, "%zu bytes after the last tensor", rest);
    return 0;
}

static int check_metadata(const json_t *meta, hone_err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(meta))
        return hone_fail(e, HONE_EFORMAT, "__metadata__ is not an object");
    json_object_foreach ((json_t *)meta, key, v) {
        if (!json_is_string(v))
            return hone_fail(e, HONE_EFORMAT, "__metadata__: '%s' is not a string", key);
    }
    return 0;
}

static int map_header(shard *s, const unsigned char **data, size_t *data_len, hone_err *e)
{
    int rc = file_map_open(&s->map, s->path, e);
    if (rc != 0)
        return rc;
    if (s->map.len < 8)
        return hone_fail(e, HONE_EFORMAT, "%s: %zu bytes, too short for a safetensors file",
                         s->path, s->map.len);
    uint64_t len = 0;
    for (int i = 7; i >= 0; i--)
        len = len << 8 | s->map.data[i];
    if (len > s->map.len - 8)
        return hone_fail(e, HONE_EFORMAT, "%s: header of %llu bytes in a file of %zu", s->path,
                         (unsigned long long)len, s->map.len);
    if (len > ST_MAX_HEADER)
        return hone_fail(e, HONE_ELIMIT, "%s: header of %llu bytes, at most %d are read", s->path,
                         (unsigned long long)len, ST_MAX_HEADER);
    rc = js_parse(&s->header, (const char *)s->map.data + 8, (size_t)len, e);
    if (rc == 0 && !json_is_object(s->header))
        rc = hone_fail(e, HONE_EFORMAT, "is not an object");
    if (rc != 0) {
        hone_fail_at(e, "%s: header", s->path);
        return rc;
    }
    *data = s->map.data + 8 + len;
    *data_len = s->map.len - 8 - (size_t)len;
    return 0;
}

static int shard_open(safetensors *st, shard *s, hone_err *e)
{
    const unsigned char *data = NULL;
    size_t data_len = 0;
    const char *name;
    json_t *entry;
    int rc = map_header(s, &data, &data_len, e);
    if (rc != 0)
        return rc;
    s->first = st->n;
    json_object_foreach (s->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) {
            rc = check_metadata(entry, e);
        } else {
            st->tensors = mem_grow(st->tensors, &st->cap, st->n + 1, sizeof *st->tensors);
            rc = read_tensor(&st->tensors[st->n++], name, entry, data, data_len, e);
            if (rc != 0)
                hone_fail_at(e, "tensor '%s'", name);
        }
        if (rc != 0) {
            hone_fail_at(e, "%s", s->path);
            return rc;
        }
    }
    s->n = st->n - s->first;
    st_tensor *own = s->n > 0 ? st->tensors + s->first : NULL;
    if (s->n > 0)
        qsort(own, s->n, sizeof *own, by_place);
    rc = check_cover(own, s->n, data, data_len, e);
    if (rc != 0)
        hone_fail_at(e, "%s", s->path);
    return rc;
}

/* ---- an index and its shards ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The distinct file names of the weight map, sorted; borrowed from it. */
static int list_shards(const char ***out, size_t *n, const json_t *weight_map, hone_err *e)
{
    const char *name;
    json_t *v;
    size_t cap = 0, count = 0;
    const char **files = NULL;
    *out = NULL;
    json_object_foreach ((json_t *)weight_map, name, v) {
        const char *file = json_string_value(v);
        if (file == NULL || *file == '\0' || *file == '.' || strchr(file, '/') != NULL) {
            free(files);
            return hone_fail(e, HONE_EFORMAT, "tensor '%s' has no plain file name", name);
        }
        files = mem_grow(files, &cap, count + 1, sizeof *files);
        files[count++] = file;
    }
    if (count > 0)
        qsort(files, count, sizeof *files, by_text);
    *n = 0;
    for (size_t i = 0; i < count; i++)
        if (i == 0 || strcmp(files[i], files[*n - 1]) != 0)
            files[(*n)++] = files[i];
    if (*n == 0 || *n > ST_MAX_SHARDS) {
        free(files);
        return hone_fail(e, HONE_ELIMIT, "%zu shards, 1 to %d are read", *n, ST_MAX_SHARDS);
    }
    *out = files;
    return 0;
}

/* What each shard holds must be what the index says, both ways. */
static int check_index(const safetensors *st, const json_t *weight_map, hone_err *e)
{
    for (size_t s = 0; s < st->n_shards; s++) {
        const char *file = path_base(st->shards[s].path);
        for (size_t i = 0; i < st->shards[s].n; i++) {
            const char *name = st->tensors[st->shards[s].first + i].name;
            const char *said = json_string_value(json_object_get(weight_map, name));
            if (said == NULL)
                return hone_fail(e, HONE_EFORMAT, "%s holds '%s', which is not listed", file, name);
            if (strcmp(said, file) != 0)
                return hone_fail(e, HONE_EFORMAT, "'%s' is listed in %s and stands in %s", name,
                                 said, file);
        }
    }
    if (json_object_size(weight_map) == st->n)
        return 0;
    const char *name;
    json_t *v;
    json_object_foreach ((json_t *)weight_map, name, v) {
        if (safetensors_find(st, name) == NULL)
            return hone_fail(e, HONE_EFORMAT, "'%s' is listed in %s, which does not hold it", name,
                             json_string_value(v));
    }
    return 0;
}

static void add_shard(safetensors *st, char *path)
{
    st->shards[st->n_shards].path = path;
    st->files[st->n_shards++] = path;
}

static int open_shards(safetensors *st, hone_err *e)
{
    int rc = 0;
    for (size_t i = 0; i < st->n_shards && rc == 0; i++)
        rc = shard_open(st, &st->shards[i], e);
    return rc;
}

static int by_tensor_name(const void *a, const void *b)
{
    return strcmp((*(const st_tensor *const *)a)->name, (*(const st_tensor *const *)b)->name);
}

static void sort_names(safetensors *st)
{
    st->by_name = mem_array(st->n, sizeof(st_tensor *));
    for (size_t i = 0; i < st->n; i++)
        st->by_name[i] = &st->tensors[i];
    if (st->n > 0)
        qsort(st->by_name, st->n, sizeof *st->by_name, by_tensor_name);
}

static int open_index(safetensors *st, const char *dir, const char *index_path, hone_err *e)
{
    json_t *index = NULL;
    const char **files = NULL;
    size_t n = 0;
    int rc = js_load(&index, index_path, e);
    if (rc != 0)
        return rc;
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) {
        rc = hone_fail(e, HONE_EFORMAT, "field 'weight_map' is missing");
        goto at;
    }
    if ((rc = list_shards(&files, &n, map, e)) != 0)
        goto at;
    st->shards = mem_array(n, sizeof *st->shards);
    st->files = mem_array(n + 1, sizeof *st->files);
    for (size_t i = 0; i < n; i++) {
        add_shard(st, path_join(dir, files[i]));
        if (!file_exists(st->shards[i].path)) {
            rc = hone_fail(e, HONE_ENOTFOUND, "shard '%s' is not there", files[i]);
            goto at;
        }
    }
    if ((rc = open_shards(st, e)) != 0)
        goto done;
    sort_names(st);
    rc = check_index(st, map, e);
at:
    if (rc != 0)
        hone_fail_at(e, "%s", index_path);
done:
    free(files);
    json_decref(index);
    return rc;
}

static int open_single(safetensors *st, const char *path, hone_err *e)
{
    st->shards = mem_array(1, sizeof *st->shards);
    st->files = mem_array(2, sizeof *st->files);
    add_shard(st, mem_strdup(path));
    int rc = open_shards(st, e);
    if (rc == 0)
        sort_names(st);
    return rc;
}

int safetensors_open(safetensors **out, const char *path, hone_err *e)
{
    int rc;
    *out = NULL;
    safetensors *st = mem_alloc(sizeof *st);
    char *single = path_join(path, "model.safetensors");
    char *index = path_join(path, "model.safetensors.index.json");
    if (!file_is_dir(path))
        rc = open_single(st, path, e);
    else if (file_exists(single))
        rc = open_single(st, single, e);
    else if (file_exists(index))
        rc = open_index(st, path, index, e);
    else
        rc = hone_fail(e, HONE_ENOTFOUND,
                       "%s: neither model.safetensors nor model.safetensors.index.json is there",
                       path);
    free(single);
    free(index);
    if (rc != 0)
        safetensors_close(st);
    else
        *out = st;
    return rc;
}

void safetensors_close(safetensors *st)
{
    if (st == NULL)
        return;
    for (size_t i = 0; i < st->n_shards; i++) {
        json_decref(st->shards[i].header);
        file_map_close(&st->shards[i].map);
        free(st->shards[i].path);
    }
    free(st->shards);
    free(st->files);
    free(st->tensors);
    free(st->by_name);
    free(st);
}

size_t safetensors_count(const safetensors *st)
{
    return st->n;
}

const st_tensor *safetensors_at(const safetensors *st, size_t i)
{
    return i < st->n ? &st->tensors[i] : NULL;
}

const st_tensor *safetensors_find(const safetensors *st, const char *name)
{
    size_t lo = 0, hi = st->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, st->by_name[mid]->name);
        if (c == 0)
            return st->by_name[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

const char *const *safetensors_files(const safetensors *st)
{
    return (const char *const *)st->files;
}

const json_t *safetensors_metadata(const safetensors *st)
{
    return json_object_get(st->shards[0].header, "__metadata__");
}
