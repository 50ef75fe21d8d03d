#pragma once
/* Erasing what a subject left: a user, or everything that one key sent. Rows go in one transaction,
 * which also notes what learned from them; files are the caller's (serve/loop/erase.h), so an
 * erasure is pending until it is told that they are gone.
 *
 * A tombstone (a keyed digest) of the subject and of each piece of feedback stays, so that an
 * import does not bring them back. */
#include "serve/store/store.h"

#include <jansson.h>

typedef enum { ERASURE_USER, ERASURE_KEY } erasure_kind;

typedef struct erasure_subject {
    erasure_kind kind;
    const char *id; /* a user's hash (requests_user_hash), or a key's id */
} erasure_subject;

/* What would be erased, and what is touched by it (new reference):
 * {"subject": {"kind", "id"}, "requests", "feedback", "runs": [id],
 *  "artefacts": [{"digest", "kind", "path", "live"}]}
 * Runs are those that were given any of the feedback; artefacts what they made, and what was made
 * from that. ENOTFOUND when nothing is stored of the subject. */
int erasure_plan(store *s, const erasure_subject *who, json_t **plan, hone_err *e);

/* Deletes the rows, leaves the tombstones, and marks the artefacts as tainted: they cannot become
 * live any more. *record is the plan with "id", "ts" and "feedback_ids" (digests). */
int erasure_begin(store *s, const erasure_subject *who, const char *actor, json_t **record,
                  hone_err *e);

/* Erasures that have begun, and whose files are not known to be gone: array of records. */
int erasure_pending(store *s, json_t **records, hone_err *e);
/* They are gone: keeps the receipt. */
int erasure_finish(store *s, const char *id, const json_t *receipt, hone_err *e);
/* The receipt of an erasure. ENOTFOUND; EAGAIN while it is pending. */
int erasure_receipt(store *s, const char *id, json_t **receipt, hone_err *e);

/* Tainted artefacts whose files stand and that are not live: [{"digest", "path"}]. */
int erasure_leftovers(store *s, json_t **list, hone_err *e);
int erasure_removed(store *s, const char *digest, hone_err *e);
