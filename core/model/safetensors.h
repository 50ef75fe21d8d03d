#pragma once
/* safetensors files, read (mapped and fully validated) and written. One file, or the shards that
 * model.safetensors.index.json lists, are one set of named tensors. Refused with the name: a header
 * longer than the file or than 100 MB, unknown dtype, size that does not match the shape, overlap,
 * gap, bytes left over, a name twice, a shard that is missing, an index that disagrees with its
 * shards. */
#include "core/base/err.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { ST_MAX_DIMS = 8 };
typedef enum { ST_F32, ST_F16, ST_BF16, ST_I32, ST_I64, ST_U8, ST_OTHER } st_dtype;

typedef struct st_tensor {
    const char *name;
    st_dtype dtype;
    int n_dims;
    int64_t dim[ST_MAX_DIMS];
    const void *data; /* mapped; valid until close; may be unaligned */
    size_t bytes;
} st_tensor;

typedef struct safetensors safetensors;

/* path: a .safetensors file, or a directory that holds model.safetensors or an index with its
 * shards. */
int safetensors_open(safetensors **out, const char *path, hone_err *e);
void safetensors_close(safetensors *s);
size_t safetensors_count(const safetensors *s);
/* In the order of shards and of places in them; NULL past the end. */
const st_tensor *safetensors_at(const safetensors *s, size_t i);
const st_tensor *safetensors_find(const safetensors *s, const char *name); /* NULL when absent */
/* The files behind the set (full paths, NULL-ended, in shard order), and the `__metadata__` of the
 * first. Borrowed. */
const char *const *safetensors_files(const safetensors *s);
const json_t *safetensors_metadata(const safetensors *s);

/* Writer: declare every tensor in order, then give the bytes in the same order, in pieces of any
 * size. The file appears whole at commit or not at all. A name twice or a declaration after the
 * first bytes is EINVAL, as is more data than was declared; metadata (an object of strings, NULL:
 * none) is copied. */
typedef struct st_writer st_writer;
int st_writer_open(st_writer **out, const char *path, const json_t *metadata, hone_err *e);
int st_writer_declare(st_writer *w, const char *name, st_dtype t, int n_dims, const int64_t *dim,
                      hone_err *e);
int st_writer_data(st_writer *w, const void *data, size_t bytes, hone_err *e);
int st_writer_commit(st_writer *w,
                     hone_err *e);  /* frees w in every case; EINVAL when bytes are missing */
void st_writer_abort(st_writer *w); /* NULL is a no-op */
