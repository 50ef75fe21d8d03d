/* hone feedback: lists, compares, exports, imports, reviews and erases what users said about
 * answers. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/feedback_compare.h"
#include "cli/state.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "serve/loop/erase.h"
#include "serve/store/feedback_export.h"
#include "serve/store/requests.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_IMPORT = 1 << 30, SHOWN = 48 };

typedef struct options {
    state_args at;
    const char *format, *split, *part, *min_agreement, *model, *tag, *review, *rating, *response,
        *since, *user, *key;
    bool corrected, unused, approve, reject, dedupe, dry_run;
} options;

/* clang-format off */
static const args_row rows[] = {
    STATE_ARGS(options, at),
    {"format",    offsetof(options, format),    ARGS_TEXT},
    {"dedupe",    offsetof(options, dedupe),    ARGS_FLAG},
    {"split",     offsetof(options, split),     ARGS_TEXT},
    {"part",      offsetof(options, part),      ARGS_TEXT},
    {"min-agreement", offsetof(options, min_agreement), ARGS_TEXT},
    {"model",     offsetof(options, model),     ARGS_TEXT},
    {"tag",       offsetof(options, tag),       ARGS_TEXT},
    {"review",    offsetof(options, review),    ARGS_TEXT},
    {"rating",    offsetof(options, rating),    ARGS_TEXT},
    {"response",  offsetof(options, response),  ARGS_TEXT},
    {"since",     offsetof(options, since),     ARGS_TEXT},
    {"user",      offsetof(options, user),      ARGS_TEXT},
    {"key",       offsetof(options, key),       ARGS_TEXT},
    {"dry-run",   offsetof(options, dry_run),   ARGS_FLAG},
    {"corrected", offsetof(options, corrected), ARGS_FLAG},
    {"unused",    offsetof(options, unused),    ARGS_FLAG},
    {"approve",   offsetof(options, approve),   ARGS_FLAG},
    {"reject",    offsetof(options, reject),    ARGS_FLAG},
    {NULL, 0, ARGS_TEXT},
};
/* clang-format on */

/* ---- the filter ---- */

static int take_rating(feedback_filter *f, const char *text, hone_err *e)
{
    static const char *const words[][2] = {{"down", "-1"}, {"none", "0"}, {"up", "1"}};
    if (text == NULL)
        return 0;
    f->with_rating = true;
    for (int i = 0; i < 3; i++) {
        f->rating = i - 1;
        if (strcmp(text, words[i][0]) == 0 || strcmp(text, words[i][1]) == 0)
            return 0;
    }
    return hone_fail(e, HONE_EINVAL, "--rating '%.16s': it is up, none or down", text);
}

/* "2026-01-31" (UTC). */
static int take_since(int64_t *ms, const char *text, hone_err *e)
{
    struct tm tm = {0};
    if (text == NULL)
        return 0;
    const char *end = strptime(text, "%Y-%m-%d", &tm);
    if (end == NULL || *end != '\0')
        return hone_fail(e, HONE_EINVAL, "--since '%.32s' is not a day such as 2026-01-31", text);
    *ms = (int64_t)timegm(&tm) * 1000;
    return 0;
}

static int take_filter(feedback_filter *f, const options *o, hone_err *e)
{
    *f = (feedback_filter){.model = o->model,
                           .tag = o->tag,
                           .review = o->review,
                           .response_id = o->response,
                           .corrected = o->corrected,
                           .unused = o->unused};
    int rc = take_rating(f, o->rating, e);
    return rc == 0 ? take_since(&f->since_ms, o->since, e) : rc;
}

/* ---- list and export ---- */

static const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s != NULL ? s : "";
}

/* One line of text for a table: cut, and without anything that moves the cursor. */
static void shorten(char dst[SHOWN + 1], const char *text)
{
    size_t n = 0;
    for (; text[n] != '\0' && n < SHOWN; n++)
        dst[n] = (unsigned char)text[n] < 0x20 || text[n] == 0x7f ? ' ' : text[n];
    while (n > 0 && text[n] != '\0' && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    dst[n] = '\0';
}

static int list_one(void *user, json_t *fb, hone_err *e)
{
    static const char *const ratings[] = {"down", "none", "up"};
    char when[32], said[SHOWN + 1];
    const json_t *rating = json_object_get(fb, "rating");
    if (*(const bool *)user)
        return state_print(fb, e);
    clock_iso8601(when, sizeof when, json_integer_value(json_object_get(fb, "updated")));
    const char *correction = text_of(json_object_get(fb, "correction"), "content");
    shorten(said, *correction != '\0' ? correction : text_of(fb, "comment"));
    printf("%-36s %.19s %-5s %-9s %s%s\n", text_of(fb, "id"), when,
           json_is_integer(rating) ? ratings[json_integer_value(rating) + 1] : "-",
           text_of(fb, "review"), *correction != '\0' ? "=> " : "", said);
    return 0;
}

static int do_list(const state_call *c, hone_err *e)
{
    feedback_filter f;
    int rc = take_filter(&f, c->options, e);
    if (rc == 0 && !c->args->json)
        printf("%-36s %-19s %-5s %-9s %s\n", "ID", "UPDATED", "RATED", "REVIEW", "SAID");
    return rc == 0 ? feedback_each(c->st, &f, list_one, (void *)&c->args->json, e) : rc;
}

static int print_page(feedback_export *x, bool *more, hone_err *e)
{
    json_t *page = json_array();
    int rc = feedback_export_next(x, page, e);
    *more = rc == 0;
    for (size_t i = 0; rc >= 0 && i < json_array_size(page); i++)
        rc = state_print(json_array_get(page, i), e);
    json_decref(page);
    return rc < 0 ? rc : 0;
}

static int do_export(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    feedback_export_options x = {.format = FEEDBACK_RAW, .dedupe = o->dedupe};
    feedback_export *export = NULL;
    bool more = true;
    int rc = take_filter(&x.filter, o, e);
    if (rc == 0)
        rc = feedback_export_take(&x, o->format, o->split, o->part, o->min_agreement, e);
    if (rc == 0)
        rc = feedback_export_open(&export, c->st, &x, e);
    while (rc == 0 && more)
        rc = print_page(export, &more, e);
    feedback_export_close(export);
    return rc;
}

/* ---- import, review, erase ---- */

typedef struct tally {
    int lines, added, refused;
} tally;

/* Plugins see a line as they see what a client sends. EAGAIN: it is left out. */
static int ask_hooks(json_t **line, hooks *h, tally *t, hone_err *e)
{
    hone_err why = {0};
    int rc = hook_emit(h, HOOK_FEEDBACK_INGEST, line, &why);
    if (rc != HONE_EVETO)
        return rc == 0 ? 0 : hone_fail(e, rc, "%s", why.msg);
    fprintf(stderr, "line %d: %s\n", t->lines, why.msg);
    t->refused++;
    return HONE_EAGAIN;
}

static int import_line(const state_call *c, const char *text, size_t len, hooks *h, tally *t,
                       hone_err *e)
{
    json_t *line;
    bool created = false;
    t->lines++;
    int rc = js_parse(&line, text, len, e);
    if (rc == 0)
        rc = ask_hooks(&line, h, t, e);
    if (rc == 0)
        rc = feedback_import(c->st, line, c->actor, &created, e);
    json_decref(line);
    if (rc == HONE_EAGAIN)
        return 0;
    t->added += created;
    return rc == 0 ? 0 : hone_fail_at(e, "line %d", t->lines);
}

static int do_import(const state_call *c, hone_err *e)
{
    char *data;
    size_t len;
    tally t = {0};
    extend *x;
    int rc = state_plugins(&x, c->args, e);
    if (rc == 0)
        rc = file_read(&data, &len, c->word[0], MAX_IMPORT, e);
    if (rc != 0) {
        extend_close(x);
        return rc;
    }
    for (char *at = data; rc == 0 && at < data + len;) {
        char *end = memchr(at, '\n', (size_t)(data + len - at));
        size_t n = end != NULL ? (size_t)(end - at) : (size_t)(data + len - at);
        if (strspn(at, " \t\r") < n)
            rc = import_line(c, at, n, extend_hooks(x), &t, e);
        else
            t.lines++;
        at += n + 1;
    }
    free(data);
    extend_close(x);
    if (t.refused > 0)
        fprintf(stderr, "%d lines refused by plugins\n", t.refused);
    fprintf(stderr, "%d new of %d lines%s\n", t.added, t.lines,
            rc != 0 ? "; what came before the error stays" : "");
    return rc == 0 ? 0 : hone_fail_at(e, "%s", c->word[0]);
}

static int do_review(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    int rc = 0;
    if (o->approve == o->reject)
        return hone_fail(e, HONE_EINVAL, "say --approve or --reject");
    for (int i = 0; rc == 0 && i < c->n_words; i++)
        rc = feedback_review(c->st, c->word[i], o->approve ? "approved" : "rejected", c->actor, e);
    return rc;
}

static int do_compare(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    int64_t since_ms = 0;
    int rc = take_since(&since_ms, o->since, e);
    return rc == 0 ? feedback_compare(c, since_ms, e) : rc;
}

static int do_erase(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    const char *state = store_dir(c->st);
    erasure_subject who = {ERASURE_KEY, o->key};
    char hash[33];
    json_t *out;
    if ((o->user == NULL) == (o->key == NULL))
        return hone_fail(e, HONE_EINVAL,
                         "say --user NAME (the 'user' that the requests carried), "
                         "or --key ID");
    if (o->user != NULL) {
        requests_user_hash(c->st, o->user, hash);
        who = (erasure_subject){ERASURE_USER, hash};
    }
    int rc = o->dry_run ? erase_plan(&out, c->st, state, &who, e)
                        : erase_run(&out, c->st, state, &who, c->actor, e);
    if (rc != 0)
        return rc;
    rc = state_print(out, e);
    json_decref(out);
    return rc;
}

/* clang-format off */
static const state_verb verbs[] = {
    {"list",    do_list,    0, 0,               NULL,              false},
    {"compare", do_compare, 0, 0,               NULL,              false},
    {"export",  do_export,  0, 0,               NULL,              false},
    {"import",  do_import,  1, 1,               "a file",          true},
    {"review",  do_review,  1, STATE_MAX_WORDS, "ids of feedback", false},
    {"erase",   do_erase,   0, 0,               NULL,              false},
    {NULL, NULL, 0, 0, NULL, false},
};
/* clang-format on */

static int run(int argc, char **argv)
{
    options o = {0};
    return state_run(&cmd_feedback, verbs, rows, &o, &o.at, argc, argv);
}

const cmd cmd_feedback = {
    "feedback", run, "list, compare, export, import and review what users said",
    "usage: hone feedback list [filters] [--json]\n"
    "       hone feedback compare [--since 2026-01-31] [--json]\n"
    "       hone feedback export --format raw|kto|dpo|sft [--dedupe] [--split hash:0.9\n"
    "            [--part train|holdout]] [--min-agreement 0.6] [filters] > FILE.jsonl\n"
    "       hone feedback import FILE.jsonl\n"
    "       hone feedback review --approve|--reject ID...\n"
    "       hone feedback erase --user NAME\n\n" STATE_HELP
    "filters: --model NAME --tag TAG --review pending|approved|rejected --rating up|none|down\n"
    "         --response ID --since 2026-01-31 --corrected --unused (by any training run)\n\n"
    "compare counts answers and thumbs by the model that answered, and says whether what is tried\n"
    "as canary is liked better than what is live.\n\n"
    "kto, dpo and sft are the formats of TRL. --dedupe leaves out what was there before. --split\n"
    "parts by a hash of what was asked, as retraining does (hash:0.8 is its feedback_holdout of\n"
    "0.2): --part gives one side, else each row says which. --min-agreement leaves out what too\n"
    "few of those who spoke of the same thing say. A line of an import is a raw export's, or has\n"
    "messages (or prompt), answer, and rating, correction, comment, tags or reason. erase\n"
    "removes what a user (or a key) has left: requests, feedback, and the data, checkpoints and\n"
    "models that learned from it; it prints a signed receipt, or with --dry-run the plan.\n\n"
    "example: hone feedback export --format dpo --review approved > pairs.jsonl"};
