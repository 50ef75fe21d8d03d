/* POST /v1/completions. */
#include "core/base/mem.h"
#include "core/base/utf8.h"
#include "serve/http/http_gen.h"
#include "serve/http/http_handlers.h"

#include <stdlib.h>
#include <string.h>

static int64_t characters(const char *s)
{
    int64_t n = 0;
    for (; *s != '\0'; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* The older form: parallel lists. *offset is where the first token stands, and goes on behind the
 * last. */
static json_t *lists_of(const json_t *entries, int64_t *offset)
{
    json_t *tokens = json_array(), *logprobs = json_array(), *tops = json_array();
    json_t *offsets = json_array();
    for (size_t i = 0; i < json_array_size(entries); i++) {
        const json_t *entry = json_array_get(entries, i);
        const json_t *top = json_object_get(entry, "top_logprobs");
        json_t *token = json_object_get(entry, "token"), *map = json_object();
        for (size_t k = 0; k < json_array_size(top); k++) {
            const json_t *t = json_array_get(top, k);
            const char *name = json_string_value(json_object_get(t, "token"));
            if (json_object_get(map, name) == NULL) /* two tokens may look alike: the likelier */
                json_object_set(map, name, json_object_get(t, "logprob"));
        }
        bool first = json_is_null(json_object_get(entry, "logprob"));
        json_array_append(tokens, token);
        json_array_append(logprobs, json_object_get(entry, "logprob"));
        json_array_append_new(offsets, json_integer(*offset));
        json_array_append_new(tops, first ? json_null() : json_incref(map));
        json_decref(map);
        *offset += characters(json_string_value(token));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", logprobs,
                     "top_logprobs", tops, "text_offset", offsets);
}

static json_t *whole(const http_gen *g, int choice)
{
    const gen_choice *c = &g->choice[choice];
    int64_t offset = 0;
    const char *prompt = g->p.echo ? g->prompt[choice / g->p.n].text : "";
    char *text = mem_printf("%s%s", prompt, c->text.data);
    json_t *v = json_pack("{s:i, s:s, s:o, s:s}", "index", choice, "text", text, "logprobs",
                          c->logprobs != NULL ? lists_of(c->logprobs, &offset) : json_null(),
                          "finish_reason", gen_finish_name(c->finish));
    free(text);
    return v;
}

static json_t *delta(http_gen *g, int choice, const char *text, size_t len, json_t *entries,
                     const char *finish)
{
    return json_pack("{s:i, s:s%, s:o, s:s?}", "index", choice, "text", text != NULL ? text : "",
                     len, "logprobs",
                     entries != NULL ? lists_of(entries, &g->choice[choice].offset) : json_null(),
                     "finish_reason", finish);
}

static const gen_face face = {
    .object = "text_completion",
    .chunk_object = "text_completion",
    .whole = whole,
    .delta = delta,
};

static bool add_one(http_req *r, const json_t *v)
{
    if (json_is_string(v))
        return http_gen_add_text(r, json_string_value(v), json_string_length(v), TOK_ADD_SPECIAL,
                                 "prompt");
    return http_gen_add_ids(r, v, "prompt");
}

void http_completions(http_req *r)
{
    const http_gen *g = http_gen_new(r, &face, PARAMS_COMPLETION);
    if (g == NULL)
        return;
    const json_t *p = g->p.prompt, *first = json_array_get(p, 0);
    bool several = json_is_string(first) || json_is_array(first), ok = true;
    if (!several)
        ok = add_one(r, p);
    for (size_t i = 0; several && ok && i < json_array_size(p); i++)
        ok = add_one(r, json_array_get(p, i));
    if (ok)
        http_gen_run(r);
}
