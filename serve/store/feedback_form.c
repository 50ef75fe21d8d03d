/* What a client sent, checked and in one form. */
#include "core/base/js.h"
#include "serve/store/feedback.h"

#include <string.h>

enum { MAX_TEXT = 256 << 10, MAX_TAGS = 32, MAX_TAG = 64, MAX_WORD = 256 };

typedef struct form {
    const json_t *body;
    json_t *out;
    hone_err *e;
} form;

typedef int reader(const form *f, const char *name, json_t *v);

static int wrong(const form *f, const char *name, const char *what)
{
    return hone_fail(f->e, HONE_EINVAL, "'%s' must be %s", name, what);
}

static bool is_text(const json_t *v, size_t max)
{
    return json_is_string(v) && json_string_length(v) <= max &&
           strlen(json_string_value(v)) == json_string_length(v);
}

static int read_word(const form *f, const char *name, json_t *v)
{
    if (!is_text(v, MAX_WORD) || json_string_length(v) == 0)
        return wrong(f, name, "text of 1 to 256 bytes");
    return json_object_set(f->out, name, v);
}

static int read_text(const form *f, const char *name, json_t *v)
{
    if (!is_text(v, MAX_TEXT))
        return wrong(f, name, "text of at most 262144 bytes");
    return json_object_set(f->out, name, v);
}

static int read_choice(const form *f, const char *name, json_t *v)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 1023)
        return wrong(f, name, "the index of a choice");
    return json_object_set(f->out, name, v);
}

static int read_rating(const form *f, const char *name, json_t *v)
{
    static const char *const words[] = {"down", "none", "up"};
    for (int i = 0; i < 3; i++)
        if ((json_is_string(v) && strcmp(json_string_value(v), words[i]) == 0) ||
            (json_is_integer(v) && json_integer_value(v) == i - 1))
            return json_object_set_new(f->out, name, json_integer(i - 1));
    return wrong(f, name, "-1, 0, 1, \"down\", \"none\" or \"up\"");
}

static int read_score(const form *f, const char *name, json_t *v)
{
    if (!json_is_number(v))
        return wrong(f, name, "a number");
    return json_object_set_new(f->out, name, json_real(json_number_value(v)));
}

static int read_correction(const form *f, const char *name, json_t *v)
{
    if (json_is_string(v) && is_text(v, MAX_TEXT) && json_string_length(v) > 0)
        return json_object_set_new(f->out, name,
                                   json_pack("{s:s, s:O}", "role", "assistant", "content", v));
    const char *role = json_string_value(json_object_get(v, "role"));
    const json_t *content = json_object_get(v, "content");
    if (!json_is_object(v) || role == NULL || strcmp(role, "assistant") != 0 ||
        !is_text(content, MAX_TEXT) || json_string_length(content) == 0)
        return wrong(f, name, "text, or a message {\"role\": \"assistant\", \"content\": text}");
    return json_object_set(f->out, name, v);
}

static int read_tags(const form *f, const char *name, json_t *v)
{
    size_t i;
    json_t *tag;
    if (!json_is_array(v) || json_array_size(v) > MAX_TAGS)
        return wrong(f, name, "a list of at most 32 texts");
    json_array_foreach (v, i, tag) {
        if (!is_text(tag, MAX_TAG) || json_string_length(tag) == 0)
            return wrong(f, name, "a list of texts of 1 to 64 bytes");
    }
    return json_object_set(f->out, name, v);
}

typedef struct field_row {
    const char *name, *alias; /* an alias of the API */
    reader *read;
    bool says; /* the field is an opinion by itself */
} field_row;

/* clang-format off */
static const field_row fields[] = {
    {"response_id",     "id", read_word,       false},
    {"choice_index",    NULL, read_choice,     false},
    {"rating",          NULL, read_rating,     true},
    {"score",           NULL, read_score,      true},
    {"correction",      NULL, read_correction, true},
    {"comment",         NULL, read_text,       true},
    {"reason",          NULL, read_word,       true},
    {"tags",            NULL, read_tags,       true},
    {"preferred_over",  NULL, read_word,       true},
    {"user",            NULL, read_word,       false},
    {"idempotency_key", NULL, read_word,       false},
};
/* clang-format on */

enum { N_FIELDS = sizeof fields / sizeof *fields };

static int only_known(const json_t *body, hone_err *e)
{
    const char *names[2 * N_FIELDS + 1];
    size_t n = 0;
    for (int i = 0; i < N_FIELDS; i++) {
        names[n++] = fields[i].name;
        if (fields[i].alias != NULL)
            names[n++] = fields[i].alias;
    }
    names[n] = NULL;
    return js_only_keys(body, names, e);
}

static json_t *given(const json_t *body, const field_row *r)
{
    json_t *v = json_object_get(body, r->name);
    if (v == NULL && r->alias != NULL)
        v = json_object_get(body, r->alias);
    return json_is_null(v) ? NULL : v;
}

int feedback_form(const json_t *body, json_t **out, const char **field, hone_err *e)
{
    bool says = false;
    const char *at = NULL;
    *out = NULL;
    if (field == NULL)
        field = &at;
    *field = NULL;
    if (!json_is_object(body))
        return hone_fail(e, HONE_EFORMAT, "feedback must be a JSON object");
    int rc = only_known(body, e);
    form f = {body, json_object(), e};
    for (int i = 0; rc == 0 && i < N_FIELDS; i++) {
        json_t *v = given(body, &fields[i]);
        if (v == NULL)
            continue;
        *field = fields[i].name;
        rc = fields[i].read(&f, fields[i].name, v);
        says = says || fields[i].says;
    }
    if (rc == 0) {
        *field = NULL;
        if (!says)
            rc = hone_fail(e, HONE_EINVAL,
                           "feedback says nothing: give a rating, score, "
                           "correction, comment, reason, tags or preferred_over");
    }
    if (rc != 0) {
        json_decref(f.out);
        return rc;
    }
    *out = f.out;
    return 0;
}
