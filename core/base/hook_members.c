#include "core/base/hook_members.h"

#include <string.h>

#define RECORD "messages: [{role, content}], and tools; or text, or prompt and completion"
#define REQUEST_ID "the answer's id; the same at all points of a request"
#define KEY_ID "whose key it is; null without keys"
#define SOURCE "the file as the settings name it"
#define LINE "where it stands there, from 1"

/* clang-format off */
static const hook_member members[] = {
    {HOOK_DATA_OPEN, "path", "text", "the file as the settings name it"},
    {HOOK_DATA_OPEN, "sha256", "text", "of its bytes"},
    {HOOK_DATA_OPEN, "type", "text", "how it is read; auto: the first record decides"},

    {HOOK_DATA_RECORD, "*", "any", "whatever stands in the file: nothing is converted yet"},

    {HOOK_DATA_NORMALIZE, "text", "text", "the one text; may change"},
    {HOOK_DATA_NORMALIZE, "field", "text", "where it stands: text, prompt, messages[0].content"},
    {HOOK_DATA_NORMALIZE, "role", "text|null", "of its message; null where there is none"},
    {HOOK_DATA_NORMALIZE, "source", "text", SOURCE},
    {HOOK_DATA_NORMALIZE, "line", "integer", LINE},

    {HOOK_DATA_TAG, "record", "object", RECORD},
    {HOOK_DATA_TAG, "source", "text", SOURCE},
    {HOOK_DATA_TAG, "line", "integer", LINE},
    {HOOK_DATA_TAG, "tags", "object", "what others found; may be added to"},

    {HOOK_DATA_FILTER, "record", "object", RECORD},
    {HOOK_DATA_FILTER, "source", "text", SOURCE},
    {HOOK_DATA_FILTER, "line", "integer", LINE},
    {HOOK_DATA_FILTER, "tags", "object", "what data.tag found"},

    {HOOK_DATA_PII, "kind", "text", "as the tag says"},
    {HOOK_DATA_PII, "span", "text", "what was found"},
    {HOOK_DATA_PII, "before", "text", "some of the text before it"},
    {HOOK_DATA_PII, "after", "text", "and after it"},
    {HOOK_DATA_PII, "field", "text", "where the text stands"},
    {HOOK_DATA_PII, "replacement", "text", "what will stand there; may change"},
    {HOOK_DATA_PII, "source", "text", SOURCE},
    {HOOK_DATA_PII, "line", "integer", LINE},

    {HOOK_DATA_SPLIT, "record", "object", RECORD},
    {HOOK_DATA_SPLIT, "source", "text", SOURCE},
    {HOOK_DATA_SPLIT, "line", "integer", LINE},
    {HOOK_DATA_SPLIT, "id", "text", "16 hex digits: of the record's member id, or of the record"},
    {HOOK_DATA_SPLIT, "key", "text", "rows of one key fall on one side; may change"},
    {HOOK_DATA_SPLIT, "split", "text|null", "null: as the key falls; becomes train, val or none"},

    {HOOK_DATA_TEMPLATE, "messages", "list", "the conversation"},
    {HOOK_DATA_TEMPLATE, "tools", "list|null", "what its model may call"},
    {HOOK_DATA_TEMPLATE, "text", "text", "what the template made of it; may change"},
    {HOOK_DATA_TEMPLATE, "learn", "list", "spans that are learnt: [first byte, end]; may change"},
    {HOOK_DATA_TEMPLATE, "source", "text", SOURCE},
    {HOOK_DATA_TEMPLATE, "line", "integer", LINE},

    {HOOK_TRAIN_START, "settings", "object", "of the run, as hone train --settings names them"},
    {HOOK_TRAIN_START, "identity", "object", "digests of base, data, template and plugins"},
    {HOOK_TRAIN_START, "steps", "integer", "that the run will have"},
    {HOOK_TRAIN_START, "first_step", "integer", "where it goes on; 0: from the start"},
    {HOOK_TRAIN_START, "tokens", "integer", "of one epoch"},
    {HOOK_TRAIN_START, "output_dir", "text", "where it writes"},

    {HOOK_TRAIN_STEP, "step", "integer", "the one that was done, from 1"},
    {HOOK_TRAIN_STEP, "total_steps", "integer", "of the run"},
    {HOOK_TRAIN_STEP, "epoch", "number", "how many it has been through"},
    {HOOK_TRAIN_STEP, "loss", "number|null", "nats a token; null where it is not finite"},
    {HOOK_TRAIN_STEP, "lr", "number", "learning rate of this step"},
    {HOOK_TRAIN_STEP, "grad_norm", "number|null", "before clipping; null where it is not finite"},
    {HOOK_TRAIN_STEP, "tokens_per_second", "number", "of late"},
    {HOOK_TRAIN_STEP, "tokens", "integer", "so far"},
    {HOOK_TRAIN_STEP, "lr_scale", "number", "of the steps to come; may change"},
    {HOOK_TRAIN_STEP, "save", "boolean", "true: write a checkpoint now; may change"},

    {HOOK_TRAIN_CHECKPOINT, "path", "text", "its folder"},
    {HOOK_TRAIN_CHECKPOINT, "step", "integer", "that it stands at"},
    {HOOK_TRAIN_CHECKPOINT, "loss", "number|null", "of that step"},
    {HOOK_TRAIN_CHECKPOINT, "eval_loss", "number|null", "of the last evaluation, if there was one"},

    {HOOK_TRAIN_END, "status", "text", "finished, stopped, failed"},
    {HOOK_TRAIN_END, "steps", "integer", "that were done"},
    {HOOK_TRAIN_END, "loss", "number|null", "of the last step"},
    {HOOK_TRAIN_END, "eval_loss", "number|null", "of the last evaluation, if there was one"},
    {HOOK_TRAIN_END, "error", "text?", "why it failed"},

    {HOOK_EVAL_METRIC, "record", "object", RECORD},
    {HOOK_EVAL_METRIC, "prediction", "text|null", "what the model says; null: nothing was asked"},
    {HOOK_EVAL_METRIC, "reference", "text|null", "what the record says"},
    {HOOK_EVAL_METRIC, "line", "integer", "of the record, from 1"},
    {HOOK_EVAL_METRIC, "nats", "number|null", "of the reference; null where it was not scored"},
    {HOOK_EVAL_METRIC, "tokens", "number", "of the reference"},
    {HOOK_EVAL_METRIC, "bytes", "number", "of the reference"},
    {HOOK_EVAL_METRIC, "scores", "object", "may be added to: name: number or {value, ...}"},

    {HOOK_EVAL_AGGREGATE, "data", "text|null", "the file; null: probes alone"},
    {HOOK_EVAL_AGGREGATE, "data_sha256", "text", "of its bytes; empty without a file"},
    {HOOK_EVAL_AGGREGATE, "n", "integer", "examples"},
    {HOOK_EVAL_AGGREGATE, "settings", "object", "limit, max_tokens, batch_tokens, batch, template"},
    {HOOK_EVAL_AGGREGATE, "metrics", "object", "name: {value, low, high, n, ...}; may change"},
    {HOOK_EVAL_AGGREGATE, "examples", "object", "name: a value of each example, for comparisons"},

    {HOOK_BIAS_PROBE, "phase", "text", "items, then score"},
    {HOOK_BIAS_PROBE, "items", "list", "{probe, group, texts: [{context, text}], prompts}; in phase "
     "score with ll and answers"},
    {HOOK_BIAS_PROBE, "scores", "object", "may be added to in phase score"},

    {HOOK_MERGE_PRE, "model", "text", "folder of the base"},
    {HOOK_MERGE_PRE, "adapter", "text", "folder of the adapter"},

    {HOOK_MERGE_POST, "max_abs_diff", "number", "of log-probabilities, merged against adapter"},
    {HOOK_MERGE_POST, "mean_kl", "number", "nats a position"},
    {HOOK_MERGE_POST, "agreement", "number", "share of positions with the same best token"},

    {HOOK_PROMOTE_GATE, "verdict", "text", "pass, fail or inconclusive; may become stricter"},
    {HOOK_PROMOTE_GATE, "reasons", "list", "of text; may become longer"},
    {HOOK_PROMOTE_GATE, "holdout", "object", "n; metrics: name: {before, after, difference, low, "
     "high}, before is the live model's"},
    {HOOK_PROMOTE_GATE, "feedback", "object|null", "the same on feedback that was held out"},
    {HOOK_PROMOTE_GATE, "run", "text", "id of the round"},

    {HOOK_SERVE_REQUEST, "request_id", "text", REQUEST_ID},
    {HOOK_SERVE_REQUEST, "key_id", "text|null", KEY_ID},
    {HOOK_SERVE_REQUEST, "route", "text", "/v1/chat/completions or /v1/completions"},
    {HOOK_SERVE_REQUEST, "body", "object", "as the client sent it; may change"},

    {HOOK_SERVE_ROUTE, "request_id", "text", REQUEST_ID},
    {HOOK_SERVE_ROUTE, "key_id", "text|null", KEY_ID},
    {HOOK_SERVE_ROUTE, "model", "text|null", "as the client named it"},
    {HOOK_SERVE_ROUTE, "alias", "text", "who will answer; may change"},
    {HOOK_SERVE_ROUTE, "aliases", "list", "who may"},
    {HOOK_SERVE_ROUTE, "bucket", "integer", "0 to 99, the same for a user or key"},

    {HOOK_SERVE_PROMPT, "request_id", "text", REQUEST_ID},
    {HOOK_SERVE_PROMPT, "key_id", "text|null", KEY_ID},
    {HOOK_SERVE_PROMPT, "text", "text", "what the model reads; may change"},

    {HOOK_SERVE_CHUNK, "request_id", "text", REQUEST_ID},
    {HOOK_SERVE_CHUNK, "choice", "integer", "which answer of the request, from 0"},
    {HOOK_SERVE_CHUNK, "text", "text", "the piece; may change"},
    {HOOK_SERVE_CHUNK, "eof", "boolean", "the last piece"},

    {HOOK_SERVE_RESPONSE, "id", "text", REQUEST_ID},
    {HOOK_SERVE_RESPONSE, "object", "text", "chat.completion or text_completion"},
    {HOOK_SERVE_RESPONSE, "created", "integer", "seconds since 1970"},
    {HOOK_SERVE_RESPONSE, "model", "text", "who answered"},
    {HOOK_SERVE_RESPONSE, "system_fingerprint", "text", "of weights, template and program"},
    {HOOK_SERVE_RESPONSE, "choices", "list", "{index, message or text, logprobs, finish_reason}"},
    {HOOK_SERVE_RESPONSE, "usage", "object", "prompt_tokens, completion_tokens, total_tokens"},

    {HOOK_SERVE_LOG, "id", "text", REQUEST_ID},
    {HOOK_SERVE_LOG, "key_id", "text?", "whose key it is"},
    {HOOK_SERVE_LOG, "user_hash", "text?", "keyed digest of the request's user"},
    {HOOK_SERVE_LOG, "ip", "text?", "of the client"},
    {HOOK_SERVE_LOG, "route", "text", "/v1/chat/completions or /v1/completions"},
    {HOOK_SERVE_LOG, "status", "integer", "of HTTP"},
    {HOOK_SERVE_LOG, "error_code", "text?", "where it failed"},
    {HOOK_SERVE_LOG, "model", "text", "who answered"},
    {HOOK_SERVE_LOG, "model_digest", "text?", "of its weights"},
    {HOOK_SERVE_LOG, "adapter_digest", "text?", "of its adapter"},
    {HOOK_SERVE_LOG, "template_digest", "text?", "of its chat template"},
    {HOOK_SERVE_LOG, "finish_reason", "text?", "of the first answer"},
    {HOOK_SERVE_LOG, "ts", "integer", "milliseconds since 1970"},
    {HOOK_SERVE_LOG, "tok_in", "integer", "tokens of the prompt"},
    {HOOK_SERVE_LOG, "tok_out", "integer", "tokens answered"},
    {HOOK_SERVE_LOG, "ttft_ms", "integer", "until the first token"},
    {HOOK_SERVE_LOG, "e2e_ms", "integer", "until the end"},
    {HOOK_SERVE_LOG, "expires_at", "integer?", "when it is deleted, milliseconds since 1970"},
    {HOOK_SERVE_LOG, "params", "object", "of sampling"},
    {HOOK_SERVE_LOG, "metadata", "object?", "as the client sent it"},
    {HOOK_SERVE_LOG, "keep", "text", "full, metadata or none: what is stored"},
    {HOOK_SERVE_LOG, "messages", "list?", "the conversation, where keep is full"},
    {HOOK_SERVE_LOG, "prompt", "text?", "or the prompt, of /v1/completions"},
    {HOOK_SERVE_LOG, "choices", "list?", "the answers, where keep is full: {index, text, "
     "finish_reason}"},

    {HOOK_FEEDBACK_INGEST, "response_id", "text?", "which answer; not in an import"},
    {HOOK_FEEDBACK_INGEST, "choice_index", "integer?", "which of its choices"},
    {HOOK_FEEDBACK_INGEST, "rating", "integer|text|null?", "-1, 0 or 1; in an import also down, "
     "none, up"},
    {HOOK_FEEDBACK_INGEST, "score", "number|null?", "of a judge"},
    {HOOK_FEEDBACK_INGEST, "correction", "object|text|null?", "{role, content}; in an import also "
     "text"},
    {HOOK_FEEDBACK_INGEST, "comment", "text|null?", "in the user's words"},
    {HOOK_FEEDBACK_INGEST, "reason", "text|null?", "one word"},
    {HOOK_FEEDBACK_INGEST, "tags", "list|null?", "of text"},
    {HOOK_FEEDBACK_INGEST, "preferred_over", "text|null?", "id of the answer that was worse"},
    {HOOK_FEEDBACK_INGEST, "user", "text?", "who says so; stored as a keyed digest"},
    {HOOK_FEEDBACK_INGEST, "idempotency_key", "text?", "the same twice is one"},
    {HOOK_FEEDBACK_INGEST, "*", "any", "an import's line has messages (or prompt) and answer too"},

    {HOOK_FEEDBACK_TO_EXAMPLE, "feedback", "object", "as hone feedback export writes it: rating, "
     "correction, comment, tags, review, snapshot: {messages, answer, ...}"},
    {HOOK_FEEDBACK_TO_EXAMPLE, "example", "object", "{messages}; may change"},

    {HOOK_DRIFT_MEASURE, "reference", "object", "name: {edges, counts}: of the data trained on"},
    {HOOK_DRIFT_MEASURE, "current", "object", "the same of the feedback of this round"},
    {HOOK_DRIFT_MEASURE, "n_reference", "integer", "how many they are"},
    {HOOK_DRIFT_MEASURE, "n_current", "integer", "how many they are"},
    {HOOK_DRIFT_MEASURE, "scores", "object", "psi.NAME of each; may be added to"},

    {HOOK_AUDIT_EVENT, "ts", "integer", "milliseconds since 1970"},
    {HOOK_AUDIT_EVENT, "seq", "integer", "its place in the log"},
    {HOOK_AUDIT_EVENT, "action", "text", "what was done: key.create, request, plugin.load"},
    {HOOK_AUDIT_EVENT, "actor", "text?", "by whom: a key's id, server, cli:USER"},
    {HOOK_AUDIT_EVENT, "target", "text?", "on what"},
    {HOOK_AUDIT_EVENT, "request_id", "text?", "in which request"},
    {HOOK_AUDIT_EVENT, "ip", "text?", "from where"},
    {HOOK_AUDIT_EVENT, "detail", "object?", "what the action has to say"},
};
/* clang-format on */

const hook_member *hook_members(hook_point p, size_t *n)
{
    const hook_member *first = NULL;
    *n = 0;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        if (members[i].point != p)
            continue;
        first = first == NULL ? &members[i] : first;
        ++*n;
    }
    return first;
}

static const char *type_of(const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "object",   [JSON_ARRAY] = "list",  [JSON_STRING] = "text",
        [JSON_INTEGER] = "integer", [JSON_REAL] = "number", [JSON_TRUE] = "boolean",
        [JSON_FALSE] = "boolean",   [JSON_NULL] = "null",
    };
    return names[json_typeof(v)];
}

/* Is `word` one of "a|b?"? */
static bool names(const char *types, const char *word)
{
    size_t len = strlen(word);
    for (const char *t = types; *t != '\0' && *t != '?';) {
        size_t n = strcspn(t, "|?");
        if (n == len && memcmp(t, word, n) == 0)
            return true;
        t += n + (t[n] == '|');
    }
    return false;
}

bool hook_member_takes(const hook_member *m, const json_t *v)
{
    if (v == NULL)
        return m->type[strlen(m->type) - 1] == '?' || strcmp(m->name, "*") == 0;
    return names(m->type, "any") || names(m->type, type_of(v)) ||
           (json_is_integer(v) && names(m->type, "number"));
}
