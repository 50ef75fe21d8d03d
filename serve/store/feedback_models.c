/* What users say, by the model that answered. */
#include "serve/store/feedback_in.h"

#include <string.h>

/* An answer counts where it is still stored, feedback for ever; either may be without the other.
 * What was imported may name no digests. */
static const char by_model[] =
    "SELECT model, model_digest, adapter_digest, sum(answers), sum(failed), sum(rated), sum(up),"
    " sum(none), sum(down), sum(corrected) FROM ("
    "SELECT coalesce(model, '') AS model, coalesce(model_digest, '') AS model_digest,"
    " coalesce(adapter_digest, '') AS adapter_digest, count(*) AS answers,"
    " sum(status >= 400) AS failed, 0 AS rated, 0 AS up, 0 AS none, 0 AS down, 0 AS corrected"
    " FROM requests WHERE ts >= ?1 GROUP BY 1, 2, 3 "
    "UNION ALL "
    "SELECT coalesce(snapshot ->> '$.model', ''), coalesce(snapshot ->> '$.model_digest', ''),"
    " coalesce(snapshot ->> '$.adapter_digest', ''), 0, 0, count(rating), sum(rating IS 1),"
    " sum(rating IS 0), sum(rating IS -1), sum(correction IS NOT NULL)"
    " FROM feedback WHERE updated_at >= ?1 AND review <> 'rejected' GROUP BY 1, 2, 3)"
    " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";

typedef struct lookup {
    int64_t since_ms;
    json_t *out;
} lookup;

static int read_rows(sqlite3 *db, void *user, hone_err *e)
{
    static const char *const names[] = {
        "model", "model_digest", "adapter_digest", "answers", "failed",
        "rated", "up",           "none",           "down",    "corrected"};
    lookup *l = user;
    sqlite3_stmt *st;
    int rc = sql_prepare(&st, db, e, by_model, "i", l->since_ms);
    while (rc == 0 && (rc = sql_step(st, e)) > 0) {
        json_t *row = json_object();
        for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
            sql_set(row, names[i], st, i);
        json_array_append_new(l->out, row);
        rc = 0;
    }
    sqlite3_finalize(st);
    return rc;
}

int feedback_models(store *s, int64_t since_ms, json_t **out, hone_err *e)
{
    lookup l = {since_ms, json_array()};
    int rc = store_read(s, read_rows, &l, e);
    *out = NULL;
    if (rc == 0)
        *out = l.out;
    else
        json_decref(l.out);
    return rc;
}
