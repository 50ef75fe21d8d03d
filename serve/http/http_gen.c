#include "serve/http/http_gen.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/utf8.h"
#include "serve/http/http_auth.h"
#include "serve/http/http_model.h"
#include "serve/http/http_record.h"
#include "serve/http/http_server_in.h"
#include "serve/http/http_sse.h"
#include "serve/store/requests.h"

#include <inttypes.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_COMPLETION = 16, GRACE_S = 15 };

static const int64_t PING_NS = 10 * INT64_C(1000000000);

/* ---- the request ---- */

static void fingerprint(const served *m, char out[24])
{
    char hex[65];
    char *all = mem_printf("%s\n%s\n%s", m->model_digest, m->adapter_digest,
                           m->chat != NULL ? chat_digest(m->chat) : "");
    bytes_sha256(hex, all, strlen(all));
    snprintf(out, 24, "fp_%.16s", hex);
    free(all);
}

/* Subscribers may change the body, or refuse the request. */
static bool run_hook(http_req *r)
{
    hone_err e = {0};
    hooks *h = r->srv->hooks;
    if (!hook_wanted(h, HOOK_SERVE_REQUEST))
        return true;
    json_t *data = json_pack("{s:s, s:s?, s:s, s:O}", "request_id", r->id, "key_id",
                             http_req_key_id(r), "route", r->route->path, "body", r->json);
    int rc = hook_emit(h, HOOK_SERVE_REQUEST, &data, &e);
    json_t *body = json_object_get(data, "body");
    if (rc == HONE_EVETO)
        http_reply_error(r, HTTP_REFUSED, NULL, "%s", e.msg);
    else if (rc != 0 || !json_is_object(body))
        http_reply_error(r, HTTP_INTERNAL, NULL, "%s", rc != 0 ? e.msg : "serve.request: no body");
    if (r->reply.status == 0) {
        json_incref(body);
        json_decref(r->json);
        r->json = body;
    }
    json_decref(data);
    return r->reply.status == 0;
}

/* What is kept of this request: the settings' default, and what the client says. */
static bool decide_keep(http_req *r, http_gen *g)
{
    static const char *const names[] = {"none", "metadata", "full"};
    int mode = r->srv->conf->log_prompts;
    if (g->p.store == PARAMS_STORE_YES && mode == SERVE_LOG_NONE) {
        http_reply_error(r, HTTP_FEATURE_DISABLED, "store",
                         "this server stores no responses (log_prompts: none)");
        return false;
    }
    if (g->p.store == PARAMS_STORE_YES)
        mode = SERVE_LOG_FULL;
    if (g->p.store == PARAMS_STORE_NO && mode == SERVE_LOG_FULL)
        mode = SERVE_LOG_METADATA;
    g->keep = names[mode];
    return true;
}

static void finish_params(http_req *r, http_gen *g, int surface)
{
    if (!g->p.has_seed)
        randombytes_buf(&g->p.gen.seed, sizeof g->p.gen.seed);
    g->p.gen.seed &= INT64_MAX; /* so that it can be read back as JSON */
    g->p.gen.n_top = (int32_t)g->p.n_top;
    if (surface == PARAMS_COMPLETION && g->p.max_tokens < 0)
        g->p.max_tokens = DEFAULT_COMPLETION;
    g->discard = g->p.max_tokens == 0;
    g->p.gen.max_tokens = g->discard ? 1 : g->p.max_tokens;
    if (g->p.user != NULL)
        requests_user_hash(r->srv->store, g->p.user, g->user_hash);
}

http_gen *http_gen_new(http_req *r, const gen_face *face, int surface)
{
    char name[PARAMS_NAME];
    hone_err e = {0};
    http_gen *g = r->gen = mem_alloc(sizeof *g);
    g->face = face;
    g->created = clock_unix_ms() / 1000;
    g->keep = "none";
    g->recorded = true; /* nothing to record yet */
    if (!run_hook(r) || !http_model_choose(r))
        return NULL;
    fingerprint(g->m, g->fingerprint);
    int rc = params_read(&g->p, surface, r->json, &g->m->defaults, name, &e);
    if (rc != 0) {
        http_reply_error(r,
                         rc == HONE_EUNSUPPORTED ? HTTP_UNSUPPORTED_PARAMETER : HTTP_INVALID_VALUE,
                         name[0] != '\0' ? name : NULL, "%s", e.msg);
        return NULL;
    }
    if (!http_model_check(r) || !decide_keep(r, g))
        return NULL;
    finish_params(r, g, surface);
    return g;
}

void http_gen_free(http_gen *g)
{
    if (g == NULL)
        return;
    for (int i = 0; i < g->n_choices; i++) {
        buf_free(&g->choice[i].text);
        json_decref(g->choice[i].logprobs);
    }
    for (int i = 0; i < g->n_prompts; i++) {
        free(g->prompt[i].ids);
        free(g->prompt[i].text);
    }
    free(g->choice);
    free(g->prompt);
    params_free(&g->p);
    free(g);
}

/* ---- prompts ---- */

static gen_prompt_text *new_prompt(http_gen *g)
{
    if (g->prompt == NULL)
        g->prompt = mem_array(PARAMS_MAX_PROMPTS, sizeof *g->prompt);
    return &g->prompt[g->n_prompts++];
}

/* Subscribers may change the text. *out is new. */
static bool hook_prompt(http_req *r, const char *text, size_t len, json_t **out)
{
    hone_err e = {0};
    *out = json_stringn(text, len);
    if (!hook_wanted(r->srv->hooks, HOOK_SERVE_PROMPT) || *out == NULL)
        return true;
    json_t *data = json_pack("{s:s, s:s?, s:o}", "request_id", r->id, "key_id", http_req_key_id(r),
                             "text", *out);
    *out = NULL;
    int rc = hook_emit(r->srv->hooks, HOOK_SERVE_PROMPT, &data, &e);
    json_t *changed = json_object_get(data, "text");
    if (rc == HONE_EVETO)
        http_reply_error(r, HTTP_REFUSED, NULL, "%s", e.msg);
    else if (rc != 0 || !json_is_string(changed))
        http_reply_error(r, HTTP_INTERNAL, NULL, "%s", rc != 0 ? e.msg : "serve.prompt: no text");
    else
        *out = json_incref(changed);
    json_decref(data);
    return r->reply.status == 0;
}

bool http_gen_add_text(http_req *r, const char *text, size_t len, unsigned flags, const char *field)
{
    http_gen *g = r->gen;
    hone_err e = {0};
    tok_ids ids = {0};
    json_t *final;
    if (!hook_prompt(r, text, len, &final))
        return false;
    if (final == NULL) {
        http_reply_error(r, HTTP_INVALID_VALUE, field, "'%s' is not UTF-8", field);
        return false;
    }
    int rc =
        tok_encode(g->m->tok, json_string_value(final), json_string_length(final), flags, &ids, &e);
    if (rc != 0) {
        http_reply_error(r, rc == HONE_ENOMEM ? HTTP_OVERLOADED : HTTP_INVALID_VALUE, field, "%s",
                         e.msg);
    } else {
        gen_prompt_text *p = new_prompt(g);
        p->n = ids.n;
        p->ids = mem_array(ids.n + 1, sizeof *p->ids);
        if (ids.n > 0)
            memcpy(p->ids, ids.id, ids.n * sizeof *p->ids);
        p->text = mem_strndup(json_string_value(final), json_string_length(final));
    }
    tok_ids_free(&ids);
    json_decref(final);
    return rc == 0;
}

bool http_gen_add_ids(http_req *r, const json_t *ids, const char *field)
{
    http_gen *g = r->gen;
    hone_err e = {0};
    buf text;
    gen_prompt_text *p = new_prompt(g);
    p->n = json_array_size(ids);
    p->ids = mem_array(p->n + 1, sizeof *p->ids);
    for (size_t i = 0; i < p->n; i++)
        p->ids[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    buf_init(&text, 1 << 28);
    int rc = tok_decode(g->m->tok, p->ids, p->n, false, &text, &e);
    if (rc == 0)
        p->text = buf_take(&text, NULL);
    else
        http_reply_error(r, HTTP_INVALID_VALUE, field, "%s", e.msg);
    buf_free(&text);
    return rc == 0;
}

/* ---- admission ---- */

/* Never cut: what does not fit is refused with the counts. */
static bool check_context(http_req *r, const http_gen *g)
{
    int64_t context = g->m->context, want = g->p.max_tokens > 0 ? g->p.max_tokens : 0;
    for (int i = 0; i < g->n_prompts; i++) {
        int64_t n = (int64_t)g->prompt[i].n;
        if (n == 0) {
            http_reply_error(r, HTTP_INVALID_VALUE, g->p.messages != NULL ? "messages" : "prompt",
                             "the prompt has no tokens");
            return false;
        }
        if (n + want <= context && n < context)
            continue;
        http_reply_error_with(
            r, HTTP_CONTEXT_LENGTH, g->p.messages != NULL ? "messages" : "prompt",
            json_pack("{s:I, s:I, s:I}", "n_prompt_tokens", (json_int_t)n, "max_tokens",
                      (json_int_t)want, "n_ctx", (json_int_t)context),
            "the prompt has %" PRId64 " tokens%s; with an answer of %" PRId64
            " that is more than the context of %" PRId64,
            n, g->n_prompts > 1 ? " (one of several)" : "", want > 0 ? want : 1, context);
        return false;
    }
    return true;
}

static bool reserve(http_req *r, http_gen *g)
{
    int64_t tokens = 0;
    for (int i = 0; i < g->n_prompts; i++) {
        int64_t n = (int64_t)g->prompt[i].n;
        int64_t most = g->p.max_tokens >= 0 ? g->p.max_tokens : g->m->context - n;
        g->tok_in += n;
        tokens += n + most * g->p.n;
    }
    http_limit hit = http_limits_reserve(r->srv->limits, http_req_key(r), tokens, &r->limits);
    if (hit == LIMIT_NONE) {
        g->reserved = tokens;
        g->holds = true;
        return true;
    }
    static const char *const what[] = {"", "requests a minute", "tokens a minute",
                                       "answers at a time", "tokens a day"};
    atomic_fetch_add(&r->srv->count.rate_limited[hit], 1);
    http_reply_error(r, hit == LIMIT_DAILY ? HTTP_QUOTA : HTTP_RATE_LIMIT, NULL,
                     "this API key's limit of %s is reached (this request may take %" PRId64
                     " tokens)",
                     what[hit], tokens);
    http_reply_retry_after(r, r->limits.retry_after_s);
    return false;
}

static void wake(void *user)
{
    http_req *r = user;
    if (r->gen->p.stream)
        conn_wake(r->conn);
    else if (!r->handed_over) {
        r->handed_over = true;
        http_server_submit(r->srv, r);
    }
}

static void refuse_submit(http_req *r, int rc, int retry_after_s, const hone_err *e)
{
    static const struct {
        int rc;
        http_error id;
    } rows[] = {{HONE_EAGAIN, HTTP_QUEUE_FULL},
                {HONE_ELIMIT, HTTP_CONTEXT_LENGTH},
                {HONE_ECANCELLED, HTTP_DRAINING},
                {HONE_EINVAL, HTTP_INVALID_VALUE},
                {HONE_EUNSUPPORTED, HTTP_INVALID_VALUE}};
    http_error id = HTTP_INTERNAL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].rc == rc)
            id = rows[i].id;
    http_reply_error(r, id, NULL, "%s", e->msg);
    if (rc == HONE_EAGAIN)
        http_reply_retry_after(r, retry_after_s);
    if (rc == HONE_ECANCELLED)
        http_reply_retry_after(r, 5);
}

static bool submit_all(http_req *r, http_gen *g)
{
    for (int i = 0; i < g->n_prompts; i++) {
        hone_err e = {0};
        int retry_after_s = 1;
        engine_request q = {.on = g->m,
                            .prompt = g->prompt[i].ids,
                            .n_prompt = g->prompt[i].n,
                            .params = &g->p.gen,
                            .echo_logprobs = g->p.echo && g->p.logprobs,
                            .deadline_ms = r->srv->conf->request_seconds * 1000};
        int rc = answer_submit(r->answer, &q, &retry_after_s, &e);
        if (rc != 0) {
            answer_detach(r->answer);
            refuse_submit(r, rc, retry_after_s, &e);
            return false;
        }
    }
    return true;
}

void http_gen_run(http_req *r)
{
    http_gen *g = r->gen;
    if (!check_context(r, g) || !reserve(r, g))
        return;
    g->n_choices = (int)g->p.n * g->n_prompts;
    g->choice = mem_array((size_t)g->n_choices, sizeof *g->choice);
    for (int i = 0; i < g->n_choices; i++) {
        buf_init(&g->choice[i].text, 1 << 28);
        if (g->p.logprobs)
            g->choice[i].logprobs = json_array();
    }
    answer *a = answer_new(&(answer_options){
        .engine = r->srv->engine,
        .n_choices = (int)g->p.n,
        .n_parts = g->n_prompts,
        .stream = g->p.stream,
        .ping_ns = PING_NS,
        .timeout_ns = (r->srv->conf->request_seconds + GRACE_S) * INT64_C(1000000000),
        .wake = wake,
        .user = r});
    r->answer = a;
    g->recorded = false;
    conn_set_answer(r->conn, a);
    if (submit_all(r, g)) {
        answer_ref(a); /* the request may be over before the next line returns */
        answer_seal(a);
        answer_unref(a);
    } else {
        g->recorded = true; /* a full queue must not fill the database too; a counter knows */
        g->tok_in = 0;
    }
}

/* ---- log-probabilities ---- */

static json_t *number(float v)
{
    if (isnan(v))
        return json_null();
    return json_real(v < -9999 ? -9999.0 : (double)v);
}

/* A token as text (broken characters as U+FFFD) and as the bytes that it is. */
static json_t *token_entry(const http_gen *g, int32_t id, float logp)
{
    buf raw, text;
    json_t *bytes = json_array();
    buf_init(&raw, 1 << 16);
    buf_init(&text, 1 << 18);
    tok_token_bytes(g->m->tok, id, &raw, NULL);
    for (size_t i = 0; i < raw.len;) {
        size_t n = utf8_valid(raw.data + i, raw.len - i);
        buf_add(&text, raw.data + i, n);
        i += n;
        if (i < raw.len) {
            buf_utf8(&text, 0xfffd);
            i++;
        }
    }
    for (size_t i = 0; i < raw.len; i++)
        json_array_append_new(bytes, json_integer((unsigned char)raw.data[i]));
    json_t *o = json_pack("{s:s%, s:o, s:o}", "token", text.data, text.len, "logprob", number(logp),
                          "bytes", bytes);
    buf_free(&raw);
    buf_free(&text);
    return o;
}

json_t *http_gen_entries(const http_gen *g, const engine_logprob *lp, int n)
{
    json_t *all = json_array();
    for (int i = 0; i < n; i++) {
        json_t *entry = token_entry(g, lp[i].id, lp[i].logp), *top = json_array();
        for (int k = 0; k < lp[i].n_top && k < g->p.n_top && !isnan(lp[i].logp); k++)
            json_array_append_new(top, token_entry(g, lp[i].top_id[k], lp[i].top_logp[k]));
        json_object_set_new(entry, "top_logprobs", top);
        json_array_append_new(all, entry);
    }
    return all;
}

/* ---- a whole answer ---- */

static void take_event(http_gen *g, const answer_event *ev)
{
    gen_choice *c = &g->choice[ev->choice];
    if (ev->n_logprobs > 0)
        g->tok_out += ev->kind == ENGINE_TEXT && !g->discard ? ev->n_logprobs : 0;
    if (ev->kind == ENGINE_PROMPT && g->p.logprobs) {
        for (int i = 0; i < g->p.n; i++) {
            json_t *entries = http_gen_entries(g, ev->logprobs, ev->n_logprobs);
            json_array_extend(c[i].logprobs, entries);
            json_decref(entries);
        }
    } else if (ev->kind == ENGINE_TEXT && !g->discard) {
        buf_add(&c->text, ev->text, ev->len);
        if (g->p.logprobs) {
            json_t *entries = http_gen_entries(g, ev->logprobs, ev->n_logprobs);
            json_array_extend(c->logprobs, entries);
            json_decref(entries);
        }
    }
}

void http_gen_done(http_gen *g, const answer_event *ev)
{
    gen_choice *c = &g->choice[ev->choice];
    c->done = true;
    c->finish = g->discard ? GEN_LENGTH : ev->finish;
    c->n_answer = g->discard ? 0 : ev->n_answer;
    if (ev->first_token_us > g->first_us)
        g->first_us = ev->first_token_us;
    if (ev->queue_us > g->queue_us)
        g->queue_us = ev->queue_us;
    if (ev->total_us > g->total_us)
        g->total_us = ev->total_us;
    g->tok_out = 0;
    for (int i = 0; i < g->n_choices; i++)
        g->tok_out += g->choice[i].n_answer;
}

static void take_all(http_req *r)
{
    answer_event *ev;
    while ((ev = answer_take(r->answer)) != NULL) {
        take_event(r->gen, ev);
        if (ev->kind == ENGINE_DONE)
            http_gen_done(r->gen, ev);
        answer_event_free(ev);
    }
}

json_t *http_gen_usage(const http_gen *g)
{
    return json_pack("{s:I, s:I, s:I}", "prompt_tokens", (json_int_t)g->tok_in, "completion_tokens",
                     (json_int_t)g->tok_out, "total_tokens", (json_int_t)(g->tok_in + g->tok_out));
}

json_t *http_gen_envelope(const http_req *r, const char *object, json_t *choices)
{
    const http_gen *g = r->gen;
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", r->id, "object", object, "created",
                     (json_int_t)g->created, "model", g->m->name, "system_fingerprint",
                     g->fingerprint, "choices", choices);
}

http_error http_gen_error(int code)
{
    switch (code) {
    case HONE_ETIMEOUT:
        return HTTP_GENERATION_TIMEOUT;
    case HONE_ECANCELLED:
        return HTTP_DRAINING;
    case HONE_ELIMIT:
        return HTTP_OVERLOADED;
    case HONE_EVETO:
        return HTTP_REFUSED;
    default:
        return HTTP_INTERNAL;
    }
}

void http_gen_failed(http_req *r, const hone_err *e)
{
    http_error id = http_gen_error(e->code);
    http_reply_error(r, id, NULL, "%s", e->msg);
    if (id == HTTP_DRAINING)
        http_reply_retry_after(r, 5);
    http_record(r, r->reply.status, http_error_get(id)->code);
}

/* Subscribers see the answer before the client does. */
static bool hook_response(http_req *r, json_t **answer_json)
{
    hone_err e = {0};
    int rc = hook_emit(r->srv->hooks, HOOK_SERVE_RESPONSE, answer_json, &e);
    if (rc == 0)
        return true;
    http_reply_error(r, rc == HONE_EVETO ? HTTP_REFUSED : HTTP_INTERNAL, NULL, "%s", e.msg);
    http_record(r, r->reply.status, http_error_get(r->reply.error)->code);
    return false;
}

/* What a subscriber made of the answer is what is stored: feedback must be about what the user saw.
 */
static void adopt_texts(http_gen *g, const json_t *answer_json)
{
    for (int i = 0; i < g->n_choices; i++) {
        const json_t *c = json_array_get(json_object_get(answer_json, "choices"), (size_t)i);
        const json_t *text = json_object_get(c, "text");
        if (text == NULL)
            text = json_object_get(json_object_get(c, "message"), "content");
        const char *prompt = g->p.echo ? g->prompt[i / g->p.n].text : "";
        size_t skip = strlen(prompt);
        if (!json_is_string(text) || strncmp(json_string_value(text), prompt, skip) != 0)
            continue;
        buf_reset(&g->choice[i].text);
        buf_add(&g->choice[i].text, json_string_value(text) + skip,
                json_string_length(text) - skip);
    }
}

void http_gen_say_token(http_req *r)
{
    if (strcmp(r->gen->keep, "full") != 0)
        return;
    char *token = http_auth_token(r->srv->store, r->id, r->srv->conf->feedback_token_hours);
    http_reply_header(r, "x-feedback-token", "%s", token);
    free(token);
}

static json_t *whole_answer(const http_req *r)
{
    http_gen *g = r->gen;
    json_t *choices = json_array();
    for (int i = 0; i < g->n_choices; i++)
        json_array_append_new(choices, g->face->whole(g, i));
    json_t *o = http_gen_envelope(r, g->face->object, choices);
    json_object_set_new(o, "usage", http_gen_usage(g));
    return o;
}

void http_gen_finish(http_req *r)
{
    http_gen *g = r->gen;
    hone_err e = {0};
    take_all(r);
    if (answer_poll(r->answer, &e) == ANSWER_FAILED) {
        http_gen_failed(r, &e);
        return;
    }
    json_t *o = whole_answer(r);
    if (hook_wanted(r->srv->hooks, HOOK_SERVE_RESPONSE)) {
        if (!hook_response(r, &o)) {
            json_decref(o);
            return;
        }
        adopt_texts(g, o);
    }
    http_record(r, 200, NULL);
    http_gen_say_token(r);
    http_reply_json(r, 200, o);
}

/* ---- the connection's thread ---- */

bool http_gen_ready(http_req *r)
{
    hone_err e = {0};
    if (r->gen == NULL || r->answer == NULL || !r->gen->p.stream)
        return false;
    answer_state st = answer_poll(r->answer, &e);
    if (st == ANSWER_WAITING && !answer_take_ping(r->answer))
        return false;
    if (st == ANSWER_FAILED)
        http_gen_failed(r, &e);
    else
        http_sse_begin(r, st == ANSWER_WAITING);
    return true;
}

void http_gen_over(http_req *r, bool ok)
{
    http_gen *g = r->gen;
    if (g == NULL)
        return;
    if (!g->recorded && !ok) {
        take_all(r);
        atomic_fetch_add(&r->srv->count.disconnects, 1);
        http_record(r, 499, "client_closed");
    }
    if (g->holds)
        http_limits_settle(r->srv->limits, http_req_key(r), g->reserved, g->tok_in + g->tok_out);
    g->holds = false;
    if (g->m != NULL)
        r->srv->engine->release(r->srv->engine->ctx, g->m);
    g->m = NULL;
}
