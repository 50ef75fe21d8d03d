/* Erasing what a user left: rows, the files of the run that learned from them, and a receipt. What
 * an error or a crash interrupts is finished by erase_resume, as a server does when it starts: then
 * all is there, or all is gone. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "serve/loop/erase.h"
#include "serve/store/feedback.h"
#include "serve/store/registry.h"
#include "serve/store/requests.h"
#include "tests/fault/cases.h"

#include <stdlib.h>
#include <string.h>

static const erasure_subject user = {ERASURE_USER, "u1"};

static void must(int rc)
{
    if (rc != 0)
        abort();
}

static void put_feedback(store *s, char id[64])
{
    const feedback_author me = {.key_id = "keyaaaaa", .user_hash = "u1"};
    json_t *fb, *form = json_pack("{s:s, s:i}", "response_id", "r", "rating", 1);
    bool created;
    must(requests_post(s, json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:[{s:i, s:s}]}",
                                    "id", "r", "user_hash", "u1", "key_id", "keyaaaaa", "route",
                                    "/v1/completions", "model", "m", "status", 200, "ts", 1, "keep",
                                    "full", "prompt", "p", "choices", "index", 0, "text", "a")));
    must(store_flush(s, NULL));
    must(feedback_put(s, form, &me, &fb, &created, NULL));
    strncpy(id, json_string_value(json_object_get(fb, "id")), 63);
    json_decref(fb);
    json_decref(form);
}

static void prepare(const char *dir)
{
    store *s;
    char id[64] = "", run[REGISTRY_ID_LEN];
    must(store_open(&s, dir, NULL, NULL));
    put_feedback(s, id);
    json_t *ids = json_pack("[s]", id), *report = json_object();
    must(registry_run_begin(s, run, "retrain", report, NULL));
    must(registry_run_inputs(s, run, ids, NULL));
    must(registry_run_end(s, run, "rejected", report, NULL));
    json_decref(report);
    json_decref(ids);
    store_close(s);
    char *runs = path_join(dir, "runs"), *its = path_join(runs, run);
    fault_put(its, "data.jsonl", "{\"text\": \"p a\"}\n");
    free(its);
    free(runs);
}

static int act(const char *dir, hone_err *e)
{
    store *s;
    json_t *receipt = NULL;
    int rc = store_open(&s, dir, NULL, e);
    if (rc != 0)
        return rc;
    rc = erase_run(&receipt, s, dir, &user, "test", e);
    if (rc == 0)
        json_decref(receipt);
    store_close(s);
    return rc;
}

/* Does the data of the run, the only one, stand? */
static bool data_is_there(const char *dir)
{
    char *runs = path_join(dir, "runs"), **names;
    must(dir_list(&names, runs, NULL));
    char *run = path_join(runs, names[0]), *data = path_join(run, "data.jsonl");
    bool there = file_exists(data);
    free(data);
    free(run);
    dir_list_free(names);
    free(runs);
    return there;
}

static fault_state look(const char *dir)
{
    store *s;
    json_t *plan = NULL, *pending = NULL;
    must(store_open(&s, dir, NULL, NULL));
    bool resumed = erase_resume(s, dir, NULL) == 0;
    int rc = erasure_plan(s, &user, &plan, NULL);
    resumed = resumed && erasure_pending(s, &pending, NULL) == 0 && json_array_size(pending) == 0;
    json_decref(plan);
    json_decref(pending);
    store_close(s);
    if (!resumed || (rc != 0 && rc != HONE_ENOTFOUND) || data_is_there(dir) != (rc == 0))
        return FAULT_BROKEN;
    return rc == 0 ? FAULT_OLD : FAULT_NEW;
}

/* The rows go first; an error after that leaves what is finished later. */
const fault_case fault_erase = {.name = "erase",
                                .prepare = prepare,
                                .act = act,
                                .look = look,
                                .leaves_names = true,
                                .error_after_new = true};
