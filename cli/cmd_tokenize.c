/* hone tokenize: texts to ids and back, a line each. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "core/base/js.h"
#include "core/text/tok.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *model;
    bool jsonl, no_special, decode;
} options;

/* clang-format off */
static const args_row rows[] = {
    {"model",      offsetof(options, model),      false},
    {"jsonl",      offsetof(options, jsonl),      true},
    {"no-special", offsetof(options, no_special), true},
    {"decode",     offsetof(options, decode),     true},
    {NULL, 0, false},
};
/* clang-format on */

/* What one line needs; kept from line to line. */
typedef struct work {
    const options *o;
    tok *t;
    tok_ids ids;
    buf text;
} work;

static int encode_text(work *w, const char *text, size_t len, hone_err *e)
{
    w->ids.n = 0;
    int rc = tok_encode(w->t, text, len, w->o->no_special ? 0 : TOK_ADD_SPECIAL, &w->ids, e);
    if (rc != 0)
        return rc;
    putchar('[');
    for (size_t i = 0; i < w->ids.n; i++)
        printf("%s%d", i > 0 ? ", " : "", w->ids.id[i]);
    puts("]");
    return 0;
}

static int encode_json(work *w, const char *line, size_t len, hone_err *e)
{
    json_t *v;
    int rc = js_parse(&v, line, len, e);
    if (rc == 0 && !json_is_string(v))
        rc = hone_fail(e, HONE_EFORMAT, "it is not a JSON string");
    if (rc == 0)
        rc = encode_text(w, json_string_value(v), json_string_length(v), e);
    json_decref(v);
    return rc;
}

static int take_ids(work *w, const json_t *list, hone_err *e)
{
    size_t i;
    json_t *v;
    buf_reset(&w->text);
    w->ids.n = 0;
    if (!json_is_array(list))
        return hone_fail(e, HONE_EFORMAT, "it is not a JSON array of ids");
    tok_stream *s = tok_stream_new(w->t, w->o->no_special);
    int rc = 0;
    json_array_foreach (list, i, v) {
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id > TOK_MAX_ID)
            rc = hone_fail(e, HONE_EFORMAT, "item %zu is not an id", i);
        else
            rc = tok_stream_push(s, (int32_t)id, &w->text, e);
        if (rc != 0)
            break;
    }
    if (rc == 0 && tok_stream_end(s, &w->text) != 0)
        rc = buf_check(&w->text, "text", e);
    tok_stream_free(s);
    return rc;
}

static int decode_line(work *w, const char *line, size_t len, hone_err *e)
{
    json_t *v;
    int rc = js_parse(&v, line, len, e);
    if (rc == 0)
        rc = take_ids(w, v, e);
    json_decref(v);
    if (rc != 0)
        return rc;
    if (!w->o->jsonl && memchr(w->text.data, '\n', w->text.len) != NULL)
        return hone_fail(e, HONE_EINVAL,
                         "the text has line ends of its own; --jsonl keeps it on "
                         "one line");
    if (!w->o->jsonl) {
        fwrite(w->text.data, 1, w->text.len, stdout);
        putchar('\n');
        return 0;
    }
    json_t *text = json_stringn(w->text.data, w->text.len);
    char *out = js_text(text, false);
    json_decref(text);
    if (out == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for a text of %zu bytes", w->text.len);
    puts(out);
    free(out);
    return 0;
}

static int each_line(work *w, hone_err *e)
{
    char *line = NULL;
    size_t cap = 0, n = 0;
    ssize_t len;
    int rc = 0;
    while (rc == 0 && (len = getline(&line, &cap, stdin)) >= 0) {
        size_t k = (size_t)len;
        n++;
        if (k > 0 && line[k - 1] == '\n')
            k--;
        if (w->o->decode)
            rc = decode_line(w, line, k, e);
        else if (w->o->jsonl)
            rc = encode_json(w, line, k, e);
        else
            rc = encode_text(w, line, k, e);
        if (rc != 0)
            hone_fail_at(e, "line %zu", n);
    }
    free(line);
    if (rc == 0 && ferror(stdin))
        rc = hone_fail(e, HONE_EIO, "standard input: %s", strerror(errno));
    if (fflush(stdout) != 0 && rc == 0)
        rc = hone_fail(e, HONE_EIO, "standard output: %s", strerror(errno));
    return rc;
}

static int run(int argc, char **argv)
{
    options o = {0};
    hone_err e = {0};
    int n = 0;
    if (args_parse(rows, &o, argc, argv, NULL, 0, &n, &e) != 0)
        return cmd_usage(&cmd_tokenize, "%s", e.msg);
    if (o.model == NULL)
        return cmd_usage(&cmd_tokenize, "which tokenizer? --model DIR");
    work w = {.o = &o};
    buf_init(&w.text, TOK_MAX_TEXT);
    int rc = tok_open(&w.t, o.model, &e);
    if (rc == 0)
        rc = each_line(&w, &e);
    tok_close(w.t);
    tok_ids_free(&w.ids);
    buf_free(&w.text);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_tokenize = {
    "tokenize", run, "texts to token ids and back",
    "usage: hone tokenize --model DIR [--jsonl] [--no-special] < TEXTS\n"
    "       hone tokenize --model DIR --decode [--jsonl] [--no-special] < IDS\n\n"
    "Reads a text a line and prints a JSON array of ids a line. DIR needs only the files of the\n"
    "tokenizer.\n\n"
    "  --jsonl         texts are JSON strings, so that one may hold line ends\n"
    "  --decode        the other way: ids in, texts out\n"
    "  --no-special    add no special tokens to a text; with --decode, leave them out of it\n\n"
    "example: echo 'Hello, world' | hone tokenize --model models/smollm2"};
