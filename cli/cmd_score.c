/* hone score: log-probabilities of what stands in a file. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/runtime.h"
#include "core/base/buf.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 64 << 20, MAX_OUT = 1 << 30, MAX_TOP = 1000 };

typedef struct options {
    runtime_args rt;
    const char *top;
} options;

static const args_row rows[] = {
    RUNTIME_ARGS(options, rt),
    {"top", offsetof(options, top), ARGS_TEXT},
    {NULL, 0, ARGS_TEXT},
};

/* One line of the result as it grows. */
typedef struct line {
    const int32_t *ids;
    int64_t n;
    int top;
    int32_t *order; /* [vocab] scratch */
    buf logprobs, tops;
} line;

static int put_logprob(buf *out, int64_t at, float logprob, hone_err *e)
{
    if (!isfinite(logprob))
        return hone_fail(e, HONE_ENUMERIC, "token %lld: log-probability is not a finite number",
                         (long long)at);
    buf_printf(out, "%.7g", (double)logprob);
    return 0;
}

/* The k most likely ids of a row in front of order, ties by the lower id. */
static void select_top(int32_t *order, const float *row, int64_t vocab, int k)
{
    int n = 0;
    for (int32_t id = 0; id < vocab; id++) {
        int at = n < k ? n++ : k;
        while (at > 0 && row[id] > row[order[at - 1]])
            at--;
        if (at == k)
            continue;
        memmove(order + at + 1, order + at, (size_t)(n - 1 - at) * sizeof *order);
        order[at] = id;
    }
}

/* Row r of the model is the distribution of token r + 1. */
static int take_row(void *user, int64_t r, const float *row, int64_t vocab, hone_err *e)
{
    line *l = user;
    if (r + 1 >= l->n)
        return 0;
    buf_str(&l->logprobs, ",");
    int rc = put_logprob(&l->logprobs, r + 1, row[l->ids[r + 1]], e);
    int k = l->top < vocab ? l->top : (int)vocab;
    select_top(l->order, row, vocab, k);
    buf_str(&l->tops, ",[");
    for (int i = 0; i < k && rc == 0; i++) {
        buf_printf(&l->tops, "%s[%d,", i ? "," : "", l->order[i]);
        rc = put_logprob(&l->tops, r + 1, row[l->order[i]], e);
        buf_char(&l->tops, ']');
    }
    buf_char(&l->tops, ']');
    return rc;
}

static int score(const runtime *rt, line *l, const model_batch *b, hone_err *e)
{
    if (l->top > 0)
        return model_logprobs(rt->model, b, take_row, l, e);
    float *logp = mem_array((size_t)b->n, sizeof *logp);
    int rc = model_score(rt->model, b, logp, e);
    for (int64_t i = 1; i < b->n && rc == 0; i++) {
        buf_char(&l->logprobs, ',');
        rc = put_logprob(&l->logprobs, i, logp[i - 1], e);
    }
    free(logp);
    return rc;
}

static void print_line(const line *l)
{
    fputs("{\"ids\":[", stdout);
    for (int64_t i = 0; i < l->n; i++)
        printf("%s%d", i ? "," : "", l->ids[i]);
    printf("],\"logprobs\":[null%s]", l->logprobs.data);
    if (l->top > 0)
        printf(",\"top\":[[]%s]", l->tops.data);
    puts("}");
}

static int score_ids(const runtime *rt, const int32_t *ids, size_t n, int top, hone_err *e)
{
    if (n == 0)
        return hone_fail(e, HONE_EINVAL, "no tokens");
    line l = {.ids = ids, .n = (int64_t)n, .top = top};
    int32_t *pos = mem_array(n, sizeof *pos), *target = mem_array(n, sizeof *target);
    l.order = mem_array((size_t)top + 1, sizeof *l.order);
    for (size_t i = 0; i < n; i++) {
        pos[i] = (int32_t)i;
        target[i] = i + 1 < n ? ids[i + 1] : -1;
    }
    const int32_t cu[] = {0, (int32_t)n};
    const model_batch b = {
        .n = l.n, .ids = ids, .pos = pos, .target = target, .cu = cu, .n_seg = 1};
    buf_init(&l.logprobs, MAX_OUT);
    buf_init(&l.tops, MAX_OUT);
    int rc = score(rt, &l, &b, e);
    if (rc == 0)
        rc = buf_check(&l.tops, "output", e);
    if (rc == 0)
        print_line(&l);
    buf_free(&l.logprobs);
    buf_free(&l.tops);
    free(l.order);
    free(pos);
    free(target);
    return rc;
}

static int take_ids(const json_t *list, tok_ids *out, hone_err *e)
{
    size_t n = json_array_size(list);
    out->id = mem_array(n, sizeof *out->id);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return hone_fail(e, HONE_EFORMAT, "field 'ids': element %zu is not an id", i);
        out->id[out->n++] = (int32_t)json_integer_value(v);
    }
    return 0;
}

static int take_record(const runtime *rt, const json_t *o, tok_ids *out, hone_err *e)
{
    static const char *const keys[] = {"text", "ids", "messages", NULL};
    const json_t *text = json_object_get(o, "text"), *ids = json_object_get(o, "ids");
    const json_t *messages = json_object_get(o, "messages");
    if (!json_is_object(o))
        return hone_fail(e, HONE_EFORMAT, "is not an object");
    int rc = js_only_keys(o, keys, e);
    if (rc != 0)
        return rc;
    if ((text != NULL) + (ids != NULL) + (messages != NULL) != 1)
        return hone_fail(e, HONE_EFORMAT, "needs one of 'text', 'ids' and 'messages'");
    if (json_is_string(text))
        return runtime_encode(rt, json_string_value(text), json_string_length(text), out, e);
    if (json_is_array(ids))
        return take_ids(ids, out, e);
    if (json_is_array(messages))
        return runtime_render(rt, messages, false, out, e);
    return hone_fail(e, HONE_EFORMAT, "field '%s' has another type",
                     text != NULL  ? "text"
                     : ids != NULL ? "ids"
                                   : "messages");
}

static int score_line(const runtime *rt, const char *text, size_t len, int top, hone_err *e)
{
    json_t *o;
    tok_ids ids = {0};
    int rc = js_parse(&o, text, len, e);
    if (rc == 0)
        rc = take_record(rt, o, &ids, e);
    if (rc == 0)
        rc = score_ids(rt, ids.id, ids.n, top, e);
    tok_ids_free(&ids);
    json_decref(o);
    return rc;
}

static int score_file(const runtime *rt, FILE *in, const char *name, int top, hone_err *e)
{
    char *text = NULL;
    size_t cap = 0;
    ssize_t len;
    int rc = 0;
    for (long long n = 1; rc == 0 && (len = getline(&text, &cap, in)) >= 0; n++) {
        while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
            len--;
        if (len == 0)
            continue;
        rc = len > MAX_LINE ? hone_fail(e, HONE_ELIMIT, "%zd bytes, at most %d", len, MAX_LINE)
                            : score_line(rt, text, (size_t)len, top, e);
        if (rc != 0)
            hone_fail_at(e, "%s:%lld", name, n);
        fflush(stdout);
    }
    if (rc == 0 && ferror(in))
        rc = hone_fail(e, HONE_EIO, "%s: cannot read: %s", name, strerror(errno));
    free(text);
    return rc;
}

static int run(int argc, char **argv)
{
    hone_err e = {0};
    options o = {0};
    runtime rt;
    const char *file = NULL;
    int n_rest, top = 0;
    if (args_parse(rows, &o, argc, argv, &file, 1, &n_rest, &e) != 0)
        return cmd_usage(&cmd_score, "%s", e.msg);
    if (o.top != NULL) {
        char *end;
        long v = strtol(o.top, &end, 10);
        if (*o.top == '\0' || *end != '\0' || v < 1 || v > MAX_TOP)
            return cmd_usage(&cmd_score, "--top: '%.40s' is not a number from 1 to %d", o.top,
                             MAX_TOP);
        top = (int)v;
    }
    if (o.rt.model == NULL)
        return cmd_usage(&cmd_score, "--model DIR is missing");
    bool standard = file == NULL || strcmp(file, "-") == 0;
    FILE *in = standard ? stdin : fopen(file, "r");
    if (in == NULL) {
        hone_fail(&e, HONE_EIO, "%s: cannot open: %s", file, strerror(errno));
        return cmd_failed(&e);
    }
    int rc = runtime_open(&rt, &o.rt, &e);
    if (rc == 0)
        rc = score_file(&rt, in, standard ? "standard input" : file, top, &e);
    runtime_close(&rt);
    if (!standard)
        fclose(in);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_score = {
    "score", run, "print the log-probability of every token of a text",
    "usage: hone score --model DIR [--adapter DIR] [--top K] [FILE]\n\n"
    "Reads a JSON object a line from FILE (standard input without it): {\"text\": ...},\n"
    "{\"ids\": [...]} or {\"messages\": [...]}. Prints a line each:\n"
    "  {\"ids\": [...], \"logprobs\": [null, -1.2, ...], \"top\": [[], [[id, logprob], ...], "
    "...]}\n"
    "with natural logarithms; the first token has none. Text gets the special tokens that the\n"
    "model's tokenizer adds; messages go through its chat template; ids are taken as they are.\n\n"
    "  --top K             the K most likely tokens in each place too\n" RUNTIME_HELP "\n"
    "example: echo '{\"text\": \"Once upon a time\"}' | hone score --model DIR --top 3"};
