/* Reading feedback: one record, or those that a filter lets through. */
#include "core/base/mem.h"
#include "serve/store/feedback_in.h"

#include <stdlib.h>

/* ---- one record out of a row ---- */

#define FEEDBACK_COLUMNS                                                                           \
    "id, seq, request_id, choice_index, ts, updated_at, version, rating, score, reason, comment,"  \
    " preferred_over, source, key_id, user_hash, model, review, reviewer, reviewed_at,"            \
    " snapshot_sha256, tags, correction, snapshot,"                                                \
    " (SELECT json_group_array(run_id) FROM feedback_runs WHERE feedback_id = feedback.id)"

static json_t *read_record(sqlite3_stmt *st)
{
    static const char *const names[] = {"id",      "seq",      "response_id", "choice_index",
                                        "created", "updated",  "version",     "rating",
                                        "score",   "reason",   "comment",     "preferred_over",
                                        "source",  "key_id",   "user_hash",   "model",
                                        "review",  "reviewer", "reviewed_at", "snapshot_sha256",
                                        NULL};
    static const char *const documents[] = {"tags", "correction", "snapshot", "used_in_runs", NULL};
    int col = 0;
    json_t *o = json_object();
    for (int i = 0; names[i] != NULL; i++)
        sql_set(o, names[i], st, col++);
    for (int i = 0; documents[i] != NULL; i++, col++) {
        json_t *v = sql_json(st, col);
        json_object_set_new(o, documents[i], v != NULL ? v : json_null());
    }
    json_object_set_new(o, "object", json_string("feedback"));
    return o;
}

int feedback_find(sqlite3 *db, const char *where, const char *types, const char *a, const char *b,
                  json_t **out, hone_err *e)
{
    sqlite3_stmt *st;
    char *text = mem_printf("SELECT " FEEDBACK_COLUMNS " FROM feedback WHERE %s", where);
    *out = NULL;
    int rc = sql_prepare(&st, db, e, text, types, a, b);
    if (rc == 0)
        rc = sql_step(st, e);
    if (rc > 0)
        *out = read_record(st);
    sqlite3_finalize(st);
    free(text);
    return rc > 0 ? 0 : rc;
}

int feedback_find_id(sqlite3 *db, const char *id, json_t **out, hone_err *e)
{
    int rc = feedback_find(db, "id = ?", "s", id, NULL, out, e);
    if (rc == 0 && *out == NULL)
        rc = hone_fail(e, HONE_ENOTFOUND, "no feedback '%.64s'", id);
    return rc;
}

/* ---- reading one, reading many ---- */

typedef struct lookup {
    const char *id;
    json_t *out;
    const feedback_filter *filter;
    feedback_fn *fn;
    void *user;
} lookup;

static int get_run(sqlite3 *db, void *user, hone_err *e)
{
    lookup *l = user;
    return feedback_find_id(db, l->id, &l->out, e);
}

int feedback_get(store *s, const char *id, json_t **out, hone_err *e)
{
    lookup l = {.id = id};
    int rc = store_read(s, get_run, &l, e);
    *out = l.out;
    return rc;
}

/* Every condition is always there; a NULL parameter makes it true. */
static int select_by(sqlite3_stmt **st, sqlite3 *db, const feedback_filter *f, hone_err *e)
{
    return sql_prepare(
        st, db, e,
        "SELECT " FEEDBACK_COLUMNS " FROM feedback WHERE seq > ?1"
        " AND (?2 IS NULL OR updated_at >= ?2) AND (?3 IS NULL OR updated_at < ?3)"
        " AND (?4 IS NULL OR model = ?4)"
        " AND (?5 IS NULL OR EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?5))"
        " AND (?6 IS NULL OR review = ?6) AND (?7 IS NULL OR source = ?7)"
        " AND (?8 IS NULL OR key_id = ?8) AND (?9 IS NULL OR user_hash = ?9)"
        " AND (?10 IS NULL OR request_id = ?10) AND (?11 = 0 OR rating = ?12)"
        " AND (?13 = 0 OR correction IS NOT NULL)"
        " AND (?14 = 0 OR NOT EXISTS"
        "  (SELECT 1 FROM feedback_runs WHERE feedback_id = feedback.id))"
        " ORDER BY seq LIMIT ?15",
        "izzsssssssiiiii", f->after_seq, f->since_ms, f->until_ms, f->model, f->tag, f->review,
        f->source, f->key_id, f->user_hash, f->response_id, (int64_t)f->with_rating,
        (int64_t)f->rating, (int64_t)f->corrected, (int64_t)f->unused,
        f->limit > 0 ? f->limit : (int64_t)-1);
}

static int each_run(sqlite3 *db, void *user, hone_err *e)
{
    lookup *l = user;
    sqlite3_stmt *st;
    int rc = select_by(&st, db, l->filter, e);
    while (rc == 0 && (rc = sql_step(st, e)) > 0) {
        json_t *fb = read_record(st);
        rc = l->fn(l->user, fb, e);
        json_decref(fb);
    }
    sqlite3_finalize(st);
    return rc;
}

int feedback_each(store *s, const feedback_filter *f, feedback_fn *fn, void *user, hone_err *e)
{
    static const feedback_filter all = {0};
    lookup l = {.filter = f != NULL ? f : &all, .fn = fn, .user = user};
    return store_read(s, each_run, &l, e);
}
