#include "lua/form.h"

#include "core/base/buf.h"

#include <string.h>

/* clang-format off */
static const form forms[] = {
    {.point = "data.open", .replaces = 1,
     .call = "function(source) return true end"},
    {.point = "data.record", .replaces = 1, .list = true,
     .call = "function(record) return {record} end"},
    {.point = "data.filter", .first = "record",
     .call = "function(record, about) return false, 'too short' end"},
    {.point = "train.start",
     .call = "function(run) return true end"},
    {.point = "train.step", .words = "stop",
     .call = "function(step) if step.loss > 10 then return 'stop', 'diverged' end end"},
    {.point = "train.checkpoint",
     .call = "function(checkpoint) end"},
    {.point = "train.end",
     .call = "function(run) end"},
    {.point = "eval.metric", .merges = "scores",
     .call = "function(example) return {exact = 1} end"},
    {.point = "eval.aggregate", .replaces = 1,
     .call = "function(report) report.note = 'x' return report end"},
    {.point = "merge.pre",
     .call = "function(merge) return true end"},
    {.point = "merge.post",
     .call = "function(proof) return true end"},
    {.point = "promote.gate", .words = "pass|inconclusive|fail", .word_to = "verdict",
     .call = "function(report) return 'fail', 'toxicity' end"},
    {.point = "serve.request", .first = "body", .replaces = 1,
     .call = "function(body, about) body.max_tokens = 64 return body end"},
    {.point = "serve.prompt", .first = "text", .text = true,
     .call = "function(text, about) return text end"},
    {.point = "serve.chunk", .first = "text", .second = "eof", .text = true, .stream = true,
     .call = "function(text, eof, stream) return text end"},
    {.point = "serve.response", .replaces = 1,
     .call = "function(answer) return answer end"},
    {.point = "serve.log", .replaces = 1,
     .call = "function(record) record.prompt = nil return record end"},
    {.point = "feedback.ingest", .merges = "",
     .call = "function(feedback) return {tags = {'checked'}} end"},
    {.point = "feedback.to_example", .first = "feedback", .second = "example", .replaces = 2,
     .call = "function(feedback, example) return example end"},
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

char *form_answers(const form *f)
{
    hook_point p;
    buf b;
    buf_init(&b, 512);
    buf_str(&b, "nil, true");
    if (hook_by_name(&p, f->point, NULL) == 0 && hook_describe(p)->may_veto)
        buf_str(&b, ", false and a reason");
    if (f->text)
        buf_str(&b, ", text");
    if (f->replaces != 0 || f->merges != NULL)
        buf_str(&b, ", a table");
    for (const char *w = f->words; w != NULL && *w != '\0';) {
        size_t n = strcspn(w, "|");
        buf_printf(&b, ", '%.*s'", (int)n, w);
        w += n + (w[n] == '|');
    }
    return buf_take(&b, NULL);
}
