#include "lua/form.h"

#include "core/base/buf.h"

#include <string.h>

/* clang-format off */
static const form forms[] = {
    {.point = "data.open", .replaces = 1,
     .call = "function(source) return true end"},
    {.point = "data.record", .replaces = 1, .list = true,
     .call = "function(record) return {record} end"},
    {.point = "data.normalize", .first = "text", .text = "text",
     .call = "function(text, about) return text:gsub('%s+', ' ') end"},
    {.point = "data.tag", .first = "record", .merges = "tags",
     .call = "function(record, about) return {words = 3} end"},
    {.point = "data.filter", .first = "record",
     .call = "function(record, about) return false, 'too short' end"},
    {.point = "data.pii", .first = "span", .text = "replacement",
     .call = "function(span, about) return '<' .. about.kind:upper() .. '>' end"},
    {.point = "data.split", .first = "record", .words = "train|val|none", .word = "split",
     .call = "function(record, about) return 'train' end"},
    {.point = "data.template", .first = "messages", .text = "text", .with_text = "learn",
     .call = "function(messages, about) return about.text, about.learn end"},
    {.point = "train.start",
     .call = "function(run) return true end"},
    {.point = "train.step", .merges = "", .stops = "stop", .sets = "save",
     .call = "function(step) if step.loss > 10 then return 'stop', 'diverged' end end"},
    {.point = "train.checkpoint",
     .call = "function(checkpoint) end"},
    {.point = "train.end",
     .call = "function(run) end"},
    {.point = "eval.metric", .merges = "scores",
     .call = "function(example) return {exact = 1} end"},
    {.point = "eval.aggregate", .replaces = 1,
     .call = "function(report) report.note = 'checked' return report end"},
    {.point = "bias.probe", .replaces = 1,
     .call = "function(probe) return probe end"},
    {.point = "merge.pre",
     .call = "function(merge) return true end"},
    {.point = "merge.post",
     .call = "function(proof) return true end"},
    {.point = "promote.gate", .words = "pass|inconclusive|fail", .word = "verdict",
     .call = "function(report) return 'fail', 'toxicity' end"},
    {.point = "serve.request", .first = "body", .replaces = 1,
     .call = "function(body, about) body.max_tokens = 64 return body end"},
    {.point = "serve.route", .text = "alias",
     .call = "function(route) return route.aliases[1] end"},
    {.point = "serve.prompt", .first = "text", .text = "text",
     .call = "function(text, about) return text end"},
    {.point = "serve.chunk", .first = "text", .second = "eof", .text = "text", .stream = true,
     .call = "function(text, eof, stream) return text end"},
    {.point = "serve.response", .replaces = 1,
     .call = "function(answer) return answer end"},
    {.point = "serve.log", .replaces = 1,
     .call = "function(record) record.messages, record.choices = nil, nil return record end"},
    {.point = "feedback.ingest", .merges = "",
     .call = "function(feedback) return {tags = {'checked'}} end"},
    {.point = "feedback.to_example", .first = "feedback", .second = "example", .replaces = 2,
     .call = "function(feedback, example) return example end"},
    {.point = "drift.measure", .merges = "scores",
     .call = "function(drift) return {shift = 0.1} end"},
    {.point = "audit.event",
     .call = "function(record) end"},
};
/* clang-format on */

const form *form_of(hook_point p)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(forms[i].point, hook_describe(p)->name) == 0)
            return &forms[i];
    return NULL;
}

static void add_words(buf *b, const char *words)
{
    for (const char *w = words; w != NULL && *w != '\0';) {
        size_t n = strcspn(w, "|");
        buf_printf(b, ", '%.*s'", (int)n, w);
        w += n + (w[n] == '|');
    }
}

char *form_answers(const form *f)
{
    hook_point p;
    buf b;
    buf_init(&b, 512);
    buf_str(&b, "nil, true");
    if (hook_by_name(&p, f->point, NULL) == 0 && hook_describe(p)->may_veto)
        buf_str(&b, ", false and a reason");
    if (f->text != NULL)
        buf_str(&b, f->with_text != NULL ? ", text and a table" : ", text");
    if (f->replaces != 0 || f->merges != NULL)
        buf_str(&b, ", a table");
    add_words(&b, f->words);
    add_words(&b, f->stops);
    add_words(&b, f->sets);
    return buf_take(&b, NULL);
}
