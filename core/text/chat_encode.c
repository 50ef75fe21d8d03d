/* From a rendering and its spans to tokens with their mask. The text is encoded once and as a
 * whole; which token is whose follows from byte ranges alone. */
#include "core/base/mem.h"
#include "core/text/chat_int.h"
#include "core/text/tok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 8 << 20 };

typedef struct encoding {
    const chat *c;
    const tok *t;
    const json_t *messages;
    const chat_options *o;
    size_t n_messages;
    bool *wanted; /* by message: it is supervised */
    buf text;
    jinja_spans spans;
    tok_ids ids;
    chat_tokens *out;
    bool generation; /* the spans that count are those of generation blocks */
    hone_err *e;
} encoding;

static bool is_assistant(const encoding *x, size_t i)
{
    const json_t *m = json_array_get(x->messages, i);
    const char *role = json_string_value(json_object_get(m, "role"));
    return role != NULL && strcmp(role, "assistant") == 0;
}

/* Which messages are supervised. */
static int choose(encoding *x, chat_turns turns)
{
    size_t last = SIZE_MAX;
    for (size_t i = 0; i < x->n_messages; i++)
        if (is_assistant(x, i))
            last = i;
    for (size_t i = 0; i < x->n_messages; i++) {
        const json_t *train = json_object_get(json_array_get(x->messages, i), "train");
        x->wanted[i] = is_assistant(x, i) && (turns == CHAT_TRAIN_ALL || i == last);
        if (train == NULL || json_is_null(train))
            continue;
        if (!json_is_boolean(train))
            return hone_fail(x->e, HONE_EFORMAT, "message %zu: train is neither true nor false", i);
        if (json_is_true(train) && !is_assistant(x, i))
            return hone_fail(x->e, HONE_EFORMAT,
                             "message %zu: train is true, but it is not an assistant message", i);
        x->wanted[i] = json_is_true(train);
    }
    return 0;
}

/* Generation blocks that show nothing of a message are the assistant's turns in their order, when
 * there are as many blocks as such messages. */
static void name_blocks(encoding *x)
{
    size_t blocks = 0, turns = 0, at = 0;
    for (size_t i = 0; i < x->spans.n; i++)
        blocks += x->spans.v[i].generation;
    for (size_t i = 0; i < x->n_messages; i++)
        turns += is_assistant(x, i);
    x->generation = blocks > 0;
    if (blocks != turns)
        return;
    for (size_t i = 0; i < x->spans.n; i++) {
        if (!x->spans.v[i].generation)
            continue;
        while (!is_assistant(x, at))
            at++;
        if (x->spans.v[i].origin < 0)
            x->spans.v[i].origin = (int)at;
        at++;
    }
}

static int encode(encoding *x)
{
    chat_tokens *out = x->out;
    int rc = tok_encode(x->t, x->text.data, x->text.len, 0, &x->ids, x->e);
    if (rc != 0)
        return rc;
    int32_t bos = tok_bos(x->t);
    if (bos >= 0 && x->ids.n > 1 && x->ids.id[0] == bos && x->ids.id[1] == bos)
        return hone_fail(x->e, HONE_EFORMAT,
                         "the text begins with two BOS tokens: the template writes one, and the "
                         "first message another");
    out->n = x->ids.n;
    out->id = mem_try_array(out->n, sizeof *out->id);
    out->mask = mem_try_array(out->n, sizeof *out->mask);
    out->turn = mem_try_array(out->n, sizeof *out->turn);
    if (out->id == NULL || out->mask == NULL || out->turn == NULL)
        return hone_fail(x->e, HONE_ENOMEM, "%zu tokens", out->n);
    memcpy(out->id, x->ids.id, out->n * sizeof *out->id);
    for (size_t i = 0; i < out->n; i++)
        out->turn[i] = -1;
    return 0;
}

/* First token that ends after byte `at`. */
static size_t token_after(const encoding *x, size_t at)
{
    size_t lo = 0, hi = x->ids.n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (x->ids.end[mid] > at)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* The tokens that overlap [start, end) belong to message m; `train`: and are supervised. */
static void mark(encoding *x, size_t start, size_t end, int m, bool train)
{
    for (size_t i = token_after(x, start); i < x->ids.n && x->ids.start[i] < end; i++) {
        if (x->out->turn[i] < 0 || train)
            x->out->turn[i] = m;
        x->out->mask[i] |= train;
    }
}

static bool is_stop(const tok *t, int32_t id)
{
    const int32_t *stop;
    size_t n = tok_stop_ids(t, &stop);
    for (size_t i = 0; i < n; i++)
        if (stop[i] == id)
            return true;
    return false;
}

static int no_stop(const encoding *x, int m, size_t at)
{
    char what[64] = "the text ends";
    if (at >= x->ids.n && (size_t)m + 1 == x->n_messages)
        return hone_fail(x->e, HONE_EFORMAT,
                         "message %d: the template puts no stop token after the last message; "
                         "write eos_token there",
                         m);
    if (at < x->ids.n && tok_is_special(x->t, x->ids.id[at]))
        snprintf(what, sizeof what, "'%.40s' follows", tok_piece(x->t, x->ids.id[at], NULL));
    else if (at < x->ids.n)
        snprintf(what, sizeof what, "message %d follows", x->out->turn[at]);
    return hone_fail(x->e, HONE_EFORMAT,
                     "message %d: the template ends the assistant turn without a stop token (%s); "
                     "write eos_token there",
                     m, what);
}

/* The turn of message m goes on from byte `said` to its stop token. */
static int finish(encoding *x, size_t said, int m)
{
    size_t i = token_after(x, said);
    while (i < x->ids.n && x->ids.start[i] < said)
        i++;
    for (; i < x->ids.n; i++) {
        bool stop = is_stop(x->t, x->ids.id[i]);
        bool other = x->out->turn[i] >= 0 && x->out->turn[i] != m;
        if (!stop && (other || tok_is_special(x->t, x->ids.id[i])))
            break;
        x->out->mask[i] = 1;
        x->out->turn[i] = m;
        if (stop)
            return 0;
    }
    return no_stop(x, m, i);
}

/* Where the prompt for message m would end, if the rendering goes on from there; else `start`. */
static size_t lead(const encoding *x, int m, size_t start)
{
    buf prompt;
    hone_err ignored = {0};
    chat_options o = *x->o;
    o.add_generation_prompt = true;
    buf_init(&prompt, MAX_TEXT);
    int rc = chat_text(x->c, x->messages, (size_t)m, &o, &prompt, NULL, &ignored);
    bool begins =
        rc == 0 && prompt.len <= start && memcmp(prompt.data, x->text.data, prompt.len) == 0;
    size_t at = begins ? prompt.len : start;
    buf_free(&prompt);
    return at;
}

static int supervise(encoding *x, int m)
{
    const jinja_span *last = NULL;
    for (size_t i = 0; i < x->spans.n; i++) {
        const jinja_span *s = &x->spans.v[i];
        if (s->generation != x->generation || s->origin != m)
            continue;
        size_t start = last == NULL && !s->generation && x->o != NULL && x->o->train_lead
                           ? lead(x, m, s->start)
                           : s->start;
        mark(x, start, s->end, m, true);
        last = s;
    }
    if (last == NULL)
        return hone_fail(x->e, HONE_EFORMAT,
                         "message %d: the template shows nothing of this assistant message; give "
                         "it content, or \"train\": false",
                         m);
    return finish(x, last->said, m);
}

static int supervise_all(encoding *x)
{
    size_t n = 0;
    for (size_t i = 0; i < x->spans.n; i++)
        if (!x->spans.v[i].generation)
            mark(x, x->spans.v[i].start, x->spans.v[i].end, x->spans.v[i].origin, false);
    for (size_t m = 0; m < x->n_messages; m++) {
        int rc = x->wanted[m] ? supervise(x, (int)m) : 0;
        if (rc != 0)
            return rc;
    }
    for (size_t i = 0; i < x->out->n; i++)
        n += x->out->mask[i];
    return n > 0 ? 0
                 : hone_fail(x->e, HONE_ENOTFOUND, "no token is supervised (%zu messages)",
                             x->n_messages);
}

static void keep_text(encoding *x)
{
    chat_tokens *out = x->out;
    out->start = mem_array(out->n, sizeof *out->start);
    out->end = mem_array(out->n, sizeof *out->end);
    for (size_t i = 0; i < out->n; i++) {
        out->start[i] = (uint32_t)x->ids.start[i];
        out->end[i] = (uint32_t)x->ids.end[i];
    }
    out->text = buf_take(&x->text, &out->text_len);
}

int chat_encode(const chat *c, const tok *t, const json_t *messages, const chat_options *o,
                chat_turns turns, chat_tokens *out, hone_err *e)
{
    encoding x = {.c = c, .t = t, .messages = messages, .o = o, .out = out, .e = e};
    *out = (chat_tokens){0};
    buf_init(&x.text, MAX_TEXT);
    x.n_messages = json_array_size(messages);
    x.wanted = mem_array(x.n_messages, sizeof *x.wanted);
    int rc = chat_text(c, messages, x.n_messages, o, &x.text, &x.spans, e);
    if (rc == 0)
        rc = choose(&x, turns);
    if (rc == 0)
        rc = encode(&x);
    if (rc == 0) {
        name_blocks(&x);
        rc = supervise_all(&x);
    }
    if (rc == 0 && o != NULL && o->keep_text)
        keep_text(&x);
    if (rc != 0)
        chat_tokens_free(out);
    jinja_spans_free(&x.spans);
    tok_ids_free(&x.ids);
    buf_free(&x.text);
    free(x.wanted);
    return rc;
}

void chat_tokens_free(chat_tokens *t)
{
    free(t->id);
    free(t->mask);
    free(t->turn);
    free(t->text);
    free(t->start);
    free(t->end);
    *t = (chat_tokens){0};
}
