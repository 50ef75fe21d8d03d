/* GET /v1/models: what is served, and out of what it was made. */
#include "serve/http/http_handlers.h"
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

static bool visible(const http_req *r, const served *m)
{
    const api_key *k = http_req_key(r);
    return m != NULL && (k == NULL || keys_allows_model(k, m->name));
}

void http_models_list(http_req *r)
{
    const backend *b = r->srv->engine;
    served *m = b->current(b->ctx);
    json_t *data = json_array();
    if (visible(r, m))
        json_array_append_new(data, describe(m));
    http_reply_json(r, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
    if (m != NULL)
        b->release(b->ctx, m);
}

void http_models_get(http_req *r)
{
    const backend *b = r->srv->engine;
    served *m = b->current(b->ctx);
    if (visible(r, m) && strcmp(m->name, r->tail) == 0)
        http_reply_json(r, 200, describe(m));
    else
        http_reply_error(r, HTTP_MODEL_NOT_FOUND, "model", "there is no model '%.100s' here",
                         r->tail);
    if (m != NULL)
        b->release(b->ctx, m);
}
