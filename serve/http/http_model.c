#include "serve/http/http_model.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "serve/http/http_gen.h"
#include "serve/http/http_server_in.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 100 };

static const char *member(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

/* The same number for whoever sent it, as far as that is known: a share of them can be sent
 * elsewhere, and stays there. */
static int bucket(const http_req *r)
{
    const char *user = member(r->json, "user"), *key = http_req_key_id(r);
    const char *who = user != NULL ? user : key != NULL ? key : r->id;
    char hex[65];
    bytes_sha256(hex, who, strlen(who));
    hex[8] = '\0';
    return (int)(strtoul(hex, NULL, 16) % BUCKETS);
}

static bool is_named(const served *m, const char *name)
{
    return m != NULL && name != NULL && strcmp(m->name, name) == 0;
}

/* What subscribers made of alias: the name of a model that is served, or what the client asked for,
 * which http_model_check judges. *name is borrowed from the models or from what was asked. */
static int take_route(http_gen *g, const served *beside, const json_t *said, const char **name,
                      hone_err *e)
{
    const char *alias = json_string_value(said);
    if (alias == NULL)
        return hone_fail(e, HONE_EFORMAT, "serve.route: the alias is no text");
    g->routed = is_named(g->m, alias) || is_named(beside, alias);
    if (g->routed)
        *name = is_named(g->m, alias) ? g->m->name : beside->name;
    else if (*name == NULL || strcmp(alias, *name) != 0)
        return hone_fail(e, HONE_EFORMAT,
                         "serve.route: the plugin routes to '%.100s', which is not served here: "
                         "one of aliases must be chosen, '%s'%s%s%s",
                         alias, g->m->name, beside != NULL ? " or '" : " alone",
                         beside != NULL ? beside->name : "", beside != NULL ? "'" : "");
    return 0;
}

/* *name: what was asked for (NULL: nothing), and what it is to be. */
static bool ask_route(http_req *r, const served *beside, const char **name)
{
    hone_err e = {0};
    http_gen *g = r->gen;
    if (!hook_wanted(r->srv->hooks, HOOK_SERVE_ROUTE))
        return true;
    json_t *names = json_pack("[s]", g->m->name);
    if (beside != NULL)
        json_array_append_new(names, json_string(beside->name));
    json_t *data =
        json_pack("{s:s, s:s?, s:s?, s:s, s:o, s:i}", "request_id", r->id, "key_id",
                  http_req_key_id(r), "model", *name, "alias", *name != NULL ? *name : g->m->name,
                  "aliases", names, "bucket", bucket(r));
    int rc = hook_emit(r->srv->hooks, HOOK_SERVE_ROUTE, &data, &e);
    if (rc == 0)
        rc = take_route(g, beside, json_object_get(data, "alias"), name, &e);
    json_decref(data);
    if (rc != 0)
        http_reply_error(r, HTTP_INTERNAL, NULL, "%s", e.msg);
    return rc == 0;
}

bool http_model_choose(http_req *r)
{
    const backend *b = r->srv->engine;
    http_gen *g = r->gen;
    const char *name = member(r->json, "model");
    g->m = http_req_model(r);
    if (g->m == NULL)
        return false;
    served *other = b->beside(b->ctx);
    bool good = ask_route(r, other, &name);
    if (good && is_named(other, name) && !is_named(g->m, name)) {
        served *live = g->m;
        g->m = other;
        other = live;
    }
    if (other != NULL)
        b->release(b->ctx, other);
    return good;
}

bool http_model_allowed(const http_req *r, const served *m)
{
    const api_key *k = http_req_key(r);
    const backend *b = r->srv->engine;
    if (m == NULL || k == NULL)
        return m != NULL;
    served *live = b->current(b->ctx);
    bool may = keys_allows_model(k, m->name) || (live != NULL && keys_allows_model(k, live->name));
    if (live != NULL)
        b->release(b->ctx, live);
    return may;
}

bool http_model_check(http_req *r)
{
    const http_gen *g = r->gen;
    if (!g->routed && g->p.model != NULL && strcmp(g->p.model, g->m->name) != 0)
        http_reply_error(r, HTTP_MODEL_NOT_FOUND, "model",
                         "there is no model '%.100s' here; '%s' is served", g->p.model, g->m->name);
    else if (!http_model_allowed(r, g->m))
        http_reply_error(r, HTTP_MODEL_NOT_ALLOWED, "model",
                         "this API key may not use the model '%s'", g->m->name);
    return r->reply.status == 0;
}
