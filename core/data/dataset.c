#include "core/data/dataset.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/data/encode.h"
#include "core/data/formats.h"
#include "core/data/prep.h"
#include "core/data/source.h"

#include <stdlib.h>
#include <string.h>

typedef struct loader {
    dataset *d;
    const data_options *o;
    format_spec spec;
    const format *format; /* of this source; NULL until a record was seen */
    uint32_t source;
    uint64_t id; /* of the record at hand */
    size_t n_too_long;
    char first[160]; /* where the first row that is too long stands */
} loader;

/* ---- the store ---- */

static int store_tokens(dataset *d, const encoded *x, hone_err *e)
{
    size_t need = d->n_tokens + x->n;
    if (need > DATA_MAX_TOKENS)
        return hone_fail(e, HONE_ELIMIT, "more than %zu tokens of data", DATA_MAX_TOKENS);
    if (need > d->cap_tokens) {
        size_t cap = need + need / 2 + 4096;
        int32_t *ids = realloc(d->ids, cap * sizeof *ids);
        d->ids = ids != NULL ? ids : d->ids;
        uint8_t *mask = realloc(d->mask, cap);
        d->mask = mask != NULL ? mask : d->mask;
        if (ids == NULL || mask == NULL)
            return hone_fail(e, HONE_ENOMEM, "no memory for %zu tokens of data", cap);
        d->cap_tokens = cap;
    }
    memcpy(d->ids + d->n_tokens, x->id, x->n * sizeof *x->id);
    memcpy(d->mask + d->n_tokens, x->mask, x->n);
    d->n_tokens = need;
    return 0;
}

static int64_t count_targets(const uint8_t *mask, size_t n)
{
    int64_t targets = 0;
    for (size_t i = 1; i < n; i++)
        targets += mask[i] != 0;
    return targets;
}

static size_t add_sample(dataset *d, size_t start, size_t n)
{
    int64_t targets = count_targets(d->mask + start, n);
    if (targets == 0)
        return 0;
    d->samples = mem_grow(d->samples, &d->cap_samples, d->n_samples + 1, sizeof *d->samples);
    d->samples[d->n_samples++] = (data_sample){start, (int64_t)n, targets, (uint32_t)d->n_rows};
    return 1;
}

/* The row's samples: itself, or pieces of at most max tokens that share one token with the piece
 * before. */
static size_t add_samples(dataset *d, size_t n, size_t max)
{
    size_t start = d->n_tokens - n, made = 0;
    for (size_t at = 0; at == 0 || at + 1 < n; at += max - 1)
        made += add_sample(d, start + at, n - at < max ? n - at : max);
    return made;
}

static void reject(loader *l, int64_t line, const char *reason)
{
    dataset *d = l->d;
    d->rejects = mem_grow(d->rejects, &d->cap_rejects, d->n_rejects + 1, sizeof *d->rejects);
    d->rejects[d->n_rejects++] = (data_reject){l->source, line, mem_strdup(reason)};
    d->sources[l->source].n_rejected++;
}

/* ---- one record ---- */

/* 0 keeps the row; EFORMAT rejects it. */
static int hold_length(loader *l, encoded *x, int64_t line, bool all, hone_err *e)
{
    size_t max = (size_t)l->o->sequence_len, n = x->n;
    int rc = 0;
    if ((int64_t)n > l->d->longest)
        l->d->longest = (int64_t)n;
    if (n > max && l->o->excess == DATA_TRUNCATE)
        rc = encode_truncate(x, max, e);
    if (all && rc == 0)
        encoded_all(x);
    if (rc != 0 || n <= max || l->o->excess == DATA_SPLIT)
        return rc;
    if (l->o->excess == DATA_TRUNCATE) {
        l->d->n_truncated++;
        l->d->n_tokens_cut += n - x->n;
        return 0;
    }
    if (l->o->excess == DATA_ERROR && l->n_too_long++ == 0)
        snprintf(l->first, sizeof l->first, "%.120s:%lld", l->d->sources[l->source].path,
                 (long long)line);
    return hone_fail(e, HONE_EFORMAT, "%zu tokens, more than sequence_len %zu", n, max);
}

static uint64_t text_hash(const char *text, size_t len)
{
    char hex[65];
    bytes_sha256(hex, text, len);
    hex[16] = '\0';
    return strtoull(hex, NULL, 16);
}

static uint64_t record_hash(const json_t *record)
{
    char *text = js_text(record, true);
    uint64_t hash = text_hash(text, strlen(text));
    free(text);
    return hash;
}

/* data_row.id of a record as it was read. */
static uint64_t record_id(const json_t *raw, hooks *h)
{
    const json_t *id = json_object_get(raw, "id");
    char number[32];
    if (!hook_wanted(h, HOOK_DATA_SPLIT) && !hook_wanted(h, HOOK_TRAIN_BATCH))
        return 0;
    if (json_is_string(id))
        return text_hash(json_string_value(id), json_string_length(id));
    if (!json_is_integer(id))
        return record_hash(raw);
    snprintf(number, sizeof number, "%lld", (long long)json_integer_value(id));
    return text_hash(number, strlen(number));
}

static int keep(loader *l, const encoded *x, data_row row, hone_err *e)
{
    dataset *d = l->d;
    if (d->n_rows == DATA_MAX_ROWS)
        return hone_fail(e, HONE_ELIMIT, "more than %zu rows of data", DATA_MAX_ROWS);
    int rc = store_tokens(d, x, e);
    if (rc != 0)
        return rc;
    size_t made = add_samples(d, x->n, (size_t)l->o->sequence_len);
    if (made == 0) {
        d->n_tokens -= x->n;
        reject(l, row.line, "there is no token to learn after another");
        return 0;
    }
    d->n_split += made > 1;
    d->rows = mem_grow(d->rows, &d->cap_rows, d->n_rows + 1, sizeof *d->rows);
    d->rows[d->n_rows++] = row;
    d->sources[l->source].n_used++;
    return 0;
}

/* Refused records and what this row alone has wrong become rejects; the rest ends the run. */
static int settle(loader *l, int64_t line, int rc, const hone_err *why, hone_err *e)
{
    if (rc == 0)
        return 0;
    if (rc == HONE_ENOMEM || rc == HONE_EINTERNAL || rc == HONE_EIO)
        return hone_fail(e, rc, "%s:%lld: %s", l->d->sources[l->source].path, (long long)line,
                         why->msg);
    reject(l, line, why->msg);
    return 0;
}

/* A subscriber that fails is not a reason to lose a row: only a veto rejects it. */
static int hook_result(int rc, hone_err *why)
{
    return rc == 0 || rc == HONE_EVETO ? rc : hone_fail(why, HONE_EINTERNAL, "%s", why->msg);
}

/* Tokens of a record that was kept, and the part it goes to. 0 or what settle judges. */
static int make_tokens(loader *l, const prep *p, json_t *record, encoded *x, data_row *row,
                       hone_err *why)
{
    bool all = l->spec.train_on_inputs >= 0 ? l->spec.train_on_inputs != 0 : l->o->train_on_inputs;
    *row = (data_row){l->source, p->line, record_hash(record), l->id, DATA_PART_AUTO};
    int rc = hook_result(prep_split(p, record, &row->hash, &row->part, why), why);
    if (rc == 0)
        rc = encode_record(x, record, l->o, p, why);
    return rc == 0 ? hold_length(l, x, p->line, all, why) : rc;
}

/* Takes the reference of record. */
static int take_canonical(loader *l, json_t *record, int64_t line, hone_err *e)
{
    hone_err why = {0};
    encoded x = {0};
    data_row row;
    const prep p = {l->o->hooks, l->d->sources[l->source].path, line, l->id};
    int rc = 0;
    if (json_object_get(record, "messages") != NULL && l->o->chat == NULL)
        rc = hone_fail(e, HONE_ENOTFOUND, "%s:%lld: a conversation needs a chat template: %s",
                       p.source, (long long)line, l->o->no_chat);
    if (rc == 0) {
        rc = hook_result(prep_record(&p, &record, &why), &why);
        if (rc == 0)
            rc = make_tokens(l, &p, record, &x, &row, &why);
        rc = rc == 0 ? keep(l, &x, row, e) : settle(l, line, rc, &why, e);
    }
    encoded_free(&x);
    json_decref(record);
    return rc;
}

static int take_raw(loader *l, const json_t *raw, int64_t line, hone_err *e)
{
    hone_err why = {0};
    json_t *record = NULL;
    int rc = 0;
    if (!json_is_object(raw))
        rc = hone_fail(&why, HONE_EFORMAT, "the record is not a JSON object");
    if (rc == 0 && l->format == NULL) {
        rc = format_detect(&l->format, raw, &l->spec, &why);
        if (rc == 0)
            l->d->sources[l->source].format = l->format->name;
        else if (rc == HONE_EUNSUPPORTED) /* the whole file is of another kind */
            return hone_fail(e, rc, "%s:%lld: %s", l->d->sources[l->source].path, (long long)line,
                             why.msg);
    }
    if (rc == 0)
        rc = l->format->convert(&record, raw, &l->spec, &why);
    if (rc == 0)
        return take_canonical(l, record, line, e);
    json_decref(record);
    return settle(l, line, rc, &why, e);
}

/* data.record may turn one record into several, or none. */
static int take_record(loader *l, json_t *raw, int64_t line, hone_err *e)
{
    hone_err why = {0};
    json_t *data = json_incref(raw), *one;
    size_t i;
    l->id = record_id(raw, l->o->hooks);
    int rc = hook_result(hook_emit(l->o->hooks, HOOK_DATA_RECORD, &data, &why), &why);
    if (rc != 0) {
        rc = settle(l, line, rc, &why, e);
    } else if (!json_is_array(data)) {
        rc = take_raw(l, data, line, e);
    } else {
        if (json_array_size(data) == 0)
            reject(l, line, "data.record: a subscriber made no record of it");
        json_array_foreach (data, i, one) {
            if (rc == 0)
                rc = take_raw(l, one, line, e);
        }
    }
    json_decref(data);
    return rc;
}

/* ---- one source ---- */

static int announce(loader *l, data_source *s, hone_err *e)
{
    int rc = file_sha256(s->sha256, s->path, e);
    if (rc != 0)
        return rc;
    s->about = json_pack("{s:s, s:s, s:s}", "path", s->path, "sha256", s->sha256, "type",
                         l->spec.format != NULL ? l->spec.format->name : "auto");
    rc = hook_emit(l->o->hooks, HOOK_DATA_OPEN, &s->about, e);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", s->path);
}

static int read_source(loader *l, const json_t *entry, hone_err *e)
{
    data_source *s = &l->d->sources[l->source];
    source *in = NULL;
    source_record r = {.got = SOURCE_RECORD};
    int rc = format_spec_read(&l->spec, entry, e);
    if (rc != 0)
        return hone_fail_at(e, "datasets: entry %u", l->source + 1);
    s->path = mem_strdup(l->spec.path);
    l->format = l->spec.format;
    s->format = l->format != NULL ? l->format->name : "auto";
    l->d->n_sources++;
    rc = source_open(&in, s->path, (source_kind)l->spec.kind, (source_unit)l->spec.unit, e);
    if (rc == 0)
        rc = announce(l, s, e);
    while (rc == 0 && r.got != SOURCE_END) {
        rc = source_next(in, &r, e);
        if (rc == 0 && r.got == SOURCE_BAD)
            reject(l, r.line, r.why.msg);
        else if (rc == 0 && r.got == SOURCE_RECORD)
            rc = take_record(l, r.value, r.line, e);
        json_decref(r.value);
    }
    source_close(in);
    return rc;
}

/* ---- all of it ---- */

static int check_usable(const loader *l, hone_err *e)
{
    const dataset *d = l->d;
    size_t n_rows = d->n_rows + d->n_rejects;
    if (l->n_too_long > 0 && !l->o->list_too_long)
        return hone_fail(e, HONE_ELIMIT,
                         "%zu of %zu rows are longer than sequence_len %lld (the longest has %lld "
                         "tokens, the first is %s); raise sequence_len, or set "
                         "excess_length_strategy to drop, truncate or split",
                         l->n_too_long, n_rows, (long long)l->o->sequence_len,
                         (long long)d->longest, l->first);
    for (size_t i = 0; i < d->n_sources && !l->o->list_too_long; i++) {
        const data_source *in = &d->sources[i];
        if (in->n_used > 0)
            continue;
        const data_reject *first = d->rejects;
        if (in->n_rejected == 0)
            return hone_fail(e, HONE_EFORMAT, "%s: there is no record in it", in->path);
        while (first->source != i)
            first++;
        return hone_fail(e, HONE_EFORMAT, "%s: none of %zu rows is usable; line %lld: %s", in->path,
                         in->n_rejected, (long long)first->line, first->reason);
    }
    return 0;
}

int dataset_open(dataset **out, const json_t *entries, const data_options *o, hone_err *e)
{
    json_t *list =
        json_is_array(entries) ? json_incref((json_t *)entries) : json_pack("[O]", entries);
    size_t n = json_array_size(list);
    int rc = 0;
    *out = NULL;
    if (n == 0 || n > DATA_MAX_SOURCES) {
        json_decref(list);
        return hone_fail(e, n == 0 ? HONE_EINVAL : HONE_ELIMIT,
                         "datasets: %zu entries, must be 1 to %d", n, DATA_MAX_SOURCES);
    }
    loader l = {.d = mem_alloc(sizeof(dataset)), .o = o};
    l.d->sources = mem_array(n, sizeof *l.d->sources);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        l.source = (uint32_t)i;
        rc = read_source(&l, json_array_get(list, i), e);
    }
    if (rc == 0)
        rc = check_usable(&l, e);
    json_decref(list);
    if (rc != 0)
        dataset_close(l.d);
    else
        *out = l.d;
    return rc;
}

void dataset_close(dataset *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->n_rejects; i++)
        free(d->rejects[i].reason);
    for (size_t i = 0; i < d->n_sources; i++) {
        free(d->sources[i].path);
        json_decref(d->sources[i].about);
    }
    free(d->ids);
    free(d->mask);
    free(d->samples);
    free(d->rows);
    free(d->rejects);
    free(d->sources);
    free(d);
}

static int write_reject(file_out *f, const dataset *d, const data_reject *r, hone_err *e)
{
    json_t *o = json_pack("{s:s, s:I, s:s}", "file", d->sources[r->source].path, "line",
                          (json_int_t)r->line, "reason", r->reason);
    if (o == NULL) /* the reason quotes bytes that are not UTF-8 */
        o = json_pack("{s:s, s:I, s:s}", "file", d->sources[r->source].path, "line",
                      (json_int_t)r->line, "reason", "not UTF-8");
    char *text = js_text(o, false);
    int rc = file_out_write(f, text, strlen(text), e);
    if (rc == 0)
        rc = file_out_write(f, "\n", 1, e);
    free(text);
    json_decref(o);
    return rc;
}

int dataset_write_rejects(const dataset *const *sets, size_t n, const char *path, hone_err *e)
{
    file_out *f;
    int rc = file_out_open(&f, path, 0644, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; rc == 0 && sets[i] != NULL && k < sets[i]->n_rejects; k++)
            rc = write_reject(f, sets[i], &sets[i]->rejects[k], e);
    if (rc == 0)
        return file_out_commit(f, e);
    file_out_abort(f);
    return rc;
}

json_t *dataset_sources(const dataset *d)
{
    json_t *list = json_array();
    for (size_t i = 0; i < d->n_sources; i++) {
        const data_source *s = &d->sources[i];
        json_t *o = json_is_object(s->about) ? json_deep_copy(s->about) : json_object();
        json_t *own = json_pack("{s:s, s:s, s:s, s:I, s:I}", "path", s->path, "sha256", s->sha256,
                                "format", s->format, "rows", (json_int_t)s->n_used, "rejected",
                                (json_int_t)s->n_rejected);
        json_object_del(o, "type");
        json_object_update(o, own);
        json_decref(own);
        json_array_append_new(list, o);
    }
    return list;
}
