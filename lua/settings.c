#include "lua/settings.h"

#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/nearest.h"

#include <stdlib.h>
#include <string.h>

typedef struct kind {
    const char *name, *article;
    bool (*is)(const json_t *v);
} kind;

static bool is_number(const json_t *v)
{
    return json_is_number(v);
}

static bool is_integer(const json_t *v)
{
    return json_is_integer(v);
}

static bool is_text(const json_t *v)
{
    return json_is_string(v);
}

static bool is_boolean(const json_t *v)
{
    return json_is_boolean(v);
}

static bool is_list(const json_t *v)
{
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!json_is_string(json_array_get(v, i)))
            return false;
    return json_is_array(v);
}

static const kind kinds[] = {
    {"number", "a number", is_number},
    {"integer", "a whole number", is_integer},
    {"text", "text", is_text},
    {"boolean", "true or false", is_boolean},
    {"list", "a list of texts", is_list},
};

static const kind *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

static int read_row(const kind **k, const char *name, const json_t *row, hone_err *e)
{
    static const char *const keys[] = {"type", "default", "min", "max", "choices", "help", NULL};
    const char *type = NULL, *help = NULL;
    if (!json_is_object(row))
        return hone_fail(e, HONE_EFORMAT, "setting '%s' is declared by a table", name);
    int rc = js_only_keys(row, keys, e);
    if (rc == 0)
        rc = js_get_str(row, "type", &type, e);
    if (rc == 0)
        rc = js_get_str(row, "help", &help, e);
    if (rc != 0)
        return hone_fail_at(e, "setting '%s'", name);
    *k = find_kind(type);
    if (*k == NULL)
        return hone_fail(e, HONE_EFORMAT,
                         "setting '%s': type '%s' is not number, integer, text, boolean or list",
                         name, type);
    const json_t *choices = json_object_get(row, "choices");
    if (choices != NULL && !is_list(choices))
        return hone_fail(e, HONE_EFORMAT, "setting '%s': choices is not a list of texts", name);
    return 0;
}

static int check_range(const char *name, const json_t *row, const json_t *v, hone_err *e)
{
    const json_t *min = json_object_get(row, "min"), *max = json_object_get(row, "max");
    double x = json_number_value(v);
    if (!json_is_number(v))
        return 0;
    if (min != NULL && x < json_number_value(min))
        return hone_fail(e, HONE_EINVAL, "setting '%s' is %g, at least %g", name, x,
                         json_number_value(min));
    if (max != NULL && x > json_number_value(max))
        return hone_fail(e, HONE_EINVAL, "setting '%s' is %g, at most %g", name, x,
                         json_number_value(max));
    return 0;
}

static int check_choice(const char *name, const json_t *row, const json_t *v, hone_err *e)
{
    const json_t *choices = json_object_get(row, "choices");
    if (!json_is_string(v) || choices == NULL)
        return 0;
    for (size_t i = 0; i < json_array_size(choices); i++)
        if (json_equal(json_array_get(choices, i), v))
            return 0;
    char *text = js_text(choices, false);
    int rc = hone_fail(e, HONE_EINVAL, "setting '%s' is '%s', not one of %s", name,
                       json_string_value(v), text);
    free(text);
    return rc;
}

/* The value of one setting; borrowed. */
static int resolve(const json_t **out, const char *name, const json_t *row, const json_t *given,
                   hone_err *e)
{
    const kind *k = NULL;
    int rc = read_row(&k, name, row, e);
    if (rc != 0)
        return rc;
    *out = given != NULL ? given : json_object_get(row, "default");
    if (*out == NULL)
        return hone_fail(e, HONE_EINVAL, "setting '%s' must be given: %s", name,
                         json_string_value(json_object_get(row, "help")));
    if (!k->is(*out)) {
        char *text = js_text(*out, false);
        rc = hone_fail(e, HONE_EINVAL, "setting '%s' is %.80s, not %s", name, text, k->article);
        free(text);
        return rc;
    }
    rc = check_range(name, row, *out, e);
    return rc == 0 ? check_choice(name, row, *out, e) : rc;
}

static int check_names(const json_t *declared, const json_t *given, hone_err *e)
{
    const char *key;
    json_t *v;
    size_t n = 0;
    int rc = 0;
    if (given != NULL && !json_is_object(given))
        return hone_fail(e, HONE_EINVAL, "settings are not a mapping");
    const char **names = mem_array(json_object_size(declared) + 1, sizeof *names);
    json_object_foreach ((json_t *)declared, key, v)
        names[n++] = key;
    json_object_foreach ((json_t *)given, key, v) {
        if (rc != 0 || json_object_get(declared, key) != NULL)
            continue;
        const char *near = nearest_name(key, names);
        rc = near != NULL
                 ? hone_fail(e, HONE_EINVAL, "no setting '%s' (did you mean '%s'?)", key, near)
                 : hone_fail(e, HONE_EINVAL, "no setting '%s'", key);
    }
    free(names);
    return rc;
}

int settings_resolve(json_t **out, const json_t *declared, const json_t *given, hone_err *e)
{
    const char *name;
    json_t *row;
    int rc = check_names(declared, given, e);
    json_t *all = json_object();
    json_object_foreach ((json_t *)declared, name, row) {
        const json_t *v = NULL;
        if (rc == 0)
            rc = resolve(&v, name, row, json_object_get(given, name), e);
        if (rc == 0)
            json_object_set(all, name, (json_t *)v);
    }
    if (rc != 0) {
        json_decref(all);
        all = NULL;
    }
    *out = all;
    return rc;
}
