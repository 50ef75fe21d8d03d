/* Probes of bias (bias.probe): subscribers say which texts the model is to score and which prompts
 * it is to answer, the model does, and subscribers make scores of it.
 *
 * phase "items": {"phase", "items": [], "scores": {}}; an item that is appended is
 *   {"probe", "group", "texts": [{"context" (""), "text"}, or {"messages"}, of which the last is
 * the assistant's and is scored], "prompts": [text or messages], "tokens": true} phase "score": the
 * same items, where each text has "ll" (natural log-probability of the text after its context),
 * "n_tokens", "n_bytes", with "tokens" also "ids" and "logprobs"; and an item with prompts has
 * "answers". What a score may be stands in probe_score.c.
 *
 * Context and text are split as lm-evaluation-harness does it: spaces that end the context go to
 * the text, the border is where the tokens of the context alone end, and without context the text
 * stands after bos, or eos where there is none. */
#include "core/base/mem.h"
#include "core/eval/eval_int.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ITEMS = 200000, MAX_PROMPT_BYTES = 16 << 20 };

bool probe_wanted(const eval_options *o)
{
    return hook_wanted(o->hooks, HOOK_BIAS_PROBE);
}

/* ---- texts and prompts ---- */

static int after_nothing(example *x, const tok_ids *ids, const eval_options *o, hone_err *e)
{
    int32_t first = tok_bos(o->t) >= 0 ? tok_bos(o->t) : tok_eos(o->t);
    if (first < 0)
        return hone_fail(e, HONE_EUNSUPPORTED,
                         "a text without context needs a bos or eos token, and this tokenizer has "
                         "neither");
    bool there = ids->n > 0 && ids->id[0] == first;
    x->n_ids = ids->n + (there ? 0 : 1);
    x->ids = mem_array(x->n_ids, sizeof *x->ids);
    x->mask = mem_array(x->n_ids, 1);
    x->ids[0] = first;
    memcpy(x->ids + (there ? 0 : 1), ids->id, ids->n * sizeof *x->ids);
    memset(x->mask, 1, x->n_ids);
    x->mask[0] = 0;
    return 0;
}

static int after_context(example *x, const char *context, size_t border, const tok_ids *ids,
                         const eval_options *o, hone_err *e)
{
    tok_ids alone = {0};
    int rc = tok_encode(o->t, context, border, TOK_ADD_SPECIAL, &alone, e);
    x->n_ids = ids->n;
    x->ids = mem_array(ids->n, sizeof *x->ids);
    x->mask = mem_array(ids->n, 1);
    memcpy(x->ids, ids->id, ids->n * sizeof *x->ids);
    for (size_t i = alone.n; i < ids->n; i++)
        x->mask[i] = 1;
    tok_ids_free(&alone);
    return rc;
}

static int after_messages(example *x, const json_t *messages, const eval_options *o, hone_err *e)
{
    chat_tokens ct = {0};
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (o->c == NULL)
        return hone_fail(e, HONE_EINVAL, "messages need a chat template, and this model has none");
    if (role == NULL || strcmp(role, "assistant") != 0)
        return hone_fail(e, HONE_EFORMAT, "the last message to score must be the assistant's");
    int rc = chat_encode(o->c, o->t, messages, &(chat_options){0}, CHAT_TRAIN_LAST, &ct, e);
    if (rc != 0)
        return rc;
    x->n_ids = ct.n;
    x->ids = ct.id;
    x->mask = ct.mask;
    free(ct.turn);
    return 0;
}

static int encode_text(example *x, const json_t *t, const eval_options *o, hone_err *e)
{
    const char *text = json_string_value(json_object_get(t, "text"));
    const char *context = json_string_value(json_object_get(t, "context"));
    if (json_object_get(t, "messages") != NULL)
        return after_messages(x, json_object_get(t, "messages"), o, e);
    if (text == NULL)
        return hone_fail(e, HONE_EFORMAT, "a text has no \"text\"");
    size_t border = context != NULL ? strlen(context) : 0;
    while (border > 0 && context[border - 1] == ' ')
        border--;
    char *all = mem_printf("%s%s", context != NULL ? context : "", text);
    tok_ids ids = {0};
    int rc = tok_encode(o->t, all, strlen(all), border > 0 ? TOK_ADD_SPECIAL : 0, &ids, e);
    if (rc == 0)
        rc = border > 0 ? after_context(x, context, border, &ids, o, e)
                        : after_nothing(x, &ids, o, e);
    tok_ids_free(&ids);
    free(all);
    if (rc == 0 && x->n_ids < 2)
        rc = hone_fail(e, HONE_EFORMAT, "a text of no token");
    return rc;
}

/* A text as it is, or a conversation to be answered. */
static int encode_prompt(example *x, const json_t *p, const eval_options *o, hone_err *e)
{
    const chat_options answer = {.add_generation_prompt = true};
    const char *text = json_string_value(p);
    tok_ids ids = {0};
    buf rendered;
    int rc = 0;
    buf_init(&rendered, MAX_PROMPT_BYTES);
    if (text == NULL && o->c == NULL)
        rc = hone_fail(e, HONE_EINVAL, "messages need a chat template, and this model has none");
    else if (text == NULL)
        rc = chat_render(o->c, p, &answer, &rendered, e);
    else
        buf_str(&rendered, text);
    if (rc == 0)
        rc = buf_check(&rendered, "prompt", e);
    if (rc == 0)
        rc = tok_encode(o->t, rendered.data, rendered.len, text != NULL ? TOK_ADD_SPECIAL : 0, &ids,
                        e);
    x->prompt = mem_array(ids.n, sizeof *x->prompt);
    if (ids.n > 0)
        memcpy(x->prompt, ids.id, ids.n * sizeof *x->prompt);
    x->n_prompt = ids.n;
    tok_ids_free(&ids);
    buf_free(&rendered);
    return rc;
}

static example *add_example(example_set *s, int64_t item)
{
    s->items = mem_grow(s->items, &s->cap, s->n + 1, sizeof *s->items);
    s->items[s->n] = (example){.line = item};
    return &s->items[s->n++];
}

static int add_item(example_set *texts, example_set *prompts, const json_t *item, int64_t number,
                    const eval_options *o, hone_err *e)
{
    size_t i;
    const json_t *v;
    int rc = json_is_object(item) ? 0 : hone_fail(e, HONE_EFORMAT, "it is no object");
    bool each = json_is_true(json_object_get(item, "tokens"));
    json_array_foreach (json_object_get(item, "texts"), i, v) {
        example *x = rc == 0 ? add_example(texts, number) : NULL;
        rc = rc == 0 ? encode_text(x, v, o, e) : rc;
        if (rc == 0)
            rc = example_finish(x, o, e);
        if (rc == 0 && each)
            x->each = mem_array(x->n_ids, sizeof *x->each);
    }
    json_array_foreach (json_object_get(item, "prompts"), i, v)
        rc = rc == 0 ? encode_prompt(add_example(prompts, number), v, o, e) : rc;
    return rc == 0 ? 0 : hone_fail_at(e, "bias.probe: item %lld", (long long)number);
}

/* ---- what the model said ---- */

static json_t *ids_of(const example *x)
{
    json_t *list = json_array();
    for (size_t i = 0; i < x->n_ids; i++)
        if (x->mask[i])
            json_array_append_new(list, json_integer(x->ids[i]));
    return list;
}

static json_t *logprobs_of(const example *x)
{
    json_t *list = json_array();
    for (size_t i = 0; i < x->n_ids; i++)
        if (x->mask[i])
            json_array_append_new(list, json_real((double)x->each[i]));
    return list;
}

static void tell_text(json_t *t, const example *x)
{
    json_object_set_new(t, "ll", json_real(-x->nll));
    json_object_set_new(t, "n_tokens", json_integer((json_int_t)x->n_scored));
    json_object_set_new(t, "n_bytes", json_integer((json_int_t)x->n_bytes));
    if (x->each == NULL)
        return;
    json_object_set_new(t, "ids", ids_of(x));
    json_object_set_new(t, "logprobs", logprobs_of(x));
}

/* Texts and prompts stand in the sets in the order of the items. */
static int tell(json_t *items, const example_set *texts, const example_set *prompts, hone_err *e)
{
    size_t i, k, t = 0, p = 0;
    json_t *item, *v;
    json_array_foreach (items, i, item) {
        json_array_foreach (json_object_get(item, "texts"), k, v)
            tell_text(v, &texts->items[t++]);
        json_t *asked = json_object_get(item, "prompts");
        json_t *answers = json_array();
        for (k = 0; k < json_array_size(asked); k++) {
            json_t *a = json_string(prompts->items[p++].answer.text);
            if (a == NULL) {
                json_decref(answers);
                return hone_fail(e, HONE_EFORMAT, "bias.probe: item %zu: the answer is not UTF-8",
                                 i);
            }
            json_array_append_new(answers, a);
        }
        json_object_set_new(item, "answers", answers);
    }
    return 0;
}

static int run_items(json_t *items, const eval_options *o, hone_err *e)
{
    example_set texts = {0}, prompts = {0};
    size_t i;
    const json_t *item;
    int rc = 0;
    if (json_array_size(items) > MAX_ITEMS)
        rc = hone_fail(e, HONE_ELIMIT, "bias.probe: %zu items, at most %d", json_array_size(items),
                       MAX_ITEMS);
    json_array_foreach (items, i, item)
        rc = rc == 0 ? add_item(&texts, &prompts, item, (int64_t)i, o, e) : rc;
    if (rc == 0)
        rc = run_scoring(&texts, o, e);
    if (rc == 0)
        rc = run_answers(&prompts, o, e);
    if (rc == 0)
        rc = tell(items, &texts, &prompts, e);
    examples_free(&texts);
    examples_free(&prompts);
    return rc;
}

/* ---- both phases ---- */

int probe_run(json_t *report, const eval_options *o, hone_err *e)
{
    json_t *data = json_pack("{s:s, s:[], s:{}}", "phase", "items", "items", "scores");
    int rc = hook_emit(o->hooks, HOOK_BIAS_PROBE, &data, e);
    json_t *items = json_object_get(data, "items");
    if (rc == 0 && !json_is_array(items))
        rc = hone_fail(e, HONE_EFORMAT, "bias.probe: items are no list any more");
    if (rc == 0)
        rc = run_items(items, o, e);
    if (rc == 0) {
        json_object_set_new(data, "phase", json_string("score"));
        rc = hook_emit(o->hooks, HOOK_BIAS_PROBE, &data, e);
    }
    if (rc == 0)
        rc = probe_scores(report, json_object_get(data, "scores"), e);
    json_decref(data);
    return rc;
}
