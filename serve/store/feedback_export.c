#include "serve/store/feedback_export.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 100 };

struct feedback_export {
    store *s;
    feedback_export_options o;
    int64_t left;  /* feedback that may still be read; -1: any number */
    json_t *seen;  /* digests of the rows that were given */
    json_t *votes; /* digest of what is spoken of: {digest of what is said: how often} */
    json_t *rows;  /* of the page being made */
    int64_t last;
    int n;
};

/* ---- options ---- */

static int take_share(double *out, const char *text, const char *what, hone_err *e)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !(v > 0 && v <= 1))
        return hone_fail(e, HONE_EINVAL, "%s '%.32s': a share above 0 and up to 1 is expected",
                         what, text);
    *out = v;
    return 0;
}

static int take_split(double *out, const char *text, hone_err *e)
{
    if (strncmp(text, "hash:", 5) != 0)
        return hone_fail(e, HONE_EINVAL,
                         "split '%.32s': expected hash:SHARE, such as hash:0.9 (for training)",
                         text);
    return take_share(out, text + 5, "split", e);
}

static int take_part(feedback_part *out, const char *text, hone_err *e)
{
    *out = strcmp(text, "train") == 0 ? FEEDBACK_TRAIN : FEEDBACK_HOLDOUT;
    if (*out == FEEDBACK_TRAIN || strcmp(text, "holdout") == 0)
        return 0;
    return hone_fail(e, HONE_EINVAL, "part '%.32s': it is train or holdout", text);
}

int feedback_export_take(feedback_export_options *o, const char *format, const char *split,
                         const char *part, const char *min_agreement, hone_err *e)
{
    int rc = format != NULL ? feedback_format_by_name(&o->format, format, e) : 0;
    if (rc == 0 && split != NULL)
        rc = take_split(&o->split, split, e);
    if (rc == 0 && part != NULL)
        rc = take_part(&o->part, part, e);
    if (rc == 0 && min_agreement != NULL)
        rc = take_share(&o->min_agreement, min_agreement, "min_agreement", e);
    return rc;
}

static int check(const feedback_export_options *o, hone_err *e)
{
    if (o->format == FEEDBACK_RAW && (o->dedupe || o->min_agreement > 0))
        return hone_fail(e, HONE_EINVAL,
                         "dedupe and min_agreement are for kto, dpo and sft: raw records are all "
                         "different");
    if (o->part != FEEDBACK_ALL && o->split <= 0)
        return hone_fail(e, HONE_EINVAL, "a part needs a split, such as hash:0.9");
    return 0;
}

/* ---- what a row says, and of what ---- */

static void digest(char hex[65], const json_t *v)
{
    char *text = js_text(v, true);
    bytes_sha256(hex, text, strlen(text));
    free(text);
}

/* New reference: the row without its opinion. */
static json_t *subject_of(const json_t *row)
{
    static const char *const opinions[] = {"label", "chosen", "rejected", NULL};
    json_t *o = json_copy((json_t *)row);
    json_t *messages = json_object_get(o, "messages");
    bool rated = json_object_get(row, "label") != NULL;
    for (int i = 0; opinions[i] != NULL; i++)
        json_object_del(o, opinions[i]);
    if (!rated)
        json_object_del(o, "completion");
    if (messages != NULL) {
        json_t *prompt = json_copy(messages);
        json_array_remove(prompt, json_array_size(prompt) - 1);
        json_object_set_new(o, "messages", prompt);
    }
    return o;
}

/* The two digests under which an opinion is counted. */
static void ballot(const json_t *row, char about[65], char said[65])
{
    json_t *subject = subject_of(row);
    digest(about, subject);
    digest(said, row);
    json_decref(subject);
}

static int count_votes(void *user, json_t *fb, hone_err *e)
{
    feedback_export *x = user;
    char about[65], said[65];
    json_t *rows = json_array(), *row;
    size_t i;
    (void)e;
    feedback_rows(x->o.format, fb, rows);
    json_array_foreach (rows, i, row) {
        ballot(row, about, said);
        json_t *urn = json_object_get(x->votes, about);
        if (urn == NULL) {
            urn = json_object();
            json_object_set_new(x->votes, about, urn);
        }
        json_int_t n = json_integer_value(json_object_get(urn, said));
        json_object_set_new(urn, said, json_integer(n + 1));
    }
    json_decref(rows);
    return 0;
}

static bool agreed(const feedback_export *x, const json_t *row)
{
    char about[65], said[65];
    const char *key;
    json_t *n;
    json_int_t all = 0;
    if (x->votes == NULL)
        return true;
    ballot(row, about, said);
    json_t *urn = json_object_get(x->votes, about);
    json_object_foreach (urn, key, n) {
        all += json_integer_value(n);
    }
    return (double)json_integer_value(json_object_get(urn, said)) >=
           x->o.min_agreement * (double)all;
}

static bool is_new(feedback_export *x, const json_t *row)
{
    char hex[65];
    if (x->seen == NULL)
        return true;
    digest(hex, row);
    if (json_object_get(x->seen, hex) != NULL)
        return false;
    json_object_set_new(x->seen, hex, json_true());
    return true;
}

/* ---- pages ---- */

int feedback_export_open(feedback_export **out, store *s, const feedback_export_options *o,
                         hone_err *e)
{
    *out = NULL;
    int rc = check(o, e);
    if (rc != 0)
        return rc;
    feedback_export *x = mem_alloc(sizeof *x);
    x->s = s;
    x->o = *o;
    x->left = o->filter.limit > 0 ? o->filter.limit : -1;
    x->seen = o->dedupe ? json_object() : NULL;
    if (o->min_agreement > 0) {
        x->votes = json_object();
        rc = feedback_each(s, &o->filter, count_votes, x, e);
    }
    if (rc != 0)
        feedback_export_close(x);
    else
        *out = x;
    return rc;
}

void feedback_export_close(feedback_export *x)
{
    if (x == NULL)
        return;
    json_decref(x->seen);
    json_decref(x->votes);
    free(x);
}

static int take(void *user, json_t *fb, hone_err *e)
{
    feedback_export *x = user;
    const feedback_export_options *o = &x->o;
    bool train = o->split <= 0 || feedback_side(fb) >= 1 - o->split;
    (void)e;
    x->last = json_integer_value(json_object_get(fb, "seq"));
    x->n++;
    if (o->part != FEEDBACK_ALL && train != (o->part == FEEDBACK_TRAIN))
        return 0;
    json_t *rows = json_array(), *row;
    size_t i;
    feedback_rows(o->format, fb, rows);
    json_array_foreach (rows, i, row) {
        if (!agreed(x, row) || !is_new(x, row))
            continue;
        json_t *given = json_copy(row);
        if (o->split > 0 && o->part == FEEDBACK_ALL)
            json_object_set_new(given, "split", json_string(train ? "train" : "holdout"));
        json_array_append_new(x->rows, given);
    }
    json_decref(rows);
    return 0;
}

int feedback_export_next(feedback_export *x, json_t *rows, hone_err *e)
{
    feedback_filter f = x->o.filter;
    f.limit = x->left < 0 || x->left > PAGE ? PAGE : x->left;
    if (f.limit == 0)
        return 1;
    x->rows = rows;
    x->n = 0;
    int rc = feedback_each(x->s, &f, take, x, e);
    if (rc != 0)
        return rc;
    x->o.filter.after_seq = x->last;
    if (x->left > 0)
        x->left -= x->n;
    return x->n < f.limit || x->left == 0;
}
