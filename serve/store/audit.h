#pragma once
/* The audit log: append-only, each record chained to the one before it by a keyed digest, so that a
 * changed, removed or inserted record shows. What was cut off at the end shows too, when the
 * operator has noted a head before.
 *
 * digest(n) = BLAKE2b-256 keyed with the pepper over digest(n-1) followed by the record's line;
 * digest(0) is 32 zero bytes. The line is canonical JSON (sorted keys): action, actor, detail, ip,
 * request_id, seq, target, ts. */
#include "serve/store/store.h"

#include <jansson.h>

/* Borrowed while the call runs. Unused fields are NULL. */
typedef struct audit_event {
    const char *action; /* "key.create", "request", "auth.failed", "server.start", ... */
    const char *actor;  /* key id, or "cli:<user>" */
    const char *target; /* what was acted on */
    const char *request_id, *ip;
    const json_t *detail; /* an object */
} audit_event;

/* Durable when it returns. Then AUDIT_EVENT is emitted. */
int audit_append(store *s, const audit_event *ev, hone_err *e);

/* Queued; EAGAIN when the queue is full (counted as dropped by the store, to be shown as a metric).
 */
int audit_post(store *s, const audit_event *ev);

typedef struct audit_report {
    int64_t n;     /* records */
    char head[65]; /* digest of the last; 64 zeros for an empty log */
    bool found;    /* `head` that was asked for is in the chain */
} audit_report;

/* Recomputes the whole chain. EFORMAT names the first record that does not fit. With `head` (64 hex
 * digits, may be NULL) a chain that no longer holds that record is EFORMAT too. */
int audit_verify(store *s, const char *head, audit_report *out, hone_err *e);

/* The records after `seq`, in order, as JSON objects (borrowed) with their digest as "hash"; a
 * negative return of fn ends it and is returned. */
typedef int audit_fn(void *user, const json_t *record, hone_err *e);
int audit_each(store *s, int64_t seq, audit_fn *fn, void *user, hone_err *e);
