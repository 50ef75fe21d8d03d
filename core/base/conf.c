#include "core/base/conf.h"

#include "core/base/mem.h"
#include "core/base/nearest.h"
#include "core/base/yaml.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 256 };

static void *field(const conf_row *row, void *conf)
{
    return (char *)conf + row->offset;
}

/* Is `word` in the list `words` whose items are parted by `sep`? Returns its index, -1 if it is not. */
static int word_index(const char *words, char sep, const char *word)
{
    size_t n = strlen(word);
    int i = 0;
    for (const char *s = words; s != NULL; i++) {
        const char *end = strchr(s, sep);
        size_t len = end != NULL ? (size_t)(end - s) : strlen(s);
        if (len == n && memcmp(s, word, n) == 0)
            return i;
        s = end != NULL ? end + 1 : NULL;
    }
    return -1;
}

const conf_row *conf_find(const conf_row *rows, const char *key)
{
    for (const conf_row *r = rows; r->key != NULL; r++)
        if (strcmp(r->key, key) == 0 || word_index(r->aliases, ' ', key) >= 0)
            return r;
    return NULL;
}

char *conf_choice(const conf_row *row, int value)
{
    const char *s = row->choices;
    for (int i = 0; i < value && s != NULL; i++) {
        s = strchr(s, '|');
        s = s != NULL ? s + 1 : NULL;
    }
    return s == NULL ? mem_strdup("?") : mem_strndup(s, strcspn(s, "|"));
}

static int in_range(const conf_row *row, double v, hone_err *e)
{
    if ((row->min != 0 || row->max != 0) && (v < row->min || v > row->max))
        return hone_fail(e, HONE_EINVAL, "'%s' is %g, must lie between %g and %g", row->key, v,
                         row->min, row->max);
    return 0;
}

static int wrong_type(const conf_row *row, const char *want, const json_t *v, hone_err *e)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    int rc = hone_fail(e, HONE_EINVAL, "'%s' must be %s, not %.80s", row->key, want,
                       text != NULL ? text : "this");
    free(text);
    return rc;
}

static int put_string(const conf_row *row, char **at, const json_t *v, hone_err *e)
{
    char *s;
    if (json_is_string(v))
        s = mem_strdup(json_string_value(v));
    else if (json_is_number(v))
        s = json_dumps(v, JSON_ENCODE_ANY);
    else
        return wrong_type(row, "text", v, e);
    free(*at);
    *at = s;
    return 0;
}

static int put_number(const conf_row *row, void *at, const json_t *v, hone_err *e)
{
    bool whole = json_is_integer(v) ||
                 (json_is_real(v) && json_real_value(v) == (double)(int64_t)json_real_value(v));
    if (row->type == CONF_INT ? !whole : !json_is_number(v))
        return wrong_type(row, row->type == CONF_INT ? "a whole number" : "a number", v, e);
    int rc = in_range(row, json_number_value(v), e);
    if (rc != 0)
        return rc;
    if (row->type == CONF_FLOAT)
        *(double *)at = json_number_value(v);
    else
        *(int64_t *)at = json_is_integer(v) ? json_integer_value(v) : (int64_t)json_real_value(v);
    return 0;
}

static int put_enum(const conf_row *row, int *at, const json_t *v, hone_err *e)
{
    const char *s = json_is_string(v)  ? json_string_value(v)
                    : json_is_true(v)  ? "true"
                    : json_is_false(v) ? "false"
                                       : NULL;
    int i = s != NULL ? word_index(row->choices, '|', s) : -1;
    if (i < 0) {
        char *want = mem_printf("one of %s", row->choices);
        int rc = wrong_type(row, want, v, e);
        free(want);
        return rc;
    }
    *at = i;
    return 0;
}

static int put_json(const conf_row *row, json_t **at, json_t *v, hone_err *e)
{
    json_t *next;
    if (row->type == CONF_JSON || json_is_array(v)) {
        next = json_incref(v);
    } else if (json_is_string(v)) {
        next = json_pack("[O]", v);
    } else {
        return wrong_type(row, "a list", v, e);
    }
    size_t i;
    json_t *item;
    if (row->type == CONF_LIST) {
        json_array_foreach(next, i, item)
        {
            if (!json_is_string(item)) {
                json_decref(next);
                return wrong_type(row, "a list of texts", v, e);
            }
        }
    }
    json_decref(*at);
    *at = next;
    return 0;
}

static void put_null(const conf_row *row, void *at)
{
    if (row->type == CONF_STR) {
        free(*(char **)at);
        *(char **)at = NULL;
    } else if (row->type == CONF_LIST || row->type == CONF_JSON) {
        json_decref(*(json_t **)at);
        *(json_t **)at = NULL;
    }
}

static int put(const conf_row *row, void *conf, json_t *v, hone_err *e)
{
    void *at = field(row, conf);
    if (json_is_null(v)) {
        put_null(row, at);
        return 0;
    }
    switch (row->type) {
    case CONF_STR:
        return put_string(row, at, v, e);
    case CONF_INT:
    case CONF_FLOAT:
        return put_number(row, at, v, e);
    case CONF_BOOL:
        if (!json_is_boolean(v))
            return wrong_type(row, "true or false", v, e);
        *(bool *)at = json_is_true(v);
        return 0;
    case CONF_ENUM:
        return put_enum(row, at, v, e);
    case CONF_LIST:
    case CONF_JSON:
        return put_json(row, at, v, e);
    }
    return hone_fail(e, HONE_EINTERNAL, "'%s' has no type", row->key);
}

void conf_defaults(const conf_row *rows, void *conf)
{
    for (const conf_row *r = rows; r->key != NULL; r++) {
        if (r->def == NULL)
            continue;
        hone_err e = {0};
        json_t *v = NULL;
        int rc = yaml_parse(&v, NULL, r->def, strlen(r->def), &e);
        if (rc == 0)
            rc = put(r, conf, v, &e);
        json_decref(v);
        if (rc != 0) { /* a wrong table is a bug of ours, found by the first start */
            fprintf(stderr, "hone: default of '%s': %s\n", r->key, e.msg);
            abort();
        }
    }
}

void conf_free(const conf_row *rows, void *conf)
{
    for (const conf_row *r = rows; r->key != NULL; r++)
        put_null(r, field(r, conf));
}

static int unknown(const conf_row *rows, const char *key, hone_err *e)
{
    const char *names[MAX_ROWS + 1];
    size_t n = 0;
    for (const conf_row *r = rows; r->key != NULL && n < MAX_ROWS; r++)
        names[n++] = r->key;
    names[n] = NULL;
    const char *near = nearest_name(key, names);
    if (near != NULL)
        return hone_fail(e, HONE_EINVAL, "unknown key '%s' (did you mean '%s'?)", key, near);
    return hone_fail(e, HONE_EINVAL, "unknown key '%s'", key);
}

/* Is key the head of a dotted row ("retrain" of "retrain.min_examples")? */
static bool is_section(const conf_row *rows, const char *key)
{
    size_t n = strlen(key);
    for (const conf_row *r = rows; r->key != NULL; r++)
        if (strncmp(r->key, key, n) == 0 && r->key[n] == '.')
            return true;
    return false;
}

static int apply_one(const conf_row *rows, void *conf, json_t *given, const char *key, json_t *v,
                     hone_err *e)
{
    const conf_row *row = conf_find(rows, key);
    if (row == NULL)
        return unknown(rows, key, e);
    int rc = put(row, conf, v, e);
    if (rc == 0 && given != NULL)
        json_object_set(given, row->key, v);
    return rc;
}

typedef struct walk {
    const conf_row *rows;
    void *conf;
    json_t *given;
    const json_t *lines;
    hone_err *e;
} walk;

static int apply_tree(const walk *w, const char *prefix, const json_t *tree)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)tree, name, v)
    {
        char *key = mem_printf("%s%s%s", prefix, *prefix ? "." : "", name);
        bool nested = json_is_object(v) && conf_find(w->rows, key) == NULL &&
                      is_section(w->rows, key);
        int rc = nested ? apply_tree(w, key, v)
                        : apply_one(w->rows, w->conf, w->given, key, v, w->e);
        json_t *line = json_object_get(w->lines, key);
        if (rc != 0 && !nested && line != NULL)
            hone_fail_at(w->e, "line %d", (int)json_integer_value(line));
        free(key);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int conf_apply(const conf_row *rows, void *conf, json_t *given, const json_t *tree, hone_err *e)
{
    if (!json_is_object(tree))
        return hone_fail(e, HONE_EINVAL, "settings must be a mapping of keys to values");
    walk w = {rows, conf, given, NULL, e};
    return apply_tree(&w, "", tree);
}

int conf_load(const conf_row *rows, void *conf, json_t *given, const char *path, hone_err *e)
{
    json_t *tree, *lines;
    int rc = yaml_load(&tree, &lines, path, e);
    if (rc != 0)
        return rc;
    walk w = {rows, conf, given, lines, e};
    if (json_is_object(tree))
        rc = apply_tree(&w, "", tree);
    else
        rc = hone_fail(e, HONE_EINVAL, "settings must be a mapping of keys to values");
    json_decref(tree);
    json_decref(lines);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", path);
}

int conf_set(const conf_row *rows, void *conf, json_t *given, const char *assignment, hone_err *e)
{
    const char *eq = strchr(assignment, '=');
    if (eq == NULL || eq == assignment)
        return hone_fail(e, HONE_EINVAL, "'%s': expected key=value", assignment);
    char *key = mem_strndup(assignment, (size_t)(eq - assignment));
    json_t *v = NULL;
    int rc = yaml_parse(&v, NULL, eq + 1, strlen(eq + 1), e);
    if (rc == 0 && *(eq + 1) == '\0') {
        json_decref(v);
        v = json_null();
    }
    if (rc == 0)
        rc = apply_one(rows, conf, given, key, v, e);
    else
        hone_fail_at(e, "%s", key);
    json_decref(v);
    free(key);
    return rc;
}

static const char *type_name(const conf_row *r)
{
    static const char *const names[] = {"text",    "integer", "number", "true|false",
                                        "choice",  "list",    "value"};
    return r->type == CONF_ENUM ? r->choices : names[r->type];
}

void conf_help(const conf_row *rows, FILE *out)
{
    for (const conf_row *r = rows; r->key != NULL; r++)
        fprintf(out, "  %-28s %s (%s%s%s)\n", r->key, r->help, type_name(r),
                r->def != NULL ? ", default " : "", r->def != NULL ? r->def : "");
}

void conf_markdown(const conf_row *rows, FILE *out)
{
    fputs("| key | also | type | default | meaning |\n|---|---|---|---|---|\n", out);
    for (const conf_row *r = rows; r->key != NULL; r++) {
        char *type = mem_strdup(type_name(r));
        for (char *s = strchr(type, '|'); s != NULL; s = strchr(s, '|'))
            *s = '/';
        fprintf(out, "| `%s` | %s | %s | %s | %s |\n", r->key, r->aliases ? r->aliases : "", type,
                r->def ? r->def : "", r->help);
        free(type);
    }
}
