/* A feedback write, with the audit record that belongs to it. The process ends without closing the
 * store, as a crash does: what feedback_put said was durable must be found again. */
#include "core/base/js.h"
#include "serve/store/audit.h"
#include "serve/store/feedback.h"
#include "serve/store/requests.h"
#include "tests/fault/cases.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char correction[] = "Hold the button for three seconds.";
static const feedback_author author = {.key_id = "keyaaaaa", .user_hash = "u1"};

static json_t *parse(const char *text)
{
    json_t *v;
    if (js_parse(&v, text, strlen(text), NULL) != 0)
        abort();
    return v;
}

static void put_response(const char *dir)
{
    store *s;
    if (store_open(&s, dir, NULL, NULL) != 0)
        abort();
    json_t *r = parse("{\"id\": \"r1\", \"ts\": 1, \"key_id\": \"keyaaaaa\", \"user_hash\": \"u1\","
                      "\"route\": \"/v1/chat/completions\", \"model\": \"m\", \"status\": 200,"
                      "\"model_digest\": \"d\", \"params\": {}, \"keep\": \"full\","
                      "\"messages\": [{\"role\": \"user\", \"content\": \"How?\"}],"
                      "\"choices\": [{\"index\": 0, \"text\": \"Press it.\","
                      " \"finish_reason\": \"stop\"}], \"finish_reason\": \"stop\","
                      "\"tok_in\": 5, \"tok_out\": 3}");
    if (requests_post(s, r) != 0 || store_flush(s, NULL) != 0)
        abort();
    store_close(s);
}

static int put_feedback(const char *dir, hone_err *e)
{
    store *s;
    json_t *body, *form = NULL, *record = NULL;
    bool created;
    int rc = store_open(&s, dir, NULL, e);
    if (rc != 0)
        return rc;
    body =
        json_pack("{s:s, s:i, s:s}", "response_id", "r1", "rating", -1, "correction", correction);
    rc = feedback_form(body, &form, NULL, e);
    if (rc == 0) {
        fault_begin();
        rc = feedback_put(s, form, &author, &record, &created, e);
        fault_end();
    }
    json_decref(record);
    json_decref(form);
    json_decref(body);
    return rc;
}

typedef struct seen {
    int n, whole;
} seen;

static int see(void *user, json_t *fb, hone_err *e)
{
    seen *s = user;
    const json_t *c = json_object_get(fb, "correction");
    const char *text = NULL, *response = NULL;
    s->n++;
    js_opt_str(c, "content", &text, e);
    js_opt_str(fb, "response_id", &response, e);
    s->whole += text != NULL && strcmp(text, correction) == 0 && strcmp(response, "r1") == 0 &&
                json_integer_value(json_object_get(fb, "rating")) == -1 &&
                json_is_object(json_object_get(fb, "snapshot"));
    return 0;
}

static int is_ok(void *user, int n, char **values, char **names)
{
    (void)names;
    *(bool *)user = n == 1 && strcmp(values[0], "ok") == 0;
    return 0;
}

static bool database_is_sound(const char *dir)
{
    char path[4096];
    sqlite3 *db;
    bool ok = false;
    snprintf(path, sizeof path, "%s/hone.db", dir);
    if (sqlite3_open(path, &db) == SQLITE_OK)
        sqlite3_exec(db, "PRAGMA integrity_check", is_ok, &ok, NULL);
    sqlite3_close(db);
    return ok;
}

static fault_state look_feedback(const char *dir)
{
    store *s;
    seen found = {0};
    feedback_filter all = {0};
    audit_report audit;
    json_t *response = NULL;
    const store_options there = {.must_exist = true};
    if (!database_is_sound(dir) || store_open(&s, dir, &there, NULL) != 0)
        return FAULT_BROKEN;
    int rc = feedback_each(s, &all, see, &found, NULL);
    if (rc == 0)
        rc = audit_verify(s, NULL, &audit, NULL);
    if (rc == 0)
        rc = requests_get(s, "r1", &response, NULL);
    json_decref(response);
    store_close(s);
    if (rc != 0 || found.n != found.whole || found.n > 1)
        return FAULT_BROKEN;
    return found.n == 1 ? FAULT_NEW : FAULT_OLD;
}

const fault_case fault_feedback_crash = {.name = "feedback_crash",
                                         .prepare = put_response,
                                         .act = put_feedback,
                                         .look = look_feedback,
                                         .leaves_names = true,
                                         .own_window = true,
                                         .keeps_descriptors = true};
