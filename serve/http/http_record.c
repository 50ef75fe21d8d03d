#include "serve/http/http_record.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "serve/http/http_server_in.h"
#include "serve/store/requests.h"

#include <string.h>

enum { DAY_MS = 86400000 };

static void put(json_t *o, const char *name, const char *text)
{
    if (text != NULL && text[0] != '\0')
        json_object_set_new(o, name, json_string(text));
}

static void put_int(json_t *o, const char *name, int64_t v)
{
    json_object_set_new(o, name, json_integer(v));
}

static json_t *choices_of(const http_gen *g)
{
    json_t *all = json_array();
    for (int i = 0; i < g->n_choices; i++) {
        const gen_choice *c = &g->choice[i];
        json_array_append_new(all, json_pack("{s:i, s:s%, s:s?}", "index", i, "text", c->text.data,
                                             c->text.len, "finish_reason",
                                             c->done ? gen_finish_name(c->finish) : NULL));
    }
    return all;
}

/* The record goes to another thread, so it shares nothing: the messages move into it. */
static void put_content(json_t *o, http_gen *g)
{
    if (g->p.messages != NULL)
        json_object_set_new(o, "messages", g->p.messages);
    else if (g->n_prompts == 1)
        put(o, "prompt", g->prompt[0].text);
    g->p.messages = NULL;
    json_object_set_new(o, "choices", choices_of(g));
}

static json_t *make(const http_req *r, int status, const char *code)
{
    http_gen *g = r->gen;
    int64_t now = clock_unix_ms(), days = r->srv->conf->retention_days;
    json_t *o = json_object();
    put(o, "id", r->id);
    put(o, "key_id", http_req_key_id(r));
    put(o, "user_hash", g->user_hash);
    put(o, "ip", r->ip);
    put(o, "route", r->route->path);
    put(o, "error_code", code);
    put(o, "model", g->m->name);
    put(o, "model_digest", g->m->model_digest);
    put(o, "adapter_digest", g->m->adapter_digest);
    put(o, "template_digest", g->m->chat != NULL ? chat_digest(g->m->chat) : NULL);
    put(o, "finish_reason",
        g->n_choices > 0 && g->choice[0].done ? gen_finish_name(g->choice[0].finish) : NULL);
    put_int(o, "ts", now);
    put_int(o, "status", status);
    put_int(o, "tok_in", g->tok_in);
    put_int(o, "tok_out", g->tok_out);
    put_int(o, "ttft_ms", g->first_us / 1000);
    put_int(o, "e2e_ms", (clock_mono_ns() - r->began_ns) / 1000000);
    if (days > 0)
        put_int(o, "expires_at", now + days * DAY_MS);
    json_object_set_new(o, "params", params_record(&g->p));
    if (g->p.metadata != NULL)
        json_object_set_new(o, "metadata", json_deep_copy(g->p.metadata));
    /* Several prompts in one request have several answers to different questions: no feedback could
     * refer to them. */
    const char *keep = strcmp(g->keep, "full") == 0 && g->n_prompts > 1 ? "metadata" : g->keep;
    put(o, "keep", keep);
    if (strcmp(keep, "full") == 0)
        put_content(o, g);
    return o;
}

/* Subscribers may change what is stored, or refuse it: then only usage and the audit log know of
 * the request. */
static void hook_log(http_req *r, json_t **record)
{
    hone_err e = {0};
    static const char *const content[] = {"messages", "prompt", "choices", "metadata", "params"};
    int rc = hook_emit(r->srv->hooks, HOOK_SERVE_LOG, record, &e);
    if (rc == 0 && json_is_object(*record))
        return;
    if (rc != HONE_EVETO)
        log_warn("http", "%s: the request is not stored: %s", r->id, e.msg);
    if (!json_is_object(*record)) {
        json_decref(*record);
        *record = make(r, r->reply.status, NULL);
    }
    json_object_set_new(*record, "keep", json_string("none"));
    for (size_t i = 0; i < sizeof content / sizeof *content; i++)
        json_object_del(*record, content[i]);
}

void http_record(http_req *r, int status, const char *code)
{
    http_gen *g = r->gen;
    if (g->recorded || g->m == NULL)
        return;
    g->recorded = true;
    json_t *record = make(r, status, code);
    if (hook_wanted(r->srv->hooks, HOOK_SERVE_LOG))
        hook_log(r, &record);
    if (requests_post(r->srv->store, record) != 0) {
        atomic_fetch_add(&r->srv->count.records_dropped, 1);
        log_warn("http", "%s: the store's queue is full; the request is not recorded", r->id);
    }
}
