#include "core/data/formats.h"

#include "core/base/js.h"
#include "core/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_string(const json_t *o, const char *key)
{
    return json_is_string(json_object_get(o, key));
}

static const char * or (const char *given, const char *usual)
{
    return given != NULL ? given : usual;
}

/* ---- messages ---- */

/* What sharegpt data calls its roles. function_call is an assistant's message that holds a call. */
/* clang-format off */
static const char *const usual_roles[][2] = {
    {"human", "user"}, {"user", "user"}, {"gpt", "assistant"}, {"assistant", "assistant"},
    {"system", "system"}, {"observation", "tool"}, {"tool", "tool"},
    {"function_call", "function_call"},
};
/* clang-format on */

static const char *mapped_role(const format_spec *s, const char *role)
{
    const char *to;
    json_t *names, *name;
    size_t i;
    json_object_foreach ((json_t *)s->roles, to, names) {
        json_array_foreach (names, i, name) {
            if (strcmp(json_string_value(name), role) == 0)
                return to;
        }
    }
    return NULL;
}

static const char *usual_role(const char *role)
{
    for (size_t i = 0; i < sizeof usual_roles / sizeof *usual_roles; i++)
        if (strcmp(usual_roles[i][0], role) == 0)
            return usual_roles[i][1];
    return NULL;
}

/* Gives the property its canonical name. */
static void rename_property(json_t *message, const char *from, const char *to)
{
    json_t *v = json_object_get(message, from);
    if (v == NULL || strcmp(from, to) == 0)
        return;
    json_object_set(message, to, v);
    json_object_del(message, from);
}

/* One message with canonical property names and role; new reference. */
static int convert_message(json_t **out, const json_t *raw, const format_spec *s,
                           const char *role_name, const char *content_name, hone_err *e)
{
    const char *to, *role;
    json_t *from;
    *out = NULL;
    if (!json_is_object(raw))
        return hone_fail(e, HONE_EFORMAT, "not an object");
    json_t *m = json_deep_copy(raw);
    json_object_foreach ((json_t *)s->properties, to, from) {
        rename_property(m, json_string_value(from), to);
    }
    rename_property(m, role_name, "role");
    rename_property(m, content_name, "content");
    rename_property(m, or (s->train, "train"), "train");
    int rc = js_get_str(m, "role", &role, e);
    if (rc != 0) {
        json_decref(m);
        return rc;
    }
    to = mapped_role(s, role);
    if (to != NULL)
        json_object_set_new(m, "role", json_string(to));
    *out = m;
    return 0;
}

/* {"name": ..., "arguments": ...} written as JSON text, or a list of them, becomes tool_calls. */
static int take_call(json_t *m, hone_err *e)
{
    const char *text;
    json_t *calls, *call, *list = json_array();
    size_t i;
    int rc = js_get_str(m, "content", &text, e);
    if (rc == 0)
        rc = js_parse(&calls, text, strlen(text), e);
    if (rc != 0) {
        json_decref(list);
        return hone_fail_at(e, "function_call");
    }
    if (json_is_object(calls)) {
        json_t *one = json_pack("[o]", calls);
        calls = one;
    }
    json_array_foreach (calls, i, call) {
        json_array_append_new(list, json_pack("{s:s, s:O}", "type", "function", "function", call));
    }
    bool empty = json_array_size(list) == 0;
    json_decref(calls);
    json_object_set_new(m, "role", json_string("assistant"));
    json_object_set_new(m, "content", json_string(""));
    json_object_set_new(m, "tool_calls", list);
    return empty ? hone_fail(e, HONE_EFORMAT, "function_call holds no call") : 0;
}

static int settle_role(json_t *m, hone_err *e)
{
    const char *said = json_string_value(json_object_get(m, "role"));
    const char *role = usual_role(said);
    if (role == NULL)
        return hone_fail(e, HONE_EFORMAT,
                         "role '%s' is not known (human, gpt, system, observation, function_call "
                         "are; map others with 'roles')",
                         said);
    if (strcmp(role, "function_call") == 0)
        return take_call(m, e);
    json_object_set_new(m, "role", json_string(role));
    return 0;
}

/* tools: a list of schemas, or the JSON text of one; bare functions get their wrapping. */
static int add_tools(json_t *out, const json_t *record, const char *key, hone_err *e)
{
    json_t *v = json_object_get(record, key), *tools = NULL, *tool, *list;
    size_t i;
    int rc = 0;
    if (v == NULL || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0))
        return 0;
    if (json_is_string(v))
        rc = js_parse(&tools, json_string_value(v), json_string_length(v), e);
    else
        tools = json_incref(v);
    if (rc == 0 && !json_is_array(tools))
        rc = hone_fail(e, HONE_EFORMAT, "not a list of tools");
    if (rc != 0) {
        json_decref(tools);
        return hone_fail_at(e, "field '%s'", key);
    }
    list = json_array();
    json_array_foreach (tools, i, tool) {
        bool bare = json_object_get(tool, "function") == NULL && has_string(tool, "name");
        json_array_append_new(list,
                              bare ? json_pack("{s:s, s:O}", "type", "function", "function", tool)
                                   : json_incref(tool));
    }
    json_decref(tools);
    if (json_array_size(list) > 0)
        json_object_set(out, "tools", list);
    json_decref(list);
    return 0;
}

static void add_system(json_t *messages, const json_t *record, const char *key)
{
    json_t *v = json_object_get(record, key);
    if (json_is_string(v) && json_string_length(v) > 0)
        json_array_append_new(messages, json_pack("{s:s, s:O}", "role", "system", "content", v));
}

/* Appends the record's messages; `settle` makes sharegpt's roles ours. */
static int add_messages(json_t *messages, const json_t *list, const format_spec *s,
                        const char *role, const char *content, bool settle, hone_err *e)
{
    size_t i;
    json_t *raw, *m;
    json_array_foreach (list, i, raw) {
        int rc = convert_message(&m, raw, s, role, content, e);
        if (rc == 0 && settle)
            rc = settle_role(m, e);
        if (rc != 0) {
            json_decref(m);
            return hone_fail_at(e, "message %zu", i + 1);
        }
        json_array_append_new(messages, m);
    }
    return 0;
}

static int convert_chat(json_t **out, const json_t *record, const format_spec *s, const char *field,
                        const char *role, const char *content, bool sharegpt, hone_err *e)
{
    json_t *list, *o = json_object(), *messages = json_array();
    json_object_set_new(o, "messages", messages);
    *out = NULL;
    int rc = js_get_array(record, field, &list, e);
    if (rc == 0 && json_array_size(list) == 0)
        rc = hone_fail(e, HONE_EFORMAT, "field '%s' is empty", field);
    if (rc == 0 && (sharegpt || s->system != NULL))
        add_system(messages, record, or (s->system, "system"));
    if (rc == 0)
        rc = add_messages(messages, list, s, role, content, sharegpt, e);
    if (rc == 0)
        rc = add_tools(o, record, or (s->tools, "tools"), e);
    if (rc != 0)
        json_decref(o);
    else
        *out = o;
    return rc;
}

static bool chat_detect(const json_t *r, const format_spec *s)
{
    return json_is_array(json_object_get(r, or (s->messages, "messages")));
}

static int chat_convert(json_t **out, const json_t *r, const format_spec *s, hone_err *e)
{
    return convert_chat(out, r, s, or (s->messages, "messages"), or (s->role, "role"),
                        or (s->content, "content"), false, e);
}

static bool sharegpt_detect(const json_t *r, const format_spec *s)
{
    return json_is_array(json_object_get(r, or (s->messages, "conversations")));
}

static int sharegpt_convert(json_t **out, const json_t *r, const format_spec *s, hone_err *e)
{
    return convert_chat(out, r, s, or (s->messages, "conversations"), or (s->role, "from"),
                        or (s->content, "value"), true, e);
}

/* ---- alpaca ---- */

static void add_turn(json_t *messages, const char *role, const char *text)
{
    json_array_append_new(messages, json_pack("{s:s, s:s}", "role", role, "content", text));
}

/* history: earlier turns as [question, answer] pairs; their answers are learnt too. */
static int add_history(json_t *messages, const json_t *record, const char *key, hone_err *e)
{
    json_t *list = json_object_get(record, key), *pair;
    size_t i;
    if (list == NULL || json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return hone_fail(e, HONE_EFORMAT, "field '%s' is not a list of pairs", key);
    json_array_foreach (list, i, pair) {
        const char *q = json_string_value(json_array_get(pair, 0));
        const char *a = json_string_value(json_array_get(pair, 1));
        if (json_array_size(pair) != 2 || q == NULL || a == NULL)
            return hone_fail(e, HONE_EFORMAT, "field '%s': item %zu is not a pair of texts", key,
                             i + 1);
        add_turn(messages, "user", q);
        add_turn(messages, "assistant", a);
    }
    return 0;
}

static bool alpaca_detect(const json_t *r, const format_spec *s)
{
    return has_string(r, or (s->instruction, "instruction")) &&
           has_string(r, or (s->output, "output"));
}

static int alpaca_convert(json_t **out, const json_t *r, const format_spec *s, hone_err *e)
{
    const char *instruction, *output, *input = "";
    *out = NULL;
    json_t *o = json_object(), *messages = json_array();
    json_object_set_new(o, "messages", messages);
    int rc = js_get_str(r, or (s->instruction, "instruction"), &instruction, e);
    if (rc == 0)
        rc = js_opt_str(r, or (s->input, "input"), &input, e);
    if (rc == 0)
        rc = js_get_str(r, or (s->output, "output"), &output, e);
    if (rc == 0) {
        add_system(messages, r, or (s->system, "system"));
        rc = add_history(messages, r, or (s->history, "history"), e);
    }
    if (rc != 0) {
        json_decref(o);
        return rc;
    }
    char *question = mem_printf("%s%s%s", instruction, *instruction && *input ? "\n" : "", input);
    add_turn(messages, "user", question);
    add_turn(messages, "assistant", output);
    free(question);
    *out = o;
    return 0;
}

/* ---- prompt and completion ---- */

static bool pair_detect(const json_t *r, const format_spec *s)
{
    json_t *p = json_object_get(r, or (s->prompt, "prompt"));
    json_t *c = json_object_get(r, or (s->completion, "completion"));
    return (json_is_string(p) && json_is_string(c)) || (json_is_array(p) && json_is_array(c));
}

/* Message lists: only what the completion says is learnt. */
static int convert_lists(json_t **out, const json_t *record, const json_t *p, const json_t *c,
                         const format_spec *s, hone_err *e)
{
    json_t *o = json_object(), *messages = json_array(), *m;
    size_t i, n = json_array_size(p);
    json_object_set_new(o, "messages", messages);
    int rc =
        add_messages(messages, p, s, or (s->role, "role"), or (s->content, "content"), false, e);
    if (rc == 0)
        rc = add_messages(messages, c, s, or (s->role, "role"), or (s->content, "content"), false,
                          e);
    if (rc == 0)
        rc = add_tools(o, record, or (s->tools, "tools"), e);
    if (rc != 0) {
        json_decref(o);
        return rc;
    }
    json_array_foreach (messages, i, m) {
        if (i < n)
            json_object_set_new(m, "train", json_false());
    }
    *out = o;
    return 0;
}

static int pair_convert(json_t **out, const json_t *r, const format_spec *s, hone_err *e)
{
    const char *prompt = or (s->prompt, "prompt"), *completion = or (s->completion, "completion");
    json_t *p = json_object_get(r, prompt), *c = json_object_get(r, completion);
    *out = NULL;
    if (p == NULL || c == NULL)
        return hone_fail(e, HONE_EFORMAT, "field '%s' is missing", p == NULL ? prompt : completion);
    if (json_is_array(p) && json_is_array(c))
        return convert_lists(out, r, p, c, s, e);
    if (!json_is_string(p) || !json_is_string(c))
        return hone_fail(e, HONE_EFORMAT,
                         "fields '%s' and '%s' must both be texts or both lists "
                         "of messages",
                         prompt, completion);
    *out = json_pack("{s:O, s:O}", "prompt", p, "completion", c);
    return 0;
}

/* ---- text ---- */

static bool text_detect(const json_t *r, const format_spec *s)
{
    return has_string(r, or (s->text, "text"));
}

static int text_convert(json_t **out, const json_t *r, const format_spec *s, hone_err *e)
{
    json_t *v = json_object_get(r, or (s->text, "text"));
    *out = NULL;
    if (!json_is_string(v))
        return hone_fail(e, HONE_EFORMAT, "field '%s' is %s", or (s->text, "text"),
                         v == NULL ? "missing" : "not a string");
    *out = json_pack("{s:O}", "text", v);
    return 0;
}

/* ---- the list ---- */

/* clang-format off */
static const format chat_template = {"chat_template", chat_detect, chat_convert,
    "messages of {role, content}, and tools; rendered with the chat template"};
static const format sharegpt = {"sharegpt", sharegpt_detect, sharegpt_convert,
    "conversations of {from, value}; system, tools"};
static const format alpaca = {"alpaca", alpaca_detect, alpaca_convert,
    "instruction, input, output; system, history; rendered with the chat template"};
static const format prompt_completion = {"prompt_completion", pair_detect, pair_convert,
    "prompt and completion: texts as they stand, or lists of messages"};
static const format completion = {"completion", text_detect, text_convert,
    "text: every token is learnt"};

const format *const formats[] = {
    &chat_template, &sharegpt, &alpaca, &prompt_completion, &completion, NULL,
};

/* Fields that say that a record is for another objective; learning its answers as they stand would
 * be wrong. */
static const struct { const char *field; json_type type; const char *what; } other_shapes[] = {
    {"chosen", JSON_STRING, "preference pairs"}, {"chosen", JSON_OBJECT, "preference pairs"},
    {"chosen", JSON_ARRAY, "preference pairs"}, {"chosen_messages", JSON_ARRAY, "preference pairs"},
    {"kto_tag", JSON_TRUE, "rated answers"}, {"kto_tag", JSON_FALSE, "rated answers"},
    {"label", JSON_TRUE, "rated answers"}, {"label", JSON_FALSE, "rated answers"},
    {"completions", JSON_ARRAY, "step rewards"}, {"segments", JSON_ARRAY, "segments"},
    {"input_ids", JSON_ARRAY, "token ids"},
};
/* clang-format on */

int format_detect(const format **out, const json_t *record, const format_spec *s, hone_err *e)
{
    *out = NULL;
    for (size_t i = 0; i < sizeof other_shapes / sizeof *other_shapes; i++) {
        json_t *v = json_object_get(record, other_shapes[i].field);
        if (v != NULL && json_typeof(v) == other_shapes[i].type)
            return hone_fail(e, HONE_EUNSUPPORTED,
                             "field '%s': %s cannot be trained on as examples; set 'type' if these "
                             "records are good answers",
                             other_shapes[i].field, other_shapes[i].what);
    }
    for (size_t i = 0; formats[i] != NULL; i++) {
        if (formats[i]->detect(record, s)) {
            *out = formats[i];
            return 0;
        }
    }
    char names[256] = "";
    size_t used = 0;
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)record, key, v) {
        if (used + strlen(key) + 3 < sizeof names)
            used +=
                (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", key);
    }
    return hone_fail(e, HONE_EFORMAT,
                     "fields {%s} are no known shape; set 'type' and the names of the fields",
                     names);
}
