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

enum { MAX_NODES = 100000, MAX_BYTES = 16 << 20 };

typedef struct reader {
    yaml_document_t doc;
    json_t *lines; /* may be NULL */
    size_t n_nodes;
    hone_err *e;
} reader;

static bool one_of(const char *s, const char *const *words)
{
    for (size_t i = 0; words[i] != NULL; i++)
        if (strcasecmp(s, words[i]) == 0)
            return true;
    return false;
}

/* True for text made only of what a number is made of, so that strtod's "inf" or "0x" forms stay strings. */
static bool looks_numeric(const char *s)
{
    return *s != '\0' && strspn(s, "0123456789+-.eE_") == strlen(s) && strpbrk(s, "0123456789");
}

static json_t *number(const char *s)
{
    char *end;
    errno = 0;
    long long i = strtoll(s, &end, 10);
    if (*end == '\0' && errno == 0)
        return json_integer(i);
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
    if (one_of(s, nulls))
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

static int bad(reader *r, const yaml_node_t *n, const char *what)
{
    return hone_fail(r->e, HONE_EFORMAT, "line %zu: %s", n->start_mark.line + 1, what);
}

static int convert(reader *r, json_t **out, int id, const char *path, int depth);

static int convert_scalar(reader *r, json_t **out, const yaml_node_t *n)
{
    const char *s = (const char *)n->data.scalar.value;
    size_t len = n->data.scalar.length;
    bool plain = n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    *out = plain ? yaml_scalar(s, len) : json_stringn(s, len);
    return *out != NULL ? 0 : bad(r, n, "text that is not UTF-8");
}

static int convert_sequence(reader *r, json_t **out, const yaml_node_t *n, const char *path,
                            int depth)
{
    *out = json_array();
    int i = 0;
    for (yaml_node_item_t *it = n->data.sequence.items.start; it < n->data.sequence.items.top;
         it++, i++) {
        char *child = mem_printf("%s%s%d", path, *path ? "." : "", i);
        json_t *v = NULL;
        int rc = convert(r, &v, *it, child, depth + 1);
        free(child);
        if (rc != 0)
            return rc;
        json_array_append_new(*out, v);
    }
    return 0;
}

static int convert_pair(reader *r, json_t *object, const yaml_node_pair_t *pair, const char *path,
                        int depth)
{
    const yaml_node_t *k = yaml_document_get_node(&r->doc, pair->key);
    if (k->type != YAML_SCALAR_NODE)
        return bad(r, k, "a key that is not a plain name");
    const char *key = (const char *)k->data.scalar.value;
    if (json_object_get(object, key) != NULL)
        return hone_fail(r->e, HONE_EFORMAT, "line %zu: key '%s' stands twice",
                         k->start_mark.line + 1, key);
    char *child = mem_printf("%s%s%s", path, *path ? "." : "", key);
    json_t *v = NULL;
    if (r->lines != NULL)
        json_object_set_new(r->lines, child, json_integer((json_int_t)k->start_mark.line + 1));
    int rc = convert(r, &v, pair->value, child, depth + 1);
    free(child);
    if (rc == 0 && json_object_set_new(object, key, v) != 0)
        rc = bad(r, k, "a key that is not UTF-8");
    return rc;
}

static int convert_mapping(reader *r, json_t **out, const yaml_node_t *n, const char *path,
                           int depth)
{
    *out = json_object();
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        int rc = convert_pair(r, *out, p, path, depth);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static bool known_tag(const yaml_node_t *n)
{
    const char *tag = (const char *)n->tag;
    return tag == NULL || strncmp(tag, "tag:yaml.org,2002:", 18) == 0;
}

static int convert(reader *r, json_t **out, int id, const char *path, int depth)
{
    yaml_node_t *n = yaml_document_get_node(&r->doc, id);
    if (++r->n_nodes > MAX_NODES)
        return bad(r, n, "more than 100000 values");
    if (depth > JS_MAX_DEPTH)
        return bad(r, n, "nested too deep");
    if (!known_tag(n))
        return bad(r, n, "a tag that is not supported");
    int rc;
    if (n->type == YAML_SCALAR_NODE)
        rc = convert_scalar(r, out, n);
    else if (n->type == YAML_SEQUENCE_NODE)
        rc = convert_sequence(r, out, n, path, depth);
    else
        rc = convert_mapping(r, out, n, path, depth);
    if (rc != 0) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

static int parse_error(yaml_parser_t *p, hone_err *e)
{
    return hone_fail(e, HONE_EFORMAT, "YAML: line %zu: %s",
                     p->problem_mark.line + 1, p->problem ? p->problem : "cannot be read");
}

static int no_second_document(yaml_parser_t *p, hone_err *e)
{
    yaml_document_t next;
    if (!yaml_parser_load(p, &next))
        return parse_error(p, e);
    bool more = yaml_document_get_root_node(&next) != NULL;
    yaml_document_delete(&next);
    return more ? hone_fail(e, HONE_EFORMAT, "YAML: more than one document in the file") : 0;
}

int yaml_parse(json_t **out, json_t **lines, const char *text, size_t len, hone_err *e)
{
    yaml_parser_t p;
    reader r = {.e = e, .lines = lines != NULL ? json_object() : NULL};
    *out = NULL;
    if (!yaml_parser_initialize(&p))
        return hone_fail(e, HONE_ENOMEM, "YAML: no memory for a parser");
    yaml_parser_set_input_string(&p, (const unsigned char *)text, len);
    int rc = yaml_parser_load(&p, &r.doc) ? 0 : parse_error(&p, e);
    if (rc == 0) {
        if (yaml_document_get_root_node(&r.doc) != NULL)
            rc = convert(&r, out, 1, "", 0);
        else
            *out = json_object();
        if (rc == 0)
            rc = no_second_document(&p, e);
        yaml_document_delete(&r.doc);
    }
    yaml_parser_delete(&p);
    if (rc != 0) {
        json_decref(*out);
        json_decref(r.lines);
        *out = NULL;
        r.lines = NULL;
    }
    if (lines != NULL)
        *lines = r.lines;
    return rc;
}

int yaml_load(json_t **out, json_t **lines, const char *path, hone_err *e)
{
    char *text;
    size_t len;
    *out = NULL;
    int rc = file_read(&text, &len, path, MAX_BYTES, e);
    if (rc != 0)
        return rc;
    rc = yaml_parse(out, lines, text, len, e);
    free(text);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", path);
}
