#pragma once
/* Audit records written in the transaction of what they record. Internal to serve/store. */
#include "serve/store/audit.h"
#include "serve/store/db.h"

/* New reference: the record without its number. */
json_t *audit_record(const audit_event *ev);

/* Numbers the record and appends it; for use inside a store_fn. */
int audit_add(sqlite3 *db, const store *s, json_t *record, hone_err *e);

/* Emits AUDIT_EVENT for a committed record; takes the reference. */
void audit_tell(const store *s, json_t *record);
