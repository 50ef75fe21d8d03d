#include "core/data/template.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* The spans of bytes that are learnt: neighbours joined. */
static json_t *spans_of(const chat_tokens *t)
{
    json_t *list = json_array(), *last = NULL;
    for (size_t i = 0; i < t->n; i++) {
        if (t->mask[i] == 0)
            continue;
        if (last != NULL && json_integer_value(json_array_get(last, 1)) == t->start[i] && i > 0 &&
            t->mask[i - 1] != 0) {
            json_array_set_new(last, 1, json_integer(t->end[i]));
            continue;
        }
        last = json_pack("[i, i]", (int)t->start[i], (int)t->end[i]);
        json_array_append_new(list, last);
    }
    return list;
}

static int read_span(const json_t *v, size_t len, size_t *start, size_t *end, hone_err *e)
{
    const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
    json_int_t from = json_integer_value(a), to = json_integer_value(b);
    if (!json_is_integer(a) || !json_is_integer(b) || from < 0 || to < from || to > (json_int_t)len)
        return hone_fail(e, HONE_EINTERNAL,
                         "data.template: a span of learn is no [first byte, end] of a text of %zu "
                         "bytes",
                         len);
    *start = (size_t)from;
    *end = (size_t)to;
    return 0;
}

static int mask_spans(chat_tokens *t, const json_t *spans, size_t len, hone_err *e)
{
    int rc = json_is_array(spans)
                 ? 0
                 : hone_fail(e, HONE_EINTERNAL, "data.template: learn is not a list of spans");
    for (size_t k = 0; rc == 0 && k < json_array_size(spans); k++) {
        size_t start = 0, end = 0;
        rc = read_span(json_array_get(spans, k), len, &start, &end, e);
        for (size_t i = 0; rc == 0 && i < t->n; i++)
            t->mask[i] |= t->start[i] < end && t->end[i] > start;
    }
    return rc;
}

/* The tokens of another text. */
static int encode_again(chat_tokens *t, const json_t *text, const json_t *spans, const tok *tk,
                        hone_err *e)
{
    tok_ids ids = {0};
    size_t len = json_string_length(text);
    if (!json_is_string(text))
        return hone_fail(e, HONE_EINTERNAL, "data.template: it was left without a text");
    int rc = tok_encode(tk, json_string_value(text), len, 0, &ids, e);
    if (rc != 0)
        return rc;
    chat_tokens_free(t);
    t->n = ids.n;
    t->id = ids.id;
    t->start = ids.start;
    t->end = ids.end;
    t->mask = mem_array(ids.n, 1);
    return mask_spans(t, spans, len, e);
}

int template_ask(chat_tokens *t, const json_t *record, const tok *tk, const prep *p, hone_err *e)
{
    json_t *spans = spans_of(t);
    json_t *data = json_pack("{s:O, s:O?, s:s%, s:O, s:s, s:I}", "messages",
                             json_object_get(record, "messages"), "tools",
                             json_object_get(record, "tools"), "text", t->text, t->text_len,
                             "learn", spans, "source", p->source, "line", (json_int_t)p->line);
    json_t *before = json_incref(json_object_get(data, "text"));
    int rc = hook_emit(p->hooks, HOOK_DATA_TEMPLATE, &data, e);
    json_t *text = json_object_get(data, "text"), *learn = json_object_get(data, "learn");
    if (rc != 0 && rc != HONE_EVETO)
        rc = hone_fail(e, HONE_EINTERNAL, "%s", e->msg);
    else if (rc == 0 && !(json_equal(text, before) && json_equal(learn, spans)))
        rc = encode_again(t, text, learn, tk, e);
    json_decref(before);
    json_decref(spans);
    json_decref(data);
    return rc;
}
