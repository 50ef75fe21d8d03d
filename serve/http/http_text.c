/* POST /tokenize, /detokenize, /apply-template: what the model gets to see. */
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/http/http_gen.h"
#include "serve/http/http_handlers.h"
#include "serve/http/http_server_in.h"

#include <string.h>

enum { MAX_TEXT = 64 << 20 };

/* The fields that a request may have; false after an error reply. */
static bool only(http_req *r, const char *const *names)
{
    hone_err e = {0};
    if (js_only_keys(r->json, names, &e) == 0)
        return true;
    http_reply_error(r, HTTP_UNSUPPORTED_PARAMETER, NULL, "%s", e.msg);
    return false;
}

static bool flag(http_req *r, const char *name, bool *out)
{
    hone_err e = {0};
    if (js_opt_bool(r->json, name, out, &e) == 0)
        return true;
    http_reply_error(r, HTTP_INVALID_VALUE, name, "%s", e.msg);
    return false;
}

static void give_back(http_req *r, served *m)
{
    if (m != NULL)
        r->srv->engine->release(r->srv->engine->ctx, m);
}

static json_t *ids_json(const tok_ids *ids)
{
    json_t *a = json_array();
    for (size_t i = 0; i < ids->n; i++)
        json_array_append_new(a, json_integer(ids->id[i]));
    return a;
}

static json_t *pieces_json(const served *m, const tok_ids *ids)
{
    json_t *a = json_array();
    for (size_t i = 0; i < ids->n; i++) {
        size_t n = 0;
        const char *piece = tok_piece(m->tok, ids->id[i], &n);
        json_t *text = piece != NULL ? json_stringn(piece, n) : NULL;
        json_array_append_new(a, text != NULL ? text : json_null());
    }
    return a;
}

static void tokenize(http_req *r, const served *m, const json_t *text, unsigned flags, bool pieces)
{
    hone_err e = {0};
    tok_ids ids = {0};
    if (tok_encode(m->tok, json_string_value(text), json_string_length(text), flags, &ids, &e) !=
        0) {
        http_reply_error(r, HTTP_INVALID_VALUE, "content", "%s", e.msg);
    } else {
        json_t *o = json_pack("{s:o, s:I, s:I}", "tokens", ids_json(&ids), "count",
                              (json_int_t)ids.n, "max_model_len", (json_int_t)m->context);
        if (pieces)
            json_object_set_new(o, "pieces", pieces_json(m, &ids));
        http_reply_json(r, 200, o);
    }
    tok_ids_free(&ids);
}

void http_tokenize(http_req *r)
{
    static const char *const names[] = {"model",         "content",     "prompt", "add_special",
                                        "parse_special", "with_pieces", NULL};
    bool add = false, parse = true, pieces = false;
    if (!only(r, names) || !flag(r, "add_special", &add) || !flag(r, "parse_special", &parse) ||
        !flag(r, "with_pieces", &pieces))
        return;
    const json_t *text = json_object_get(r->json, "content");
    text = text != NULL ? text : json_object_get(r->json, "prompt");
    if (!json_is_string(text)) {
        http_reply_error(r, HTTP_INVALID_VALUE, "content", "'content' must be text");
        return;
    }
    served *m = http_req_model(r);
    if (m != NULL)
        tokenize(r, m, text, (add ? TOK_ADD_SPECIAL : 0) | (parse ? 0 : TOK_NO_PARSE_SPECIAL),
                 pieces);
    give_back(r, m);
}

static bool take_ids(http_req *r, const json_t *v, tok_ids *out)
{
    size_t n = json_array_size(v);
    bool ok = json_is_array(v);
    out->id = mem_array(n + 1, sizeof *out->id);
    for (size_t i = 0; ok && i < n; i++) {
        const json_t *id = json_array_get(v, i);
        ok = json_is_integer(id) && json_integer_value(id) >= 0 &&
             json_integer_value(id) <= INT32_MAX;
        out->id[out->n++] = ok ? (int32_t)json_integer_value(id) : 0;
    }
    if (!ok)
        http_reply_error(r, HTTP_INVALID_VALUE, "tokens", "'tokens' must be a list of token ids");
    return ok;
}

void http_detokenize(http_req *r)
{
    static const char *const names[] = {"model", "tokens", "skip_special", NULL};
    bool skip = false;
    tok_ids ids = {0};
    hone_err e = {0};
    buf text;
    if (!only(r, names) || !flag(r, "skip_special", &skip))
        return;
    buf_init(&text, MAX_TEXT);
    served *m = http_req_model(r);
    if (m != NULL && take_ids(r, json_object_get(r->json, "tokens"), &ids)) {
        if (tok_decode(m->tok, ids.id, ids.n, skip, &text, &e) != 0)
            http_reply_error(r, HTTP_INVALID_VALUE, "tokens", "%s", e.msg);
        else
            http_reply_json(r, 200, json_pack("{s:s%}", "content", text.data, text.len));
    }
    give_back(r, m);
    tok_ids_free(&ids);
    buf_free(&text);
}

/* The same reading as chat, so that what is shown is what chat would send. */
void http_apply_template(http_req *r)
{
    static const char *const names[] = {
        "model", "messages", "tools", "add_generation_prompt", "chat_template_kwargs", NULL};
    static const gen_face face = {0};
    tok_ids ids = {0};
    hone_err e = {0};
    buf text;
    if (!only(r, names) || http_gen_new(r, &face, PARAMS_CHAT) == NULL)
        return;
    buf_init(&text, MAX_TEXT);
    if (http_chat_prompt(r, &text)) {
        if (tok_encode(r->gen->m->tok, text.data, text.len, 0, &ids, &e) != 0)
            http_reply_error(r, HTTP_INVALID_VALUE, "messages", "%s", e.msg);
        else
            http_reply_json(r, 200,
                            json_pack("{s:s%, s:o, s:I}", "prompt", text.data, text.len, "tokens",
                                      ids_json(&ids), "count", (json_int_t)ids.n));
    }
    tok_ids_free(&ids);
    buf_free(&text);
}
