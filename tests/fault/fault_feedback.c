/* A rating of a stored response: it is there with its audit record, or neither is. */
#include "core/base/js.h"
#include "serve/store/audit.h"
#include "serve/store/feedback.h"
#include "serve/store/requests.h"
#include "tests/fault/cases.h"

#include <stdlib.h>
#include <string.h>

static void must(int rc)
{
    if (rc != 0)
        abort();
}

static void prepare(const char *dir)
{
    store *s;
    must(store_open(&s, dir, NULL, NULL));
    must(requests_post(s, json_pack("{s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:[{s:i, s:s}]}", "id",
                                    "r", "route", "/v1/completions", "model", "m", "status", 200,
                                    "ts", 1, "keep", "full", "prompt", "p", "choices", "index", 0,
                                    "text", "a")));
    must(store_flush(s, NULL));
    store_close(s);
}

static int act(const char *dir, hone_err *e)
{
    const feedback_author me = {.actor = "test"};
    store *s;
    json_t *fb = NULL;
    bool created;
    int rc = store_open(&s, dir, NULL, e);
    if (rc != 0)
        return rc;
    json_t *form = json_pack("{s:s, s:i, s:s}", "response_id", "r", "rating", 1, "comment", "good");
    rc = form == NULL ? hone_fail(e, HONE_ENOMEM, "no memory")
                      : feedback_put(s, form, &me, &fb, &created, e);
    json_decref(fb);
    json_decref(form);
    store_close(s);
    return rc;
}

typedef struct found {
    int n, whole;
} found;

static int see(void *user, json_t *fb, hone_err *e)
{
    found *f = user;
    const char *comment = json_string_value(json_object_get(fb, "comment"));
    const json_t *snapshot = json_object_get(fb, "snapshot");
    const char *answer = json_string_value(json_object_get(snapshot, "answer"));
    (void)e;
    f->n++;
    f->whole += comment != NULL && strcmp(comment, "good") == 0 && answer != NULL &&
                strcmp(answer, "a") == 0 && json_integer_value(json_object_get(fb, "version")) == 1;
    return 0;
}

static fault_state look(const char *dir)
{
    store *s;
    found f = {0};
    audit_report audit;
    must(store_open(&s, dir, NULL, NULL));
    bool read =
        feedback_each(s, NULL, see, &f, NULL) == 0 && audit_verify(s, NULL, &audit, NULL) == 0;
    store_close(s);
    if (!read || f.n > 1 || f.whole != f.n || audit.n != 1 + f.n)
        return FAULT_BROKEN;
    return f.n == 1 ? FAULT_NEW : FAULT_OLD;
}

/* SQLite's side files stay where closing failed too; the next opening folds them in. What it then
 * has not synced is in its log, which is: not `durable` in the driver's sense. */
const fault_case fault_feedback = {
    .name = "feedback", .prepare = prepare, .act = act, .look = look, .leaves_names = true};
