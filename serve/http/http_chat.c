/* POST /v1/chat/completions. */
#include "core/base/buf.h"
#include "serve/http/http_gen.h"
#include "serve/http/http_handlers.h"

#include <string.h>

enum { MAX_PROMPT = 64 << 20 };

static json_t *logprobs_of(json_t *entries)
{
    return json_pack("{s:O, s:n}", "content", entries, "refusal");
}

static json_t *whole(const http_gen *g, int choice)
{
    const gen_choice *c = &g->choice[choice];
    return json_pack("{s:i, s:{s:s, s:s%, s:n}, s:o, s:s}", "index", choice, "message", "role",
                     "assistant", "content", c->text.data, c->text.len, "refusal", "logprobs",
                     c->logprobs != NULL ? logprobs_of(c->logprobs) : json_null(), "finish_reason",
                     gen_finish_name(c->finish));
}

static json_t *delta(http_gen *g, int choice, const char *text, size_t len, json_t *entries,
                     const char *finish)
{
    json_t *d = json_object();
    (void)g;
    if (text != NULL) {
        json_object_set_new(d, "content", json_stringn(text, len));
    } else if (finish == NULL) {
        json_object_set_new(d, "role", json_string("assistant"));
        json_object_set_new(d, "content", json_null());
    }
    return json_pack("{s:i, s:o, s:o, s:s?}", "index", choice, "delta", d, "logprobs",
                     entries != NULL ? logprobs_of(entries) : json_null(), "finish_reason", finish);
}

static const gen_face face = {
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .whole = whole,
    .delta = delta,
    .says_role = true,
};

static bool render(http_req *r, const http_gen *g, const json_t *tools, buf *out)
{
    hone_err e = {0};
    chat_options o = {.add_generation_prompt = g->p.add_generation_prompt,
                      .tools = tools,
                      .extra = g->p.template_kwargs};
    int rc = chat_render(g->m->chat, g->p.messages, &o, out, &e);
    if (rc == 0)
        rc = buf_check(out, "the rendered prompt", &e);
    if (rc != 0)
        http_reply_error(r, rc == HONE_ENOMEM ? HTTP_OVERLOADED : HTTP_TEMPLATE, "messages", "%s",
                         e.msg);
    return rc == 0;
}

/* A template that does not show the tools to the model would drop them without a word: the prompt
 * tells. */
static bool tools_show(http_req *r, const http_gen *g, const buf *with)
{
    buf without;
    buf_init(&without, MAX_PROMPT);
    bool ok = render(r, g, NULL, &without);
    if (ok && without.len == with->len && memcmp(without.data, with->data, with->len) == 0) {
        http_reply_error(r, HTTP_UNSUPPORTED_PARAMETER, "tools",
                         "'tools' is not supported: the chat template of '%s' does not show them",
                         g->m->name);
        ok = false;
    }
    buf_free(&without);
    return ok;
}

bool http_chat_prompt(http_req *r, buf *out)
{
    const http_gen *g = r->gen;
    if (g->m->chat == NULL) {
        http_reply_error(r, HTTP_TEMPLATE, "messages",
                         "the model '%s' has no chat template; use /v1/completions", g->m->name);
        return false;
    }
    return render(r, g, g->p.tools, out) && (g->p.tools == NULL || tools_show(r, g, out));
}

void http_chat(http_req *r)
{
    buf text;
    if (http_gen_new(r, &face, PARAMS_CHAT) == NULL)
        return;
    buf_init(&text, MAX_PROMPT);
    /* The template writes the special tokens itself. */
    bool ok =
        http_chat_prompt(r, &text) && http_gen_add_text(r, text.data, text.len, 0, "messages");
    buf_free(&text);
    if (ok)
        http_gen_run(r);
}
