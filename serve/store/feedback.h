#pragma once
/* What users say about answers: ratings, corrections, comments. Each is bound to a stored response
 * and keeps a snapshot of what was asked and answered and by which weights, so that it outlives the
 * stored response.
 *
 * As JSON (what feedback_each gives, what the API shows, one line of a raw export):
 *   id, object "feedback", seq, response_id, choice_index, created (ms), updated (ms), version
 *   rating -1 | 0 | 1 | null, score, reason, tags [], comment
 *   correction {"role": "assistant", "content": ...} | null
 *   preferred_over: id of a response to the same prompt that was worse | null
 *   source "end_user" | "annotator" | "auto" | "implicit", key_id, user_hash, model
 *   review "pending" | "approved" | "rejected", reviewer, reviewed_at, used_in_runs []
 *   snapshot {model, model_digest, adapter_digest, template_digest, params, messages [] or prompt
 * "", answer "", finish_reason, ts, over "" (the answer that was worse)}, snapshot_sha256 */
#include "serve/store/store.h"

#include <jansson.h>

/* Checks what a client sent and brings it into one form (new reference): response_id ("id" is
 * another name), choice_index, rating (-1, 0, 1, "up", "down", "none"), score, correction (text, or
 * an assistant message), comment, reason, tags, preferred_over, user, idempotency_key. EFORMAT or
 * EINVAL names the field; *field (may be NULL) is that name, borrowed from a static table, or NULL.
 * Something must be said: a rating, score, correction, comment, reason, tag or preference. */
int feedback_form(const json_t *body, json_t **out, const char **field, hone_err *e);

/* Who writes. The credential must have received the response itself, or may read all feedback
 * (any_response). */
typedef struct feedback_author {
    const char *key_id;    /* NULL: no keys in use */
    const char *user_hash; /* NULL: unknown */
    const char *source;    /* NULL: "end_user" */
    const char *actor;     /* for the audit log */
    bool any_response;
} feedback_author;

/* Stores one; durable when it returns. `form` as feedback_form makes it.
 *
 * One opinion a user on one choice: without an idempotency key the (key, user, response, choice) is
 * one, and a repeat updates the fields that it gives and counts the version up; what was reviewed
 * has to be reviewed again. *created says which. *out (new reference) is the record. Errors:
 * ENOTFOUND for a response that is unknown or another's; EDENIED for a response whose text was not
 * stored; EEXIST when the idempotency key was used for another response; EINVAL for a choice that
 * the response does not have, or a preference over an answer to another prompt. */
int feedback_put(store *s, const json_t *form, const feedback_author *a, json_t **out,
                 bool *created, hone_err *e);

/* Changes one by its id; same rules. */
int feedback_change(store *s, const char *id, const json_t *form, const feedback_author *a,
                    json_t **out, hone_err *e);
int feedback_delete(store *s, const char *id, const feedback_author *a, hone_err *e);
int feedback_get(store *s, const char *id, json_t **out, hone_err *e);

/* One line of an import: the form above without response_id, but with messages (or prompt) and
 * answer; or a line of a raw export. The id comes from the content, so that importing twice adds
 * nothing (*created says). EDENIED when it, its user or its key was erased here. */
int feedback_import(store *s, const json_t *line, const char *actor, bool *created, hone_err *e);

/* Zero is no condition. */
typedef struct feedback_filter {
    int64_t after_seq;          /* cursor: only later ones */
    int64_t since_ms, until_ms; /* by last change */
    const char *model, *tag, *review, *source, *key_id, *user_hash, *response_id;
    bool with_rating; /* only those rated `rating` */
    int rating;
    bool corrected; /* only those with a correction */
    bool unused;    /* only those that no run has used */
    int64_t limit;
} feedback_filter;

/* In order of seq, borrowed objects; a negative return of fn ends it and is returned. One read
 * transaction: what is written meanwhile is not seen. */
typedef int feedback_fn(void *user, json_t *fb, hone_err *e);
int feedback_each(store *s, const feedback_filter *f, feedback_fn *fn, void *user, hone_err *e);

/* What users say, by the model that answered, since then (0: ever): an array (new reference) of
 * {model, model_digest, adapter_digest, answers, failed, rated, up, none, down, corrected}. Answers
 * count as long as they are stored, failed ones among them; feedback that was rejected does not
 * count. A digest may be "". */
int feedback_models(store *s, int64_t since_ms, json_t **out, hone_err *e);

/* "approved", "rejected" or "pending". ENOTFOUND. */
int feedback_review(store *s, const char *id, const char *verdict, const char *reviewer,
                    hone_err *e);

/* Notes that a run learned from these (array of ids). All or none; again is no error. ENOTFOUND
 * names an unknown id. */
int feedback_mark_used(store *s, const json_t *ids, const char *run_id, hone_err *e);

/* Rows for trainers, in the formats of TRL. A record gives none, one or several; they are appended
 * to out. kto  {prompt, completion, label}: rated up is true, rated down is false dpo  {prompt,
 * chosen, rejected}: a correction over the answer, a preferred answer over the other sft {messages}
 * or {prompt, completion}: the correction, else an answer rated up raw  the record itself Messages
 * stay messages (the conversational form); the answer to a plain prompt stays text. */
typedef enum { FEEDBACK_RAW, FEEDBACK_KTO, FEEDBACK_DPO, FEEDBACK_SFT } feedback_format;
/* A number from 0 up to 1 that is a function of what was asked alone: what lies below a share is
 * held out, in exports as in retraining, so that a question never changes sides. */
double feedback_side(const json_t *fb);
int feedback_format_by_name(feedback_format *out, const char *name, hone_err *e);
void feedback_rows(feedback_format format, const json_t *fb, json_t *out);
