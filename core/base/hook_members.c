#include "core/base/hook_members.h"

#include <string.h>

#define RECORD "messages: [{role, content}], and tools; or text, or prompt and completion"
#define REQUEST_ID "the answer's id; the same at all points of a request"
#define KEY_ID "whose key it is; null without keys"
#define SOURCE "the file as the settings name it"
#define LINE "where it stands there, from 1"

/* Members that stay as they are, and those that a subscriber may change. */
#define M(point, name, type, what)                                                                 \
    {                                                                                              \
        HOOK_##point, name, type, what, false                                                      \
    }
#define C(point, name, type, what)                                                                 \
    {                                                                                              \
        HOOK_##point, name, type, what, true                                                       \
    }

/* clang-format off */
static const hook_member members[] = {
    C(DATA_OPEN, "path", "text", "the file as the settings name it"),
    C(DATA_OPEN, "sha256", "text", "of its bytes"),
    C(DATA_OPEN, "type", "text", "how it is read; auto: the first record decides"),
    C(DATA_OPEN, "*", "any", "what is added goes into the manifest"),

    C(DATA_RECORD, "*", "any", "whatever stands in the file: nothing is converted yet"),

    C(DATA_NORMALIZE, "text", "text", "the one text"),
    M(DATA_NORMALIZE, "field", "text", "where it stands: text, prompt, messages[0].content"),
    M(DATA_NORMALIZE, "role", "text|null", "of its message; null where there is none"),
    M(DATA_NORMALIZE, "source", "text", SOURCE),
    M(DATA_NORMALIZE, "line", "integer", LINE),

    M(DATA_TAG, "record", "object", RECORD),
    M(DATA_TAG, "source", "text", SOURCE),
    M(DATA_TAG, "line", "integer", LINE),
    C(DATA_TAG, "tags", "object", "what others found"),

    M(DATA_FILTER, "record", "object", RECORD),
    M(DATA_FILTER, "source", "text", SOURCE),
    M(DATA_FILTER, "line", "integer", LINE),
    M(DATA_FILTER, "tags", "object", "what data.tag found"),

    M(DATA_PII, "kind", "text", "as the tag says"),
    M(DATA_PII, "span", "text", "what was found"),
    M(DATA_PII, "before", "text", "some of the text before it"),
    M(DATA_PII, "after", "text", "and after it"),
    M(DATA_PII, "field", "text", "where the text stands"),
    C(DATA_PII, "replacement", "text", "what will stand there"),
    M(DATA_PII, "source", "text", SOURCE),
    M(DATA_PII, "line", "integer", LINE),

    M(DATA_SPLIT, "record", "object", RECORD),
    M(DATA_SPLIT, "source", "text", SOURCE),
    M(DATA_SPLIT, "line", "integer", LINE),
    M(DATA_SPLIT, "id", "text", "16 hex digits: of the record's member id, or of the record"),
    C(DATA_SPLIT, "key", "text", "rows of one key fall on one side"),
    M(DATA_SPLIT, "split", "text|null", "null: as the key falls; becomes train, val or none"),

    M(DATA_TEMPLATE, "messages", "list", "the conversation"),
    M(DATA_TEMPLATE, "tools", "list|null", "what its model may call"),
    C(DATA_TEMPLATE, "text", "text", "what the template made of it"),
    C(DATA_TEMPLATE, "learn", "list", "spans that are learnt: [first byte, end]"),
    M(DATA_TEMPLATE, "source", "text", SOURCE),
    M(DATA_TEMPLATE, "line", "integer", LINE),

    M(TRAIN_START, "settings", "object", "of the run, as hone train --settings names them"),
    M(TRAIN_START, "identity", "object", "digests of base, data, template and plugins"),
    M(TRAIN_START, "steps", "integer", "that the run will have"),
    M(TRAIN_START, "first_step", "integer", "where it goes on; 0: from the start"),
    M(TRAIN_START, "tokens", "integer", "of one epoch"),
    M(TRAIN_START, "output_dir", "text", "where it writes"),

    M(TRAIN_STEP, "step", "integer", "the one that was done, from 1"),
    M(TRAIN_STEP, "total_steps", "integer", "of the run"),
    M(TRAIN_STEP, "epoch", "number", "how many it has been through"),
    M(TRAIN_STEP, "loss", "number|null", "nats a token; null where it is not finite"),
    M(TRAIN_STEP, "lr", "number", "learning rate of this step"),
    M(TRAIN_STEP, "grad_norm", "number|null", "before clipping; null where it is not finite"),
    M(TRAIN_STEP, "tokens_per_second", "number", "of late"),
    M(TRAIN_STEP, "tokens", "integer", "so far"),
    C(TRAIN_STEP, "lr_scale", "number", "of the steps to come"),
    C(TRAIN_STEP, "save", "boolean", "true: write a checkpoint now"),

    M(TRAIN_CHECKPOINT, "path", "text", "its folder"),
    M(TRAIN_CHECKPOINT, "step", "integer", "that it stands at"),
    M(TRAIN_CHECKPOINT, "loss", "number|null", "of that step"),
    M(TRAIN_CHECKPOINT, "eval_loss", "number|null", "of the last evaluation, if there was one"),

    M(TRAIN_END, "status", "text", "finished, stopped, failed"),
    M(TRAIN_END, "steps", "integer", "that were done"),
    M(TRAIN_END, "loss", "number|null", "of the last step"),
    M(TRAIN_END, "eval_loss", "number|null", "of the last evaluation, if there was one"),
    M(TRAIN_END, "error", "text?", "why it failed"),

    M(EVAL_METRIC, "record", "object", RECORD),
    M(EVAL_METRIC, "prediction", "text|null", "what the model says; null: nothing was asked"),
    M(EVAL_METRIC, "reference", "text|null", "what the record says"),
    M(EVAL_METRIC, "line", "integer", "of the record, from 1"),
    M(EVAL_METRIC, "nats", "number|null", "of the reference; null where it was not scored"),
    M(EVAL_METRIC, "tokens", "number", "of the reference"),
    M(EVAL_METRIC, "bytes", "number", "of the reference"),
    C(EVAL_METRIC, "scores", "object", "name: number or {value, ...}"),

    C(EVAL_AGGREGATE, "data", "text|null", "the file; null: probes alone"),
    C(EVAL_AGGREGATE, "data_sha256", "text", "of its bytes; empty without a file"),
    C(EVAL_AGGREGATE, "n", "integer", "examples"),
    C(EVAL_AGGREGATE, "settings", "object", "limit, max_tokens, batch_tokens, batch, template"),
    C(EVAL_AGGREGATE, "metrics", "object", "name: {value, low, high, n, ...}"),
    C(EVAL_AGGREGATE, "examples", "object", "name: a value of each example, for comparisons"),
    C(EVAL_AGGREGATE, "*", "any", "what is added stands in the report"),

    M(BIAS_PROBE, "phase", "text", "items, then score"),
    C(BIAS_PROBE, "items", "list", "{probe, group, texts: [{context, text}], prompts}; in "
      "phase score with ll and answers"),
    C(BIAS_PROBE, "scores", "object", "of phase score"),

    M(MERGE_PRE, "model", "text", "folder of the base"),
    M(MERGE_PRE, "adapter", "text", "folder of the adapter"),

    M(MERGE_POST, "max_abs_diff", "number", "of log-probabilities, merged against adapter"),
    M(MERGE_POST, "mean_kl", "number", "nats a position"),
    M(MERGE_POST, "agreement", "number", "share of positions with the same best token"),

    C(PROMOTE_GATE, "verdict", "text", "pass, fail or inconclusive; only stricter"),
    C(PROMOTE_GATE, "reasons", "list", "of text; only longer"),
    M(PROMOTE_GATE, "holdout", "object", "n; metrics: name: {before, after, difference, low, "
      "high}, before is the live model's"),
    M(PROMOTE_GATE, "feedback", "object|null", "the same on feedback that was held out"),
    M(PROMOTE_GATE, "run", "text", "id of the round"),

    M(SERVE_REQUEST, "request_id", "text", REQUEST_ID),
    M(SERVE_REQUEST, "key_id", "text|null", KEY_ID),
    M(SERVE_REQUEST, "route", "text", "/v1/chat/completions or /v1/completions"),
    C(SERVE_REQUEST, "body", "object", "as the client sent it"),

    M(SERVE_ROUTE, "request_id", "text", REQUEST_ID),
    M(SERVE_ROUTE, "key_id", "text|null", KEY_ID),
    M(SERVE_ROUTE, "model", "text|null", "as the client named it"),
    C(SERVE_ROUTE, "alias", "text", "who will answer"),
    M(SERVE_ROUTE, "aliases", "list", "who may"),
    M(SERVE_ROUTE, "bucket", "integer", "0 to 99, the same for a user or key"),

    M(SERVE_PROMPT, "request_id", "text", REQUEST_ID),
    M(SERVE_PROMPT, "key_id", "text|null", KEY_ID),
    C(SERVE_PROMPT, "text", "text", "what the model reads"),

    M(SERVE_CHUNK, "request_id", "text", REQUEST_ID),
    M(SERVE_CHUNK, "choice", "integer", "which answer of the request, from 0"),
    C(SERVE_CHUNK, "text", "text", "the piece"),
    M(SERVE_CHUNK, "eof", "boolean", "the last piece"),

    C(SERVE_RESPONSE, "id", "text", REQUEST_ID),
    C(SERVE_RESPONSE, "object", "text", "chat.completion or text_completion"),
    C(SERVE_RESPONSE, "created", "integer", "seconds since 1970"),
    C(SERVE_RESPONSE, "model", "text", "who answered"),
    C(SERVE_RESPONSE, "system_fingerprint", "text", "of weights, template and program"),
    C(SERVE_RESPONSE, "choices", "list", "{index, message or text, logprobs, finish_reason}"),
    C(SERVE_RESPONSE, "usage", "object", "prompt_tokens, completion_tokens, total_tokens"),
    C(SERVE_RESPONSE, "*", "any", "what is added is sent too"),

    C(SERVE_LOG, "id", "text", REQUEST_ID),
    C(SERVE_LOG, "key_id", "text?", "whose key it is"),
    C(SERVE_LOG, "user_hash", "text?", "keyed digest of the request's user"),
    C(SERVE_LOG, "ip", "text?", "of the client"),
    C(SERVE_LOG, "route", "text", "/v1/chat/completions or /v1/completions"),
    C(SERVE_LOG, "status", "integer", "of HTTP"),
    C(SERVE_LOG, "error_code", "text?", "where it failed"),
    C(SERVE_LOG, "model", "text", "who answered"),
    C(SERVE_LOG, "model_digest", "text?", "of its weights"),
    C(SERVE_LOG, "adapter_digest", "text?", "of its adapter"),
    C(SERVE_LOG, "template_digest", "text?", "of its chat template"),
    C(SERVE_LOG, "finish_reason", "text?", "of the first answer"),
    C(SERVE_LOG, "ts", "integer", "milliseconds since 1970"),
    C(SERVE_LOG, "tok_in", "integer", "tokens of the prompt"),
    C(SERVE_LOG, "tok_out", "integer", "tokens answered"),
    C(SERVE_LOG, "ttft_ms", "integer", "until the first token"),
    C(SERVE_LOG, "e2e_ms", "integer", "until the end"),
    C(SERVE_LOG, "expires_at", "integer?", "when it is deleted, milliseconds since 1970"),
    C(SERVE_LOG, "params", "object", "of sampling"),
    C(SERVE_LOG, "metadata", "object?", "as the client sent it"),
    C(SERVE_LOG, "keep", "text", "full, metadata or none: what is stored"),
    C(SERVE_LOG, "messages", "list?", "the conversation, where keep is full"),
    C(SERVE_LOG, "prompt", "text?", "or the prompt, of /v1/completions"),
    C(SERVE_LOG, "choices", "list?", "the answers, where keep is full: {index, text, "
      "finish_reason}"),

    C(FEEDBACK_INGEST, "response_id", "text?", "which answer; not in an import"),
    C(FEEDBACK_INGEST, "choice_index", "integer?", "which of its choices"),
    C(FEEDBACK_INGEST, "rating", "integer|text|null?", "-1, 0 or 1; in an import also down, "
      "none, up"),
    C(FEEDBACK_INGEST, "score", "number|null?", "of a judge"),
    C(FEEDBACK_INGEST, "correction", "object|text|null?", "{role, content}; in an import also "
      "text"),
    C(FEEDBACK_INGEST, "comment", "text|null?", "in the user's words"),
    C(FEEDBACK_INGEST, "reason", "text|null?", "one word"),
    C(FEEDBACK_INGEST, "tags", "list|null?", "of text"),
    C(FEEDBACK_INGEST, "preferred_over", "text|null?", "id of the answer that was worse"),
    C(FEEDBACK_INGEST, "user", "text?", "who says so; stored as a keyed digest"),
    C(FEEDBACK_INGEST, "idempotency_key", "text?", "the same twice is one"),
    C(FEEDBACK_INGEST, "*", "any", "an import's line has messages (or prompt) and answer too"),

    M(FEEDBACK_TO_EXAMPLE, "feedback", "object", "as hone feedback export writes it: rating, "
      "correction, comment, tags, review, snapshot: {messages, answer, ...}"),
    C(FEEDBACK_TO_EXAMPLE, "example", "object", "{messages}"),

    M(DRIFT_MEASURE, "reference", "object", "name: {edges, counts}: of the data trained on"),
    M(DRIFT_MEASURE, "current", "object", "the same of the feedback of this round"),
    M(DRIFT_MEASURE, "n_reference", "integer", "how many they are"),
    M(DRIFT_MEASURE, "n_current", "integer", "how many they are"),
    C(DRIFT_MEASURE, "scores", "object", "psi.NAME of each"),

    M(AUDIT_EVENT, "ts", "integer", "milliseconds since 1970"),
    M(AUDIT_EVENT, "seq", "integer", "its place in the log"),
    M(AUDIT_EVENT, "action", "text", "what was done: key.create, request, plugin.load"),
    M(AUDIT_EVENT, "actor", "text?", "by whom: a key's id, server, cli:USER"),
    M(AUDIT_EVENT, "target", "text?", "on what"),
    M(AUDIT_EVENT, "request_id", "text?", "in which request"),
    M(AUDIT_EVENT, "ip", "text?", "from where"),
    M(AUDIT_EVENT, "detail", "object?", "what the action has to say"),
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

const hook_member *hook_member_find(hook_point p, const char *name)
{
    size_t n;
    const hook_member *m = hook_members(p, &n), *other = NULL;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(m[i].name, name) == 0)
            return &m[i];
        if (strcmp(m[i].name, "*") == 0)
            other = &m[i];
    }
    return other;
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
