/* Views: which samples are trained on, which are held out. */
#include "core/data/dataset.h"

#include "core/base/file.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void view_add(data_view *v, uint32_t i)
{
    const data_sample *s = &v->d->samples[i];
    v->sample[v->n++] = i;
    v->n_tokens += s->n;
    v->n_targets += s->n_targets;
    if (s->n > v->longest)
        v->longest = s->n;
}

static void view_init(data_view *v, const dataset *d)
{
    *v = (data_view){.d = d, .sample = mem_array(d->n_samples, sizeof *v->sample)};
}

void data_view_all(data_view *v, const dataset *d)
{
    view_init(v, d);
    for (size_t i = 0; i < d->n_samples; i++)
        view_add(v, (uint32_t)i);
}

static int by_hash(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The largest hash that is held out when about `count` of the rows that nobody else placed are; *n
 * how many that makes. */
static uint64_t border(const dataset *d, size_t count, size_t *n)
{
    size_t n_free = 0;
    uint64_t *h = mem_array(d->n_rows, sizeof *h);
    for (size_t i = 0; i < d->n_rows; i++)
        if (d->rows[i].part == DATA_PART_AUTO)
            h[n_free++] = d->rows[i].hash;
    qsort(h, n_free, sizeof *h, by_hash);
    uint64_t last = h[count - 1];
    while (count < n_free && h[count] == last)
        count++;
    *n = count;
    free(h);
    return last;
}

static size_t n_rows_in(const dataset *d, data_part part)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n_rows; i++)
        n += d->rows[i].part == part;
    return n;
}

int data_view_split(data_view *train, data_view *val, const dataset *d, double size, hone_err *e)
{
    size_t n_free = n_rows_in(d, DATA_PART_AUTO), n_train = n_rows_in(d, DATA_PART_TRAIN), n = 0;
    double want = size < 1 ? fmax(1, round(size * (double)n_free)) : size;
    bool by_size = size > 0 && n_free > 0;
    uint64_t last = 0;
    *train = *val = (data_view){0};
    if (by_size && want < (double)n_free)
        last = border(d, (size_t)want, &n);
    if (by_size && (want >= (double)n_free || n == n_free) && n_train == 0)
        return hone_fail(e, HONE_EINVAL, "val_set_size %g of %zu rows leaves none to train on",
                         size, n_free);
    if (n_free + n_train == 0)
        return hone_fail(e, HONE_EINVAL, "data.split leaves none of %zu rows to train on",
                         d->n_rows);
    view_init(train, d);
    view_init(val, d);
    for (size_t i = 0; i < d->n_samples; i++) {
        const data_row *row = &d->rows[d->samples[i].row];
        bool held_out = row->part == DATA_PART_AUTO
                            ? by_size && (want >= (double)n_free || row->hash <= last)
                            : row->part == DATA_PART_VAL;
        view_add(held_out ? val : train, (uint32_t)i);
    }
    return 0;
}

void data_view_digest(char out[65], const data_view *v)
{
    char hex[3][65], all[3 * 64];
    int64_t *borders = mem_array(2 * v->n, sizeof *borders);
    for (size_t i = 0; i < v->n; i++) {
        borders[2 * i] = (int64_t)v->d->samples[v->sample[i]].start;
        borders[2 * i + 1] = v->d->samples[v->sample[i]].n;
    }
    bytes_sha256(hex[0], v->d->ids, v->d->n_tokens * sizeof *v->d->ids);
    bytes_sha256(hex[1], v->d->mask, v->d->n_tokens);
    bytes_sha256(hex[2], borders, 2 * v->n * sizeof *borders);
    for (int i = 0; i < 3; i++)
        memcpy(all + (size_t)i * 64, hex[i], 64);
    bytes_sha256(out, all, sizeof all);
    free(borders);
}

void data_view_free(data_view *v)
{
    free(v->sample);
    *v = (data_view){0};
}
