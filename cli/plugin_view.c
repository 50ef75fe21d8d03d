#include "cli/plugin_view.h"

#include "core/base/js.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { VOCAB = 64, ID_DIGITS = 16 };

static const char batch_example[] =
    "{\"examples\": [{\"id\": \"0000000000000001\", \"row\": 7, \"ids\": [1, 2, 3], \"mask\": "
    "[0, 1, 1]}, {\"id\": \"ffffffffffffffff\", \"row\": 9, \"ids\": [4, 5], \"mask\": [0, 1]}], "
    "\"step\": 1}";

static json_t *example_of(hook_point p)
{
    json_t *data = NULL;
    if (p == HOOK_TRAIN_BATCH) {
        js_parse(&data, batch_example, sizeof batch_example - 1, NULL);
        return data;
    }
    data = json_pack("{s:[i, i, i], s:i, s:[]}", "ids", 1, 2, 3, "step", 1, "row");
    for (int i = 0; i < VOCAB; i++)
        json_array_append_new(json_object_get(data, "row"), json_real(0));
    return data;
}

/* An array that ends where a page ends that may not be touched, and may itself not be written when
 * `sealed`: writing past the end or into what is only to be read is a crash here, not a surprise
 * there. */
static void *fenced(const void *from, size_t size, bool sealed)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (size + page - 1) / page * page;
    char *m = mmap(NULL, n + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        mem_none();
    char *at = m + n - size;
    memcpy(at, from, size);
    mprotect(m + n, page, PROT_NONE);
    if (sealed)
        mprotect(m, n, PROT_READ);
    return at;
}

static int32_t *ids_of(const json_t *list)
{
    int32_t *ids = mem_array(json_array_size(list) + 1, sizeof *ids);
    for (size_t i = 0; i < json_array_size(list); i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ids;
}

static json_t *values_of(const float *values, size_t n)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(all, isfinite(values[i])
                                       ? json_real((double)values[i])
                                       : json_string(values[i] > 0 ? "inf" : "-inf"));
    return all;
}

/* ---- train.batch ---- */

typedef struct batch {
    size_t n, n_examples;
    int32_t *ids;
    uint8_t *mask;
    uint64_t *bound, *row, *id;
    float *weight;
} batch;

static void batch_free(batch *b)
{
    free(b->ids);
    free(b->mask);
    free(b->bound);
    free(b->row);
    free(b->id);
    free(b->weight);
}

static size_t tokens_of(const json_t *one)
{
    const json_t *ids = json_object_get(one, "ids");
    return ids != NULL ? json_array_size(ids) : 2;
}

static int read_example(batch *b, size_t i, const json_t *one, hone_err *e)
{
    const json_t *ids = json_object_get(one, "ids"), *mask = json_object_get(one, "mask");
    const json_t *row = json_object_get(one, "row");
    const char *hex = json_string_value(json_object_get(one, "id"));
    size_t n = tokens_of(one);
    if (hex == NULL || strlen(hex) != ID_DIGITS || strspn(hex, "0123456789abcdef") != ID_DIGITS)
        return hone_fail(e, HONE_EINVAL, "examples[%zu]: id must be 16 hex digits", i);
    if (n == 0 || (mask != NULL && json_array_size(mask) != n))
        return hone_fail(e, HONE_EINVAL, "examples[%zu]: ids and mask must be lists of one length",
                         i);
    b->id[i] = strtoull(hex, NULL, 16);
    b->row[i] = row != NULL ? (uint64_t)json_integer_value(row) : i;
    b->weight[i] = 1;
    for (size_t k = 0; k < n; k++) {
        b->ids[b->n + k] = ids != NULL ? (int32_t)json_integer_value(json_array_get(ids, k)) : 1;
        b->mask[b->n + k] = mask == NULL || json_integer_value(json_array_get(mask, k)) != 0;
    }
    b->n += n;
    b->bound[i + 1] = b->n;
    return 0;
}

static int read_batch(batch *b, const json_t *data, hone_err *e)
{
    const json_t *examples = json_object_get(data, "examples");
    size_t most = 0, n = json_array_size(examples);
    int rc = 0;
    if (n == 0)
        return hone_fail(e, HONE_EINVAL, "train.batch: data has a list of examples");
    for (size_t i = 0; i < n; i++)
        most += tokens_of(json_array_get(examples, i));
    b->n_examples = n;
    b->ids = mem_array(most + 1, sizeof *b->ids);
    b->mask = mem_array(most + 1, sizeof *b->mask);
    b->bound = mem_array(n + 1, sizeof *b->bound);
    b->row = mem_array(n, sizeof *b->row);
    b->id = mem_array(n, sizeof *b->id);
    b->weight = mem_array(n, sizeof *b->weight);
    b->bound[0] = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = read_example(b, i, json_array_get(examples, i), e);
    return rc;
}

static int emit_batch(hooks *h, const batch *b, const json_t *data, json_t **out, hone_err *e)
{
    size_t m = b->n_examples;
    const json_t *step = json_object_get(data, "step");
    const hook_batch in = {.ids = fenced(b->ids, b->n * sizeof *b->ids, true),
                           .mask = fenced(b->mask, b->n * sizeof *b->mask, true),
                           .n = b->n,
                           .n_examples = m,
                           .bound = fenced(b->bound, (m + 1) * sizeof *b->bound, true),
                           .row = fenced(b->row, m * sizeof *b->row, true),
                           .step = step != NULL ? json_integer_value(step) : 1,
                           .id = fenced(b->id, m * sizeof *b->id, true)};
    float *weight = fenced(b->weight, m * sizeof *b->weight, false);
    const hook_view v = {.batch = &in, .values = weight, .n_values = m};
    int rc = hook_emit_view(h, HOOK_TRAIN_BATCH, &v, e);
    for (size_t i = 0; rc == 0 && i < m; i++)
        if (!(weight[i] >= 0 && weight[i] < INFINITY))
            rc = hone_fail(e, HONE_EINVAL, "weight %zu is %g, must be finite and not below 0", i,
                           (double)weight[i]);
    if (rc == 0)
        *out = values_of(weight, m);
    return rc;
}

static int call_batch(hooks *h, const json_t *data, json_t **out, hone_err *e)
{
    batch b = {0};
    int rc = read_batch(&b, data, e);
    if (rc == 0)
        rc = emit_batch(h, &b, data, out, e);
    batch_free(&b);
    return rc;
}

/* ---- serve.logits ---- */

static int call_logits(hooks *h, const json_t *data, json_t **out, hone_err *e)
{
    const json_t *row = json_object_get(data, "row"), *ids = json_object_get(data, "ids");
    size_t n = json_array_size(row), n_ids = json_array_size(ids);
    if (n == 0)
        return hone_fail(e, HONE_EINVAL, "serve.logits: data has a list of numbers, row");
    float *from = mem_array(n, sizeof *from);
    int32_t *before = ids_of(ids);
    for (size_t i = 0; i < n; i++)
        from[i] = (float)json_number_value(json_array_get(row, i));
    const hook_logits in = {.ids = fenced(before, n_ids * sizeof *before, true),
                            .n_ids = n_ids,
                            .step = json_integer_value(json_object_get(data, "step"))};
    float *values = fenced(from, n * sizeof *from, false);
    free(from);
    free(before);
    const hook_view v = {.logits = &in, .values = values, .n_values = n};
    int rc = hook_emit_view(h, HOOK_SERVE_LOGITS, &v, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (isnan(values[i]))
            rc = hone_fail(e, HONE_EINVAL, "logit %zu is not a number", i);
    if (rc == 0)
        *out = values_of(values, n);
    return rc;
}

int plugin_view_call(hooks *h, hook_point p, const json_t *data, json_t **out, hone_err *e)
{
    json_t *own = data == NULL ? example_of(p) : NULL, *made = NULL;
    int rc =
        (p == HOOK_TRAIN_BATCH ? call_batch : call_logits)(h, own != NULL ? own : data, &made, e);
    json_decref(own);
    if (out != NULL)
        *out = made;
    else
        json_decref(made);
    return rc;
}
