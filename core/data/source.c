/* The file is mapped, and one record at a time is parsed: a file of any size costs one record of
 * memory. */
#include "core/data/source.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct source {
    file_map map;
    size_t at;    /* next byte */
    int64_t line; /* of that byte, 1 is the first */
    char *path;
    int (*next)(source *s, source_record *r, hone_err *e);
    source_unit unit;
    bool first; /* array: no element has been read yet */
    bool done;
};

static bool blank(unsigned char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void skip_blank(source *s)
{
    for (; s->at < s->map.len && blank(s->map.data[s->at]); s->at++)
        s->line += s->map.data[s->at] == '\n';
}

/* ---- JSON ---- */

static void take_json(source *s, source_record *r, size_t start, size_t end)
{
    r->why = (hone_err){0};
    int rc = js_parse(&r->value, (const char *)s->map.data + start, end - start, &r->why);
    if (rc == 0 && !json_is_object(r->value)) {
        json_decref(r->value);
        r->value = NULL;
        rc = hone_fail(&r->why, HONE_EFORMAT, "the record is not a JSON object");
    }
    r->got = rc == 0 ? SOURCE_RECORD : SOURCE_BAD;
}

static int next_jsonl(source *s, source_record *r, hone_err *e)
{
    (void)e;
    skip_blank(s);
    r->line = s->line;
    if (s->at == s->map.len)
        return 0;
    size_t start = s->at;
    const unsigned char *nl = memchr(s->map.data + start, '\n', s->map.len - start);
    size_t end = nl != NULL ? (size_t)(nl - s->map.data) : s->map.len;
    s->at = end;
    take_json(s, r, start, end);
    return 0;
}

/* Steps over one JSON value without understanding it: brackets are counted, strings are stepped
 * over. Returns false at the end of the file. */
static bool skip_value(source *s)
{
    int64_t depth = 0;
    bool string = false;
    for (; s->at < s->map.len; s->at++) {
        unsigned char c = s->map.data[s->at];
        s->line += c == '\n';
        if (string) {
            if (c == '\\')
                s->at++;
            string = c != '"';
        } else if (c == '"') {
            string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (((c == '}' || c == ']') && depth-- == 0) || (c == ',' && depth == 0)) {
            return true;
        }
    }
    s->at = s->map.len;
    return false;
}

static int broken(const source *s, const char *what, hone_err *e)
{
    return hone_fail(e, HONE_EFORMAT, "%s:%lld: %s", s->path, (long long)s->line, what);
}

static int next_element(source *s, source_record *r, hone_err *e)
{
    if (s->first)
        s->at++; /* the bracket */
    skip_blank(s);
    if (s->at == s->map.len)
        return s->done ? 0 : broken(s, "the JSON array is not closed", e);
    if (s->done)
        return broken(s, "there is text after the JSON array", e);
    unsigned char c = s->map.data[s->at];
    if (c == ']' && !s->first) {
        s->done = true;
        s->at++;
        return next_element(s, r, e);
    }
    if (c == ']') {
        s->first = false;
        return next_element(s, r, e);
    }
    if (!s->first && c != ',')
        return broken(s, "a ',' or ']' belongs here", e);
    if (!s->first)
        s->at++;
    s->first = false;
    skip_blank(s);
    size_t start = s->at;
    r->line = s->line;
    if (!skip_value(s))
        return broken(s, "the JSON array is not closed", e);
    take_json(s, r, start, s->at);
    return 0;
}

/* ---- text ---- */

static void take_text(source *s, source_record *r, size_t start, size_t end)
{
    const char *text = (const char *)s->map.data + start;
    size_t n = end - start;
    r->why = (hone_err){0};
    r->got = SOURCE_BAD;
    if (n > JS_MAX_BYTES) {
        hone_fail(&r->why, HONE_ELIMIT, "a text of %zu bytes, at most %d are read", n,
                  JS_MAX_BYTES);
    } else if (utf8_valid(text, n) != n) {
        hone_fail(&r->why, HONE_EFORMAT, "not UTF-8 from byte %zu on", utf8_valid(text, n));
    } else {
        r->got = SOURCE_RECORD;
        r->value = json_pack("{s:o}", "text", json_stringn_nocheck(text, n));
    }
}

/* The end of the line at `at`, without its terminator. */
static size_t line_end(const source *s, size_t at, size_t *next)
{
    const unsigned char *nl = memchr(s->map.data + at, '\n', s->map.len - at);
    size_t end = nl != NULL ? (size_t)(nl - s->map.data) : s->map.len;
    *next = nl != NULL ? end + 1 : end;
    return end > at && s->map.data[end - 1] == '\r' ? end - 1 : end;
}

static bool blank_line(const source *s, size_t at, size_t end)
{
    while (at < end && blank(s->map.data[at]))
        at++;
    return at == end;
}

/* A record is what stands between blank lines; with `one` it is a single line. */
static void next_lines(source *s, source_record *r, bool one)
{
    size_t next = s->at, start = s->at, end;
    for (; s->at < s->map.len; s->at = next, s->line++) {
        start = s->at;
        end = line_end(s, start, &next);
        if (!blank_line(s, start, end))
            break;
    }
    r->line = s->line;
    if (s->at == s->map.len)
        return;
    size_t last = start;
    while (s->at < s->map.len) {
        end = line_end(s, s->at, &next);
        if (blank_line(s, s->at, end))
            break;
        last = end;
        s->at = next;
        s->line++;
        if (one)
            break;
    }
    take_text(s, r, start, last);
}

static int next_text(source *s, source_record *r, hone_err *e)
{
    (void)e;
    if (s->unit != SOURCE_DOCUMENT) {
        next_lines(s, r, s->unit == SOURCE_LINE);
        return 0;
    }
    r->line = 1;
    if (s->at < s->map.len && !blank_line(s, s->at, s->map.len))
        take_text(s, r, s->at, s->map.len);
    s->at = s->map.len;
    return 0;
}

int source_next(source *s, source_record *r, hone_err *e)
{
    *r = (source_record){.got = SOURCE_END};
    return s->next(s, r, e);
}

/* ---- which kind of file ---- */

/* clang-format off */
static const struct { const char *ext; source_kind kind; const char *advice; } kinds[] = {
    {".jsonl", SOURCE_JSON, NULL},   {".ndjson", SOURCE_JSON, NULL}, {".json", SOURCE_JSON, NULL},
    {".txt", SOURCE_TEXT, NULL},
    {".gz", 0, "unpack it first"},   {".zst", 0, "unpack it first"}, {".xz", 0, "unpack it first"},
    {".zip", 0, "unpack it first"},  {".bz2", 0, "unpack it first"},
    {".parquet", 0, "write it as JSON Lines"}, {".arrow", 0, "write it as JSON Lines"},
    {".csv", 0, "write it as JSON Lines"},     {".tsv", 0, "write it as JSON Lines"},
};
/* clang-format on */

static int kind_by_name(source_kind *out, const char *path, hone_err *e)
{
    const char *dot = strrchr(path_base(path), '.');
    for (size_t i = 0; dot != NULL && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcasecmp(dot, kinds[i].ext) != 0)
            continue;
        if (kinds[i].advice != NULL)
            return hone_fail(e, HONE_EUNSUPPORTED, "%s: '%s' files are not read; %s", path,
                             kinds[i].ext, kinds[i].advice);
        *out = kinds[i].kind;
        return 0;
    }
    return hone_fail(e, HONE_EUNSUPPORTED,
                     "%s: what is in it? .jsonl, .json and .txt are read by their names; set "
                     "'ds_type' to json or text for others",
                     path);
}

int source_open(source **out, const char *path, source_kind kind, source_unit unit, hone_err *e)
{
    *out = NULL;
    if (file_is_dir(path))
        return hone_fail(e, HONE_EUNSUPPORTED, "%s: a directory; name its files", path);
    int rc = kind == SOURCE_BY_NAME ? kind_by_name(&kind, path, e) : 0;
    if (rc != 0)
        return rc;
    source *s = mem_alloc(sizeof *s);
    rc = file_map_open(&s->map, path, e);
    if (rc != 0) {
        free(s);
        return rc;
    }
    s->path = mem_strdup(path);
    s->line = 1;
    s->unit = unit;
    s->first = true;
    if (s->map.len >= 3 && memcmp(s->map.data, "\xEF\xBB\xBF", 3) == 0)
        s->at = 3;
    s->next = next_text;
    if (kind == SOURCE_JSON) {
        skip_blank(s);
        s->next = s->at < s->map.len && s->map.data[s->at] == '[' ? next_element : next_jsonl;
    }
    *out = s;
    return 0;
}

void source_close(source *s)
{
    if (s == NULL)
        return;
    file_map_close(&s->map);
    free(s->path);
    free(s);
}
