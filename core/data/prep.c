#include "core/data/prep.h"

#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 48 }; /* bytes of text that data.pii shows on either side */

/* ---- the texts of a record ---- */

typedef struct place {
    json_t *holder;  /* object, borrowed */
    const char *key; /* of the text in it */
    char name[64];   /* "messages[2].content" */
    const char *role;
} place;

typedef struct places {
    place *items;
    size_t n, cap;
} places;

static void add_place(places *l, json_t *holder, const char *key, const char *role, size_t i)
{
    if (!json_is_string(json_object_get(holder, key)))
        return;
    l->items = mem_grow(l->items, &l->cap, l->n + 1, sizeof *l->items);
    place *p = &l->items[l->n++];
    *p = (place){.holder = holder, .key = key, .role = role};
    if (role != NULL)
        snprintf(p->name, sizeof p->name, "messages[%zu].%s", i, key);
    else
        snprintf(p->name, sizeof p->name, "%s", key);
}

static places find_places(json_t *record)
{
    static const char *const keys[] = {"text", "prompt", "completion"};
    places l = {0};
    json_t *m;
    size_t i;
    for (i = 0; i < sizeof keys / sizeof *keys; i++)
        add_place(&l, record, keys[i], NULL, 0);
    json_array_foreach (json_object_get(record, "messages"), i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        add_place(&l, m, "content", role != NULL ? role : "", i);
    }
    return l;
}

static json_t *text_at(const place *p)
{
    return json_object_get(p->holder, p->key);
}

/* The record is ours alone to change from here on. */
static void own(json_t **record)
{
    json_t *copy = json_deep_copy(*record);
    json_decref(*record);
    *record = copy;
}

/* ---- data.normalize ---- */

static int normalize_one(const prep *p, const place *at, hone_err *e)
{
    json_t *data = json_pack("{s:O, s:s, s:s?, s:s, s:I}", "text", text_at(at), "field", at->name,
                             "role", at->role, "source", p->source, "line", (json_int_t)p->line);
    int rc = hook_emit(p->hooks, HOOK_DATA_NORMALIZE, &data, e);
    json_t *text = json_object_get(data, "text");
    if (rc == 0 && json_is_string(text))
        json_object_set(at->holder, at->key, text);
    else if (rc == 0) /* fails open, as the point does */
        log_warn("data", "data.normalize: %s:%lld: %s was left without a text and stays", p->source,
                 (long long)p->line, at->name);
    json_decref(data);
    return rc;
}

static int normalize(const prep *p, json_t **record, hone_err *e)
{
    if (!hook_wanted(p->hooks, HOOK_DATA_NORMALIZE))
        return 0;
    own(record);
    places l = find_places(*record);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < l.n; i++)
        rc = normalize_one(p, &l.items[i], e);
    free(l.items);
    return rc;
}

/* ---- data.tag, data.filter ---- */

static json_t *about(const prep *p, json_t *record, json_t *tags)
{
    return json_pack("{s:O, s:s, s:I, s:O}", "record", record, "source", p->source, "line",
                     (json_int_t)p->line, "tags", tags);
}

/* *tags is a new reference in every case. */
static int tag(const prep *p, json_t *record, json_t **tags, hone_err *e)
{
    *tags = json_object();
    if (!hook_wanted(p->hooks, HOOK_DATA_TAG))
        return 0;
    json_t *data = about(p, record, *tags);
    int rc = hook_emit(p->hooks, HOOK_DATA_TAG, &data, e);
    json_t *made = json_object_get(data, "tags");
    if (rc == 0 && json_is_object(made)) {
        json_decref(*tags);
        *tags = json_incref(made);
    }
    json_decref(data);
    return rc;
}

static int filter(const prep *p, json_t *record, json_t *tags, hone_err *e)
{
    if (!hook_wanted(p->hooks, HOOK_DATA_FILTER))
        return 0;
    json_t *data = about(p, record, tags);
    int rc = hook_emit(p->hooks, HOOK_DATA_FILTER, &data, e);
    json_decref(data);
    return rc;
}

/* ---- data.pii ---- */

typedef struct span {
    const place *at;
    size_t start, end;
    const char *kind;
} span;

static bool at_border(const char *text, size_t i)
{
    return ((unsigned char)text[i] & 0xc0) != 0x80;
}

static int read_span(span *out, const json_t *v, const places *l, size_t i, hone_err *e)
{
    const char *field = json_string_value(json_object_get(v, "field"));
    const json_t *start = json_object_get(v, "start"), *end = json_object_get(v, "end");
    *out = (span){.kind = json_string_value(json_object_get(v, "kind"))};
    for (size_t k = 0; field != NULL && k < l->n; k++)
        if (strcmp(l->items[k].name, field) == 0)
            out->at = &l->items[k];
    if (out->at == NULL || out->kind == NULL || !json_is_integer(start) || !json_is_integer(end))
        return hone_fail(e, HONE_EFORMAT,
                         "data.pii: span %zu of tags.pii needs field (of a text of the record), "
                         "start, end and kind",
                         i);
    const json_t *text = text_at(out->at);
    json_int_t a = json_integer_value(start), b = json_integer_value(end);
    if (a < 0 || b <= a || b > (json_int_t)json_string_length(text) ||
        !at_border(json_string_value(text), (size_t)a) ||
        !at_border(json_string_value(text), (size_t)b))
        return hone_fail(e, HONE_EFORMAT,
                         "data.pii: span %zu of tags.pii, [%lld, %lld), is no part of %s (%zu "
                         "bytes)",
                         i, (long long)a, (long long)b, field, json_string_length(text));
    out->start = (size_t)a;
    out->end = (size_t)b;
    return 0;
}

/* By text; later ones first, so that a replacement moves no span that is still to come; of two that
 * begin together the longer one first. */
static int by_place(const void *x, const void *y)
{
    const span *a = x, *b = y;
    if (a->at != b->at)
        return a->at < b->at ? -1 : 1;
    if (a->start != b->start)
        return a->start > b->start ? -1 : 1;
    return a->end > b->end ? -1 : a->end < b->end;
}

static json_t *default_replacement(const char *kind)
{
    char text[66] = "<";
    size_t n = 1;
    for (; *kind != '\0' && n < sizeof text - 2; kind++)
        text[n++] = *kind >= 'a' && *kind <= 'z' ? (char)(*kind - 'a' + 'A') : *kind;
    text[n++] = '>';
    return json_stringn(text, n);
}

static size_t back(const char *text, size_t at)
{
    size_t from = at > CONTEXT ? at - CONTEXT : 0;
    while (from < at && !at_border(text, from))
        from++;
    return from;
}

static size_t ahead(const char *text, size_t at, size_t len)
{
    size_t to = len - at > CONTEXT ? at + CONTEXT : len;
    while (to < len && to > at && !at_border(text, to))
        to--;
    return to;
}

static json_t *show_span(const prep *p, const span *s)
{
    const json_t *v = text_at(s->at);
    const char *text = json_string_value(v);
    size_t len = json_string_length(v), from = back(text, s->start), to = ahead(text, s->end, len);
    return json_pack("{s:s, s:s%, s:s%, s:s%, s:s, s:o, s:s, s:I}", "kind", s->kind, "span",
                     text + s->start, s->end - s->start, "before", text + from, s->start - from,
                     "after", text + s->end, to - s->end, "field", s->at->name, "replacement",
                     default_replacement(s->kind), "source", p->source, "line",
                     (json_int_t)p->line);
}

static int put_replacement(const span *s, const json_t *with, hone_err *e)
{
    const json_t *v = text_at(s->at);
    const char *text = json_string_value(v);
    size_t len = json_string_length(v), n = json_string_length(with);
    if (!json_is_string(with))
        return hone_fail(e, HONE_EFORMAT, "data.pii: the replacement of %s is not a text", s->kind);
    char *made = mem_alloc(len + n + 1);
    memcpy(made, text, s->start);
    memcpy(made + s->start, json_string_value(with), n);
    memcpy(made + s->start + n, text + s->end, len - s->end);
    json_object_set_new(s->at->holder, s->at->key,
                        json_stringn(made, len - (s->end - s->start) + n));
    free(made);
    return 0;
}

static int replace_span(const prep *p, const span *s, hone_err *e)
{
    json_t *data = show_span(p, s);
    if (data == NULL)
        return hone_fail(e, HONE_EFORMAT, "data.pii: a span of kind '%s' cannot be shown", s->kind);
    int rc = hook_emit(p->hooks, HOOK_DATA_PII, &data, e);
    if (rc == 0)
        rc = put_replacement(s, json_object_get(data, "replacement"), e);
    json_decref(data);
    return rc;
}

/* Of spans that overlap, the one that begins last and is longest there is replaced; what another
 * has left of its text goes with its own. */
static int replace_all(const prep *p, span *s, size_t n, hone_err *e)
{
    int rc = 0;
    qsort(s, n, sizeof *s, by_place);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        /* An earlier span that reaches into this one is joined with it, so that nothing of either
         * stays. */
        while (i + 1 < n && s[i + 1].at == s[i].at && s[i + 1].end > s[i].start) {
            s[i + 1].end = s[i].end > s[i + 1].end ? s[i].end : s[i + 1].end;
            i++;
        }
        rc = replace_span(p, &s[i], e);
    }
    return rc;
}

static int replace_pii(const prep *p, json_t **record, const json_t *tags, hone_err *e)
{
    const json_t *list = json_object_get(tags, "pii");
    size_t n = json_array_size(list);
    int rc = 0;
    if (!hook_wanted(p->hooks, HOOK_DATA_PII) || n == 0)
        return 0;
    own(record);
    places l = find_places(*record);
    span *s = mem_array(n, sizeof *s);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = read_span(&s[i], json_array_get(list, i), &l, i, e);
    if (rc == 0)
        rc = replace_all(p, s, n, e);
    free(s);
    free(l.items);
    return rc;
}

/* ---- all of it ---- */

int prep_record(const prep *p, json_t **record, hone_err *e)
{
    json_t *tags = NULL;
    int rc = normalize(p, record, e);
    if (rc == 0)
        rc = tag(p, *record, &tags, e);
    if (rc == 0)
        rc = filter(p, *record, tags, e);
    if (rc == 0)
        rc = replace_pii(p, record, tags, e);
    json_decref(tags);
    return rc;
}

static bool is_key(const char *text)
{
    return strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16;
}

/* Another row's key in its own form is that key; any other text is hashed. */
static int take_key(uint64_t *key, const char *was, const json_t *now, hone_err *e)
{
    char hex[65];
    if (!json_is_string(now) || json_string_length(now) == 0)
        return hone_fail(e, HONE_EFORMAT, "data.split: the key is no text");
    if (strcmp(json_string_value(now), was) == 0)
        return 0;
    if (is_key(json_string_value(now))) {
        *key = strtoull(json_string_value(now), NULL, 16);
        return 0;
    }
    bytes_sha256(hex, json_string_value(now), json_string_length(now));
    hex[16] = '\0';
    *key = strtoull(hex, NULL, 16);
    return 0;
}

int prep_split(const prep *p, json_t *record, uint64_t *key, data_part *out, hone_err *e)
{
    static const char *const names[] = {"train", "val", "none"};
    char hex[17], id[17];
    *out = DATA_PART_AUTO;
    if (!hook_wanted(p->hooks, HOOK_DATA_SPLIT))
        return 0;
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)*key);
    snprintf(id, sizeof id, "%016llx", (unsigned long long)p->id);
    json_t *data = json_pack("{s:O, s:s, s:I, s:s, s:s, s:n}", "record", record, "source",
                             p->source, "line", (json_int_t)p->line, "id", id, "key", hex, "split");
    int rc = hook_emit(p->hooks, HOOK_DATA_SPLIT, &data, e);
    const json_t *said = json_object_get(data, "split");
    const char *name = json_string_value(said);
    for (int i = 0; rc == 0 && name != NULL && i < 3; i++)
        if (strcmp(name, names[i]) == 0)
            *out = (data_part)(i + 1);
    if (rc == 0 && *out == DATA_PART_AUTO && said != NULL && !json_is_null(said))
        rc = hone_fail(e, HONE_EFORMAT, "data.split: '%.40s' is none of train, val and none",
                       name != NULL ? name : "what is no text");
    if (rc == 0)
        rc = take_key(key, hex, json_object_get(data, "key"), e);
    if (rc == 0 && *out == DATA_PART_NONE)
        rc = hone_fail(e, HONE_EVETO, "data.split: it goes to no part");
    json_decref(data);
    return rc;
}
