/* Entries of `datasets:`: which file, which format, which fields. */
#include "core/data/formats.h"

#include "core/base/js.h"
#include "core/base/nearest.h"
#include "core/data/source.h"

#include <string.h>

static int read_type(const format **out, const char *name, hone_err *e)
{
    const char *names[16];
    size_t n = 0;
    *out = NULL;
    if (strcmp(name, "auto") == 0)
        return 0;
    for (; formats[n] != NULL; n++) {
        if (strcmp(formats[n]->name, name) == 0) {
            *out = formats[n];
            return 0;
        }
        names[n] = formats[n]->name;
    }
    names[n] = NULL;
    const char *near = nearest_name(name, names);
    return hone_fail(e, HONE_EINVAL,
                     "'type' is '%s'; known are auto, chat_template, sharegpt, "
                     "alpaca, prompt_completion, completion%s%s%s",
                     name, near != NULL ? " (did you mean '" : "", near != NULL ? near : "",
                     near != NULL ? "'?)" : "");
}

static int choice(int *out, const json_t *o, const char *key, const char *const *names, hone_err *e)
{
    const char *s = NULL;
    int rc = js_opt_str(o, key, &s, e);
    if (rc != 0 || s == NULL)
        return rc;
    for (int i = 0; names[i] != NULL; i++) {
        if (*names[i] != '\0' && strcmp(names[i], s) == 0) {
            *out = i;
            return 0;
        }
    }
    return hone_fail(e, HONE_EINVAL, "'%s' cannot be '%s'", key, s);
}

/* {name: text} with nothing else inside. */
static int check_properties(const json_t *o, hone_err *e)
{
    const char *key;
    json_t *v;
    if (o != NULL && !json_is_object(o))
        return hone_fail(e, HONE_EINVAL, "'message_property_mappings' is not a mapping");
    json_object_foreach ((json_t *)o, key, v) {
        if (!json_is_string(v))
            return hone_fail(e, HONE_EINVAL, "'message_property_mappings': '%s' is not a name",
                             key);
    }
    return 0;
}

static int check_roles(const json_t *o, hone_err *e)
{
    const char *key;
    json_t *v, *name;
    size_t i;
    if (o != NULL && !json_is_object(o))
        return hone_fail(e, HONE_EINVAL, "'roles' is not a mapping of a role to a list of names");
    json_object_foreach ((json_t *)o, key, v) {
        if (!json_is_array(v))
            return hone_fail(e, HONE_EINVAL, "'roles': '%s' is not a list of names", key);
        json_array_foreach (v, i, name) {
            if (!json_is_string(name))
                return hone_fail(e, HONE_EINVAL, "'roles': '%s' is not a list of names", key);
        }
    }
    return 0;
}

static int read_names(format_spec *s, const json_t *o, hone_err *e)
{
    const struct {
        const char *key;
        const char **at;
    } names[] = {
        {"field_messages", &s->messages},
        {"field_tools", &s->tools},
        {"message_field_role", &s->role},
        {"message_field_content", &s->content},
        {"message_field_training", &s->train},
        {"field_system", &s->system},
        {"field_instruction", &s->instruction},
        {"field_input", &s->input},
        {"field_output", &s->output},
        {"field_history", &s->history},
        {"field_prompt", &s->prompt},
        {"field_completion", &s->completion},
        {"field", &s->text},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int rc = js_opt_str(o, names[i].key, names[i].at, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int read_object(format_spec *s, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"path",
                                       "type",
                                       "ds_type",
                                       "sample_by",
                                       "train_on_inputs",
                                       "message_property_mappings",
                                       "roles",
                                       "field_messages",
                                       "field_tools",
                                       "message_field_role",
                                       "message_field_content",
                                       "message_field_training",
                                       "field_system",
                                       "field_instruction",
                                       "field_input",
                                       "field_output",
                                       "field_history",
                                       "field_prompt",
                                       "field_completion",
                                       "field",
                                       NULL};
    static const char *const kinds[] = {"", "json", "text", NULL};
    static const char *const units[] = {"line", "paragraph", "document", NULL};
    const char *type = "auto";
    bool inputs = false;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_get_str(o, "path", &s->path, e);
    if (rc == 0)
        rc = js_opt_str(o, "type", &type, e);
    if (rc == 0)
        rc = read_type(&s->format, type, e);
    if (rc == 0)
        rc = choice(&s->kind, o, "ds_type", kinds, e);
    if (rc == 0)
        rc = choice(&s->unit, o, "sample_by", units, e);
    if (rc == 0)
        rc = js_opt_bool(o, "train_on_inputs", &inputs, e);
    if (rc == 0)
        rc = read_names(s, o, e);
    s->train_on_inputs = json_object_get(o, "train_on_inputs") != NULL ? inputs : -1;
    s->properties = json_object_get(o, "message_property_mappings");
    s->roles = json_object_get(o, "roles");
    if (rc == 0)
        rc = check_properties(s->properties, e);
    return rc == 0 ? check_roles(s->roles, e) : rc;
}

int format_spec_read(format_spec *out, const json_t *entry, hone_err *e)
{
    *out = (format_spec){.train_on_inputs = -1, .kind = SOURCE_BY_NAME, .unit = SOURCE_LINE};
    if (json_is_string(entry)) {
        out->path = json_string_value(entry);
        return 0;
    }
    if (!json_is_object(entry))
        return hone_fail(e, HONE_EINVAL, "not a path or a mapping");
    return read_object(out, entry, e);
}
