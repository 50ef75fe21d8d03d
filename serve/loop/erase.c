#include "serve/loop/erase.h"

#include "adapters/sign.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Of a run's directory, what stays: figures, no text. */
static const char report_name[] = "report.json";

static json_t *limits(void)
{
    return json_pack("[s, s, s]",
                     "a base checkpoint cannot be cleaned of what it had learned before",
                     "copies outside this state directory: exports, backups, other appliances",
                     "blocks that a disk or its snapshots keep after a file is deleted");
}

/* ---- files ---- */

typedef struct tally {
    int64_t files, bytes;
} tally;

static int measure(tally *t, const char *path, hone_err *e)
{
    char **names;
    int64_t size;
    if (!file_is_dir(path)) {
        t->files++;
        if (file_size(&size, path, NULL) == 0)
            t->bytes += size;
        return 0;
    }
    int rc = dir_list(&names, path, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        char *inner = path_join(path, names[i]);
        rc = measure(t, inner, e);
        free(inner);
    }
    dir_list_free(names);
    return rc;
}

static int remove_all(tally *t, const char *path, hone_err *e)
{
    if (!file_exists(path))
        return 0;
    int rc = measure(t, path, e);
    return rc == 0 ? dir_remove(path, e) : rc;
}

static char *run_dir(const char *state_dir, const json_t *run)
{
    char *runs = path_join(state_dir, "runs");
    char *dir = path_join(runs, json_string_value(run));
    free(runs);
    return dir;
}

/* Training data, adapter, checkpoints and optimizer states of a run. */
static int clear_run(tally *t, const char *dir, hone_err *e)
{
    char **names;
    if (!file_is_dir(dir))
        return 0;
    int rc = dir_list(&names, dir, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        char *path = path_join(dir, names[i]);
        if (strcmp(names[i], report_name) != 0)
            rc = remove_all(t, path, e);
        free(path);
    }
    dir_list_free(names);
    return rc == 0 ? dir_sync(dir, e) : rc;
}

static bool is_inside(const char *path, const char *state_dir)
{
    size_t n = strlen(state_dir);
    return strncmp(path, state_dir, n) == 0 && path[n] == '/' && strstr(path, "/../") == NULL;
}

/* Marked artefacts that nobody serves any more. */
static int sweep(tally *t, store *st, const char *state_dir, hone_err *e)
{
    json_t *list, *a;
    size_t i;
    int rc = erasure_leftovers(st, &list, e);
    json_array_foreach (list, i, a) {
        const char *path = json_string_value(json_object_get(a, "path"));
        if (rc != 0 || !is_inside(path, state_dir))
            continue;
        rc = remove_all(t, path, e);
        if (rc == 0)
            rc = erasure_removed(st, json_string_value(json_object_get(a, "digest")), e);
    }
    json_decref(list);
    return rc;
}

/* ---- the plan ---- */

static json_t *files_of(const char *state_dir, const json_t *run)
{
    char *dir = run_dir(state_dir, run), **names;
    json_t *list = json_array();
    if (file_is_dir(dir) && dir_list(&names, dir, NULL) == 0) {
        for (size_t i = 0; names[i] != NULL; i++)
            if (strcmp(names[i], report_name) != 0)
                json_array_append_new(list, json_string(names[i]));
        dir_list_free(names);
    }
    json_t *o = json_pack("{s:s, s:o}", "directory", dir, "entries", list);
    free(dir);
    return o;
}

int erase_plan(json_t **plan, store *st, const char *state_dir, const erasure_subject *who,
               hone_err *e)
{
    size_t i;
    json_t *run;
    int rc = erasure_plan(st, who, plan, e);
    if (rc != 0)
        return rc;
    json_t *files = json_array();
    json_array_foreach (json_object_get(*plan, "runs"), i, run) {
        json_array_append_new(files, files_of(state_dir, run));
    }
    json_object_set_new(*plan, "files", files);
    json_object_set_new(*plan, "limits", limits());
    return 0;
}

/* ---- erasing ---- */

/* What became of each artefact. */
static void conclude(json_t *record, const tally *t)
{
    size_t i;
    json_t *a;
    char when[32];
    json_array_foreach (json_object_get(record, "artefacts"), i, a) {
        bool there = file_exists(json_string_value(json_object_get(a, "path")));
        json_object_set_new(a, "removed", json_boolean(!there));
    }
    clock_iso8601(when, sizeof when, clock_unix_ms());
    json_object_set_new(record, "files_removed", json_integer(t->files));
    json_object_set_new(record, "bytes_removed", json_integer(t->bytes));
    json_object_set_new(record, "finished", json_string(when));
    json_object_set_new(record, "limits", limits());
}

static int sign(json_t **receipt, const json_t *record, const char *state_dir, hone_err *e)
{
    json_t *envelope;
    char *text = js_text(record, true);
    int rc = sign_envelope(&envelope, state_dir, ERASE_RECEIPT_TYPE, text, strlen(text), e);
    free(text);
    if (rc == 0)
        *receipt = json_pack("{s:O, s:o}", "receipt", (json_t *)record, "envelope", envelope);
    return rc;
}

/* Everything after the rows; may be done again. */
static int finish(json_t **receipt, json_t *record, store *st, const char *state_dir, hone_err *e)
{
    tally t = {0};
    size_t i;
    json_t *run;
    int rc = 0;
    *receipt = NULL;
    json_array_foreach (json_object_get(record, "runs"), i, run) {
        char *dir = run_dir(state_dir, run);
        if (rc == 0)
            rc = clear_run(&t, dir, e);
        free(dir);
    }
    if (rc == 0)
        rc = sweep(&t, st, state_dir, e);
    if (rc == 0)
        rc = store_fold(st, e);
    if (rc != 0)
        return rc;
    conclude(record, &t);
    rc = sign(receipt, record, state_dir, e);
    if (rc == 0)
        rc = erasure_finish(st, json_string_value(json_object_get(record, "id")), *receipt, e);
    if (rc != 0) {
        json_decref(*receipt);
        *receipt = NULL;
    }
    return rc;
}

int erase_run(json_t **receipt, store *st, const char *state_dir, const erasure_subject *who,
              const char *actor, hone_err *e)
{
    json_t *record;
    *receipt = NULL;
    int rc = erase_resume(st, state_dir, e);
    if (rc == 0)
        rc = erasure_begin(st, who, actor, &record, e);
    if (rc != 0)
        return rc;
    rc = finish(receipt, record, st, state_dir, e);
    json_decref(record);
    return rc == 0 ? 0 : hone_fail_at(e, "the rows are erased, the files not yet (run it again)");
}

int erase_resume(store *st, const char *state_dir, hone_err *e)
{
    json_t *pending, *record, *receipt;
    size_t i;
    tally t = {0};
    int rc = erasure_pending(st, &pending, e);
    json_array_foreach (pending, i, record) {
        if (rc == 0)
            rc = finish(&receipt, record, st, state_dir, e);
        if (rc == 0) {
            log_info("erase", "%s is finished", json_string_value(json_object_get(record, "id")));
            json_decref(receipt);
        }
    }
    json_decref(pending);
    if (rc == 0)
        rc = sweep(&t, st, state_dir, e);
    if (rc == 0 && t.files > 0)
        log_info("erase", "%lld files of artefacts that learned from what was erased are gone",
                 (long long)t.files);
    return rc;
}
