/* Feedback as rows for trainers. */
#include "serve/store/feedback.h"

#include "core/base/js.h"
#include "core/base/rng.h"

#include <stdlib.h>
#include <string.h>

double feedback_side(const json_t *fb)
{
    const json_t *snapshot = json_object_get(fb, "snapshot");
    const json_t *messages = json_object_get(snapshot, "messages");
    const json_t *prompt = json_object_get(snapshot, "prompt");
    uint32_t w[4];
    char *text = js_text(json_is_array(messages) ? messages : prompt, true);
    rng_philox(w, 0, rng_stream(text), 0);
    free(text);
    return (double)w[0] / 4294967296.0;
}

typedef void row_maker(const json_t *fb, json_t *out);

static json_t *snapshot_of(const json_t *fb, const char *key)
{
    json_t *v = json_object_get(json_object_get(fb, "snapshot"), key);
    return json_is_null(v) ? NULL : v;
}

static bool is_chat(const json_t *fb)
{
    return snapshot_of(fb, "messages") != NULL;
}

/* New reference: the prompt in the form that the completion will have. */
static json_t *prompt_of(const json_t *fb)
{
    return json_incref(is_chat(fb) ? snapshot_of(fb, "messages") : snapshot_of(fb, "prompt"));
}

/* New reference: text as a completion to this prompt. */
static json_t *completion_of(const json_t *fb, json_t *text)
{
    return is_chat(fb) ? json_pack("[{s:s, s:O}]", "role", "assistant", "content", text)
                       : json_incref(text);
}

/* New reference or NULL: the correction as a completion. */
static json_t *correction_of(const json_t *fb)
{
    json_t *message = json_object_get(fb, "correction");
    if (!json_is_object(message))
        return NULL;
    return is_chat(fb) ? json_pack("[O]", message)
                       : json_incref(json_object_get(message, "content"));
}

static bool rated(const json_t *fb, int rating)
{
    const json_t *v = json_object_get(fb, "rating");
    return json_is_integer(v) && json_integer_value(v) == rating;
}

static void raw_rows(const json_t *fb, json_t *out)
{
    json_array_append(out, (json_t *)fb);
}

static void kto_rows(const json_t *fb, json_t *out)
{
    json_t *answer = snapshot_of(fb, "answer");
    if (answer == NULL || !(rated(fb, 1) || rated(fb, -1)))
        return;
    json_array_append_new(out, json_pack("{s:o, s:o, s:b}", "prompt", prompt_of(fb), "completion",
                                         completion_of(fb, answer), "label", rated(fb, 1)));
}

static void pair(const json_t *fb, json_t *chosen, json_t *rejected, json_t *out)
{
    json_array_append_new(out, json_pack("{s:o, s:o, s:o}", "prompt", prompt_of(fb), "chosen",
                                         chosen, "rejected", rejected));
}

static void dpo_rows(const json_t *fb, json_t *out)
{
    json_t *answer = snapshot_of(fb, "answer"), *over = snapshot_of(fb, "over");
    json_t *correction = correction_of(fb);
    if (answer == NULL) {
        json_decref(correction);
        return;
    }
    if (correction != NULL)
        pair(fb, correction, completion_of(fb, answer), out);
    if (over != NULL)
        pair(fb, completion_of(fb, answer), completion_of(fb, over), out);
}

static void sft_rows(const json_t *fb, json_t *out)
{
    json_t *answer = snapshot_of(fb, "answer");
    json_t *completion = correction_of(fb);
    if (completion == NULL && answer != NULL && rated(fb, 1))
        completion = completion_of(fb, answer);
    if (completion == NULL)
        return;
    if (is_chat(fb)) {
        json_t *messages = json_copy(snapshot_of(fb, "messages"));
        json_array_extend(messages, completion);
        json_decref(completion);
        json_array_append_new(out, json_pack("{s:o}", "messages", messages));
    } else {
        json_array_append_new(
            out, json_pack("{s:o, s:o}", "prompt", prompt_of(fb), "completion", completion));
    }
}

/* clang-format off */
static const struct {
    const char *name;
    feedback_format format;
    row_maker *make;
} formats[] = {
    {"raw", FEEDBACK_RAW, raw_rows},
    {"kto", FEEDBACK_KTO, kto_rows},
    {"dpo", FEEDBACK_DPO, dpo_rows},
    {"sft", FEEDBACK_SFT, sft_rows},
};
/* clang-format on */

int feedback_format_by_name(feedback_format *out, const char *name, hone_err *e)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, name) == 0) {
            *out = formats[i].format;
            return 0;
        }
    }
    return hone_fail(e, HONE_EINVAL, "no format '%.32s'; there are raw, kto, dpo, sft", name);
}

void feedback_rows(feedback_format format, const json_t *fb, json_t *out)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].format == format)
            formats[i].make(fb, out);
}
