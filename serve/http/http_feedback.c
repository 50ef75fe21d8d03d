/* /v1/feedback: what users say about answers. Durable before it is answered. */
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/http/http_handlers.h"
#include "serve/http/http_server_in.h"
#include "serve/store/feedback_export.h"
#include "serve/store/requests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 100, MAX_PAGE = 1000 };

static const char *text_of(const json_t *o, const char *name)
{
    return json_string_value(json_object_get(o, name));
}

/* ---- errors of the store, as clients see them ---- */

static void refuse(http_req *r, int rc, const hone_err *e)
{
    static const struct {
        int rc;
        http_error id;
    } rows[] = {{HONE_ENOTFOUND, HTTP_NOT_FOUND},
                {HONE_EDENIED, HTTP_NOT_STORED},
                {HONE_EEXIST, HTTP_CONFLICT},
                {HONE_EINVAL, HTTP_INVALID_VALUE},
                {HONE_EFORMAT, HTTP_INVALID_VALUE}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].rc == rc) {
            http_reply_error(r, rows[i].id, NULL, "%s", e->msg);
            return;
        }
    }
    http_reply_store_error(r, e);
}

/* ---- writing ---- */

static bool enabled(http_req *r)
{
    if (r->srv->conf->log_prompts != SERVE_LOG_NONE)
        return true;
    http_reply_error(r, HTTP_FEATURE_DISABLED, NULL,
                     "this server stores no responses (log_prompts: none), so there is nothing to "
                     "rate");
    return false;
}

/* Subscribers may change the feedback or refuse it. */
static bool run_hook(http_req *r, json_t **form)
{
    hone_err e = {0};
    if (!hook_wanted(r->srv->hooks, HOOK_FEEDBACK_INGEST))
        return true;
    int rc = hook_emit(r->srv->hooks, HOOK_FEEDBACK_INGEST, form, &e);
    if (rc == 0 && json_is_object(*form))
        return true;
    http_reply_error(r, rc == HONE_EVETO ? HTTP_REFUSED : HTTP_INTERNAL, NULL, "%s",
                     rc != 0 ? e.msg : "feedback.ingest: not an object");
    return false;
}

/* New reference, or NULL after an error reply. */
static json_t *form_of(http_req *r)
{
    const char *field;
    hone_err e = {0};
    json_t *form, *checked;
    if (r->idempotency_key != NULL && json_object_get(r->json, "idempotency_key") == NULL)
        json_object_set_new(r->json, "idempotency_key", json_string(r->idempotency_key));
    int rc = feedback_form(r->json, &form, &field, &e);
    if (rc == 0 && !run_hook(r, &form)) {
        json_decref(form);
        return NULL;
    }
    if (rc == 0) { /* again, because a subscriber may have changed it */
        rc = feedback_form(form, &checked, &field, &e);
        json_decref(form);
        form = checked;
    }
    if (rc != 0)
        http_reply_error(r,
                         rc == HONE_EFORMAT && field == NULL ? HTTP_UNSUPPORTED_PARAMETER
                                                             : HTTP_INVALID_VALUE,
                         field, "%s", e.msg);
    return rc == 0 ? form : NULL;
}

static feedback_author author_of(http_req *r, const json_t *form, char user_hash[33])
{
    const api_key *k = http_req_key(r);
    const char *user = text_of(form, "user");
    feedback_author a = {.key_id = http_req_key_id(r), .actor = http_req_key_id(r)};
    if (user != NULL)
        requests_user_hash(r->srv->store, user, user_hash);
    a.user_hash = user != NULL ? user_hash : NULL;
    if (k != NULL && (k->scopes & SCOPE_FEEDBACK_READ) != 0) {
        a.any_response = true;
        a.source = "annotator";
    }
    if (r->by_token) {
        a.key_id = a.actor = "token";
        a.any_response = true;
        a.source = "end_user";
    }
    return a;
}

static void count(http_req *r, const json_t *fb)
{
    const json_t *rating = json_object_get(fb, "rating");
    const json_t *of = json_object_get(fb, "snapshot");
    if (json_is_integer(rating))
        http_tally_add(r->srv->ratings,
                       &(http_tally_model){text_of(of, "model"), text_of(of, "model_digest"),
                                           text_of(of, "adapter_digest")},
                       (int)json_integer_value(rating));
}

/* What a client gets to see: not the snapshot, which may be long and which it has. */
static json_t *shown(const json_t *fb)
{
    json_t *o = json_copy((json_t *)fb);
    json_object_del(o, "snapshot");
    return o;
}

void http_feedback_put(http_req *r)
{
    char user_hash[33];
    json_t *fb = NULL;
    bool created;
    hone_err e = {0};
    json_t *form = enabled(r) ? form_of(r) : NULL;
    if (form == NULL)
        return;
    const char *id = text_of(form, "response_id");
    if (r->by_token && (id == NULL || strcmp(id, r->token_for) != 0)) {
        http_reply_error(r, HTTP_SCOPE, "response_id",
                         "this feedback token is for another response");
        json_decref(form);
        return;
    }
    feedback_author a = author_of(r, form, user_hash);
    int rc = feedback_put(r->srv->store, form, &a, &fb, &created, &e);
    if (rc == 0) {
        count(r, fb);
        http_reply_json(r, created ? 201 : 200, shown(fb));
    } else {
        refuse(r, rc, &e);
    }
    json_decref(fb);
    json_decref(form);
}

/* {"review": "approved"}: only for whoever may read feedback. */
static void review(http_req *r)
{
    const api_key *k = http_req_key(r);
    const char *verdict = text_of(r->json, "review");
    json_t *fb = NULL;
    hone_err e = {0};
    if (k != NULL && (k->scopes & SCOPE_FEEDBACK_READ) == 0) {
        http_reply_error(r, HTTP_SCOPE, "review", "this API key lacks the scope 'feedback:read'");
        return;
    }
    if (r->ln->kind == LISTEN_MAIN && r->srv->conf->admin_listen != NULL) {
        http_reply_error(r, HTTP_SCOPE, "review", "reviews are taken on the admin listener only");
        return;
    }
    if (json_object_size(r->json) != 1 || verdict == NULL) {
        http_reply_error(r, HTTP_INVALID_VALUE, "review", "'review' must be text, and stand alone");
        return;
    }
    int rc = feedback_review(r->srv->store, r->tail, verdict, k != NULL ? k->id : "nobody", &e);
    if (rc == 0)
        rc = feedback_get(r->srv->store, r->tail, &fb, &e);
    if (rc == 0)
        http_reply_json(r, 200, shown(fb));
    else
        refuse(r, rc, &e);
    json_decref(fb);
}

void http_feedback_change(http_req *r)
{
    char user_hash[33];
    json_t *fb = NULL;
    hone_err e = {0};
    if (json_object_get(r->json, "review") != NULL) {
        review(r);
        return;
    }
    json_t *form = enabled(r) ? form_of(r) : NULL;
    if (form == NULL)
        return;
    feedback_author a = author_of(r, form, user_hash);
    int rc = feedback_change(r->srv->store, r->tail, form, &a, &fb, &e);
    if (rc == 0) {
        count(r, fb);
        http_reply_json(r, 200, shown(fb));
    } else {
        refuse(r, rc, &e);
    }
    json_decref(fb);
    json_decref(form);
}

void http_feedback_delete(http_req *r)
{
    char user_hash[33];
    hone_err e = {0};
    feedback_author a = author_of(r, NULL, user_hash);
    int rc = feedback_delete(r->srv->store, r->tail, &a, &e);
    if (rc == 0)
        http_reply_json(
            r, 200,
            json_pack("{s:s, s:s, s:b}", "id", r->tail, "object", "feedback", "deleted", 1));
    else
        refuse(r, rc, &e);
}

void http_feedback_get(http_req *r)
{
    json_t *fb;
    hone_err e = {0};
    int rc = feedback_get(r->srv->store, r->tail, &fb, &e);
    if (rc == 0)
        http_reply_json(r, 200, fb);
    else
        refuse(r, rc, &e);
}

/* ---- reading ---- */

typedef struct page {
    json_t *rows;
    int64_t last;
    int n;
} page;

static bool take_number(http_req *r, const char *name, int64_t *out)
{
    const char *text = http_req_query(r, name);
    char *end;
    if (text == NULL)
        return true;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (*text != '\0' && *end == '\0' && errno == 0 && *out >= 0)
        return true;
    http_reply_error(r, HTTP_INVALID_VALUE, name, "'%s' must be a whole number from 0", name);
    return false;
}

static bool take_flag(http_req *r, const char *name, bool *out)
{
    const char *text = http_req_query(r, name);
    *out = text != NULL && (strcmp(text, "1") == 0 || strcmp(text, "true") == 0);
    if (text == NULL || *out || strcmp(text, "0") == 0 || strcmp(text, "false") == 0)
        return true;
    http_reply_error(r, HTTP_INVALID_VALUE, name, "'%s' must be true or false", name);
    return false;
}

static bool take_rating(http_req *r, feedback_filter *f)
{
    static const char *const words[][2] = {{"down", "-1"}, {"none", "0"}, {"up", "1"}};
    const char *text = http_req_query(r, "rating");
    if (text == NULL)
        return true;
    f->with_rating = true;
    for (int i = 0; i < 3; i++) {
        f->rating = i - 1;
        if (strcmp(text, words[i][0]) == 0 || strcmp(text, words[i][1]) == 0)
            return true;
    }
    http_reply_error(r, HTTP_INVALID_VALUE, "rating", "'rating' must be up, none or down");
    return false;
}

static bool take_filter(http_req *r, feedback_filter *f)
{
    *f = (feedback_filter){.model = http_req_query(r, "model"),
                           .tag = http_req_query(r, "tag"),
                           .review = http_req_query(r, "review"),
                           .source = http_req_query(r, "source"),
                           .response_id = http_req_query(r, "response_id")};
    return take_number(r, "since", &f->since_ms) && take_number(r, "until", &f->until_ms) &&
           take_number(r, "after", &f->after_seq) && take_number(r, "limit", &f->limit) &&
           take_flag(r, "corrected", &f->corrected) && take_flag(r, "unused", &f->unused) &&
           take_rating(r, f);
}

static int keep(void *user, json_t *fb, hone_err *e)
{
    page *p = user;
    (void)e;
    json_array_append(p->rows, fb);
    p->last = json_integer_value(json_object_get(fb, "seq"));
    p->n++;
    return 0;
}

/* What belongs to an export only. */
static bool plain_list(http_req *r)
{
    static const char *const names[] = {"format", "dedupe", "split", "part", "min_agreement"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (http_req_query(r, names[i]) != NULL) {
            http_reply_error(r, HTTP_UNSUPPORTED_PARAMETER, names[i],
                             "'%s' is for /v1/feedback/export", names[i]);
            return false;
        }
    }
    return true;
}

void http_feedback_list(http_req *r)
{
    page p = {0};
    feedback_filter f;
    hone_err e = {0};
    if (!take_filter(r, &f) || !plain_list(r))
        return;
    f.limit = f.limit == 0 ? PAGE : f.limit > MAX_PAGE ? MAX_PAGE : f.limit;
    p.rows = json_array();
    int rc = feedback_each(r->srv->store, &f, keep, &p, &e);
    if (rc == 0)
        http_reply_json(r, 200,
                        json_pack("{s:s, s:O, s:b, s:I}", "object", "list", "data", p.rows,
                                  "has_more", p.n == f.limit, "next", (json_int_t)p.last));
    else
        refuse(r, rc, &e);
    json_decref(p.rows);
}

/* Page by page, so that a slow client holds no read transaction open. */
static int next_page(void *user, buf *out, hone_err *e)
{
    size_t i;
    json_t *rows = json_array(), *row;
    int rc = feedback_export_next(user, rows, e);
    json_array_foreach (rows, i, row) {
        char *text = js_text(row, false);
        buf_str(out, text);
        buf_char(out, '\n');
        free(text);
    }
    json_decref(rows);
    return rc;
}

static void end_export(void *user)
{
    feedback_export_close(user);
}

void http_feedback_export(http_req *r)
{
    feedback_export_options o = {.format = FEEDBACK_RAW};
    feedback_export *x;
    hone_err e = {0};
    if (!take_filter(r, &o.filter) || !take_flag(r, "dedupe", &o.dedupe))
        return;
    int rc =
        feedback_export_take(&o, http_req_query(r, "format"), http_req_query(r, "split"),
                             http_req_query(r, "part"), http_req_query(r, "min_agreement"), &e);
    if (rc == 0)
        rc = feedback_export_open(&x, r->srv->store, &o, &e);
    if (rc == 0)
        http_reply_pull(r, 200, "application/jsonl", next_page, x, end_export);
    else
        refuse(r, rc, &e);
}
