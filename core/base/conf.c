#include "core/base/conf.h"

#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/nearest.h"
#include "core/base/yaml.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *field(const conf_row *row, void *conf)
{
    return (char *)conf + row->offset;
}

/* Is `word` in the list `words` whose items are parted by `sep`? Returns its index, -1 if it is
 * not. */
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
    if ((row->min == 0 && row->max == 0) || (v >= row->min && v <= row->max))
        return 0;
    if (isinf(row->max))
        return hone_fail(e, HONE_EINVAL, "'%s' is %.10g, must be at least %.10g", row->key, v,
                         row->min);
    return hone_fail(e, HONE_EINVAL, "'%s' is %.10g, must lie between %.10g and %.10g", row->key, v,
                     row->min, row->max);
}

static int wrong_type(const conf_row *row, const char *want, const json_t *v, hone_err *e)
{
    char *text = js_text(v, false);
    int rc = hone_fail(e, HONE_EINVAL, "'%s' must be %s, not %.80s", row->key, want, text);
    free(text);
    return rc;
}

/* A number that was meant as text may have lost its form (1.10), so only whole ones are taken. */
static int put_string(const conf_row *row, char **at, const json_t *v, hone_err *e)
{
    char *s;
    if (json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v))
        s = mem_strdup(json_string_value(v));
    else if (json_is_integer(v))
        s = mem_printf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else
        return wrong_type(row, json_is_real(v) ? "text (put it in quotes)" : "text", v, e);
    free(*at);
    *at = s;
    return 0;
}

static bool is_whole(const json_t *v)
{
    double d = json_real_value(v);
    return json_is_integer(v) || (json_is_real(v) && d == floor(d) && fabs(d) < 0x1p63);
}

static int put_number(const conf_row *row, void *at, const json_t *v, hone_err *e)
{
    if (row->type == CONF_INT ? !is_whole(v) : !json_is_number(v))
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
        json_array_foreach (next, i, item) {
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

/* Unset, and what was there released. */
static void clear(const conf_row *row, void *at)
{
    switch (row->type) {
    case CONF_STR:
        free(*(char **)at);
        *(char **)at = NULL;
        break;
    case CONF_LIST:
    case CONF_JSON:
        json_decref(*(json_t **)at);
        *(json_t **)at = NULL;
        break;
    case CONF_INT:
        *(int64_t *)at = 0;
        break;
    case CONF_FLOAT:
        *(double *)at = 0;
        break;
    case CONF_BOOL:
        *(bool *)at = false;
        break;
    case CONF_ENUM:
        *(int *)at = 0;
        break;
    }
}

static int put(const conf_row *row, void *conf, json_t *v, hone_err *e);

static int put_default(const conf_row *row, void *conf, hone_err *e)
{
    json_t *v = NULL;
    clear(row, field(row, conf));
    if (row->def == NULL)
        return 0;
    int rc = yaml_parse(&v, NULL, row->def, strlen(row->def), e);
    if (rc == 0)
        rc = put(row, conf, v, e);
    json_decref(v);
    return rc;
}

/* null: text, lists and values are unset by it; the rest cannot be, and take their default again.
 */
static int put_null(const conf_row *row, void *conf, hone_err *e)
{
    if (row->type != CONF_STR && row->type != CONF_LIST && row->type != CONF_JSON)
        return put_default(row, conf, e);
    clear(row, field(row, conf));
    return 0;
}

static int put(const conf_row *row, void *conf, json_t *v, hone_err *e)
{
    void *at = field(row, conf);
    if (json_is_null(v))
        return put_null(row, conf, e);
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

typedef struct names {
    char **items; /* NULL-ended */
    size_t n, cap;
} names;

static void names_add(names *l, const char *s, size_t len)
{
    l->items = mem_grow(l->items, &l->cap, l->n + 2, sizeof *l->items);
    l->items[l->n++] = mem_strndup(s, len);
    l->items[l->n] = NULL;
}

static void names_free(names *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
}

/* Every name that a key may have: keys, their sections, aliases. */
static names all_names(const conf_row *rows)
{
    names l = {0};
    for (const conf_row *r = rows; r->key != NULL; r++) {
        names_add(&l, r->key, strlen(r->key));
        const char *dot = strchr(r->key, '.');
        if (dot != NULL)
            names_add(&l, r->key, (size_t)(dot - r->key));
        for (const char *s = r->aliases; s != NULL && *s != '\0';) {
            size_t n = strcspn(s, " ");
            names_add(&l, s, n);
            s += n + strspn(s + n, " ");
        }
    }
    return l;
}

static size_t n_rows_called(const conf_row *rows, const char *name)
{
    size_t n = 0;
    for (const conf_row *r = rows; r->key != NULL; r++)
        n += strcmp(r->key, name) == 0 || word_index(r->aliases, ' ', name) >= 0;
    return n;
}

int conf_check(const conf_row *rows, void *conf, hone_err *e)
{
    int rc = 0;
    for (const conf_row *r = rows; r->key != NULL; r++) {
        rc = put_default(r, conf, e);
        if (rc != 0)
            return hone_fail_at(e, "default of '%s'", r->key);
        if (r->help == NULL || (r->type == CONF_ENUM && r->choices == NULL))
            return hone_fail(e, HONE_EINVAL, "'%s' lacks its %s", r->key,
                             r->help == NULL ? "help" : "choices");
    }
    names l = all_names(rows);
    for (size_t i = 0; i < l.n && rc == 0; i++)
        if (n_rows_called(rows, l.items[i]) > 1)
            rc = hone_fail(e, HONE_EINVAL, "'%s' stands twice", l.items[i]);
    names_free(&l);
    return rc;
}

void conf_defaults(const conf_row *rows, void *conf)
{
    for (const conf_row *r = rows; r->key != NULL; r++) {
        int rc = put_default(r, conf, NULL);
        assert(rc == 0 && "a wrong table: conf_check says which row");
        (void)rc;
    }
}

void conf_free(const conf_row *rows, void *conf)
{
    for (const conf_row *r = rows; r->key != NULL; r++)
        clear(r, field(r, conf));
}

static int unknown(const conf_row *rows, const char *key, hone_err *e)
{
    int rc;
    names l = all_names(rows);
    const char *near = l.n != 0 ? nearest_name(key, (const char *const *)l.items) : NULL;
    if (near != NULL)
        rc = hone_fail(e, HONE_EINVAL, "unknown key '%s' (did you mean '%s'?)", key, near);
    else
        rc = hone_fail(e, HONE_EINVAL, "unknown key '%s'", key);
    names_free(&l);
    return rc;
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

typedef struct walk {
    const conf_row *rows;
    void *conf;
    json_t *given, *seen; /* seen: key of the table -> the name it was given by */
    const json_t *lines;
    hone_err *e;
} walk;

static int apply_one(const walk *w, const char *key, json_t *v)
{
    const conf_row *row = conf_find(w->rows, key);
    if (row == NULL && is_section(w->rows, key))
        return hone_fail(w->e, HONE_EINVAL, "'%s' is a group of settings, not a setting", key);
    if (row == NULL)
        return unknown(w->rows, key, w->e);
    const char *before = json_string_value(json_object_get(w->seen, row->key));
    if (before != NULL)
        return hone_fail(w->e, HONE_EINVAL, "'%s' and '%s' are one setting, given twice", before,
                         key);
    int rc = put(row, w->conf, v, w->e);
    if (rc != 0)
        return rc;
    json_object_set_new(w->seen, row->key, json_string(key));
    if (w->given != NULL)
        json_object_set(w->given, row->key, v);
    return 0;
}

/* Prepends the line of a key, or of the nearest group around it whose line is known. */
static int at_line(const walk *w, const char *key)
{
    char *name = mem_strdup(key);
    json_t *line = json_object_get(w->lines, name);
    for (char *dot = strrchr(name, '.'); line == NULL && dot != NULL; dot = strrchr(name, '.')) {
        *dot = '\0';
        line = json_object_get(w->lines, name);
    }
    free(name);
    if (line == NULL)
        return w->e != NULL ? w->e->code : HONE_EINVAL;
    return hone_fail_at(w->e, "line %d", (int)json_integer_value(line));
}

static int apply_tree(const walk *w, const char *prefix, const json_t *tree)
{
    const char *name;
    json_t *v;
    json_object_foreach ((json_t *)tree, name, v) {
        int rc = 0;
        char *key = mem_printf("%s%s%s", prefix, *prefix ? "." : "", name);
        bool group = conf_find(w->rows, key) == NULL && is_section(w->rows, key);
        if (group && json_is_object(v))
            rc = apply_tree(w, key, v);
        else if (!(group && json_is_null(v))) /* a group with all its lines commented out */
            rc = apply_one(w, key, v) != 0 ? at_line(w, key) : 0;
        free(key);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int apply_root(walk *w, const json_t *tree)
{
    if (json_is_null(tree))
        return 0;
    if (!json_is_object(tree))
        return hone_fail(w->e, HONE_EINVAL, "settings must be a mapping of keys to values");
    w->seen = json_object();
    int rc = apply_tree(w, "", tree);
    json_decref(w->seen);
    return rc;
}

int conf_apply(const conf_row *rows, void *conf, json_t *given, const json_t *tree, hone_err *e)
{
    walk w = {.rows = rows, .conf = conf, .given = given, .e = e};
    return apply_root(&w, tree);
}

int conf_load(const conf_row *rows, void *conf, json_t *given, const char *path, hone_err *e)
{
    json_t *tree, *lines;
    int rc = yaml_load(&tree, &lines, path, e);
    if (rc != 0)
        return rc;
    walk w = {.rows = rows, .conf = conf, .given = given, .lines = lines, .e = e};
    rc = apply_root(&w, tree);
    json_decref(tree);
    json_decref(lines);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", path);
}

/* The value of an assignment. Text is taken as it stands (a path may hold ": " or look like a
 * number), unless it is quoted as YAML would have it. */
static int assigned(json_t **out, const conf_row *row, const char *text, hone_err *e)
{
    *out = NULL;
    if (*text == '\0') {
        *out = json_null();
        return 0;
    }
    bool quoted = *text == '"' || *text == '\'';
    bool null = strcmp(text, "null") == 0 || strcmp(text, "~") == 0;
    if (row == NULL || row->type != CONF_STR || quoted || null)
        return yaml_parse(out, NULL, text, strlen(text), e);
    *out = json_string(text);
    return *out != NULL ? 0 : hone_fail(e, HONE_EINVAL, "text that is not UTF-8");
}

int conf_set(const conf_row *rows, void *conf, json_t *given, const char *assignment, hone_err *e)
{
    const char *eq = strchr(assignment, '=');
    if (eq == NULL || eq == assignment)
        return hone_fail(e, HONE_EINVAL, "'%s': expected key=value", assignment);
    char *key = mem_strndup(assignment, (size_t)(eq - assignment));
    json_t *v;
    walk w = {.rows = rows, .conf = conf, .given = given, .e = e};
    int rc = assigned(&v, conf_find(rows, key), eq + 1, e);
    if (rc != 0)
        hone_fail_at(e, "%s", key);
    else
        rc = apply_one(&w, key, v);
    json_decref(v);
    free(key);
    return rc;
}

static const char *type_name(const conf_row *r)
{
    static const char *const types[] = {"text",   "integer", "number", "true|false",
                                        "choice", "list",    "value"};
    return r->type == CONF_ENUM ? r->choices : types[r->type];
}

void conf_help(const conf_row *rows, FILE *out)
{
    for (const conf_row *r = rows; r->key != NULL; r++)
        fprintf(out, "  %-28s %s (%s%s%s%s%s)\n", r->key, r->help, type_name(r),
                r->def != NULL ? ", default " : "", r->def != NULL ? r->def : "",
                r->aliases != NULL ? "; also " : "", r->aliases != NULL ? r->aliases : "");
}

/* A cell of a Markdown table: '|' would end it. */
static void cell(FILE *out, const char *text, char for_bar)
{
    for (; text != NULL && *text != '\0'; text++)
        fputc(*text == '|' ? for_bar : *text, out);
    fputs(" | ", out);
}

void conf_markdown(const conf_row *rows, FILE *out)
{
    fputs("| key | also | type | default | meaning |\n|---|---|---|---|---|\n", out);
    for (const conf_row *r = rows; r->key != NULL; r++) {
        fprintf(out, "| `%s` | ", r->key);
        cell(out, r->aliases, '/');
        cell(out, type_name(r), '/');
        cell(out, r->def, '/');
        cell(out, r->help, '/');
        fputc('\n', out);
    }
}
