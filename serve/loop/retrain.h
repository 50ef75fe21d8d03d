#pragma once
/* One round of the loop: accepted feedback becomes examples, a candidate is trained from the base
 * with replay, compared with what is live, judged, registered with its manifest, and promoted when
 * policy allows. While what is live learned from erased feedback, a round is a rebuild: it needs no
 * new feedback, and only has to be no worse. Killed at any point nothing is half promoted: files
 * appear whole, and artefact, run and alias change in one transaction. */
#include "adapters/sign.h"
#include "core/base/err.h"
#include "core/base/hook.h"
#include "serve/loop/retrain_conf.h"
#include "serve/store/store.h"

#include <jansson.h>

typedef struct retrain_options {
    store *st;
    const char *state_dir;
    const char *model_dir, *adapter_dir; /* as configured: what is live while the alias is unset */
    const char *device;
    int threads;
    const char *dtype; /* "f32" or "bf16" for the evaluation, as it is served */
    const retrain_conf *conf;
    const sign_trust *trust; /* the candidate is signed with the key of state_dir */
    hooks *hooks;            /* may be NULL */
    const char *by;          /* who asked, for the history */
} retrain_options;

/* *report: {"run", "status", "verdict", "reasons", "artefact", "examples": {...}, "holdout":
 * comparison, "feedback": comparison, "promoted"}, new reference, also written to
 * <state>/runs/<id>/report.json. Status "nothing": too little new feedback (no run is made). */
int retrain_run(json_t **report, const retrain_options *o, hone_err *e);
