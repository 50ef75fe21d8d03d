#pragma once
/* Erasing a subject everywhere: rows, the data files and checkpoints of the runs that learned from
 * it, and the artefacts that came of them, with a signed receipt.
 *
 * What is live goes on being served: it is marked, cannot be promoted again, and is deleted once a
 * retraining without the erased feedback has replaced it. Nothing outside the state directory is
 * deleted; what lies there is named in the receipt. */
#include "core/base/err.h"
#include "serve/store/erasure.h"

#include <jansson.h>

#define ERASE_RECEIPT_TYPE "application/vnd.hone.erasure-receipt+json"

/* What erase_run would do (new reference): erasure_plan's, with "files" of each run and "limits",
 * what no erasure here can reach. */
int erase_plan(json_t **plan, store *st, const char *state_dir, const erasure_subject *who,
               hone_err *e);

/* Erases. *receipt (new reference): {"receipt": {"id", "subject", "requests", "feedback",
 * "feedback_ids", "runs", "artefacts", "files_removed", "bytes_removed", "finished", "limits"},
 * "envelope": the same, signed (sign_envelope)}. Killed on the way, what is left is done by the
 * next call, or by erase_resume. */
int erase_run(json_t **receipt, store *st, const char *state_dir, const erasure_subject *who,
              const char *actor, hone_err *e);

/* Finishes what an earlier process began, and deletes marked artefacts that are no longer live. */
int erase_resume(store *st, const char *state_dir, hone_err *e);
