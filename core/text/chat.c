/* Where a model keeps its chat template and its special tokens, and messages as transformers hands
 * them to the template. */
#include "core/text/chat.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/text/chat_int.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEMPLATE = 1 << 20 };

struct chat {
    char *source, *tool_source;
    jinja *t, *tool;
    json_t *special; /* bos_token and its like */
    char digest[65];
};

/* ---- finding the template ---- */

/* Loads dir/name when it is there; *out NULL when it is not. */
static int load_optional(json_t **out, const char *dir, const char *name, hone_err *e)
{
    char *path = path_join(dir, name);
    *out = NULL;
    int rc = file_exists(path) ? js_load(out, path, e) : 0;
    if (rc == 0 && *out != NULL && !json_is_object(*out))
        rc = hone_fail(e, HONE_EFORMAT, "%s: not an object", path);
    free(path);
    return rc;
}

static int read_optional(char **out, const char *dir, const char *name, hone_err *e)
{
    char *path = path_join(dir, name);
    size_t len;
    *out = NULL;
    int rc = file_exists(path) ? file_read(out, &len, path, MAX_TEMPLATE, e) : 0;
    free(path);
    return rc;
}

/* A special token is text, or an object that has it as content. */
static const json_t *token_text(const json_t *v)
{
    if (json_is_object(v))
        v = json_object_get(v, "content");
    return json_is_string(v) ? v : NULL;
}

static bool is_token_name(const char *key)
{
    size_t n = strlen(key);
    return n > 6 && strcmp(key + n - 6, "_token") == 0;
}

static void take_special(json_t *to, const json_t *from)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)from, key, v) {
        const json_t *text = is_token_name(key) ? token_text(v) : NULL;
        if (text != NULL && json_object_get(to, key) == NULL)
            json_object_set(to, key, (json_t *)text);
        if (strcmp(key, "additional_special_tokens") != 0 || !json_is_array(v) ||
            json_object_get(to, key) != NULL)
            continue;
        json_t *list = json_array();
        for (size_t i = 0; i < json_array_size(v); i++)
            if ((text = token_text(json_array_get(v, i))) != NULL)
                json_array_append(list, (json_t *)text);
        json_object_set_new(to, key, list);
    }
}

/* chat_template of tokenizer_config.json: text, or a list of {name, template}. */
static int from_config(chat *c, const json_t *config, hone_err *e)
{
    const json_t *t = json_object_get(config, "chat_template");
    if (t == NULL || json_is_null(t))
        return 0;
    if (json_is_string(t)) {
        c->source = mem_strdup(json_string_value(t));
        return 0;
    }
    if (!json_is_array(t))
        return hone_fail(e, HONE_EFORMAT, "chat_template is neither text nor a list of templates");
    for (size_t i = 0; i < json_array_size(t); i++) {
        const char *name, *text;
        int rc = js_get_str(json_array_get(t, i), "name", &name, e);
        if (rc == 0)
            rc = js_get_str(json_array_get(t, i), "template", &text, e);
        if (rc != 0)
            return hone_fail_at(e, "chat_template %zu", i);
        if (strcmp(name, "default") == 0 && c->source == NULL)
            c->source = mem_strdup(text);
        if (strcmp(name, "tool_use") == 0 && c->tool_source == NULL)
            c->tool_source = mem_strdup(text);
    }
    return c->source != NULL ? 0
                             : hone_fail(e, HONE_ENOTFOUND,
                                         "chat_template has no template named \"default\"; "
                                         "name a template file");
}

static int find_template(chat *c, const char *dir, const json_t *config, const char *file,
                         hone_err *e)
{
    size_t len;
    if (file != NULL)
        return file_read(&c->source, &len, file, MAX_TEMPLATE, e);
    int rc = read_optional(&c->source, dir, "chat_template.jinja", e);
    if (rc == 0 && c->source != NULL)
        return read_optional(&c->tool_source, dir, "additional_chat_templates/tool_use.jinja", e);
    if (rc == 0 && (rc = from_config(c, config, e)) != 0)
        return hone_fail_at(e, "%s/tokenizer_config.json", dir);
    if (rc == 0 && c->source == NULL)
        rc = hone_fail(e, HONE_ENOTFOUND,
                       "%s: the model has no chat template (no chat_template.jinja, no "
                       "chat_template in tokenizer_config.json); name a template file",
                       dir);
    return rc;
}

static int compile(jinja **out, const char *source, const char *what, hone_err *e)
{
    int rc = jinja_compile(out, source, strlen(source), e);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", what);
}

static void set_digest(chat *c)
{
    size_t n = strlen(c->source), m = c->tool_source != NULL ? strlen(c->tool_source) + 1 : 0;
    char *both = mem_alloc(n + m);
    memcpy(both, c->source, n);
    if (m > 0)
        memcpy(both + n + 1, c->tool_source, m - 1);
    bytes_sha256(c->digest, both, n + m);
    free(both);
}

int chat_open(chat **out, const char *dir, const char *template_file, hone_err *e)
{
    json_t *config = NULL, *map = NULL;
    *out = NULL;
    chat *c = mem_alloc(sizeof *c);
    c->special = json_object();
    int rc = load_optional(&config, dir, "tokenizer_config.json", e);
    if (rc == 0)
        rc = load_optional(&map, dir, "special_tokens_map.json", e);
    if (rc == 0)
        rc = find_template(c, dir, config, template_file, e);
    if (rc == 0)
        rc = compile(&c->t, c->source, template_file != NULL ? template_file : dir, e);
    if (rc == 0 && c->tool_source != NULL)
        rc = compile(&c->tool, c->tool_source, dir, e);
    if (rc == 0) {
        take_special(c->special, config);
        take_special(c->special, map);
        set_digest(c);
        *out = c;
    } else {
        chat_close(c);
    }
    json_decref(config);
    json_decref(map);
    return rc;
}

void chat_close(chat *c)
{
    if (c == NULL)
        return;
    jinja_free(c->t);
    jinja_free(c->tool);
    json_decref(c->special);
    free(c->source);
    free(c->tool_source);
    free(c);
}

const char *chat_digest(const chat *c)
{
    return c->digest;
}

const char *chat_source(const chat *c)
{
    return c->source;
}

const char *chat_tool_source(const chat *c)
{
    return c->tool_source;
}

static int save_as(const char *dir, const char *name, const char *text, hone_err *e)
{
    char *path = path_join(dir, name), *parent = path_dir(path);
    int rc = dir_make(parent, e);
    if (rc == 0)
        rc = file_write(path, text, strlen(text), e);
    free(parent);
    free(path);
    return rc;
}

int chat_save(const chat *c, const char *dir, hone_err *e)
{
    int rc = save_as(dir, "chat_template.jinja", c->source, e);
    if (rc == 0 && c->tool_source != NULL)
        rc = save_as(dir, "additional_chat_templates/tool_use.jinja", c->tool_source, e);
    return rc;
}

/* ---- the context of a rendering ---- */

/* Reasoning under the first of its names that the message has. */
static json_t *reasoning_of(const json_t *m)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *v = json_object_get(m, names[i]);
        if (v != NULL && !json_is_null(v))
            return v;
    }
    return NULL;
}

/* The message as the template gets it; new reference. */
static json_t *template_message(const json_t *m)
{
    json_t *reasoning = reasoning_of(m), *out = json_object();
    const char *key;
    json_t *v;
    if (reasoning != NULL)
        json_object_set(out, "thinking", reasoning);
    json_object_foreach ((json_t *)m, key, v) {
        if (!json_is_null(v) && strcmp(key, "train") != 0)
            json_object_set(out, key, v);
    }
    if (reasoning != NULL)
        json_object_set(out, "reasoning_content", reasoning);
    return out;
}

static int check_messages(const json_t *messages, hone_err *e)
{
    if (!json_is_array(messages))
        return hone_fail(e, HONE_EFORMAT, "messages is not a list");
    if (json_array_size(messages) == 0)
        return hone_fail(e, HONE_EFORMAT, "there are no messages");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i);
        if (!json_is_object(m))
            return hone_fail(e, HONE_EFORMAT, "message %zu is not an object", i);
        if (!json_is_string(json_object_get(m, "role")))
            return hone_fail(e, HONE_EFORMAT, "message %zu has no role", i);
    }
    return 0;
}

static int check_options(const chat_options *o, hone_err *e)
{
    static const char *const ours[] = {"messages", "tools", "add_generation_prompt"};
    if (o->tools != NULL && !json_is_null(o->tools) && !json_is_array(o->tools))
        return hone_fail(e, HONE_EFORMAT, "tools is not a list");
    if (o->extra != NULL && !json_is_null(o->extra) && !json_is_object(o->extra))
        return hone_fail(e, HONE_EFORMAT, "chat_template_kwargs is not an object");
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (json_object_get(o->extra, ours[i]) != NULL)
            return hone_fail(e, HONE_EFORMAT, "chat_template_kwargs may not set %s", ours[i]);
    return 0;
}

int chat_text(const chat *c, const json_t *messages, size_t n, const chat_options *o, buf *out,
              jinja_spans *spans, hone_err *e)
{
    static const chat_options plain = {0};
    if (o == NULL)
        o = &plain;
    int rc = check_messages(messages, e);
    if (rc == 0)
        rc = check_options(o, e);
    if (rc != 0)
        return rc;
    json_t *context = json_copy(c->special), *list = json_array();
    bool tools = o->tools != NULL && !json_is_null(o->tools);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, template_message(json_array_get(messages, i)));
    json_object_set_new(context, "documents", json_null());
    if (json_is_object(o->extra))
        json_object_update(context, (json_t *)o->extra);
    json_object_set_new(context, "messages", list);
    json_object_set(context, "tools", tools ? (json_t *)o->tools : json_null());
    json_object_set_new(context, "add_generation_prompt", json_boolean(o->add_generation_prompt));
    rc = jinja_render(tools && c->tool != NULL ? c->tool : c->t, context, NULL, out, spans, e);
    json_decref(context);
    return rc;
}

int chat_render(const chat *c, const json_t *messages, const chat_options *o, buf *out, hone_err *e)
{
    return chat_text(c, messages, json_array_size(messages), o, out, NULL, e);
}
