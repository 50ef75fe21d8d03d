/* Reads libyaml's events, not its documents: those forget whether a tag was written ("!!str 1" and
 * 1 are one there), and load aliases as a graph that may have cycles. */
#include "core/base/yaml.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

enum { MAX_VALUES = 100000, MAX_BYTES = 16 << 20 };

typedef struct anchor {
    char *name;
    json_t *value;
    size_t n_values;
} anchor;

typedef struct reader {
    yaml_parser_t p;
    const char *text;
    size_t len;
    json_t *lines;   /* may be NULL */
    anchor *anchors; /* in the order of the text: the last of a name counts */
    size_t n_anchors, cap_anchors, n_values;
    hone_err *e;
} reader;

static bool one_of(const char *s, const char *const *words)
{
    for (size_t i = 0; words[i] != NULL; i++)
        if (strcasecmp(s, words[i]) == 0)
            return true;
    return false;
}

/* Made only of what a decimal number is made of, so that strtod's "inf" and "0x" forms stay
 * strings, and 007 too: it is a name more often than a seven. */
static bool looks_numeric(const char *s)
{
    const char *digits = s + (*s == '+' || *s == '-');
    if (digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9')
        return false;
    return s[strspn(s, "0123456789+-.eE")] == '\0' && strpbrk(s, "0123456789") != NULL;
}

static json_t *number(const char *s)
{
    char *end;
    errno = 0;
    long long i = strtoll(s, &end, 10);
    if (*end == '\0')
        return errno == 0 ? json_integer(i) : NULL;
    double d = strtod(s, &end);
    return *end == '\0' && isfinite(d) ? json_real(d) : NULL;
}

json_t *yaml_scalar(const char *text, size_t len)
{
    static const char *const nulls[] = {"", "~", "null", NULL};
    static const char *const yes[] = {"true", "yes", "on", NULL};
    static const char *const no[] = {"false", "no", "off", NULL};
    char *s = mem_strndup(text, len);
    json_t *v = NULL;
    if (strlen(s) != len)
        v = NULL;
    else if (one_of(s, nulls))
        v = json_null();
    else if (one_of(s, yes))
        v = json_true();
    else if (one_of(s, no))
        v = json_false();
    else if (looks_numeric(s))
        v = number(s);
    free(s);
    return v != NULL ? v : json_stringn(text, len);
}

static int line_of(const yaml_event_t *ev)
{
    return (int)ev->start_mark.line + 1;
}

static int bad(reader *r, const yaml_event_t *ev, const char *what)
{
    return hone_fail(r->e, HONE_EFORMAT, "line %d: %s", line_of(ev), what);
}

/* The line of the character at offset `at`. */
static size_t line_at(const reader *r, size_t at)
{
    size_t line = 1;
    for (size_t i = 0; i < at && i < r->len; i++)
        line += r->text[i] == '\n';
    return line;
}

/* libyaml knows the line of a grammar error (it may lie past the end, where something is missing),
 * but only the offset of bytes that are not UTF-8. */
static int parse_error(const reader *r)
{
    size_t line = r->p.problem_mark.line + 1;
    size_t last = line_at(r, r->len != 0 ? r->len - 1 : 0);
    if (r->p.error == YAML_READER_ERROR)
        line = line_at(r, r->p.problem_offset);
    else if (line > last)
        line = last;
    return hone_fail(r->e, r->p.error == YAML_MEMORY_ERROR ? HONE_ENOMEM : HONE_EFORMAT,
                     "YAML: line %zu: %s", line, r->p.problem ? r->p.problem : "cannot be read");
}

static int next_event(reader *r, yaml_event_t *ev)
{
    return yaml_parser_parse(&r->p, ev) ? 0 : parse_error(r);
}

static void remember(reader *r, const yaml_char_t *name, json_t *value, size_t n_values)
{
    if (name == NULL)
        return;
    r->anchors = mem_grow(r->anchors, &r->cap_anchors, r->n_anchors + 1, sizeof *r->anchors);
    r->anchors[r->n_anchors++] =
        (anchor){mem_strdup((const char *)name), json_incref(value), n_values};
}

/* How many lists and mappings v has inside each other. */
static int depth_of(const json_t *v)
{
    int deepest = 0;
    const char *key;
    json_t *item;
    if (!json_is_array(v) && !json_is_object(v))
        return 0;
    for (size_t i = 0; i < json_array_size(v); i++) {
        int d = depth_of(json_array_get(v, i));
        deepest = d > deepest ? d : deepest;
    }
    json_object_foreach ((json_t *)v, key, item) {
        int d = depth_of(item);
        deepest = d > deepest ? d : deepest;
    }
    return deepest + 1;
}

/* An alias inside its own anchor finds nothing: the anchor is remembered once its value is whole.
 */
static int alias(reader *r, json_t **out, const yaml_event_t *ev, int depth)
{
    const char *name = (const char *)ev->data.alias.anchor;
    for (size_t i = r->n_anchors; i-- > 0;) {
        const anchor *a = &r->anchors[i];
        if (strcmp(a->name, name) != 0)
            continue;
        r->n_values += a->n_values;
        if (r->n_values > MAX_VALUES)
            return bad(r, ev, "more than 100000 values");
        if (depth + depth_of(a->value) > JS_MAX_DEPTH + 1)
            return bad(r, ev, "nested too deep");
        *out = json_deep_copy(a->value);
        return 0;
    }
    return hone_fail(r->e, HONE_EFORMAT, "line %d: no anchor '%s' above", line_of(ev), name);
}

static int check_tag(reader *r, const yaml_event_t *ev, const yaml_char_t *tag, const char *allowed)
{
    const char *t = (const char *)tag;
    if (t == NULL || strcmp(t, "!") == 0 || strcmp(t, allowed) == 0)
        return 0;
    return hone_fail(r->e, HONE_EUNSUPPORTED, "line %d: tag '%s' is not supported", line_of(ev), t);
}

static int scalar(reader *r, json_t **out, const yaml_event_t *ev)
{
    const char *s = (const char *)ev->data.scalar.value;
    size_t len = ev->data.scalar.length;
    int rc = check_tag(r, ev, ev->data.scalar.tag, YAML_STR_TAG);
    if (rc != 0)
        return rc;
    bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && ev->data.scalar.tag == NULL;
    *out = plain ? yaml_scalar(s, len) : json_stringn(s, len);
    return *out != NULL ? 0 : bad(r, ev, "text that is not UTF-8");
}

static int value(reader *r, json_t **out, const yaml_event_t *ev, const char *path, int depth);

/* The next value of a list or the value of a key: reads its first event. */
static int next_value(reader *r, json_t **out, const char *path, int depth)
{
    yaml_event_t ev;
    int rc = next_event(r, &ev);
    if (rc != 0)
        return rc;
    rc = value(r, out, &ev, path, depth);
    yaml_event_delete(&ev);
    return rc;
}

static int sequence(reader *r, json_t *list, const char *path, int depth)
{
    for (size_t i = 0;; i++) {
        yaml_event_t ev;
        int rc = next_event(r, &ev);
        if (rc != 0)
            return rc;
        bool end = ev.type == YAML_SEQUENCE_END_EVENT;
        if (!end) {
            json_t *item = NULL;
            char *child = mem_printf("%s%s%zu", path, *path ? "." : "", i);
            rc = value(r, &item, &ev, child, depth);
            free(child);
            if (rc == 0)
                json_array_append_new(list, item);
        }
        yaml_event_delete(&ev);
        if (end || rc != 0)
            return rc;
    }
}

static int check_key(reader *r, const json_t *object, const yaml_event_t *ev)
{
    if (ev->type != YAML_SCALAR_EVENT)
        return bad(r, ev, "a key that is not a plain name");
    const char *key = (const char *)ev->data.scalar.value;
    bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (strlen(key) != ev->data.scalar.length)
        return bad(r, ev, "a key with a NUL character");
    if (plain && strcmp(key, "<<") == 0)
        return hone_fail(r->e, HONE_EUNSUPPORTED, "line %d: merge keys (<<) are not supported",
                         line_of(ev));
    if (json_object_get(object, key) != NULL)
        return hone_fail(r->e, HONE_EFORMAT, "line %d: key '%s' stands twice", line_of(ev), key);
    return check_tag(r, ev, ev->data.scalar.tag, YAML_STR_TAG);
}

static int pair(reader *r, json_t *object, const yaml_event_t *ev, const char *path, int depth)
{
    json_t *v = NULL;
    int rc = check_key(r, object, ev);
    if (rc != 0)
        return rc;
    const char *key = (const char *)ev->data.scalar.value;
    char *child = mem_printf("%s%s%s", path, *path ? "." : "", key);
    if (r->lines != NULL)
        json_object_set_new(r->lines, child, json_integer(line_of(ev)));
    if (ev->data.scalar.anchor != NULL) {
        json_t *name = json_string(key);
        remember(r, ev->data.scalar.anchor, name, 1);
        json_decref(name);
    }
    rc = next_value(r, &v, child, depth);
    free(child);
    if (rc == 0 && json_object_set_new(object, key, v) != 0)
        rc = bad(r, ev, "a key that is not UTF-8");
    return rc;
}

static int mapping(reader *r, json_t *object, const char *path, int depth)
{
    for (;;) {
        yaml_event_t ev;
        int rc = next_event(r, &ev);
        if (rc != 0)
            return rc;
        bool end = ev.type == YAML_MAPPING_END_EVENT;
        if (!end)
            rc = pair(r, object, &ev, path, depth);
        yaml_event_delete(&ev);
        if (end || rc != 0)
            return rc;
    }
}

static int value(reader *r, json_t **out, const yaml_event_t *ev, const char *path, int depth)
{
    int rc;
    size_t before = r->n_values;
    const yaml_char_t *name = NULL;
    if (++r->n_values > MAX_VALUES)
        return bad(r, ev, "more than 100000 values");
    if (depth > JS_MAX_DEPTH)
        return bad(r, ev, "nested too deep");
    if (ev->type == YAML_ALIAS_EVENT) {
        rc = alias(r, out, ev, depth);
    } else if (ev->type == YAML_SCALAR_EVENT) {
        name = ev->data.scalar.anchor;
        rc = scalar(r, out, ev);
    } else if (ev->type == YAML_SEQUENCE_START_EVENT) {
        name = ev->data.sequence_start.anchor;
        *out = json_array();
        rc = check_tag(r, ev, ev->data.sequence_start.tag, YAML_SEQ_TAG);
        if (rc == 0)
            rc = sequence(r, *out, path, depth + 1);
    } else {
        name = ev->data.mapping_start.anchor;
        *out = json_object();
        rc = check_tag(r, ev, ev->data.mapping_start.tag, YAML_MAP_TAG);
        if (rc == 0)
            rc = mapping(r, *out, path, depth + 1);
    }
    if (rc != 0) {
        json_decref(*out);
        *out = NULL;
    } else {
        remember(r, name, *out, r->n_values - before);
    }
    return rc;
}

/* The stream: at most one document in it. */
static int stream(reader *r, json_t **out)
{
    for (bool seen = false;;) {
        yaml_event_t ev;
        int rc = next_event(r, &ev);
        if (rc != 0)
            return rc;
        yaml_event_type_t type = ev.type;
        if (type == YAML_DOCUMENT_START_EVENT && seen)
            rc = bad(r, &ev, "more than one document in the file");
        else if (type == YAML_DOCUMENT_START_EVENT)
            rc = next_value(r, out, "", 0);
        seen = seen || type == YAML_DOCUMENT_START_EVENT;
        yaml_event_delete(&ev);
        if (rc != 0 || type == YAML_STREAM_END_EVENT)
            return rc;
    }
}

int yaml_parse(json_t **out, json_t **lines, const char *text, size_t len, hone_err *e)
{
    reader r = {.text = text, .len = len, .e = e};
    *out = NULL;
    if (lines != NULL)
        *lines = NULL;
    if (len > MAX_BYTES)
        return hone_fail(e, HONE_ELIMIT, "YAML of %zu bytes, at most %d are read", len, MAX_BYTES);
    if (!yaml_parser_initialize(&r.p))
        return hone_fail(e, HONE_ENOMEM, "YAML: no memory for a parser");
    yaml_parser_set_encoding(&r.p, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.p, (const unsigned char *)text, len);
    r.lines = lines != NULL ? json_object() : NULL;
    int rc = stream(&r, out);
    yaml_parser_delete(&r.p);
    for (size_t i = 0; i < r.n_anchors; i++) {
        free(r.anchors[i].name);
        json_decref(r.anchors[i].value);
    }
    free(r.anchors);
    if (rc != 0) {
        json_decref(*out);
        json_decref(r.lines);
        *out = NULL;
        return rc;
    }
    if (*out == NULL)
        *out = json_object();
    if (lines != NULL)
        *lines = r.lines;
    return 0;
}

int yaml_load(json_t **out, json_t **lines, const char *path, hone_err *e)
{
    char *text;
    size_t len;
    *out = NULL;
    if (lines != NULL)
        *lines = NULL;
    int rc = file_read(&text, &len, path, MAX_BYTES, e);
    if (rc != 0)
        return rc;
    rc = yaml_parse(out, lines, text, len, e);
    free(text);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", path);
}
