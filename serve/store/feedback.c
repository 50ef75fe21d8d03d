#include "serve/store/feedback.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "serve/store/audit_in.h"
#include "serve/store/erasure_in.h"
#include "serve/store/feedback_in.h"
#include "serve/store/ids.h"
#include "serve/store/requests.h"
#include "serve/store/requests_in.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

/* ---- jobs ---- */

typedef struct work {
    store *s;
    const char *id;
    const json_t *form;
    const feedback_author *a;
    const char *verdict, *reviewer, *run_id;
    json_t *out, *audit;
    bool created;
} work;

static int note(sqlite3 *db, work *w, const char *action, const char *target, json_t *detail,
                hone_err *e)
{
    const char *actor = w->a->actor != NULL ? w->a->actor : w->a->key_id;
    json_decref(w->audit);
    w->audit = audit_record(
        &(audit_event){.action = action, .actor = actor, .target = target, .detail = detail});
    json_decref(detail);
    return audit_add(db, w->s, w->audit, e);
}

/* Runs fn durably; afterwards the audit record is told or dropped, and *out given or dropped. */
static int commit(work *w, store_fn *fn, json_t **out, hone_err *e)
{
    int rc = store_write(w->s, fn, w, e);
    if (rc == 0 && w->audit != NULL)
        audit_tell(w->s, w->audit);
    else
        json_decref(w->audit);
    if (rc == 0 && out != NULL)
        *out = w->out;
    else
        json_decref(w->out);
    return rc;
}

/* ---- the snapshot ---- */

static const json_t *choice_of(const json_t *request, int64_t index)
{
    size_t i;
    json_t *c;
    json_array_foreach (json_object_get(request, "choices"), i, c) {
        if (json_integer_value(json_object_get(c, "index")) == index)
            return c;
    }
    return NULL;
}

/* Somebody else's response is as unknown as one that never was. */
static int readable(const json_t *request, const feedback_author *a, hone_err *e)
{
    const char *owner = text_of(request, "key_id");
    bool own = owner == NULL || a->key_id == NULL ? owner == NULL && a->key_id == NULL
                                                  : strcmp(owner, a->key_id) == 0;
    if (!own && !a->any_response)
        return hone_fail(e, HONE_ENOTFOUND, "no stored response '%.64s'", text_of(request, "id"));
    if (json_integer_value(json_object_get(request, "stored")) == 0)
        return hone_fail(e, HONE_EDENIED,
                         "the text of response '%.64s' was not stored (store: false, or "
                         "log_prompts is not full), so feedback on it could not be used",
                         text_of(request, "id"));
    return 0;
}

static bool same_prompt(const json_t *a, const json_t *b)
{
    const json_t *m = json_object_get(a, "messages"), *n = json_object_get(b, "messages");
    const json_t *p = json_object_get(a, "prompt"), *q = json_object_get(b, "prompt");
    return m != NULL || n != NULL ? json_equal(m, n) : json_equal(p, q);
}

/* The answer that was worse: a response to the same prompt, its first choice. */
static int add_over(sqlite3 *db, const work *w, const json_t *request, json_t *snapshot,
                    hone_err *e)
{
    const char *id = text_of(w->form, "preferred_over");
    json_t *other = NULL;
    if (id == NULL)
        return 0;
    int rc = requests_get_in(db, id, &other, e);
    if (rc == 0)
        rc = readable(other, w->a, e);
    if (rc == 0 && !same_prompt(request, other))
        rc = hone_fail(e, HONE_EINVAL, "'preferred_over' '%.64s' answers another prompt", id);
    const json_t *c = rc == 0 ? choice_of(other, 0) : NULL;
    if (c != NULL)
        json_object_set(snapshot, "over", json_object_get(c, "text"));
    json_decref(other);
    return rc;
}

static int take_snapshot(sqlite3 *db, const work *w, const json_t *request, int64_t index,
                         json_t **out, hone_err *e)
{
    static const char *const keys[] = {"model",  "model_digest", "adapter_digest",
                                       "params", "messages",     "template_digest",
                                       "prompt", "ts",           NULL};
    const json_t *c = choice_of(request, index);
    if (c == NULL)
        return hone_fail(e, HONE_EINVAL, "response '%.64s' has no choice %" PRId64,
                         text_of(request, "id"), index);
    *out = json_object();
    for (int i = 0; keys[i] != NULL; i++) {
        json_t *v = json_object_get(request, keys[i]);
        if (v != NULL && !json_is_null(v))
            json_object_set(*out, keys[i], v);
    }
    json_object_set(*out, "answer", json_object_get(c, "text"));
    json_object_set(*out, "finish_reason", json_object_get(c, "finish_reason"));
    return add_over(db, w, request, *out, e);
}

static char *digest_of(const json_t *v, char hex[65])
{
    char *text = js_text(v, true);
    bytes_sha256(hex, text, strlen(text));
    return text;
}

/* ---- storing ---- */

typedef struct fresh {
    const char *id, *request_id, *source, *key_id, *user_hash, *idempotency, *model;
    int64_t choice;
    json_t *snapshot;
} fresh;

static int insert(sqlite3 *db, const fresh *f, hone_err *e)
{
    char hex[65];
    int64_t now = clock_unix_ms();
    free(digest_of(f->snapshot, hex));
    return sql_run(db, e,
                   "INSERT INTO feedback(id, request_id, choice_index, ts, updated_at, version,"
                   " source, key_id, user_hash, idempotency_key, model, snapshot, snapshot_sha256)"
                   " VALUES(?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
                   "ssiiisssssjs", f->id, f->request_id, f->choice, now, now, f->source, f->key_id,
                   f->user_hash, f->idempotency, f->model, f->snapshot, hex);
}

/* Sets the fields that the form gives. A change of what was reviewed takes the review back. */
static int set_fields(sqlite3 *db, const char *id, const json_t *form, hone_err *e)
{
    static const char *const columns[] = {"rating", "score", "correction",     "comment",
                                          "reason", "tags",  "preferred_over", NULL};
    int rc = 0;
    for (int i = 0; rc == 0 && columns[i] != NULL; i++) {
        const json_t *v = json_object_get(form, columns[i]);
        if (v == NULL)
            continue;
        char *text = mem_printf("UPDATE feedback SET %s = ? WHERE id = ?", columns[i]);
        if (json_is_integer(v))
            rc = sql_run(db, e, text, "is", (int64_t)json_integer_value(v), id);
        else if (json_is_real(v))
            rc = sql_run(db, e, text, "ds", json_real_value(v), id);
        else if (json_is_string(v))
            rc = sql_run(db, e, text, "ss", json_string_value(v), id);
        else
            rc = sql_run(db, e, text, "js", v, id);
        free(text);
    }
    if (rc == 0)
        rc = sql_run(db, e,
                     "UPDATE feedback SET version = version + 1, updated_at = ?,"
                     " review = 'pending', reviewer = NULL, reviewed_at = NULL WHERE id = ?",
                     "is", clock_unix_ms(), id);
    return rc;
}

static int finish(sqlite3 *db, work *w, const char *id, const char *action, hone_err *e)
{
    int rc = set_fields(db, id, w->form, e);
    if (rc == 0) {
        json_decref(w->out);
        rc = feedback_find_id(db, id, &w->out, e);
    }
    if (rc == 0)
        rc =
            note(db, w, action, id,
                 json_pack("{s:O, s:O, s:O}", "response_id", json_object_get(w->out, "response_id"),
                           "version", json_object_get(w->out, "version"), "rating",
                           json_object_get(w->out, "rating")),
                 e);
    return rc;
}

/* One opinion of a user on a choice, unless the client names its opinions itself. */
static char *idempotency_of(const json_t *form, const feedback_author *a, int64_t choice)
{
    const char *own = text_of(form, "idempotency_key");
    return own != NULL ? mem_printf("client:%s", own)
                       : mem_printf("auto:%s:%" PRId64 ":%s", text_of(form, "response_id"), choice,
                                    a->user_hash != NULL ? a->user_hash : "");
}

static int insert_for(sqlite3 *db, work *w, const char *idempotency, int64_t choice,
                      const json_t *request, hone_err *e)
{
    char id[IDS_MAX];
    json_t *snapshot = NULL;
    int rc = take_snapshot(db, w, request, choice, &snapshot, e);
    ids_make(id, "fb-");
    if (rc == 0)
        rc = insert(db,
                    &(fresh){.id = id,
                             .request_id = text_of(request, "id"),
                             .source = w->a->source != NULL ? w->a->source : "end_user",
                             .key_id = w->a->key_id != NULL ? w->a->key_id : "",
                             .user_hash = w->a->user_hash,
                             .idempotency = idempotency,
                             .model = text_of(request, "model"),
                             .choice = choice,
                             .snapshot = snapshot},
                    e);
    json_decref(snapshot);
    w->created = true;
    return rc == 0 ? finish(db, w, id, "feedback.create", e) : rc;
}

static int update_over(sqlite3 *db, work *w, const json_t *request, const char *id, hone_err *e)
{
    if (text_of(w->form, "preferred_over") == NULL)
        return 0;
    json_t *fb = NULL;
    char hex[65];
    int rc = feedback_find_id(db, id, &fb, e);
    json_t *snapshot = json_object_get(fb, "snapshot");
    if (rc == 0)
        rc = add_over(db, w, request, snapshot, e);
    if (rc == 0) {
        free(digest_of(snapshot, hex));
        rc = sql_run(db, e, "UPDATE feedback SET snapshot = ?, snapshot_sha256 = ? WHERE id = ?",
                     "jss", snapshot, hex, id);
    }
    json_decref(fb);
    return rc;
}

static int put_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    const char *response_id = text_of(w->form, "response_id");
    json_t *request = NULL, *old = NULL;
    int64_t choice = json_integer_value(json_object_get(w->form, "choice_index"));
    char *idempotency = idempotency_of(w->form, w->a, choice);
    int rc = requests_get_in(db, response_id, &request, e);
    if (rc == 0)
        rc = readable(request, w->a, e);
    if (rc == 0)
        rc = feedback_find(db, "key_id = ? AND idempotency_key = ?", "ss",
                           w->a->key_id != NULL ? w->a->key_id : "", idempotency, &old, e);
    if (rc == 0 && old == NULL) {
        rc = insert_for(db, w, idempotency, choice, request, e);
    } else if (rc == 0) {
        const char *id = text_of(old, "id"), *of = text_of(old, "response_id");
        if (of == NULL || strcmp(of, response_id) != 0 ||
            json_integer_value(json_object_get(old, "choice_index")) != choice)
            rc = hone_fail(e, HONE_EEXIST,
                           "the idempotency key was used for choice %d of response '%.64s'",
                           (int)json_integer_value(json_object_get(old, "choice_index")),
                           of != NULL ? of : "");
        if (rc == 0)
            rc = update_over(db, w, request, id, e);
        if (rc == 0)
            rc = finish(db, w, id, "feedback.update", e);
    }
    json_decref(request);
    json_decref(old);
    free(idempotency);
    return rc;
}

int feedback_put(store *s, const json_t *form, const feedback_author *a, json_t **out,
                 bool *created, hone_err *e)
{
    work w = {.s = s, .form = form, .a = a};
    *out = NULL;
    *created = false;
    if (text_of(form, "response_id") == NULL)
        return hone_fail(e, HONE_EINVAL, "'response_id' is missing: the id of the rated response");
    int rc = commit(&w, put_run, out, e);
    *created = w.created;
    return rc;
}

/* ---- changing, deleting, reading ---- */

static int owned(sqlite3 *db, const work *w, json_t **fb, hone_err *e)
{
    int rc = feedback_find_id(db, w->id, fb, e);
    if (rc != 0 || w->a->any_response)
        return rc;
    const char *owner = text_of(*fb, "key_id");
    if (strcmp(owner != NULL ? owner : "", w->a->key_id != NULL ? w->a->key_id : "") != 0)
        rc = hone_fail(e, HONE_ENOTFOUND, "no feedback '%.64s'", w->id);
    return rc;
}

static int change_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    json_t *old = NULL, *request = NULL;
    int rc = owned(db, w, &old, e);
    const char *of = text_of(old, "response_id");
    if (rc == 0 && text_of(w->form, "preferred_over") != NULL && of != NULL) {
        rc = requests_get_in(db, of, &request, e);
        if (rc == 0)
            rc = update_over(db, w, request, w->id, e);
    }
    if (rc == 0)
        rc = finish(db, w, w->id, "feedback.update", e);
    json_decref(old);
    json_decref(request);
    return rc;
}

int feedback_change(store *s, const char *id, const json_t *form, const feedback_author *a,
                    json_t **out, hone_err *e)
{
    work w = {.s = s, .id = id, .form = form, .a = a};
    *out = NULL;
    return commit(&w, change_run, out, e);
}

static int delete_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    json_t *old = NULL;
    int rc = owned(db, w, &old, e);
    json_decref(old);
    if (rc == 0)
        rc = sql_run(db, e, "DELETE FROM feedback WHERE id = ?", "s", w->id);
    return rc == 0 ? note(db, w, "feedback.delete", w->id, NULL, e) : rc;
}

int feedback_delete(store *s, const char *id, const feedback_author *a, hone_err *e)
{
    work w = {.s = s, .id = id, .a = a};
    return commit(&w, delete_run, NULL, e);
}

static int review_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    int rc =
        sql_run(db, e, "UPDATE feedback SET review = ?, reviewer = ?, reviewed_at = ? WHERE id = ?",
                "ssis", w->verdict, w->reviewer, clock_unix_ms(), w->id);
    if (rc == 0 && sqlite3_changes64(db) == 0)
        rc = hone_fail(e, HONE_ENOTFOUND, "no feedback '%.64s'", w->id);
    return rc == 0
               ? note(db, w, "feedback.review", w->id, json_pack("{s:s}", "verdict", w->verdict), e)
               : rc;
}

int feedback_review(store *s, const char *id, const char *verdict, const char *reviewer,
                    hone_err *e)
{
    static const char *const verdicts[] = {"pending", "approved", "rejected"};
    feedback_author a = {.actor = reviewer};
    work w = {.s = s, .id = id, .verdict = verdict, .reviewer = reviewer, .a = &a};
    for (int i = 0; i < 3; i++)
        if (strcmp(verdict, verdicts[i]) == 0)
            return commit(&w, review_run, NULL, e);
    return hone_fail(e, HONE_EINVAL, "review '%.32s': it is pending, approved or rejected",
                     verdict);
}

static int mark_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    size_t i;
    json_t *id;
    int64_t known;
    json_array_foreach (w->form, i, id) {
        int rc = sql_int(&known, db, e, "SELECT count(*) FROM feedback WHERE id = ?", "s",
                         json_string_value(id));
        if (rc == 0 && known == 0)
            rc = hone_fail(e, HONE_ENOTFOUND, "no feedback '%.64s'",
                           json_is_string(id) ? json_string_value(id) : "?");
        if (rc == 0)
            rc = sql_run(db, e,
                         "INSERT OR IGNORE INTO feedback_runs(feedback_id, run_id, ts)"
                         " VALUES(?, ?, ?)",
                         "ssi", json_string_value(id), w->run_id, clock_unix_ms());
        if (rc != 0)
            return rc;
    }
    return 0;
}

int feedback_mark_used(store *s, const json_t *ids, const char *run_id, hone_err *e)
{
    work w = {.s = s, .form = ids, .run_id = run_id};
    return commit(&w, mark_run, NULL, e);
}

/* ---- importing ---- */

static int import_run(sqlite3 *db, void *user, hone_err *e)
{
    work *w = user;
    json_t *old = NULL;
    int rc = feedback_find(db, "id = ?", "s", w->id, NULL, &old, e);
    w->created = old == NULL;
    json_decref(old);
    if (rc == 0 && w->created)
        rc = erasure_check_import(db, w->s, w->id, w->a->user_hash, w->a->key_id, e);
    if (rc != 0 || !w->created)
        return rc;
    json_t *snapshot = json_object_get(w->out, "snapshot");
    rc = insert(db,
                &(fresh){.id = w->id,
                         .request_id = text_of(w->form, "response_id"),
                         .source = w->a->source,
                         .user_hash = w->a->user_hash,
                         .model = text_of(snapshot, "model"),
                         .choice = json_integer_value(json_object_get(w->form, "choice_index")),
                         .snapshot = snapshot},
                e);
    return rc == 0 ? finish(db, w, w->id, "feedback.import", e) : rc;
}

/* Parts an import line into the opinion and the snapshot that it is about. */
static int part_line(const json_t *line, json_t **opinion, json_t **snapshot, hone_err *e)
{
    static const char *const about[] = {"messages", "prompt", "answer", "model", NULL};
    static const char *const ignored[] = {
        "object",    "seq",   "created",  "updated",      "version",     "source",
        "key_id",    "model", "review",   "reviewer",     "reviewed_at", "snapshot_sha256",
        "user_hash", "id",    "snapshot", "used_in_runs", NULL};
    bool raw = json_is_object(json_object_get(line, "snapshot"));
    *opinion = json_copy((json_t *)line);
    *snapshot = raw ? json_deep_copy(json_object_get(line, "snapshot")) : json_object();
    for (int i = 0; raw && ignored[i] != NULL; i++)
        json_object_del(*opinion, ignored[i]);
    for (int i = 0; !raw && about[i] != NULL; i++) {
        json_t *v = json_object_get(line, about[i]);
        if (v != NULL)
            json_object_set(*snapshot, about[i], v);
        json_object_del(*opinion, about[i]);
    }
    const json_t *messages = json_object_get(*snapshot, "messages");
    if (!(json_is_array(messages) && json_array_size(messages) > 0) &&
        !json_is_string(json_object_get(*snapshot, "prompt")))
        return hone_fail(e, HONE_EFORMAT, "neither 'messages' nor 'prompt': what was asked?");
    const json_t *answer = json_object_get(*snapshot, "answer");
    if (answer != NULL ? !json_is_string(answer) : json_object_get(line, "correction") == NULL)
        return hone_fail(e, HONE_EFORMAT, "'answer' (text) is missing, and so is a 'correction'");
    return 0;
}

/* A raw export keeps its names, so that it is the same record on both sides; other lines are named
 * by content. */
static void name_line(const json_t *line, const json_t *form, const json_t *snapshot,
                      char id[IDS_MAX])
{
    const char *own = text_of(line, "id");
    char hex[65];
    if (own != NULL && json_is_object(json_object_get(line, "snapshot")) &&
        strncmp(own, "fb-", 3) == 0 && strlen(own) < IDS_MAX) {
        memcpy(id, own, strlen(own) + 1);
        return;
    }
    json_t *all = json_pack("[O, O]", form, snapshot);
    free(digest_of(all, hex));
    json_decref(all);
    memcpy(id, "fb-", 3);
    memcpy(id + 3, hex, 32);
    id[35] = '\0';
}

static const char *source_of(const json_t *line)
{
    static const char *const sources[] = {"end_user", "annotator", "auto", "implicit"};
    const char *own = text_of(line, "source");
    for (int i = 0; own != NULL && i < 4; i++)
        if (strcmp(sources[i], own) == 0)
            return sources[i];
    return "annotator";
}

/* Who said it: a name is hashed as the server would; a raw export has the hash already. */
static const char *user_of(const store *s, const json_t *line, char hash[33])
{
    const char *name = text_of(line, "user");
    if (name == NULL)
        return text_of(line, "user_hash");
    requests_user_hash(s, name, hash);
    return hash;
}

int feedback_import(store *s, const json_t *line, const char *actor, bool *created, hone_err *e)
{
    json_t *opinion = NULL, *snapshot = NULL, *form = NULL;
    char id[IDS_MAX];
    *created = false;
    if (!json_is_object(line))
        return hone_fail(e, HONE_EFORMAT, "not a JSON object");
    char user[33];
    feedback_author a = {.actor = actor, .any_response = true, .source = source_of(line)};
    a.user_hash = user_of(s, line, user);
    a.key_id = text_of(line, "key_id"); /* only to know whether it was erased */
    int rc = part_line(line, &opinion, &snapshot, e);
    if (rc == 0)
        rc = feedback_form(opinion, &form, NULL, e);
    if (rc == 0) {
        name_line(line, form, snapshot, id);
        work w = {.s = s, .id = id, .form = form, .a = &a};
        w.out = json_pack("{s:O}", "snapshot", snapshot);
        rc = commit(&w, import_run, NULL, e);
        *created = rc == 0 && w.created;
    }
    json_decref(opinion);
    json_decref(snapshot);
    json_decref(form);
    return rc;
}
