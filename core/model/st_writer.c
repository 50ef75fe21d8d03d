/* Writes one safetensors file. The header is made from the declarations when the first bytes come,
 * padded so that the data begins at a multiple of eight. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/safetensors.h"
#include "core/model/stdtype.h"

#include <stdlib.h>
#include <string.h>

struct st_writer {
    file_out *file;
    char *path;
    json_t *header;
    size_t total, written; /* bytes of data declared and given */
    bool begun;
};

int st_writer_open(st_writer **out, const char *path, const json_t *metadata, hone_err *e)
{
    *out = NULL;
    st_writer *w = mem_alloc(sizeof *w);
    int rc = file_out_open(&w->file, path, 0644, e);
    if (rc != 0) {
        free(w);
        return rc;
    }
    w->path = mem_strdup(path);
    w->header = json_object();
    if (metadata != NULL)
        json_object_set_new(w->header, "__metadata__", json_deep_copy(metadata));
    *out = w;
    return 0;
}

int st_writer_declare(st_writer *w, const char *name, st_dtype t, int n_dims, const int64_t *dim,
                      hone_err *e)
{
    size_t bytes = st_dtype_size(t);
    if (w->begun || bytes == 0 || n_dims < 0 || n_dims > ST_MAX_DIMS)
        return hone_fail(e, HONE_EINVAL, "%s: tensor '%s' cannot be declared %s", w->path, name,
                         w->begun ? "after data" : "with this dtype or shape");
    if (json_object_get(w->header, name) != NULL)
        return hone_fail(e, HONE_EINVAL, "%s: tensor '%s' is declared twice", w->path, name);
    json_t *shape = json_array();
    for (int i = 0; i < n_dims; i++) {
        json_array_append_new(shape, json_integer(dim[i]));
        bytes *= (size_t)dim[i];
    }
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", st_dtype_name(t), "shape", shape,
                              "data_offsets", (json_int_t)w->total, (json_int_t)(w->total + bytes));
    if (entry == NULL || json_object_set_new(w->header, name, entry) != 0)
        return hone_fail(e, HONE_EINVAL, "%s: the name of a tensor is not UTF-8", w->path);
    w->total += bytes;
    return 0;
}

static int write_header(st_writer *w, hone_err *e)
{
    unsigned char len[8];
    char *text = js_text(w->header, false);
    if (text == NULL)
        return hone_fail(e, HONE_EINVAL, "%s: the header cannot be written as JSON", w->path);
    size_t n = strlen(text), padded = (n + 7) / 8 * 8;
    for (int i = 0; i < 8; i++)
        len[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    int rc = file_out_write(w->file, len, sizeof len, e);
    if (rc == 0)
        rc = file_out_write(w->file, text, n, e);
    if (rc == 0)
        rc = file_out_write(w->file, "       ", padded - n, e);
    free(text);
    w->begun = true;
    return rc;
}

int st_writer_data(st_writer *w, const void *data, size_t bytes, hone_err *e)
{
    int rc = w->begun ? 0 : write_header(w, e);
    if (rc != 0)
        return rc;
    if (bytes > w->total - w->written)
        return hone_fail(e, HONE_EINVAL, "%s: %zu bytes more than were declared", w->path,
                         bytes - (w->total - w->written));
    w->written += bytes;
    return file_out_write(w->file, data, bytes, e);
}

static void writer_free(st_writer *w)
{
    json_decref(w->header);
    free(w->path);
    free(w);
}

int st_writer_commit(st_writer *w, hone_err *e)
{
    int rc = w->begun ? 0 : write_header(w, e);
    if (rc == 0 && w->written != w->total)
        rc = hone_fail(e, HONE_EINVAL, "%s: %zu of %zu bytes were written", w->path, w->written,
                       w->total);
    if (rc != 0) {
        st_writer_abort(w);
        return rc;
    }
    rc = file_out_commit(w->file, e);
    writer_free(w);
    return rc;
}

void st_writer_abort(st_writer *w)
{
    if (w == NULL)
        return;
    file_out_abort(w->file);
    writer_free(w);
}
