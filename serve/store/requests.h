#pragma once
/* Stored requests: what was asked, what was answered, by which weights. Feedback refers to them.
 *
 * A record is a JSON object:
 *   id, ts (ms), key_id, user_hash, ip, route, status, error_code
 *   model, model_digest, adapter_digest, template_digest
 *   params {}, messages [] or prompt "", choices [{index, text, finish_reason}], metadata {}
 *   finish_reason, tok_in, tok_out, ttft_ms, e2e_ms
 *   keep: "none" (only usage and audit log), "metadata" (no text), "full"
 *   expires_at (ms; absent: never)
 * Absent fields are NULL in the database. */
#include "serve/store/store.h"

#include <jansson.h>

/* Queues the record (takes the reference): its row, the tokens of its key, and its audit record, in
 * one transaction. EAGAIN when the queue is full: nothing is written, the store counts the drop. */
int requests_post(store *s, json_t *record);

/* New reference; ENOTFOUND. */
int requests_get(store *s, const char *id, json_t **out, hone_err *e);

/* Deletes the rows whose time is over; *n of them. Feedback stays: it has its own snapshot. */
int requests_purge(store *s, int64_t *n, hone_err *e);

/* What stands for a user in the database: 32 hex digits, keyed, so that ids cannot be guessed from
 * it. */
void requests_user_hash(const store *s, const char *user, char out[33]);
