/* GET /v1/models: what is served, and out of what it was made. */
#include "serve/http/http_handlers.h"
#include "serve/http/http_model.h"
#include "serve/http/http_server_in.h"

#include <string.h>

static json_t *describe(const served *m)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:I, s:s, s:s?, s:s?, s:s?, s:s?}", "id", m->name,
                     "object", "model", "created", (json_int_t)m->created_unix, "owned_by", "hone",
                     "max_model_len", (json_int_t)m->context, "model_digest", m->model_digest,
                     "adapter_digest", m->adapter_digest[0] != '\0' ? m->adapter_digest : NULL,
                     "template_digest", m->chat != NULL ? chat_digest(m->chat) : NULL,
                     "tokenizer_digest", m->tok != NULL ? tok_digest(m->tok) : NULL, "signed_by",
                     m->signed_by[0] != '\0' ? m->signed_by : NULL);
}

/* The live one and the one beside it, with references; either may be NULL. */
static void take_both(const backend *b, served *m[2])
{
    m[0] = b->current(b->ctx);
    m[1] = b->beside(b->ctx);
}

static void release_both(const backend *b, served *m[2])
{
    for (int i = 0; i < 2; i++)
        if (m[i] != NULL)
            b->release(b->ctx, m[i]);
}

void http_models_list(http_req *r)
{
    served *m[2];
    json_t *data = json_array();
    take_both(r->srv->engine, m);
    for (int i = 0; i < 2; i++)
        if (http_model_allowed(r, m[i]))
            json_array_append_new(data, describe(m[i]));
    http_reply_json(r, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
    release_both(r->srv->engine, m);
}

void http_models_get(http_req *r)
{
    served *m[2];
    const served *found = NULL;
    take_both(r->srv->engine, m);
    for (int i = 0; i < 2; i++)
        if (http_model_allowed(r, m[i]) && strcmp(m[i]->name, r->tail) == 0)
            found = m[i];
    if (found != NULL)
        http_reply_json(r, 200, describe(found));
    else
        http_reply_error(r, HTTP_MODEL_NOT_FOUND, "model", "there is no model '%.100s' here",
                         r->tail);
    release_both(r->srv->engine, m);
}
