#include "serve/http/http_messages.h"

#include "core/base/buf.h"
#include "core/base/js.h"
#include "serve/http/http_params.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_CONTENT = 256 << 20 };

static int at(char *name, hone_err *e, int code, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

static int at(char *name, hone_err *e, int code, const char *where, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(name, PARAMS_NAME, "%s", where);
    return hone_fail(e, code, "'%s' %s", where, text);
}

/* A list of parts: all of them text. */
static int join_parts(json_t **out, const json_t *parts, const char *where, char *name, hone_err *e)
{
    buf b;
    int rc = 0;
    buf_init(&b, MAX_CONTENT);
    for (size_t i = 0; rc == 0 && i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *text = json_object_get(part, "text");
        if (type == NULL || strcmp(type, "text") != 0)
            rc = at(name, e, HONE_EUNSUPPORTED, where, "[%zu] is of type '%.32s'; only text is", i,
                    type != NULL ? type : "?");
        else if (!json_is_string(text))
            rc = at(name, e, HONE_EINVAL, where, "[%zu] has no text", i);
        if (rc != 0)
            break;
        if (i > 0)
            buf_char(&b, '\n');
        buf_add(&b, json_string_value(text), json_string_length(text));
    }
    if (rc == 0)
        *out = json_stringn(b.data, b.len);
    buf_free(&b);
    return rc;
}

static int read_content(json_t *m, const char *where, char *name, hone_err *e)
{
    json_t *content = json_object_get(m, "content"), *joined = NULL;
    char path[PARAMS_NAME];
    snprintf(path, sizeof path, "%s.content", where);
    if (json_is_string(content))
        return 0;
    if (json_is_array(content)) {
        int rc = join_parts(&joined, content, path, name, e);
        if (rc == 0)
            json_object_set_new(m, "content", joined);
        return rc;
    }
    if ((content == NULL || json_is_null(content)) && json_object_get(m, "tool_calls") != NULL)
        return 0;
    return at(name, e, HONE_EINVAL, path, "must be text or a list of text parts");
}

/* Clients send arguments as JSON text, templates write them as JSON: text would be quoted twice. */
static int read_calls(json_t *m, const char *where, char *name, hone_err *e)
{
    json_t *calls = json_object_get(m, "tool_calls"), *call, *parsed;
    size_t i;
    char path[PARAMS_NAME];
    if (calls == NULL || json_is_null(calls))
        return 0;
    if (!json_is_array(calls)) {
        snprintf(path, sizeof path, "%s.tool_calls", where);
        return at(name, e, HONE_EINVAL, path, "must be a list");
    }
    json_array_foreach (calls, i, call) {
        json_t *f = json_object_get(call, "function");
        const json_t *arguments = json_object_get(f, "arguments");
        snprintf(path, sizeof path, "%s.tool_calls[%zu].function", where, i);
        if (!json_is_object(f) || !json_is_string(json_object_get(f, "name")))
            return at(name, e, HONE_EINVAL, path, "must be an object with a name");
        if (!json_is_string(arguments))
            continue;
        if (js_parse(&parsed, json_string_value(arguments), json_string_length(arguments), NULL) !=
                0 ||
            !json_is_object(parsed)) {
            json_decref(parsed);
            return at(name, e, HONE_EINVAL, path, "has arguments that are not a JSON object");
        }
        json_object_set_new(f, "arguments", parsed);
    }
    return 0;
}

static int read_one(json_t *m, size_t i, char *name, hone_err *e)
{
    char where[32];
    snprintf(where, sizeof where, "messages[%zu]", i);
    if (!json_is_object(m))
        return at(name, e, HONE_EINVAL, where, "must be an object with role and content");
    const json_t *role = json_object_get(m, "role");
    if (!json_is_string(role) || json_string_length(role) == 0)
        return at(name, e, HONE_EINVAL, where, "has no role");
    if (json_is_object(json_object_get(m, "audio")))
        return at(name, e, HONE_EUNSUPPORTED, where, "has audio, which is not supported");
    int rc = read_content(m, where, name, e);
    return rc == 0 ? read_calls(m, where, name, e) : rc;
}

int messages_read(json_t **out, const json_t *v, char *name, hone_err *e)
{
    int rc = 0;
    *out = NULL;
    if (!json_is_array(v) || json_array_size(v) == 0)
        return at(name, e, HONE_EINVAL, "messages", "must be a list of at least one message");
    if (json_array_size(v) > PARAMS_MAX_MESSAGES)
        return at(name, e, HONE_EINVAL, "messages", "has %zu messages, at most %d are taken",
                  json_array_size(v), PARAMS_MAX_MESSAGES);
    json_t *copy = json_deep_copy(v);
    for (size_t i = 0; rc == 0 && i < json_array_size(copy); i++)
        rc = read_one(json_array_get(copy, i), i, name, e);
    if (rc != 0)
        json_decref(copy);
    else
        *out = copy;
    return rc;
}
