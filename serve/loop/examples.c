#include "serve/loop/examples.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "serve/store/feedback.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t MAX_DATA = (size_t)1 << 30;

/* What one accepted row of feedback comes to, before duplicates and shares are looked at. */
typedef struct item {
    char *prompt; /* canonical text of the conversation: what makes two rows the same question */
    char *user;
    json_t *record; /* {"messages": [...]} */
    double side;    /* feedback_side */
    bool dropped;
} item;

typedef struct collect {
    loop_examples *out;
    const retrain_conf *c;
    hooks *h;
    item *items;
    size_t n, cap;
} collect;

/* A correction is text or a whole message; without one an answer that was rated up stands for
 * itself. */
static const char *wanted_answer(const json_t *row)
{
    const json_t *correction = json_object_get(row, "correction");
    if (json_is_object(correction))
        correction = json_object_get(correction, "content");
    if (json_is_string(correction) && json_string_length(correction) > 0)
        return json_string_value(correction);
    if (json_integer_value(json_object_get(row, "rating")) <= 0)
        return NULL;
    return json_string_value(json_object_get(json_object_get(row, "snapshot"), "answer"));
}

static json_t *make_record(const json_t *messages, const char *answer)
{
    json_t *all = json_deep_copy(messages);
    json_array_append_new(all, json_pack("{s:s, s:s}", "role", "assistant", "content", answer));
    return json_pack("{s:o}", "messages", all);
}

/* Subscribers see {"feedback", "example"} and may change the example or refuse the row. */
static int ask_hooks(json_t **record, const json_t *row, hooks *h, hone_err *e)
{
    if (!hook_wanted(h, HOOK_FEEDBACK_TO_EXAMPLE))
        return 0;
    json_t *data = json_pack("{s:O, s:o}", "feedback", (json_t *)row, "example", *record);
    int rc = hook_emit(h, HOOK_FEEDBACK_TO_EXAMPLE, &data, e);
    json_t *example = json_object_get(data, "example");
    *record = json_is_object(example) ? json_incref(example) : NULL;
    json_decref(data);
    return rc == HONE_EVETO ? 0 : rc;
}

static int take_row(void *user, json_t *row, hone_err *e)
{
    collect *k = user;
    const char *review = json_string_value(json_object_get(row, "review"));
    if (review != NULL && strcmp(review, "rejected") == 0)
        return 0;
    const char *id = json_string_value(json_object_get(row, "id"));
    const json_t *messages = json_object_get(json_object_get(row, "snapshot"), "messages");
    const char *answer = wanted_answer(row);
    const char *who = json_string_value(json_object_get(row, "user_hash"));
    if (who == NULL)
        who = json_string_value(json_object_get(row, "key_id"));
    if (json_array_size(json_object_get(row, "used_in_runs")) == 0)
        k->out->n_new++;
    if (answer == NULL || !json_is_array(messages)) {
        k->out->n_unused++;
        return 0;
    }
    json_t *record = make_record(messages, answer);
    int rc = ask_hooks(&record, row, k->h, e);
    if (rc != 0 || record == NULL) {
        json_decref(record);
        return rc;
    }
    json_array_append_new(k->out->ids, json_string(id));
    k->items = mem_grow(k->items, &k->cap, k->n + 1, sizeof *k->items);
    k->items[k->n++] = (item){.prompt = js_text(messages, true),
                              .user = mem_strdup(who != NULL ? who : ""),
                              .record = record,
                              .side = feedback_side(row)};
    return 0;
}

/* The newest answer to a question counts. */
static void drop_superseded(collect *k)
{
    for (size_t i = 0; i < k->n; i++)
        for (size_t j = i + 1; j < k->n && !k->items[i].dropped; j++)
            if (strcmp(k->items[i].prompt, k->items[j].prompt) == 0) {
                k->items[i].dropped = true;
                k->out->n_superseded++;
            }
}

/* Later rows of a user beyond the share of all are left out; one row is always allowed. Rows
 * without a user or key were imported by the operator. */
static void cap_users(collect *k)
{
    size_t left = 0;
    for (size_t i = 0; i < k->n; i++)
        left += !k->items[i].dropped;
    size_t most = (size_t)floor(k->c->max_user_share * (double)left);
    for (size_t i = 0; i < k->n; i++) {
        size_t before = 0;
        for (size_t j = 0; j < i; j++)
            before += !k->items[j].dropped && strcmp(k->items[j].user, k->items[i].user) == 0;
        bool known = k->items[i].user[0] != '\0';
        if (known && !k->items[i].dropped && before >= (most > 1 ? most : 1)) {
            k->items[i].dropped = true;
            k->out->n_capped++;
        }
    }
}

static void free_items(collect *k)
{
    for (size_t i = 0; i < k->n; i++) {
        free(k->items[i].prompt);
        free(k->items[i].user);
        json_decref(k->items[i].record);
    }
    free(k->items);
}

int loop_examples_make(loop_examples *out, store *st, const retrain_conf *c, hooks *h, hone_err *e)
{
    *out = (loop_examples){.train = json_array(), .holdout = json_array(), .ids = json_array()};
    collect k = {.out = out, .c = c, .h = h};
    feedback_filter f = {.review = c->accept == RETRAIN_APPROVED ? "approved" : NULL};
    int rc = feedback_each(st, &f, take_row, &k, e);
    if (rc == 0) {
        drop_superseded(&k);
        cap_users(&k);
    }
    for (size_t i = 0; rc == 0 && i < k.n; i++)
        if (!k.items[i].dropped)
            json_array_append(k.items[i].side < c->feedback_holdout ? out->holdout : out->train,
                              k.items[i].record);
    free_items(&k);
    if (rc != 0)
        loop_examples_free(out);
    return rc;
}

void loop_examples_free(loop_examples *x)
{
    json_decref(x->train);
    json_decref(x->holdout);
    json_decref(x->ids);
    *x = (loop_examples){0};
}

int loop_write_jsonl(const json_t *records, const char *path, int64_t repeat, hone_err *e)
{
    buf b;
    buf_init(&b, MAX_DATA);
    for (int64_t r = 0; r < repeat; r++) {
        for (size_t i = 0; i < json_array_size(records); i++) {
            char *line = js_text(json_array_get(records, i), false);
            buf_str(&b, line);
            buf_char(&b, '\n');
            free(line);
        }
    }
    int rc = buf_check(&b, path, e);
    if (rc == 0)
        rc = file_write(path, b.data, b.len, e);
    buf_free(&b);
    return rc;
}

/* ---- replay ---- */

typedef struct line {
    const char *text;
    size_t len;
} line;

typedef struct lines {
    line *items;
    size_t n, cap;
    char **files; /* texts that the lines point into */
    size_t n_files, cap_files;
} lines;

static int read_lines(lines *l, const char *path, hone_err *e)
{
    char *text;
    size_t len;
    int rc = file_read(&text, &len, path, MAX_DATA, e);
    if (rc != 0)
        return rc;
    l->files = mem_grow(l->files, &l->cap_files, l->n_files + 1, sizeof *l->files);
    l->files[l->n_files++] = text;
    for (char *s = text; s < text + len;) {
        char *end = memchr(s, '\n', (size_t)(text + len - s));
        size_t n = end != NULL ? (size_t)(end - s) : (size_t)(text + len - s);
        if (n > 0) {
            l->items = mem_grow(l->items, &l->cap, l->n + 1, sizeof *l->items);
            l->items[l->n++] = (line){s, n};
        }
        s += n + 1;
    }
    return 0;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int write_chosen(const lines *l, size_t take, uint64_t seed, const char *path, hone_err *e)
{
    uint32_t *order = mem_array(l->n, sizeof *order);
    rng r = {.seed = seed, .stream = rng_stream("replay")};
    for (size_t i = 0; i < l->n; i++)
        order[i] = (uint32_t)i;
    if (take < l->n) {
        rng_shuffle(&r, order, l->n);
        qsort(order, take, sizeof *order, by_number);
    }
    buf b;
    buf_init(&b, MAX_DATA);
    for (size_t i = 0; i < take; i++) {
        buf_add(&b, l->items[order[i]].text, l->items[order[i]].len);
        buf_char(&b, '\n');
    }
    int rc = buf_check(&b, path, e);
    if (rc == 0)
        rc = file_write(path, b.data, b.len, e);
    buf_free(&b);
    free(order);
    return rc;
}

int loop_write_replay(const json_t *files, int64_t max, uint64_t seed, const char *path, int64_t *n,
                      hone_err *e)
{
    lines l = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(files); i++)
        rc = read_lines(&l, json_string_value(json_array_get(files, i)), e);
    size_t take = max > 0 && (size_t)max < l.n ? (size_t)max : l.n;
    if (rc == 0)
        rc = write_chosen(&l, take, seed, path, e);
    *n = (int64_t)take;
    for (size_t i = 0; i < l.n_files; i++)
        free(l.files[i]);
    free(l.files);
    free(l.items);
    return rc;
}
