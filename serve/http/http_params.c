#include "serve/http/http_params.h"

#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/nearest.h"
#include "serve/http/http_messages.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_METADATA = 16, MAX_META_KEY = 64, MAX_META_VALUE = 512, MAX_ROWS = 96 };

typedef struct row row;

typedef struct reading {
    params *p;
    char *name; /* of what is wrong */
    hone_err *e;
} reading;

typedef int read_fn(const reading *r, const row *row, json_t *v);

struct row {
    const char *name;
    int surfaces;
    read_fn *read;
    size_t offset;    /* into params */
    double min, max;  /* inclusive */
    const char *only; /* refused unless it is one of these JSON values, parted by '|' */
};

/* ---- plain values ---- */

static int wrong(const reading *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int wrong(const reading *r, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return hone_fail(r->e, HONE_EINVAL, "'%s' %s", r->name, text);
}

static int in_range(const reading *r, const row *w, double v)
{
    if (!(v >= w->min && v <= w->max))
        return wrong(r, "is %g, must lie between %g and %g", v, w->min, w->max);
    return 0;
}

static int read_float(const reading *r, const row *w, json_t *v)
{
    if (!json_is_number(v))
        return wrong(r, "must be a number");
    int rc = in_range(r, w, json_number_value(v));
    if (rc == 0)
        *(float *)((char *)r->p + w->offset) = (float)json_number_value(v);
    return rc;
}

static int read_int(const reading *r, const row *w, json_t *v)
{
    if (!json_is_integer(v))
        return wrong(r, "must be an integer");
    int rc = in_range(r, w, (double)json_integer_value(v));
    if (rc == 0)
        *(int64_t *)((char *)r->p + w->offset) = json_integer_value(v);
    return rc;
}

static int read_bool(const reading *r, const row *w, json_t *v)
{
    if (!json_is_boolean(v))
        return wrong(r, "must be true or false");
    *(bool *)((char *)r->p + w->offset) = json_is_true(v);
    return 0;
}

static int read_text(const reading *r, const row *w, json_t *v)
{
    if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v))
        return wrong(r, "must be text");
    if (json_string_length(v) == 0 || json_string_length(v) > (size_t)w->max)
        return wrong(r, "must have 1 to %.0f bytes", w->max);
    *(const char **)((char *)r->p + w->offset) = json_string_value(v);
    return 0;
}

/* ---- values with a form of their own ---- */

static int read_seed(const reading *r, const row *w, json_t *v)
{
    (void)w;
    if (!json_is_integer(v))
        return wrong(r, "must be an integer");
    r->p->gen.seed = (uint64_t)json_integer_value(v);
    r->p->has_seed = true;
    return 0;
}

static int read_top_k(const reading *r, const row *w, json_t *v)
{
    int64_t k = 0;
    if (!json_is_integer(v))
        return wrong(r, "must be an integer");
    k = json_integer_value(v) == -1 ? 0 : json_integer_value(v); /* -1 is another way to say off */
    int rc = in_range(r, w, (double)k);
    r->p->gen.top_k = (int32_t)k;
    return rc;
}

static int add_stop(const reading *r, const json_t *v)
{
    gen_params *g = &r->p->gen;
    size_t len = json_string_length(v);
    if (!json_is_string(v) || strlen(json_string_value(v)) != len)
        return wrong(r, "must be text or a list of texts");
    if (len == 0 || len > PARAMS_MAX_STOP_BYTES)
        return wrong(r, "has a text of %zu bytes, 1 to %d are taken", len, PARAMS_MAX_STOP_BYTES);
    g->stop[g->n_stop++] = mem_strdup(json_string_value(v));
    return 0;
}

static int read_stop(const reading *r, const row *w, json_t *v)
{
    size_t i;
    json_t *s;
    (void)w;
    if (json_is_array(v) && json_array_size(v) > PARAMS_MAX_STOPS)
        return wrong(r, "has %zu texts, at most %d are taken", json_array_size(v),
                     PARAMS_MAX_STOPS);
    r->p->gen.stop = mem_array(PARAMS_MAX_STOPS, sizeof *r->p->gen.stop);
    if (!json_is_array(v))
        return add_stop(r, v);
    json_array_foreach (v, i, s) {
        int rc = add_stop(r, s);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int read_stop_ids(const reading *r, const row *w, json_t *v)
{
    size_t i;
    json_t *id;
    gen_params *g = &r->p->gen;
    (void)w;
    if (!json_is_array(v) || json_array_size(v) > PARAMS_MAX_STOPS)
        return wrong(r, "must be a list of at most %d token ids", PARAMS_MAX_STOPS);
    g->stop_ids = mem_array(PARAMS_MAX_STOPS, sizeof *g->stop_ids);
    json_array_foreach (v, i, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return wrong(r, "must be a list of token ids");
        g->stop_ids[g->n_stop_ids++] = (int32_t)json_integer_value(id);
    }
    return 0;
}

static int read_bias(const reading *r, const row *w, json_t *v)
{
    gen_params *g = &r->p->gen;
    const char *key;
    json_t *b;
    if (!json_is_object(v) || json_object_size(v) > PARAMS_MAX_BIAS)
        return wrong(r, "must map at most %d token ids to numbers", PARAMS_MAX_BIAS);
    g->bias_id = mem_array(json_object_size(v) + 1, sizeof *g->bias_id);
    g->bias = mem_array(json_object_size(v) + 1, sizeof *g->bias);
    json_object_foreach (v, key, b) {
        char *end;
        long id = strtol(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end != '\0' || id > INT32_MAX)
            return wrong(r, "has the key '%.32s', which is not a token id", key);
        if (!json_is_number(b))
            return wrong(r, "has for %ld something that is not a number", id);
        int rc = in_range(r, w, json_number_value(b));
        if (rc != 0)
            return rc;
        g->bias_id[g->n_bias] = (int32_t)id;
        g->bias[g->n_bias++] = (float)json_number_value(b);
    }
    return 0;
}

static int read_stream_options(const reading *r, const row *w, json_t *v)
{
    static const char *const known[] = {"include_usage", NULL};
    hone_err e = {0};
    (void)w;
    if (!json_is_object(v))
        return wrong(r, "must be an object");
    if (js_only_keys(v, known, &e) != 0)
        return hone_fail(r->e, HONE_EUNSUPPORTED, "'%s': %s", r->name, e.msg);
    if (js_opt_bool(v, "include_usage", &r->p->include_usage, &e) != 0)
        return wrong(r, "has an include_usage that is not true or false");
    return 0;
}

/* Completions: how many alternatives. */
static int read_logprobs_count(const reading *r, const row *w, json_t *v)
{
    int rc = read_int(r, w, v);
    r->p->logprobs = rc == 0;
    return rc;
}

static int read_store(const reading *r, const row *w, json_t *v)
{
    (void)w;
    if (!json_is_boolean(v))
        return wrong(r, "must be true or false");
    r->p->store = json_is_true(v) ? PARAMS_STORE_YES : PARAMS_STORE_NO;
    return 0;
}

static int read_metadata(const reading *r, const row *w, json_t *v)
{
    const char *key;
    json_t *text;
    (void)w;
    if (!json_is_object(v) || json_object_size(v) > MAX_METADATA)
        return wrong(r, "must be an object of at most %d texts", MAX_METADATA);
    json_object_foreach (v, key, text) {
        if (strlen(key) > MAX_META_KEY || !json_is_string(text) ||
            json_string_length(text) > MAX_META_VALUE)
            return wrong(r, "takes keys of %d and texts of %d bytes at most", MAX_META_KEY,
                         MAX_META_VALUE);
    }
    r->p->metadata = v;
    return 0;
}

static int read_messages(const reading *r, const row *w, json_t *v)
{
    (void)w;
    return messages_read(&r->p->messages, v, r->name, r->e);
}

static int read_tools(const reading *r, const row *w, json_t *v)
{
    (void)w;
    if (!json_is_array(v) || json_array_size(v) > PARAMS_MAX_TOOLS)
        return wrong(r, "must be a list of at most %d tools", PARAMS_MAX_TOOLS);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *t = json_array_get(v, i);
        const char *type = json_string_value(json_object_get(t, "type"));
        if (type == NULL || strcmp(type, "function") != 0 ||
            !json_is_string(json_object_get(json_object_get(t, "function"), "name")))
            return wrong(r, "[%zu] is not {\"type\": \"function\", \"function\": {\"name\": ...}}",
                         i);
    }
    r->p->tools = json_array_size(v) > 0 ? json_incref(v) : NULL;
    return 0;
}

static int read_kwargs(const reading *r, const row *w, json_t *v)
{
    static const char *const own[] = {"messages", "tools", "add_generation_prompt", NULL};
    (void)w;
    if (!json_is_object(v))
        return wrong(r, "must be an object");
    for (int i = 0; own[i] != NULL; i++)
        if (json_object_get(v, own[i]) != NULL)
            return wrong(r, "may not set '%s'", own[i]);
    r->p->template_kwargs = json_incref(v);
    return 0;
}

static bool is_ids(const json_t *v)
{
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return false;
    }
    return json_is_array(v) && json_array_size(v) > 0;
}

static int read_prompt(const reading *r, const row *w, json_t *v)
{
    size_t n = json_array_size(v);
    (void)w;
    r->p->prompt = v;
    if (json_is_string(v) || is_ids(v))
        return 0;
    if (!json_is_array(v) || n == 0)
        return wrong(r, "must be text, token ids, or a list of either");
    if (n > PARAMS_MAX_PROMPTS)
        return wrong(r, "has %zu prompts, at most %d are taken", n, PARAMS_MAX_PROMPTS);
    bool texts = json_is_string(json_array_get(v, 0));
    for (size_t i = 0; i < n; i++)
        if (texts ? !json_is_string(json_array_get(v, i)) : !is_ids(json_array_get(v, i)))
            return wrong(r, "must be text, token ids, or a list of either");
    return 0;
}

/* ---- what is refused ---- */

static int refuse(const reading *r, const row *w, json_t *v)
{
    char *text = js_text(v, true);
    const char *s = w->only;
    while (s != NULL && text != NULL) {
        size_t n = strcspn(s, "|");
        if (strlen(text) == n && memcmp(text, s, n) == 0) {
            free(text);
            return 0;
        }
        s = s[n] == '|' ? s + n + 1 : NULL;
    }
    int rc = w->only != NULL ? hone_fail(r->e, HONE_EUNSUPPORTED,
                                         "'%s' is not supported except as %s", r->name, w->only)
                             : hone_fail(r->e, HONE_EUNSUPPORTED, "'%s' is not supported", r->name);
    free(text);
    return rc;
}

/* ---- the table ---- */

enum { C = PARAMS_CHAT, T = PARAMS_COMPLETION, B = PARAMS_CHAT | PARAMS_COMPLETION };
#define AT(field) offsetof(params, field)

/* clang-format off */
static const row rows[] = {
    {"model",                 B, read_text,    AT(model),             1, 256, NULL},
    {"messages",              C, read_messages, 0,                    0, 0, NULL},
    {"prompt",                T, read_prompt,  0,                     0, 0, NULL},
    {"stream",                B, read_bool,    AT(stream),            0, 0, NULL},
    {"stream_options",        B, read_stream_options, 0,              0, 0, NULL},
    {"n",                     B, read_int,     AT(n),                 1, PARAMS_MAX_CHOICES, NULL},
    {"max_tokens",            C, read_int,     AT(max_tokens),        1, 1 << 24, NULL},
    {"max_completion_tokens", C, read_int,     AT(max_tokens),        1, 1 << 24, NULL},
    {"max_tokens",            T, read_int,     AT(max_tokens),        0, 1 << 24, NULL},
    {"temperature",           B, read_float,   AT(gen.temperature),   0, 2, NULL},
    {"top_p",                 B, read_float,   AT(gen.top_p),         1e-6, 1, NULL},
    {"top_k",                 B, read_top_k,   0,                     0, INT32_MAX, NULL},
    {"min_p",                 B, read_float,   AT(gen.min_p),         0, 1, NULL},
    {"repetition_penalty",    B, read_float,   AT(gen.repetition),    0.01, 10, NULL},
    {"presence_penalty",      B, read_float,   AT(gen.presence),     -2, 2, NULL},
    {"frequency_penalty",     B, read_float,   AT(gen.frequency),    -2, 2, NULL},
    {"seed",                  B, read_seed,    0,                     0, 0, NULL},
    {"stop",                  B, read_stop,    0,                     0, 0, NULL},
    {"stop_token_ids",        B, read_stop_ids, 0,                    0, 0, NULL},
    {"ignore_eos",            B, read_bool,    AT(gen.ignore_eos),    0, 0, NULL},
    {"logit_bias",            B, read_bias,    0,                  -100, 100, NULL},
    {"logprobs",              C, read_bool,    AT(logprobs),          0, 0, NULL},
    {"top_logprobs",          C, read_int,     AT(n_top),             0, KERN_MAX_TOP, NULL},
    {"logprobs",              T, read_logprobs_count, AT(n_top),      0, KERN_MAX_TOP, NULL},
    {"echo",                  T, read_bool,    AT(echo),              0, 0, NULL},
    {"user",                  B, read_text,    AT(user),              1, 512, NULL},
    {"safety_identifier",     B, read_text,    AT(user),              1, 512, NULL},
    {"store",                 B, read_store,   0,                     0, 0, NULL},
    {"metadata",              B, read_metadata, 0,                    0, 0, NULL},
    {"tools",                 C, read_tools,   0,                     0, 0, NULL},
    {"chat_template_kwargs",  C, read_kwargs,  0,                     0, 0, NULL},
    {"add_generation_prompt", C, read_bool,    AT(add_generation_prompt), 0, 0, NULL},
    /* refused, unless they ask for what happens anyway */
    {"tool_choice",           C, refuse, 0, 0, 0, "\"auto\"|\"none\""},
    {"parallel_tool_calls",   C, refuse, 0, 0, 0, "true"},
    {"response_format",       C, refuse, 0, 0, 0, "{\"type\":\"text\"}"},
    {"modalities",            C, refuse, 0, 0, 0, "[\"text\"]"},
    {"service_tier",          B, refuse, 0, 0, 0, "\"auto\"|\"default\""},
    {"best_of",               T, refuse, 0, 0, 0, "1"},
    {"suffix",                T, refuse, 0, 0, 0, "\"\""},
    {"continue_final_message", C, refuse, 0, 0, 0, "false"},
    {"use_beam_search",       B, refuse, 0, 0, 0, "false"},
    {"skip_special_tokens",   B, refuse, 0, 0, 0, "true"},
    {"include_stop_str_in_output", B, refuse, 0, 0, 0, "false"},
    {"min_tokens",            B, refuse, 0, 0, 0, "0"},
    {"audio",                 C, refuse, 0, 0, 0, NULL},
    {"prediction",            C, refuse, 0, 0, 0, NULL},
    {"functions",             C, refuse, 0, 0, 0, NULL},
    {"function_call",         C, refuse, 0, 0, 0, NULL},
    {"reasoning_effort",      C, refuse, 0, 0, 0, NULL},
    {"verbosity",             C, refuse, 0, 0, 0, NULL},
    {"web_search_options",    C, refuse, 0, 0, 0, NULL},
    {"prompt_cache_key",      B, refuse, 0, 0, 0, NULL},
    {"prompt_cache_retention", B, refuse, 0, 0, 0, NULL},
    {"chat_template",         C, refuse, 0, 0, 0, NULL},
    {"documents",             C, refuse, 0, 0, 0, NULL},
    {"truncate_prompt_tokens", B, refuse, 0, 0, 0, NULL},
    {"prompt_logprobs",       B, refuse, 0, 0, 0, NULL},
    {"structured_outputs",    B, refuse, 0, 0, 0, NULL},
    {"guided_json",           B, refuse, 0, 0, 0, NULL},
    {"guided_regex",          B, refuse, 0, 0, 0, NULL},
    {"guided_choice",         B, refuse, 0, 0, 0, NULL},
    {"guided_grammar",        B, refuse, 0, 0, 0, NULL},
    {"grammar",               B, refuse, 0, 0, 0, NULL},
    {"json_schema",           B, refuse, 0, 0, 0, NULL},
    {"typical_p",             B, refuse, 0, 0, 0, NULL},
    {"length_penalty",        B, refuse, 0, 0, 0, NULL},
    {"bad_words",             B, refuse, 0, 0, 0, NULL},
    {"priority",              B, refuse, 0, 0, 0, NULL},
};
/* clang-format on */

enum { N_ROWS = sizeof rows / sizeof *rows };

static const row *find(const char *name, int surface)
{
    for (int i = 0; i < N_ROWS; i++)
        if ((rows[i].surfaces & surface) != 0 && strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

static int unknown(const reading *r, int surface)
{
    const char *names[MAX_ROWS + 1];
    int n = 0;
    for (int i = 0; i < N_ROWS && n < MAX_ROWS; i++)
        if ((rows[i].surfaces & surface) != 0 && rows[i].read != refuse)
            names[n++] = rows[i].name;
    names[n] = NULL;
    const char *near = nearest_name(r->name, names);
    if (near != NULL)
        return hone_fail(r->e, HONE_EUNSUPPORTED, "unknown parameter '%s' (did you mean '%s'?)",
                         r->name, near);
    return hone_fail(r->e, HONE_EUNSUPPORTED, "unknown parameter '%s'", r->name);
}

/* ---- what must agree ---- */

static int name_it(const reading *r, const char *name, int rc)
{
    snprintf(r->name, PARAMS_NAME, "%s", name);
    return rc;
}

static int check_together(const reading *r, int surface, const json_t *body)
{
    params *p = r->p;
    if (surface == PARAMS_CHAT && p->messages == NULL)
        return name_it(r, "messages", hone_fail(r->e, HONE_EINVAL, "'messages' is missing"));
    if (surface == PARAMS_COMPLETION && p->prompt == NULL)
        return name_it(r, "prompt", hone_fail(r->e, HONE_EINVAL, "'prompt' is missing"));
    const json_t *old_name = json_object_get(body, "max_tokens");
    const json_t *new_name = json_object_get(body, "max_completion_tokens");
    if (json_is_integer(old_name) && json_is_integer(new_name) && !json_equal(old_name, new_name))
        return name_it(r, "max_tokens",
                       hone_fail(r->e, HONE_EINVAL,
                                 "'max_tokens' and 'max_completion_tokens' say different things"));
    if (p->n_top > 0 && !p->logprobs)
        return name_it(r, "top_logprobs",
                       hone_fail(r->e, HONE_EINVAL, "'top_logprobs' needs 'logprobs': true"));
    if (json_object_get(body, "stream_options") != NULL && p->include_usage && !p->stream)
        return name_it(r, "stream_options",
                       hone_fail(r->e, HONE_EINVAL, "'stream_options' needs 'stream': true"));
    if (p->max_tokens == 0 && !p->echo)
        return name_it(r, "max_tokens",
                       hone_fail(r->e, HONE_EINVAL,
                                 "'max_tokens' is 0, which is only of use with 'echo': true"));
    const char *choice = json_string_value(json_object_get(body, "tool_choice"));
    if (choice != NULL && strcmp(choice, "none") == 0) {
        json_decref(p->tools);
        p->tools = NULL;
    }
    return 0;
}

int params_read(params *p, int surface, const json_t *body, const gen_params *base,
                char name[PARAMS_NAME], hone_err *e)
{
    const char *key;
    json_t *v;
    int rc = 0;
    *p = (params){.n = 1, .max_tokens = -1, .add_generation_prompt = true};
    gen_defaults(&p->gen);
    if (base != NULL) {
        p->gen.temperature = base->temperature;
        p->gen.top_p = base->top_p;
        p->gen.min_p = base->min_p;
        p->gen.top_k = base->top_k;
        p->gen.repetition = base->repetition;
    }
    reading r = {p, name, e};
    name[0] = '\0';
    json_object_foreach ((json_t *)body, key, v) {
        snprintf(name, PARAMS_NAME, "%s", key);
        const row *w = find(key, surface);
        if (w == NULL)
            rc = unknown(&r, surface);
        else if (!json_is_null(v))
            rc = w->read(&r, w, v);
        if (rc != 0)
            return rc;
    }
    name[0] = '\0';
    return check_together(&r, surface, body);
}

void params_free(params *p)
{
    for (int i = 0; i < p->gen.n_stop; i++)
        free(p->gen.stop[i]);
    free(p->gen.stop);
    free(p->gen.stop_ids);
    free(p->gen.bias_id);
    free(p->gen.bias);
    json_decref(p->messages);
    json_decref(p->tools);
    json_decref(p->template_kwargs);
    *p = (params){0};
}

json_t *params_record(const params *p)
{
    const gen_params *g = &p->gen;
    json_t *o = json_pack("{s:I, s:f, s:f, s:f, s:i, s:f, s:f, s:f, s:I, s:I}", "n", p->n,
                          "temperature", (double)g->temperature, "top_p", (double)g->top_p, "min_p",
                          (double)g->min_p, "top_k", (int)g->top_k, "repetition_penalty",
                          (double)g->repetition, "presence_penalty", (double)g->presence,
                          "frequency_penalty", (double)g->frequency, "seed", (json_int_t)g->seed,
                          "max_tokens", (json_int_t)p->max_tokens);
    if (g->n_stop > 0) {
        json_t *stop = json_array();
        for (int i = 0; i < g->n_stop; i++)
            json_array_append_new(stop, json_string(g->stop[i]));
        json_object_set_new(o, "stop", stop);
    }
    if (p->tools != NULL)
        json_object_set_new(o, "tools", json_deep_copy(p->tools));
    if (p->template_kwargs != NULL)
        json_object_set_new(o, "chat_template_kwargs", json_deep_copy(p->template_kwargs));
    return o;
}
