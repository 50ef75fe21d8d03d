/* The order of a stream: for each choice a chunk that says who speaks (chat), its text, a chunk
 * with the reason why it ended; then usage, when it was asked for; then [DONE]. What fails on the
 * way is said in the stream, which then ends without [DONE]. */
#include "serve/http/http_sse.h"

#include "core/base/js.h"
#include "core/base/log.h"
#include "serve/http/http_record.h"
#include "serve/http/http_server_in.h"

#include <stdlib.h>
#include <string.h>

enum { ENOUGH = 8 << 10 }; /* bytes that are worth sending */

static void add_event(buf *out, json_t *v)
{
    char *text = js_text(v, false);
    if (text != NULL) {
        buf_str(out, "data: ");
        buf_str(out, text);
        buf_str(out, "\n\n");
    }
    free(text);
    json_decref(v);
}

static void add_chunk(const http_req *r, buf *out, json_t *choice)
{
    const http_gen *g = r->gen;
    json_t *choices = json_array();
    if (choice != NULL)
        json_array_append_new(choices, choice);
    json_t *o = http_gen_envelope(r, g->face->chunk_object, choices);
    if (g->p.include_usage)
        json_object_set_new(o, "usage", choice == NULL ? http_gen_usage(g) : json_null());
    add_event(out, o);
}

/* Text on its way out. Subscribers may change or hold it; *text is a new reference. */
static int hook_chunk(http_req *r, int choice, const char *text, size_t len, bool eof,
                      json_t **final, hone_err *e)
{
    *final = json_stringn(text, len);
    if (!hook_wanted(r->srv->hooks, HOOK_SERVE_CHUNK))
        return 0;
    json_t *data = json_pack("{s:s, s:i, s:o, s:b}", "request_id", r->id, "choice", choice, "text",
                             *final, "eof", eof);
    *final = NULL;
    int rc = hook_emit(r->srv->hooks, HOOK_SERVE_CHUNK, &data, e);
    json_t *changed = json_object_get(data, "text");
    if (rc == 0 && json_is_string(changed))
        *final = json_incref(changed);
    json_decref(data);
    return rc;
}

static void begin_choice(http_req *r, buf *out, int choice)
{
    http_gen *g = r->gen;
    gen_choice *c = &g->choice[choice];
    if (c->begun)
        return;
    c->begun = true;
    if (g->face->says_role)
        add_chunk(r, out, g->face->delta(g, choice, NULL, 0, NULL, NULL));
}

/* Sends text of a choice with its log-probabilities, and keeps it for the record. */
static int say(http_req *r, buf *out, int choice, const char *text, size_t len, json_t *entries,
               bool eof, hone_err *e)
{
    http_gen *g = r->gen;
    json_t *final;
    int rc = hook_chunk(r, choice, text, len, eof, &final, e);
    size_t n = json_string_length(final);
    if (rc == 0 && final != NULL && (n > 0 || json_array_size(entries) > 0)) {
        buf_add(&g->choice[choice].text, json_string_value(final), n);
        add_chunk(r, out, g->face->delta(g, choice, json_string_value(final), n, entries, NULL));
    }
    json_decref(final);
    return rc;
}

/* echo: the prompt comes first, with its log-probabilities where they were asked for. It is no part
 * of the answer. */
static void say_prompt(http_req *r, buf *out, int choice, const answer_event *ev)
{
    http_gen *g = r->gen;
    const char *text = g->prompt[choice / (int)g->p.n].text;
    json_t *entries = ev != NULL ? http_gen_entries(g, ev->logprobs, ev->n_logprobs) : NULL;
    add_chunk(r, out, g->face->delta(g, choice, text, strlen(text), entries, NULL));
    json_decref(entries);
}

static int on_prompt(http_req *r, buf *out, const answer_event *ev, hone_err *e)
{
    (void)e;
    for (int i = ev->choice; i < ev->choice + r->gen->p.n; i++) {
        begin_choice(r, out, i);
        say_prompt(r, out, i, ev);
    }
    return 0;
}

static void begin_answer(http_req *r, buf *out, int choice)
{
    bool first = !r->gen->choice[choice].begun;
    begin_choice(r, out, choice);
    if (first && r->gen->p.echo)
        say_prompt(r, out, choice, NULL);
}

static int on_text(http_req *r, buf *out, const answer_event *ev, hone_err *e)
{
    http_gen *g = r->gen;
    begin_answer(r, out, ev->choice);
    if (g->discard)
        return 0;
    g->tok_out += ev->n_logprobs;
    json_t *entries = g->p.logprobs ? http_gen_entries(g, ev->logprobs, ev->n_logprobs) : NULL;
    int rc = say(r, out, ev->choice, ev->text, ev->len, entries, false, e);
    json_decref(entries);
    return rc;
}

static int on_done(http_req *r, buf *out, const answer_event *ev, hone_err *e)
{
    http_gen *g = r->gen;
    begin_answer(r, out, ev->choice);
    http_gen_done(g, ev);
    int rc = say(r, out, ev->choice, "", 0, NULL, true, e);
    if (rc == 0)
        add_chunk(r, out,
                  g->face->delta(g, ev->choice, NULL, 0, NULL,
                                 gen_finish_name(g->choice[ev->choice].finish)));
    return rc;
}

typedef int event_fn(http_req *r, buf *out, const answer_event *ev, hone_err *e);

/* ---- the reader ---- */

static void end_with_error(http_req *r, buf *out, const hone_err *e)
{
    http_error id = http_gen_error(e->code);
    const char *message = e->msg;
    if (id == HTTP_INTERNAL) {
        log_error("http", "%s: %s", r->id, e->msg);
        message = "internal error; the server's log has the details under the request's id";
    }
    add_event(out, http_error_json(id, NULL, message));
    http_record(r, http_error_get(id)->status, http_error_get(id)->code);
    answer_detach(r->answer);
}

static void end_well(http_req *r, buf *out)
{
    if (r->gen->p.include_usage)
        add_chunk(r, out, NULL);
    http_record(r, 200, NULL); /* before the client can know that it is over */
    buf_str(out, "data: [DONE]\n\n");
}

static int next(void *user, buf *out, hone_err *e)
{
    static event_fn *const on[] = {
        [ENGINE_PROMPT] = on_prompt, [ENGINE_TEXT] = on_text, [ENGINE_DONE] = on_done};
    http_req *r = user;
    answer_event *ev;
    while (out->len < ENOUGH && (ev = answer_take(r->answer)) != NULL) {
        int rc = on[ev->kind](r, out, ev, e);
        answer_event_free(ev);
        if (rc != 0) {
            e->code = rc;
            end_with_error(r, out, e);
            return 1;
        }
    }
    if (out->len > 0)
        return 0;
    switch (answer_poll(r->answer, e)) {
    case ANSWER_DONE:
        end_well(r, out);
        return 1;
    case ANSWER_FAILED:
        end_with_error(r, out, e);
        return 1;
    case ANSWER_READY:
        return 0;
    case ANSWER_WAITING:
        break;
    }
    if (!answer_take_ping(r->answer))
        return HONE_EAGAIN;
    buf_str(out, ": ping\n\n");
    return 0;
}

/* The first piece, when the stream has to begin without an event. */
static int next_after_ping(void *user, buf *out, hone_err *e)
{
    http_req *r = user;
    (void)e;
    buf_str(out, ": ping\n\n");
    r->reply.pull = next;
    return 0;
}

void http_sse_begin(http_req *r, bool ping)
{
    http_reply_header(r, "Cache-Control", "no-cache");
    http_reply_header(r, "X-Accel-Buffering", "no");
    http_gen_say_token(r);
    http_reply_pull(r, 200, "text/event-stream", ping ? next_after_ping : next, r, NULL);
}
