/* Examples from a file: what is scored and what is asked of the model. */
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/data/formats.h"
#include "core/data/source.h"
#include "core/eval/eval_int.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPT_BYTES = 16 << 20 };

static int keep_ids(int32_t **out, size_t *n, const tok_ids *ids)
{
    *n = ids->n;
    *out = mem_array(ids->n, sizeof **out);
    memcpy(*out, ids->id, ids->n * sizeof **out);
    return 0;
}

static int encode(const eval_options *o, const char *text, size_t len, unsigned flags,
                  int32_t **out, size_t *n, hone_err *e)
{
    tok_ids ids = {0};
    int rc = tok_encode(o->t, text, len, flags, &ids, e);
    if (rc == 0)
        rc = keep_ids(out, n, &ids);
    tok_ids_free(&ids);
    return rc;
}

/* The conversation up to its last assistant turn is the prompt, that turn the reference. */
static int from_messages(example *x, const json_t *record, const eval_options *o, hone_err *e)
{
    json_t *messages = json_object_get(record, "messages");
    size_t n = json_array_size(messages);
    if (o->c == NULL)
        return hone_fail(e, HONE_EINVAL, "messages need a chat template, and this model has none");
    const json_t *last = json_array_get(messages, n ? n - 1 : 0);
    const char *role = json_string_value(json_object_get(last, "role"));
    const char *answer = json_string_value(json_object_get(last, "content"));
    if (role == NULL || strcmp(role, "assistant") != 0 || answer == NULL)
        return hone_fail(e, HONE_EFORMAT, "the last message must be the assistant's, with text");
    chat_options co = {.tools = json_object_get(record, "tools")};
    chat_tokens ct = {0};
    int rc = chat_encode(o->c, o->t, messages, &co, CHAT_TRAIN_LAST, &ct, e);
    if (rc != 0)
        return rc;
    x->n_ids = ct.n;
    x->ids = ct.id;
    x->mask = ct.mask;
    free(ct.turn);
    x->reference = mem_strdup(answer);
    json_t *asked = json_copy(messages);
    json_array_remove(asked, n - 1);
    buf text;
    buf_init(&text, MAX_PROMPT_BYTES);
    co.add_generation_prompt = true;
    rc = chat_render(o->c, asked, &co, &text, e);
    if (rc == 0)
        rc = encode(o, text.data, text.len, 0, &x->prompt, &x->n_prompt, e);
    buf_free(&text);
    json_decref(asked);
    return rc;
}

/* One encoding of the joined text; tokens that reach into the completion are scored. */
static int from_completion(example *x, const json_t *record, const eval_options *o, hone_err *e)
{
    const char *prompt = json_string_value(json_object_get(record, "prompt"));
    const char *completion = json_string_value(json_object_get(record, "completion"));
    if (prompt == NULL || completion == NULL)
        return hone_fail(e, HONE_EFORMAT, "prompt and completion must be texts");
    char *both = mem_printf("%s%s", prompt, completion);
    size_t border = strlen(prompt);
    tok_ids ids = {0};
    int rc = tok_encode(o->t, both, strlen(both), TOK_ADD_SPECIAL, &ids, e);
    if (rc == 0) {
        keep_ids(&x->ids, &x->n_ids, &ids);
        x->mask = mem_array(ids.n, 1);
        for (size_t i = 0; i < ids.n; i++)
            x->mask[i] = ids.end[i] > border;
        x->reference = mem_strdup(completion);
        rc = encode(o, prompt, border, TOK_ADD_SPECIAL, &x->prompt, &x->n_prompt, e);
    }
    tok_ids_free(&ids);
    free(both);
    return rc;
}

static int from_text(example *x, const json_t *record, const eval_options *o, hone_err *e)
{
    const char *text = json_string_value(json_object_get(record, "text"));
    if (text == NULL)
        return hone_fail(e, HONE_EFORMAT, "text must be a text");
    int rc = encode(o, text, strlen(text), TOK_ADD_SPECIAL, &x->ids, &x->n_ids, e);
    x->mask = mem_array(x->n_ids, 1);
    memset(x->mask, 1, x->n_ids);
    return rc;
}

/* Bytes of the scored part, as text: what per-byte figures are over. */
static int count_bytes(example *x, const eval_options *o, hone_err *e)
{
    int32_t *scored = mem_array(x->n_ids, sizeof *scored);
    size_t n = 0;
    buf text;
    buf_init(&text, MAX_PROMPT_BYTES);
    for (size_t i = 1; i < x->n_ids; i++)
        if (x->mask[i])
            scored[n++] = x->ids[i];
    int rc = tok_decode(o->t, scored, n, true, &text, e);
    x->n_scored = (double)n;
    x->n_bytes = (double)text.len;
    buf_free(&text);
    free(scored);
    return rc;
}

static int check_fits(const example *x, const eval_options *o, hone_err *e)
{
    int64_t context = model_config(o->m)->max_positions;
    if ((int64_t)x->n_ids > context)
        return hone_fail(e, HONE_ELIMIT, "%zu tokens are more than the model's context of %lld",
                         x->n_ids, (long long)context);
    return 0;
}

int example_finish(example *x, const eval_options *o, hone_err *e)
{
    int rc = check_fits(x, o, e);
    return rc == 0 ? count_bytes(x, o, e) : rc;
}

static int make_example(example *x, const json_t *record, const eval_options *o, bool need_prompt,
                        hone_err *e)
{
    int rc;
    if (json_object_get(record, "messages") != NULL)
        rc = from_messages(x, record, o, e);
    else if (json_object_get(record, "prompt") != NULL)
        rc = from_completion(x, record, o, e);
    else
        rc = from_text(x, record, o, e);
    if (rc == 0 && need_prompt && x->prompt == NULL)
        rc = hone_fail(e, HONE_EINVAL,
                       "plain text has no answer to generate; the metrics that "
                       "were asked for need messages, or prompt and completion");
    return rc == 0 ? example_finish(x, o, e) : rc;
}

static void example_free(example *x)
{
    free(x->ids);
    free(x->mask);
    free(x->prompt);
    free(x->reference);
    gen_result_free(&x->answer);
    json_decref(x->record);
    json_decref(x->extra);
    free(x->each);
}

void examples_free(example_set *s)
{
    for (size_t i = 0; i < s->n; i++)
        example_free(&s->items[i]);
    free(s->items);
    *s = (example_set){0};
}

static int add_record(example_set *s, const source_record *r, const format_spec *spec,
                      const eval_options *o, bool need_prompt, hone_err *e)
{
    const format *f = spec->format;
    json_t *canonical = NULL;
    int rc = r->got == SOURCE_BAD ? hone_fail(e, r->why.code, "%s", r->why.msg) : 0;
    if (rc == 0 && f == NULL)
        rc = format_detect(&f, r->value, spec, e);
    if (rc == 0)
        rc = f->convert(&canonical, r->value, spec, e);
    if (rc == 0) {
        s->items = mem_grow(s->items, &s->cap, s->n + 1, sizeof *s->items);
        example *x = &s->items[s->n++];
        *x = (example){.line = r->line, .record = custom_wanted(o) ? json_incref(canonical) : NULL};
        rc = make_example(x, canonical, o, need_prompt, e);
    }
    json_decref(canonical);
    return rc == 0 ? 0 : hone_fail_at(e, "line %lld", (long long)r->line);
}

static int read_all(example_set *s, const eval_options *o, bool need_prompt, hone_err *e)
{
    json_t *entry = json_string(o->data);
    format_spec spec;
    source *src = NULL;
    int rc = format_spec_read(&spec, entry, e);
    if (rc == 0)
        rc = source_open(&src, o->data, (source_kind)spec.kind, (source_unit)spec.unit, e);
    while (rc == 0 && (o->limit == 0 || (int64_t)s->n < o->limit)) {
        source_record r = {0};
        rc = source_next(src, &r, e);
        if (rc != 0 || r.got == SOURCE_END)
            break;
        rc = add_record(s, &r, &spec, o, need_prompt, e);
        json_decref(r.value);
    }
    source_close(src);
    json_decref(entry);
    return rc;
}

int examples_load(example_set *s, const eval_options *o, bool need_prompt, hone_err *e)
{
    *s = (example_set){0};
    int rc = file_sha256(s->sha256, o->data, e);
    if (rc != 0)
        return rc;
    rc = read_all(s, o, need_prompt, e);
    if (rc == 0 && s->n == 0)
        rc = hone_fail(e, HONE_EFORMAT, "no example in the file");
    if (rc != 0) {
        examples_free(s);
        return hone_fail_at(e, "%s", o->data);
    }
    return 0;
}
