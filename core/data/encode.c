#include "core/data/encode.h"

#include "core/base/mem.h"
#include "core/data/template.h"

#include <stdlib.h>
#include <string.h>

void encoded_free(encoded *x)
{
    free(x->id);
    free(x->mask);
    *x = (encoded){0};
}

static int encode_chat(encoded *x, const json_t *record, const data_options *o, const prep *at,
                       hone_err *e)
{
    chat_tokens t = {0};
    bool asked = hook_wanted(at->hooks, HOOK_DATA_TEMPLATE);
    /* What the template writes before a tool call is the model's to write when it serves. */
    chat_options how = {
        .train_lead = true, .keep_text = asked, .tools = json_object_get(record, "tools")};
    int rc =
        chat_encode(o->chat, o->tok, json_object_get(record, "messages"), &how, o->turns, &t, e);
    if (rc == 0 && asked)
        rc = template_ask(&t, record, o->tok, at, e);
    if (rc == 0) {
        *x = (encoded){ENCODED_CHAT, t.id, t.mask, t.n, t.n > 0 && t.id[0] == tok_bos(o->tok)};
        t.id = NULL;
        t.mask = NULL;
    }
    chat_tokens_free(&t);
    return rc;
}

/* Takes the ids, adds eos, and supervises what ends after byte `from` of the text. */
static void take(encoded *x, tok_ids *t, encoded_kind kind, size_t from, const tok *tk)
{
    int32_t eos = tok_eos(tk);
    bool add = eos >= 0 && (t->n == 0 || t->id[t->n - 1] != eos);
    x->kind = kind;
    x->n = t->n + add;
    x->id = mem_array(x->n, sizeof *x->id);
    x->mask = mem_array(x->n, sizeof *x->mask);
    if (t->n > 0)
        memcpy(x->id, t->id, t->n * sizeof *x->id);
    for (size_t i = 0; i < t->n; i++) /* what the tokenizer inserts has an empty range */
        x->mask[i] = kind == ENCODED_TEXT || t->end[i] > from || (i > 0 && x->mask[i - 1] != 0);
    if (add) {
        x->id[x->n - 1] = eos;
        x->mask[x->n - 1] = 1;
    }
    x->bos = tok_adds_bos(tk) && x->n > 0 && x->id[0] == tok_bos(tk);
}

static int encode_text(encoded *x, const char *text, size_t len, size_t from, encoded_kind kind,
                       const tok *tk, hone_err *e)
{
    tok_ids t = {0};
    int rc = tok_encode(tk, text, len, TOK_ADD_SPECIAL, &t, e);
    if (rc == 0)
        take(x, &t, kind, from, tk);
    tok_ids_free(&t);
    return rc;
}

/* One text, one tokenisation: a token that spans the border belongs to the completion. */
static int encode_pair(encoded *x, const json_t *prompt, const json_t *completion, const tok *tk,
                       hone_err *e)
{
    size_t n = json_string_length(prompt), m = json_string_length(completion);
    char *text = mem_try(n + m + 1);
    if (text == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for a text of %zu bytes", n + m);
    memcpy(text, json_string_value(prompt), n);
    memcpy(text + n, json_string_value(completion), m);
    int rc = encode_text(x, text, n + m, n, ENCODED_PAIR, tk, e);
    free(text);
    return rc;
}

int encode_record(encoded *out, const json_t *record, const data_options *o, const prep *at,
                  hone_err *e)
{
    const json_t *text = json_object_get(record, "text");
    int rc;
    *out = (encoded){0};
    if (json_object_get(record, "messages") != NULL)
        rc = encode_chat(out, record, o, at, e);
    else if (text != NULL)
        rc = encode_text(out, json_string_value(text), json_string_length(text), 0, ENCODED_TEXT,
                         o->tok, e);
    else
        rc = encode_pair(out, json_object_get(record, "prompt"),
                         json_object_get(record, "completion"), o->tok, e);
    int32_t bos = tok_bos(o->tok);
    if (rc == 0 && out->n == 0)
        rc = hone_fail(e, HONE_EFORMAT, "there is no token in it");
    if (rc == 0 && bos >= 0 && out->n > 1 && out->id[0] == bos && out->id[1] == bos)
        rc = hone_fail(e, HONE_EFORMAT,
                       "begins with two beginning-of-text tokens: the text has one of its own");
    if (rc != 0)
        encoded_free(out);
    return rc;
}

void encoded_all(encoded *x)
{
    memset(x->mask, 1, x->n);
}

/* Conversations end after an answer: the last place where a supervised run ends inside the limit.
 */
static int truncate_chat(encoded *x, size_t max, hone_err *e)
{
    size_t n = max;
    while (n > 0 && !(x->mask[n - 1] != 0 && x->mask[n] == 0))
        n--;
    if (n == 0)
        return hone_fail(e, HONE_EFORMAT, "%zu tokens, and no answer fits whole into %zu", x->n,
                         max);
    x->n = n;
    return 0;
}

/* The prompt loses its front; what the tokenizer put first stays first. */
static int truncate_pair(encoded *x, size_t max, hone_err *e)
{
    size_t head = x->bos, answer = 0;
    while (answer < x->n && x->mask[x->n - 1 - answer] != 0)
        answer++;
    if (head + answer + 1 > max)
        return hone_fail(e, HONE_EFORMAT,
                         "%zu tokens, and its completion of %zu does not fit "
                         "whole into %zu",
                         x->n, answer, max);
    size_t tail = max - head;
    memmove(x->id + head, x->id + x->n - tail, tail * sizeof *x->id);
    memmove(x->mask + head, x->mask + x->n - tail, tail);
    x->n = max;
    return 0;
}

int encode_truncate(encoded *x, size_t max, hone_err *e)
{
    if (x->n <= max)
        return 0;
    if (x->kind == ENCODED_CHAT)
        return truncate_chat(x, max, e);
    if (x->kind == ENCODED_PAIR)
        return truncate_pair(x, max, e);
    x->n = max; /* the text goes on, so no eos belongs here */
    return 0;
}
